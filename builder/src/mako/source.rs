//! Generated Starlark, and where each of its lines comes from.

use std::fmt::Write as _;

use super::lexer::Code;

/// The place of a line's code in a template.
#[derive(Debug, Clone, Copy)]
struct Origin {
    /// An index into the files.
    file: usize,
    /// The offset in the file's text of what begins at `column`.
    offset: usize,
    /// The column where the template's own code begins, in characters from 0.
    column: usize,
}

/// Starlark under construction.
#[derive(Debug, Default)]
pub(crate) struct Source {
    pub(crate) text: String,
    origins: Vec<Option<Origin>>,
    depth: usize,
}

impl Source {
    /// What follows stands one level deeper.
    pub(super) fn indent(&mut self) {
        self.depth += 1;
    }

    /// What follows stands one level up.
    pub(super) fn outdent(&mut self) {
        self.depth -= 1;
    }

    fn begin(&mut self) -> usize {
        let width = self.depth * 4;
        self.text.push_str(&" ".repeat(width));
        width
    }

    /// A line that no template wrote.
    pub(super) fn line(&mut self, text: &str) {
        self.begin();
        self.text.push_str(text);
        self.text.push('\n');
        self.origins.push(None);
    }

    /// Code between a prefix and a suffix; what follows its line breaks stands as it is.
    pub(super) fn code(&mut self, file: usize, prefix: &str, code: &Code, suffix: &str) {
        let mut column = self.begin() + prefix.chars().count();
        self.text.push_str(prefix);
        let mut offset = code.offset;
        let text = rewrite_is(&code.text);
        for (index, line) in text.split('\n').enumerate() {
            if index > 0 {
                self.text.push('\n');
                column = 0;
            }
            self.text.push_str(line);
            self.origins.push(Some(Origin { file, offset, column }));
            offset += line.len() + 1;
        }
        self.text.push_str(suffix);
        self.text.push('\n');
    }

    /// Statements: their own indentation is taken off, that of the place is put in front.
    pub(super) fn statements(&mut self, file: usize, code: &Code) {
        let text = rewrite_is(&code.text);
        // The first line begins behind `<%`, whatever stands before that.
        let rest = || text.split('\n').skip(1).filter(|line| !line.trim().is_empty());
        let common = rest().map(|line| line.len() - line.trim_start().len()).min().unwrap_or(0);
        let mut offset = code.offset;
        for (index, line) in text.split('\n').enumerate() {
            let cut = if index == 0 { line.len() - line.trim_start().len() } else { common.min(line.len()) };
            let column = self.begin();
            self.text.push_str(line[cut..].trim_end());
            self.text.push('\n');
            self.origins.push(Some(Origin { file, offset: offset + cut, column }));
            offset += line.len() + 1;
        }
    }

    /// The file and the offset that a line and column of the generated text come from; both count from 1.
    pub(crate) fn origin(&self, line: u32, column: u32) -> Option<(usize, usize)> {
        let index = usize::try_from(line).ok()?.checked_sub(1)?;
        let origin = (*self.origins.get(index)?)?;
        let line = self.text.split('\n').nth(index)?;
        let column = usize::try_from(column).ok()?.checked_sub(1)?;
        let bytes: usize = line.chars().take(column).skip(origin.column).map(char::len_utf8).sum();
        Some((origin.file, origin.offset + bytes))
    }
}

/// A text as Starlark writes it.
pub(super) fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// Python's `is` and `is not`, which Starlark does not have, as `==` and `!=`, of the same length.
fn rewrite_is(code: &str) -> String {
    let mut out = String::with_capacity(code.len());
    let mut at = 0;
    while at < code.len() {
        let rest = &code[at..];
        if rest.starts_with(['"', '\'']) {
            let length = super::lexer::string_length(rest).unwrap_or(rest.len());
            out.push_str(&rest[..length]);
            at += length;
            continue;
        }
        let alone = |word: &str| rest.starts_with(word) && out.ends_with([' ', ')']) && rest[word.len()..].starts_with([' ', '\n']);
        if alone("is not") {
            out.push_str("!=    ");
            at += 6;
        } else if alone("is") {
            out.push_str("==");
            at += 2;
        } else {
            let length = rest.chars().next().map_or(1, char::len_utf8);
            out.push_str(&rest[..length]);
            at += length;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_becomes_equality_outside_of_strings() {
        for (code, expected) in [
            ("x is None", "x == None"),
            ("x is not None and 'a is b'", "x !=     None and 'a is b'"),
            ("this(x) is y", "this(x) == y"),
            ("island", "island"),
            ("list", "list"),
        ] {
            assert_eq!(rewrite_is(code), expected);
        }
    }

    #[test]
    fn places_are_found_again() {
        let mut source = Source::default();
        source.line("def f():");
        source.indent();
        source.code(0, "write(", &Code { text: "ä + b".to_owned(), offset: 10 }, ")");
        source.statements(1, &Code { text: "\n    x = 1\n      y".to_owned(), offset: 100 });
        assert_eq!(source.text, "def f():\n    write(ä + b)\n    \n    x = 1\n      y\n");
        assert_eq!(source.origin(1, 1), None);
        assert_eq!(source.origin(2, 11), Some((0, 10)));
        assert_eq!(source.origin(2, 15), Some((0, 15)));
        assert_eq!(source.origin(4, 5), Some((1, 105)));
        assert_eq!(source.origin(5, 7), Some((1, 117)));
    }
}

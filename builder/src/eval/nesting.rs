//! A look at a source text before the parser sees it: what is nested too deeply would end the process, not the evaluation.
//!
//! Parser and evaluator recurse over the syntax tree, and a chain of operators, calls or `elif` branches is as deep as it is
//! long. This scan is cheaper than a parser and errs on the side of counting too much.

/// The most levels, counting chained operators; the stack holds four times as many.
pub(super) const LEVELS_MAX: usize = 5_000;

/// The byte offset at which a text becomes too deep, if it does.
pub(super) fn too_deep_at(text: &str) -> Option<usize> {
    let mut scan = Scan { bytes: text.as_bytes(), at: 0, open: vec![0], branches: 0, indent: 0 };
    while scan.at < scan.bytes.len() {
        let start = scan.at;
        scan.token();
        let chained: usize = scan.open.last().copied().unwrap_or(0);
        if chained + scan.open.len() * 4 + scan.branches + scan.indent > LEVELS_MAX || scan.total() > LEVELS_MAX * 2 {
            return Some(start);
        }
    }
    None
}

struct Scan<'a> {
    bytes: &'a [u8],
    at: usize,
    /// Operators since the last comma, for every open bracket.
    open: Vec<usize>,
    /// `elif` since the last line without indentation that is none.
    branches: usize,
    /// Spaces at the start of the line.
    indent: usize,
}

impl Scan<'_> {
    fn total(&self) -> usize {
        self.open.iter().rev().take(64).sum()
    }

    fn chain(&mut self) {
        if let Some(last) = self.open.last_mut() {
            *last += 1;
        }
    }

    fn token(&mut self) {
        let byte = self.bytes[self.at];
        match byte {
            b'#' => self.at += self.bytes[self.at..].iter().position(|byte| *byte == b'\n').unwrap_or(self.bytes.len() - self.at),
            b'"' | b'\'' => self.string(byte),
            b'(' | b'[' | b'{' => {
                self.chain();
                self.open.push(0);
                self.at += 1;
            }
            b')' | b']' | b'}' => {
                if self.open.len() > 1 {
                    self.open.pop();
                }
                self.at += 1;
            }
            b',' => {
                *self.open.last_mut().expect("never empty") = 0;
                self.at += 1;
            }
            b'\n' => {
                self.at += 1;
                if self.open.len() == 1 {
                    self.open[0] = 0;
                    self.indent = self.bytes[self.at..].iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
                }
            }
            b'+' | b'-' | b'*' | b'/' | b'%' | b'|' | b'&' | b'^' | b'~' | b'<' | b'>' | b'=' | b'.' => {
                self.chain();
                self.at += 1;
            }
            b'a'..=b'z' | b'A'..=b'Z' | b'_' => self.word(),
            _ => self.at += 1,
        }
    }

    fn word(&mut self) {
        let length = self.bytes[self.at..].iter().take_while(|byte| byte.is_ascii_alphanumeric() || **byte == b'_').count();
        match &self.bytes[self.at..self.at + length] {
            b"elif" => self.branches += 1,
            b"def" => self.branches = 0,
            b"not" | b"and" | b"or" | b"if" | b"else" | b"lambda" | b"in" | b"for" => self.chain(),
            _ => {}
        }
        self.at += length;
    }

    fn string(&mut self, quote: u8) {
        let triple = self.bytes[self.at..].starts_with(&[quote; 3]);
        let end: &[u8] = if triple { &[quote; 3] } else { &[quote] };
        self.at += end.len();
        while self.at < self.bytes.len() && !self.bytes[self.at..].starts_with(end) {
            match self.bytes[self.at] {
                b'\\' => self.at += 2,
                b'\n' if !triple => return,
                _ => self.at += 1,
            }
        }
        self.at = (self.at + end.len()).min(self.bytes.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deep_texts_are_found_and_long_ones_are_not() {
        for deep in [
            "[".repeat(6000),
            format!("x = {}1", "-".repeat(6000)),
            format!("x = 1{}", " + 1".repeat(6000)),
            format!("x = f{}", "()".repeat(6000)),
            format!("x = f{}", "(1, 2)".repeat(6000)),
            format!("def f(x):\n  if x:\n    pass\n{}", "  elif x:\n    pass\n".repeat(6000)),
            format!("x = 1{}", " if 1 else 1".repeat(6000)),
        ] {
            assert!(too_deep_at(&deep).is_some(), "{}", &deep[..20]);
        }
        let list = format!("x = [\n{}]\n", "  \"a\" + \"b(((((\",  # ((((\n".repeat(20_000));
        let lines = "x = f(a.b, c)[0]\n".repeat(20_000);
        let text = format!("x = \"\"\"{}\"\"\"\n", "(((\n".repeat(9000));
        assert_eq!([list, lines, text].map(|text| too_deep_at(&text)), [None, None, None]);
    }
}

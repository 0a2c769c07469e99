//! The pieces of a Mako template: texts, expressions, control lines, blocks of code, tags.

/// Code of a template, with the place of its first byte.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Code {
    pub(super) text: String,
    pub(super) offset: usize,
}

/// One piece.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Piece {
    Text(String),
    /// `${code | filters}`.
    Expression {
        code: Code,
        filters: Vec<Code>,
    },
    /// `% code`.
    Control(Code),
    /// `<% code %>`, or `<%! code %>` with `module`.
    Block {
        code: Code,
        module: bool,
    },
    /// `<%name ...>`; `closed` if it ends with `/>`.
    Open {
        tag: Tag,
        closed: bool,
    },
    /// `</%name>`.
    Close {
        name: String,
        offset: usize,
    },
}

/// A tag without what stands in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tag {
    pub(super) name: String,
    pub(super) attributes: Vec<(String, Code)>,
    pub(super) offset: usize,
}

/// What is wrong with a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wrong {
    pub(super) message: String,
    pub(super) offset: usize,
    pub(super) hint: Option<String>,
}

impl Wrong {
    pub(super) fn new(offset: usize, message: impl Into<String>) -> Self {
        Self { message: message.into(), offset, hint: None }
    }

    pub(super) fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }
}

/// Takes a template apart.
pub(super) fn pieces(text: &str) -> Result<Vec<Piece>, Wrong> {
    let mut lexer = Lexer { text, at: 0, pieces: Vec::new() };
    while lexer.at < text.len() {
        lexer.step()?;
    }
    Ok(lexer.pieces)
}

struct Lexer<'a> {
    text: &'a str,
    at: usize,
    pieces: Vec<Piece>,
}

impl<'a> Lexer<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn push_text(&mut self, text: &str) {
        if let Some(Piece::Text(before)) = self.pieces.last_mut() {
            before.push_str(text);
        } else if !text.is_empty() {
            self.pieces.push(Piece::Text(text.to_owned()));
        }
    }

    fn step(&mut self) -> Result<(), Wrong> {
        if (self.at == 0 || self.text[..self.at].ends_with('\n')) && self.take_line()? {
            return Ok(());
        }
        let rest = self.rest();
        if let Some(joined) = ["\\\n", "\\\r\n"].into_iter().find(|joined| rest.starts_with(joined)) {
            self.at += joined.len();
            return Ok(());
        }
        if rest.starts_with("${") {
            return self.take_expression();
        }
        if rest.starts_with("</%") {
            return self.take_close();
        }
        if let Some(after) = rest.strip_prefix("<%") {
            return if after.starts_with(|c: char| c.is_ascii_alphabetic()) { self.take_tag() } else { self.take_block() };
        }
        let end = self.text_end();
        let text = &self.text[self.at..end];
        self.push_text(text);
        self.at = end;
        Ok(())
    }

    /// The end of the text that begins here: at the next thing that could be something else.
    fn text_end(&self) -> usize {
        let rest = self.rest();
        for (index, c) in rest.char_indices().skip(1) {
            let here = &rest[index..];
            let special = match c {
                '$' => here.starts_with("${"),
                '<' => here.starts_with("<%") || here.starts_with("</%"),
                '\\' => here.starts_with("\\\n") || here.starts_with("\\\r\n"),
                _ => false,
            };
            if special || rest[..index].ends_with('\n') {
                return self.at + index;
            }
        }
        self.text.len()
    }

    /// Takes a comment or control line, if one begins here.
    fn take_line(&mut self) -> Result<bool, Wrong> {
        let rest = self.rest();
        let trimmed = rest.trim_start_matches([' ', '\t']);
        let blanks = rest.len() - trimmed.len();
        if trimmed.starts_with("##") {
            self.at += rest.find('\n').map_or(rest.len(), |end| end + 1);
            return Ok(true);
        }
        if trimmed.starts_with("%%") {
            let text = format!("{}%", &rest[..blanks]);
            self.push_text(&text);
            self.at += blanks + 2;
            return Ok(true);
        }
        if !trimmed.starts_with('%') {
            return Ok(false);
        }
        if trimmed.starts_with("%>") {
            return Err(Wrong::new(self.at + blanks, "`%>` ends no block of code"));
        }
        let start = self.at + blanks + 1;
        let mut end = start;
        let mut code = String::new();
        for line in self.text[start..].split_inclusive('\n') {
            end += line.len();
            let line = line.trim_end_matches(['\n', '\r']);
            let Some(continued) = line.strip_suffix('\\') else {
                code.push_str(line);
                break;
            };
            code.push_str(continued);
            code.push(' ');
        }
        let leading = code.len() - code.trim_start().len();
        self.pieces.push(Piece::Control(Code { text: code.trim().to_owned(), offset: start + leading }));
        self.at = end;
        Ok(true)
    }

    fn take_expression(&mut self) -> Result<(), Wrong> {
        let start = self.at + 2;
        let unclosed = || Wrong::new(start - 2, "this `${` is not closed");
        let (end, found) = scan(self.text, start, &["|", "}"]).ok_or_else(unclosed)?;
        let mut filters = Vec::new();
        let mut after = end + 1;
        if found == "|" {
            let mut from = end + 1;
            loop {
                let (end, found) = scan(self.text, from, &[",", "}"]).ok_or_else(unclosed)?;
                filters.push(code_between(self.text, from, end));
                from = end + 1;
                if found == "}" {
                    after = from;
                    break;
                }
            }
        }
        let code = code_between(self.text, start, end);
        if code.text.is_empty() {
            return Err(Wrong::new(start - 2, "`${}` holds no expression"));
        }
        self.pieces.push(Piece::Expression { code, filters });
        self.at = after;
        Ok(())
    }

    fn take_block(&mut self) -> Result<(), Wrong> {
        let module = self.rest().starts_with("<%!");
        let start = self.at + if module { 3 } else { 2 };
        let (end, _) = scan(self.text, start, &["%>"]).ok_or_else(|| Wrong::new(self.at, "this `<%` is not closed by `%>`"))?;
        self.pieces.push(Piece::Block { code: Code { text: self.text[start..end].to_owned(), offset: start }, module });
        self.at = end + 2;
        Ok(())
    }

    fn take_close(&mut self) -> Result<(), Wrong> {
        let rest = &self.rest()[3..];
        let end = rest.find('>').ok_or_else(|| Wrong::new(self.at, "this `</%` is not closed by `>`"))?;
        self.pieces.push(Piece::Close { name: rest[..end].trim().to_owned(), offset: self.at });
        self.at += 3 + end + 1;
        Ok(())
    }

    fn take_tag(&mut self) -> Result<(), Wrong> {
        let offset = self.at;
        let unclosed = || Wrong::new(offset, "this tag is not closed by `>`");
        let rest = &self.rest()[2..];
        let length = rest.find(|c: char| !(c.is_ascii_alphanumeric() || "_:.".contains(c))).ok_or_else(unclosed)?;
        let name = rest[..length].to_owned();
        self.at += 2 + length;
        let mut attributes = Vec::new();
        let closed = loop {
            let rest = self.rest();
            let trimmed = rest.trim_start();
            self.at += rest.len() - trimmed.len();
            if trimmed.starts_with("/>") {
                self.at += 2;
                break true;
            }
            if trimmed.starts_with('>') {
                self.at += 1;
                break false;
            }
            attributes.push(self.take_attribute().ok_or_else(unclosed)?);
        };
        for (raw, drop) in [("doc", true), ("text", false)] {
            if name == raw && !closed {
                let close = format!("</%{raw}>");
                let length = self.rest().find(&close).ok_or_else(|| Wrong::new(offset, format!("`<%{raw}>` is not closed")))?;
                let text = self.rest()[..length].to_owned();
                if !drop {
                    self.push_text(&text);
                }
                self.at += length + close.len();
                return Ok(());
            }
        }
        self.pieces.push(Piece::Open { tag: Tag { name, attributes, offset }, closed });
        Ok(())
    }

    fn take_attribute(&mut self) -> Option<(String, Code)> {
        let rest = self.rest();
        let (name, after) = rest.split_once('=')?;
        let value = after.trim_start();
        let quote = value.chars().next().filter(|c| ['"', '\''].contains(c))?;
        let end = value[1..].find(quote)?;
        let name = name.trim();
        if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
            return None;
        }
        let start = self.at + (rest.len() - value.len()) + 1;
        self.at = start + end + 1;
        Some((name.to_owned(), Code { text: value[1..=end].to_owned(), offset: start }))
    }
}

fn code_between(text: &str, start: usize, end: usize) -> Code {
    let written = &text[start..end];
    let leading = written.len() - written.trim_start().len();
    Code { text: written.trim().to_owned(), offset: start + leading }
}

/// The first of `ends` in code, outside of strings, comments and brackets.
fn scan<'e>(text: &str, start: usize, ends: &[&'e str]) -> Option<(usize, &'e str)> {
    let bytes = text.as_bytes();
    let mut at = start;
    let mut depth = 0_usize;
    let in_block = ends == ["%>"];
    while at < bytes.len() {
        let rest = text.get(at..)?;
        if (depth == 0 || in_block)
            && let Some(end) = ends.iter().find(|end| rest.starts_with(**end))
        {
            return Some((at, end));
        }
        match bytes[at] {
            b'#' if in_block => {
                // A comment ends with its line, or with the block.
                let line = rest.find('\n').unwrap_or(rest.len());
                at += rest.find("%>").unwrap_or(line).min(line);
                continue;
            }
            b'"' | b'\'' => {
                at += string_length(rest)?;
                continue;
            }
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        at += rest.chars().next().map_or(1, char::len_utf8);
    }
    None
}

/// The length of the string that begins a text.
pub(super) fn string_length(text: &str) -> Option<usize> {
    let quote = &text[..1];
    let triple = quote.repeat(3);
    let end = if text.starts_with(&triple) { triple.as_str() } else { quote };
    let mut at = end.len();
    while at < text.len() {
        if text[at..].starts_with(end) {
            return Some(at + end.len());
        }
        if text[at..].starts_with('\\') {
            at += 1;
        }
        at += text.get(at..)?.chars().next()?.len_utf8();
    }
    None
}

//! YAML: written so that every reader, of version 1.1 or 1.2, finds the same values; read by the core schema of version 1.2.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Span, Tag};

use super::{Data, NESTING_MAX, ParseError};

/// The most values of one file, those that aliases repeat counted each time: nine lines of aliases can stand for a billion.
const VALUES_MAX: usize = 1_000_000;

/// Words that are no texts to some reader.
const WORDS: [&str; 11] = ["null", "true", "false", "yes", "no", "on", "off", "y", "n", "inf", "nan"];

/// Writes data as one document in block style, with a final line break.
pub(crate) fn write(data: &Data) -> String {
    let mut out = String::new();
    match shape(data) {
        Shape::Dict(entries) => write_dict(&mut out, entries, 0, ""),
        Shape::List(values) => write_list(&mut out, values, 0, ""),
        Shape::Scalar => {
            write_scalar(&mut out, data, 2);
            out.push('\n');
        }
    }
    out
}

/// What takes lines of its own, and what stands in the line of its key.
enum Shape<'a> {
    Dict(&'a [(String, Data)]),
    List(&'a [Data]),
    Scalar,
}

fn shape(data: &Data) -> Shape<'_> {
    match data {
        Data::Dict(entries) if !entries.is_empty() => Shape::Dict(entries),
        Data::List(values) if !values.is_empty() => Shape::List(values),
        Data::None
        | Data::Bool(_)
        | Data::Int(_)
        | Data::Float(_)
        | Data::Text(_)
        | Data::List(_)
        | Data::Dict(_)
        | Data::Path(_)
        | Data::Address(_) => Shape::Scalar,
    }
}

/// Writes entries whose keys stand at `indent`; the first one follows `lead`, which stands already on its line.
fn write_dict(out: &mut String, entries: &[(String, Data)], indent: usize, lead: &str) {
    for (index, (key, value)) in entries.iter().enumerate() {
        if index > 0 || lead.is_empty() {
            out.push_str(&" ".repeat(indent));
        }
        write_text(out, key);
        out.push(':');
        match shape(value) {
            Shape::Dict(entries) => {
                out.push('\n');
                write_dict(out, entries, indent + 2, "");
            }
            Shape::List(values) => {
                out.push('\n');
                write_list(out, values, indent + 2, "");
            }
            Shape::Scalar => {
                out.push(' ');
                write_scalar(out, value, indent + 2);
                out.push('\n');
            }
        }
    }
}

fn write_list(out: &mut String, values: &[Data], indent: usize, lead: &str) {
    for (index, value) in values.iter().enumerate() {
        if index > 0 || lead.is_empty() {
            out.push_str(&" ".repeat(indent));
        }
        out.push_str("- ");
        match shape(value) {
            Shape::Dict(entries) => write_dict(out, entries, indent + 2, "- "),
            Shape::List(values) => write_list(out, values, indent + 2, "- "),
            Shape::Scalar => {
                write_scalar(out, value, indent + 2);
                out.push('\n');
            }
        }
    }
}

fn write_scalar(out: &mut String, data: &Data, indent: usize) {
    match data {
        Data::None => out.push_str("null"),
        Data::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
        Data::Int(value) => {
            let _ = write!(out, "{value}");
        }
        Data::Float(value) => out.push_str(&float(*value)),
        Data::Text(text) if is_block(text) => write_block(out, text, indent),
        Data::Text(text) => write_text(out, text),
        Data::Path(path) => write_text(out, &path.to_string()),
        Data::Address(address) => write_text(out, &address.to_string()),
        Data::List(_) => out.push_str("[]"),
        Data::Dict(_) => out.push_str("{}"),
    }
}

/// A float that readers of version 1.1 take for one: with a point, and a sign in the exponent.
fn float(value: f64) -> String {
    let text = format!("{value:?}");
    let Some((mantissa, exponent)) = text.split_once('e') else { return text };
    let point = if mantissa.contains('.') { "" } else { ".0" };
    let sign = if exponent.starts_with('-') { "" } else { "+" };
    format!("{mantissa}{point}e{sign}{exponent}")
}

/// Whether a text can stand as a block of lines: several lines, nothing to escape, no blank at the start of the first one.
fn is_block(text: &str) -> bool {
    let first = text.trim_start_matches('\n');
    text.contains('\n') && !first.is_empty() && !first.starts_with([' ', '\t']) && !text.chars().any(|c| c != '\n' && must_be_escaped(c))
}

fn write_block(out: &mut String, text: &str, indent: usize) {
    let body = text.trim_end_matches('\n');
    out.push_str(match text.len() - body.len() {
        0 => "|-",
        1 => "|",
        _ => "|+",
    });
    for line in body.split('\n') {
        out.push('\n');
        if !line.is_empty() {
            out.push_str(&" ".repeat(indent));
            out.push_str(line);
        }
    }
    // The caller writes the last line break.
    out.push_str(&"\n".repeat((text.len() - body.len()).saturating_sub(1)));
}

fn write_text(out: &mut String, text: &str) {
    if is_plain(text) {
        out.push_str(text);
    } else if !text.chars().any(must_be_escaped) {
        let _ = write!(out, "'{}'", text.replace('\'', "''"));
    } else {
        out.push('"');
        for c in text.chars() {
            match c {
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                '\n' => out.push_str("\\n"),
                '\t' => out.push_str("\\t"),
                '\r' => out.push_str("\\r"),
                c if must_be_escaped(c) && u32::from(c) <= 0xffff => {
                    let _ = write!(out, "\\u{:04X}", u32::from(c));
                }
                c if must_be_escaped(c) => {
                    let _ = write!(out, "\\U{:08X}", u32::from(c));
                }
                c => out.push(c),
            }
        }
        out.push('"');
    }
}

fn must_be_escaped(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}')
}

/// Whether a text is one without quotes, to every reader.
fn is_plain(text: &str) -> bool {
    let begins = text.starts_with(|c: char| c.is_alphabetic() || c == '_' || c == '/');
    let allowed = |c: char| c.is_alphanumeric() || "_-./+@ :".contains(c);
    begins
        && text.chars().all(allowed)
        && !text.ends_with([' ', ':'])
        && !text.contains(": ")
        && !WORDS.iter().any(|word| text.eq_ignore_ascii_case(word))
}

/// Reads one document.
pub(crate) fn parse(text: &str) -> Result<Data, ParseError> {
    let mut reader = Reader::default();
    for event in Parser::new_from_str(text.strip_prefix('\u{feff}').unwrap_or(text)) {
        let (event, span) = event.map_err(|error| scan_error(&error))?;
        reader.take(event, span)?;
    }
    Ok(reader.document.unwrap_or(Data::None))
}

fn scan_error(error: &ScanError) -> ParseError {
    let message = error.info().trim_end_matches('.').to_owned();
    wrong_at(error.marker().line(), error.marker().col(), message)
}

fn wrong_at(line: usize, column: usize, message: impl Into<String>) -> ParseError {
    let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    ParseError { message: message.into(), line: count(line).max(1), column: count(column).saturating_add(1) }
}

/// A list or dict whose end is not reached, with its anchor.
enum Open {
    List(Vec<Data>, usize),
    Dict(OpenDict, usize),
}

#[derive(Default)]
struct OpenDict {
    entries: Vec<(String, Data)>,
    /// The keys that stand here, without those that `<<` brought.
    written: BTreeSet<String>,
    /// Whether `<<` brought some.
    merged: bool,
    /// The key that waits for its value.
    key: Option<String>,
}

impl OpenDict {
    /// Takes a key or the value of the key before.
    fn take(&mut self, value: Data) -> Result<(), String> {
        let Some(key) = self.key.take() else {
            let key = key(&value)?;
            if !self.written.insert(key.clone()) {
                return Err(format!("the key `{key}` stands twice"));
            }
            self.key = Some(key);
            return Ok(());
        };
        if key == "<<" && matches!(value, Data::Dict(_) | Data::List(_)) {
            return self.merge(value);
        }
        // What `<<` brought stands below what is written.
        match self.entries.iter_mut().filter(|_| self.merged).find(|(known, _)| *known == key) {
            Some((_, known)) => *known = value,
            None => self.entries.push((key, value)),
        }
        Ok(())
    }

    fn merge(&mut self, value: Data) -> Result<(), String> {
        self.merged = true;
        let below = if let Data::List(values) = value { values } else { vec![value] };
        for value in below {
            let Data::Dict(more) = value else { return Err("`<<` wants a mapping, or a list of them".to_owned()) };
            for (key, value) in more {
                if !self.entries.iter().any(|(known, _)| *known == key) {
                    self.entries.push((key, value));
                }
            }
        }
        Ok(())
    }
}

#[derive(Default)]
struct Reader {
    open: Vec<Open>,
    anchors: BTreeMap<usize, (Data, usize)>,
    document: Option<Data>,
    values: usize,
}

impl Reader {
    fn take(&mut self, event: Event<'_>, span: Span) -> Result<(), ParseError> {
        let wrong = |message: &str| wrong_at(span.start.line(), span.start.col(), message);
        match event {
            Event::SequenceStart(anchor, tag) => {
                check_tag(tag.as_deref(), "seq").map_err(|message| wrong(&message))?;
                self.enter(Open::List(Vec::new(), anchor)).map_err(wrong)
            }
            Event::MappingStart(anchor, tag) => {
                check_tag(tag.as_deref(), "map").map_err(|message| wrong(&message))?;
                self.enter(Open::Dict(OpenDict::default(), anchor)).map_err(wrong)
            }
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some(Open::List(values, anchor)) => self.put(Data::List(values), anchor).map_err(|message| wrong(&message)),
                Some(Open::Dict(dict, anchor)) => self.put(Data::Dict(dict.entries), anchor).map_err(|message| wrong(&message)),
                None => Ok(()),
            },
            Event::Scalar(text, style, anchor, tag) => {
                let value = scalar(&text, style, tag.as_deref()).map_err(|message| wrong(&message))?;
                self.put(value, anchor).map_err(|message| wrong(&message))
            }
            Event::Alias(anchor) => {
                let (value, size) = self.anchors.get(&anchor).cloned().ok_or_else(|| wrong("an alias inside of what it names"))?;
                self.values += size;
                self.put(value, 0).map_err(|message| wrong(&message))
            }
            Event::DocumentStart(_) if self.document.is_some() => Err(wrong("a second document: one file holds one value")),
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentStart(_) | Event::DocumentEnd => Ok(()),
        }
    }

    fn enter(&mut self, open: Open) -> Result<(), &'static str> {
        self.open.push(open);
        if self.open.len() > NESTING_MAX { Err("nested too deeply") } else { Ok(()) }
    }

    /// Puts a complete value where it belongs.
    fn put(&mut self, value: Data, anchor: usize) -> Result<(), String> {
        self.values += 1;
        if self.values > VALUES_MAX {
            return Err(format!("more than {VALUES_MAX} values, aliases counted as often as they are used"));
        }
        if anchor > 0 {
            let size = size_of(&value);
            self.anchors.insert(anchor, (value.clone(), size));
        }
        match self.open.last_mut() {
            None => self.document = Some(value),
            Some(Open::List(values, _)) => values.push(value),
            Some(Open::Dict(dict, _)) => dict.take(value)?,
        }
        Ok(())
    }
}

fn key(value: &Data) -> Result<String, String> {
    match value {
        Data::Text(text) => Ok(text.clone()),
        Data::Bool(_) | Data::Int(_) | Data::None => Ok(value.to_canonical_json()),
        Data::Float(_) | Data::List(_) | Data::Dict(_) | Data::Path(_) | Data::Address(_) => Err("a key that is no text".to_owned()),
    }
}

fn size_of(value: &Data) -> usize {
    1 + match value {
        Data::List(values) => values.iter().map(size_of).sum(),
        Data::Dict(entries) => entries.iter().map(|(_, value)| size_of(value)).sum::<usize>(),
        Data::None | Data::Bool(_) | Data::Int(_) | Data::Float(_) | Data::Text(_) | Data::Path(_) | Data::Address(_) => 0,
    }
}

fn check_tag(tag: Option<&Tag>, expected: &str) -> Result<(), String> {
    match tag {
        Some(tag) if !(tag.is_yaml_core_schema() && tag.suffix == expected) => {
            Err(format!("the tag `{}{}` is not known", tag.handle, tag.suffix))
        }
        _ => Ok(()),
    }
}

fn scalar(text: &str, style: ScalarStyle, tag: Option<&Tag>) -> Result<Data, String> {
    let text_value = || Ok(Data::Text(text.to_owned()));
    match tag {
        Some(tag) if tag.is_yaml_core_schema() && tag.suffix == "str" => return text_value(),
        Some(tag) if tag.is_yaml_core_schema() && ["int", "float", "bool", "null"].contains(&tag.suffix.as_str()) => {}
        Some(tag) => return Err(format!("the tag `{}{}` is not known", tag.handle, tag.suffix)),
        None if style != ScalarStyle::Plain => return text_value(),
        None => {}
    }
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Ok(Data::None),
        "true" | "True" | "TRUE" => return Ok(Data::Bool(true)),
        "false" | "False" | "FALSE" => return Ok(Data::Bool(false)),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "-.inf" | "-.Inf" | ".nan" | ".NaN" | ".NAN" => {
            return Err("a float that is no number".to_owned());
        }
        _ => {}
    }
    if let Some(digits) = text.strip_prefix("0x").or_else(|| text.strip_prefix("0o")).filter(|digits| !digits.is_empty()) {
        let radix = if text.starts_with("0x") { 16 } else { 8 };
        if digits.chars().all(|c| c.is_digit(radix)) {
            return i64::from_str_radix(digits, radix).map(Data::Int).map_err(|_| "an integer beyond 64 bits".to_owned());
        }
    }
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse().map(Data::Int).map_err(|_| "an integer beyond 64 bits".to_owned());
    }
    if is_float(digits) {
        let value = text.parse().ok().filter(|value: &f64| value.is_finite());
        return value.map(Data::Float).ok_or_else(|| "a float that is no number".to_owned());
    }
    text_value()
}

/// Whether an unsigned text is a float: digits with a point or an exponent.
fn is_float(text: &str) -> bool {
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent.strip_prefix(['-', '+']).unwrap_or(exponent))),
        None => (text, None),
    };
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let mantissa_good = match mantissa.split_once('.') {
        Some((whole, rest)) => digits(whole) && digits(rest) && !(whole.is_empty() && rest.is_empty()),
        None => exponent.is_some() && !mantissa.is_empty() && digits(mantissa),
    };
    mantissa_good && exponent.is_none_or(|exponent| !exponent.is_empty() && digits(exponent))
}

#[cfg(test)]
mod tests;

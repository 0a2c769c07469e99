//! INI files, as Python's `configparser` reads and writes them, without interpolation.
//!
//! A dict of dicts is sections with their keys; a plain value at the top is a key before the first section. A list is one
//! value of several lines, a line break in a value too.

use std::fmt::Write as _;

use super::{Data, ParseError, Refusal};

/// Writes data as an INI file.
pub(crate) fn write(data: &Data) -> Result<String, Refusal> {
    let Data::Dict(entries) = data else { return Err(Refusal::new("", "the data of an INI file is a dict")) };
    let mut out = String::new();
    for (key, value) in entries.iter().filter(|(_, value)| !matches!(value, Data::Dict(_))) {
        write_option(&mut out, key, key, value)?;
    }
    for (section, value) in entries {
        let Data::Dict(options) = value else { continue };
        if section.is_empty() || section.contains([']', '\n', '\r']) {
            return Err(Refusal::new(section, "this cannot be the name of a section"));
        }
        if !out.is_empty() {
            out.push('\n');
        }
        let _ = writeln!(out, "[{section}]");
        for (key, value) in options {
            write_option(&mut out, &format!("{section}.{key}"), key, value)?;
        }
    }
    Ok(out)
}

fn write_option(out: &mut String, place: &str, key: &str, value: &Data) -> Result<(), Refusal> {
    let unusable = key.is_empty() || key.trim() != key || key.contains(['=', ':', '\n', '\r']) || key.starts_with(['[', '#', ';']);
    if unusable {
        return Err(Refusal::new(place, "this cannot be a key"));
    }
    let lines = match value {
        Data::None => return Err(Refusal::new(place, "INI has no `None`: leave the key out")),
        Data::Dict(_) => return Err(Refusal::new(place, "a section holds no section")),
        Data::List(values) => {
            let lines = values.iter().map(|value| match value {
                Data::List(_) | Data::Dict(_) | Data::None => Err(Refusal::new(place, "a list in an INI file holds texts and numbers")),
                Data::Bool(_) | Data::Int(_) | Data::Float(_) | Data::Text(_) | Data::Path(_) | Data::Address(_) => Ok(value.to_display()),
            });
            std::iter::once(Ok(String::new())).chain(lines).collect::<Result<Vec<_>, _>>()?.join("\n")
        }
        Data::Bool(_) | Data::Int(_) | Data::Float(_) | Data::Text(_) | Data::Path(_) | Data::Address(_) => value.to_display(),
    };
    let mut lines = lines.split('\n');
    let first = lines.next().unwrap_or_default();
    let lossy = |line: &str| line.trim() != line || line.contains('\r');
    if lossy(first) {
        return Err(Refusal::new(place, "blanks around a value would be lost"));
    }
    let _ = writeln!(out, "{key} = {first}");
    // `key =` without a blank at its end.
    if first.is_empty() {
        out.truncate(out.len() - 2);
        out.push('\n');
    }
    for line in lines {
        if line.is_empty() || lossy(line) || line.starts_with(['#', ';']) {
            return Err(Refusal::new(place, "a line of this value would be lost: it is empty, or begins like a comment or with a blank"));
        }
        let _ = writeln!(out, "    {line}");
    }
    Ok(())
}

/// Reads an INI file; every value is a text.
pub(crate) fn parse(text: &str) -> Result<Data, ParseError> {
    let mut top: Vec<(String, Data)> = Vec::new();
    let mut section: Option<usize> = None;
    let mut continues = false;
    for (index, line) in text.lines().enumerate() {
        let wrong = |message: String| ParseError { message, line: u32::try_from(index).unwrap_or(u32::MAX - 1) + 1, column: 1 };
        let trimmed = line.trim();
        if trimmed.is_empty() || trimmed.starts_with(['#', ';']) {
            continue;
        }
        if continues
            && line.starts_with([' ', '\t'])
            && let Some((_, Data::Text(value))) = options_of(&mut top, section).last_mut()
        {
            value.push('\n');
            value.push_str(trimmed);
            continue;
        }
        if let Some(name) = trimmed.strip_prefix('[') {
            let name = name.strip_suffix(']').ok_or_else(|| wrong("this section has no `]`".to_owned()))?;
            if top.iter().any(|(known, _)| known == name) {
                return Err(wrong(format!("the section `{name}` stands twice")));
            }
            top.push((name.to_owned(), Data::Dict(Vec::new())));
            section = Some(top.len() - 1);
            continues = false;
            continue;
        }
        let (key, value) =
            trimmed.split_once(['=', ':']).ok_or_else(|| wrong("this is neither `[section]` nor `key = value`".to_owned()))?;
        let options = options_of(&mut top, section);
        let key = key.trim_end();
        if options.iter().any(|(known, _)| known == key) {
            return Err(wrong(format!("the key `{key}` stands twice")));
        }
        options.push((key.to_owned(), Data::Text(value.trim_start().to_owned())));
        continues = true;
    }
    Ok(Data::Dict(top))
}

/// The entries that keys go to: those of the section, or those before the first one.
fn options_of(top: &mut Vec<(String, Data)>, section: Option<usize>) -> &mut Vec<(String, Data)> {
    // Two steps, since a borrow that is given back in one branch only would last for both.
    let Some(index) = section.filter(|index| matches!(top[*index].1, Data::Dict(_))) else { return top };
    let Data::Dict(options) = &mut top[index].1 else { unreachable!("it was a dict a line ago") };
    options
}

#[cfg(test)]
mod tests {
    use super::super::json;
    use super::*;

    fn written(text: &str) -> Result<String, String> {
        write(&json::parse(text).unwrap()).map_err(|refusal| refusal.to_string())
    }

    #[test]
    fn sections_and_values() {
        let text = written(r#"{"top":1,"a":{"x":"y","on":true,"many":["one","two"],"none":""},"b c":{"text":"1\n2"}}"#).unwrap();
        assert_eq!(text, "top = 1\n\n[a]\nx = y\non = true\nmany =\n    one\n    two\nnone =\n\n[b c]\ntext = 1\n    2\n");
        let data = parse(&text).unwrap();
        assert_eq!(
            data.to_canonical_json(),
            r#"{"a":{"many":"\none\ntwo","none":"","on":"true","x":"y"},"b c":{"text":"1\n2"},"top":"1"}"#
        );
        assert_eq!(write(&data).unwrap(), text);
    }

    #[test]
    fn what_would_be_lost_is_refused() {
        for (data, expected) in [
            (r"[]", "the data of an INI file is a dict"),
            (r#"{"a":{"b":null}}"#, "`a.b`: INI has no `None`: leave the key out"),
            (r#"{"a":{"b":{}}}"#, "`a.b`: a section holds no section"),
            (r#"{"a":{"b=":1}}"#, "`a.b=`: this cannot be a key"),
            (r#"{"a]":{}}"#, "`a]`: this cannot be the name of a section"),
            (r#"{"a":{"b":" x"}}"#, "`a.b`: blanks around a value would be lost"),
            (r#"{"a":{"b":"x\n\ny"}}"#, "`a.b`: a line of this value would be lost: it is empty, or begins like a comment or with a blank"),
        ] {
            assert_eq!(written(data), Err(expected.to_owned()));
        }
    }

    #[test]
    fn what_is_wrong_has_a_place() {
        for (text, expected) in [
            ("[a]\n\n[a]\n", "3 the section `a` stands twice"),
            ("x = 1\nx: 2\n", "2 the key `x` stands twice"),
            ("[a\n", "1 this section has no `]`"),
            ("[a]\nword\n", "2 this is neither `[section]` nor `key = value`"),
        ] {
            let error = parse(text).unwrap_err();
            assert_eq!(format!("{} {}", error.line, error.message), expected);
        }
    }
}

//! Filters of texts.

use std::fmt::Write as _;

use regex::{Regex, RegexBuilder};
use sha2::{Digest as _, Sha256};

use super::{Arguments, TEXT_BYTES_MAX, text_of};
use crate::data::Data;

/// The most memory of one compiled pattern, in bytes.
const PATTERN_BYTES_MAX: usize = 1 << 20;

const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

pub(super) fn b64encode(arguments: &Arguments) -> Result<Data, String> {
    let text = arguments.text()?;
    let mut out = String::with_capacity(text.len().div_ceil(3) * 4);
    for chunk in text.as_bytes().chunks(3) {
        let bits = chunk.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for place in 0..4 {
            let index = usize::try_from(bits >> (18 - 6 * place) & 63).unwrap_or(0);
            out.push(if place <= chunk.len() { char::from(BASE64[index]) } else { '=' });
        }
    }
    Ok(Data::Text(out))
}

pub(super) fn b64decode(arguments: &Arguments) -> Result<Data, String> {
    let text = arguments.text()?;
    let wrong = || "found no base64".to_owned();
    let digits: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let body = digits.strip_suffix(b"==").or_else(|| digits.strip_suffix(b"=")).unwrap_or(&digits);
    if !digits.len().is_multiple_of(4) || body.len() % 4 == 1 {
        return Err(wrong());
    }
    let mut bytes = Vec::with_capacity(body.len() / 4 * 3 + 2);
    for chunk in body.chunks(4) {
        let mut bits = 0_u32;
        for digit in chunk {
            let value = BASE64.iter().position(|known| known == digit).and_then(|index| u32::try_from(index).ok()).ok_or_else(wrong)?;
            bits = bits << 6 | value;
        }
        bits <<= 6 * (4 - chunk.len());
        bytes.extend_from_slice(&bits.to_be_bytes()[1..chunk.len()]);
    }
    String::from_utf8(bytes).map(Data::Text).map_err(|_| "found base64 of bytes that are no text".to_owned())
}

pub(super) fn basename(arguments: &Arguments) -> Result<Data, String> {
    let text = arguments.text()?;
    Ok(Data::Text(text.rsplit('/').next().unwrap_or_default().to_owned()))
}

pub(super) fn dirname(arguments: &Arguments) -> Result<Data, String> {
    let text = arguments.text()?;
    Ok(Data::Text(match text.rsplit_once('/') {
        Some(("", _)) => "/".to_owned(),
        Some((directory, _)) => directory.to_owned(),
        None => String::new(),
    }))
}

pub(super) fn splitext(arguments: &Arguments) -> Result<Data, String> {
    let text = arguments.text()?;
    let start = text.rfind('/').map_or(0, |slash| slash + 1);
    let name = &text[start..];
    // Points in front are no suffix.
    let leading = name.len() - name.trim_start_matches('.').len();
    let at = name[leading..].rfind('.').map_or(text.len(), |point| start + leading + point);
    Ok(Data::List(vec![Data::Text(text[..at].to_owned()), Data::Text(text[at..].to_owned())]))
}

pub(super) fn comment(arguments: &Arguments) -> Result<Data, String> {
    let text = arguments.text()?;
    let prefix = arguments.text_at(1, "prefix")?.unwrap_or_else(|| "# ".to_owned());
    check_size(text.lines().count().saturating_mul(prefix.len()))?;
    let lines: Vec<String> =
        text.split('\n').map(|line| if line.is_empty() { prefix.trim_end().to_owned() } else { format!("{prefix}{line}") }).collect();
    Ok(Data::Text(lines.join("\n")))
}

/// Quotes a word as Python's `shlex.quote` does.
pub(super) fn quote(arguments: &Arguments) -> Result<Data, String> {
    let text = arguments.text()?;
    let harmless = |c: char| c.is_ascii_alphanumeric() || "_@%+=:,./-".contains(c);
    if text.contains('\0') {
        return Err("found a NUL byte, which no word of a shell can hold".to_owned());
    }
    Ok(Data::Text(if !text.is_empty() && text.chars().all(harmless) { text } else { format!("'{}'", text.replace('\'', r#"'"'"'"#)) }))
}

pub(super) fn sha256(arguments: &Arguments) -> Result<Data, String> {
    let digest = Sha256::digest(arguments.text()?.as_bytes());
    Ok(Data::Text(digest.iter().fold(String::new(), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })))
}

pub(super) fn urlencode(arguments: &Arguments) -> Result<Data, String> {
    let Data::Dict(entries) = arguments.value() else { return Ok(Data::Text(percent(&arguments.text()?, "-._~/"))) };
    let pair = |(key, value): &(String, Data)| {
        Ok(format!("{}={}", percent(key, "-._~"), percent(&text_of(value, "wants texts as values")?, "-._~")))
    };
    Ok(Data::Text(entries.iter().map(pair).collect::<Result<Vec<_>, String>>()?.join("&")))
}

pub(super) fn percent(text: &str, kept: &str) -> String {
    text.bytes().fold(String::new(), |mut out, byte| {
        let c = char::from(byte);
        if c.is_ascii_alphanumeric() || kept.contains(c) {
            out.push(c);
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
        out
    })
}

pub(super) fn regex_escape(arguments: &Arguments) -> Result<Data, String> {
    Ok(Data::Text(regex::escape(&arguments.text()?)))
}

fn pattern(arguments: &Arguments) -> Result<Regex, String> {
    let written = arguments.text_at(1, "pattern")?.ok_or_else(|| "wants a pattern".to_owned())?;
    RegexBuilder::new(&written).size_limit(PATTERN_BYTES_MAX).dfa_size_limit(PATTERN_BYTES_MAX).build().map_err(|error| match error {
        regex::Error::CompiledTooBig(_) => format!("found the pattern `{written}` too large"),
        _ => format!("cannot use the pattern `{written}`; it knows neither look-around nor backreferences"),
    })
}

pub(super) fn regex_search(arguments: &Arguments) -> Result<Data, String> {
    let (pattern, text) = (pattern(arguments)?, arguments.text()?);
    Ok(pattern.find(&text).map_or(Data::None, |found| Data::Text(found.as_str().to_owned())))
}

pub(super) fn regex_findall(arguments: &Arguments) -> Result<Data, String> {
    let (pattern, text) = (pattern(arguments)?, arguments.text()?);
    Ok(Data::List(pattern.find_iter(&text).map(|found| Data::Text(found.as_str().to_owned())).collect()))
}

pub(super) fn regex_replace(arguments: &Arguments) -> Result<Data, String> {
    let (pattern, text) = (pattern(arguments)?, arguments.text()?);
    let written = arguments.text_at(2, "replacement")?.ok_or_else(|| "wants a replacement".to_owned())?;
    // Python writes `\1` where this engine has `${1}`.
    let groups = Regex::new(r"\\(?:g<(\w+)>|(\d+))").map_err(|error| error.to_string())?;
    let replacement = groups.replace_all(&written, "$${$1$2}").into_owned();
    let mut out = String::new();
    let mut last = 0;
    for captures in pattern.captures_iter(&text) {
        let Some(found) = captures.get(0) else { continue };
        out.push_str(&text[last..found.start()]);
        captures.expand(&replacement, &mut out);
        last = found.end();
        check_size(out.len())?;
    }
    out.push_str(&text[last..]);
    Ok(Data::Text(out))
}

fn check_size(bytes: usize) -> Result<(), String> {
    if bytes > TEXT_BYTES_MAX { Err(format!("would give more than {} MiB", TEXT_BYTES_MAX >> 20)) } else { Ok(()) }
}

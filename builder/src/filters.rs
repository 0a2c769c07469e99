//! Filters of templates: what turns one value into another on its way into a text.
//!
//! They work on plain data, so that every template language has the same ones; all are pure. What a filter gives is bounded.

#![expect(clippy::wildcard_enum_match_arm, reason = "whatever is not of the wanted type is refused, new types too")]
#![expect(clippy::unnecessary_wraps, reason = "all filters have one type")]

mod address;
mod text;

use std::collections::BTreeMap;

use crate::data::format::Format;
use crate::data::{Data, Lists};

/// The longest text that a filter takes or gives, in bytes: whole files of configuration are smaller by far.
pub(crate) const TEXT_BYTES_MAX: usize = 16 << 20;

/// A filter.
pub(crate) struct Filter {
    pub(crate) name: &'static str,
    /// What it takes beside the value, as it is written.
    pub(crate) arguments: &'static str,
    /// What it gives, for the reference.
    pub(crate) text: &'static str,
    run: fn(&Arguments) -> Result<Data, String>,
}

impl std::fmt::Debug for Filter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

impl Filter {
    /// Applies it to a value with its arguments.
    ///
    /// Errors: what is wrong, to be put after the filter's name.
    pub(crate) fn apply(&self, arguments: &Arguments) -> Result<Data, String> {
        let known: Vec<&str> = self.arguments.split(", ").map(|argument| argument.split('=').next().unwrap_or_default()).collect();
        if let Some(unknown) = arguments.named.keys().find(|name| !known.contains(&name.as_str())) {
            return Err(format!("has no argument `{unknown}`"));
        }
        let most = if self.arguments.is_empty() { 0 } else { known.len() };
        if arguments.values.len() > most + 1 {
            return Err(format!("takes at most {most} arguments"));
        }
        let result = (self.run)(arguments)?;
        match &result {
            Data::Text(text) if text.len() > TEXT_BYTES_MAX => Err(format!("would give more than {} MiB", TEXT_BYTES_MAX >> 20)),
            _ => Ok(result),
        }
    }
}

/// The value, and what stands in the parentheses.
#[derive(Debug, Default)]
pub(crate) struct Arguments {
    /// The value, then the arguments by position.
    pub(crate) values: Vec<Data>,
    pub(crate) named: BTreeMap<String, Data>,
}

impl Arguments {
    fn value(&self) -> &Data {
        self.values.first().unwrap_or(&Data::None)
    }

    /// An argument by its position, counted from 1, or by its name.
    fn get(&self, position: usize, name: &str) -> Option<&Data> {
        self.values.get(position).or_else(|| self.named.get(name))
    }

    /// The value as text.
    fn text(&self) -> Result<String, String> {
        text_of(self.value(), "wants a text")
    }

    fn text_at(&self, position: usize, name: &str) -> Result<Option<String>, String> {
        self.get(position, name).map(|data| text_of(data, &format!("wants a text for `{name}`"))).transpose()
    }

    fn flag(&self, position: usize, name: &str) -> Result<bool, String> {
        match self.get(position, name) {
            None => Ok(false),
            Some(Data::Bool(value)) => Ok(*value),
            Some(other) => Err(format!("wants true or false for `{name}`, not {}", other.type_name())),
        }
    }

    fn number(&self, position: usize, name: &str, max: usize) -> Result<Option<usize>, String> {
        let Some(data) = self.get(position, name) else { return Ok(None) };
        let number = if let Data::Int(value) = data { usize::try_from(*value).ok().filter(|value| *value <= max) } else { None };
        number.map(Some).ok_or_else(|| format!("wants a number from 0 to {max} for `{name}`"))
    }
}

/// A text, or what stands for one in text.
fn text_of(data: &Data, wanted: &str) -> Result<String, String> {
    let text = match data {
        Data::Text(_) | Data::Path(_) | Data::Address(_) | Data::Int(_) | Data::Float(_) => data.to_display(),
        Data::None | Data::Bool(_) | Data::List(_) | Data::Dict(_) => return Err(format!("{wanted}, not {}", data.type_name())),
    };
    if text.len() > TEXT_BYTES_MAX { Err(format!("takes at most {} MiB", TEXT_BYTES_MAX >> 20)) } else { Ok(text) }
}

const fn filter(name: &'static str, arguments: &'static str, text: &'static str, run: fn(&Arguments) -> Result<Data, String>) -> Filter {
    Filter { name, arguments, text, run }
}

/// All filters that sarsen adds to those of a template language, sorted by name.
pub(crate) const FILTERS: &[Filter] = &[
    filter("b64decode", "", "the text that is meant by base64", text::b64decode),
    filter("b64encode", "", "the text in base64", text::b64encode),
    filter("basename", "", "what stands behind the last `/`", text::basename),
    filter("combine", "other, recursive=false, lists=\"replace\"", "the dict with `other` laid over it", combine),
    filter("comment", "prefix=\"# \"", "every line behind the prefix", text::comment),
    filter("dict2items", "", "a list of dicts with `key` and `value`", dict2items),
    filter("dirname", "", "what stands before the last `/`", text::dirname),
    filter("from_json", "", "the value that JSON text stands for", |arguments| read(arguments, Format::Json(0))),
    filter("from_yaml", "", "the value that YAML text stands for", |arguments| read(arguments, Format::Yaml)),
    filter(
        "ipaddr",
        "query=\"\"",
        "the address or network if it is one, else false; with a query its `address`, `network`, `prefix`, `netmask`, `broadcast`, `version`, `size`, `cidr`, or the address of that number in it",
        address::ipaddr,
    ),
    filter("ipv4", "", "the IPv4 addresses of a list; one address if it is one, else false", |arguments| {
        address::of_family(arguments, address::Family::V4)
    }),
    filter("ipv6", "", "the IPv6 addresses of a list; one address if it is one, else false", |arguments| {
        address::of_family(arguments, address::Family::V6)
    }),
    filter("ipwrap", "", "an IPv6 address in `[...]`, anything else as it is", address::ipwrap),
    filter("items2dict", "", "the dict that `dict2items` took apart", items2dict),
    filter("quote", "", "one word for a shell", text::quote),
    filter("regex_escape", "", "a pattern that finds just this text", text::regex_escape),
    filter("regex_findall", "pattern", "all that fits, in a list", text::regex_findall),
    filter(
        "regex_replace",
        "pattern, replacement",
        "every part that fits replaced; `$1` or `\\\\1` stand for its groups",
        text::regex_replace,
    ),
    filter("regex_search", "pattern", "the first part that fits, or none", text::regex_search),
    filter("sha256", "", "the SHA-256 digest of the text, in hexadecimal", text::sha256),
    filter("splitext", "", "the name and its suffix, in a list", text::splitext),
    filter("to_ini", "", "as INI, with a final line break", |arguments| write(arguments, Format::Ini)),
    filter("to_json", "indent=0", "as JSON in one line, or indented; without a final line break", to_json),
    filter("to_nice_json", "indent=4", "as JSON over several lines", to_nice_json),
    filter("to_nice_yaml", "", "the same as `to_yaml`", |arguments| write(arguments, Format::Yaml)),
    filter("to_toml", "", "as TOML, with a final line break", |arguments| write(arguments, Format::Toml)),
    filter("to_yaml", "", "as YAML in block style, with a final line break", |arguments| write(arguments, Format::Yaml)),
    filter("urlencode", "", "for a part of a URL: all but letters, digits and `-._~/` as `%XX`; a dict becomes a query", text::urlencode),
];

/// The filter of that name.
pub(crate) fn find(name: &str) -> Option<&'static Filter> {
    FILTERS.iter().find(|filter| filter.name == name)
}

/// The widest indentation of JSON.
const INDENT_MAX: usize = 16;

fn to_json(arguments: &Arguments) -> Result<Data, String> {
    let indent = arguments.number(1, "indent", INDENT_MAX)?.unwrap_or(0);
    Ok(Data::Text(arguments.value().to_pretty_json(indent).trim_end().to_owned()))
}

fn to_nice_json(arguments: &Arguments) -> Result<Data, String> {
    let indent = arguments.number(1, "indent", INDENT_MAX)?.unwrap_or(4);
    Ok(Data::Text(arguments.value().to_pretty_json(indent).trim_end().to_owned()))
}

fn write(arguments: &Arguments, format: Format) -> Result<Data, String> {
    format.write(arguments.value()).map(Data::Text).map_err(|refusal| format!("cannot write this: {refusal}"))
}

fn read(arguments: &Arguments, format: Format) -> Result<Data, String> {
    let wrong = |error: crate::data::ParseError| format!("found no {}: line {}: {}", format.title(), error.line, error.message);
    format.read(&arguments.text()?).map_err(wrong)
}

fn combine(arguments: &Arguments) -> Result<Data, String> {
    let (Data::Dict(lower), Some(Data::Dict(upper))) = (arguments.value(), arguments.get(1, "other")) else {
        return Err("wants two dicts".to_owned());
    };
    let lists = match arguments.text_at(3, "lists")?.as_deref() {
        None | Some("replace") => Lists::Replace,
        Some("append") => Lists::Append,
        Some(other) => return Err(format!("wants \"append\" or \"replace\" for `lists`, not `{other}`")),
    };
    if arguments.flag(2, "recursive")? {
        return Ok(Data::Dict(lower.clone()).merged(Data::Dict(upper.clone()), lists));
    }
    let mut entries = lower.clone();
    for (key, value) in upper {
        match entries.iter_mut().find(|(known, _)| known == key) {
            Some((_, known)) => *known = value.clone(),
            None => entries.push((key.clone(), value.clone())),
        }
    }
    Ok(Data::Dict(entries))
}

fn dict2items(arguments: &Arguments) -> Result<Data, String> {
    let Data::Dict(entries) = arguments.value() else {
        return Err(format!("wants a dict, not {}", arguments.value().type_name()));
    };
    let item =
        |(key, value): &(String, Data)| Data::Dict(vec![("key".to_owned(), Data::Text(key.clone())), ("value".to_owned(), value.clone())]);
    Ok(Data::List(entries.iter().map(item).collect()))
}

fn items2dict(arguments: &Arguments) -> Result<Data, String> {
    let wrong = || "wants a list of dicts with `key` and `value`".to_owned();
    let Data::List(items) = arguments.value() else { return Err(wrong()) };
    let mut entries: Vec<(String, Data)> = Vec::new();
    for item in items {
        let Data::Dict(fields) = item else { return Err(wrong()) };
        let field = |name: &str| fields.iter().find(|(key, _)| key == name).map(|(_, value)| value);
        let (Some(Data::Text(key)), Some(value)) = (field("key"), field("value")) else { return Err(wrong()) };
        entries.retain(|(known, _)| known != key);
        entries.push((key.clone(), value.clone()));
    }
    Ok(Data::Dict(entries))
}

/// A text as a part of a form: what a URL cannot hold as `%XX`, blanks as `+`.
pub(crate) fn quote_plus(text: &str) -> String {
    text::percent(text, "-._~ ").replace(' ', "+")
}

#[cfg(test)]
mod tests;

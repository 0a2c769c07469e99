//! Plain values: what attributes, resources and template contexts are made of.
//!
//! Whatever crosses the border of an evaluation (overrides from TOML, provided resources, defaults) is [`Data`]; no Starlark
//! value does. Dictionaries keep the order in which they were written; canonical text sorts them.

pub(crate) mod format;
pub(crate) mod ini;
pub(crate) mod json;
mod merge;
pub(crate) mod yaml;

use std::fmt;

pub(crate) use merge::Lists;
use sarsen_store::{ObjectId, RelPath};

/// The deepest nesting of lists and dictionaries. People write five levels; the limit keeps recursion off the stack's end.
pub(crate) const NESTING_MAX: usize = 64;

/// A plain value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Data {
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    List(Vec<Data>),
    /// Keys in the order of their writing, each once.
    Dict(Vec<(String, Data)>),
    Path(TargetPath),
    Address(Address),
}

impl Data {
    /// The name of the type, as Starlark has it.
    pub(crate) fn type_name(&self) -> &'static str {
        match self {
            Self::None => "None",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Float(_) => "float",
            Self::Text(_) => "str",
            Self::List(_) => "list",
            Self::Dict(_) => "dict",
            Self::Path(_) => "Path",
            Self::Address(_) => "Address",
        }
    }

    /// The value as people read it: texts bare, everything else as JSON.
    pub(crate) fn to_display(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Path(path) => path.to_string(),
            Self::Address(address) => address.to_string(),
            Self::None | Self::Bool(_) | Self::Int(_) | Self::Float(_) | Self::List(_) | Self::Dict(_) => self.to_canonical_json(),
        }
    }

    /// JSON without spaces, keys sorted.
    pub(crate) fn to_canonical_json(&self) -> String {
        let mut text = String::new();
        self.write_json(&mut text, None, KeyOrder::Sorted);
        text
    }

    /// JSON for people and programs: so many spaces of indentation (0: all in one line), keys in their order, final newline.
    ///
    /// An address is text here, as in every other format of files.
    pub(crate) fn to_pretty_json(&self, indent: usize) -> String {
        let mut text = String::new();
        self.write_json(&mut text, (indent > 0).then_some(Indent { width: indent, depth: 0 }), KeyOrder::AsWritten);
        text.push('\n');
        text
    }

    fn write_json(&self, out: &mut String, indent: Option<Indent>, order: KeyOrder) {
        match self {
            Self::None => out.push_str("null"),
            Self::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
            Self::Int(value) => out.push_str(&value.to_string()),
            Self::Float(value) => out.push_str(&serde_json::Value::from(*value).to_string()),
            Self::Text(text) => out.push_str(&json_string(text)),
            Self::Path(path) => out.push_str(&json_string(&path.to_string())),
            Self::Address(address) if order == KeyOrder::AsWritten => out.push_str(&json_string(&address.to_string())),
            Self::Address(address) => {
                let entries = [("host", Self::Text(address.host.clone())), ("port", Self::Int(i64::from(address.port)))];
                write_members(out, indent, ('{', '}'), &entries, |out, below, (key, value)| {
                    write_key(out, indent, key);
                    value.write_json(out, below, order);
                });
            }
            Self::List(values) => write_members(out, indent, ('[', ']'), values, |out, below, value| value.write_json(out, below, order)),
            Self::Dict(entries) => {
                let mut entries: Vec<(&str, &Data)> = entries.iter().map(|(key, value)| (key.as_str(), value)).collect();
                if order == KeyOrder::Sorted {
                    entries.sort_by(|a, b| a.0.cmp(b.0));
                }
                write_members(out, indent, ('{', '}'), &entries, |out, below, (key, value)| {
                    write_key(out, indent, key);
                    value.write_json(out, below, order);
                });
            }
        }
    }

    /// The value as TOML, with keys in their order, if it is a table and holds no `None`.
    pub(crate) fn to_toml(&self) -> Result<String, Refusal> {
        let not_a_table = || Refusal::new("", "the data of a TOML file is a dict");
        let Self::Dict(_) = self else { return Err(not_a_table()) };
        if let Some(place) = self.find_none("") {
            return Err(Refusal { place, reason: "TOML has no `None`: leave the key out" });
        }
        toml::to_string(&Toml(self)).map_err(|_| not_a_table())
    }

    /// The keys down to the first `None`.
    fn find_none(&self, place: &str) -> Option<String> {
        let below = |key: &str| if place.is_empty() { key.to_owned() } else { format!("{place}.{key}") };
        match self {
            Self::None => Some(place.to_owned()),
            Self::List(values) => values.iter().enumerate().find_map(|(index, value)| value.find_none(&below(&index.to_string()))),
            Self::Dict(entries) => entries.iter().find_map(|(key, value)| value.find_none(&below(key))),
            Self::Bool(_) | Self::Int(_) | Self::Float(_) | Self::Text(_) | Self::Path(_) | Self::Address(_) => None,
        }
    }
}

/// A value as TOML has it.
struct Toml<'a>(&'a Data);

impl serde::Serialize for Toml<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Data::None => serializer.serialize_none(),
            Data::Bool(value) => serializer.serialize_bool(*value),
            Data::Int(value) => serializer.serialize_i64(*value),
            Data::Float(value) => serializer.serialize_f64(*value),
            Data::Text(text) => serializer.serialize_str(text),
            Data::Path(path) => serializer.collect_str(path),
            Data::Address(address) => serializer.collect_str(address),
            Data::List(values) => serializer.collect_seq(values.iter().map(Toml)),
            Data::Dict(entries) => serializer.collect_map(entries.iter().map(|(key, value)| (key, Toml(value)))),
        }
    }
}

/// The order of keys in JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum KeyOrder {
    Sorted,
    AsWritten,
}

/// How far lines are indented.
#[derive(Debug, Clone, Copy)]
struct Indent {
    width: usize,
    depth: usize,
}

/// Why a value cannot be written in a format.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// The keys down to the value, joined by `.`; empty for the whole.
    place: String,
    reason: &'static str,
}

impl Refusal {
    fn new(place: &str, reason: &'static str) -> Self {
        Self { place: place.to_owned(), reason }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.place.is_empty() { f.write_str(self.reason) } else { write!(f, "`{}`: {}", self.place, self.reason) }
    }
}

/// Why a text is not of a format.
///
/// Shape: line and column count from 1, columns in characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ParseError {
    pub(crate) message: String,
    pub(crate) line: u32,
    pub(crate) column: u32,
}

fn write_key(out: &mut String, indent: Option<Indent>, key: &str) {
    out.push_str(&json_string(key));
    out.push_str(if indent.is_some() { ": " } else { ":" });
}

fn write_members<T>(
    out: &mut String,
    indent: Option<Indent>,
    (open, close): (char, char),
    members: &[T],
    mut write: impl FnMut(&mut String, Option<Indent>, &T),
) {
    let below = indent.map(|indent| Indent { depth: indent.depth + 1, ..indent });
    let break_line = |out: &mut String, indent: Option<Indent>| {
        if let Some(Indent { width, depth }) = indent {
            out.push('\n');
            out.push_str(&" ".repeat(width * depth));
        }
    };
    out.push(open);
    for (index, member) in members.iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        break_line(out, below);
        write(out, below, member);
    }
    if !members.is_empty() {
        break_line(out, indent);
    }
    out.push(close);
}

fn json_string(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// An absolute path on the target: an object, a component's tree or a state directory, and what lies below it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct TargetPath {
    /// The absolute path of the object or directory, without a final `/`.
    pub(crate) base: String,
    /// The placeholder of the object, if `base` is one.
    pub(crate) object: Option<ObjectId>,
    /// The path below it.
    pub(crate) rest: Option<RelPath>,
}

impl TargetPath {
    /// The path `below` under this one.
    pub(crate) fn join(&self, below: &str) -> Result<Self, sarsen_store::InvalidPath> {
        let below: RelPath = below.parse()?;
        let rest = match &self.rest {
            Some(rest) => rest.join(&below)?,
            None => below,
        };
        Ok(Self { rest: Some(rest), ..self.clone() })
    }

    /// The last component.
    pub(crate) fn name(&self) -> &str {
        match &self.rest {
            Some(rest) => rest.file_name(),
            None => self.base.rsplit('/').next().unwrap_or_default(),
        }
    }

    /// One level up; nothing above the object or directory itself.
    pub(crate) fn parent(&self) -> Option<Self> {
        let rest = self.rest.as_ref()?;
        Some(Self { rest: rest.parent(), ..self.clone() })
    }
}

impl fmt::Display for TargetPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.base)?;
        self.rest.as_ref().map_or(Ok(()), |rest| write!(f, "/{rest}"))
    }
}

/// A host and a port, with the addresses that the environment's resolver knows for the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Address {
    pub(crate) host: String,
    pub(crate) port: u16,
    /// The first IPv4 address of the host.
    pub(crate) v4: Option<String>,
    /// The first IPv6 address of the host.
    pub(crate) v6: Option<String>,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') { write!(f, "[{}]:{}", self.host, self.port) } else { write!(f, "{}:{}", self.host, self.port) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_and_toml() {
        let address = Address { host: "::1".to_owned(), port: 80, v4: None, v6: None };
        let data = Data::Dict(vec![
            ("b".to_owned(), Data::List(vec![Data::Int(1), Data::Float(1.0), Data::Text("ä\"\n".to_owned())])),
            ("a".to_owned(), Data::Dict(vec![])),
            ("c".to_owned(), Data::Address(address.clone())),
        ]);
        assert_eq!(data.to_canonical_json(), r#"{"a":{},"b":[1,1.0,"ä\"\n"],"c":{"host":"::1","port":80}}"#);
        assert_eq!(
            data.to_pretty_json(2),
            "{\n  \"b\": [\n    1,\n    1.0,\n    \"ä\\\"\\n\"\n  ],\n  \"a\": {},\n  \"c\": \"[::1]:80\"\n}\n"
        );
        assert_eq!(address.to_string(), "[::1]:80");
        let refused = |data: Data| data.to_toml().unwrap_err().to_string();
        assert_eq!(refused(Data::Dict(vec![("x".to_owned(), Data::None)])), "`x`: TOML has no `None`: leave the key out");
        assert_eq!(refused(Data::Int(1)), "the data of a TOML file is a dict");
        let ordered = json::parse(r#"{"z":{"b":1,"a":[{"x":1}]},"y":2}"#).unwrap();
        assert_eq!(ordered.to_toml().unwrap(), "y = 2\n\n[z]\nb = 1\n\n[[z.a]]\nx = 1\n");
    }

    #[test]
    fn paths() {
        let tree = TargetPath { base: "/r/store/id-shop".to_owned(), object: None, rest: None };
        let file = tree.join("bin/shop").unwrap();
        assert_eq!((file.to_string().as_str(), file.name()), ("/r/store/id-shop/bin/shop", "shop"));
        assert_eq!(file.parent().unwrap().parent(), Some(tree.clone()));
        assert_eq!((tree.name(), tree.parent()), ("id-shop", None));
        assert!(tree.join("../x").is_err());
    }
}

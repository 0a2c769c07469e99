//! Plain values: what attributes, resources and template contexts are made of.
//!
//! Whatever crosses the border of an evaluation (overrides from TOML, provided resources, defaults) is [`Data`]; no Starlark
//! value does. Dictionaries keep the order in which they were written; canonical text sorts them.

use std::fmt;

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

    /// JSON for people: two spaces of indentation, keys in their order, final newline.
    pub(crate) fn to_pretty_json(&self) -> String {
        let mut text = String::new();
        self.write_json(&mut text, Some(0), KeyOrder::AsWritten);
        text.push('\n');
        text
    }

    fn write_json(&self, out: &mut String, indent: Option<usize>, order: KeyOrder) {
        match self {
            Self::None => out.push_str("null"),
            Self::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
            Self::Int(value) => out.push_str(&value.to_string()),
            Self::Float(value) => out.push_str(&serde_json::Value::from(*value).to_string()),
            Self::Text(text) => out.push_str(&json_string(text)),
            Self::Path(path) => out.push_str(&json_string(&path.to_string())),
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

    /// The value as TOML, if it is a table and holds no `None`.
    pub(crate) fn to_toml(&self) -> Result<String, TomlRefusal> {
        let toml::Value::Table(table) = self.to_toml_value()? else { return Err(TomlRefusal::NotATable) };
        toml::to_string(&table).map_err(|_| TomlRefusal::NotATable)
    }

    fn to_toml_value(&self) -> Result<toml::Value, TomlRefusal> {
        Ok(match self {
            Self::None => return Err(TomlRefusal::None),
            Self::Bool(value) => toml::Value::Boolean(*value),
            Self::Int(value) => toml::Value::Integer(*value),
            Self::Float(value) => toml::Value::Float(*value),
            Self::Text(text) => toml::Value::String(text.clone()),
            Self::Path(path) => toml::Value::String(path.to_string()),
            Self::Address(address) => toml::Value::String(address.to_string()),
            Self::List(values) => toml::Value::Array(values.iter().map(Self::to_toml_value).collect::<Result<_, _>>()?),
            Self::Dict(entries) => {
                toml::Value::Table(entries.iter().map(|(key, value)| Ok((key.clone(), value.to_toml_value()?))).collect::<Result<_, _>>()?)
            }
        })
    }
}

/// The order of keys in JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum KeyOrder {
    Sorted,
    AsWritten,
}

/// Why a value cannot be written as TOML.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TomlRefusal {
    #[error("TOML has no `None`: leave the key out")]
    None,
    #[error("the data of a TOML file is a dict")]
    NotATable,
}

fn write_key(out: &mut String, indent: Option<usize>, key: &str) {
    out.push_str(&json_string(key));
    out.push_str(if indent.is_some() { ": " } else { ":" });
}

fn write_members<T>(
    out: &mut String,
    indent: Option<usize>,
    (open, close): (char, char),
    members: &[T],
    mut write: impl FnMut(&mut String, Option<usize>, &T),
) {
    let below = indent.map(|depth| depth + 1);
    let break_line = |out: &mut String, depth: Option<usize>| {
        if let Some(depth) = depth {
            out.push('\n');
            out.push_str(&"  ".repeat(depth));
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
            data.to_pretty_json(),
            "{\n  \"b\": [\n    1,\n    1.0,\n    \"ä\\\"\\n\"\n  ],\n  \"a\": {},\n  \"c\": {\n    \"host\": \"::1\",\n    \"port\": 80\n  }\n}\n"
        );
        assert_eq!(address.to_string(), "[::1]:80");
        assert_eq!(Data::Dict(vec![("x".to_owned(), Data::None)]).to_toml(), Err(TomlRefusal::None));
        assert_eq!(Data::Int(1).to_toml(), Err(TomlRefusal::NotATable));
        assert_eq!(Data::Dict(vec![("x".to_owned(), Data::Int(1))]).to_toml().unwrap(), "x = 1\n");
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

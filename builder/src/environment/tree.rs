//! TOML with places: every key and value knows the bytes it was written with.

use std::ops::Range;
use std::sync::Arc;

use toml::de::{DeTable, DeValue};

use crate::data::{Data, ParseError};
use crate::diagnostic::{Diagnostic, Location};
use crate::snapshot::Snapshot;

/// Where something stands in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) file: Arc<str>,
    pub(crate) range: Range<usize>,
}

impl Span {
    /// A diagnostic at this place.
    pub(crate) fn diagnostic(&self, snapshot: &Snapshot, code: &'static str, message: impl Into<String>) -> Diagnostic {
        Diagnostic::new(code, message).at_range(&self.file, snapshot.text(&self.file).unwrap_or_default(), &self.range)
    }

    /// The place where it begins.
    pub(crate) fn location(&self, snapshot: &Snapshot) -> Location {
        Location::of_offset(&self.file, snapshot.text(&self.file).unwrap_or_default(), self.range.start)
    }
}

/// A value with its place.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) span: Span,
    pub(crate) kind: NodeKind,
}

/// What a value is.
#[derive(Debug, Clone)]
pub(crate) enum NodeKind {
    Text(String),
    Int(i64),
    Float(f64),
    Bool(bool),
    List(Vec<Node>),
    /// Entries in the order of their writing.
    Table(Vec<(String, Span, Node)>),
    /// A date, or a number that does not fit.
    Unsupported(&'static str),
}

impl Node {
    /// An empty table.
    pub(crate) fn empty(file: &str) -> Self {
        Self { span: Span { file: file.into(), range: 0..0 }, kind: NodeKind::Table(Vec::new()) }
    }

    /// What it is, for messages.
    pub(crate) fn type_name(&self) -> &'static str {
        match &self.kind {
            NodeKind::Text(_) => "a string",
            NodeKind::Int(_) => "an integer",
            NodeKind::Float(_) => "a float",
            NodeKind::Bool(_) => "a boolean",
            NodeKind::List(_) => "an array",
            NodeKind::Table(_) => "a table",
            NodeKind::Unsupported(what) => what,
        }
    }

    /// The value as data.
    ///
    /// Errors: the first value inside that is none (a date), as node.
    pub(crate) fn to_data(&self) -> Result<Data, &Self> {
        Ok(match &self.kind {
            NodeKind::Text(text) => Data::Text(text.clone()),
            NodeKind::Int(value) => Data::Int(*value),
            NodeKind::Float(value) => Data::Float(*value),
            NodeKind::Bool(value) => Data::Bool(*value),
            NodeKind::List(nodes) => Data::List(nodes.iter().map(Self::to_data).collect::<Result<_, _>>()?),
            NodeKind::Table(entries) => {
                Data::Dict(entries.iter().map(|(key, _, node)| Ok((key.clone(), node.to_data()?))).collect::<Result<_, &Self>>()?)
            }
            NodeKind::Unsupported(_) => return Err(self),
        })
    }

    /// This table with `over` laid on top: tables are merged, everything else is replaced.
    pub(crate) fn merge(&mut self, over: Self) {
        let over_entries = match (&mut self.kind, over) {
            (NodeKind::Table(_), Self { kind: NodeKind::Table(entries), .. }) => entries,
            (_, over) => {
                *self = over;
                return;
            }
        };
        let NodeKind::Table(entries) = &mut self.kind else { return };
        for (key, span, node) in over_entries {
            match entries.iter_mut().find(|entry| entry.0 == key) {
                Some(entry) => {
                    entry.1 = span;
                    entry.2.merge(node);
                }
                None => entries.push((key, span, node)),
            }
        }
    }
}

/// Parses a file of the snapshot; every syntax error becomes a diagnostic.
pub(crate) fn parse_file(snapshot: &Snapshot, file: &str, diagnostics: &mut Vec<Diagnostic>) -> Option<Node> {
    let Some(text) = snapshot.text(file) else {
        diagnostics.push(Diagnostic::new("E0100", format!("`{file}` is not UTF-8 text")));
        return None;
    };
    let (table, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        let message = error.message().lines().next().unwrap_or("invalid TOML").trim_end_matches('.').to_owned();
        diagnostics.push(Diagnostic::new("E0100", message).at_range(file, text, &error.span().unwrap_or(0..0)));
    }
    if !errors.is_empty() {
        return None;
    }
    let file: Arc<str> = file.into();
    Some(Node { span: Span { file: file.clone(), range: table.span() }, kind: convert_table(table.get_ref(), &file) })
}

/// The data that a TOML text stands for.
pub(crate) fn parse_data(text: &str) -> Result<Data, ParseError> {
    let wrong = |message: String, offset: usize| {
        let Location { line, column, .. } = Location::of_offset("", text, offset);
        ParseError { message, line, column }
    };
    let (table, errors) = DeTable::parse_recoverable(text);
    if let Some(error) = errors.first() {
        let message = error.message().lines().next().unwrap_or("invalid TOML").trim_end_matches('.').to_owned();
        return Err(wrong(message, error.span().map_or(0, |span| span.start)));
    }
    let file: Arc<str> = "".into();
    let node = Node { span: Span { file: file.clone(), range: table.span() }, kind: convert_table(table.get_ref(), &file) };
    node.to_data().map_err(|node| wrong(format!("{} cannot be used as a value", node.type_name()), node.span.range.start))
}

fn convert_table(table: &DeTable<'_>, file: &Arc<str>) -> NodeKind {
    let span = |range| Span { file: file.clone(), range };
    let mut entries: Vec<(String, Span, Node)> = table
        .iter()
        .map(|(key, value)| {
            (key.get_ref().to_string(), span(key.span()), Node { span: span(value.span()), kind: convert(value.get_ref(), file) })
        })
        .collect();
    entries.sort_by_key(|(_, span, _)| span.range.start);
    NodeKind::Table(entries)
}

fn convert(value: &DeValue<'_>, file: &Arc<str>) -> NodeKind {
    match value {
        DeValue::String(text) => NodeKind::Text(text.to_string()),
        DeValue::Integer(integer) => {
            i64::from_str_radix(integer.as_str(), integer.radix()).map_or(NodeKind::Unsupported("an integer beyond 64 bits"), NodeKind::Int)
        }
        DeValue::Float(float) => {
            // What is no number is not equal to itself, and no file format but TOML has it.
            let number = float.as_str().parse().ok().filter(|number: &f64| number.is_finite());
            number.map_or(NodeKind::Unsupported("a float that is no number"), NodeKind::Float)
        }
        DeValue::Boolean(value) => NodeKind::Bool(*value),
        DeValue::Datetime(_) => NodeKind::Unsupported("a date"),
        DeValue::Array(array) => NodeKind::List(
            array
                .iter()
                .map(|value| Node { span: Span { file: file.clone(), range: value.span() }, kind: convert(value.get_ref(), file) })
                .collect(),
        ),
        DeValue::Table(table) => convert_table(table, file),
    }
}

/// The entries of one table, taken out by name; what is left over is unknown.
pub(crate) struct Section<'a> {
    snapshot: &'a Snapshot,
    /// The name for messages, such as `[environment]`.
    title: String,
    entries: Vec<(String, Span, Node)>,
    known: Vec<&'static str>,
}

impl<'a> Section<'a> {
    /// Opens a table; anything else is a diagnostic.
    pub(crate) fn open(snapshot: &'a Snapshot, title: impl Into<String>, node: Node, diagnostics: &mut Vec<Diagnostic>) -> Self {
        let title = title.into();
        let type_name = node.type_name();
        let entries = match node.kind {
            NodeKind::Table(entries) => entries,
            NodeKind::Text(_)
            | NodeKind::Int(_)
            | NodeKind::Float(_)
            | NodeKind::Bool(_)
            | NodeKind::List(_)
            | NodeKind::Unsupported(_) => {
                diagnostics.push(node.span.diagnostic(snapshot, "E0103", format!("{title} is a table, not {type_name}")));
                Vec::new()
            }
        };
        Self { snapshot, title, entries, known: Vec::new() }
    }

    /// Takes an entry.
    pub(crate) fn take(&mut self, key: &'static str) -> Option<Node> {
        debug_assert!(super::keys::is_declared(&self.title, key), "`{key}` of {} does not stand in environment/keys.rs", self.title);
        self.known.push(key);
        let position = self.entries.iter().position(|entry| entry.0 == key)?;
        Some(self.entries.remove(position).2)
    }

    /// Takes an entry and converts it; `expected` says what it must be if `convert` finds it is not.
    pub(crate) fn take_as<T>(
        &mut self,
        key: &'static str,
        expected: &str,
        diagnostics: &mut Vec<Diagnostic>,
        convert: impl FnOnce(&NodeKind) -> Option<T>,
    ) -> Option<T> {
        let node = self.take(key)?;
        let value = convert(&node.kind);
        if value.is_none() {
            diagnostics.push(node.span.diagnostic(self.snapshot, "E0103", format!("`{key}` wants {expected}, not {}", describe(&node))));
        }
        value
    }

    /// Everything that was not taken.
    pub(crate) fn into_rest(self) -> Vec<(String, Span, Node)> {
        self.entries
    }

    /// Reports what was not taken as unknown.
    pub(crate) fn finish(self, diagnostics: &mut Vec<Diagnostic>) {
        for (key, span, _) in &self.entries {
            let message = format!("unknown key `{key}` in {}", self.title);
            diagnostics.push(span.diagnostic(self.snapshot, "E0102", message).hint_names(key, self.known.iter().copied()));
        }
    }
}

/// A value for a message: short texts and numbers as they are, otherwise the type.
fn describe(node: &Node) -> String {
    match &node.kind {
        NodeKind::Text(text) if text.len() <= 60 => format!("`{text:?}`"),
        NodeKind::Int(value) => format!("`{value}`"),
        NodeKind::Bool(value) => format!("`{value}`"),
        NodeKind::Text(_) | NodeKind::Float(_) | NodeKind::List(_) | NodeKind::Table(_) | NodeKind::Unsupported(_) => {
            node.type_name().to_owned()
        }
    }
}

/// The text, if it is one.
pub(crate) fn text(kind: &NodeKind) -> Option<&str> {
    if let NodeKind::Text(text) = kind { Some(text) } else { None }
}

/// The integer, if it is one in the range.
pub(crate) fn int_in(kind: &NodeKind, range: std::ops::RangeInclusive<u32>) -> Option<u32> {
    let NodeKind::Int(value) = kind else { return None };
    u32::try_from(*value).ok().filter(|value| range.contains(value))
}

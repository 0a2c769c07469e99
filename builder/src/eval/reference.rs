//! The documentation of the builtins as plain data: what the language reference and `sarsen explain` are made of.
//!
//! It is taken from the builtins themselves: names, types and defaults are theirs, texts are the doc comments above them. Sections of a
//! doc comment are `# Arguments`, `# Returns`, `# Errors` and `# Example`, in this order.

use starlark::docs::{DocFunction, DocItem, DocMember, DocParam, DocString, DocType};
use starlark::environment::GlobalsBuilder;

use super::instance::Instance;
use super::values::{AddressValue, PathValue};

/// One builtin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Its name.
    pub(crate) name: String,
    /// The first sentence of its description.
    pub(crate) summary: String,
    /// The rest of it.
    pub(crate) details: String,
    /// How it is called; nothing for what is no function.
    pub(crate) call: Option<Call>,
    /// The type of an attribute; nothing for a function.
    pub(crate) type_name: String,
    /// What it says when it is used wrongly: a list in Markdown.
    pub(crate) errors: String,
    /// Code that is evaluated by a test.
    pub(crate) example: String,
}

/// How a function is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Call {
    /// In the order of the definition.
    pub(crate) parameters: Vec<Parameter>,
    /// The type of what it gives, and what that is.
    pub(crate) returns: (String, String),
}

/// One parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Parameter {
    /// Its name.
    pub(crate) name: String,
    /// Whether it is given by its name only.
    pub(crate) named: bool,
    /// Its type.
    pub(crate) type_name: String,
    /// Its default as code; nothing if it must be given.
    pub(crate) default: Option<String>,
    /// What it means, in words; empty if nobody wrote them.
    pub(crate) text: String,
}

/// A type of values with its members.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TypeEntry {
    /// Its name.
    pub(crate) name: String,
    /// What it is.
    pub(crate) text: String,
    /// Attributes and methods, sorted by name.
    pub(crate) members: Vec<Entry>,
}

/// The functions that sarsen adds to Starlark: those that make steps, then the others, each sorted by name.
pub(crate) fn functions() -> (Vec<Entry>, Vec<Entry>) {
    let documentation = super::own_builtins(GlobalsBuilder::new()).build().documentation();
    let mut entries: Vec<Entry> = documentation.members.iter().filter_map(|(name, item)| function(name, item)).collect();
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    entries.into_iter().partition(|entry| entry.call.as_ref().is_some_and(|call| call.returns.0 == STEP))
}

/// The names that Starlark itself has, sorted.
pub(crate) fn standard() -> Vec<String> {
    let standard = GlobalsBuilder::extended_by(&super::EXTENSIONS).build().documentation();
    let mut names: Vec<String> = standard.members.keys().cloned().collect();
    names.sort();
    names
}

/// The values that definitions handle.
pub(crate) fn types() -> Vec<TypeEntry> {
    let documentation = [
        ("self", DocType::from_starlark_value::<Instance<'static>>()),
        ("Path", DocType::from_starlark_value::<PathValue>()),
        ("Address", DocType::from_starlark_value::<AddressValue>()),
    ];
    let convert = |(name, documentation): (&str, DocType)| {
        let mut members: Vec<Entry> = documentation.members.iter().map(|(name, member)| entry(name, member)).collect();
        members.sort_by(|a, b| a.name.cmp(&b.name));
        TypeEntry { name: name.to_owned(), text: whole(documentation.docs.as_ref()), members }
    };
    documentation.into_iter().map(convert).collect()
}

/// The type of what makes a step.
const STEP: &str = "Step";

fn function(name: &str, item: &DocItem) -> Option<Entry> {
    match item {
        DocItem::Member(member @ DocMember::Function(_)) => Some(entry(name, member)),
        DocItem::Member(DocMember::Property(_)) | DocItem::Type(_) | DocItem::Module(_) => None,
    }
}

fn entry(name: &str, member: &DocMember) -> Entry {
    let text = member.get_doc_string();
    let details = text.and_then(|text| text.details.clone()).unwrap_or_default();
    let (details, example) = cut(&details, "# Example");
    let (details, errors) = cut(&details, "# Errors");
    let call = match member {
        DocMember::Function(function) => Some(call(function)),
        DocMember::Property(_) => None,
    };
    let (written, summary) = typed(text.map_or("", |text| &text.summary));
    let type_name = match member {
        DocMember::Function(_) => String::new(),
        DocMember::Property(property) => written.unwrap_or_else(|| plain_type(&property.typ.to_string())),
    };
    let code: Vec<&str> = example.lines().filter(|line| !line.starts_with("```")).collect();
    Entry { name: name.to_owned(), summary, details, call, type_name, errors, example: code.join("\n") }
}

fn call(function: &DocFunction) -> Call {
    let parameters = &function.params;
    let convert = |named: bool| move |parameter: &DocParam| self::parameter(parameter, named);
    let positional = parameters.pos_only.iter().chain(&parameters.pos_or_named).map(convert(false));
    let (written, text) = typed(&whole(function.ret.docs.as_ref()));
    let returns = written.unwrap_or_else(|| plain_type(&function.ret.typ.to_string()));
    Call { parameters: positional.chain(parameters.named_only.iter().map(convert(true))).collect(), returns: (returns, text) }
}

fn parameter(parameter: &DocParam, named: bool) -> Parameter {
    let (written, text) = typed(&whole(parameter.docs.as_ref()));
    Parameter {
        name: parameter.name.clone(),
        named,
        type_name: written.unwrap_or_else(|| plain_type(&parameter.typ.to_string())),
        default: parameter.default_value.as_deref().map(plain_default),
        text,
    }
}

/// The type in parentheses that a text may begin with, for where the evaluator knows less, and the text behind it.
fn typed(text: &str) -> (Option<String>, String) {
    let parts = text.strip_prefix('(').and_then(|rest| rest.split_once(") "));
    parts.map_or_else(|| (None, text.to_owned()), |(type_name, text)| (Some(type_name.to_owned()), text.to_owned()))
}

/// A type as people write it.
fn plain_type(name: &str) -> String {
    name.replace("None | ", "").replace("typing.Any", "any").replace("list[str]", "list of str")
}

/// A default as people write it; what is not given is None to the evaluator, `_` to its documentation.
fn plain_default(text: &str) -> String {
    if text == "_" || text == "..." { "None".to_owned() } else { text.to_owned() }
}

fn whole(text: Option<&DocString>) -> String {
    let Some(text) = text else { return String::new() };
    match &text.details {
        Some(details) => format!("{}\n\n{details}", text.summary),
        None => text.summary.clone(),
    }
}

/// A text before a heading, and what stands below the heading.
fn cut(text: &str, heading: &str) -> (String, String) {
    let line = text.lines().position(|line| line.trim_end() == heading);
    let Some(line) = line else { return (text.trim().to_owned(), String::new()) };
    let lines: Vec<&str> = text.lines().collect();
    (lines[..line].join("\n").trim().to_owned(), lines[line + 1..].join("\n").trim().to_owned())
}

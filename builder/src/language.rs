//! The language reference: `LANGUAGE.md`, and what `sarsen explain` says of a builtin.
//!
//! Nothing is described here that could be taken from where it is defined: functions, types and defaults come from the builtins, keys of
//! TOML files from `environment/keys.rs`, limits from their constants. Chapters that are prose stand in `language/*.md`.

use std::fmt::Write as _;

use crate::environment::keys::{FILES, KEYS, Key, PACKAGE};
use crate::eval::reference::{Entry, Parameter, TypeEntry, functions, standard, types};
use crate::eval::{ENVIRONMENT_FIELDS, HOST_FIELDS};
use crate::filters::{FILTERS, Filter};
use crate::snapshot::PROJECT_FILE;

/// The sections of `sarsen.toml`; all others are an environment's.
const PROJECT_SECTIONS: [&str; 4] = [PROJECT_FILE, "[project]", "[retention]", PACKAGE];

/// The text of `builder/LANGUAGE.md`.
pub fn reference() -> String {
    let mut text = include_str!("language/introduction.md").to_owned();
    let (steps, others) = functions();
    text.push_str("\n## Steps\n\nA step is one declared piece of desired state. These functions make steps; `self.add` adds them.\n");
    write_entries(&mut text, "", &steps);
    text.push_str("\n## Functions\n");
    write_entries(&mut text, "", &others);
    for (index, entry) in types().iter().enumerate() {
        write_type(&mut text, entry);
        if index == 0 {
            write_fields(&mut text, "A host", "`self.host`, and `host` in templates:", &HOST_FIELDS);
            write_fields(&mut text, "An environment", "`self.environment`, and `environment` in templates:", &ENVIRONMENT_FIELDS);
        }
    }
    write_standard(&mut text);
    write_templates(&mut text);
    write_keys(&mut text);
    text.push_str(&crate::eval::limits_text());
    text.push_str(include_str!("language/batou.md"));
    text
}

/// What the reference says of one name: a function, a step, `self.NAME`, `Path.NAME`, or a key of a TOML file.
pub fn explain(name: &str) -> Option<String> {
    let mut text = String::new();
    let (steps, others) = functions();
    if let Some(entry) = steps.iter().chain(&others).find(|entry| entry.name == name) {
        write_entry(&mut text, "", entry);
    }
    for entry in types() {
        if entry.name == name {
            write_type(&mut text, &entry);
        }
        let member = name.split_once('.').filter(|(of, _)| *of == entry.name).map(|(_, member)| member);
        if let Some(member) = entry.members.iter().find(|known| Some(known.name.as_str()) == member) {
            write_entry(&mut text, &format!("{}.", entry.name), member);
        }
    }
    for key in KEYS.iter().filter(|key| key.name == name) {
        let _ = writeln!(text, "{} of {}: {}. {}.", key.name, key.section, key.values, key.text);
    }
    (!text.is_empty()).then(|| text.trim().to_owned() + "\n")
}

/// All names that [`explain`] knows, sorted.
pub fn names() -> Vec<String> {
    let (steps, others) = functions();
    let mut names: Vec<String> = steps.into_iter().chain(others).map(|entry| entry.name).collect();
    for entry in types() {
        names.extend(entry.members.iter().map(|member| format!("{}.{}", entry.name, member.name)));
        names.push(entry.name);
    }
    names.extend(KEYS.iter().map(|key| key.name.to_owned()));
    names.sort();
    names.dedup();
    names
}

fn write_entries(text: &mut String, prefix: &str, entries: &[Entry]) {
    for entry in entries {
        write_entry(text, prefix, entry);
    }
}

fn write_entry(text: &mut String, prefix: &str, entry: &Entry) {
    let Entry { name, summary, details, call, type_name, errors, example } = entry;
    let _ = write!(text, "\n### {prefix}{name}\n\n");
    match call {
        Some(call) => {
            let _ = write!(text, "```python\n{prefix}{}\n```\n\n", signature(name, &call.parameters, &call.returns.0));
        }
        None if type_name.is_empty() => {}
        None => {
            let _ = write!(text, "`{type_name}`. ");
        }
    }
    let _ = writeln!(text, "{summary}");
    if !details.is_empty() {
        let _ = write!(text, "\n{details}\n");
    }
    if let Some(call) = call.as_ref().filter(|call| !call.parameters.is_empty()) {
        text.push_str("\n| argument | type | default | |\n|---|---|---|---|\n");
        for parameter in &call.parameters {
            let default = parameter.default.as_ref().map_or_else(|| "required".to_owned(), |default| format!("`{default}`"));
            let Parameter { name, type_name, text: meaning, .. } = parameter;
            let _ = writeln!(text, "| `{name}` | {} | {default} | {meaning} |", type_name.replace('|', "or"));
        }
    }
    if let Some(call) = call.as_ref().filter(|call| !call.returns.1.is_empty()) {
        let _ = write!(text, "\nGives: {}.\n", call.returns.1);
    }
    if !errors.is_empty() {
        let _ = write!(text, "\nErrors:\n\n{errors}\n");
    }
    if !example.is_empty() {
        let _ = write!(text, "\n```python\n{example}\n```\n");
    }
}

/// A call as Starlark would declare it, on several lines if it is long.
fn signature(name: &str, parameters: &[Parameter], returns: &str) -> String {
    let mut words = Vec::new();
    let mut named = false;
    for parameter in parameters {
        if parameter.named && !named {
            words.push("*".to_owned());
            named = true;
        }
        let default = parameter.default.as_ref().map_or_else(String::new, |default| format!(" = {default}"));
        words.push(format!("{}{default}", parameter.name));
    }
    let line = format!("{name}({}) -> {returns}", words.join(", "));
    if line.len() <= 100 { line } else { format!("{name}(\n    {},\n) -> {returns}", words.join(",\n    ")) }
}

fn write_type(text: &mut String, entry: &TypeEntry) {
    let _ = write!(text, "\n## {}\n\n{}\n", entry.name, entry.text);
    write_entries(text, &format!("{}.", entry.name), &entry.members);
}

fn write_fields(text: &mut String, title: &str, lead: &str, fields: &[(&str, &str, &str)]) {
    let _ = write!(text, "\n## {title}\n\n{lead}\n\n| field | type | |\n|---|---|---|\n");
    for (name, type_name, meaning) in fields {
        let _ = writeln!(text, "| `{name}` | {type_name} | {meaning} |");
    }
}

fn write_standard(text: &mut String) {
    text.push_str("\n## Starlark's own\n\nWhat Starlark itself has, beside the methods of its types:\n\n");
    let names: Vec<String> = standard().into_iter().map(|name| format!("`{name}`")).collect();
    let _ = writeln!(text, "{}.", names.join(", "));
    text.push_str(
        "\nThere is no `time`, `random`, `env`, `open` or `while`: what a definition says must not depend on when and where it is read.\n",
    );
}

fn write_templates(text: &mut String) {
    text.push_str(include_str!("language/templates.md"));
    for Filter { name, arguments, text: meaning, .. } in FILTERS {
        let call = if arguments.is_empty() { (*name).to_owned() } else { format!("{name}({arguments})") };
        let _ = writeln!(text, "| `{}` | {} |", call.replace('|', "\\|"), meaning.replace('|', "\\|"));
    }
    text.push_str(include_str!("language/mako.md"));
}

fn write_keys(text: &mut String) {
    for file in FILES {
        let _ = write!(text, "\n## {file}\n");
        let in_file = |key: &&Key| PROJECT_SECTIONS.contains(&key.section) == (file == PROJECT_FILE);
        let mut keys: Vec<&Key> = KEYS.iter().filter(in_file).collect();
        // The sections of a file come first, however its keys are spread over the list; the sort is stable.
        keys.sort_by_key(|key| key.section != file);
        let mut section = "";
        for key in keys {
            if key.section != section {
                section = key.section;
                let title = if section == file { "Sections".to_owned() } else { format!("`{section}`") };
                let _ = write!(text, "\n### {title}\n\n| key | values | default | | for example |\n|---|---|---|---|---|\n");
            }
            let default = if key.default.is_empty() { "none" } else { key.default };
            let example = if key.example.is_empty() { String::new() } else { format!("`{} = {}`", key.name, key.example) };
            let _ = writeln!(text, "| `{}` | {} | {default} | {} | {example} |", key.name, key.values, key.text);
        }
    }
    text.push_str("\nUnknown keys are errors, with the nearest known one.\n");
}

#[cfg(test)]
mod tests;

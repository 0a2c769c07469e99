//! `sarsen explain`: what a component of the project, or a word of the language, means.

use clap::Args;
use sarsen_builder::describe::{AttributeDescription, Description};
use sarsen_builder::diagnostic::{Severity, nearest_name};
use sarsen_builder::language;
use sarsen_builder::package::Access;
use serde::Serialize;

use crate::args::Format;
use crate::context::Context;
use crate::error::{CommandError, Exit};
use crate::project::Project;
use crate::render::{columns, push_line};

/// Explain a component of the project, or a step, function or key of the language
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Name such as shop, File, self.require or jobs [default: list the project's components]
    #[arg(value_name = "NAME")]
    name: Option<String>,
}

#[derive(Serialize)]
struct Report<'a> {
    components: Vec<&'a Description>,
    /// What the language reference says, as Markdown.
    reference: Option<String>,
}

pub(crate) fn run(arguments: &Arguments, context: &Context) -> Result<Exit, CommandError> {
    // The language can be explained anywhere; without a name it is the project that is asked for.
    let components = match (Project::open_with_packages(context, Access::Network), &arguments.name) {
        (Ok(project), _) => components(&project, context)?,
        (Err(_), Some(name)) if language::explain(name).is_some() => Vec::new(),
        (Err(error), _) => return Err(error),
    };
    let (found, reference): (Vec<&Description>, _) = match &arguments.name {
        None => (components.iter().collect(), None),
        Some(name) => (components.iter().filter(|component| component.name == name.to_lowercase()).collect(), language::explain(name)),
    };
    if let Some(name) = arguments.name.as_ref().filter(|_| found.is_empty() && reference.is_none()) {
        let known = language::names();
        let known = components.iter().map(|component| component.name.as_str()).chain(known.iter().map(String::as_str));
        let error = CommandError::new(Exit::Usage, format!("there is no component `{name}`, and no such word in the language"));
        return Err(match nearest_name(name, known) {
            Some(near) => error.hint(format!("did you mean `{near}`?")),
            None => error.hint("`sarsen explain` lists the project's components"),
        });
    }
    match (context.format, &arguments.name) {
        (Format::Json, _) => context.print_json(&Report { components: found, reference })?,
        (Format::Text, None) => context.print(&list(&found))?,
        (Format::Text, Some(_)) => {
            let parts: Vec<String> = found.iter().map(|component| describe(component)).chain(reference).collect();
            context.print(&parts.join("\n"))?;
        }
    }
    Ok(Exit::Done)
}

fn components(project: &Project, context: &Context) -> Result<Vec<Description>, CommandError> {
    let (components, diagnostics) = project.describe()?;
    if diagnostics.iter().any(|diagnostic| diagnostic.severity == Severity::Error) {
        // What could be loaded can be explained nevertheless.
        context.say(project.render(context, &diagnostics).trim_end());
    }
    Ok(components)
}

fn list(components: &[&Description]) -> String {
    let first_line = |text: &str| text.lines().next().unwrap_or_default().to_owned();
    let rows: Vec<[String; 2]> = components.iter().map(|component| [component.name.clone(), first_line(&component.doc)]).collect();
    columns(&rows, 0)
}

fn describe(component: &Description) -> String {
    let Description { name, doc, at, positional, features, platforms, attributes } = component;
    let mut text = format!("component {name}, defined at {at}\n");
    if !doc.is_empty() {
        push_line(&mut text, &format!("\n{doc}"));
    }
    if let Some(features) = features {
        push_line(&mut text, &format!("\nfeatures: {}", features.join(", ")));
    }
    if !platforms.is_empty() {
        push_line(&mut text, &format!("\nplatforms with something extra: {}", platforms.join(", ")));
    }
    if attributes.is_empty() {
        return text;
    }
    text.push_str("\nattributes\n");
    let row = |attribute: &AttributeDescription| {
        let AttributeDescription { name, type_name, default, expand, doc } = attribute;
        let default = default.as_ref().map_or_else(|| "required".to_owned(), |default| format!("= {default}"));
        let remarks = [("a template", *expand), ("first value without a name", positional.as_ref() == Some(name))];
        let remarks: Vec<&str> = remarks.into_iter().filter_map(|(remark, holds)| holds.then_some(remark)).collect();
        let remarks = if remarks.is_empty() { String::new() } else { format!("({}) ", remarks.join(", ")) };
        [name.clone(), type_name.clone(), default, format!("{remarks}{doc}")]
    };
    text.push_str(&columns(&attributes.iter().map(row).collect::<Vec<_>>(), 2));
    push_line(&mut text, &format!("\nset them with\n\n  [components.{name}]\n  {} = ...", attributes[0].name));
    text
}

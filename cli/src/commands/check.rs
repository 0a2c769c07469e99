//! `sarsen check`: what is wrong with the definitions, in all environments at once.

use clap::Args;
use sarsen_builder::diagnostic::{Diagnostic, Location, Severity};
use serde::Serialize;

use crate::args::{Evaluation, Format};
use crate::context::Context;
use crate::error::{CommandError, Exit};
use crate::project::Project;
use crate::render::count;

/// Evaluate environments and show what is wrong
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Environments [default: all]
    #[arg(value_name = "ENVIRONMENT")]
    environments: Vec<String>,
    #[command(flatten)]
    evaluation: Evaluation,
}

#[derive(Serialize)]
struct Report<'a> {
    environments: &'a [String],
    diagnostics: Vec<Entry<'a>>,
}

#[derive(Serialize)]
struct Entry<'a> {
    severity: &'static str,
    code: &'a str,
    message: &'a str,
    location: Option<Place<'a>>,
    notes: Vec<Remark<'a>>,
    hints: &'a [String],
    /// The sub-components it concerns, as breadcrumbs.
    within: &'a [String],
}

#[derive(Serialize)]
struct Remark<'a> {
    message: &'a str,
    location: Option<Place<'a>>,
}

#[derive(Serialize)]
struct Place<'a> {
    file: &'a str,
    line: u32,
    column: u32,
}

impl<'a> Place<'a> {
    fn of(location: Option<&'a Location>) -> Option<Self> {
        location.map(|location| Self { file: &location.file, line: location.line, column: location.column })
    }
}

pub(crate) fn run(arguments: &Arguments, context: &Context) -> Result<Exit, CommandError> {
    let project = Project::open_with_packages(context, arguments.evaluation.access())?;
    let mut environments = arguments.environments.clone();
    if environments.is_empty() {
        environments = project.snapshot.environments().into_iter().map(str::to_owned).collect();
    }
    let diagnostics = project.check(context, &arguments.environments)?;
    let number = |severity| diagnostics.iter().filter(|diagnostic| diagnostic.severity == severity).count();
    let (errors, warnings) = (number(Severity::Error), number(Severity::Warning));
    let summary = format!("{}: {}, {}", count(environments.len(), "environment"), count(errors, "error"), count(warnings, "warning"));
    match context.format {
        Format::Json => {
            context.print_json(&Report { environments: &environments, diagnostics: diagnostics.iter().map(entry).collect() })?;
        }
        Format::Text if diagnostics.is_empty() => {}
        Format::Text => context.say(&(project.render(context, &diagnostics).trim_end().to_owned() + "\n")),
    }
    context.say(&summary);
    Ok(if errors == 0 { Exit::Done } else { Exit::Usage })
}

fn entry(diagnostic: &Diagnostic) -> Entry<'_> {
    Entry {
        severity: match diagnostic.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
            Severity::Note => "note",
        },
        code: diagnostic.code,
        message: &diagnostic.message,
        location: Place::of(diagnostic.location.as_ref()),
        notes: diagnostic.notes.iter().map(|note| Remark { message: &note.message, location: Place::of(note.location.as_ref()) }).collect(),
        hints: &diagnostic.hints,
        within: &diagnostic.within,
    }
}

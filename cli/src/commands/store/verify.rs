//! `sarsen store verify`: everything read again.

use clap::Args;
use sarsen_store::verify::Finding;
use sarsen_store::{ObjectRef, ObjectStore};
use serde::Serialize;

use super::failed;
use super::selection::select_all;
use crate::args::Format;
use crate::context::Context;
use crate::error::{CommandError, Exit};
use crate::progress::Progress;
use crate::project::open_store;
use crate::render::count;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Objects: `<id>-<name>`, or the beginning of it [default: all, and the contents that no object has]
    #[arg(value_name = "OBJECT")]
    objects: Vec<String>,
}

#[derive(Serialize)]
struct Report<'a> {
    objects: usize,
    findings: Vec<Found<'a>>,
}

/// A finding as programs read it.
#[derive(Serialize)]
struct Found<'a> {
    object: Option<&'a ObjectRef>,
    path: &'a str,
    problem: String,
}

pub(super) fn run(arguments: &Arguments, context: &Context) -> Result<Exit, CommandError> {
    let store = open_store(context)?;
    let (objects, findings) = if arguments.objects.is_empty() {
        let mut progress = Progress::of("verifying the store");
        progress.show(|| String::from("..."));
        (store.objects().map_err(failed)?.len(), store.verify().map_err(failed)?)
    } else {
        let objects = select_all(&store, &arguments.objects)?;
        (objects.len(), verify(&store, &objects)?)
    };
    match context.format {
        Format::Json => {
            let found = |finding: &'_ Finding| -> String { finding.problem.to_string() };
            let findings =
                findings.iter().map(|finding| Found { object: finding.object.as_ref(), path: &finding.path, problem: found(finding) });
            context.print_json(&Report { objects, findings: findings.collect() })?;
        }
        Format::Text => findings.iter().try_for_each(|finding| context.print(&format!("{finding}\n")))?,
    }
    if findings.is_empty() {
        context.say(&format!("{} verified", count(objects, "object")));
        return Ok(Exit::Done);
    }
    Err(CommandError::new(
        Exit::Failed,
        format!("the store at `{}` has {}", context.root.display(), count(findings.len(), "damaged place")),
    )
    .hint("remove the objects that are named and build again"))
}

fn verify(store: &ObjectStore, objects: &[ObjectRef]) -> Result<Vec<Finding>, CommandError> {
    let mut progress = Progress::of("verifying");
    let mut findings = Vec::new();
    for (done, object) in objects.iter().enumerate() {
        progress.show(|| format!("{done} of {}", count(objects.len(), "object")));
        findings.extend(store.verify_object(object).map_err(failed)?);
    }
    Ok(findings)
}

//! `sarsen store repair`: what verify finds, put right from whatever still has the right bytes.

use std::collections::BTreeSet;
use std::path::PathBuf;

use clap::Args;
use sarsen_store::progress::Counters;
use sarsen_store::repair::{RepairError, Repaired, Source};
use sarsen_store::verify::{Effort, Finding, Problem};
use sarsen_store::{ObjectRef, ObjectStore};
use serde::Serialize;

use super::failed;
use super::selection::select_all;
use super::verify::Found;
use crate::args::Format;
use crate::context::Context;
use crate::error::{CommandError, Exit};
use crate::progress::watch;
use crate::project::open_store;
use crate::render::count;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Objects: `<id>-<name>`, which may be gone, or the beginning of one that is not [default: everything]
    #[arg(value_name = "OBJECT")]
    objects: Vec<String>,
    /// Root of another store, or file that `sarsen store export` wrote, to take from. May be given several times
    #[arg(long, value_name = "SOURCE")]
    from: Vec<PathBuf>,
}

#[derive(Serialize)]
struct Report<'a> {
    repaired: Vec<Found<'a>>,
    left: Vec<Found<'a>>,
    quarantined: Vec<String>,
}

pub(super) fn run(arguments: &Arguments, context: &Context) -> Result<Exit, CommandError> {
    let sources = arguments.from.iter().map(|path| open(path)).collect::<Result<Vec<_>, _>>()?;
    let store = open_store(context)?;
    let objects = if arguments.objects.is_empty() { None } else { Some(select(&store, &arguments.objects)?) };
    let counters = Counters::new();
    let effort = Effort::full(&counters);
    let Repaired { repaired, left, quarantined } =
        watch("repairing", &counters, || store.repair(objects.as_ref(), &sources, context.now, &effort)).map_err(failed)?;
    match context.format {
        Format::Json => {
            let quarantined = quarantined.iter().map(|path| path.display().to_string()).collect();
            let (repaired, left) = (repaired.iter().map(Found::of).collect(), left.iter().map(Found::of).collect());
            context.print_json(&Report { repaired, left, quarantined })?;
        }
        Format::Text => {
            repaired.iter().try_for_each(|finding| context.print(&format!("repaired: {finding}\n")))?;
            left.iter().try_for_each(|finding| context.print(&format!("left: {finding}\n")))?;
        }
    }
    if !quarantined.is_empty() {
        let place = store.root().join("quarantine");
        context.say(&format!(
            "{} in `{}`: remove them when nobody wants to look at them",
            count(quarantined.len(), "damaged file"),
            place.display()
        ));
    }
    if left.is_empty() {
        context.say(&if repaired.is_empty() {
            String::from("nothing to repair")
        } else {
            format!("{} repaired", count(repaired.len(), "place"))
        });
        return Ok(Exit::Done);
    }
    let error = CommandError::new(Exit::Failed, format!("{} cannot be repaired from what is here", count(left.len(), "place")));
    Err(advice(&left, sources.is_empty()).into_iter().fold(error, CommandError::hint))
}

fn open(path: &std::path::Path) -> Result<Source, CommandError> {
    Source::of(path).map_err(|error| match error {
        RepairError::Source { .. } => CommandError::of(Exit::Usage, &error)
            .hint("name the root of another store, which has a format.json, or a file that `sarsen store export` wrote"),
        RepairError::Export { .. } | RepairError::Store(_) => failed(error),
    })
}

/// The objects that are named; one that is named in full may be gone.
fn select(store: &ObjectStore, texts: &[String]) -> Result<BTreeSet<ObjectRef>, CommandError> {
    let mut objects = BTreeSet::new();
    for text in texts {
        match text.parse::<ObjectRef>() {
            Ok(object) => drop(objects.insert(object)),
            Err(_) => objects.extend(select_all(store, std::slice::from_ref(text))?),
        }
    }
    Ok(objects)
}

/// What to do about what is left.
fn advice(left: &[Finding], without_sources: bool) -> Vec<String> {
    let any = |wanted: fn(&Problem) -> bool| left.iter().any(|finding| wanted(&finding.problem));
    let mut advice = Vec::new();
    if any(|problem| matches!(problem, Problem::Unreadable { .. })) {
        advice.push(String::from("what cannot be read may be the disk: see the kernel's log before anything else"));
    }
    if any(|problem| !matches!(problem, Problem::Unreadable { .. })) {
        let other = if without_sources { "give" } else { "give another" };
        advice.push(format!("{other} source with --from: the root of a store, or an export, that has these objects"));
        advice.push(String::from("or make them again into another store, with --root DIR, and repair --from DIR"));
    }
    advice
}

//! `sarsen store du`: how much space objects take.
//!
//! Each row is an object with all that it needs; so a bundle's row says what the bundle takes, and what would be free without it.

use clap::Args;
use sarsen_store::gc::generations;

use sarsen_store::{Leftovers, ObjectRef, ObjectStore, Usage};
use serde::Serialize;

use super::selection::select_all;
use super::{failed, leftovers};
use crate::args::Format;
use crate::context::Context;
use crate::error::{CommandError, Exit};
use crate::progress::Progress;
use crate::project::open_store;
use crate::render::{bytes, columns, count};

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Objects: `<id>-<name>`, or the beginning of it; each is taken with all that it needs [default: the bundles of all generations, and
    /// then the whole store]
    #[arg(value_name = "OBJECT")]
    objects: Vec<String>,
}

#[derive(Serialize)]
struct Report {
    rows: Vec<Row>,
    total: Space,
    /// Beside the objects, in bytes.
    trash: u64,
    quarantine: u64,
}

/// An object with all that it needs.
#[derive(Serialize)]
struct Row {
    object: ObjectRef,
    /// The generations that it is the bundle of, as `<profile>/<number>`; none if objects were named.
    generations: Vec<String>,
    #[serde(flatten)]
    space: Space,
}

/// What some objects take, in bytes of file contents.
#[derive(Debug, Clone, Copy, Serialize)]
struct Space {
    objects: usize,
    files: u64,
    bytes: u64,
    distinct: u64,
    unique: u64,
    shared: u64,
}

pub(super) fn run(arguments: &Arguments, context: &Context) -> Result<Exit, CommandError> {
    let store = open_store(context)?;
    let mut report = if arguments.objects.is_empty() { measure_all(&store) } else { measure(&store, &arguments.objects) }?;
    if arguments.objects.is_empty() {
        let Leftovers { trash, quarantine } = leftovers::tell(&store, context)?;
        (report.trash, report.quarantine) = (trash, quarantine);
    }
    match context.format {
        Format::Json => context.print_json(&report)?,
        Format::Text => context.print(&text(&report))?,
    }
    let Space { objects, files, bytes: all, distinct, .. } = report.total;
    let files = count(usize::try_from(files).unwrap_or(usize::MAX), "file");
    context.say(&format!("{}, {files} of {}; {} on disk", count(objects, "object"), bytes(all), bytes(distinct)));
    Ok(Exit::Done)
}

/// The objects that were named, and all of them together.
fn measure(store: &ObjectStore, texts: &[String]) -> Result<Report, CommandError> {
    let objects = select_all(store, texts)?;
    let total = space(store, &store.closure(&objects).map_err(failed)?)?;
    Ok(Report { rows: rows(store, objects.into_iter().map(|object| (object, Vec::new())).collect())?, total, trash: 0, quarantine: 0 })
}

/// The bundles of all generations, and the whole store.
fn measure_all(store: &ObjectStore) -> Result<Report, CommandError> {
    let mut bundles: Vec<(ObjectRef, Vec<String>)> = Vec::new();
    for generation in generations(store).map_err(failed)? {
        let name = format!("{}/{}", generation.profile, generation.number);
        match bundles.iter_mut().find(|(object, _)| *object == generation.object) {
            Some((_, names)) => names.push(name),
            None => bundles.push((generation.object, vec![name])),
        }
    }
    let total = space(store, &store.objects().map_err(failed)?)?;
    Ok(Report { rows: rows(store, bundles)?, total, trash: 0, quarantine: 0 })
}

fn rows(store: &ObjectStore, objects: Vec<(ObjectRef, Vec<String>)>) -> Result<Vec<Row>, CommandError> {
    let mut progress = Progress::of("measuring");
    let all = objects.len();
    let row = |(done, (object, generations)): (usize, (ObjectRef, Vec<String>))| {
        progress.show(|| format!("{done} of {}", count(all, "object")));
        let closure = store.closure(std::slice::from_ref(&object)).map_err(failed)?;
        Ok(Row { space: space(store, &closure)?, object, generations })
    };
    objects.into_iter().enumerate().map(row).collect()
}

fn space(store: &ObjectStore, objects: &[ObjectRef]) -> Result<Space, CommandError> {
    let usage = store.usage(objects).map_err(|error| failed(error).hint("`sarsen store verify` says what is damaged"))?;
    let Usage { files, bytes, distinct, unique } = usage;
    Ok(Space { objects: objects.len(), files, bytes, distinct, unique, shared: usage.shared() })
}

fn text(report: &Report) -> String {
    if report.rows.is_empty() {
        return String::new();
    }
    let mut rows = vec![["object", "all", "its own", "shared", ""].map(str::to_owned)];
    rows.extend(report.rows.iter().map(|Row { object, generations, space }| {
        [object.to_string(), bytes(space.distinct), bytes(space.unique), bytes(space.shared), generations.join(" ")]
    }));
    columns(&rows, 0)
}

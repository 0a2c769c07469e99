//! `sarsen store ls`: the objects, or the files of one.

use clap::Args;
use sarsen_store::{Digest, Entry, EntryKind, ObjectRef, ObjectStore, RelPath};
use serde::Serialize;

use super::failed;
use super::selection::{manifest, select};
use crate::args::Format;
use crate::context::Context;
use crate::error::{CommandError, Exit};
use crate::project::open_store;
use crate::render::{bytes, columns, count, harmless};

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Object: `<id>-<name>`, or the beginning of it
    object: Option<String>,
}

#[derive(Serialize)]
struct Objects {
    objects: Vec<Listed>,
}

/// An object in the list; nothing is known of the content of one whose manifest is damaged.
#[derive(Serialize)]
struct Listed {
    object: ObjectRef,
    files: Option<usize>,
    bytes: Option<u64>,
}

#[derive(Serialize)]
struct Content<'a> {
    object: &'a ObjectRef,
    references: &'a [ObjectRef],
    entries: Vec<Item<'a>>,
}

/// An entry as programs read it.
#[derive(Serialize)]
struct Item<'a> {
    path: &'a RelPath,
    #[serde(flatten)]
    kind: Kind<'a>,
}

#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
enum Kind<'a> {
    Directory,
    File { size: u64, executable: bool, digest: &'a Digest },
    Symlink { target: &'a str },
}

pub(super) fn run(arguments: &Arguments, context: &Context) -> Result<Exit, CommandError> {
    let store = open_store(context)?;
    match &arguments.object {
        None => list(&store, context),
        Some(object) => show(&store, &select(&store, object)?, context),
    }
}

fn list(store: &ObjectStore, context: &Context) -> Result<Exit, CommandError> {
    let objects: Vec<Listed> = store.objects().map_err(failed)?.into_iter().map(|object| describe(store, object)).collect();
    if context.format == Format::Json {
        context.print_json(&Objects { objects })?;
        return Ok(Exit::Done);
    }
    let row = |listed: &Listed| {
        let size = match (listed.files, listed.bytes) {
            (Some(files), Some(length)) => [count(files, "file"), bytes(length)],
            _ => [String::from("damaged"), String::new()],
        };
        let [files, length] = size;
        [listed.object.to_string(), files, length]
    };
    context.print(&columns(&objects.iter().map(row).collect::<Vec<_>>(), 0))?;
    context.say(&count(objects.len(), "object"));
    Ok(Exit::Done)
}

fn describe(store: &ObjectStore, object: ObjectRef) -> Listed {
    let tree = store.manifest(&object).ok().map(|manifest| manifest.tree);
    let files = tree.as_ref().map(|tree| tree.files().count());
    Listed { object, files, bytes: tree.map(|tree| tree.file_bytes()) }
}

fn show(store: &ObjectStore, object: &ObjectRef, context: &Context) -> Result<Exit, CommandError> {
    let manifest = manifest(store, object)?;
    let entries: Vec<Entry> = manifest.tree.entries().collect();
    match context.format {
        Format::Json => {
            let entries = entries.iter().map(|entry| Item { path: &entry.path, kind: kind_of(entry) }).collect();
            context.print_json(&Content { object, references: &manifest.references, entries })?;
        }
        Format::Text => {
            context.print(&columns(&entries.iter().map(row_of).collect::<Vec<_>>(), 0))?;
            for reference in &manifest.references {
                context.say(&format!("refers to {reference}"));
            }
        }
    }
    Ok(Exit::Done)
}

fn kind_of(entry: &Entry) -> Kind<'_> {
    match &entry.kind {
        EntryKind::Directory => Kind::Directory,
        EntryKind::File { size, digest, executable, self_references: _ } => Kind::File { size: *size, executable: *executable, digest },
        EntryKind::Symlink { target, self_offsets: _ } => Kind::Symlink { target },
    }
}

fn row_of(entry: &Entry) -> [String; 3] {
    let path = harmless(entry.path.as_str());
    match &entry.kind {
        EntryKind::Directory => [String::from("directory"), String::new(), format!("{path}/")],
        EntryKind::File { size, executable, .. } => {
            let kind = if *executable { "program" } else { "file" };
            [String::from(kind), bytes(*size), path]
        }
        EntryKind::Symlink { target, .. } => [String::from("link"), String::new(), format!("{path} -> {}", harmless(target))],
    }
}

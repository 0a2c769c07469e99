//! `sarsen store diff`: what two objects hold, path by path.
//!
//! An object that names itself has other bytes wherever it does so; what differs in nothing but that is the same.

use std::collections::BTreeMap;

use clap::Args;
use sarsen_store::{Entry, EntryKind, ObjectManifest, ObjectRef, RelPath};
use serde::Serialize;

use super::selection::{manifest, select};
use crate::args::Format;
use crate::context::Context;
use crate::error::{CommandError, Exit};
use crate::project::open_store;
use crate::render::{bytes, columns, harmless};

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Object that the other is compared with: `<id>-<name>`, or the beginning of it
    #[arg(value_name = "OLD")]
    old: String,
    /// The other object
    #[arg(value_name = "NEW")]
    new: String,
}

#[derive(Serialize)]
struct Report<'a> {
    old: &'a ObjectRef,
    new: &'a ObjectRef,
    added: Vec<Single<'a>>,
    removed: Vec<Single<'a>>,
    changed: Vec<Change<'a>>,
    references_added: Vec<&'a ObjectRef>,
    references_removed: Vec<&'a ObjectRef>,
}

/// A path that only one object has.
#[derive(Serialize)]
struct Single<'a> {
    path: &'a RelPath,
    #[serde(flatten)]
    side: Side<'a>,
}

/// A path that both have, differently.
#[derive(Serialize)]
struct Change<'a> {
    path: &'a RelPath,
    old: Side<'a>,
    new: Side<'a>,
}

/// What an object has at a path.
#[derive(Serialize, PartialEq, Eq)]
#[serde(tag = "kind", rename_all = "lowercase")]
enum Side<'a> {
    Directory,
    File { size: u64, executable: bool },
    Symlink { target: &'a str },
}

pub(super) fn run(arguments: &Arguments, context: &Context) -> Result<Exit, CommandError> {
    let store = open_store(context)?;
    let (old, new) = (select(&store, &arguments.old)?, select(&store, &arguments.new)?);
    let (old, new) = (manifest(&store, &old)?, manifest(&store, &new)?);
    let entries = |manifest: &ObjectManifest| manifest.tree.entries().collect::<Vec<Entry>>();
    let (old_entries, new_entries) = (entries(&old), entries(&new));
    let report = compare((&old, &old_entries), (&new, &new_entries));
    match context.format {
        Format::Json => context.print_json(&report)?,
        Format::Text => context.print(&text(&report))?,
    }
    context.say(&format!("{} added, {} removed, {} changed", report.added.len(), report.removed.len(), report.changed.len()));
    Ok(Exit::Done)
}

fn compare<'a>((old, old_entries): (&'a ObjectManifest, &'a [Entry]), (new, new_entries): (&'a ObjectManifest, &'a [Entry])) -> Report<'a> {
    let mut report = Report {
        old: &old.object,
        new: &new.object,
        added: Vec::new(),
        removed: Vec::new(),
        changed: Vec::new(),
        references_added: new.references.iter().filter(|reference| !old.references.contains(reference)).collect(),
        references_removed: old.references.iter().filter(|reference| !new.references.contains(reference)).collect(),
    };
    let mut pairs: BTreeMap<&RelPath, (Option<&EntryKind>, Option<&EntryKind>)> = BTreeMap::new();
    for entry in old_entries {
        pairs.entry(&entry.path).or_default().0 = Some(&entry.kind);
    }
    for entry in new_entries {
        pairs.entry(&entry.path).or_default().1 = Some(&entry.kind);
    }
    for (path, pair) in pairs {
        match pair {
            (None, Some(kind)) => report.added.push(Single { path, side: side_of(kind) }),
            (Some(kind), None) => report.removed.push(Single { path, side: side_of(kind) }),
            (Some(former), Some(kind)) if !is_same(former, kind) => {
                report.changed.push(Change { path, old: side_of(former), new: side_of(kind) });
            }
            (Some(_) | None, _) => {}
        }
    }
    report
}

/// Whether two entries differ in nothing but the id of their own object.
fn is_same(old: &EntryKind, new: &EntryKind) -> bool {
    match (old, new) {
        (
            EntryKind::File { size: old_size, digest: old_digest, executable: old_mode, self_references: old_own },
            EntryKind::File { size, digest, executable, self_references: own },
        ) => {
            let content = match (old_own, own) {
                (Some(old_own), Some(own)) => old_own == own,
                _ => old_digest == digest,
            };
            content && (old_size, old_mode) == (size, executable)
        }
        (EntryKind::Symlink { target: old_target, self_offsets: old_own }, EntryKind::Symlink { target, self_offsets: own }) => {
            old_own == own && without(old_target, old_own) == without(target, own)
        }
        _ => old == new,
    }
}

/// A link's target with the ids at these offsets blanked out.
fn without(target: &str, offsets: &[u64]) -> Vec<u8> {
    let mut bytes = target.as_bytes().to_vec();
    for offset in offsets {
        if let Some(place) = usize::try_from(*offset).ok().and_then(|start| bytes.get_mut(start..start + 32)) {
            place.fill(b'0');
        }
    }
    bytes
}

fn side_of(kind: &EntryKind) -> Side<'_> {
    match kind {
        EntryKind::Directory => Side::Directory,
        EntryKind::File { size, executable, .. } => Side::File { size: *size, executable: *executable },
        EntryKind::Symlink { target, .. } => Side::Symlink { target },
    }
}

fn text(report: &Report<'_>) -> String {
    let mut rows: Vec<(&str, [String; 3])> = Vec::new();
    let single = |word: &str, single: &Single<'_>| [word.to_owned(), harmless(single.path.as_str()), side_text(&single.side)];
    rows.extend(report.added.iter().map(|added| (added.path.as_str(), single("add", added))));
    rows.extend(report.removed.iter().map(|removed| (removed.path.as_str(), single("remove", removed))));
    rows.extend(report.changed.iter().map(|change| {
        let row = [String::from("change"), harmless(change.path.as_str()), change_text(change)];
        (change.path.as_str(), row)
    }));
    rows.sort();
    let reference = |word: &str, reference: &ObjectRef| [word.to_owned(), reference.to_string(), String::from("reference")];
    let added = report.references_added.iter().map(|added| reference("add", added));
    let removed = report.references_removed.iter().map(|removed| reference("remove", removed));
    let rows: Vec<[String; 3]> = rows.into_iter().map(|(_, row)| row).chain(removed).chain(added).collect();
    columns(&rows, 0)
}

fn side_text(side: &Side<'_>) -> String {
    match side {
        Side::Directory => String::from("directory"),
        Side::File { size, executable: false } => bytes(*size),
        Side::File { size, executable: true } => format!("{}, program", bytes(*size)),
        Side::Symlink { target } => format!("link to {}", harmless(target)),
    }
}

fn change_text(change: &Change<'_>) -> String {
    let (old, new) = (side_text(&change.old), side_text(&change.new));
    if old == new { format!("{new}, other content") } else { format!("{old} -> {new}") }
}

#[cfg(test)]
mod tests {
    use sarsen_store::{Digest, SelfReferences};

    use super::*;

    #[test]
    fn the_own_id_is_no_difference() {
        let link = |target: String| EntryKind::Symlink { target, self_offsets: vec![2] };
        let target = |c: char| format!("a/{}-x", String::from(c).repeat(32));
        assert!(is_same(&link(target('b')), &link(target('c'))));
        assert!(!is_same(&link(target('b')), &link(target('c') + "y")));
        let file = |digest: &[u8], modulo: &[u8], executable| EntryKind::File {
            size: 40,
            digest: Digest::of(digest),
            executable,
            self_references: Some(SelfReferences { offsets: vec![0], modulo: Digest::of(modulo) }),
        };
        assert!(is_same(&file(b"1", b"same", false), &file(b"2", b"same", false)));
        assert!(!is_same(&file(b"1", b"same", false), &file(b"2", b"same", true)));
        assert!(!is_same(&file(b"1", b"same", false), &file(b"2", b"other", false)));
    }
}

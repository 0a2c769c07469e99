//! Checks the contents under their names in `blobs/`: each is a file of its name's bytes and mode.
//!
//! This comes first, so that a file of an object needs no more than a look at the inode of its content's name.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::sync::{Mutex, PoisonError};

use super::finding::{Findings, Problem};
use super::hashing::Hashing;
use super::objects::unreadable;
use super::{OBJECT_TIME, describe_kind, mode_of_file};
use crate::Digest;
use crate::error::StoreError;
use crate::fsutil::{Directory, Node, NodeKind};
use crate::objects::ObjectStore;

/// What inodes hold that are not what their names in `blobs/` say, or why they cannot be read; by device and inode.
pub(super) type BadContents = BTreeMap<(u64, u64), Result<Digest, String>>;

/// Where the contents found bad are collected.
#[derive(Debug, Default)]
pub(super) struct Collected(Mutex<BadContents>);

impl Collected {
    pub(super) fn into_inner(self) -> BadContents {
        self.0.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a name under `blobs/` promises: the digest, and whether the file is executable.
pub(crate) fn blob_of_name(shard: &OsStr, name: &OsStr) -> Option<(Digest, bool)> {
    let (shard, name) = (shard.to_str()?, name.to_str()?);
    let (text, executable) = name.strip_suffix('x').map_or((name, false), |text| (text, true));
    let digest = text.parse().ok()?;
    (shard.len() == 2 && text.starts_with(shard)).then_some((digest, executable))
}

/// As [`blob_of_name`], of a path below the root.
pub(crate) fn blob_of_path(path: &str) -> Option<(Digest, bool)> {
    let (shard, name) = path.strip_prefix("blobs/")?.split_once('/')?;
    blob_of_name(OsStr::new(shard), OsStr::new(name))
}

/// The name of a content below the root.
pub(crate) fn name_in_blobs(digest: &Digest, executable: bool) -> String {
    let text = digest.to_string();
    format!("blobs/{}/{text}{}", &text[..2], if executable { "x" } else { "" })
}

/// Checks all contents.
pub(super) fn check_blobs<'env>(
    store: &ObjectStore,
    hashing: &Hashing<'env>,
    findings: &'env Findings,
    bad: &'env Collected,
) -> Result<(), StoreError> {
    let blobs = Directory::open(&store.root().join("blobs"))?;
    for shard in blobs.names()? {
        let Some(directory) = open_shard(&blobs, &shard, findings) else { continue };
        for name in directory.names()? {
            match blob_of_name(&shard, &name) {
                Some(content) => check_blob(&directory, &name, content, hashing, (findings, bad)),
                None => findings.push(None, &format!("blobs/{}/{}", shard.to_string_lossy(), name.to_string_lossy()), Problem::Extra),
            }
        }
    }
    Ok(())
}

/// Whether a directory of this name belongs into `blobs/`.
pub(super) fn is_shard(name: &str) -> bool {
    name.len() == 2 && name.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// A directory of `blobs/`; what does not belong there is a finding.
pub(super) fn open_shard(blobs: &Directory, shard: &OsStr, findings: &Findings) -> Option<Directory> {
    let path = format!("blobs/{}", shard.to_string_lossy());
    let is_ours = shard.to_str().is_some_and(is_shard);
    match blobs.open_child(shard) {
        Ok(directory) if is_ours => return Some(directory),
        Err(error) if is_ours && blobs.kind_of(shard).is_ok_and(|kind| kind == NodeKind::Directory) => {
            findings.push(None, &path, unreadable(&error));
        }
        _ => findings.push(None, &path, Problem::Extra),
    }
    None
}

/// Checks one content under its name, and has it read.
pub(super) fn check_blob<'env>(
    directory: &Directory,
    name: &OsStr,
    (expected, executable): (Digest, bool),
    hashing: &Hashing<'env>,
    (findings, bad): (&'env Findings, &'env Collected),
) {
    let path = name_in_blobs(&expected, executable);
    let node = match directory.node(name) {
        Ok(node) => node,
        // A collector was faster.
        Err(error) if error.is_missing() => return,
        Err(error) => return findings.push(None, &path, unreadable(&error)),
    };
    if node.kind != NodeKind::File {
        let (expected, found) = (describe_kind(NodeKind::File), describe_kind(node.kind));
        return findings.push(None, &path, Problem::Kind { expected, found });
    }
    let mode = mode_of_file(executable);
    if node.mode != mode {
        findings.push(None, &path, Problem::Mode { expected: mode, found: node.mode });
    }
    if node.stamp.modified != OBJECT_TIME {
        findings.push(None, &path, Problem::Time { found: node.stamp.modified });
    }
    match directory.open_file(name) {
        Ok(file) => read(file, &node, path, expected, hashing, (findings, bad)),
        Err(error) if error.is_missing() => {}
        Err(error) => {
            findings.push(None, &path, unreadable(&error));
            note_bad(bad, &node, Err(error.source.to_string()));
        }
    }
}

fn read<'env>(
    file: std::fs::File,
    node: &Node,
    path: String,
    expected: Digest,
    hashing: &Hashing<'env>,
    (findings, bad): (&'env Findings, &'env Collected),
) {
    let of = *node;
    // Two names here are never one inode in a sound store, so this one need not be remembered: it will not come again.
    hashing.hash(file, &Node { links: 1, ..of }, move |outcome| {
        let outcome = outcome.map(|digests| digests.digest);
        match &outcome {
            Ok(found) if *found == expected => return,
            Ok(found) => findings.push(None, &path, Problem::Content { expected, found: *found }),
            Err(reason) => findings.push(None, &path, Problem::Unreadable { reason: reason.clone() }),
        }
        note_bad(bad, &of, outcome);
    });
}

fn note_bad(bad: &Collected, node: &Node, outcome: Result<Digest, String>) {
    bad.0.lock().unwrap_or_else(PoisonError::into_inner).insert((node.stamp.device, node.stamp.inode), outcome);
}

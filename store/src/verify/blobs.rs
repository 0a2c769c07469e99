//! Checks the contents under their names in `blobs/`: each is a file of its name's bytes and mode.
//!
//! This comes first, so that a file of an object needs no more than a look at the inode of its content's name.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::finding::{Findings, Problem};
use super::hashing::Hashing;
use super::objects::unreadable;
use super::{OBJECT_TIME, describe_kind, mode_of_file};
use crate::Digest;
use crate::error::StoreError;
use crate::fsutil::{Directory, Node, NodeKind};
use crate::objects::ObjectStore;

/// What is known to be wrong with contents, once all names in `blobs/` were looked at.
#[derive(Debug, Default)]
pub(super) struct BadContents {
    /// What inodes hold that are not what their names in `blobs/` say, or why they cannot be read; by device and inode.
    inodes: BTreeMap<(u64, u64), Result<Digest, String>>,
    /// Directories of `blobs/` that could not be looked into: nothing in them was read.
    unread: BTreeSet<OsString>,
}

impl BadContents {
    pub(super) fn get(&self, inode: (u64, u64)) -> Option<&Result<Digest, String>> {
        self.inodes.get(&inode)
    }

    /// Whether no inode is bad.
    pub(super) fn is_empty(&self) -> bool {
        self.inodes.is_empty()
    }

    /// Whether the name of this content was not looked at.
    pub(super) fn is_unread(&self, digest: &Digest) -> bool {
        !self.unread.is_empty() && self.unread.contains(OsStr::new(&digest.to_string()[..2]))
    }
}

/// Where the contents found bad are collected.
#[derive(Debug, Default)]
pub(super) struct Collected(Mutex<BadContents>);

impl Collected {
    pub(super) fn into_inner(self) -> BadContents {
        self.0.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, BadContents> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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
        let Some((directory, names)) = list_shard(&blobs, &shard, findings) else {
            bad.lock().unread.insert(shard);
            continue;
        };
        for name in names {
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

/// A directory of `blobs/` with the names in it; that it cannot be looked into is a finding, and what does not belong there is one, too.
pub(super) fn list_shard(blobs: &Directory, shard: &OsStr, findings: &Findings) -> Option<(Directory, Vec<OsString>)> {
    let directory = open_shard(blobs, shard, findings)?;
    match directory.names() {
        Ok(names) => Some((directory, names)),
        Err(error) => {
            findings.push(None, &format!("blobs/{}", shard.to_string_lossy()), unreadable(&error));
            None
        }
    }
}

fn open_shard(blobs: &Directory, shard: &OsStr, findings: &Findings) -> Option<Directory> {
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
    bad.lock().inodes.insert((node.stamp.device, node.stamp.inode), outcome);
}

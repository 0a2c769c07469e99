//! Tells what a directory holds without reading its files, if the stat cache knows all of them.
//!
//! An unchanged source costs a walk with it, nothing is created, and what is put is the object that is there already.

use crate::RelPath;
use crate::fsutil::{Directory, Listed, NodeKind};
use crate::stat_cache::{DirectoryKey, KnownFiles, StatCache};
use crate::tree::{Entry, EntryKind};

use super::ingest::child_path;

/// What the stat cache tells of a whole directory without reading any file.
pub(super) fn recall(cache: &StatCache, source: &Directory) -> Option<Vec<Entry>> {
    cache.ask(|known| {
        let mut entries = Vec::new();
        recall_level(known, source, None, &mut entries)?;
        Some(entries)
    })
}

/// Tells what is known of a directory.
type Known<'a> = &'a dyn Fn(DirectoryKey) -> KnownFiles;

// Whatever is wrong with the source is found again, and reported, when it is copied.
fn recall_level(cache: Known<'_>, source: &Directory, below: Option<&RelPath>, entries: &mut Vec<Entry>) -> Option<()> {
    let own = source.own_node().ok()?.stamp;
    let mut known = None;
    for Listed { name, kind } in source.listed().ok()? {
        let path = child_path(source, below, &name).ok()?;
        let kind = match kind.map_or_else(|| source.kind_of(&name), Ok).ok()? {
            NodeKind::Directory => {
                entries.push(Entry { path: path.clone(), kind: EntryKind::Directory });
                recall_level(cache, &source.open_child(&name).ok()?, Some(&path), entries)?;
                continue;
            }
            NodeKind::Symlink => {
                let target = String::from_utf8(source.read_link(&name).ok()?).ok()?;
                EntryKind::Symlink { target, self_offsets: Vec::new() }
            }
            NodeKind::File => {
                let known = known.get_or_insert_with(|| cache((own.device, own.inode)));
                let node = source.node(&name).ok().filter(|node| node.kind == NodeKind::File && node.mode & 0o6000 == 0)?;
                let digest = known.digest(&node.stamp)?;
                EntryKind::File { size: node.stamp.size, digest, executable: node.mode & 0o100 != 0, self_references: None }
            }
            NodeKind::Special => return None,
        };
        entries.push(Entry { path, kind });
    }
    Some(())
}

//! Tells what a directory holds without reading its files, if the stat cache knows all of them.
//!
//! An unchanged source costs a walk with it, nothing is created, and what is put is the object that is there already.

use std::ffi::OsStr;

use crate::fsutil::{Directory, NodeKind, Step};
use crate::stat_cache::{DirectoryKey, KnownFiles, StatCache};
use crate::tree::{ENTRIES_MAX, KindView, Tree, TreeBuilder};

/// What the stat cache tells of a whole directory without reading any file.
pub(super) fn recall(cache: &StatCache, source: &Directory) -> Option<Tree> {
    cache.ask(|known| {
        let mut recall = Recall { known, builder: TreeBuilder::new(), path: String::new() };
        recall.level(source)?;
        recall.builder.finish().ok()
    })
}

struct Recall<'a> {
    /// Tells what is known of a directory.
    known: &'a dyn Fn(DirectoryKey) -> KnownFiles,
    builder: TreeBuilder,
    /// The path of the entry at hand.
    path: String,
}

impl Recall<'_> {
    // Whatever is wrong with the source is found again, and reported, when it is copied.
    fn level(&mut self, source: &Directory) -> Option<()> {
        let mut known = None;
        let below = self.path.len();
        for step in source.listing(ENTRIES_MAX).ok()?.steps() {
            let (Step::Entry(name, _) | Step::Descend(name)) = step;
            self.enter(below, name)?;
            match step {
                Step::Descend(name) => self.level(&source.open_child(name).ok()?)?,
                Step::Entry(_, NodeKind::Directory) => drop(self.builder.push(&self.path, KindView::Directory).ok()?),
                Step::Entry(name, NodeKind::Symlink) => {
                    let target = String::from_utf8(source.read_link(name).ok()?).ok()?;
                    self.builder.push(&self.path, KindView::Symlink { target: &target, self_offsets: &[] }).ok()?;
                }
                Step::Entry(name, NodeKind::File) => {
                    if known.is_none() {
                        let own = source.own_node().ok()?.stamp;
                        known = Some((self.known)((own.device, own.inode)));
                    }
                    let node = source.node(name).ok().filter(|node| node.kind == NodeKind::File && node.mode & 0o6000 == 0)?;
                    let digest = known.as_ref()?.digest(&node.stamp)?;
                    let executable = node.mode & 0o100 != 0;
                    let kind = KindView::File { size: node.stamp.size, digest: &digest, executable, self_references: None };
                    self.builder.push(&self.path, kind).ok()?;
                }
                Step::Entry(_, NodeKind::Special) => return None,
            }
        }
        self.path.truncate(below);
        Some(())
    }

    /// Makes the path that of `name` below the first `below` bytes.
    fn enter(&mut self, below: usize, name: &OsStr) -> Option<()> {
        self.path.truncate(below);
        if below > 0 {
            self.path.push('/');
        }
        self.path.push_str(name.to_str()?);
        Some(())
    }
}

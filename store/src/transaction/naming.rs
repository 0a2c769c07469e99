//! Gives new inodes their names in `blobs/`, on a few threads. They are on disk by then, so a name there is complete.
//!
//! Goes through the objects in the order of their trees: the inodes of one directory lie together, and their directory is opened once.

use std::io;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::error::StoreError;
use crate::fsutil::{self, Directory, FsError};
use crate::tree::{KindView, Tree};

use super::Transaction;
use super::contents::{ContentKey, Contents};

/// The most threads that give names to contents.
const THREADS_MAX: usize = 4;

/// How many contents one thread names at least: a thread costs as much as a few of them.
const CONTENTS_PER_THREAD_MIN: usize = 256;

/// How many entries of a tree a thread takes at a time.
const ENTRIES_AT_ONCE: usize = 2048;

impl Transaction {
    /// Links new inodes into `blobs/`.
    pub(super) fn name_contents(&mut self) -> Result<(), StoreError> {
        let blobs = Directory::open(&self.store.root().join("blobs"))?;
        let received: Vec<_> = std::mem::take(self.contents.received()).into_iter().collect();
        let mut namer = Namer::new(self, &blobs);
        for (key, content) in &received {
            namer.name(content.path.as_ref(), None, key, false)?;
        }
        let objects = self.contents.objects().iter().enumerate();
        let parts: Vec<Part> = objects.flat_map(|(object, staged)| parts(object, staged.tree.as_ref().map_or(0, Tree::len))).collect();
        let threads_max = std::thread::available_parallelism().map_or(1, NonZeroUsize::get).min(THREADS_MAX);
        let threads = (self.contents.len() / CONTENTS_PER_THREAD_MIN).clamp(1, threads_max);
        let next = AtomicUsize::new(0);
        let work = |mut namer: Namer<'_>| {
            while let Some(part) = parts.get(next.fetch_add(1, Ordering::Relaxed)) {
                namer.name_part(part)?;
            }
            Ok(())
        };
        std::thread::scope(|scope| {
            let helpers: Vec<_> = (1..threads).map(|_| scope.spawn(|| work(Namer::new(self, &blobs)))).collect();
            let own = work(namer);
            helpers.into_iter().map(|helper| helper.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))).fold(own, Result::and)
        })
    }
}

/// Some entries of an object.
struct Part {
    object: usize,
    positions: Range<usize>,
}

fn parts(object: usize, entries: usize) -> impl Iterator<Item = Part> {
    (0..entries).step_by(ENTRIES_AT_ONCE).map(move |start| Part { object, positions: start..entries.min(start + ENTRIES_AT_ONCE) })
}

struct Namer<'a> {
    contents: &'a Contents,
    stage: &'a std::path::Path,
    blobs: &'a Directory,
    /// Which directories of `blobs/` are known to be there.
    shards: [bool; 256],
}

impl<'a> Namer<'a> {
    fn new(transaction: &'a Transaction, blobs: &'a Directory) -> Self {
        Self { contents: &transaction.contents, stage: &transaction.stage, blobs, shards: [false; 256] }
    }

    fn name_part(&mut self, Part { object, positions }: &Part) -> Result<(), StoreError> {
        let staged = &self.contents.objects()[*object];
        let Some(tree) = &staged.tree else { return Ok(()) };
        let mut parent: Option<(String, Directory)> = None;
        let mut cursor = tree.cursor_at(positions.start);
        while let Some(entry) = cursor.next().filter(|entry| entry.position < positions.end) {
            let KindView::File { digest, executable, .. } = entry.kind else { continue };
            let key = (*digest, executable);
            let Some(replaces) = self.contents.stands_for(&key, *object, entry.position) else { continue };
            let (directory, name) = entry.path.rsplit_once('/').unwrap_or(("", entry.path));
            let (_, directory) = match parent.take().filter(|(path, _)| path == directory) {
                Some(same) => parent.insert(same),
                None => parent.insert((directory.to_owned(), Directory::open(&staged.top.join(directory))?)),
            };
            self.name(name.as_ref(), Some(directory), &key, replaces)?;
        }
        Ok(())
    }

    /// Names one inode, which is at `path`, below a directory or absolute.
    fn name(&mut self, path: &std::path::Path, below: Option<&Directory>, key: &ContentKey, replaces: bool) -> Result<(), StoreError> {
        let name = blob_name(key);
        let shard = &mut self.shards[usize::from(key.0.as_bytes()[0])];
        if !*shard {
            ignore(io::ErrorKind::AlreadyExists, fsutil::create_dir(&self.blobs.path().join(&name[..2]), 0o755))?;
            *shard = true;
        }
        if !replaces {
            let linked = match below {
                Some(below) => below.link_to(path, self.blobs, name.as_ref()),
                None => self.blobs.link_from(path, name.as_ref()),
            };
            match linked {
                // What has the name may be what a publisher left who got no further, and be collected; then this content would be without a name
                // although an object has it. So the name goes to the inode that is about to be used.
                Err(error) if error.source.kind() == io::ErrorKind::AlreadyExists && !self.is_ours(path, below, &name)? => {}
                // One that has as many names in this object as it can have is found by nobody else, which costs space only.
                linked => return Ok(ignore(io::ErrorKind::TooManyLinks, ignore(io::ErrorKind::AlreadyExists, linked))?),
            }
        }
        let temporary = self.stage.join(format!("blob-{}", &name[3..]));
        fsutil::hard_link(&below.map_or_else(|| path.to_owned(), |below| below.path().join(path)), &temporary)?;
        Ok(fsutil::rename(&temporary, &self.blobs.path().join(name))?)
    }
}

impl Namer<'_> {
    /// Whether the inode at `path`, below a directory or absolute, is the one that has a name in `blobs/`.
    fn is_ours(&self, path: &std::path::Path, below: Option<&Directory>, name: &str) -> Result<bool, StoreError> {
        let own = below.map_or_else(|| fsutil::node_at(path), |below| below.node(path.as_os_str()))?;
        let named = self.blobs.node(name.as_ref())?;
        Ok((own.stamp.device, own.stamp.inode) == (named.stamp.device, named.stamp.inode))
    }
}

/// The name of a content below `blobs/`.
pub(super) fn blob_name((digest, executable): &ContentKey) -> String {
    let text = digest.to_string();
    let mark = if *executable { "x" } else { "" };
    format!("{}/{text}{mark}", &text[..2])
}

fn ignore(kind: io::ErrorKind, result: Result<(), FsError>) -> Result<(), FsError> {
    match result {
        Err(error) if error.source.kind() == kind => Ok(()),
        other => other,
    }
}

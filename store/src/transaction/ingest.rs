//! Takes a directory in: walks it once, and copies, hashes and scans its files on a few threads.
//!
//! The walk lists paths in their final order, makes directories and links, and hands the files over in batches through a short queue, so that memory
//! and open handles stay bounded; what is found out about a file is told to the growing tree. What the stat cache knows is linked without
//! being read; a new content is written once, with its final mode, and every further file of the same bytes is a link to it. Where the caller
//! gives the source away, files are renamed instead of copied. Nothing of this depends on which thread does what: the object is the same.

mod copy;
mod large;
mod rows;
mod walk;

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::sync_channel;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::error::StoreError;
use crate::fsutil::{self, Directory, FsError};
use crate::progress::Counters;
use crate::scan::Candidates;
use crate::stat_cache::StatCache;
use crate::tree::{FileFacts, SelfReferences};
use crate::{ObjectName, ObjectRef};

use super::contents::{ContentKey, Contents};
use super::naming::blob_name;
use super::staging::{Linked, Staging, link_result};
use super::unusable;
use copy::Worker;
use rows::Rows;
use walk::Walk;

/// How many batches may wait. Each holds two open directories.
const QUEUE_BATCHES: usize = 16;

/// Where the source comes from, and what may be done with it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Origin<'a> {
    /// Whether files may be taken away instead of copied: nobody else can have a handle of one.
    pub(super) given_away: bool,
    /// What is known of the source, if a file's digest is all that there is to know.
    pub(super) cache: Option<&'a StatCache>,
}

/// Copies the directory `source` with all that is in it into `staging`.
pub(super) fn ingest(staging: &mut Staging<'_>, source: Directory, origin: Origin<'_>) -> Result<(), StoreError> {
    let target = Directory::open(&staging.top)?;
    let blobs = Directory::open(&staging.store.root().join("blobs"))?;
    let shared = Shared {
        shards: shards_of(&blobs)?,
        blobs,
        candidates: staging.candidates,
        progress: staging.store.progress(),
        name: staging.name,
        top: staging.top.clone(),
        contents: Mutex::new(std::mem::take(staging.contents)),
        // The top directory has just been made, so this is the time, by the clock that files have their times from.
        rows: Rows::new(origin.cache, target.own_node()?.stamp.changed),
        given_away: origin.given_away,
        user: rustix::process::geteuid().as_raw(),
        cannot_share: AtomicBool::new(false),
        failed: AtomicBool::new(false),
        temporaries: AtomicU64::new(0),
    };
    let copied = run(source, target, &shared);
    shared.rows.flush();
    *staging.contents = shared.contents.into_inner().unwrap_or_else(PoisonError::into_inner);
    let Copied { references, later } = copied?;
    staging.references.extend(references);
    for position in later {
        let builder = staging.contents.builder();
        let (path, file) = (builder.path(position), builder.file(position));
        let known = file.map(|file| staging.link_known_content(&path, position, &file.key())).transpose()?;
        if known != Some(true) {
            return Err(StoreError::Refused { path: path.as_path().to_owned(), reason: "a file of the same content vanished" });
        }
    }
    Ok(())
}

fn run(source: Directory, target: Directory, shared: &Shared<'_>) -> Result<Copied, StoreError> {
    let (sender, receiver) = sync_channel(QUEUE_BATCHES);
    let receiver = Mutex::new(receiver);
    std::thread::scope(|scope| {
        let mut walk = Walk::new(shared, sender);
        let spawn = || scope.spawn(|| Worker::new(shared).drain(&receiver));
        let walked = walk.level(source, target, &spawn);
        let Walk { own, helpers, sender, .. } = walk;
        // Without a sender, helpers end when the queue is empty.
        drop(sender);
        let mut copied = own.copied;
        let mut failure = walked.err();
        for helper in helpers {
            match helper.join() {
                Ok(Ok(more)) => copied.extend(more),
                Ok(Err(error)) => drop(failure.get_or_insert(error)),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        failure.map_or(Ok(copied), Err)
    })
}

/// What all threads see.
struct Shared<'a> {
    candidates: &'a Candidates,
    progress: &'a Counters,
    name: &'a ObjectName,
    top: PathBuf,
    blobs: Directory,
    /// Which directories of `blobs/` were there at the start, by the first byte of digests: in the others nothing is looked for.
    shards: [bool; 256],
    contents: Mutex<Contents>,
    rows: Rows<'a>,
    given_away: bool,
    user: u32,
    /// Whether the file system has refused to share blocks, so that nobody tries again.
    cannot_share: AtomicBool,
    /// Whether some thread has failed, so that the others need not go on.
    failed: AtomicBool,
    temporaries: AtomicU64,
}

/// What came of some files, beside what the tree knows.
#[derive(Default)]
struct Copied {
    references: BTreeSet<ObjectRef>,
    /// The positions of files whose content another thread was about to create.
    later: Vec<usize>,
}

impl Copied {
    fn extend(&mut self, other: Self) {
        self.references.extend(other.references);
        self.later.extend(other.later);
    }
}

/// Where a content goes.
enum Place {
    /// It is there: linked.
    Linked,
    /// It is new, and to be written.
    Write,
    /// Another thread is about to write it.
    Later,
}

impl Shared<'_> {
    /// Links a content that is known to its place, or says what to do. The tree knows the file afterwards.
    fn place(&self, facts: FileFacts, position: usize, target: &Directory, name: &OsStr) -> Result<Place, StoreError> {
        let key = facts.key();
        let staged = self.lock().find(&key);
        let linked = self.link_known(&key, staged.as_ref(), target, name)?;
        let mut contents = self.lock();
        contents.builder().set_file(position, facts, None).map_err(unusable(self.name))?;
        let replaces = match linked {
            Linked::Done => return Ok(Place::Linked),
            Linked::Unknown if staged.is_some() => return Ok(Place::Later),
            Linked::Unknown => false,
            Linked::Full => true,
        };
        if !replaces && contents.contains(&key) {
            return Ok(Place::Later);
        }
        contents.insert(&key, position, replaces);
        Ok(Place::Write)
    }

    /// Links a content from where this transaction has it, or from `blobs/`.
    fn link_known(&self, key: &ContentKey, staged: Option<&PathBuf>, target: &Directory, name: &OsStr) -> Result<Linked, StoreError> {
        match staged {
            Some(existing) => link_result(target.link_from(existing, name)),
            None if !self.shards[usize::from(key.0.as_bytes()[0])] => Ok(Linked::Unknown),
            None => link_result(self.blobs.link_to(blob_name(key).as_ref(), target, name)),
        }
    }

    /// Puts a known content in the place of a copy that was just written, or makes the copy known.
    fn merge(&self, facts: FileFacts, position: usize, target: &Directory, name: &OsStr) -> Result<(), StoreError> {
        let key = facts.key();
        let mut contents = self.lock();
        contents.builder().set_file(position, facts, None).map_err(unusable(self.name))?;
        let existing = contents.find(&key).unwrap_or_else(|| self.blobs.path().join(blob_name(&key)));
        // Beside the object, so that no entry can have this name.
        let number = self.temporaries.fetch_add(1, Ordering::Relaxed);
        let temporary = self.top.with_extension(format!("link-{number}"));
        match link_result(fsutil::hard_link(&existing, &temporary))? {
            Linked::Done => {
                drop(contents);
                target.remove_name(name)?;
                Ok(fsutil::rename(&temporary, &target.path().join(name))?)
            }
            linked @ (Linked::Unknown | Linked::Full) => {
                contents.insert(&key, position, matches!(linked, Linked::Full));
                Ok(())
            }
        }
    }

    /// Tells the tree of a file that is in its place.
    fn tell(&self, position: usize, facts: FileFacts, own: Option<&SelfReferences>) -> Result<(), StoreError> {
        self.lock().builder().set_file(position, facts, own).map_err(unusable(self.name))
    }

    fn lock(&self) -> MutexGuard<'_, Contents> {
        self.contents.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Which directories there are in `blobs/`.
fn shards_of(blobs: &Directory) -> Result<[bool; 256], FsError> {
    let mut shards = [false; 256];
    for name in blobs.names()? {
        if let Some(shard) = name.to_str().filter(|name| name.len() == 2).and_then(|name| u8::from_str_radix(name, 16).ok()) {
            shards[usize::from(shard)] = true;
        }
    }
    Ok(shards)
}

fn refused(directory: &Directory, name: &OsStr, reason: &'static str) -> StoreError {
    StoreError::Refused { path: directory.path().join(name), reason }
}

#[cfg(test)]
mod tests;

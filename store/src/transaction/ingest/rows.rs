//! What the stat cache is to know of the source: collected directory by directory, and written when some have come together.
//!
//! What was seen of a file is true whether or not the object is published, so rows need not wait for the end.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::Digest;
use crate::fsutil::{Directory, FsError, Node};
use crate::stat_cache::{DirectoryKey, FILES_MAX, KnownFile, KnownFiles, StatCache, is_settled};

/// How many files are written at once, at least: a write to the database costs as much as some hundreds of them. They take 72 bytes each.
const FILES_AT_ONCE: usize = 10_000;

/// How many directories are asked for one by one: about as long as it takes to read the list of a full cache.
const QUESTIONS_WITHOUT_LIST: usize = 256;

/// The rows of one ingest.
pub(super) struct Rows<'a> {
    cache: Option<&'a StatCache>,
    /// When the work began, in nanoseconds since the epoch.
    started: i64,
    waiting: Mutex<Waiting>,
    asked: Mutex<Asked>,
}

#[derive(Default)]
struct Asked {
    questions: usize,
    /// Of each device the directories of which something was known when it was first asked for.
    directories: BTreeMap<u64, Vec<u64>>,
}

#[derive(Default)]
struct Waiting {
    rows: Vec<(DirectoryKey, Vec<KnownFile>)>,
    files: usize,
}

/// A directory whose files are being taken in.
pub(super) struct Level {
    pub(super) source: Directory,
    pub(super) target: Directory,
    key: DirectoryKey,
    /// What the cache knows of its files.
    pub(super) known: KnownFiles,
    seen: Mutex<Vec<KnownFile>>,
}

impl<'a> Rows<'a> {
    pub(super) fn new(cache: Option<&'a StatCache>, started: i64) -> Self {
        Self { cache, started, waiting: Mutex::default(), asked: Mutex::default() }
    }

    /// Starts a directory; `has_files` says whether anything needs to be known of it.
    pub(super) fn level(&self, source: Directory, target: Directory, has_files: bool) -> Result<Level, FsError> {
        let (key, known) = match self.cache {
            Some(cache) if has_files => {
                let own = source.own_node()?.stamp;
                let key = (own.device, own.inode);
                let known = if self.is_known(cache, key) { cache.files_in(key) } else { KnownFiles::default() };
                (key, known)
            }
            Some(_) | None => ((0, 0), KnownFiles::default()),
        };
        Ok(Level { source, target, key, known, seen: Mutex::default() })
    }

    /// Whether it is worth to ask for a directory. Each question to the database takes eight system calls, so a large source asks for the list first.
    fn is_known(&self, cache: &StatCache, (device, inode): DirectoryKey) -> bool {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.questions += 1;
        if asked.questions <= QUESTIONS_WITHOUT_LIST {
            return true;
        }
        asked.directories.entry(device).or_insert_with(|| cache.directories_of(device)).binary_search(&inode).is_ok()
    }

    /// Notes the digest of a file, if its state can be told from what it may become.
    pub(super) fn remember(&self, level: &Level, node: &Node, digest: Digest) {
        if self.cache.is_none() || node.stamp.device != level.key.0 || !is_settled(&node.stamp, self.started) {
            return;
        }
        let mut seen = level.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.len() < FILES_MAX {
            seen.push(KnownFile { stamp: node.stamp, digest });
        }
    }

    /// Gives back a share of a directory; with the last one its row is complete.
    pub(super) fn give_back(&self, level: Arc<Level>) {
        let Some(Level { key, seen, .. }) = Arc::into_inner(level) else { return };
        let files = seen.into_inner().unwrap_or_else(PoisonError::into_inner);
        if files.is_empty() {
            return;
        }
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.files += files.len();
        waiting.rows.push((key, files));
        if waiting.files >= FILES_AT_ONCE {
            let Waiting { rows, files: _ } = std::mem::take(&mut *waiting);
            drop(waiting);
            self.write(rows);
        }
    }

    /// Writes what is left.
    pub(super) fn flush(&self) {
        let Waiting { rows, files: _ } = std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
        self.write(rows);
    }

    fn write(&self, rows: Vec<(DirectoryKey, Vec<KnownFile>)>) {
        if let Some(cache) = self.cache.filter(|_| !rows.is_empty()) {
            cache.remember(rows);
        }
    }
}

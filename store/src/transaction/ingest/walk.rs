//! The walk through the source, on the calling thread.

use std::ffi::{OsStr, OsString};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{SyncSender, TrySendError};

use crate::canon::DecodeError;
use crate::error::StoreError;
use crate::fsutil::{Directory, NodeKind, Step};
use crate::path::{DEPTH_MAX, PATH_BYTES_MAX};
use crate::tree::{ENTRIES_MAX, KindView, TreeBuilder};

use super::copy::Worker;
use super::rows::Level;
use super::{Copied, Shared, refused};
use crate::transaction::staging::{references_in_name, scan_target};
use crate::transaction::unusable;

/// How many files are handed over at once: enough to make the queue cheap, few enough to share a directory of average size.
const BATCH_FILES: usize = 64;

/// The most threads: beyond it, file systems are busy with their own locks.
const THREADS_MAX: usize = 4;

/// Files of one directory, with their positions in the tree.
pub(super) struct Batch {
    pub(super) level: Arc<Level>,
    pub(super) files: Vec<(usize, OsString)>,
}

pub(super) type Helper<'scope> = std::thread::ScopedJoinHandle<'scope, Result<Copied, StoreError>>;

pub(super) struct Walk<'b, 'scope> {
    shared: &'b Shared<'b>,
    pub(super) sender: SyncSender<Batch>,
    pub(super) own: Worker<'b>,
    batches: usize,
    pub(super) helpers: Vec<Helper<'scope>>,
    /// Asked once: the answer takes some files of the kernel to be read.
    helpers_max: usize,
    /// The path of the entry at hand.
    path: String,
    depth: usize,
}

impl<'b, 'scope> Walk<'b, 'scope> {
    pub(super) fn new(shared: &'b Shared<'b>, sender: SyncSender<Batch>) -> Self {
        let helpers_max = std::thread::available_parallelism().map_or(1, NonZeroUsize::get).min(THREADS_MAX) - 1;
        let (own, helpers, path) = (Worker::new(shared), Vec::new(), String::new());
        Self { shared, sender, own, batches: 0, helpers, helpers_max, path, depth: 0 }
    }

    /// Takes in what is in one directory. The recursion is as deep as a path can be, 128 levels.
    pub(super) fn level(&mut self, source: Directory, target: Directory, spawn: &impl Fn() -> Helper<'scope>) -> Result<(), StoreError> {
        let listing = source.listing(ENTRIES_MAX)?;
        let level = Arc::new(self.shared.rows.level(source, target, listing.has_files())?);
        let below = self.path.len();
        self.depth += 1;
        let mut files = Vec::new();
        for step in listing.steps() {
            let (Step::Entry(name, _) | Step::Descend(name)) = step;
            self.enter(&level, below, name)?;
            match step {
                Step::Entry(name, NodeKind::File) => {
                    files.push((self.push(TreeBuilder::push_file)?, name.to_owned()));
                    if files.len() == BATCH_FILES {
                        self.hand_over(Batch { level: level.clone(), files: std::mem::take(&mut files) }, spawn)?;
                    }
                }
                Step::Entry(name, NodeKind::Directory) => {
                    self.check_name(&level, name)?;
                    self.push(|tree, path| tree.push(path, KindView::Directory))?;
                }
                Step::Descend(name) => {
                    let target = level.target.create_child(name)?;
                    self.level(level.source.open_child(name)?, target, spawn)?;
                }
                Step::Entry(name, NodeKind::Symlink) => self.take_link(&level, name)?,
                Step::Entry(name, NodeKind::Special) => {
                    return Err(refused(&level.source, name, "it is neither a file, a directory nor a symbolic link"));
                }
            }
        }
        self.path.truncate(below);
        self.depth -= 1;
        if files.is_empty() {
            self.shared.rows.give_back(level);
            return Ok(());
        }
        self.hand_over(Batch { level, files }, spawn)
    }

    /// Makes the path that of `name` below the first `below` bytes.
    fn enter(&mut self, level: &Level, below: usize, name: &OsStr) -> Result<(), StoreError> {
        let text = name.to_str().ok_or_else(|| refused(&level.source, name, "its name is not UTF-8"))?;
        self.path.truncate(below);
        if below > 0 {
            self.path.push('/');
        }
        self.path.push_str(text);
        if self.path.len() > PATH_BYTES_MAX || self.depth > DEPTH_MAX {
            return Err(refused(&level.source, name, "its path is too long or too deep"));
        }
        Ok(())
    }

    fn push(&self, push: impl FnOnce(&mut TreeBuilder, &str) -> Result<usize, DecodeError>) -> Result<usize, StoreError> {
        push(self.shared.lock().builder(), &self.path).map_err(unusable(self.shared.name))
    }

    /// Makes a symbolic link; one that names its own object is created once the id is known.
    fn take_link(&mut self, level: &Level, name: &OsStr) -> Result<(), StoreError> {
        self.check_name(level, name)?;
        let target = String::from_utf8(level.source.read_link(name)?)
            .map_err(|_| refused(&level.source, name, "the target of the link is not UTF-8"))?;
        let found = scan_target(self.shared.candidates, &target);
        self.own.copied.references.extend(found.references);
        self.push(|tree, path| tree.push(path, KindView::Symlink { target: &target, self_offsets: &found.offsets }))?;
        if found.offsets.is_empty() {
            level.target.create_symlink(name, &target)?;
            level.target.freeze_link(name)?;
        }
        Ok(())
    }

    fn check_name(&mut self, level: &Level, name: &OsStr) -> Result<(), StoreError> {
        let found = references_in_name(self.shared.candidates, &name.to_string_lossy(), || level.source.path().join(name))?;
        self.own.copied.references.extend(found);
        Ok(())
    }

    /// Gives files to a helper, or copies them here when there are few or all helpers are busy.
    fn hand_over(&mut self, batch: Batch, spawn: &impl Fn() -> Helper<'scope>) -> Result<(), StoreError> {
        if self.shared.failed.load(Ordering::Relaxed) {
            // The helper's error is the one to report; ending the walk brings it up.
            return Ok(());
        }
        self.batches += 1;
        // A thread costs as much as some files: small objects do without.
        if self.helpers.len() < self.helpers_max && self.batches > 4 * (self.helpers.len() + 1) {
            self.helpers.push(spawn());
        }
        if self.helpers.is_empty() {
            return self.own.copy_all(batch);
        }
        match self.sender.try_send(batch) {
            Ok(()) => Ok(()),
            Err(TrySendError::Full(batch) | TrySendError::Disconnected(batch)) => self.own.copy_all(batch),
        }
    }
}

//! Copies, links or moves single files into their places.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Receiver;
use std::sync::{Mutex, PoisonError};

use crate::Digest;
use crate::error::StoreError;
use crate::fsutil::{self, Directory, FsError, Node, NodeKind};
use crate::scan::{CHUNK_BYTES, scan_whole};
use crate::tree::{FileFacts, SELF_ZEROS, SelfReferences};

use super::large::LargeScan;
use super::rows::Level;
use super::walk::Batch;
use super::{Copied, Place, Shared, refused};
use crate::transaction::staging::{Linked, references_in_name};

/// How much of a file that does not fit into one chunk is read, hashed and written at a time, in bytes: it stays in a processor's own cache meanwhile.
const PORTION_BYTES: usize = 256 << 10;

/// Copies files, on any thread.
pub(super) struct Worker<'a> {
    shared: &'a Shared<'a>,
    pub(super) copied: Copied,
    /// The file at hand, as far as it fits into one chunk; behind `length` stands what is left of others.
    start: Vec<u8>,
    length: usize,
    buffer: Vec<u8>,
}

/// A file that is being taken in.
struct Source<'a> {
    level: &'a Level,
    position: usize,
    name: &'a OsStr,
    file: File,
    node: Node,
}

impl Source<'_> {
    const fn is_executable(&self) -> bool {
        self.node.mode & 0o100 != 0
    }

    fn shown(&self) -> PathBuf {
        self.level.source.path().join(self.name)
    }
}

impl<'a> Worker<'a> {
    pub(super) const fn new(shared: &'a Shared<'a>) -> Self {
        Self { shared, copied: Copied { references: BTreeSet::new(), later: Vec::new() }, start: Vec::new(), length: 0, buffer: Vec::new() }
    }

    /// Copies what comes, until nothing comes any more.
    pub(super) fn drain(mut self, queue: &Mutex<Receiver<Batch>>) -> Result<Copied, StoreError> {
        let mut result = Ok(());
        loop {
            let batch = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
            let Ok(batch) = batch else { break };
            // After a failure the queue is emptied, so that the walk is not kept waiting.
            if result.is_ok() {
                result = self.copy_all(batch);
            }
        }
        result.map(|()| self.copied)
    }

    pub(super) fn copy_all(&mut self, Batch { level, files }: Batch) -> Result<(), StoreError> {
        for (position, name) in &files {
            if self.shared.failed.load(Ordering::Relaxed) {
                break;
            }
            if let Err(error) = self.copy(&level, *position, name) {
                self.shared.failed.store(true, Ordering::Relaxed);
                return Err(error);
            }
            self.shared.progress.add_file();
        }
        self.shared.rows.give_back(level);
        Ok(())
    }

    fn copy(&mut self, level: &Level, position: usize, name: &OsStr) -> Result<(), StoreError> {
        let found = references_in_name(self.shared.candidates, &name.to_string_lossy(), || level.source.path().join(name))?;
        self.copied.references.extend(found);
        if !level.known.is_empty() && self.link_unread(level, position, name)? {
            return Ok(());
        }
        let file = level.source.open_file(name)?;
        // Asked through the open handle: the name may mean something else by now.
        let node = fsutil::node_of(&file, level.source.path())?;
        if node.kind != NodeKind::File {
            return Err(refused(&level.source, name, "it changed while it was read"));
        }
        if node.mode & 0o6000 != 0 {
            return Err(refused(&level.source, name, "it has a set-user-id or set-group-id bit"));
        }
        let mut source = Source { level, position, name, file, node };
        let length = read_start(&mut source.file, &mut self.start, node.stamp.size);
        self.length = length.map_err(|error| FsError::new("read", &source.shown(), error))?;
        if self.length < CHUNK_BYTES { self.add_small(&source) } else { self.add_large(&mut source) }
    }

    /// Links a file whose content the stat cache knows; returns whether that was possible.
    fn link_unread(&mut self, level: &Level, position: usize, name: &OsStr) -> Result<bool, StoreError> {
        let node = level.source.node(name)?;
        let Some(digest) = level.known.digest(&node.stamp).filter(|_| node.kind == NodeKind::File && node.mode & 0o6000 == 0) else {
            return Ok(false);
        };
        let facts = FileFacts { size: node.stamp.size, digest, executable: node.mode & 0o100 != 0 };
        let staged = self.shared.lock().find(&facts.key());
        if !matches!(self.shared.link_known(&facts.key(), staged.as_ref(), &level.target, name)?, Linked::Done) {
            return Ok(false);
        }
        self.shared.rows.remember(level, &node, digest);
        self.shared.tell(position, facts, None)?;
        Ok(true)
    }

    fn add_small(&mut self, source: &Source<'_>) -> Result<(), StoreError> {
        let content = &mut self.start[..self.length];
        self.shared.progress.add_bytes(content.len() as u64);
        let found = scan_whole(self.shared.candidates, content);
        self.copied.references.extend(found.references);
        let facts = FileFacts { size: content.len() as u64, digest: Digest::of(content), executable: source.is_executable() };
        let target = &source.level.target;
        if !found.offsets.is_empty() {
            let mut file = target.create_file(source.name)?;
            file.write_all(content).map_err(|error| FsError::new("write", &target.path().join(source.name), error))?;
            return self.tell_self_referring(source, facts, found.offsets);
        }
        match self.shared.place(facts, source.position, target, source.name)? {
            Place::Linked => {}
            Place::Later => self.copied.later.push(source.position),
            Place::Write if self.take_away(source)? => fsutil::freeze_file(&source.file, facts.executable, &source.shown())?,
            Place::Write => target.write_frozen(source.name, &self.start[..self.length], facts.executable)?,
        }
        self.shared.rows.remember(source.level, &source.node, facts.digest);
        Ok(())
    }

    /// Takes in a file that does not fit into one chunk, of which the first is read already.
    fn add_large(&mut self, source: &mut Source<'_>) -> Result<(), StoreError> {
        let target = &source.level.target;
        let shown = target.path().join(source.name);
        let mut scan = LargeScan::new(self.shared.candidates, self.shared.progress);
        self.buffer.resize(PORTION_BYTES, 0);
        let taken = self.take_away(source)?;
        let file = if taken { None } else { Some(target.create_file(source.name)?) };
        let shares = file.as_ref().is_some_and(|file| self.shares_blocks(&source.file, file));
        if let Some(file) = file.as_ref().filter(|_| !shares) {
            scan.run(&self.start[..self.length], &mut source.file, &mut self.buffer, |bytes| (&mut &*file).write_all(bytes))
        } else if let Some(mut file) = file.as_ref().filter(|_| shares) {
            // The source may change while it is read, but its blocks in the new file do not.
            scan.run(&[], &mut file, &mut self.buffer, |_| Ok(()))
        } else {
            scan.run(&self.start[..self.length], &mut source.file, &mut self.buffer, |_| Ok(()))
        }
        .map_err(|error| FsError::new("copy", &source.shown(), error))?;
        let (digest, size, found) = scan.finish();
        let facts = FileFacts { size, digest, executable: source.is_executable() };
        self.copied.references.extend(found.references);
        if !found.offsets.is_empty() {
            if taken || shares {
                write_zeros(target, source, &found.offsets)?;
            }
            return self.tell_self_referring(source, facts, found.offsets);
        }
        fsutil::freeze_file(file.as_ref().unwrap_or(&source.file), facts.executable, &shown)?;
        self.shared.merge(facts, source.position, target, source.name)?;
        if size == source.node.stamp.size {
            self.shared.rows.remember(source.level, &source.node, digest);
        }
        Ok(())
    }

    /// Renames the file into place if it was given away and is ours alone; returns whether it was done.
    fn take_away(&self, source: &Source<'_>) -> Result<bool, StoreError> {
        if !self.shared.given_away || source.node.links != 1 || source.node.user != self.shared.user {
            return Ok(false);
        }
        Ok(source.level.source.move_plain_file(source.name, &source.file, &source.level.target)?)
    }

    fn shares_blocks(&self, source: &File, target: &File) -> bool {
        if self.shared.cannot_share.load(Ordering::Relaxed) {
            return false;
        }
        let shares = fsutil::share_blocks(source, target);
        self.shared.cannot_share.store(!shares, Ordering::Relaxed);
        shares
    }

    /// With own references, the digest is that of the content without the id; that of the final bytes is known after the id.
    fn tell_self_referring(&self, source: &Source<'_>, facts: FileFacts, offsets: Vec<u64>) -> Result<(), StoreError> {
        self.shared.tell(source.position, facts, Some(&SelfReferences { offsets, modulo: facts.digest }))
    }
}

/// Reads a file as far as it fits into one chunk; returns how much that is, [`CHUNK_BYTES`] if there may be more.
///
/// A file that gives exactly as much as it should have is not asked whether that is all: what comes behind came after it was inspected.
fn read_start(file: &mut File, buffer: &mut Vec<u8>, size: u64) -> io::Result<usize> {
    let expected = usize::try_from(size).unwrap_or(CHUNK_BYTES).min(CHUNK_BYTES);
    // One byte more, so that a file that has grown shows.
    let wanted = (expected + 1).min(CHUNK_BYTES);
    if buffer.len() < wanted {
        buffer.resize(wanted.next_power_of_two().min(CHUNK_BYTES), 0);
    }
    let mut length = 0;
    loop {
        match file.read(&mut buffer[length..]) {
            Ok(0) => return Ok(length),
            Ok(more) => length += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        if length == CHUNK_BYTES || length == expected {
            return Ok(length);
        }
        if length == buffer.len() {
            buffer.resize((2 * length).min(CHUNK_BYTES), 0);
        }
    }
}

/// Writes zeros over the own stand-in in a file that has its place already.
fn write_zeros(target: &Directory, source: &Source<'_>, offsets: &[u64]) -> Result<(), FsError> {
    let path = target.path().join(source.name);
    fsutil::set_mode(&path, 0o600)?;
    let file = target.open_own_file(source.name)?;
    offsets.iter().try_for_each(|offset| file.write_all_at(&SELF_ZEROS, *offset)).map_err(|error| FsError::new("write", &path, error))
}

//! Takes a directory in: walks it once, and copies, hashes and scans its files on a few threads.
//!
//! The walk makes directories and links, and hands the files over in batches through a short queue, so that memory and open
//! handles stay bounded. What the stat cache knows is linked without being read; a new content is written once, with its final mode, and every
//! further file of the same bytes is a link to it. Where the caller gives the source away, files are renamed instead of
//! copied. Nothing of this depends on which thread does what: the object is the same.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Write};
use std::num::NonZeroUsize;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use crate::error::StoreError;
use crate::fsutil::{self, Directory, FsError, Listed, Node, NodeKind};
use crate::scan::{CHUNK_BYTES, Candidates, Scanner, scan_whole};
use crate::stat_cache::{DirectoryKey, KnownFile, KnownFiles, StatCache, is_settled};
use crate::tree::{Entry, EntryKind, SELF_ZEROS, SelfReferences};
use crate::{Digest, ObjectRef, RelPath};

use super::staging::{Linked, Staging, link_result};
use super::{ContentKey, NewContent};

/// How many files are handed over at once: enough to make the queue cheap, few enough to share a directory of average size.
const BATCH_FILES: usize = 64;

/// How many batches may wait. Each holds two open directories.
const QUEUE_BATCHES: usize = 16;

/// The most threads: beyond it, file systems are busy with their own locks.
const THREADS_MAX: usize = 4;

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
    let shared = Shared {
        candidates: staging.candidates,
        top: staging.top.clone(),
        blobs: Directory::open(&staging.store.root().join("blobs"))?,
        contents: Mutex::new(std::mem::take(staging.contents)),
        // The top directory has just been made, so this is the time, by the clock that files have their times from.
        started: target.own_node()?.stamp.changed,
        origin,
        user: rustix::process::geteuid().as_raw(),
        cannot_share: AtomicBool::new(false),
        failed: AtomicBool::new(false),
        temporaries: AtomicU64::new(0),
    };
    let copied = run(staging, source, target, &shared);
    *staging.contents = shared.contents.into_inner().unwrap_or_else(PoisonError::into_inner);
    let Copied { entries, references, seen, later } = copied?;
    staging.references.extend(references);
    staging.extend(entries)?;
    for (path, key) in later {
        if !staging.link_known_content(&path, &key)? {
            return Err(StoreError::Refused { path: path.as_path().to_owned(), reason: "a file of the same content vanished" });
        }
    }
    if let Some(cache) = origin.cache
        && !seen.is_empty()
    {
        cache.remember(seen);
    }
    Ok(())
}

fn run(staging: &mut Staging<'_>, source: Directory, target: Directory, shared: &Shared<'_>) -> Result<Copied, StoreError> {
    let (sender, receiver) = sync_channel(QUEUE_BATCHES);
    let receiver = Mutex::new(receiver);
    std::thread::scope(|scope| {
        let mut walk = Walk { staging, shared, sender, own: Worker::new(shared), batches: 0, helpers: Vec::new() };
        let spawn = || scope.spawn(|| Worker::new(shared).drain(&receiver));
        let walked = walk.level(&Arc::new(source), &Arc::new(target), None, &spawn);
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
    top: PathBuf,
    blobs: Directory,
    contents: Mutex<BTreeMap<ContentKey, NewContent>>,
    /// When the work began, in nanoseconds since the epoch.
    started: i64,
    origin: Origin<'a>,
    user: u32,
    /// Whether the file system has refused to share blocks, so that nobody tries again.
    cannot_share: AtomicBool,
    /// Whether some thread has failed, so that the others need not go on.
    failed: AtomicBool,
    temporaries: AtomicU64,
}

/// Files of one directory.
struct Batch {
    source: Arc<Directory>,
    target: Arc<Directory>,
    below: Option<Arc<RelPath>>,
    key: DirectoryKey,
    known: Arc<KnownFiles>,
    names: Vec<OsString>,
}

/// What came of some files.
#[derive(Default)]
struct Copied {
    entries: Vec<Entry>,
    references: BTreeSet<ObjectRef>,
    /// What the stat cache is to know.
    seen: BTreeMap<DirectoryKey, Vec<KnownFile>>,
    /// Files whose content another thread was about to create.
    later: Vec<(RelPath, ContentKey)>,
}

impl Copied {
    fn extend(&mut self, other: Self) {
        self.entries.extend(other.entries);
        self.references.extend(other.references);
        self.later.extend(other.later);
        for (key, files) in other.seen {
            self.seen.entry(key).or_default().extend(files);
        }
    }
}

type Helper<'scope> = std::thread::ScopedJoinHandle<'scope, Result<Copied, StoreError>>;

/// The walk through the source, on the calling thread.
struct Walk<'s, 'a, 'b, 'scope> {
    staging: &'s mut Staging<'a>,
    shared: &'b Shared<'b>,
    sender: SyncSender<Batch>,
    own: Worker<'b>,
    batches: usize,
    helpers: Vec<Helper<'scope>>,
}

impl<'scope> Walk<'_, '_, '_, 'scope> {
    // The recursion is as deep as a RelPath can be, 128 levels.
    fn level(
        &mut self,
        source: &Arc<Directory>,
        target: &Arc<Directory>,
        below: Option<&Arc<RelPath>>,
        spawn: &impl Fn() -> Helper<'scope>,
    ) -> Result<(), StoreError> {
        let mut names = Vec::new();
        let mut directories = Vec::new();
        for Listed { name, kind } in source.listed()? {
            match kind.map_or_else(|| source.kind_of(&name), Ok)? {
                NodeKind::File => names.push(name),
                NodeKind::Directory => directories.push(name),
                NodeKind::Symlink => {
                    let path = child_path(source, below.map(Arc::as_ref), &name)?;
                    let found = String::from_utf8(source.read_link(&name)?)
                        .map_err(|_| refused(source, &name, "the target of the link is not UTF-8"))?;
                    self.staging.add_symlink(&path, &found)?;
                }
                NodeKind::Special => return Err(refused(source, &name, "it is neither a file, a directory nor a symbolic link")),
            }
        }
        if !names.is_empty() {
            let node = source.own_node()?;
            let key = (node.stamp.device, node.stamp.inode);
            let known = Arc::new(self.shared.origin.cache.map_or_else(KnownFiles::default, |cache| cache.files_in(key)));
            while !names.is_empty() {
                let rest = names.split_off(names.len().min(BATCH_FILES));
                let (source, target, below, known) = (source.clone(), target.clone(), below.cloned(), known.clone());
                self.hand_over(Batch { source, target, below, key, known, names: std::mem::replace(&mut names, rest) }, spawn)?;
            }
        }
        for name in directories {
            let path = child_path(source, below.map(Arc::as_ref), &name)?;
            self.staging.check_name(&path)?;
            let child = Arc::new(target.create_child(&name)?);
            self.staging.push(&path, EntryKind::Directory)?;
            self.level(&Arc::new(source.open_child(&name)?), &child, Some(&Arc::new(path)), spawn)?;
        }
        Ok(())
    }

    /// Gives files to a helper, or copies them here when there are few or all helpers are busy.
    fn hand_over(&mut self, batch: Batch, spawn: &impl Fn() -> Helper<'scope>) -> Result<(), StoreError> {
        if self.shared.failed.load(Ordering::Relaxed) {
            // The helper's error is the one to report; ending the walk brings it up.
            return Ok(());
        }
        self.batches += 1;
        let helpers_max = std::thread::available_parallelism().map_or(1, NonZeroUsize::get).min(THREADS_MAX) - 1;
        // A thread costs as much as some files: small objects do without.
        if self.helpers.len() < helpers_max && self.batches > 4 * (self.helpers.len() + 1) {
            self.helpers.push(spawn());
        }
        if self.helpers.is_empty() {
            return self.own.copy_all(&batch);
        }
        match self.sender.try_send(batch) {
            Ok(()) => Ok(()),
            Err(TrySendError::Full(batch) | TrySendError::Disconnected(batch)) => self.own.copy_all(&batch),
        }
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
    /// Links a content that is known to its place, or says what to do.
    fn place(&self, key: &ContentKey, target: &Directory, path: &RelPath) -> Result<Place, StoreError> {
        let name: &OsStr = path.file_name().as_ref();
        let staged = self.lock().get_mut(key).map(|content| {
            content.unclaimed = false;
            content.path.clone()
        });
        let linked = match &staged {
            Some(existing) => link_result(target.link_from(existing, name))?,
            None => link_result(self.blobs.link_to(blob_name(key).as_ref(), target, name))?,
        };
        let replaces = match linked {
            Linked::Done => return Ok(Place::Linked),
            Linked::Unknown if staged.is_some() => return Ok(Place::Later),
            Linked::Unknown => false,
            Linked::Full => true,
        };
        let mut contents = self.lock();
        if !replaces && contents.contains_key(key) {
            return Ok(Place::Later);
        }
        contents.insert(*key, NewContent { path: self.top.join(path.as_path()), replaces, unclaimed: false });
        Ok(Place::Write)
    }

    /// Puts a known content in the place of a copy that was just written, or makes the copy known.
    fn merge(&self, key: &ContentKey, target: &Directory, path: &RelPath) -> Result<(), StoreError> {
        let place = self.top.join(path.as_path());
        let mut contents = self.lock();
        let existing = contents.get(key).map_or_else(|| self.blobs.path().join(blob_name(key)), |content| content.path.clone());
        // Beside the object, so that no entry can have this name.
        let number = self.temporaries.fetch_add(1, Ordering::Relaxed);
        let temporary = self.top.with_extension(format!("link-{number}"));
        match link_result(fsutil::hard_link(&existing, &temporary))? {
            Linked::Done => {
                drop(contents);
                target.remove_name(path.file_name().as_ref())?;
                Ok(fsutil::rename(&temporary, &place)?)
            }
            linked @ (Linked::Unknown | Linked::Full) => {
                contents.insert(*key, NewContent { path: place, replaces: matches!(linked, Linked::Full), unclaimed: false });
                Ok(())
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<ContentKey, NewContent>> {
        self.contents.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Copies files, on any thread.
struct Worker<'a> {
    shared: &'a Shared<'a>,
    copied: Copied,
    /// The file at hand, as far as it fits into one chunk.
    start: Vec<u8>,
    buffer: Vec<u8>,
}

/// A file that is being taken in.
struct Source<'a> {
    batch: &'a Batch,
    name: &'a OsStr,
    file: File,
    node: Node,
    path: RelPath,
}

impl Source<'_> {
    const fn is_executable(&self) -> bool {
        self.node.mode & 0o100 != 0
    }

    fn shown(&self) -> PathBuf {
        self.batch.source.path().join(self.name)
    }
}

impl<'a> Worker<'a> {
    fn new(shared: &'a Shared<'a>) -> Self {
        Self { shared, copied: Copied::default(), start: Vec::new(), buffer: Vec::new() }
    }

    /// Copies what comes, until nothing comes any more.
    fn drain(mut self, queue: &Mutex<Receiver<Batch>>) -> Result<Copied, StoreError> {
        let mut result = Ok(());
        loop {
            let batch = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
            let Ok(batch) = batch else { break };
            // After a failure the queue is emptied, so that the walk is not kept waiting.
            if result.is_ok() {
                result = self.copy_all(&batch);
            }
        }
        result.map(|()| self.copied)
    }

    fn copy_all(&mut self, batch: &Batch) -> Result<(), StoreError> {
        for name in &batch.names {
            if self.shared.failed.load(Ordering::Relaxed) {
                break;
            }
            if let Err(error) = self.copy(batch, name) {
                self.shared.failed.store(true, Ordering::Relaxed);
                return Err(error);
            }
        }
        Ok(())
    }

    fn copy(&mut self, batch: &Batch, name: &OsStr) -> Result<(), StoreError> {
        let path = child_path(&batch.source, batch.below.as_deref(), name)?;
        self.check_name(&path)?;
        if !batch.known.is_empty() && self.link_unread(batch, name, &path)? {
            return Ok(());
        }
        let file = batch.source.open_file(name)?;
        // Asked through the open handle: the name may mean something else by now.
        let node = fsutil::node_of(&file, batch.source.path())?;
        if node.kind != NodeKind::File {
            return Err(refused(&batch.source, name, "it changed while it was read"));
        }
        if node.mode & 0o6000 != 0 {
            return Err(refused(&batch.source, name, "it has a set-user-id or set-group-id bit"));
        }
        let mut source = Source { batch, name, file, node, path };
        self.start.clear();
        self.start.reserve(usize::try_from(node.stamp.size).unwrap_or(CHUNK_BYTES).min(CHUNK_BYTES) + 1);
        let start = (&mut source.file).take(CHUNK_BYTES as u64).read_to_end(&mut self.start);
        start.map_err(|error| FsError::new("read", &source.shown(), error))?;
        if self.start.len() < CHUNK_BYTES { self.add_small(&source) } else { self.add_large(&mut source) }
    }

    /// Links a file whose content the stat cache knows; returns whether that was possible.
    fn link_unread(&mut self, batch: &Batch, name: &OsStr, path: &RelPath) -> Result<bool, StoreError> {
        let node = batch.source.node(name)?;
        let Some(digest) = batch.known.digest(&node.stamp).filter(|_| node.kind == NodeKind::File && node.mode & 0o6000 == 0) else {
            return Ok(false);
        };
        let executable = node.mode & 0o100 != 0;
        let key = (digest, executable);
        let linked = match self.shared.lock().get(&key).map(|content| content.path.clone()) {
            Some(existing) => link_result(batch.target.link_from(&existing, name))?,
            None => link_result(self.shared.blobs.link_to(blob_name(&key).as_ref(), &batch.target, name))?,
        };
        if !matches!(linked, Linked::Done) {
            return Ok(false);
        }
        self.remember(batch, &node, digest);
        self.push(path.clone(), EntryKind::File { size: node.stamp.size, digest, executable, self_references: None });
        Ok(true)
    }

    fn add_small(&mut self, source: &Source<'_>) -> Result<(), StoreError> {
        let found = scan_whole(self.shared.candidates, &mut self.start);
        self.copied.references.extend(found.references);
        let (digest, size, executable) = (Digest::of(&self.start), self.start.len() as u64, source.is_executable());
        let target = &source.batch.target;
        if !found.offsets.is_empty() {
            let mut file = target.create_file(source.name)?;
            file.write_all(&self.start).map_err(|error| FsError::new("write", &target.path().join(source.name), error))?;
            self.push_self_referring(source, (size, digest), found.offsets);
            return Ok(());
        }
        let key = (digest, executable);
        match self.shared.place(&key, target, &source.path)? {
            Place::Linked => {}
            Place::Later => self.copied.later.push((source.path.clone(), key)),
            Place::Write if self.take_away(source)? => fsutil::freeze_file(&source.file, executable, &source.shown())?,
            Place::Write => target.write_frozen(source.name, &self.start, executable)?,
        }
        self.remember(source.batch, &source.node, digest);
        self.push(source.path.clone(), EntryKind::File { size, digest, executable, self_references: None });
        Ok(())
    }

    /// Takes in a file that does not fit into one chunk, of which the first is read already.
    fn add_large(&mut self, source: &mut Source<'_>) -> Result<(), StoreError> {
        let target = &source.batch.target;
        let shown = target.path().join(source.name);
        let mut scan = LargeScan::new(self.shared.candidates);
        self.buffer.resize(CHUNK_BYTES, 0);
        let taken = self.take_away(source)?;
        let file = if taken { None } else { Some(target.create_file(source.name)?) };
        let shares = file.as_ref().is_some_and(|file| self.shares_blocks(&source.file, file));
        if let Some(file) = file.as_ref().filter(|_| !shares) {
            scan.run(&self.start, &mut source.file, &mut self.buffer, |bytes| (&mut &*file).write_all(bytes))
        } else if let Some(mut file) = file.as_ref().filter(|_| shares) {
            // The source may change while it is read, but its blocks in the new file do not.
            scan.run(&[], &mut file, &mut self.buffer, |_| Ok(()))
        } else {
            scan.run(&self.start, &mut source.file, &mut self.buffer, |_| Ok(()))
        }
        .map_err(|error| FsError::new("copy", &source.shown(), error))?;
        let (digest, size, found) = scan.finish();
        self.copied.references.extend(found.references);
        if !found.offsets.is_empty() {
            if taken || shares {
                write_zeros(target, source, &found.offsets)?;
            }
            self.push_self_referring(source, (size, digest), found.offsets);
            return Ok(());
        }
        let executable = source.is_executable();
        fsutil::freeze_file(file.as_ref().unwrap_or(&source.file), executable, &shown)?;
        self.shared.merge(&(digest, executable), target, &source.path)?;
        if size == source.node.stamp.size {
            self.remember(source.batch, &source.node, digest);
        }
        self.push(source.path.clone(), EntryKind::File { size, digest, executable, self_references: None });
        Ok(())
    }

    /// Renames the file into place if it was given away and is ours alone; returns whether it was done.
    fn take_away(&self, source: &Source<'_>) -> Result<bool, StoreError> {
        if !self.shared.origin.given_away || source.node.links != 1 || source.node.user != self.shared.user {
            return Ok(false);
        }
        Ok(source.batch.source.move_plain_file(source.name, &source.file, &source.batch.target)?)
    }

    fn shares_blocks(&self, source: &File, target: &File) -> bool {
        if self.shared.cannot_share.load(Ordering::Relaxed) {
            return false;
        }
        let shares = fsutil::share_blocks(source, target);
        self.shared.cannot_share.store(!shares, Ordering::Relaxed);
        shares
    }

    fn remember(&mut self, batch: &Batch, node: &Node, digest: Digest) {
        if self.shared.origin.cache.is_some() && node.stamp.device == batch.key.0 && is_settled(&node.stamp, self.shared.started) {
            self.copied.seen.entry(batch.key).or_default().push(KnownFile { stamp: node.stamp, digest });
        }
    }

    fn push(&mut self, path: RelPath, kind: EntryKind) {
        self.copied.entries.push(Entry { path, kind });
    }

    fn push_self_referring(&mut self, source: &Source<'_>, (size, modulo): (u64, Digest), offsets: Vec<u64>) {
        let self_references = Some(SelfReferences { offsets, modulo });
        // The digest of the final bytes is known after the id.
        self.push(source.path.clone(), EntryKind::File { size, digest: modulo, executable: source.is_executable(), self_references });
    }

    fn check_name(&mut self, path: &RelPath) -> Result<(), StoreError> {
        self.copied.references.extend(super::staging::references_in_name(self.shared.candidates, path)?);
        Ok(())
    }
}

/// Hashes and scans a file chunk by chunk.
struct LargeScan<'a> {
    scanner: Option<Scanner<'a>>,
    hasher: blake3::Hasher,
    size: u64,
}

impl<'a> LargeScan<'a> {
    fn new(candidates: &'a Candidates) -> Self {
        let scanner = (!candidates.is_empty()).then(|| Scanner::new(candidates));
        Self { scanner, hasher: blake3::Hasher::new(), size: 0 }
    }

    /// Goes through `start` and what the reader gives; hands on what is settled, the own stand-in zeroed out.
    fn run(
        &mut self,
        start: &[u8],
        reader: &mut impl Read,
        buffer: &mut [u8],
        mut write: impl FnMut(&[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        self.settle(start, &mut write)?;
        loop {
            match reader.read(buffer) {
                Ok(0) => break,
                Ok(length) => self.settle(&buffer[..length], &mut write)?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        let Some(scanner) = &mut self.scanner else { return Ok(()) };
        let rest = scanner.rest();
        self.hasher.update(rest);
        self.size += rest.len() as u64;
        write(rest)
    }

    fn settle(&mut self, chunk: &[u8], write: &mut impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        let settled = match &mut self.scanner {
            Some(scanner) => scanner.push(chunk),
            None => chunk,
        };
        self.hasher.update(settled);
        self.size += settled.len() as u64;
        write(settled)
    }

    fn finish(self) -> (Digest, u64, crate::scan::Found) {
        (Digest::from(self.hasher.finalize()), self.size, self.scanner.map(Scanner::into_found).unwrap_or_default())
    }
}

/// Writes zeros over the own stand-in in a file that has its place already.
fn write_zeros(target: &Directory, source: &Source<'_>, offsets: &[u64]) -> Result<(), FsError> {
    let path = target.path().join(source.name);
    fsutil::set_mode(&path, 0o600)?;
    let file = target.open_own_file(source.name)?;
    offsets.iter().try_for_each(|offset| file.write_all_at(&SELF_ZEROS, *offset)).map_err(|error| FsError::new("write", &path, error))
}

/// The name of a content below `blobs/`.
fn blob_name((digest, executable): &ContentKey) -> String {
    let text = digest.to_string();
    let mark = if *executable { "x" } else { "" };
    format!("{}/{text}{mark}", &text[..2])
}

fn refused(directory: &Directory, name: &OsStr, reason: &'static str) -> StoreError {
    StoreError::Refused { path: directory.path().join(name), reason }
}

pub(super) fn child_path(source: &Directory, below: Option<&RelPath>, name: &OsStr) -> Result<RelPath, StoreError> {
    let text = name.to_str().ok_or_else(|| refused(source, name, "its name is not UTF-8"))?;
    let child = match below {
        Some(below) => format!("{below}/{text}").parse(),
        None => text.parse(),
    };
    child.map_err(|_| refused(source, name, "its path is too long or too deep"))
}

#[cfg(test)]
mod tests;

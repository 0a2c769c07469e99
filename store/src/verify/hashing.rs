//! Hashes files on a few threads while another one finds them.
//!
//! The finder hands over open files, so that what is removed meanwhile is no error. How many wait is bounded, and so is what is remembered of
//! inodes with several names; forgetting one costs a second reading, nothing else.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use crate::fsutil::{FsError, Node};
use crate::progress::Counters;
use crate::scan::{FileDigests, digests_of};
use crate::{Digest, ObjectId};

/// The most threads that hash, unless the caller wants more: disks are slower than four of them.
const THREADS_MAX: usize = 4;

/// How many files wait for a thread. Each is an open handle, of which a process may have 1024.
const FILES_WAITING_MAX: usize = 64;

/// How many inodes are remembered: 30 MB. Mostly there are none, as `blobs/` has a name for each inode.
const INODES_MAX: usize = 1 << 18;

/// How much of a file is read at a time, in bytes: what a core's cache holds.
const READ_BYTES: usize = 256 << 10;

/// The longest time for which reading less than allowed is made up for by reading more.
const CREDIT: Duration = Duration::from_secs(1);

/// How much of the machine a verification may take, and where it says how far it is.
#[derive(Debug, Clone, Copy)]
pub struct Effort<'a> {
    /// How many threads hash.
    pub threads: usize,
    /// How many bytes are read in a second, all threads together; nothing for as many as can be.
    pub bytes_per_second: Option<u64>,
    /// What is counted: files and bytes read.
    pub progress: &'a Counters,
}

impl<'a> Effort<'a> {
    /// As fast as this machine can, within reason.
    pub fn full(progress: &'a Counters) -> Self {
        let threads = std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get).min(THREADS_MAX);
        Self { threads, bytes_per_second: None, progress }
    }
}

/// What reading a file gave, or why it could not be read.
pub(super) type Outcome = Result<FileDigests, String>;

/// A file to hash, and what to do with the digest.
struct Job<'env> {
    file: File,
    /// Device and inode, if the file has other names under which it may come again.
    inode: Option<(u64, u64)>,
    /// Where the own id of which object stands.
    own: Option<(ObjectId, Vec<u64>)>,
    judge: Box<dyn FnOnce(Outcome) + Send + 'env>,
}

/// Where files to hash are handed over.
pub(super) struct Hashing<'env> {
    jobs: SyncSender<Job<'env>>,
    bytes: Cell<u64>,
}

impl<'env> Hashing<'env> {
    /// Hashes an open file; `judge` is told, from another thread. One inode with several names is read once.
    pub(super) fn hash(&self, file: File, node: &Node, judge: impl FnOnce(Outcome) + Send + 'env) {
        self.bytes.set(self.bytes.get() + node.stamp.size);
        let inode = (node.links > 1).then_some((node.stamp.device, node.stamp.inode));
        self.hand_over(Job { file, inode, own: None, judge: Box::new(judge) });
    }

    /// As [`Self::hash`], for a file that names its own object at `offsets`.
    pub(super) fn hash_own(&self, file: File, id: ObjectId, offsets: Vec<u64>, judge: impl FnOnce(Outcome) + Send + 'env) {
        self.hand_over(Job { file, inode: None, own: Some((id, offsets)), judge: Box::new(judge) });
    }

    /// The length of the files handed over, in bytes.
    pub(super) const fn bytes(&self) -> u64 {
        self.bytes.get()
    }

    fn hand_over(&self, job: Job<'env>) {
        // Nobody takes it only if all threads have panicked, and that comes out of the scope.
        drop(self.jobs.send(job));
    }
}

/// Runs `find`, which hands over files, and returns when all of them are judged.
pub(super) fn hash_while<'env, T>(effort: &Effort<'_>, find: impl FnOnce(&Hashing<'env>) -> T) -> T {
    let (jobs, waiting) = sync_channel(FILES_WAITING_MAX);
    let shared = Shared { inodes: Mutex::default(), pace: Pace::new(effort.bytes_per_second), progress: effort.progress };
    std::thread::scope(|scope| {
        let waiting = Arc::new(Mutex::new(waiting));
        for _ in 0..effort.threads.max(1) {
            let (shared, waiting) = (&shared, waiting.clone());
            scope.spawn(move || shared.work(&waiting));
        }
        drop(waiting);
        find(&Hashing { jobs, bytes: Cell::new(0) })
    })
}

/// What an inode holds, or why it cannot be read; empty while a thread reads it.
type Known = Arc<OnceLock<Result<Digest, String>>>;

/// What the threads share.
struct Shared<'a> {
    inodes: Mutex<BTreeMap<(u64, u64), Known>>,
    pace: Pace,
    progress: &'a Counters,
}

impl Shared<'_> {
    fn work(&self, waiting: &Mutex<Receiver<Job<'_>>>) {
        let mut buffer = vec![0; READ_BYTES];
        loop {
            let next = waiting.lock().unwrap_or_else(PoisonError::into_inner).recv();
            let Ok(Job { file, inode, own, judge }) = next else { return };
            let outcome = match (own, inode) {
                (Some((id, offsets)), _) => self.read_own(&file, &id, &offsets),
                (None, None) => self.read(file, &mut buffer).map(plain),
                (None, Some(inode)) => self.read_once(file, inode, &mut buffer).map(plain),
            };
            judge(outcome);
        }
    }

    fn read(&self, mut file: File, buffer: &mut [u8]) -> Result<Digest, String> {
        let mut hasher = blake3::Hasher::new();
        loop {
            match file.read(buffer) {
                Ok(0) => break,
                Ok(length) => {
                    hasher.update(&buffer[..length]);
                    self.pace.spend(length as u64);
                    self.progress.add_bytes(length as u64);
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.to_string()),
            }
        }
        self.progress.add_file();
        Ok(Digest::from(hasher.finalize()))
    }

    fn read_once(&self, file: File, inode: (u64, u64), buffer: &mut [u8]) -> Result<Digest, String> {
        let cell = {
            let mut inodes = self.inodes.lock().unwrap_or_else(PoisonError::into_inner);
            match inodes.get(&inode) {
                Some(cell) => cell.clone(),
                None if inodes.len() < INODES_MAX => inodes.entry(inode).or_default().clone(),
                None => Arc::default(),
            }
        };
        cell.get_or_init(|| self.read(file, buffer)).clone()
    }

    fn read_own(&self, file: &File, id: &ObjectId, offsets: &[u64]) -> Outcome {
        let length = file.metadata().map_err(|error| error.to_string())?.len();
        let digests = digests_of(file, offsets, id, Path::new("")).map_err(|FsError { source, .. }| source.to_string())?;
        self.pace.spend(length);
        self.progress.add_bytes(length);
        self.progress.add_file();
        Ok(digests)
    }
}

const fn plain(digest: Digest) -> FileDigests {
    FileDigests { digest, modulo: digest, own_id_stands: true }
}

/// Keeps reading down to a rate.
struct Pace {
    bytes_per_second: Option<u64>,
    /// When all that was read until now is paid for.
    paid_at: Mutex<Option<Instant>>,
}

impl Pace {
    const fn new(bytes_per_second: Option<u64>) -> Self {
        Self { bytes_per_second, paid_at: Mutex::new(None) }
    }

    /// Waits until so many bytes more are within the rate.
    fn spend(&self, bytes: u64) {
        let Some(rate) = self.bytes_per_second.filter(|rate| *rate > 0) else { return };
        let now = Instant::now();
        let cost = Duration::from_nanos(u64::try_from(u128::from(bytes) * 1_000_000_000 / u128::from(rate)).unwrap_or(u64::MAX));
        let wait = {
            let mut paid_at = self.paid_at.lock().unwrap_or_else(PoisonError::into_inner);
            let start = paid_at.unwrap_or(now).max(now.checked_sub(CREDIT).unwrap_or(now));
            let until = start + cost;
            *paid_at = Some(until);
            until.saturating_duration_since(now)
        };
        std::thread::sleep(wait);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reading_keeps_to_the_rate() {
        let pace = Pace::new(Some(10 << 20));
        let started = Instant::now();
        // The first ones may use a second's credit only if there was a time in which it could be saved: there was none.
        for _ in 0..20 {
            pace.spend(100 << 10);
        }
        assert!(started.elapsed() >= Duration::from_millis(190), "{:?}", started.elapsed());
    }
}

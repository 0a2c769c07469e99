//! Locks between processes: `flock` on a file of their own.
//!
//! The kernel gives a lock up when its holder ends, however it ends. The file's text says who holds the lock, for people;
//! it decides nothing. Every wait has a deadline.

use std::fs::{File, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};

use super::{FsError, IoResultExt};

/// The pause between two attempts at a lock that somebody else holds.
const RETRY_PAUSE: Duration = Duration::from_millis(10);

/// How much of the holder's text is shown, in bytes.
const HOLDER_BYTES_MAX: u64 = 200;

/// A held lock; dropping it gives it up.
#[derive(Debug)]
pub struct FileLock {
    file: File,
    path: PathBuf,
}

/// Why there is no lock.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Somebody else holds it.
    #[error("`{}` is locked by {holder}", path.display())]
    Busy {
        /// The lock file.
        path: PathBuf,
        /// What the holder wrote into it, such as `process 4711`.
        holder: String,
    },
    /// The lock file cannot be used.
    #[error(transparent)]
    File(#[from] FsError),
}

impl FileLock {
    /// Replaces the text of the lock file. Not durable: it is of use only while the lock is held.
    pub fn describe(&mut self, holder: &str) -> Result<(), FsError> {
        self.file.set_len(0).at("write", &self.path)?;
        self.file.seek(SeekFrom::Start(0)).at("write", &self.path)?;
        self.append(holder)
    }

    /// Adds to the text of the lock file; all of it or nothing.
    pub fn append(&mut self, text: &str) -> Result<(), FsError> {
        let before = self.file.stream_position().at("write", &self.path)?;
        self.file.write_all(text.as_bytes()).at("write", &self.path).inspect_err(|_| {
            // A full disk takes a part: the next text would join it. Whoever reads meanwhile passes over a line without an end.
            let _ = self.file.set_len(before);
            let _ = self.file.seek(SeekFrom::Start(before));
        })
    }

    /// Whether the path still names the locked file. Where holders remove the file, who takes the lock has to look: it may have waited for a
    /// file that is no more.
    pub fn is_in_place(&self) -> Result<bool, FsError> {
        let held = self.file.metadata().at("read", &self.path)?;
        match std::fs::symlink_metadata(&self.path) {
            Ok(named) => Ok((named.dev(), named.ino()) == (held.dev(), held.ino())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(FsError::new("read", &self.path, error)),
        }
    }

    /// Removes the lock file, then gives the lock up; for locks whose takers ask [`Self::is_in_place`].
    pub fn remove(self) -> Result<(), FsError> {
        super::remove_file(&self.path)
    }

    /// The lock file.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Takes a lock for one holder alone, at once or not at all; makes the lock file if there is none.
pub fn lock_exclusive(path: &Path) -> Result<FileLock, LockError> {
    lock_exclusive_within(path, Duration::ZERO)
}

/// Takes a lock for one holder alone, waiting no longer than `patience`.
pub fn lock_exclusive_within(path: &Path, patience: Duration) -> Result<FileLock, LockError> {
    let mut lock = lock_within(path, patience, File::try_lock)?;
    // Who holds the lock is a courtesy: on a full disk, where a collection is needed most, the lock is held without it.
    let _ = lock.describe(&format!("process {}\n", std::process::id()));
    Ok(lock)
}

/// Takes a lock that others may share, waiting no longer than `patience`.
pub fn lock_shared_within(path: &Path, patience: Duration) -> Result<FileLock, LockError> {
    lock_within(path, patience, File::try_lock_shared)
}

fn lock_within(path: &Path, patience: Duration, attempt: impl Fn(&File) -> Result<(), TryLockError>) -> Result<FileLock, LockError> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut file = File::from(rustix::fs::open(path, flags, Mode::from_raw_mode(0o600)).at("open the lock", path)?);
    let started = Instant::now();
    loop {
        match attempt(&file) {
            Ok(()) => return Ok(FileLock { file, path: path.to_owned() }),
            Err(TryLockError::WouldBlock) if started.elapsed() < patience => std::thread::sleep(RETRY_PAUSE),
            Err(TryLockError::WouldBlock) => return Err(LockError::Busy { path: path.to_owned(), holder: holder_of(&mut file) }),
            Err(TryLockError::Error(source)) => return Err(FsError::new("lock", path, source).into()),
        }
    }
}

fn holder_of(file: &mut File) -> String {
    let mut text = Vec::new();
    // Who holds the lock is a courtesy: without the text the lock is just as busy.
    let _ = file.take(HOLDER_BYTES_MAX).read_to_end(&mut text);
    match String::from_utf8_lossy(&text).lines().next() {
        Some(line) if !line.is_empty() => line.to_owned(),
        Some(_) | None => "another process".to_owned(),
    }
}

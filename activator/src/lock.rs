//! The lock of a profile: one activation at a time.
//!
//! The lock is the kernel's, on an open file: it goes with the process that holds it, however that ends, so a dead
//! holder cannot lock anybody out. What the file says is for people and never decides anything.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::io::Errno;

use crate::clock;
use crate::error::ActivateError;

/// The longest text of a lock file that is shown, in bytes.
const HOLDER_BYTES_MAX: u64 = 512;

/// How often a lock is tried: [`find_holder`] of another session holds it too, for microseconds.
const PROBES: u32 = 5;

/// The pause between two tries.
const PROBE_TIME: Duration = Duration::from_millis(10);

/// How long to wait for a lock that is held for a moment. Its holder writes a file or two; this covers a slow disk.
const PATIENCE: Duration = Duration::from_secs(30);

/// A held lock; dropping it releases it.
#[derive(Debug)]
pub struct Lock {
    file: File,
    path: PathBuf,
    announced: bool,
}

/// What asking for a lock led to.
#[derive(Debug)]
pub enum Attempt {
    /// The lock is held by the caller now.
    Held(Lock),
    /// Somebody else holds it: who, since when, in words.
    Busy(String),
}

impl Lock {
    /// Takes the lock at `path` if it is free for now. Makes the file, but writes nothing to one that exists.
    pub fn attempt(path: &Path) -> Result<Attempt, ActivateError> {
        let file = open(path)?;
        for _ in 0..PROBES {
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Attempt::Held(Self { file, path: path.to_owned(), announced: false })),
                Err(Errno::WOULDBLOCK) => clock::pause(PROBE_TIME),
                Err(source) => return Err(ActivateError::Io { action: "lock", path: path.to_owned(), source: source.into() }),
            }
        }
        Ok(Attempt::Busy(holder(file)))
    }

    /// Takes the lock at `path`, waiting for it up to `PATIENCE`. Only for locks that are held for a moment.
    pub fn wait(path: &Path) -> Result<Self, ActivateError> {
        let end = clock::boottime() + PATIENCE;
        loop {
            match Self::attempt(path)? {
                Attempt::Held(lock) => return Ok(lock),
                Attempt::Busy(_) if clock::boottime() < end => {}
                Attempt::Busy(_) => {
                    let source = std::io::ErrorKind::TimedOut.into();
                    return Err(ActivateError::Io { action: "lock", path: path.to_owned(), source });
                }
            }
        }
    }

    /// Writes into the file who holds the lock and since when, for the people it keeps waiting.
    pub fn announce(&mut self, holder: &str) -> Result<(), ActivateError> {
        self.announced = true;
        let written = self.file.set_len(0).and_then(|()| self.file.rewind()).and_then(|()| writeln!(self.file, "{holder}"));
        written.map_err(|source| ActivateError::Io { action: "write", path: self.path.clone(), source })
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        if self.announced {
            // The next holder must not be taken for this one before it announces itself; if this fails, people are misled, no more.
            let _ = self.file.set_len(0);
        }
    }
}

/// Who holds the lock at `path`, if anybody does.
pub fn find_holder(path: &Path) -> Option<String> {
    let file = OpenOptions::new().read(true).open(path).ok()?;
    match flock(&file, FlockOperation::NonBlockingLockShared) {
        Err(Errno::WOULDBLOCK) => Some(holder(file)),
        _ => None,
    }
}

/// Opens a lock for its owner alone: whoever may read a file may lock it, and keep everybody else out.
fn open(path: &Path) -> Result<File, ActivateError> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600).custom_flags(OFlags::NOFOLLOW.bits().cast_signed());
    options.open(path).map_err(|source| ActivateError::Io { action: "open", path: path.to_owned(), source })
}

fn holder(file: File) -> String {
    let mut text = Vec::new();
    // A holder that cannot be read is still a holder.
    let _ = file.take(HOLDER_BYTES_MAX).read_to_end(&mut text);
    let text: String = String::from_utf8_lossy(&text).chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    match text.trim() {
        "" => "another activation that has just begun".to_owned(),
        words => words.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_lock_is_held_once_and_freed_by_its_end() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lock");
        assert_eq!(find_holder(&path), None);
        let Attempt::Held(mut lock) = Lock::attempt(&path).unwrap() else { panic!("a fresh lock is free") };
        lock.announce("ada@desk since 7 (process 42)").unwrap();
        assert!(matches!(Lock::attempt(&path).unwrap(), Attempt::Busy(holder) if holder == "ada@desk since 7 (process 42)"));
        assert_eq!(find_holder(&path).as_deref(), Some("ada@desk since 7 (process 42)"));
        drop(lock);
        assert_eq!(find_holder(&path), None);
        let Attempt::Held(_next) = Lock::attempt(&path).unwrap() else { panic!("its holder has let it go") };
        assert_eq!(find_holder(&path).as_deref(), Some("another activation that has just begun"), "not the one before");
    }

    #[test]
    fn nobody_else_may_hold_a_lock() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lock");
        drop(Lock::wait(&path).unwrap());
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o077, 0);
    }
}

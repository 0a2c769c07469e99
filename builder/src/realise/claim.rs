//! Who works on a recipe holds the lock of its key, so that two processes on one store never do the same work twice.
//!
//! The lock decides nothing about results: who has it looks the result up again, and does the work if there is none. A holder waits for no
//! other claim, so claims cannot wait for one another in a circle. The lock's file goes with the claim; what a killed process leaves is a file
//! that nobody locks, and the next claim of that key takes it over.

use std::time::{Duration, Instant};

use sarsen_store::fsutil::{self, FileLock, LockError, lock_exclusive_within};
use sarsen_store::{Digest, ObjectStore};

use super::RecipeError;

/// A key that nobody else works on; dropping it lets the next one in.
#[derive(Debug)]
pub(super) struct Claim {
    lock: Option<FileLock>,
}

impl Drop for Claim {
    fn drop(&mut self) {
        if let Some(lock) = self.lock.take() {
            // A file that stays is taken over by the next claim; what was built is just as good.
            let _ = lock.remove();
        }
    }
}

/// Claims a key; calls `waiting` with who has it, if somebody has, and waits no longer than `patience`.
///
/// Errors: [`RecipeError::Busy`] after `patience`.
pub(super) fn claim(store: &ObjectStore, key: &Digest, patience: Duration, waiting: impl FnOnce(String)) -> Result<Claim, RecipeError> {
    let directory = store.root().join("building");
    fsutil::create_dir_all(&directory, 0o755)?;
    let path = directory.join(key.to_string());
    let started = Instant::now();
    let mut waiting = Some(waiting);
    loop {
        let left = patience.saturating_sub(started.elapsed());
        // The first attempt is over at once, since people want to know for whom they wait.
        let now = if waiting.is_some() { Duration::ZERO } else { left };
        match lock_exclusive_within(&path, now) {
            // Otherwise its last holder has removed the file that was locked, and others lock a new one.
            Ok(lock) if lock.is_in_place()? => return Ok(Claim { lock: Some(lock) }),
            Ok(_) if !left.is_zero() => {}
            Ok(lock) => return Err(RecipeError::Busy { holder: "another process".to_owned(), patience, lock: lock.path().to_owned() }),
            Err(LockError::File(error)) => return Err(error.into()),
            Err(LockError::Busy { path: lock, holder }) => match waiting.take() {
                Some(waiting) => waiting(holder),
                None => return Err(RecipeError::Busy { holder, patience, lock }),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> (tempfile::TempDir, ObjectStore) {
        let directory = tempfile::tempdir().unwrap();
        let store = ObjectStore::open(&directory.path().join("data")).unwrap();
        (directory, store)
    }

    #[test]
    fn the_second_one_is_told_for_whom_it_waits_and_waits_no_longer_than_it_may() {
        let (_directory, store) = store();
        let key = Digest::of(b"recipe");
        let first = claim(&store, &key, Duration::ZERO, |_| panic!("nobody else is there")).unwrap();
        let other = claim(&store, &Digest::of(b"other"), Duration::ZERO, |_| panic!("another key is free")).unwrap();
        let mut told = None;
        let error = claim(&store, &key, Duration::from_millis(1), |holder| told = Some(holder)).unwrap_err();
        let process = format!("process {}", std::process::id());
        assert_eq!(told.as_ref(), Some(&process));
        let text = error.to_string().replace(&process, "process N").replace(&store.root().display().to_string(), "ROOT");
        let text = text.replace(&key.to_string(), "KEY");
        insta::assert_snapshot!(text, @"process N has been at the same work for 0 s, longer than that may take: end it, or wait for it, then build again; its lock: ROOT/building/KEY");
        drop((first, other));
        drop(claim(&store, &key, Duration::ZERO, |_| panic!("it was given up")).unwrap());
        assert_eq!(std::fs::read_dir(store.root().join("building")).unwrap().count(), 0, "files go with their claims");
    }

    #[test]
    fn of_many_claims_of_one_key_one_is_held_at_a_time() {
        let (_directory, store) = store();
        let key = Digest::of(b"recipe");
        let inside = std::sync::atomic::AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..20 {
                        let held = claim(&store, &key, Duration::from_mins(1), |_| {}).unwrap();
                        assert_eq!(inside.fetch_add(1, std::sync::atomic::Ordering::SeqCst), 0, "two at one time");
                        std::thread::yield_now();
                        inside.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
                        drop(held);
                    }
                });
            }
        });
    }
}

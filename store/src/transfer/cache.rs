//! Deltas that were made already, for a run that sends the same update to many hosts.
//!
//! A handle is given to each transfer of the run. Whoever needs a delta first makes it, the others wait for it; transfers that
//! need different ones do not wait for each other. What is kept is bounded, the oldest goes first.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::TransferError;
use super::delta::Alignment;
use crate::Digest;

/// How many bytes of deltas are kept: a large update of one host, and little beside what a transfer needs anyway.
const CACHE_BYTES_MAX: usize = 32 << 20;

/// Keeps deltas for other transfers of the same run. Clones share what they keep.
#[derive(Debug, Clone, Default)]
pub struct DeltaCache {
    state: Arc<Mutex<State>>,
}

/// How a content is told by an old one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Codec {
    /// One zstd frame behind the old contents.
    #[default]
    Patch,
    /// A segment of a delta.
    Delta,
}

/// A patch, or a segment of a delta and how the next one begins.
#[derive(Debug, Default)]
pub(crate) struct Made {
    pub(crate) codec: Codec,
    pub(crate) bytes: Vec<u8>,
    pub(crate) alignment: Alignment,
}

/// Locked while the delta is being made.
type Slot = Arc<Mutex<Option<Arc<Made>>>>;

#[derive(Debug, Default)]
struct State {
    slots: BTreeMap<Digest, Slot>,
    /// The finished ones with their lengths, the oldest first.
    finished: VecDeque<(Digest, usize)>,
    bytes: usize,
    made: u64,
}

impl DeltaCache {
    /// Gives the delta of this key, which `make` makes if nobody has.
    pub(crate) fn get(&self, key: &Digest, make: impl FnOnce() -> Result<Made, TransferError>) -> Result<Arc<Made>, TransferError> {
        let slot = Arc::clone(lock(&self.state).slots.entry(*key).or_default());
        let mut slot = lock(&slot);
        if let Some(delta) = &*slot {
            return Ok(Arc::clone(delta));
        }
        let delta = Arc::new(make()?);
        *slot = Some(Arc::clone(&delta));
        drop(slot);
        lock(&self.state).finish(*key, delta.bytes.len());
        Ok(delta)
    }

    /// How many deltas were made, as opposed to taken from here.
    pub fn made(&self) -> u64 {
        lock(&self.state).made
    }

    /// How many bytes of deltas are kept at the moment.
    pub fn bytes(&self) -> usize {
        lock(&self.state).bytes
    }
}

impl State {
    fn finish(&mut self, key: Digest, length: usize) {
        self.finished.push_back((key, length));
        self.bytes += length;
        self.made += 1;
        while self.bytes > CACHE_BYTES_MAX {
            let Some((oldest, length)) = self.finished.pop_front() else { break };
            self.slots.remove(&oldest);
            self.bytes -= length;
        }
    }
}

/// A delta is put into its slot whole, so a panic elsewhere leaves nothing half made.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn made(length: usize) -> Made {
        Made { bytes: vec![1; length], ..Made::default() }
    }

    #[test]
    fn a_delta_is_made_once_for_all_who_want_it_at_the_same_time() {
        let (cache, count) = (DeltaCache::default(), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let make = || {
                        count.fetch_add(1, Ordering::Relaxed);
                        Ok(made(10))
                    };
                    assert_eq!(cache.get(&Digest::of(b"key"), make).unwrap().bytes, [1; 10]);
                });
            }
        });
        assert_eq!((count.into_inner(), cache.made(), cache.bytes()), (1, 1, 10));
        // What could not be made is tried again.
        let failed = cache.get(&Digest::of(b"other"), || Err(TransferError::Ended));
        assert!(failed.is_err());
        assert_eq!(cache.get(&Digest::of(b"other"), || Ok(made(1))).unwrap().bytes, [1]);
    }

    #[test]
    fn the_oldest_go_when_there_are_too_many() {
        let cache = DeltaCache::default();
        for key in 0..5u8 {
            cache.get(&Digest::of(&[key]), || Ok(made(CACHE_BYTES_MAX / 3))).unwrap();
            assert!(cache.bytes() <= CACHE_BYTES_MAX);
        }
        let again = |key: u8| cache.get(&Digest::of(&[key]), || Ok(made(0))).unwrap().bytes.len();
        assert_eq!((again(4), again(0)), (CACHE_BYTES_MAX / 3, 0));
        cache.get(&Digest::of(b"huge"), || Ok(made(CACHE_BYTES_MAX + 1))).unwrap();
        assert_eq!(cache.bytes(), 0);
    }
}

//! What long work has done so far, for whoever shows it.
//!
//! The library counts, from any thread; it neither prints nor asks for the time. Whoever passed the counters looks at them when he likes.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counters of one piece of work. They only grow.
#[derive(Debug)]
pub struct Counters {
    noun: &'static str,
    files: AtomicU64,
    bytes: AtomicU64,
}

impl Counters {
    /// Counts files and bytes from nothing.
    pub const fn new() -> Self {
        Self::of("file")
    }

    /// As [`Self::new`], where the things that are counted beside bytes are something else than files.
    pub const fn of(noun: &'static str) -> Self {
        Self { noun, files: AtomicU64::new(0), bytes: AtomicU64::new(0) }
    }

    /// What is counted beside bytes, in the singular.
    pub const fn noun(&self) -> &'static str {
        self.noun
    }

    /// How many files, or other things, are done.
    pub fn files(&self) -> u64 {
        self.files.load(Ordering::Relaxed)
    }

    /// How many bytes were read or written.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Counts one more file.
    pub fn add_file(&self) {
        self.files.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts bytes.
    pub fn add_bytes(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }
}

impl Default for Counters {
    fn default() -> Self {
        Self::new()
    }
}

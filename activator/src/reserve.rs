//! Room that is kept for the way back: a rollback writes a few kilobytes, and must work on a disk that is full.
//!
//! Where nothing is free any more, these files are removed before the first write of a way back; the next trial makes them
//! anew. What they give free may be taken by others, as everything on a disk; it is for a moment, and the way back is at once.
//! `LAYOUT.md`, section "Rolling back".

use std::path::PathBuf;

use rustix::fs::statvfs;
use sarsen_store::fsutil::{self, FsError};

use crate::layout::ProfileLayout;

/// What a way back needs at most, in bytes: a journal, a trial, a record, lines of logs, and units' links, each in blocks of its own.
const ROOM_BYTES: usize = 256 << 10;

/// The inodes it needs at most: each file and link is made beside the one it replaces, so few are there at once.
const ROOM_FILES: u64 = 16;

impl ProfileLayout {
    fn reserve(&self) -> PathBuf {
        self.directory().join("reserve")
    }

    /// Makes sure that the room is kept. Nothing is synced: a crash gives the room free.
    pub(crate) fn keep_room(&self) -> Result<(), FsError> {
        let place = self.reserve();
        if place.is_dir() {
            return Ok(());
        }
        let kept = self.fill_room();
        if kept.is_err() {
            // A part of it would count as all of it, and the room is needed. The first error is the one to tell.
            let _ = fsutil::remove_tree(&place);
        }
        kept
    }

    fn fill_room(&self) -> Result<(), FsError> {
        let place = self.reserve();
        fsutil::create_dir(&place, 0o700)?;
        for number in 0..ROOM_FILES {
            // No zeros: some file systems store none of them.
            let content = if number == 0 { vec![0x5a; ROOM_BYTES] } else { Vec::new() };
            fsutil::write_new_file(&place.join(number.to_string()), &content, 0o600)?;
        }
        Ok(())
    }

    /// Gives the room free if there is hardly any other. Says whether it did.
    pub(crate) fn make_room(&self) -> Result<bool, FsError> {
        let place = self.reserve();
        let Ok(space) = statvfs(self.directory()) else { return Ok(false) };
        let is_roomy = space.f_bavail.saturating_mul(space.f_frsize) >= ROOM_BYTES as u64 && space.f_favail >= ROOM_FILES;
        // Some file systems count no inodes.
        if (is_roomy || space.f_files == 0 && space.f_bavail > 0) || !place.is_dir() {
            return Ok(false);
        }
        fsutil::remove_tree(&place)?;
        Ok(true)
    }
}

//! Where what is damaged goes: out of the way, but not away.
//!
//! `quarantine/<seconds>-<object>/<path>` for what was in an object, `quarantine/<seconds>-<name>` for contents and manifests,
//! `quarantine/<seconds>-strays/<name>` for what belonged nowhere. Nothing in sarsen reads it, and nothing removes it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::ObjectRef;
use crate::fsutil::{self, FsError, NodeKind};
use crate::objects::ObjectStore;

/// The places that one repair makes.
#[derive(Debug)]
pub(super) struct Quarantine {
    directory: PathBuf,
    seconds: u64,
    taken: BTreeSet<PathBuf>,
}

impl Quarantine {
    pub(super) fn new(store: &ObjectStore, now: SystemTime) -> Self {
        let seconds = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs();
        Self { directory: store.root().join("quarantine"), seconds, taken: BTreeSet::new() }
    }

    /// What was moved there, sorted.
    pub(super) fn into_paths(self) -> Vec<PathBuf> {
        self.taken.into_iter().collect()
    }

    /// Moves a content or manifest there, in one step with putting `fresh` into its place if there is one.
    pub(super) fn take(&mut self, path: &Path, fresh: Option<&Path>) -> Result<(), FsError> {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let place = self.free_place(&format!("{}-{name}", self.seconds));
        self.exchange(path, fresh, place)
    }

    /// As [`Self::take`], for a path in an object, whose directory must be writable.
    pub(super) fn take_from_object(&mut self, object: &ObjectRef, below: &Path, path: &Path, fresh: Option<&Path>) -> Result<(), FsError> {
        let place = self.free_place(&format!("{}-{object}/{}", self.seconds, below.display()));
        self.exchange(path, fresh, place)
    }

    /// Moves something that belongs nowhere there.
    pub(super) fn take_stray(&mut self, path: &Path) -> Result<(), FsError> {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let place = self.free_place(&format!("{}-strays/{name}", self.seconds));
        self.exchange(path, None, place)
    }

    /// A place that nobody has, with the directories above it.
    fn free_place(&self, name: &str) -> PathBuf {
        let wanted = self.directory.join(name);
        let above = wanted.parent().unwrap_or(&self.directory);
        // A directory that was moved here whole may be read-only, or no directory.
        let above = if fsutil::create_dir_all(above, 0o700).is_ok() { above.to_owned() } else { self.directory.clone() };
        let file = wanted.file_name().unwrap_or_default().to_owned();
        let mut place = above.join(&file);
        let mut number = 1;
        while fsutil::node_at(&place).is_ok() {
            number += 1;
            let mut other = file.clone();
            other.push(format!(".{number}"));
            place = above.join(other);
        }
        place
    }

    fn exchange(&mut self, path: &Path, fresh: Option<&Path>, place: PathBuf) -> Result<(), FsError> {
        match fsutil::node_at(path) {
            // Moving a directory changes its `..`, for which its owner needs to be allowed to write.
            Ok(node) if node.kind == NodeKind::Directory => fsutil::set_mode(path, 0o755)?,
            Ok(_) => {}
            Err(error) if error.is_missing() => return fresh.map_or(Ok(()), |fresh| fsutil::rename(fresh, path)),
            Err(error) => return Err(error),
        }
        match fresh {
            None => fsutil::rename(path, &place)?,
            Some(fresh) => {
                // From here, so that the old one is in quarantine in the same instant in which the new one has the name.
                fsutil::rename(fresh, &place)?;
                if !fsutil::exchange(&place, path)? {
                    // The file system cannot do that: for an instant nothing has the name.
                    fsutil::rename(path, fresh)?;
                    fsutil::rename(&place, path)?;
                    fsutil::rename(fresh, &place)?;
                }
            }
        }
        self.taken.insert(place);
        Ok(())
    }
}

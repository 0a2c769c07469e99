//! What those left behind who were killed: files that belong to nobody.
//!
//! Whoever pins works under the publication lock, so while a collector has it alone, a temporary name there is nobody's.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use crate::fsutil::{self, Directory};
use crate::objects::ObjectStore;

use super::{GcError, is_fresh};

/// Removes what is left over. Call with the publication locked.
///
/// The root's own temporary files come from programs that hold no lock yet, so they must be older than `grace`.
pub(super) fn remove(store: &ObjectStore, now: SystemTime, grace: Duration) -> Result<(), GcError> {
    let root = store.root();
    for directory in ["pins", "results"] {
        temporaries_in(&Directory::open(&root.join(directory))?)?.iter().try_for_each(|path| fsutil::remove_file(path))?;
    }
    for path in temporaries_in(&Directory::open(root)?)? {
        if !is_fresh(&path, now, grace)? {
            fsutil::remove_file(&path)?;
        }
    }
    Ok(())
}

/// The temporary names of `fsutil`: `.<random>.tmp`.
fn temporaries_in(directory: &Directory) -> Result<Vec<PathBuf>, GcError> {
    let is_temporary = |name: &str| name.strip_prefix('.').and_then(|name| name.strip_suffix(".tmp")).is_some_and(|name| name.len() == 32);
    let names = directory.names()?.into_iter().filter(|name| name.to_str().is_some_and(is_temporary));
    Ok(names.map(|name| directory.path().join(name)).collect())
}

//! How much room a bundle needs on a target, from what its current bundle has already.

use std::collections::BTreeSet;

use sarsen_store::{ObjectRef, ObjectStore, StoreError};

use crate::protocol::Facts;

/// Bytes that stay free for journals, logs and the file system's own needs.
const RESERVE_BYTES: u64 = 64 << 20;

/// Inodes that stay free.
const RESERVE_INODES: u64 = 1000;

/// What a closure needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Needed {
    /// Bytes of file content, each content once.
    pub(super) bytes: u64,
    /// Files, directories and links.
    pub(super) inodes: u64,
}

/// What the closure of `bundle` needs beyond that of `present`, as far as our store knows the latter.
///
/// Never too little: what the target has besides is not counted.
pub(super) fn needed(store: &ObjectStore, bundle: &ObjectRef, present: Option<&ObjectRef>) -> Result<Needed, StoreError> {
    let mut objects = BTreeSet::new();
    let mut contents = BTreeSet::new();
    if let Some(present) = present
        && store.contains(&present.id)?
    {
        for object in store.closure(std::slice::from_ref(present))? {
            count(store, &object, &mut contents)?;
            objects.insert(object);
        }
    }
    let mut needed = Needed::default();
    for object in store.closure(std::slice::from_ref(bundle))? {
        if objects.insert(object.clone()) {
            let more = count(store, &object, &mut contents)?;
            needed.bytes = needed.bytes.saturating_add(more.bytes);
            needed.inodes = needed.inodes.saturating_add(more.inodes);
        }
    }
    Ok(needed)
}

fn count(store: &ObjectStore, object: &ObjectRef, contents: &mut BTreeSet<sarsen_store::Digest>) -> Result<Needed, StoreError> {
    let mut needed = Needed { bytes: 0, inodes: 2 };
    let tree = store.manifest(object)?.tree;
    needed.inodes += tree.len() as u64;
    for (_, file) in tree.files() {
        if contents.insert(file.digest) {
            needed.bytes = needed.bytes.saturating_add(file.size);
        }
    }
    Ok(needed)
}

impl Needed {
    /// What speaks against copying this to a host with these facts.
    pub(super) fn refusal(self, facts: &Facts) -> Option<String> {
        if self.bytes.saturating_add(RESERVE_BYTES) > facts.free_bytes {
            let mebibytes = |bytes: u64| bytes.div_ceil(1 << 20);
            return Some(format!(
                "not enough space below `{}`: {} MiB are needed with a reserve of {} MiB, {} MiB are free",
                facts.root,
                mebibytes(self.bytes),
                mebibytes(RESERVE_BYTES),
                facts.free_bytes >> 20
            ));
        }
        // File systems without a fixed number of inodes (btrfs) say zero.
        (facts.free_inodes != 0 && self.inodes.saturating_add(RESERVE_INODES) > facts.free_inodes).then(|| {
            format!(
                "not enough inodes below `{}`: {} are needed with a reserve of {RESERVE_INODES}, {} are free",
                facts.root, self.inodes, facts.free_inodes
            )
        })
    }
}

//! The store on disk, seen from its objects.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::error::StoreError;
use crate::object::ObjectManifest;
use crate::transaction::Transaction;
use crate::{Digest, ObjectId, ObjectRef};

/// A store. Clones share one open store.
#[derive(Debug, Clone)]
pub struct ObjectStore {}

#[expect(unused_variables, clippy::todo, clippy::unused_self, reason = "signatures first")]
impl ObjectStore {
    /// Opens or creates.
    pub fn open(root: &Path) -> Result<Self, StoreError> {
        todo!()
    }
    /// The root.
    pub fn root(&self) -> &Path {
        todo!()
    }
    /// The physical path of an object.
    pub fn object_path(&self, object: &ObjectRef) -> PathBuf {
        todo!()
    }
    /// Whether the object is there.
    pub fn contains(&self, id: &ObjectId) -> Result<bool, StoreError> {
        todo!()
    }
    /// The manifest.
    pub fn manifest(&self, object: &ObjectRef) -> Result<ObjectManifest, StoreError> {
        todo!()
    }
    /// Finds the name.
    pub fn find(&self, id: &ObjectId) -> Result<Option<ObjectRef>, StoreError> {
        todo!()
    }
    /// References first.
    pub fn closure(&self, roots: &[ObjectRef]) -> Result<Vec<ObjectRef>, StoreError> {
        todo!()
    }
    /// All objects, sorted.
    pub fn objects(&self) -> Result<Vec<ObjectRef>, StoreError> {
        todo!()
    }
    /// Starts a transaction.
    pub fn begin(&self) -> Result<Transaction, StoreError> {
        todo!()
    }
    /// What a recipe gave, if all of it is there.
    pub fn result(&self, key: &Digest) -> Result<Option<BTreeMap<String, ObjectRef>>, StoreError> {
        todo!()
    }
    /// Remembers what a recipe gave.
    pub fn record_result(&self, key: &Digest, outputs: &BTreeMap<String, ObjectRef>) -> Result<(), StoreError> {
        todo!()
    }
    /// Rebuilds the index; returns the number of objects.
    pub fn rebuild_index(&self) -> Result<u64, StoreError> {
        todo!()
    }
    /// Physical path of a file content, `blobs/ab/<digest>[x]`.
    pub(crate) fn blob_path(&self, digest: &Digest, executable: bool) -> PathBuf {
        todo!()
    }
    /// Physical path of an object's manifest.
    pub(crate) fn manifest_path(&self, id: &ObjectId) -> PathBuf {
        todo!()
    }
    /// Keeps publishers out while objects are removed.
    pub(crate) fn lock_publication(&self) -> Result<crate::fsutil::FileLock, StoreError> {
        todo!()
    }
    /// The objects that running transactions and holders of `Durable` rely on. Call with the publication locked.
    pub(crate) fn leased_objects(&self) -> Result<Vec<ObjectRef>, StoreError> {
        todo!()
    }
    /// Moves objects to the trash, then drops their manifests and their rows. Call with the publication locked.
    pub(crate) fn discard(&self, objects: &[ObjectRef]) -> Result<(), StoreError> {
        todo!()
    }
    /// The pinned objects by the name of the pin: symbolic links `pins/<name>`.
    pub fn pins(&self) -> Result<BTreeMap<String, ObjectRef>, StoreError> {
        todo!()
    }
}

//! Transactions: how objects come into a store.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::StoreError;
use crate::object::ObjectManifest;
use crate::objects::ObjectStore;
use crate::{Digest, ObjectId, ObjectName, ObjectRef, RelPath};

/// An entry of an object that is made in memory. Parent directories are implied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewEntry {
    /// Where it will be, below the object's top.
    pub path: RelPath,
    /// What it will be.
    pub kind: NewEntryKind,
}

/// What a new entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NewEntryKind {
    /// A regular file.
    File {
        /// Its bytes.
        content: Arc<[u8]>,
        /// Whether it can be executed.
        executable: bool,
    },
    /// A symbolic link.
    Symlink {
        /// Where it points.
        target: String,
    },
    /// A directory; only empty ones need to be named.
    Directory,
}

/// New objects on their way into the store. Dropping it discards them.
#[derive(Debug)]
pub struct Transaction {}

#[expect(unused_variables, clippy::todo, clippy::unused_self, reason = "signatures first")]
impl Transaction {
    /// A fresh empty 0700 directory on the store's file system; removed with the transaction.
    pub fn scratch(&self, label: &str) -> Result<PathBuf, StoreError> {
        todo!()
    }
    /// Ingests a directory.
    pub fn put_directory(
        &mut self,
        name: &ObjectName,
        source: &Path,
        placeholder: Option<&ObjectId>,
        candidates: &[ObjectRef],
    ) -> Result<ObjectRef, StoreError> {
        todo!()
    }
    /// Same from memory.
    pub fn put_entries(
        &mut self,
        name: &ObjectName,
        entries: &[NewEntry],
        placeholder: Option<&ObjectId>,
        candidates: &[ObjectRef],
    ) -> Result<ObjectRef, StoreError> {
        todo!()
    }
    /// Publishes everything.
    pub fn barrier(self) -> Result<Durable, StoreError> {
        todo!()
    }
    /// Whether the content is at hand (in the store, as either mode, or received in this transaction).
    pub(crate) fn has_content(&self, digest: &Digest) -> Result<bool, StoreError> {
        todo!()
    }
    /// Starts to receive a file content of any length.
    pub(crate) fn receive_content(&mut self) -> Result<ContentWriter, StoreError> {
        todo!()
    }
    /// Takes a received content over once it has the promised digest.
    pub(crate) fn accept_content(&mut self, writer: ContentWriter, expected: &Digest) -> Result<(), StoreError> {
        todo!()
    }
    /// Stages a received object, all of whose contents are at hand; checks id, self-references and links.
    pub(crate) fn put_received(&mut self, manifest: &ObjectManifest) -> Result<(), StoreError> {
        todo!()
    }
}

/// A file content that is being received. `std::io::Write`; dropping it leaves a file that goes with the transaction.
#[derive(Debug)]
pub(crate) struct ContentWriter {}

impl std::io::Write for ContentWriter {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Objects that are on disk and named. Proof for whoever names them next; GC leaves them alone while this lives.
#[derive(Debug, Clone)]
pub struct Durable {}

#[expect(unused_variables, clippy::todo, clippy::unused_self, reason = "signatures first")]
impl Durable {
    /// The objects.
    pub fn objects(&self) -> &[ObjectRef] {
        todo!()
    }
    /// For an object that was published earlier.
    pub fn of(store: &ObjectStore, object: &ObjectRef) -> Result<Self, StoreError> {
        todo!()
    }
}

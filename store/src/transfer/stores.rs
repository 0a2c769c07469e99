//! What a transfer asks of the store on its side: traits, so that the machines can be run against stores in memory, and their implementation by the real one.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::TransferError;
use super::present::worth_naming;
use crate::error::StoreError;
use crate::fsutil::IoResultExt;
use crate::object::ObjectManifest;
use crate::objects::ObjectStore;
use crate::transaction::{ContentWriter, Durable, Transaction};
use crate::{Digest, ObjectRef, RelPath};

/// A content that can be read at any place.
pub(crate) trait ReadAt {
    /// Fills the buffer from `offset` on.
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;

    /// Its length in bytes.
    fn length(&self) -> io::Result<u64>;
}

/// Objects that can be read.
pub(crate) trait Objects {
    /// A file of an object.
    type File: ReadAt;

    /// The objects and all that they need, each after what it refers to.
    fn closure(&self, roots: &[ObjectRef]) -> Result<Vec<ObjectRef>, StoreError>;

    /// The manifest of an object that is there.
    fn manifest(&self, object: &ObjectRef) -> Result<ObjectManifest, StoreError>;

    /// A file of an object that is there.
    fn open(&self, object: &ObjectRef, path: &RelPath) -> io::Result<Self::File>;
}

/// Where a transfer comes from.
pub(crate) trait Source: Objects {
    /// Keeps the collector away from an object for as long as it lives.
    type Kept;

    /// Keeps an object that is there.
    fn keep(&self, object: &ObjectRef) -> Result<Self::Kept, StoreError>;
}

/// Where a transfer goes to: a store, and one transaction on it.
pub(crate) trait Sink: Objects {
    /// Says that an object and its closure are there to stay.
    type Proof;
    /// A content that is being received.
    type Writer;

    /// The proofs for the roots, if they and all that they need are here.
    fn proofs(&self, roots: &[ObjectRef]) -> Result<Option<Vec<Self::Proof>>, StoreError>;

    /// Begins the transaction.
    fn begin(&mut self) -> Result<(), StoreError>;

    /// Objects of which the peer may have some, the most useful first. Each stays until the transaction ends.
    fn name_present(&mut self, roots: &[ObjectRef]) -> Result<Vec<ObjectRef>, StoreError>;

    /// Whether contents may be here that no named object has; `none_named` if nothing was named.
    fn may_hold_more(&self, none_named: bool) -> Result<bool, StoreError>;

    /// Whether the object is not here.
    fn lacks(&self, object: &ObjectRef) -> Result<bool, StoreError>;

    /// Whether the content is not at hand.
    fn lacks_content(&self, digest: &Digest) -> Result<bool, StoreError>;

    /// Refuses what does not fit, in bytes.
    fn check_space(&self, bytes: u64) -> Result<(), TransferError>;

    /// Starts to receive a content.
    fn create_content(&mut self) -> Result<Self::Writer, StoreError>;

    /// Appends to it; `object` is what the bytes are for.
    fn write_content(&mut self, writer: &mut Self::Writer, bytes: &[u8], object: &ObjectRef) -> Result<(), StoreError>;

    /// Takes a received content over and gives its digest, which must be the expected one if there is one.
    fn accept_content(&mut self, writer: Self::Writer, expected: Option<&Digest>) -> Result<Digest, StoreError>;

    /// Stages an object all of whose contents are at hand.
    fn put(&mut self, manifest: &ObjectManifest) -> Result<(), StoreError>;

    /// Gives everything its name.
    fn publish(&mut self) -> Result<(), StoreError>;

    /// Keeps what arrived whole for the next attempt, after the connection was lost.
    fn keep_contents(&mut self);
}

impl ReadAt for File {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        FileExt::read_exact_at(self, buffer, offset)
    }

    fn length(&self) -> io::Result<u64> {
        self.metadata().map(|metadata| metadata.len())
    }
}

impl Objects for ObjectStore {
    type File = File;

    fn closure(&self, roots: &[ObjectRef]) -> Result<Vec<ObjectRef>, StoreError> {
        Self::closure(self, roots)
    }

    fn manifest(&self, object: &ObjectRef) -> Result<ObjectManifest, StoreError> {
        Self::manifest(self, object)
    }

    fn open(&self, object: &ObjectRef, path: &RelPath) -> io::Result<File> {
        File::open(self.object_path(object).join(path.as_path()))
    }
}

impl Source for ObjectStore {
    type Kept = Durable;

    fn keep(&self, object: &ObjectRef) -> Result<Durable, StoreError> {
        Durable::of(self, object)
    }
}

/// A store that receives.
#[derive(Debug)]
pub(crate) struct ReceivingStore<'a> {
    store: &'a ObjectStore,
    transaction: Option<Transaction>,
    /// What was published, kept from the collector until the roots have proofs of their own.
    published: Option<Durable>,
}

impl<'a> ReceivingStore<'a> {
    pub(crate) const fn new(store: &'a ObjectStore) -> Self {
        Self { store, transaction: None, published: None }
    }

    fn transaction(&mut self) -> Result<&mut Transaction, StoreError> {
        if self.transaction.is_none() {
            self.transaction = Some(self.store.begin()?);
        }
        Ok(self.transaction.as_mut().expect("it was just set"))
    }
}

impl Objects for ReceivingStore<'_> {
    type File = File;

    fn closure(&self, roots: &[ObjectRef]) -> Result<Vec<ObjectRef>, StoreError> {
        self.store.closure(roots)
    }

    fn manifest(&self, object: &ObjectRef) -> Result<ObjectManifest, StoreError> {
        self.store.manifest(object)
    }

    fn open(&self, object: &ObjectRef, path: &RelPath) -> io::Result<File> {
        Objects::open(self.store, object, path)
    }
}

impl Sink for ReceivingStore<'_> {
    type Proof = Durable;
    type Writer = ContentWriter;

    fn proofs(&self, roots: &[ObjectRef]) -> Result<Option<Vec<Durable>>, StoreError> {
        // The proofs come first: from then on nothing of the closure can go away while it is looked at.
        let proofs = roots.iter().map(|root| Durable::of(self.store, root)).collect::<Result<Vec<_>, _>>();
        match proofs.and_then(|proofs| self.store.closure(roots).map(|_complete| proofs)) {
            Ok(proofs) => Ok(Some(proofs)),
            Err(StoreError::Missing { .. }) => Ok(None),
            Err(other) => Err(other),
        }
    }

    fn begin(&mut self) -> Result<(), StoreError> {
        self.transaction().map(drop)
    }

    fn name_present(&mut self, roots: &[ObjectRef]) -> Result<Vec<ObjectRef>, StoreError> {
        let store = self.store;
        let transaction = self.transaction()?;
        let mut present = Vec::new();
        for object in worth_naming(store, roots)? {
            // One that is damaged here is no base for anything; `verify` reports it.
            if transaction.relies_on(&object)? && store.manifest(&object).is_ok() {
                present.push(object);
            }
        }
        Ok(present)
    }

    fn may_hold_more(&self, none_named: bool) -> Result<bool, StoreError> {
        Ok(self.store.has_left_overs() || none_named && !self.store.objects()?.is_empty())
    }

    fn lacks(&self, object: &ObjectRef) -> Result<bool, StoreError> {
        Ok(self.store.find(&object.id)?.as_ref() != Some(object))
    }

    fn lacks_content(&self, digest: &Digest) -> Result<bool, StoreError> {
        let here = match &self.transaction {
            Some(transaction) => transaction.has_content(digest)?,
            None => false,
        };
        Ok(!here)
    }

    fn check_space(&self, bytes: u64) -> Result<(), TransferError> {
        check_space(bytes, free_bytes(self.store)?, self.store.root())
    }

    fn create_content(&mut self) -> Result<ContentWriter, StoreError> {
        self.transaction()?.receive_content()
    }

    fn write_content(&mut self, writer: &mut ContentWriter, bytes: &[u8], object: &ObjectRef) -> Result<(), StoreError> {
        Ok(writer.write_all(bytes).at("store a content of", Path::new(&object.to_string()))?)
    }

    fn accept_content(&mut self, writer: ContentWriter, expected: Option<&Digest>) -> Result<Digest, StoreError> {
        self.transaction()?.accept_content(writer, expected)
    }

    fn put(&mut self, manifest: &ObjectManifest) -> Result<(), StoreError> {
        self.transaction()?.put_received(manifest)
    }

    fn publish(&mut self) -> Result<(), StoreError> {
        if let Some(transaction) = self.transaction.take() {
            self.published = Some(transaction.barrier()?);
        }
        Ok(())
    }

    fn keep_contents(&mut self) {
        if let Some(transaction) = self.transaction.take() {
            // The next attempt goes on from here. That it cannot is no worse news than the error at hand.
            let _ = transaction.keep_contents();
        }
    }
}

/// What an ordinary user may still write on the store's file system, in bytes.
fn free_bytes(store: &ObjectStore) -> Result<u64, StoreError> {
    let status = rustix::fs::statvfs(store.root()).at("inspect the file system of", store.root())?;
    Ok(status.f_bavail.saturating_mul(status.f_frsize))
}

/// Refuses before anything has travelled what would end in a full disk.
fn check_space(needed: u64, free: u64, root: &Path) -> Result<(), TransferError> {
    if needed > free { Err(TransferError::NoSpace { needed, free, root: root.display().to_string() }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_refused_with_both_numbers() {
        let directory = tempfile::tempdir().unwrap();
        let store = ObjectStore::open(directory.path()).unwrap();
        assert!(free_bytes(&store).unwrap() > 0);
        check_space(1000, 1000, store.root()).unwrap();
        let message = check_space(1001, 1000, store.root()).unwrap_err().to_string();
        assert!(message.starts_with("1001 bytes are missing on this store and only 1000 bytes are free at `/"), "{message}");
    }
}

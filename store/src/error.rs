//! What can go wrong with a store.
//!
//! A variant is something that a caller could treat differently. Messages name the object, path or limit concerned.

use std::path::PathBuf;

use crate::canon::DecodeError;
use crate::fsutil::{FsError, LockError};
use crate::{Digest, ObjectId, ObjectRef};

/// A failure of the store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A file operation failed.
    #[error(transparent)]
    File(#[from] FsError),
    /// A lock is held by somebody else for too long.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The index cannot be read or written.
    #[error("the index `{}` cannot be used", path.display())]
    Index {
        /// The database file.
        path: PathBuf,
        /// What the database says.
        #[source]
        source: rusqlite::Error,
    },
    /// Another process writes to the index for too long.
    #[error("the index `{}` is busy: another process has been writing to it for more than {seconds} s; try again when it has ended", path.display())]
    IndexBusy {
        /// The database file.
        path: PathBuf,
        /// How long was waited.
        seconds: u64,
    },
    /// The store was written by a newer sarsen.
    #[error("the store `{}` has format version {found}, this sarsen knows version {known}: use the newer sarsen that wrote it", root.display())]
    NewerFormat {
        /// The store's root.
        root: PathBuf,
        /// The version found.
        found: u64,
        /// The newest version that this program knows.
        known: u64,
    },
    /// `format.json` is not what it should be.
    #[error("`{}` is damaged: {reason}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The store is on a network file system, on which locks and the index are not safe.
    #[error("`{}` is on {kind}, a network file system: a store needs a local one", root.display())]
    NetworkFileSystem {
        /// The store's root.
        root: PathBuf,
        /// The kind of file system.
        kind: &'static str,
    },
    /// An object is not in the store.
    #[error("object `{object}` is not in the store")]
    Missing {
        /// Id and name, or the id alone.
        object: String,
    },
    /// The manifest of an object is not canonical, or belongs to another object.
    #[error("the manifest of object `{object}` is damaged")]
    Damaged {
        /// The object.
        object: ObjectRef,
        /// What is wrong with it.
        #[source]
        source: DecodeError,
    },
    /// A new object cannot be expressed as a tree.
    #[error("object `{name}` breaks a rule of trees")]
    Unusable {
        /// The name of the object to be.
        name: String,
        /// The rule.
        #[source]
        source: DecodeError,
    },
    /// A file to be stored is of a kind, mode or name that objects do not have.
    #[error("`{}` cannot be stored: {reason}", path.display())]
    Refused {
        /// The file in the source.
        path: PathBuf,
        /// Why.
        reason: &'static str,
    },
    /// An object refers to one that is neither in the store nor in the same transaction.
    #[error("object `{object}` refers to `{reference}`, which is not in the store")]
    MissingReference {
        /// The object.
        object: ObjectRef,
        /// The absent one.
        reference: ObjectRef,
    },
    /// The content of a file of a received object is not there.
    #[error("the content {digest} of a file of object `{object}` is missing")]
    MissingContent {
        /// The object.
        object: ObjectRef,
        /// The digest of the content.
        digest: Digest,
    },
    /// Content is not what its digest says.
    #[error("{what} has digest {found}, expected {expected}")]
    WrongContent {
        /// Which content.
        what: String,
        /// The digest that was promised.
        expected: Digest,
        /// The digest of what is there.
        found: Digest,
    },
    /// Two objects of different content or name claim one id.
    #[error("object `{object}` does not have the id that its content gives, {found}")]
    WrongId {
        /// The claim.
        object: ObjectRef,
        /// The computed id.
        found: ObjectId,
    },
}

impl StoreError {
    /// Whether the index found no room on the disk.
    pub(crate) fn is_full(&self) -> bool {
        matches!(self, Self::Index { source, .. } if source.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull))
    }
}

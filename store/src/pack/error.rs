//! What can go wrong with packed objects.

use std::io;

use crate::canon::DecodeError;
use crate::error::StoreError;
use crate::signature::KeyName;
use crate::{Digest, ObjectRef};

/// Why packing or unpacking came to nothing. No object has a name then that it did not have before.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The output cannot be written.
    #[error("cannot write packed objects")]
    Write(#[source] io::Error),
    /// A file of the store could not be read or is not what its manifest says.
    #[error("cannot pack `{path}` of `{object}`: run `sarsen store verify` here")]
    Unreadable {
        /// The object.
        object: ObjectRef,
        /// The file in it.
        path: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// An object exceeds what a reader would take.
    #[error("`{object}` cannot be packed")]
    Unpackable {
        /// The object.
        object: ObjectRef,
        /// The limit.
        #[source]
        source: Box<Problem>,
    },
    /// The start of an export is not what it should be.
    #[error("this is not an export of sarsen, or a damaged one")]
    List(#[source] Problem),
    /// The packed form of an object is refused.
    #[error("the packed object `{object}` is refused")]
    Refused {
        /// The object.
        object: ObjectRef,
        /// What is wrong with it.
        #[source]
        source: Box<Problem>,
    },
    /// Nobody vouches for an object.
    #[error("`{object}` is not signed: import takes what a trusted key has signed (trusted: {trusted})")]
    Unsigned {
        /// The object.
        object: ObjectRef,
        /// The names of the trusted keys.
        trusted: String,
    },
    /// Only others than the trusted keys vouch for an object.
    #[error("`{object}` is signed by {signers} only, which is not trusted here (trusted: {trusted})")]
    UnknownSigner {
        /// The object.
        object: ObjectRef,
        /// Who signed it.
        signers: String,
        /// The names of the trusted keys.
        trusted: String,
    },
    /// A signature was made for something else, or by another key.
    #[error("the signature of `{object}` by `{key}` does not fit: what is said of the object was changed, or another key has this name")]
    WrongSignature {
        /// The object.
        object: ObjectRef,
        /// The key that is named.
        key: KeyName,
    },
    /// The receiving store has too little room.
    #[error("unpacking may take {needed} bytes and only {free} bytes are free at `{root}`")]
    NoSpace {
        /// What would be written, in bytes.
        needed: u64,
        /// What is free, in bytes.
        free: u64,
        /// The root of the store.
        root: String,
    },
}

/// What is wrong with packed bytes.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// The bytes cannot be read from where they come.
    #[error("it cannot be read")]
    Read(#[source] io::Error),
    /// The first bytes are those of something else.
    #[error("{0}")]
    Start(&'static str),
    /// Decompression would need too much memory.
    #[error("its compression window has {found} bytes, a packed object's has {expected}")]
    Window {
        /// What the frame says, in bytes.
        found: u64,
        /// What the writer uses, in bytes.
        expected: u64,
    },
    /// The bytes end too early.
    #[error("it ends within {place}")]
    Truncated {
        /// What is not complete.
        place: String,
    },
    /// zstd refuses the bytes, or its checksum does.
    #[error("its compressed bytes are damaged")]
    Compressed(#[source] io::Error),
    /// Something follows the end.
    #[error("bytes follow its end")]
    Trailing,
    /// A few bytes unpack to very many.
    #[error("it unpacks to more than {RATIO_MAX} times its packed length", RATIO_MAX = super::RATIO_MAX)]
    Ratio,
    /// Many bytes unpack to nothing.
    #[error("it is longer than its content can be when packed, {limit} bytes")]
    PackedTooLong {
        /// The limit, in bytes.
        limit: u64,
    },
    /// A number exceeds its limit.
    #[error("{what}: {value} exceeds the limit of {limit}")]
    Limit {
        /// What is counted.
        what: &'static str,
        /// The number found.
        value: u64,
        /// The limit.
        limit: u64,
    },
    /// A structure is not canonical.
    #[error("its {what} breaks the format")]
    Structure {
        /// Which structure.
        what: &'static str,
        /// The rule that is broken.
        #[source]
        source: DecodeError,
    },
    /// The manifest is not the one announced.
    #[error("{0}")]
    Manifest(&'static str),
    /// An object needs one that does not come before it.
    #[error("`{object}` needs `{reference}`, which does not come before it")]
    Order {
        /// The object.
        object: ObjectRef,
        /// What it needs.
        reference: ObjectRef,
    },
    /// The archive is not the one that follows from the manifest.
    #[error("`{path}` {reason}")]
    Member {
        /// The member, shortened.
        path: String,
        /// What the writer would not have written.
        reason: String,
    },
    /// A file is not the one in the manifest.
    #[error("`{path}` has digest {found}, expected {expected}")]
    Content {
        /// The file.
        path: String,
        /// The digest in the manifest.
        expected: Digest,
        /// The digest of what came.
        found: Digest,
    },
}

impl Problem {
    /// Refuses the packed form of an object for this.
    pub(super) fn refusing(self, object: &ObjectRef) -> PackError {
        PackError::Refused { object: object.clone(), source: Box::new(self) }
    }
}

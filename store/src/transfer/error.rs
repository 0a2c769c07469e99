//! Why a transfer came to nothing, in words for people.

use std::io;

use super::limits;
use super::message::Message;
use crate::ObjectRef;
use crate::canon::DecodeError;
use crate::error::StoreError;
use crate::wire::WireError;

/// Why a transfer came to nothing. The receiving store has no new names then.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// The stream does not carry frames any more.
    #[error("the transfer broke off")]
    Wire(#[from] WireError),
    /// The peer closed the stream between two messages.
    #[error("the other side closed the connection within a transfer")]
    Ended,
    /// The peer gave up and said why.
    #[error("the other side gave up: {reason}")]
    Peer {
        /// Its words.
        reason: String,
    },
    /// The peer speaks another version of this protocol.
    #[error("the other side speaks version {theirs} of the transfer, this side {}: use the same sarsen on both", limits::TRANSFER_VERSION)]
    Version {
        /// The peer's version.
        theirs: u64,
    },
    /// A message of this kind does not exist in a transfer.
    #[error("a message of unknown kind {kind:#04x} in a transfer")]
    UnknownMessage {
        /// The kind of the frame.
        kind: u8,
    },
    /// A message came out of turn.
    #[error("{found} came where {expected} was expected")]
    Unexpected {
        /// What came.
        found: &'static str,
        /// What should have come.
        expected: &'static str,
    },
    /// A message has no valid form.
    #[error("the other side sent a message that breaks the format")]
    Message(#[from] DecodeError),
    /// What was sent does not fit together.
    #[error("the other side breaks the format: {what}")]
    Malformed {
        /// The rule that is broken.
        what: &'static str,
    },
    /// A number exceeds what one transfer may cost.
    #[error("{what}: {actual} exceeds the limit of {limit}")]
    Limit {
        /// What is counted.
        what: &'static str,
        /// The number found.
        actual: u64,
        /// The limit.
        limit: u64,
    },
    /// A manifest that came is not a valid one.
    #[error("the manifest of `{object}` is refused")]
    Manifest {
        /// The object.
        object: ObjectRef,
        /// The rule that is broken.
        #[source]
        source: DecodeError,
    },
    /// An object or content is not what it was announced as.
    #[error("`{object}` is refused: {problem}")]
    Refused {
        /// The object.
        object: ObjectRef,
        /// What is wrong with it, and where.
        problem: String,
    },
    /// The receiving store has too little room.
    #[error("{needed} bytes are missing on this store and only {free} bytes are free at `{root}`")]
    NoSpace {
        /// What would be written, in bytes.
        needed: u64,
        /// What is free, in bytes.
        free: u64,
        /// The root of the store.
        root: String,
    },
    /// A file of the sending store could not be read or is not what its manifest says.
    #[error("cannot send `{path}` of `{object}`: run `sarsen store verify` here")]
    Unreadable {
        /// The object.
        object: ObjectRef,
        /// The file in it.
        path: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// zstd could not compress.
    #[error("cannot compress")]
    Compress {
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// zstd could not decompress.
    #[error("cannot decompress a piece of the transfer")]
    Decompress {
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// This side's store failed.
    #[error("the store failed during a transfer")]
    Store(#[from] StoreError),
}

impl TransferError {
    pub(crate) fn unexpected(found: &Message, expected: &'static str) -> Self {
        Self::Unexpected { found: found.describe(), expected }
    }
}

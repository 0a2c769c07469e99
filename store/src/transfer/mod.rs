//! Copies closures of objects from one store to another over any byte stream.
//!
//! The sender offers, the receiver says what it lacks, first by object, then by file content; only that travels. Everything is
//! verified on arrival, before it gets its name, and is named in one transaction. There is no round trip per object:
//! a closure that is there already costs one, a newer one of something that both sides have three, any other four. Waiting has no deadline here, because the stream belongs to the
//! caller, who closes it. Normative text: `FORMAT.md`, section "Transfer".

mod bases;
mod cache;
mod channel;
mod delta;
mod limits;
mod message;
mod old_content;
mod options;
mod piece;
mod present;
mod receive_contents;
mod receiver;
mod send_contents;
mod sender;
#[cfg(test)]
mod tests;

use std::io;
use std::sync::Arc;

pub use cache::DeltaCache;
pub use options::{Effort, TransferOptions};
pub use receiver::receive_closure;
pub use sender::{send_closure, send_closure_with};

use crate::canon::DecodeError;
use crate::error::StoreError;
use crate::object::ObjectManifest;
use crate::tree::FileFacts;
use crate::wire::WireError;
use crate::{Digest, ObjectRef};
use message::Message;

/// What a transfer moved, as one side saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TransferStats {
    /// Objects in the closure.
    pub objects_total: u64,
    /// Objects that the receiver lacked.
    pub objects_sent: u64,
    /// File contents that the receiver lacked.
    pub blobs_sent: u64,
    /// Their length, in bytes before compression.
    pub bytes_raw: u64,
    /// Everything that travelled in both directions, in bytes.
    pub bytes_wire: u64,
}

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
    fn unexpected(found: &Message, expected: &'static str) -> Self {
        Self::Unexpected { found: found.describe(), expected }
    }
}

/// The manifests of the lacked objects, and of what they have probably grown out of.
#[derive(Debug, Default)]
struct Offered {
    manifests: Vec<ObjectManifest>,
    /// For each manifest that of its base: an object that both sides have.
    bases: Vec<Option<Arc<ObjectManifest>>>,
}

/// A file content that one of some manifests names.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Content {
    digest: Digest,
    size: u64,
    /// The first place that names it: the position of the manifest, and of the entry in its tree.
    place: (usize, usize),
}

/// The distinct contents of some manifests, in the order in which they are first named: by object, then by path.
///
/// Both sides compute this list from the same manifests, so it need not travel, and neighbours in it are likely to be alike.
fn contents_of(manifests: &[ObjectManifest]) -> Result<Vec<Content>, TransferError> {
    let mut sizes = std::collections::BTreeMap::new();
    let mut contents = Vec::new();
    for (position, manifest) in manifests.iter().enumerate() {
        for (entry_position, FileFacts { size, digest, executable: _ }) in manifest.tree.files() {
            match sizes.insert(digest, size) {
                None => contents.push(Content { digest, size, place: (position, entry_position) }),
                Some(known) if known == size => {}
                Some(known) => {
                    let path = manifest.tree.path(entry_position).map(|path| path.to_string()).unwrap_or_default();
                    let problem = format!("`{path}` has the digest of a content of {known} bytes and claims {size}");
                    return Err(TransferError::Refused { object: manifest.object.clone(), problem });
                }
            }
        }
    }
    Ok(contents)
}

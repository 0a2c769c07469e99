//! Copies closures of objects from one store to another over any byte stream.
//!
//! The sender offers, the receiver says what it lacks, first by object, then by file content; only that travels. Everything is
//! verified on arrival, before it gets its name, and is named in one transaction. There is no round trip per object:
//! a closure that is there already costs one, a newer one of something that both sides have two, any other four. Both sides are
//! machines without input and output (`machine.rs`); `driver.rs` moves their messages. Waiting has no deadline here, because the stream belongs to the
//! caller, who closes it. Normative text: `FORMAT.md`, section "Transfer".

mod bases;
mod cache;
mod delta;
mod driver;
mod error;
mod limits;
mod machine;
mod message;
mod old_content;
mod options;
mod piece;
mod present;
mod receive_contents;
mod receiver;
mod send_contents;
mod sender;
mod stores;
#[cfg(test)]
mod tests;
mod told;
mod varint;
mod whole;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read, Write};
use std::sync::Arc;

pub use cache::DeltaCache;
pub use error::TransferError;
pub use options::{Effort, TransferOptions};

use crate::object::ObjectManifest;
use crate::objects::ObjectStore;
use crate::transaction::Durable;
use crate::tree::FileFacts;
use crate::wire::{FrameReader, FrameWriter};
use crate::{Digest, ObjectRef, RelPath};
use receiver::Receiver;
use sender::Sender;
use stores::{Objects, ReadAt, ReceivingStore};

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

/// Sends what the peer lacks of the closure of `roots`; the peer runs [`receive_closure`].
///
/// Returns when the peer has everything durably. After an error that is not [`TransferError::Wire`] or [`TransferError::Ended`] the
/// stream is between two messages and can be used on.
/// Errors: [`TransferError`]; [`TransferError::Peer`] holds the receiver's own words.
pub fn send_closure(
    store: &ObjectStore,
    roots: &[ObjectRef],
    options: &TransferOptions,
    reader: &mut FrameReader<impl Read>,
    writer: &mut FrameWriter<impl Write>,
) -> Result<TransferStats, TransferError> {
    let (stats, bytes_wire) = driver::drive(Sender::new(store, roots, options), reader, writer)?;
    Ok(TransferStats { bytes_wire, ..stats })
}

/// Receives what this store lacks of a closure; the peer runs [`send_closure`].
///
/// Returns the roots that the peer offered, in its order, each with the proof that it and its closure are durable: as long as the
/// proof lives, the collector leaves them alone. After an error that is not [`TransferError::Wire`] or [`TransferError::Ended`] the stream
/// is between two messages and can be used on.
/// Errors: [`TransferError`]; no object has got a name then. If the connection was lost, contents that had arrived whole are kept
/// in the store, and the next transfer does not send them again.
pub fn receive_closure(
    store: &ObjectStore,
    reader: &mut FrameReader<impl Read>,
    writer: &mut FrameWriter<impl Write>,
) -> Result<(Vec<Durable>, TransferStats), TransferError> {
    let ((roots, stats), bytes_wire) = driver::drive(Receiver::new(ReceivingStore::new(store)), reader, writer)?;
    Ok((roots, TransferStats { bytes_wire, ..stats }))
}

/// The manifests of the lacked objects, and of what they have probably grown out of.
#[derive(Debug, Default)]
struct Offered {
    manifests: Vec<ObjectManifest>,
    /// For each manifest that of its base: an object that both sides have.
    bases: Vec<Option<Arc<ObjectManifest>>>,
    /// The contents whose digests are not told.
    new: BTreeSet<Digest>,
}

impl Offered {
    /// The file where the content is first named, and its length.
    fn open<S: Objects>(&self, content: &Content, store: &S) -> Result<(S::File, u64), TransferError> {
        let file = store.open(&self.manifests[content.place.0].object, &self.path(content));
        file.and_then(|file| file.length().map(|length| (file, length))).map_err(|source| self.unreadable(content, source))
    }

    fn unreadable(&self, content: &Content, source: io::Error) -> TransferError {
        let object = self.manifests[content.place.0].object.clone();
        TransferError::Unreadable { object, path: self.path(content).to_string(), source }
    }

    fn path(&self, content: &Content) -> RelPath {
        self.manifests[content.place.0].tree.path(content.place.1).expect("contents are listed with their places")
    }
}

/// A file content that one of some manifests names.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Content {
    digest: Digest,
    size: u64,
    /// The first place that names it: the position of the manifest, and of the entry in its tree.
    place: (usize, usize),
}

impl Content {
    /// The content of the file at this place.
    fn at(manifests: &[ObjectManifest], place: (usize, usize)) -> Option<Self> {
        let FileFacts { size, digest, executable: _ } = manifests[place.0].tree.file(place.1)?;
        Some(Self { digest, size, place })
    }
}

/// The distinct contents of some manifests, in the order in which they are first named: by object, then by path.
///
/// Both sides compute this list from the same manifests, so it need not travel, and neighbours in it are likely to be alike.
fn contents_of(manifests: &[ObjectManifest]) -> Result<Vec<Content>, TransferError> {
    let mut sizes = BTreeMap::new();
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

//! The receiving side of a transfer.
//!
//! It believes nothing: each list is bounded, each manifest must give its own id, each content its digest, and an object is staged only
//! when all that it refers to is here. Everything goes into one transaction, so a transfer that fails leaves no name behind.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::sync::Arc;

use super::channel::{Channel, PieceReader, Stream, is_broken};
use super::limits::{ENTRIES_MAX, FILE_OVERHEAD_BYTES, MANIFEST_BYTES_MAX, OBJECTS_MAX};
use super::message::{Message, Totals, decode_bits, encode_bits};
use super::present::worth_naming;
use super::receive_contents::receive_contents;
use super::{Content, Offered, TransferError, TransferStats, contents_of};
use crate::error::StoreError;
use crate::fsutil::IoResultExt;
use crate::object::ObjectManifest;
use crate::objects::ObjectStore;
use crate::transaction::{Durable, Transaction};
use crate::wire::{FrameReader, FrameWriter};
use crate::{ObjectId, ObjectRef};

/// Receives what this store lacks of a closure; the peer runs [`super::send_closure`].
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
    let mut channel = Channel::new(reader, writer);
    match receive(store, &mut channel) {
        Ok((roots, stats)) => Ok((roots, TransferStats { bytes_wire: channel.bytes(), ..stats })),
        Err(error) => Err(channel.give_up(error)),
    }
}

fn receive<R: Read, W: Write>(
    store: &ObjectStore,
    channel: &mut Channel<'_, R, W>,
) -> Result<(Vec<Durable>, TransferStats), TransferError> {
    let message = channel.receive()?;
    let Message::Offer { roots, objects: objects_total } = message else { return Err(TransferError::unexpected(&message, "an offer")) };
    check_limit("objects of a closure", objects_total, OBJECTS_MAX)?;
    let mut stats = TransferStats { objects_total, ..TransferStats::default() };
    if let Some(durable) = present(store, &roots)? {
        channel.send_now(Message::Done(Totals::default()))?;
        return Ok((durable, stats));
    }
    let mut transaction = store.begin()?;
    let Negotiated { lacked, common } = negotiate(store, &roots, objects_total, &transaction, channel)?;
    let contents = match receive_objects(store, &lacked, &common, &mut transaction, channel) {
        Ok(contents) => contents,
        Err(error) => {
            if is_broken(&error) {
                // The next attempt goes on from here. That it cannot is no worse news than the error at hand.
                let _ = transaction.keep_contents();
            }
            return Err(error);
        }
    };
    let _published = transaction.barrier()?;
    let durable = present(store, &roots)?.ok_or(TransferError::Malformed { what: "the closure does not hold all that its roots need" })?;
    stats.objects_sent = lacked.len() as u64;
    stats.blobs_sent = contents.contents;
    stats.bytes_raw = contents.bytes;
    channel.send_now(Message::Done(Totals { objects: stats.objects_sent, ..contents }))?;
    Ok((durable, stats))
}

/// Receives the lacked objects into the transaction, complete and verified.
fn receive_objects<R: Read, W: Write>(
    store: &ObjectStore,
    lacked: &[ObjectRef],
    common: &BTreeMap<ObjectId, ObjectRef>,
    transaction: &mut Transaction,
    channel: &mut Channel<'_, R, W>,
) -> Result<Totals, TransferError> {
    let offered = receive_manifests(store, lacked, common, channel)?;
    let contents = receive_lacked_contents(store, &offered, transaction, channel)?;
    for manifest in &offered.manifests {
        transaction.put_received(manifest)?;
    }
    Ok(contents)
}

/// The proofs for the roots, if they and all that they need are here.
fn present(store: &ObjectStore, roots: &[ObjectRef]) -> Result<Option<Vec<Durable>>, TransferError> {
    // The proofs come first: from then on nothing of the closure can go away while it is looked at.
    let proofs = roots.iter().map(|root| Durable::of(store, root)).collect::<Result<Vec<_>, _>>();
    match proofs.and_then(|proofs| store.closure(roots).map(|_complete| proofs)) {
        Ok(proofs) => Ok(Some(proofs)),
        Err(StoreError::Missing { .. }) => Ok(None),
        Err(other) => Err(other.into()),
    }
}

/// What is to come.
struct Negotiated {
    lacked: Vec<ObjectRef>,
    /// What both sides have, as far as they know of each other.
    common: BTreeMap<ObjectId, ObjectRef>,
}

/// Says what is here and learns what is lacking.
///
/// If the sender has something of it too, it knows what is lacking by itself; else it lists the closure and is told.
fn negotiate<R: Read, W: Write>(
    store: &ObjectStore,
    roots: &[ObjectRef],
    objects_total: u64,
    transaction: &Transaction,
    channel: &mut Channel<'_, R, W>,
) -> Result<Negotiated, TransferError> {
    let mut present = Vec::new();
    for object in worth_naming(store, roots)? {
        if transaction.relies_on(&object)? {
            present.push(object);
        }
    }
    channel.send_now(Message::Present(present.clone()))?;
    let message = channel.receive()?;
    let Message::Difference { shared, objects } = message else { return Err(TransferError::unexpected(&message, "the difference")) };
    let shared = decode_bits(&shared, present.len())?;
    if objects > objects_total {
        return Err(TransferError::Malformed { what: "the difference is larger than the closure" });
    }
    let listed = receive_listing(objects, channel)?;
    if shared.contains(&true) {
        let shared: Vec<ObjectRef> =
            present.into_iter().zip(shared).filter_map(|(object, is_shared)| is_shared.then_some(object)).collect();
        let common = store.closure(&shared)?.into_iter().map(|object| (object.id, object)).collect();
        return Ok(Negotiated { lacked: listed, common });
    }
    let lacked = lacked_objects(store, &listed)?;
    channel.send_now(Message::LackedObjects(encode_bits(&lacked)))?;
    let lacked = listed.into_iter().zip(lacked).filter_map(|(object, lacks)| lacks.then_some(object)).collect();
    Ok(Negotiated { lacked, common: BTreeMap::new() })
}

/// Reads a list of objects, which must hold each once.
fn receive_listing<R: Read, W: Write>(count: u64, channel: &mut Channel<'_, R, W>) -> Result<Vec<ObjectRef>, TransferError> {
    let mut closure = Vec::new();
    while (closure.len() as u64) < count {
        let message = channel.receive()?;
        let Message::Closure(part) = message else { return Err(TransferError::unexpected(&message, "a part of the closure")) };
        if part.is_empty() {
            return Err(TransferError::Malformed { what: "a part of the closure is empty" });
        }
        closure.extend(part);
    }
    let distinct: BTreeSet<&ObjectRef> = closure.iter().collect();
    if closure.len() as u64 != count || distinct.len() != closure.len() {
        return Err(TransferError::Malformed { what: "the closure is longer than announced, or names an object twice" });
    }
    Ok(closure)
}

fn lacked_objects(store: &ObjectStore, closure: &[ObjectRef]) -> Result<Vec<bool>, StoreError> {
    closure.iter().map(|object| store.find(&object.id).map(|found| found.as_ref() != Some(object))).collect()
}

/// Reads the manifests of the lacked objects. Each must be canonical, of the object asked for, and give that object's id.
fn receive_manifests<R: Read, W: Write>(
    store: &ObjectStore,
    lacked: &[ObjectRef],
    common: &BTreeMap<ObjectId, ObjectRef>,
    channel: &mut Channel<'_, R, W>,
) -> Result<Offered, TransferError> {
    let mut stream = PieceReader::new(Stream::Manifests);
    let mut offered = Offered::default();
    let mut bases = BTreeMap::new();
    let (mut total, mut entries) = (0u64, 0u64);
    for object in lacked {
        let base = match take(&mut stream, channel, 1)?[..] {
            [0] => None,
            [1] => {
                let id = ObjectId::from_bytes(take(&mut stream, channel, 20)?.try_into().expect("twenty bytes were taken"));
                Some(base_manifest(store, common, &id, &mut bases)?)
            }
            _ => return Err(TransferError::Malformed { what: "a manifest has neither a base nor none" }),
        };
        let length = take(&mut stream, channel, 8)?;
        let length = u64::from_le_bytes(length.try_into().expect("eight bytes were taken"));
        total = total.saturating_add(length);
        check_limit("bytes of manifests", total, MANIFEST_BYTES_MAX)?;
        let bytes = take(&mut stream, channel, length)?;
        let manifest = ObjectManifest::decode(&bytes).map_err(|source| TransferError::Manifest { object: object.clone(), source })?;
        if manifest.object != *object {
            let problem = format!("the manifest that came is of `{}`", manifest.object);
            return Err(TransferError::Refused { object: object.clone(), problem });
        }
        entries += manifest.tree.entries().len() as u64;
        check_limit("entries of manifests", entries, ENTRIES_MAX)?;
        offered.manifests.push(manifest);
        offered.bases.push(base);
    }
    stream.finish(channel)?;
    Ok(offered)
}

/// The manifest of an object that both sides have; each is read once.
fn base_manifest(
    store: &ObjectStore,
    common: &BTreeMap<ObjectId, ObjectRef>,
    id: &ObjectId,
    read: &mut BTreeMap<ObjectId, Arc<ObjectManifest>>,
) -> Result<Arc<ObjectManifest>, TransferError> {
    if let Some(manifest) = read.get(id) {
        return Ok(Arc::clone(manifest));
    }
    let object = common.get(id).ok_or(TransferError::Malformed { what: "the base of a manifest is not an object that both sides have" })?;
    let manifest = Arc::new(store.manifest(object)?);
    let entries: usize = read.values().map(|manifest| manifest.tree.entries().len()).sum();
    check_limit("entries of manifests", (entries + manifest.tree.entries().len()) as u64, ENTRIES_MAX)?;
    read.insert(*id, Arc::clone(&manifest));
    Ok(manifest)
}

fn check_limit(what: &'static str, actual: u64, limit: u64) -> Result<(), TransferError> {
    if actual > limit { Err(TransferError::Limit { what, actual, limit }) } else { Ok(()) }
}

/// Takes exactly `length` bytes of a stream; the memory grows with what arrives.
fn take<R: Read, W: Write>(stream: &mut PieceReader, channel: &mut Channel<'_, R, W>, length: u64) -> Result<Vec<u8>, TransferError> {
    let mut taken = Vec::new();
    while (taken.len() as u64) < length {
        let left = length - taken.len() as u64;
        taken.extend_from_slice(stream.next(channel, left)?);
    }
    Ok(taken)
}

/// Asks for the contents that are not at hand and receives them into the transaction.
fn receive_lacked_contents<R: Read, W: Write>(
    store: &ObjectStore,
    offered: &Offered,
    transaction: &mut Transaction,
    channel: &mut Channel<'_, R, W>,
) -> Result<Totals, TransferError> {
    let contents = contents_of(&offered.manifests)?;
    let mut lacked = Vec::with_capacity(contents.len());
    for content in &contents {
        lacked.push(!transaction.has_content(&content.digest)?);
    }
    let missing: Vec<&Content> = contents.iter().zip(&lacked).filter_map(|(content, lacks)| lacks.then_some(content)).collect();
    let bytes = missing.iter().fold(0u64, |sum, content| sum.saturating_add(content.size));
    let entries: u64 = offered.manifests.iter().map(|manifest| manifest.tree.entries().len() as u64).sum();
    let overhead = (missing.len() as u64).saturating_mul(FILE_OVERHEAD_BYTES).saturating_add(entries.saturating_mul(64));
    check_space(bytes.saturating_add(overhead), free_bytes(store)?, store)?;
    channel.send_now(Message::LackedContents(encode_bits(&lacked)))?;
    receive_contents(store, offered, &missing, transaction, channel)?;
    Ok(Totals { objects: 0, contents: missing.len() as u64, bytes })
}

/// What an ordinary user may still write on the store's file system, in bytes.
fn free_bytes(store: &ObjectStore) -> Result<u64, StoreError> {
    let status = rustix::fs::statvfs(store.root()).at("inspect the file system of", store.root())?;
    Ok(status.f_bavail.saturating_mul(status.f_frsize))
}

/// Refuses before anything has travelled what would end in a full disk.
fn check_space(needed: u64, free: u64, store: &ObjectStore) -> Result<(), TransferError> {
    if needed > free { Err(TransferError::NoSpace { needed, free, root: store.root().display().to_string() }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_refused_with_both_numbers() {
        let directory = tempfile::tempdir().unwrap();
        let store = ObjectStore::open(directory.path()).unwrap();
        assert!(free_bytes(&store).unwrap() > 0);
        check_space(1000, 1000, &store).unwrap();
        let message = check_space(1001, 1000, &store).unwrap_err().to_string();
        assert!(message.starts_with("1001 bytes are missing on this store and only 1000 bytes are free at `/"), "{message}");
    }
}

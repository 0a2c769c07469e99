//! The sending side of a transfer.
//!
//! It offers, lists, and then answers what the receiver says that it lacks. It trusts its own store to be what its manifests
//! say: whoever receives verifies. What it holds in memory are manifests and a few pieces, never a file.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::sync::Arc;

use super::bases::BaseObjects;
use super::channel::Channel;
use super::limits::{CLOSURE_PART, MANIFEST_BYTES_MAX, OBJECTS_MAX, ROOTS_MAX, ZSTD_LEVEL};
use super::message::{Message, Totals, decode_bits, encode_bits};
use super::options::TransferOptions;
use super::piece::PieceBuffer;
use super::send_contents::send_contents;
use super::{Content, Offered, TransferError, TransferStats, contents_of};
use crate::ObjectRef;
use crate::error::StoreError;
use crate::objects::ObjectStore;
use crate::transaction::Durable;
use crate::wire::{FrameReader, FrameWriter};

/// Sends what the peer lacks of the closure of `roots`; the peer runs [`super::receive_closure`].
///
/// Returns when the peer has everything durably. After an error that is not [`TransferError::Wire`] or [`TransferError::Ended`] the
/// stream is between two messages and can be used on.
/// Errors: [`TransferError`]; [`TransferError::Peer`] holds the receiver's own words.
pub fn send_closure(
    store: &ObjectStore,
    roots: &[ObjectRef],
    reader: &mut FrameReader<impl Read>,
    writer: &mut FrameWriter<impl Write>,
) -> Result<TransferStats, TransferError> {
    send_closure_with(store, roots, &TransferOptions::default(), reader, writer)
}

/// As [`send_closure`], in the way that the caller chooses.
pub fn send_closure_with(
    store: &ObjectStore,
    roots: &[ObjectRef],
    options: &TransferOptions,
    reader: &mut FrameReader<impl Read>,
    writer: &mut FrameWriter<impl Write>,
) -> Result<TransferStats, TransferError> {
    let mut channel = Channel::new(reader, writer);
    match send(store, roots, options, &mut channel) {
        Ok(stats) => Ok(TransferStats { bytes_wire: channel.bytes(), ..stats }),
        Err(error) => Err(channel.give_up(error)),
    }
}

fn send<R: Read, W: Write>(
    store: &ObjectStore,
    roots: &[ObjectRef],
    options: &TransferOptions,
    channel: &mut Channel<'_, R, W>,
) -> Result<TransferStats, TransferError> {
    check_limit("roots", roots.len() as u64, ROOTS_MAX)?;
    // Proofs of durability keep the collector away from what is being read.
    let _kept = roots.iter().map(|root| Durable::of(store, root)).collect::<Result<Vec<_>, _>>()?;
    let closure = store.closure(roots)?;
    let objects_total = closure.len() as u64;
    check_limit("objects of a closure", objects_total, OBJECTS_MAX)?;
    channel.send_now(Message::Offer { roots: roots.to_vec(), objects: objects_total })?;
    let mut stats = TransferStats { objects_total, ..TransferStats::default() };
    let message = channel.receive()?;
    if let Message::Done(totals) = message {
        return confirm(stats, totals);
    }
    let Message::Present(present) = message else { return Err(TransferError::unexpected(&message, "the present objects")) };
    let common = Common::of(store, &present)?;
    let lacked = negotiate(closure, &common, channel)?;
    let offered = send_manifests(store, &lacked, &common, channel)?;
    let contents = contents_of(&offered.manifests)?;
    let message = channel.receive()?;
    let Message::LackedContents(bits) = message else { return Err(TransferError::unexpected(&message, "the lacked contents")) };
    let lacked = decode_bits(&bits, contents.len())?;
    let lacked: Vec<Content> = contents.into_iter().zip(lacked).filter_map(|(content, lacks)| lacks.then_some(content)).collect();
    stats.objects_sent = offered.manifests.len() as u64;
    stats.blobs_sent = lacked.len() as u64;
    stats.bytes_raw = lacked.iter().map(|content| content.size).sum();
    send_contents(store, &offered, &lacked, options, channel)?;
    let message = channel.receive()?;
    let Message::Done(totals) = message else { return Err(TransferError::unexpected(&message, "the final totals")) };
    confirm(stats, totals)
}

/// What both sides have for certain.
struct Common {
    /// Which of the objects that the receiver named are here too.
    shared: Vec<bool>,
    /// They and all that they need.
    objects: BTreeSet<ObjectRef>,
    /// Which of those a new object is told against.
    bases: BaseObjects,
    /// Keeps the collector away from them for as long as this lives.
    kept: Vec<Durable>,
}

impl Common {
    /// Looks the objects up that the receiver says it has.
    fn of(store: &ObjectStore, present: &[ObjectRef]) -> Result<Self, StoreError> {
        let mut common =
            Self { shared: Vec::with_capacity(present.len()), objects: BTreeSet::new(), bases: BaseObjects::default(), kept: Vec::new() };
        let mut ordered = Vec::new();
        for object in present {
            let known = Durable::of(store, object).and_then(|kept| Ok((kept, store.closure(std::slice::from_ref(object))?)));
            match known {
                Ok((kept, closure)) => {
                    common.shared.push(true);
                    common.objects.extend(closure.iter().cloned());
                    ordered.extend(closure);
                    common.kept.push(kept);
                }
                Err(StoreError::Missing { .. }) => common.shared.push(false),
                Err(other) => return Err(other),
            }
        }
        common.bases = BaseObjects::new(&ordered);
        Ok(common)
    }
}

/// Lists what the receiver may lack, and finds out what it does lack.
///
/// With something in common the difference is known here and nothing is asked; else the receiver chooses from the whole closure.
fn negotiate<R: Read, W: Write>(
    closure: Vec<ObjectRef>,
    common: &Common,
    channel: &mut Channel<'_, R, W>,
) -> Result<Vec<ObjectRef>, TransferError> {
    let listed: Vec<ObjectRef> = closure.into_iter().filter(|object| !common.objects.contains(object)).collect();
    channel.send(Message::Difference { shared: encode_bits(&common.shared), objects: listed.len() as u64 })?;
    for part in listed.chunks(CLOSURE_PART) {
        channel.send(Message::Closure(part.to_vec()))?;
    }
    if common.shared.contains(&true) {
        return Ok(listed);
    }
    channel.flush()?;
    let message = channel.receive()?;
    let Message::LackedObjects(bits) = message else { return Err(TransferError::unexpected(&message, "the lacked objects")) };
    let lacked = decode_bits(&bits, listed.len())?;
    Ok(listed.into_iter().zip(lacked).filter_map(|(object, lacks)| lacks.then_some(object)).collect())
}

fn check_limit(what: &'static str, actual: u64, limit: u64) -> Result<(), TransferError> {
    if actual > limit { Err(TransferError::Limit { what, actual, limit }) } else { Ok(()) }
}

/// Compares what the receiver says with what was sent: a difference is a defect of one of the two programs.
fn confirm(stats: TransferStats, totals: Totals) -> Result<TransferStats, TransferError> {
    if totals == (Totals { objects: stats.objects_sent, contents: stats.blobs_sent, bytes: stats.bytes_raw }) {
        Ok(stats)
    } else {
        Err(TransferError::Malformed { what: "the final totals are not what was sent" })
    }
}

/// Sends the manifests of the lacked objects as one stream: for each a base or none, a u64 length, and its bytes.
fn send_manifests<R: Read, W: Write>(
    store: &ObjectStore,
    lacked: &[ObjectRef],
    common: &Common,
    channel: &mut Channel<'_, R, W>,
) -> Result<Offered, TransferError> {
    let mut buffer = PieceBuffer::new(ZSTD_LEVEL);
    let mut offered = Offered::default();
    let mut total = 0u64;
    for object in lacked {
        let manifest = store.manifest(object)?;
        let encoded = manifest.encode();
        total = total.saturating_add(encoded.len() as u64);
        check_limit("bytes of manifests", total, MANIFEST_BYTES_MAX)?;
        let base = common.bases.of(object).map(|base| store.manifest(base)).transpose()?;
        let mut header = vec![u8::from(base.is_some())];
        header.extend(base.iter().flat_map(|base| base.object.id.as_bytes()));
        header.extend((encoded.len() as u64).to_le_bytes());
        for mut bytes in [header.as_slice(), encoded.as_slice()] {
            while !bytes.is_empty() {
                let (now, later) = bytes.split_at(bytes.len().min(buffer.room()));
                if let Some(piece) = buffer.append(now)? {
                    channel.send(Message::Manifests(piece))?;
                }
                bytes = later;
            }
        }
        offered.manifests.push(manifest);
        offered.bases.push(base.map(Arc::new));
    }
    if let Some(piece) = buffer.finish()? {
        channel.send(Message::Manifests(piece))?;
    }
    channel.flush()?;
    Ok(offered)
}

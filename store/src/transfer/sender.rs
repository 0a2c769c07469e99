//! The sending side of a transfer.
//!
//! It offers, lists, and then answers what the receiver says that it lacks. It trusts its own store to be what its manifests
//! say: whoever receives verifies. What it holds in memory are manifests and a few pieces, never a file.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read, Write};

use super::channel::Channel;
use super::limits::{CLOSURE_PART, MANIFEST_BYTES_MAX, OBJECTS_MAX, PIECES_UNDER_WAY, ROOTS_MAX};
use super::message::{Message, Totals, decode_bits, encode_bits};
use super::piece::PieceBuffer;
use super::{Content, TransferError, TransferStats, contents_of};
use crate::ObjectRef;
use crate::error::StoreError;
use crate::object::ObjectManifest;
use crate::objects::ObjectStore;
use crate::transaction::Durable;
use crate::wire::{FrameReader, FrameWriter};

/// How much of a file is read at a time, in bytes: large enough that system calls do not count.
const READ_BYTES: usize = 256 << 10;

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
    let mut channel = Channel::new(reader, writer);
    match send(store, roots, &mut channel) {
        Ok(stats) => Ok(TransferStats { bytes_wire: channel.bytes(), ..stats }),
        Err(error) => Err(channel.give_up(error)),
    }
}

fn send<R: Read, W: Write>(
    store: &ObjectStore,
    roots: &[ObjectRef],
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
    let manifests = send_manifests(store, lacked.iter(), channel)?;
    let contents = contents_of(&manifests)?;
    let message = channel.receive()?;
    let Message::LackedContents(bits) = message else { return Err(TransferError::unexpected(&message, "the lacked contents")) };
    let lacked = decode_bits(&bits, contents.len())?;
    let lacked: Vec<Content> = contents.into_iter().zip(lacked).filter_map(|(content, lacks)| lacks.then_some(content)).collect();
    stats.objects_sent = manifests.len() as u64;
    stats.blobs_sent = lacked.len() as u64;
    stats.bytes_raw = lacked.iter().map(|content| content.size).sum();
    let mut stream = ContentStream { channel, buffer: PieceBuffer::default(), under_way: 0 };
    for content in &lacked {
        stream.send_content(store, &manifests, content)?;
    }
    stream.finish()?;
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
    /// Keeps the collector away from them for as long as this lives.
    kept: Vec<Durable>,
}

impl Common {
    /// Looks the objects up that the receiver says it has.
    fn of(store: &ObjectStore, present: &[ObjectRef]) -> Result<Self, StoreError> {
        let mut common = Self { shared: Vec::with_capacity(present.len()), objects: BTreeSet::new(), kept: Vec::new() };
        for object in present {
            let known = Durable::of(store, object).and_then(|kept| Ok((kept, store.closure(std::slice::from_ref(object))?)));
            match known {
                Ok((kept, closure)) => {
                    common.shared.push(true);
                    common.objects.extend(closure);
                    common.kept.push(kept);
                }
                Err(StoreError::Missing { .. }) => common.shared.push(false),
                Err(other) => return Err(other),
            }
        }
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

/// Sends the manifests of the lacked objects as one stream: each is a u64 length and its bytes.
fn send_manifests<'a, R: Read, W: Write>(
    store: &ObjectStore,
    lacked: impl Iterator<Item = &'a ObjectRef>,
    channel: &mut Channel<'_, R, W>,
) -> Result<Vec<ObjectManifest>, TransferError> {
    let mut buffer = PieceBuffer::default();
    let mut manifests = Vec::new();
    let mut total = 0u64;
    for object in lacked {
        let manifest = store.manifest(object)?;
        let encoded = manifest.encode();
        total = total.saturating_add(encoded.len() as u64);
        check_limit("bytes of manifests", total, MANIFEST_BYTES_MAX)?;
        for mut bytes in [&(encoded.len() as u64).to_le_bytes()[..], &encoded] {
            while !bytes.is_empty() {
                let (now, later) = bytes.split_at(bytes.len().min(buffer.room()));
                if let Some(piece) = buffer.append(now)? {
                    channel.send(Message::Manifests(piece))?;
                }
                bytes = later;
            }
        }
        manifests.push(manifest);
    }
    if let Some(piece) = buffer.finish()? {
        channel.send(Message::Manifests(piece))?;
    }
    channel.flush()?;
    Ok(manifests)
}

/// The stream of contents, held back by the receiver's acknowledgements.
struct ContentStream<'a, 'b, R: Read, W: Write> {
    channel: &'a mut Channel<'b, R, W>,
    buffer: PieceBuffer,
    under_way: usize,
}

impl<R: Read, W: Write> ContentStream<'_, '_, R, W> {
    /// Sends exactly the announced number of bytes of one file.
    fn send_content(&mut self, store: &ObjectStore, manifests: &[ObjectManifest], content: &Content) -> Result<(), TransferError> {
        let manifest = &manifests[content.place.0];
        let path = &manifest.tree.entries()[content.place.1].path;
        let unreadable = |source| TransferError::Unreadable { object: manifest.object.clone(), path: path.to_string(), source };
        let mut file = File::open(store.object_path(&manifest.object).join(path.as_path())).map_err(unreadable)?;
        let mut left = content.size;
        let mut chunk = vec![0; READ_BYTES.min(usize::try_from(content.size).unwrap_or(READ_BYTES))];
        while left > 0 {
            let room = self.buffer.room().min(chunk.len()).min(usize::try_from(left).unwrap_or(usize::MAX));
            file.read_exact(&mut chunk[..room]).map_err(unreadable)?;
            if let Some(piece) = self.buffer.append(&chunk[..room])? {
                self.send_piece(piece)?;
            }
            left -= room as u64;
        }
        match file.read(&mut [0]).map_err(unreadable)? {
            0 => Ok(()),
            _ => Err(unreadable(io::Error::new(io::ErrorKind::InvalidData, "it is longer than its manifest says"))),
        }
    }

    fn send_piece(&mut self, piece: Vec<u8>) -> Result<(), TransferError> {
        self.channel.send_now(Message::Contents(piece))?;
        self.under_way += 1;
        if self.under_way >= PIECES_UNDER_WAY { self.await_acknowledgement() } else { Ok(()) }
    }

    fn await_acknowledgement(&mut self) -> Result<(), TransferError> {
        let message = self.channel.receive()?;
        let Message::Acknowledge = message else { return Err(TransferError::unexpected(&message, "an acknowledgement")) };
        self.under_way -= 1;
        Ok(())
    }

    fn finish(mut self) -> Result<(), TransferError> {
        if let Some(piece) = self.buffer.finish()? {
            self.send_piece(piece)?;
        }
        self.channel.send_now(Message::End)?;
        while self.under_way > 0 {
            self.await_acknowledgement()?;
        }
        Ok(())
    }
}

//! The contents on the receiving side, in the sender's three rounds: deltas, whole contents, and whole what could not be made here.
//!
//! An old content counts only if it has its digest, a new one only if it has the promised one. A delta without its base, or with a
//! wrong result, is refused, not fatal: the content comes whole then, and a wrong one is fatal.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;

use super::channel::{Channel, PieceReader, Stream};
use super::delta::{self, decode_varint};
use super::limits::{PATCH_TARGETS_MAX, PIECE_BYTES_MAX, PREFIX_BYTES_MAX};
use super::message::Message;
use super::old_content::{open_base, read_base};
use super::{Content, Offered, TransferError, piece};
use crate::RelPath;
use crate::error::StoreError;
use crate::fsutil::FsError;
use crate::object::ObjectManifest;
use crate::objects::ObjectStore;
use crate::transaction::{ContentWriter, Transaction};

/// How much of an old content is read ahead, in bytes: copies mostly follow one another.
const READ_AHEAD_BYTES: usize = 256 << 10;

/// Receives the contents `missing` into the transaction.
pub(crate) fn receive_contents<R: Read, W: Write>(
    store: &ObjectStore,
    offered: &Offered,
    missing: &[&Content],
    transaction: &mut Transaction,
    channel: &mut Channel<'_, R, W>,
) -> Result<(), TransferError> {
    let mut receiving =
        Receiving { store, offered, missing, transaction, told: vec![false; missing.len()], refused: BTreeSet::new(), growing: None };
    receiving.receive_deltas(channel)?;
    let untold: Vec<usize> = (0..missing.len()).filter(|index| !receiving.told[*index]).collect();
    receiving.receive_whole(untold.into_iter(), channel)?;
    let refused = std::mem::take(&mut receiving.refused);
    receiving.receive_whole(refused.into_iter(), channel)?;
    let message = channel.receive()?;
    let Message::End = message else { return Err(TransferError::unexpected(&message, "the end of the contents")) };
    Ok(())
}

struct Receiving<'a> {
    store: &'a ObjectStore,
    offered: &'a Offered,
    missing: &'a [&'a Content],
    transaction: &'a mut Transaction,
    /// Which contents have come as deltas.
    told: Vec<bool>,
    /// Which of them could not be made.
    refused: BTreeSet<usize>,
    /// The content whose segments are coming.
    growing: Option<Growing>,
}

/// A content that arrives in segments.
struct Growing {
    index: usize,
    /// How the sender names the old file.
    base: u64,
    left: u64,
    old: Base,
    writer: ContentWriter,
}

impl Receiving<'_> {
    /// Takes deltas until something else comes.
    fn receive_deltas<R: Read, W: Write>(&mut self, channel: &mut Channel<'_, R, W>) -> Result<(), TransferError> {
        loop {
            let message = channel.receive()?;
            let made = if let Message::Delta(payload) = message {
                self.apply_segment(&payload)?
            } else if self.growing.is_some() {
                return Err(malformed("the segments of a delta end too early"));
            } else if let Message::Patch(payload) = message {
                self.apply_patch(&payload)?
            } else {
                channel.unread(message);
                return Ok(());
            };
            channel.send_now(if made { Message::Acknowledge } else { Message::Refused })?;
        }
    }

    /// Makes the contents of one patch. False if a base is not here or a result is not the promised one.
    fn apply_patch(&mut self, mut payload: &[u8]) -> Result<bool, TransferError> {
        let mut number = || decode_varint(&mut payload).ok_or_else(|| malformed("a patch is cut off"));
        let count = usize::try_from(number()?).unwrap_or(usize::MAX);
        limit("contents of a patch", count as u64, PATCH_TARGETS_MAX as u64)?;
        let mut targets = Vec::new();
        let mut next = 0u64;
        for _ in 0..count {
            let index = next.saturating_add(number()?);
            targets.push((index, number()?));
            next = index.saturating_add(1);
        }
        let (mut old_bytes, mut new_bytes) = (0u64, 0u64);
        let mut bases = Vec::new();
        for (index, base) in targets {
            let (index, base) = self.tell(index, base)?;
            old_bytes = old_bytes.saturating_add(self.base_of(index)?.1.tree.file(base).map_or(0, |file| file.size));
            new_bytes = new_bytes.saturating_add(self.missing[index].size);
            bases.push((index, base));
        }
        limit("bytes that a patch refers to", old_bytes, PREFIX_BYTES_MAX)?;
        limit("bytes that a patch makes", new_bytes, PIECE_BYTES_MAX as u64)?;
        let mut prefix = Vec::new();
        for (index, base) in &bases {
            let Some(bytes) = read_base(self.store, self.base_of(*index)?.1, *base) else {
                self.refused.extend(bases.iter().map(|(index, _)| index));
                return Ok(false);
            };
            prefix.extend(bytes);
        }
        let made = piece::decompress_after(&prefix, payload, usize::try_from(new_bytes).unwrap_or(PIECE_BYTES_MAX))?;
        let mut made = made.as_slice();
        let mut all = true;
        for (index, _) in &bases {
            let (now, later) = made.split_at(usize::try_from(self.missing[*index].size).unwrap_or(usize::MAX));
            made = later;
            let mut writer = self.transaction.receive_content()?;
            self.write(*index, &mut writer, now)?;
            all &= self.accept_delta(*index, writer)?;
        }
        if !all {
            // The sender is told about whole messages, so all of this one will come again.
            self.refused.extend(bases.iter().map(|(index, _)| index));
        }
        Ok(all)
    }

    /// Appends a segment to its content. False if the base is not here or the result is not the promised one.
    fn apply_segment(&mut self, mut payload: &[u8]) -> Result<bool, TransferError> {
        let mut number = || decode_varint(&mut payload).ok_or_else(|| malformed("a delta is cut off"));
        let (index, base) = (number()?, number()?);
        let mut growing = match self.growing.take() {
            Some(growing) if growing.index as u64 == index && growing.base == base => growing,
            Some(_) => return Err(malformed("the segments of a delta end too early")),
            // The sender may have had segments under way when it was told that the content is refused.
            None if usize::try_from(index).is_ok_and(|index| self.refused.contains(&index)) => return Ok(false),
            None => match self.begin(index, base)? {
                Some(growing) => growing,
                None => return Ok(false),
            },
        };
        let old = &mut growing.old;
        let made = delta::apply(payload, old.length, growing.left, |offset, buffer| old.read(offset, buffer))?;
        let Ok(made) = made else {
            self.refused.insert(growing.index);
            return Ok(false);
        };
        self.write(growing.index, &mut growing.writer, &made)?;
        growing.left -= made.len() as u64;
        if growing.left == 0 {
            let accepted = self.accept_delta(growing.index, growing.writer)?;
            if !accepted {
                self.refused.insert(growing.index);
            }
            return Ok(accepted);
        }
        self.growing = Some(growing);
        Ok(true)
    }

    /// Starts a content that comes in segments, if its base is here.
    fn begin(&mut self, index: u64, base: u64) -> Result<Option<Growing>, TransferError> {
        let (index, position) = self.tell(index, base)?;
        let Some(old) = Base::open(self.store, self.base_of(index)?.1, position) else {
            self.refused.insert(index);
            return Ok(None);
        };
        let writer = self.transaction.receive_content()?;
        Ok(Some(Growing { index, base, left: self.missing[index].size, old, writer }))
    }

    /// Checks which content is told by which old file, and notes it.
    fn tell(&mut self, index: u64, base: u64) -> Result<(usize, usize), TransferError> {
        let index = usize::try_from(index).ok().filter(|index| self.told.get(*index) == Some(&false));
        let index = index.ok_or_else(|| malformed("a delta is of a content that was not asked for, or that came already"))?;
        let (path, manifest) = self.base_of(index)?;
        let position = match base.checked_sub(1) {
            None => manifest.tree.position(path.as_str()),
            Some(position) => usize::try_from(position).ok(),
        };
        let position = position.filter(|position| manifest.tree.file(*position).is_some());
        let position = position.ok_or_else(|| malformed("a delta refers to a file that its base does not have"))?;
        self.told[index] = true;
        Ok((index, position))
    }

    /// The path of a content where it is first named, and the manifest of its object's base.
    fn base_of(&self, index: usize) -> Result<(RelPath, &ObjectManifest), TransferError> {
        let (position, entry) = self.missing[index].place;
        let path = self.offered.manifests[position].tree.path(entry).ok_or_else(|| malformed("a content has no place"))?;
        let base = self.offered.bases[position].as_deref().ok_or_else(|| malformed("a delta is of an object without a base"))?;
        Ok((path, base))
    }

    fn write(&self, index: usize, writer: &mut ContentWriter, bytes: &[u8]) -> Result<(), TransferError> {
        let (position, entry) = self.missing[index].place;
        writer.write_all(bytes).map_err(|source| {
            let path = self.offered.manifests[position].tree.path(entry).map(|path| path.as_path().to_owned()).unwrap_or_default();
            StoreError::from(FsError::new("store the content of", &path, source)).into()
        })
    }

    fn accept_delta(&mut self, index: usize, writer: ContentWriter) -> Result<bool, TransferError> {
        match self.transaction.accept_content(writer, &self.missing[index].digest) {
            Ok(()) => Ok(true),
            Err(StoreError::WrongContent { .. }) => Ok(false),
            Err(other) => Err(other.into()),
        }
    }

    /// Takes contents out of one stream of pieces.
    fn receive_whole<R: Read, W: Write>(
        &mut self,
        indices: impl Iterator<Item = usize>,
        channel: &mut Channel<'_, R, W>,
    ) -> Result<(), TransferError> {
        let mut stream = PieceReader::new(Stream::Contents);
        for index in indices {
            let content = self.missing[index];
            let mut writer = self.transaction.receive_content()?;
            let mut left = content.size;
            while left > 0 {
                let bytes = stream.next(channel, left)?;
                left -= bytes.len() as u64;
                self.write(index, &mut writer, bytes)?;
            }
            match self.transaction.accept_content(writer, &content.digest) {
                Err(StoreError::WrongContent { expected, found, .. }) => {
                    let manifest = &self.offered.manifests[content.place.0];
                    let path = manifest.tree.path(content.place.1).map(|path| path.to_string()).unwrap_or_default();
                    let problem = format!("`{path}` arrived with digest {found}, expected {expected}");
                    return Err(TransferError::Refused { object: manifest.object.clone(), problem });
                }
                accepted => accepted?,
            }
        }
        stream.finish(channel)
    }
}

/// An old content, read here and there.
struct Base {
    file: File,
    length: u64,
    /// What was read last, and where it stands.
    ahead: Vec<u8>,
    start: u64,
}

impl Base {
    fn open(store: &ObjectStore, manifest: &ObjectManifest, position: usize) -> Option<Self> {
        let file = open_base(store, manifest, position)?;
        Some(Self { file, length: manifest.tree.file(position)?.size, ahead: Vec::new(), start: 0 })
    }

    /// Fills `buffer` from `offset` on; both are within the content.
    fn read(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        if buffer.len() >= READ_AHEAD_BYTES {
            return self.file.read_exact_at(buffer, offset);
        }
        let within = |base: &Self| {
            let from = usize::try_from(offset.checked_sub(base.start)?).ok()?;
            base.ahead.get(from..from.checked_add(buffer.len())?).map(|_| from)
        };
        let from = if let Some(from) = within(self) {
            from
        } else {
            let length = self.length.saturating_sub(offset).min(READ_AHEAD_BYTES as u64);
            self.ahead.resize(usize::try_from(length).unwrap_or(READ_AHEAD_BYTES), 0);
            self.start = offset;
            self.file.read_exact_at(&mut self.ahead, offset)?;
            0
        };
        buffer.copy_from_slice(&self.ahead[from..from + buffer.len()]);
        Ok(())
    }
}

fn limit(what: &'static str, actual: u64, limit: u64) -> Result<(), TransferError> {
    if actual > limit { Err(TransferError::Limit { what, actual, limit }) } else { Ok(()) }
}

const fn malformed(what: &'static str) -> TransferError {
    TransferError::Malformed { what }
}

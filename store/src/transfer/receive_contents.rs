//! The contents on the receiving side, in the sender's three rounds: deltas, whole contents, and whole what could not be made here.
//!
//! An old content counts only if it has its digest, a new one only if it has the promised one, if one is promised. A delta without its base, or with a
//! wrong result, is refused, not fatal: the content comes whole then, and a wrong one is fatal.

use std::collections::{BTreeSet, VecDeque};
use std::io;

use super::delta;
use super::limits::{PATCH_TARGETS_MAX, PIECE_BYTES_MAX, PREFIX_BYTES_MAX};
use super::message::Message;
use super::old_content::{open_base, read_base};
use super::stores::{ReadAt, Sink};
use super::told::{Told, path_of};
use super::varint::decode_varint;
use super::{TransferError, piece};
use crate::Digest;
use crate::error::StoreError;
use crate::object::ObjectManifest;

/// How much of an old content is read ahead, in bytes: copies mostly follow one another.
const READ_AHEAD_BYTES: usize = 256 << 10;

/// A content that is to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// Its digest, if that was told.
    pub(crate) digest: Option<Digest>,
    pub(crate) size: u64,
    /// The manifest that names it first, by its position.
    pub(crate) object: usize,
    /// The file at the same path in that manifest's base.
    pub(crate) same_path: Option<usize>,
}

/// Contents on their way in.
pub(crate) struct Receiving<S: Sink> {
    wanted: Vec<Wanted>,
    /// Which contents have come as deltas.
    told: Vec<bool>,
    /// Which of them could not be made.
    refused: BTreeSet<usize>,
    /// The content whose segments are coming.
    growing: Option<Growing<S>>,
    round: Round,
    /// What is still to come in this round.
    queue: VecDeque<usize>,
    current: Option<Current<S::Writer>>,
    /// The digests of what is here.
    found: Vec<Option<Digest>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Round {
    Deltas,
    Whole,
    Again,
}

/// A content that arrives whole.
struct Current<W> {
    index: usize,
    left: u64,
    writer: W,
}

/// A content that arrives in segments.
struct Growing<S: Sink> {
    index: usize,
    /// How the sender names the old file.
    base: u64,
    left: u64,
    old: Base<S::File>,
    writer: S::Writer,
}

impl<S: Sink> Receiving<S> {
    pub(crate) fn new(wanted: Vec<Wanted>) -> Self {
        let (told, found) = (vec![false; wanted.len()], vec![None; wanted.len()]);
        Self { wanted, told, refused: BTreeSet::new(), growing: None, round: Round::Deltas, queue: VecDeque::new(), current: None, found }
    }

    /// Takes a patch, a segment or a piece, and gives the answer to it.
    pub(crate) fn take(&mut self, sink: &mut S, manifests: &[Told], message: Message) -> Result<Message, TransferError> {
        let made = match (self.round, message) {
            (Round::Deltas, Message::Delta(payload)) => self.apply_segment(sink, manifests, &payload)?,
            (_, Message::Patch(_) | Message::Contents(_)) if self.growing.is_some() => {
                return Err(malformed("the segments of a delta end too early"));
            }
            (Round::Deltas, Message::Patch(payload)) => self.apply_patch(sink, manifests, &payload)?,
            (_, Message::Contents(piece)) => {
                let raw = piece::decompress(&piece)?;
                self.take_whole(sink, manifests, &raw)?;
                true
            }
            (Round::Deltas, other) => return Err(TransferError::unexpected(&other, "contents")),
            (Round::Whole | Round::Again, other) => return Err(TransferError::unexpected(&other, "a piece of contents")),
        };
        Ok(if made { Message::Acknowledge } else { Message::Refused })
    }

    /// Ends the contents, and gives their digests; all must have come.
    pub(crate) fn finish(&mut self, sink: &mut S, manifests: &[Told]) -> Result<Vec<Digest>, TransferError> {
        if self.growing.is_some() {
            return Err(malformed("the segments of a delta end too early"));
        }
        // What is left to come may be empty contents only, of which nothing travels.
        for _ in [Round::Whole, Round::Again] {
            self.take_empty(sink, manifests)?;
            if self.round != Round::Again {
                self.next_round();
            }
        }
        self.take_empty(sink, manifests)?;
        let found: Option<Vec<Digest>> = self.found.iter().copied().collect();
        found.ok_or(TransferError::Unexpected { found: "the end of the contents", expected: "a piece of contents" })
    }

    fn next_round(&mut self) {
        (self.round, self.queue) = match self.round {
            Round::Deltas => (Round::Whole, (0..self.wanted.len()).filter(|index| !self.told[*index]).collect()),
            Round::Whole | Round::Again => (Round::Again, std::mem::take(&mut self.refused).into_iter().collect()),
        };
    }

    /// Takes the next bytes of this round's stream.
    fn take_whole(&mut self, sink: &mut S, manifests: &[Told], mut raw: &[u8]) -> Result<(), TransferError> {
        // A piece belongs to one round, and has at least one byte.
        while self.current.is_none() && self.round != Round::Again {
            self.take_empty(sink, manifests)?;
            if self.queue.is_empty() { self.next_round() } else { break }
        }
        while !raw.is_empty() {
            self.take_empty(sink, manifests)?;
            let mut current = match self.current.take() {
                Some(current) => current,
                None => self.begin(sink)?.ok_or_else(|| malformed("a stream is longer than its items"))?,
            };
            let length = usize::try_from(current.left).map_or(raw.len(), |left| left.min(raw.len()));
            let (now, later) = raw.split_at(length);
            self.write(sink, manifests, current.index, &mut current.writer, now)?;
            current.left -= now.len() as u64;
            raw = later;
            if current.left == 0 { self.accept(sink, manifests, current)? } else { self.current = Some(current) }
        }
        self.take_empty(sink, manifests)
    }

    fn begin(&mut self, sink: &mut S) -> Result<Option<Current<S::Writer>>, TransferError> {
        let Some(index) = self.queue.pop_front() else { return Ok(None) };
        Ok(Some(Current { index, left: self.wanted[index].size, writer: sink.create_content()? }))
    }

    /// Takes the contents that come next and have no bytes.
    fn take_empty(&mut self, sink: &mut S, manifests: &[Told]) -> Result<(), TransferError> {
        while self.current.is_none() && self.queue.front().is_some_and(|index| self.wanted[*index].size == 0) {
            if let Some(current) = self.begin(sink)? {
                self.accept(sink, manifests, current)?;
            }
        }
        Ok(())
    }

    fn accept(&mut self, sink: &mut S, manifests: &[Told], current: Current<S::Writer>) -> Result<(), TransferError> {
        let wanted = self.wanted[current.index];
        match sink.accept_content(current.writer, wanted.digest.as_ref()) {
            Ok(digest) => {
                self.found[current.index] = Some(digest);
                Ok(())
            }
            Err(StoreError::WrongContent { expected, found, .. }) => {
                let told = &manifests[wanted.object];
                let problem = format!("`{}` arrived with digest {found}, expected {expected}", path_of(told, &expected));
                Err(TransferError::Refused { object: told.object.clone(), problem })
            }
            Err(other) => Err(other.into()),
        }
    }

    /// Makes the contents of one patch. False if a base is not here or a result is not the promised one.
    fn apply_patch(&mut self, sink: &mut S, manifests: &[Told], mut payload: &[u8]) -> Result<bool, TransferError> {
        let bases = self.bases_of_patch(manifests, &mut payload)?;
        let new_bytes = bases.iter().map(|(index, _)| self.wanted[*index].size).fold(0, u64::saturating_add);
        limit("bytes that a patch makes", new_bytes, PIECE_BYTES_MAX as u64)?;
        let mut prefix = Vec::new();
        for (index, base) in &bases {
            let Some(bytes) = read_base(sink, self.base_of(manifests, *index)?, *base) else {
                self.refused.extend(bases.iter().map(|(index, _)| index));
                return Ok(false);
            };
            prefix.extend(bytes);
        }
        let made = piece::decompress_after(&prefix, payload, usize::try_from(new_bytes).unwrap_or(PIECE_BYTES_MAX))?;
        let mut made = made.as_slice();
        let mut all = true;
        for (index, _) in &bases {
            let (now, later) = made.split_at(usize::try_from(self.wanted[*index].size).unwrap_or(usize::MAX));
            made = later;
            let mut writer = sink.create_content()?;
            self.write(sink, manifests, *index, &mut writer, now)?;
            all &= self.accept_delta(sink, *index, writer)?;
        }
        if !all {
            // The sender is told about whole messages, so all of this one will come again.
            self.refused.extend(bases.iter().map(|(index, _)| index));
        }
        Ok(all)
    }

    /// Reads which contents a patch makes, and of which old files.
    fn bases_of_patch(&mut self, manifests: &[Told], payload: &mut &[u8]) -> Result<Vec<(usize, usize)>, TransferError> {
        let mut number = || decode_varint(payload).ok_or_else(|| malformed("a patch is cut off"));
        let count = usize::try_from(number()?).unwrap_or(usize::MAX);
        limit("contents of a patch", count as u64, PATCH_TARGETS_MAX as u64)?;
        let mut targets = Vec::new();
        let mut next = 0u64;
        for _ in 0..count {
            let index = next.saturating_add(number()?);
            targets.push((index, number()?));
            next = index.saturating_add(1);
        }
        let mut old_bytes = 0u64;
        let mut bases = Vec::new();
        for (index, base) in targets {
            let (index, base) = self.tell(manifests, index, base)?;
            old_bytes = old_bytes.saturating_add(self.base_of(manifests, index)?.tree.file(base).map_or(0, |file| file.size));
            bases.push((index, base));
        }
        limit("bytes that a patch refers to", old_bytes, PREFIX_BYTES_MAX)?;
        Ok(bases)
    }

    /// Appends a segment to its content. False if the base is not here or the result is not the promised one.
    fn apply_segment(&mut self, sink: &mut S, manifests: &[Told], mut payload: &[u8]) -> Result<bool, TransferError> {
        let mut number = || decode_varint(&mut payload).ok_or_else(|| malformed("a delta is cut off"));
        let (index, base) = (number()?, number()?);
        let mut growing = match self.growing.take() {
            Some(growing) if growing.index as u64 == index && growing.base == base => growing,
            Some(_) => return Err(malformed("the segments of a delta end too early")),
            // The sender may have had segments under way when it was told that the content is refused.
            None if usize::try_from(index).is_ok_and(|index| self.refused.contains(&index)) => return Ok(false),
            None => match self.begin_growing(sink, manifests, index, base)? {
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
        self.write(sink, manifests, growing.index, &mut growing.writer, &made)?;
        growing.left -= made.len() as u64;
        if growing.left == 0 {
            let accepted = self.accept_delta(sink, growing.index, growing.writer)?;
            if !accepted {
                self.refused.insert(growing.index);
            }
            return Ok(accepted);
        }
        self.growing = Some(growing);
        Ok(true)
    }

    /// Starts a content that comes in segments, if its base is here.
    fn begin_growing(&mut self, sink: &mut S, manifests: &[Told], index: u64, base: u64) -> Result<Option<Growing<S>>, TransferError> {
        let (index, position) = self.tell(manifests, index, base)?;
        let manifest = self.base_of(manifests, index)?;
        let Some(file) = open_base(sink, manifest, position) else {
            self.refused.insert(index);
            return Ok(None);
        };
        let length = manifest.tree.file(position).map_or(0, |file| file.size);
        let old = Base { file, length, ahead: Vec::new(), start: 0 };
        Ok(Some(Growing { index, base, left: self.wanted[index].size, old, writer: sink.create_content()? }))
    }

    /// Checks which content is told by which old file, and notes it.
    fn tell(&mut self, manifests: &[Told], index: u64, base: u64) -> Result<(usize, usize), TransferError> {
        let index = usize::try_from(index).ok().filter(|index| self.told.get(*index) == Some(&false));
        let index = index.ok_or_else(|| malformed("a delta is of a content that was not asked for, or that came already"))?;
        let manifest = self.base_of(manifests, index)?;
        let position = match base.checked_sub(1) {
            None => self.wanted[index].same_path,
            Some(position) => usize::try_from(position).ok(),
        };
        let position = position.filter(|position| manifest.tree.file(*position).is_some());
        let position = position.ok_or_else(|| malformed("a delta refers to a file that its base does not have"))?;
        self.told[index] = true;
        Ok((index, position))
    }

    /// The manifest of the base of the object where a content is first named.
    fn base_of<'m>(&self, manifests: &'m [Told], index: usize) -> Result<&'m ObjectManifest, TransferError> {
        manifests[self.wanted[index].object].base.as_deref().ok_or_else(|| malformed("a delta is of an object without a base"))
    }

    fn write(&self, sink: &mut S, manifests: &[Told], index: usize, writer: &mut S::Writer, bytes: &[u8]) -> Result<(), TransferError> {
        let object = &manifests[self.wanted[index].object].object;
        Ok(sink.write_content(writer, bytes, object)?)
    }

    fn accept_delta(&mut self, sink: &mut S, index: usize, writer: S::Writer) -> Result<bool, TransferError> {
        match sink.accept_content(writer, self.wanted[index].digest.as_ref()) {
            Ok(digest) => {
                self.found[index] = Some(digest);
                Ok(true)
            }
            Err(StoreError::WrongContent { .. }) => Ok(false),
            Err(other) => Err(other.into()),
        }
    }
}

/// An old content, read here and there.
struct Base<F> {
    file: F,
    length: u64,
    /// What was read last, and where it stands.
    ahead: Vec<u8>,
    start: u64,
}

impl<F: ReadAt> Base<F> {
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

//! The contents on the sending side: first deltas of those that have a base, then the others whole, then whole what the receiver could not make.
//!
//! Small files and texts travel in groups, each group as one zstd frame behind the old contents of its files; programs as deltas or as such a
//! frame, whichever is shorter. Each call of [`Sending::next`] makes one message; in memory are at most one old content (or a window of it) and a piece.

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::sync::Arc;

use super::bases::BaseFiles;
use super::cache::{Codec, DeltaCache, Made};
use super::delta::{Alignment, OldIndex};
use super::limits::{PATCH_TARGETS_MAX, PIECE_BYTES_MAX, PIECES_UNDER_WAY, PREFIX_BYTES_MAX};
use super::message::Message;
use super::old_content::{open_base, read_base};
use super::options::Levels;
use super::piece;
use super::stores::{ReadAt, Source};
use super::varint::encode_varint;
use super::whole::Whole;
use super::{Content, Offered, TransferError};
use crate::Digest;
use crate::object::ObjectManifest;
use crate::tree::FileFacts;

/// Up to this length a content is always told in a group: an operation of a delta would cost more than it saves.
const SMALL_BYTES: u64 = 16 << 10;

/// A delta that takes so small a part of its content is not tried to be beaten by a patch: those see no copy with a few changes in it.
const GOOD_DELTA: usize = 20;

/// How much of a file is looked at to tell a text from a program.
const SNIFF_BYTES: usize = 8 << 10;

/// The most of an old content that is indexed at once. With the index, half as much again, it is the largest thing in memory.
const WINDOW_BYTES: usize = 32 << 20;

/// What comes next.
pub(crate) enum Next {
    Send(Message),
    /// The receiver has to answer first.
    Await,
    Finished,
}

/// Contents on their way.
pub(crate) struct Sending<S: Source> {
    offered: Offered,
    lacked: Vec<Content>,
    cache: Option<DeltaCache>,
    round: Round<S>,
    /// For each message under way, the contents that it tells by old ones.
    under_way: VecDeque<Vec<usize>>,
    refused: BTreeSet<usize>,
    /// Every content that was told by an old one.
    told: BTreeSet<usize>,
}

enum Round<S: Source> {
    /// Contents that have a base.
    Deltas(Deltas<S>),
    /// Those of which no delta came.
    Whole(Whole<S>),
    /// All answers have to come.
    Settle,
    /// What was refused.
    Again(Whole<S>),
    Ended,
}

struct Deltas<S: Source> {
    targets: VecDeque<Target>,
    group: Group,
    large: Option<Large<S>>,
}

/// A content that is told by an old one.
#[derive(Debug, Clone, Copy)]
struct Target {
    /// Its position among the lacked contents.
    index: usize,
    /// The position of the old file in the tree of the base.
    base: usize,
    new_size: u64,
    old_size: u64,
    old_digest: Digest,
}

/// Files that share one frame.
#[derive(Default)]
struct Group {
    targets: Vec<Target>,
    old: Vec<u8>,
    new: Vec<u8>,
}

/// A content that goes in segments.
struct Large<S: Source> {
    target: Target,
    new: S::File,
    old: S::File,
    window: Option<Window>,
    alignment: Alignment,
    done: u64,
    /// Of what was read so far; none once a segment came from the cache.
    hasher: Option<Box<blake3::Hasher>>,
}

/// A message and the contents that it tells by old ones.
type Outgoing = (Message, Vec<usize>);

impl<S: Source> Sending<S> {
    pub(crate) fn new(offered: Offered, lacked: Vec<Content>, cache: Option<DeltaCache>) -> Self {
        let targets = targets(&offered, &lacked);
        let deltas = Deltas { targets, group: Group::default(), large: None };
        let round = Round::Deltas(deltas);
        Self { offered, lacked, cache, round, under_way: VecDeque::new(), refused: BTreeSet::new(), told: BTreeSet::new() }
    }

    pub(crate) fn into_offered(self) -> Offered {
        self.offered
    }

    /// Makes the next message.
    pub(crate) fn next(&mut self, store: &S, levels: Levels) -> Result<Next, TransferError> {
        loop {
            if self.under_way.len() >= PIECES_UNDER_WAY {
                return Ok(Next::Await);
            }
            match std::mem::replace(&mut self.round, Round::Ended) {
                Round::Deltas(mut deltas) => match self.next_delta(&mut deltas, store, levels)? {
                    Some((message, targets)) => {
                        self.round = Round::Deltas(deltas);
                        return Ok(self.out(message, targets));
                    }
                    None if deltas.is_finished() => {
                        let untold = (0..self.lacked.len()).filter(|index| !self.told.contains(index)).collect();
                        self.round = Round::Whole(Whole::new(untold));
                    }
                    None => self.round = Round::Deltas(deltas),
                },
                Round::Whole(mut whole) => match whole.next(store, &self.offered, &self.lacked, levels.whole)? {
                    Some(piece) => {
                        self.round = Round::Whole(whole);
                        return Ok(self.out(Message::Contents(piece), Vec::new()));
                    }
                    None => self.round = Round::Settle,
                },
                Round::Settle if !self.under_way.is_empty() => {
                    self.round = Round::Settle;
                    return Ok(Next::Await);
                }
                Round::Settle => self.round = Round::Again(Whole::new(std::mem::take(&mut self.refused).into_iter().collect())),
                Round::Again(mut whole) => match whole.next(store, &self.offered, &self.lacked, levels.whole)? {
                    Some(piece) => {
                        self.round = Round::Again(whole);
                        return Ok(self.out(Message::Contents(piece), Vec::new()));
                    }
                    None => return Ok(Next::Send(Message::End)),
                },
                Round::Ended if self.under_way.is_empty() => return Ok(Next::Finished),
                Round::Ended => return Ok(Next::Await),
            }
        }
    }

    fn out(&mut self, message: Message, targets: Vec<usize>) -> Next {
        self.told.extend(&targets);
        self.under_way.push_back(targets);
        Next::Send(message)
    }

    /// Takes the answer to the oldest message under way.
    pub(crate) fn answered(&mut self, message: &Message) -> Result<(), TransferError> {
        match (self.under_way.pop_front(), message) {
            (Some(_), Message::Acknowledge) => Ok(()),
            (Some(targets), Message::Refused) if !targets.is_empty() => {
                self.refused.extend(targets);
                Ok(())
            }
            _ => Err(TransferError::unexpected(message, "no such answer")),
        }
    }

    /// Works on the next content that has a base. None if it makes no message, or if there is none.
    fn next_delta(&mut self, deltas: &mut Deltas<S>, store: &S, levels: Levels) -> Result<Option<Outgoing>, TransferError> {
        if let Some(mut large) = deltas.large.take() {
            let segment = self.next_segment(&mut large, levels)?;
            if segment.is_some() {
                deltas.large = Some(large);
            }
            return Ok(segment);
        }
        let Some(target) = deltas.targets.pop_front() else { return self.send_group(&mut deltas.group, levels) };
        if target.new_size > PIECE_BYTES_MAX as u64 || target.old_size > PREFIX_BYTES_MAX {
            if levels.programs {
                deltas.large = self.begin_large(&target, store)?;
            }
            return Ok(None);
        }
        let new = self.read_new(&target, store)?;
        // What is not what it should be here cannot be a base there: the content goes whole.
        let Some(old) = self.base(&target).and_then(|base| read_base(store, base, target.base)) else { return Ok(None) };
        if levels.programs && target.new_size > SMALL_BYTES && new[..new.len().min(SNIFF_BYTES)].contains(&0) {
            return self.tell_program(&target, &old, &new, levels).map(Some);
        }
        let full = if deltas.group.is_full_for(&target) { self.send_group(&mut deltas.group, levels)? } else { None };
        deltas.group.targets.push(target);
        deltas.group.old.extend(old);
        deltas.group.new.extend(new);
        Ok(full)
    }

    /// A group of files behind their old contents, unless it is empty.
    fn send_group(&self, group: &mut Group, levels: Levels) -> Result<Option<Outgoing>, TransferError> {
        let group = std::mem::take(group);
        if group.targets.is_empty() {
            return Ok(None);
        }
        let made = self.make(b"group", &group.targets, 0, || {
            Ok(Made { bytes: piece::compress_after(&group.old, &group.new, levels.patch)?, ..Made::default() })
        })?;
        Ok(Some(self.patch(&group.targets, &made.bytes)))
    }

    fn patch(&self, targets: &[Target], packed: &[u8]) -> Outgoing {
        let mut payload = Vec::with_capacity(packed.len() + 4 * targets.len() + 4);
        encode_varint(&mut payload, targets.len() as u64);
        let mut next = 0;
        for target in targets {
            encode_varint(&mut payload, (target.index - next) as u64);
            encode_varint(&mut payload, self.base_number(target));
            next = target.index + 1;
        }
        payload.extend_from_slice(packed);
        (Message::Patch(payload), targets.iter().map(|target| target.index).collect())
    }

    /// Tells a content of one segment by whichever codec takes less.
    fn tell_program(&self, target: &Target, old: &[u8], new: &[u8], levels: Levels) -> Result<Outgoing, TransferError> {
        let made = self.make(b"program", std::slice::from_ref(target), 0, || {
            let delta = OldIndex::new(old.to_vec(), 0).encode(new, &mut Alignment::default(), levels.delta)?;
            if delta.len() < new.len() / GOOD_DELTA {
                return Ok(Made { codec: Codec::Delta, bytes: delta, ..Made::default() });
            }
            let patch = piece::compress_after(old, new, levels.patch)?;
            let (codec, bytes) = if delta.len() <= patch.len() { (Codec::Delta, delta) } else { (Codec::Patch, patch) };
            Ok(Made { codec, bytes, ..Made::default() })
        })?;
        Ok(match made.codec {
            Codec::Patch => self.patch(std::slice::from_ref(target), &made.bytes),
            Codec::Delta => self.segment(target, &made.bytes),
        })
    }

    fn segment(&self, target: &Target, segment: &[u8]) -> Outgoing {
        let mut payload = Vec::with_capacity(segment.len() + 12);
        encode_varint(&mut payload, target.index as u64);
        encode_varint(&mut payload, self.base_number(target));
        payload.extend_from_slice(segment);
        (Message::Delta(payload), vec![target.index])
    }

    /// Starts a content of any length, if its old one is what it should be.
    fn begin_large(&self, target: &Target, store: &S) -> Result<Option<Large<S>>, TransferError> {
        let (new, _) = self.offered.open(&self.lacked[target.index], store)?;
        let old = self.base(target).and_then(|base| open_base(store, base, target.base));
        let hasher = Some(Box::new(blake3::Hasher::new()));
        Ok(old.map(|old| Large { target: *target, new, old, window: None, alignment: Alignment::default(), done: 0, hasher }))
    }

    /// The next segment; none if there is no more, or if the receiver has refused one.
    fn next_segment(&self, large: &mut Large<S>, levels: Levels) -> Result<Option<Outgoing>, TransferError> {
        let target = large.target;
        if large.done == target.new_size {
            let content = &self.lacked[target.index];
            if large.hasher.take().is_some_and(|hasher| Digest::from(hasher.finalize()) != content.digest) {
                return Err(self.offered.unreadable(content, wrong_content()));
            }
            return Ok(None);
        }
        if self.refused.contains(&target.index) {
            return Ok(None);
        }
        let length = usize::try_from(target.new_size - large.done).unwrap_or(usize::MAX).min(PIECE_BYTES_MAX);
        let hasher = large.hasher.take();
        let mut read_here = None;
        let made = self.make(b"segment", std::slice::from_ref(&target), large.done, || {
            let unreadable = |source| self.offered.unreadable(&self.lacked[target.index], source);
            let mut new = vec![0; length];
            large.new.read_exact_at(&mut new, large.done).map_err(unreadable)?;
            read_here = hasher.map(|mut hasher| {
                hasher.update(&new);
                hasher
            });
            let mut alignment = large.alignment;
            let index = Window::around(&mut large.window, &large.old, target.old_size, alignment).map_err(unreadable)?;
            let bytes = index.encode(&new, &mut alignment, levels.delta)?;
            Ok(Made { codec: Codec::Delta, bytes, alignment })
        })?;
        large.hasher = read_here;
        large.alignment = made.alignment;
        large.done += length as u64;
        Ok(Some(self.segment(&target, &made.bytes)))
    }

    /// Makes a delta, or takes it from the cache of the run.
    ///
    /// Which effort it was made with does not matter: whoever made it has spent the time already.
    fn make(
        &self,
        kind: &'static [u8],
        targets: &[Target],
        offset: u64,
        make: impl FnOnce() -> Result<Made, TransferError>,
    ) -> Result<Arc<Made>, TransferError> {
        let Some(cache) = &self.cache else { return make().map(Arc::new) };
        let mut key = kind.to_vec();
        key.extend(offset.to_le_bytes());
        for target in targets {
            key.extend(target.old_digest.as_bytes());
            key.extend(self.lacked[target.index].digest.as_bytes());
        }
        cache.get(&Digest::of(&key), make)
    }

    /// How a message names the old file: 0 for the same path, else its position in the tree of the base, plus one.
    fn base_number(&self, target: &Target) -> u64 {
        let (position, entry) = self.lacked[target.index].place;
        let path = self.offered.manifests[position].tree.path(entry);
        let old = self.base(target).and_then(|base| base.tree.path(target.base));
        if old == path { 0 } else { target.base as u64 + 1 }
    }

    fn read_new(&self, target: &Target, store: &S) -> Result<Vec<u8>, TransferError> {
        let content = &self.lacked[target.index];
        let (file, _) = self.offered.open(content, store)?;
        let mut new = vec![0; usize::try_from(target.new_size).unwrap_or(usize::MAX).min(PIECE_BYTES_MAX)];
        file.read_exact_at(&mut new, 0).map_err(|source| self.offered.unreadable(content, source))?;
        if Digest::of(&new) == content.digest { Ok(new) } else { Err(self.offered.unreadable(content, wrong_content())) }
    }

    fn base(&self, target: &Target) -> Option<&ObjectManifest> {
        self.offered.bases[self.lacked[target.index].place.0].as_deref()
    }
}

/// The contents that have a base, in order.
fn targets(offered: &Offered, lacked: &[Content]) -> VecDeque<Target> {
    let mut targets = VecDeque::new();
    let mut files: Option<(usize, BaseFiles<'_>)> = None;
    for (index, content) in lacked.iter().enumerate() {
        let (position, entry) = content.place;
        let Some(base) = &offered.bases[position] else { continue };
        if files.as_ref().is_none_or(|(of, _)| *of != position) {
            files = Some((position, BaseFiles::new(&base.tree, &offered.manifests[position].tree)));
        }
        let chosen = files.as_ref().and_then(|(_, files)| files.choose(entry));
        let Some(chosen) = chosen.filter(|_| content.size > 0) else { continue };
        if let Some(FileFacts { size, digest, executable: _ }) = base.tree.file(chosen) {
            targets.push_back(Target { index, base: chosen, new_size: content.size, old_size: size, old_digest: digest });
        }
    }
    targets
}

pub(crate) fn wrong_content() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "its content is not the one that its manifest names")
}

impl<S: Source> Deltas<S> {
    fn is_finished(&self) -> bool {
        self.targets.is_empty() && self.group.targets.is_empty() && self.large.is_none()
    }
}

impl Group {
    fn is_full_for(&self, target: &Target) -> bool {
        self.targets.len() >= PATCH_TARGETS_MAX
            || self.new.len() as u64 + target.new_size > PIECE_BYTES_MAX as u64
            || self.old.len() as u64 + target.old_size > PREFIX_BYTES_MAX
    }
}

/// A part of an old content with its index.
struct Window {
    index: OldIndex,
    start: u64,
    length: u64,
}

impl Window {
    /// The window in which the segment at `alignment` finds most: the one at hand, as long as the place is well within it.
    fn around<'w>(window: &'w mut Option<Self>, old: &impl ReadAt, old_size: u64, alignment: Alignment) -> io::Result<&'w OldIndex> {
        let length = old_size.min(WINDOW_BYTES as u64);
        let wanted = alignment.position.saturating_sub(length / 2 - length / 8).min(old_size - length);
        let fits = |window: &Self| window.start.abs_diff(wanted) <= length / 4 || window.length == old_size;
        let kept = window.take().filter(fits);
        let kept = if let Some(kept) = kept {
            kept
        } else {
            let mut bytes = vec![0; usize::try_from(length).unwrap_or(WINDOW_BYTES)];
            old.read_exact_at(&mut bytes, wanted)?;
            Self { index: OldIndex::new(bytes, wanted), start: wanted, length }
        };
        Ok(&window.insert(kept).index)
    }
}

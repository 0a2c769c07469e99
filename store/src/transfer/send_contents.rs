//! The contents on the sending side: first deltas of those that have a base, then the others whole, then whole what the receiver could not make.
//!
//! Small files and texts travel in groups, each group as one zstd frame behind the old contents of its files; programs as deltas or as such a
//! frame, whichever is shorter. In memory are at most one old content (or a window of it), a piece, and what is under way.

use std::collections::{BTreeSet, VecDeque};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;

use super::bases::BaseFiles;
use super::cache::{Codec, Made};
use super::channel::Channel;
use super::delta::{Alignment, OldIndex, encode_varint};
use super::limits::{PATCH_TARGETS_MAX, PIECE_BYTES_MAX, PIECES_UNDER_WAY, PREFIX_BYTES_MAX};
use super::message::Message;
use super::old_content::{open_base, read_base};
use super::options::TransferOptions;
use super::piece::{self, PieceBuffer};
use super::{Content, Offered, TransferError};
use crate::Digest;
use crate::object::ObjectManifest;
use crate::objects::ObjectStore;
use crate::tree::FileFacts;

/// How much of a file is read at a time, in bytes: large enough that system calls do not count.
const READ_BYTES: usize = 256 << 10;

/// Up to this length a content is always told in a group: an operation of a delta would cost more than it saves.
const SMALL_BYTES: u64 = 16 << 10;

/// How much of a file is looked at to tell a text from a program.
const SNIFF_BYTES: usize = 8 << 10;

/// The most of an old content that is indexed at once. With the index, half as much again, it is the largest thing in memory.
const WINDOW_BYTES: usize = 32 << 20;

/// Sends the contents `lacked`, in three rounds.
pub(crate) fn send_contents<R: Read, W: Write>(
    store: &ObjectStore,
    offered: &Offered,
    lacked: &[Content],
    options: &TransferOptions,
    channel: &mut Channel<'_, R, W>,
) -> Result<(), TransferError> {
    let outgoing = Outgoing { channel, under_way: VecDeque::new(), refused: BTreeSet::new(), told: BTreeSet::new() };
    let mut sending = Sending { store, offered, lacked, options, outgoing };
    let targets = sending.targets();
    sending.send_deltas(&targets)?;
    let told = std::mem::take(&mut sending.outgoing.told);
    sending.send_whole((0..lacked.len()).filter(|index| !told.contains(index)))?;
    sending.outgoing.settle()?;
    let refused = std::mem::take(&mut sending.outgoing.refused);
    sending.send_whole(refused.into_iter())?;
    sending.outgoing.channel.send_now(Message::End)?;
    sending.outgoing.settle()
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

/// What the receiver has not acknowledged yet.
struct Outgoing<'a, 'b, R: Read, W: Write> {
    channel: &'a mut Channel<'b, R, W>,
    /// For each message under way, the contents that it tells by old ones.
    under_way: VecDeque<Vec<usize>>,
    refused: BTreeSet<usize>,
    /// Every content that was told by an old one.
    told: BTreeSet<usize>,
}

struct Sending<'a, 'b, R: Read, W: Write> {
    store: &'a ObjectStore,
    offered: &'a Offered,
    lacked: &'a [Content],
    options: &'a TransferOptions,
    outgoing: Outgoing<'a, 'b, R, W>,
}

impl<R: Read, W: Write> Outgoing<'_, '_, R, W> {
    fn send(&mut self, message: Message, targets: Vec<usize>) -> Result<(), TransferError> {
        self.channel.send_now(message)?;
        self.told.extend(&targets);
        self.under_way.push_back(targets);
        if self.under_way.len() >= PIECES_UNDER_WAY { self.await_answer() } else { Ok(()) }
    }

    fn await_answer(&mut self) -> Result<(), TransferError> {
        let message = self.channel.receive()?;
        let targets = self.under_way.pop_front().unwrap_or_default();
        if matches!(message, Message::Refused) && !targets.is_empty() {
            self.refused.extend(targets);
        } else if !matches!(message, Message::Acknowledge) {
            return Err(TransferError::unexpected(&message, "an acknowledgement"));
        }
        Ok(())
    }

    fn settle(&mut self) -> Result<(), TransferError> {
        while !self.under_way.is_empty() {
            self.await_answer()?;
        }
        Ok(())
    }
}

impl<R: Read, W: Write> Sending<'_, '_, R, W> {
    /// The contents that have a base, in order.
    fn targets(&self) -> Vec<Target> {
        let mut targets = Vec::new();
        let mut files: Option<(usize, BaseFiles<'_>)> = None;
        for (index, content) in self.lacked.iter().enumerate() {
            let (position, entry) = content.place;
            let Some(base) = &self.offered.bases[position] else { continue };
            if files.as_ref().is_none_or(|(of, _)| *of != position) {
                files = Some((position, BaseFiles::new(&base.tree, &self.offered.manifests[position].tree)));
            }
            let chosen = files.as_ref().and_then(|(_, files)| files.choose(entry));
            let Some(chosen) = chosen.filter(|_| content.size > 0) else { continue };
            if let Some(FileFacts { size, digest, executable: _ }) = base.tree.file(chosen) {
                targets.push(Target { index, base: chosen, new_size: content.size, old_size: size, old_digest: digest });
            }
        }
        targets
    }

    fn send_deltas(&mut self, targets: &[Target]) -> Result<(), TransferError> {
        let programs = self.options.effort.levels().programs;
        let mut group = Group::default();
        for target in targets {
            let fits = target.new_size <= PIECE_BYTES_MAX as u64 && target.old_size <= PREFIX_BYTES_MAX;
            if !fits {
                if programs {
                    self.send_large(target)?;
                }
                continue;
            }
            let new = self.read_new(target)?;
            // What is not what it should be here cannot be a base there: the content goes whole.
            let Some(old) = self.base(target).and_then(|base| read_base(self.store, base, target.base)) else { continue };
            if programs && target.new_size > SMALL_BYTES && new[..new.len().min(SNIFF_BYTES)].contains(&0) {
                self.send_program(target, &old, &new)?;
                continue;
            }
            if group.is_full_for(target) {
                self.send_group(&group)?;
                group = Group::default();
            }
            group.targets.push(*target);
            group.old.extend(old);
            group.new.extend(new);
        }
        self.send_group(&group)
    }

    /// Sends a group of files behind their old contents.
    fn send_group(&mut self, group: &Group) -> Result<(), TransferError> {
        if group.targets.is_empty() {
            return Ok(());
        }
        let level = self.options.effort.levels().delta;
        let made = self.make(b"group", &group.targets, 0, || {
            Ok(Made { bytes: piece::compress_after(&group.old, &group.new, level)?, ..Made::default() })
        })?;
        self.send_patch(&group.targets, &made.bytes)
    }

    fn send_patch(&mut self, targets: &[Target], packed: &[u8]) -> Result<(), TransferError> {
        let mut payload = Vec::with_capacity(packed.len() + 4 * targets.len() + 4);
        encode_varint(&mut payload, targets.len() as u64);
        let mut next = 0;
        for target in targets {
            encode_varint(&mut payload, (target.index - next) as u64);
            encode_varint(&mut payload, self.base_number(target));
            next = target.index + 1;
        }
        payload.extend_from_slice(packed);
        self.outgoing.send(Message::Patch(payload), targets.iter().map(|target| target.index).collect())
    }

    /// Sends a content of one segment by whichever codec takes less.
    fn send_program(&mut self, target: &Target, old: &[u8], new: &[u8]) -> Result<(), TransferError> {
        let level = self.options.effort.levels().delta;
        let made = self.make(b"program", std::slice::from_ref(target), 0, || {
            let delta = OldIndex::new(old.to_vec(), 0).encode(new, &mut Alignment::default(), level)?;
            let patch = piece::compress_after(old, new, level)?;
            let (codec, bytes) = if delta.len() <= patch.len() { (Codec::Delta, delta) } else { (Codec::Patch, patch) };
            Ok(Made { codec, bytes, ..Made::default() })
        })?;
        match made.codec {
            Codec::Patch => self.send_patch(std::slice::from_ref(target), &made.bytes),
            Codec::Delta => self.send_segment(target, &made.bytes),
        }
    }

    fn send_segment(&mut self, target: &Target, segment: &[u8]) -> Result<(), TransferError> {
        let mut payload = Vec::with_capacity(segment.len() + 12);
        encode_varint(&mut payload, target.index as u64);
        encode_varint(&mut payload, self.base_number(target));
        payload.extend_from_slice(segment);
        self.outgoing.send(Message::Delta(payload), vec![target.index])
    }

    /// Sends a content of any length in segments.
    fn send_large(&mut self, target: &Target) -> Result<(), TransferError> {
        let (new_file, path) = self.open_new(target.index)?;
        let Some(old_file) = self.base(target).and_then(|base| open_base(self.store, base, target.base)) else { return Ok(()) };
        let level = self.options.effort.levels().delta;
        let mut window: Option<Window> = None;
        let mut alignment = Alignment::default();
        let mut done = 0;
        while done < target.new_size && !self.outgoing.refused.contains(&target.index) {
            let length = usize::try_from(target.new_size - done).unwrap_or(usize::MAX).min(PIECE_BYTES_MAX);
            let made = self.make(b"segment", std::slice::from_ref(target), done, || {
                let mut new = vec![0; length];
                new_file.read_exact_at(&mut new, done).map_err(|source| self.unreadable(target.index, &path, source))?;
                let index = Window::around(&mut window, &old_file, target.old_size, alignment)
                    .map_err(|source| self.unreadable(target.index, &path, source))?;
                let mut alignment = alignment;
                let bytes = index.encode(&new, &mut alignment, level)?;
                Ok(Made { codec: Codec::Delta, bytes, alignment })
            })?;
            alignment = made.alignment;
            self.send_segment(target, &made.bytes)?;
            done += length as u64;
        }
        Ok(())
    }

    /// Makes a delta, or takes it from the cache of the run.
    fn make(
        &self,
        kind: &'static [u8],
        targets: &[Target],
        offset: u64,
        make: impl FnOnce() -> Result<Made, TransferError>,
    ) -> Result<std::sync::Arc<Made>, TransferError> {
        let Some(cache) = &self.options.cache else { return make().map(std::sync::Arc::new) };
        let mut key = kind.to_vec();
        key.extend(self.options.effort.levels().delta.to_le_bytes());
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

    fn open_new(&self, index: usize) -> Result<(File, String), TransferError> {
        let (position, entry) = self.lacked[index].place;
        let manifest = &self.offered.manifests[position];
        let path = manifest.tree.path(entry).expect("contents are listed with their places");
        let file = File::open(self.store.object_path(&manifest.object).join(path.as_path()));
        file.map(|file| (file, path.to_string())).map_err(|source| self.unreadable(index, path.as_str(), source))
    }

    fn unreadable(&self, index: usize, path: &str, source: io::Error) -> TransferError {
        let object = self.offered.manifests[self.lacked[index].place.0].object.clone();
        TransferError::Unreadable { object, path: path.to_owned(), source }
    }

    fn read_new(&self, target: &Target) -> Result<Vec<u8>, TransferError> {
        let (mut file, path) = self.open_new(target.index)?;
        let length = usize::try_from(target.new_size).unwrap_or(usize::MAX).min(PIECE_BYTES_MAX);
        let mut new = vec![0; length];
        file.read_exact(&mut new).and_then(|()| at_end(&mut file)).map_err(|source| self.unreadable(target.index, &path, source))?;
        Ok(new)
    }

    fn base(&self, target: &Target) -> Option<&ObjectManifest> {
        self.offered.bases[self.lacked[target.index].place.0].as_deref()
    }

    /// Sends contents as one stream, cut into pieces.
    fn send_whole(&mut self, indices: impl Iterator<Item = usize>) -> Result<(), TransferError> {
        let level = self.options.effort.levels().whole;
        let mut buffer = PieceBuffer::new(level);
        for index in indices {
            let (mut file, path) = self.open_new(index)?;
            let mut left = self.lacked[index].size;
            let mut chunk = vec![0; READ_BYTES.min(usize::try_from(left).unwrap_or(READ_BYTES))];
            while left > 0 {
                let room = buffer.room().min(chunk.len()).min(usize::try_from(left).unwrap_or(usize::MAX));
                file.read_exact(&mut chunk[..room]).map_err(|source| self.unreadable(index, &path, source))?;
                if let Some(piece) = buffer.append(&chunk[..room])? {
                    self.outgoing.send(Message::Contents(piece), Vec::new())?;
                }
                left -= room as u64;
            }
            at_end(&mut file).map_err(|source| self.unreadable(index, &path, source))?;
        }
        match buffer.finish()? {
            Some(piece) => self.outgoing.send(Message::Contents(piece), Vec::new()),
            None => Ok(()),
        }
    }
}

impl Group {
    fn is_full_for(&self, target: &Target) -> bool {
        self.targets.len() >= PATCH_TARGETS_MAX
            || self.new.len() as u64 + target.new_size > PIECE_BYTES_MAX as u64
            || self.old.len() as u64 + target.old_size > PREFIX_BYTES_MAX
    }
}

fn at_end(file: &mut File) -> io::Result<()> {
    match file.read(&mut [0])? {
        0 => Ok(()),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "it is longer than its manifest says")),
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
    fn around<'w>(window: &'w mut Option<Self>, old: &File, old_size: u64, alignment: Alignment) -> io::Result<&'w OldIndex> {
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

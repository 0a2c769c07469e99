//! Makes a segment of a delta: bsdiff's loop over the new bytes, with a hash index of the old ones.
//!
//! The index knows every [`OldIndex::step`]-th place of the old content by a hash of the bytes there. The scan keeps the alignment of old and new for as long as it is
//! as good as what the index offers, and looks nothing up while nearly all bytes agree. How well it does
//! decides about bytes only: any sequence of operations that makes the new content is valid.

use super::super::limits::PIECE_BYTES_MAX;
use super::super::{TransferError, piece};
use super::{CONTROL_BYTES_MAX, Changes, HEADER_NUMBERS, Operation, Streams, encode_varint, zigzag};

/// How much better another alignment must be before the scan changes to it, in bytes: what an operation costs.
const SWITCH_GAIN: isize = 8;

/// So many bytes are compared before a look-up, and so many of them must agree to do without it.
const AGREEMENT: (usize, usize) = (64, 44);

/// How far the scan goes on if they agree.
const STRIDE: usize = 32;

/// The longest match that is measured: whatever is longer is as good as this, and is found again at its end.
const MATCH_BYTES_MAX: usize = 16 << 10;

/// Up to this length, the old content is indexed densely.
const DENSE_BYTES: usize = 16 << 20;

/// The old content, or a window of it, with an index of its places.
#[derive(Debug)]
pub(crate) struct OldIndex {
    bytes: Vec<u8>,
    /// Where the window begins in the old content.
    start: u64,
    /// Places divided by the step, plus one; 0 is none. Indexed by the upper bits of the hash.
    places: Vec<u32>,
    shift: u32,
    step: usize,
    key: usize,
}

/// How the new content lies on the old one at the moment: what the next segment goes on with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Alignment {
    /// The place in the old content that lies under the first byte of the next segment.
    pub(crate) position: u64,
}

impl OldIndex {
    /// Indexes `bytes`, which stand at `start` of the old content.
    pub(crate) fn new(bytes: Vec<u8>, start: u64) -> Self {
        let (key, step) = if bytes.len() <= DENSE_BYTES { (16, 4) } else { (24, 8) };
        let slots = (bytes.len() / step).next_power_of_two().max(64);
        let mut index = Self { start, places: vec![0; slots], shift: 64 - slots.trailing_zeros(), step, key, bytes };
        for place in (0..index.bytes.len().saturating_sub(key - 1)).step_by(step) {
            let slot = index.slot(&index.bytes[place..place + key]);
            index.places[slot] = u32::try_from(place / step + 1).unwrap_or(0);
        }
        index
    }

    /// The slot of `key` bytes.
    fn slot(&self, bytes: &[u8]) -> usize {
        let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("a key has 16 or 24 bytes"));
        let mut hash = (word(0) ^ word(8).rotate_left(29)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        if self.key == 24 {
            hash = (hash ^ hash >> 32 ^ word(16)).wrapping_mul(0xd6e8_feb8_6659_fd93);
        }
        usize::try_from((hash ^ hash >> 29).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> self.shift).unwrap_or(0)
    }

    /// The place and length of a stretch of the old bytes that agrees with the front of `new`; a length of 0 if none is known.
    fn find(&self, new: &[u8]) -> (usize, usize) {
        let Some(key) = new.get(..self.key) else { return (0, 0) };
        match self.places[self.slot(key)] {
            0 => (0, 0),
            entry => {
                let place = (entry as usize - 1) * self.step;
                let length = common_prefix(&self.bytes[place..], new);
                if length < self.key { (0, 0) } else { (place, length) }
            }
        }
    }

    /// Makes the segment for `new`, at most [`PIECE_BYTES_MAX`] bytes and not empty, and says where the next one stands.
    pub(crate) fn encode(&self, new: &[u8], alignment: &mut Alignment, level: i32) -> Result<Vec<u8>, TransferError> {
        debug_assert!(!new.is_empty() && new.len() <= PIECE_BYTES_MAX, "the caller cuts segments");
        let begin = usize::try_from(alignment.position.saturating_sub(self.start)).unwrap_or(0).min(self.bytes.len());
        let mut scan = Scan { old: &self.bytes, new, streams: Streams::default(), done: 0, place: begin, end: 0, window: self.start };
        let offset = scan.run(self, begin.cast_signed());
        let next = (self.start + new.len() as u64).checked_add_signed(offset as i64);
        alignment.position = next.unwrap_or(0);
        let delta = scan.streams.pack(new.len(), level)?;
        if delta.len() < new.len() / 4 {
            return Ok(delta);
        }
        // The two have little in common: perhaps the new bytes alone take less.
        let alone = Streams::of_new_bytes(new).pack(new.len(), level)?;
        Ok(if alone.len() < delta.len() { alone } else { delta })
    }
}

impl Streams {
    /// A segment that copies nothing.
    fn of_new_bytes(new: &[u8]) -> Self {
        let mut streams = Self { extra: new.to_vec(), ..Self::default() };
        streams.operation(Operation { seek: 0, copy: 0, extra: new.len() as u64 });
        streams
    }

    fn operation(&mut self, operation: Operation) {
        encode_varint(&mut self.control, zigzag(operation.seek));
        encode_varint(&mut self.control, operation.copy);
        encode_varint(&mut self.control, operation.extra);
    }

    fn pack(&self, length: usize, level: i32) -> Result<Vec<u8>, TransferError> {
        // A copy begins with 16 bytes that agree and costs at most 30.
        debug_assert!(self.control.len() <= CONTROL_BYTES_MAX, "an operation costs less than it makes");
        let changes = Changes::of(&self.difference);
        let pack = |raw: &[u8]| if raw.is_empty() { Ok(Vec::new()) } else { piece::compress_at(raw, level) };
        let mut header = Vec::with_capacity(4 * HEADER_NUMBERS);
        for number in [length, self.extra.len()] {
            encode_varint(&mut header, number as u64);
        }
        let mut streams = Vec::new();
        for raw in [&self.control, &changes.gaps, &changes.runs, &changes.bytes] {
            let packed = pack(raw)?;
            encode_varint(&mut header, raw.len() as u64);
            encode_varint(&mut header, packed.len() as u64);
            streams.extend(packed);
        }
        header.extend(streams);
        header.extend(pack(&self.extra)?);
        Ok(header)
    }
}

/// The state of bsdiff's loop.
struct Scan<'a> {
    old: &'a [u8],
    new: &'a [u8],
    streams: Streams,
    /// How much of `new` the operations so far make.
    done: usize,
    /// The place in `old` that lies under `done`.
    place: usize,
    /// Where the previous copy ended, in the window.
    end: u64,
    /// Where the window begins in the old content.
    window: u64,
}

impl Scan<'_> {
    /// Runs through all of `new`; returns the last alignment: place in `old` less place in `new`.
    fn run(&mut self, index: &OldIndex, mut offset: isize) -> isize {
        let (mut scan, mut found) = (0, (0, 0));
        while scan < self.new.len() {
            scan += found.1;
            let (mut counted, mut score) = (scan, 0isize);
            while scan < self.new.len() {
                if self.agrees(scan, offset) {
                    scan += STRIDE;
                    (counted, score, found) = (scan, 0, (0, 0));
                    continue;
                }
                found = index.find(&self.new[scan..]);
                while counted < scan + found.1 {
                    score += isize::from(self.is_same(counted, offset));
                    counted += 1;
                }
                let length = found.1.cast_signed();
                if (length == score && length != 0) || length > score + SWITCH_GAIN {
                    break;
                }
                score -= isize::from(self.is_same(scan, offset));
                scan += 1;
            }
            scan = scan.min(self.new.len());
            let at_end = scan == self.new.len();
            if at_end || found.1.cast_signed() != score {
                self.close(scan, if at_end { None } else { Some(found.0) });
                if !at_end {
                    offset = found.0.cast_signed() - scan.cast_signed();
                }
            }
        }
        offset
    }

    fn is_same(&self, at: usize, offset: isize) -> bool {
        at.checked_add_signed(offset).and_then(|place| self.old.get(place)) == Some(&self.new[at])
    }

    /// Whether old and new agree so well from here on that no look-up can pay.
    fn agrees(&self, at: usize, offset: isize) -> bool {
        let (length, enough) = AGREEMENT;
        let Some(place) = at.checked_add_signed(offset) else { return false };
        let (Some(old), Some(new)) = (self.old.get(place..place + length), self.new.get(at..at + length)) else { return false };
        old.iter().zip(new).map(|(a, b)| u8::from(a == b)).sum::<u8>() >= u8::try_from(enough).unwrap_or(u8::MAX)
    }

    /// Ends the stretch that began at `done`: the copy reaches forward as far as it pays, the next one backward from `scan`.
    fn close(&mut self, scan: usize, next: Option<usize>) {
        let mut forward = self.forward(scan);
        let mut backward = next.map_or(0, |next| self.backward(scan, next));
        if let Some(next) = next {
            let overlap = (self.done + forward).saturating_sub(scan - backward);
            if overlap > 0 {
                let cut = self.cut(scan, next, forward, backward, overlap);
                forward = forward + cut - overlap;
                backward -= cut;
            }
        }
        let fresh = scan - backward - (self.done + forward);
        if forward + fresh > 0 {
            let from = self.window + self.place as u64;
            let seek = if forward == 0 { 0 } else { from.cast_signed().wrapping_sub(self.end.cast_signed()) };
            self.streams.operation(Operation { seek, copy: forward as u64, extra: fresh as u64 });
            if forward > 0 {
                self.end = from + forward as u64;
            }
            let (old, new) = (&self.old[self.place..self.place + forward], &self.new[self.done..self.done + forward]);
            self.streams.difference.extend(new.iter().zip(old).map(|(new, old)| new.wrapping_sub(*old)));
            self.streams.extra.extend_from_slice(&self.new[self.done + forward..scan - backward]);
        }
        self.done = scan - backward;
        if let Some(next) = next {
            self.place = next - backward;
        }
    }

    /// How far the copy that began at `done` pays: more than half of the bytes agree.
    fn forward(&self, scan: usize) -> usize {
        let (old, new) = (&self.old[self.place.min(self.old.len())..], &self.new[self.done..scan]);
        best(new.iter().zip(old).map(|(a, b)| a == b))
    }

    /// How far a copy that lies on `next` at `scan` pays before it.
    fn backward(&self, scan: usize, next: usize) -> usize {
        let (old, new) = (&self.old[..next], &self.new[self.done..scan]);
        best(new.iter().rev().zip(old.iter().rev()).map(|(a, b)| a == b))
    }

    /// Where in an overlap the earlier copy hands over to the later one: after so many bytes of it.
    fn cut(&self, scan: usize, next: usize, forward: usize, backward: usize, overlap: usize) -> usize {
        let earlier = self.done + forward - overlap;
        let (mut score, mut highest, mut cut) = (0isize, 0, 0);
        for i in 0..overlap {
            score += isize::from(self.new[earlier + i] == self.old[self.place + forward - overlap + i]);
            score -= isize::from(self.new[scan - backward + i] == self.old[next - backward + i]);
            if score > highest {
                (highest, cut) = (score, i + 1);
            }
        }
        cut
    }
}

/// The length at which the agreeing bytes outnumber the others most.
fn best(same: impl Iterator<Item = bool>) -> usize {
    let (mut score, mut highest, mut length) = (0isize, 0, 0);
    for (i, same) in same.enumerate() {
        score += if same { 1 } else { -1 };
        if score > highest {
            (highest, length) = (score, i + 1);
        }
    }
    length
}

/// How many bytes two stretches have in common at their front, up to [`MATCH_BYTES_MAX`].
fn common_prefix(old: &[u8], new: &[u8]) -> usize {
    let length = old.len().min(new.len()).min(MATCH_BYTES_MAX);
    let (old, new) = (&old[..length], &new[..length]);
    let blocks = old.chunks_exact(16).zip(new.chunks_exact(16)).take_while(|(a, b)| a == b).count() * 16;
    blocks + old[blocks..].iter().zip(&new[blocks..]).take_while(|(a, b)| a == b).count()
}

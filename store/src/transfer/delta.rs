//! Deltas of one content against another, for compiled programs above all: after bsdiff, with a hash index instead of a suffix array.
//!
//! A relinked program is the old one with a few insertions and with many changed addresses. So the delta copies long stretches of the
//! old content and adds a difference to each byte: mostly zeros, and the same few values over and over, which zstd reduces to almost nothing.
//! A content is cut into segments of at most [`PIECE_BYTES_MAX`] bytes; each can be applied by itself, so neither side ever holds a whole
//! new content. FORMAT.md, section "Deltas".

mod apply;
mod encode;

pub(crate) use apply::apply;
pub(crate) use encode::{Alignment, OldIndex};

use super::TransferError;
use super::limits::PIECE_BYTES_MAX;
pub(crate) use super::varint::{decode_varint, encode_varint, unzigzag, zigzag};

/// One copy with differences, then some new bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Operation {
    /// Where the copied bytes stand in the old content, relative to the end of the previous copy.
    seek: i64,
    /// How many bytes are copied; the differences are added to them.
    copy: u64,
    /// How many new bytes follow.
    extra: u64,
}

/// A segment in the making.
#[derive(Debug, Default)]
struct Streams {
    control: Vec<u8>,
    /// What is added to the copied bytes.
    difference: Vec<u8>,
    extra: Vec<u8>,
}

/// Differences as they travel: mostly zeros, and then a few bytes. Lengths and bytes apart, each stream resembles itself, and is
/// so short that even high levels of zstd take no time.
#[derive(Debug, Default)]
struct Changes {
    /// How many zeros are before each run.
    gaps: Vec<u8>,
    /// How long each run of other bytes is.
    runs: Vec<u8>,
    /// Those bytes.
    bytes: Vec<u8>,
}

/// How many numbers are before the streams of a segment: two raw lengths, and a raw and a packed one for each of four streams.
const HEADER_NUMBERS: usize = 10;

/// The longest control stream, in bytes: an operation makes at least one byte and takes at most 30; a sensible encoder stays far below this.
/// As much for each of the two streams of lengths.
const CONTROL_BYTES_MAX: usize = PIECE_BYTES_MAX;

impl Changes {
    fn of(difference: &[u8]) -> Self {
        let mut changes = Self::default();
        let mut rest = difference;
        // What follows the last run is known to be zeros.
        while let Some(gap) = rest.iter().position(|byte| *byte != 0) {
            rest = &rest[gap..];
            let run = rest.iter().position(|byte| *byte == 0).unwrap_or(rest.len());
            encode_varint(&mut changes.gaps, gap as u64);
            encode_varint(&mut changes.runs, run as u64);
            changes.bytes.extend_from_slice(&rest[..run]);
            rest = &rest[run..];
        }
        changes
    }

    /// The differences of so many copied bytes.
    fn expand(&self, length: usize) -> Result<Vec<u8>, TransferError> {
        let mut difference = vec![0; length];
        let (mut gaps, mut runs, mut bytes) = (self.gaps.as_slice(), self.runs.as_slice(), self.bytes.as_slice());
        let mut rest = difference.as_mut_slice();
        while !gaps.is_empty() {
            let number = |stream: &mut &[u8]| decode_varint(stream).and_then(|number| usize::try_from(number).ok());
            let (gap, run) = number(&mut gaps).zip(number(&mut runs)).ok_or_else(|| malformed("the changes of a delta are cut off"))?;
            let end = gap.checked_add(run).filter(|end| run > 0 && *end <= rest.len());
            let end = end.ok_or_else(|| malformed("a delta changes bytes that it does not copy"))?;
            let (now, later) = bytes.split_at_checked(run).ok_or_else(|| malformed("a delta has fewer changes than it says"))?;
            rest[gap..end].copy_from_slice(now);
            bytes = later;
            rest = &mut rest[end..];
        }
        if runs.is_empty() && bytes.is_empty() { Ok(difference) } else { Err(malformed("a delta has more changes than it says")) }
    }
}

const fn malformed(what: &'static str) -> TransferError {
    TransferError::Malformed { what }
}

#[cfg(test)]
mod tests;

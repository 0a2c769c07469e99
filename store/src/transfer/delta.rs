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

/// A segment as it travels: the raw length and three streams.
#[derive(Debug, Default)]
struct Streams {
    control: Vec<u8>,
    difference: Vec<u8>,
    extra: Vec<u8>,
}

/// The three streams of a segment have these many bytes of header before them: the raw length of the segment and of the control, and three compressed lengths.
const HEADER_NUMBERS: usize = 5;

/// The longest control stream, in bytes: an operation makes at least one byte and takes at most 30; a sensible encoder stays far below this.
const CONTROL_BYTES_MAX: usize = PIECE_BYTES_MAX;

const fn malformed(what: &'static str) -> TransferError {
    TransferError::Malformed { what }
}

#[cfg(test)]
mod tests;

//! Streams of bytes in compressed pieces.
//!
//! Manifests and contents travel as two long streams without marks between their items: both sides know the lengths. A
//! stream is cut into pieces of at most [`PIECE_BYTES_MAX`] raw bytes, so that many small files share one, and a large file
//! takes several. A piece is `u32 raw length | one zstd frame`. Nothing is decompressed beyond the raw length, and no
//! raw length beyond the limit is accepted.

use std::io;

use zstd::zstd_safe::{self, CParameter, DParameter};

use super::TransferError;
use super::limits::{PIECE_BYTES_MAX, WINDOW_LOG_MAX};

/// From this length on, a prefix is searched for long matches too.
const LONG_PREFIX_BYTES: usize = 512 << 10;

/// Compresses one piece.
pub(crate) fn compress(raw: &[u8], level: i32) -> Result<Vec<u8>, TransferError> {
    let length = u32::try_from(raw.len()).expect("a piece is cut at PIECE_BYTES_MAX");
    let compressed = compress_at(raw, level)?;
    let mut piece = Vec::with_capacity(4 + compressed.len());
    piece.extend(length.to_le_bytes());
    piece.extend(compressed);
    Ok(piece)
}

/// Decompresses one piece to exactly its raw length.
pub(crate) fn decompress(piece: &[u8]) -> Result<Vec<u8>, TransferError> {
    let (length, compressed) = piece.split_first_chunk::<4>().ok_or(TransferError::Malformed { what: "a piece has no length" })?;
    let length = usize::try_from(u32::from_le_bytes(*length)).unwrap_or(usize::MAX);
    if length == 0 || length > PIECE_BYTES_MAX {
        return Err(TransferError::Limit { what: "raw bytes of a piece", actual: length as u64, limit: PIECE_BYTES_MAX as u64 });
    }
    decompress_exactly(compressed, length)
}

/// Compresses bytes to a zstd frame.
pub(crate) fn compress_at(raw: &[u8], level: i32) -> Result<Vec<u8>, TransferError> {
    zstd::bulk::compress(raw, level).map_err(|source| TransferError::Compress { source })
}

/// Decompresses a zstd frame that must give `length` bytes; the caller has checked that `length` is not too much.
pub(crate) fn decompress_exactly(compressed: &[u8], length: usize) -> Result<Vec<u8>, TransferError> {
    let raw = zstd::bulk::decompress(compressed, length).map_err(|source| TransferError::Decompress { source })?;
    if raw.len() == length { Ok(raw) } else { Err(TransferError::Malformed { what: "a piece is shorter than it says" }) }
}

/// Compresses `raw` with the bytes of `prefix` before it, which the receiver has.
pub(crate) fn compress_after(prefix: &[u8], raw: &[u8], level: i32) -> Result<Vec<u8>, TransferError> {
    let window = (prefix.len() + raw.len()).next_power_of_two().trailing_zeros().clamp(10, WINDOW_LOG_MAX);
    let compress = || {
        let mut compressor = zstd::bulk::Compressor::new(level)?;
        compressor.set_parameter(CParameter::WindowLog(window))?;
        // The tables of the lower levels do not reach back over a long prefix.
        compressor.set_parameter(CParameter::EnableLongDistanceMatching(prefix.len() >= LONG_PREFIX_BYTES))?;
        compressor.context_mut().ref_prefix(prefix).map_err(|code| io::Error::other(zstd_safe::get_error_name(code)))?;
        compressor.compress(raw)
    };
    compress().map_err(|source| TransferError::Compress { source })
}

/// Undoes [`compress_after`]; the result must have `length` bytes.
pub(crate) fn decompress_after(prefix: &[u8], compressed: &[u8], length: usize) -> Result<Vec<u8>, TransferError> {
    let mut raw = Vec::with_capacity(length);
    let mut decompress = || {
        let mut context = zstd_safe::DCtx::create();
        context.set_parameter(DParameter::WindowLogMax(WINDOW_LOG_MAX))?;
        context.ref_prefix(prefix)?;
        context.decompress(&mut raw, compressed)
    };
    let length_found =
        decompress().map_err(|code| TransferError::Decompress { source: io::Error::other(zstd_safe::get_error_name(code)) })?;
    if length_found == length { Ok(raw) } else { Err(TransferError::Malformed { what: "a piece is shorter than it says" }) }
}

/// Collects bytes and gives them out as pieces.
#[derive(Debug, Default)]
pub(crate) struct PieceBuffer {
    raw: Vec<u8>,
    level: i32,
}

impl PieceBuffer {
    pub(crate) const fn new(level: i32) -> Self {
        Self { raw: Vec::new(), level }
    }

    /// From now on, pieces are compressed at this level.
    pub(crate) const fn set_level(&mut self, level: i32) {
        self.level = level;
    }

    /// How many bytes wait for the next piece.
    pub(crate) const fn length(&self) -> usize {
        self.raw.len()
    }

    /// How many bytes fit into the piece at hand; never zero.
    pub(crate) fn room(&self) -> usize {
        PIECE_BYTES_MAX - self.raw.len()
    }

    /// Appends at most [`Self::room`] bytes; returns the piece if it is full now.
    pub(crate) fn append(&mut self, bytes: &[u8]) -> Result<Option<Vec<u8>>, TransferError> {
        debug_assert!(bytes.len() <= self.room(), "the caller cuts at room()");
        self.raw.extend_from_slice(bytes);
        if self.room() == 0 { self.finish() } else { Ok(None) }
    }

    /// What has been collected, if anything.
    pub(crate) fn finish(&mut self) -> Result<Option<Vec<u8>>, TransferError> {
        if self.raw.is_empty() {
            return Ok(None);
        }
        let piece = compress(&self.raw, self.level)?;
        self.raw.clear();
        Ok(Some(piece))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_round_trip() {
        for raw in [vec![7; 1], vec![0; PIECE_BYTES_MAX], (0..70_000u32).flat_map(u32::to_le_bytes).collect()] {
            assert_eq!(decompress(&compress(&raw, 3).unwrap()).unwrap(), raw);
        }
    }

    #[test]
    fn pieces_that_lie_about_their_length_are_refused() {
        let lie = |length: u32, raw: &[u8]| {
            let mut piece = compress(raw, 3).unwrap();
            piece[..4].copy_from_slice(&length.to_le_bytes());
            decompress(&piece)
        };
        let limit = u32::try_from(PIECE_BYTES_MAX).unwrap();
        assert!(matches!(lie(limit + 1, b"x"), Err(TransferError::Limit { .. })));
        assert!(matches!(lie(u32::MAX, b"x"), Err(TransferError::Limit { .. })));
        assert!(matches!(lie(0, b""), Err(TransferError::Limit { .. })));
        assert!(matches!(lie(2, b"x"), Err(TransferError::Malformed { .. })));
        // A bomb: a megabyte of zeros in some dozens of bytes, declared as one byte.
        assert!(matches!(lie(1, &vec![0; 1 << 20]), Err(TransferError::Decompress { .. })));
        assert!(matches!(decompress(&[1, 0, 0]), Err(TransferError::Malformed { .. })));
        assert!(matches!(decompress(&[1, 0, 0, 0, 9, 9, 9]), Err(TransferError::Decompress { .. })));
    }

    #[test]
    fn a_buffer_gives_full_pieces_and_the_rest() {
        let mut buffer = PieceBuffer::new(3);
        assert_eq!(buffer.append(b"abc").unwrap(), None);
        let full = buffer.append(&vec![1; buffer.room()]).unwrap().unwrap();
        assert_eq!(decompress(&full).unwrap().len(), PIECE_BYTES_MAX);
        assert_eq!(buffer.finish().unwrap(), None);
        buffer.append(b"rest").unwrap();
        assert_eq!(decompress(&buffer.finish().unwrap().unwrap()).unwrap(), b"rest");
    }
}

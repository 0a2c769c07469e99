//! Applies a segment of a delta. Whatever a hostile sender puts into it, this reads and writes within declared and bounded lengths.
//!
//! Every length is checked against its limit before memory is spent, every operation against the old content and the segment's
//! length before a byte is moved. That the result is the promised one is checked by its digest, elsewhere.

use super::super::limits::PIECE_BYTES_MAX;
use super::super::{TransferError, piece};
use super::{CONTROL_BYTES_MAX, Changes, HEADER_NUMBERS, Operation, decode_varint, malformed, unzigzag};

/// Makes the bytes of one segment.
///
/// `old_length` is the length of the old content, and `read_old(offset, buffer)` fills the buffer from it; it is asked for nothing
/// beyond the length. `left` is how much of the new content is still to come; a segment makes at least one byte and no more than that.
pub(crate) fn apply<E>(
    segment: &[u8],
    old_length: u64,
    left: u64,
    mut read_old: impl FnMut(u64, &mut [u8]) -> Result<(), E>,
) -> Result<Result<Vec<u8>, E>, TransferError> {
    let Parts { length, control, difference, extra } = Parts::split(segment, left)?;
    let mut control = control.as_slice();
    let (mut difference, mut extra) = (difference.as_slice(), extra.as_slice());
    let mut new = vec![0; length];
    let (mut filled, mut position) = (0usize, 0u64);
    while !control.is_empty() {
        let Operation { seek, copy, extra: fresh } = decode_operation(&mut control)?;
        position = position.checked_add_signed(seek).ok_or_else(|| malformed("a delta seeks out of the old content"))?;
        let end = position.checked_add(copy).filter(|end| *end <= old_length);
        let end = end.ok_or_else(|| malformed("a delta copies from beyond the old content"))?;
        let copied = take(&mut difference, copy)?;
        let target = &mut new[filled..filled + copied.len()];
        if let Err(error) = read_old(position, target) {
            return Ok(Err(error));
        }
        for (byte, change) in target.iter_mut().zip(copied) {
            *byte = byte.wrapping_add(*change);
        }
        filled += copied.len();
        position = end;
        let fresh = take(&mut extra, fresh)?;
        new[filled..filled + fresh.len()].copy_from_slice(fresh);
        filled += fresh.len();
    }
    // Both streams together have the length of the segment, so used up they have filled it.
    if difference.is_empty() && extra.is_empty() { Ok(Ok(new)) } else { Err(malformed("a delta makes fewer bytes than it says")) }
}

/// The streams of a segment, decompressed.
struct Parts {
    length: usize,
    control: Vec<u8>,
    difference: Vec<u8>,
    extra: Vec<u8>,
}

impl Parts {
    fn split(mut segment: &[u8], left: u64) -> Result<Self, TransferError> {
        let mut numbers = [0; HEADER_NUMBERS];
        for number in &mut numbers {
            let value = decode_varint(&mut segment).ok_or_else(|| malformed("a delta has no valid header"))?;
            *number = usize::try_from(value).unwrap_or(usize::MAX);
        }
        let [length, extra, control, control_packed, gaps, gaps_packed, runs, runs_packed, bytes, bytes_packed] = numbers;
        let limit = PIECE_BYTES_MAX.min(usize::try_from(left).unwrap_or(usize::MAX));
        check("raw bytes of a delta", length, limit)?;
        check("bytes of the operations of a delta", control, CONTROL_BYTES_MAX)?;
        for lengths in [gaps, runs] {
            check("bytes of the lengths of a delta", lengths, CONTROL_BYTES_MAX)?;
        }
        let copied = length.checked_sub(extra).filter(|copied| length > 0 && bytes <= *copied);
        let copied = copied.ok_or_else(|| malformed("a delta makes nothing, or less than its new bytes and its changes"))?;
        let control = unpack(cut(&mut segment, control_packed)?, control)?;
        let changes = Changes {
            gaps: unpack(cut(&mut segment, gaps_packed)?, gaps)?,
            runs: unpack(cut(&mut segment, runs_packed)?, runs)?,
            bytes: unpack(cut(&mut segment, bytes_packed)?, bytes)?,
        };
        let extra = unpack(segment, extra)?;
        Ok(Self { length, control, difference: changes.expand(copied)?, extra })
    }
}

/// An empty stream takes no bytes at all.
fn unpack(packed: &[u8], raw: usize) -> Result<Vec<u8>, TransferError> {
    if raw == 0 && packed.is_empty() { Ok(Vec::new()) } else { piece::decompress_exactly(packed, raw) }
}

fn cut<'a>(segment: &mut &'a [u8], length: usize) -> Result<&'a [u8], TransferError> {
    let (now, later) = segment.split_at_checked(length).ok_or_else(|| malformed("a delta is cut off"))?;
    *segment = later;
    Ok(now)
}

fn check(what: &'static str, actual: usize, limit: usize) -> Result<(), TransferError> {
    if actual > limit { Err(TransferError::Limit { what, actual: actual as u64, limit: limit as u64 }) } else { Ok(()) }
}

fn decode_operation(control: &mut &[u8]) -> Result<Operation, TransferError> {
    let mut number = || decode_varint(control).ok_or_else(|| malformed("an operation of a delta is cut off"));
    let operation = Operation { seek: unzigzag(number()?), copy: number()?, extra: number()? };
    if operation.copy == 0 && operation.extra == 0 { Err(malformed("an operation of a delta does nothing")) } else { Ok(operation) }
}

/// Takes exactly `length` bytes off the front.
fn take<'a>(bytes: &mut &'a [u8], length: u64) -> Result<&'a [u8], TransferError> {
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    let (now, later) = bytes.split_at_checked(length).ok_or_else(|| malformed("a delta uses more bytes than it has"))?;
    *bytes = later;
    Ok(now)
}

//! Deltas of random edits, of nothing, and by liars.

use proptest::prelude::*;

use super::*;
use crate::transfer::piece;

/// The whole of `new` against `old`, segment by segment.
fn encode(old: &[u8], new: &[u8], segment: usize) -> Vec<Vec<u8>> {
    let index = OldIndex::new(old.to_vec(), 0);
    let mut alignment = Alignment::default();
    new.chunks(segment).map(|part| index.encode(part, &mut alignment, 3).unwrap()).collect()
}

fn apply_to(old: &[u8], segment: &[u8], left: u64) -> Result<Vec<u8>, TransferError> {
    apply(segment, old.len() as u64, left, |offset, buffer| {
        let start = usize::try_from(offset).unwrap();
        buffer.copy_from_slice(&old[start..start + buffer.len()]);
        Ok::<_, std::convert::Infallible>(())
    })
    .map(|applied| applied.unwrap_or_else(|never| match never {}))
}

#[track_caller]
fn round_trip(old: &[u8], new: &[u8], segment: usize) -> usize {
    let segments = encode(old, new, segment);
    let mut found = Vec::new();
    for segment in &segments {
        found.extend(apply_to(old, segment, (new.len() - found.len()) as u64).unwrap());
    }
    assert!(found == new, "a delta does not give what it was made of");
    segments.iter().map(Vec::len).sum()
}

fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// Words of 16 bytes whose last four are an address, as in a program; `shift` is what a linker did to it.
fn program(words: usize, shift: u32) -> Vec<u8> {
    let word = |i: u64| {
        let mut word = noise(i, 16);
        let address = u32::try_from(i * 64).unwrap() + if i > 1000 { shift } else { 0 };
        word[12..].copy_from_slice(&address.to_le_bytes());
        word
    };
    (0..words as u64).flat_map(word).collect()
}

#[test]
fn a_relinked_program_takes_a_hundredth() {
    let (old, mut new) = (program(20_000, 0), program(20_000, 0x240));
    new.splice(16_000..16_000, noise(1 << 40, 576));
    let length = round_trip(&old, &new, PIECE_BYTES_MAX);
    assert!(length < new.len() / 100, "{length} of {}", new.len());
    // In segments it costs little more.
    let length = round_trip(&old, &new, 64 << 10);
    assert!(length < new.len() / 50, "{length} of {}", new.len());
    // A patch of zstd sees no copy longer than twelve bytes.
    assert!(piece::compress_after(&old, &new, 3).unwrap().len() > 4 * length);
}

#[test]
fn contents_without_anything_in_common_cost_no_more_than_they_are() {
    let new = noise(2, 300_000);
    assert!(round_trip(&noise(1, 300_000), &new, PIECE_BYTES_MAX) < new.len() + 100);
    assert!(round_trip(b"", &new, PIECE_BYTES_MAX) < new.len() + 100);
    round_trip(b"0123456789abcde", b"x", PIECE_BYTES_MAX);
    round_trip(&vec![0; 100_000], &vec![0; 200_000], 1000);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn random_edits_round_trip(
        seed in any::<u64>(),
        length in 0usize..20_000,
        letters in 1u8..=255,
        edits in prop::collection::vec((any::<u32>(), any::<u32>(), 0usize..300, prop::collection::vec(any::<u8>(), 0..300)), 0..20),
        segment in 1usize..30_000,
    ) {
        let old: Vec<u8> = noise(seed, length).into_iter().map(|byte| byte % letters).collect();
        let mut new = old.clone();
        for (at, from, removed, inserted) in edits {
            let at = at as usize % (new.len() + 1);
            let moved = from as usize % (old.len() + 1);
            let moved = &old[moved..old.len().min(moved + removed)];
            new.splice(at..(at + removed).min(new.len()), inserted.into_iter().chain(moved.iter().copied()));
        }
        round_trip(&old, &new, segment);
    }

    #[test]
    fn damaged_segments_never_write_beyond_their_length(
        flips in prop::collection::vec((any::<u32>(), any::<u8>()), 1..6), cut in any::<u32>(),
    ) {
        let (old, mut new) = (noise(1, 5000), noise(1, 5000));
        new.splice(2000..2100, noise(3, 250));
        let mut segment = encode(&old, &new, 10_000).remove(0);
        for (at, value) in flips {
            let at = at as usize % segment.len();
            segment[at] ^= value;
        }
        if cut % 4 == 0 {
            segment.truncate(cut as usize % segment.len());
        }
        if let Ok(bytes) = apply_to(&old, &segment, 6000) {
            prop_assert!(!bytes.is_empty() && bytes.len() <= 6000);
        }
    }

    #[test]
    fn numbers_round_trip_and_have_one_form(value in any::<u64>(), bytes in prop::collection::vec(any::<u8>(), 0..12)) {
        let mut encoded = Vec::new();
        encode_varint(&mut encoded, value);
        prop_assert_eq!(decode_varint(&mut encoded.as_slice()), Some(value));
        prop_assert_eq!(unzigzag(zigzag(value.cast_signed())), value.cast_signed());
        let mut rest = bytes.as_slice();
        if let Some(value) = decode_varint(&mut rest) {
            let mut again = Vec::new();
            encode_varint(&mut again, value);
            prop_assert_eq!(&bytes[..bytes.len() - rest.len()], again.as_slice());
        }
    }
}

fn varints(numbers: &[u64]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for number in numbers {
        encode_varint(&mut bytes, *number);
    }
    bytes
}

/// A segment with these numbers and streams, each compressed.
fn forged(length: u64, operations: &[(i64, u64, u64)], difference: &[u8], extra: &[u8]) -> Vec<u8> {
    let changes = Changes::of(difference);
    forged_of(length, operations, [&changes.gaps, &changes.runs, &changes.bytes], extra)
}

fn forged_of(length: u64, operations: &[(i64, u64, u64)], changes: [&[u8]; 3], extra: &[u8]) -> Vec<u8> {
    let mut control = Vec::new();
    for (seek, copy, extra) in operations {
        control.extend(varints(&[zigzag(*seek), *copy, *extra]));
    }
    let pack = |raw: &[u8]| if raw.is_empty() { Vec::new() } else { piece::compress_at(raw, 3).unwrap() };
    let [gaps, runs, bytes] = changes;
    let (mut header, mut streams) = (varints(&[length, extra.len() as u64]), Vec::new());
    for raw in [&control, gaps, runs, bytes] {
        header.extend(varints(&[raw.len() as u64, pack(raw).len() as u64]));
        streams.extend(pack(raw));
    }
    [header, streams, pack(extra)].concat()
}

#[test]
fn hostile_segments_are_refused_in_words() {
    let old = noise(1, 100);
    let refuse = |segment: &[u8], words: &str| {
        let error = apply_to(&old, segment, 1000).unwrap_err();
        assert!(error.to_string().contains(words), "{error}: {words}");
    };
    let honest = forged(30, &[(90, 10, 5), (-50, 10, 5)], &[0; 20], &[7; 10]);
    let new = apply_to(&old, &honest, 1000).unwrap();
    assert_eq!(new, [&old[90..], &[7; 5], &old[50..60], &[7; 5]].concat());

    refuse(&forged(10, &[(-1, 10, 0)], &[0; 10], b""), "seeks out of the old content");
    refuse(&forged(10, &[(i64::MIN, 10, 0)], &[0; 10], b""), "seeks out of the old content");
    refuse(&forged(10, &[(91, 10, 0)], &[0; 10], b""), "beyond the old content");
    refuse(&forged(10, &[(i64::MAX, u64::MAX, 0)], &[0; 10], b""), "beyond the old content");
    refuse(&forged(10, &[(0, 11, 0)], &[0; 10], b""), "uses more bytes than it has");
    refuse(&forged(10, &[(0, 5, u64::MAX)], &[0; 5], &[1; 5]), "uses more bytes than it has");
    refuse(&forged(10, &[(0, 5, 0)], &[0; 5], &[1; 5]), "fewer bytes than it says");
    refuse(&forged(10, &[(0, 0, 0), (0, 5, 5)], &[0; 5], &[1; 5]), "does nothing");
    refuse(&forged(0, &[], b"", b""), "makes nothing");
    refuse(&forged(5, &[(0, 0, 10)], b"", &[0; 10]), "less than its new bytes");
    refuse(&forged(10, &[(0, 10, 0)], &[1; 11], b""), "less than its new bytes and its changes");
    refuse(&forged_of(10, &[(0, 10, 0)], [&[6], &[5], &[1; 5]], b""), "changes bytes that it does not copy");
    refuse(&forged_of(10, &[(0, 10, 0)], [&[6], &[0], b""], b""), "changes bytes that it does not copy");
    refuse(&forged_of(10, &[(0, 10, 0)], [&varints(&[u64::MAX]), &[1], &[1]], b""), "changes bytes that it does not copy");
    refuse(&forged_of(10, &[(0, 10, 0)], [&[1, 1], &[1], &[1]], b""), "cut off");
    refuse(&forged_of(10, &[(0, 10, 0)], [&[1], &[2], &[1]], b""), "fewer changes");
    refuse(&forged_of(10, &[(0, 10, 0)], [&[1], &[1, 1], &[1]], b""), "more changes");
    refuse(&forged_of(10, &[(0, 10, 0)], [&[1], &[1], &[1, 2]], b""), "more changes");
    refuse(&forged(1001, &[(0, 0, 1001)], b"", &[0; 1001]), "raw bytes of a delta: 1001 exceeds the limit of 1000");
    refuse(&forged(u64::MAX, &[(0, 0, 10)], b"", &[0; 10]), "exceeds the limit");
    refuse(&honest[..honest.len() - 1], "cannot decompress");
    refuse(&honest[..3], "no valid header");
    // A bomb: the streams give more than the lengths that were checked.
    let bomb = piece::compress_at(&vec![0; 1 << 20], 3).unwrap();
    let length = bomb.len() as u64;
    refuse(&[varints(&[10, 0, 0, 0, 1, length, 0, 0, 0, 0]), bomb.clone()].concat(), "cannot decompress");
    refuse(&[varints(&[10, 10, 0, 0, 0, 0, 0, 0, 0, 0]), bomb].concat(), "cannot decompress");
    let too_long = PIECE_BYTES_MAX as u64 + 1;
    refuse(&varints(&[10, 0, too_long, 0, 0, 0, 0, 0, 0, 0]), "bytes of the operations of a delta");
    refuse(&varints(&[10, 0, 3, 0, too_long, 0, 0, 0, 0, 0]), "bytes of the lengths of a delta");
    refuse(&varints(&[10, 0, 3, 0, 0, 0, too_long, 0, 0, 0]), "bytes of the lengths of a delta");
    refuse(&varints(&[10, 0, 3, 1 << 40, 0, 0, 0, 0, 0, 0]), "cut off");
    refuse(&[0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x02], "no valid header");
}

#[test]
fn golden_bytes_are_understood() {
    let old = b"The quick brown fox jumps over the lazy dog.";
    let golden = [
        23, 6, // raw bytes of the segment, and new ones
        6, 15, 2, 11, 2, 11, 3, 12, // operations, gaps, runs, changed bytes: raw, packed
        40, 181, 47, 253, 32, 6, 49, 0, 0, 8, 12, 3, 25, 5, 3, // on by 4, copy 12, 3 new; back by 13, copy 5, 3 new
        40, 181, 47, 253, 32, 2, 17, 0, 0, 2, 9, // 2 zeros, 9 zeros
        40, 181, 47, 253, 32, 2, 17, 0, 0, 1, 2, // 1 change, 2 changes
        40, 181, 47, 253, 32, 3, 25, 0, 0, 1, 255, 2, // i to j; a space one less, q to s
        40, 181, 47, 253, 32, 6, 49, 0, 0, 49, 50, 51, 52, 46, 33, // 1234.!
    ];
    let mut difference = [0; 17];
    (difference[2], difference[12], difference[13]) = (1, 255, 2);
    assert_eq!(forged(23, &[(4, 12, 3), (-13, 5, 3)], &difference, b"1234.!"), golden);
    assert_eq!(apply_to(old, &golden, 23).unwrap(), b"qujck brown 123\x1fsuic4.!");
}

//! Finds ids of objects in bytes.
//!
//! A reference is the 32 characters of a known id anywhere in a file, a link target or a file name. The own stand-in is
//! replaced by zeros on the way, and its places are noted. The scan jumps: the last byte of a window that is not in the
//! alphabet of ids rules out every window that holds it. Works across the borders of chunks.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::fsutil::{FsError, IoResultExt};
use crate::id::{ID_CHARS, char_value};
use crate::tree::SELF_ZEROS;
use crate::{Digest, ObjectId, ObjectRef};

/// How much of a file is in memory at a time, in bytes.
pub(crate) const CHUNK_BYTES: usize = 1 << 20;

/// The ids to look for.
#[derive(Debug)]
pub(crate) struct Candidates {
    in_alphabet: [bool; 256],
    own: Option<[u8; ID_CHARS]>,
    others: BTreeMap<[u8; ID_CHARS], ObjectRef>,
}

impl Candidates {
    pub(crate) fn new(own: Option<&ObjectId>, others: &[ObjectRef]) -> Self {
        let mut in_alphabet = [false; 256];
        for byte in 0..=u8::MAX {
            in_alphabet[usize::from(byte)] = char_value(byte).is_some();
        }
        let own = own.map(|id| id.to_chars());
        let others = others.iter().map(|object| (object.id.to_chars(), object.clone())).filter(|(chars, _)| Some(*chars) != own);
        Self { in_alphabet, own, others: others.collect() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.own.is_none() && self.others.is_empty()
    }
}

/// What was found in all bytes scanned so far.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// Where the own stand-in was, from the start of this file.
    pub(crate) offsets: Vec<u64>,
    /// The other objects that are named.
    pub(crate) references: BTreeSet<ObjectRef>,
}

/// Scans one file, chunk by chunk.
#[derive(Debug)]
pub(crate) struct Scanner<'a> {
    candidates: &'a Candidates,
    found: Found,
    /// Bytes that are not given out yet, and before them those given out last.
    pending: Vec<u8>,
    given_out: usize,
    /// The offset of the first pending byte in the file.
    base: u64,
}

impl<'a> Scanner<'a> {
    pub(crate) fn new(candidates: &'a Candidates) -> Self {
        Self { candidates, found: Found::default(), pending: Vec::new(), given_out: 0, base: 0 }
    }

    /// Takes the next bytes of the file; returns those that are settled, the own stand-in zeroed out.
    pub(crate) fn push(&mut self, chunk: &[u8]) -> &[u8] {
        self.forget_given_out();
        self.pending.extend_from_slice(chunk);
        self.given_out = scan(self.candidates, &mut self.found, &mut self.pending, self.base);
        &self.pending[..self.given_out]
    }

    /// The last bytes of the file.
    pub(crate) fn rest(&mut self) -> &[u8] {
        self.forget_given_out();
        self.given_out = self.pending.len();
        &self.pending
    }

    pub(crate) fn into_found(self) -> Found {
        self.found
    }

    fn forget_given_out(&mut self) {
        self.pending.drain(..self.given_out);
        self.base += self.given_out as u64;
        self.given_out = 0;
    }
}

/// Scans bytes that are all there, zeroing out the own stand-in in place.
pub(crate) fn scan_whole(candidates: &Candidates, bytes: &mut [u8]) -> Found {
    let mut found = Found::default();
    scan(candidates, &mut found, bytes, 0);
    found
}

/// Scans all windows in `bytes`; returns the start of the first window that does not end within them.
fn scan(candidates: &Candidates, found: &mut Found, bytes: &mut [u8], base: u64) -> usize {
    if candidates.is_empty() {
        return bytes.len();
    }
    let mut start = 0;
    // Everything from `start` up to here is known to be in the alphabet, so no byte is looked up twice.
    let mut known_until = 0;
    while start + ID_CHARS <= bytes.len() {
        let end = start + ID_CHARS;
        let outside = (known_until.max(start)..end).rev().find(|position| !candidates.in_alphabet[usize::from(bytes[*position])]);
        if let Some(position) = outside {
            start = position + 1;
            continue;
        }
        known_until = end;
        let Some(window) = bytes[start..].first_chunk_mut::<ID_CHARS>() else { break };
        if candidates.own.as_ref() == Some(&*window) {
            *window = SELF_ZEROS;
            found.offsets.push(base + start as u64);
            start = end;
        } else if let Some(object) = candidates.others.get(&*window) {
            found.references.insert(object.clone());
            start = end;
        } else {
            start += 1;
        }
    }
    start.min(bytes.len())
}

/// Computes the digest of an open file, and the digest with zeros at `offsets`; also tells whether `id` stands at each of them.
pub(crate) fn digests_of(file: &File, offsets: &[u64], id: &ObjectId, path: &Path) -> Result<FileDigests, FsError> {
    let expected = id.to_chars();
    let (mut plain, mut modulo) = (blake3::Hasher::new(), blake3::Hasher::new());
    let mut buffer = vec![0; CHUNK_BYTES];
    let mut position = 0u64;
    let mut own_id_stands = true;
    for offset in offsets {
        let mut window = [0; ID_CHARS];
        let read = file.read_exact_at(&mut window, *offset);
        own_id_stands &= read.is_ok() && window == expected;
    }
    loop {
        let length = match file.read_at(&mut buffer, position) {
            Ok(0) => break,
            Ok(length) => length,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error).at("read", path),
        };
        let chunk = &mut buffer[..length];
        plain.update(chunk);
        if !offsets.is_empty() {
            zero_out(chunk, position, offsets);
            modulo.update(chunk);
        }
        position += length as u64;
    }
    let digest = Digest::from(plain.finalize());
    let modulo = if offsets.is_empty() { digest } else { Digest::from(modulo.finalize()) };
    Ok(FileDigests { digest, modulo, own_id_stands })
}

/// What the bytes of a file give.
#[derive(Debug)]
pub(crate) struct FileDigests {
    /// The digest of the bytes.
    pub(crate) digest: Digest,
    /// The digest with zeros at the places of the own id.
    pub(crate) modulo: Digest,
    /// Whether the own id stands at all its places.
    pub(crate) own_id_stands: bool,
}

/// Writes zeros over those parts of the windows at `offsets` that lie in the chunk, which starts at `position` in the file.
fn zero_out(chunk: &mut [u8], position: u64, offsets: &[u64]) {
    let chunk_end = position + chunk.len() as u64;
    let first = offsets.partition_point(|offset| offset.saturating_add(ID_CHARS as u64) <= position);
    for offset in offsets[first..].iter().take_while(|offset| **offset < chunk_end) {
        let from = offset.max(&position) - position;
        let until = offset.saturating_add(ID_CHARS as u64).min(chunk_end) - position;
        if let (Ok(from), Ok(until)) = (usize::try_from(from), usize::try_from(until)) {
            chunk[from..until].fill(b'0');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(label: &str) -> ObjectRef {
        ObjectRef { id: ObjectId::placeholder(label), name: label.parse().unwrap() }
    }

    #[test]
    fn ids_are_found_wherever_chunks_end() {
        let (own, other, absent) = (ObjectId::placeholder("own"), object("other"), object("absent"));
        let candidates = Candidates::new(Some(&own), &[other.clone(), absent]);
        // Twice directly in a row, once behind letters of the alphabet, once at the very end.
        let text = format!("x{own}{own} zzz{other} #{own}");
        let zeros = "0".repeat(ID_CHARS);
        let expected = format!("x{zeros}{zeros} zzz{other} #{zeros}");
        for size in 1..=text.len() {
            let mut scanner = Scanner::new(&candidates);
            let mut output = Vec::new();
            for chunk in text.as_bytes().chunks(size) {
                output.extend_from_slice(scanner.push(chunk));
            }
            output.extend_from_slice(scanner.rest());
            let found = scanner.into_found();
            assert_eq!(String::from_utf8(output).unwrap(), expected, "chunks of {size}");
            assert_eq!(found.offsets, [1, 33, text.len() as u64 - 32], "chunks of {size}");
            assert_eq!(found.references.into_iter().collect::<Vec<_>>(), std::slice::from_ref(&other), "chunks of {size}");
        }
    }

    #[test]
    fn part_of_an_id_is_no_reference() {
        let other = object("other");
        let candidates = Candidates::new(None, std::slice::from_ref(&other));
        let id = other.id.to_string();
        for text in [&id[1..], &id[..31], &format!("{} {}", &id[..16], &id[16..]), &id.to_uppercase()] {
            let mut bytes = text.as_bytes().to_vec();
            assert!(scan_whole(&candidates, &mut bytes).references.is_empty(), "{text}");
        }
    }

    #[test]
    fn zeros_reach_over_the_border_of_a_chunk() {
        let mut all = vec![b'x'; 100];
        zero_out(&mut all, 0, &[10, 50]);
        let mut halves = vec![b'x'; 100];
        zero_out(&mut halves[..60], 0, &[10, 50]);
        zero_out(&mut halves[60..], 60, &[10, 50]);
        assert_eq!(all, halves);
        assert_eq!(all, [[b'x'; 10].as_slice(), &[b'0'; 32], &[b'x'; 8], &[b'0'; 32], &[b'x'; 18]].concat());
    }
}

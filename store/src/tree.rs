//! Trees: what an object contains, as one flat sorted list.
//!
//! Every directory is listed, the object's own top is not. Owners, times, set-id bits and extended attributes cannot be expressed.
//! [`Tree::decode`] refuses everything that [`Tree::encode`] would not write, so a tree has exactly one spelling.
//! FORMAT.md, section "Trees".

use std::collections::BTreeSet;

use crate::canon::{DecodeError, Decoder, Encoder};
use crate::id::ID_CHARS;
use crate::{Digest, ObjectId, RelPath};

/// The first bytes of an encoded tree; the last is the version.
pub const TREE_MAGIC: &str = "SRT1";

/// The most entries of one object. A large `node_modules` has a tenth of it; memory for a tree of this size is about 200 MB.
pub const ENTRIES_MAX: u64 = 1_000_000;

/// The most references of an object to itself, over all files and links. Above it, paths are data, not references.
pub const SELF_REFERENCES_MAX: u64 = 1 << 20;

/// The longest target of a symbolic link, in bytes (`PATH_MAX` of Linux, less the final NUL).
pub const TARGET_BYTES_MAX: u64 = 4095;

/// The largest file, in bytes: what a signed file offset can address.
const FILE_BYTES_MAX: u64 = i64::MAX as u64;

/// What stands for the object's own id while the id is computed.
pub(crate) const SELF_ZEROS: [u8; ID_CHARS] = [b'0'; ID_CHARS];

/// The content of one object.
///
/// Shape: entries sorted by the bytes of their paths, no path twice, every parent listed as a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tree {
    entries: Vec<Entry>,
}

/// One line of a tree.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// Where it is, below the object's top.
    pub path: RelPath,
    /// What it is.
    pub kind: EntryKind,
}

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum EntryKind {
    /// A directory, mode 0555.
    Directory,
    /// A regular file, mode 0444, or 0555 if executable.
    File {
        /// The length in bytes.
        size: u64,
        /// The digest of the bytes as they are on disk.
        digest: Digest,
        /// Whether the mode is 0555.
        executable: bool,
        /// Where the file names its own object, if it does.
        self_references: Option<SelfReferences>,
    },
    /// A symbolic link.
    Symlink {
        /// The target as it is on disk: 1 to [`TARGET_BYTES_MAX`] bytes, no NUL.
        target: String,
        /// Byte offsets in the target at which the object's own id stands; same rules as in [`SelfReferences`].
        self_offsets: Vec<u64>,
    },
}

/// Where a file names its own object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct SelfReferences {
    /// Byte offsets at which the own id stands: at least one, ascending, 32 or more apart.
    pub offsets: Vec<u64>,
    /// The digest of the file with 32 characters `0` at each offset.
    pub modulo: Digest,
}

impl Tree {
    /// Makes a tree of entries in any order.
    ///
    /// Errors: [`DecodeError`] names the first rule that the entries break.
    pub fn new(mut entries: Vec<Entry>) -> Result<Self, DecodeError> {
        entries.sort();
        check(&entries)?;
        Ok(Self { entries })
    }

    /// The entries, in order.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The entry at `path`, if there is one.
    pub fn get(&self, path: &RelPath) -> Option<&Entry> {
        self.entries.binary_search_by(|entry| entry.path.cmp(path)).ok().map(|position| &self.entries[position])
    }

    /// The sum of the files' sizes, in bytes.
    pub fn file_bytes(&self) -> u64 {
        self.entries.iter().fold(0, |sum, entry| match &entry.kind {
            EntryKind::File { size, .. } => sum.saturating_add(*size),
            EntryKind::Directory | EntryKind::Symlink { .. } => sum,
        })
    }

    /// Writes the stored form.
    pub fn encode(&self) -> Vec<u8> {
        let mut encoder = Encoder::new("");
        encoder.fixed(TREE_MAGIC.as_bytes()).count(self.entries.len());
        for entry in &self.entries {
            encode_entry(&mut encoder, entry);
        }
        encoder.into_bytes()
    }

    /// Reads the stored form.
    ///
    /// Errors: [`DecodeError`] for anything that [`Self::encode`] would not have written.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut decoder = Decoder::new(bytes);
        decoder.magic(TREE_MAGIC)?;
        // The shortest entry is a directory of one letter: tag, length, letter.
        let count = decoder.count("entries of a tree", ENTRIES_MAX, 10)?;
        let mut entries = Vec::with_capacity(count);
        for _ in 0..count {
            entries.push(decode_entry(&mut decoder)?);
        }
        decoder.finish()?;
        check(&entries)?;
        Ok(Self { entries })
    }

    /// Appends the form that an id is computed from: digests and targets with the own id zeroed out.
    pub(crate) fn encode_for_id(&self, encoder: &mut Encoder) {
        encoder.count(self.entries.len());
        for Entry { path, kind } in &self.entries {
            encoder.tag(tag_of(kind)).text(path.as_str());
            match kind {
                EntryKind::Directory => {}
                EntryKind::File { size, digest, executable: _, self_references } => {
                    let (content, offsets) = match self_references {
                        Some(SelfReferences { offsets, modulo }) => (modulo, offsets.as_slice()),
                        None => (digest, [].as_slice()),
                    };
                    encoder.number(*size).digest(content);
                    encode_offsets(encoder, offsets);
                }
                EntryKind::Symlink { target, self_offsets } => {
                    let mut zeroed = target.clone().into_bytes();
                    write_at(&mut zeroed, self_offsets, SELF_ZEROS);
                    encoder.bytes(&zeroed);
                    encode_offsets(encoder, self_offsets);
                }
            }
        }
    }

    /// Checks that the own id stands where links say that it does. Files are checked by who has their bytes.
    pub(crate) fn check_link_self_references(&self, id: &ObjectId) -> Result<(), DecodeError> {
        for Entry { path, kind } in &self.entries {
            if let EntryKind::Symlink { target, self_offsets } = kind {
                let stands = |offset: &u64| {
                    usize::try_from(*offset).ok().and_then(|start| target.as_bytes().get(start..start + ID_CHARS)) == Some(&id.to_chars())
                };
                if !self_offsets.iter().all(stands) {
                    return Err(DecodeError::invalid("the own id is not where the link says", path.as_str()));
                }
            }
        }
        Ok(())
    }
}

/// Overwrites 32 bytes at each offset; offsets beyond the end are left out.
pub(crate) fn write_at(bytes: &mut [u8], offsets: &[u64], chars: [u8; ID_CHARS]) {
    for offset in offsets {
        if let Some(place) = usize::try_from(*offset).ok().and_then(|start| bytes.get_mut(start..start + ID_CHARS)) {
            place.copy_from_slice(&chars);
        }
    }
}

const fn tag_of(kind: &EntryKind) -> u8 {
    match kind {
        EntryKind::Directory => 0,
        EntryKind::File { executable: false, .. } => 1,
        EntryKind::File { executable: true, .. } => 2,
        EntryKind::Symlink { .. } => 3,
    }
}

fn encode_offsets(encoder: &mut Encoder, offsets: &[u64]) {
    encoder.count(offsets.len());
    for offset in offsets {
        encoder.number(*offset);
    }
}

fn encode_entry(encoder: &mut Encoder, Entry { path, kind }: &Entry) {
    encoder.tag(tag_of(kind)).text(path.as_str());
    match kind {
        EntryKind::Directory => {}
        EntryKind::File { size, digest, executable: _, self_references } => {
            encoder.number(*size).digest(digest);
            match self_references {
                Some(SelfReferences { offsets, modulo }) => {
                    encode_offsets(encoder, offsets);
                    encoder.digest(modulo);
                }
                None => encode_offsets(encoder, &[]),
            }
        }
        EntryKind::Symlink { target, self_offsets } => {
            encoder.text(target);
            encode_offsets(encoder, self_offsets);
        }
    }
}

fn decode_offsets(decoder: &mut Decoder<'_>) -> Result<Vec<u64>, DecodeError> {
    let count = decoder.count("references of an object to itself", SELF_REFERENCES_MAX, 8)?;
    (0..count).map(|_| decoder.number()).collect()
}

fn decode_entry(decoder: &mut Decoder<'_>) -> Result<Entry, DecodeError> {
    let tag = decoder.tag()?;
    let text = decoder.text()?;
    let path: RelPath = text.parse().map_err(|_| DecodeError::invalid("unusable path", text))?;
    let kind = match tag {
        0 => EntryKind::Directory,
        1 | 2 => {
            let size = decoder.number()?;
            let digest = decoder.digest()?;
            let offsets = decode_offsets(decoder)?;
            let self_references = if offsets.is_empty() { None } else { Some(SelfReferences { offsets, modulo: decoder.digest()? }) };
            EntryKind::File { size, digest, executable: tag == 2, self_references }
        }
        3 => {
            let target = decoder.text()?.to_owned();
            EntryKind::Symlink { target, self_offsets: decode_offsets(decoder)? }
        }
        _ => return Err(DecodeError::invalid("unknown kind of entry", path.as_str())),
    };
    Ok(Entry { path, kind })
}

/// Checks every rule of a tree, on entries in their final order.
fn check(entries: &[Entry]) -> Result<(), DecodeError> {
    let count = entries.len() as u64;
    if count > ENTRIES_MAX {
        return Err(DecodeError::Limit { what: "entries of a tree", value: count, limit: ENTRIES_MAX });
    }
    let mut directories = BTreeSet::new();
    let mut previous: Option<&RelPath> = None;
    let mut self_references = 0u64;
    for Entry { path, kind } in entries {
        let text = path.as_str();
        if previous.is_some_and(|previous| previous == path) {
            return Err(DecodeError::invalid("the same path twice", text));
        }
        if previous.is_some_and(|previous| previous > path) {
            return Err(DecodeError::invalid("the paths are not sorted", text));
        }
        if text.rsplit_once('/').is_some_and(|(parent, _)| !directories.contains(parent)) {
            return Err(DecodeError::invalid("the parent is not listed as a directory", text));
        }
        self_references += check_kind(text, kind)?;
        if self_references > SELF_REFERENCES_MAX {
            let (what, limit) = ("references of an object to itself", SELF_REFERENCES_MAX);
            return Err(DecodeError::Limit { what, value: self_references, limit });
        }
        if matches!(kind, EntryKind::Directory) {
            directories.insert(text);
        }
        previous = Some(path);
    }
    Ok(())
}

/// Checks one entry; returns how many references to itself it holds.
fn check_kind(path: &str, kind: &EntryKind) -> Result<u64, DecodeError> {
    match kind {
        EntryKind::Directory => Ok(0),
        EntryKind::File { size, digest: _, executable: _, self_references } => {
            if *size > FILE_BYTES_MAX {
                return Err(DecodeError::Limit { what: "bytes of a file", value: *size, limit: FILE_BYTES_MAX });
            }
            match self_references {
                None => Ok(0),
                Some(SelfReferences { offsets, modulo: _ }) if offsets.is_empty() => {
                    Err(DecodeError::invalid("a list of references to itself is empty", path))
                }
                Some(SelfReferences { offsets, modulo: _ }) => check_offsets(path, offsets, *size),
            }
        }
        EntryKind::Symlink { target, self_offsets } => {
            let bytes = target.len() as u64;
            if bytes == 0 || bytes > TARGET_BYTES_MAX || target.contains('\0') {
                return Err(DecodeError::invalid("unusable link target", path));
            }
            check_offsets(path, self_offsets, bytes)
        }
    }
}

fn check_offsets(path: &str, offsets: &[u64], size: u64) -> Result<u64, DecodeError> {
    let length = ID_CHARS as u64;
    let mut free_from = 0;
    for offset in offsets {
        let end = offset.checked_add(length).filter(|end| *end <= size && *offset >= free_from);
        free_from = end.ok_or_else(|| DecodeError::invalid("references to itself overlap or leave the content", path))?;
    }
    Ok(offsets.len() as u64)
}

#[cfg(test)]
mod tests;

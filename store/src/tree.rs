//! Trees: what an object contains, as one flat sorted list.
//!
//! Every directory is listed, the object's own top is not. Owners, times, set-id bits and extended attributes cannot be expressed.
//! [`Tree::decode`] refuses everything that [`Tree::encode`] would not write, so a tree has exactly one spelling.
//! FORMAT.md, section "Trees".

mod builder;
mod codec;
mod compact;

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use crate::canon::DecodeError;
use crate::id::ID_CHARS;
use crate::{Digest, ObjectId, RelPath};

pub(crate) use builder::TreeBuilder;
use compact::Compact;
pub use compact::Cursor;

/// The first bytes of an encoded tree; the last is the version.
pub const TREE_MAGIC: &str = "SRT1";

/// The most entries of one object: a million files and the directories that they are in. A large `node_modules` has a tenth of it; memory for a tree of
/// this size is about 58 MB.
pub const ENTRIES_MAX: u64 = 1 << 20;

/// The longest tree, in bytes as stored: a million entries of 250 bytes, about 80 and a path each.
pub const TREE_BYTES_MAX: u64 = 256 << 20;

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
/// A clone shares the memory, which is about 55 bytes an entry.
#[derive(Clone, PartialEq, Eq)]
pub struct Tree {
    compact: Arc<Compact>,
    encoded_bytes: u64,
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

/// An entry where it stands in its tree, for loops that need nothing to keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EntryView<'a> {
    /// Its position in the tree.
    pub position: usize,
    /// Where it is, below the object's top.
    pub path: &'a str,
    /// What it is.
    pub kind: KindView<'a>,
}

/// What an entry is, as [`EntryKind`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are those of EntryKind")]
pub enum KindView<'a> {
    /// A directory.
    Directory,
    /// A regular file.
    File { size: u64, digest: &'a Digest, executable: bool, self_references: Option<&'a SelfReferences> },
    /// A symbolic link.
    Symlink { target: &'a str, self_offsets: &'a [u64] },
}

/// What a file is, without its path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileFacts {
    /// The length in bytes.
    pub size: u64,
    /// The digest of the bytes as they are on disk.
    pub digest: Digest,
    /// Whether the mode is 0555.
    pub executable: bool,
}

/// Where a file names its own object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct SelfReferences {
    /// Byte offsets at which the own id stands: at least one, ascending, 32 or more apart.
    pub offsets: Vec<u64>,
    /// The digest of the file with 32 characters `0` at each offset.
    pub modulo: Digest,
}

impl FileFacts {
    /// The name of its inode in `blobs/`.
    pub(crate) const fn key(&self) -> (Digest, bool) {
        (self.digest, self.executable)
    }
}

impl Entry {
    /// The entry as a tree would lend it out.
    fn kind_view(&self) -> KindView<'_> {
        match &self.kind {
            EntryKind::Directory => KindView::Directory,
            EntryKind::File { size, digest, executable, self_references } => {
                KindView::File { size: *size, digest, executable: *executable, self_references: self_references.as_ref() }
            }
            EntryKind::Symlink { target, self_offsets } => KindView::Symlink { target, self_offsets },
        }
    }
}

impl EntryView<'_> {
    /// The entry as a value of its own.
    pub fn to_entry(self) -> Entry {
        let kind = match self.kind {
            KindView::Directory => EntryKind::Directory,
            KindView::File { size, digest, executable, self_references } => {
                EntryKind::File { size, digest: *digest, executable, self_references: self_references.cloned() }
            }
            KindView::Symlink { target, self_offsets } => {
                EntryKind::Symlink { target: target.to_owned(), self_offsets: self_offsets.to_vec() }
            }
        };
        Entry { path: self.to_path(), kind }
    }

    /// The path as a value of its own.
    pub fn to_path(self) -> RelPath {
        RelPath::of_checked(self.path.to_owned())
    }
}

impl Tree {
    /// Makes a tree of entries in any order.
    ///
    /// Errors: [`DecodeError`] names the first rule that the entries break.
    pub fn new(mut entries: Vec<Entry>) -> Result<Self, DecodeError> {
        entries.sort();
        let mut builder = TreeBuilder::new();
        for entry in &entries {
            builder.push(entry.path.as_str(), entry.kind_view())?;
        }
        builder.finish()
    }

    /// The number of entries.
    pub fn len(&self) -> usize {
        self.compact.len()
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The entries, in order. For a loop over many, [`Self::cursor`] and [`Self::files`] are cheaper.
    pub fn entries(&self) -> Entries<'_> {
        Entries { left: self.len(), cursor: self.cursor() }
    }

    /// Goes through the entries, in order, without making a value for each.
    pub fn cursor(&self) -> Cursor<'_> {
        self.cursor_at(0)
    }

    /// As [`Self::cursor`], from a position on.
    pub fn cursor_at(&self, position: usize) -> Cursor<'_> {
        Cursor::new(&self.compact, position)
    }

    /// The files with their positions, in order, without their paths.
    pub fn files(&self) -> impl Iterator<Item = (usize, FileFacts)> {
        (0..self.len()).filter_map(|position| self.file(position).map(|facts| (position, facts)))
    }

    /// The file at a position, if it is one.
    pub fn file(&self, position: usize) -> Option<FileFacts> {
        self.compact.file(position)
    }

    /// The entry at a position.
    pub fn entry(&self, position: usize) -> Option<Entry> {
        self.cursor_at(position).next().map(EntryView::to_entry)
    }

    /// The path at a position.
    pub fn path(&self, position: usize) -> Option<RelPath> {
        self.cursor_at(position).next().map(EntryView::to_path)
    }

    /// The position of `path`, if it is listed.
    pub fn position(&self, path: &str) -> Option<usize> {
        self.compact.position(path).ok()
    }

    /// The entry at `path`, if there is one.
    pub fn get(&self, path: &RelPath) -> Option<Entry> {
        self.entry(self.position(path.as_str())?)
    }

    /// The positions of all that is below the directory at a position; it does not always follow at once, as `a-b` comes before `a/b`.
    pub fn below(&self, position: usize) -> Range<usize> {
        let Some(path) = self.path(position).filter(|_| self.compact.is_directory(position)) else { return 0..0 };
        // No path ends in `/`, and `0` is the byte that follows it.
        let find = |end: char| self.compact.position(&format!("{path}{end}")).unwrap_or_else(|place| place);
        find('/')..find('0')
    }

    /// The sum of the files' sizes, in bytes.
    pub fn file_bytes(&self) -> u64 {
        self.files().fold(0, |sum, (_, file)| sum.saturating_add(file.size))
    }

    /// The positions of the entries that name their own object: first links, then files.
    pub(crate) fn self_referring(&self) -> Vec<usize> {
        self.compact.self_referring()
    }

    /// Fills the object's id in: into links at once, into files by `write`, which returns the digest of the final bytes. Links are handed on, too.
    pub(crate) fn fill_in<E>(&mut self, id: &ObjectId, mut write: impl FnMut(&Entry) -> Result<Option<Digest>, E>) -> Result<(), E> {
        let chars = id.to_string();
        for position in self.compact.self_referring() {
            let compact = Arc::make_mut(&mut self.compact);
            compact.write_into_target(position, &chars);
            let Some(entry) = Cursor::new(compact, position).next().map(EntryView::to_entry) else { continue };
            if let Some(digest) = write(&entry)? {
                compact.set_digest(position, digest);
            }
        }
        Ok(())
    }

    /// Checks that the own id stands where links say that it does. Files are checked by who has their bytes.
    pub(crate) fn check_link_self_references(&self, id: &ObjectId) -> Result<(), DecodeError> {
        for position in self.compact.self_referring() {
            let Some(Entry { path, kind: EntryKind::Symlink { target, self_offsets } }) = self.entry(position) else { continue };
            let stands = |offset: &u64| {
                usize::try_from(*offset).ok().and_then(|start| target.as_bytes().get(start..start + ID_CHARS)) == Some(&id.to_chars())
            };
            if !self_offsets.iter().all(stands) {
                return Err(DecodeError::invalid("the own id is not where the link says", path.as_str()));
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Tree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.entries()).finish()
    }
}

/// The entries of a tree, in order.
#[derive(Debug)]
pub struct Entries<'a> {
    cursor: Cursor<'a>,
    left: usize,
}

impl Iterator for Entries<'_> {
    type Item = Entry;

    fn next(&mut self) -> Option<Entry> {
        let entry = self.cursor.next().map(EntryView::to_entry);
        self.left = self.left.saturating_sub(1);
        entry
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Entries<'_> {}

/// Overwrites 32 bytes at each offset; offsets beyond the end are left out.
pub(crate) fn write_at(bytes: &mut [u8], offsets: &[u64], chars: [u8; ID_CHARS]) {
    for offset in offsets {
        if let Some(place) = usize::try_from(*offset).ok().and_then(|start| bytes.get_mut(start..start + ID_CHARS)) {
            place.copy_from_slice(&chars);
        }
    }
}

#[cfg(test)]
mod tests;

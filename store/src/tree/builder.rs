//! Makes trees entry by entry, in the order of their paths, and checks every rule of FORMAT.md, section "Trees", on the way.
//!
//! The content of a file may be told later than its path, so that files are read on several threads while the list grows. Which directories may
//! still get entries follows from the order: each is a prefix of the path at hand, so remembering their lengths is enough.

use super::codec::{kind_bytes, path_bytes};
use super::compact::{Compact, Cursor};
use super::{
    ENTRIES_MAX, FILE_BYTES_MAX, FileFacts, KindView, SELF_REFERENCES_MAX, SelfReferences, TARGET_BYTES_MAX, TREE_BYTES_MAX, TREE_MAGIC,
    Tree,
};
use crate::canon::DecodeError;
use crate::id::ID_CHARS;
use crate::{RelPath, path::check_path};

/// A tree in the making.
pub(crate) struct TreeBuilder {
    compact: Compact,
    /// The last path.
    last: String,
    /// The lengths of those prefixes of the last path that are directories which may still get entries; ascending.
    open: Vec<usize>,
    encoded_bytes: u64,
    self_references: u64,
}

impl TreeBuilder {
    pub(crate) fn new() -> Self {
        let encoded_bytes = TREE_MAGIC.len() as u64 + 8;
        Self { compact: Compact::default(), last: String::new(), open: Vec::new(), encoded_bytes, self_references: 0 }
    }

    /// Appends an entry. Returns its position.
    pub(crate) fn push(&mut self, path: &str, kind: KindView<'_>) -> Result<usize, DecodeError> {
        let position = self.push_path(path)?;
        self.set(position, kind)?;
        Ok(position)
    }

    /// Appends a file whose content will be told with [`Self::set_file`]. Returns its position.
    pub(crate) fn push_file(&mut self, path: &str) -> Result<usize, DecodeError> {
        self.push_path(path)
    }

    /// Tells the content of a file.
    pub(crate) fn set_file(&mut self, position: usize, facts: FileFacts, own: Option<&SelfReferences>) -> Result<(), DecodeError> {
        let FileFacts { size, digest, executable } = facts;
        self.set(position, KindView::File { size, digest: &digest, executable, self_references: own })
    }

    /// What is known of the file at a position, if it is one and known.
    pub(crate) fn file(&self, position: usize) -> Option<FileFacts> {
        self.compact.file(position)
    }

    /// The path at a position, which must be one of those that were returned.
    pub(crate) fn path(&self, position: usize) -> RelPath {
        let mut cursor = Cursor::new(&self.compact, position);
        RelPath::of_checked(cursor.next().map_or_else(String::new, |entry| entry.path.to_owned()))
    }

    /// Ends the tree.
    pub(crate) fn finish(mut self) -> Result<Tree, DecodeError> {
        if let Some(position) = self.compact.first_pending() {
            return Err(DecodeError::invalid("the content of a file is not known", self.path(position).as_str()));
        }
        self.compact.shrink();
        Ok(Tree { compact: std::sync::Arc::new(self.compact), encoded_bytes: self.encoded_bytes })
    }

    fn push_path(&mut self, path: &str) -> Result<usize, DecodeError> {
        check_path(path).map_err(|_| DecodeError::invalid("unusable path", path))?;
        let count = self.compact.len() as u64 + 1;
        if count > ENTRIES_MAX {
            return Err(DecodeError::Limit { what: "entries of a tree", value: count, limit: ENTRIES_MAX });
        }
        match self.last.as_str().cmp(path) {
            std::cmp::Ordering::Less => {}
            std::cmp::Ordering::Equal => return Err(DecodeError::invalid("the same path twice", path)),
            std::cmp::Ordering::Greater => return Err(DecodeError::invalid("the paths are not sorted", path)),
        }
        let shared = self.last.bytes().zip(path.bytes()).take_while(|(one, other)| one == other).count();
        // What is below a directory follows it behind names such as `a-b`, which sort before `a/`; once the path is past that, none comes any more.
        while self.open.last().is_some_and(|length| *length > shared || path.as_bytes().get(*length).is_none_or(|next| *next > b'/')) {
            self.open.pop();
        }
        if let Some(parent) = path.rfind('/')
            && self.open.binary_search(&parent).is_err()
        {
            return Err(DecodeError::invalid("the parent is not listed as a directory", path));
        }
        self.count_bytes(path_bytes(path))?;
        // A path is cut between characters.
        let position = self.compact.push_path(path, path.floor_char_boundary(shared));
        self.last.clear();
        self.last.push_str(path);
        Ok(position)
    }

    fn set(&mut self, position: usize, kind: KindView<'_>) -> Result<(), DecodeError> {
        self.self_references += match check_kind("", &kind) {
            Ok(count) => count,
            // Once more, with the path for the message.
            Err(_) => check_kind(self.path(position).as_str(), &kind)?,
        };
        if self.self_references > SELF_REFERENCES_MAX {
            let (what, limit) = ("references of an object to itself", SELF_REFERENCES_MAX);
            return Err(DecodeError::Limit { what, value: self.self_references, limit });
        }
        self.count_bytes(kind_bytes(&kind))?;
        if matches!(kind, KindView::Directory) {
            // Only what was appended last is said to be a directory.
            self.open.push(self.last.len());
        }
        self.compact.set(position, kind);
        Ok(())
    }

    fn count_bytes(&mut self, more: u64) -> Result<(), DecodeError> {
        self.encoded_bytes += more;
        if self.encoded_bytes > TREE_BYTES_MAX {
            return Err(DecodeError::Limit { what: "bytes of a tree", value: self.encoded_bytes, limit: TREE_BYTES_MAX });
        }
        Ok(())
    }
}

impl std::fmt::Debug for TreeBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TreeBuilder").field("entries", &self.compact.len()).finish_non_exhaustive()
    }
}

/// Checks one entry; returns how many references to itself it holds.
fn check_kind(path: &str, kind: &KindView<'_>) -> Result<u64, DecodeError> {
    match kind {
        KindView::Directory => Ok(0),
        KindView::File { size, digest: _, executable: _, self_references } => {
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
        KindView::Symlink { target, self_offsets } => {
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

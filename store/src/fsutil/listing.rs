//! What is in a directory, in little memory, and in the order in which a tree lists it.
//!
//! Trees are sorted by the bytes of whole paths: what is in the directory `a` stands behind its neighbour `a-b`, because `-` sorts before
//! `/`. [`Listing::steps`] goes that way, so that whoever walks a directory meets all paths in their final order.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{RawDir, SeekFrom};

use super::directory::{Directory, NodeKind, known_kind};
use super::{FsError, IoResultExt};

/// How much of a directory is listed at a time, in bytes; one name takes 24 and its length.
const LIST_BYTES: usize = 16 << 10;

/// The names in a directory, sorted by their bytes, with their kinds.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    names: Vec<u8>,
    items: Vec<Item>,
}

#[derive(Debug, Clone, Copy)]
struct Item {
    start: u32,
    length: u16,
    kind: NodeKind,
}

/// A step on the way through a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step<'a> {
    /// An entry comes, which may be a directory.
    Entry(&'a OsStr, NodeKind),
    /// What is in this directory, which was an entry before, comes now.
    Descend(&'a OsStr),
}

impl Directory {
    /// Lists the directory.
    ///
    /// Errors: as [`FsError`], also if there are more than `names_max` names.
    pub(crate) fn listing(&self, names_max: u64) -> Result<Listing, FsError> {
        let mut listing = Listing::default();
        // Read through our own handle: opening it anew costs as much as reading a directory of average size.
        rustix::fs::seek(self.descriptor(), SeekFrom::Start(0)).at("list", self.path())?;
        let mut buffer = Vec::with_capacity(LIST_BYTES);
        let mut entries = RawDir::new(self.descriptor(), buffer.spare_capacity_mut());
        while let Some(entry) = entries.next() {
            let entry = entry.at("list", self.path())?;
            let name = entry.file_name().to_bytes();
            if name == b"." || name == b".." {
                continue;
            }
            let kind = known_kind(entry.file_type()).map_or_else(|| self.kind_of(OsStr::from_bytes(name)), Ok)?;
            if listing.items.len() as u64 >= names_max || !listing.push(name, kind) {
                let message = format!("it has more than {names_max} entries");
                return Err(FsError::new("list", self.path(), io::Error::other(message)));
            }
        }
        listing.sort();
        Ok(listing)
    }
}

impl Listing {
    /// Returns whether there was room.
    fn push(&mut self, name: &[u8], kind: NodeKind) -> bool {
        let (Ok(start), Ok(length)) = (u32::try_from(self.names.len()), u16::try_from(name.len())) else { return false };
        self.names.extend_from_slice(name);
        self.items.push(Item { start, length, kind });
        true
    }

    fn sort(&mut self) {
        let Self { names, items } = self;
        items.sort_unstable_by(|one, other| name_in(names, *one).cmp(name_in(names, *other)));
    }

    /// Whether there is any regular file.
    pub(crate) fn has_files(&self) -> bool {
        self.items.iter().any(|item| item.kind == NodeKind::File)
    }

    /// The way through the directory.
    pub(crate) const fn steps(&self) -> Steps<'_> {
        Steps { listing: self, next: 0, waiting: Vec::new() }
    }
}

fn name_in(names: &[u8], item: Item) -> &[u8] {
    let start = usize::try_from(item.start).unwrap_or(usize::MAX);
    &names[start..start + usize::from(item.length)]
}

/// See [`Listing::steps`].
#[derive(Debug)]
pub(crate) struct Steps<'a> {
    listing: &'a Listing,
    next: usize,
    /// Directories whose content is still to come; each is a prefix of the next.
    waiting: Vec<&'a [u8]>,
}

impl<'a> Iterator for Steps<'a> {
    type Item = Step<'a>;

    fn next(&mut self) -> Option<Step<'a>> {
        let item = self.listing.items.get(self.next).copied();
        let name = item.map(|item| name_in(&self.listing.names, item));
        let comes_first =
            |directory: &[u8], name: &[u8]| name.starts_with(directory) && name.get(directory.len()).is_some_and(|next| *next < b'/');
        if let Some(directory) = self.waiting.pop_if(|directory| !name.is_some_and(|name| comes_first(directory, name))) {
            return Some(Step::Descend(OsStr::from_bytes(directory)));
        }
        let (name, kind) = (name?, item?.kind);
        self.next += 1;
        if kind == NodeKind::Directory {
            self.waiting.push(name);
        }
        Some(Step::Entry(OsStr::from_bytes(name), kind))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_is_the_order_of_whole_paths() {
        let mut listing = Listing::default();
        for (name, kind) in [
            ("b", NodeKind::File),
            ("a-b", NodeKind::Directory),
            ("a", NodeKind::Directory),
            ("a-b-c", NodeKind::File),
            ("a.x", NodeKind::File),
            ("a0", NodeKind::Directory),
            ("ab", NodeKind::File),
        ] {
            assert!(listing.push(name.as_bytes(), kind));
        }
        listing.sort();
        let way: Vec<String> = listing
            .steps()
            .map(|step| match step {
                Step::Entry(name, _) => name.to_string_lossy().into_owned(),
                Step::Descend(name) => format!("{}/", name.to_string_lossy()),
            })
            .collect();
        assert_eq!(way, ["a", "a-b", "a-b-c", "a-b/", "a.x", "a/", "a0", "a0/", "ab", "b"]);
        let mut sorted = way.clone();
        sorted.sort();
        assert_eq!(way, sorted);
    }
}

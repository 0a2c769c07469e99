//! Which inodes a transaction made, by their content: so that no content is written twice, and each gets its name in `blobs/`.
//!
//! A content that stands in an object is known by its object and position, 8 bytes, and its digest is looked up in the tree: a million of
//! them take 16 MB. The tree of the object at hand grows here, as its contents are found while others are still being read. Received contents stand
//! beside the objects until all have come.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::Digest;
use crate::tree::{ENTRIES_MAX, Tree, TreeBuilder};

/// The name of an inode in `blobs/`: its content, and whether it is executable.
pub(super) type ContentKey = (Digest, bool);

/// How many bits of a slot are the position; the others are the number of the object plus one, and the mark.
const POSITION_BITS: u32 = 20;
const _: () = assert!(ENTRIES_MAX <= 1 << POSITION_BITS);

/// The mark of a slot: the inode in `blobs/` can take no further link and is to be replaced.
const REPLACES: u64 = 1 << 63;

/// How many slots the first content makes.
const SLOTS_MIN: usize = 64;

/// The inodes that a transaction made.
#[derive(Debug, Default)]
pub(super) struct Contents {
    /// A hash table with open addressing, by the first bytes of digests; 0 is free.
    slots: Vec<u64>,
    used: usize,
    objects: Vec<StagedTree>,
    /// The tree of the last object, while it is in the making.
    growing: Option<TreeBuilder>,
    received: BTreeMap<ContentKey, Received>,
}

/// An object in the staging directory.
#[derive(Debug)]
pub(super) struct StagedTree {
    /// Where it is.
    pub(super) top: PathBuf,
    /// What is in it; nothing while it grows, and after it was dropped.
    pub(super) tree: Option<Tree>,
}

/// A content that came from outside.
#[derive(Debug)]
pub(super) struct Received {
    /// Where it is in the staging directory.
    pub(super) path: PathBuf,
    /// Whether no object has it yet, so that its mode may still change.
    pub(super) unclaimed: bool,
}

impl Contents {
    /// Starts an object, whose tree is [`Self::builder`] until [`Self::take_builder`].
    pub(super) fn begin_object(&mut self, top: &Path) {
        self.objects.push(StagedTree { top: top.to_owned(), tree: None });
        self.growing = Some(TreeBuilder::new());
    }

    /// The tree of the object that was started last.
    pub(super) fn builder(&mut self) -> &mut TreeBuilder {
        self.growing.get_or_insert_with(TreeBuilder::new)
    }

    /// Takes the tree out; until [`Self::end_object`] no content may be asked for.
    pub(super) fn take_builder(&mut self) -> TreeBuilder {
        self.growing.take().unwrap_or_else(TreeBuilder::new)
    }

    /// Ends the object that was started last. Its files at `positions` are contents that are not known yet.
    pub(super) fn end_object(&mut self, tree: Tree, positions: &[usize]) {
        self.growing = None;
        let keys: Vec<_> = positions.iter().filter_map(|position| tree.file(*position).map(|file| (*position, file.key()))).collect();
        if let Some(object) = self.objects.last_mut() {
            object.tree = Some(tree);
        }
        for (position, key) in keys {
            self.insert(&key, position, false);
        }
    }

    /// Drops the object that was started last, with its contents.
    pub(super) fn forget_object(&mut self) {
        self.growing = None;
        let Some(forgotten) = self.objects.len().checked_sub(1) else { return };
        let kept: Vec<u64> = self.slots.iter().copied().filter(|slot| *slot != 0 && place_of(*slot).0 != forgotten).collect();
        self.objects[forgotten].tree = None;
        if kept.len() < self.used {
            self.rebuild(self.slots.len(), &kept);
        }
    }

    /// Where a content is, if this transaction made it. It counts as used then.
    pub(super) fn find(&mut self, key: &ContentKey) -> Option<PathBuf> {
        if let Ok(slot) = self.locate(key) {
            let (object, position) = place_of(self.slots[slot]);
            return Some(self.path(object, position));
        }
        let received = self.received.get_mut(key)?;
        received.unclaimed = false;
        Some(received.path.clone())
    }

    /// Whether this transaction made the content.
    pub(super) fn contains(&self, key: &ContentKey) -> bool {
        self.locate(key).is_ok() || self.received.contains_key(key)
    }

    /// Notes that the file at `position` of the object that was started last is a new content. The tree must know it already.
    pub(super) fn insert(&mut self, key: &ContentKey, position: usize, replaces: bool) {
        let Some(object) = self.objects.len().checked_sub(1) else { return };
        if (self.used + 1) * 4 > self.slots.len() * 3 {
            let kept: Vec<u64> = self.slots.iter().copied().filter(|slot| *slot != 0).collect();
            self.rebuild((self.slots.len() * 2).max(SLOTS_MIN), &kept);
        }
        let value = ((object as u64 + 1) << POSITION_BITS) | position as u64 | if replaces { REPLACES } else { 0 };
        match self.locate(key) {
            Ok(slot) => self.slots[slot] = value,
            Err(free) => {
                self.slots[free] = value;
                self.used += 1;
            }
        }
    }

    /// Whether the file at a position of an object is the one that stands for its content; if so, whether it replaces the inode in `blobs/`.
    pub(super) fn stands_for(&self, key: &ContentKey, object: usize, position: usize) -> Option<bool> {
        let slot = self.slots[self.locate(key).ok()?];
        (place_of(slot) == (object, position)).then_some(slot & REPLACES != 0)
    }

    /// How many contents stand in objects.
    pub(super) const fn len(&self) -> usize {
        self.used
    }

    /// All objects that were started.
    pub(super) fn objects(&self) -> &[StagedTree] {
        &self.objects
    }

    /// The contents that came from outside.
    pub(super) const fn received(&mut self) -> &mut BTreeMap<ContentKey, Received> {
        &mut self.received
    }

    fn path(&self, object: usize, position: usize) -> PathBuf {
        let StagedTree { top, tree } = &self.objects[object];
        let path = match (tree, &self.growing) {
            (Some(tree), _) => tree.path(position),
            (None, Some(growing)) => Some(growing.path(position)),
            (None, None) => None,
        };
        path.map_or_else(|| top.clone(), |path| top.join(path.as_path()))
    }

    fn key(&self, slot: u64) -> Option<ContentKey> {
        let (object, position) = place_of(slot);
        let file = match (&self.objects[object].tree, &self.growing) {
            (Some(tree), _) => tree.file(position),
            (None, Some(growing)) => growing.file(position),
            (None, None) => None,
        };
        file.map(|file| file.key())
    }

    /// The slot of a content, or the one that it would take.
    fn locate(&self, key: &ContentKey) -> Result<usize, usize> {
        if self.slots.is_empty() {
            return Err(0);
        }
        let mask = self.slots.len() - 1;
        let mut slot = start_of(key) & mask;
        loop {
            match self.slots[slot] {
                0 => return Err(slot),
                taken if self.key(taken).as_ref() == Some(key) => return Ok(slot),
                _ => slot = (slot + 1) & mask,
            }
        }
    }

    fn rebuild(&mut self, length: usize, kept: &[u64]) {
        self.slots = Vec::new();
        self.slots.resize(length, 0);
        self.used = kept.len();
        for value in kept {
            let Some(key) = self.key(*value) else { continue };
            if let Err(free) = self.locate(&key) {
                self.slots[free] = *value;
            }
        }
    }
}

/// The object and the position that a slot tells.
fn place_of(slot: u64) -> (usize, usize) {
    let number = |value: u64| usize::try_from(value).unwrap_or(usize::MAX);
    (number(((slot & !REPLACES) >> POSITION_BITS) - 1), number(slot & ((1 << POSITION_BITS) - 1)))
}

/// Where the search for a content begins: digests are as good as random.
fn start_of((digest, executable): &ContentKey) -> usize {
    let bytes = digest.as_bytes().first_chunk().copied().unwrap_or_default();
    usize::try_from(u64::from_le_bytes(bytes) ^ u64::from(*executable)).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::FileFacts;

    fn add(contents: &mut Contents, number: u64) {
        let facts = FileFacts { size: number, digest: Digest::of(&number.to_le_bytes()), executable: number.is_multiple_of(3) };
        let position = contents.builder().push_file(&format!("f{number:09}")).unwrap();
        contents.builder().set_file(position, facts, None).unwrap();
        contents.insert(&facts.key(), position, number.is_multiple_of(5));
    }

    fn key(number: u64) -> ContentKey {
        (Digest::of(&number.to_le_bytes()), number.is_multiple_of(3))
    }

    fn end(contents: &mut Contents) {
        let tree = contents.take_builder().finish().unwrap();
        contents.end_object(tree, &[]);
    }

    #[test]
    fn contents_are_found_in_whatever_object_they_stand() {
        let mut contents = Contents::default();
        assert!(!contents.contains(&key(0)));
        contents.begin_object(Path::new("/one"));
        (0..1000).for_each(|number| add(&mut contents, number));
        assert_eq!(contents.find(&key(999)), Some(PathBuf::from("/one/f000000999")), "while the tree grows");
        end(&mut contents);
        contents.begin_object(Path::new("/two"));
        (1000..1500).for_each(|number| add(&mut contents, number));
        end(&mut contents);
        assert_eq!(contents.len(), 1500);
        assert_eq!(contents.find(&key(7)), Some(PathBuf::from("/one/f000000007")));
        assert_eq!(contents.find(&key(1234)), Some(PathBuf::from("/two/f000001234")));
        assert_eq!(contents.stands_for(&key(1234), 1, 234), Some(false));
        assert_eq!(contents.stands_for(&key(1235), 1, 235), Some(true));
        assert_eq!(contents.stands_for(&key(1235), 0, 235), None);
        let (digest, executable) = key(7);
        assert!(!contents.contains(&(digest, !executable)), "the mode counts");

        contents.begin_object(Path::new("/three"));
        (1500..1600).for_each(|number| add(&mut contents, number));
        contents.forget_object();
        assert!(!contents.contains(&key(1550)));
        assert_eq!((contents.len(), contents.find(&key(1499))), (1500, Some(PathBuf::from("/two/f000001499"))));
    }
}

//! Which old content a new one is told against: pure, by names and sizes.
//!
//! The old object is one of the same name that both sides have, else one whose name differs in digits only. In it, the old file is the one at
//! the same path; else, for renamed directories and versions in file names, one whose name is the same without digits and letters
//! of hexadecimal numbers. A poor choice costs bytes, never correctness.

use std::collections::BTreeMap;

use crate::tree::{FileFacts, KindView, Tree};
use crate::{ObjectName, ObjectRef};

/// How many files of one stem are compared, those nearest in size: there may be thousands of `__init__.py`.
const CANDIDATES_MAX: usize = 32;

/// The objects that both sides have, by name.
#[derive(Debug, Default)]
pub(crate) struct BaseObjects {
    by_name: BTreeMap<ObjectName, ObjectRef>,
    by_stem: BTreeMap<String, ObjectRef>,
}

impl BaseObjects {
    /// Of several objects of one name the first is taken.
    pub(crate) fn new<'a>(objects: impl IntoIterator<Item = &'a ObjectRef>) -> Self {
        let mut bases = Self::default();
        for object in objects {
            bases.by_name.entry(object.name.clone()).or_insert_with(|| object.clone());
            bases.by_stem.entry(without_digits(object.name.as_str())).or_insert_with(|| object.clone());
        }
        bases
    }

    /// The object that `object` is likely to have grown out of.
    pub(crate) fn of(&self, object: &ObjectRef) -> Option<&ObjectRef> {
        self.by_name.get(&object.name).or_else(|| self.by_stem.get(&without_digits(object.name.as_str())))
    }
}

/// The files of an old tree, ready to be chosen for files of a new one.
#[derive(Debug)]
pub(crate) struct BaseFiles<'a> {
    old: &'a Tree,
    new: &'a Tree,
    /// Positions in the old tree, sorted by size.
    by_stem: BTreeMap<String, Vec<(u64, usize)>>,
}

impl<'a> BaseFiles<'a> {
    pub(crate) fn new(old: &'a Tree, new: &'a Tree) -> Self {
        let mut by_stem: BTreeMap<String, Vec<(u64, usize)>> = BTreeMap::new();
        let mut cursor = old.cursor();
        while let Some(entry) = cursor.next() {
            if let KindView::File { size: size @ 1.., .. } = entry.kind {
                by_stem.entry(stem(entry.path)).or_default().push((size, entry.position));
            }
        }
        for files in by_stem.values_mut() {
            files.sort_unstable();
        }
        Self { old, new, by_stem }
    }

    /// The position in the old tree of the file that the `position`-th entry of the new one is told against.
    pub(crate) fn choose(&self, position: usize) -> Option<usize> {
        let FileFacts { size, .. } = self.new.file(position)?;
        let path = self.new.path(position)?;
        if let Some(same) = self.old.position(path.as_str())
            && self.old.file(same).is_some_and(|file| file.size > 0)
        {
            return Some(same);
        }
        let files = self.by_stem.get(&stem(path.as_str()))?;
        let middle = files.partition_point(|(old_size, _)| *old_size < size);
        let first = middle.saturating_sub(CANDIDATES_MAX / 2);
        let nearest = &files[first..files.len().min(first + CANDIDATES_MAX)];
        let directory = directory(path.as_str());
        let rank = |(old_size, old_position): &(u64, usize)| {
            let elsewhere = self.old.path(*old_position).is_none_or(|old| self::directory(old.as_str()) != directory);
            (self.stays(*old_position), elsewhere, old_size.abs_diff(size), *old_position)
        };
        nearest.iter().min_by_key(|file| rank(file)).map(|(_, position)| *position)
    }

    /// Whether the old file is in the new tree unchanged: then what looks like its successor probably is another file.
    fn stays(&self, position: usize) -> bool {
        let (Some(old), Some(path)) = (self.old.file(position), self.old.path(position)) else { return false };
        let new = self.new.position(path.as_str()).and_then(|position| self.new.file(position));
        new.is_some_and(|new| new.digest == old.digest)
    }
}

fn directory(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(directory, _)| directory)
}

/// The file name without digits and `a` to `f`, so that versions and digests in it do not count.
fn stem(path: &str) -> String {
    let name = path.rsplit_once('/').map_or(path, |(_, name)| name);
    name.chars().filter(|c| !matches!(c, '0'..='9' | 'a'..='f')).collect()
}

fn without_digits(name: &str) -> String {
    name.chars().filter(|c| !c.is_ascii_digit()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::{Entry, EntryKind};
    use crate::{Digest, ObjectId};

    fn tree(files: &[(&str, u64, &str)]) -> Tree {
        let mut entries: BTreeMap<String, EntryKind> = BTreeMap::new();
        for (path, size, content) in files {
            let kind = EntryKind::File { size: *size, digest: Digest::of(content.as_bytes()), executable: false, self_references: None };
            entries.insert((*path).to_owned(), kind);
            for (end, _) in path.match_indices('/') {
                entries.insert(path[..end].to_owned(), EntryKind::Directory);
            }
        }
        Tree::new(entries.into_iter().map(|(path, kind)| Entry { path: path.parse().unwrap(), kind }).collect()).unwrap()
    }

    fn chosen(old: &[(&str, u64, &str)], new: &[(&str, u64, &str)], path: &str) -> Option<String> {
        let (old, new) = (tree(old), tree(new));
        let position = new.position(path).unwrap();
        BaseFiles::new(&old, &new).choose(position).map(|position| old.path(position).unwrap().to_string())
    }

    #[test]
    fn the_same_path_comes_first_then_what_vanished_changed_is_near_or_has_the_size() {
        let old = [("lib/libx.so.17", 100, "17"), ("lib/libx.so.9", 900, "9"), ("other/libx.so.1", 901, "1"), ("empty", 0, "")];
        let choose = |new: &[(&str, u64, &str)], path| chosen(&old, new, path);
        assert_eq!(choose(&[("lib/libx.so.17", 1, "new")], "lib/libx.so.17").as_deref(), Some("lib/libx.so.17"));
        // The same directory before the closer size; a file that stays only if there is nothing else.
        assert_eq!(choose(&[("lib/libx.so.18", 901, "new")], "lib/libx.so.18").as_deref(), Some("lib/libx.so.9"));
        assert_eq!(choose(&[("lib/libx.so.18", 102, "new")], "lib/libx.so.18").as_deref(), Some("lib/libx.so.17"));
        let stays = [("lib/libx.so.18", 102, "new"), ("lib/libx.so.17", 100, "17")];
        assert_eq!(choose(&stays, "lib/libx.so.18").as_deref(), Some("lib/libx.so.9"));
        assert_eq!(choose(&[("new/liby.so", 100, "new")], "new/liby.so"), None);
        assert_eq!(choose(&[("empty", 5, "new")], "empty"), None);
    }

    #[test]
    fn objects_of_the_same_name_come_before_those_of_another_version() {
        let object = |name: &str, seed: &str| ObjectRef { id: ObjectId::placeholder(seed), name: name.parse().unwrap() };
        let have = [object("numpy-2.1.2", "a"), object("numpy-2.1.3", "b"), object("numpy-2.1.3", "c")];
        let bases = BaseObjects::new(&have);
        assert_eq!(bases.of(&object("numpy-2.1.3", "new")), Some(&have[1]));
        assert_eq!(bases.of(&object("numpy-2.2.0", "new")), Some(&have[0]));
        assert_eq!(bases.of(&object("scipy", "new")), None);
    }
}

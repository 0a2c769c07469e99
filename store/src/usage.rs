//! How much space objects take, and how much of it is theirs alone.
//!
//! Link counts tell: an inode that has no names but those in the objects at hand and the one in `blobs/` would go with them. Nothing is read
//! but manifests, and nothing is remembered but the inodes of the objects at hand.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use crate::ObjectRef;
use crate::error::StoreError;
use crate::fsutil::{self, Directory, FsError, NodeKind};
use crate::objects::ObjectStore;
use crate::tree::KindView;

/// What some objects take together, in bytes of file contents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// How many files there are.
    pub files: u64,
    /// Their length, each file by itself.
    pub bytes: u64,
    /// The length of their contents, each content once: what a store with nothing else would need.
    pub distinct: u64,
    /// The part of `distinct` that no other object holds: what their removal would free.
    pub unique: u64,
}

impl Usage {
    /// The part of `distinct` that other objects hold as well.
    pub const fn shared(&self) -> u64 {
        self.distinct - self.unique
    }
}

/// What lies beside the objects and is of no use to them, in bytes of files, each inode once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Leftovers {
    /// What the next collection removes for good.
    pub trash: u64,
    /// What repairs found damaged; nobody but its owner removes it.
    pub quarantine: u64,
}

/// A name of an inode in the objects at hand: 32 bytes, as there may be a million.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Name {
    device: u64,
    inode: u64,
    size: u64,
    /// How many names the inode has, but for the one in `blobs/`.
    links: u64,
}

impl ObjectStore {
    /// What objects take together. Ask for a [`ObjectStore::closure`] to know what a bundle or generation takes.
    ///
    /// An object that is given twice counts once. While a transaction is under way, what it has linked counts as shared.
    /// Errors: [`StoreError::Missing`]; [`StoreError::Damaged`] if a manifest cannot be read.
    pub fn usage(&self, objects: &[ObjectRef]) -> Result<Usage, StoreError> {
        let mut usage = Usage::default();
        let mut names: Vec<Name> = Vec::new();
        let objects: std::collections::BTreeSet<&ObjectRef> = objects.iter().collect();
        for object in objects {
            let top = self.object_path(object);
            let tree = self.manifest(object)?.tree;
            let mut cursor = tree.cursor();
            while let Some(entry) = cursor.next() {
                let KindView::File { size, digest, executable, self_references: _ } = entry.kind else { continue };
                let path = top.join(entry.path);
                let metadata = std::fs::symlink_metadata(&path).map_err(|error| FsError::new("inspect", &path, error))?;
                usage.files += 1;
                usage.bytes += size;
                let key = (metadata.dev(), metadata.ino());
                let blob = std::fs::symlink_metadata(self.blob_path(digest, executable));
                let own_names = u64::from(blob.is_ok_and(|blob| (blob.dev(), blob.ino()) == key));
                names.push(Name { device: key.0, inode: key.1, size, links: metadata.nlink().saturating_sub(own_names) });
            }
        }
        names.sort_unstable();
        for inode in names.chunk_by(|one, other| (one.device, one.inode) == (other.device, other.inode)) {
            let Name { size, links, .. } = inode[0];
            usage.distinct += size;
            if links <= inode.len() as u64 {
                usage.unique += size;
            }
        }
        Ok(usage)
    }
}

impl ObjectStore {
    /// What lies in `trash/` and `quarantine/`.
    pub fn leftovers(&self) -> Result<Leftovers, StoreError> {
        let mut seen = BTreeSet::new();
        let quarantine = bytes_below(self.root().join("quarantine"), &mut seen)?;
        let trash = bytes_below(self.root().join("trash"), &mut seen)?;
        Ok(Leftovers { trash, quarantine })
    }
}

/// The length of all files below a directory, those of inodes in `seen` excepted; what goes away meanwhile does not count.
fn bytes_below(directory: PathBuf, seen: &mut BTreeSet<(u64, u64)>) -> Result<u64, StoreError> {
    let mut bytes = 0;
    let mut open = vec![directory];
    while let Some(path) = open.pop() {
        let names = match Directory::open(&path).and_then(|directory| directory.names()) {
            Err(error) if error.is_missing() => continue,
            names => names?,
        };
        for name in names {
            let path = path.join(name);
            match fsutil::node_at(&path) {
                Ok(node) if node.kind == NodeKind::Directory => open.push(path),
                Ok(node) if seen.insert((node.stamp.device, node.stamp.inode)) => bytes += node.stamp.size,
                Ok(_) => {}
                Err(error) if error.is_missing() => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{NewEntry, NewEntryKind};

    #[test]
    fn what_is_shared_is_not_unique() {
        let directory = tempfile::tempdir().unwrap();
        let store = ObjectStore::open(directory.path()).unwrap();
        let entry = |path: &str, content: &[u8]| NewEntry {
            path: path.parse().unwrap(),
            kind: NewEntryKind::File { content: content.into(), executable: false },
        };
        let mut transaction = store.begin().unwrap();
        let mut put = |name: &str, entries: &[NewEntry]| transaction.put_entries(&name.parse().unwrap(), entries, None, &[]).unwrap();
        let one = put("one", &[entry("a", &[1; 100]), entry("b", &[1; 100]), entry("c", &[2; 1000])]);
        let two = put("two", &[entry("a", &[1; 100]), entry("d", &[3; 7])]);
        transaction.barrier().unwrap();
        let usage = |objects: &[ObjectRef]| store.usage(objects).unwrap();
        assert_eq!(usage(std::slice::from_ref(&one)), Usage { files: 3, bytes: 1200, distinct: 1100, unique: 1000 });
        assert_eq!(usage(std::slice::from_ref(&two)), Usage { files: 2, bytes: 107, distinct: 107, unique: 7 });
        assert_eq!(usage(&[one.clone(), two, one]), Usage { files: 5, bytes: 1307, distinct: 1107, unique: 1107 });
    }
}

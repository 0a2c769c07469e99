//! The staging directory of one object: its directories, links and files, and what is known of them.
//!
//! Directories on disk come in through [`super::ingest`], objects in memory and received ones right here. Known contents are linked, new ones written with their final mode. A file that names its own object is first written with zeros in place
//! of the id, which is what the id is computed from; [`Staging::finish`] writes the id into it. Nothing is read twice but those files.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::canon::DecodeError;
use crate::error::StoreError;
use crate::fsutil::{self, Directory, FsError, IoResultExt};
use crate::object::ObjectManifest;
use crate::objects::ObjectStore;
use crate::scan::{CHUNK_BYTES, Candidates, digests_of, scan_whole};
use crate::tree::{ENTRIES_MAX, Entry, EntryKind, KindView, SelfReferences, Tree};
use crate::{Digest, ObjectId, ObjectRef, RelPath};

use super::{ContentKey, NewContent, NewEntry, NewEntryKind};

/// One object in the making.
#[derive(Debug)]
pub(super) struct Staging<'a> {
    pub(super) store: &'a ObjectStore,
    pub(super) contents: &'a mut BTreeMap<ContentKey, NewContent>,
    pub(super) candidates: &'a Candidates,
    pub(super) top: PathBuf,
    entries: Vec<Entry>,
    pub(super) references: BTreeSet<ObjectRef>,
    /// The directory that the last entry went to: the next one mostly goes there too.
    last_parent: Option<(Option<RelPath>, Directory)>,
}

/// How linking a known content ended.
pub(super) enum Linked {
    Done,
    /// There is no such content.
    Unknown,
    /// The inode has as many names as the file system allows.
    Full,
}

impl<'a> Staging<'a> {
    pub(super) fn begin(
        store: &'a ObjectStore,
        contents: &'a mut BTreeMap<ContentKey, NewContent>,
        candidates: &'a Candidates,
        top: &Path,
    ) -> Result<Self, StoreError> {
        fsutil::create_dir(top, 0o755)?;
        Ok(Self { store, contents, candidates, top: top.to_owned(), entries: Vec::new(), references: BTreeSet::new(), last_parent: None })
    }

    /// Creates entries from memory, with their parents.
    pub(super) fn write_entries(&mut self, entries: &[NewEntry]) -> Result<(), StoreError> {
        let mut sorted: BTreeMap<&RelPath, &NewEntryKind> = BTreeMap::new();
        for NewEntry { path, kind } in entries {
            let twice = sorted.insert(path, kind);
            if twice.is_some_and(|first| !matches!((first, kind), (NewEntryKind::Directory, NewEntryKind::Directory))) {
                return Err(StoreError::Refused { path: path.as_path().to_owned(), reason: "two entries have this path" });
            }
        }
        let mut parents = BTreeSet::new();
        for path in sorted.keys() {
            let mut parent = path.parent();
            while let Some(directory) = parent {
                if sorted.get(&directory).is_some_and(|kind| !matches!(kind, NewEntryKind::Directory)) {
                    return Err(StoreError::Refused { path: path.as_path().to_owned(), reason: "an entry above it is not a directory" });
                }
                parent = directory.parent();
                if !sorted.contains_key(&directory) {
                    parents.insert(directory);
                }
            }
        }
        sorted.extend(parents.iter().map(|path| (path, &NewEntryKind::Directory)));
        for (path, kind) in sorted {
            match kind {
                NewEntryKind::Directory => self.create_directory(path)?,
                NewEntryKind::Symlink { target } => self.add_symlink(path, target)?,
                NewEntryKind::File { content, executable } => self.add_small_file(path, content.to_vec(), *executable)?,
            }
        }
        Ok(())
    }

    /// Creates a directory.
    pub(super) fn create_directory(&mut self, path: &RelPath) -> Result<(), StoreError> {
        self.check_name(path)?;
        self.parent(path)?.create_child(path.file_name().as_ref())?;
        self.push(path, EntryKind::Directory)
    }

    /// Creates a symbolic link as it is.
    pub(super) fn create_symlink(&mut self, path: &RelPath, target: &str) -> Result<(), StoreError> {
        let parent = self.parent(path)?;
        parent.create_symlink(path.file_name().as_ref(), target)?;
        Ok(parent.freeze_link(path.file_name().as_ref())?)
    }

    pub(super) fn add_symlink(&mut self, path: &RelPath, target: &str) -> Result<(), StoreError> {
        self.check_name(path)?;
        let mut zeroed = target.as_bytes().to_vec();
        let found = scan_whole(self.candidates, &mut zeroed);
        self.references.extend(found.references);
        if found.offsets.is_empty() {
            self.create_symlink(path, target)?;
        }
        // One that names its own object is created once the id is known.
        self.push(path, EntryKind::Symlink { target: target.to_owned(), self_offsets: found.offsets })
    }

    fn add_small_file(&mut self, path: &RelPath, mut content: Vec<u8>, executable: bool) -> Result<(), StoreError> {
        self.check_name(path)?;
        let found = scan_whole(self.candidates, &mut content);
        self.references.extend(found.references);
        let (digest, size) = (Digest::of(&content), content.len() as u64);
        if !found.offsets.is_empty() {
            self.create_file(path, |file, shown| file.write_all(&content).at("write", shown))?;
            return self.push_self_referring(path, (size, digest), executable, found.offsets);
        }
        self.push(path, EntryKind::File { size, digest, executable, self_references: None })?;
        let key = (digest, executable);
        let linked = self.link_content(path, &key)?;
        if matches!(linked, Linked::Done) {
            return Ok(());
        }
        self.parent(path)?.write_frozen(path.file_name().as_ref(), &content, executable)?;
        self.note_content(key, path, matches!(linked, Linked::Full));
        Ok(())
    }

    /// Adds entries of files that are in their places.
    pub(super) fn extend(&mut self, entries: Vec<Entry>) -> Result<(), StoreError> {
        if (self.entries.len() + entries.len()) as u64 > ENTRIES_MAX {
            return Err(too_many_entries(&self.top));
        }
        self.entries.extend(entries);
        Ok(())
    }

    /// Links a content that is known, of either mode, to its place; returns whether there is one.
    pub(super) fn link_known_content(&mut self, path: &RelPath, key: &ContentKey) -> Result<bool, StoreError> {
        let linked = self.link_content(path, key)?;
        if matches!(linked, Linked::Done) {
            return Ok(true);
        }
        let (digest, executable) = *key;
        // The same bytes with the other mode, or an inode that takes no further link: a new inode is due.
        for key in [(digest, executable), (digest, !executable)] {
            let staged = self.contents.get(&key).map(|content| content.path.clone());
            for existing in staged.into_iter().chain([self.store.blob_path(&digest, key.1)]) {
                let mut source = match open_for_reading(&existing) {
                    Ok(source) => source,
                    Err(error) if error.is_missing() => continue,
                    Err(error) => return Err(error.into()),
                };
                let mut hashing = blake3::Hasher::new();
                self.create_file(path, |file, shown| {
                    copy_hashed(&mut source, file, &mut hashing).at("copy", shown)?;
                    fsutil::freeze_file(file, executable, shown)
                })?;
                let found = Digest::from(hashing.finalize());
                if found != digest {
                    let what = format!("`{}`", existing.display());
                    return Err(StoreError::WrongContent { what, expected: digest, found });
                }
                self.note_content((digest, executable), path, matches!(linked, Linked::Full));
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The tree as the id is computed from it; self-referring files still have their zeroed content.
    pub(super) fn tree_for_id(&mut self) -> Result<Tree, DecodeError> {
        Tree::new(std::mem::take(&mut self.entries))
    }

    /// The objects that were found, sorted.
    pub(super) fn references(&self) -> Vec<ObjectRef> {
        self.references.iter().cloned().collect()
    }

    /// Writes the id where the object names itself, on disk and in its tree, and gives directories their final mode.
    pub(super) fn finish(mut self, tree: &mut Tree, id: &ObjectId) -> Result<(), StoreError> {
        tree.fill_in(id, |Entry { path, kind }| match kind {
            EntryKind::Symlink { target, self_offsets: _ } => self.create_symlink(path, target).map(|()| None),
            EntryKind::File { executable, self_references: Some(own), .. } => self.write_own_id(path, own, *executable, id).map(Some),
            EntryKind::File { .. } | EntryKind::Directory => Ok(None),
        })?;
        self.freeze_directories(tree)
    }

    /// Writes the id into a file that names its own object; returns the digest of its final bytes.
    fn write_own_id(&mut self, path: &RelPath, own: &SelfReferences, executable: bool, id: &ObjectId) -> Result<Digest, StoreError> {
        let shown = self.top.join(path.as_path());
        let file = self.parent(path)?.open_own_file(path.file_name().as_ref())?;
        for offset in &own.offsets {
            file.write_all_at(&id.to_chars(), *offset).at("write", &shown)?;
        }
        let digest = digests_of(&file, &[], id, &shown)?.digest;
        fsutil::freeze_file(&file, executable, &shown)?;
        self.note_content((digest, executable), path, false);
        Ok(digest)
    }

    /// Makes the directories below the top read-only. The top itself follows when it has its name: its owner could not move it otherwise.
    pub(super) fn freeze_directories(&mut self, tree: &Tree) -> Result<(), StoreError> {
        self.last_parent = None;
        let mut cursor = tree.cursor();
        while let Some(entry) = cursor.next() {
            if matches!(entry.kind, KindView::Directory) {
                Directory::open(&self.top.join(entry.path))?.freeze()?;
            }
        }
        Ok(())
    }

    pub(super) fn push(&mut self, path: &RelPath, kind: EntryKind) -> Result<(), StoreError> {
        if self.entries.len() as u64 >= ENTRIES_MAX {
            return Err(too_many_entries(path.as_path()));
        }
        self.entries.push(Entry { path: path.clone(), kind });
        Ok(())
    }

    fn push_self_referring(
        &mut self,
        path: &RelPath,
        (size, modulo): (u64, Digest),
        executable: bool,
        offsets: Vec<u64>,
    ) -> Result<(), StoreError> {
        // The digest of the final bytes is known after the id.
        self.push(path, EntryKind::File { size, digest: modulo, executable, self_references: Some(SelfReferences { offsets, modulo }) })
    }

    pub(super) fn check_name(&mut self, path: &RelPath) -> Result<(), StoreError> {
        self.references.extend(references_in_name(self.candidates, path)?);
        Ok(())
    }

    fn create_file(&mut self, path: &RelPath, write: impl FnOnce(&mut File, &Path) -> Result<(), FsError>) -> Result<File, StoreError> {
        let shown = self.top.join(path.as_path());
        let mut file = self.parent(path)?.create_file(path.file_name().as_ref())?;
        write(&mut file, &shown)?;
        Ok(file)
    }

    fn note_content(&mut self, key: ContentKey, path: &RelPath, replaces: bool) {
        let content = NewContent { path: self.top.join(path.as_path()), replaces, unclaimed: false };
        self.contents.insert(key, content);
    }

    /// Links a content of this mode to its place, from this transaction or from `blobs/`.
    fn link_content(&mut self, path: &RelPath, key: &ContentKey) -> Result<Linked, StoreError> {
        let staged = self.contents.get_mut(key).map(|content| {
            content.unclaimed = false;
            content.path.clone()
        });
        let existing = staged.unwrap_or_else(|| self.store.blob_path(&key.0, key.1));
        let name: &OsStr = path.file_name().as_ref();
        link_result(self.parent(path)?.link_from(&existing, name))
    }

    fn parent(&mut self, path: &RelPath) -> Result<&Directory, StoreError> {
        let wanted = path.parent();
        let entry = if let Some(entry) = self.last_parent.take().filter(|(parent, _)| *parent == wanted) {
            entry
        } else {
            let path = wanted.as_ref().map_or_else(|| self.top.clone(), |parent| self.top.join(parent.as_path()));
            (wanted, Directory::open(&path)?)
        };
        Ok(&self.last_parent.insert(entry).1)
    }
}

/// Looks for ids in the name of an entry: a path is as good a reference as a content.
pub(super) fn references_in_name(candidates: &Candidates, path: &RelPath) -> Result<BTreeSet<ObjectRef>, StoreError> {
    if candidates.is_empty() {
        return Ok(BTreeSet::new());
    }
    let mut name = path.file_name().as_bytes().to_vec();
    let found = scan_whole(candidates, &mut name);
    if found.offsets.is_empty() {
        return Ok(found.references);
    }
    let reason = "its name holds the object's own id, which is not known yet";
    Err(StoreError::Refused { path: path.as_path().to_owned(), reason })
}

fn too_many_entries(path: &Path) -> StoreError {
    StoreError::Refused { path: path.to_owned(), reason: "the object has more than a million entries" }
}

/// Writes the manifest of a staged object; the barrier makes it durable.
pub(super) fn write_manifest(path: &Path, manifest: &ObjectManifest) -> Result<(), FsError> {
    let mut file = fsutil::create_own_file(path)?;
    manifest.encode_to(&mut file).at("write", path)?;
    // Its time stays that of publication: the collector's grace counts from it.
    fsutil::set_mode(path, 0o444)
}

/// Opens a file of the store for reading.
pub(super) fn open_for_reading(path: &Path) -> Result<File, FsError> {
    File::open(path).at("open", path)
}

fn copy_hashed(source: &mut File, target: &mut File, hasher: &mut blake3::Hasher) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        match source.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(length) => {
                hasher.update(&buffer[..length]);
                target.write_all(&buffer[..length])?;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

pub(super) fn link_result(result: Result<(), FsError>) -> Result<Linked, StoreError> {
    match result {
        Ok(()) => Ok(Linked::Done),
        Err(error) if error.is_missing() => Ok(Linked::Unknown),
        Err(error) if error.source.kind() == io::ErrorKind::TooManyLinks => Ok(Linked::Full),
        Err(error) => Err(error.into()),
    }
}

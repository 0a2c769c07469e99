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

use crate::error::StoreError;
use crate::fsutil::{self, Directory, FsError, IoResultExt};
use crate::object::{ObjectManifest, object_id};
use crate::objects::ObjectStore;
use crate::scan::{CHUNK_BYTES, Candidates, Found, digests_of, scan_whole};
use crate::tree::{Entry, EntryKind, FileFacts, KindView, SelfReferences, Tree};
use crate::{Digest, ObjectId, ObjectName, ObjectRef, RelPath};

use super::contents::{ContentKey, Contents};
use super::{NewEntry, NewEntryKind, unusable};

/// One object in the making. Its tree grows in the contents.
#[derive(Debug)]
pub(super) struct Staging<'a> {
    pub(super) store: &'a ObjectStore,
    pub(super) contents: &'a mut Contents,
    pub(super) candidates: &'a Candidates,
    pub(super) name: &'a ObjectName,
    pub(super) top: PathBuf,
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
        contents: &'a mut Contents,
        candidates: &'a Candidates,
        (name, top): (&'a ObjectName, &Path),
    ) -> Result<Self, StoreError> {
        fsutil::create_dir(top, 0o755)?;
        contents.begin_object(top);
        Ok(Self { store, contents, candidates, name, top: top.to_owned(), references: BTreeSet::new(), last_parent: None })
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
                NewEntryKind::Directory => self.add_directory(path)?,
                NewEntryKind::Symlink { target } => self.add_symlink(path, target)?,
                NewEntryKind::File { content, executable } => self.add_small_file(path, content.to_vec(), *executable)?,
            }
        }
        Ok(())
    }

    fn add_directory(&mut self, path: &RelPath) -> Result<(), StoreError> {
        self.check_name(path.file_name(), path)?;
        self.create_directory(path)?;
        self.push(path, KindView::Directory).map(drop)
    }

    /// Creates a directory.
    pub(super) fn create_directory(&mut self, path: &RelPath) -> Result<(), StoreError> {
        Ok(self.parent(path)?.create_child(path.file_name().as_ref()).map(drop)?)
    }

    /// Creates a symbolic link as it is.
    pub(super) fn create_symlink(&mut self, path: &RelPath, target: &str) -> Result<(), StoreError> {
        let parent = self.parent(path)?;
        parent.create_symlink(path.file_name().as_ref(), target)?;
        Ok(parent.freeze_link(path.file_name().as_ref())?)
    }

    fn add_symlink(&mut self, path: &RelPath, target: &str) -> Result<(), StoreError> {
        self.check_name(path.file_name(), path)?;
        let found = scan_target(self.candidates, target);
        self.references.extend(found.references);
        if found.offsets.is_empty() {
            self.create_symlink(path, target)?;
        }
        // One that names its own object is created once the id is known.
        self.push(path, KindView::Symlink { target, self_offsets: &found.offsets }).map(drop)
    }

    fn add_small_file(&mut self, path: &RelPath, mut content: Vec<u8>, executable: bool) -> Result<(), StoreError> {
        self.check_name(path.file_name(), path)?;
        let found = scan_whole(self.candidates, &mut content);
        self.references.extend(found.references);
        let facts = FileFacts { size: content.len() as u64, digest: Digest::of(&content), executable };
        if !found.offsets.is_empty() {
            self.create_file(path, |file, shown| file.write_all(&content).at("write", shown))?;
            return self.push_file(path, facts, found.offsets).map(drop);
        }
        let position = self.push_file(path, facts, Vec::new())?;
        let linked = self.link_content(path, &facts.key())?;
        if matches!(linked, Linked::Done) {
            return Ok(());
        }
        self.parent(path)?.write_frozen(path.file_name().as_ref(), &content, executable)?;
        self.contents.insert(&facts.key(), position, matches!(linked, Linked::Full));
        Ok(())
    }

    /// Links a content that is known, of either mode, to the place of the entry at `position`; returns whether there is one.
    pub(super) fn link_known_content(&mut self, path: &RelPath, position: usize, key: &ContentKey) -> Result<bool, StoreError> {
        let linked = self.link_content(path, key)?;
        if matches!(linked, Linked::Done) {
            return Ok(true);
        }
        let (digest, executable) = *key;
        // The same bytes with the other mode, or an inode that takes no further link: a new inode is due.
        for key in [(digest, executable), (digest, !executable)] {
            let staged = self.contents.find(&key);
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
                self.contents.insert(&(digest, executable), position, matches!(linked, Linked::Full));
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Ends the object: computes its id, writes it where the object names itself, on disk and in the tree, and gives directories their final mode.
    pub(super) fn finish(mut self) -> Result<ObjectManifest, StoreError> {
        let mut tree = self.contents.take_builder().finish().map_err(unusable(self.name))?;
        let references: Vec<ObjectRef> = std::mem::take(&mut self.references).into_iter().collect();
        let id = object_id(self.name, &references, &tree);
        tree.fill_in(&id, |Entry { path, kind }| match kind {
            EntryKind::Symlink { target, self_offsets: _ } => self.create_symlink(path, target).map(|()| None),
            EntryKind::File { executable, self_references: Some(own), .. } => self.write_own_id(path, own, *executable, &id).map(Some),
            EntryKind::File { .. } | EntryKind::Directory => Ok(None),
        })?;
        self.freeze_directories(&tree)?;
        let manifest = ObjectManifest { object: ObjectRef { id, name: self.name.clone() }, references, tree };
        manifest.encoded_bytes().map_err(unusable(self.name))?;
        let own: Vec<usize> =
            manifest.tree.self_referring().into_iter().filter(|position| manifest.tree.file(*position).is_some()).collect();
        self.contents.end_object(manifest.tree.clone(), &own);
        Ok(manifest)
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

    fn push(&mut self, path: &RelPath, kind: KindView<'_>) -> Result<usize, StoreError> {
        self.contents.builder().push(path.as_str(), kind).map_err(unusable(self.name))
    }

    /// With own references, the digest is that of the content without the id; that of the final bytes is known after the id.
    fn push_file(
        &mut self,
        path: &RelPath,
        FileFacts { size, digest, executable }: FileFacts,
        offsets: Vec<u64>,
    ) -> Result<usize, StoreError> {
        let own = (!offsets.is_empty()).then_some(SelfReferences { offsets, modulo: digest });
        self.push(path, KindView::File { size, digest: &digest, executable, self_references: own.as_ref() })
    }

    fn check_name(&mut self, name: &str, path: &RelPath) -> Result<(), StoreError> {
        self.references.extend(references_in_name(self.candidates, name, || path.as_path().to_owned())?);
        Ok(())
    }

    fn create_file(&mut self, path: &RelPath, write: impl FnOnce(&mut File, &Path) -> Result<(), FsError>) -> Result<File, StoreError> {
        let shown = self.top.join(path.as_path());
        let mut file = self.parent(path)?.create_file(path.file_name().as_ref())?;
        write(&mut file, &shown)?;
        Ok(file)
    }

    /// Links a content of this mode to its place, from this transaction or from `blobs/`.
    fn link_content(&mut self, path: &RelPath, key: &ContentKey) -> Result<Linked, StoreError> {
        let existing = self.contents.find(key).unwrap_or_else(|| self.store.blob_path(&key.0, key.1));
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

/// Looks for ids in the name of an entry: a path is as good a reference as a content. `shown` is for the message.
pub(super) fn references_in_name(
    candidates: &Candidates,
    name: &str,
    shown: impl FnOnce() -> PathBuf,
) -> Result<BTreeSet<ObjectRef>, StoreError> {
    if candidates.is_empty() {
        return Ok(BTreeSet::new());
    }
    let found = scan_target(candidates, name);
    if found.offsets.is_empty() {
        return Ok(found.references);
    }
    Err(StoreError::Refused { path: shown(), reason: "its name holds the object's own id, which is not known yet" })
}

/// Looks for ids in a short text, which stays as it is.
pub(super) fn scan_target(candidates: &Candidates, target: &str) -> Found {
    scan_whole(candidates, &mut target.as_bytes().to_vec())
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

//! Objects that come from another store: their contents arrive first, then they are put together from manifests.
//!
//! Nothing that the sender says is believed: contents have the promised digest, manifests the promised id, and
//! the own id stands where the manifest says, before anything gets a name.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::error::StoreError;
use crate::fsutil::{self, FsError};
use crate::object::ObjectManifest;
use crate::scan::{Candidates, digests_of};
use crate::tree::{FileFacts, KindView, SelfReferences};
use crate::{Digest, ObjectRef};

use super::Transaction;
use super::contents::Received;
use super::staging::{self, Staging};

/// A file content that is being received. What is not accepted goes with the transaction.
#[derive(Debug)]
pub(crate) struct ContentWriter {
    file: File,
    path: PathBuf,
    hasher: blake3::Hasher,
}

impl Write for ContentWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = self.file.write(bytes)?;
        self.hasher.update(&bytes[..length]);
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Transaction {
    /// Whether the content is at hand: in the store with either mode, or received in this transaction.
    pub(crate) fn has_content(&self, digest: &Digest) -> Result<bool, StoreError> {
        for executable in [false, true] {
            if self.contents.contains(&(*digest, executable)) || exists(&self.store.blob_path(digest, executable))? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether the object is in the store; if so, it and all that it needs stay there as long as this transaction lives.
    pub(crate) fn relies_on(&self, object: &ObjectRef) -> Result<bool, StoreError> {
        self.is_kept(object)
    }

    /// Starts to receive a content of any length.
    pub(crate) fn receive_content(&mut self) -> Result<ContentWriter, StoreError> {
        let path = self.fresh_path("content");
        let file = fsutil::create_own_file(&path)?;
        Ok(ContentWriter { file, path, hasher: blake3::Hasher::new() })
    }

    /// Takes a received content over, and gives its digest.
    ///
    /// Errors: [`StoreError::WrongContent`] if a digest was promised and it is another.
    pub(crate) fn accept_content(&mut self, writer: ContentWriter, expected: Option<&Digest>) -> Result<Digest, StoreError> {
        let ContentWriter { file, path, hasher } = writer;
        let found = Digest::from(hasher.finalize());
        if let Some(expected) = expected.filter(|expected| **expected != found) {
            fsutil::remove_file(&path)?;
            return Err(StoreError::WrongContent { what: "a received file".to_owned(), expected: *expected, found });
        }
        if expected.is_none() && self.has_content(&found)? {
            // It was not asked for, and is here: a second inode of it would be one that nobody can find.
            fsutil::remove_file(&path)?;
            return Ok(found);
        }
        fsutil::freeze_file(&file, false, &path)?;
        if !self.contents.contains(&(found, false)) {
            self.contents.received().insert((found, false), Received { path, unclaimed: true });
        }
        Ok(found)
    }

    /// Stages a received object, all of whose contents are at hand.
    ///
    /// Errors: [`StoreError::MissingContent`]; [`StoreError::WrongId`] and [`StoreError::WrongContent`] if the sender lies.
    pub(crate) fn put_received(&mut self, manifest: &ObjectManifest) -> Result<(), StoreError> {
        let object = &manifest.object;
        let found = manifest.id();
        if found != object.id {
            return Err(StoreError::WrongId { object: object.clone(), found });
        }
        manifest.tree.check_link_self_references(&object.id).map_err(|source| StoreError::Damaged { object: object.clone(), source })?;
        if self.staged.contains_key(object) || self.is_kept(object)? {
            self.objects.push(object.clone());
            return Ok(());
        }
        let path = self.fresh_path("object");
        match self.assemble(&path, manifest) {
            Ok(()) => self.stage_object(path, manifest.clone()).map(drop),
            Err(error) => {
                self.forget(&path);
                Err(error)
            }
        }
    }

    /// Makes some paths of an object, with what is in them and above them, in a directory that goes with the transaction; returns it.
    ///
    /// Files whose content is not at hand are left out. Directories stay writable, because they are to be moved.
    pub(crate) fn assemble_part(&mut self, manifest: &ObjectManifest, wanted: &BTreeSet<String>) -> Result<PathBuf, StoreError> {
        let path = self.fresh_path("part");
        let nothing = Candidates::new(None, &[]);
        let mut staging = Staging::begin(&self.store, &mut self.contents, &nothing, (&manifest.object.name, &path))?;
        staging.contents.end_object(manifest.tree.clone(), &[]);
        let mut cursor = manifest.tree.cursor();
        while let Some(entry) = cursor.next() {
            let (text, below) = (entry.path, entry.to_path());
            let mut ends = text.match_indices('/').map(|(end, _)| end).chain([text.len()]);
            let is_within = ends.any(|end| wanted.contains(&text[..end]));
            let inside = format!("{text}/");
            let is_above = wanted.range(inside.clone()..).next().is_some_and(|path| path.starts_with(&inside));
            match entry.kind {
                KindView::Directory if is_within || is_above => staging.create_directory(&below)?,
                KindView::Symlink { target, self_offsets: _ } if is_within => staging.create_symlink(&below, target)?,
                KindView::File { digest, executable, .. } if is_within => {
                    staging.link_known_content(&below, entry.position, &(*digest, executable))?;
                }
                KindView::Directory | KindView::Symlink { .. } | KindView::File { .. } => {}
            }
        }
        // What was made here is going to be moved, so nobody may link it.
        self.contents.forget_object();
        Ok(path)
    }

    fn assemble(&mut self, path: &Path, manifest: &ObjectManifest) -> Result<(), StoreError> {
        self.claim_executables(manifest)?;
        let nothing = Candidates::new(None, &[]);
        let mut staging = Staging::begin(&self.store, &mut self.contents, &nothing, (&manifest.object.name, path))?;
        staging.contents.end_object(manifest.tree.clone(), &[]);
        let mut cursor = manifest.tree.cursor();
        while let Some(entry) = cursor.next() {
            let below = entry.to_path();
            match entry.kind {
                KindView::Directory => staging.create_directory(&below)?,
                KindView::Symlink { target, self_offsets: _ } => staging.create_symlink(&below, target)?,
                KindView::File { size, digest, executable, self_references } => {
                    if !staging.link_known_content(&below, entry.position, &(*digest, executable))? {
                        return Err(StoreError::MissingContent { object: manifest.object.clone(), digest: *digest });
                    }
                    check_file(&path.join(below.as_path()), (size, digest), self_references, &manifest.object)?;
                }
            }
        }
        staging.freeze_directories(&manifest.tree)
    }

    /// Gives received contents that nobody has yet the executable mode, where this object wants them so.
    fn claim_executables(&mut self, manifest: &ObjectManifest) -> Result<(), StoreError> {
        for (_, FileFacts { digest, .. }) in manifest.tree.files().filter(|(_, file)| file.executable) {
            if self.contents.contains(&(digest, true)) {
                continue;
            }
            let received = self.contents.received();
            if let Some(content) = received.get(&(digest, false)).filter(|content| content.unclaimed) {
                let file = File::open(&content.path).map_err(|error| FsError::new("open", &content.path, error))?;
                fsutil::freeze_file(&file, true, &content.path)?;
                received.remove(&(digest, false)).and_then(|content| received.insert((digest, true), content));
            }
        }
        Ok(())
    }
}

/// Checks a linked file against its entry: the length always, the bytes only where they name the object itself.
fn check_file(path: &Path, (size, digest): (u64, &Digest), own: Option<&SelfReferences>, object: &ObjectRef) -> Result<(), StoreError> {
    let damaged = |reason| {
        let source = crate::canon::DecodeError::invalid(reason, &path.display().to_string());
        StoreError::Damaged { object: object.clone(), source }
    };
    let file = staging::open_for_reading(path)?;
    if file.metadata().map_err(|error| FsError::new("inspect", path, error))?.len() != size {
        return Err(damaged("the stated size is not that of the content"));
    }
    let Some(own) = own else { return Ok(()) };
    let found = digests_of(&file, &own.offsets, &object.id, path)?;
    if !found.own_id_stands {
        return Err(damaged("the own id is not where the manifest says"));
    }
    for (what, expected, found) in [("the content", *digest, found.digest), ("the content without the own id", own.modulo, found.modulo)] {
        if expected != found {
            return Err(StoreError::WrongContent { what: format!("{what} of `{}`", path.display()), expected, found });
        }
    }
    Ok(())
}

fn exists(path: &Path) -> Result<bool, StoreError> {
    path.try_exists().map_err(|error| FsError::new("inspect", path, error).into())
}

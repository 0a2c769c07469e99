//! Transactions: how objects come into a store.
//!
//! A transaction fills its own staging directory; [`Transaction::barrier`] makes everything durable and gives it its names, in
//! an order that leaves each name under `store/` complete at every instant. The result, [`Durable`], is the proof that
//! whoever names objects next asks for. FORMAT.md, section "Publishing".

mod contents;
mod ingest;
mod naming;
mod publish;
mod recall;
mod receive;
mod staging;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::canon::DecodeError;
use crate::error::StoreError;
use crate::fsutil::{self, Directory, SyncHandle};
use crate::object::{ObjectManifest, object_id};
use crate::objects::{Lease, ObjectStore};
use crate::scan::Candidates;
use crate::tree::Tree;
use crate::{ObjectId, ObjectName, ObjectRef, RelPath};
use contents::Contents;
use ingest::Origin;
use staging::Staging;

pub(crate) use receive::ContentWriter;

/// An entry of an object that is made in memory. Parent directories are implied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewEntry {
    /// Where it will be, below the object's top.
    pub path: RelPath,
    /// What it will be.
    pub kind: NewEntryKind,
}

/// What a new entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NewEntryKind {
    /// A regular file.
    File {
        /// Its bytes.
        content: Arc<[u8]>,
        /// Whether it can be executed.
        executable: bool,
    },
    /// A symbolic link.
    Symlink {
        /// Where it points.
        target: String,
    },
    /// A directory; only empty ones need to be named.
    Directory,
}

/// An object that is complete in the staging directory.
#[derive(Debug)]
struct Staged {
    path: PathBuf,
    manifest_path: PathBuf,
    manifest: ObjectManifest,
}

/// New objects on their way into the store. Dropping it discards them.
#[derive(Debug)]
pub struct Transaction {
    store: ObjectStore,
    lease: Arc<Lease>,
    /// Opened before anything is written, so that no loss of it goes unnoticed.
    disk: SyncHandle,
    stage: PathBuf,
    contents: Contents,
    staged: BTreeMap<ObjectRef, Staged>,
    /// Everything that was put, in order, whether or not it was there before.
    objects: Vec<ObjectRef>,
    /// How many names were given out in the staging directory.
    names: u64,
}

impl Transaction {
    pub(crate) fn begin(store: &ObjectStore) -> Result<Self, StoreError> {
        let name = fsutil::random_name()?;
        let _publication = store.share_publication()?;
        let lease = Arc::new(Lease::take(store, &name)?);
        let disk = SyncHandle::open(store.root())?;
        let stage = store.root().join("stage").join(&name);
        fsutil::create_dir(&stage, 0o700)?;
        Ok(Self {
            store: store.clone(),
            lease,
            disk,
            stage,
            contents: Contents::default(),
            staged: BTreeMap::new(),
            objects: Vec::new(),
            names: 0,
        })
    }

    /// Makes a fresh empty directory on the store's file system, for a build; it goes with the transaction.
    ///
    /// Shape: mode 0700; `label` is part of its name, as far as it is made of letters, digits, `-`, `.` and `_`.
    pub fn scratch(&self, label: &str) -> Result<PathBuf, StoreError> {
        let label: String = label.chars().filter(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_')).take(60).collect();
        let path = self.stage.join(format!("scratch-{}-{label}", fsutil::random_name()?));
        fsutil::create_dir(&path, 0o700)?;
        Ok(path)
    }

    /// Takes the directory at `source` in as a new object: copies and hashes it in one pass.
    ///
    /// `placeholder` is the id that stands for the object itself in its files and links; it is replaced by the real one.
    /// `candidates` are the objects that it may refer to: their ids are looked for in files, links and names.
    /// Modes, times and owners of the source do not matter, but for the owner's executable bit.
    /// Errors: [`StoreError::Refused`] for fifos, sockets, devices, set-id bits and names that are not UTF-8;
    /// [`StoreError::Unusable`] if a limit of trees is passed.
    /// Durability: none before [`Self::barrier`].
    pub fn put_directory(
        &mut self,
        name: &ObjectName,
        source: &Path,
        placeholder: Option<&ObjectId>,
        candidates: &[ObjectRef],
    ) -> Result<ObjectRef, StoreError> {
        let source = Directory::open(source)?;
        let store = self.store.clone();
        // With ids to look for, a file's digest is not all that there is to know.
        let cache = if placeholder.is_none() && candidates.is_empty() { store.stat_cache(&source) } else { None };
        if let Some(tree) = cache.and_then(|cache| recall::recall(cache, &source))
            && let Some(object) = self.put_recalled(name, &tree)?
        {
            return Ok(object);
        }
        self.put(name, placeholder, candidates, |staging| ingest::ingest(staging, source, Origin { given_away: false, cache }))
    }

    /// As [`Self::put_directory`], for a directory that the caller gives away: its files are renamed into the object instead of copied,
    /// as far as they have one name, belong to this process's user and have no extended attributes. What is left goes with the transaction
    /// if it is a [`Self::scratch`] directory, and is the caller's to remove otherwise.
    ///
    /// Nobody else may have an open handle or a mapping of any file: it would still be able to write when the object has
    /// its name. So a sandbox must be dead, not only done.
    pub fn put_directory_given_away(
        &mut self,
        name: &ObjectName,
        source: &Path,
        placeholder: Option<&ObjectId>,
        candidates: &[ObjectRef],
    ) -> Result<ObjectRef, StoreError> {
        let source = Directory::open(source)?;
        self.put(name, placeholder, candidates, |staging| ingest::ingest(staging, source, Origin { given_away: true, cache: None }))
    }

    /// Puts an object all of whose contents are told by the stat cache, if it is in the store.
    fn put_recalled(&mut self, name: &ObjectName, tree: &Tree) -> Result<Option<ObjectRef>, StoreError> {
        let object = ObjectRef { id: object_id(name, &[], tree), name: name.clone() };
        if self.staged.contains_key(&object) || self.is_kept(&object)? {
            self.objects.push(object.clone());
            return Ok(Some(object));
        }
        Ok(None)
    }

    /// Takes entries in as a new object. As [`Self::put_directory`], from memory; the order of the entries does not matter.
    pub fn put_entries(
        &mut self,
        name: &ObjectName,
        entries: &[NewEntry],
        placeholder: Option<&ObjectId>,
        candidates: &[ObjectRef],
    ) -> Result<ObjectRef, StoreError> {
        self.put(name, placeholder, candidates, |staging| staging.write_entries(entries))
    }

    /// Tells what object the directory at `source` would be, where `own` is the id that it holds of itself. Nothing is put.
    pub(crate) fn examine(
        &mut self,
        name: &ObjectName,
        source: &Path,
        own: &ObjectId,
        candidates: &[ObjectRef],
    ) -> Result<ObjectManifest, StoreError> {
        let source = Directory::open(source)?;
        let path = self.fresh_path("object");
        let candidates = Candidates::new(Some(own), candidates);
        let origin = Origin { given_away: false, cache: None };
        let manifest = self.fill(name, &candidates, &path, |staging| ingest::ingest(staging, source, origin));
        self.forget(&path);
        manifest
    }

    fn put(
        &mut self,
        name: &ObjectName,
        placeholder: Option<&ObjectId>,
        candidates: &[ObjectRef],
        fill: impl FnOnce(&mut Staging<'_>) -> Result<(), StoreError>,
    ) -> Result<ObjectRef, StoreError> {
        let path = self.fresh_path("object");
        let candidates = Candidates::new(placeholder, candidates);
        match self.fill(name, &candidates, &path, fill) {
            Ok(manifest) => self.stage_object(path, manifest),
            Err(error) => {
                self.forget(&path);
                Err(error)
            }
        }
    }

    /// Fills a staging directory and finds out what object it is.
    fn fill(
        &mut self,
        name: &ObjectName,
        candidates: &Candidates,
        path: &Path,
        fill: impl FnOnce(&mut Staging<'_>) -> Result<(), StoreError>,
    ) -> Result<ObjectManifest, StoreError> {
        let mut staging = Staging::begin(&self.store, &mut self.contents, candidates, (name, path))?;
        fill(&mut staging)?;
        staging.finish()
    }

    /// Keeps a finished staging directory for the barrier, unless the object is there already.
    fn stage_object(&mut self, path: PathBuf, manifest: ObjectManifest) -> Result<ObjectRef, StoreError> {
        let object = manifest.object.clone();
        self.objects.push(object.clone());
        if self.staged.contains_key(&object) || self.is_kept(&object)? {
            self.forget(&path);
            return Ok(object);
        }
        // One that is too long could never be read again.
        manifest.encoded_bytes().map_err(unusable(&object.name))?;
        let manifest_path = self.fresh_path("manifest");
        staging::write_manifest(&manifest_path, &manifest)?;
        self.staged.insert(object.clone(), Staged { path, manifest_path, manifest });
        Ok(object)
    }

    /// Whether the object is in the store; if so, it stays there as long as this transaction needs it.
    fn is_kept(&self, object: &ObjectRef) -> Result<bool, StoreError> {
        let _publication = self.store.share_publication()?;
        self.lease.protect(object)?;
        self.store.contains(&object.id)
    }

    /// Drops the staging directory of the last object and the contents that it would have brought.
    fn forget(&mut self, path: &Path) {
        self.contents.forget_object();
        // What stays goes with the whole staging directory.
        let _ = fsutil::remove_tree(path);
    }

    fn fresh_path(&mut self, kind: &str) -> PathBuf {
        self.names += 1;
        self.stage.join(format!("{kind}-{}", self.names))
    }
}

/// Describes a rule of trees that an object of this name would break.
fn unusable(name: &ObjectName) -> impl Fn(DecodeError) -> StoreError {
    move |source| StoreError::Unusable { name: name.to_string(), source }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        // What cannot be removed now is put away by the next one who opens the store.
        let _ = fsutil::remove_tree(&self.stage);
    }
}

/// Objects that are on disk under their names: the proof that whoever names them next asks for.
///
/// While it or a clone of it lives, the collector leaves the objects alone; so it is kept until a root refers to them.
#[derive(Debug, Clone)]
pub struct Durable {
    objects: Vec<ObjectRef>,
    _lease: Arc<Lease>,
}

impl Durable {
    /// The objects, in the order in which they were put.
    pub fn objects(&self) -> &[ObjectRef] {
        &self.objects
    }

    /// Vouches for an object that was published earlier.
    ///
    /// Errors: [`StoreError::Missing`] if it is not there.
    pub fn of(store: &ObjectStore, object: &ObjectRef) -> Result<Self, StoreError> {
        let _publication = store.share_publication()?;
        let lease = Lease::take(store, &fsutil::random_name()?)?;
        lease.protect(object)?;
        if store.find(&object.id)?.as_ref() == Some(object) {
            Ok(Self { objects: vec![object.clone()], _lease: Arc::new(lease) })
        } else {
            Err(StoreError::Missing { object: object.to_string() })
        }
    }
}

#[cfg(test)]
mod tests;

//! A store on disk, seen from its objects: opening, finding, removing.
//!
//! Several processes use one store at the same time. Nobody holds a lock for long: publishers share the publication lock while
//! they rename, whoever removes objects takes it alone. What a transaction relies on stands in its lease, a file under `leases/` that
//! is locked while its owner lives. FORMAT.md, sections "On disk" and "Publishing".

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::canon::ReadError;
use crate::error::StoreError;
use crate::fsutil::{self, Directory, FileLock, FsError, IoResultExt, LockError, NodeKind};
use crate::index::Index;
use crate::object::{ManifestHead, ObjectManifest};
use crate::progress::Counters;
use crate::stat_cache::StatCache;
use crate::transaction::Transaction;
use crate::{Digest, ObjectId, ObjectName, ObjectRef, recovery};

/// The version of the layout on disk that this program writes, and the newest that it reads.
pub const FORMAT_VERSION: u64 = 1;

/// The longest `format.json`, in bytes: a version and a list of feature names.
const FORMAT_BYTES_MAX: u64 = 64 << 10;

/// The longest lease, in bytes: a hundred thousand objects of the longest name.
const LEASE_BYTES_MAX: u64 = 32 << 20;

/// The mark of contents that an interrupted transfer left behind.
const LEFT_OVERS: &str = "left-overs";

/// How long to wait for the publication lock. It is held for renames and two syncs; this covers a slow disk.
const PUBLICATION_PATIENCE: Duration = Duration::from_mins(2);

/// How the name of what was an object begins, in `store/`, until it is in the trash.
pub(crate) const REMOVED_PREFIX: &str = ".removed-";

/// File systems that may give out inode numbers and times as they like: FUSE, 9p, virtual machines' shared folders.
const UNSTEADY_FILE_SYSTEMS: [u32; 4] = [0x6573_5546, 0x0102_1997, 0x786f_4256, 0xbacb_acbc];

/// The directories of a store, with their modes.
const DIRECTORIES: [(&str, u32); 8] = [
    ("store", 0o755),
    ("trees", 0o755),
    ("blobs", 0o755),
    ("pins", 0o755),
    ("results", 0o755),
    ("stage", 0o700),
    ("trash", 0o700),
    ("leases", 0o700),
];

/// A store. Clones share one open store; threads may use it at the same time.
#[derive(Debug, Clone)]
pub struct ObjectStore {
    inner: Arc<Inner>,
    /// What the long works of this handle count into.
    progress: Arc<Counters>,
}

#[derive(Debug)]
struct Inner {
    root: PathBuf,
    index: Index,
    stat_cache: OnceLock<Option<StatCache>>,
}

/// `format.json`.
#[derive(Serialize, Deserialize)]
struct Format {
    version: u64,
    features: BTreeSet<String>,
}

impl ObjectStore {
    /// Opens the store at `root`, and creates it if there is none; puts in order what a crash left behind.
    ///
    /// Errors: [`StoreError::NewerFormat`], [`StoreError::NetworkFileSystem`], [`StoreError::Format`], or what the file system says.
    pub fn open(root: &Path) -> Result<Self, StoreError> {
        let root = std::path::absolute(root).at("resolve", root)?;
        fsutil::create_dir_all(&root, 0o755)?;
        refuse_network_file_system(&root)?;
        read_or_write_format(&root)?;
        for (name, mode) in DIRECTORIES {
            create_if_missing(&root.join(name), mode)?;
        }
        let (index, alone) = recovery::open_index(&root)?;
        let inner = Arc::new(Inner { root, index, stat_cache: OnceLock::new() });
        let store = Self { inner, progress: Arc::new(Counters::new()) };
        recovery::recover(&store, alone)?;
        Ok(store)
    }

    /// The same store, by a handle whose ingests, collections and rebuilds count what they have done into `counters`.
    #[must_use]
    pub fn counting_into(&self, counters: Arc<Counters>) -> Self {
        Self { inner: Arc::clone(&self.inner), progress: counters }
    }

    /// What the long works of this handle count into.
    pub(crate) fn progress(&self) -> &Counters {
        &self.progress
    }

    /// The directory that holds everything, absolute.
    pub fn root(&self) -> &Path {
        &self.inner.root
    }

    pub(crate) fn index(&self) -> &Index {
        &self.inner.index
    }

    /// What is known of files outside of the store, if `source` is on a file system whose inode numbers and times can be relied on.
    pub(crate) fn stat_cache(&self, source: &Directory) -> Option<&StatCache> {
        let magic = fsutil::file_system_magic(source.path()).ok()?;
        if network_file_system(magic).is_some() || UNSTEADY_FILE_SYSTEMS.contains(&magic) {
            return None;
        }
        self.inner.stat_cache.get_or_init(|| StatCache::open(&self.root().join("cache.sqlite"))).as_ref()
    }

    /// Where an object is, or would be, on this machine.
    pub fn object_path(&self, object: &ObjectRef) -> PathBuf {
        self.root().join("store").join(object.to_string())
    }

    /// Where an object's manifest is, or would be.
    pub(crate) fn manifest_path(&self, id: &ObjectId) -> PathBuf {
        self.root().join("trees").join(id.to_string())
    }

    /// Where a file content is, or would be: `blobs/ab/<digest>`, with `x` behind it for the executable inode.
    pub(crate) fn blob_path(&self, digest: &Digest, executable: bool) -> PathBuf {
        let text = digest.to_string();
        let name = if executable { format!("{text}x") } else { text.clone() };
        self.root().join("blobs").join(&text[..2]).join(name)
    }

    /// Whether the object is there, complete and durable.
    pub fn contains(&self, id: &ObjectId) -> Result<bool, StoreError> {
        self.find(id).map(|object| object.is_some())
    }

    /// Finds the object of an id.
    pub fn find(&self, id: &ObjectId) -> Result<Option<ObjectRef>, StoreError> {
        let Some(name) = self.index().name_of(id)? else { return Ok(None) };
        let object = ObjectRef { id: *id, name };
        let path = self.object_path(&object);
        // The row may be older than a removal by another process.
        match std::fs::symlink_metadata(&path) {
            Ok(_) => Ok(Some(object)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(FsError::new("inspect", &path, error).into()),
        }
    }

    /// Reads what an object contains and refers to.
    ///
    /// Errors: [`StoreError::Missing`]; [`StoreError::Damaged`] if the manifest is not canonical or not that object's.
    pub fn manifest(&self, object: &ObjectRef) -> Result<ObjectManifest, StoreError> {
        let manifest = self.read_manifest(object, ObjectManifest::decode_from)?;
        if manifest.object == *object {
            Ok(manifest)
        } else {
            Err(StoreError::WrongId { object: object.clone(), found: manifest.object.id })
        }
    }

    /// Reads what an object refers to, and nothing of its tree: cheap, but nothing says that its content gives its id.
    ///
    /// Errors: as [`Self::manifest`].
    pub fn manifest_head(&self, object: &ObjectRef) -> Result<ManifestHead, StoreError> {
        let head = self.read_manifest(object, ManifestHead::decode_from)?;
        if head.object == *object { Ok(head) } else { Err(StoreError::WrongId { object: object.clone(), found: head.object.id }) }
    }

    fn read_manifest<T>(&self, object: &ObjectRef, decode: impl FnOnce(File, u64) -> Result<T, ReadError>) -> Result<T, StoreError> {
        let path = self.manifest_path(&object.id);
        let file = match fsutil::open_plain_file(&path) {
            Err(error) if error.is_missing() => return Err(StoreError::Missing { object: object.to_string() }),
            opened => opened?,
        };
        let length = file.metadata().at("inspect", &path)?.len();
        decode(file, length).map_err(|error| match error {
            ReadError::Decode(source) => StoreError::Damaged { object: object.clone(), source },
            ReadError::Read(source) => FsError::new("read", &path, source).into(),
        })
    }

    /// All objects that `roots` need, themselves included.
    ///
    /// Shape: each once, references before those who refer to them; the same roots give the same list.
    /// Errors: [`StoreError::Missing`] for the first object that is not there.
    pub fn closure(&self, roots: &[ObjectRef]) -> Result<Vec<ObjectRef>, StoreError> {
        let mut closure = Vec::new();
        let mut seen = BTreeSet::new();
        for root in roots {
            // Depth first without recursion: an object is put out when all its references are.
            let mut open: Vec<(ObjectRef, std::collections::btree_set::IntoIter<ObjectRef>)> = Vec::new();
            if seen.insert(root.clone()) {
                open.push((root.clone(), self.present_references(root)?.into_iter()));
            }
            while let Some((_, rest)) = open.last_mut() {
                if let Some(next) = rest.next() {
                    if seen.insert(next.clone()) {
                        let references = self.present_references(&next)?.into_iter();
                        open.push((next, references));
                    }
                } else if let Some((object, _)) = open.pop() {
                    closure.push(object);
                }
            }
        }
        Ok(closure)
    }

    fn present_references(&self, object: &ObjectRef) -> Result<BTreeSet<ObjectRef>, StoreError> {
        if self.find(&object.id)?.as_ref() != Some(object) {
            return Err(StoreError::Missing { object: object.to_string() });
        }
        self.index().references(&object.id)
    }

    /// All objects, sorted.
    pub fn objects(&self) -> Result<Vec<ObjectRef>, StoreError> {
        Ok(self.index().objects()?.into_iter().collect())
    }

    /// Starts a transaction.
    pub fn begin(&self) -> Result<Transaction, StoreError> {
        Transaction::begin(self)
    }

    /// What a recipe gave, by output, if all of it is still there.
    pub fn result(&self, key: &Digest) -> Result<Option<BTreeMap<String, ObjectRef>>, StoreError> {
        let outputs = self.index().result(key)?;
        for object in outputs.values() {
            if self.find(&object.id)?.as_ref() != Some(object) {
                return Ok(None);
            }
        }
        Ok(if outputs.is_empty() { None } else { Some(outputs) })
    }

    /// Remembers what a recipe gave; an older answer is replaced.
    pub fn record_result(&self, key: &Digest, outputs: &BTreeMap<String, ObjectRef>) -> Result<(), StoreError> {
        self.index().record_result(key, outputs)
    }

    /// Makes the index anew from the manifests on disk; returns the number of objects.
    pub fn rebuild_index(&self) -> Result<u64, StoreError> {
        recovery::rebuild_index(self)
    }

    /// Keeps an object under a name until [`Self::unpin`]; an older pin of that name is replaced. Durable.
    ///
    /// Errors: [`StoreError::Missing`] if the object is not there.
    pub fn pin(&self, name: &ObjectName, object: &ObjectRef) -> Result<(), StoreError> {
        let _publication = self.share_publication()?;
        if self.find(&object.id)?.as_ref() != Some(object) {
            return Err(StoreError::Missing { object: object.to_string() });
        }
        let target = Path::new("../store").join(object.to_string());
        Ok(fsutil::replace_symlink(&self.root().join("pins").join(name.as_str()), &target)?)
    }

    /// Drops a pin; one that does not exist is fine.
    pub fn unpin(&self, name: &ObjectName) -> Result<(), StoreError> {
        Ok(fsutil::remove_file(&self.root().join("pins").join(name.as_str()))?)
    }

    /// The pinned objects, by the names of the pins.
    ///
    /// Errors: [`StoreError::Format`] for an entry of `pins/` that is not a pin, so that nothing is collected by mistake.
    pub fn pins(&self) -> Result<BTreeMap<String, ObjectRef>, StoreError> {
        let directory = Directory::open(&self.root().join("pins"))?;
        let mut pins = BTreeMap::new();
        for name in directory.names()? {
            let target = directory.read_link(&name)?;
            let object = std::str::from_utf8(&target).ok().and_then(|target| ObjectRef::from_str(target.strip_prefix("../store/")?).ok());
            match (name.to_str(), object) {
                // What a crash left of a replacement.
                (Some(name), Some(_)) if name.starts_with('.') => {}
                (Some(name), Some(object)) => drop(pins.insert(name.to_owned(), object)),
                _ => {
                    return Err(StoreError::Format {
                        path: directory.path().join(name),
                        reason: "it is not a link to an object".to_owned(),
                    });
                }
            }
        }
        Ok(pins)
    }

    /// Makes the symbolic link `link`, anywhere, to an object, which is kept as long as the link points to it. Durable.
    ///
    /// An older link there is replaced. Errors: [`StoreError::Missing`] if the object is not there; [`StoreError::Refused`] if something else than a
    /// symbolic link stands at `link`.
    pub fn keep_result(&self, link: &Path, object: &ObjectRef) -> Result<(), StoreError> {
        let link = std::path::absolute(link).at("resolve", link)?;
        let _publication = self.share_publication()?;
        if self.find(&object.id)?.as_ref() != Some(object) {
            return Err(StoreError::Missing { object: object.to_string() });
        }
        if std::fs::symlink_metadata(&link).is_ok_and(|metadata| !metadata.is_symlink()) {
            return Err(StoreError::Refused { path: link, reason: "something else than a symbolic link stands there" });
        }
        // The record first: a link without one would keep nothing.
        let record = self.root().join("results").join(&Digest::of(link.as_os_str().as_encoded_bytes()).to_string()[..32]);
        fsutil::replace_symlink(&record, &link)?;
        Ok(fsutil::replace_symlink(&link, &self.object_path(object))?)
    }

    /// Notes that `blobs/` will hold contents that no object has: the next transfer asks before it takes what it holds already.
    pub(crate) fn note_left_overs(&self) -> Result<(), StoreError> {
        Ok(fsutil::replace_file(&self.root().join(LEFT_OVERS), b"", 0o644)?)
    }

    /// Whether an interrupted transfer has left contents behind that the collector has not removed since.
    pub(crate) fn has_left_overs(&self) -> bool {
        self.root().join(LEFT_OVERS).exists()
    }

    /// Notes that the contents without objects are about to go.
    pub(crate) fn forget_left_overs(&self) -> Result<(), StoreError> {
        Ok(fsutil::remove_file(&self.root().join(LEFT_OVERS))?)
    }

    /// Keeps publishers out while objects are removed.
    pub(crate) fn lock_publication(&self) -> Result<FileLock, StoreError> {
        Ok(fsutil::lock_exclusive_within(&publication_path(self.root()), PUBLICATION_PATIENCE)?)
    }

    /// Keeps removers out while objects are published or relied on.
    pub(crate) fn share_publication(&self) -> Result<FileLock, StoreError> {
        Ok(fsutil::lock_shared_within(&publication_path(self.root()), PUBLICATION_PATIENCE)?)
    }

    /// Moves something of this store, but no object, to the trash; what does not exist is fine.
    pub(crate) fn move_to_trash(&self, path: &Path) -> Result<(), StoreError> {
        match fsutil::rename(path, &self.root().join("trash").join(fsutil::random_name()?)) {
            Err(error) if error.is_missing() => Ok(()),
            moved => Ok(moved?),
        }
    }

    /// Moves an object to the trash; one that does not exist is fine. Call with the publication locked.
    pub(crate) fn remove_object(&self, object: &ObjectRef) -> Result<(), StoreError> {
        // It loses its name first, in one step. To move it elsewhere its owner must be allowed to write to it, because its `..` changes; an
        // object that was made writable and then stayed, because we were killed, would be a damaged one.
        let nameless = self.root().join("store").join(format!("{REMOVED_PREFIX}{}", fsutil::random_name()?));
        match fsutil::rename(&self.object_path(object), &nameless) {
            Err(error) if error.is_missing() => Ok(()),
            renamed => {
                renamed?;
                self.put_away_removed(&nameless)
            }
        }
    }

    /// Moves what was an object to the trash.
    pub(crate) fn put_away_removed(&self, nameless: &Path) -> Result<(), StoreError> {
        fsutil::set_mode(nameless, 0o755)?;
        self.move_to_trash(nameless)
    }

    /// Moves to the trash what lost its name and stayed. Call with the publication locked.
    pub(crate) fn put_away_all_removed(&self) -> Result<(), StoreError> {
        let directory = Directory::open(&self.root().join("store"))?;
        let names = directory.names()?;
        let removed = names.iter().filter(|name| name.as_encoded_bytes().starts_with(REMOVED_PREFIX.as_bytes()));
        removed.map(|name| directory.path().join(name)).try_for_each(|path| self.put_away_removed(&path))
    }

    /// Moves objects to the trash and drops their manifests. Call with the publication locked, referrers before what they refer to.
    ///
    /// Their rows are for [`Self::forget_removed`].
    pub(crate) fn discard(&self, objects: &[ObjectRef]) -> Result<(), StoreError> {
        objects.iter().try_for_each(|object| self.remove_object(object))?;
        objects.iter().try_for_each(|object| Ok(fsutil::remove_file(&self.manifest_path(&object.id))?))
    }

    /// Removes manifests whose object is not there: whoever made or removed it was killed in between. Call with the publication locked.
    ///
    /// What is no manifest of ours is left alone; `verify` reports it.
    pub(crate) fn remove_lone_manifests(&self) -> Result<(), StoreError> {
        let objects = Directory::open(&self.root().join("store"))?.names()?;
        let needed: BTreeSet<String> = objects.iter().filter_map(|name| object_of_name(name)).map(|object| object.id.to_string()).collect();
        let manifests = Directory::open(&self.root().join("trees"))?;
        for name in manifests.names()? {
            let is_ours = name.to_str().is_some_and(|name| name.parse::<ObjectId>().is_ok() && !needed.contains(name));
            if is_ours && manifests.kind_of(&name)? == NodeKind::File {
                manifests.remove_name(&name)?;
            }
        }
        Ok(())
    }

    /// Drops the rows of those objects that are not there. Call with the publication locked.
    pub(crate) fn forget_removed(&self, objects: &[ObjectRef]) -> Result<(), StoreError> {
        let mut gone = Vec::new();
        for object in objects {
            let path = self.object_path(object);
            if !path.try_exists().at("inspect", &path)? {
                gone.push(object.id);
            }
        }
        self.index().remove(gone)
    }

    /// Removes for good what is in the trash; returns how much there was, by name.
    pub(crate) fn empty_trash(&self) -> Result<u64, StoreError> {
        let trash = Directory::open(&self.root().join("trash"))?;
        let names = trash.names()?;
        for name in &names {
            trash.remove_tree_telling(name, &|| self.progress.add_file())?;
        }
        Ok(names.len() as u64)
    }

    /// The objects that living transactions and holders of [`crate::Durable`] rely on; puts away the leases of the dead.
    ///
    /// Call with the publication locked: leases grow only under it.
    pub(crate) fn leased_objects(&self) -> Result<Vec<ObjectRef>, StoreError> {
        let leases = Directory::open(&self.root().join("leases"))?;
        let mut objects = BTreeSet::new();
        for name in leases.names()? {
            let path = leases.path().join(&name);
            match fsutil::lock_exclusive(&path) {
                Ok(_dead) => {
                    self.move_to_trash(&self.root().join("stage").join(&name))?;
                    fsutil::remove_file(&path)?;
                }
                Err(LockError::Busy { .. }) => objects.extend(read_lease(&path)?),
                Err(error @ LockError::File(_)) => return Err(error.into()),
            }
        }
        Ok(objects.into_iter().collect())
    }
}

/// The objects in a lease. The first line says who holds it. A line that is not whole could not be written, so its owner has been told that the
/// object is not kept.
fn read_lease(path: &Path) -> Result<Vec<ObjectRef>, StoreError> {
    let bytes = fsutil::read_file_if_exists(path, LEASE_BYTES_MAX)?.unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines = text.split_inclusive('\n').skip(1).filter_map(|line| line.strip_suffix('\n')).map(|line| {
        line.parse()
            .map_err(|_| StoreError::Format { path: path.to_owned(), reason: format!("`{}` is not an object", line.escape_default()) })
    });
    lines.collect()
}

/// A promise to others that some objects are needed; lasts until it is dropped.
#[derive(Debug)]
pub(crate) struct Lease {
    lock: Mutex<FileLock>,
    path: PathBuf,
}

impl Lease {
    /// Takes a lease under a new name. The publication must be shared, so that nobody takes the new file for a dead one.
    pub(crate) fn take(store: &ObjectStore, name: &str) -> Result<Self, StoreError> {
        let path = store.root().join("leases").join(name);
        let mut lock = fsutil::lock_exclusive(&path)?;
        // Objects begin in the second line, so here the first must be there.
        lock.describe(&format!("process {}\n", std::process::id()))?;
        Ok(Self { lock: Mutex::new(lock), path })
    }

    /// Adds an object. The publication must be shared.
    pub(crate) fn protect(&self, object: &ObjectRef) -> Result<(), StoreError> {
        Ok(self.lock.lock().unwrap_or_else(PoisonError::into_inner).append(&format!("{object}\n"))?)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        // A lease that stays behind is put away by the next one who opens the store.
        let _ = fsutil::remove_file(&self.path);
    }
}

/// The lock that publishers share and removers take alone.
pub(crate) fn publication_path(root: &Path) -> PathBuf {
    root.join("publication.lock")
}

/// Whether a name in `store/` is an object's.
pub(crate) fn object_of_name(name: &OsStr) -> Option<ObjectRef> {
    name.to_str().and_then(|name| name.parse().ok())
}

fn create_if_missing(path: &Path, mode: u32) -> Result<(), StoreError> {
    match std::fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => Ok(()),
        Ok(_) => Err(StoreError::Format { path: path.to_owned(), reason: "it is not a directory".to_owned() }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(fsutil::create_dir_all(path, mode)?),
        Err(error) => Err(FsError::new("inspect", path, error).into()),
    }
}

fn read_or_write_format(root: &Path) -> Result<(), StoreError> {
    let path = root.join("format.json");
    let damaged = |reason: String| StoreError::Format { path: path.clone(), reason };
    let Some(bytes) = fsutil::read_file_if_exists(&path, FORMAT_BYTES_MAX)? else {
        if root.join("store").exists() {
            return Err(damaged("it is missing beside a `store` directory".to_owned()));
        }
        let format = Format { version: FORMAT_VERSION, features: BTreeSet::new() };
        let mut text = serde_json::to_string(&format).map_err(|error| damaged(error.to_string()))?;
        text.push('\n');
        return Ok(fsutil::replace_file(&path, text.as_bytes(), 0o644)?);
    };
    // The version is read before anything that may mean something else in another version.
    let value: serde_json::Value = serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))?;
    let found = value.get("version").and_then(serde_json::Value::as_u64).ok_or_else(|| damaged("it has no version".to_owned()))?;
    if found > FORMAT_VERSION {
        return Err(StoreError::NewerFormat { root: root.to_owned(), found, known: FORMAT_VERSION });
    }
    let Format { version: _, features } = serde_json::from_value(value).map_err(|error| damaged(error.to_string()))?;
    match features.first() {
        None => Ok(()),
        Some(feature) => Err(damaged(format!("it demands the feature `{feature}`, which this sarsen does not know"))),
    }
}

fn refuse_network_file_system(root: &Path) -> Result<(), StoreError> {
    match network_file_system(fsutil::file_system_magic(root)?) {
        Some(kind) => Err(StoreError::NetworkFileSystem { root: root.to_owned(), kind }),
        None => Ok(()),
    }
}

/// The name of a network file system. Magic numbers from statfs(2) and linux/magic.h.
const fn network_file_system(magic: u32) -> Option<&'static str> {
    match magic {
        0x6969 => Some("NFS"),
        0x517b | 0xff53_4d42 | 0xfe53_4d42 => Some("SMB"),
        0x5346_414f | 0x6b41_4653 => Some("AFS"),
        0x00c3_6400 => Some("Ceph"),
        0x7375_7245 => Some("Coda"),
        0x0bd0_0bd0 => Some("Lustre"),
        _ => None,
    }
}

#[cfg(test)]
mod tests;

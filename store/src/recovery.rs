//! Puts a store in order when it is opened.
//!
//! Publishing goes through states in a fixed order, so what a crash left behind is told by what is there and what is not: nothing
//! is hashed. Nothing is deleted either: what does not belong goes to the trash, which the collector empties.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::ObjectRef;
use crate::error::StoreError;
use crate::fsutil::{self, Directory, FileLock, LockError};
use crate::index::{Index, is_corruption, remove_logs};
use crate::object::ManifestHead;
use crate::objects::{ObjectStore, REMOVED_PREFIX, object_of_name, publication_path};

/// How long to wait for others before an index is made or replaced.
const INDEX_PATIENCE: Duration = Duration::from_mins(1);

/// Opens the index; one that is damaged is moved aside and made anew.
///
/// A new index comes with the publication lock, under which it is to be filled: until then nobody else may take it for the whole truth.
pub(crate) fn open_index(root: &Path) -> Result<(Index, Option<FileLock>), StoreError> {
    let path = root.join("index.sqlite");
    if path.exists() {
        match open_and_read(&path) {
            Err(error) if is_corruption(&error) => {}
            Err(error) if !fsutil::has_room(root) => {
                let publication = fsutil::lock_exclusive_within(&publication_path(root), INDEX_PATIENCE)?;
                return Ok((index_in_memory(&path, error)?, Some(publication)));
            }
            opened => return Ok((opened?, None)),
        }
    }
    let publication = fsutil::lock_exclusive_within(&publication_path(root), INDEX_PATIENCE)?;
    if path.exists() {
        // Somebody else may have made it while we waited.
        match open_and_read(&path) {
            Err(error) if is_corruption(&error) => {
                fsutil::rename(&path, &root.join("trash").join(format!("index-{}", fsutil::random_name()?)))?;
            }
            opened => return Ok((opened?, None)),
        }
    }
    remove_logs(&path)?;
    match Index::open(&path) {
        Err(error) if !fsutil::has_room(root) => index_in_memory(&path, error).map(|index| (index, Some(publication))),
        opened => Ok((opened?, Some(publication))),
    }
}

/// The index where the disk has no room for its logs: made from the disk each time, so that a collection or a look at objects needs none.
///
/// `error` is why the one on disk cannot be used; it is told if that has another reason.
fn index_in_memory(path: &Path, error: StoreError) -> Result<Index, StoreError> {
    if matches!(error, StoreError::Index { .. }) { Index::in_memory(path) } else { Err(error) }
}

/// Opens the index and reads the table that everything depends on, so that damage shows now.
fn open_and_read(path: &Path) -> Result<Index, StoreError> {
    let index = Index::open(path)?;
    index.objects()?;
    Ok(index)
}

/// Puts away what a crash left in `stage/`, `leases/` and `store/`, and makes index and disk agree.
///
/// `alone` is the publication lock, if the caller holds it. Otherwise it is taken only if there is something to do, and only if it is free: somebody who is
/// publishing may be what it looks like, and the next one who opens the store will put it in order.
pub(crate) fn recover(store: &ObjectStore, alone: Option<FileLock>) -> Result<(), StoreError> {
    let stage = Directory::open(&store.root().join("stage"))?;
    let leases = Directory::open(&store.root().join("leases"))?;
    // Rows first: a row is written after its object has its name.
    let rows = store.index().objects()?;
    let OnDisk { objects, removed } = on_disk(store)?;
    if rows == objects && removed.is_empty() && stage.names()?.is_empty() && leases.names()?.is_empty() {
        return Ok(());
    }
    let _publication = match alone.map_or_else(|| fsutil::lock_exclusive(&publication_path(store.root())), Ok) {
        Ok(lock) => lock,
        Err(LockError::Busy { .. }) => return Ok(()),
        Err(error @ LockError::File(_)) => return Err(error.into()),
    };
    // Puts away dead leases together with their staging directories; what has no lease at all is left for us.
    store.leased_objects()?;
    for name in stage.names()? {
        if !leases.path().join(&name).exists() {
            store.move_to_trash(&stage.path().join(&name))?;
        }
    }
    store.remove_lone_manifests()?;
    // Looked at again, because only now nobody publishes or removes.
    let rows = store.index().objects()?;
    let OnDisk { objects, removed } = on_disk(store)?;
    match removed.iter().try_for_each(|path| store.put_away_removed(path)) {
        // On a full disk this is for the collector, who frees something first.
        Err(error) if error.is_full() => {}
        other => other?,
    }
    let outdated: Vec<&ObjectRef> = rows.difference(&objects).collect();
    if !outdated.is_empty() {
        store.index().remove(outdated.iter().map(|object| object.id))?;
    }
    let unknown: Vec<&ObjectRef> = objects.difference(&rows).collect();
    if unknown.is_empty() { Ok(()) } else { adopt(store, &unknown) }
}

/// What is in `store/`.
struct OnDisk {
    objects: BTreeSet<ObjectRef>,
    /// What were objects, on the way to the trash.
    removed: Vec<PathBuf>,
}

fn on_disk(store: &ObjectStore) -> Result<OnDisk, StoreError> {
    let directory = Directory::open(&store.root().join("store"))?;
    let mut found = OnDisk { objects: BTreeSet::new(), removed: Vec::new() };
    for name in directory.names()? {
        if let Some(object) = object_of_name(&name) {
            found.objects.insert(object);
        } else if name.as_encoded_bytes().starts_with(REMOVED_PREFIX.as_bytes()) {
            found.removed.push(directory.path().join(name));
        }
    }
    Ok(found)
}

/// Takes objects on disk into the index, with the publication locked; one without a manifest was never published, and goes to the trash.
fn adopt(store: &ObjectStore, objects: &[&ObjectRef]) -> Result<(), StoreError> {
    let mut manifests = Vec::new();
    for object in objects {
        match store.manifest(object) {
            Ok(manifest) => {
                // The last step of publishing that a crash may have cut off.
                Directory::open(&store.object_path(object))?.freeze()?;
                manifests.push(manifest.to_head());
            }
            Err(StoreError::Missing { .. }) => store.remove_object(object)?,
            // No crash does this: manifests are on disk before they have their names. `verify` reports it, and `repair` has what it needs.
            Err(StoreError::Damaged { .. } | StoreError::WrongId { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    // A row says that its object is durable.
    fsutil::sync_file_system(store.root())?;
    store.index().insert(&manifests)
}

/// Makes the index anew from the manifests on disk.
pub(crate) fn rebuild_index(store: &ObjectStore) -> Result<u64, StoreError> {
    let _publication = store.lock_publication()?;
    // Trees are read to be checked, one after the other, and not kept.
    let read = |object: &ObjectRef| {
        let head = store.manifest(object)?.to_head();
        store.progress().add_file();
        Ok::<_, StoreError>(head)
    };
    let manifests: Vec<ManifestHead> = on_disk(store)?.objects.iter().map(read).collect::<Result<_, _>>()?;
    fsutil::sync_file_system(store.root())?;
    match store.index().replace_all(&manifests) {
        Err(error) if is_corruption(&error) => {
            store.index().begin_anew(&store.root().join("trash").join(format!("index-{}", fsutil::random_name()?)))?;
            store.index().replace_all(&manifests)?;
        }
        replaced => replaced?,
    }
    Ok(manifests.len() as u64)
}

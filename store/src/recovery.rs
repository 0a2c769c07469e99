//! Puts a store in order when it is opened.
//!
//! Publishing goes through states in a fixed order, so what a crash left behind is told by what is there and what is not: nothing
//! is hashed. Nothing is deleted either: what does not belong goes to the trash, which the collector empties.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use crate::ObjectRef;
use crate::error::StoreError;
use crate::fsutil::{self, Directory, LockError};
use crate::index::{Index, is_corruption};
use crate::object::ManifestHead;
use crate::objects::{ObjectStore, object_of_name, publication_path};

/// How long to wait for others before an index is made or replaced.
const INDEX_PATIENCE: Duration = Duration::from_mins(1);

/// Opens the index; one that is damaged is moved aside and made anew.
pub(crate) fn open_index(root: &Path) -> Result<Index, StoreError> {
    let path = root.join("index.sqlite");
    if path.exists() {
        match open_and_read(&path) {
            Err(error) if is_corruption(&error) => {}
            opened => return opened,
        }
    }
    let _publication = fsutil::lock_exclusive_within(&publication_path(root), INDEX_PATIENCE)?;
    if path.exists() {
        // Somebody else may have made it while we waited.
        match open_and_read(&path) {
            Err(error) if is_corruption(&error) => {
                fsutil::rename(&path, &root.join("trash").join(format!("index-{}", fsutil::random_name()?)))?;
            }
            opened => return opened,
        }
    }
    // A log without its database would be played into the new one.
    for name in ["index.sqlite-wal", "index.sqlite-shm"] {
        fsutil::remove_file(&root.join(name))?;
    }
    Index::open(&path)
}

/// Opens the index and reads the table that everything depends on, so that damage shows now.
fn open_and_read(path: &Path) -> Result<Index, StoreError> {
    let index = Index::open(path)?;
    index.objects()?;
    Ok(index)
}

/// Puts away what a crash left in `stage/` and `leases/`, and makes index and disk agree.
pub(crate) fn recover(store: &ObjectStore) -> Result<(), StoreError> {
    clear_stage(store)?;
    // Rows first: a row is written after its object has its name, so a row without a directory is really stale.
    let rows = store.index().objects()?;
    let names = objects_on_disk(store)?;
    let stale: Vec<&ObjectRef> = rows.difference(&names).collect();
    if !stale.is_empty() {
        store.index().remove(stale.iter().map(|object| object.id))?;
    }
    let unknown: Vec<&ObjectRef> = names.difference(&rows).collect();
    if unknown.is_empty() { Ok(()) } else { adopt(store, &unknown) }
}

fn clear_stage(store: &ObjectStore) -> Result<(), StoreError> {
    let stage = Directory::open(&store.root().join("stage"))?;
    if stage.names()?.is_empty() && Directory::open(&store.root().join("leases"))?.names()?.is_empty() {
        return Ok(());
    }
    let _publication = match fsutil::lock_exclusive(&publication_path(store.root())) {
        Ok(lock) => lock,
        // Somebody is publishing; the next one who opens the store will clear up.
        Err(LockError::Busy { .. }) => return Ok(()),
        Err(error @ LockError::File(_)) => return Err(error.into()),
    };
    // Puts away dead leases together with their staging directories; what has no lease at all is left for us.
    store.leased_objects()?;
    for name in stage.names()? {
        if !store.root().join("leases").join(&name).exists() {
            store.move_to_trash(&stage.path().join(&name))?;
        }
    }
    Ok(())
}

fn objects_on_disk(store: &ObjectStore) -> Result<BTreeSet<ObjectRef>, StoreError> {
    let names = Directory::open(&store.root().join("store"))?.names()?;
    Ok(names.iter().filter_map(|name| object_of_name(name)).collect())
}

/// Takes objects on disk into the index; one without a usable manifest was never published, and goes to the trash.
fn adopt(store: &ObjectStore, objects: &[&ObjectRef]) -> Result<(), StoreError> {
    let mut manifests = Vec::new();
    for object in objects {
        match store.manifest(object) {
            Ok(manifest) => {
                // The last step of publishing that a crash may have cut off.
                Directory::open(&store.object_path(object))?.freeze()?;
                manifests.push(manifest.to_head());
            }
            Err(StoreError::Missing { .. } | StoreError::Damaged { .. } | StoreError::WrongId { .. }) => {
                store.move_to_trash(&store.object_path(object))?;
            }
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
    let read = |object: &ObjectRef| store.manifest(object).map(|manifest| manifest.to_head());
    let manifests: Vec<ManifestHead> = objects_on_disk(store)?.iter().map(read).collect::<Result<_, _>>()?;
    fsutil::sync_file_system(store.root())?;
    store.index().replace_all(&manifests)?;
    Ok(manifests.len() as u64)
}

//! Looks for what does not belong beside objects and contents, and for names that lead nowhere.
//!
//! A publisher gives a manifest its name before the object, and the object before the index knows it. So what looks like one without the other
//! is looked at again while nobody publishes.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::blobs::{blob_of_name, is_shard};
use super::finding::{Findings, Problem};
use crate::error::StoreError;
use crate::fsutil::{Directory, NodeKind};
use crate::gc;
use crate::objects::{ObjectStore, REMOVED_PREFIX, object_of_name};
use crate::{ObjectId, ObjectRef};

/// Checks the names in `store/`, `trees/` and `blobs/`, rows of the index, pins and generations.
pub(super) fn check(store: &ObjectStore, findings: &Findings) -> Result<(), StoreError> {
    let suspects = suspects(store)?;
    if !suspects.is_empty() {
        let _publication = store.lock_publication()?;
        let still = self::suspects(store)?;
        for id in suspects.manifests.intersection(&still.manifests) {
            findings.push(None, &format!("trees/{id}"), Problem::NoObject);
        }
        for object in suspects.objects.intersection(&still.objects) {
            findings.push(Some(object), ".", Problem::Unindexed);
        }
    }
    for directory in ["store", "trees", "blobs"] {
        for path in strays_in(store, directory)? {
            let name = path.strip_prefix(store.root()).unwrap_or(&path);
            findings.push(None, &name.to_string_lossy(), Problem::Extra);
        }
    }
    check_roots(store, findings)
}

/// What does not belong into `store/`, `trees/` or `blobs/`; in `blobs/` with all that is below.
pub(crate) fn strays(store: &ObjectStore, directory: &str) -> Result<Vec<PathBuf>, StoreError> {
    let mut strays = strays_in(store, directory)?;
    if directory == "blobs" {
        let blobs = Directory::open(&store.root().join(directory))?;
        for shard in blobs.names()? {
            // What is no directory, or has another name, is among the strays already.
            let Ok(names) = blobs.open_child(&shard).and_then(|directory| directory.names()) else { continue };
            if shard.to_str().is_some_and(is_shard) {
                let foreign = names.into_iter().filter(|name| blob_of_name(&shard, name).is_none());
                strays.extend(foreign.map(|name| blobs.path().join(&shard).join(name)));
            }
        }
    }
    Ok(strays)
}

/// What does not belong into a directory of the root, by its name, or in `blobs/` because it is no directory.
fn strays_in(store: &ObjectStore, directory: &str) -> Result<Vec<PathBuf>, StoreError> {
    let is_ours = match directory {
        // What a collector is about to move to the trash is no damage.
        "store" => |name: &str| object_of_name(name.as_ref()).is_some() || name.starts_with(REMOVED_PREFIX),
        "trees" => |name: &str| name.parse::<ObjectId>().is_ok(),
        _ => is_shard,
    };
    let open = Directory::open(&store.root().join(directory))?;
    let mut strays = Vec::new();
    for name in open.names()? {
        let is_file = || directory == "blobs" && open.kind_of(&name).is_ok_and(|kind| kind != NodeKind::Directory);
        if !name.to_str().is_some_and(is_ours) || is_file() {
            strays.push(open.path().join(&name));
        }
    }
    Ok(strays)
}

/// What is there without its other half.
struct Suspects {
    manifests: BTreeSet<ObjectId>,
    objects: BTreeSet<ObjectRef>,
}

impl Suspects {
    fn is_empty(&self) -> bool {
        self.manifests.is_empty() && self.objects.is_empty()
    }
}

fn suspects(store: &ObjectStore) -> Result<Suspects, StoreError> {
    let on_disk = store.objects_on_disk()?;
    let ids: BTreeSet<ObjectId> = on_disk.iter().map(|object| object.id).collect();
    let names = Directory::open(&store.root().join("trees"))?.names()?;
    let manifests: BTreeSet<ObjectId> = names.iter().filter_map(|name| name.to_str()?.parse().ok()).collect();
    let rows: BTreeSet<ObjectRef> = store.objects()?.into_iter().collect();
    Ok(Suspects { manifests: manifests.difference(&ids).copied().collect(), objects: on_disk.difference(&rows).cloned().collect() })
}

/// Checks that pins and generations lead to objects.
fn check_roots(store: &ObjectStore, findings: &Findings) -> Result<(), StoreError> {
    match store.pins() {
        Ok(pins) => {
            for (name, object) in pins {
                check_root(store, &format!("pins/{name}"), object, findings);
            }
        }
        Err(StoreError::Format { path, reason }) => {
            let path = path.strip_prefix(store.root()).unwrap_or(&path);
            findings.push(None, &path.to_string_lossy(), Problem::Unreadable { reason });
        }
        Err(error) => return Err(error),
    }
    match gc::generations(store) {
        Ok(generations) => {
            for generation in generations {
                let path = format!("profiles/{}/gen/{}", generation.profile, generation.number);
                check_root(store, &path, generation.object, findings);
            }
        }
        Err(gc::GcError::Roots { path, reason }) => {
            let path = path.strip_prefix(store.root()).unwrap_or(&path);
            findings.push(None, &path.to_string_lossy(), Problem::Unreadable { reason });
        }
        Err(gc::GcError::Store(error) | gc::GcError::Incomplete { source: error, path: _ }) => return Err(error),
    }
    Ok(())
}

fn check_root(store: &ObjectStore, path: &str, object: ObjectRef, findings: &Findings) {
    if !store.is_on_disk(&object) {
        findings.push(None, path, Problem::Reference { reference: object });
    }
}

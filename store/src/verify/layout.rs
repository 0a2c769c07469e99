//! Looks for what does not belong beside objects and contents, and for names that lead nowhere.
//!
//! A publisher gives a manifest its name before the object, and the object before the index knows it. So what looks like one without the other
//! is looked at again while nobody publishes.

use std::collections::BTreeSet;

use super::blobs::is_shard;
use super::finding::{Findings, Problem};
use crate::error::StoreError;
use crate::fsutil::Directory;
use crate::gc;
use crate::objects::{ObjectStore, object_of_name};
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
    for (directory, is_ours) in [("store", is_object as fn(&str) -> bool), ("trees", is_id), ("blobs", is_shard)] {
        for name in Directory::open(&store.root().join(directory))?.names()? {
            if !name.to_str().is_some_and(is_ours) {
                findings.push(None, &format!("{directory}/{}", name.to_string_lossy()), Problem::Extra);
            }
        }
    }
    check_roots(store, findings)
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

fn is_object(name: &str) -> bool {
    object_of_name(name.as_ref()).is_some()
}

fn is_id(name: &str) -> bool {
    name.parse::<ObjectId>().is_ok()
}

//! Puts manifests right: from a source, or from the objects themselves.
//!
//! The id is the digest of what a manifest says. So a manifest that gives the id is the right one, whoever it comes from.

use std::collections::BTreeSet;
use std::io::Write;

use super::{RepairError, Round};
use crate::error::StoreError;
use crate::fsutil::{self, FsError};
use crate::verify::{Finding, MANIFEST_MODE, Problem};
use crate::{ObjectManifest, ObjectRef};

impl Round<'_> {
    /// Writes the manifests of objects that have none or a damaged one.
    pub(super) fn repair_manifests(&mut self, findings: &[Finding]) -> Result<(), RepairError> {
        let scratch = self.transaction.scratch("manifests")?;
        let mut fresh = Vec::new();
        for finding in findings {
            match (&finding.object, &finding.problem) {
                (Some(object), Problem::Manifest { .. }) => {
                    let manifest = self.material.manifest(object);
                    if let Some(manifest) = manifest.map_or_else(|| self.read_off(object), |manifest| Ok(Some(manifest)))? {
                        let path = scratch.join(object.id.to_string());
                        let mut file = fsutil::create_own_file(&path)?;
                        file.write_all(&manifest.encode()).map_err(|error| FsError::new("write", &path, error))?;
                        fsutil::set_mode(&path, MANIFEST_MODE)?;
                        fresh.push((self.store.manifest_path(&object.id), path));
                    }
                }
                (None, Problem::Mode { .. }) if finding.path.starts_with("trees/") => {
                    fsutil::set_mode(&self.store.root().join(&finding.path), MANIFEST_MODE)?;
                }
                _ => {}
            }
        }
        if fresh.is_empty() {
            return Ok(());
        }
        fsutil::sync_file_system(&scratch)?;
        let _publication = self.store.lock_publication()?;
        for (path, fresh) in fresh {
            self.quarantine.take(&path, Some(&fresh))?;
        }
        Ok(fsutil::sync_file_system(self.store.root())?)
    }

    /// The manifest of an object that is not there.
    pub(super) fn manifest_at_hand(&self, object: &ObjectRef) -> Option<ObjectManifest> {
        self.store.manifest(object).ok().or_else(|| self.material.manifest(object))
    }

    /// Makes a manifest from what is on disk; only if that is what it was.
    fn read_off(&mut self, object: &ObjectRef) -> Result<Option<ObjectManifest>, RepairError> {
        let indexed = self.store.index().references(&object.id)?;
        // Without rows, what it refers to is among the objects that are here.
        let here: BTreeSet<ObjectRef> = self.store.objects_on_disk()?;
        for candidates in [indexed, here] {
            let candidates: Vec<ObjectRef> = candidates.into_iter().filter(|candidate| candidate != object).collect();
            match self.transaction.examine(&object.name, &self.store.object_path(object), &object.id, &candidates) {
                Ok(manifest) if manifest.object == *object => return Ok(Some(manifest)),
                Ok(_) | Err(StoreError::Refused { .. } | StoreError::Unusable { .. } | StoreError::WrongContent { .. }) => {}
                // What cannot be read, cannot be read off.
                Err(StoreError::File(error)) if error.operation != "write" => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(None)
    }
}

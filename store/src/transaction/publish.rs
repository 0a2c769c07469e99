//! The barrier: everything on disk first, then the names, then the index.
//!
//! The order of the steps is the protocol of FORMAT.md, section "Publishing"; recovery depends on it.

use std::collections::BTreeSet;

use crate::ObjectRef;
use crate::error::StoreError;
use crate::fsutil::{self, Directory, FsError};
use crate::object::ManifestHead;

use super::{Durable, Staged, Transaction};

impl Transaction {
    /// Publishes everything that was put, durably; objects that are there already are fine.
    ///
    /// Errors: [`StoreError::MissingReference`] before anything is named; after a failed sync nothing of the batch counts.
    pub fn barrier(mut self) -> Result<Durable, StoreError> {
        if !self.staged.is_empty() {
            self.disk.sync()?;
            let publication = self.store.share_publication()?;
            self.check_references()?;
            self.name_contents()?;
            let mut named = Vec::new();
            if let Err(error) = self.name_objects(&mut named).and_then(|()| self.disk.sync()) {
                drop(publication);
                self.take_back(&named);
                return Err(error.into());
            }
            let heads: Vec<ManifestHead> = self.staged.values().map(|staged| staged.manifest.to_head()).collect();
            self.store.index().insert(&heads)?;
        }
        let objects = std::mem::take(&mut self.objects);
        Ok(Durable { objects, _lease: self.lease.clone() })
    }

    /// Names the contents that are here, though not the objects that they are for, so that a later transaction finds them.
    ///
    /// For a transfer that broke off; until somebody uses them, the collector may remove them.
    pub(crate) fn keep_contents(mut self) -> Result<(), StoreError> {
        if self.contents.received().is_empty() {
            return Ok(());
        }
        self.disk.sync()?;
        let _publication = self.store.share_publication()?;
        self.store.note_left_overs()?;
        self.name_contents()
    }

    fn check_references(&self) -> Result<(), StoreError> {
        let mut known = BTreeSet::new();
        for (object, Staged { manifest, .. }) in &self.staged {
            for reference in &manifest.references {
                if self.staged.contains_key(reference) || known.contains(reference) {
                    continue;
                }
                // What the object needs must stay from now on; the publication is shared.
                self.lease.protect(reference)?;
                if self.store.find(&reference.id)?.as_ref() != Some(reference) {
                    return Err(StoreError::MissingReference { object: object.clone(), reference: reference.clone() });
                }
                known.insert(reference);
            }
        }
        Ok(())
    }

    /// Gives the objects their names; adds those that had none to `named`.
    fn name_objects(&self, named: &mut Vec<ObjectRef>) -> Result<(), FsError> {
        for object in self.in_reference_order() {
            let staged = &self.staged[&object];
            // Manifest first: an object without one was never published.
            fsutil::rename(&staged.manifest_path, &self.store.manifest_path(&object.id))?;
            let path = self.store.object_path(&object);
            if fsutil::rename_noreplace(&staged.path, &path)? {
                named.push(object);
            }
            // Only now, because its owner may not move a directory that is read-only. One that was there may be of somebody who got no further.
            Directory::open(&path)?.freeze()?;
        }
        Ok(())
    }

    /// Takes names back that may not be on disk. The error that led here is the one to tell, so whatever goes wrong is left to recovery.
    ///
    /// Another publisher may have found the names meanwhile. If it was under way when the pages were lost, its own handle has told it; if
    /// it has registered them, its own sync has succeeded since, and they are not ours to remove.
    fn take_back(&self, named: &[ObjectRef]) {
        // Alone, so that nobody is about to register what goes.
        let Ok(_publication) = self.store.lock_publication() else { return };
        let unregistered = named.iter().rev().filter(|object| matches!(self.store.index().name_of(&object.id), Ok(None)));
        let removed = unregistered.map(|object| self.store.remove_object(object)).fold(Ok(()), Result::and);
        // Also of the object at which it ended, whose manifest has its name already.
        let _ = removed.and_then(|()| self.store.remove_lone_manifests());
    }

    /// The staged objects, references before those who refer to them, so that a crash leaves no object without its closure.
    fn in_reference_order(&self) -> Vec<ObjectRef> {
        let mut order = Vec::new();
        let mut seen = BTreeSet::new();
        for start in self.staged.keys() {
            let mut open = vec![(start, false)];
            while let Some((object, references_done)) = open.pop() {
                if references_done {
                    order.push(object.clone());
                } else if let Some(staged) = self.staged.get(object)
                    && seen.insert(object)
                {
                    open.push((object, true));
                    open.extend(staged.manifest.references.iter().map(|reference| (reference, false)));
                }
            }
        }
        order
    }
}

#[cfg(test)]
mod tests;

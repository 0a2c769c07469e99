//! The barrier: everything on disk first, then the names, then the index.
//!
//! The order of the steps is the protocol of FORMAT.md, section "Publishing"; recovery depends on it.

use std::collections::BTreeSet;
use std::io;
use std::num::NonZeroUsize;

use crate::ObjectRef;
use crate::error::StoreError;
use crate::fsutil::{self, Directory, FsError};
use crate::object::ManifestHead;

use super::{ContentKey, Durable, NewContent, Staged, Transaction};

/// The most threads that give names to contents.
const NAMING_THREADS_MAX: usize = 4;

/// How many contents one thread names at least: a thread costs as much as a few of them.
const CONTENTS_PER_THREAD_MIN: usize = 256;

impl Transaction {
    /// Publishes everything that was put, durably; objects that are there already are fine.
    ///
    /// Errors: [`StoreError::MissingReference`] before anything is named; after a failed sync nothing of the batch counts.
    pub fn barrier(mut self) -> Result<Durable, StoreError> {
        if !self.staged.is_empty() {
            fsutil::sync_file_system(&self.stage)?;
            let _publication = self.store.share_publication()?;
            self.check_references()?;
            self.name_contents()?;
            self.name_objects()?;
        }
        let objects = std::mem::take(&mut self.objects);
        Ok(Durable { objects, _lease: self.lease.clone() })
    }

    /// Names the contents that are here, though not the objects that they are for, so that a later transaction finds them.
    ///
    /// For a transfer that broke off; until somebody uses them, the collector may remove them.
    pub(crate) fn keep_contents(self) -> Result<(), StoreError> {
        fsutil::sync_file_system(&self.stage)?;
        let _publication = self.store.share_publication()?;
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

    /// Links new inodes into `blobs/`. They are on disk, so a name there is complete.
    fn name_contents(&self) -> Result<(), StoreError> {
        let blobs = Directory::open(&self.store.root().join("blobs"))?;
        let contents: Vec<(&ContentKey, &NewContent)> = self.contents.iter().collect();
        let threads = std::thread::available_parallelism().map_or(1, NonZeroUsize::get).min(NAMING_THREADS_MAX);
        let share = contents.len().div_ceil(threads).max(CONTENTS_PER_THREAD_MIN);
        std::thread::scope(|scope| {
            // The contents are sorted, so threads mostly work in different directories.
            let helpers: Vec<_> = contents.chunks(share).skip(1).map(|part| scope.spawn(|| self.name_some(part, &blobs))).collect();
            let own = contents.chunks(share).next().map_or(Ok(()), |part| self.name_some(part, &blobs));
            helpers.into_iter().map(|helper| helper.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))).fold(own, Result::and)
        })
    }

    fn name_some(&self, contents: &[(&ContentKey, &NewContent)], blobs: &Directory) -> Result<(), StoreError> {
        let mut shard: Option<(String, Directory)> = None;
        for ((digest, executable), content) in contents {
            let text = digest.to_string();
            if shard.as_ref().is_none_or(|(name, _)| *name != text[..2]) {
                ignore_existing(fsutil::create_dir(&blobs.path().join(&text[..2]), 0o755))?;
                shard = Some((text[..2].to_owned(), blobs.open_child(text[..2].as_ref())?));
            }
            let Some((_, directory)) = &shard else { continue };
            let name = if *executable { format!("{text}x") } else { text };
            if content.replaces {
                let temporary = self.stage.join(format!("blob-{name}"));
                fsutil::hard_link(&content.path, &temporary)?;
                fsutil::rename(&temporary, &directory.path().join(name))?;
            } else {
                ignore_existing(directory.link_from(&content.path, name.as_ref()))?;
            }
        }
        Ok(())
    }

    fn name_objects(&mut self) -> Result<(), StoreError> {
        let mut named = Vec::new();
        let published = self.in_reference_order().into_iter().try_for_each(|object| {
            let staged = &self.staged[&object];
            // Manifest first: an object without one was never published.
            fsutil::rename(&staged.manifest_path, &self.store.manifest_path(&object.id))?;
            let path = self.store.object_path(&object);
            if fsutil::rename_noreplace(&staged.path, &path)? {
                named.push(object);
                // Only now, because its owner may not move a directory that is read-only.
                Directory::open(&path)?.freeze()?;
            }
            Ok::<(), FsError>(())
        });
        let durable = published.and_then(|()| fsutil::sync_file_system(self.store.root()));
        if let Err(error) = durable {
            // A page that was lost is reported once: what was named may be incomplete, so the names go. The first error is the one to tell.
            for object in named.iter().rev() {
                let _ = self.store.move_to_trash(&self.store.object_path(object));
            }
            return Err(error.into());
        }
        let heads: Vec<ManifestHead> = self.staged.values().map(|staged| staged.manifest.to_head()).collect();
        self.store.index().insert(&heads)
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

fn ignore_existing(result: Result<(), FsError>) -> Result<(), FsError> {
    match result {
        Err(error) if error.source.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

//! Finds what nobody needs any more, and removes it.
//!
//! Roots are the generations of all profiles, pins, results that users keep, what living transactions and holders of [`crate::Durable`]
//! rely on, what running processes use, and what the caller names. A plan is made first, with no effect; carrying it out marks again under the lock that keeps publishers out, so what
//! became needed in between stays. When in doubt about a root, nothing is removed. A collection that is cut off goes on with the next
//! one, because its steps are found in the trash and in the link counts of contents. Normative text: `FORMAT.md`, section "Collection".

mod freed;
mod leftovers;
mod retention;
mod roots;
mod why;

use std::collections::BTreeSet;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::error::StoreError;
use crate::fsutil::{Directory, FsError, Listed, NodeKind};
use crate::objects::{ObjectStore, object_of_name};
use crate::verify::blob_of_name;
use crate::{ObjectRef, fsutil};

pub use retention::{Generation, Retention, generations};
pub use roots::Root;
pub use why::{Reason, why};

/// What the caller knows better than the disk.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Roots {
    /// What is kept beside generations, pins and leases, in any order. An object that is not in the store is no error.
    pub objects: Vec<ObjectRef>,
    /// The links of generations that are about to be given up, so that a plan shows what that would free. A collection goes by what is on disk.
    pub given_up: BTreeSet<PathBuf>,
}

/// What a collection would do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GcPlan {
    /// What stays, sorted.
    pub keep: Vec<ObjectRef>,
    /// What goes: objects before those that they refer to.
    pub remove: Vec<Removal>,
    /// What the removal frees, in bytes of file contents: those that a kept object shares do not count.
    pub bytes: u64,
    roots: Roots,
    now: SystemTime,
    grace: Duration,
}

/// An object that nobody needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removal {
    /// The object.
    pub object: ObjectRef,
    /// What its removal frees after all those before it in the plan, in bytes of file contents.
    pub frees: u64,
}

impl GcPlan {
    /// Cuts the plan after the first removal with which at least `bytes` are freed.
    #[must_use]
    pub fn up_to(mut self, bytes: u64) -> Self {
        let mut freed = 0;
        let count = self
            .remove
            .iter()
            .take_while(|removal| {
                let short = freed < bytes;
                freed += removal.frees;
                short
            })
            .count();
        // Who refers stands before what it refers to, so no reference of what stays is cut off.
        self.keep.extend(self.remove.split_off(count).into_iter().map(|removal| removal.object));
        self.keep.sort();
        self.bytes = self.remove.iter().map(|removal| removal.frees).sum();
        self
    }
}

/// What a collection did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct GcReport {
    /// Objects removed.
    pub objects: u64,
    /// Contents removed that no object had any more.
    pub contents: u64,
    /// Their length, in bytes.
    pub bytes: u64,
    /// Whether contents were left to the next collection, because a transaction was under way.
    pub contents_postponed: bool,
}

/// Why nothing was collected, or not all of it.
#[derive(Debug, thiserror::Error)]
pub enum GcError {
    /// The generations cannot be told, so nothing is safe to remove.
    #[error("the generations in `{}` cannot be told, so nothing is removed: {reason}", path.display())]
    Roots {
        /// The file or directory that cannot be understood.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A generation names an object of which something is absent.
    #[error("generation `{}` is incomplete, so nothing is removed: remove the generation, or deploy it again", path.display())]
    Incomplete {
        /// The generation's link.
        path: PathBuf,
        /// What is absent.
        #[source]
        source: StoreError,
    },
    /// The store failed.
    #[error("the store failed during a collection")]
    Store(#[from] StoreError),
}

impl From<FsError> for GcError {
    fn from(error: FsError) -> Self {
        Self::Store(error.into())
    }
}

/// Decides what a collection would remove. Changes nothing.
///
/// `now` less `grace` is the time before which an object must have been published to be removed; younger ones are kept with all they need.
/// Errors: [`GcError::Roots`], [`GcError::Incomplete`] when the roots cannot be trusted.
pub fn plan(store: &ObjectStore, roots: &Roots, now: SystemTime, grace: Duration) -> Result<GcPlan, GcError> {
    let marked = {
        let _publication = store.lock_publication()?;
        mark(store, roots, &roots.given_up, now, grace)?
    };
    // A damaged manifest must not keep its object from being removed; its size is not known then.
    let freed = freed::freed_by(&marked.remove, &marked.keep, |object| store.manifest(object).ok());
    let remove: Vec<Removal> = marked.remove.into_iter().zip(freed).map(|(object, frees)| Removal { object, frees }).collect();
    let bytes = remove.iter().map(|removal| removal.frees).sum();
    Ok(GcPlan { keep: marked.keep.into_iter().collect(), remove, bytes, roots: roots.clone(), now, grace })
}

/// Carries a plan out: removes what it lists, as far as nobody needs it by now, and what earlier collections left unfinished.
///
/// Needs no free space: on a full disk it goes on as long as each attempt has freed something.
/// Errors: as [`plan`]; what was removed until then stays removed.
pub fn execute(store: &ObjectStore, plan: &GcPlan) -> Result<GcReport, GcError> {
    let mut removed = 0;
    store.empty_trash()?;
    loop {
        match attempt(store, plan) {
            Ok(report) => return Ok(GcReport { objects: report.objects + removed, ..report }),
            Err(GcError::Store(error)) if error.is_full() => {
                let freed = store.empty_trash()?;
                if freed == 0 {
                    return Err(error.into());
                }
                removed += freed;
            }
            Err(other) => return Err(other),
        }
    }
}

/// As [`execute`]; where the disk is full, it fails with what it has moved to the trash so far.
fn attempt(store: &ObjectStore, plan: &GcPlan) -> Result<GcReport, GcError> {
    let planned: BTreeSet<&ObjectRef> = plan.remove.iter().map(|removal| &removal.object).collect();
    let (remove, forgotten) = {
        let _publication = store.lock_publication()?;
        store.put_away_all_removed()?;
        let unneeded = mark(store, &plan.roots, &BTreeSet::new(), plan.now, plan.grace)?.remove;
        let remove = without_what_stays_needs(store, unneeded, &planned)?;
        for record in roots::results(store)?.stale {
            fsutil::remove_file(&record)?;
        }
        store.discard(&remove)?;
        let forgotten = store.forget_removed(&remove);
        (remove, forgotten)
    };
    // What takes long happens without the lock; nobody else looks into the trash.
    store.empty_trash()?;
    let _publication = store.lock_publication()?;
    match forgotten {
        // On a full disk the index can only be written after something has been freed. What somebody published again meanwhile stays.
        Err(error) if error.is_full() => store.forget_removed(&remove)?,
        other => other?,
    }
    store.remove_lone_manifests()?;
    leftovers::remove(store, plan.now, plan.grace)?;
    let report = GcReport { objects: remove.len() as u64, ..GcReport::default() };
    remove_unused_contents(store, report)
}

/// Those of `unneeded` that are planned, but for what an unplanned one refers to: it was published after the plan, so it stays, and whoever finds
/// it counts on its closure. `unneeded` has referrers before what they refer to.
fn without_what_stays_needs(
    store: &ObjectStore,
    unneeded: Vec<ObjectRef>,
    planned: &BTreeSet<&ObjectRef>,
) -> Result<Vec<ObjectRef>, StoreError> {
    let (mut remove, mut needed) = (Vec::new(), BTreeSet::new());
    for object in unneeded {
        if planned.contains(&object) && !needed.contains(&object) {
            remove.push(object);
        } else {
            needed.extend(references_of(store, &object)?);
        }
    }
    Ok(remove)
}

/// What is needed and what is not.
struct Marked {
    keep: BTreeSet<ObjectRef>,
    /// Referrers before what they refer to.
    remove: Vec<ObjectRef>,
}

/// Sorts all objects into needed and not needed. Call with the publication locked.
fn mark(store: &ObjectStore, roots: &Roots, given_up: &BTreeSet<PathBuf>, now: SystemTime, grace: Duration) -> Result<Marked, GcError> {
    // Leases before everything else: who holds one gives it up only after a link keeps the object, which then is there to be found below.
    // Nobody can take a new one, because the publication is locked.
    let leased = store.leased_objects()?;
    let mut all: BTreeSet<ObjectRef> = store.objects()?.into_iter().collect();
    for name in Directory::open(&store.root().join("store"))?.names()? {
        all.extend(object_of_name(&name));
    }
    let mut keep = BTreeSet::new();
    for roots::GenerationLink { profile: _, link, object } in roots::generations(store.root())? {
        if given_up.contains(&link) {
            continue;
        }
        store.closure(std::slice::from_ref(&object)).map_err(|source| {
            if matches!(source, StoreError::Missing { .. }) { GcError::Incomplete { path: link, source } } else { source.into() }
        })?;
        keep.extend(references_first(store, &[object], &all)?);
    }
    // Leases name objects before they are there, so here an absent one is nothing unusual.
    let mut others = leased;
    others.extend(store.pins()?.into_values());
    others.extend(roots::results(store)?.kept.into_iter().map(|(_, object)| object));
    others.extend(roots.objects.iter().cloned());
    for object in &all {
        if is_fresh(&store.object_path(object), now, grace)? {
            others.push(object.clone());
        }
    }
    let present: Vec<ObjectRef> = others.into_iter().filter(|object| all.contains(object)).collect();
    keep.extend(references_first(store, &present, &all)?);
    if keep.len() < all.len() {
        // Only worth the look at every process if there is something to remove.
        let used: Vec<ObjectRef> = roots::in_use(store, &all)?.into_iter().map(|(_, object)| object).collect();
        keep.extend(references_first(store, &used, &all)?);
    }
    let unneeded: Vec<ObjectRef> = all.difference(&keep).cloned().collect();
    let mut remove = references_first(store, &unneeded, &all)?;
    remove.retain(|object| !keep.contains(object));
    remove.reverse();
    Ok(Marked { keep, remove })
}

/// All that `roots` need of `all`, references first. Unlike [`ObjectStore::closure`] it goes on where something is absent.
fn references_first(store: &ObjectStore, roots: &[ObjectRef], all: &BTreeSet<ObjectRef>) -> Result<Vec<ObjectRef>, StoreError> {
    let mut ordered = Vec::new();
    let mut seen = BTreeSet::new();
    // An object is looked at twice: to open its references, and to be put out after them.
    let mut open: Vec<(ObjectRef, bool)> = roots.iter().rev().map(|root| (root.clone(), false)).collect();
    while let Some((object, references_done)) = open.pop() {
        if references_done {
            ordered.push(object);
        } else if all.contains(&object) && seen.insert(object.clone()) {
            let references = references_of(store, &object)?;
            open.push((object, true));
            open.extend(references.into_iter().rev().map(|reference| (reference, false)));
        }
    }
    Ok(ordered)
}

/// What an object refers to, by its manifest and by the index: a row that was lost must not cost an object that is needed.
fn references_of(store: &ObjectStore, object: &ObjectRef) -> Result<BTreeSet<ObjectRef>, StoreError> {
    let mut references = store.index().references(&object.id)?;
    // A damaged manifest is for `verify` to report; the rows are what is left then.
    if let Ok(head) = store.manifest_head(object) {
        references.extend(head.references);
    }
    Ok(references)
}

/// Whether something got its name less than `grace` ago. The times of an object are fixed, but not that of its last change of metadata.
fn is_fresh(path: &Path, now: SystemTime, grace: Duration) -> Result<bool, GcError> {
    let metadata = match std::fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(FsError::new("inspect", path, error).into()),
    };
    let changed = SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(metadata.ctime()).unwrap_or(0));
    // An object from the future is as fresh as can be: the clock was set back.
    Ok(now.duration_since(changed).map_or(true, |age| age < grace))
}

/// Removes the contents that have no name but their own. Call with the publication locked, so that no transaction begins.
///
/// A transaction that is under way may have told a sender that a content is here, so then all contents stay.
fn remove_unused_contents(store: &ObjectStore, mut report: GcReport) -> Result<GcReport, GcError> {
    // Puts the staging directories of the dead away; those that are left belong to the living.
    store.leased_objects()?;
    report.contents_postponed = !Directory::open(&store.root().join("stage"))?.names()?.is_empty();
    if report.contents_postponed {
        return Ok(report);
    }
    store.forget_left_overs()?;
    let blobs = Directory::open(&store.root().join("blobs"))?;
    for shard in blobs.names()? {
        if blobs.kind_of(&shard)? != NodeKind::Directory {
            continue;
        }
        let directory = blobs.open_child(&shard)?;
        for Listed { name, kind: _ } in directory.listed()? {
            if blob_of_name(&shard, &name).is_none() {
                continue;
            }
            let node = directory.node(&name)?;
            if node.kind == NodeKind::File && node.links == 1 {
                directory.remove_name(&name)?;
                store.progress().add_file();
                report.contents += 1;
                report.bytes += node.stamp.size;
            }
        }
    }
    Ok(report)
}

#[cfg(test)]
mod tests;

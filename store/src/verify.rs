//! Compares what is on disk with what names, manifests and index say, and reports every difference.
//!
//! Nothing is repaired here, and nothing stops at the first difference. The quick check looks at names, kinds, sizes, modes and link
//! targets; the full one also at times, and hashes every byte. Contents are read first, under their names in `blobs/`; then a file of an object is
//! mostly no more than another name of an inode that is known. What a file must hold to name its own object is read for each object.
//! Memory does not grow with the number of files, only with what is wrong.

mod blobs;
mod finding;
mod hashing;
mod layout;
mod objects;
mod sample;

use std::collections::BTreeSet;

use crate::error::StoreError;
use crate::fsutil::{self, Directory, Node, NodeKind};
use crate::objects::{ObjectStore, object_of_name};
use crate::progress::Counters;
use crate::{ObjectManifest, ObjectRef};
use blobs::{BadContents, Collected};
use finding::{Findings, escape};
use hashing::hash_while;
use objects::{Comparison, Depth};

pub(crate) use blobs::{blob_of_name, blob_of_path, name_in_blobs};
pub use finding::{Finding, Problem};
pub use hashing::Effort;
pub(crate) use layout::strays;
pub use sample::{Portion, Sampled};

/// The time of the last change of everything in an object, in nanoseconds since the epoch.
pub(crate) const OBJECT_TIME: i64 = 1_000_000_000;

/// The mode of manifests.
pub(crate) const MANIFEST_MODE: u32 = 0o444;

impl ObjectStore {
    /// Verifies everything, as fast as it can be done. See [`Self::verify_with`].
    pub fn verify(&self) -> Result<Vec<Finding>, StoreError> {
        self.verify_with(&Effort::full(&Counters::new()))
    }

    /// Re-hashes all objects and all contents, compares them with manifests and index, and looks for what does not belong.
    ///
    /// Shape: sorted, by object and path; none twice.
    /// Errors: [`StoreError`] only if the store as a whole cannot be read; what is wrong with an object is a finding.
    pub fn verify_with(&self, effort: &Effort<'_>) -> Result<Vec<Finding>, StoreError> {
        let (findings, collected) = (Findings::default(), Collected::default());
        // Before the contents: what is published later is not looked at, and brings contents that were not read.
        let objects = self.known_objects()?;
        hash_while(effort, |hashing| blobs::check_blobs(self, hashing, &findings, &collected))?;
        let bad = collected.into_inner();
        self.compare_all(&objects, effort, Some(&bad), &findings)?;
        layout::check(self, &findings)?;
        Ok(findings.into_sorted())
    }

    /// Re-hashes some objects.
    ///
    /// Shape and errors: as [`Self::verify_with`].
    pub fn verify_objects(&self, objects: &BTreeSet<ObjectRef>, effort: &Effort<'_>) -> Result<Vec<Finding>, StoreError> {
        let findings = Findings::default();
        self.compare_all(objects, effort, None, &findings)?;
        Ok(findings.into_sorted())
    }

    /// Re-hashes one object.
    ///
    /// Shape and errors: as [`Self::verify_with`].
    pub fn verify_object(&self, object: &ObjectRef) -> Result<Vec<Finding>, StoreError> {
        self.verify_objects(&BTreeSet::from([object.clone()]), &Effort::full(&Counters::new()))
    }

    /// Compares one object with its manifest without reading its files.
    ///
    /// Shape and errors: as [`Self::verify_with`].
    pub fn check_object(&self, object: &ObjectRef) -> Result<Vec<Finding>, StoreError> {
        let findings = Findings::default();
        let objects = Directory::open(&self.root().join("store"))?;
        self.compare(object, &objects, &Depth::Quick, &findings)?;
        Ok(findings.into_sorted())
    }

    /// The objects that have names on disk, whatever the index says.
    pub(crate) fn objects_on_disk(&self) -> Result<BTreeSet<ObjectRef>, StoreError> {
        let names = Directory::open(&self.root().join("store"))?.names()?;
        Ok(names.iter().filter_map(|name| object_of_name(name)).collect())
    }

    /// The objects that the index or the disk knows.
    fn known_objects(&self) -> Result<BTreeSet<ObjectRef>, StoreError> {
        let mut objects: BTreeSet<ObjectRef> = self.objects()?.into_iter().collect();
        objects.extend(self.objects_on_disk()?);
        Ok(objects)
    }

    fn compare_all(
        &self,
        objects: &BTreeSet<ObjectRef>,
        effort: &Effort<'_>,
        bad: Option<&BadContents>,
        findings: &Findings,
    ) -> Result<(), StoreError> {
        let directory = Directory::open(&self.root().join("store"))?;
        hash_while(effort, |hashing| {
            let depth = Depth::Full { hashing, bad };
            objects.iter().try_for_each(|object| self.compare(object, &directory, &depth, findings))
        })
    }

    /// Compares one object with its manifest, and its manifest with the index.
    fn compare<'env>(
        &self,
        object: &ObjectRef,
        directory: &Directory,
        depth: &Depth<'_, 'env>,
        findings: &'env Findings,
    ) -> Result<(), StoreError> {
        // Keeps a collector from taking the object away halfway, which would look like damage.
        let _publication = self.share_publication()?;
        let push = |problem| findings.push(Some(object), ".", problem);
        if !self.is_on_disk(object) {
            // Removed since it was listed, unless the index still counts on it.
            if matches!(depth, Depth::Quick) || self.index().name_of(&object.id)?.as_ref() == Some(&object.name) {
                push(Problem::Missing);
            }
            return Ok(());
        }
        let manifest = match self.judge_manifest(object, findings)? {
            Ok(manifest) => manifest,
            Err(problem) => {
                push(problem);
                return Ok(());
            }
        };
        // Without a row there is nothing to compare; that is found elsewhere, where nobody is about to write it.
        let is_indexed = self.index().name_of(&object.id)?.is_some();
        if is_indexed && self.index().references(&object.id)? != manifest.references.iter().cloned().collect() {
            push(Problem::Index);
        }
        for reference in &manifest.references {
            if !self.is_on_disk(reference) {
                push(Problem::Reference { reference: reference.clone() });
            }
        }
        Comparison { store: self, objects: directory, manifest: &manifest, findings, depth }.run();
        Ok(())
    }

    /// Reads a manifest; the inner error says why nothing can be judged by it.
    fn judge_manifest(&self, object: &ObjectRef, findings: &Findings) -> Result<Result<ObjectManifest, Problem>, StoreError> {
        let useless = |reason: String| Ok(Err(Problem::Manifest { reason }));
        match fsutil::node_at(&self.manifest_path(&object.id)) {
            Ok(Node { kind: NodeKind::File, mode: MANIFEST_MODE, .. }) => {}
            Ok(Node { kind: NodeKind::File, mode, .. }) => {
                findings.push(None, &format!("trees/{}", object.id), Problem::Mode { expected: MANIFEST_MODE, found: mode });
            }
            Ok(node) => return useless(format!("its manifest is {}", describe_kind(node.kind))),
            Err(error) if error.is_missing() => return useless("its manifest is missing".to_owned()),
            Err(error) => return Ok(Err(objects::unreadable(&error))),
        }
        match self.manifest(object) {
            Ok(manifest) => Ok(Ok(manifest)),
            Err(StoreError::Missing { .. }) => useless("its manifest is missing".to_owned()),
            Err(StoreError::Damaged { source, .. }) => useless(format!("its manifest is damaged: {}", escape(&source.to_string()))),
            Err(StoreError::WrongId { found, .. }) => useless(format!("its manifest is that of {found}")),
            Err(StoreError::File(error)) => Ok(Err(objects::unreadable(&error))),
            Err(other) => Err(other),
        }
    }

    /// Whether something has the object's name, whatever the index says.
    pub(crate) fn is_on_disk(&self, object: &ObjectRef) -> bool {
        !matches!(fsutil::node_at(&self.object_path(object)), Err(error) if error.is_missing())
    }
}

pub(crate) const fn mode_of_file(executable: bool) -> u32 {
    if executable { 0o555 } else { 0o444 }
}

const fn describe_kind(kind: NodeKind) -> &'static str {
    match kind {
        NodeKind::Directory => "a directory",
        NodeKind::File => "a file",
        NodeKind::Symlink => "a symbolic link",
        NodeKind::Special => "a special file",
    }
}

#[cfg(test)]
pub(crate) mod tests;

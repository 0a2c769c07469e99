//! Puts right what verification finds, from whatever else has the right bytes.
//!
//! A round looks for what is wrong, then puts right: manifests, contents in `blobs/`, paths in objects, objects that are gone, the index. Each step works
//! with what the ones before it gave, and rounds go on while they help. What is damaged is never deleted but moved to `quarantine/`, and nothing
//! takes a place unless its digest fits. A path has the old or the new file at every instant; who has the old one open keeps it. A repair that is cut off
//! leaves what the next one finds. Normative text: `FORMAT.md`, section "Repair".

mod contents;
mod manifests;
mod material;
mod paths;
mod quarantine;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::ObjectRef;
use crate::error::StoreError;
use crate::fsutil::{self, FsError};
use crate::objects::ObjectStore;
use crate::pack::PackError;
use crate::transaction::Transaction;
use crate::verify::{Effort, Finding, Problem};
use material::Material;
use quarantine::Quarantine;

/// How often to look again. What is below a damaged directory or manifest shows when that is right, and an object may need another one first.
const ROUNDS_MAX: usize = 5;

/// Where good copies may be, beside the store itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// The root of another store. It is only read.
    Store(PathBuf),
    /// A file that [`export`](crate::pack::export) wrote. Signatures do not matter: the digests that are looked for say what is right.
    Export(PathBuf),
}

/// What a repair did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repaired {
    /// What was wrong and is right now, sorted.
    pub repaired: Vec<Finding>,
    /// What is still wrong, sorted.
    pub left: Vec<Finding>,
    /// Where what was damaged lies now, sorted.
    pub quarantined: Vec<PathBuf>,
}

/// Why nothing, or not everything, was tried.
#[derive(Debug, thiserror::Error)]
pub enum RepairError {
    /// A source is nothing to take from.
    #[error("`{}` is neither a store nor an export", path.display())]
    Source {
        /// What was named.
        path: PathBuf,
    },
    /// An export cannot be read.
    #[error("cannot take from the export `{}`", path.display())]
    Export {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: Box<PackError>,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<FsError> for RepairError {
    fn from(error: FsError) -> Self {
        Self::Store(error.into())
    }
}

impl Source {
    /// Tells what is at `path` by its looks.
    ///
    /// Errors: [`RepairError::Source`] for a directory that is no store, and for what is neither directory nor file.
    pub fn of(path: &Path) -> Result<Self, RepairError> {
        let metadata = std::fs::metadata(path).map_err(|error| FsError::new("open", path, error))?;
        if metadata.is_file() {
            return Ok(Self::Export(path.to_owned()));
        }
        if metadata.is_dir() && path.join("format.json").is_file() && path.join("blobs").is_dir() {
            return Ok(Self::Store(path.to_owned()));
        }
        Err(RepairError::Source { path: path.to_owned() })
    }
}

impl ObjectStore {
    /// Repairs some objects, or everything.
    ///
    /// `now` goes into the names in quarantine. Errors: [`RepairError`]; what was repaired until then stays so.
    pub fn repair(
        &self,
        objects: Option<&BTreeSet<ObjectRef>>,
        sources: &[Source],
        now: SystemTime,
        effort: &Effort<'_>,
    ) -> Result<Repaired, RepairError> {
        let mut transaction = self.begin()?;
        let material = Material::open(sources, &mut transaction)?;
        let mut quarantine = Quarantine::new(self, now);
        let mut left = self.look(objects, effort)?;
        let mut all: BTreeSet<Finding> = left.iter().cloned().collect();
        for _ in 0..ROUNDS_MAX {
            if left.is_empty() {
                break;
            }
            let mut round = Round { store: self, transaction: &mut transaction, material: &material, quarantine: &mut quarantine };
            round.run(&left)?;
            let found = self.look(objects, effort)?;
            all.extend(found.iter().cloned());
            let is_stuck = found == left;
            left = found;
            if is_stuck {
                break;
            }
        }
        for finding in &left {
            all.remove(finding);
        }
        Ok(Repaired { repaired: all.into_iter().collect(), left, quarantined: quarantine.into_paths() })
    }

    /// What is wrong; an object that was named has to be there.
    fn look(&self, objects: Option<&BTreeSet<ObjectRef>>, effort: &Effort<'_>) -> Result<Vec<Finding>, StoreError> {
        let Some(objects) = objects else { return self.verify_with(effort) };
        let mut findings: BTreeSet<Finding> = self.verify_objects(objects, effort)?.into_iter().collect();
        let gone = objects.iter().filter(|object| !self.is_on_disk(object));
        findings.extend(gone.map(|object| Finding { object: Some(object.clone()), path: ".".to_owned(), problem: Problem::Missing }));
        Ok(findings.into_iter().collect())
    }
}

/// One pass over what is wrong.
struct Round<'a> {
    store: &'a ObjectStore,
    transaction: &'a mut Transaction,
    material: &'a Material,
    quarantine: &'a mut Quarantine,
}

impl Round<'_> {
    fn run(&mut self, findings: &[Finding]) -> Result<(), RepairError> {
        self.repair_manifests(findings)?;
        let gone = absent_objects(findings);
        self.repair_contents(findings, &gone)?;
        self.repair_paths(findings)?;
        self.restore_objects(&gone)?;
        self.put_away_strays(findings)?;
        self.repair_index(findings)
    }

    /// Makes absent objects anew, those that others need first.
    fn restore_objects(&mut self, gone: &BTreeSet<ObjectRef>) -> Result<(), RepairError> {
        let mut waiting: Vec<_> = gone.iter().filter_map(|object| self.manifest_at_hand(object)).collect();
        loop {
            let before = waiting.len();
            let (ready, rest): (Vec<_>, Vec<_>) =
                waiting.into_iter().partition(|manifest| manifest.references.iter().all(|reference| self.store.is_on_disk(reference)));
            for manifest in ready {
                let mut transaction = self.store.begin()?;
                match transaction.put_received(&manifest) {
                    Ok(()) => drop(transaction.barrier()?),
                    // Without all contents there is nothing to be had.
                    Err(StoreError::MissingContent { .. } | StoreError::WrongContent { .. } | StoreError::Damaged { .. }) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            if rest.is_empty() || rest.len() == before {
                return Ok(());
            }
            waiting = rest;
        }
    }

    /// Moves away what does not belong beside objects, manifests and contents, and manifests of nothing.
    fn put_away_strays(&mut self, findings: &[Finding]) -> Result<(), RepairError> {
        let _publication = self.store.lock_publication()?;
        let directories = ["store", "trees", "blobs"];
        let mut strays: Vec<PathBuf> = Vec::new();
        if findings.iter().any(|finding| finding.object.is_none() && finding.problem == Problem::Extra) {
            // Listed anew: a finding's path is for people.
            for directory in directories {
                strays.extend(crate::verify::strays(self.store, directory)?);
            }
        }
        for finding in findings.iter().filter(|finding| finding.problem == Problem::NoObject) {
            let path = self.store.root().join(&finding.path);
            let id = path.file_name().and_then(|name| name.to_str()?.parse().ok());
            // It may have helped to make its object anew.
            if id.is_some_and(|id| self.store.find(&id).is_ok_and(|object| object.is_none())) {
                strays.push(path);
            }
        }
        strays.iter().try_for_each(|path| self.quarantine.take_stray(path))?;
        Ok(())
    }

    /// Lets the index say what the manifests say.
    fn repair_index(&mut self, findings: &[Finding]) -> Result<(), RepairError> {
        let _publication = self.store.lock_publication()?;
        for finding in findings {
            let Some(object) = &finding.object else { continue };
            if matches!(finding.problem, Problem::Index | Problem::Unindexed) {
                if let Ok(manifest) = self.store.manifest(object) {
                    fsutil::sync_file_system(self.store.root())?;
                    self.store.index().remove([object.id])?;
                    self.store.index().insert([&manifest.to_head()])?;
                }
            } else if finding.problem == Problem::Missing && finding.path == "." && !self.store.is_on_disk(object) {
                // Nothing could be done for it, so the row is wrong.
                self.store.index().remove([object.id])?;
            }
        }
        Ok(())
    }
}

/// The objects that findings say are not there.
fn absent_objects(findings: &[Finding]) -> BTreeSet<ObjectRef> {
    let absent = findings.iter().filter_map(|finding| match (&finding.problem, &finding.object) {
        (Problem::Missing, Some(object)) if finding.path == "." => Some(object.clone()),
        (Problem::Reference { reference }, _) => Some(reference.clone()),
        _ => None,
    });
    absent.collect()
}

#[cfg(test)]
mod tests;

//! Generations: which there are, what is recorded of them, which is current, and what their bundles say.
//!
//! A generation is a number, a link to its bundle and a record. Numbers only grow and are never used again.
//! The record says what became of the generation's last trial; it decides nothing, `current` and `pending.json` do.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use sarsen_store::ObjectRef;
use sarsen_store::fsutil;
use sarsen_store::manifest::{Identity, MANIFEST_BYTES_MAX, MANIFEST_FILE, Manifest};
use serde::{Deserialize, Serialize};

use crate::diff::Loaded;
use crate::error::ActivateError;
use crate::layout::{self, Layout, ProfileLayout};
use crate::protocol::GenerationInfo;
use crate::statefile;

/// The longest text of a unit, in bytes.
const UNIT_BYTES_MAX: u64 = 1 << 20;

/// The most generations of one profile that are read: a deployment an hour for ten years.
const GENERATIONS_MAX: usize = 100_000;

/// What became of a generation's last trial.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TrialResult {
    /// It has not ended.
    Pending,
    /// It was confirmed.
    Committed,
    /// It was given up, and the recorded previous generation runs.
    RolledBack,
    /// It was given up, and going back failed as well.
    Failed,
}

impl TrialResult {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Committed => "committed",
            Self::RolledBack => "rolled-back",
            Self::Failed => "failed",
        }
    }
}

/// What is recorded of a generation, in `gen/<n>.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Its number.
    pub number: u64,
    /// Its bundle.
    pub bundle: ObjectRef,
    /// The generation that was current when it was made.
    pub previous: Option<u64>,
    /// When it was made, in seconds since 1970.
    pub created: u64,
    /// Who deployed it, as `user@machine`.
    pub who: String,
    /// The project's source revision.
    pub revision: Option<String>,
    /// Why, in the deployer's words.
    #[serde(default)]
    pub message: Option<String>,
    /// The nonce of its last trial.
    pub nonce: String,
    /// What became of it.
    pub result: TrialResult,
    /// Why it was given up, if it was.
    pub reason: Option<String>,
    /// What failed on the way back, if something did.
    pub failure: Option<String>,
    /// What people should know of its last trial beside the result.
    pub notes: Vec<String>,
}

impl Record {
    /// What is told about it; `given_up` says that its bundle is not kept any more.
    pub fn to_info(&self, current: Option<u64>, given_up: bool) -> GenerationInfo {
        let reason = match (&self.reason, &self.failure) {
            (Some(reason), Some(failure)) => Some(format!("{reason}; going back failed: {failure}")),
            (reason, _) => reason.clone(),
        };
        GenerationInfo {
            number: self.number,
            bundle: self.bundle.clone(),
            previous: self.previous,
            created: self.created,
            who: self.who.clone(),
            revision: self.revision.clone(),
            message: self.message.clone(),
            result: self.result.as_str().to_owned(),
            reason,
            current: current == Some(self.number),
            given_up,
        }
    }
}

/// The profile's generations.
impl ProfileLayout {
    /// Whom the profile belongs to, if it was ever used.
    pub fn read_identity(&self) -> Result<Option<Identity>, ActivateError> {
        Ok(statefile::read::<IdentityFile>(&self.identity())?.map(|file| file.identity))
    }

    /// Says whom the profile belongs to.
    pub fn write_identity(&self, identity: &Identity) -> Result<(), ActivateError> {
        statefile::write(&self.identity(), &IdentityFile { identity: identity.clone() })
    }

    /// The number of the current generation.
    pub fn read_current(&self) -> Result<Option<u64>, ActivateError> {
        statefile::read_generation_link(&self.current())
    }

    /// The number of the generation that was confirmed last.
    pub fn read_good(&self) -> Result<Option<u64>, ActivateError> {
        statefile::read_generation_link(&self.good())
    }

    /// Makes a generation current in one step, or none.
    pub fn switch_to(&self, generation: Option<u64>) -> Result<(), ActivateError> {
        match generation {
            Some(number) => Ok(fsutil::replace_symlink(&self.current(), Path::new(&layout::generation_target(number)))?),
            None => statefile::remove(&self.current()),
        }
    }

    /// The bundle of a generation.
    ///
    /// Errors: [`ActivateError::NoGeneration`], [`ActivateError::StrayLink`].
    pub fn read_bundle(&self, number: u64) -> Result<ObjectRef, ActivateError> {
        let path = self.generation(number);
        let target = statefile::read_link(&path)?.ok_or(ActivateError::NoGeneration { number })?;
        layout::parse_bundle_target(&target).ok_or(ActivateError::StrayLink { path, target })
    }

    /// What a generation's bundle says.
    pub fn load_generation(&self, number: u64) -> Result<Loaded, ActivateError> {
        load_bundle(self.layout(), &self.read_bundle(number)?)
    }

    /// What is recorded of a generation.
    pub fn read_record(&self, number: u64) -> Result<Option<Record>, ActivateError> {
        statefile::read(&self.record(number))
    }

    /// Records a generation.
    pub fn write_record(&self, record: &Record) -> Result<(), ActivateError> {
        statefile::write(&self.record(record.number), record)
    }

    /// The numbers of all generations that have a link or a record, ascending.
    pub fn list_generations(&self) -> Result<Vec<u64>, ActivateError> {
        let path = self.generations();
        let failed = |source| ActivateError::Io { action: "list", path: path.clone(), source };
        let entries = match fs::read_dir(&path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => return Err(failed(source)),
        };
        let mut numbers = Vec::new();
        for entry in entries.take(2 * GENERATIONS_MAX) {
            let name = entry.map_err(failed)?.file_name();
            let name = name.to_string_lossy();
            numbers.extend(layout::parse_generation_number(name.strip_suffix(".json").unwrap_or(&name)));
        }
        numbers.sort_unstable();
        numbers.dedup();
        Ok(numbers)
    }

    /// The record of the last trial that had this nonce, if it is among the newest generations.
    pub fn find_trial(&self, nonce: &str) -> Result<Option<Record>, ActivateError> {
        for number in self.list_generations()?.into_iter().rev() {
            match self.read_record(number)? {
                Some(record) if record.nonce == nonce => return Ok(Some(record)),
                _ => {}
            }
        }
        Ok(None)
    }
}

#[derive(Serialize, Deserialize)]
struct IdentityFile {
    identity: Identity,
}

/// Reads a bundle's manifest and the texts of its units.
///
/// Errors: [`ActivateError::Manifest`], [`ActivateError::Bundle`] if something that the manifest names is not there.
pub fn load_bundle(layout: &Layout, bundle: &ObjectRef) -> Result<Loaded, ActivateError> {
    let directory = layout.object(bundle);
    let text = fsutil::read_file_bounded(&directory.join(MANIFEST_FILE), MANIFEST_BYTES_MAX)?;
    let manifest = Manifest::parse(&text).map_err(|source| ActivateError::Manifest { bundle: bundle.to_string(), source })?;
    let unusable = |problem: String| ActivateError::Bundle { bundle: bundle.to_string(), problem };
    let mut units = BTreeMap::new();
    for service in &manifest.services {
        let path = Manifest::unit_path(&service.unit).map_err(|error| unusable(error.to_string()))?;
        let text = fsutil::read_file_bounded(&directory.join(path.as_path()), UNIT_BYTES_MAX)?;
        let text = String::from_utf8(text).map_err(|_| unusable(format!("unit `{}` is not UTF-8", service.unit)))?;
        units.insert(service.unit.clone(), text);
    }
    Ok(Loaded { bundle: bundle.clone(), manifest, units })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How often `current` is switched under the reader.
    const SWITCHES: u64 = 1000;

    #[test]
    fn whoever_reads_through_current_never_fails_while_it_is_switched() {
        let directory = tempfile::tempdir().unwrap();
        let profile = Layout::new(directory.path()).profile(&"shop".parse().unwrap());
        for number in 1..=2 {
            let object = directory.path().join(format!("store/{number}"));
            fsutil::create_dir_all(&object, 0o755).unwrap();
            fsutil::create_dir_all(&profile.generations(), 0o755).unwrap();
            fsutil::replace_file(&object.join("file"), number.to_string().as_bytes(), 0o444).unwrap();
            fsutil::replace_symlink(&profile.generation(number), format!("../../../store/{number}").as_ref()).unwrap();
        }
        profile.switch_to(Some(1)).unwrap();
        let over = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let (mut reads, mut seen) = (0_u64, [0_u64; 2]);
                while !over.load(std::sync::atomic::Ordering::Relaxed) {
                    let text = std::fs::read_to_string(profile.current().join("file")).expect("current always leads to a generation");
                    seen[usize::from(text == "2")] += 1;
                    reads += 1;
                }
                (reads, seen)
            });
            for number in 0..SWITCHES {
                profile.switch_to(Some(1 + number % 2)).unwrap();
            }
            over.store(true, std::sync::atomic::Ordering::Relaxed);
            let (reads, seen) = reader.join().unwrap();
            assert!(reads > 0 && seen.iter().all(|count| *count > 0), "{reads} reads, {seen:?} of each generation");
        });
    }
}

//! Answers that only look: facts, status, history, comparison.

use std::collections::BTreeMap;
use std::path::Path;

use sarsen_store::gc::Retention;
use sarsen_store::manifest::Manifest;
use sarsen_store::{ObjectRef, ObjectStore};

use super::Session;
use crate::activate::{Engine, describe_identity};
use crate::diff::Loaded;
use crate::error::{ActivateError, describe, shorten};
use crate::pending::Phase;
use crate::protocol::{DamagedGeneration, Facts, GenerationInfo, LogEntry, Response, Status, UnitStatus};
use crate::{audit, clock, lock, retention, statefile};

/// The most generations that one answer lists: with the bounds of records they fit into a frame.
const HISTORY_MAX: usize = 200;

/// The longest reason in a list of generations, in bytes; the record holds all of it.
const REASON_BYTES_MAX: usize = 2000;

fn tell_entry(entry: audit::Entry) -> LogEntry {
    let audit::Entry { number, time, action, who, message, revision, dirty, generation, previous, result, reason, .. } = entry;
    LogEntry { number, time, action: action.as_str().to_owned(), who, message, revision, dirty, generation, previous, result, reason }
}

impl Session {
    pub(super) fn find_facts(&self) -> Result<Facts, ActivateError> {
        let root = self.profile.layout().root();
        let existing = root.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
        let space = rustix::fs::statvfs(existing).map_err(|errno| ActivateError::Io {
            action: "inspect the file system of",
            path: existing.to_owned(),
            source: errno.into(),
        })?;
        let current = self.profile.read_current()?;
        Ok(Facts {
            architecture: rustix::system::uname().machine().to_string_lossy().into_owned(),
            root: root.display().to_string(),
            services: self.machine().services().name().to_owned(),
            free_bytes: space.f_bavail.saturating_mul(space.f_frsize),
            free_inodes: space.f_favail,
            identity: self.profile.read_identity()?,
            current,
            bundle: current.map(|number| self.profile.read_bundle(number)).transpose()?,
            locked_by: lock::find_holder(&self.profile.lock()),
        })
    }

    pub(super) fn find_status(&self) -> Result<Status, ActivateError> {
        let current = self.profile.read_current()?;
        let pending = self.profile.read_pending()?.filter(|pending| pending.phase != Phase::Committed).map(|pending| pending.generation);
        let units = match current {
            Some(number) => self.profile.load_generation(number)?.unit_names(),
            None => Vec::new(),
        };
        let states = self.machine().services().states(&units)?;
        Ok(Status {
            current: current.map(|number| self.describe(number, current, pending)).transpose()?.flatten(),
            good: self.profile.read_good()?,
            pending,
            services: self.machine().services().name().to_owned(),
            units: states.into_iter().map(|it| UnitStatus { unit: it.unit, state: it.state, pid: it.pid }).collect(),
        })
    }

    pub(super) fn find_history(&self, limit: u32) -> Result<Response, ActivateError> {
        let current = self.profile.read_current()?;
        let pending = self.profile.read_pending()?.map(|pending| pending.generation);
        let limit = usize::try_from(limit).unwrap_or(HISTORY_MAX).min(HISTORY_MAX);
        let (mut generations, mut damaged) = (Vec::new(), Vec::new());
        for number in self.profile.list_generations()?.into_iter().rev() {
            if generations.len() + damaged.len() == limit {
                break;
            }
            match self.describe(number, current, pending) {
                Ok(info) => generations.extend(info),
                // One that cannot be read hides none of the others.
                Err(error @ (ActivateError::Damaged { .. } | ActivateError::Version { .. } | ActivateError::File(_))) => {
                    damaged.push(DamagedGeneration { number, problem: shorten(&describe(&error), REASON_BYTES_MAX) });
                }
                Err(error) => return Err(error),
            }
        }
        let audit::Log { entries, head, problem } = self.profile.read_log()?;
        let log = entries.into_iter().rev().take(limit).map(tell_entry).collect();
        Ok(Response::History { generations, damaged, log, log_problem: problem, log_head: head.to_string() })
    }

    fn describe(&self, number: u64, current: Option<u64>, pending: Option<u64>) -> Result<Option<GenerationInfo>, ActivateError> {
        let Some(record) = self.profile.read_record(number)? else { return Ok(None) };
        let given_up = statefile::read_link(&self.profile.generation(number))?.is_none();
        let mut info = record.to_info(current, given_up);
        if pending == Some(number) {
            "pending".clone_into(&mut info.result);
        }
        info.reason = info.reason.map(|reason| shorten(&reason, REASON_BYTES_MAX));
        Ok(Some(info))
    }

    pub(super) fn compare(
        &self,
        bundle: &ObjectRef,
        manifest: &Manifest,
        units: &BTreeMap<String, String>,
        retention: Option<Retention>,
    ) -> Result<Response, ActivateError> {
        let expired = retention.map_or(Ok(Vec::new()), |retention| self.find_expired(retention))?;
        let new = Loaded { bundle: bundle.clone(), manifest: manifest.clone(), units: units.clone() };
        let current = self.profile.read_current()?;
        let old = current.map(|number| self.profile.load_generation(number)).transpose()?;
        let engine = Engine { profile: &self.profile, machine: self.machine(), report: &|_| () };
        let plan = engine.plan(old.as_ref(), &new)?;
        if plan.unchanged {
            return Ok(Response::Compared { plan, unmet: Vec::new(), expired });
        }
        let mut unmet = Vec::new();
        if manifest.identity != self.identity {
            let (meant, bundle) = (describe_identity(&self.identity), describe_identity(&manifest.identity));
            unmet.push(format!("the deployment is for {meant}, the bundle is for {bundle}"));
        }
        unmet.extend(engine.find_unmet(manifest, old.as_ref()));
        Ok(Response::Compared { plan, unmet, expired })
    }

    /// The generations that would be given up after a deployment.
    fn find_expired(&self, retention: Retention) -> Result<Vec<u64>, ActivateError> {
        let root = self.profile.layout().root();
        if !root.join("store").is_dir() {
            return Ok(Vec::new());
        }
        let failed = |error: &dyn std::error::Error| ActivateError::Machine { message: describe(error) };
        let store = ObjectStore::open(root).map_err(|error| failed(&error))?;
        retention::find_expired_after(&self.profile, &store, retention, clock::now()).map_err(|error| failed(&error))
    }
}

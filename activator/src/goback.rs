//! Going back: the given-up trial is undone from its journal, and the recorded previous generation runs again, verified.
//!
//! Every step may be repeated, so whoever is killed here is followed by the next who settles the trial. One step that
//! fails does not keep the others from being tried: the worst end is a machine on the previous generation with one
//! link wrong, said in words, not one that stopped half way.

use std::path::Path;
use std::time::Duration;

use sarsen_store::fsutil;
use sarsen_store::manifest::{self, Service};

use crate::activate::{Engine, START_TIME, link_obstacle, stop_time};
use crate::diff::Loaded;
use crate::error::{ActivateError, describe};
use crate::generation::TrialResult;
use crate::journal::{Undo, plan_undo};
use crate::pending::Pending;
use crate::statefile;

/// How long units of the previous generation may take until they are active again.
const VERIFY_TIME: Duration = Duration::from_secs(30);

/// When the units of the previous generation can be looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verification {
    /// As soon as they have been started again.
    Now,
    /// Not here: this machine is booting, and starts them when the trial has been settled.
    LeftToBoot,
}

/// Both sides of the way back.
#[derive(Default)]
pub(crate) struct Way {
    given_up: Option<Loaded>,
    previous: Option<Loaded>,
}

impl Way {
    fn former_services(&self) -> &[Service] {
        self.given_up.as_ref().map_or(&[], |loaded| &loaded.manifest.services)
    }

    fn services(&self) -> &[Service] {
        self.previous.as_ref().map_or(&[], |loaded| &loaded.manifest.services)
    }
}

impl Engine<'_> {
    /// What a trial has to undo, by its journal.
    pub(crate) fn plan_back(&self, pending: &Pending) -> (Way, Vec<Undo>) {
        let load = |number| self.profile.load_generation(number);
        let way = Way { given_up: load(pending.generation).ok(), previous: pending.previous.and_then(|number| load(number).ok()) };
        let steps = match self.profile.read_journal(&pending.nonce) {
            Ok(steps) => plan_undo(&steps),
            Err(error) => {
                self.event(&format!("everything is restored, because what was done is not known: {}", describe(&error)));
                undo_everything(pending, &way)
            }
        };
        (way, steps)
    }

    pub(crate) fn undo_step(&self, step: &Undo, way: &Way) -> Result<(), ActivateError> {
        let manager = self.machine.services();
        match step {
            Undo::Stop(units) => Ok(manager.stop(units, stop_time(way.former_services()))?),
            Undo::Start(units) => Ok(manager.start(units, START_TIME)?),
            Undo::Reload(units) => self.restore_configuration(units, way),
            Undo::Link { path, former, target } => restore_link(path, former.as_deref(), target.as_deref()),
            Undo::Switch(previous) => self.profile.switch_to(*previous),
            Undo::Install => Ok(manager.install(&self.profile.current(), way.services(), way.former_services())?),
        }
    }

    /// Lets units read the previous configuration again; those that cannot are started anew, since what they run on is given up.
    fn restore_configuration(&self, units: &[String], way: &Way) -> Result<(), ActivateError> {
        let manager = self.machine.services();
        let Err(error) = manager.reload(units, START_TIME) else { return Ok(()) };
        self.event(&format!("starting {} anew: {}", units.join(", "), describe(&error)));
        manager.stop(units, stop_time(way.services()))?;
        Ok(manager.start(units, START_TIME)?)
    }

    /// Runs the given-up generation's hooks for the way back.
    pub(crate) fn run_rollback_hooks(&self, pending: &Pending) -> Result<(), String> {
        let given_up = self.profile.load_generation(pending.generation).map_err(|error| describe(&error))?;
        self.events(&self.machine.run_hooks(&given_up.manifest, manifest::Phase::OnRollback, pending.generation)?);
        Ok(())
    }

    /// Looks whether the units of the previous generation run, for as long as they may take to start.
    pub(crate) fn verify_units(&self, previous: Option<u64>, failures: &mut Vec<String>) {
        let Some(number) = previous else { return };
        let loaded = match self.profile.load_generation(number) {
            Ok(loaded) => loaded,
            Err(error) => return failures.push(describe(&error)),
        };
        let names = loaded.unit_names();
        let deadline_ms = self.machine.moment().boottime_ms + crate::clock::milliseconds(VERIFY_TIME);
        loop {
            let states = match self.machine.services().states(&names) {
                Ok(states) => states,
                Err(error) => return failures.push(describe(&error)),
            };
            let late = self.machine.moment().boottime_ms >= deadline_ms;
            let bad: Vec<_> = states.iter().filter(|state| state.failed || (late && !state.active)).collect();
            if !bad.is_empty() {
                failures.extend(bad.iter().map(|state| format!("unit `{}` of generation {number} is {}", state.unit, state.state)));
                return;
            }
            if states.iter().all(|state| state.active) {
                return;
            }
            self.machine.pause();
        }
    }

    pub(crate) fn record_going_back(&self, pending: &Pending, reason: &str, failure: Option<&str>) -> Result<(), ActivateError> {
        if pending.previous == Some(pending.generation) {
            // It was to be put right and is what it was before: its own record stays true.
            return Ok(());
        }
        let Some(mut record) = self.profile.read_record(pending.generation)? else { return Ok(()) };
        record.nonce.clone_from(&pending.nonce);
        record.result = if failure.is_some() { TrialResult::Failed } else { TrialResult::RolledBack };
        record.reason = Some(reason.to_owned());
        record.failure = failure.map(str::to_owned);
        self.profile.write_record(&record)
    }
}

/// The words for a generation that may be none.
pub(crate) fn describe_generation(generation: Option<u64>) -> String {
    generation.map_or_else(|| "none".to_owned(), |number| format!("generation {number}"))
}

/// Every step that the trial may have done, for a journal that cannot be read.
fn undo_everything(pending: &Pending, way: &Way) -> Vec<Undo> {
    let mut undo = Vec::new();
    if let Some(given_up) = &way.given_up {
        let plan = crate::diff::plan_activation(way.previous.as_ref(), given_up);
        undo.push(Undo::Stop(plan.start.iter().rev().cloned().collect()));
        let links = |loaded: &Loaded| loaded.manifest.links.iter().map(|it| (it.path.clone(), it.target.clone())).collect::<Vec<_>>();
        let former = way.previous.as_ref().map(links).unwrap_or_default();
        let made = links(given_up);
        for path in plan.links_make.iter().chain(&plan.links_remove) {
            let find = |links: &[(String, String)]| links.iter().find(|(known, _)| known == path).map(|(_, target)| target.clone());
            undo.push(Undo::Link { path: path.clone(), former: find(&former), target: find(&made) });
        }
    }
    undo.extend([Undo::Switch(pending.previous), Undo::Install]);
    undo.push(Undo::Start(way.previous.as_ref().map(Loaded::unit_names).unwrap_or_default()));
    undo
}

/// Leads a managed path where it led before. One that somebody else has taken meanwhile is left alone, and said.
fn restore_link(path: &str, former: Option<&str>, target: Option<&str>) -> Result<(), ActivateError> {
    let path = Path::new(path);
    remove_unfinished(path, &[former, target])?;
    let present = statefile::read_link(path)?;
    if present.as_deref() == former {
        return Ok(());
    }
    if present.as_deref() != target && present.is_some() {
        return Err(ActivateError::Machine { message: format!("`{}` was changed by somebody else and stays as it is", path.display()) });
    }
    match former {
        Some(former) => match link_obstacle(path) {
            Some(obstacle) => Err(ActivateError::Machine { message: obstacle }),
            None => Ok(fsutil::replace_symlink(path, Path::new(former))?),
        },
        None => statefile::remove(path),
    }
}

/// The most entries of a directory that are looked at for unfinished links; in more of them a stray name harms nobody.
const ENTRIES_MAX: usize = 10_000;

/// Removes links that somebody who was killed had made beside `path` and not yet given its name: ours by their names and their targets.
fn remove_unfinished(path: &Path, targets: &[Option<&str>]) -> Result<(), ActivateError> {
    let Some(Ok(entries)) = path.parent().map(std::fs::read_dir) else { return Ok(()) };
    for entry in entries.take(ENTRIES_MAX).flatten() {
        let is_temporary = entry.file_name().to_str().is_some_and(fsutil::is_temporary_name);
        if is_temporary && statefile::read_link(&entry.path())?.is_some_and(|it| targets.contains(&Some(it.as_str()))) {
            fsutil::remove_file(&entry.path())?;
        }
    }
    Ok(())
}

//! The trial: makes a generation current, sees that it is healthy, and keeps it only if that is confirmed.
//!
//! The order of everything here is the normative text of `LAYOUT.md`, section "Activation". What matters: nothing
//! outside of the profile changes before `pending.json` is on disk; every change is in the journal before it is made;
//! and there is one decision, in `pending.json`, after which the trial either ends in a commit or goes back. This
//! process may be killed anywhere: the lock goes with it, and whoever finds the trial next settles it.

use std::path::{Component, Path};
use std::time::Duration;

use sarsen_store::fsutil;
use sarsen_store::manifest::{Identity, Manifest, Phase as HookPhase, Service};

use crate::clock::milliseconds;
use crate::diff::{ActivationPlan, Loaded};
use crate::error::{ActivateError, describe};
use crate::generation::{Record, TrialResult, load_bundle};
use crate::goback::{Verification, describe_generation};
use crate::journal::Step;
use crate::layout::{ProfileLayout, bundle_target};
use crate::lock::{Attempt, Lock};
use crate::machine::Machine;
use crate::pending::{Pending, Phase};
use crate::protocol::{Activation, Response, Trial};
use crate::statefile;

/// How long all services together may take to start or reload: beyond the 90 s that systemd gives one by itself.
pub const START_TIME: Duration = Duration::from_mins(3);

/// What stopping may take beyond the services' own stop times.
const STOP_MARGIN: Duration = Duration::from_secs(30);

/// The longest that a target waits for a confirmation: longer is not a trial but an unattended change.
pub const CONFIRM_TIME_MAX: Duration = Duration::from_hours(1);

/// What a whole activation may take beyond its own parts before the dead man takes over.
const ACTIVATION_MARGIN: Duration = Duration::from_mins(2);

/// The shortest and longest nonce, in characters: 128 bits in hexadecimal are the least that cannot be guessed.
const NONCE_CHARS: std::ops::RangeInclusive<usize> = 32..=128;

/// The longest text that a deployer may say about itself, in bytes.
const WORDS_BYTES_MAX: usize = 512;

/// What drives one profile of one machine. Methods of this type are in the files that they belong to by topic.
pub struct Engine<'a> {
    /// The profile.
    pub profile: &'a ProfileLayout,
    /// The machine.
    pub machine: &'a dyn Machine,
    /// Takes what is reported before the end: events, and that a trial waits for its confirmation.
    pub report: &'a dyn Fn(Response),
}

impl std::fmt::Debug for Engine<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("profile", &self.profile).finish_non_exhaustive()
    }
}

/// What to make current.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Task {
    /// A bundle, as a new generation.
    Activate(Activation),
    /// A generation that exists; the one recorded as previous if no number is given.
    Rollback {
        /// Its number.
        to: Option<u64>,
        /// Who asks, why, and how long to wait.
        trial: Trial,
    },
}

impl Task {
    fn trial(&self) -> &Trial {
        match self {
            Self::Activate(activation) => &activation.trial,
            Self::Rollback { trial, .. } => trial,
        }
    }
}

/// Who decides over a healthy trial.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Confirmation {
    /// The operator, over a fresh connection.
    Awaited,
    /// Nobody: who stands at the machine sees for himself.
    NotNeeded,
}

/// A task that was found possible.
struct Prepared<'t> {
    trial: &'t Trial,
    /// The generation, if it exists already.
    existing: Option<u64>,
    new: Loaded,
    previous: Option<u64>,
    old: Option<Loaded>,
    plan: ActivationPlan,
}

/// A question that ends in an answer, or goes on.
enum Prospect<'t> {
    Possible(Box<Prepared<'t>>),
    Answer(Box<Response>),
}

impl Prospect<'_> {
    fn answer(response: Response) -> Self {
        Self::Answer(Box::new(response))
    }
}

impl Engine<'_> {
    pub(crate) fn event(&self, message: &str) {
        (self.report)(Response::Event { message: message.to_owned() });
    }

    pub(crate) fn events(&self, messages: &[String]) {
        for message in messages {
            self.event(message);
        }
    }

    /// Carries a task out, from the lock to the end of the trial.
    ///
    /// Shape: any final response but those of other requests; `OnTrial` goes to `report`, since it is not the end here.
    pub fn carry_out(&self, task: &Task, identity: Option<&Identity>, confirmation: Confirmation) -> Response {
        self.carry_out_locked(task, identity, confirmation).unwrap_or_else(|error| Response::Failed { message: describe(&error) })
    }

    fn carry_out_locked(&self, task: &Task, identity: Option<&Identity>, confirmation: Confirmation) -> Result<Response, ActivateError> {
        if let Some(reason) = find_fault(task.trial()) {
            return Ok(Response::Refused { reasons: vec![reason] });
        }
        fsutil::create_dir_all(&self.profile.generations(), 0o755)?;
        let mut lock = match Lock::attempt(&self.profile.lock())? {
            Attempt::Held(lock) => lock,
            Attempt::Busy(holder) => return Ok(Response::Locked { holder }),
        };
        self.settle(Verification::Now)?;
        let prepared = match self.prepare(task, identity)? {
            Prospect::Possible(prepared) => prepared,
            Prospect::Answer(response) => return Ok(*response),
        };
        let since = self.machine.moment().unix_seconds;
        lock.announce(&format!("{} since {since} (seconds since 1970), process {}", prepared.trial.who, std::process::id()))?;
        let pending = match self.begin(&prepared)? {
            Ok(pending) => pending,
            Err(message) => return Ok(Response::Failed { message }),
        };
        Ok(self.try_generation(&prepared, &pending, confirmation))
    }

    /// Finds out whether a task is possible, without changing anything.
    fn prepare<'t>(&self, task: &'t Task, identity: Option<&Identity>) -> Result<Prospect<'t>, ActivateError> {
        let previous = self.profile.read_current()?;
        let (existing, new) = match task {
            Task::Activate(activation) => match previous {
                Some(number) if self.profile.read_bundle(number)? == activation.bundle => {
                    (Some(number), self.profile.load_generation(number)?)
                }
                _ => (None, load_bundle(self.profile.layout(), &activation.bundle)?),
            },
            Task::Rollback { to, .. } => match self.choose_generation(*to, previous)? {
                Ok(number) => (Some(number), self.profile.load_generation(number)?),
                Err(reason) => return Ok(Prospect::answer(Response::Refused { reasons: vec![reason] })),
            },
        };
        let old = previous.map(|number| self.profile.load_generation(number)).transpose()?;
        let plan = self.plan(old.as_ref(), &new)?;
        if let Some(generation) = previous.filter(|_| plan.unchanged) {
            return Ok(Prospect::answer(Response::Unchanged { generation }));
        }
        let mut reasons = self.find_foreign(&new.manifest, identity)?;
        if reasons.is_empty() {
            match self.machine.check_closure(&new.bundle) {
                Ok(problems) => reasons.extend(problems),
                // The way back must not depend on an index, nor on space for one.
                Err(error) if existing.is_some() => self.event(&format!("the objects could not be looked over: {}", describe(&error))),
                Err(error) => return Err(error),
            }
            reasons.extend(self.find_unmet(&new.manifest, old.as_ref()));
        }
        if !reasons.is_empty() {
            return Ok(Prospect::answer(Response::Refused { reasons }));
        }
        Ok(Prospect::Possible(Box::new(Prepared { trial: task.trial(), existing, new, previous, old, plan })))
    }

    /// Chooses what to roll back to, or says why there is nothing.
    fn choose_generation(&self, to: Option<u64>, current: Option<u64>) -> Result<Result<u64, String>, ActivateError> {
        let wanted = match (to, current) {
            (Some(number), _) => Some(number),
            (None, Some(current)) => self.profile.read_record(current)?.and_then(|record| record.previous),
            (None, None) => None,
        };
        let mut known = Vec::new();
        for number in self.profile.list_generations()? {
            if statefile::read_link(&self.profile.generation(number))?.is_some() {
                known.push(number);
            }
        }
        match wanted {
            Some(number) if known.contains(&number) => Ok(Ok(number)),
            Some(number) => Ok(Err(format!("there is no generation {number}: there are {}", list_numbers(&known)))),
            None => Ok(Err(format!(
                "no generation is recorded as the one before {}: there are {}",
                describe_generation(current),
                list_numbers(&known)
            ))),
        }
    }

    /// Whom a bundle is for must be whom the profile belongs to and whom the operator means.
    fn find_foreign(&self, manifest: &Manifest, operator: Option<&Identity>) -> Result<Vec<String>, ActivateError> {
        let mut reasons = Vec::new();
        let bundle = describe_identity(&manifest.identity);
        if let Some(owner) = self.profile.read_identity()?.filter(|owner| *owner != manifest.identity) {
            reasons.push(format!("this profile belongs to {}, the bundle is for {bundle}", describe_identity(&owner)));
        }
        if let Some(operator) = operator.filter(|operator| **operator != manifest.identity) {
            reasons.push(format!("the deployment is for {}, the bundle is for {bundle}", describe_identity(operator)));
        }
        if manifest.identity.profile != self.profile.name().as_str() {
            reasons.push(format!("this is profile `{}`, the bundle is for {bundle}", self.profile.name()));
        }
        let store = self.profile.layout().root().join("store");
        if Path::new(&manifest.store) != store {
            reasons.push(format!("the store here is `{}`, the bundle was built for `{}`", store.display(), manifest.store));
        }
        Ok(reasons)
    }

    /// What stands in the way of a bundle on this machine, in words.
    pub(crate) fn find_unmet(&self, manifest: &Manifest, old: Option<&Loaded>) -> Vec<String> {
        let own_units = old.map(Loaded::unit_names).unwrap_or_default();
        let mut unmet = self.machine.check_requirements(manifest, &own_units);
        let root = self.profile.layout().root();
        for path in manifest.links.iter().map(|link| Path::new(&link.path)) {
            let own = path.starts_with(root) && !path.starts_with(root.join("state"));
            if own || !path.is_absolute() || path.components().any(|part| part == Component::ParentDir) {
                unmet.push(format!("`{}` cannot be managed: it is not an absolute path outside of `{}`", path.display(), root.display()));
            }
            unmet.extend(link_obstacle(path));
        }
        unmet
    }

    /// Prepares what may stay, then records the generation and the trial durably. Until then nothing has changed.
    fn begin(&self, prepared: &Prepared<'_>) -> Result<Result<Pending, String>, ActivateError> {
        let Prepared { trial, existing, new, previous, .. } = prepared;
        if self.profile.read_identity()?.is_none() {
            self.profile.write_identity(&new.manifest.identity)?;
        }
        self.machine.adopt_program()?;
        self.machine.make_state_directories(&new.manifest)?;
        let generation = match existing {
            Some(number) => *number,
            None => self.profile.list_generations()?.last().map_or(1, |newest| newest + 1),
        };
        match self.machine.run_hooks(&new.manifest, HookPhase::PreSwitch, generation) {
            Ok(lines) => self.events(&lines),
            Err(failure) => return Ok(Err(failure)),
        }
        if existing.is_none() {
            fsutil::replace_symlink(&self.profile.generation(generation), Path::new(&bundle_target(&new.bundle)))?;
            self.profile.write_record(&self.new_record(generation, prepared))?;
        }
        let now = self.machine.moment();
        let pending = Pending {
            generation,
            previous: *previous,
            nonce: trial.nonce.clone(),
            boot_id: now.boot_id,
            who: trial.who.clone(),
            phase: Phase::Activating { deadline_boottime_ms: now.boottime_ms + milliseconds(bound_activation(prepared)) },
        };
        // Made while there is space for it: the way back must need none.
        drop(Lock::wait(&self.profile.commit_lock())?);
        self.profile.begin_journal(&trial.nonce)?;
        self.profile.write_pending(&pending)?;
        Ok(Ok(pending))
    }

    fn new_record(&self, number: u64, prepared: &Prepared<'_>) -> Record {
        Record {
            number,
            bundle: prepared.new.bundle.clone(),
            previous: prepared.previous,
            created: self.machine.moment().unix_seconds,
            who: prepared.trial.who.clone(),
            revision: prepared.trial.revision.clone(),
            nonce: prepared.trial.nonce.clone(),
            result: TrialResult::Pending,
            reason: None,
            failure: None,
            notes: Vec::new(),
        }
    }

    /// From here on there is a trial: it ends in a commit, or on the previous generation.
    fn try_generation(&self, prepared: &Prepared<'_>, pending: &Pending, confirmation: Confirmation) -> Response {
        let healthy = self.make_current(prepared, pending);
        let confirmed = healthy.and_then(|()| self.await_decision(pending, prepared.trial, confirmation));
        let reason = match confirmed {
            Ok(()) => {
                self.finish_after_commit(pending);
                return Response::Committed { generation: pending.generation };
            }
            Err(reason) => reason,
        };
        self.end_trial(pending, &reason, Verification::Now)
    }

    fn make_current(&self, prepared: &Prepared<'_>, pending: &Pending) -> Result<(), String> {
        let Prepared { new, old, plan, .. } = prepared;
        let manager = self.machine.services();
        let current = self.profile.current();
        let old_services: &[Service] = old.as_ref().map_or(&[], |old| &old.manifest.services);
        let services = |result: Result<(), crate::services::ServiceError>| result.map_err(ActivateError::from);
        services(manager.arm_dead_man(bound_activation(prepared))).map_err(|error| describe(&error))?;
        let step = |step: Step, action: &dyn Fn() -> Result<(), ActivateError>| self.take_step(&pending.nonce, &step, action);
        if !plan.stop.is_empty() {
            self.event(&format!("stopping {}", plan.stop.join(", ")));
            step(Step::Stop { units: plan.stop.clone() }, &|| services(manager.stop(&plan.stop, stop_time(old_services))))?;
        }
        if plan.repair {
            self.event(&format!("putting generation {} right", pending.generation));
        } else {
            self.event(&format!("switching to generation {}", pending.generation));
        }
        step(Step::Switch { from: pending.previous, to: pending.generation }, &|| self.profile.switch_to(Some(pending.generation)))?;
        step(Step::Install, &|| services(manager.install(&current, &new.manifest.services, old_services)))?;
        for path in plan.links_make.iter().chain(&plan.links_remove) {
            let own = old.as_ref().and_then(|old| find_target(&old.manifest, path));
            self.change_link(&pending.nonce, path, own, find_target(&new.manifest, path))?;
        }
        self.events(&self.machine.run_hooks(&new.manifest, HookPhase::PostSwitch, pending.generation)?);
        if !plan.reload.is_empty() {
            self.event(&format!("reloading {}", plan.reload.join(", ")));
            step(Step::Reload { units: plan.reload.clone() }, &|| services(manager.reload(&plan.reload, START_TIME)))?;
        }
        if !plan.revive.is_empty() {
            self.event(&format!("starting {}, which had ended", plan.revive.join(", ")));
            // Both generations want them to run as they are, so there is nothing to undo.
            services(manager.start(&plan.revive, START_TIME)).map_err(|error| describe(&error))?;
        }
        if !plan.start.is_empty() {
            self.event(&format!("starting {}", plan.start.join(", ")));
            step(Step::Start { units: plan.start.clone() }, &|| services(manager.start(&plan.start, START_TIME)))?;
        }
        self.event("waiting until it is healthy");
        self.machine.wait_healthy(&new.manifest)
    }

    /// Writes a step down, then does it; unless the trial was given up meanwhile.
    fn take_step(&self, nonce: &str, step: &Step, action: &dyn Fn() -> Result<(), ActivateError>) -> Result<(), String> {
        let pending = self.profile.read_pending().map_err(|error| describe(&error))?;
        match pending.filter(|pending| pending.nonce == nonce).map(|pending| pending.phase) {
            Some(Phase::Activating { .. }) => {}
            Some(Phase::GivenUp { reason }) => return Err(reason),
            Some(Phase::OnTrial { .. } | Phase::Committed) | None => return Err("the trial was taken over by somebody else".to_owned()),
        }
        self.profile.append_step(step).and_then(|()| action()).map_err(|error| describe(&error))
    }

    /// Leads a managed path to `target`, or removes it if it still leads where the previous generation led it, which is `own`.
    fn change_link(&self, nonce: &str, path: &str, own: Option<&str>, target: Option<&str>) -> Result<(), String> {
        let place = Path::new(path);
        if let Some(obstacle) = link_obstacle(place) {
            return Err(obstacle);
        }
        let former = statefile::read_link(place).map_err(|error| describe(&error))?;
        if former.as_deref() == target {
            return Ok(());
        }
        if target.is_none() && former.as_deref() != own {
            self.event(&format!("`{path}` was changed by somebody else and stays as it is"));
            return Ok(());
        }
        let step = Step::Link { path: path.to_owned(), former, target: target.map(str::to_owned) };
        self.take_step(nonce, &step, &|| match target {
            Some(target) => {
                fsutil::create_dir_all(place.parent().unwrap_or(Path::new("/")), 0o755)?;
                Ok(fsutil::replace_symlink(place, Path::new(target))?)
            }
            None => statefile::remove(place),
        })
    }

    /// Waits until the trial is decided, or decides that nobody did in time. Fails with the reason to go back.
    fn await_decision(&self, pending: &Pending, trial: &Trial, confirmation: Confirmation) -> Result<(), String> {
        let wait = Duration::from_millis(trial.confirm_timeout_ms).min(CONFIRM_TIME_MAX);
        let deadline_boottime_ms = self.machine.moment().boottime_ms + milliseconds(wait.max(Duration::from_secs(1)));
        let waiting = self.profile.begin_waiting(&pending.nonce, deadline_boottime_ms).map_err(|error| describe(&error))?;
        match waiting.map(|pending| pending.phase) {
            Some(Phase::GivenUp { reason }) => return Err(reason),
            Some(_) => {}
            None => return Err("the trial was taken over by somebody else".to_owned()),
        }
        if confirmation == Confirmation::NotNeeded {
            self.profile.confirm(&pending.nonce, &self.machine.moment()).map_err(|error| describe(&error))?;
        } else {
            (self.report)(Response::OnTrial { generation: pending.generation, previous: pending.previous });
        }
        loop {
            // Only a commit takes the file away while the lock is held.
            let Some(found) = self.profile.read_pending().map_err(|error| describe(&error))? else { return Ok(()) };
            let late = self.machine.moment().boottime_ms >= deadline_boottime_ms;
            match found.phase {
                Phase::GivenUp { reason } => return Err(reason),
                Phase::Activating { .. } | Phase::OnTrial { .. } if late => return Err("not confirmed in time".to_owned()),
                Phase::Activating { .. } | Phase::OnTrial { .. } => self.machine.pause(),
                // Who confirmed carries the commit out, or died at it: then it is carried out here.
                Phase::Committed => {
                    self.profile.confirm(&pending.nonce, &self.machine.moment()).map_err(|error| describe(&error))?;
                    return Ok(());
                }
            }
        }
    }
}

fn find_target<'m>(manifest: &'m Manifest, path: &str) -> Option<&'m str> {
    manifest.links.iter().find(|link| link.path == path).map(|link| link.target.as_str())
}

/// What keeps a managed path from being made a link: something that is no link stands there.
pub(crate) fn link_obstacle(path: &Path) -> Option<String> {
    match path.symlink_metadata() {
        Ok(found) if !found.is_symlink() => Some(format!("`{}` is not a symbolic link: remove it, or do not declare it", path.display())),
        _ => None,
    }
}

/// How long stopping these services may take.
pub(crate) fn stop_time(services: &[Service]) -> Duration {
    services.iter().fold(STOP_MARGIN, |sum, service| sum.saturating_add(Duration::from_millis(service.stop_timeout_ms)))
}

/// How long an activation may take in all, the way back included.
fn bound_activation(prepared: &Prepared<'_>) -> Duration {
    let hooks = |manifest: &Manifest| manifest.hooks.iter().map(|hook| Duration::from_millis(hook.timeout_ms)).sum::<Duration>() * 2;
    let new = &prepared.new.manifest;
    let health = new.health_checks.iter().map(|check| Duration::from_millis(check.timeout_ms)).max().unwrap_or_default();
    let old_stop = prepared.old.as_ref().map_or(Duration::ZERO, |old| stop_time(&old.manifest.services));
    let confirmation = Duration::from_millis(prepared.trial.confirm_timeout_ms).min(CONFIRM_TIME_MAX);
    old_stop + stop_time(&new.services) + START_TIME * 4 + hooks(new) + health + confirmation + ACTIVATION_MARGIN
}

fn find_fault(trial: &Trial) -> Option<String> {
    let Trial { nonce, confirm_timeout_ms, who, revision } = trial;
    if !NONCE_CHARS.contains(&nonce.len()) || !nonce.bytes().all(|c| c.is_ascii_hexdigit()) {
        return Some("the deployment's nonce must be 32 to 128 hexadecimal characters".to_owned());
    }
    if u128::from(*confirm_timeout_ms) > CONFIRM_TIME_MAX.as_millis() {
        return Some(format!("the time for the confirmation is {confirm_timeout_ms} ms, more than {} ms", CONFIRM_TIME_MAX.as_millis()));
    }
    let sane = |text: &str| text.len() <= WORDS_BYTES_MAX && !text.chars().any(char::is_control);
    (!sane(who) || !revision.as_deref().is_none_or(sane)).then(|| "who deploys, or which revision, is not a plain line of text".to_owned())
}

/// An identity in words.
pub(crate) fn describe_identity(identity: &Identity) -> String {
    let Identity { project, environment, host, profile } = identity;
    format!("project `{project}`, environment `{environment}`, host `{host}`, profile `{profile}`")
}

fn list_numbers(numbers: &[u64]) -> String {
    if numbers.is_empty() { "none".to_owned() } else { numbers.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ") }
}

#[cfg(test)]
mod tests;

//! The trial: makes a generation current, sees that it is healthy, and keeps it only if that is confirmed.
//!
//! The order of everything here is the normative text of `LAYOUT.md`, section "Activation". What matters: nothing
//! outside of the profile changes before `pending.json` is on disk; every change is in the journal before it is made;
//! and there is one decision, in `pending.json`, after which the trial either ends in a commit or goes back: that is
//! [`crate::course`], carried out by [`crate::drive`]. Here a task is found possible, or refused. This
//! process may be killed anywhere: the lock goes with it, and whoever finds the trial next settles it.

use std::path::{Component, Path};
use std::time::Duration;

use sarsen_store::fsutil;
use sarsen_store::manifest::{Identity, Manifest, Phase as HookPhase, Service};

use crate::course::{Course, plan_moves};
use crate::diff::{ActivationPlan, Loaded};
use crate::drive::Drive;
use crate::error::{ActivateError, describe};
use crate::generation::load_bundle;
use crate::goback::{Verification, describe_generation};
use crate::layout::ProfileLayout;
use crate::lock::{Attempt, Lock};
use crate::machine::Machine;
use crate::protocol::{Activation, Claim, Response, Trial};

pub use crate::course::Confirmation;
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

/// A task that was found possible.
pub(crate) struct Prepared<'t> {
    pub(crate) trial: &'t Trial,
    /// The generation, if it exists already.
    pub(crate) existing: Option<u64>,
    pub(crate) new: Loaded,
    pub(crate) previous: Option<u64>,
    pub(crate) old: Option<Loaded>,
    pub(crate) plan: ActivationPlan,
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
        if prepared.existing.is_some() {
            self.make_room();
        }
        let since = self.machine.moment().unix_seconds;
        lock.announce(&format!("{} since {since} (seconds since 1970), process {}", prepared.trial.who, std::process::id()))?;
        let generation = match self.make_ready(&prepared)? {
            Ok(generation) => generation,
            Err(message) => return Ok(Response::Failed { message }),
        };
        let drive = Drive::begin(self, &prepared, generation);
        Ok(drive.run(Course::begin(plan_moves(&prepared.plan), confirmation, prepared.existing.is_none())))
    }

    /// Gives room free on a full disk. Without it the way back is tried all the same.
    pub(crate) fn make_room(&self) {
        match self.profile.make_room() {
            Ok(true) => self.event("the disk is full: the room kept for the way back is used"),
            Ok(false) => {}
            Err(error) => self.event(&describe(&error)),
        }
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
        let mut reasons = self.find_foreign(&new.manifest, identity, task.trial().claim)?;
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
    fn find_foreign(&self, manifest: &Manifest, operator: Option<&Identity>, claim: Claim) -> Result<Vec<String>, ActivateError> {
        let mut reasons = Vec::new();
        let bundle = describe_identity(&manifest.identity);
        let owner = self.profile.read_identity()?.filter(|owner| *owner != manifest.identity);
        if let Some(owner) = owner.filter(|_| claim == Claim::OwnOnly) {
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

    /// Prepares what may stay, and chooses the generation's number. The trial has not begun then.
    fn make_ready(&self, prepared: &Prepared<'_>) -> Result<Result<u64, String>, ActivateError> {
        let Prepared { existing, new, .. } = prepared;
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
        // Made while there is space for it: the way back must need none.
        drop(Lock::wait(&self.profile.commit_lock())?);
        if existing.is_none()
            && let Err(error) = self.profile.keep_room()
        {
            self.event(&format!("no room is kept for the way back: {}", describe(&error)));
        }
        Ok(Ok(generation))
    }
}

pub(crate) fn find_target<'m>(manifest: &'m Manifest, path: &str) -> Option<&'m str> {
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
pub(crate) fn bound_activation(prepared: &Prepared<'_>) -> Duration {
    let hooks = |manifest: &Manifest| manifest.hooks.iter().map(|hook| Duration::from_millis(hook.timeout_ms)).sum::<Duration>() * 2;
    let new = &prepared.new.manifest;
    let health = new.health_checks.iter().map(|check| Duration::from_millis(check.timeout_ms)).max().unwrap_or_default();
    let old_stop = prepared.old.as_ref().map_or(Duration::ZERO, |old| stop_time(&old.manifest.services));
    let confirmation = Duration::from_millis(prepared.trial.confirm_timeout_ms).min(CONFIRM_TIME_MAX);
    old_stop + stop_time(&new.services) + START_TIME * 4 + hooks(new) + health + confirmation + ACTIVATION_MARGIN
}

fn find_fault(trial: &Trial) -> Option<String> {
    let Trial { nonce, confirm_timeout_ms, who, revision, message, claim: _ } = trial;
    if !NONCE_CHARS.contains(&nonce.len()) || !nonce.bytes().all(|c| c.is_ascii_hexdigit()) {
        return Some("the deployment's nonce must be 32 to 128 hexadecimal characters".to_owned());
    }
    if u128::from(*confirm_timeout_ms) > CONFIRM_TIME_MAX.as_millis() {
        return Some(format!("the time for the confirmation is {confirm_timeout_ms} ms, more than {} ms", CONFIRM_TIME_MAX.as_millis()));
    }
    let sane = |text: &str| text.len() <= WORDS_BYTES_MAX && !text.chars().any(char::is_control);
    let words = [Some(who), revision.as_ref(), message.as_ref()];
    let is_plain = words.into_iter().flatten().all(|text| sane(text));
    (!is_plain).then(|| format!("who deploys, which revision, or why is not a plain line of at most {WORDS_BYTES_MAX} bytes"))
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

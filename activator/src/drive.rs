//! The driver of a trial's course: carries its effects out on the real disk and machine, and tells what came of them.
//!
//! Nothing here decides what comes next; that is [`crate::course`]. Every effect may have been carried out before, by a process
//! that died since. A failure is told as an event, never by ending early.
#![expect(clippy::wildcard_enum_match_arm, reason = "of the effects and events each place here expects a few")]

use std::path::Path;
use std::time::Duration;

use sarsen_store::fsutil;
use sarsen_store::manifest::{Phase as HookPhase, Service};

use crate::activate::{CONFIRM_TIME_MAX, Engine, Prepared, START_TIME, bound_activation, find_target, link_obstacle, stop_time};
use crate::audit::Action;
use crate::clock::milliseconds;
use crate::course::{Course, Effect, End, Event, Move, Standing, Verdict};
use crate::error::{ActivateError, describe, shorten};
use crate::generation::{Record, TrialResult};
use crate::goback::{Verification, Way};
use crate::journal::{Step, Undo};
use crate::layout::{bundle_target, generation_target};
use crate::lock::Lock;
use crate::pending::{Decision, Pending, Phase};
use crate::protocol::Response;
use crate::services::{DEAD_MAN_LOOK, ServiceError};
use crate::statefile::{self, FAILURE_BYTES_MAX};

/// A trial in the hands of one process.
pub(crate) struct Drive<'e, 'a> {
    engine: &'e Engine<'a>,
    pending: Pending,
    /// What the trial's own process knows besides.
    prepared: Option<&'e Prepared<'e>>,
    verification: Verification,
    way: Way,
    undo: Vec<Undo>,
    /// Where a managed path led before it is changed.
    former: Option<String>,
    /// Keeps everybody from deciding while a decision cannot be written down.
    undecided: Option<Lock>,
}

impl<'e, 'a> Drive<'e, 'a> {
    /// A trial that is about to begin.
    pub(crate) fn begin(engine: &'e Engine<'a>, prepared: &'e Prepared<'e>, generation: u64) -> Self {
        let now = engine.machine.moment();
        let trial = prepared.trial;
        let pending = Pending {
            generation,
            previous: prepared.previous,
            nonce: trial.nonce.clone(),
            boot_id: now.boot_id,
            who: trial.who.clone(),
            message: trial.message.clone(),
            revision: trial.revision.clone(),
            action: match prepared.existing {
                None => Action::Deploy,
                Some(generation) if prepared.previous == Some(generation) => Action::Repair,
                Some(_) => Action::Rollback,
            },
            taken_from: engine.profile.read_identity().ok().flatten().filter(|owner| *owner != prepared.new.manifest.identity),
            phase: Phase::Activating { deadline_boottime_ms: now.boottime_ms + milliseconds(bound_activation(prepared)) },
        };
        Self { prepared: Some(prepared), ..Self::settle(engine, pending, Verification::Now) }
    }

    /// A trial that was left behind.
    pub(crate) fn settle(engine: &'e Engine<'a>, pending: Pending, verification: Verification) -> Self {
        Self { engine, pending, prepared: None, verification, way: Way::default(), undo: Vec::new(), former: None, undecided: None }
    }

    /// Carries the course to its end.
    pub(crate) fn run(mut self, course: Course) -> Response {
        let (mut course, mut effect) = course.start();
        loop {
            if let Effect::End(end) = effect {
                return self.describe_end(end);
            }
            let event = self.carry_out(&course, &effect).unwrap_or_else(|error| Event::Failed(describe(&error)));
            if let (Event::Failed(failure), true) = (&event, needs_telling(&effect)) {
                self.engine.event(&format!("{}: {failure}", name_of(&effect)));
            }
            (course, effect) = course.step(&event);
        }
    }

    fn describe_end(&self, end: End) -> Response {
        match end {
            End::NotBegun(message) => Response::Failed { message },
            End::Kept => Response::Committed { generation: self.pending.generation },
            End::Back { reason, failure: None } => Response::RolledBack { generation: self.pending.previous, reason },
            End::Back { reason, failure: Some(failure) } => {
                Response::RollbackFailed { reason, failure: shorten(&failure, FAILURE_BYTES_MAX) }
            }
        }
    }

    fn carry_out(&mut self, course: &Course, effect: &Effect) -> Result<Event, ActivateError> {
        let profile = self.engine.profile;
        match effect {
            Effect::RecordGeneration => self.record_generation()?,
            Effect::BeginJournal => profile.begin_journal(&self.pending.nonce)?,
            Effect::Declare => profile.write_pending(&self.pending)?,
            Effect::ArmDeadMan => self.arm_dead_man()?,
            Effect::Look(_) => return self.look(),
            Effect::WriteDown(number) => return self.write_down(course.get_move(*number)),
            Effect::Make(number) => return Ok(self.make(course.get_move(*number)).map_or_else(Event::Failed, |()| Event::Done)),
            Effect::BeginWaiting => return self.begin_waiting(),
            Effect::Report => {
                let Pending { generation, previous, .. } = self.pending;
                (self.engine.report)(Response::OnTrial { generation, previous });
            }
            Effect::Confirm => {
                profile.confirm(&self.pending.nonce, &self.engine.machine.moment())?;
                return self.look();
            }
            Effect::Pause => {
                self.engine.machine.pause();
                return self.look();
            }
            Effect::GiveUp(reason) => {
                self.engine.make_room();
                return Ok(self.give_up(&shorten(reason, FAILURE_BYTES_MAX)));
            }
            Effect::MarkGood => {
                fsutil::replace_symlink(&profile.good(), Path::new(&generation_target(self.pending.generation)))?;
            }
            Effect::RecordKept => self.record_kept()?,
            Effect::RunHooksAfter => return self.run_hooks_after(),
            Effect::PlanBack => {
                (self.way, self.undo) = self.engine.plan_back(&self.pending);
                return Ok(Event::Steps(self.undo.len()));
            }
            Effect::Undo(number) => self.engine.undo_step(&self.undo[*number], &self.way)?,
            Effect::CheckWay => return self.check_way(),
            Effect::RunHooksBack => return Ok(self.engine.run_rollback_hooks(&self.pending).map_or_else(Event::Failed, |()| Event::Done)),
            Effect::VerifyUnits => return Ok(self.verify_units()),
            Effect::RecordBack { reason, failure } => {
                let failure = failure.as_deref().map(|failure| shorten(failure, FAILURE_BYTES_MAX));
                self.engine.record_going_back(&self.pending, reason, failure.as_deref())?;
            }
            Effect::Log(end) => self.engine.log_end(&self.pending, end)?,
            Effect::EndTrial => statefile::remove(&profile.pending())?,
            Effect::Disarm => self.engine.machine.services().disarm_dead_man()?,
            Effect::End(_) => {}
        }
        Ok(Event::Done)
    }

    fn record_generation(&self) -> Result<(), ActivateError> {
        let (profile, Some(prepared)) = (self.engine.profile, self.prepared) else { return Ok(()) };
        let Pending { generation, previous, nonce, who, message, revision, .. } = self.pending.clone();
        let bundle = prepared.new.bundle.clone();
        fsutil::replace_symlink(&profile.generation(generation), Path::new(&bundle_target(&bundle)))?;
        profile.write_record(&Record {
            number: generation,
            bundle,
            previous,
            created: self.engine.machine.moment().unix_seconds,
            who,
            revision,
            message,
            nonce,
            result: TrialResult::Pending,
            reason: None,
            failure: None,
            notes: Vec::new(),
        })
    }

    fn arm_dead_man(&self) -> Result<(), ActivateError> {
        let after = self.prepared.map_or(DEAD_MAN_LOOK, bound_activation);
        Ok(self.engine.machine.services().arm_dead_man(after)?)
    }

    fn look(&self) -> Result<Event, ActivateError> {
        let found = self.engine.profile.read_pending()?.filter(|pending| pending.nonce == self.pending.nonce);
        let late = |deadline_ms| self.engine.machine.moment().boottime_ms >= deadline_ms;
        Ok(Event::Found(match found.map(|pending| pending.phase) {
            None => Standing::Gone,
            Some(Phase::Activating { .. }) => Standing::Activating,
            Some(Phase::OnTrial { deadline_boottime_ms }) if late(deadline_boottime_ms) => Standing::Late,
            Some(Phase::OnTrial { .. }) => Standing::Waiting,
            Some(Phase::Committed) => Standing::Committed,
            Some(Phase::GivenUp { reason }) => Standing::GivenUp(reason),
        }))
    }

    fn write_down(&mut self, it: &Move) -> Result<Event, ActivateError> {
        let Some(Prepared { plan, .. }) = self.prepared else { return Ok(Event::Nothing) };
        let step = match it {
            Move::Stop => Step::Stop { units: plan.stop.clone() },
            Move::Switch => Step::Switch { from: self.pending.previous, to: self.pending.generation },
            Move::Install => Step::Install,
            Move::Link(path) => match self.plan_link(path)? {
                Some(step) => step,
                None => return Ok(Event::Nothing),
            },
            Move::Reload => Step::Reload { units: plan.reload.clone() },
            Move::Start => Step::Start { units: plan.start.clone() },
            Move::Hooks | Move::Revive | Move::Health => return Ok(Event::Done),
        };
        self.engine.profile.append_step(&step)?;
        Ok(Event::Done)
    }

    /// What is to be done about a managed path; one that is to be removed is left alone unless it leads where the former generation led it.
    fn plan_link(&mut self, path: &str) -> Result<Option<Step>, ActivateError> {
        let Some(Prepared { new, old, .. }) = self.prepared else { return Ok(None) };
        let own = old.as_ref().and_then(|old| find_target(&old.manifest, path));
        let target = find_target(&new.manifest, path);
        if let Some(message) = link_obstacle(Path::new(path)) {
            return Err(ActivateError::Machine { message });
        }
        let former = statefile::read_link(Path::new(path))?;
        if former.as_deref() == target {
            return Ok(None);
        }
        if target.is_none() && former.as_deref() != own {
            self.engine.event(&format!("`{path}` was changed by somebody else and stays as it is"));
            return Ok(None);
        }
        self.former.clone_from(&former);
        Ok(Some(Step::Link { path: path.to_owned(), former, target: target.map(str::to_owned) }))
    }

    fn make(&self, it: &Move) -> Result<(), String> {
        let Some(Prepared { new, old, plan, .. }) = self.prepared else { return Ok(()) };
        let (machine, generation) = (self.engine.machine, self.pending.generation);
        let services = machine.services();
        let old_services: &[Service] = old.as_ref().map_or(&[], |old| &old.manifest.services);
        let told = |result: Result<(), ServiceError>| result.map_err(|error| describe(&error));
        match it {
            Move::Stop => {
                self.engine.event(&format!("stopping {}", plan.stop.join(", ")));
                told(services.stop(&plan.stop, stop_time(old_services)))
            }
            Move::Switch => {
                let doing = if plan.repair { "putting right" } else { "switching to" };
                self.engine.event(&format!("{doing} generation {generation}"));
                self.engine.profile.switch_to(Some(generation)).map_err(|error| describe(&error))
            }
            Move::Install => told(services.install(&self.engine.profile.current(), &new.manifest.services, old_services)),
            Move::Link(path) => make_link(path, find_target(&new.manifest, path)).map_err(|error| describe(&error)),
            Move::Hooks => {
                self.engine.events(&machine.run_hooks(&new.manifest, HookPhase::PostSwitch, generation)?);
                Ok(())
            }
            Move::Reload => {
                self.engine.event(&format!("reloading {}", plan.reload.join(", ")));
                told(services.reload(&plan.reload, START_TIME))
            }
            Move::Revive => {
                self.engine.event(&format!("starting {}, which had ended", plan.revive.join(", ")));
                told(services.start(&plan.revive, START_TIME))
            }
            Move::Start => {
                self.engine.event(&format!("starting {}", plan.start.join(", ")));
                told(services.start(&plan.start, START_TIME))
            }
            Move::Health => {
                self.engine.event("waiting until it is healthy");
                machine.wait_healthy(&new.manifest, &|| self.find_given_up())
            }
        }
    }

    /// Why the trial was given up, if it was; asked while it is waited for health.
    fn find_given_up(&self) -> Option<String> {
        match self.look() {
            Ok(Event::Found(Standing::GivenUp(reason))) => Some(reason),
            _ => None,
        }
    }

    fn begin_waiting(&self) -> Result<Event, ActivateError> {
        let Some(Prepared { trial, .. }) = self.prepared else { return self.look() };
        let wait = Duration::from_millis(trial.confirm_timeout_ms).min(CONFIRM_TIME_MAX).max(Duration::from_secs(1));
        let deadline_ms = self.engine.machine.moment().boottime_ms + milliseconds(wait);
        self.engine.profile.begin_waiting(&self.pending.nonce, deadline_ms)?;
        self.look()
    }

    fn give_up(&mut self, reason: &str) -> Event {
        let profile = self.engine.profile;
        match profile.give_up(&self.pending.nonce, reason) {
            Ok(Decision::Committed(_)) => Event::Decided(Verdict::Kept),
            Ok(Decision::GivenUp(_, reason)) => Event::Decided(Verdict::GivenUp(reason)),
            // Another version of this program may have carried the commit out to its end.
            Ok(Decision::NoTrial) if profile.read_good().is_ok_and(|good| good == Some(self.pending.generation)) => {
                Event::Decided(Verdict::Kept)
            }
            Ok(Decision::NoTrial | Decision::NotHealthyYet) => Event::Decided(Verdict::Gone),
            Err(error) => {
                self.engine.event(&format!("the decision could not be written down: {}", describe(&error)));
                self.hold_decision().unwrap_or_else(|error| Event::Failed(describe(&error)))
            }
        }
    }

    /// Goes on although the decision cannot be written down, as on a full disk. Nobody else can decide meanwhile.
    fn hold_decision(&mut self) -> Result<Event, ActivateError> {
        self.undecided = Some(Lock::wait(&self.engine.profile.commit_lock())?);
        Ok(match self.look()? {
            Event::Found(Standing::Committed) => Event::Decided(Verdict::Kept),
            Event::Found(Standing::GivenUp(reason)) => Event::Decided(Verdict::GivenUp(reason)),
            Event::Found(Standing::Gone) => Event::Decided(Verdict::Gone),
            _ => Event::Decided(Verdict::Unwritten),
        })
    }

    fn record_kept(&self) -> Result<(), ActivateError> {
        self.engine.take_over(&self.pending)?;
        let mut record = match self.engine.profile.read_record(self.pending.generation) {
            Ok(Some(record)) => record,
            Ok(None) => return Ok(()),
            // It is for people, and decides nothing: a damaged one must not keep the trial from ending.
            Err(error @ (ActivateError::Damaged { .. } | ActivateError::Version { .. })) => {
                self.engine.event(&describe(&error));
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        record.nonce.clone_from(&self.pending.nonce);
        record.result = TrialResult::Committed;
        (record.reason, record.failure) = (None, None);
        self.engine.profile.write_record(&record)
    }

    /// Runs the hooks after the confirmation. What fails there is a note in the record, and undoes nothing.
    fn run_hooks_after(&self) -> Result<Event, ActivateError> {
        let generation = self.pending.generation;
        let loaded = self.engine.profile.load_generation(generation);
        let wanted = loaded.as_ref().is_ok_and(|it| it.manifest.hooks.iter().any(|hook| hook.phase == HookPhase::PostConfirm));
        if wanted && self.verification == Verification::LeftToBoot {
            return Ok(Event::Postponed);
        }
        let ran = match loaded {
            Ok(loaded) => self.engine.machine.run_hooks(&loaded.manifest, HookPhase::PostConfirm, generation),
            Err(error) => Err(describe(&error)),
        };
        let notes = ran.unwrap_or_else(|failure| vec![format!("after the confirmation: {}", shorten(&failure, FAILURE_BYTES_MAX))]);
        self.engine.events(&notes);
        if let (false, Ok(Some(mut record))) = (notes.is_empty(), self.engine.profile.read_record(generation)) {
            record.notes = notes;
            self.engine.profile.write_record(&record)?;
        }
        Ok(Event::Done)
    }

    fn check_way(&self) -> Result<Event, ActivateError> {
        let Pending { previous, .. } = self.pending;
        if self.engine.profile.read_current()? == previous {
            return Ok(Event::Done);
        }
        Ok(Event::Failed(format!("the current generation is not {}", crate::goback::describe_generation(previous))))
    }

    fn verify_units(&self) -> Event {
        let mut failures = Vec::new();
        if self.verification == Verification::Now {
            self.engine.verify_units(self.pending.previous, &mut failures);
        }
        if failures.is_empty() { Event::Done } else { Event::Failed(failures.join("; ")) }
    }
}

/// Leads a managed path to `target`, or removes it.
fn make_link(path: &str, target: Option<&str>) -> Result<(), ActivateError> {
    let place = Path::new(path);
    match target {
        Some(target) => {
            fsutil::create_dir_all(place.parent().unwrap_or(Path::new("/")), 0o755)?;
            Ok(fsutil::replace_symlink(place, Path::new(target))?)
        }
        None => statefile::remove(place),
    }
}

/// Whether a failure has no other way to people than an event.
fn needs_telling(effect: &Effect) -> bool {
    matches!(
        effect,
        Effect::MarkGood
            | Effect::RecordKept
            | Effect::RunHooksAfter
            | Effect::RecordBack { .. }
            | Effect::Log(_)
            | Effect::EndTrial
            | Effect::Disarm
    )
}

fn name_of(effect: &Effect) -> &'static str {
    match effect {
        Effect::MarkGood | Effect::RecordKept => "that it is kept could not be recorded yet",
        Effect::RunHooksAfter => "what came of the hooks could not be recorded",
        Effect::RecordBack { .. } => "what became of it could not be recorded",
        Effect::Log(_) => "the end could not be written into the log",
        Effect::EndTrial => "the trial could not be removed",
        _ => "the dead-man timer could not be taken back",
    }
}

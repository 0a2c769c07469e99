//! Settling: a trial that was left behind comes to its end.
//!
//! Whoever finds `pending.json` while the profile's lock is free has found a trial whose process is dead. If it was
//! decided, the decision is carried out; if not, it is given up. Sessions do this before they do anything else, the
//! dead-man timer does it when nobody comes, and the boot does it before services start.

use sarsen_store::manifest::Phase as HookPhase;

use crate::activate::Engine;
use crate::clock::Moment;
use crate::error::{ActivateError, describe, shorten};
use crate::generation::TrialResult;
use crate::goback::Verification;
use crate::lock::{Attempt, Lock};
use crate::pending::{Decision, Pending, Phase};
use crate::protocol::Response;
use crate::statefile::FAILURE_BYTES_MAX;

impl Engine<'_> {
    /// Settles a trial that was left behind, if there is one and nobody else is at it.
    ///
    /// Returns what became of it. Touches nothing, not even the lock, if there is no trial.
    pub fn settle_if_free(&self, verification: Verification) -> Result<Option<Response>, ActivateError> {
        if self.profile.read_pending()?.is_none() {
            return Ok(None);
        }
        match Lock::attempt(&self.profile.lock())? {
            Attempt::Held(mut lock) => {
                lock.announce("somebody who settles a trial that was left behind")?;
                self.settle(verification)
            }
            Attempt::Busy(_) => Ok(None),
        }
    }

    /// Lets the dead man go when there is nothing left to look after: a trial that was confirmed, and whose process died before it did so.
    pub fn dismiss_dead_man(&self) -> Result<(), ActivateError> {
        // Under the lock, so that no trial begins meanwhile and loses its own.
        match Lock::attempt(&self.profile.lock())? {
            Attempt::Held(_lock) if self.profile.read_pending()?.is_none() => Ok(self.machine.services().disarm_dead_man()?),
            Attempt::Held(_) | Attempt::Busy(_) => Ok(()),
        }
    }

    /// Settles a trial that was left behind, if there is one. The caller holds the profile's lock.
    pub(crate) fn settle(&self, verification: Verification) -> Result<Option<Response>, ActivateError> {
        let Some(pending) = self.profile.read_pending()? else {
            self.tidy_record()?;
            return Ok(None);
        };
        let outcome = self.end_trial(&pending, find_reason(&pending, &self.machine.moment()), verification);
        self.event(&describe_settled(pending.generation, &outcome));
        Ok(Some(outcome))
    }

    /// Gives a trial up for `reason`, unless it was decided already, and carries the decision out. The caller holds the profile's lock.
    pub(crate) fn end_trial(&self, pending: &Pending, reason: &str, verification: Verification) -> Response {
        let reason = &shorten(reason, FAILURE_BYTES_MAX);
        match self.profile.give_up(&pending.nonce, reason) {
            Ok(Decision::Committed(pending)) => {
                self.finish_after_commit(&pending);
                Response::Committed { generation: pending.generation }
            }
            Ok(Decision::GivenUp(pending, reason)) => self.go_back(&pending, &reason, verification),
            // A session that knew of the trial confirmed it meanwhile.
            Ok(Decision::NoTrial) if self.profile.read_good().is_ok_and(|good| good == Some(pending.generation)) => {
                Response::Committed { generation: pending.generation }
            }
            Ok(Decision::NoTrial | Decision::NotHealthyYet) => {
                Response::RollbackFailed { reason: reason.to_owned(), failure: "the trial is gone".to_owned() }
            }
            Err(error) => {
                self.event(&format!("the decision could not be written down: {}", describe(&error)));
                self.end_trial_unwritten(&pending.nonce, reason, verification)
            }
        }
    }

    /// Goes back although the decision cannot be written down, as on a full disk. Nobody else can decide meanwhile.
    fn end_trial_unwritten(&self, nonce: &str, reason: &str, verification: Verification) -> Response {
        let failed = |failure: String| Response::RollbackFailed { reason: reason.to_owned(), failure };
        let _decision = match Lock::wait(&self.profile.commit_lock()) {
            Ok(lock) => lock,
            Err(error) => return failed(describe(&error)),
        };
        match self.profile.read_pending() {
            Ok(Some(pending)) if pending.phase == Phase::Committed => {
                failed("it had been confirmed, which could not be carried out".to_owned())
            }
            Ok(Some(pending)) if pending.nonce == nonce => self.go_back(&pending, reason, verification),
            Ok(_) => failed("the trial is gone".to_owned()),
            Err(error) => failed(describe(&error)),
        }
    }

    /// What follows a commit and may fail without undoing it: hooks after the confirmation, and the dead man's end.
    pub(crate) fn finish_after_commit(&self, pending: &Pending) {
        let mut notes = Vec::new();
        if let Err(error) = self.machine.services().disarm_dead_man() {
            notes.push(format!("the dead-man timer could not be taken back: {}", describe(&error)));
        }
        let hooks = match self.profile.load_generation(pending.generation) {
            Ok(loaded) => self.machine.run_hooks(&loaded.manifest, HookPhase::PostConfirm, pending.generation),
            Err(error) => Err(describe(&error)),
        };
        match hooks {
            Ok(lines) => notes.extend(lines),
            Err(failure) => notes.push(format!("after the confirmation: {}", shorten(&failure, FAILURE_BYTES_MAX))),
        }
        if notes.is_empty() {
            return;
        }
        self.events(&notes);
        if let Ok(Some(mut record)) = self.profile.read_record(pending.generation) {
            record.notes = notes;
            if let Err(error) = self.profile.write_record(&record) {
                self.event(&format!("the notes of generation {} could not be recorded: {}", pending.generation, describe(&error)));
            }
        }
    }

    /// A generation that was recorded, but whose trial never began, is marked as such. Only the newest can be one.
    fn tidy_record(&self) -> Result<(), ActivateError> {
        let Some(newest) = self.profile.list_generations()?.last().copied() else { return Ok(()) };
        match self.profile.read_record(newest)? {
            Some(mut record) if record.result == TrialResult::Pending => {
                record.result = TrialResult::RolledBack;
                record.reason = Some("the activation was interrupted before it changed anything".to_owned());
                self.profile.write_record(&record)
            }
            _ => Ok(()),
        }
    }
}

fn find_reason(pending: &Pending, now: &Moment) -> &'static str {
    let late = match pending.phase {
        Phase::OnTrial { deadline_boottime_ms } => now.boottime_ms >= deadline_boottime_ms,
        Phase::Activating { .. } | Phase::Committed | Phase::GivenUp { .. } => false,
    };
    if now.boot_id != pending.boot_id {
        "reboot before confirmation"
    } else if late {
        "not confirmed in time"
    } else {
        "the activation was interrupted"
    }
}

/// What became of a trial that was left behind, in one line.
#[expect(clippy::wildcard_enum_match_arm, reason = "a trial ends in three ways; all other responses are equally impossible")]
pub(crate) fn describe_settled(generation: u64, outcome: &Response) -> String {
    let end = match outcome {
        Response::Committed { .. } => "had been confirmed and is kept".to_owned(),
        Response::RolledBack { generation, reason } => {
            format!("was given up ({reason}); current is {}", crate::goback::describe_generation(*generation))
        }
        Response::RollbackFailed { reason, failure } => format!("was given up ({reason}), and going back failed: {failure}"),
        other => format!("ended as {other:?}"),
    };
    format!("the trial of generation {generation}, left behind by an earlier deployment, {end}")
}

//! Settling: a trial that was left behind comes to its end.
//!
//! Whoever finds `pending.json` while the profile's lock is free has found a trial whose process is dead. If it was
//! decided, the decision is carried out; if not, it is given up. Sessions do this before they do anything else, the
//! dead-man timer does it when nobody comes, and the boot does it before services start.

use crate::activate::Engine;
use crate::course::Course;
use crate::drive::Drive;
use crate::error::ActivateError;
use crate::generation::TrialResult;
use crate::goback::Verification;
use crate::lock::{Attempt, Lock};
use crate::protocol::Response;

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
        let course = Course::settle(&pending, &self.machine.moment());
        let generation = pending.generation;
        let outcome = Drive::settle(self, pending, verification).run(course);
        self.event(&describe_settled(generation, &outcome));
        Ok(Some(outcome))
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

//! The trial that runs: `pending.json`, and the decision over it.
//!
//! A trial ends by one decision, and the decision is one replacement of this file: its phase becomes `committed` or
//! `given-up`. Whoever decides holds `commit.lock` for that moment, so a confirmation that arrives at the deadline is
//! either in time or late, never both. What follows from a decision may be done by anybody and any number of times.
//! The normative text is `LAYOUT.md`, section "Trials".

use std::path::Path;

use sarsen_store::fsutil;
use serde::{Deserialize, Serialize};

use crate::clock::Moment;
use crate::error::ActivateError;
use crate::generation::TrialResult;
use crate::layout::{self, ProfileLayout};
use crate::lock::Lock;
use crate::statefile;

/// A trial.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pending {
    /// The generation on trial.
    pub generation: u64,
    /// The recorded previous generation, to which giving up leads; nothing if there was none.
    pub previous: Option<u64>,
    /// What a confirmation has to carry.
    pub nonce: String,
    /// The boot in which the trial began.
    pub boot_id: String,
    /// Who deploys.
    pub who: String,
    /// How far it is.
    pub phase: Phase,
}

/// How far a trial is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "phase", rename_all = "kebab-case")]
pub enum Phase {
    /// The generation is being made current.
    Activating {
        /// When it must have come to an end at the latest, in milliseconds since boot.
        deadline_boottime_ms: u64,
    },
    /// The generation is current and healthy and waits for its confirmation.
    OnTrial {
        /// Until when, in milliseconds since boot.
        deadline_boottime_ms: u64,
    },
    /// Decided: it is kept.
    Committed,
    /// Decided: it goes.
    GivenUp {
        /// Why.
        reason: String,
    },
}

/// The answer to a wish to decide.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// The trial is kept, by this wish or an earlier one.
    Committed(Pending),
    /// The trial is given up, by this wish or an earlier one, for this reason.
    GivenUp(Pending, String),
    /// No trial with that nonce runs.
    NoTrial,
    /// The trial is not that far: it cannot be confirmed yet.
    NotHealthyYet,
}

impl ProfileLayout {
    /// The trial that runs, if one does.
    pub fn read_pending(&self) -> Result<Option<Pending>, ActivateError> {
        statefile::read(&self.pending())
    }

    pub(crate) fn write_pending(&self, pending: &Pending) -> Result<(), ActivateError> {
        statefile::write(&self.pending(), pending)
    }

    /// Declares the generation healthy and waiting, unless the trial was given up meanwhile.
    pub(crate) fn begin_waiting(&self, nonce: &str, deadline_boottime_ms: u64) -> Result<Option<Pending>, ActivateError> {
        let _decision = Lock::wait(&self.commit_lock())?;
        let Some(mut pending) = self.read_pending()?.filter(|pending| pending.nonce == nonce) else { return Ok(None) };
        if matches!(pending.phase, Phase::Activating { .. }) {
            pending.phase = Phase::OnTrial { deadline_boottime_ms };
            self.write_pending(&pending)?;
        }
        Ok(Some(pending))
    }

    /// Decides to keep the trial with this nonce, if it is healthy and in time, and carries the decision out.
    ///
    /// A wish that comes too late is refused here, and nothing else: who waits for the deadline gives the trial up.
    pub fn confirm(&self, nonce: &str, now: &Moment) -> Result<Decision, ActivateError> {
        let _decision = Lock::wait(&self.commit_lock())?;
        let Some(mut pending) = self.read_pending()?.filter(|pending| pending.nonce == nonce) else { return Ok(Decision::NoTrial) };
        match pending.phase {
            Phase::Activating { .. } => Ok(Decision::NotHealthyYet),
            Phase::OnTrial { deadline_boottime_ms } if now.boot_id == pending.boot_id && now.boottime_ms < deadline_boottime_ms => {
                pending.phase = Phase::Committed;
                self.write_pending(&pending)?;
                self.finish_commit(&pending)?;
                Ok(Decision::Committed(pending))
            }
            Phase::OnTrial { .. } => {
                let reason = "the confirmation came too late".to_owned();
                pending.phase = Phase::GivenUp { reason: reason.clone() };
                self.write_pending(&pending)?;
                Ok(Decision::GivenUp(pending, reason))
            }
            Phase::Committed => {
                self.finish_commit(&pending)?;
                Ok(Decision::Committed(pending))
            }
            Phase::GivenUp { ref reason } => {
                let reason = reason.clone();
                Ok(Decision::GivenUp(pending, reason))
            }
        }
    }

    /// Decides to give the trial with this nonce up, unless it was decided already. Going back is the caller's business.
    pub fn give_up(&self, nonce: &str, reason: &str) -> Result<Decision, ActivateError> {
        let _decision = Lock::wait(&self.commit_lock())?;
        let Some(mut pending) = self.read_pending()?.filter(|pending| pending.nonce == nonce) else { return Ok(Decision::NoTrial) };
        match pending.phase {
            Phase::Activating { .. } | Phase::OnTrial { .. } => {
                pending.phase = Phase::GivenUp { reason: reason.to_owned() };
                self.write_pending(&pending)?;
                Ok(Decision::GivenUp(pending, reason.to_owned()))
            }
            Phase::Committed => {
                self.finish_commit(&pending)?;
                Ok(Decision::Committed(pending))
            }
            Phase::GivenUp { ref reason } => {
                let reason = reason.clone();
                Ok(Decision::GivenUp(pending, reason))
            }
        }
    }

    /// Carries out that a trial is kept: `good`, the record, no trial any more. Each step may have been done before.
    fn finish_commit(&self, pending: &Pending) -> Result<(), ActivateError> {
        fsutil::replace_symlink(&self.good(), Path::new(&layout::generation_target(pending.generation)))?;
        if let Some(mut record) = self.read_record(pending.generation)? {
            record.nonce.clone_from(&pending.nonce);
            record.result = TrialResult::Committed;
            (record.reason, record.failure) = (None, None);
            self.write_record(&record)?;
        }
        statefile::remove(&self.pending())
    }
}

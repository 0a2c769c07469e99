//! The trial that runs: `pending.json`, and the decision over it.
//!
//! A trial ends by one decision, and the decision is one replacement of this file: its phase becomes `committed` or
//! `given-up`. Whoever decides holds `commit.lock` for that moment, so a confirmation that arrives at the deadline is
//! either in time or late, never both. Which decision a wish leads to says [`crate::course::decide`]; what follows from it
//! is done by who holds the profile's lock, any number of times.
//! The normative text is `LAYOUT.md`, section "Trials".

use sarsen_store::manifest::Identity;
use serde::{Deserialize, Serialize};

use crate::audit::Action;
use crate::clock::Moment;
use crate::course::{Wish, decide};
use crate::error::ActivateError;
use crate::layout::ProfileLayout;
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
    /// Why, in the deployer's words.
    #[serde(default)]
    pub message: Option<String>,
    /// The project's source revision.
    #[serde(default)]
    pub revision: Option<String>,
    /// What it is for.
    #[serde(default)]
    pub action: Action,
    /// Whom the profile is taken from, if it is.
    #[serde(default)]
    pub taken_from: Option<Identity>,
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
        let now = Moment::now();
        self.change(&mut pending, &Wish::Wait { deadline_boottime_ms }, &now)?;
        Ok(Some(pending))
    }

    /// Decides to keep the trial with this nonce, if it is healthy and in time.
    ///
    /// A wish that comes too late gives the trial up. What follows is done by who holds the profile's lock.
    pub fn confirm(&self, nonce: &str, now: &Moment) -> Result<Decision, ActivateError> {
        self.decide(nonce, &Wish::Keep, now)
    }

    /// Decides to give the trial with this nonce up, unless it was decided already. Going back is the caller's business.
    pub fn give_up(&self, nonce: &str, reason: &str) -> Result<Decision, ActivateError> {
        self.decide(nonce, &Wish::GiveUp(reason.to_owned()), &Moment::now())
    }

    fn decide(&self, nonce: &str, wish: &Wish, now: &Moment) -> Result<Decision, ActivateError> {
        let _decision = Lock::wait(&self.commit_lock())?;
        let Some(mut pending) = self.read_pending()?.filter(|pending| pending.nonce == nonce) else { return Ok(Decision::NoTrial) };
        self.change(&mut pending, wish, now)?;
        Ok(match pending.phase {
            Phase::Activating { .. } | Phase::OnTrial { .. } => Decision::NotHealthyYet,
            Phase::Committed => Decision::Committed(pending),
            Phase::GivenUp { ref reason } => {
                let reason = reason.clone();
                Decision::GivenUp(pending, reason)
            }
        })
    }

    /// Writes down what a wish leads to. The caller holds `commit.lock`.
    fn change(&self, pending: &mut Pending, wish: &Wish, now: &Moment) -> Result<(), ActivateError> {
        let Some(phase) = decide(pending, wish, now) else { return Ok(()) };
        pending.phase = phase;
        self.write_pending(pending)
    }
}

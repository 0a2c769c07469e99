//! The control messages between the operator's session and the target's `sarsen-activator serve`.
//!
//! A session is one byte stream each way (ssh's standard input and output, or a local child's), cut into the frames of
//! [`sarsen_store::wire`]. Kind [`REQUEST`] carries one [`Request`], kind [`RESPONSE`] one [`Response`], both as JSON.
//! The operator speaks first: `Hello`, then any number of requests, one at a time. Each request has exactly one final
//! response; `Activate`, `Rollback`, `Confirm` and `Abort` send any number of [`Response::Event`] before it.
//! The final response to `Activate` and `Rollback` that lead to a trial is [`Response::OnTrial`]: the trial goes on by itself,
//! whatever becomes of this session, until `Confirm` or `Abort` (answered by `Committed`, `RolledBack` or `RollbackFailed`) or its deadline.
//! After `Response::Ready` to `Stage` both sides speak the transfer protocol until it ends, then the target sends `Staged`.
//! Neither side trusts the other beyond the bounds of the frames; unknown members are refused, and so is another version.

use std::collections::BTreeMap;

use sarsen_store::ObjectRef;
use sarsen_store::gc::Retention;
use sarsen_store::manifest::{Identity, Manifest};
use serde::{Deserialize, Serialize};

use crate::diff::ActivationPlan;

/// The version of this protocol. The activator is pushed by digest with each session, so a difference means tampering or a bug.
pub const PROTOCOL_VERSION: u32 = 1;

/// The frame kind of requests.
pub const REQUEST: u8 = 0x40;

/// The frame kind of responses.
pub const RESPONSE: u8 = 0x41;

/// What the target prints before its first frame, so that noise of login shells can be told from the protocol.
pub const GREETING: &[u8] = b"\nsarsen-activator 1\n";

/// What the operator asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// Opens the session.
    Hello {
        /// [`PROTOCOL_VERSION`].
        version: u32,
        /// Environment, host and profile that the operator means.
        identity: Identity,
        /// What the operator wants with a profile of somebody else.
        #[serde(default)]
        claim: Claim,
    },
    /// What the target is and what runs there.
    Status,
    /// The newest generations, newest first.
    History {
        /// How many at most.
        limit: u32,
    },
    /// What activating this bundle would change; nothing is changed and the bundle need not be there.
    Compare {
        /// The bundle.
        bundle: ObjectRef,
        /// Its manifest.
        manifest: Box<Manifest>,
        /// The text of each unit of the manifest.
        units: BTreeMap<String, String>,
        /// The policy by which the deployment would give up old generations afterwards; none if it would not.
        retention: Option<Retention>,
    },
    /// Receives the closure of a bundle.
    Stage {
        /// The bundle.
        bundle: ObjectRef,
    },
    /// Makes a staged bundle current on trial.
    Activate(Activation),
    /// Makes an earlier generation current on trial.
    Rollback {
        /// The generation; the one that was current before the present one if absent.
        to: Option<u64>,
        /// Who asks, why, and how long to wait.
        trial: Trial,
    },
    /// Gives up old generations of the profile, and removes what nobody needs then.
    Collect {
        /// Which generations stay.
        retention: Retention,
    },
    /// Keeps the trial with this nonce. Sent over a fresh connection.
    Confirm {
        /// The trial's nonce.
        nonce: String,
    },
    /// Gives up the trial with this nonce and returns to the recorded previous generation.
    Abort {
        /// The trial's nonce.
        nonce: String,
    },
}

/// What an operator wants with a profile that belongs to another environment or host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Claim {
    /// Nothing: it is a mistake, and refused.
    #[default]
    OwnOnly,
    /// To have it: it is his as soon as a bundle of his is committed there.
    TakeOver,
}

/// What to make current.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Activation {
    /// The bundle; its closure is on the target.
    pub bundle: ObjectRef,
    /// Who asks, why, and how long to wait.
    pub trial: Trial,
}

/// What a trial needs beside the bundle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trial {
    /// 32 random bytes in hexadecimal: proof that a confirmation belongs to this trial.
    pub nonce: String,
    /// How long the target waits for the confirmation after it reported the trial healthy, in milliseconds.
    pub confirm_timeout_ms: u64,
    /// Who deploys, as `user@machine`.
    pub who: String,
    /// The source revision of the project, if it has one; with `-dirty` if it was changed since.
    pub revision: Option<String>,
    /// Why, in the deployer's words.
    pub message: Option<String>,
    /// What the deployer wants with a profile of somebody else.
    #[serde(default)]
    pub claim: Claim,
}

/// What the target answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "response", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Response {
    /// Answers `Hello`.
    Hello {
        /// [`PROTOCOL_VERSION`].
        version: u32,
        /// What the target is.
        facts: Facts,
    },
    /// Answers `Status`.
    Status(Status),
    /// Answers `History`, newest first.
    History {
        /// The generations.
        generations: Vec<GenerationInfo>,
        /// Generations whose record cannot be read, among the same.
        damaged: Vec<DamagedGeneration>,
        /// What was done, newest first.
        log: Vec<LogEntry>,
        /// What is wrong with the log, if something is.
        log_problem: Option<String>,
        /// The digest of the log's last line.
        log_head: String,
    },
    /// Answers `Compare`.
    Compared {
        /// What would change.
        plan: ActivationPlan,
        /// Requirements that are not met, in words.
        unmet: Vec<String>,
        /// Generations that would be given up afterwards, ascending.
        expired: Vec<u64>,
    },
    /// Answers `Collect`.
    Collected {
        /// The generations that were given up, ascending.
        generations: Vec<u64>,
        /// Objects that were removed.
        objects: u64,
        /// What that freed, in bytes of file contents.
        bytes: u64,
    },
    /// Answers `Stage`: send the closure now.
    Ready,
    /// Ends `Stage`.
    Staged {
        /// Objects that were missing.
        objects: u64,
        /// Bytes of file content that were missing, before compression.
        bytes: u64,
    },
    /// Something happened on the way; not final.
    Event {
        /// One line for people.
        message: String,
    },
    /// The bundle is current already; nothing was changed.
    Unchanged {
        /// The current generation.
        generation: u64,
    },
    /// The new generation is current and healthy, and waits for its confirmation.
    OnTrial {
        /// The generation.
        generation: u64,
        /// The recorded previous generation, if there was one.
        previous: Option<u64>,
    },
    /// The trial was kept.
    Committed {
        /// The generation.
        generation: u64,
    },
    /// The trial was given up and the recorded previous generation runs again, verified.
    RolledBack {
        /// The generation that runs now; nothing if there was none before.
        generation: Option<u64>,
        /// Why.
        reason: String,
    },
    /// The trial was given up, and going back failed as well.
    RollbackFailed {
        /// Why the trial was given up.
        reason: String,
        /// What failed on the way back.
        failure: String,
    },
    /// Refused before anything was changed.
    Refused {
        /// Why.
        reasons: Vec<String>,
    },
    /// Another deployment holds the lock.
    Locked {
        /// Who holds it, since when.
        holder: String,
    },
    /// The request could not be carried out; nothing was changed.
    Failed {
        /// Why.
        message: String,
    },
}

/// What a target is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Facts {
    /// The machine as the kernel names it, such as `x86_64`.
    pub architecture: String,
    /// The root of the installation.
    pub root: String,
    /// What manages services: `systemd`, `systemd --user` or `development supervisor`.
    pub services: String,
    /// Free bytes for an unprivileged writer on the store's file system.
    pub free_bytes: u64,
    /// Free inodes.
    pub free_inodes: u64,
    /// Whom the profile belongs to, if it exists.
    pub identity: Option<Identity>,
    /// The current generation.
    pub current: Option<u64>,
    /// The current generation's bundle.
    pub bundle: Option<ObjectRef>,
    /// Who holds the lock, if anybody.
    pub locked_by: Option<String>,
}

/// What runs on a target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Status {
    /// The current generation.
    pub current: Option<GenerationInfo>,
    /// The last confirmed generation's number.
    pub good: Option<u64>,
    /// The generation on trial, if any.
    pub pending: Option<u64>,
    /// What manages services.
    pub services: String,
    /// The units of the current generation, in the order of the manifest.
    pub units: Vec<UnitStatus>,
}

/// One unit's state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnitStatus {
    /// The unit's name.
    pub unit: String,
    /// `active`, `failed`, `inactive` or what systemd says.
    pub state: String,
    /// The main process, if it runs.
    pub pid: Option<u32>,
}

/// What is recorded of a generation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GenerationInfo {
    /// Its number.
    pub number: u64,
    /// Its bundle.
    pub bundle: ObjectRef,
    /// The generation that was current before.
    pub previous: Option<u64>,
    /// When it was made, in seconds since 1970.
    pub created: u64,
    /// Who deployed it, as `user@machine`.
    pub who: String,
    /// The project's source revision.
    pub revision: Option<String>,
    /// Why, in the deployer's words.
    pub message: Option<String>,
    /// `pending`, `committed`, `rolled-back` or `failed`.
    pub result: String,
    /// Why it was given up, if it was.
    pub reason: Option<String>,
    /// Whether it is current.
    pub current: bool,
    /// Whether its bundle was given up, so that nobody can return to it.
    pub given_up: bool,
}

/// A generation whose record cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DamagedGeneration {
    /// Its number.
    pub number: u64,
    /// What is wrong.
    pub problem: String,
}

/// A line of the audit log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogEntry {
    /// The line's number.
    pub number: u64,
    /// When, in seconds since 1970.
    pub time: u64,
    /// `deploy`, `rollback`, `repair` or `take-over`.
    pub action: String,
    /// Who did it, as `user@machine`.
    pub who: String,
    /// Why, in their words.
    pub message: Option<String>,
    /// The project's source revision.
    pub revision: Option<String>,
    /// Whether the source differed from that revision.
    pub dirty: bool,
    /// The generation that was tried.
    pub generation: Option<u64>,
    /// The generation before.
    pub previous: Option<u64>,
    /// `committed`, `rolled-back`, `failed` or `recorded`.
    pub result: String,
    /// Why it was given up; whom a profile was taken from.
    pub reason: Option<String>,
}

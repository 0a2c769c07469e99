//! What manages services on a target: the interface that systemd and the development supervisor share.

use std::path::Path;
use std::time::Duration;

use sarsen_store::manifest::Service;

use crate::process::ProcessError;
use crate::supervisor::SupervisorClient;
use crate::systemd::Systemd;

#[cfg(test)]
pub(crate) mod fake;

/// How often a pending trial is looked after: so long does a host stay with a generation whose deployment was killed.
pub const DEAD_MAN_LOOK: Duration = Duration::from_secs(15);

/// A manager of services.
///
/// All methods are idempotent, take every unit of one change at once, and end within their deadline.
pub trait ServiceManager: Send + Sync {
    /// The name for people: `systemd`, `systemd --user` or `development supervisor`.
    fn name(&self) -> &'static str;

    /// Makes exactly `services` known to the manager in place of `former`: unit links that lead through
    /// `<profile>/current` (so a later switch changes their content), enabled for boot; then reloads definitions.
    ///
    /// Called after the switch of `current`; units of `former` that are not in `services` have been stopped before.
    fn install(&self, current: &Path, services: &[Service], former: &[Service]) -> Result<(), ServiceError>;

    /// Starts units, in order; returns when each is started or has failed.
    fn start(&self, units: &[String], deadline: Duration) -> Result<(), ServiceError>;

    /// Stops units, in order, with the definitions they were started with.
    fn stop(&self, units: &[String], deadline: Duration) -> Result<(), ServiceError>;

    /// Tells units to read their configuration again; one that is not running is started.
    fn reload(&self, units: &[String], deadline: Duration) -> Result<(), ServiceError>;

    /// The states of units, in the order asked.
    fn states(&self, units: &[String]) -> Result<Vec<UnitState>, ServiceError>;

    /// The last lines that a unit printed, for a failure report.
    fn log_tail(&self, unit: &str) -> String;

    /// Makes sure that somebody looks after a pending trial even when every process of the deployment is dead: runs
    /// `sarsen-activator settle` after this time or [`DEAD_MAN_LOOK`], whichever is shorter, and again until it is disarmed.
    /// A trial whose owner lives is left alone by `settle`, so looking early does no harm. Armed again, the later call counts.
    fn arm_dead_man(&self, after: Duration) -> Result<(), ServiceError>;

    /// Takes [`ServiceManager::arm_dead_man`] back; it is no error when nothing is armed.
    fn disarm_dead_man(&self) -> Result<(), ServiceError>;

    /// Whether it runs timers and what else starts other units.
    fn has_triggers(&self) -> bool;

    /// The command line that runs `command` outside of the session that this process belongs to, with its own standard streams, from
    /// its first instruction on: what ends with a login does not end it. Where there is no such thing, the command itself.
    fn detach(&self, command: Vec<String>) -> Vec<String> {
        command
    }

    /// What the operator should know about this manager on this host, one sentence each; empty if nothing.
    fn notes(&self) -> Vec<String>;
}

/// Chooses the manager of this host for one profile of the installation at `root`.
///
/// systemd where it runs: the system's for root, the user's own for everybody else. Otherwise the development
/// supervisor, which is started when it is first needed; a profile whose services run there stays there, because two
/// managers would run everything twice.
pub fn detect(root: &Path, profile: &str) -> Box<dyn ServiceManager> {
    let supervisor = SupervisorClient::new(root, profile);
    match Systemd::detect(root, profile) {
        Some(systemd) if !supervisor.has_services() => Box::new(systemd),
        Some(_) | None => Box::new(supervisor),
    }
}

/// A unit's state at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnitState {
    /// The unit's name.
    pub unit: String,
    /// It runs, or did what it had to do.
    pub active: bool,
    /// It ended in failure, or is being started again after one.
    pub failed: bool,
    /// The state in the manager's words.
    pub state: String,
    /// The main process.
    pub pid: Option<u32>,
    /// How often it was started again by itself since it was started.
    pub restarts: u32,
}

/// A manager of services that refused or failed.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// The manager said no.
    #[error("{manager} could not {action}: {message}")]
    Manager {
        /// The manager's name.
        manager: &'static str,
        /// What was asked, with the units.
        action: String,
        /// Its words.
        message: String,
    },
    /// It took too long.
    #[error("{manager} did not {action} within {seconds} s")]
    Deadline {
        /// The manager's name.
        manager: &'static str,
        /// What was asked, with the units.
        action: String,
        /// The deadline in seconds.
        seconds: u128,
    },
    /// A file could not be read or changed.
    #[error("cannot change `{path}`")]
    File {
        /// The path.
        path: String,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// Something that sarsen did not make stands where a unit belongs.
    #[error("`{path}` is not sarsen's: remove it or rename the service")]
    Foreign {
        /// The path.
        path: String,
    },
    /// A program of the manager could not be run to its end.
    #[error("{manager} could not {action}")]
    Program {
        /// The manager's name.
        manager: &'static str,
        /// What was asked, with the units.
        action: String,
        /// The cause.
        #[source]
        source: Box<ProcessError>,
    },
    /// The development supervisor cannot be talked to.
    #[error("the development supervisor {problem}")]
    Supervisor {
        /// What happened, with the path of its log or socket.
        problem: String,
        /// The cause, if the system named one.
        #[source]
        source: Option<std::io::Error>,
    },
}

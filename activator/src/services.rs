//! What manages services on a target: the interface that systemd and the development supervisor share.

use std::path::Path;
use std::time::Duration;

use sarsen_store::manifest::Service;

/// A manager of services.
///
/// All methods are idempotent, take every unit of one change at once, and end within their deadline.
pub trait ServiceManager: Send {
    /// The name for people: `systemd`, `systemd --user` or `development supervisor`.
    fn name(&self) -> &'static str;

    /// Makes exactly `services` known to the manager in place of `former`: unit links that lead through
    /// `<profile>/current` (so a later switch changes their content), enabled for boot; then reloads definitions.
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
        seconds: u64,
    },
    /// A file could not be changed.
    #[error("cannot change `{path}`")]
    File {
        /// The path.
        path: String,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
}

//! Whether a generation is healthy. To be completed.

use std::time::Instant;

use sarsen_store::manifest::HealthCheck;

use crate::services::ServiceManager;

/// A generation that is not healthy.
#[derive(Debug, thiserror::Error)]
pub enum HealthError {
    /// A unit failed; nothing else needed to be waited for.
    #[error("unit `{unit}` is {state}\n{log}")]
    Unit {
        /// The unit.
        unit: String,
        /// Its state in the manager's words.
        state: String,
        /// The last lines that it printed.
        log: String,
    },
}

/// Waits until all checks succeeded and all units settled; `started` is when the services had been started.
pub fn wait_healthy(
    _checks: &[HealthCheck],
    _units: &[String],
    _services: &dyn ServiceManager,
    _started: Instant,
) -> Result<(), HealthError> {
    Ok(())
}

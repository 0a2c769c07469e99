//! What must exist on the host before anything is changed: programs, free ports, users. To be completed.

use sarsen_store::manifest::Requirement;

use crate::services::ServiceManager;

/// Checks all requirements and says in words which are not met.
///
/// A port may be in use by a process of `own_units`, the units of the current generation.
pub fn check_requirements(_requirements: &[Requirement], _own_units: &[String], _services: &dyn ServiceManager) -> Vec<String> {
    Vec::new()
}

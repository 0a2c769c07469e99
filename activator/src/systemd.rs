//! Units under systemd. To be completed.

use std::path::Path;
use std::time::Duration;

use sarsen_store::manifest::Service;

use crate::services::{ServiceError, ServiceManager, UnitState};

/// systemd, the system's or the user's own.
#[derive(Debug)]
pub struct Systemd {}

impl Systemd {
    /// Finds the systemd that this process may command, if one runs.
    pub fn detect(_root: &Path, _profile: &str) -> Option<Self> {
        None
    }
}

impl ServiceManager for Systemd {
    fn name(&self) -> &'static str {
        "systemd"
    }
    fn install(&self, _current: &Path, _services: &[Service], _former: &[Service]) -> Result<(), ServiceError> {
        Ok(())
    }
    fn start(&self, _units: &[String], _deadline: Duration) -> Result<(), ServiceError> {
        Ok(())
    }
    fn stop(&self, _units: &[String], _deadline: Duration) -> Result<(), ServiceError> {
        Ok(())
    }
    fn reload(&self, _units: &[String], _deadline: Duration) -> Result<(), ServiceError> {
        Ok(())
    }
    fn states(&self, _units: &[String]) -> Result<Vec<UnitState>, ServiceError> {
        Ok(Vec::new())
    }
    fn log_tail(&self, _unit: &str) -> String {
        String::new()
    }
    fn arm_dead_man(&self, _after: Duration) -> Result<(), ServiceError> {
        Ok(())
    }
    fn disarm_dead_man(&self) -> Result<(), ServiceError> {
        Ok(())
    }
    fn notes(&self) -> Vec<String> {
        Vec::new()
    }
}

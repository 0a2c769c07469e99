//! The development supervisor. To be completed.

use std::path::Path;
use std::time::Duration;

use sarsen_store::manifest::Service;

use crate::services::{ServiceError, ServiceManager, UnitState};

/// The client side of the development supervisor.
#[derive(Debug)]
pub struct SupervisorClient {}

impl SupervisorClient {
    /// Talks to the supervisor of one profile; it is started when it is first needed.
    pub fn new(_root: &Path, _profile: &str) -> Self {
        Self {}
    }
}

/// Which of the two processes of the development supervisor this one is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The keeper, `sarsen-activator supervise`: starts the worker; its end, by whatever signal, is the worker's order to stop all services.
    Keeper,
    /// The worker, `sarsen-activator supervise --worker`: starts and stops the services.
    Worker,
}

/// Runs the development supervisor of one profile until it is told to shut down.
pub fn supervise(_root: &Path, _profile: &str, _part: Part) -> Result<(), ServiceError> {
    Ok(())
}

impl ServiceManager for SupervisorClient {
    fn name(&self) -> &'static str {
        "development supervisor"
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

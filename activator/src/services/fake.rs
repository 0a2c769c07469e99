//! A service manager for tests: answers with the states that it was given, one answer after the other.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use sarsen_store::manifest::Service;

use super::{ServiceError, ServiceManager, UnitState};

/// Answers [`ServiceManager::states`] from a list; the last answer is repeated.
#[derive(Debug, Default)]
pub(crate) struct FakeManager {
    answers: Mutex<VecDeque<Vec<UnitState>>>,
}

impl FakeManager {
    pub(crate) fn with_states(states: Vec<UnitState>) -> Self {
        Self::with_answers([states])
    }

    pub(crate) fn with_answers(answers: impl IntoIterator<Item = Vec<UnitState>>) -> Self {
        Self { answers: Mutex::new(answers.into_iter().collect()) }
    }
}

impl ServiceManager for FakeManager {
    fn name(&self) -> &'static str {
        "fake"
    }

    fn install(&self, _: &Path, _: &[Service], _: &[Service]) -> Result<(), ServiceError> {
        Ok(())
    }

    fn start(&self, _: &[String], _: Duration) -> Result<(), ServiceError> {
        Ok(())
    }

    fn stop(&self, _: &[String], _: Duration) -> Result<(), ServiceError> {
        Ok(())
    }

    fn reload(&self, _: &[String], _: Duration) -> Result<(), ServiceError> {
        Ok(())
    }

    fn states(&self, _: &[String]) -> Result<Vec<UnitState>, ServiceError> {
        let mut answers = self.answers.lock().unwrap();
        let next = if answers.len() > 1 { answers.pop_front() } else { answers.front().cloned() };
        Ok(next.unwrap_or_default())
    }

    fn log_tail(&self, unit: &str) -> String {
        format!("last words of {unit}")
    }

    fn arm_dead_man(&self, _: Duration) -> Result<(), ServiceError> {
        Ok(())
    }

    fn disarm_dead_man(&self) -> Result<(), ServiceError> {
        Ok(())
    }

    fn has_triggers(&self) -> bool {
        true
    }

    fn notes(&self) -> Vec<String> {
        Vec::new()
    }
}

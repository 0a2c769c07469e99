//! Whether a generation is healthy: every check succeeded often enough, and every unit stayed up while they ran.
//!
//! All checks run in parallel, each until its own timeout, counted from the start of the services. Meanwhile the units are
//! watched: one that failed ends everything at once, because no waiting will mend it. At the end every unit must have been
//! up without a restart for [`SETTLE`]: a service that dies two seconds after its start is not healthy because a probe was
//! quick. The restart counter decides, since between two looks a unit may have died and come back.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use sarsen_store::manifest::HealthCheck;

use crate::services::{ServiceError, ServiceManager, UnitState};

mod probe;

/// How long every unit must have been up without a restart.
pub const SETTLE: Duration = Duration::from_secs(1);

/// How long units may take until they are up, when no check allows more.
pub const UNITS_UP: Duration = Duration::from_secs(10);

/// How often the units are looked at.
const LOOK: Duration = Duration::from_millis(100);

/// A generation that is not healthy.
#[derive(Debug, thiserror::Error)]
pub enum HealthError {
    /// A unit failed or was started again; nothing else needed to be waited for.
    #[error("unit `{unit}` {problem}{}", Log(log))]
    Unit {
        /// The unit.
        unit: String,
        /// What happened to it.
        problem: String,
        /// The last lines that it printed.
        log: String,
    },
    /// Checks did not succeed in their time.
    #[error("{}", Failures(failures))]
    Checks {
        /// Each of them, in the order of the manifest.
        failures: Vec<CheckFailure>,
    },
    /// The trial was given up meanwhile.
    #[error("{reason}")]
    GivenUp {
        /// Why.
        reason: String,
    },
    /// The states of the units cannot be learnt.
    #[error("cannot look at the units")]
    Services(#[source] ServiceError),
}

/// A check that did not succeed in its time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckFailure {
    /// The component that declared it.
    pub component: String,
    /// Its name.
    pub name: String,
    /// Its timeout in milliseconds.
    pub timeout_ms: u64,
    /// What the last attempt brought.
    pub answer: String,
}

struct Log<'a>(&'a str);

impl fmt::Display for Log<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(formatter, "; it printed last:\n{}", self.0) }
    }
}

struct Failures<'a>(&'a [CheckFailure]);

impl fmt::Display for Failures<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, failure) in self.0.iter().enumerate() {
            let separator = if position == 0 { "" } else { "; " };
            let CheckFailure { component, name, timeout_ms, answer } = failure;
            write!(formatter, "{separator}health check `{component}/{name}` did not succeed within {timeout_ms} ms: {answer}")?;
        }
        Ok(())
    }
}

/// Waits until all checks succeeded and all units settled; `started` is when the services had been started.
///
/// Units that must be up are `units`; probes may name others. `given_up` is asked all the while.
/// Errors: [`HealthError::Unit`] as soon as a unit fails, [`HealthError::GivenUp`] as soon as it is given up, [`HealthError::Checks`]
/// when all checks have ended.
pub fn wait_healthy(
    checks: &[HealthCheck],
    units: &[String],
    services: &dyn ServiceManager,
    started: Instant,
    given_up: &dyn Fn() -> Option<String>,
) -> Result<(), HealthError> {
    let over = Mutex::new(false);
    let (sender, results) = channel();
    std::thread::scope(|scope| {
        let over = &over;
        for (position, check) in checks.iter().enumerate() {
            let sender: Sender<(usize, Result<(), String>)> = sender.clone();
            scope.spawn(move || {
                let result = run_check(check, services, started, over);
                // Nobody listens any more when a unit has failed.
                let _ = sender.send((position, result));
            });
        }
        drop(sender);
        let mut watched = Watched::new(units, services, started);
        watched.given_up = Some(given_up);
        let outcome = watch(checks, &mut watched, &results);
        *over.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = true;
        outcome
    })
}

/// Collects the checks' results and looks at the units in between.
fn watch(checks: &[HealthCheck], watched: &mut Watched<'_>, results: &Receiver<(usize, Result<(), String>)>) -> Result<(), HealthError> {
    let mut open = checks.len();
    let mut failures = BTreeMap::new();
    while open > 0 {
        watched.look()?;
        match results.recv_timeout(LOOK) {
            Ok((position, result)) => {
                open -= 1;
                if let Err(answer) = result {
                    failures.insert(position, describe_failure(&checks[position], answer));
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => open = 0,
        }
    }
    if !failures.is_empty() {
        return Err(HealthError::Checks { failures: failures.into_values().collect() });
    }
    watched.settle()
}

fn describe_failure(check: &HealthCheck, answer: String) -> CheckFailure {
    CheckFailure { component: check.component.clone(), name: check.name.clone(), timeout_ms: check.timeout_ms, answer }
}

/// Tries one check until it succeeded often enough or its time is up; the error is the last answer.
fn run_check(check: &HealthCheck, services: &dyn ServiceManager, started: Instant, over: &Mutex<bool>) -> Result<(), String> {
    let end = started + Duration::from_millis(check.timeout_ms);
    let interval = Duration::from_millis(check.interval_ms.max(1));
    let mut row = 0;
    let mut answers = 0_u32;
    let mut last = "it was not asked in time".to_owned();
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() || *over.lock().unwrap_or_else(std::sync::PoisonError::into_inner) {
            return Err(last);
        }
        match probe::run_probe(&check.probe, left, services) {
            Ok(()) => row += 1,
            // An attempt that the end of the time cut short says less than the one before it.
            Err(_) if answers > 0 && end <= Instant::now() => return Err(last),
            Err(answer) => {
                row = 0;
                last = answer;
            }
        }
        answers = answers.saturating_add(1);
        if row >= check.successes.max(1) {
            return Ok(());
        }
        if row > 0 {
            last = format!("succeeded {row} of {} times in a row", check.successes);
        }
        std::thread::sleep(interval.min(end.saturating_duration_since(Instant::now())));
    }
}

/// The units under watch.
struct Watched<'a> {
    units: &'a [String],
    services: &'a dyn ServiceManager,
    started: Instant,
    given_up: Option<&'a dyn Fn() -> Option<String>>,
    /// Restarts of each unit when it was first seen.
    restarts: BTreeMap<String, u32>,
    /// Since when all units have been up.
    up_since: Option<Instant>,
}

impl<'a> Watched<'a> {
    fn new(units: &'a [String], services: &'a dyn ServiceManager, started: Instant) -> Self {
        Self { units, services, started, given_up: None, restarts: BTreeMap::new(), up_since: None }
    }

    /// Looks at all units once; gives the first that is not up yet.
    fn look(&mut self) -> Result<Option<UnitState>, HealthError> {
        if let Some(reason) = self.given_up.and_then(|given_up| given_up()) {
            return Err(HealthError::GivenUp { reason });
        }
        if self.units.is_empty() {
            self.up_since.get_or_insert(self.started);
            return Ok(None);
        }
        let states = self.services.states(self.units).map_err(HealthError::Services)?;
        for state in &states {
            // A unit that the activation left alone may have been restarted long ago.
            let first = *self.restarts.entry(state.unit.clone()).or_insert(state.restarts);
            if state.failed {
                return Err(self.describe(&state.unit, format!("is {}", state.state)));
            }
            if state.restarts > first {
                return Err(self.describe(&state.unit, format!("ended and was started again ({} times)", state.restarts)));
            }
        }
        let missing = states.into_iter().find(|state| !state.active);
        match missing {
            Some(_) => self.up_since = None,
            None => _ = self.up_since.get_or_insert_with(Instant::now),
        }
        Ok(missing)
    }

    /// Waits until all units have been up for [`SETTLE`].
    fn settle(&mut self) -> Result<(), HealthError> {
        let end = Instant::now() + UNITS_UP;
        loop {
            let missing = self.look()?;
            if self.units.is_empty() {
                return Ok(());
            }
            if self.up_since.is_some_and(|since| since.elapsed() >= SETTLE) {
                return Ok(());
            }
            match missing {
                Some(state) if end <= Instant::now() => {
                    let seconds = UNITS_UP.as_secs();
                    return Err(self.describe(&state.unit, format!("is {} after {seconds} s, not active", state.state)));
                }
                Some(_) | None => std::thread::sleep(LOOK),
            }
        }
    }

    fn describe(&self, unit: &str, problem: String) -> HealthError {
        HealthError::Unit { unit: unit.to_owned(), problem, log: self.services.log_tail(unit) }
    }
}

#[cfg(test)]
mod tests;

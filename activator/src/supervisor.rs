//! The development supervisor: runs services where no systemd does, such as in a container or on a build machine.
//!
//! It is for development and says so. Two processes belong to a profile. The *worker* starts and stops services, restarts
//! them with back-off, keeps their logs, and obeys requests on the socket `<profile>/supervisor.sock`. The *keeper* does
//! nothing but live: its number stands in `<profile>/supervisor.pid`, and when it ends, by whatever signal, the worker stops
//! all services in good order and ends too. That is how `kill` works for a program that cannot catch signals; and a keeper
//! whose worker was killed ends what that one left. Both leave the session in which they were started.
//!
//! The client starts the two when it first needs them. What should run stands in `<profile>/supervisor.json`, so that it
//! runs again with the next deployment after the machine was restarted. A supervisor without services ends by itself.

use std::path::Path;
use std::time::{Duration, Instant};

use sarsen_store::manifest::Service;

use crate::process::accounts::Account;
use crate::services::{ServiceError, ServiceManager, UnitState};

use messages::{Request, Response};
use place::Place;

mod daemon;
mod log;
mod messages;
mod place;
mod record;
mod unit;
mod worker;

pub use daemon::{Part, supervise};

/// The name for people.
const NAME: &str = "development supervisor";

/// How often a client looks whether what it waits for has happened.
const LOOK: Duration = Duration::from_millis(20);

/// How many lines of a unit's log a failure report shows.
const LOG_LINES: usize = 20;

/// The client side of the development supervisor of one profile.
#[derive(Debug)]
pub struct SupervisorClient {
    place: Place,
}

impl SupervisorClient {
    /// Talks to the supervisor of one profile; it is started when it is first needed.
    pub fn new(root: &Path, profile: &str) -> Self {
        Self { place: Place::new(root, profile) }
    }

    /// Whether services are installed under this supervisor, running or not.
    pub fn has_services(&self) -> bool {
        // One that cannot be read belongs to somebody who should be asked before another manager takes over.
        record::Record::load(&self.place.record()).map_or(true, |record| !record.services.is_empty())
    }

    /// Asks the supervisor to stop all services and to end; it is no error when none runs.
    pub fn shut_down(&self, deadline: Duration) -> Result<(), ServiceError> {
        let end = Instant::now() + deadline;
        while messages::ask_running(&self.place, &Request::Shutdown)?.is_some() {
            if end <= Instant::now() {
                return Err(late("end", deadline));
            }
            std::thread::sleep(LOOK);
        }
        Ok(())
    }

    /// Asks the supervisor, which is started if it does not run.
    fn ask(&self, request: &Request) -> Result<Response, ServiceError> {
        if let Some(response) = messages::ask_running(&self.place, request)? {
            return Ok(response);
        }
        daemon::start_keeper(&self.place)?;
        let running = messages::ask_running(&self.place, request)?;
        running.ok_or_else(|| ServiceError::Supervisor { problem: "ended at once".to_owned(), source: None })
    }

    /// Asks for something that is done when the answer is there.
    fn order(&self, request: &Request, action: &str) -> Result<(), ServiceError> {
        match self.ask(request)? {
            Response::Done | Response::Ending | Response::States { .. } => Ok(()),
            Response::Failed { message } => Err(ServiceError::Manager { manager: NAME, action: action.to_owned(), message }),
        }
    }

    /// Waits until no unit of `units` is as `unsettled` says.
    fn wait(
        &self,
        units: &[String],
        end: Instant,
        deadline: Duration,
        action: &str,
        unsettled: impl Fn(&UnitState) -> bool,
    ) -> Result<Vec<UnitState>, ServiceError> {
        loop {
            let states = self.states(units)?;
            if !states.iter().any(&unsettled) {
                return Ok(states);
            }
            if end <= Instant::now() {
                return Err(late(action, deadline));
            }
            std::thread::sleep(LOOK);
        }
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn late(action: &str, deadline: Duration) -> ServiceError {
    ServiceError::Deadline { manager: NAME, action: action.to_owned(), seconds: deadline.as_millis().div_ceil(1000) }
}

impl ServiceManager for SupervisorClient {
    fn name(&self) -> &'static str {
        NAME
    }

    fn install(&self, _current: &Path, services: &[Service], _former: &[Service]) -> Result<(), ServiceError> {
        if services.is_empty() && !self.place.record().exists() {
            return Ok(());
        }
        self.order(&Request::Install { services: services.to_vec() }, "take over the definitions of services")
    }

    fn start(&self, units: &[String], deadline: Duration) -> Result<(), ServiceError> {
        let end = Instant::now() + deadline;
        if units.is_empty() {
            return Ok(());
        }
        let action = format!("start {}", units.join(", "));
        self.order(&Request::Start { units: units.to_vec() }, &action)?;
        let states = self.wait(units, end, deadline, &action, |state| !state.active && !state.failed)?;
        let failed: Vec<String> = states.iter().filter(|state| state.failed).map(|state| self.describe(state)).collect();
        if failed.is_empty() {
            return Ok(());
        }
        Err(ServiceError::Manager { manager: NAME, action, message: failed.join("\n") })
    }

    fn stop(&self, units: &[String], deadline: Duration) -> Result<(), ServiceError> {
        let end = Instant::now() + deadline;
        if !self.place.record().exists() {
            return Ok(());
        }
        for unit in units {
            let action = format!("stop {unit}");
            let unit = std::slice::from_ref(unit);
            self.order(&Request::Stop { units: unit.to_vec() }, &action)?;
            self.wait(unit, end, deadline, &action, |state| state.pid.is_some())?;
        }
        Ok(())
    }

    fn reload(&self, units: &[String], deadline: Duration) -> Result<(), ServiceError> {
        for unit in units {
            let timeout_ms = milliseconds(deadline);
            self.order(&Request::Reload { unit: unit.clone(), timeout_ms }, &format!("reload {unit}"))?;
        }
        Ok(())
    }

    fn states(&self, units: &[String]) -> Result<Vec<UnitState>, ServiceError> {
        let absent = |unit: &String| UnitState {
            unit: unit.clone(),
            active: false,
            failed: false,
            state: "inactive".to_owned(),
            pid: None,
            restarts: 0,
        };
        // To look must not change anything: a supervisor that is gone is not started, and with it its services are gone.
        let Some(response) = messages::ask_running(&self.place, &Request::States { units: units.to_vec() })? else {
            return Ok(units.iter().map(absent).collect());
        };
        match response {
            Response::States { states } => Ok(states.into_iter().map(UnitState::from).collect()),
            Response::Done | Response::Ending => Ok(units.iter().map(absent).collect()),
            Response::Failed { message } => {
                Err(ServiceError::Manager { manager: NAME, action: "tell the units' states".to_owned(), message })
            }
        }
    }

    fn log_tail(&self, unit: &str) -> String {
        log::read_tail(&self.place.unit_log(unit), LOG_LINES)
    }

    fn arm_dead_man(&self, after: Duration) -> Result<(), ServiceError> {
        let request = Request::ArmDeadMan { after_ms: milliseconds(after) };
        self.order(&request, "remember when to give up the trial")
    }

    fn disarm_dead_man(&self) -> Result<(), ServiceError> {
        // One that does not run has nothing to forget.
        messages::ask_running(&self.place, &Request::DisarmDeadMan).map(drop)
    }

    fn has_triggers(&self) -> bool {
        false
    }

    fn notes(&self) -> Vec<String> {
        let name = "services run under sarsen's development supervisor, which is not meant for production";
        let why = if !Path::new("/run/systemd/system").exists() {
            "no systemd runs here".to_owned()
        } else if self.has_services() {
            let (pid, record) = (self.place.pid_file(), self.place.record());
            format!("they did before; to move them, end the process in `{}`, remove `{}` and deploy again", pid.display(), record.display())
        } else {
            let user = Account::own().name;
            format!("systemd runs no manager for user `{user}`: run `loginctl enable-linger {user}` as root")
        };
        vec![format!("{name}: {why}")]
    }
}

impl SupervisorClient {
    fn describe(&self, state: &UnitState) -> String {
        let mut text = format!("{} is {}", state.unit, state.state);
        for line in self.log_tail(&state.unit).lines() {
            text.extend(["\n  ", line]);
        }
        text
    }
}

#[cfg(test)]
mod tests;

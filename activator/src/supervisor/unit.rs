//! One service under the development supervisor: a state machine that is told what happened and what time it is.
//!
//! ```text
//! inactive --start--> running --ends--> waiting --time--> running     (restart policy says so)
//!                        |                  +--> failed or inactive   (it does not)
//!                        +--stop--> stopping --ends--> inactive; killed when its time is up
//! ```

use std::io::{self, PipeReader, Read};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open};
use sarsen_store::manifest::{Restart, Service};

use super::log::Log;
use super::messages::State as WireState;
use crate::error::describe;
use crate::process::{Invocation, describe_status, kill_group, spawn};

/// The pause before the first restart; it doubles with every further one.
const BACK_OFF_MIN: Duration = Duration::from_millis(100);

/// The longest pause before a restart, and how long a service must have run for the pauses to start again from the shortest.
const BACK_OFF_MAX: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(super) struct Unit {
    pub(super) service: Service,
    /// It should run.
    pub(super) wanted: bool,
    /// It is no longer part of the generation and goes when it has ended.
    pub(super) removed: bool,
    pub(super) state: State,
    restarts: u32,
    /// Ends in a row after a short life.
    short_lives: u32,
    /// How it ended last.
    last_end: String,
    log: Log,
}

#[derive(Debug)]
pub(super) enum State {
    Inactive,
    Running(Process),
    Stopping { process: Process, kill_at: Instant },
    Waiting { until: Instant },
    Failed,
}

/// A running main process.
#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    pub(super) ended: OwnedFd,
    /// What it prints; nothing after the end of the stream.
    pub(super) output: Option<PipeReader>,
    since: Instant,
    /// How long it may take to stop, by the definition that it was started with.
    stop_timeout: Duration,
}

impl Process {
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Unit {
    pub(super) fn new(service: Service, log: Log) -> Self {
        Self { service, wanted: false, removed: false, state: State::Inactive, restarts: 0, short_lives: 0, last_end: String::new(), log }
    }

    pub(super) fn process(&self) -> Option<&Process> {
        match &self.state {
            State::Running(process) | State::Stopping { process, .. } => Some(process),
            State::Inactive | State::Waiting { .. } | State::Failed => None,
        }
    }

    /// Starts it unless it runs; one that is being stopped is started when it has ended.
    pub(super) fn start(&mut self) {
        self.wanted = true;
        self.restarts = 0;
        self.short_lives = 0;
        match self.state {
            State::Inactive | State::Waiting { .. } | State::Failed => self.spawn(),
            State::Running(_) | State::Stopping { .. } => {}
        }
    }

    /// Asks it to end; it is killed when that takes too long.
    pub(super) fn stop(&mut self, now: Instant) {
        self.wanted = false;
        match std::mem::replace(&mut self.state, State::Inactive) {
            State::Running(process) => {
                kill_group(process.pid(), Signal::TERM);
                let kill_at = now + process.stop_timeout;
                self.state = State::Stopping { process, kill_at };
            }
            stopping @ State::Stopping { .. } => self.state = stopping,
            State::Inactive | State::Waiting { .. } | State::Failed => {}
        }
    }

    /// Runs the command that makes it read its configuration again; starts it if it does not run.
    pub(super) fn reload(&mut self, timeout: Duration) -> Result<(), String> {
        let pid = match &self.state {
            State::Running(process) => process.pid(),
            State::Inactive | State::Stopping { .. } | State::Waiting { .. } | State::Failed => {
                self.start();
                return Ok(());
            }
        };
        let with_pid = |argument: &String| argument.replace("${MAINPID}", &pid.to_string()).replace("$MAINPID", &pid.to_string());
        let command: Vec<String> = self.service.reload.iter().map(with_pid).collect();
        let (program, arguments) = command.split_first().ok_or("it has no command for that")?;
        let mut invocation = Invocation::new(program, &[], timeout);
        invocation.arguments = arguments.to_vec();
        invocation.environment.clone_from(&self.service.environment);
        invocation.environment.insert("MAINPID".to_owned(), pid.to_string());
        invocation.user.clone_from(&self.service.user);
        let done = invocation.run().map_err(|error| describe(&error))?;
        self.log.note(&format!("reloaded: {}", describe_status(done.status)));
        if done.status.success() { Ok(()) } else { Err(format!("{} {}", describe_status(done.status), done.output)) }
    }

    /// The main process has ended.
    pub(super) fn ended(&mut self, now: Instant) {
        let stopped = matches!(self.state, State::Stopping { .. });
        let (State::Running(mut process) | State::Stopping { mut process, .. }) = std::mem::replace(&mut self.state, State::Inactive)
        else {
            return;
        };
        // Before the child is waited for, so that its number cannot have become another's.
        kill_group(process.pid(), Signal::KILL);
        let status = process.child.wait();
        self.drain(&mut process);
        self.last_end = status.as_ref().map_or_else(ToString::to_string, |&status| describe_status(status));
        self.log.note(&format!("ended with {}", self.last_end));
        if stopped {
            if self.wanted {
                self.spawn();
            }
            return;
        }
        let success = status.as_ref().is_ok_and(ExitStatus::success);
        let again = match self.service.restart {
            Restart::Always => true,
            Restart::OnFailure => !success,
            Restart::No => false,
        };
        if again && self.wanted {
            self.short_lives = if now.duration_since(process.since) < BACK_OFF_MAX { self.short_lives + 1 } else { 1 };
            let pause = BACK_OFF_MIN.saturating_mul(1 << (self.short_lives - 1).min(16)).min(BACK_OFF_MAX);
            self.state = State::Waiting { until: now + pause };
        } else {
            self.wanted = false;
            self.state = if success { State::Inactive } else { State::Failed };
        }
    }

    /// Does what is due at `now`.
    pub(super) fn tick(&mut self, now: Instant) {
        match &mut self.state {
            State::Waiting { until } if *until <= now => {
                self.restarts += 1;
                self.spawn();
            }
            State::Stopping { process, kill_at } if *kill_at <= now => {
                kill_group(process.pid(), Signal::KILL);
                // A process in the kernel's hands may take long to die.
                *kill_at = now + BACK_OFF_MAX;
                self.log.note("did not end in time and is killed");
            }
            State::Inactive | State::Running(_) | State::Stopping { .. } | State::Waiting { .. } | State::Failed => {}
        }
    }

    /// When [`Self::tick`] has something to do.
    pub(super) fn due(&self) -> Option<Instant> {
        match self.state {
            State::Waiting { until } => Some(until),
            State::Stopping { kill_at, .. } => Some(kill_at),
            State::Inactive | State::Running(_) | State::Failed => None,
        }
    }

    /// Takes what it printed into its log; called when there is something to read.
    pub(super) fn read_output(&mut self) {
        let (State::Running(process) | State::Stopping { process, .. }) = &mut self.state else { return };
        let Some(reader) = &mut process.output else { return };
        let mut buffer = [0_u8; 8 << 10];
        match reader.read(&mut buffer) {
            Ok(length) if length > 0 => self.log.write(&buffer[..length]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Ok(_) | Err(_) => process.output = None,
        }
    }

    pub(super) fn to_wire(&self) -> WireState {
        let (active, failed, state) = match &self.state {
            State::Running(_) => (true, false, "active".to_owned()),
            State::Stopping { .. } => (false, false, "stopping".to_owned()),
            State::Waiting { .. } => (false, true, format!("ended ({}) and being started again", self.last_end)),
            State::Failed => (false, true, format!("failed ({})", self.last_end)),
            State::Inactive => (false, false, "inactive".to_owned()),
        };
        let pid = self.process().map(Process::pid);
        WireState { unit: self.service.unit.clone(), active, failed, state, pid, restarts: self.restarts }
    }

    fn spawn(&mut self) {
        match start_process(&self.service) {
            Ok(process) => {
                self.log.note(&format!("started as process {}", process.pid()));
                self.state = State::Running(process);
            }
            Err(problem) => {
                self.log.note(&problem);
                self.last_end = problem;
                self.state = State::Failed;
            }
        }
    }

    /// Reads what is left in the pipe without waiting for a process that was left behind with it.
    fn drain(&mut self, process: &mut Process) {
        use rustix::event::{PollFd, PollFlags};
        let Some(reader) = &mut process.output else { return };
        let mut buffer = [0_u8; 8 << 10];
        loop {
            let ready = crate::process::wait_ready(&mut [PollFd::new(reader, PollFlags::IN)], Duration::ZERO);
            match ready.and_then(|ready| if ready { reader.read(&mut buffer) } else { Ok(0) }) {
                Ok(length) if length > 0 => self.log.write(&buffer[..length]),
                Ok(_) | Err(_) => return,
            }
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the development supervisor owns the processes of its services")]
fn start_process(service: &Service) -> Result<Process, String> {
    let (program, arguments) = service.command.split_first().ok_or("it has no command")?;
    let (reader, writer) = io::pipe().map_err(|error| error.to_string())?;
    let errors = writer.try_clone().map_err(|error| error.to_string())?;
    let mut command = Command::new(program);
    command.args(arguments).current_dir(service.working_directory.as_deref().unwrap_or("/")).stdout(writer).stderr(errors);
    let child = spawn(command, &service.environment, service.user.as_deref()).map_err(|error| describe(&error))?;
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or("its process number is out of range")?;
    let ended = pidfd_open(pid, PidfdFlags::empty()).map_err(|error| format!("cannot watch it: {error}"))?;
    let stop_timeout = Duration::from_millis(service.stop_timeout_ms);
    Ok(Process { child, ended, output: Some(reader), since: Instant::now(), stop_timeout })
}

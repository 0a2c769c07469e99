//! How the development supervisor's two processes come to life.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use sarsen_store::fsutil::{self, FsError};

use super::log::read_tail;
use super::messages::{self, Request};
use super::place::Place;
use super::record::Record;
use super::worker::Worker;
use crate::process::SEARCH_PATH;
use crate::services::ServiceError;

/// How long a supervisor may take until it answers.
const START: Duration = Duration::from_secs(5);

/// How long a worker waits for the lock of one that is about to end.
const TAKE_OVER: Duration = Duration::from_secs(3);

/// This program, even when its file has been replaced.
const OWN_PROGRAM: &str = "/proc/self/exe";

/// Which of the two processes of the development supervisor this one is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// `sarsen-activator supervise --root R --profile P`: lives, so that its end can tell the worker to end.
    Keeper,
    /// `sarsen-activator supervise --root R --profile P --worker`: runs the services.
    Worker,
}

/// Runs one part of the development supervisor of a profile to its end.
///
/// The worker's standard input is a pipe that the keeper holds open and never writes to.
/// Errors: [`ServiceError::Supervisor`].
pub fn supervise(root: &Path, profile: &str, part: Part) -> Result<(), ServiceError> {
    let place = Place::new(root, profile);
    let result = match part {
        Part::Keeper => keep(&place),
        Part::Worker => work(&place, io::stdin().as_fd()),
    };
    result.map_err(|source| ServiceError::Supervisor { problem: "stopped working".to_owned(), source: Some(source) })
}

/// Starts the keeper from this program and waits until its worker answers.
pub(super) fn start_keeper(place: &Place) -> Result<(), ServiceError> {
    let failed = |source| ServiceError::Supervisor { problem: "cannot be started".to_owned(), source: Some(source) };
    prepare(place).map_err(|error| failed(error.source))?;
    let mut child = command(place).map_err(failed)?.arg("supervise").args(arguments(place)).spawn().map_err(failed)?;
    // Collects the keeper's end if this program lives longer.
    std::thread::spawn(move || child.wait());
    let end = Instant::now() + START;
    while messages::ask_running(place, &Request::States { units: Vec::new() })?.is_none() {
        if end <= Instant::now() {
            let words = read_tail(&place.own_log(), 3);
            let problem = format!("did not answer within {} s; see `{}`\n{words}", START.as_secs(), place.own_log().display());
            return Err(ServiceError::Supervisor { problem, source: None });
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

fn prepare(place: &Place) -> Result<(), FsError> {
    fsutil::create_dir_all(&place.directory(), 0o755)?;
    fsutil::create_dir_all(&place.logs(), 0o755)
}

fn arguments(place: &Place) -> [&std::ffi::OsStr; 4] {
    ["--root".as_ref(), place.root.as_os_str(), "--profile".as_ref(), place.profile.as_ref()]
}

/// This program with nothing of the present session: no environment, no terminal, what it says goes to the log.
#[expect(clippy::disallowed_methods, reason = "the development supervisor owns its own processes")]
fn command(place: &Place) -> io::Result<Command> {
    let log = OpenOptions::new().append(true).create(true).mode(0o600).open(place.own_log())?;
    let mut command = Command::new(OWN_PROGRAM);
    command.env_clear().env("PATH", SEARCH_PATH).env("LANG", "C.UTF-8").current_dir("/");
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    Ok(command)
}

/// The keeper: starts the worker, waits for its end, and ends what it left if it was killed.
fn keep(place: &Place) -> io::Result<()> {
    prepare(place).map_err(|error| error.source)?;
    // Fails only for the leader of a process group, which was started by hand and has a session of its own already.
    let _ = rustix::process::setsid();
    let (reader, _held_open) = io::pipe()?;
    let mut worker = command(place)?;
    worker.arg("supervise").args(arguments(place)).arg("--worker").stdin(reader).process_group(0);
    let status = worker.spawn().and_then(|mut worker| worker.wait())?;
    if status.success() {
        return Ok(());
    }
    Record::load(&place.record())?.kill_leftovers();
    Err(io::Error::other("the worker was killed"))
}

/// The worker; ends at once if another one has the place.
pub(super) fn work(place: &Place, keeper: std::os::fd::BorrowedFd<'_>) -> io::Result<()> {
    prepare(place).map_err(|error| error.source)?;
    let Ok(_lock) = fsutil::lock_exclusive_within(&place.lock(), TAKE_OVER) else {
        return Ok(());
    };
    let keeper_pid = rustix::process::getppid().map_or(0, |pid| pid.as_raw_nonzero().get());
    fsutil::replace_file(&place.pid_file(), format!("{keeper_pid}\n").as_bytes(), 0o644).map_err(|error| error.source)?;
    let result = Worker::new(place, keeper).and_then(Worker::run);
    // A stale number would name somebody else's process one day.
    let _ = fsutil::remove_file(&place.pid_file());
    result
}

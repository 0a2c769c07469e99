//! The caller's side: starts the sandbox, reads its log, keeps the time.
#![expect(clippy::disallowed_methods, reason = "owner of the process that becomes the sandbox")]

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::stages::{Failure, Report, read_message, write_message};
use super::{ENTRY_ARGUMENT, Ending, Outcome, SandboxError, Spec, log};

/// How long the stages may take to take their specifications: they do nothing else at that time.
const START_TIMEOUT: Duration = Duration::from_mins(1);

/// Runs the script of `spec` in a sandbox and writes all it says to a new file `log`.
///
/// When this returns, no process of the build is left. `timeout` counts from the start.
/// Errors: [`SandboxError`] if the script did not run; a script that fails is an [`Outcome`].
pub fn run(spec: &Spec, program: &Path, log: &Path, timeout: Duration) -> Result<Outcome, SandboxError> {
    let log_failed = |source| SandboxError::Log { path: log.to_owned(), source };
    let start_failed = |source| SandboxError::Start { program: program.to_owned(), source };
    let file = File::options().write(true).create(true).truncate(true).open(log).map_err(log_failed)?;
    let (ours, theirs) = UnixStream::pair().map_err(start_failed)?;
    let (reader, writer) = io::pipe().map_err(start_failed)?;
    let second = writer.try_clone().map_err(start_failed)?;
    let mut command = Command::new(program);
    command.arg(ENTRY_ARGUMENT).env_clear().stdin(OwnedFd::from(theirs)).stdout(Stdio::from(writer)).stderr(Stdio::from(second));
    let mut child = command.spawn().map_err(start_failed)?;
    // The command holds the other ends of pipe and socket: they have to be closed here, or the ends never come.
    drop(command);
    let deadline = Instant::now() + timeout;
    std::thread::scope(|scope| {
        let reading = scope.spawn(|| log::copy(reader, file));
        let report = talk(&ours, spec, deadline);
        if !matches!(report, Ok(Some(_))) {
            // Its death kills process 1, and with it the whole namespace. It may have ended by itself.
            let _ = child.kill();
        }
        // It waits for process 1, which the kernel lets go only after all others are gone.
        let ended = child.wait().map_err(start_failed)?;
        let tail = reading.join().unwrap_or_else(|_| Err(io::ErrorKind::Other.into())).map_err(log_failed)?;
        match report.map_err(start_failed)? {
            // It succeeds only after it has waited for process 1. Killed from outside, it leaves the death of the others to the kernel, a moment later.
            Some(Report::Ended(ending)) => Ok(Outcome { ending, tail, is_gone: ended.success() }),
            Some(Report::Failed(Failure { operation, reason, hint })) => Err(SandboxError::Setup { operation, reason, hint }),
            None if Instant::now() >= deadline => Ok(Outcome { ending: Ending::TimedOut(timeout.as_secs()), tail, is_gone: false }),
            None => Err(SandboxError::Silent),
        }
    })
}

/// Sends the specification to both stages and waits for the report; nothing if none comes in time.
fn talk(mut socket: &UnixStream, spec: &Spec, deadline: Instant) -> io::Result<Option<Report>> {
    let bytes = serde_json::to_vec(spec).map_err(io::Error::other)?;
    socket.set_write_timeout(Some(START_TIMEOUT))?;
    for _stage in ["outer", "init"] {
        match write_message(&mut socket, &bytes) {
            // The first stage has ended: it has said why, or will be found silent.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => break,
            other => other?,
        }
    }
    socket.flush()?;
    let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
    socket.set_read_timeout(Some(left))?;
    // A report is some bytes in one piece; only its beginning can be late.
    match read_message(&mut socket) {
        Ok(bytes) => Ok(serde_json::from_slice(&bytes).ok()),
        Err(_) => Ok(None),
    }
}

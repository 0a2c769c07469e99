//! The caller's side: starts the sandbox, reads its log, keeps the time.
#![expect(clippy::disallowed_methods, reason = "owner of the process that becomes the sandbox")]

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::stages::{Failure, Report, read_message, write_message};
use super::{ENTRY_ARGUMENT, Ending, Outcome, Patience, SandboxError, Spec, log};

/// How long the stages may take to take their specifications: they do nothing else at that time.
const START_TIMEOUT: Duration = Duration::from_mins(1);

/// Runs the script of `spec` in a sandbox and writes all it says to a new file `log`.
///
/// When this returns, no process of the build is left. `patience` counts from the start.
/// Errors: [`SandboxError`] if the script did not run; a script that fails is an [`Outcome`].
pub fn run(spec: &Spec, program: &Path, log: &Path, patience: Patience) -> Result<Outcome, SandboxError> {
    let log_failed = |source| SandboxError::Log { path: log.to_owned(), source };
    let start_failed = |source| SandboxError::Start { program: program.to_owned(), source };
    let file = File::options().write(true).create(true).truncate(true).open(log).map_err(log_failed)?;
    let (ours, theirs) = UnixStream::pair().map_err(start_failed)?;
    let (reader, writer) = io::pipe().map_err(start_failed)?;
    let second = writer.try_clone().map_err(start_failed)?;
    let mut command = Command::new(program);
    // The stage compares this with its parent: after a death before it asks for its death signal, nobody would send that.
    command
        .arg(ENTRY_ARGUMENT)
        .arg(std::process::id().to_string())
        .env_clear()
        .stdin(OwnedFd::from(theirs))
        .stdout(Stdio::from(writer))
        .stderr(Stdio::from(second));
    let mut child = command.spawn().map_err(start_failed)?;
    // The command holds the other ends of pipe and socket: they have to be closed here, or the ends never come.
    drop(command);
    let clock = Clock::start(patience);
    std::thread::scope(|scope| {
        let reading = scope.spawn(|| log::copy(Heard { reader, clock: &clock }, file));
        let said = talk(&ours, spec, &clock);
        if !matches!(said, Ok(Said::Report(_))) {
            // Its death kills process 1, and with it the whole namespace. It may have ended by itself.
            let _ = child.kill();
        }
        // It waits for process 1, which the kernel lets go only after all others are gone.
        let ended = child.wait().map_err(start_failed)?;
        let tail = reading.join().unwrap_or_else(|_| Err(io::ErrorKind::Other.into())).map_err(log_failed)?;
        let killed = |ending| Ok(Outcome { ending, tail: tail.clone(), is_gone: false });
        match said.map_err(start_failed)? {
            // It succeeds only after it has waited for process 1. Killed from outside, it leaves the death of the others to the kernel, a moment later.
            Said::Report(Report::Ended(ending)) => Ok(Outcome { ending, tail, is_gone: ended.success() }),
            Said::Report(Report::Failed(Failure { operation, reason, hint })) => Err(SandboxError::Setup { operation, reason, hint }),
            Said::Late => killed(Ending::TimedOut(patience.wall.as_secs())),
            Said::Silent => killed(Ending::Silent(patience.silence.as_secs())),
            Said::End => Err(SandboxError::Silent),
        }
    })
}

/// What the stages said.
enum Said {
    Report(Report),
    /// Nothing, before the time was up.
    Late,
    /// Nothing, and the build printed nothing either.
    Silent,
    /// Nothing, and they will not any more.
    End,
}

/// When a build began, and when it was last heard of.
struct Clock {
    started: Instant,
    /// Milliseconds after the start.
    heard_ms: AtomicU64,
    patience: Patience,
}

impl Clock {
    fn start(patience: Patience) -> Self {
        Self { started: Instant::now(), heard_ms: AtomicU64::new(0), patience }
    }

    fn hear(&self) {
        self.heard_ms.store(u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// How long to wait before the next look; or what it means that it is over.
    fn left(&self) -> Result<Duration, Said> {
        let passed = self.started.elapsed();
        let wall = self.patience.wall.checked_sub(passed).filter(|left| !left.is_zero()).ok_or(Said::Late)?;
        let quiet = passed.saturating_sub(Duration::from_millis(self.heard_ms.load(Ordering::Relaxed)));
        let silence = self.patience.silence.checked_sub(quiet).filter(|left| !left.is_zero()).ok_or(Said::Silent)?;
        Ok(wall.min(silence))
    }
}

/// A log that tells the clock of everything that comes.
struct Heard<'a, R> {
    reader: R,
    clock: &'a Clock,
}

impl<R: Read> Read for Heard<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(buffer)?;
        self.clock.hear();
        Ok(count)
    }
}

/// Sends the specification to both stages and waits for the report.
fn talk(mut socket: &UnixStream, spec: &Spec, clock: &Clock) -> io::Result<Said> {
    let bytes = serde_json::to_vec(spec).map_err(io::Error::other)?;
    socket.set_write_timeout(Some(START_TIMEOUT))?;
    for _stage in ["outer", "init"] {
        match write_message(&mut socket, &bytes) {
            // The first stage has ended: it has said why, or will be found silent.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => break,
            other => other?,
        }
    }
    loop {
        let left = match clock.left() {
            Ok(left) => left,
            Err(over) => return Ok(over),
        };
        let timeout = Timespec::try_from(left).map_err(io::Error::other)?;
        match poll(&mut [PollFd::new(&socket, PollFlags::IN)], Some(&timeout)) {
            Ok(0) | Err(rustix::io::Errno::INTR) => {}
            Ok(_) => break,
            Err(error) => return Err(error.into()),
        }
    }
    // A report is some bytes in one piece; only its beginning can be late.
    socket.set_read_timeout(Some(START_TIMEOUT))?;
    let report = read_message(&mut socket).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
    Ok(report.map_or(Said::End, Said::Report))
}

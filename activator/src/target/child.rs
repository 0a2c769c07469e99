//! The child that carries a session: its deadline and its last words.
//!
//! Reads and writes on its pipes have no deadline of their own, so a watchdog thread kills the child when the current one
//! passes; the blocked read then sees the end of the stream. What the child writes to standard error is kept from its end,
//! bounded. The child is killed when its session is dropped.
#![expect(clippy::disallowed_methods, reason = "this file owns the children that carry sessions")]

use std::ffi::OsString;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// How much of standard error is kept, in bytes: the end, where the reason stands.
const WORDS_BYTES_MAX: usize = 16 << 10;

/// How long a child may take to end after its streams did, and its standard error to run dry.
const DRAIN: Duration = Duration::from_millis(500);

/// A running child with a deadline.
#[derive(Debug)]
pub(super) struct Child {
    process: std::process::Child,
    pidfd: OwnedFd,
    watch: Arc<Watch>,
    words: Arc<Mutex<Vec<u8>>>,
    drained: Receiver<()>,
}

#[derive(Debug)]
struct Watch {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    deadline: Option<Instant>,
    expired: bool,
    closed: bool,
}

/// Both pipes of a child as streams.
pub(super) type Streams = (Box<dyn Read + Send>, Box<dyn io::Write + Send>);

/// Whether the terminal's interrupt reaches the child as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Group {
    /// It does.
    Shared,
    /// It does not; the child notices by the end of its input.
    Own,
}

impl Child {
    /// Starts `command` (program first) with pipes on all three streams.
    pub(super) fn start(command: &[OsString], group: Group) -> io::Result<(Self, Streams)> {
        let (program, arguments) = command.split_first().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        let mut builder = Command::new(program);
        builder.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        if group == Group::Own {
            builder.process_group(0);
        }
        let mut process = builder.spawn()?;
        let (Some(input), Some(output), Some(errors)) = (process.stdin.take(), process.stdout.take(), process.stderr.take()) else {
            unreachable!("all three streams were asked for as pipes");
        };
        let pidfd = pidfd_open(Pid::from_child(&process), PidfdFlags::empty())?;
        let watch = Arc::new(Watch { state: Mutex::default(), changed: Condvar::new() });
        let words = Arc::new(Mutex::new(Vec::new()));
        let (finished, drained) = channel();
        let (watched, killer) = (Arc::clone(&watch), pidfd.try_clone()?);
        std::thread::spawn(move || watched.run(&killer));
        let collected = Arc::clone(&words);
        std::thread::spawn(move || {
            collect(errors, &collected);
            // Nobody listens any more if the session is gone; that is no failure.
            let _ = finished.send(());
        });
        Ok((Self { process, pidfd, watch, words, drained }, (Box::new(output), Box::new(input))))
    }

    /// Kills the child at `deadline`, or never.
    pub(super) fn set_deadline(&self, deadline: Option<Instant>) {
        lock(&self.watch.state).deadline = deadline;
        self.watch.changed.notify_all();
    }

    /// Whether the child was killed for its deadline.
    pub(super) fn expired(&self) -> bool {
        lock(&self.watch.state).expired
    }

    /// Waits, briefly, for the end of a child whose streams have ended; kills it if it does not come.
    pub(super) fn end(&mut self) -> (Option<ExitStatus>, String) {
        let timeout = Timespec { tv_sec: 0, tv_nsec: i64::from(DRAIN.subsec_nanos()) };
        let _ = poll(&mut [PollFd::new(&self.pidfd, PollFlags::IN)], Some(&timeout));
        // A process that the child left behind (a shared ssh connection) may hold standard error open for long.
        let _ = self.drained.recv_timeout(DRAIN);
        let words = crate::process::clean(&lock(&self.words)).trim().to_owned();
        (self.process.try_wait().ok().flatten(), words)
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let mut state = lock(&self.watch.state);
        state.closed = true;
        drop(state);
        self.watch.changed.notify_all();
        // Its input was closed by now, so it ends by itself; ssh gets the time to say goodbye to its connection.
        let timeout = Timespec { tv_sec: 0, tv_nsec: i64::from(DRAIN.subsec_nanos()) };
        let _ = poll(&mut [PollFd::new(&self.pidfd, PollFlags::IN)], Some(&timeout));
        let _ = pidfd_send_signal(&self.pidfd, Signal::KILL);
        let _ = self.process.wait();
    }
}

impl Watch {
    fn run(&self, child: &OwnedFd) {
        let mut state = lock(&self.state);
        while !state.closed {
            state = match state.deadline {
                None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(deadline) if deadline <= Instant::now() => {
                    state.expired = true;
                    let _ = pidfd_send_signal(child.as_fd(), Signal::KILL);
                    return;
                }
                Some(deadline) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }
}

fn collect(mut stream: impl Read, words: &Mutex<Vec<u8>>) {
    let mut piece = [0; 4096];
    while let Ok(length @ 1..) = stream.read(&mut piece) {
        let mut words = lock(words);
        words.extend_from_slice(&piece[..length]);
        let excess = words.len().saturating_sub(WORDS_BYTES_MAX);
        words.drain(..excess);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

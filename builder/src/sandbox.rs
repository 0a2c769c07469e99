//! The sandbox: a script with nothing around it but what was declared.
//!
//! Own code on Linux namespaces, no helper program and no daemon; works as root and as any user. The program starts itself anew, twice:
//!
//! ```text
//! caller          run()    fills a socket with the specification, reads the log, keeps the time
//! └ __sandbox          unshares user, mount, pid, network, ipc, uts and cgroup namespaces, maps itself to user 1000
//!   └ __sandbox init   process 1: builds the root from nothing, drops every privilege, reports how it ended
//!     └ sh -eu /script
//! ```
//!
//! If the caller or any stage dies, the kernel kills everything below; a stage that starts after its parent's death sees that and ends.
//!
//! | limit     | by                                                     | what it cannot do                                       |
//! |-----------|--------------------------------------------------------|---------------------------------------------------------|
//! | time      | the caller's clock: the build's `timeout`, [`SILENCE`]  |                                                         |
//! | processes | `kernel.pid_max` of the pid namespace; `RLIMIT_NPROC`  | Linux before 6.14 has no limit for builds of real root  |
//! | memory    | /tmp and /dev/shm have sizes; the kernel's killer takes builds first | no limit for each build: cgroups are not used |
//! | files     | `RLIMIT_FSIZE`: [`FILE_BYTES_MAX`]                     | many files; what an object may hold is the store's limit |
//! | log       | the rest is read and dropped: [`LOG_BYTES_MAX`]        |                                                         |
//!
//! There is no fallback: without namespaces there is no build, and
//! the error says which setting of the machine stands in the way.

mod log;
mod mounts;
mod network;
mod privileges;
mod stages;
mod supervise;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub(crate) use log::copy as copy_log;
pub use supervise::run;

/// The version of what a build sees; part of every build's key. It changes whenever a build could notice a change of this module.
pub const SANDBOX_VERSION: u32 = 2;

/// The longest log that is kept, in bytes; what exceeds it is read and dropped. Compilers of large projects stay below it.
pub const LOG_BYTES_MAX: u64 = 16 << 20;

/// How long a build may say nothing. The slowest silent steps known, links of large programs with optimisation, stay below it; a build that waits
/// for something that never comes need not use up a `timeout` of many hours.
pub const SILENCE: Duration = Duration::from_hours(1);

/// How many processes and threads a build may have at once: make with a job for each of 256 processors, and room for what each of them starts.
pub const PROCESSES_MAX: u64 = 4096;

/// The largest file that a build may write, in bytes: disk images stay below it, and a run-away loop ends before a large disk is full.
pub const FILE_BYTES_MAX: u64 = 64 << 30;

/// How many last lines of a log are kept for the error message.
pub const LOG_TAIL_LINES: usize = 20;

/// The first argument that makes a program the sandbox: it calls [`enter`] then, before it does anything else.
pub const ENTRY_ARGUMENT: &str = "__sandbox";

/// What a build sees.
///
/// All paths are absolute. Paths "inside" are those that the script sees.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// The script, for `sh -eu`.
    pub script: String,
    /// The whole environment.
    pub environment: BTreeMap<String, String>,
    /// An empty directory over which the root is mounted; nothing is written to it.
    pub root: PathBuf,
    /// The directory that becomes `/build`, writable, the script's working directory.
    pub build: PathBuf,
    /// The directory of objects inside.
    pub store: PathBuf,
    /// Directories that are visible in the store, read-only: name inside, path outside.
    pub inputs: BTreeMap<String, PathBuf>,
    /// Directories that are visible in the store, writable: name inside, path outside.
    pub outputs: BTreeMap<String, PathBuf>,
}

/// How long a build may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// From its start to its end.
    pub wall: Duration,
    /// From one output to the next; usually [`SILENCE`].
    pub silence: Duration,
}

/// How a build ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ending {
    /// With this exit code; 0 is success.
    Exited(i32),
    /// By this signal.
    Signalled(i32),
    /// It was killed when its time was up, after this many seconds.
    TimedOut(u64),
    /// It was killed since it had printed nothing for this many seconds.
    Silent(u64),
}

impl std::fmt::Display for Ending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exited(code) => write!(f, "the script ended with exit code {code}"),
            // Nothing else of sarsen ends a script with this signal.
            Self::Signalled(9) => f.write_str("the script was killed by signal 9, probably since the machine had no memory left"),
            Self::Signalled(25) => {
                write!(f, "the script was killed by signal 25: it wrote a file of more than {} GiB", FILE_BYTES_MAX >> 30)
            }
            Self::Signalled(signal) => write!(f, "the script was killed by signal {signal}"),
            Self::TimedOut(seconds) => write!(f, "the script was killed after {seconds} s, the build's `timeout`"),
            Self::Silent(seconds) => {
                write!(f, "the script was killed after it had printed nothing for {seconds} s: let it print what it does")
            }
        }
    }
}

/// What is known after a build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// How it ended.
    pub ending: Ending,
    /// The last lines of its log, at most [`LOG_TAIL_LINES`], without control characters.
    pub tail: Vec<String>,
    /// Whether it is known that no process of the build is left, so that nobody holds a handle of a file that it made.
    pub is_gone: bool,
}

/// Why there was no build at all.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// The kernel refuses a step of the set-up.
    #[error("no sandbox possible: {operation}: {reason}{}", hint_note(hint.as_ref()))]
    Setup {
        /// What was tried.
        operation: String,
        /// What the kernel says.
        reason: String,
        /// Which setting of the machine is the cause, as far as it can be seen.
        hint: Option<String>,
    },
    /// The program that is to become the sandbox cannot be started or talked to.
    #[error("the sandbox `{}` cannot be started", program.display())]
    Start {
        /// The program.
        program: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It ended without a word: killed from outside, or the machine is out of memory.
    #[error("the sandbox ended before it reported anything: killed from outside, or out of memory")]
    Silent,
    /// The log cannot be written.
    #[error("the log `{}` cannot be written", path.display())]
    Log {
        /// The log.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

fn hint_note(hint: Option<&String>) -> String {
    hint.map(|hint| format!("; {hint}")).unwrap_or_default()
}

/// The program to start for the sandbox: this one, if its `main` calls [`enter`].
pub fn own_program() -> &'static Path {
    Path::new("/proc/self/exe")
}

/// Becomes the sandbox. A program calls this first thing in `main` when its first argument is [`ENTRY_ARGUMENT`], before any thread.
///
/// Input: the specification, on a socket that is standard input. The exit code means nothing to people.
pub fn enter() -> ExitCode {
    stages::enter()
}

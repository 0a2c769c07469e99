//! Targets: how the operator's side reaches a host.
//!
//! A [`Target`] opens sessions; a [`Session`] speaks [`crate::protocol`] over one byte stream. What carries the stream, a
//! child on this machine ([`Local`]) or the system's `ssh` ([`Ssh`]), is all that differs between targets. Nothing here
//! decides what to deploy, and nothing that a target says is believed beyond the bounds of the frames.

use std::io;
use std::time::Duration;

use sarsen_store::ObjectRef;
use sarsen_store::transfer::TransferError;
use sarsen_store::wire::WireError;

mod child;
mod local;
mod session;
mod ssh;

pub use local::Local;
pub use session::{Session, StageStats};
pub use ssh::{Binary, HostName, InvalidHostName, InvalidSshCommand, Ssh, SshCommand};

/// How a session may come about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freshness {
    /// Over whatever connection the user's configuration shares.
    Shared,
    /// Over a connection of its own: what proves that the host can still be reached.
    Fresh,
}

/// A host that sessions can be opened to.
pub trait Target: Send + Sync + std::fmt::Debug {
    /// The host's name, for people.
    fn name(&self) -> &str;

    /// Starts the activator on the host and waits for its greeting.
    ///
    /// Errors: [`TargetError`]; the wait is bounded.
    fn connect(&self, freshness: Freshness) -> Result<Session, TargetError>;
}

/// Why a target could not be spoken to.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// The child that carries the session could not be started.
    #[error("{host}: cannot start `{program}`")]
    Start {
        /// The host.
        host: String,
        /// The program.
        program: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// There was no connection.
    #[error("{host}: unreachable: {words}")]
    Unreachable {
        /// The host.
        host: String,
        /// What `ssh` said.
        words: String,
    },
    /// The host is of another architecture than the activator that we have.
    #[error("{host}: the machine is `{found}`, this sarsen has an activator for `{expected}` only")]
    Architecture {
        /// The host.
        host: String,
        /// What the host is.
        found: String,
        /// What we have.
        expected: &'static str,
    },
    /// No greeting came within the noise that a login shell may make.
    #[error("{host}: the activator did not answer: {words}")]
    NoGreeting {
        /// The host.
        host: String,
        /// The end of what came instead.
        words: String,
    },
    /// A wait was over.
    #[error("{host}: {waited_for} took longer than {seconds} s")]
    Deadline {
        /// The host.
        host: String,
        /// What was waited for.
        waited_for: &'static str,
        /// How long, in seconds.
        seconds: u64,
    },
    /// The session ended too early.
    #[error("{host}: the connection was lost during {waited_for}{words}")]
    Lost {
        /// The host.
        host: String,
        /// What was going on.
        waited_for: &'static str,
        /// What the other side said last, with a colon before it, or nothing.
        words: String,
        /// What the stream said, if it did not simply end.
        #[source]
        source: Option<WireError>,
    },
    /// The other side does not keep to the protocol.
    #[error("{host}: unexpected answer during {waited_for}: {found}")]
    Protocol {
        /// The host.
        host: String,
        /// What was going on.
        waited_for: &'static str,
        /// What came, shortened.
        found: String,
    },
    /// The other side speaks another version.
    #[error("{host}: the activator speaks version {found} of the protocol, this sarsen version {expected}")]
    Version {
        /// The host.
        host: String,
        /// Its version.
        found: u32,
        /// Our version.
        expected: u32,
    },
    /// The target refused, and nothing was changed.
    #[error("{host}: refused: {}", reasons.join("; "))]
    Refused {
        /// The host.
        host: String,
        /// Why.
        reasons: Vec<String>,
    },
    /// A closure could not be sent.
    #[error("{host}: cannot copy `{bundle}`")]
    Transfer {
        /// The host.
        host: String,
        /// The bundle.
        bundle: ObjectRef,
        /// The cause.
        #[source]
        source: Box<TransferError>,
    },
}

impl TargetError {
    /// An error with all its causes in one line, for reports.
    pub fn chain(&self) -> String {
        crate::error::describe(self)
    }
}

/// A root directory that may stand in a remote command line.
///
/// Shape: absolute, of `A-Za-z0-9._/-` only, no component `..`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteRoot(String);

/// A text that is not a usable root.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` cannot be the root of an installation: expected an absolute path of `A-Za-z0-9._/-` without `..`")]
pub struct InvalidRoot {
    text: String,
}

impl std::str::FromStr for RemoteRoot {
    type Err = InvalidRoot;

    fn from_str(text: &str) -> Result<Self, InvalidRoot> {
        let allowed = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'_' | b'/' | b'-');
        let trimmed = text.trim_end_matches('/');
        if trimmed.starts_with('/') && text.bytes().all(allowed) && text.split('/').all(|component| component != "..") {
            Ok(Self(trimmed.to_owned()))
        } else {
            Err(InvalidRoot { text: text.chars().take(200).collect() })
        }
    }
}

impl std::fmt::Display for RemoteRoot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// How long the other side may take to answer a question about its state.
pub const ANSWER_TIMEOUT: Duration = Duration::from_mins(1);

//! A host behind the system's `ssh`, with the user's configuration, keys, agent and jump hosts.
//!
//! One connection does it all: a fixed script looks for the activator by the digest of its binary, asks for the binary if it is
//! not there, lets it check itself against its name, and becomes it. Nothing that the user wrote stands in the script but
//! a validated root; the host's name is validated and stands behind `--`. Forwarding of any kind is off.

use std::ffi::OsString;
use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use sarsen_store::Digest;
use sarsen_store::fsutil::{self, FsError};

use super::child::{Child, Group};
use super::session::{Opening, Session};
use super::{Freshness, RemoteRoot, Target, TargetError};

/// The longest activator binary that is pushed, in bytes; a debug build has some 30 MiB.
const BINARY_BYTES_MAX: u64 = 256 << 20;

/// What a login may take beyond the connection itself.
const LOGIN_TIME: Duration = Duration::from_secs(20);

/// The options that every connection has. The user's configuration decides the rest, host keys included.
const OPTIONS: [&str; 9] = [
    "BatchMode=yes",
    "ServerAliveInterval=15",
    "ServerAliveCountMax=3",
    "EscapeChar=none",
    "ForwardAgent=no",
    "ForwardX11=no",
    "ClearAllForwardings=yes",
    "PermitLocalCommand=no",
    "RemoteCommand=none",
];

/// The options of a connection that proves something by being new.
const FRESH_OPTIONS: [&str; 2] = ["ControlMaster=no", "ControlPath=none"];

/// A name that may be given to `ssh`.
///
/// Shape: `[A-Za-z0-9][A-Za-z0-9._-]*` of at most 253 characters, optionally with `user@` before it, the user of
/// `[A-Za-z_][A-Za-z0-9._-]*`. No character of it means anything to a shell, and none starts an option.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostName(String);

/// A text that is not a host's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a host name: expected letters, digits, `.`, `_` and `-`, starting with a letter or digit")]
pub struct InvalidHostName {
    text: String,
}

impl FromStr for HostName {
    type Err = InvalidHostName;

    fn from_str(text: &str) -> Result<Self, InvalidHostName> {
        let inner = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'_' | b'-');
        let (user, host) = text.split_once('@').map_or((None, text), |(user, host)| (Some(user), host));
        let host_is_good = host.len() <= 253 && host.bytes().all(inner) && host.bytes().next().is_some_and(|c| c.is_ascii_alphanumeric());
        let user_is_good = user.is_none_or(|user| {
            user.len() <= 64 && user.bytes().all(inner) && user.bytes().next().is_some_and(|c| c.is_ascii_alphabetic() || c == b'_')
        });
        if host_is_good && user_is_good {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidHostName { text: text.chars().take(80).collect() })
        }
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The command that stands for `ssh`, split into words.
///
/// Shape: at least one word. Words are separated by blanks; single quotes, double quotes and backslash work as in a shell; nothing is expanded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SshCommand(Vec<String>);

/// A text that cannot be split into words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a command: {reason}")]
pub struct InvalidSshCommand {
    text: String,
    reason: &'static str,
}

impl SshCommand {
    /// The same command with further words.
    #[must_use]
    pub fn with(&self, words: impl IntoIterator<Item = String>) -> Self {
        Self(self.0.iter().cloned().chain(words).collect())
    }
}

impl Default for SshCommand {
    fn default() -> Self {
        Self(vec![String::from("ssh")])
    }
}

impl FromStr for SshCommand {
    type Err = InvalidSshCommand;

    fn from_str(text: &str) -> Result<Self, InvalidSshCommand> {
        let refuse = |reason| InvalidSshCommand { text: text.chars().take(200).collect(), reason };
        let mut words = Vec::new();
        let mut word: Option<String> = None;
        let mut quote = None;
        let mut characters = text.chars();
        while let Some(c) = characters.next() {
            match (quote, c) {
                (Some(open), c) if open == c => quote = None,
                (None, '\'' | '"') => {
                    quote = Some(c);
                    word.get_or_insert_default();
                }
                (None | Some('"'), '\\') => {
                    word.get_or_insert_default().push(characters.next().ok_or_else(|| refuse("it ends in a backslash"))?);
                }
                (None, c) if c.is_whitespace() => words.extend(word.take()),
                (_, c) => word.get_or_insert_default().push(c),
            }
        }
        if quote.is_some() {
            return Err(refuse("a quote is not closed"));
        }
        words.extend(word);
        if words.is_empty() { Err(refuse("it is empty")) } else { Ok(Self(words)) }
    }
}

/// The activator's binary as it is pushed to hosts: read once, shared by all of them.
#[derive(Clone)]
pub struct Binary {
    bytes: Arc<[u8]>,
    digest: Digest,
}

impl Binary {
    /// Reads the binary and computes its digest.
    ///
    /// Errors: [`FsError`], also if it is longer than any activator.
    pub fn read(path: &Path) -> Result<Self, FsError> {
        let bytes: Arc<[u8]> = fsutil::read_file_bounded(path, BINARY_BYTES_MAX)?.into();
        Ok(Self { digest: Digest::of(&bytes), bytes })
    }
}

impl fmt::Debug for Binary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Binary").field("digest", &self.digest).finish_non_exhaustive()
    }
}

/// A host that is reached by `ssh`.
#[derive(Debug, Clone)]
pub struct Ssh {
    /// The host's name in the environment, for people.
    pub host: String,
    /// What `ssh` connects to.
    pub address: HostName,
    /// The command that stands for `ssh`.
    pub command: SshCommand,
    /// The activator's binary.
    pub activator: Binary,
    /// The root of the installation on the host.
    pub root: RemoteRoot,
    /// How long connecting may take.
    pub timeout: Duration,
}

impl Ssh {
    fn command(&self, freshness: Freshness, script: &str) -> Vec<OsString> {
        let mut words: Vec<OsString> = self.command.0.iter().map(Into::into).collect();
        words.push("-T".into());
        let connect_timeout = format!("ConnectTimeout={}", self.timeout.as_secs().max(1));
        let fresh: &[&str] = if freshness == Freshness::Fresh { &FRESH_OPTIONS } else { &[] };
        for option in OPTIONS.iter().chain(fresh).copied().chain([connect_timeout.as_str()]) {
            words.extend(["-o".into(), option.into()]);
        }
        words.extend(["--".into(), self.address.to_string().into(), format!("exec sh -c '{script}'").into()]);
        words
    }
}

/// The script that becomes the activator; without single quotes, `!` and line ends, so that any login shell passes it on.
///
/// `install` checks the received binary against the digest and gives it its name durably; a half-received one does not run
/// or does not match, and goes with the script.
fn bootstrap(root: &RemoteRoot, digest: Digest, size: usize) -> String {
    let steps = [
        format!("r={root}; b=\"$r/bin/sarsen-activator-{digest}\""),
        String::from("if test -x \"$b\"; then :; else umask 022; mkdir -p \"$r/bin\" || exit 70"),
        String::from("t=$(mktemp \"$r/bin/.receive.XXXXXX\") || exit 70; trap \"rm -f $t\" EXIT"),
        String::from("printf \"\\nsarsen-need %s\\n\" \"$(uname -m)\""),
        format!("head -c {size} >\"$t\" || exit 70; chmod 0755 \"$t\""),
        format!("\"$t\" install --digest {digest} --root \"$r\" </dev/null || exit 70; rm -f \"$t\"; fi"),
        String::from("exec \"$b\" serve --root \"$r\""),
    ];
    steps.join("; ")
}

impl Target for Ssh {
    fn name(&self) -> &str {
        &self.host
    }

    fn connect(&self, freshness: Freshness) -> Result<Session, TargetError> {
        let Binary { bytes, digest } = &self.activator;
        let script = bootstrap(&self.root, *digest, bytes.len());
        let command = self.command(freshness, &script);
        let (child, streams) = Child::start(&command, Group::Shared).map_err(|source| TargetError::Start {
            host: self.host.clone(),
            program: self.command.0.join(" "),
            source,
        })?;
        Session::open(&self.host, streams, Some(child), &Opening { timeout: self.timeout + LOGIN_TIME, binary: Some(Arc::clone(bytes)) })
    }
}

#[cfg(test)]
mod tests;

//! Fetching Python wheels, and files by their digest: the only work of recipes that uses the network.
//!
//! The ecosystem's own client downloads them, with the user's environment and configuration (indexes, proxies, certificates); nothing of
//! the project's own code runs. `pip` checks the lock file's hashes, and so does this file: what enters the store is in the lock, and
//! everything in the lock is there. The lock alone decides the result, so it and the interpreter's platform are the key.
#![expect(clippy::disallowed_methods, reason = "owner of the processes of package managers")]

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use sarsen_store::fsutil::{self, FsError};
use sha2::Digest as _;

use crate::plan::PythonFetch;
use crate::sandbox;

/// How long a download may take: 2 GiB over 10 Mbit/s.
pub(crate) const DOWNLOAD_TIMEOUT: Duration = Duration::from_mins(30);

/// How long an interpreter may take to say what it is; a cold disk needs some seconds.
const DESCRIBE_TIMEOUT: Duration = Duration::from_mins(1);

/// The longest description of an interpreter, in bytes.
const DESCRIPTION_BYTES_MAX: u64 = 4096;

/// Asks for everything that decides which wheels fit.
const DESCRIBE: &str = "import platform, sys, sysconfig
print(sys.implementation.name, '%d.%d' % sys.version_info[:2], sysconfig.get_platform(), *platform.libc_ver())";

/// Why wheels were not fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// A line of the lock file that is not `name==version --hash=sha256:...`.
    #[error("the lock file's requirement `{line}` {reason}")]
    Lock {
        /// The line, joined with its continuations.
        line: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The interpreter cannot be run.
    #[error("the interpreter `{python}` cannot be run on this machine")]
    Interpreter {
        /// Its path.
        python: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The interpreter has no `pip`.
    #[error("`{python}` has no pip: install it on the build machine (Debian: apt install python3-pip)")]
    NoPip {
        /// The interpreter's path.
        python: String,
    },
    /// `pip download` failed.
    #[error("pip could not fetch the wheels: {ending}; log: {}{}", log.display(), indent(tail))]
    Client {
        /// How it ended.
        ending: String,
        /// The whole log.
        log: PathBuf,
        /// The last lines of the log.
        tail: Vec<String>,
    },
    /// A file that the lock does not name.
    #[error("pip fetched `{file}` with sha256 {digest}, which the lock file does not name")]
    Undeclared {
        /// The file's name.
        file: String,
        /// Its digest, in hexadecimal.
        digest: String,
    },
    /// A requirement without a file.
    #[error("pip fetched nothing for `{requirement}`")]
    Missing {
        /// The requirement.
        requirement: String,
    },
    /// `curl` is not there.
    #[error("there is no `curl` on this machine, and files are fetched with it: install it (Debian: apt install curl)")]
    NoCurl,
    /// No address gave the file.
    #[error("none of the addresses gave `{file}`; log: {}{attempts}", log.display())]
    Addresses {
        /// The file's name.
        file: String,
        /// What the client said.
        log: PathBuf,
        /// The addresses, each with what came of it, on lines of their own.
        attempts: String,
    },
    /// A file cannot be read or written.
    #[error(transparent)]
    File(#[from] FsError),
}

fn indent(lines: &[String]) -> String {
    lines.iter().fold(String::new(), |text, line| {
        text + "
    " + line
    })
}

/// One requirement of a lock file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Requirement {
    /// `name==version`; the name in lower case with `-` for `_` and `.`, without extras.
    pub(crate) pinned: String,
    /// The condition after `;`, empty if there is none.
    pub(crate) marker: String,
    /// Allowed sha256 digests, in hexadecimal.
    pub(crate) hashes: BTreeSet<String>,
}

/// Reads the requirements of a lock file, sorted. Comments and lines with options (`--index-url` and so on) do not count.
pub(crate) fn parse_lock(text: &str) -> Result<Vec<Requirement>, FetchError> {
    let joined = text.replace("\\\r\n", " ").replace("\\\n", " ");
    let lines = joined.lines().map(|line| without_comment(line).trim()).filter(|line| !line.is_empty() && !line.starts_with('-'));
    let mut requirements = lines.map(parse_requirement).collect::<Result<Vec<_>, _>>()?;
    requirements.sort();
    Ok(requirements)
}

fn without_comment(line: &str) -> &str {
    if line.trim_start().starts_with('#') { "" } else { line.split_once(" #").map_or(line, |(before, _)| before) }
}

fn parse_requirement(line: &str) -> Result<Requirement, FetchError> {
    let refuse = |reason| FetchError::Lock { line: line.chars().take(120).collect(), reason };
    let (requirement, options) = line.split_once("--").unwrap_or((line, ""));
    let (pinned, marker) = requirement.split_once(';').unwrap_or((requirement, ""));
    let (name, version) = pinned.split_once("==").ok_or_else(|| refuse("has no `==` with a version"))?;
    let name = name.split('[').next().unwrap_or(name).trim().to_ascii_lowercase().replace(['_', '.'], "-");
    let mut hashes = BTreeSet::new();
    for option in options.split_whitespace().map(|option| option.trim_start_matches("--")) {
        let digest = option.strip_prefix("hash=sha256:").ok_or_else(|| refuse("has an option other than `--hash=sha256:`"))?;
        if digest.len() != 64 || !digest.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(refuse("has a hash that is not 64 hexadecimal characters"));
        }
        hashes.insert(digest.to_ascii_lowercase());
    }
    if hashes.is_empty() {
        return Err(refuse("has no `--hash=sha256:`"));
    }
    Ok(Requirement { pinned: format!("{name}=={}", version.trim()), marker: marker.trim().to_owned(), hashes })
}

/// Asks an interpreter for implementation, version and platform, as one line.
pub(crate) fn describe_interpreter(python: &str) -> Result<String, FetchError> {
    let failed = |source| FetchError::Interpreter { python: python.to_owned(), source };
    let (reader, writer) = io::pipe().map_err(failed)?;
    let mut command = Command::new(python);
    command.args(["-I", "-c", DESCRIBE]).stdin(Stdio::null()).stdout(writer).stderr(Stdio::null());
    let read = move || {
        let mut text = String::new();
        reader.take(DESCRIPTION_BYTES_MAX).read_to_string(&mut text).map(|_| text)
    };
    let (ending, text) = run(command, DESCRIBE_TIMEOUT, read).map_err(failed)?;
    match ending {
        None => Ok(text.trim().to_owned()),
        Some(ending) => Err(failed(io::Error::other(ending))),
    }
}

/// Downloads the wheels into `directory`, which is empty; `scratch` takes the lock file, `log` what `pip` says.
pub(crate) fn download(wheels: &PythonFetch, directory: &Path, scratch: &Path, log: &Path) -> Result<(), FetchError> {
    let PythonFetch { lock, python } = wheels;
    let requirements = parse_lock(lock)?;
    let lock_file = scratch.join("requirements.txt");
    fsutil::write_new_file(&lock_file, lock.as_bytes(), 0o644)?;
    let file = File::options().write(true).create(true).truncate(true).open(log).map_err(|error| FsError::new("write", log, error))?;
    let failed = |source| FetchError::Interpreter { python: python.clone(), source };
    let (reader, writer) = io::pipe().map_err(failed)?;
    let mut command = Command::new(python);
    command.args(["-m", "pip", "download", "--no-deps", "--require-hashes", "--only-binary", ":all:"]);
    command.args(["--disable-pip-version-check", "--no-input", "--progress-bar", "off", "--requirement"]).arg(&lock_file);
    command.arg("--dest").arg(directory).stdin(Stdio::null()).stdout(writer.try_clone().map_err(failed)?).stderr(writer);
    let (ending, tail) = run(command, DOWNLOAD_TIMEOUT, move || sandbox::copy_log(reader, file)).map_err(failed)?;
    if tail.iter().any(|line| line.ends_with("No module named pip")) {
        return Err(FetchError::NoPip { python: python.clone() });
    }
    if let Some(ending) = ending {
        return Err(FetchError::Client { ending, log: log.to_owned(), tail });
    }
    check(&requirements, directory)
}

/// Requires that every file is in the lock and every requirement among the files.
fn check(requirements: &[Requirement], directory: &Path) -> Result<(), FetchError> {
    let at = |error| FsError::new("list", directory, error);
    let mut found = BTreeSet::new();
    for entry in std::fs::read_dir(directory).map_err(at)? {
        let path = entry.map_err(at)?.path();
        let digest = sha256(&path).map_err(|error| FsError::new("read", &path, error))?;
        if !requirements.iter().any(|requirement| requirement.hashes.contains(&digest)) {
            let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            return Err(FetchError::Undeclared { file, digest });
        }
        found.insert(digest);
    }
    // Whether a condition holds is for the client to say; without one there has to be a file.
    match requirements.iter().find(|requirement| requirement.marker.is_empty() && requirement.hashes.is_disjoint(&found)) {
        Some(missing) => Err(FetchError::Missing { requirement: missing.pinned.clone() }),
        None => Ok(()),
    }
}

fn sha256(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut hasher = sha2::Sha256::new();
    let mut buffer = vec![0; 64 << 10];
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            count => hasher.update(&buffer[..count]),
        }
    }
    Ok(format!("{:x}", hasher.finalize()))
}

/// Runs a command in a process group of its own while `read` consumes its output to the end.
///
/// Returns what was read, and how the command ended if that was not success.
pub(crate) fn run<T: Send>(
    mut command: Command,
    timeout: Duration,
    read: impl FnOnce() -> io::Result<T> + Send,
) -> io::Result<(Option<String>, T)> {
    let deadline = Instant::now() + timeout;
    let mut child = command.process_group(0).spawn()?;
    // The command holds the other end of the pipe.
    drop(command);
    let (done, finished) = mpsc::channel();
    std::thread::scope(|scope| {
        let reading = scope.spawn(move || {
            let result = read();
            let _ = done.send(());
            result
        });
        let late = finished.recv_timeout(deadline.saturating_duration_since(Instant::now())).is_err();
        if late {
            kill_group(&child);
        }
        let status = child.wait()?;
        let text = reading.join().unwrap_or_else(|_| Err(io::ErrorKind::Other.into()))?;
        let ending = match status.success() {
            _ if late => Some(format!("killed after {} s", timeout.as_secs())),
            true => None,
            false => Some(status.to_string()),
        };
        Ok((ending, text))
    })
}

fn kill_group(child: &Child) {
    let group = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw);
    if let Some(group) = group {
        // It may just have ended.
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
    }
}

mod url;

pub(crate) use url::download_file;

#[cfg(test)]
mod tests;

//! Fetching one file by its digest, with the user's own `curl`: proxies, certificates, `.netrc` and `.curlrc` work as they do by hand.
//!
//! The addresses are tried in order. Only the digest decides what is taken, so a mirror that gives something else is passed over like one
//! that does not answer; if none is left, the error says for each address what came of it.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use sarsen_store::fsutil::FsError;
use sha2::Digest as _;

use super::{DOWNLOAD_TIMEOUT, FetchError, run};
use crate::model::Fetch;

/// How long a connection may take to be made, in seconds: a mirror that drops packets must not hold up the next one.
const CONNECT_TIMEOUT_S: &str = "20";

/// Below so many bytes per second, for a minute, a mirror counts as stuck.
const SPEED_MIN: &str = "1024";

/// How long a transfer may stay below [`SPEED_MIN`], in seconds.
const SLOW_TIMEOUT_S: &str = "60";

/// How many redirections are followed: release pages need two or three.
const REDIRECTIONS_MAX: &str = "10";

/// How much of what `curl` says is shown, in bytes.
const MESSAGE_BYTES_MAX: u64 = 1000;

/// What computes a digest.
enum Hasher {
    Sha256(sha2::Sha256),
    Sha512(sha2::Sha512),
    Blake3(Box<blake3::Hasher>),
}

impl Hasher {
    /// For a digest that was checked at evaluation.
    fn like(digest: &str) -> Self {
        match digest.split(':').next() {
            Some("sha512") => Self::Sha512(sha2::Sha512::new()),
            Some("blake3") => Self::Blake3(Box::default()),
            _ => Self::Sha256(sha2::Sha256::new()),
        }
    }

    fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hasher) => hasher.update(bytes),
            Self::Sha512(hasher) => hasher.update(bytes),
            Self::Blake3(hasher) => {
                hasher.update(bytes);
            }
        }
    }

    fn finish(self) -> String {
        match self {
            Self::Sha256(hasher) => format!("sha256:{:x}", hasher.finalize()),
            Self::Sha512(hasher) => format!("sha512:{:x}", hasher.finalize()),
            Self::Blake3(hasher) => format!("blake3:{}", blake3::Hasher::finalize(&hasher).to_hex()),
        }
    }
}

/// Downloads the file to `path`, which does not exist; `log` takes what `curl` says.
pub(crate) fn download_file(wanted: &Fetch, path: &Path, log: &Path) -> Result<(), FetchError> {
    let deadline = Instant::now() + DOWNLOAD_TIMEOUT;
    let mut notes =
        File::options().read(true).write(true).create(true).truncate(true).open(log).map_err(|error| FsError::new("write", log, error))?;
    let mut attempts = String::new();
    for url in &wanted.urls {
        match attempt(wanted, url, path, &mut notes, deadline) {
            Ok(None) => return Ok(()),
            Ok(Some(refusal)) => {
                let _ = write!(attempts, "\n    {url}: {refusal}");
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(FetchError::NoCurl),
            Err(error) => return Err(FsError::new("write", path, error).into()),
        }
    }
    Err(FetchError::Addresses { file: wanted.file.clone(), log: log.to_owned(), attempts })
}

/// Tries one address; says why its answer is not the file.
fn attempt(wanted: &Fetch, url: &str, path: &Path, notes: &mut File, deadline: Instant) -> io::Result<Option<String>> {
    let said_before = notes.seek(io::SeekFrom::End(0))?;
    let (reader, writer) = io::pipe()?;
    let mut command = Command::new("curl");
    command.args(["--fail", "--silent", "--show-error", "--globoff", "--netrc-optional", "--location"]);
    command.args(["--proto", "=http,https", "--max-redirs", REDIRECTIONS_MAX, "--connect-timeout", CONNECT_TIMEOUT_S]);
    command.args(["--speed-limit", SPEED_MIN, "--speed-time", SLOW_TIMEOUT_S, "--output", "-", "--url", url]);
    command.stdin(Stdio::null()).stdout(writer).stderr(notes.try_clone()?);
    // Beside the store's objects, but not one of them yet: what an earlier address left is overwritten.
    let file = File::create(path)?;
    let (hasher, limit) = (Hasher::like(&wanted.digest), wanted.size_max);
    let timeout = deadline.saturating_duration_since(Instant::now());
    let (ending, received) = run(command, timeout, move || receive(reader, file, hasher, limit))?;
    let Some(found) = received else {
        return Ok(Some(format!("it is larger than {limit} bytes; if it should be, give `size_max = ...`")));
    };
    if let Some(ending) = ending {
        let mut said = Vec::new();
        notes.seek(io::SeekFrom::Start(said_before))?;
        (&*notes).take(MESSAGE_BYTES_MAX).read_to_end(&mut said)?;
        let said = String::from_utf8_lossy(&said).trim().to_owned();
        return Ok(Some(if said.is_empty() { format!("curl: {ending}") } else { said }));
    }
    Ok((found != wanted.digest).then(|| format!("it has {found}, not {}", wanted.digest)))
}

/// Writes what comes to a file and gives its digest, or nothing if it is too large.
fn receive(mut reader: impl Read, mut file: File, mut hasher: Hasher, limit: u64) -> io::Result<Option<String>> {
    let mut buffer = vec![0; 64 << 10];
    let mut total = 0;
    loop {
        let count = reader.read(&mut buffer)?;
        if count == 0 {
            return Ok(Some(hasher.finish()));
        }
        total += count as u64;
        if total > limit {
            return Ok(None);
        }
        hasher.update(&buffer[..count]);
        file.write_all(&buffer[..count])?;
    }
}

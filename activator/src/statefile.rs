//! Small versioned files of a profile: JSON with `version` first, replaced as a whole, read with a bound.

use std::io;
use std::path::Path;

use sarsen_store::fsutil;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::ActivateError;
use crate::layout;

/// The version of every file that this program writes into a profile, and the only one that it reads.
pub(crate) const STATE_VERSION: u32 = 1;

/// The longest file, in bytes: records hold a few names, a reason with the last lines of a log, and notes.
pub(crate) const STATE_BYTES_MAX: u64 = 1 << 20;

/// The longest text of one failure in such a file, in bytes: what every unit of a host printed last may be more than the file may hold.
pub(crate) const FAILURE_BYTES_MAX: usize = 64 << 10;

#[derive(Deserialize)]
struct VersionOnly {
    version: u64,
}

#[derive(Serialize, Deserialize)]
struct Versioned<T> {
    version: u32,
    #[serde(flatten)]
    content: T,
}

/// Reads a file; nothing if there is none. The version is looked at before anything else.
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, ActivateError> {
    let Some(text) = fsutil::read_file_if_exists(path, STATE_BYTES_MAX)? else { return Ok(None) };
    let damaged = |source| ActivateError::Damaged { path: path.to_owned(), source };
    let VersionOnly { version: found } = serde_json::from_slice(&text).map_err(damaged)?;
    if found != u64::from(STATE_VERSION) {
        return Err(ActivateError::Version { path: path.to_owned(), found, known: STATE_VERSION });
    }
    let Versioned { content, .. } = serde_json::from_slice(&text).map_err(damaged)?;
    Ok(Some(content))
}

/// Replaces a file durably.
pub(crate) fn write<T: Serialize>(path: &Path, content: &T) -> Result<(), ActivateError> {
    let mut text =
        serde_json::to_vec_pretty(&Versioned { version: STATE_VERSION, content }).expect("strings and integers always serialise");
    text.push(b'\n');
    Ok(fsutil::replace_file(path, &text, 0o644)?)
}

/// Removes a file or link durably; it is no error if there is none.
pub(crate) fn remove(path: &Path) -> Result<(), ActivateError> {
    fsutil::remove_file(path)?;
    Ok(fsutil::sync_dir(path.parent().unwrap_or(Path::new("/")))?)
}

/// Reads the target of a link; nothing if there is nothing at `path` or something that is no link.
pub(crate) fn read_link(path: &Path) -> Result<Option<String>, ActivateError> {
    match std::fs::read_link(path) {
        Ok(target) => Ok(Some(target.to_string_lossy().into_owned())),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidInput) => Ok(None),
        Err(source) => Err(ActivateError::Io { action: "read the link", path: path.to_owned(), source }),
    }
}

/// Reads a link to a generation, `current` or `good`; nothing if there is none.
pub(crate) fn read_generation_link(path: &Path) -> Result<Option<u64>, ActivateError> {
    let Some(target) = read_link(path)? else { return Ok(None) };
    match layout::parse_generation_target(&target) {
        Some(number) => Ok(Some(number)),
        None => Err(ActivateError::StrayLink { path: path.to_owned(), target }),
    }
}

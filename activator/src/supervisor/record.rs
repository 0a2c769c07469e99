//! `supervisor.json`: what should run, so that it runs again after a restart, and what does run, so that nothing is
//! forgotten when the supervisor is killed. Format 1.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use rustix::process::Signal;
use sarsen_store::fsutil::{self, FsError};
use sarsen_store::manifest::{MANIFEST_BYTES_MAX, Service};
use serde::{Deserialize, Serialize};

use crate::process::kill_group;

/// The only version that is read.
const VERSION: u32 = 1;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Record {
    version: u32,
    /// The services that are known, in their order.
    pub(super) services: Vec<Service>,
    /// The units that were asked to run, in the order of `services`.
    pub(super) wanted: Vec<String>,
    /// The process of each unit that runs.
    pub(super) processes: BTreeMap<String, ProcessId>,
}

/// A process that cannot be confused with a later one of the same number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ProcessId {
    pid: u32,
    /// When it was started, in clock ticks since boot.
    started: u64,
}

impl ProcessId {
    /// Identifies a process that runs.
    pub(super) fn of(pid: u32) -> Option<Self> {
        Some(Self { pid, started: read_start(pid)? })
    }
}

impl Default for Record {
    fn default() -> Self {
        Self { version: VERSION, services: Vec::new(), wanted: Vec::new(), processes: BTreeMap::new() }
    }
}

impl Record {
    /// Reads the record; an empty one if there is none yet.
    pub(super) fn load(path: &Path) -> io::Result<Self> {
        let Some(bytes) = fsutil::read_file_if_exists(path, MANIFEST_BYTES_MAX).map_err(|error| error.source)? else {
            return Ok(Self::default());
        };
        let record: Self = serde_json::from_slice(&bytes)?;
        if record.version != VERSION {
            return Err(io::Error::other(format!("`{}` has version {}, not {VERSION}", path.display(), record.version)));
        }
        Ok(record)
    }

    pub(super) fn store(&self, path: &Path) -> Result<(), FsError> {
        let bytes = serde_json::to_vec_pretty(self).expect("strings and integers always serialise");
        fsutil::replace_file(path, &bytes, 0o600)
    }

    /// Kills the processes that an earlier supervisor left behind, with their groups.
    pub(super) fn kill_leftovers(&self) {
        for process in self.processes.values().filter(|process| read_start(process.pid) == Some(process.started)) {
            kill_group(process.pid, Signal::KILL);
        }
    }
}

/// Reads when a process was started.
///
/// Source: proc(5), `/proc/pid/stat`, field 22; the name in parentheses may contain anything, so counting starts behind it.
fn read_start(pid: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = text.rsplit_once(')')?;
    rest.split_ascii_whitespace().nth(19)?.parse().ok()
}

//! Logs of services: what they print, in one file each, with the file before it.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use sarsen_store::fsutil;

use crate::process::{clean, last_lines};

/// The longest log, in bytes; then it becomes `<name>.log.1`, so twice as much is kept of each service.
const LOG_BYTES_MAX: u64 = 4 << 20;

/// How much of the end of a log is read for a report, in bytes.
const TAIL_BYTES: u64 = 16 << 10;

/// A log that grows to [`LOG_BYTES_MAX`].
#[derive(Debug)]
pub(super) struct Log {
    path: PathBuf,
    file: Option<File>,
    bytes: u64,
}

impl Log {
    /// Names a log; the file is made when there is something to write.
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, file: None, bytes: 0 }
    }

    /// Appends; what cannot be written is lost, because a full disk must not stop a service.
    pub(super) fn write(&mut self, bytes: &[u8]) {
        let _ = self.try_write(bytes);
    }

    /// Appends a line of the supervisor's own.
    pub(super) fn note(&mut self, line: &str) {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::Realtime).tv_sec;
        self.write(format!("[sarsen {time}] {line}\n").as_bytes());
    }

    fn try_write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.bytes >= LOG_BYTES_MAX && self.file.take().is_some() {
            fsutil::rename(&self.path, &self.path.with_extension("log.1")).map_err(|error| error.source)?;
        }
        if self.file.is_none() {
            let file = OpenOptions::new().append(true).create(true).mode(0o600).open(&self.path)?;
            self.bytes = file.metadata()?.len();
            self.file = Some(file);
        }
        if let Some(file) = &mut self.file {
            file.write_all(bytes)?;
            self.bytes += bytes.len() as u64;
        }
        Ok(())
    }
}

/// The last lines of a log; nothing if it cannot be read.
pub(super) fn read_tail(path: &Path, lines: usize) -> String {
    let read = || -> io::Result<Vec<u8>> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
        let mut bytes = Vec::new();
        file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    last_lines(&clean(&read().unwrap_or_default()), lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_one_earlier_log_and_reads_the_end() {
        let directory = tempfile::TempDir::new().unwrap();
        let path = directory.path().join("a.service.log");
        let mut log = Log::new(path.clone());
        let block = "x".repeat(1 << 20) + "\n";
        for _ in 0..9 {
            log.write(block.as_bytes());
        }
        log.write(b"one\ntwo\x1b[1m\n");
        assert_eq!(read_tail(&path, 2), "one\ntwo[1m");
        let bytes: u64 = [&path, &directory.path().join("a.service.log.1")].iter().map(|path| path.metadata().unwrap().len()).sum();
        assert!(bytes < 2 * LOG_BYTES_MAX + (2 << 20) && bytes > LOG_BYTES_MAX);
        assert_eq!(directory.path().read_dir().unwrap().count(), 2);
    }
}

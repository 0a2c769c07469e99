//! A build's log: into a file up to a limit, and the last lines for the error message.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Write};

use super::{LOG_BYTES_MAX, LOG_TAIL_LINES};

/// The longest line that is kept for the error message, in bytes; a terminal shows less.
const LINE_BYTES_MAX: usize = 500;

/// Copies `from` to its end and returns the last lines.
///
/// After [`LOG_BYTES_MAX`] bytes the file gets a last remark, and what follows is read, so that the writer does not stall, and dropped.
pub(crate) fn copy(mut from: impl Read, mut to: File) -> io::Result<Vec<String>> {
    let mut buffer = vec![0; 64 << 10];
    let mut room = LOG_BYTES_MAX;
    let mut tail = Tail::default();
    loop {
        let count = match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        tail.add(&buffer[..count]);
        let kept = usize::try_from(room).unwrap_or(count).min(count);
        to.write_all(&buffer[..kept])?;
        if kept < count && room > 0 {
            to.write_all(b"\n[the log is longer than 16 MiB; the rest is dropped]\n")?;
        }
        room -= kept as u64;
        if kept < count {
            room = 0;
        }
    }
    Ok(tail.finish())
}

/// Keeps the last lines of a stream.
#[derive(Default)]
struct Tail {
    lines: VecDeque<String>,
    open: Vec<u8>,
}

impl Tail {
    fn add(&mut self, bytes: &[u8]) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let room = LINE_BYTES_MAX.saturating_sub(self.open.len());
            self.open.extend_from_slice(&piece[..piece.len().min(room)]);
            if piece.ends_with(b"\n") {
                self.close();
            }
        }
    }

    fn close(&mut self) {
        let line = String::from_utf8_lossy(&self.open);
        // Control characters of a build must not reach the terminal of the one who reads the error.
        let line: String = line.trim_end().chars().map(|c| if c.is_control() && c != '\t' { '\u{fffd}' } else { c }).collect();
        self.open.clear();
        if self.lines.len() == LOG_TAIL_LINES {
            self.lines.pop_front();
        }
        self.lines.push_back(line);
    }

    fn finish(mut self) -> Vec<String> {
        if !self.open.is_empty() {
            self.close();
        }
        self.lines.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_kept_without_control_characters() {
        let mut tail = Tail::default();
        for number in 0..50 {
            tail.add(format!("line {number}").as_bytes());
            tail.add(b"\x1b[2J\n");
        }
        tail.add(b"open end");
        let lines = tail.finish();
        assert_eq!(lines.len(), LOG_TAIL_LINES);
        assert_eq!(lines[0], "line 31\u{fffd}[2J");
        assert_eq!(lines[19], "open end");
    }

    #[test]
    fn a_long_log_is_cut_and_read_to_its_end() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let log = io::repeat(b'x').take(LOG_BYTES_MAX + (1 << 20)).chain(&b"\nend\n"[..]);
        let tail = copy(log, file.reopen().unwrap()).unwrap();
        assert_eq!(tail.last().map(String::as_str), Some("end"));
        assert!(file.as_file().metadata().unwrap().len() < LOG_BYTES_MAX + 100);
    }
}

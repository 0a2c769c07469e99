//! How far long work is: one line that is written over on a terminal, a line now and then elsewhere.

use std::io::{self, IsTerminal, Write};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use sarsen_store::progress::Counters;

use crate::render::{bytes, count};

/// How often the line on a terminal is written: often enough to look alive.
const TERMINAL_INTERVAL: Duration = Duration::from_millis(200);

/// How often a log gets a line: rarely enough to be read.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// The line of one piece of work. It goes away with the value.
#[derive(Debug)]
pub(crate) struct Progress {
    what: &'static str,
    is_terminal: bool,
    shown: Option<Instant>,
}

impl Progress {
    /// The line of work of this name; nothing is shown yet.
    pub(crate) fn of(what: &'static str) -> Self {
        Self { what, is_terminal: io::stderr().is_terminal(), shown: None }
    }

    /// Shows on a terminal how far it is, unless that was done a moment ago.
    pub(crate) fn show(&mut self, state: impl FnOnce() -> String) {
        if self.is_terminal && self.shown.is_none_or(|shown| shown.elapsed() >= TERMINAL_INTERVAL) {
            self.shown = Some(Instant::now());
            write(&format!("\r\x1b[K{} {}", self.what, state()));
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.shown.is_some() {
            write("\r\x1b[K");
        }
    }
}

/// Does work that counts what it has done, and shows the counters meanwhile; work that is soon over shows nothing.
pub(crate) fn watch<T>(what: &'static str, counters: &Counters, work: impl FnOnce() -> T) -> T {
    let started = Instant::now();
    let (working, end) = channel::<()>();
    thread::scope(|scope| {
        scope.spawn(move || {
            let mut line = Progress::of(what);
            let interval = if line.is_terminal { TERMINAL_INTERVAL } else { LOG_INTERVAL };
            while end.recv_timeout(interval) == Err(RecvTimeoutError::Timeout) {
                let state = describe(counters, started.elapsed());
                if line.is_terminal {
                    line.show(|| state);
                } else {
                    write(&format!("{what} {state}\n"));
                }
            }
        });
        let result = work();
        drop(working);
        result
    })
}

/// Files, bytes and bytes a second, as far as they are counted.
fn describe(counters: &Counters, elapsed: Duration) -> String {
    let mut parts = Vec::new();
    if counters.files() > 0 {
        parts.push(count(usize::try_from(counters.files()).unwrap_or(usize::MAX), counters.noun()));
    }
    if counters.bytes() > 0 {
        let milliseconds = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX).max(1);
        let rate = u128::from(counters.bytes()) * 1000 / u128::from(milliseconds);
        parts.push(bytes(counters.bytes()));
        parts.push(format!("{}/s", bytes(u64::try_from(rate).unwrap_or(u64::MAX))));
    }
    if parts.is_empty() { String::from("...") } else { parts.join(", ") }
}

/// Whether anybody sees it is all the same.
fn write(text: &str) {
    let mut stream = io::stderr().lock();
    let _ = stream.write_all(text.as_bytes()).and_then(|()| stream.flush());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_is_shown_with_its_rate() {
        let counters = Counters::of("object");
        assert_eq!(describe(&counters, Duration::ZERO), "...");
        counters.add_file();
        assert_eq!(describe(&counters, Duration::ZERO), "1 object");
        counters.add_file();
        counters.add_bytes(30 << 20);
        assert_eq!(describe(&counters, Duration::from_secs(3)), "2 objects, 30 MiB, 10 MiB/s");
    }

    #[test]
    fn work_is_done_while_it_is_watched() {
        assert_eq!(watch("working", &Counters::new(), || 7), 7);
    }
}

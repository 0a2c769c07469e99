//! How far long work is: one line that is written over, on a terminal only.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

/// How often the line is written: often enough to look alive.
const INTERVAL: Duration = Duration::from_millis(200);

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

    /// Shows how far it is, unless that was done a moment ago.
    pub(crate) fn show(&mut self, state: impl FnOnce() -> String) {
        if self.is_terminal && self.shown.is_none_or(|shown| shown.elapsed() >= INTERVAL) {
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

/// Whether anybody sees it is all the same.
fn write(text: &str) {
    let mut stream = io::stderr().lock();
    let _ = stream.write_all(text.as_bytes()).and_then(|()| stream.flush());
}

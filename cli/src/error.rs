//! Errors as commands report them: what was wrong with all causes on one line, what to do on the next, and the exit code.

use std::error::Error;
use std::process::ExitCode;

use crate::context::say;

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    /// Done.
    Done = 0,
    /// It failed.
    Failed = 1,
    /// Wrong usage or a wrong definition.
    Usage = 2,
    /// A host refused before anything was changed.
    Refused = 3,
    /// Hosts went back to what ran before.
    RolledBack = 4,
    /// Going back failed on a host.
    RollbackFailed = 5,
    /// What became of a host is not known.
    Unknown = 6,
    /// Another deployment is under way.
    Locked = 7,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a command did not succeed.
#[derive(Debug)]
pub(crate) struct CommandError {
    exit: Exit,
    /// Text that stands before the message as it is, such as rendered diagnostics.
    before: String,
    message: String,
    hints: Vec<String>,
}

impl CommandError {
    /// An error with its message: lower case, no final period.
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, before: String::new(), message: message.into(), hints: Vec::new() }
    }

    /// An error of a library with all its causes.
    pub(crate) fn of(exit: Exit, error: &dyn Error) -> Self {
        Self::new(exit, chain(error))
    }

    /// The same with its cause.
    pub(crate) fn because(mut self, error: &dyn Error) -> Self {
        self.message = format!("{}: {}", self.message, chain(error));
        self
    }

    /// The same with something to do.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// The same with text that goes before it.
    pub(crate) fn after(mut self, text: String) -> Self {
        self.before = text;
        self
    }

    /// Tells people.
    pub(crate) fn report(self) -> Exit {
        let style = anstyle::Style::new().bold().fg_color(Some(anstyle::AnsiColor::Red.into()));
        let bold = anstyle::Style::new().bold();
        if !self.before.is_empty() {
            say(self.before.trim_end());
        }
        if !self.message.is_empty() {
            say(&format!("{style}error:{style:#} {}", self.message));
        }
        for hint in &self.hints {
            say(&format!("{bold}hint:{bold:#} {hint}"));
        }
        self.exit
    }
}

/// An error and its causes, joined by colons.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

//! What an activation did, so that undoing is computed and never guessed.
//!
//! One line of JSON per step, durable before the step begins: a step that stands here may have happened, fully, in part
//! or not at all; one that does not stand here has not. Undoing therefore has only steps that may be repeated.
//! A last line without its end was being written when the machine stopped, so its step had not begun.
//! The normative text is `LAYOUT.md`, section "Journal".

use sarsen_store::fsutil;
use serde::{Deserialize, Serialize};

use crate::error::ActivateError;
use crate::layout::ProfileLayout;
use crate::statefile::STATE_VERSION;

/// The longest journal, in bytes: a few lines with the names of all units and links.
const JOURNAL_BYTES_MAX: u64 = 16 << 20;

/// One step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Step {
    /// The first line.
    Begin {
        /// The version of the journal.
        version: u32,
        /// The trial's nonce: the journal of another trial is not read for this one.
        nonce: String,
    },
    /// Units were stopped, in this order.
    Stop {
        /// The units.
        units: Vec<String>,
    },
    /// `current` was switched.
    Switch {
        /// From this generation; from nothing if absent.
        from: Option<u64>,
        /// To this generation.
        to: u64,
    },
    /// The definitions of units were installed.
    Install,
    /// A managed path was changed.
    Link {
        /// The path.
        path: String,
        /// Where it led before; there was nothing if absent.
        former: Option<String>,
        /// Where it leads now; it was removed if absent.
        target: Option<String>,
    },
    /// Units were started, in this order.
    Start {
        /// The units.
        units: Vec<String>,
    },
    /// Units were told to read their configuration again.
    Reload {
        /// The units.
        units: Vec<String>,
    },
}

/// One step of going back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Undo {
    /// Stop units that the given-up generation started.
    Stop(Vec<String>),
    /// Lead a managed path where it led before, or remove it if it leads where the given-up generation led it.
    Link {
        /// The path.
        path: String,
        /// Where it led before.
        former: Option<String>,
        /// Where the given-up generation led it.
        target: Option<String>,
    },
    /// Make the generation current that was current before.
    Switch(Option<u64>),
    /// Install the previous generation's units in place of the given-up one's.
    Install,
    /// Let units read the previous configuration.
    Reload(Vec<String>),
    /// Start units that had been stopped.
    Start(Vec<String>),
}

/// Computes how to undo `steps`.
///
/// Shape: as the steps backwards, but definitions of units are installed after the switch, because they lead through
/// `current`, and units are told to reload and start after that.
pub fn plan_undo(steps: &[Step]) -> Vec<Undo> {
    let mut undo = Vec::new();
    let (mut install, mut reload, mut start) = (None, Vec::new(), Vec::new());
    for step in steps.iter().rev() {
        match step {
            Step::Begin { .. } => {}
            Step::Start { units } => undo.push(Undo::Stop(units.iter().rev().cloned().collect())),
            Step::Reload { units } => reload.push(Undo::Reload(units.clone())),
            Step::Link { path, former, target } => {
                undo.push(Undo::Link { path: path.clone(), former: former.clone(), target: target.clone() });
            }
            Step::Install => install = Some(Undo::Install),
            Step::Switch { from, .. } => undo.push(Undo::Switch(*from)),
            Step::Stop { units } => start.push(Undo::Start(units.iter().rev().cloned().collect())),
        }
    }
    undo.extend(install.into_iter().chain(reload).chain(start));
    undo
}

impl ProfileLayout {
    /// Begins the journal of a trial; what stood there belonged to a trial that is over.
    pub(crate) fn begin_journal(&self, nonce: &str) -> Result<(), ActivateError> {
        let line = render(&Step::Begin { version: STATE_VERSION, nonce: nonce.to_owned() });
        Ok(fsutil::replace_file(&self.journal(), line.as_bytes(), 0o644)?)
    }

    /// Writes a step down durably, before it is done.
    pub(crate) fn append_step(&self, step: &Step) -> Result<(), ActivateError> {
        Ok(fsutil::append_durable(&self.journal(), render(step).as_bytes(), 0o644)?)
    }

    /// The steps of the trial with this nonce; none if the journal is of another trial, which means that this one had not begun.
    pub(crate) fn read_journal(&self, nonce: &str) -> Result<Vec<Step>, ActivateError> {
        let text = fsutil::read_file_if_exists(&self.journal(), JOURNAL_BYTES_MAX)?.unwrap_or_default();
        let steps = parse(&text).map_err(|source| ActivateError::Damaged { path: self.journal(), source })?;
        match steps.first() {
            Some(Step::Begin { version, .. }) if *version != STATE_VERSION => {
                Err(ActivateError::Version { path: self.journal(), found: u64::from(*version), known: STATE_VERSION })
            }
            Some(Step::Begin { nonce: begun, .. }) if begun == nonce => Ok(steps),
            _ => Ok(Vec::new()),
        }
    }
}

fn render(step: &Step) -> String {
    let mut line = serde_json::to_string(step).expect("strings and integers always serialise");
    line.push('\n');
    line
}

fn parse(text: &[u8]) -> Result<Vec<Step>, serde_json::Error> {
    text.split_inclusive(|byte| *byte == b'\n').filter(|line| line.ends_with(b"\n")).map(serde_json::from_slice).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(units: &[&str]) -> Vec<String> {
        units.iter().map(|unit| (*unit).to_owned()).collect()
    }

    fn full() -> Vec<Step> {
        let link = |path: &str, former: Option<&str>, target: Option<&str>| Step::Link {
            path: path.to_owned(),
            former: former.map(str::to_owned),
            target: target.map(str::to_owned),
        };
        vec![
            Step::Begin { version: 1, nonce: "n".to_owned() },
            Step::Stop { units: names(&["b", "a"]) },
            Step::Switch { from: Some(1), to: 2 },
            Step::Install,
            link("/one", None, Some("/x")),
            link("/two", Some("/y"), None),
            Step::Start { units: names(&["a", "c"]) },
            Step::Reload { units: names(&["d"]) },
        ]
    }

    #[test]
    fn undoing_goes_backwards_with_the_definitions_after_the_switch() {
        let link = |path: &str, former: Option<&str>, target: Option<&str>| Undo::Link {
            path: path.to_owned(),
            former: former.map(str::to_owned),
            target: target.map(str::to_owned),
        };
        assert_eq!(
            plan_undo(&full()),
            [
                Undo::Stop(names(&["c", "a"])),
                link("/two", Some("/y"), None),
                link("/one", None, Some("/x")),
                Undo::Switch(Some(1)),
                Undo::Install,
                Undo::Reload(names(&["d"])),
                Undo::Start(names(&["a", "b"])),
            ]
        );
        assert_eq!(plan_undo(&full()[..2]), [Undo::Start(names(&["a", "b"]))]);
        assert_eq!(plan_undo(&full()[..1]), []);
    }

    #[test]
    fn a_torn_last_line_is_no_step_and_a_torn_other_line_is_damage() {
        let text: String = full().iter().map(render).collect();
        assert_eq!(parse(text.as_bytes()).unwrap(), full());
        assert_eq!(parse(&text.as_bytes()[..text.len() - 1]).unwrap(), full()[..7]);
        assert_eq!(parse(&text.as_bytes()[..text.len() - 5]).unwrap(), full()[..7]);
        assert!(parse(text.replacen("\"stop\"", "\"stxp\"", 1).as_bytes()).is_err());
    }
}

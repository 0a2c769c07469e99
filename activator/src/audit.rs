//! The audit log of a profile: one line for each trial that ended and each take-over, chained by digests.
//!
//! Every line holds the digest of the line before it, so a line that was changed or removed in the middle breaks the chain
//! from there on. It proves nothing against who can write the file and computes all digests anew; `history` tells the digest
//! of the last line, which whoever keeps it elsewhere can compare. The log decides nothing. The normative text is
//! `LAYOUT.md`, section "Audit log".

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::OFlags;
use sarsen_store::{Digest, ObjectRef, fsutil};
use serde::{Deserialize, Serialize};

use crate::activate::{Engine, describe_identity};
use crate::course::End;
use crate::error::{ActivateError, shorten};
use crate::layout::ProfileLayout;
use crate::pending::Pending;
use crate::statefile::STATE_VERSION;

/// The longest log that is read, in bytes: some hundred thousand lines.
const LOG_BYTES_MAX: u64 = 64 << 20;

/// The longest line, in bytes: texts in it are shortened to [`TEXT_BYTES_MAX`], and JSON escapes make of a byte six at most.
const LINE_BYTES_MAX: u64 = 64 << 10;

/// The longest reason or failure in a line, in bytes; the record of the generation holds all of it.
const TEXT_BYTES_MAX: usize = 2000;

/// What a line is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// A bundle became a new generation.
    #[default]
    Deploy,
    /// A generation that existed became current.
    Rollback,
    /// The current generation was put right.
    Repair,
    /// The profile was given to somebody else.
    TakeOver,
}

impl Action {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Deploy => "deploy",
            Self::Rollback => "rollback",
            Self::Repair => "repair",
            Self::TakeOver => "take-over",
        }
    }
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The version of the log.
    pub version: u32,
    /// The line's number, from 1.
    pub number: u64,
    /// The digest of the line before, with its line end; of no bytes for the first.
    pub chain: Digest,
    /// When, in seconds since 1970.
    pub time: u64,
    /// What was done.
    pub action: Action,
    /// Who did it, as `user@machine`.
    pub who: String,
    /// Why, in their words.
    pub message: Option<String>,
    /// The project's source revision.
    pub revision: Option<String>,
    /// Whether the source differed from that revision.
    pub dirty: bool,
    /// The generation that was tried.
    pub generation: Option<u64>,
    /// The generation before.
    pub previous: Option<u64>,
    /// The bundle of the generation that was tried.
    pub bundle: Option<ObjectRef>,
    /// The nonce of the trial.
    pub nonce: String,
    /// `committed`, `rolled-back`, `failed`, or `recorded` for what is no trial.
    pub result: String,
    /// Why it was given up, with what failed then; whom a profile was taken from.
    pub reason: Option<String>,
}

/// What a log holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// Its lines, oldest first, up to the first that is not what it should be.
    pub entries: Vec<Entry>,
    /// The digest of the last line.
    pub head: Digest,
    /// What is wrong with the log, if something is.
    pub problem: Option<String>,
}

impl Engine<'_> {
    /// Writes the end of a trial into the log, unless that was done by a process that died then.
    pub(crate) fn log_end(&self, pending: &Pending, end: &End) -> Result<(), ActivateError> {
        let (result, reason) = match end {
            End::NotBegun(_) => return Ok(()),
            End::Kept => ("committed", None),
            End::Back { reason, failure: None } => ("rolled-back", Some(reason.clone())),
            End::Back { reason, failure: Some(failure) } => ("failed", Some(format!("{reason}; going back failed: {failure}"))),
        };
        let revision = pending.revision.clone();
        self.profile.append_to_log(Entry {
            version: STATE_VERSION,
            number: 0,
            chain: Digest::of(b""),
            time: self.machine.moment().unix_seconds,
            action: pending.action,
            who: pending.who.clone(),
            message: pending.message.clone(),
            dirty: revision.as_ref().is_some_and(|revision| revision.ends_with("-dirty")),
            revision,
            generation: Some(pending.generation),
            previous: pending.previous,
            bundle: self.profile.read_bundle(pending.generation).ok(),
            nonce: pending.nonce.clone(),
            result: result.to_owned(),
            reason: reason.map(|reason| shorten(&reason, TEXT_BYTES_MAX)),
        })
    }
}

impl Engine<'_> {
    /// Gives the profile to whom the kept generation is for, if the trial was to take it over.
    pub(crate) fn take_over(&self, pending: &Pending) -> Result<(), ActivateError> {
        let Some(former) = &pending.taken_from else { return Ok(()) };
        if self.profile.read_identity()?.as_ref() != Some(former) {
            return Ok(());
        }
        let owner = self.profile.load_generation(pending.generation)?.manifest.identity;
        let reason = format!("taken from {} for {}", describe_identity(former), describe_identity(&owner));
        self.profile.append_to_log(Entry {
            version: STATE_VERSION,
            number: 0,
            chain: Digest::of(b""),
            time: self.machine.moment().unix_seconds,
            action: Action::TakeOver,
            who: pending.who.clone(),
            message: pending.message.clone(),
            revision: None,
            dirty: false,
            generation: None,
            previous: None,
            bundle: None,
            nonce: pending.nonce.clone(),
            result: "recorded".to_owned(),
            reason: Some(shorten(&reason, TEXT_BYTES_MAX)),
        })?;
        self.profile.write_identity(&owner)
    }
}

impl ProfileLayout {
    /// Appends a line durably; its number and chain are filled in. The caller holds the profile's lock.
    pub(crate) fn append_to_log(&self, mut entry: Entry) -> Result<(), ActivateError> {
        let path = self.audit_log();
        let failed = |action| {
            let path = path.clone();
            move |source| ActivateError::Io { action, path, source }
        };
        let is_new = !path.exists();
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o644).custom_flags(OFlags::NOFOLLOW.bits().cast_signed());
        let mut file = options.open(&path).map_err(failed("open"))?;
        let (end, last) = read_last(&mut file).map_err(failed("read"))?;
        let before = serde_json::from_slice::<Entry>(&last).ok();
        if let Some(before) = &before {
            entry.number = before.number;
            if (&before.nonce, &before.result, &before.reason) == (&entry.nonce, &entry.result, &entry.reason) {
                return Ok(());
            }
        }
        entry.number += 1;
        entry.chain = Digest::of(&last);
        let mut line = serde_json::to_vec(&entry).expect("strings and integers always serialise");
        line.push(b'\n');
        // What follows the last line end was being written when a machine stopped.
        file.set_len(end).map_err(failed("shorten"))?;
        file.seek(SeekFrom::Start(end)).and_then(|_| file.write_all(&line)).map_err(failed("append to"))?;
        file.sync_all().map_err(failed("sync"))?;
        if is_new { Ok(fsutil::sync_dir(self.directory())?) } else { Ok(()) }
    }

    /// Reads the log and looks whether its chain is whole. A log that is damaged is no error, but a finding.
    pub fn read_log(&self) -> Result<Log, ActivateError> {
        let text = fsutil::read_file_if_exists(&self.audit_log(), LOG_BYTES_MAX)?.unwrap_or_default();
        Ok(check_log(&text, &self.audit_log()))
    }
}

/// Where the last complete line ends, and that line with its line end.
fn read_last(file: &mut File) -> std::io::Result<(u64, Vec<u8>)> {
    let length = file.metadata()?.len();
    // A torn line may follow the last whole one.
    let begin = length.saturating_sub(2 * LINE_BYTES_MAX);
    file.seek(SeekFrom::Start(begin))?;
    let mut tail = Vec::new();
    file.take(2 * LINE_BYTES_MAX).read_to_end(&mut tail)?;
    let Some(end) = tail.iter().rposition(|byte| *byte == b'\n') else { return Ok((if begin == 0 { 0 } else { length }, Vec::new())) };
    tail.truncate(end + 1);
    let start = tail[..end].iter().rposition(|byte| *byte == b'\n').map_or(0, |position| position + 1);
    Ok((begin + u64::try_from(end + 1).unwrap_or(u64::MAX), tail.split_off(start)))
}

fn check_log(text: &[u8], path: &Path) -> Log {
    let mut log = Log { entries: Vec::new(), head: Digest::of(b""), problem: None };
    let mut last: &[u8] = b"";
    for line in text.split_inclusive(|byte| *byte == b'\n').filter(|line| line.ends_with(b"\n")) {
        let number = u64::try_from(log.entries.len()).unwrap_or(u64::MAX).saturating_add(1);
        let broken = |problem: &str| Some(format!("`{}` is not what was written: line {number} {problem}", path.display()));
        match serde_json::from_slice::<Entry>(line) {
            Ok(entry) if entry.version != STATE_VERSION => log.problem = broken("has another version"),
            Ok(entry) if entry.number != number => log.problem = broken("has another number"),
            Ok(entry) if entry.chain != Digest::of(last) => log.problem = broken("does not follow from the line before it"),
            Ok(entry) => log.entries.push(entry),
            Err(_) => log.problem = broken("is damaged"),
        }
        if log.problem.is_some() {
            break;
        }
        last = line;
    }
    log.head = Digest::of(last);
    log
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::Layout;

    fn profile(root: &Path) -> ProfileLayout {
        let profile = Layout::new(root).profile(&"shop".parse().unwrap());
        fsutil::create_dir_all(profile.directory(), 0o755).unwrap();
        profile
    }

    fn entry(nonce: &str) -> Entry {
        Entry {
            version: STATE_VERSION,
            number: 0,
            chain: Digest::of(b""),
            time: 7,
            action: Action::Deploy,
            who: "ann@desk".to_owned(),
            message: Some("a \"reason\"".to_owned()),
            revision: Some("abc-dirty".to_owned()),
            dirty: true,
            generation: Some(1),
            previous: None,
            bundle: None,
            nonce: nonce.to_owned(),
            result: "committed".to_owned(),
            reason: None,
        }
    }

    fn three(root: &Path) -> (ProfileLayout, String) {
        let profile = profile(root);
        for nonce in ["a", "b", "c"] {
            profile.append_to_log(entry(nonce)).unwrap();
        }
        let text = std::fs::read_to_string(profile.audit_log()).unwrap();
        (profile, text)
    }

    #[test]
    fn lines_follow_from_each_other_and_the_end_of_a_trial_is_written_once() {
        let directory = tempfile::tempdir().unwrap();
        let (profile, text) = three(directory.path());
        profile.append_to_log(entry("c")).unwrap();
        let log = profile.read_log().unwrap();
        assert_eq!((log.problem, log.entries.len()), (None, 3));
        assert_eq!(log.entries.iter().map(|entry| entry.number).collect::<Vec<_>>(), [1, 2, 3]);
        assert_eq!(log.head, Digest::of(text.lines().last().map(|line| format!("{line}\n")).unwrap().as_bytes()));
    }

    #[test]
    fn a_line_that_was_being_written_is_written_over() {
        let directory = tempfile::tempdir().unwrap();
        let (profile, text) = three(directory.path());
        let shortest = text.lines().take(2).map(|line| line.len() + 1).sum::<usize>();
        for cut in [shortest, shortest + 1, text.len() - 1] {
            fsutil::replace_file(&profile.audit_log(), &text.as_bytes()[..cut], 0o644).unwrap();
            assert_eq!(profile.read_log().unwrap().entries.len(), 2);
            profile.append_to_log(entry("d")).unwrap();
            let log = profile.read_log().unwrap();
            assert_eq!((log.problem, log.entries.len(), log.entries[2].nonce.as_str()), (None, 3, "d"));
        }
    }

    #[test]
    fn what_was_changed_or_removed_is_found() {
        let directory = tempfile::tempdir().unwrap();
        let (profile, text) = three(directory.path());
        let lines: Vec<&str> = text.split_inclusive('\n').collect();
        let cases = [
            (text.replacen("ann@desk", "bob@desk", 1), "line 2 does not follow from the line before it"),
            ([lines[0], lines[2]].concat(), "line 2 has another number"),
            ([lines[1], lines[2]].concat(), "line 1 has another number"),
            (text.replacen("\"number\":2", "\"number\":x", 1), "line 2 is damaged"),
            (text.replacen("\"version\":1", "\"version\":2", 1), "line 1 has another version"),
        ];
        for (text, problem) in cases {
            fsutil::replace_file(&profile.audit_log(), text.as_bytes(), 0o644).unwrap();
            let found = profile.read_log().unwrap().problem.unwrap();
            assert!(found.ends_with(problem), "{found}");
            // The log goes on, and the break stays visible.
            profile.append_to_log(entry("z")).unwrap();
            assert!(profile.read_log().unwrap().problem.is_some());
        }
    }
}

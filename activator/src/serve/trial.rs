//! Requests that begin a trial or decide over one.
//!
//! The trial's process is started here and told its task by the same frames that the operator sends; it answers by the same
//! frames too. Once it reported that it waits for its confirmation, nobody listens to it any more: the
//! decision reaches it through `pending.json`, and its end shows in the record and in the freed lock.
#![expect(
    clippy::disallowed_methods,
    reason = "the one process that must not be run by `process`: it outlives us, without a deadline of ours"
)]

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use sarsen_store::wire::{FrameReader, FrameWriter, WireError};

use super::{Connection, Session, SessionError};
use crate::clock::milliseconds;
use crate::error::{ActivateError, describe};
use crate::generation::{Record, TrialResult};
use crate::goback::Verification;
use crate::lock::{Attempt, Lock, find_holder};
use crate::pending::Decision;
use crate::protocol::{PROTOCOL_VERSION, REQUEST, RESPONSE, Request, Response};

/// The program that runs now, by a name that stays right when its file is replaced or removed.
const OWN_PROGRAM: &str = "/proc/self/exe";

/// How long a decided trial may take to end: hooks after a confirmation, or the whole way back.
const END_TIME: Duration = Duration::from_mins(15);

impl Session {
    /// Starts the trial's process and hands on what it reports, up to its answer.
    pub(super) fn run_trial<R: Read, W: Write>(
        &mut self,
        request: &Request,
        connection: &mut Connection<R, W>,
    ) -> Result<(), SessionError> {
        let response = match self.start_trial(request) {
            Ok(child) => self.listen(child, connection)?,
            Err(error) => Response::Failed { message: describe(&error) },
        };
        self.send_notes(connection)?;
        connection.send(&response)
    }

    fn start_trial(&self, request: &Request) -> Result<Child, ActivateError> {
        let failed = |source| ActivateError::Io { action: "start", path: OWN_PROGRAM.into(), source };
        let root = self.profile.layout().root().display().to_string();
        // Whoever runs it for us needs the file's own name. One that was removed meanwhile runs as our child.
        let program = std::fs::read_link(OWN_PROGRAM).ok().filter(|program| program.is_file()).map(|program| program.display().to_string());
        let arguments = |program: String| {
            let words = [program.as_str(), "activate", "--root", &root, "--profile", self.profile.name().as_str()];
            words.map(str::to_owned).to_vec()
        };
        let words = match program {
            Some(program) => self.machine().services().detach(arguments(program)),
            None => arguments(OWN_PROGRAM.to_owned()),
        };
        let mut child = Command::new(&words[0])
            .args(&words[1..])
            .current_dir(Path::new("/"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(failed)?;
        let hello = Request::Hello { version: PROTOCOL_VERSION, identity: self.identity.clone(), claim: self.claim };
        let told = match child.stdin.take() {
            Some(input) => tell(&mut FrameWriter::new(input), &[&hello, request]),
            None => Ok(()),
        };
        told.map_err(|error| ActivateError::Machine {
            message: format!("the activation could not be told its task: {}", describe(&error)),
        })?;
        Ok(child)
    }

    /// Hands events on until the final response, which it returns.
    fn listen<R: Read, W: Write>(&mut self, mut child: Child, connection: &mut Connection<R, W>) -> Result<Response, SessionError> {
        let Some(output) = child.stdout.take() else {
            return Ok(Response::Failed { message: "the activation cannot be listened to".to_owned() });
        };
        let mut reader = FrameReader::new(output);
        while let Ok(Some(frame)) = reader.read() {
            match serde_json::from_slice(&frame.payload) {
                Ok(event @ Response::Event { .. }) if frame.kind == RESPONSE => connection.send(&event)?,
                Ok(response) if frame.kind == RESPONSE => {
                    if !matches!(response, Response::OnTrial { .. }) {
                        self.reap(child);
                    }
                    return Ok(response);
                }
                _ => break,
            }
        }
        self.reap(child);
        let settled = self.with_engine(|engine| engine.settle_if_free(Verification::Now));
        Ok(match settled {
            Ok(Some(outcome)) => outcome,
            Ok(None) => Response::Failed { message: "the activation ended without a word before it changed anything".to_owned() },
            Err(error) => Response::Failed { message: format!("the activation ended without a word: {}", describe(&error)) },
        })
    }

    /// Waits for a trial's process that has said its last word, so that its lock is free when the operator hears of it.
    fn reap(&self, mut child: Child) {
        let deadline_ms = self.machine().moment().boottime_ms + milliseconds(END_TIME);
        while let Ok(None) = child.try_wait() {
            if self.machine().moment().boottime_ms >= deadline_ms {
                return;
            }
            self.machine().pause();
        }
    }

    pub(super) fn confirm(&mut self, nonce: &str) -> Result<Response, ActivateError> {
        match self.decide(|session| session.profile.confirm(nonce, &session.machine().moment()))? {
            Some(Decision::Committed(pending)) => {
                self.await_end()?;
                if let Some(record) = self.profile.read_record(pending.generation)? {
                    self.notes.extend(record.notes);
                }
                Ok(Response::Committed { generation: pending.generation })
            }
            Some(Decision::NotHealthyYet) => {
                Ok(Response::Failed { message: "the trial cannot be confirmed before it is healthy".to_owned() })
            }
            Some(Decision::GivenUp(..)) => {
                self.await_end()?;
                self.find_outcome(nonce)
            }
            Some(Decision::NoTrial) | None => self.find_outcome(nonce),
        }
    }

    pub(super) fn abort(&mut self, nonce: &str) -> Result<Response, ActivateError> {
        self.await_beginning()?;
        match self.decide(|session| session.profile.give_up(nonce, "the operator gave it up"))? {
            Some(Decision::Committed(pending)) => Ok(Response::Committed { generation: pending.generation }),
            Some(Decision::GivenUp(..) | Decision::NotHealthyYet) => {
                self.await_end()?;
                self.find_outcome(nonce)
            }
            Some(Decision::NoTrial) | None => self.find_outcome(nonce),
        }
    }

    /// Decides over a trial; nothing if the profile was never used, so that there is no file to decide by.
    fn decide(&self, decision: impl FnOnce(&Self) -> Result<Decision, ActivateError>) -> Result<Option<Decision>, ActivateError> {
        if self.profile.directory().is_dir() { decision(self).map(Some) } else { Ok(None) }
    }

    /// Waits while a trial may be about to begin: somebody holds the lock and has not written a trial down, as in hooks before the switch.
    ///
    /// Without this, a trial that nobody wants any more would begin after its operator was told that there is none.
    fn await_beginning(&self) -> Result<(), ActivateError> {
        let deadline_ms = self.machine().moment().boottime_ms + milliseconds(END_TIME);
        while self.profile.read_pending()?.is_none() && find_holder(&self.profile.lock()).is_some() {
            if self.machine().moment().boottime_ms >= deadline_ms {
                break;
            }
            self.machine().pause();
        }
        Ok(())
    }

    /// Waits until the trial's process has let go of the lock; what is left to do of a decided trial is done here.
    fn await_end(&mut self) -> Result<(), ActivateError> {
        let deadline_ms = self.machine().moment().boottime_ms + milliseconds(END_TIME);
        loop {
            match Lock::attempt(&self.profile.lock())? {
                Attempt::Held(_lock) => return self.with_engine(|engine| engine.settle(Verification::Now)).map(drop),
                Attempt::Busy(holder) if self.machine().moment().boottime_ms >= deadline_ms => {
                    return Err(ActivateError::Machine {
                        message: format!("the trial has not ended within {} s: {holder}", END_TIME.as_secs()),
                    });
                }
                Attempt::Busy(_) => self.machine().pause(),
            }
        }
    }

    /// What became of the trial with this nonce, by the record.
    fn find_outcome(&self, nonce: &str) -> Result<Response, ActivateError> {
        let Some(Record { number, result, reason, failure, .. }) = self.profile.find_trial(nonce)? else {
            return Ok(Response::Failed {
                message: "no trial with this nonce is known here: nothing was confirmed or given up".to_owned(),
            });
        };
        let reason = reason.unwrap_or_default();
        Ok(match result {
            TrialResult::Committed => Response::Committed { generation: number },
            TrialResult::RolledBack => Response::RolledBack { generation: self.profile.read_current()?, reason },
            TrialResult::Failed => Response::RollbackFailed { reason, failure: failure.unwrap_or_default() },
            TrialResult::Pending => Response::Failed { message: format!("the trial of generation {number} has not ended") },
        })
    }
}

fn tell<W: Write>(writer: &mut FrameWriter<W>, requests: &[&Request]) -> Result<(), WireError> {
    for request in requests {
        writer.write(REQUEST, &serde_json::to_vec(request).expect("strings and integers always serialise"))?;
    }
    writer.flush()
}

//! The target's side of a session: reads requests, answers them, and holds no state that matters.
//!
//! Nothing here decides over a trial but by the two decisions of [`crate::pending`]. An activation runs in a process of its own,
//! in a session of its own, so that it outlives this one; this side only hands on what it reports. A session
//! that finds a trial left behind by the dead settles it before it answers anything.

mod answer;
mod trial;

use std::collections::VecDeque;
use std::io::{Read, Write};

use sarsen_store::gc::Retention;
use sarsen_store::manifest::Identity;
use sarsen_store::wire::{FrameReader, FrameWriter, WireError};
use sarsen_store::{Durable, ObjectRef, ObjectStore, transfer};

use crate::activate::{Engine, describe_identity};
use crate::clock;
use crate::error::{ActivateError, describe};
use crate::goback::Verification;
use crate::layout::{Layout, ProfileLayout, ProfileName};
use crate::machine::{Host, Machine};
use crate::protocol::{Claim, GREETING, PROTOCOL_VERSION, REQUEST, RESPONSE, Request, Response};
use crate::retention::{self, CollectError, Collected};

/// A session that ended otherwise than by the operator's closing it.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The stream broke, or was not cut into frames.
    #[error("the session broke")]
    Wire(#[from] WireError),
    /// The operator said something else than a request.
    #[error("the operator sent a message of kind {kind:#04x} where a request was due")]
    Kind {
        /// The kind of the frame.
        kind: u8,
    },
    /// The greeting could not be written.
    #[error("cannot greet the operator")]
    Greeting(#[source] std::io::Error),
    /// The session had to be ended; the operator was told why.
    #[error("{message}")]
    Ended {
        /// Why.
        message: String,
    },
}

/// Serves one operator until the input ends.
///
/// Errors: [`SessionError`]; whatever could be said to the operator has been said.
pub fn serve(layout: &Layout, input: impl Read, mut output: impl Write) -> Result<(), SessionError> {
    output.write_all(GREETING).and_then(|()| output.flush()).map_err(SessionError::Greeting)?;
    let mut connection = Connection { reader: FrameReader::new(input), writer: FrameWriter::new(output) };
    let Some(mut session) = open(layout, &mut connection)? else { return Ok(()) };
    while let Some(request) = connection.read_request()? {
        session.handle(&request, &mut connection)?;
    }
    Ok(())
}

/// Both directions of a session.
struct Connection<R: Read, W: Write> {
    reader: FrameReader<R>,
    writer: FrameWriter<W>,
}

impl<R: Read, W: Write> Connection<R, W> {
    /// Reads the next request; nothing at the end. One that is not understood is answered and skipped.
    fn read_request(&mut self) -> Result<Option<Request>, SessionError> {
        loop {
            let Some(frame) = self.reader.read()? else { return Ok(None) };
            if frame.kind != REQUEST {
                let message = format!("a message of kind {:#04x} is no request", frame.kind);
                self.send(&Response::Failed { message })?;
                return Err(SessionError::Kind { kind: frame.kind });
            }
            match serde_json::from_slice(&frame.payload) {
                Ok(request) => return Ok(Some(request)),
                Err(error) => self.send(&Response::Failed { message: format!("the request is not understood: {error}") })?,
            }
        }
    }

    fn send(&mut self, response: &Response) -> Result<(), SessionError> {
        let payload = serde_json::to_vec(response).expect("strings and integers always serialise");
        self.writer.write(RESPONSE, &payload)?;
        Ok(self.writer.flush()?)
    }

    fn send_event(&mut self, message: &str) -> Result<(), SessionError> {
        self.send(&Response::Event { message: message.to_owned() })
    }

    /// Says why the session cannot go on.
    fn end<T>(&mut self, message: String) -> Result<T, SessionError> {
        self.send(&Response::Failed { message: message.clone() })?;
        Err(SessionError::Ended { message })
    }
}

/// One operator who means one profile.
struct Session {
    identity: Identity,
    claim: Claim,
    profile: ProfileLayout,
    host: Host,
    /// What was noticed and can be said with the next request that takes events.
    notes: VecDeque<String>,
    /// What was staged: kept from the collector until a generation refers to it.
    staged: Vec<Durable>,
}

/// Reads and answers the opening of a session; nothing if there is none.
fn open<R: Read, W: Write>(layout: &Layout, connection: &mut Connection<R, W>) -> Result<Option<Session>, SessionError> {
    let (identity, claim) = match connection.read_request()? {
        Some(Request::Hello { version: PROTOCOL_VERSION, identity, claim }) => (identity, claim),
        Some(Request::Hello { version, .. }) => {
            return connection
                .end(format!("the operator speaks version {version} of the protocol, this sarsen-activator version {PROTOCOL_VERSION}"));
        }
        Some(_) => return connection.end("a session begins with `hello`".to_owned()),
        None => return Ok(None),
    };
    let name: ProfileName = match identity.profile.parse() {
        Ok(name) => name,
        Err(error) => return connection.end(describe(&error)),
    };
    let profile = layout.profile(&name);
    let host = Host::detect(&profile);
    let mut session = Session { identity, claim, profile, host, notes: VecDeque::new(), staged: Vec::new() };
    let opened = session.settle().and_then(|()| session.find_facts());
    match opened {
        Ok(facts) => connection.send(&Response::Hello { version: PROTOCOL_VERSION, facts })?,
        Err(error) => return connection.end(describe(&error)),
    }
    Ok(Some(session))
}

impl Session {
    /// Does something with the engine; what it reports on the way becomes notes.
    fn with_engine<T>(&mut self, action: impl FnOnce(&Engine<'_>) -> T) -> T {
        let notes = std::cell::RefCell::new(Vec::new());
        let report = |response| {
            if let Response::Event { message } = response {
                notes.borrow_mut().push(message);
            }
        };
        let result = action(&Engine { profile: &self.profile, machine: &self.host, report: &report });
        self.notes.extend(notes.into_inner());
        result
    }

    fn settle(&mut self) -> Result<(), ActivateError> {
        self.with_engine(|engine| engine.settle_if_free(Verification::Now)).map(drop)
    }

    fn handle<R: Read, W: Write>(&mut self, request: &Request, connection: &mut Connection<R, W>) -> Result<(), SessionError> {
        if let Some(response) = self.refuse_foreign() {
            return connection.send(&response);
        }
        if matches!(request, Request::Activate(_) | Request::Rollback { .. } | Request::Confirm { .. } | Request::Abort { .. }) {
            self.send_notes(connection)?;
        }
        let answered = match request {
            Request::Hello { .. } => return connection.end("the session has begun already".to_owned()),
            Request::Status => self.find_status().map(Response::Status),
            Request::History { limit } => self.find_history(*limit),
            Request::Compare { bundle, manifest, units, retention } => self.compare(bundle, manifest, units, *retention),
            Request::Collect { retention } => return self.collect(*retention, connection),
            Request::Stage { bundle } => return self.stage(bundle, connection),
            Request::Activate(_) | Request::Rollback { .. } => return self.run_trial(request, connection),
            Request::Confirm { nonce } => self.confirm(nonce),
            Request::Abort { nonce } => self.abort(nonce),
        };
        self.send_notes(connection)?;
        let response = answered.unwrap_or_else(|error| Response::Failed { message: describe(&error) });
        connection.send(&response)
    }

    /// The answer to everything if the profile belongs to somebody else.
    fn refuse_foreign(&self) -> Option<Response> {
        match self.profile.read_identity() {
            Ok(Some(owner)) if owner != self.identity && self.claim == Claim::OwnOnly => {
                let (owner, meant) = (describe_identity(&owner), describe_identity(&self.identity));
                Some(Response::Refused {
                    reasons: vec![format!(
                        "this profile belongs to {owner}, the deployment is for {meant}; environments that share a machine need a `profile = \"...\"` each, and `deploy --take-over` takes this one"
                    )],
                })
            }
            Ok(_) => None,
            Err(error) => Some(Response::Failed { message: describe(&error) }),
        }
    }

    fn send_notes<R: Read, W: Write>(&mut self, connection: &mut Connection<R, W>) -> Result<(), SessionError> {
        while let Some(note) = self.notes.pop_front() {
            connection.send_event(&note)?;
        }
        Ok(())
    }

    fn stage<R: Read, W: Write>(&mut self, bundle: &ObjectRef, connection: &mut Connection<R, W>) -> Result<(), SessionError> {
        let store = match ObjectStore::open(self.profile.layout().root()) {
            Ok(store) => store,
            Err(error) => return connection.send(&Response::Failed { message: describe(&error) }),
        };
        connection.send(&Response::Ready)?;
        match transfer::receive_closure(&store, &mut connection.reader, &mut connection.writer) {
            Ok((roots, stats)) if roots.iter().any(|durable| durable.objects().contains(bundle)) => {
                self.staged = roots;
                connection.send(&Response::Staged { objects: stats.objects_sent, bytes: stats.bytes_raw })
            }
            Ok(_) => connection.end(format!("bundle `{bundle}` was announced, and others were sent")),
            // The place in the stream is lost.
            Err(error) => connection.end(describe(&error)),
        }
    }

    fn collect<R: Read, W: Write>(&mut self, policy: Retention, connection: &mut Connection<R, W>) -> Result<(), SessionError> {
        let store = match ObjectStore::open(self.profile.layout().root()) {
            Ok(store) => store,
            Err(error) => return connection.send(&Response::Failed { message: describe(&error) }),
        };
        // What this session staged is the generation's by now, or nobody's.
        self.staged.clear();
        connection.send(&match retention::collect(&self.profile, &store, policy, clock::now()) {
            Ok(Collected { generations, report }) => Response::Collected { generations, objects: report.objects, bytes: report.bytes },
            Err(CollectError::Locked { holder }) => Response::Locked { holder },
            Err(error) => Response::Failed { message: describe(&error) },
        })
    }

    /// The machine, for the parts of a session in other files.
    fn machine(&self) -> &dyn Machine {
        &self.host
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lock::{Attempt, Lock};
    use crate::pending::{Pending, Phase};

    /// Serves `frames` on an empty root; returns what was answered, and how the session ended.
    fn talk(frames: &[(u8, &str)]) -> (Vec<Response>, Result<(), SessionError>) {
        talk_in(tempfile::tempdir().unwrap().path(), frames)
    }

    fn talk_in(root: &std::path::Path, frames: &[(u8, &str)]) -> (Vec<Response>, Result<(), SessionError>) {
        let (mut input, mut output) = (Vec::new(), Vec::new());
        let mut writer = FrameWriter::new(&mut input);
        for (kind, text) in frames {
            writer.write(*kind, text.as_bytes()).unwrap();
        }
        writer.flush().unwrap();
        drop(writer);
        let ended = serve(&Layout::new(root), input.as_slice(), &mut output);
        let mut reader = FrameReader::new(output.strip_prefix(GREETING).expect("the greeting comes first"));
        let mut answers = Vec::new();
        while let Some(frame) = reader.read().unwrap() {
            answers.push(serde_json::from_slice(&frame.payload).unwrap());
        }
        (answers, ended)
    }

    fn hello(version: u32, profile: &str) -> String {
        let identity = format!(r#"{{"project":"p","environment":"e","host":"h","profile":"{profile}"}}"#);
        format!(r#"{{"request":"hello","version":{version},"identity":{identity}}}"#)
    }

    #[track_caller]
    fn check_refused(frames: &[(u8, &str)], expected: &str) {
        let (answers, ended) = talk(frames);
        assert!(matches!(answers.last(), Some(Response::Failed { message }) if message.contains(expected)), "{answers:?}");
        assert!(ended.is_err());
    }

    #[test]
    fn a_session_that_does_not_begin_well_is_ended_in_words() {
        check_refused(&[(REQUEST, r#"{"request":"status"}"#)], "begins with `hello`");
        check_refused(&[(REQUEST, &hello(2, "shop"))], "version 2 of the protocol, this sarsen-activator version 1");
        check_refused(&[(REQUEST, &hello(1, "../etc"))], "`../etc` cannot name a profile");
        check_refused(&[(0, "")], "kind 0x00 is no request");
        check_refused(&[(REQUEST, &hello(1, "shop")), (REQUEST, &hello(1, "shop"))], "has begun already");
    }

    #[test]
    fn what_is_not_understood_is_answered_and_the_session_goes_on() {
        let deep = "[".repeat(100_000);
        let hello = hello(1, "shop");
        let frames = ["", "{", "\u{0}", &deep, r#"{"request":"history"}"#, r#"{"request":"history","limit":5}"#];
        let frames: Vec<_> = std::iter::once(hello.as_str()).chain(frames).map(|text| (REQUEST, text)).collect();
        let (answers, ended) = talk(&frames);
        assert!(ended.is_ok());
        assert!(matches!(&answers[0], Response::Hello { version: 1, facts } if facts.current.is_none() && facts.identity.is_none()));
        assert!(answers[1..6].iter().all(|answer| matches!(answer, Response::Failed { .. })), "{answers:?}");
        assert!(
            matches!(&answers[6..], [Response::History { generations, damaged, log, log_problem: None, .. }] if generations.is_empty() && damaged.is_empty() && log.is_empty())
        );
    }

    #[test]
    fn a_trial_that_has_not_begun_is_given_up_as_soon_as_it_does() {
        let directory = tempfile::tempdir().unwrap();
        let profile = Layout::new(directory.path()).profile(&"shop".parse().unwrap());
        sarsen_store::fsutil::create_dir_all(&profile.generations(), 0o755).unwrap();
        let Attempt::Held(lock) = Lock::attempt(&profile.lock()).unwrap() else { panic!("a fresh lock is free") };
        let (begun, nonce) = (profile.clone(), "0".repeat(32));
        let phase = Phase::Activating { deadline_boottime_ms: u64::MAX };
        let who = "ann@desk".to_owned();
        let pending = Pending {
            generation: 1,
            previous: None,
            nonce: nonce.clone(),
            boot_id: crate::clock::boot_id(),
            who,
            message: None,
            revision: None,
            action: crate::audit::Action::Deploy,
            taken_from: None,
            phase,
        };
        let trial = std::thread::spawn(move || {
            // Its hooks before the switch take their time.
            crate::clock::pause(std::time::Duration::from_millis(300));
            begun.write_pending(&pending).unwrap();
            let end = crate::clock::boottime() + std::time::Duration::from_secs(20);
            while crate::clock::boottime() < end && !matches!(begun.read_pending().unwrap().unwrap().phase, Phase::GivenUp { .. }) {
                crate::clock::pause(std::time::Duration::from_millis(10));
            }
            drop(lock);
        });
        let abort = format!(r#"{{"request":"abort","nonce":"{nonce}"}}"#);
        talk_in(directory.path(), &[(REQUEST, &hello(1, "shop")), (REQUEST, &abort)]).1.unwrap();
        assert_eq!(profile.read_pending().unwrap(), None, "it was given up, and settled");
        trial.join().unwrap();
    }

    #[test]
    fn a_damaged_record_hides_no_other() {
        let directory = tempfile::tempdir().unwrap();
        let profile = Layout::new(directory.path()).profile(&"shop".parse().unwrap());
        sarsen_store::fsutil::create_dir_all(&profile.generations(), 0o755).unwrap();
        for number in 1..=3 {
            let bundle = format!("../../../store/{}-bundle", "a".repeat(32));
            sarsen_store::fsutil::replace_symlink(&profile.generation(number), bundle.as_ref()).unwrap();
            let record = format!(
                r#"{{"version":1,"number":{number},"bundle":"{}-bundle","previous":null,"created":1,"who":"a@b","revision":null,"nonce":"0","result":"committed","reason":null,"failure":null,"notes":[]}}"#,
                "a".repeat(32)
            );
            sarsen_store::fsutil::replace_file(&profile.record(number), record.as_bytes(), 0o644).unwrap();
        }
        sarsen_store::fsutil::replace_file(&profile.record(2), b"{\"version\":1,", 0o644).unwrap();
        sarsen_store::fsutil::replace_file(&profile.audit_log(), b"nonsense\n", 0o644).unwrap();
        let (answers, ended) = talk_in(directory.path(), &[(REQUEST, &hello(1, "shop")), (REQUEST, r#"{"request":"history","limit":9}"#)]);
        ended.unwrap();
        let [_, Response::History { generations, damaged, log_problem: Some(problem), .. }] = answers.as_slice() else {
            panic!("{answers:?}")
        };
        assert_eq!(generations.iter().map(|info| info.number).collect::<Vec<_>>(), [3, 1]);
        assert!(damaged[0].number == 2 && damaged[0].problem.contains("2.json` is damaged"), "{damaged:?}");
        assert!(problem.ends_with("line 1 is damaged"), "{problem}");
    }

    #[test]
    fn a_decision_over_a_trial_that_never_was_changes_nothing() {
        let nonce = r#"{"request":"confirm","nonce":"00"}"#;
        let (answers, _) = talk(&[(REQUEST, &hello(1, "shop")), (REQUEST, nonce), (REQUEST, &nonce.replace("confirm", "abort"))]);
        for answer in &answers[1..] {
            assert!(matches!(answer, Response::Failed { message } if message.contains("no trial with this nonce")), "{answer:?}");
        }
    }
}

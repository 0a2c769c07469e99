//! A session: the operator's end of the control protocol over one byte stream.
//!
//! It starts behind the greeting, so that what a login shell prints is told from the protocol; if the other side has no
//! activator yet and says so, the binary is sent first, over the same stream. Every wait has a deadline. All text that
//! comes from the other side is cleaned of control characters before anybody sees it.

#![expect(clippy::wildcard_enum_match_arm, reason = "whatever else a target answers is one and the same error")]

use std::io::{Read, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use sarsen_store::ObjectRef;
use sarsen_store::ObjectStore;
use sarsen_store::manifest::Identity;
use sarsen_store::transfer::{self, TransferOptions};
use sarsen_store::wire::{FrameReader, FrameWriter, WireError};

use super::child::{Child, Streams};
use super::{ANSWER_TIMEOUT, TargetError};
use crate::process::clean;
use crate::protocol::{Claim, Facts, GREETING, PROTOCOL_VERSION, REQUEST, RESPONSE, Request, Response};

/// How much a login shell may print before the activator greets, in bytes.
const NOISE_BYTES_MAX: usize = 64 << 10;

/// What the bootstrap script prints, followed by the machine's name and a line end, when it needs the activator's binary.
pub(super) const NEED: &[u8] = b"\nsarsen-need ";

/// How long sending the activator's binary may take: some megabytes over a slow line.
const UPLOAD_TIMEOUT: Duration = Duration::from_mins(5);

/// How long the first exchange may take: a target settles a trial that was left behind before it answers, which stops and starts services.
const HELLO_TIMEOUT: Duration = Duration::from_mins(10);

/// What ssh exits with when it failed itself.
const SSH_FAILED: i32 = 255;

/// How much of an unexpected answer is shown, in characters.
const SHOWN_CHARACTERS: usize = 200;

/// How a session begins.
pub(super) struct Opening {
    /// How long the first sign of life may take.
    pub(super) timeout: Duration,
    /// The activator's binary, if the other side may ask for it.
    pub(super) binary: Option<Arc<[u8]>>,
}

/// What a stage moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StageStats {
    /// Objects that the target lacked.
    pub objects: u64,
    /// Bytes of file content that the target lacked, before compression.
    pub bytes: u64,
    /// Bytes that went over the wire, both ways.
    pub wire_bytes: u64,
}

/// The operator's end of one connection.
pub struct Session {
    host: String,
    reader: FrameReader<Box<dyn Read + Send>>,
    // Dropped before the child, which ends when its input does.
    writer: FrameWriter<Box<dyn Write + Send>>,
    child: Option<Child>,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("host", &self.host).finish_non_exhaustive()
    }
}

impl Session {
    /// Speaks over streams that stand behind the greeting already.
    pub fn over(host: &str, reader: Box<dyn Read + Send>, writer: Box<dyn Write + Send>) -> Self {
        Self { host: host.to_owned(), reader: FrameReader::new(reader), writer: FrameWriter::new(writer), child: None }
    }

    /// Waits for the greeting on a child's streams, sending the activator's binary if it is asked for.
    pub(super) fn open(host: &str, streams: Streams, mut child: Option<Child>, opening: &Opening) -> Result<Self, TargetError> {
        let (mut reader, mut writer) = streams;
        let allow = |child: &Option<Child>, time: Duration| {
            if let Some(child) = child {
                child.set_deadline(Some(Instant::now() + time));
            }
        };
        allow(&child, opening.timeout);
        let mut awaited = ("connecting", opening.timeout);
        let first = read_greeting(&mut reader);
        let greeted = match (first, &opening.binary) {
            (Greeting::Needs(machine), Some(_)) if machine != std::env::consts::ARCH => {
                return Err(TargetError::Architecture { host: host.to_owned(), found: machine, expected: std::env::consts::ARCH });
            }
            (Greeting::Needs(_), Some(binary)) => {
                awaited = ("sending the activator", UPLOAD_TIMEOUT);
                allow(&child, UPLOAD_TIMEOUT);
                // If this fails, the other side is gone, and the read that follows tells why.
                let _ = writer.write_all(binary).and_then(|()| writer.flush());
                read_greeting(&mut reader)
            }
            (other, _) => other,
        };
        let noise = match greeted {
            Greeting::Ready => {
                allow_forever(child.as_ref());
                return Ok(Self { host: host.to_owned(), reader: FrameReader::new(reader), writer: FrameWriter::new(writer), child });
            }
            Greeting::Needs(_) => String::from("it asks for its binary again"),
            Greeting::Absent(noise) => clean(&noise).trim().to_owned(),
        };
        Err(no_greeting(host, child.as_mut(), awaited, noise))
    }

    /// The host at the other end.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Opens the protocol: versions are compared, and the target says what it is.
    ///
    /// Errors: [`TargetError::Version`], [`TargetError::Refused`], and whatever a lost connection is.
    pub fn hello(&mut self, identity: &Identity) -> Result<Facts, TargetError> {
        self.hello_claiming(identity, Claim::OwnOnly)
    }

    /// As [`Session::hello`], with what is wanted with a profile of somebody else.
    pub fn hello_claiming(&mut self, identity: &Identity, claim: Claim) -> Result<Facts, TargetError> {
        let request = Request::Hello { version: PROTOCOL_VERSION, identity: identity.clone(), claim };
        match self.request(&request, HELLO_TIMEOUT, &mut |_| {})? {
            Response::Hello { version: PROTOCOL_VERSION, facts } => Ok(facts),
            Response::Hello { version, .. } => {
                Err(TargetError::Version { host: self.host.clone(), found: version, expected: PROTOCOL_VERSION })
            }
            other => Err(self.unexpected("the first exchange", other)),
        }
    }

    /// Asks, passes events on, and returns the final response.
    ///
    /// Errors: [`TargetError::Deadline`] after `timeout`, [`TargetError::Lost`], [`TargetError::Protocol`]. After an error the session is of no use.
    ///
    /// # Panics
    ///
    /// Never: requests always serialise.
    pub fn request(&mut self, request: &Request, timeout: Duration, events: &mut dyn FnMut(String)) -> Result<Response, TargetError> {
        let during = subject(request);
        self.allow(timeout);
        let text = serde_json::to_vec(request).expect("requests hold strings and integers only");
        let sent = self.writer.write(REQUEST, &text).and_then(|()| self.writer.flush());
        let answer = sent.map_err(|source| self.lost(during, timeout, Some(source))).and_then(|()| {
            loop {
                match self.response(during, timeout)? {
                    Response::Event { message } => events(message),
                    response => return Ok(response),
                }
            }
        });
        allow_forever(self.child.as_ref());
        answer
    }

    /// Copies the closure of `bundle`, of which only what is missing travels; the options are those of the whole deployment.
    ///
    /// Errors: as [`Self::request`], and [`TargetError::Transfer`].
    pub fn stage(
        &mut self,
        store: &ObjectStore,
        bundle: &ObjectRef,
        options: &TransferOptions,
        timeout: Duration,
    ) -> Result<StageStats, TargetError> {
        const DURING: &str = "the copy";
        match self.request(&Request::Stage { bundle: bundle.clone() }, ANSWER_TIMEOUT, &mut |_| {})? {
            Response::Ready => {}
            other => return Err(self.unexpected(DURING, other)),
        }
        self.allow(timeout);
        let before = self.reader.bytes() + self.writer.bytes();
        if let Err(source) = transfer::send_closure(store, std::slice::from_ref(bundle), options, &mut self.reader, &mut self.writer) {
            return Err(match self.ending(DURING, timeout) {
                Some(ending) => ending,
                None => TargetError::Transfer { host: self.host.clone(), bundle: bundle.clone(), source: Box::new(source) },
            });
        }
        let wire_bytes = self.reader.bytes() + self.writer.bytes() - before;
        let response = self.response(DURING, timeout)?;
        allow_forever(self.child.as_ref());
        match response {
            Response::Staged { objects, bytes } => Ok(StageStats { objects, bytes, wire_bytes }),
            other => Err(self.unexpected(DURING, other)),
        }
    }

    /// The error that an answer which does not belong here is.
    pub fn unexpected(&self, waited_for: &'static str, response: Response) -> TargetError {
        let host = self.host.clone();
        match response {
            Response::Refused { reasons } => TargetError::Refused { host, reasons },
            Response::Failed { message } => TargetError::Refused { host, reasons: vec![message] },
            Response::Locked { holder } => TargetError::Refused { host, reasons: vec![format!("locked by {holder}")] },
            other => TargetError::Protocol { host, waited_for, found: format!("{other:?}").chars().take(SHOWN_CHARACTERS).collect() },
        }
    }

    fn allow(&self, time: Duration) {
        if let Some(child) = &self.child {
            child.set_deadline(Some(Instant::now() + time));
        }
    }

    fn response(&mut self, during: &'static str, timeout: Duration) -> Result<Response, TargetError> {
        let frame = match self.reader.read() {
            Ok(Some(frame)) => frame,
            Ok(None) => return Err(self.lost(during, timeout, None)),
            Err(source) => return Err(self.lost(during, timeout, Some(source))),
        };
        let shown = || clean(&frame.payload).chars().take(SHOWN_CHARACTERS).collect::<String>();
        let mut value: serde_json::Value = match serde_json::from_slice(&frame.payload) {
            Ok(value) if frame.kind == RESPONSE => value,
            _ => {
                let found = format!("a frame of kind {:#04x}: {}", frame.kind, shown());
                return Err(TargetError::Protocol { host: self.host.clone(), waited_for: during, found });
            }
        };
        clean_strings(&mut value);
        serde_json::from_value(value).map_err(|error| TargetError::Protocol {
            host: self.host.clone(),
            waited_for: during,
            found: format!("{error} in {}", shown()),
        })
    }

    fn lost(&mut self, waited_for: &'static str, timeout: Duration, source: Option<WireError>) -> TargetError {
        self.ending(waited_for, timeout).unwrap_or_else(|| TargetError::Lost {
            host: self.host.clone(),
            waited_for,
            words: String::new(),
            source,
        })
    }

    /// What the end of the child says about a broken stream, if it says anything.
    fn ending(&mut self, waited_for: &'static str, timeout: Duration) -> Option<TargetError> {
        let host = self.host.clone();
        let child = self.child.as_mut()?;
        let (_, words) = child.end();
        if child.expired() {
            return Some(TargetError::Deadline { host, waited_for, seconds: timeout.as_secs() });
        }
        (!words.is_empty()).then(|| TargetError::Lost { host, waited_for, words: format!(": {}", one_line(&words)), source: None })
    }
}

fn allow_forever(child: Option<&Child>) {
    if let Some(child) = child {
        child.set_deadline(None);
    }
}

fn no_greeting(host: &str, child: Option<&mut Child>, (waited_for, timeout): (&'static str, Duration), noise: String) -> TargetError {
    let host = host.to_owned();
    let Some(child) = child else { return TargetError::NoGreeting { host, words: noise } };
    let (status, words) = child.end();
    if child.expired() {
        return TargetError::Deadline { host, waited_for, seconds: timeout.as_secs() };
    }
    let said = match (words.is_empty(), noise.is_empty()) {
        (false, _) => one_line(&words),
        (true, false) => one_line(&noise),
        (true, true) => status.map_or_else(|| String::from("it said nothing"), |status| status.to_string()),
    };
    if status.and_then(|status| status.code()) == Some(SSH_FAILED) {
        TargetError::Unreachable { host, words: said }
    } else {
        TargetError::NoGreeting { host, words: said }
    }
}

/// The last lines of foreign text as one: errors are one line.
fn one_line(text: &str) -> String {
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    lines[lines.len().saturating_sub(3)..].join("; ").chars().take(1000).collect()
}

fn clean_strings(value: &mut serde_json::Value) {
    match value {
        serde_json::Value::String(text) => *text = clean(text.as_bytes()),
        serde_json::Value::Array(items) => items.iter_mut().for_each(clean_strings),
        serde_json::Value::Object(members) => members.values_mut().for_each(clean_strings),
        serde_json::Value::Null | serde_json::Value::Bool(_) | serde_json::Value::Number(_) => {}
    }
}

fn subject(request: &Request) -> &'static str {
    match request {
        Request::Hello { .. } => "the first exchange",
        Request::Status => "the question for the status",
        Request::History { .. } => "the question for the history",
        Request::Compare { .. } => "the comparison",
        Request::Stage { .. } => "the copy",
        Request::Activate(_) => "the activation",
        Request::Rollback { .. } => "the rollback",
        Request::Collect { .. } => "the collection",
        Request::Confirm { .. } => "the confirmation",
        Request::Abort { .. } => "going back",
    }
}

enum Greeting {
    Ready,
    /// The machine's name comes with it.
    Needs(String),
    Absent(Vec<u8>),
}

/// Reads byte by byte, because what follows the greeting belongs to the frames.
fn read_greeting(reader: &mut impl Read) -> Greeting {
    // The line end that starts a marker is there even when the other side printed nothing before.
    let mut seen = Vec::new();
    let mut byte = [0];
    while seen.len() < NOISE_BYTES_MAX && reader.read_exact(&mut byte).is_ok() {
        seen.push(byte[0]);
        if seen.ends_with(GREETING) {
            return Greeting::Ready;
        }
        if byte[0] == b'\n'
            && let Some(start) = seen.windows(NEED.len()).rposition(|window| window == NEED)
        {
            return Greeting::Needs(clean(&seen[start + NEED.len()..]).trim().to_owned());
        }
    }
    Greeting::Absent(seen)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_before_the_greeting_is_skipped_and_bounded() {
        let mut stream: &[u8] = b"Welcome!\nsarsen-activator 2\n\nsarsen-activator 1\nrest";
        assert!(matches!(read_greeting(&mut stream), Greeting::Ready));
        assert_eq!(stream, b"rest");
        assert!(matches!(read_greeting(&mut b"Welcome!\nsarsen-need \n\nsarsen-need x86_64\n".as_slice()), Greeting::Needs(_)));
        let mut endless = std::io::repeat(b'x');
        assert!(matches!(read_greeting(&mut endless), Greeting::Absent(noise) if noise.len() == NOISE_BYTES_MAX));
    }

    #[test]
    fn foreign_text_cannot_reach_the_terminal_and_bad_frames_are_errors() {
        let bytes = serialised(&[
            (RESPONSE, r#"{"response":"event","message":"a\u001b[31mb"}"#),
            (RESPONSE, r#"{"response":"committed","generation":4}"#),
            (RESPONSE, r#"{"response":"committed","generation":4,"more":1}"#),
            (0x01, "{}"),
        ]);
        let mut session = Session::over("web1", Box::new(std::io::Cursor::new(bytes)), Box::new(std::io::sink()));
        let mut events = Vec::new();
        let mut ask = |events: &mut Vec<String>| session.request(&Request::Status, ANSWER_TIMEOUT, &mut |event| events.push(event));
        assert_eq!(ask(&mut events).unwrap(), Response::Committed { generation: 4 });
        assert_eq!(events, ["a[31mb"]);
        assert!(matches!(ask(&mut events), Err(TargetError::Protocol { .. })));
        assert!(matches!(ask(&mut events), Err(TargetError::Protocol { .. })));
        assert!(matches!(ask(&mut events), Err(TargetError::Lost { .. })));
    }

    fn serialised(frames: &[(u8, &str)]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (kind, text) in frames {
            bytes.push(*kind);
            bytes.extend(u32::try_from(text.len()).unwrap().to_le_bytes());
            bytes.extend(text.as_bytes());
        }
        bytes
    }
}

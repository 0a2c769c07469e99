//! What the client asks the development supervisor: one request and one response for each connection.
//!
//! Frames of [`sarsen_store::wire`] with JSON in them, as everywhere. Only the same program speaks both sides: there is no
//! version, because an unknown request is an error in words and the supervisor can be ended and started at any time.

use std::io;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use sarsen_store::manifest::Service;
use sarsen_store::wire::{FrameReader, FrameWriter, WireError};
use serde::{Deserialize, Serialize};

use super::place::Place;
use crate::services::{ServiceError, UnitState};

/// The frame kind of requests.
const REQUEST: u8 = 0x50;

/// The frame kind of responses.
const RESPONSE: u8 = 0x51;

/// How long the other side may take to send or receive, beside what a request states itself.
const EXCHANGE: Duration = Duration::from_secs(10);

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "kebab-case", deny_unknown_fields)]
pub(super) enum Request {
    /// Exactly these services are known from now on; others are stopped.
    Install {
        services: Vec<Service>,
    },
    Start {
        units: Vec<String>,
    },
    Stop {
        units: Vec<String>,
    },
    Reload {
        unit: String,
        timeout_ms: u64,
    },
    States {
        units: Vec<String>,
    },
    /// Run `settle` after this time or sooner, and again until no trial is pending.
    ArmDeadMan {
        after_ms: u64,
    },
    DisarmDeadMan,
    Shutdown,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "response", rename_all = "kebab-case", deny_unknown_fields)]
pub(super) enum Response {
    Done,
    /// It takes no orders any more.
    Ending,
    States {
        states: Vec<State>,
    },
    Failed {
        message: String,
    },
}

/// A [`UnitState`] on the wire.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(clippy::struct_field_names, reason = "the state of a state, in the manager's words")]
pub(super) struct State {
    pub(super) unit: String,
    pub(super) active: bool,
    pub(super) failed: bool,
    pub(super) state: String,
    pub(super) pid: Option<u32>,
    pub(super) restarts: u32,
}

impl From<State> for UnitState {
    fn from(State { unit, active, failed, state, pid, restarts }: State) -> Self {
        Self { unit, active, failed, state, pid, restarts }
    }
}

/// Asks the supervisor if it runs; nothing if it does not, or is about to end.
pub(super) fn ask_running(place: &Place, request: &Request) -> Result<Option<Response>, ServiceError> {
    let stream = match place.connect() {
        Ok(stream) => stream,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => return Ok(None),
        Err(source) => {
            let problem = format!("cannot be reached at `{}`", place.socket().display());
            return Err(ServiceError::Supervisor { problem, source: Some(source) });
        }
    };
    let extra = if let Request::Reload { timeout_ms, .. } = request { Duration::from_millis(*timeout_ms) } else { Duration::ZERO };
    match exchange(&stream, request, EXCHANGE + extra) {
        Ok(Response::Ending) => Ok(None),
        Ok(response) => Ok(Some(response)),
        // It ended before it came to this connection.
        Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe | io::ErrorKind::UnexpectedEof) => {
            Ok(None)
        }
        Err(source) => Err(ServiceError::Supervisor { problem: "broke off the conversation".to_owned(), source: Some(source) }),
    }
}

fn exchange(stream: &UnixStream, request: &Request, time: Duration) -> io::Result<Response> {
    stream.set_read_timeout(Some(time))?;
    stream.set_write_timeout(Some(time))?;
    send(stream, REQUEST, request)?;
    receive(stream, RESPONSE)
}

/// Answers the one request of a connection.
pub(super) fn answer(stream: &UnixStream, act: impl FnOnce(Request) -> Response) -> io::Result<()> {
    stream.set_read_timeout(Some(EXCHANGE))?;
    stream.set_write_timeout(Some(EXCHANGE))?;
    let request = receive(stream, REQUEST)?;
    send(stream, RESPONSE, &act(request))
}

fn send(stream: &UnixStream, kind: u8, message: &impl Serialize) -> io::Result<()> {
    let payload = serde_json::to_vec(message)?;
    let mut writer = FrameWriter::new(stream);
    writer.write(kind, &payload).and_then(|()| writer.flush()).map_err(wire_error)
}

fn receive<T: for<'a> Deserialize<'a>>(stream: &UnixStream, kind: u8) -> io::Result<T> {
    let frame = FrameReader::new(stream).read().map_err(wire_error)?.ok_or(io::ErrorKind::UnexpectedEof)?;
    if frame.kind != kind {
        return Err(io::Error::other(format!("unexpected message of kind {:#04x}", frame.kind)));
    }
    Ok(serde_json::from_slice(&frame.payload)?)
}

fn wire_error(error: WireError) -> io::Error {
    match error {
        WireError::Read { source } | WireError::Write { source } => source,
        WireError::Truncated { .. } | WireError::TooLong { .. } => io::Error::other(error),
    }
}

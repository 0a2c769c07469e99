//! Moves the messages of one side over frames, and looks at the clock for it. All decisions are the machine's.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use super::TransferError;
use super::machine::{Machine, Side, Step};
use super::message::Message;
use crate::wire::{FrameReader, FrameWriter};

/// Runs a side to its end; gives its outcome and what travelled, in both directions, in bytes.
pub(crate) fn drive<M: Machine>(
    machine: M,
    reader: &mut FrameReader<impl Read>,
    writer: &mut FrameWriter<impl Write>,
) -> Result<(M::Outcome, u64), TransferError> {
    let mut side = Side::new(machine);
    let before = reader.bytes() + writer.bytes();
    match exchange(&mut side, reader, writer) {
        Ok(outcome) => Ok((outcome?, reader.bytes() + writer.bytes() - before)),
        Err(broken) => Err(side.cut(broken)),
    }
}

/// The inner result is the outcome; the outer error is a broken stream.
fn exchange<M: Machine>(
    side: &mut Side<M>,
    reader: &mut FrameReader<impl Read>,
    writer: &mut FrameWriter<impl Write>,
) -> Result<Result<M::Outcome, TransferError>, TransferError> {
    let mut watch = Watch::start();
    loop {
        match side.poll() {
            Step::Send(message) => {
                watch.worked();
                let at_once = message.is_worth_a_packet();
                let (kind, payload) = message.encode();
                writer.write(kind, &payload)?;
                if at_once {
                    writer.flush()?;
                }
                watch.waited();
            }
            Step::Await => {
                watch.worked();
                writer.flush()?;
                let frame = reader.read()?.ok_or(TransferError::Ended)?;
                watch.waited();
                side.handle(frame);
            }
            Step::Done(outcome) => {
                // A failure was told and answered, so whether the last words arrive changes nothing any more.
                let flushed = writer.flush();
                if outcome.is_ok() {
                    flushed?;
                }
                return Ok(outcome);
            }
        }
        side.passed(std::mem::take(&mut watch.busy), std::mem::take(&mut watch.blocked));
    }
}

impl Message {
    /// Whether the peer can do something with it before more comes: the small ones go together.
    const fn is_worth_a_packet(&self) -> bool {
        matches!(self, Self::Contents(_) | Self::Patch(_) | Self::Delta(_))
    }
}

/// How the time goes by.
struct Watch {
    last: Instant,
    busy: Duration,
    blocked: Duration,
}

impl Watch {
    fn start() -> Self {
        Self { last: Instant::now(), busy: Duration::ZERO, blocked: Duration::ZERO }
    }

    fn worked(&mut self) {
        let lap = self.lap();
        self.busy += lap;
    }

    fn waited(&mut self) {
        let lap = self.lap();
        self.blocked += lap;
    }

    fn lap(&mut self) -> Duration {
        let now = Instant::now();
        now.duration_since(std::mem::replace(&mut self.last, now))
    }
}

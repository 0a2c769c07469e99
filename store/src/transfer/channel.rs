//! One side's end of a transfer: typed messages over frames, and the way in which a transfer is given up.
//!
//! Giving up is symmetric and leaves the stream between two messages, so that a session can go on: each side sends exactly one
//! [`Message::Error`], and reads until it has the other's. The side that failed states the reason, the other answers with
//! an empty one. Only when the stream itself is broken is nothing said.

use std::error::Error;
use std::io::{Read, Write};

use super::TransferError;
use super::limits::DRAIN_BYTES_MAX;
use super::message::Message;
use super::piece;
use crate::wire::{FrameReader, FrameWriter};

/// A conversation with one peer.
#[derive(Debug)]
pub(crate) struct Channel<'a, R: Read, W: Write> {
    reader: &'a mut FrameReader<R>,
    writer: &'a mut FrameWriter<W>,
    bytes_at_start: u64,
    /// A message that was read and given back.
    unread: Option<Message>,
}

impl<'a, R: Read, W: Write> Channel<'a, R, W> {
    pub(crate) fn new(reader: &'a mut FrameReader<R>, writer: &'a mut FrameWriter<W>) -> Self {
        let bytes_at_start = reader.bytes() + writer.bytes();
        Self { reader, writer, bytes_at_start, unread: None }
    }

    /// What has travelled since the start, in both directions, in bytes.
    pub(crate) fn bytes(&self) -> u64 {
        self.reader.bytes() + self.writer.bytes() - self.bytes_at_start
    }

    /// Writes a message; it may stay in a buffer.
    pub(crate) fn send(&mut self, message: Message) -> Result<(), TransferError> {
        let (kind, payload) = message.encode();
        Ok(self.writer.write(kind, &payload)?)
    }

    /// Writes a message that the peer waits for.
    pub(crate) fn send_now(&mut self, message: Message) -> Result<(), TransferError> {
        self.send(message)?;
        self.flush()
    }

    pub(crate) fn flush(&mut self) -> Result<(), TransferError> {
        Ok(self.writer.flush()?)
    }

    /// Gives a message back, to be read again.
    pub(crate) fn unread(&mut self, message: Message) {
        self.unread = Some(message);
    }

    /// Reads the next message. A peer's error comes back as an error.
    pub(crate) fn receive(&mut self) -> Result<Message, TransferError> {
        let message = self.unread.take().map_or_else(|| self.receive_any(), Ok)?;
        if let Message::Error(reason) = message { Err(TransferError::Peer { reason }) } else { Ok(message) }
    }

    fn receive_any(&mut self) -> Result<Message, TransferError> {
        Message::decode(self.reader.read()?.ok_or(TransferError::Ended)?)
    }

    /// Ends the conversation after an error, and gives the error back.
    pub(crate) fn give_up(&mut self, error: TransferError) -> TransferError {
        if matches!(error, TransferError::Peer { .. }) {
            // The peer's reason is the one worth reporting; that it cannot be told so changes nothing.
            let _answered = self.send_now(Message::Error(String::new()));
        } else if !is_broken(&error) && self.send_now(Message::Error(chain(&error))).is_ok() {
            self.drain();
        }
        error
    }

    /// Throws away what the peer had under way, up to its answer to our error.
    fn drain(&mut self) {
        let limit = self.reader.bytes().saturating_add(DRAIN_BYTES_MAX);
        while self.reader.bytes() < limit {
            match self.receive_any() {
                Ok(Message::Error(_)) => return,
                Err(error) if is_broken(&error) => return,
                Ok(_) | Err(_) => {}
            }
        }
    }
}

/// Whether nothing can be said or heard any more.
pub(crate) fn is_broken(error: &TransferError) -> bool {
    matches!(error, TransferError::Wire(_) | TransferError::Ended)
}

/// An error and its causes in one line, as the other side shall read it.
fn chain(error: &TransferError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// Which stream of pieces is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    /// The manifests; not acknowledged, they fit into memory as a whole.
    Manifests,
    /// The contents; each piece is acknowledged when it has been used up.
    Contents,
}

/// Reads a stream of pieces as the bytes that went in.
#[derive(Debug)]
pub(crate) struct PieceReader {
    stream: Stream,
    raw: Vec<u8>,
    used: usize,
}

impl PieceReader {
    pub(crate) fn new(stream: Stream) -> Self {
        Self { stream, raw: Vec::new(), used: 0 }
    }

    /// Hands out the next bytes of the stream: at least one, at most `limit`, which is not zero.
    pub(crate) fn next<R: Read, W: Write>(&mut self, channel: &mut Channel<'_, R, W>, limit: u64) -> Result<&[u8], TransferError> {
        if self.used == self.raw.len() {
            self.acknowledge(channel)?;
            self.raw = match (self.stream, channel.receive()?) {
                (Stream::Manifests, Message::Manifests(piece)) | (Stream::Contents, Message::Contents(piece)) => piece::decompress(&piece)?,
                (Stream::Manifests, other) => return Err(TransferError::unexpected(&other, "a piece of manifests")),
                (Stream::Contents, other) => return Err(TransferError::unexpected(&other, "a piece of contents")),
            };
            self.used = 0;
        }
        let available = self.raw.len() - self.used;
        let length = usize::try_from(limit).map_or(available, |limit| limit.min(available));
        let bytes = &self.raw[self.used..self.used + length];
        self.used += length;
        Ok(bytes)
    }

    /// Ends the stream, which must hold nothing beyond what was asked for.
    pub(crate) fn finish<R: Read, W: Write>(mut self, channel: &mut Channel<'_, R, W>) -> Result<(), TransferError> {
        if self.used == self.raw.len() {
            self.acknowledge(channel)
        } else {
            Err(TransferError::Malformed { what: "a stream is longer than its items" })
        }
    }

    /// Tells the sender that a piece is used up. Not before: if that cannot be said any more, nothing that came is lost.
    fn acknowledge<R: Read, W: Write>(&mut self, channel: &mut Channel<'_, R, W>) -> Result<(), TransferError> {
        if self.raw.is_empty() || self.stream == Stream::Manifests {
            return Ok(());
        }
        self.raw.clear();
        self.used = 0;
        channel.send_now(Message::Acknowledge)
    }
}

//! A side of a transfer as a machine without input and output: messages in, messages out.
//!
//! A [`Machine`] is the protocol of one side. A [`Side`] is a machine and the way in which it gives up, which is symmetric and leaves the stream between two
//! messages, so that a session can go on: each side sends exactly one [`Message::Error`], and takes in messages until it has the other's. The
//! side that failed states the reason, the other answers with an empty one. Who moves the frames and looks at the clock is `driver.rs`, and in tests a simulation.

use std::error::Error;
use std::time::Duration;

use super::TransferError;
use super::limits::DRAIN_BYTES_MAX;
use super::message::Message;
use crate::wire::Frame;

/// What a machine does next.
#[derive(Debug)]
pub(crate) enum Step<T> {
    /// It says something; then it may have more to say.
    Send(Message),
    /// It waits for the peer.
    Await,
    /// It is finished.
    Done(T),
}

/// The protocol of one side.
pub(crate) trait Machine {
    /// What it comes to.
    type Outcome;

    /// Says what it does next.
    fn poll(&mut self) -> Result<Step<Self::Outcome>, TransferError>;

    /// Takes a message that is no error.
    fn handle(&mut self, message: Message) -> Result<(), TransferError>;

    /// Learns that nothing can be said or heard any more.
    fn cut(&mut self) {}

    /// Learns how time went by since the last call: with work here, and with waiting for the link or the peer.
    fn passed(&mut self, _busy: Duration, _blocked: Duration) {}
}

/// A machine and how it gives up.
pub(crate) struct Side<M> {
    machine: M,
    state: State,
}

enum State {
    Running,
    /// The reason is to be said; the error is what this comes to.
    Failing(TransferError, String),
    /// Up to the peer's answer, what it had under way is thrown away.
    Draining(TransferError, u64),
    /// The last words are to be said: the peer has said its own.
    Following(TransferError, String),
    /// Only the outcome is left.
    Failed(TransferError),
    Over,
}

impl<M: Machine> Side<M> {
    pub(crate) const fn new(machine: M) -> Self {
        Self { machine, state: State::Running }
    }

    /// Says what comes next.
    pub(crate) fn poll(&mut self) -> Step<Result<M::Outcome, TransferError>> {
        match std::mem::replace(&mut self.state, State::Over) {
            State::Running => match self.machine.poll() {
                Ok(Step::Done(outcome)) => return Step::Done(Ok(outcome)),
                Ok(Step::Send(message)) => {
                    self.state = State::Running;
                    return Step::Send(message);
                }
                Ok(Step::Await) => self.state = State::Running,
                Err(error) => {
                    self.fail(error);
                    return self.poll();
                }
            },
            State::Failing(error, reason) => {
                self.state = State::Draining(error, 0);
                return Step::Send(Message::Error(reason));
            }
            State::Following(error, reason) => {
                self.state = State::Failed(error);
                return Step::Send(Message::Error(reason));
            }
            State::Failed(error) => return Step::Done(Err(error)),
            State::Over => return Step::Done(Err(TransferError::Ended)),
            draining @ State::Draining(..) => self.state = draining,
        }
        Step::Await
    }

    /// Takes a frame.
    pub(crate) fn handle(&mut self, frame: Frame) {
        let bytes = frame.payload.len() as u64;
        let message = Message::decode(frame);
        match std::mem::replace(&mut self.state, State::Over) {
            State::Draining(error, drained) => {
                let drained = drained.saturating_add(bytes);
                let over = matches!(message, Ok(Message::Error(_))) || drained > DRAIN_BYTES_MAX;
                self.state = if over { State::Failed(error) } else { State::Draining(error, drained) };
            }
            State::Running => {
                self.state = State::Running;
                match message {
                    Ok(Message::Error(reason)) => self.state = State::Following(TransferError::Peer { reason }, String::new()),
                    message => {
                        if let Err(error) = message.and_then(|message| self.machine.handle(message)) {
                            self.fail(error);
                        }
                    }
                }
            }
            State::Failing(error, reason) if matches!(message, Ok(Message::Error(_))) => self.state = State::Following(error, reason),
            other @ (State::Failing(..) | State::Following(..) | State::Failed(_) | State::Over) => self.state = other,
        }
    }

    /// Nothing can be said or heard any more: gives what that comes to.
    pub(crate) fn cut(&mut self, error: TransferError) -> TransferError {
        match std::mem::replace(&mut self.state, State::Over) {
            State::Running => {
                self.machine.cut();
                error
            }
            State::Failing(first, _) | State::Draining(first, _) | State::Following(first, _) | State::Failed(first) => first,
            State::Over => error,
        }
    }

    pub(crate) fn passed(&mut self, busy: Duration, blocked: Duration) {
        self.machine.passed(busy, blocked);
    }

    #[cfg(test)]
    pub(crate) const fn machine(&self) -> &M {
        &self.machine
    }

    fn fail(&mut self, error: TransferError) {
        let reason = chain(&error);
        self.state = State::Failing(error, reason);
    }
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

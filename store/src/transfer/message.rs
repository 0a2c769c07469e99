//! The messages of a transfer: bytes to values and back, and nothing else.
//!
//! Numbers, texts and lists are canonical bytes ([`crate::canon`]). A decoder reads its payload to the last byte and refuses what is left over, so every
//! message has exactly one encoding. Collections are bounded by the constants below before anything is allocated for them.
//! Normative text: `FORMAT.md`, section "Transfer".

use super::TransferError;
use super::limits::{MESSAGE_TEXT_BYTES_MAX, OBJECTS_MAX, PRESENT_MAX, ROOTS_MAX, TRANSFER_VERSION};
use crate::canon::{DecodeError, Decoder, Encoder, Items};
use crate::wire::Frame;
use crate::{ObjectId, ObjectRef};

/// What one side tells the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Message {
    /// Sender: these roots, whose closure has so many objects.
    Offer { roots: Vec<ObjectRef>, objects: u64 },
    /// Receiver: not all of it is here; these are, with all that they need, and stay as long as the transfer takes. And whether it wants to be asked
    /// which contents it lacks.
    Present { objects: Vec<ObjectRef>, asks: bool },
    /// Sender: which of the present objects it has too, and how many objects of the closure they do not need: those are listed next.
    Difference { shared: Vec<u8>, objects: u64 },
    /// Sender: a part of the closure; every object comes after those it refers to.
    Closure(Vec<ObjectRef>),
    /// Receiver: which objects of the closure it lacks, in the order of the list.
    LackedObjects(Vec<u8>),
    /// Sender: a piece of the stream of manifests, compressed.
    Manifests(Vec<u8>),
    /// Receiver: which contents it lacks, in the order in which the manifests first name them.
    LackedContents(Vec<u8>),
    /// Sender: a piece of the stream of contents, compressed.
    Contents(Vec<u8>),
    /// Sender: contents told by old ones, as one frame of zstd.
    Patch(Vec<u8>),
    /// Sender: a segment of a content told by an old one.
    Delta(Vec<u8>),
    /// Receiver, instead of an acknowledgement: what the patch or segment tells could not be made and must come whole.
    Refused,
    /// Receiver: one piece of contents has been written and checked as far as it goes.
    Acknowledge,
    /// Sender: that was all.
    End,
    /// Receiver: everything is durable and has its name.
    Done(Totals),
    /// Either side: it gives up, for this reason; empty if it merely follows the other side.
    Error(String),
}

/// What the receiver says that it did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Totals {
    /// Objects that were published.
    pub(crate) objects: u64,
    /// Contents that were received.
    pub(crate) contents: u64,
    /// Their length together, in bytes.
    pub(crate) bytes: u64,
}

/// The kinds of frames. `0x00` stays free, so that a stream of zeros is not a message.
mod kind {
    pub(super) const OFFER: u8 = 0x01;
    pub(super) const PRESENT: u8 = 0x02;
    pub(super) const CLOSURE: u8 = 0x03;
    pub(super) const LACKED_OBJECTS: u8 = 0x04;
    pub(super) const MANIFESTS: u8 = 0x05;
    pub(super) const LACKED_CONTENTS: u8 = 0x06;
    pub(super) const CONTENTS: u8 = 0x07;
    pub(super) const ACKNOWLEDGE: u8 = 0x08;
    pub(super) const END: u8 = 0x09;
    pub(super) const DONE: u8 = 0x0a;
    pub(super) const ERROR: u8 = 0x0b;
    pub(super) const DIFFERENCE: u8 = 0x0c;
    pub(super) const PATCH: u8 = 0x0d;
    pub(super) const DELTA: u8 = 0x0e;
    pub(super) const REFUSED: u8 = 0x0f;
}

impl Message {
    /// The message as kind and payload of a frame.
    pub(crate) fn encode(self) -> (u8, Vec<u8>) {
        // Messages are never hashed, so the domain is empty.
        let mut encoder = Encoder::new("");
        match self {
            Self::Offer { roots, objects } => {
                encoder.number(TRANSFER_VERSION).number(objects);
                encode_objects(&mut encoder, &roots);
                (kind::OFFER, encoder.into_bytes())
            }
            Self::Present { objects, asks } => {
                encoder.tag(u8::from(asks));
                encode_objects(&mut encoder, &objects);
                (kind::PRESENT, encoder.into_bytes())
            }
            Self::Difference { shared, objects } => {
                encoder.number(objects).bytes(&shared);
                (kind::DIFFERENCE, encoder.into_bytes())
            }
            Self::Closure(objects) => {
                encode_objects(&mut encoder, &objects);
                (kind::CLOSURE, encoder.into_bytes())
            }
            Self::LackedObjects(bits) => (kind::LACKED_OBJECTS, bits),
            Self::Manifests(piece) => (kind::MANIFESTS, piece),
            Self::LackedContents(bits) => (kind::LACKED_CONTENTS, bits),
            Self::Contents(piece) => (kind::CONTENTS, piece),
            Self::Patch(payload) => (kind::PATCH, payload),
            Self::Delta(payload) => (kind::DELTA, payload),
            Self::Refused => (kind::REFUSED, Vec::new()),
            Self::Acknowledge => (kind::ACKNOWLEDGE, Vec::new()),
            Self::End => (kind::END, Vec::new()),
            Self::Done(Totals { objects, contents, bytes }) => {
                encoder.number(objects).number(contents).number(bytes);
                (kind::DONE, encoder.into_bytes())
            }
            Self::Error(text) => (kind::ERROR, bounded(&text).as_bytes().to_vec()),
        }
    }

    /// Reads a message; the pieces and bitmaps inside are not looked into.
    pub(crate) fn decode(frame: Frame) -> Result<Self, TransferError> {
        let mut decoder = Decoder::new(&frame.payload);
        let message = match frame.kind {
            kind::OFFER => decode_offer(&mut decoder)?,
            kind::PRESENT => {
                let asks = match decoder.tag()? {
                    0 => false,
                    1 => true,
                    _ => return Err(TransferError::Malformed { what: "a receiver neither asks nor does not" }),
                };
                Self::Present { objects: decode_objects(&mut decoder, PRESENT_MAX as u64)?, asks }
            }
            kind::DIFFERENCE => Self::Difference { objects: decoder.number()?, shared: decoder.bytes()?.to_vec() },
            kind::CLOSURE => Self::Closure(decode_objects(&mut decoder, OBJECTS_MAX)?),
            kind::LACKED_OBJECTS => return Ok(Self::LackedObjects(frame.payload)),
            kind::MANIFESTS => return Ok(Self::Manifests(frame.payload)),
            kind::LACKED_CONTENTS => return Ok(Self::LackedContents(frame.payload)),
            kind::CONTENTS => return Ok(Self::Contents(frame.payload)),
            kind::PATCH => return Ok(Self::Patch(frame.payload)),
            kind::DELTA => return Ok(Self::Delta(frame.payload)),
            kind::REFUSED => Self::Refused,
            kind::ACKNOWLEDGE => Self::Acknowledge,
            kind::END => Self::End,
            kind::DONE => Self::Done(Totals { objects: decoder.number()?, contents: decoder.number()?, bytes: decoder.number()? }),
            kind::ERROR => return Ok(Self::Error(readable(&frame.payload))),
            other => return Err(TransferError::UnknownMessage { kind: other }),
        };
        decoder.finish()?;
        Ok(message)
    }

    /// How many bytes of contents it carries, packed.
    pub(crate) const fn content_bytes(&self) -> usize {
        match self {
            Self::Contents(bytes) | Self::Patch(bytes) | Self::Delta(bytes) => bytes.len(),
            Self::Offer { .. }
            | Self::Present { .. }
            | Self::Difference { .. }
            | Self::Closure(_)
            | Self::LackedObjects(_)
            | Self::Manifests(_)
            | Self::LackedContents(_)
            | Self::Refused
            | Self::Acknowledge
            | Self::End
            | Self::Done(_)
            | Self::Error(_) => 0,
        }
    }

    /// What the message is, for an error about its place.
    pub(crate) fn describe(&self) -> &'static str {
        match self {
            Self::Offer { .. } => "an offer",
            Self::Present { .. } => "the present objects",
            Self::Difference { .. } => "the difference",
            Self::Closure(_) => "a part of the closure",
            Self::LackedObjects(_) => "the lacked objects",
            Self::Manifests(_) => "a piece of manifests",
            Self::LackedContents(_) => "the lacked contents",
            Self::Contents(_) => "a piece of contents",
            Self::Patch(_) => "a patch",
            Self::Delta(_) => "a segment of a delta",
            Self::Refused => "a refusal",
            Self::Acknowledge => "an acknowledgement",
            Self::End => "the end of the contents",
            Self::Done(_) => "the final totals",
            Self::Error(_) => "an error",
        }
    }
}

/// Cuts a text for people at [`MESSAGE_TEXT_BYTES_MAX`].
fn bounded(text: &str) -> &str {
    &text[..text.floor_char_boundary(MESSAGE_TEXT_BYTES_MAX)]
}

/// A peer's words for people: what is no text or would steer a terminal is replaced, what is too long is cut.
fn readable(words: &[u8]) -> String {
    let text: String =
        String::from_utf8_lossy(words).chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect();
    bounded(&text).to_owned()
}

fn encode_objects(encoder: &mut Encoder, objects: &[ObjectRef]) {
    encoder.count(objects.len());
    for ObjectRef { id, name } in objects {
        encoder.fixed(id.as_bytes()).text(name.as_str());
    }
}

fn decode_objects(decoder: &mut Decoder<'_>, limit: u64) -> Result<Vec<ObjectRef>, DecodeError> {
    // The shortest object: an id, the length of a name, one letter.
    let count = decoder.count("objects in one list", limit, 29)?;
    let mut objects = Vec::with_capacity(count);
    for _ in 0..count {
        let id = ObjectId::from_bytes(decoder.array()?);
        let text = decoder.text()?;
        let name = text.parse().map_err(|_| DecodeError::invalid("unusable object name", text))?;
        objects.push(ObjectRef { id, name });
    }
    Ok(objects)
}

fn decode_offer(decoder: &mut Decoder<'_>) -> Result<Message, TransferError> {
    // The version comes first, because nothing after it means the same in another one.
    let version = decoder.number()?;
    if version != TRANSFER_VERSION {
        return Err(TransferError::Version { theirs: version });
    }
    let objects = decoder.number()?;
    Ok(Message::Offer { roots: decode_objects(decoder, ROOTS_MAX)?, objects })
}

/// Packs answers, one bit each, the first in the lowest bit of the first byte.
pub(crate) fn encode_bits(bits: &[bool]) -> Vec<u8> {
    bits.chunks(8).map(|byte| byte.iter().rev().fold(0, |packed, bit| packed << 1 | u8::from(*bit))).collect()
}

/// Unpacks exactly `count` answers.
pub(crate) fn decode_bits(bytes: &[u8], count: usize) -> Result<Vec<bool>, TransferError> {
    let unfit = TransferError::Malformed { what: "a list of answers does not fit its questions" };
    if bytes.len() != count.div_ceil(8) {
        return Err(unfit);
    }
    let mut bits: Vec<bool> = bytes.iter().flat_map(|byte| (0..8).map(move |position| byte >> position & 1 == 1)).collect();
    if bits[count..].contains(&true) {
        return Err(unfit);
    }
    bits.truncate(count);
    Ok(bits)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn objects(count: usize) -> Vec<ObjectRef> {
        (0..count).map(|i| ObjectRef { id: ObjectId::placeholder(&i.to_string()), name: format!("object-{i}").parse().unwrap() }).collect()
    }

    fn decode(kind: u8, payload: &[u8]) -> Result<Message, TransferError> {
        Message::decode(Frame { kind, payload: payload.to_vec() })
    }

    #[test]
    fn every_message_round_trips_and_no_cut_or_longer_one_passes() {
        let exact = [
            Message::Offer { roots: objects(2), objects: 7 },
            Message::Present { objects: objects(2), asks: true },
            Message::Difference { shared: vec![1], objects: 3 },
            Message::Closure(objects(3)),
            Message::Acknowledge,
            Message::Refused,
            Message::End,
            Message::Done(Totals { objects: 1, contents: 2, bytes: 3 }),
        ];
        for message in exact {
            let (kind, mut payload) = message.clone().encode();
            assert_eq!(decode(kind, &payload).unwrap(), message);
            for cut in 0..payload.len() {
                assert!(decode(kind, &payload[..cut]).is_err(), "{message:?} cut at {cut}");
            }
            payload.push(0);
            assert!(decode(kind, &payload).is_err(), "{message:?} with a byte more");
        }
        for message in
            [Message::LackedObjects(vec![5]), Message::Manifests(vec![1]), Message::LackedContents(vec![]), Message::Contents(vec![2])]
        {
            let (kind, payload) = message.clone().encode();
            assert_eq!(decode(kind, &payload).unwrap(), message);
        }
    }

    #[test]
    fn declared_counts_versions_and_texts_are_bounded() {
        assert!(matches!(decode(kind::CLOSURE, &u64::MAX.to_le_bytes()), Err(TransferError::Message(DecodeError::Limit { .. }))));
        assert!(matches!(decode(kind::CLOSURE, &1000u64.to_le_bytes()), Err(TransferError::Message(DecodeError::Truncated))));
        assert!(matches!(decode(kind::OFFER, &9u64.to_le_bytes()), Err(TransferError::Version { theirs: 9 })));
        assert!(matches!(decode(0x3f, &[]), Err(TransferError::UnknownMessage { kind: 0x3f })));
        let Message::Error(text) = decode(kind::ERROR, &[b'x'; 3 * MESSAGE_TEXT_BYTES_MAX]).unwrap() else { panic!("not an error") };
        assert_eq!(text.len(), MESSAGE_TEXT_BYTES_MAX);
        let Message::Error(text) = decode(kind::ERROR, b"full\x1b[2J\xff\r").unwrap() else { panic!("not an error") };
        assert_eq!(text, "full\u{fffd}[2J\u{fffd}\u{fffd}");
    }

    proptest! {
        #[test]
        fn answers_round_trip(bits in prop::collection::vec(any::<bool>(), 0..40)) {
            prop_assert_eq!(decode_bits(&encode_bits(&bits), bits.len()).unwrap(), bits);
        }

        #[test]
        fn answers_have_one_encoding(bytes in prop::collection::vec(any::<u8>(), 0..4), count in 0usize..32) {
            if let Ok(bits) = decode_bits(&bytes, count) {
                prop_assert_eq!(encode_bits(&bits), bytes);
            }
        }
    }
}

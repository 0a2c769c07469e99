//! Canonical bytes: the only form that is ever hashed or stored as a structure.
//!
//! Numbers are u64, little-endian; byte strings carry their length before them; lists carry their count. There is one way to
//! write a value, and the decoder offers no way to read it differently: callers refuse what their encoder would not
//! have written. A hash is BLAKE3 in its key derivation mode, the domain tag (which ends in a version) is the context. FORMAT.md, section "Canonical bytes".

use std::io::{self, Read};

use crate::Digest;

/// How much of a long structure is encoded or read at a time, in bytes: enough for BLAKE3 to use all lanes of the processor.
const PORTION_BYTES: usize = 64 << 10;

/// Collects canonical bytes.
///
/// Shape: there is no method for floats, `usize` or unordered collections, on purpose.
#[derive(Debug, Clone)]
pub struct Encoder {
    domain: &'static str,
    bytes: Vec<u8>,
}

impl Encoder {
    /// Starts a structure; `domain` names it with its version, such as `sarsen 2026 object v1`, and is part of the hash only.
    pub const fn new(domain: &'static str) -> Self {
        Self { domain, bytes: Vec::new() }
    }

    /// Appends one byte, for tags.
    pub fn tag(&mut self, value: u8) -> &mut Self {
        self.bytes.push(value);
        self
    }

    /// Appends a number.
    pub fn number(&mut self, value: u64) -> &mut Self {
        self.bytes.extend_from_slice(&value.to_le_bytes());
        self
    }

    /// Appends the count of a list whose items follow.
    pub fn count(&mut self, items: usize) -> &mut Self {
        self.number(items as u64)
    }

    /// Appends bytes whose length is fixed by the format.
    pub fn fixed(&mut self, value: &[u8]) -> &mut Self {
        self.bytes.extend_from_slice(value);
        self
    }

    /// Appends bytes of any length, the length first.
    pub fn bytes(&mut self, value: &[u8]) -> &mut Self {
        self.count(value.len()).fixed(value)
    }

    /// Appends a text, as [`Self::bytes`] of its UTF-8.
    pub fn text(&mut self, value: &str) -> &mut Self {
        self.bytes(value.as_bytes())
    }

    /// Appends a digest.
    pub fn digest(&mut self, value: &Digest) -> &mut Self {
        self.fixed(value.as_bytes())
    }

    /// The digest of what was appended, under the domain.
    pub fn finish(&self) -> Digest {
        Digest::from(blake3::Hasher::new_derive_key(self.domain).update(&self.bytes).finalize())
    }

    /// The appended bytes, without the domain.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// Hands on what was appended, once it is worth a call: for structures that are too long to be held in memory.
    pub(crate) fn hand_on<E>(&mut self, to: &mut impl FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
        if self.bytes.len() >= PORTION_BYTES { self.hand_on_all(to) } else { Ok(()) }
    }

    /// Hands on all that was appended.
    pub(crate) fn hand_on_all<E>(&mut self, to: &mut impl FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
        to(&self.bytes)?;
        self.bytes.clear();
        Ok(())
    }
}

/// Why bytes are not the canonical form of anything.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes end within a value.
    #[error("the bytes end within a value")]
    Truncated,
    /// The structure has ended, the bytes have not.
    #[error("{bytes} bytes follow the end")]
    Trailing {
        /// How many bytes are left.
        bytes: u64,
    },
    /// The first bytes are not those of the expected structure and version.
    #[error("the first bytes are not `{expected}`: damaged, or written by another version of sarsen")]
    Magic {
        /// What stands at the start.
        expected: &'static str,
    },
    /// A number exceeds its limit.
    #[error("{what}: {value} exceeds the limit of {limit}")]
    Limit {
        /// What is counted.
        what: &'static str,
        /// The number found.
        value: u64,
        /// The limit.
        limit: u64,
    },
    /// A value breaks a rule of the format.
    #[error("{reason} at `{place}`")]
    Invalid {
        /// The rule.
        reason: &'static str,
        /// The path or name concerned, shortened.
        place: String,
    },
}

impl DecodeError {
    pub(crate) fn invalid(reason: &'static str, place: &str) -> Self {
        Self::Invalid { reason, place: place.chars().take(200).collect() }
    }
}

/// Takes canonical bytes apart, without allocating from a length that the bytes state.
#[derive(Debug)]
pub(crate) struct Decoder<'a> {
    rest: &'a [u8],
}

impl<'a> Decoder<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(crate) fn fixed(&mut self, length: usize) -> Result<&'a [u8], DecodeError> {
        let (value, rest) = self.rest.split_at_checked(length).ok_or(DecodeError::Truncated)?;
        self.rest = rest;
        Ok(value)
    }

    pub(crate) fn bytes(&mut self) -> Result<&'a [u8], DecodeError> {
        let length = usize::try_from(self.number()?).map_err(|_| DecodeError::Truncated)?;
        self.fixed(length)
    }

    pub(crate) fn text(&mut self) -> Result<&'a str, DecodeError> {
        std::str::from_utf8(self.bytes()?).map_err(|_| DecodeError::invalid("a text is not UTF-8", ""))
    }

    pub(crate) fn magic(&mut self, expected: &'static str) -> Result<(), DecodeError> {
        match self.fixed(expected.len()) {
            Ok(found) if found == expected.as_bytes() => Ok(()),
            Ok(_) | Err(_) => Err(DecodeError::Magic { expected }),
        }
    }

    pub(crate) fn finish(self) -> Result<(), DecodeError> {
        if self.rest.is_empty() { Ok(()) } else { Err(DecodeError::Trailing { bytes: self.rest.len() as u64 }) }
    }
}

impl Items for Decoder<'_> {
    type Error = DecodeError;

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        self.fixed(N)?.try_into().map_err(|_| DecodeError::Truncated)
    }

    fn short_text(&mut self, bytes_max: usize, too_long: &'static str) -> Result<String, DecodeError> {
        let text = self.text()?;
        if text.len() > bytes_max { Err(DecodeError::invalid(too_long, text)) } else { Ok(text.to_owned()) }
    }

    fn left(&self) -> u64 {
        self.rest.len() as u64
    }
}

/// What both decoders take apart in the same way.
pub(crate) trait Items {
    /// [`DecodeError`], or something that can be one.
    type Error: From<DecodeError>;

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Self::Error>;

    /// A text of at most so many bytes.
    fn short_text(&mut self, bytes_max: usize, too_long: &'static str) -> Result<String, Self::Error>;

    /// How many bytes are left.
    fn left(&self) -> u64;

    fn tag(&mut self) -> Result<u8, Self::Error> {
        self.array::<1>().map(|[value]| value)
    }

    fn number(&mut self) -> Result<u64, Self::Error> {
        self.array().map(u64::from_le_bytes)
    }

    fn digest(&mut self) -> Result<Digest, Self::Error> {
        self.array().map(Digest::from_bytes)
    }

    /// A count of items of at least `item_bytes` bytes each, so that a lie is refused before anything is reserved.
    fn count(&mut self, what: &'static str, limit: u64, item_bytes: u64) -> Result<usize, Self::Error> {
        let value = self.number()?;
        if value > limit {
            return Err(DecodeError::Limit { what, value, limit }.into());
        }
        if value.saturating_mul(item_bytes) > self.left() {
            return Err(DecodeError::Truncated.into());
        }
        usize::try_from(value).map_err(|_| DecodeError::Truncated.into())
    }
}

/// Why a structure cannot be read from a stream.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The bytes are not canonical.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// There are no bytes to be had.
    #[error("the bytes cannot be read")]
    Read(#[source] io::Error),
}

/// Takes canonical bytes apart while they arrive, so that a long structure is never in memory as a whole.
#[derive(Debug)]
pub(crate) struct StreamDecoder<R> {
    reader: io::BufReader<R>,
    left: u64,
}

impl<R: Read> StreamDecoder<R> {
    /// Reads a structure of exactly `length` bytes.
    pub(crate) fn new(reader: R, length: u64) -> Self {
        Self { reader: io::BufReader::with_capacity(PORTION_BYTES, reader), left: length }
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), ReadError> {
        self.left = self.left.checked_sub(bytes.len() as u64).ok_or(DecodeError::Truncated)?;
        self.reader.read_exact(bytes).map_err(|error| {
            if error.kind() == io::ErrorKind::UnexpectedEof { DecodeError::Truncated.into() } else { ReadError::Read(error) }
        })
    }

    /// Reads a text into `text`; what was in it is gone. `bytes_max` is checked before memory is reserved.
    pub(crate) fn text_into(&mut self, text: &mut String, bytes_max: usize, too_long: &'static str) -> Result<(), ReadError> {
        let length = self.number()?;
        if length > self.left {
            return Err(DecodeError::Truncated.into());
        }
        let fitting = usize::try_from(length).ok().filter(|length| *length <= bytes_max);
        let mut bytes = std::mem::take(text).into_bytes();
        bytes.resize(fitting.unwrap_or(bytes_max), 0);
        self.fill(&mut bytes)?;
        if fitting.is_none() {
            return Err(DecodeError::invalid(too_long, &String::from_utf8_lossy(&bytes)).into());
        }
        *text = String::from_utf8(bytes).map_err(|_| DecodeError::invalid("a text is not UTF-8", ""))?;
        Ok(())
    }

    pub(crate) fn magic(&mut self, expected: &'static str) -> Result<(), ReadError> {
        let mut found = vec![0; expected.len()];
        match self.fill(&mut found) {
            Ok(()) if found == expected.as_bytes() => Ok(()),
            Ok(()) | Err(ReadError::Decode(_)) => Err(DecodeError::Magic { expected }.into()),
            Err(error) => Err(error),
        }
    }

    /// Checks that nothing follows, neither within the stated length nor behind it.
    pub(crate) fn finish(mut self) -> Result<(), ReadError> {
        if self.left > 0 {
            return Err(DecodeError::Trailing { bytes: self.left }.into());
        }
        match self.reader.read(&mut [0]).map_err(ReadError::Read)? {
            0 => Ok(()),
            more => Err(DecodeError::Trailing { bytes: more as u64 }.into()),
        }
    }
}

impl<R: Read> Items for StreamDecoder<R> {
    type Error = ReadError;

    fn array<const N: usize>(&mut self) -> Result<[u8; N], ReadError> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    fn short_text(&mut self, bytes_max: usize, too_long: &'static str) -> Result<String, ReadError> {
        let mut text = String::new();
        self.text_into(&mut text, bytes_max, too_long)?;
        Ok(text)
    }

    fn left(&self) -> u64 {
        self.left
    }
}

//! Frames: how messages of any kind are cut out of a byte stream.
//!
//! A frame is `u8 kind | u32 length, little endian | payload`. There is no checksum, because ssh has one and every
//! content is verified by its digest. The reader believes no declared length: its buffer grows only with the bytes
//! that have arrived. Kinds are opaque here and handed up: `0x00..=0x3f` belong to [`crate::transfer`], the rest to
//! whoever owns the stream. Normative text: `FORMAT.md`, section "Wire".

use std::io::{self, BufReader, BufWriter, Read, Write};

/// The longest payload of one frame, in bytes: a 4 MiB piece of content that does not compress, with room for a message around it.
pub const FRAME_BYTES_MAX: usize = 8 << 20;

/// The bytes before the payload: kind and length.
const HEADER_BYTES: usize = 5;

/// One message as it stood on the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// What the payload is; its meaning belongs to the layer above.
    pub kind: u8,
    /// At most [`FRAME_BYTES_MAX`] bytes.
    pub payload: Vec<u8>,
}

/// Why a stream could not be read or written as frames.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// The stream ended inside a frame.
    #[error("the connection ended within a message, {missing} bytes before its end")]
    Truncated {
        /// How many bytes were still to come.
        missing: usize,
    },
    /// A frame says that it is longer than any may be.
    #[error("a message of kind {kind:#04x} is {length} bytes long, the limit is {FRAME_BYTES_MAX}")]
    TooLong {
        /// The kind of the frame.
        kind: u8,
        /// The declared length, in bytes.
        length: usize,
    },
    /// The stream could not be read.
    #[error("cannot read from the connection")]
    Read {
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The stream could not be written.
    #[error("cannot write to the connection")]
    Write {
        /// The cause.
        #[source]
        source: io::Error,
    },
}

/// Reads frames from a byte stream.
///
/// It reads ahead, so the stream must not be read by anyone else.
#[derive(Debug)]
pub struct FrameReader<R: Read> {
    stream: BufReader<R>,
    bytes: u64,
}

impl<R: Read> FrameReader<R> {
    /// Starts at the first byte of a frame.
    pub fn new(stream: R) -> Self {
        Self { stream: BufReader::new(stream), bytes: 0 }
    }

    /// Reads the next frame, or nothing if the stream ended between two frames.
    ///
    /// Errors: [`WireError::Truncated`], [`WireError::TooLong`], [`WireError::Read`]. After an error the place in the stream is lost.
    pub fn read(&mut self) -> Result<Option<Frame>, WireError> {
        let mut header = Vec::with_capacity(HEADER_BYTES);
        self.read_up_to(HEADER_BYTES, &mut header)?;
        let [kind, length @ ..] = match <[u8; HEADER_BYTES]>::try_from(header.as_slice()) {
            Ok(header) => header,
            Err(_) if header.is_empty() => return Ok(None),
            Err(_) => return Err(WireError::Truncated { missing: HEADER_BYTES - header.len() }),
        };
        let length = usize::try_from(u32::from_le_bytes(length)).unwrap_or(usize::MAX);
        if length > FRAME_BYTES_MAX {
            return Err(WireError::TooLong { kind, length });
        }
        // An empty vector grows with what arrives; a capacity of `length` would let five bytes cost us eight megabytes.
        let mut payload = Vec::new();
        self.read_up_to(length, &mut payload)?;
        if payload.len() < length {
            return Err(WireError::Truncated { missing: length - payload.len() });
        }
        Ok(Some(Frame { kind, payload }))
    }

    /// How many bytes of frames have been read since the start.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    fn read_up_to(&mut self, length: usize, buffer: &mut Vec<u8>) -> Result<(), WireError> {
        let read = self.stream.by_ref().take(length as u64).read_to_end(buffer).map_err(|source| WireError::Read { source })?;
        self.bytes += read as u64;
        Ok(())
    }
}

/// Writes frames to a byte stream.
#[derive(Debug)]
pub struct FrameWriter<W: Write> {
    stream: BufWriter<W>,
    bytes: u64,
}

impl<W: Write> FrameWriter<W> {
    /// Starts where the reader expects the first byte of a frame.
    pub fn new(stream: W) -> Self {
        Self { stream: BufWriter::new(stream), bytes: 0 }
    }

    /// Writes one frame. It may stay in the buffer until [`Self::flush`].
    ///
    /// Errors: [`WireError::TooLong`] before anything is written; [`WireError::Write`].
    pub fn write(&mut self, kind: u8, payload: &[u8]) -> Result<(), WireError> {
        let length = match u32::try_from(payload.len()) {
            Ok(length) if payload.len() <= FRAME_BYTES_MAX => length,
            _ => return Err(WireError::TooLong { kind, length: payload.len() }),
        };
        let mut header = [kind, 0, 0, 0, 0];
        header[1..].copy_from_slice(&length.to_le_bytes());
        self.stream.write_all(&header).and_then(|()| self.stream.write_all(payload)).map_err(|source| WireError::Write { source })?;
        self.bytes += (HEADER_BYTES + payload.len()) as u64;
        Ok(())
    }

    /// Hands everything written so far to the stream. Needed before waiting for an answer.
    ///
    /// Errors: [`WireError::Write`].
    pub fn flush(&mut self) -> Result<(), WireError> {
        self.stream.flush().map_err(|source| WireError::Write { source })
    }

    /// How many bytes of frames have been written since the start.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A stream that hands out one byte at a time, as a slow network may.
    struct Trickle<'a>(&'a [u8]);

    impl Read for Trickle<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let length = buffer.len().min(1);
            self.0.read(&mut buffer[..length])
        }
    }

    fn written(frames: &[(u8, Vec<u8>)]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut writer = FrameWriter::new(&mut bytes);
        for (kind, payload) in frames {
            writer.write(*kind, payload).unwrap();
        }
        writer.flush().unwrap();
        drop(writer);
        bytes
    }

    proptest! {
        #[test]
        fn frames_round_trip_and_every_cut_is_noticed(frames in prop::collection::vec((any::<u8>(), prop::collection::vec(any::<u8>(), 0..40)), 0..5)) {
            let bytes = written(&frames);
            let mut reader = FrameReader::new(Trickle(&bytes));
            for (kind, payload) in &frames {
                prop_assert_eq!(reader.read().unwrap(), Some(Frame { kind: *kind, payload: payload.clone() }));
            }
            prop_assert_eq!(reader.read().unwrap(), None);
            prop_assert_eq!(reader.bytes(), bytes.len() as u64);

            let mut ends = vec![0];
            ends.extend(frames.iter().scan(0, |end, (_, payload)| { *end += 5 + payload.len(); Some(*end) }));
            for cut in 0..bytes.len() {
                let mut reader = FrameReader::new(&bytes[..cut]);
                let outcome = loop {
                    match reader.read() {
                        Ok(Some(_)) => {}
                        Ok(None) => break true,
                        Err(WireError::Truncated { .. }) => break false,
                        Err(other) => panic!("{other}"),
                    }
                };
                prop_assert_eq!(outcome, ends.contains(&cut), "cut at {}", cut);
            }
        }
    }

    #[test]
    fn a_length_is_neither_believed_nor_allowed_beyond_the_limit() {
        let longest = u32::try_from(FRAME_BYTES_MAX).unwrap();
        let header = |length: u32| [&[7][..], &length.to_le_bytes()].concat();
        assert!(matches!(FrameReader::new(&header(longest)[..]).read(), Err(WireError::Truncated { missing: FRAME_BYTES_MAX })));
        assert!(matches!(FrameReader::new(&header(longest + 1)[..]).read(), Err(WireError::TooLong { kind: 7, .. })));
        assert!(matches!(FrameWriter::new(io::sink()).write(7, &vec![0; FRAME_BYTES_MAX + 1]), Err(WireError::TooLong { kind: 7, .. })));
    }
}

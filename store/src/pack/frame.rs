//! The one zstd frame around an archive.
//!
//! Its parameters are fixed, so its first six bytes are. Compressed bytes are never an identity: another version of zstd gives others.
//! The reader stops at the limits that it is given, on both sides of the decompressor, and at the frame's last byte.

use std::io::{self, BufRead, Chain, Cursor, Read, Write};

use zstd::stream::read::Decoder;
use zstd::stream::write::Encoder;

use super::error::Problem;
use super::{RATIO_FREE_BYTES, RATIO_MAX};

/// The level of zstd. Measured on programs and libraries: 7 % smaller than level 3 at half its speed; level 9 gains as much again for twice the time.
const LEVEL: i32 = 6;

/// The binary logarithm of the window: 8 MiB, which every decoder has to support (RFC 8878, section 3.1.1.1.2).
const WINDOW_LOG: u8 = 23;

/// What every frame of ours starts with: the magic number; a descriptor that says checksum, no size and no dictionary; the window.
const START: [u8; 6] = [0x28, 0xb5, 0x2f, 0xfd, 0x04, (WINDOW_LOG - 10) << 3];

/// Starts a frame. Its size is not pledged: it need not be known, and a wrong one makes a broken frame.
pub(super) fn encoder<W: Write>(writer: W) -> io::Result<Encoder<'static, Counted<W>>> {
    let mut encoder = Encoder::new(Counted { writer, bytes: 0 }, LEVEL)?;
    encoder.window_log(u32::from(WINDOW_LOG))?;
    encoder.include_checksum(true)?;
    Ok(encoder)
}

/// Counts what is written.
#[derive(Debug)]
pub(super) struct Counted<W> {
    writer: W,
    pub(super) bytes: u64,
}

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = self.writer.write(bytes)?;
        self.bytes += length as u64;
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

/// Refuses an archive that is out of proportion to its packed bytes, at any place of both.
pub(super) fn check_ratio(unpacked: u64, packed: u64) -> Result<(), Problem> {
    if unpacked > RATIO_FREE_BYTES.saturating_add(packed.saturating_mul(RATIO_MAX)) { Err(Problem::Ratio) } else { Ok(()) }
}

/// The longest frame that an archive of `unpacked` bytes can have: what does not compress costs three bytes a block.
pub(super) const fn packed_bytes_max(unpacked: u64) -> u64 {
    unpacked.saturating_add(unpacked / 256).saturating_add(64 << 10)
}

/// Takes one frame apart.
pub(super) struct Frame<R: BufRead> {
    decoder: Decoder<'static, Metered<R>>,
    unpacked: u64,
}

impl<R: BufRead> Frame<R> {
    /// Checks the start of the frame; at most `packed_max` bytes of it will be read.
    pub(super) fn open(mut reader: R, packed_max: u64) -> Result<Self, Problem> {
        let mut start = [0; START.len()];
        match reader.read_exact(&mut start) {
            Ok(()) => check_start(start)?,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(Problem::Truncated { place: "its first bytes".into() });
            }
            Err(error) => return Err(Problem::Read(error)),
        }
        let metered = Metered { reader: Cursor::new(start).chain(reader), packed: 0, packed_max, failed: None };
        let mut decoder = Decoder::with_buffer(metered).map_err(Problem::Compressed)?.single_frame();
        decoder.window_log_max(u32::from(WINDOW_LOG)).map_err(Problem::Compressed)?;
        Ok(Self { decoder, unpacked: 0 })
    }

    /// Changes how many bytes of the frame may be read in all.
    pub(super) fn limit(&mut self, packed_max: u64) {
        self.decoder.get_mut().packed_max = packed_max;
    }

    /// Fills `buffer`; `place` says within what, for messages.
    pub(super) fn fill(&mut self, buffer: &mut [u8], place: impl Fn() -> String) -> Result<(), Problem> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.decoder.read(&mut buffer[filled..]) {
                Ok(0) => return Err(Problem::Truncated { place: place() }),
                Ok(length) => {
                    filled += length;
                    self.unpacked += length as u64;
                    check_ratio(self.unpacked, self.decoder.get_ref().packed)?;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.explain(error, place())),
            }
        }
        Ok(())
    }

    /// Checks that the frame ends here; returns the reader, just behind it.
    pub(super) fn finish(mut self) -> Result<R, Problem> {
        let place = || "the end of the archive".to_owned();
        match self.decoder.read(&mut [0]) {
            Ok(0) => {}
            Ok(_) => return Err(Problem::Trailing),
            Err(error) => return Err(self.explain(error, place())),
        }
        if let Err(error) = self.decoder.finish_frame() {
            return Err(self.explain(error, place()));
        }
        let (_start, reader) = self.decoder.finish().reader.into_inner();
        Ok(reader)
    }

    fn explain(&mut self, error: io::Error, place: String) -> Problem {
        let metered = self.decoder.get_mut();
        match metered.failed.take() {
            Some(Failure::Limit) => Problem::PackedTooLong { limit: metered.packed_max },
            Some(Failure::Read) => Problem::Read(error),
            None if error.kind() == io::ErrorKind::UnexpectedEof => Problem::Truncated { place },
            None => Problem::Compressed(error),
        }
    }
}

/// Why reading packed bytes failed, which zstd passes on as if it were its own error.
enum Failure {
    Limit,
    Read,
}

/// Counts what the decompressor takes, and stops at a limit.
struct Metered<R> {
    reader: Chain<Cursor<[u8; START.len()]>, R>,
    packed: u64,
    packed_max: u64,
    failed: Option<Failure>,
}

impl<R: BufRead> Read for Metered<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.fill_buf()?.read(buffer)?;
        self.consume(length);
        Ok(length)
    }
}

impl<R: BufRead> BufRead for Metered<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.packed > self.packed_max {
            self.failed = Some(Failure::Limit);
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        match self.reader.fill_buf() {
            Ok(bytes) => Ok(bytes),
            Err(error) => {
                if error.kind() != io::ErrorKind::Interrupted {
                    self.failed = Some(Failure::Read);
                }
                Err(error)
            }
        }
    }

    fn consume(&mut self, length: usize) {
        self.packed += length as u64;
        self.reader.consume(length);
    }
}

/// Compares the first bytes with ours, and finds words for others.
fn check_start(found: [u8; START.len()]) -> Result<(), Problem> {
    if found == START {
        return Ok(());
    }
    let [magic @ .., descriptor, window] = found;
    if magic != START[..4] {
        return Err(Problem::Start("it does not start as a zstd frame does"));
    }
    if descriptor != START[4] {
        return Err(Problem::Start("its zstd frame has other properties than a packed object's: a checksum, no size, no dictionary"));
    }
    // RFC 8878, section 3.1.1.1.2.
    let base = 1u64 << (10 + (window >> 3));
    Err(Problem::Window { found: base + base / 8 * u64::from(window & 7), expected: 1 << WINDOW_LOG })
}

//! Hashes and scans a file that does not fit into one chunk.

use std::io::{self, Read};

use crate::Digest;
use crate::progress::Counters;
use crate::scan::{Candidates, Found, Scanner};

/// Hashes and scans a file chunk by chunk.
pub(super) struct LargeScan<'a> {
    scanner: Option<Scanner<'a>>,
    hasher: blake3::Hasher,
    size: u64,
    progress: &'a Counters,
}

impl<'a> LargeScan<'a> {
    pub(super) fn new(candidates: &'a Candidates, progress: &'a Counters) -> Self {
        let scanner = (!candidates.is_empty()).then(|| Scanner::new(candidates));
        Self { scanner, hasher: blake3::Hasher::new(), size: 0, progress }
    }

    /// Goes through `start` and what the reader gives; hands on what is settled, the own stand-in zeroed out.
    pub(super) fn run(
        &mut self,
        start: &[u8],
        reader: &mut impl Read,
        buffer: &mut [u8],
        mut write: impl FnMut(&[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        self.settle(start, &mut write)?;
        loop {
            match reader.read(buffer) {
                Ok(0) => break,
                Ok(length) => self.settle(&buffer[..length], &mut write)?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        let Some(scanner) = &mut self.scanner else { return Ok(()) };
        let rest = scanner.rest();
        self.hasher.update(rest);
        self.size += rest.len() as u64;
        write(rest)
    }

    fn settle(&mut self, chunk: &[u8], write: &mut impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        let settled = match &mut self.scanner {
            Some(scanner) => scanner.push(chunk),
            None => chunk,
        };
        self.hasher.update(settled);
        self.size += settled.len() as u64;
        self.progress.add_bytes(settled.len() as u64);
        write(settled)
    }

    pub(super) fn finish(self) -> (Digest, u64, Found) {
        (Digest::from(self.hasher.finalize()), self.size, self.scanner.map(Scanner::into_found).unwrap_or_default())
    }
}

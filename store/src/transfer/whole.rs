//! Contents as one stream of pieces, without marks between them: small files share a piece, a large one takes several.

use std::collections::VecDeque;

use super::limits::PIECE_BYTES_MAX;
use super::piece::PieceBuffer;
use super::send_contents::wrong_content;
use super::stores::{Objects, ReadAt};
use super::{Content, Offered, TransferError};
use crate::Digest;

/// How much of a file is read at a time, in bytes: large enough that system calls do not count.
const READ_BYTES: usize = 256 << 10;

/// A stream on its way.
pub(crate) struct Whole<S: Objects> {
    /// What is still to come.
    indices: VecDeque<usize>,
    file: Option<Current<S::File>>,
    buffer: PieceBuffer,
}

/// The content that is being read.
struct Current<F> {
    index: usize,
    file: F,
    done: u64,
    hasher: Box<blake3::Hasher>,
}

impl<S: Objects> Whole<S> {
    pub(crate) fn new(indices: VecDeque<usize>) -> Self {
        Self { indices, file: None, buffer: PieceBuffer::default() }
    }

    /// The next piece; none at the end of the stream.
    pub(crate) fn next(&mut self, store: &S, offered: &Offered, lacked: &[Content], level: i32) -> Result<Option<Vec<u8>>, TransferError> {
        self.buffer.set_level(level);
        let mut chunk = Vec::new();
        loop {
            let Some(mut current) = self.take_current(store, offered, lacked)? else { return self.buffer.finish() };
            let content = &lacked[current.index];
            let left = usize::try_from(content.size - current.done).unwrap_or(PIECE_BYTES_MAX);
            let length = left.min(self.buffer.room()).min(READ_BYTES);
            chunk.resize(length, 0);
            current.file.read_exact_at(&mut chunk, current.done).map_err(|source| offered.unreadable(content, source))?;
            current.hasher.update(&chunk);
            current.done += length as u64;
            let piece = self.buffer.append(&chunk)?;
            if current.done < content.size {
                self.file = Some(current);
            } else if Digest::from(current.hasher.finalize()) != content.digest {
                return Err(offered.unreadable(content, wrong_content()));
            }
            if piece.is_some() {
                return Ok(piece);
            }
        }
    }

    fn take_current(&mut self, store: &S, offered: &Offered, lacked: &[Content]) -> Result<Option<Current<S::File>>, TransferError> {
        if let Some(current) = self.file.take() {
            return Ok(Some(current));
        }
        let Some(index) = self.indices.pop_front() else { return Ok(None) };
        let (file, length) = offered.open(&lacked[index], store)?;
        if length != lacked[index].size {
            return Err(offered.unreadable(&lacked[index], wrong_content()));
        }
        Ok(Some(Current { index, file, done: 0, hasher: Box::new(blake3::Hasher::new()) }))
    }
}

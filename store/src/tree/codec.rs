//! The two forms of a tree as bytes: as it is stored, and as its object's id is computed from it. Both are written and read in portions.
//!
//! FORMAT.md, sections "Trees" and "Object ids".

use std::io::{self, Read, Write};

use super::builder::TreeBuilder;
use super::{
    ENTRIES_MAX, EntryView, KindView, SELF_REFERENCES_MAX, SELF_ZEROS, SelfReferences, TARGET_BYTES_MAX, TREE_MAGIC, Tree, write_at,
};
use crate::canon::{DecodeError, Encoder, Items, ReadError, StreamDecoder};
use crate::path::PATH_BYTES_MAX;

impl Tree {
    /// Writes the stored form.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(usize::try_from(self.encoded_bytes).unwrap_or(0));
        let written: Result<(), std::convert::Infallible> = self.hand_out(&mut |portion| {
            bytes.extend_from_slice(portion);
            Ok(())
        });
        let Ok(()) = written;
        bytes
    }

    /// Writes the stored form to `writer`, in portions.
    pub fn encode_to(&self, writer: &mut impl Write) -> io::Result<()> {
        self.hand_out(&mut |portion| writer.write_all(portion))
    }

    /// The length of the stored form.
    pub const fn encoded_bytes(&self) -> u64 {
        self.encoded_bytes
    }

    /// Reads the stored form.
    ///
    /// Errors: [`DecodeError`] for anything that [`Self::encode`] would not have written.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        Self::decode_from(bytes, bytes.len() as u64).map_err(|error| match error {
            ReadError::Decode(error) => error,
            // Reading from memory cannot fail otherwise.
            ReadError::Read(_) => DecodeError::Truncated,
        })
    }

    /// Reads the stored form, which has `length` bytes and must end there, without holding it in memory.
    ///
    /// Errors: as [`Self::decode`], and what the reader says.
    pub fn decode_from(reader: impl Read, length: u64) -> Result<Self, ReadError> {
        let mut decoder = StreamDecoder::new(reader, length);
        let tree = Self::decode_next(&mut decoder)?;
        decoder.finish()?;
        Ok(tree)
    }

    /// Reads the stored form from within another structure.
    pub(crate) fn decode_next<R: Read>(decoder: &mut StreamDecoder<R>) -> Result<Self, ReadError> {
        decoder.magic(TREE_MAGIC)?;
        // The shortest entry is a directory of one letter: tag, length, letter.
        let count = decoder.count("entries of a tree", ENTRIES_MAX, 10)?;
        let mut builder = TreeBuilder::new();
        let (mut path, mut target) = (String::new(), String::new());
        for _ in 0..count {
            decode_entry(decoder, &mut builder, &mut path, &mut target)?;
        }
        Ok(builder.finish()?)
    }

    fn hand_out<E>(&self, to: &mut impl FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
        let mut encoder = Encoder::new("");
        encoder.fixed(TREE_MAGIC.as_bytes()).count(self.len());
        let mut cursor = self.cursor();
        while let Some(entry) = cursor.next() {
            encode_entry(&mut encoder, &entry);
            encoder.hand_on(to)?;
        }
        encoder.hand_on_all(to)
    }

    /// Appends the form that an id is computed from, digests and targets with the own id zeroed out, and hands it on to the hash in portions.
    pub(crate) fn hash_for_id(&self, mut encoder: Encoder, hasher: &mut blake3::Hasher) {
        let mut to = |portion: &[u8]| {
            hasher.update(portion);
            Ok::<(), std::convert::Infallible>(())
        };
        encoder.count(self.len());
        let mut cursor = self.cursor();
        while let Some(EntryView { position: _, path, kind }) = cursor.next() {
            encoder.tag(tag_of(&kind)).text(path);
            match kind {
                KindView::Directory => {}
                KindView::File { size, digest, executable: _, self_references } => {
                    let (content, offsets) = match self_references {
                        Some(SelfReferences { offsets, modulo }) => (modulo, offsets.as_slice()),
                        None => (digest, [].as_slice()),
                    };
                    encoder.number(size).digest(content);
                    encode_offsets(&mut encoder, offsets);
                }
                KindView::Symlink { target, self_offsets } => {
                    let mut zeroed = target.as_bytes().to_vec();
                    write_at(&mut zeroed, self_offsets, SELF_ZEROS);
                    encoder.bytes(&zeroed);
                    encode_offsets(&mut encoder, self_offsets);
                }
            }
            let Ok(()) = encoder.hand_on(&mut to);
        }
        let Ok(()) = encoder.hand_on_all(&mut to);
    }
}

const fn tag_of(kind: &KindView<'_>) -> u8 {
    match kind {
        KindView::Directory => 0,
        KindView::File { executable: false, .. } => 1,
        KindView::File { executable: true, .. } => 2,
        KindView::Symlink { .. } => 3,
    }
}

fn encode_offsets(encoder: &mut Encoder, offsets: &[u64]) {
    encoder.count(offsets.len());
    for offset in offsets {
        encoder.number(*offset);
    }
}

pub(super) fn encode_entry(encoder: &mut Encoder, EntryView { position: _, path, kind }: &EntryView<'_>) {
    encoder.tag(tag_of(kind)).text(path);
    match kind {
        KindView::Directory => {}
        KindView::File { size, digest, executable: _, self_references } => {
            encoder.number(*size).digest(digest);
            match self_references {
                Some(SelfReferences { offsets, modulo }) => {
                    encode_offsets(encoder, offsets);
                    encoder.digest(modulo);
                }
                None => encode_offsets(encoder, &[]),
            }
        }
        KindView::Symlink { target, self_offsets } => {
            encoder.text(target);
            encode_offsets(encoder, self_offsets);
        }
    }
}

/// How many bytes the tag and the path of an entry take when stored.
pub(super) const fn path_bytes(path: &str) -> u64 {
    1 + 8 + path.len() as u64
}

/// How many bytes the rest of an entry takes when stored.
pub(super) const fn kind_bytes(kind: &KindView<'_>) -> u64 {
    match kind {
        KindView::Directory => 0,
        KindView::File { self_references: None, .. } => 8 + 32 + 8,
        KindView::File { self_references: Some(own), .. } => 8 + 32 + 8 + 8 * own.offsets.len() as u64 + 32,
        KindView::Symlink { target, self_offsets } => 8 + target.len() as u64 + 8 + 8 * self_offsets.len() as u64,
    }
}

fn decode_offsets<R: Read>(decoder: &mut StreamDecoder<R>) -> Result<Vec<u64>, ReadError> {
    let count = decoder.count("references of an object to itself", SELF_REFERENCES_MAX, 8)?;
    (0..count).map(|_| decoder.number()).collect()
}

fn decode_entry<R: Read>(
    decoder: &mut StreamDecoder<R>,
    builder: &mut TreeBuilder,
    path: &mut String,
    target: &mut String,
) -> Result<(), ReadError> {
    let tag = decoder.tag()?;
    decoder.text_into(path, PATH_BYTES_MAX, "unusable path")?;
    match tag {
        0 => builder.push(path, KindView::Directory)?,
        1 | 2 => {
            let size = decoder.number()?;
            let digest = decoder.digest()?;
            let offsets = decode_offsets(decoder)?;
            let own = if offsets.is_empty() { None } else { Some(SelfReferences { offsets, modulo: decoder.digest()? }) };
            builder.push(path, KindView::File { size, digest: &digest, executable: tag == 2, self_references: own.as_ref() })?
        }
        3 => {
            decoder.text_into(target, usize::try_from(TARGET_BYTES_MAX).unwrap_or(0), "unusable link target")?;
            let self_offsets = decode_offsets(decoder)?;
            builder.push(path, KindView::Symlink { target, self_offsets: &self_offsets })?
        }
        _ => return Err(DecodeError::invalid("unknown kind of entry", path).into()),
    };
    Ok(())
}

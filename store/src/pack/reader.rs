//! Unpacks one object, strictly.
//!
//! The manifest is the first member. It gives every further byte but the contents, and those have digests; so each head is compared with the one
//! that the writer would have made. No name, size or kind of the archive is ever used; [`diagnosis`](super::diagnosis) finds words for differences.

use std::io::{BufRead, Write};

use super::TAR_BYTES_MAX;
use super::diagnosis;
use super::error::{PackError, Problem};
use super::frame::{Frame, packed_bytes_max};
use super::member::{BLOCK_BYTES, END, Member, chunk_bytes, in_archive_order, padding, tar_bytes};
use super::statement::Statement;
use crate::error::StoreError;
use crate::fsutil::IoResultExt;
use crate::object::{MANIFEST_BYTES_MAX, ObjectManifest};
use crate::transaction::Transaction;
use crate::tree::{Entry, EntryKind};
use crate::{Digest, ObjectRef};

/// Reads a packed object from start to end into a transaction; it gets its name at the barrier, with others.
///
/// `object` is what is expected: its id covers every byte. Who has a [`Statement`] knows the lengths beforehand, too.
/// Errors: [`PackError::Refused`] for everything that [`pack_object`](super::pack_object) would not have written, bytes behind the end included.
pub fn unpack_object(transaction: &mut Transaction, object: &ObjectRef, reader: impl BufRead) -> Result<ObjectManifest, PackError> {
    let refuse = |problem: Problem| problem.refusing(object);
    let unpacking = Unpacking::open(reader, object, MANIFEST_BYTES_MAX, |_, _| Ok(())).map_err(refuse)?;
    let (manifest, mut rest) = unpacking.unpack_into(transaction)?;
    match rest.fill_buf() {
        Ok([]) => Ok(manifest),
        Ok(_) => Err(refuse(Problem::Trailing)),
        Err(error) => Err(refuse(Problem::Read(error))),
    }
}

/// A packed object whose manifest is read and believed.
pub(super) struct Unpacking<R: BufRead> {
    frame: Frame<R>,
    manifest: ObjectManifest,
}

impl<R: BufRead> Unpacking<R> {
    /// Reads as far as the manifest, which must be the one of the statement.
    pub(super) fn open_stated(reader: R, statement: &Statement) -> Result<Self, Problem> {
        Self::open(reader, &statement.object, statement.manifest_bytes.min(MANIFEST_BYTES_MAX), |encoded, manifest| {
            let same = Digest::of(encoded) == statement.manifest && encoded.len() as u64 == statement.manifest_bytes;
            if !same || manifest.references != statement.references {
                return Err(Problem::Manifest("its manifest is not the one that was signed"));
            }
            if tar_bytes(manifest, statement.manifest_bytes) != statement.tar_bytes {
                return Err(Problem::Manifest("its archive has not the length that was signed"));
            }
            Ok(())
        })
    }

    fn open(
        reader: R,
        object: &ObjectRef,
        manifest_bytes_max: u64,
        check: impl FnOnce(&[u8], &ObjectManifest) -> Result<(), Problem>,
    ) -> Result<Self, Problem> {
        let mut frame = Frame::open(reader, packed_bytes_max(manifest_bytes_max))?;
        let encoded = read_manifest(&mut frame, object, manifest_bytes_max)?;
        let manifest = ObjectManifest::decode(&encoded).map_err(|source| Problem::Structure { what: "manifest", source })?;
        if manifest.object != *object {
            return Err(Problem::Manifest("its manifest is of another object"));
        }
        let length = tar_bytes(&manifest, encoded.len() as u64);
        if length > TAR_BYTES_MAX {
            return Err(Problem::Limit { what: "bytes of the archive", value: length, limit: TAR_BYTES_MAX });
        }
        check(&encoded, &manifest)?;
        frame.limit(packed_bytes_max(length));
        Ok(Self { frame, manifest })
    }

    /// Reads the rest into the transaction; returns the reader, just behind the frame.
    pub(super) fn unpack_into(self, transaction: &mut Transaction) -> Result<(ObjectManifest, R), PackError> {
        let Self { mut frame, manifest } = self;
        let object = &manifest.object;
        let refuse = |problem: Problem| problem.refusing(object);
        expect_head(&mut frame, &Member::top(object), None, &manifest).map_err(refuse)?;
        let mut previous = None;
        for entry in in_archive_order(&manifest.tree).into_iter().filter_map(|position| manifest.tree.entry(position)) {
            let member = Member::entry(object, &entry);
            expect_head(&mut frame, &member, previous.as_ref(), &manifest).map_err(refuse)?;
            if let EntryKind::File { size, digest, .. } = &entry.kind {
                receive_content(&mut frame, &entry, *size, digest, object, transaction)?;
            }
            expect_padding(&mut frame, &member).map_err(refuse)?;
            previous = Some(entry.path);
        }
        expect_end(&mut frame, &manifest).map_err(refuse)?;
        let rest = frame.finish().map_err(refuse)?;
        transaction.put_received(&manifest)?;
        Ok((manifest, rest))
    }
}

/// Reads the first member. Its size is the only number that is taken from an archive.
fn read_manifest<R: BufRead>(frame: &mut Frame<R>, object: &ObjectRef, bytes_max: u64) -> Result<Vec<u8>, Problem> {
    let mut head = [0; BLOCK_BYTES];
    frame.fill(&mut head, || "the head of its manifest".to_owned())?;
    let size = tar::Header::from_byte_slice(&head).entry_size().unwrap_or(0);
    let member = Member::manifest(object, size);
    if size > bytes_max {
        return Err(Problem::Limit { what: "bytes of the manifest", value: size, limit: bytes_max });
    }
    if head[..] != member.head() {
        return Err(diagnosis::explain_first(&member, &head));
    }
    let mut encoded = Vec::new();
    let mut left = size;
    while left > 0 {
        // The memory grows with what arrives.
        let length = chunk_bytes(left);
        let start = encoded.len();
        encoded.resize(start + length, 0);
        frame.fill(&mut encoded[start..], || "its manifest".to_owned())?;
        left -= length as u64;
    }
    expect_padding(frame, &member)?;
    Ok(encoded)
}

/// Reads the head of a member, which must be the one expected.
fn expect_head<R: BufRead>(
    frame: &mut Frame<R>,
    member: &Member,
    previous: Option<&crate::RelPath>,
    manifest: &ObjectManifest,
) -> Result<(), Problem> {
    for expected in member.head().chunks(BLOCK_BYTES) {
        let mut found = [0; BLOCK_BYTES];
        frame.fill(&mut found, || format!("the head of `{}`", member.path))?;
        if found[..] != *expected {
            return Err(diagnosis::explain(member, expected, &found, previous, manifest));
        }
    }
    Ok(())
}

fn expect_padding<R: BufRead>(frame: &mut Frame<R>, member: &Member) -> Result<(), Problem> {
    let expected = padding(member.content_bytes());
    let mut found = vec![0; expected.len()];
    frame.fill(&mut found, || format!("the padding of `{}`", member.path))?;
    if found == expected {
        Ok(())
    } else {
        Err(Problem::Member { path: member.path.clone(), reason: "is padded with other bytes than zeros".to_owned() })
    }
}

/// Reads the two blocks at the end.
fn expect_end<R: BufRead>(frame: &mut Frame<R>, manifest: &ObjectManifest) -> Result<(), Problem> {
    for expected in END.chunks(BLOCK_BYTES) {
        let mut found = [0; BLOCK_BYTES];
        frame.fill(&mut found, || "the end of the archive".to_owned())?;
        if found[..] != *expected {
            return Err(diagnosis::explain_surplus(&found, manifest));
        }
    }
    Ok(())
}

/// Reads a content. One that is at hand is checked like any other, but not written.
fn receive_content<R: BufRead>(
    frame: &mut Frame<R>,
    entry: &Entry,
    size: u64,
    expected: &Digest,
    object: &ObjectRef,
    transaction: &mut Transaction,
) -> Result<(), PackError> {
    let mut writer = if transaction.has_content(expected)? { None } else { Some(transaction.receive_content()?) };
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; chunk_bytes(size)];
    let mut left = size;
    while left > 0 {
        let length = chunk_bytes(left);
        let chunk = &mut buffer[..length];
        frame.fill(chunk, || format!("`{}`", entry.path)).map_err(|problem| problem.refusing(object))?;
        left -= length as u64;
        match &mut writer {
            Some(writer) => writer.write_all(chunk).at("store the content of", entry.path.as_path()).map_err(StoreError::from)?,
            None => drop(hasher.update(chunk)),
        }
    }
    let wrong = |found| Problem::Content { path: entry.path.to_string(), expected: *expected, found }.refusing(object);
    match writer {
        Some(writer) => match transaction.accept_content(writer, Some(expected)) {
            Err(StoreError::WrongContent { found, .. }) => Err(wrong(found)),
            accepted => Ok(accepted.map(drop)?),
        },
        None if Digest::from(hasher.finalize()) == *expected => Ok(()),
        None => Err(wrong(Digest::from(hasher.finalize()))),
    }
}

//! Packs one object of a store.
//!
//! Files are hashed again on the way: whoever packs vouches for what is packed.

use std::fs::File;
use std::io::{self, Read, Write};

use rustix::fs::{Mode, OFlags};
use zstd::stream::write::Encoder;

use super::error::{PackError, Problem};
use super::frame::{Counted, check_ratio, encoder};
use super::member::{END, Member, chunk_bytes, in_archive_order, padding};
use super::{TAR_BYTES_MAX, statement::Statement};
use crate::object::{MANIFEST_BYTES_MAX, ObjectManifest};
use crate::objects::ObjectStore;
use crate::transaction::Durable;
use crate::tree::{Entry, EntryKind};
use crate::{Digest, ObjectRef};

/// What became of one object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packed {
    /// What can be said of it and signed.
    pub statement: Statement,
    /// The length of the packed object, in bytes.
    pub packed_bytes: u64,
}

/// Writes one object as a packed object. The same version of zstd gives the same bytes.
///
/// Errors: [`StoreError::Missing`](crate::StoreError::Missing); [`PackError::Unreadable`] if a file is not what the manifest says;
/// [`PackError::Unpackable`] if a limit is passed; [`PackError::Write`]. What has been written is then part of nothing.
/// Source: FORMAT.md, "Packed objects"; POSIX pax(1), "ustar Interchange Format".
pub fn pack_object(store: &ObjectStore, object: &ObjectRef, writer: impl Write) -> Result<Packed, PackError> {
    // The proof keeps the collector away from what is being read.
    let _kept = Durable::of(store, object)?;
    let manifest = store.manifest(object)?;
    let statement = describe(&manifest)?;
    let mut archive = Archive { encoder: encoder(writer).map_err(PackError::Write)?, object, unpacked: 0 };
    let encoded = manifest.encode();
    archive.write(&Member::manifest(object, encoded.len() as u64).head())?;
    archive.write(&encoded)?;
    archive.write(padding(encoded.len() as u64))?;
    archive.write(&Member::top(object).head())?;
    for entry in in_archive_order(&manifest.tree).into_iter().filter_map(|position| manifest.tree.entry(position)) {
        let member = Member::entry(object, &entry);
        archive.write(&member.head())?;
        if let EntryKind::File { size, digest, .. } = &entry.kind {
            archive.copy_file(store, &entry, *size, digest)?;
        }
        archive.write(padding(member.content_bytes()))?;
    }
    archive.write(&END)?;
    let mut counted = archive.encoder.finish().map_err(PackError::Write)?;
    counted.flush().map_err(PackError::Write)?;
    Ok(Packed { statement, packed_bytes: counted.bytes })
}

/// Makes the statement of an object; refuses one that no reader would take.
pub(super) fn describe(manifest: &ObjectManifest) -> Result<Statement, PackError> {
    let statement = Statement::of(manifest);
    for (what, value, limit) in [
        ("bytes of the manifest", statement.manifest_bytes, MANIFEST_BYTES_MAX),
        ("bytes of the archive", statement.tar_bytes, TAR_BYTES_MAX),
    ] {
        if value > limit {
            return Err(PackError::Unpackable { object: manifest.object.clone(), source: Box::new(Problem::Limit { what, value, limit }) });
        }
    }
    Ok(statement)
}

/// An archive on its way into a frame.
struct Archive<'a, W: Write> {
    encoder: Encoder<'static, Counted<W>>,
    object: &'a ObjectRef,
    unpacked: u64,
}

impl<W: Write> Archive<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), PackError> {
        self.encoder.write_all(bytes).map_err(PackError::Write)?;
        self.unpacked += bytes.len() as u64;
        // What the compressor still holds is not counted, so no reader is stricter than this.
        check_ratio(self.unpacked, self.encoder.get_ref().bytes)
            .map_err(|source| PackError::Unpackable { object: self.object.clone(), source: Box::new(source) })
    }

    fn copy_file(&mut self, store: &ObjectStore, entry: &Entry, size: u64, digest: &Digest) -> Result<(), PackError> {
        let object = self.object;
        let unreadable = |source| PackError::Unreadable { object: object.clone(), path: entry.path.to_string(), source };
        let path = store.object_path(object).join(entry.path.as_path());
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let descriptor = rustix::fs::open(&path, flags, Mode::empty()).map_err(|errno| unreadable(errno.into()))?;
        let mut file = File::from(descriptor);
        let mut hasher = blake3::Hasher::new();
        let mut buffer = vec![0; chunk_bytes(size)];
        let mut left = size;
        while left > 0 {
            let chunk = &mut buffer[..chunk_bytes(left)];
            file.read_exact(chunk).map_err(unreadable)?;
            hasher.update(chunk);
            left -= chunk.len() as u64;
            self.write(chunk)?;
        }
        let longer = file.read(&mut [0]).map_err(unreadable)? != 0;
        if longer || Digest::from(hasher.finalize()) != *digest {
            return Err(unreadable(io::Error::other("the file is not the one in the manifest")));
        }
        Ok(())
    }
}

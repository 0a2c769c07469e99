//! Writes a closure as one file.
//!
//! The list of what comes is first, signed, in a frame that zstd skips; then the packed objects, one frame each. So a reader knows everything
//! before it unpacks anything, and `zstd -dc FILE | tar -xi` gets at the objects without sarsen.

use std::io::Write;

use super::error::{PackError, Problem};
use super::statement::{SignedStatement, encode_list};
use super::writer::{describe, pack_object};
use super::{EXPORT_OBJECTS_MAX, LIST_BYTES_MAX};
use crate::ObjectRef;
use crate::objects::ObjectStore;
use crate::signature::SecretKey;
use crate::transaction::Durable;

/// The magic number of the skippable frame that holds the list, as it stands in the file (RFC 8878, section 3.1.2).
pub(super) const LIST_FRAME: [u8; 4] = 0x184D_2A53_u32.to_le_bytes();

/// What an export holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exported {
    /// The objects, references before those who refer to them.
    pub objects: Vec<ObjectRef>,
    /// The length of their archives, in bytes before compression.
    pub tar_bytes: u64,
    /// The length of what was written, in bytes.
    pub file_bytes: u64,
}

/// Writes the closure of `roots`, signed by each of `signers`; without any, no import will take it.
///
/// Writes from start to end, holds manifests and a few megabytes in memory. The same closure, keys and version of zstd give the same bytes.
/// Errors: as of [`pack_object`]; [`PackError::Unpackable`] also if the closure is too large. What has been written is then useless.
pub fn export(store: &ObjectStore, roots: &[ObjectRef], mut writer: impl Write, signers: &[SecretKey]) -> Result<Exported, PackError> {
    let _kept = roots.iter().map(|root| Durable::of(store, root)).collect::<Result<Vec<_>, _>>()?;
    let objects = store.closure(roots)?;
    let too_large = |what, value, limit| PackError::List(Problem::Limit { what, value, limit });
    if objects.len() as u64 > EXPORT_OBJECTS_MAX {
        return Err(too_large("objects of an export", objects.len() as u64, EXPORT_OBJECTS_MAX));
    }
    let mut statements: Vec<SignedStatement> = Vec::with_capacity(objects.len());
    for object in &objects {
        statements.push(describe(&store.manifest(object)?)?.sign(signers));
    }
    let list = encode_list(&statements);
    let length = list.len() as u64;
    let (Ok(declared), true) = (u32::try_from(length), length <= LIST_BYTES_MAX) else {
        return Err(too_large("bytes of the list", length, LIST_BYTES_MAX));
    };
    for bytes in [&LIST_FRAME[..], &declared.to_le_bytes(), &list] {
        writer.write_all(bytes).map_err(PackError::Write)?;
    }
    let mut exported = Exported { objects, tar_bytes: 0, file_bytes: 8 + length };
    for object in &exported.objects {
        let packed = pack_object(store, object, &mut writer)?;
        exported.tar_bytes += packed.statement.tar_bytes;
        exported.file_bytes += packed.packed_bytes;
    }
    writer.flush().map_err(PackError::Write)?;
    Ok(exported)
}

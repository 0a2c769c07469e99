//! Packed objects: one object as one file, and closures of them with signatures.
//!
//! A packed object is a canonical tar in one zstd frame, so that `tar` reads it too. Its archive follows from the manifest byte for byte, but for
//! the contents; so the reader compares each header with the one that the writer would have made, and never acts on what an archive says.
//! [`export`] and [`import`] carry closures between hosts without a network; what is imported needs a signature by a trusted key.
//! Normative text: `FORMAT.md`, sections "Packed objects", "Statements" and "Exports".

mod diagnosis;
mod error;
mod export;
mod frame;
mod import;
mod member;
mod reader;
mod statement;
#[cfg(test)]
mod tests;
mod writer;

pub use error::{PackError, Problem};
pub use export::{Exported, export};
pub(crate) use import::unpack_unsigned;
pub use import::{Imported, import};
pub use reader::unpack_object;
pub use statement::{SignedStatement, Statement};
pub use writer::{Packed, pack_object};

/// The longest archive of one object, in bytes before compression. A database image of this size is no part of a deployment.
pub const TAR_BYTES_MAX: u64 = 1 << 40;

/// How many times longer than the packed bytes an archive may be, once it is longer than [`RATIO_FREE_BYTES`].
/// Text reaches 20, logs 100; zstd can reach 30,000 with zeros.
pub const RATIO_MAX: u64 = 1000;

/// The length of an archive up to which any ratio is fine, in bytes: a sparse disk image passes, and unpacking that much is quick.
pub const RATIO_FREE_BYTES: u64 = 1 << 30;

/// The most objects in one export. A host has hundreds.
pub const EXPORT_OBJECTS_MAX: u64 = 100_000;

/// The longest list at the start of an export, in bytes: 600 for each of [`EXPORT_OBJECTS_MAX`] objects.
pub const LIST_BYTES_MAX: u64 = 64 << 20;

/// The most signatures of one object: several keys while one replaces another, not more.
pub const SIGNATURES_MAX: u64 = 16;

//! Identities, canonical bytes, objects on disk, index and transfer.
//!
//! This crate knows nothing of components, of hosts' addresses, or of Starlark. What it knows stands in `FORMAT.md`.

pub mod canon;
pub mod digest;
pub mod error;
pub mod fsutil;
pub mod gc;
pub mod id;
mod index;
pub mod manifest;
pub mod object;
mod objects;
pub mod pack;
pub mod path;
pub mod progress;
mod recovery;
pub mod repair;
mod scan;
pub mod signature;
mod stat_cache;
mod transaction;
pub mod transfer;
pub mod tree;
mod usage;
pub mod verify;
pub mod wire;

pub use digest::{Digest, InvalidDigest};
pub use error::StoreError;
pub use id::{InvalidObjectName, ObjectId, ObjectName, ObjectRef};
pub use object::{ManifestHead, ObjectManifest};
pub use objects::{FORMAT_VERSION, ObjectStore};
pub use path::{InvalidPath, RelPath};
pub use transaction::{Durable, NewEntry, NewEntryKind, Transaction};
pub use tree::{Entry, EntryKind, EntryView, FileFacts, KindView, SelfReferences, Tree};
pub use usage::{Leftovers, Usage};

//! Reads a closure from one file into a store.
//!
//! First the list: its form, its order, and a signature by a trusted key for each object. Only then are objects unpacked, each against
//! its statement, all in one transaction; so what is refused anywhere leaves no name behind.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read};

use super::LIST_BYTES_MAX;
use super::error::{PackError, Problem};
use super::export::LIST_FRAME;
use super::reader::Unpacking;
use super::statement::{SignedStatement, decode_list};
use crate::ObjectRef;
use crate::error::StoreError;
use crate::fsutil::IoResultExt;
use crate::objects::ObjectStore;
use crate::signature::TrustedKeys;
use crate::transaction::Durable;

/// How much is read at a time, in bytes.
const READ_BYTES: usize = 256 << 10;

/// What an import brought.
#[derive(Debug, Clone)]
pub struct Imported {
    /// The proof that all objects of the file are durable, in its order; as long as it lives, the collector leaves them alone.
    pub durable: Durable,
    /// The objects to which no other in the file refers, in its order.
    pub roots: Vec<ObjectRef>,
    /// How many objects were not in the store before.
    pub objects_new: u64,
}

/// Imports what [`export`](super::export) wrote, if `trusted` keys have signed each object.
///
/// Reads from start to end. Objects that are there already are checked and left alone.
/// Errors: [`PackError::Unsigned`], [`PackError::UnknownSigner`] and [`PackError::WrongSignature`] before anything is unpacked;
/// [`PackError::List`]; [`PackError::Refused`]; [`PackError::NoSpace`]. Nothing is named then.
pub fn import(store: &ObjectStore, reader: impl Read, trusted: &TrustedKeys) -> Result<Imported, PackError> {
    unpack_all(store, reader, |statement| statement.check(trusted))
}

/// As [`import`], whoever has signed it. For a store from which nothing is taken that has not a digest that is known otherwise.
pub(crate) fn unpack_unsigned(store: &ObjectStore, reader: impl Read) -> Result<Imported, PackError> {
    unpack_all(store, reader, |_| Ok(()))
}

fn unpack_all(
    store: &ObjectStore,
    reader: impl Read,
    check: impl Fn(&SignedStatement) -> Result<(), PackError>,
) -> Result<Imported, PackError> {
    let mut reader = BufReader::with_capacity(READ_BYTES, reader);
    let statements = read_list(&mut reader).map_err(PackError::List)?;
    check_order(&statements).map_err(PackError::List)?;
    statements.iter().try_for_each(check)?;
    let mut objects_new = 0;
    let mut needed = 0u64;
    for SignedStatement { statement, .. } in &statements {
        if store.find(&statement.object.id)?.as_ref() != Some(&statement.object) {
            objects_new += 1;
            needed = needed.saturating_add(statement.tar_bytes);
        }
    }
    check_space(store, needed)?;
    let mut transaction = store.begin()?;
    for SignedStatement { statement, .. } in &statements {
        let refuse = |problem: Problem| problem.refusing(&statement.object);
        let unpacking = Unpacking::open_stated(&mut reader, statement).map_err(refuse)?;
        unpacking.unpack_into(&mut transaction)?;
    }
    if !reader.fill_buf().map_err(|error| PackError::List(Problem::Read(error)))?.is_empty() {
        return Err(PackError::List(Problem::Trailing));
    }
    let durable = transaction.barrier()?;
    let referred: BTreeSet<&ObjectRef> = statements.iter().flat_map(|signed| &signed.statement.references).collect();
    let roots = statements.iter().map(|signed| &signed.statement.object).filter(|object| !referred.contains(object)).cloned().collect();
    Ok(Imported { durable, roots, objects_new })
}

/// Reads the list at the start; memory grows with what arrives.
fn read_list(reader: &mut impl Read) -> Result<Vec<SignedStatement>, Problem> {
    let mut start = Vec::new();
    reader.take(8).read_to_end(&mut start).map_err(Problem::Read)?;
    let Some((magic, length)) = start.split_first_chunk::<4>() else { return Err(Problem::Truncated { place: "its first bytes".into() }) };
    if *magic == [0x28, 0xb5, 0x2f, 0xfd] {
        return Err(Problem::Start("it starts with compressed bytes: a packed object alone has no list and no signatures"));
    }
    if *magic != LIST_FRAME {
        return Err(Problem::Start("it does not start with a list of objects"));
    }
    let Ok(length) = length.try_into() else { return Err(Problem::Truncated { place: "its first bytes".into() }) };
    let length = u64::from(u32::from_le_bytes(length));
    if length > LIST_BYTES_MAX {
        return Err(Problem::Limit { what: "bytes of the list", value: length, limit: LIST_BYTES_MAX });
    }
    let mut list = Vec::new();
    reader.take(length).read_to_end(&mut list).map_err(Problem::Read)?;
    if (list.len() as u64) < length {
        return Err(Problem::Truncated { place: "the list of objects".into() });
    }
    decode_list(&list).map_err(|source| Problem::Structure { what: "list of objects", source })
}

/// Checks that each object comes once, after all that it refers to.
fn check_order(statements: &[SignedStatement]) -> Result<(), Problem> {
    let mut seen = BTreeSet::new();
    for SignedStatement { statement, .. } in statements {
        let object = &statement.object;
        if let Some(reference) = statement.references.iter().find(|reference| !seen.contains(reference)) {
            return Err(Problem::Order { object: object.clone(), reference: reference.clone() });
        }
        if !seen.insert(object) {
            return Err(Problem::Start("its list names an object twice"));
        }
    }
    Ok(())
}

/// Refuses before anything is unpacked what would end in a full disk.
fn check_space(store: &ObjectStore, needed: u64) -> Result<(), PackError> {
    let root = store.root();
    let status = rustix::fs::statvfs(root).at("inspect the file system of", root).map_err(StoreError::from)?;
    let free = status.f_bavail.saturating_mul(status.f_frsize);
    if needed > free { Err(PackError::NoSpace { needed, free, root: root.display().to_string() }) } else { Ok(()) }
}

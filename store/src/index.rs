//! The index: which objects there are, what they refer to, and what recipes gave. A cache of the disk.
//!
//! `SQLite` in WAL mode, so several processes use it at once. Rows are written only after the objects are on disk under
//! their names; so a row proves durability, and a missing row proves nothing. Losing the file costs one rebuild, and the results of recipes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OptionalExtension, TransactionBehavior, params};

use crate::error::StoreError;
use crate::object::ManifestHead;
use crate::{Digest, ObjectId, ObjectName, ObjectRef, fsutil};

/// How long to wait for another process's write. Writes take milliseconds; this covers a stalled disk.
const BUSY_PATIENCE: Duration = if cfg!(test) { Duration::from_millis(100) } else { Duration::from_secs(30) };

/// What leads from each version of the tables, which `user_version` tells, to the next; nothing is version 0.
const MIGRATIONS: [&str; 1] = [TABLES];

const TABLES: &str = "
    CREATE TABLE object(id BLOB PRIMARY KEY, name TEXT NOT NULL) STRICT, WITHOUT ROWID;
    CREATE TABLE reference(source BLOB NOT NULL, target BLOB NOT NULL, name TEXT NOT NULL, PRIMARY KEY(source, target)) STRICT, WITHOUT ROWID;
    CREATE INDEX reference_target ON reference(target);
    CREATE TABLE result(recipe BLOB NOT NULL, output TEXT NOT NULL, object BLOB NOT NULL, name TEXT NOT NULL, PRIMARY KEY(recipe, output)) STRICT, WITHOUT ROWID;
";

/// The open index.
#[derive(Debug)]
pub(crate) struct Index {
    path: PathBuf,
    connection: Mutex<Connection>,
}

impl Index {
    /// Opens or creates the database and brings its tables up to date.
    pub(crate) fn open(path: &Path) -> Result<Self, StoreError> {
        Self::prepared(path, Connection::open(path))
    }

    /// An index that is nowhere on disk, for a disk without room for one; its path is where it would be.
    pub(crate) fn in_memory(path: &Path) -> Result<Self, StoreError> {
        Self::prepared(path, Connection::open_in_memory())
    }

    fn prepared(path: &Path, connection: rusqlite::Result<Connection>) -> Result<Self, StoreError> {
        let prepared = connection.and_then(|mut connection| {
            connection.busy_timeout(BUSY_PATIENCE)?;
            prepare(&mut connection, &MIGRATIONS).map(|found| (connection, found))
        });
        let (connection, found) = prepared.map_err(|source| failed(path, source))?;
        if found > MIGRATIONS.len() as u64 {
            return Err(StoreError::NewerFormat { root: path.to_owned(), found, known: MIGRATIONS.len() as u64 });
        }
        Ok(Self { path: path.to_owned(), connection: Mutex::new(connection) })
    }

    /// Begins anew with an empty database, after moving the damaged one to `aside`. Call with the publication locked.
    ///
    /// Who has it open goes on with the old one; what he adds there is found on disk at the next open.
    pub(crate) fn begin_anew(&self, aside: &Path) -> Result<(), StoreError> {
        let mut connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        fsutil::rename(&self.path, aside)?;
        remove_logs(&self.path)?;
        let Self { connection: new, path: _ } = Self::open(&self.path)?;
        *connection = new.into_inner().unwrap_or_else(PoisonError::into_inner);
        Ok(())
    }

    /// All objects.
    pub(crate) fn objects(&self) -> Result<BTreeSet<ObjectRef>, StoreError> {
        self.with(|connection| {
            let mut statement = connection.prepare_cached("SELECT id, name FROM object")?;
            let rows = statement.query_map([], |row| object_from(row.get(0)?, &row.get::<_, String>(1)?))?;
            rows.collect()
        })
    }

    /// The name of an object.
    pub(crate) fn name_of(&self, id: &ObjectId) -> Result<Option<ObjectName>, StoreError> {
        self.with(|connection| {
            let mut statement = connection.prepare_cached("SELECT name FROM object WHERE id = ?1")?;
            let name = statement.query_row([id.as_bytes()], |row| row.get::<_, String>(0)).optional()?;
            name.map(|name| object_from(*id.as_bytes(), &name).map(|object| object.name)).transpose()
        })
    }

    /// What an object refers to, sorted.
    pub(crate) fn references(&self, id: &ObjectId) -> Result<BTreeSet<ObjectRef>, StoreError> {
        self.with(|connection| {
            let mut statement = connection.prepare_cached("SELECT target, name FROM reference WHERE source = ?1")?;
            let rows = statement.query_map([id.as_bytes()], |row| object_from(row.get(0)?, &row.get::<_, String>(1)?))?;
            rows.collect()
        })
    }

    /// What refers to an object, sorted.
    pub(crate) fn referrers(&self, id: &ObjectId) -> Result<BTreeSet<ObjectRef>, StoreError> {
        self.with(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT object.id, object.name FROM reference JOIN object ON object.id = reference.source WHERE target = ?1",
            )?;
            let rows = statement.query_map([id.as_bytes()], |row| object_from(row.get(0)?, &row.get::<_, String>(1)?))?;
            rows.collect()
        })
    }

    /// Adds objects; known ones are fine. Durable afterwards.
    pub(crate) fn insert<'a>(&self, manifests: impl IntoIterator<Item = &'a ManifestHead>) -> Result<(), StoreError> {
        self.with(|connection| {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            insert_all(&transaction, manifests)?;
            transaction.commit()
        })
    }

    /// Forgets objects. Results that need them stay and count again when the objects return.
    pub(crate) fn remove(&self, ids: impl IntoIterator<Item = ObjectId>) -> Result<(), StoreError> {
        self.with(|connection| {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            for id in ids {
                transaction.prepare_cached("DELETE FROM reference WHERE source = ?1")?.execute([id.as_bytes()])?;
                transaction.prepare_cached("DELETE FROM object WHERE id = ?1")?.execute([id.as_bytes()])?;
            }
            transaction.commit()
        })
    }

    /// Replaces all objects in one step.
    pub(crate) fn replace_all(&self, manifests: &[ManifestHead]) -> Result<(), StoreError> {
        self.with(|connection| {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            transaction.execute_batch("DELETE FROM reference; DELETE FROM object;")?;
            insert_all(&transaction, manifests)?;
            transaction.commit()
        })
    }

    /// What a recipe gave, whether or not the objects are still there.
    pub(crate) fn result(&self, key: &Digest) -> Result<BTreeMap<String, ObjectRef>, StoreError> {
        self.with(|connection| {
            let mut statement = connection.prepare_cached("SELECT output, object, name FROM result WHERE recipe = ?1")?;
            let rows =
                statement.query_map([key.as_bytes()], |row| Ok((row.get(0)?, object_from(row.get(1)?, &row.get::<_, String>(2)?)?)))?;
            rows.collect()
        })
    }

    /// Remembers what a recipe gave; an older answer is replaced whole.
    pub(crate) fn record_result(&self, key: &Digest, outputs: &BTreeMap<String, ObjectRef>) -> Result<(), StoreError> {
        self.with(|connection| {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            transaction.prepare_cached("DELETE FROM result WHERE recipe = ?1")?.execute([key.as_bytes()])?;
            for (output, ObjectRef { id, name }) in outputs {
                let mut insert = transaction.prepare_cached("INSERT INTO result VALUES (?1, ?2, ?3, ?4)")?;
                insert.execute(params![key.as_bytes(), output, id.as_bytes(), name.as_str()])?;
            }
            transaction.commit()
        })
    }

    fn with<T>(&self, work: impl FnOnce(&mut Connection) -> rusqlite::Result<T>) -> Result<T, StoreError> {
        // A thread that panicked while holding the lock has rolled its transaction back on the way.
        let mut connection: MutexGuard<'_, Connection> = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        work(&mut connection).map_err(|source| failed(&self.path, source))
    }
}

/// Removes the logs of a database that is gone: they would be played into the next one.
pub(crate) fn remove_logs(database: &Path) -> Result<(), StoreError> {
    for suffix in ["-wal", "-shm", "-journal"] {
        let mut log = database.as_os_str().to_owned();
        log.push(suffix);
        fsutil::remove_file(Path::new(&log))?;
    }
    Ok(())
}

fn failed(path: &Path, source: rusqlite::Error) -> StoreError {
    match source.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            StoreError::IndexBusy { path: path.to_owned(), seconds: BUSY_PATIENCE.as_secs() }
        }
        _ => StoreError::Index { path: path.to_owned(), source },
    }
}

/// Whether an error says that the database file itself is unusable.
pub(crate) fn is_corruption(error: &StoreError) -> bool {
    let StoreError::Index { source, .. } = error else { return false };
    matches!(source.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
        || matches!(source, rusqlite::Error::FromSqlConversionFailure(..) | rusqlite::Error::InvalidColumnType(..))
}

/// Sets the connection up and migrates; returns the version of the tables.
fn prepare(connection: &mut Connection, migrations: &[&str]) -> rusqlite::Result<u64> {
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    let mut found = version(connection)?;
    if found < migrations.len() as u64 {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        // Asked again under the write lock: another process may have migrated in the meantime.
        found = version(&transaction)?;
        for (migration, to) in migrations.iter().zip(1u64..).filter(|(_, to)| *to > found) {
            transaction.execute_batch(migration).map_err(|error| unlike(error, "its tables are not those of its version"))?;
            transaction.pragma_update(None, "user_version", to.cast_signed())?;
        }
        transaction.commit()?;
        found = found.max(migrations.len() as u64);
    }
    if found == migrations.len() as u64 {
        check_tables(connection)?;
    }
    Ok(found)
}

fn version(connection: &Connection) -> rusqlite::Result<u64> {
    let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    u64::try_from(version).map_err(|_| damaged("its version is below zero"))
}

/// Looks for everything that is asked for later, so that a table that is not there shows now.
fn check_tables(connection: &Connection) -> rusqlite::Result<()> {
    for columns in ["id, name FROM object", "source, target, name FROM reference", "recipe, output, object, name FROM result"] {
        connection.prepare(&format!("SELECT {columns} LIMIT 0")).map_err(|error| unlike(error, "a table is missing, or is another"))?;
    }
    Ok(())
}

/// What an error means where the tables should be known: statements that do not fit them are damage, what the disk answers is not.
fn unlike(error: rusqlite::Error, what: &str) -> rusqlite::Error {
    let fits = !matches!(error, rusqlite::Error::SqlInputError { .. }) && error.sqlite_error_code() != Some(ErrorCode::Unknown);
    if fits { error } else { damaged(what) }
}

/// A database that is readable, but not this index.
fn damaged(what: &str) -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT), Some(what.to_owned()))
}

fn insert_all<'a>(transaction: &rusqlite::Transaction<'_>, manifests: impl IntoIterator<Item = &'a ManifestHead>) -> rusqlite::Result<()> {
    let mut object_row = transaction.prepare_cached("INSERT OR IGNORE INTO object VALUES (?1, ?2)")?;
    let mut reference_row = transaction.prepare_cached("INSERT OR IGNORE INTO reference VALUES (?1, ?2, ?3)")?;
    for ManifestHead { object, references } in manifests {
        object_row.execute(params![object.id.as_bytes(), object.name.as_str()])?;
        for ObjectRef { id, name } in references {
            reference_row.execute(params![object.id.as_bytes(), id.as_bytes(), name.as_str()])?;
        }
    }
    Ok(())
}

/// Reads one object from its columns; the database is a file like any other, so names are checked.
fn object_from(id: [u8; 20], name: &str) -> rusqlite::Result<ObjectRef> {
    let name = name.parse().map_err(|error| rusqlite::Error::FromSqlConversionFailure(1, rusqlite::types::Type::Text, Box::new(error)))?;
    Ok(ObjectRef { id: ObjectId::from_bytes(id), name })
}

#[cfg(test)]
mod tests;

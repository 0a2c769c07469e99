//! The stat cache: digests of files outside of the store, so that an unchanged source is not read again.
//!
//! One row per directory holds what was seen of its files: inode, length, times, digest. A file counts as unchanged if all of them are
//! the same, the time of the last change of metadata included, which no program can set. A file that had been changed just before it was
//! read is not remembered: another change within the same tick of the clock would not show. The file may be deleted at any
//! time, and whatever goes wrong with it means only that sources are read again. FORMAT.md, section "Stat cache".

use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};

use crate::Digest;
use crate::canon::{Decoder, Encoder, Items};
use crate::fsutil::{self, Stamp};

/// The version of the table, in `user_version`.
const SCHEMA_VERSION: i64 = 1;

/// What the check of a row is computed under.
const ROW_DOMAIN: &str = "sarsen 2026 stat cache v1";

/// How long to wait for another process. The cache saves less time than a long wait costs.
const BUSY_PATIENCE: Duration = Duration::from_secs(1);

/// The most directories that are remembered, those written last: a hundred large projects, in about 100 MB.
const DIRECTORIES_MAX: i64 = 100_000;

/// The most files of one directory that are remembered. A larger row costs more to rewrite than it saves.
pub(crate) const FILES_MAX: usize = 100_000;

/// How old the last change of a file must be when it is read, in nanoseconds. File systems take their times from a clock that
/// moves every 1 to 10 milliseconds.
const TICK: i64 = 20_000_000;

/// A directory: its device and inode.
pub(crate) type DirectoryKey = (u64, u64);

/// What was seen of one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct KnownFile {
    pub(crate) stamp: Stamp,
    pub(crate) digest: Digest,
}

/// What was seen of the files of one directory, sorted by inode.
#[derive(Debug, Default)]
pub(crate) struct KnownFiles(Vec<KnownFile>);

impl KnownFiles {
    /// The digest of a file that looks as it did when it was read.
    pub(crate) fn digest(&self, stamp: &Stamp) -> Option<Digest> {
        let position = self.0.binary_search_by_key(&stamp.inode, |file| file.stamp.inode).ok()?;
        let known = self.0[position];
        (known.stamp == *stamp).then_some(known.digest)
    }

    /// Whether nothing is known.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Whether a file in this state can be told from what it may become after `now`, a time of the same file system's clock.
pub(crate) fn is_settled(stamp: &Stamp, now: i64) -> bool {
    stamp.modified.max(stamp.changed) < now.saturating_sub(TICK)
}

/// The open cache.
#[derive(Debug)]
pub(crate) struct StatCache {
    connection: Mutex<Connection>,
}

impl StatCache {
    /// Opens the cache, and makes it anew if it cannot be used; nothing if that fails too.
    pub(crate) fn open(path: &Path) -> Option<Self> {
        let connection = connect(path).or_else(|_| {
            for suffix in ["", "-journal"] {
                let mut file = path.as_os_str().to_owned();
                file.push(suffix);
                let _ = fsutil::remove_file(Path::new(&file));
            }
            connect(path)
        });
        Some(Self { connection: Mutex::new(connection.ok()?) })
    }

    /// What is known of the files in a directory; a row that is damaged is nothing.
    pub(crate) fn files_in(&self, directory: DirectoryKey) -> KnownFiles {
        self.with(|connection| files_in(connection, directory)).unwrap_or_default()
    }

    /// The inodes of all directories of a device of which something is known, sorted.
    pub(crate) fn directories_of(&self, device: u64) -> Vec<u64> {
        let directories = self.with(|connection| {
            let mut statement = connection.prepare_cached("SELECT inode FROM directory WHERE device = ?1")?;
            let rows = statement.query_map([device.cast_signed()], |row| row.get::<_, i64>(0))?;
            rows.map(|inode| inode.map(i64::cast_unsigned)).collect::<rusqlite::Result<Vec<u64>>>()
        });
        let mut directories = directories.unwrap_or_default();
        directories.sort_unstable();
        directories
    }

    /// Many questions at once, which saves the database's locking for each. Keeps other threads waiting.
    pub(crate) fn ask<T>(&self, questions: impl FnOnce(&dyn Fn(DirectoryKey) -> KnownFiles) -> Option<T>) -> Option<T> {
        let answer = self.with(|connection| {
            let transaction = connection.transaction()?;
            let answer = questions(&|directory| files_in(&transaction, directory).unwrap_or_default());
            transaction.finish().map(|()| answer)
        });
        answer.ok().flatten()
    }

    /// Remembers the files of directories; what was known of these directories is replaced.
    pub(crate) fn remember(&self, directories: impl IntoIterator<Item = (DirectoryKey, Vec<KnownFile>)>) {
        // A cache that cannot be written is a cache that is of no use today.
        let _ = self.with(|connection| {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            for (key, mut files) in directories {
                files.truncate(FILES_MAX);
                files.sort_by_key(|file| file.stamp.inode);
                files.dedup_by_key(|file| file.stamp.inode);
                transaction
                    .prepare_cached("INSERT OR REPLACE INTO directory(device, inode, files) VALUES (?1, ?2, ?3)")?
                    .execute(params![key.0.cast_signed(), key.1.cast_signed(), encode(key, &files)])?;
            }
            transaction.execute("DELETE FROM directory WHERE rowid <= (SELECT max(rowid) FROM directory) - ?1", [DIRECTORIES_MAX])?;
            transaction.commit()
        });
    }

    fn with<T>(&self, work: impl FnOnce(&mut Connection) -> rusqlite::Result<T>) -> rusqlite::Result<T> {
        work(&mut self.connection.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn files_in(connection: &Connection, directory: DirectoryKey) -> rusqlite::Result<KnownFiles> {
    let (device, inode) = directory;
    let mut statement = connection.prepare_cached("SELECT files FROM directory WHERE device = ?1 AND inode = ?2")?;
    let bytes = statement.query_row([device.cast_signed(), inode.cast_signed()], |row| row.get::<_, Vec<u8>>(0)).optional()?;
    Ok(KnownFiles(bytes.and_then(|bytes| decode(directory, &bytes)).unwrap_or_default()))
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let mut connection = Connection::open(path)?;
    connection.busy_timeout(BUSY_PATIENCE)?;
    // Rows carry their own check, so a crash may take what it likes.
    connection.pragma_update(None, "synchronous", "OFF")?;
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let version: i64 = transaction.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if version != SCHEMA_VERSION {
        transaction.execute_batch(
            "DROP TABLE IF EXISTS directory;
             CREATE TABLE directory(device INTEGER NOT NULL, inode INTEGER NOT NULL, files BLOB NOT NULL, UNIQUE(device, inode)) STRICT;",
        )?;
        transaction.pragma_update(None, "user_version", SCHEMA_VERSION)?;
    }
    transaction.commit()?;
    Ok(connection)
}

/// A row: number of files; of each inode, length, both times, digest; then the check, a digest of the directory and all before.
fn encode((device, inode): DirectoryKey, files: &[KnownFile]) -> Vec<u8> {
    let mut row = Encoder::new("");
    row.count(files.len());
    for KnownFile { stamp, digest } in files {
        row.number(stamp.inode).number(stamp.size).number(stamp.modified.cast_unsigned()).number(stamp.changed.cast_unsigned());
        row.digest(digest);
    }
    let mut bytes = row.into_bytes();
    bytes.extend_from_slice(check((device, inode), &bytes).as_bytes());
    bytes
}

fn decode(directory: DirectoryKey, bytes: &[u8]) -> Option<Vec<KnownFile>> {
    let (row, found) = bytes.split_last_chunk::<32>()?;
    if check(directory, row) != Digest::from_bytes(*found) {
        return None;
    }
    let mut row = Decoder::new(row);
    let count = row.count("files of a directory", FILES_MAX as u64, 64).ok()?;
    let mut files = Vec::with_capacity(count);
    for _ in 0..count {
        let (inode, size) = (row.number().ok()?, row.number().ok()?);
        let (modified, changed) = (row.number().ok()?.cast_signed(), row.number().ok()?.cast_signed());
        let stamp = Stamp { device: directory.0, inode, size, modified, changed };
        files.push(KnownFile { stamp, digest: row.digest().ok()? });
    }
    row.finish().ok()?;
    Some(files)
}

fn check((device, inode): DirectoryKey, row: &[u8]) -> Digest {
    let mut encoder = Encoder::new(ROW_DOMAIN);
    encoder.number(device).number(inode).bytes(row);
    encoder.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(inode: u64, size: u64) -> KnownFile {
        KnownFile { stamp: Stamp { device: 7, inode, size, modified: -5, changed: 9 }, digest: Digest::of(&inode.to_le_bytes()) }
    }

    #[test]
    fn every_part_of_a_state_counts() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("cache.sqlite");
        let cache = StatCache::open(&path).unwrap();
        cache.remember([((7, 1), vec![file(12, 3), file(11, 4)])]);
        let files = StatCache::open(&path).unwrap().files_in((7, 1));
        let stamp = file(11, 4).stamp;
        assert_eq!(files.digest(&stamp), Some(file(11, 4).digest));
        for other in [
            Stamp { device: 8, ..stamp },
            Stamp { inode: 12, ..stamp },
            Stamp { size: 5, ..stamp },
            Stamp { modified: 0, ..stamp },
            Stamp { changed: 10, ..stamp },
        ] {
            assert_eq!(files.digest(&other), None, "{other:?}");
        }
        assert!(cache.files_in((7, 2)).is_empty());
    }

    #[test]
    fn damage_means_nothing_is_known() {
        let row = encode((7, 1), &[file(1, 1), file(2, 2)]);
        assert_eq!(decode((7, 1), &row).unwrap().len(), 2);
        assert!(decode((7, 2), &row).is_none());
        for bit in 0..row.len() * 8 {
            let mut row = row.clone();
            row[bit / 8] ^= 1 << (bit % 8);
            assert!(decode((7, 1), &row).is_none(), "bit {bit}");
        }
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("cache.sqlite");
        fsutil::replace_file(&path, &[0x5a; 9000], 0o644).unwrap();
        let cache = StatCache::open(&path).unwrap();
        cache.remember([((7, 1), vec![file(1, 1)])]);
        assert!(!cache.files_in((7, 1)).is_empty());
    }

    #[test]
    fn a_file_changed_in_this_tick_is_not_settled() {
        let stamp = Stamp { device: 1, inode: 1, size: 1, modified: 0, changed: 1_000_000_000 };
        assert!(!is_settled(&stamp, 1_000_000_000));
        assert!(!is_settled(&stamp, 1_000_000_000 + TICK));
        assert!(is_settled(&stamp, 1_000_000_001 + TICK));
        assert!(!is_settled(&Stamp { modified: i64::MAX, ..stamp }, 1_000_000_001 + TICK));
    }
}

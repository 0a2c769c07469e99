#![expect(clippy::disallowed_methods, reason = "tests damage databases by hand")]

use super::*;
use crate::objects::ObjectStore;
use crate::transaction::{NewEntry, NewEntryKind};

/// A store with one object.
fn store() -> (tempfile::TempDir, ObjectRef) {
    let directory = tempfile::tempdir().unwrap();
    let store = ObjectStore::open(directory.path()).unwrap();
    let mut transaction = store.begin().unwrap();
    let kind = NewEntryKind::File { content: b"content".as_slice().into(), executable: false };
    let object = transaction.put_entries(&"o".parse().unwrap(), &[NewEntry { path: "f".parse().unwrap(), kind }], None, &[]).unwrap();
    transaction.barrier().unwrap();
    (directory, object)
}

fn change(root: &Path, sql: &str) {
    Connection::open(root.join("index.sqlite")).unwrap().execute_batch(sql).unwrap();
}

#[test]
fn whatever_is_wrong_with_the_index_it_is_made_anew() {
    let (directory, object) = store();
    let path = directory.path().join("index.sqlite");
    for sql in [
        "DROP TABLE reference",
        "DROP TABLE result",
        "DROP TABLE object; CREATE TABLE object(id BLOB, other TEXT)",
        "PRAGMA user_version = -1",
        "PRAGMA user_version = 0",
        "INSERT INTO object VALUES (x'00', 'short')",
        "UPDATE object SET name = '../../etc'",
    ] {
        change(directory.path(), sql);
        let store = ObjectStore::open(directory.path()).unwrap_or_else(|error| panic!("{sql}: {error}"));
        assert_eq!(store.objects().unwrap(), std::slice::from_ref(&object), "{sql}");
        assert_eq!(store.closure(std::slice::from_ref(&object)).unwrap().len(), 1, "{sql}");
        assert_eq!(store.result(&Digest::of(b"recipe")).unwrap(), None, "{sql}");
    }
    let whole = std::fs::read(&path).unwrap();
    for length in [0, 1, 100, 4096, 5000, whole.len() - 4096] {
        std::fs::write(&path, &whole[..length]).unwrap();
        let store = ObjectStore::open(directory.path()).unwrap_or_else(|error| panic!("{length} bytes: {error}"));
        assert_eq!(store.objects().unwrap(), std::slice::from_ref(&object), "{length} bytes");
    }
}

#[test]
fn a_page_that_is_damaged_later_is_mended_by_a_rebuild() {
    let (directory, object) = store();
    let path = directory.path().join("index.sqlite");
    let pages: i64 = Connection::open(&path).unwrap().pragma_query_value(None, "page_count", |row| row.get(0)).unwrap();
    // The last pages are of results and of the index over references, which opening does not read.
    let mut bytes = std::fs::read(&path).unwrap();
    let size = bytes.len() / usize::try_from(pages).unwrap();
    for page in 2..usize::try_from(pages).unwrap() {
        bytes[page * size..page * size + 100].fill(0xa5);
    }
    std::fs::write(&path, bytes).unwrap();
    let store = ObjectStore::open(directory.path()).unwrap();
    assert!(is_corruption(&store.record_result(&Digest::of(b"recipe"), &[("out".to_owned(), object.clone())].into()).unwrap_err()));
    assert_eq!(store.rebuild_index().unwrap(), 1);
    store.record_result(&Digest::of(b"recipe"), &[("out".to_owned(), object.clone())].into()).unwrap();
    assert_eq!(ObjectStore::open(directory.path()).unwrap().result(&Digest::of(b"recipe")).unwrap().unwrap()["out"], object);
}

#[test]
fn a_busy_index_is_told_in_words() {
    let (directory, object) = store();
    let store = ObjectStore::open(directory.path()).unwrap();
    let other = Connection::open(directory.path().join("index.sqlite")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let error = store.record_result(&Digest::of(b"recipe"), &[("out".to_owned(), object.clone())].into()).unwrap_err();
    assert!(error.to_string().contains("is busy: another process"), "{error}");
    // Readers do not mind.
    assert_eq!(ObjectStore::open(directory.path()).unwrap().objects().unwrap(), [object]);
}

#[test]
fn tables_of_any_older_version_are_brought_up_to_date() {
    let steps = [TABLES, "ALTER TABLE object ADD COLUMN size INTEGER", "CREATE TABLE more(x BLOB) STRICT"];
    for from in 0..=steps.len() {
        let mut connection = Connection::open_in_memory().unwrap();
        assert_eq!(prepare(&mut connection, &steps[..from.max(1)]).unwrap(), from.max(1) as u64);
        connection.execute("INSERT INTO object(id, name) VALUES (x'01', 'kept')", []).unwrap();
        assert_eq!(prepare(&mut connection, &steps).unwrap(), 3);
        let name: String = connection.query_row("SELECT name FROM object WHERE size IS NULL", [], |row| row.get(0)).unwrap();
        assert_eq!(name, "kept");
        connection.prepare("SELECT x FROM more").unwrap();
        // A newer one is left alone.
        assert_eq!(prepare(&mut connection, &steps[..1]).unwrap(), 3);
    }
}

use super::*;
use crate::objects::ObjectStore;
use crate::transaction::{NewEntry, NewEntryKind};

fn put(transaction: &mut Transaction, content: &str) -> ObjectRef {
    let kind = NewEntryKind::File { content: content.as_bytes().into(), executable: false };
    transaction.put_entries(&"thing".parse().unwrap(), &[NewEntry { path: "f".parse().unwrap(), kind }], None, &[]).unwrap()
}

/// As a publisher whose second sync is about to fail.
fn name(transaction: &Transaction) -> Vec<ObjectRef> {
    transaction.name_contents().unwrap();
    let mut named = Vec::new();
    transaction.name_objects(&mut named).unwrap();
    named
}

#[test]
fn a_failed_sync_takes_the_names_back_but_not_from_who_registered_them() {
    let directory = tempfile::tempdir().unwrap();
    let store = ObjectStore::open(directory.path()).unwrap();
    let mut failing = store.begin().unwrap();
    let (shared, own) = (put(&mut failing, "shared"), put(&mut failing, "own"));
    let mut other = store.begin().unwrap();
    put(&mut other, "shared");
    let named = name(&failing);
    assert_eq!(named.len(), 2);
    // The other one finds the name there, and its sync does not fail.
    let _durable = other.barrier().unwrap();
    failing.take_back(&named);
    drop(failing);
    assert_eq!(store.objects().unwrap(), std::slice::from_ref(&shared));
    assert_eq!(store.verify().unwrap(), []);
    assert!(!store.object_path(&own).exists() && !store.manifest_path(&own.id).exists());
    assert_eq!(ObjectStore::open(directory.path()).unwrap().objects().unwrap(), [shared]);
}

#[test]
fn a_name_that_a_killed_publisher_left_is_finished_by_the_next() {
    let directory = tempfile::tempdir().unwrap();
    let store = ObjectStore::open(directory.path()).unwrap();
    let mut killed = store.begin().unwrap();
    let object = put(&mut killed, "content");
    let mut next = store.begin().unwrap();
    put(&mut next, "content");
    name(&killed);
    // Killed before the mode was set.
    fsutil::set_mode(&store.object_path(&object), 0o755).unwrap();
    next.barrier().unwrap();
    assert_eq!(store.verify().unwrap(), []);
}

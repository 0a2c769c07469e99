use super::*;
use crate::objects::ObjectStore;
use crate::transaction::{NewEntry, NewEntryKind};

fn put(transaction: &mut Transaction, content: &str) -> ObjectRef {
    let kind = NewEntryKind::File { content: content.as_bytes().into(), executable: false };
    transaction.put_entries(&"thing".parse().unwrap(), &[NewEntry { path: "f".parse().unwrap(), kind }], None, &[]).unwrap()
}

/// As a publisher whose second sync is about to fail.
fn name(transaction: &mut Transaction) -> Vec<ObjectRef> {
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
    let named = name(&mut failing);
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
    name(&mut killed);
    // Killed before the mode was set.
    fsutil::set_mode(&store.object_path(&object), 0o755).unwrap();
    next.barrier().unwrap();
    assert_eq!(store.verify().unwrap(), []);
}

#[test]
fn a_content_that_a_killed_publisher_named_keeps_its_name() {
    let directory = tempfile::tempdir().unwrap();
    let store = ObjectStore::open(directory.path()).unwrap();
    let own = crate::ObjectId::placeholder("own");
    // A content that is not known before the object's id is, so that it is written again.
    let put = |transaction: &mut Transaction| {
        let kind = NewEntryKind::File { content: format!("I am {own}").into_bytes().into(), executable: false };
        let entry = NewEntry { path: "f".parse().unwrap(), kind };
        transaction.put_entries(&"thing".parse().unwrap(), &[entry], Some(&own), &[]).unwrap()
    };
    let mut killed = store.begin().unwrap();
    put(&mut killed);
    killed.name_contents().unwrap();
    // What it staged goes to the trash at the next open, so that the content has another name until a collection.
    std::mem::forget(killed);
    let mut next = store.begin().unwrap();
    let object = put(&mut next);
    let durable = next.barrier().unwrap();
    let plan = crate::gc::plan(&store, &crate::gc::Roots::default(), std::time::SystemTime::UNIX_EPOCH, std::time::Duration::ZERO).unwrap();
    crate::gc::execute(&store, &plan).unwrap();
    assert_eq!(durable.objects(), [object]);
    assert_eq!(store.verify().unwrap(), []);
}

//! Tests of receiving: a sender that lies gets nothing named.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::Digest;
use crate::tree::{Entry, EntryKind, SelfReferences};

struct Receiver {
    _directory: tempfile::TempDir,
    store: ObjectStore,
}

fn receiver() -> Receiver {
    let directory = tempfile::tempdir().unwrap();
    let store = ObjectStore::open(directory.path()).unwrap();
    Receiver { _directory: directory, store }
}

fn receive(transaction: &mut Transaction, content: &[u8]) {
    let mut writer = transaction.receive_content().unwrap();
    writer.write_all(content).unwrap();
    transaction.accept_content(writer, Some(&Digest::of(content))).unwrap();
}

/// An object of one file `f`, with the id that its manifest gives.
fn manifest_of(size: u64, content: &[u8], executable: bool, offsets: &[u64], modulo: &[u8]) -> ObjectManifest {
    let own = SelfReferences { offsets: offsets.to_vec(), modulo: Digest::of(modulo) };
    let self_references = (!offsets.is_empty()).then_some(own);
    let kind = EntryKind::File { size, digest: Digest::of(content), executable, self_references };
    let tree = Tree::new(vec![Entry { path: "f".parse().unwrap(), kind }]).unwrap();
    let name: ObjectName = "thing".parse().unwrap();
    ObjectManifest { object: ObjectRef { id: object_id(&name, &[], &tree), name }, references: Vec::new(), tree }
}

#[test]
fn a_received_object_is_the_one_that_was_built() {
    let (here, there) = (receiver(), receiver());
    let own = ObjectId::placeholder("own");
    let content = format!("I am {own}").into_bytes();
    let entry = |path: &str, executable| NewEntry {
        path: path.parse().unwrap(),
        kind: NewEntryKind::File { content: content.as_slice().into(), executable },
    };
    let mut transaction = here.store.begin().unwrap();
    let object = transaction
        .put_entries(&"thing".parse().unwrap(), &[entry("plain", false), entry("dir/executable", true)], Some(&own), &[])
        .unwrap();
    transaction.barrier().unwrap();
    let manifest = here.store.manifest(&object).unwrap();

    let mut transaction = there.store.begin().unwrap();
    let sent = fs::read(here.store.object_path(&object).join("plain")).unwrap();
    assert!(!transaction.has_content(&Digest::of(&sent)).unwrap());
    // One content, wanted with both modes.
    receive(&mut transaction, &sent);
    assert!(transaction.has_content(&Digest::of(&sent)).unwrap());
    transaction.put_received(&manifest).unwrap();
    assert_eq!(transaction.barrier().unwrap().objects(), std::slice::from_ref(&object));
    assert_eq!(there.store.manifest(&object).unwrap(), manifest);
    for (path, mode) in [("plain", 0o444), ("dir/executable", 0o555)] {
        let path = there.store.object_path(&object).join(path);
        assert_eq!(fs::read(&path).unwrap(), sent);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, mode);
    }
}

#[test]
fn content_with_another_digest_is_refused() {
    let there = receiver();
    let mut transaction = there.store.begin().unwrap();
    let mut writer = transaction.receive_content().unwrap();
    writer.write_all(b"what came").unwrap();
    let error = transaction.accept_content(writer, Some(&Digest::of(b"what was promised"))).unwrap_err();
    assert!(matches!(error, StoreError::WrongContent { .. }), "{error}");
    assert!(!transaction.has_content(&Digest::of(b"what came")).unwrap());
}

#[test]
fn manifests_that_lie_are_refused() {
    let content = b"thirty-two bytes and some more after them";
    let good = manifest_of(content.len() as u64, content, false, &[], b"");
    let wrong_id = ObjectManifest { object: ObjectRef { id: ObjectId::placeholder("x"), ..good.object.clone() }, ..good.clone() };
    for (manifest, expected) in [
        (wrong_id, "does not have the id that its content gives"),
        (manifest_of(7, content, false, &[], b""), "is damaged"),
        (manifest_of(content.len() as u64, content, false, &[0], content), "is damaged"),
        (manifest_of(5, b"other", false, &[], b""), "is missing"),
    ] {
        let there = receiver();
        let mut transaction = there.store.begin().unwrap();
        receive(&mut transaction, content);
        let error = transaction.put_received(&manifest).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
        // The refusal does not spoil the rest of the transaction.
        transaction.put_received(&good).unwrap();
        assert_eq!(transaction.barrier().unwrap().objects(), std::slice::from_ref(&good.object));
        assert_eq!(there.store.objects().unwrap(), std::slice::from_ref(&good.object));
    }
}

#[test]
fn an_own_id_over_other_bytes_is_noticed() {
    // The id stands where the manifest says, but the content without it is not what the id was computed from.
    let zeros = [b"before ".as_slice(), &[b'0'; 32]].concat();
    let claimed = manifest_of(39, b"", false, &[7], &zeros);
    let content = [b"BEFORE ".as_slice(), &claimed.object.id.to_chars()].concat();
    let mut manifest = manifest_of(39, &content, false, &[7], &zeros);
    assert_eq!(manifest.object, claimed.object);
    let there = receiver();
    let mut transaction = there.store.begin().unwrap();
    receive(&mut transaction, &content);
    let error = transaction.put_received(&manifest).unwrap_err().to_string();
    assert!(error.contains("the content without the own id"), "{error}");
    let honest = [b"before ".as_slice(), &claimed.object.id.to_chars()].concat();
    manifest = manifest_of(39, &honest, false, &[7], &zeros);
    receive(&mut transaction, &honest);
    transaction.put_received(&manifest).unwrap();
}

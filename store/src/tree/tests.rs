//! Tests of trees and manifests: one spelling for each, everything else refused.

use proptest::prelude::*;

use super::*;
use crate::{ObjectManifest, ObjectRef, object::object_id};

fn entry(path: &str, kind: EntryKind) -> Entry {
    Entry { path: path.parse().unwrap(), kind }
}

fn file(size: u64, offsets: Option<Vec<u64>>) -> EntryKind {
    let self_references = offsets.map(|offsets| SelfReferences { offsets, modulo: Digest::of(b"modulo") });
    EntryKind::File { size, digest: Digest::of(b"x"), executable: false, self_references }
}

fn symlink(target: &str, self_offsets: Vec<u64>) -> EntryKind {
    EntryKind::Symlink { target: target.to_owned(), self_offsets }
}

/// Writes entries down as they are, rules or not.
fn encode_unchecked(entries: Vec<Entry>) -> Vec<u8> {
    Tree { entries }.encode()
}

#[test]
fn what_the_encoder_would_not_write_is_refused() {
    let directory = || EntryKind::Directory;
    for (entries, expected) in [
        (vec![entry("b", directory()), entry("a", directory())], "not sorted"),
        (vec![entry("a", directory()), entry("a", directory())], "twice"),
        (vec![entry("a", file(1, None)), entry("a/b", directory())], "parent is not listed"),
        (vec![entry("a/b", directory())], "parent is not listed"),
        (vec![entry("a", file(u64::MAX, None))], "exceeds the limit"),
        (vec![entry("a", file(40, Some(vec![])))], "list of references to itself is empty"),
        (vec![entry("a", file(63, Some(vec![0, 32])))], "overlap or leave"),
        (vec![entry("a", file(99, Some(vec![0, 31])))], "overlap or leave"),
        (vec![entry("a", file(99, Some(vec![u64::MAX])))], "overlap or leave"),
        (vec![entry("a", symlink("", vec![]))], "unusable link target"),
        (vec![entry("a", symlink("x\0", vec![]))], "unusable link target"),
        (vec![entry("a", symlink(&"x".repeat(4096), vec![]))], "unusable link target"),
        (vec![entry("a", symlink("short", vec![0]))], "overlap or leave"),
    ] {
        // `new` sorts, so the order alone is no error there.
        if expected != "not sorted" {
            let error = Tree::new(entries.clone()).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
        // An empty list is written as none, so it cannot be read back as one: then the modulo digest trails.
        let error = Tree::decode(&encode_unchecked(entries)).unwrap_err().to_string();
        assert!(error.contains(expected) || expected.contains("empty"), "{error} for {expected}");
    }
}

#[test]
fn bytes_that_lie_about_counts_are_refused_before_memory_is_reserved() {
    for (count, expected) in [(u64::MAX, "exceeds the limit"), (ENTRIES_MAX, "end within a value")] {
        let bytes = [TREE_MAGIC.as_bytes(), &count.to_le_bytes(), &[0; 64]].concat();
        let error = Tree::decode(&bytes).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    let mut trailing = encode_unchecked(vec![entry("a", EntryKind::Directory)]);
    trailing.push(0);
    assert_eq!(Tree::decode(&trailing), Err(DecodeError::Trailing { bytes: 1 }));
    assert!(matches!(Tree::decode(b"SRT2"), Err(DecodeError::Magic { expected: TREE_MAGIC })));
}

#[test]
fn a_manifest_vouches_for_its_id_and_its_links() {
    let other = ObjectRef { id: ObjectId::placeholder("other"), name: "other".parse().unwrap() };
    let name = "thing".parse().unwrap();
    let with_link = |id: ObjectId| Tree::new(vec![entry("l", symlink(&format!("/s/{id}"), vec![3]))]).unwrap();
    let id = object_id(&name, std::slice::from_ref(&other), &with_link(ObjectId::placeholder("any")));
    let good = ObjectManifest { object: ObjectRef { id, name: name.clone() }, references: vec![other.clone()], tree: with_link(id) };
    assert_eq!(ObjectManifest::decode(&good.encode()), Ok(good.clone()));

    let wrong_link = ObjectManifest { tree: with_link(other.id), ..good.clone() };
    assert_eq!(wrong_link.id(), id, "the own id counts as zeros");
    assert!(ObjectManifest::decode(&wrong_link.encode()).unwrap_err().to_string().contains("own id is not where"));
    let wrong_id = ObjectManifest { object: ObjectRef { id: ObjectId::placeholder("wrong"), name }, ..good.clone() };
    assert!(ObjectManifest::decode(&wrong_id.encode()).unwrap_err().to_string().contains("does not give this id"));
    let twice = ObjectManifest { references: vec![other.clone(), other], ..good };
    assert!(ObjectManifest::decode(&twice.encode()).unwrap_err().to_string().contains("not sorted"));
}

fn any_tree() -> impl Strategy<Value = Tree> {
    let component = prop_oneof!["[a-c-]{1,2}", Just("ü".to_owned())];
    let path = prop::collection::vec(component, 1..4);
    let kind = prop_oneof![
        Just(EntryKind::Directory),
        any::<(u32, bool)>().prop_map(|(size, executable)| EntryKind::File {
            size: u64::from(size),
            digest: Digest::of(&size.to_le_bytes()),
            executable,
            self_references: (size > 64).then(|| SelfReferences { offsets: vec![0, 32], modulo: Digest::of(b"m") }),
        }),
        "[a-z/.]{1,80}".prop_map(|target| EntryKind::Symlink { self_offsets: if target.len() > 40 { vec![8] } else { vec![] }, target }),
    ];
    prop::collection::vec((path, kind), 0..20).prop_map(|items| {
        // Parents as directories, the first kind of a path wins unless something is below it.
        let mut entries = std::collections::BTreeMap::new();
        for (path, kind) in items {
            for depth in 1..path.len() {
                entries.insert(path[..depth].join("/"), EntryKind::Directory);
            }
            entries.entry(path.join("/")).or_insert(kind);
        }
        Tree::new(entries.into_iter().map(|(path, kind)| entry(&path, kind)).collect()).unwrap()
    })
}

proptest! {
    #[test]
    fn trees_round_trip(tree in any_tree()) {
        prop_assert_eq!(Tree::decode(&tree.encode()), Ok(tree));
    }

    #[test]
    fn what_decodes_is_what_was_encoded(tree in any_tree(), position in any::<prop::sample::Index>(), flip in 1..=255u8, cut in any::<prop::sample::Index>()) {
        let mut bytes = tree.encode();
        let truncated = &bytes[..cut.index(bytes.len())];
        prop_assert!(Tree::decode(truncated).is_err());
        let position = position.index(bytes.len());
        bytes[position] ^= flip;
        // Either refused, or it is the one spelling of another tree.
        if let Ok(other) = Tree::decode(&bytes) {
            prop_assert_eq!(other.encode(), bytes);
        }
    }
}

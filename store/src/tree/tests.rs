//! Tests of trees and manifests: one spelling for each, everything else refused.

use proptest::prelude::*;

use super::*;
use crate::canon::Encoder;
use crate::{ManifestHead, ObjectManifest, ObjectRef, object::object_id};

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
fn encode_unchecked(entries: &[Entry]) -> Vec<u8> {
    let mut encoder = Encoder::new("");
    encoder.fixed(TREE_MAGIC.as_bytes()).count(entries.len());
    for entry in entries {
        codec::encode_entry(&mut encoder, &EntryView { position: 0, path: entry.path.as_str(), kind: entry.kind_view() });
    }
    encoder.into_bytes()
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
        let error = Tree::decode(&encode_unchecked(&entries)).unwrap_err().to_string();
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
    let mut trailing = encode_unchecked(&[entry("a", EntryKind::Directory)]);
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

#[test]
fn what_is_below_a_directory_may_stand_behind_its_neighbours() {
    let paths = ["a", "a-b", "a-b-c", "a-b/x", "a.d", "a.d/e", "a/b", "a/b-c", "a/b/c", "ab", "ab/ü", "ab/ü€"];
    let is_file = |path: &str| ["a-b-c", "a-b/x", "a.d/e", "a/b-c", "a/b/c", "ab/ü", "ab/ü€"].contains(&path);
    let entries = paths.map(|path| entry(path, if is_file(path) { file(1, None) } else { EntryKind::Directory }));
    let tree = Tree::new(entries.to_vec()).unwrap();
    assert_eq!(tree.entries().collect::<Vec<_>>(), entries, "byte order");
    assert_eq!(tree.entries().len(), paths.len());
    for (position, path) in paths.iter().enumerate() {
        assert_eq!(tree.position(path), Some(position));
        let below: Vec<&str> = paths[tree.below(position)].to_vec();
        let expected: Vec<&str> = paths.into_iter().filter(|other| other.starts_with(&format!("{path}/"))).collect();
        assert_eq!(below, expected, "below {path}");
    }
    for absent in ["", "A", "a/", "a/b/d", "ab/ü€x", "b"] {
        assert_eq!(tree.position(absent), None, "{absent}");
    }
}

#[test]
#[expect(clippy::cast_precision_loss, reason = "the sum is small")]
fn a_large_tree_takes_less_than_60_bytes_an_entry() {
    let mut builder = TreeBuilder::new();
    for directory in 0..20 {
        builder.push(&format!("packages-{directory:03}"), KindView::Directory).unwrap();
        for number in 0..300 {
            let path = format!("packages-{directory:03}/module_{number:04}.py");
            let position = builder.push_file(&path).unwrap();
            let facts = FileFacts { size: number, digest: Digest::of(path.as_bytes()), executable: number % 7 == 0 };
            builder.set_file(position, facts, None).unwrap();
            assert_eq!((builder.path(position).as_str(), builder.file(position)), (path.as_str(), Some(facts)));
        }
    }
    let tree = builder.finish().unwrap();
    assert!(tree.compact.memory_bytes() as f64 / (tree.len() as f64) < 60.0, "{} for {}", tree.compact.memory_bytes(), tree.len());
    assert_eq!(tree.files().count(), 6_000);
    let encoded = tree.encode();
    assert_eq!(encoded.len() as u64, tree.encoded_bytes());
    // The portions of a stream do not show.
    assert_eq!(Tree::decode_from(OneByOne(&encoded), encoded.len() as u64).unwrap(), tree);
}

/// Gives one byte at a time, as a slow pipe may.
struct OneByOne<'a>(&'a [u8]);

impl std::io::Read for OneByOne<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let length = buffer.len().min(1);
        self.0.read(&mut buffer[..length])
    }
}

#[test]
fn a_file_of_unknown_content_is_no_tree() {
    let mut builder = TreeBuilder::new();
    builder.push_file("f").unwrap();
    assert!(builder.finish().unwrap_err().to_string().contains("not known"));
}

#[test]
fn the_id_is_filled_in_where_it_stands() {
    let (stand_in, id) = (ObjectId::placeholder("own"), ObjectId::placeholder("real"));
    let target = format!("ü/{stand_in}/{stand_in}");
    let links = [entry("l", symlink(&target, vec![3, 36])), entry("m", symlink("elsewhere", vec![])), entry("z", file(40, Some(vec![8])))];
    let mut tree = Tree::new(links.to_vec()).unwrap();
    let before = tree.clone();
    let mut told = Vec::new();
    let filled: Result<(), ()> = tree.fill_in(&id, |entry| {
        told.push(entry.path.to_string());
        Ok(matches!(entry.kind, EntryKind::File { .. }).then(|| Digest::of(b"final")))
    });
    assert_eq!((filled, told), (Ok(()), vec!["l".to_owned(), "z".to_owned()]));
    assert_eq!(tree.entry(0), Some(entry("l", symlink(&format!("ü/{id}/{id}"), vec![3, 36]))));
    assert_eq!(tree.file(2).unwrap().digest, Digest::of(b"final"));
    tree.check_link_self_references(&id).unwrap();
    assert_eq!(before.entry(0).unwrap().kind, symlink(&target, vec![3, 36]), "a clone keeps what it had");
}

#[test]
fn a_head_is_read_without_the_tree() {
    let name = "thing".parse().unwrap();
    let reference = ObjectRef { id: ObjectId::placeholder("other"), name: "other".parse().unwrap() };
    let tree = Tree::new(vec![entry("f", file(1, None))]).unwrap();
    let id = object_id(&name, std::slice::from_ref(&reference), &tree);
    let manifest = ObjectManifest { object: ObjectRef { id, name }, references: vec![reference], tree };
    let mut bytes = manifest.encode();
    assert_eq!(manifest.encoded_bytes(), Ok(bytes.len() as u64));
    let cut = bytes.len() - usize::try_from(manifest.tree.encoded_bytes()).unwrap();
    bytes[cut] ^= 1;
    let head = ManifestHead::decode_from(bytes.as_slice(), bytes.len() as u64).unwrap();
    assert_eq!(head, manifest.to_head());
    assert!(ObjectManifest::decode(&bytes).is_err());
    assert!(ManifestHead::decode_from(&bytes[..40], bytes.len() as u64).is_err());
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

//! What is told is understood, costs little, and cannot be made to cost much.

use proptest::prelude::*;

use super::super::varint::{encode_varint, zigzag};
use super::*;
use crate::object::object_id;
use crate::tree::{Entry, EntryKind, Tree};

fn manifest(name: &str, references: &[ObjectRef], entries: Vec<Entry>) -> ObjectManifest {
    let tree = Tree::new(entries).unwrap();
    let name = name.parse().unwrap();
    ObjectManifest { object: ObjectRef { id: object_id(&name, references, &tree), name }, references: references.to_vec(), tree }
}

fn object(seed: u64) -> ObjectRef {
    ObjectRef { id: ObjectId::placeholder(&seed.to_string()), name: format!("object-{seed}").parse().unwrap() }
}

fn file(path: &str, seed: u64, executable: bool) -> Entry {
    let size = 100 + seed % 7;
    let own = SelfReferences { offsets: vec![seed % 20, 60], modulo: Digest::of(&(seed % 3).to_le_bytes()) };
    let self_references = seed.is_multiple_of(5).then_some(own);
    Entry { path: path.parse().unwrap(), kind: EntryKind::File { size, digest: digest(seed), executable, self_references } }
}

fn digest(seed: u64) -> Digest {
    // Contents of one digest have one size.
    Digest::of(&seed.to_le_bytes())
}

/// Tells `new` by `base`; gives the bytes behind the header, and the new contents' digests.
fn told(new: &ObjectManifest, base: Option<&ObjectManifest>, listed: &[ObjectRef], elision: Elision) -> (Told, Vec<Digest>) {
    let blind = matches!(elision, Elision::New(_));
    let mut telling = Telling::new(listed, elision);
    let all = tell(&mut telling, new, 0, base);
    let mut rest = all.as_slice();
    assert_eq!(decode_varint(&mut rest), Some(u64::from(base.is_some())));
    if let Some(base) = base {
        assert_eq!(rest[..20], *base.object.id.as_bytes());
        rest = &rest[20..];
    }
    assert_eq!(decode_varint(&mut rest), Some(rest.len() as u64));
    let digests = telling.new.iter().map(|(_, entry)| new.tree.file(*entry).unwrap().digest);
    let context = Context { listed: listed.into(), blind };
    (Told { object: new.object.clone(), base: base.cloned().map(Arc::new), bytes: rest.to_vec(), context }, digests.collect())
}

fn round_trip(new: &ObjectManifest, base: Option<&ObjectManifest>, listed: &[ObjectRef]) -> usize {
    let common = base.iter().flat_map(|base| base.tree.files()).map(|(_, file)| CommonContents::front(&file.digest)).collect();
    let mut length = 0;
    for elision in [Elision::None, Elision::New(CommonContents::of(common))] {
        let (told, digests) = told(new, base, listed, elision);
        length = told.bytes.len();
        let mut files = 0;
        let mut tally = Tally::new();
        told.survey(&mut tally, |_| {
            files += 1;
            Ok(())
        })
        .unwrap();
        assert_eq!(tally.sizes.len(), digests.len());
        assert_eq!(files, new.tree.files().count());
        assert_eq!(told.build(&mut Tally::new(), &digests).unwrap(), *new);
    }
    length
}

#[test]
fn an_update_takes_a_few_bytes_a_file() {
    let entries = |changed: u64| -> Vec<Entry> {
        let path = |i: u64| format!("share/directory/file-{i:05}");
        let files = (0..10_000).map(|i| file(&path(i), 5 * i + 1 + if i % 100 < changed { 5_000_000 } else { 0 }, false));
        let directories = ["share", "share/directory"].map(|path| Entry { path: path.parse().unwrap(), kind: EntryKind::Directory });
        directories.into_iter().chain(files).collect()
    };
    let (old, new) = (manifest("site", &[], entries(0)), manifest("site", &[], entries(1)));
    let length = round_trip(&new, Some(&old), &[]);
    assert!(length < 700, "{length} bytes for 100 changed files of 10,000");
    assert!(old.encode().len() > 800_000);
}

#[test]
fn every_kind_of_change_is_told() {
    let plain = |path: &str, kind: EntryKind| Entry { path: path.parse().unwrap(), kind };
    let link = |target: &str, self_offsets: Vec<u64>| EntryKind::Symlink { target: target.to_owned(), self_offsets };
    let old = vec![
        plain("a", EntryKind::Directory),
        file("a/one", 1, false),
        file("a/two", 10, true),
        plain("b", EntryKind::Directory),
        plain("b/link", link("to/a", vec![])),
        file("ümlaut", 4, false),
    ];
    let references = [object(1), object(2), object(3)];
    let mut sorted = references.to_vec();
    sorted.sort();
    let old = manifest("x", &sorted, old);
    // The content of a moved file, one twice, a link that becomes a file and a file that becomes a directory; modes, own references.
    let new = vec![
        plain("a", EntryKind::Directory),
        file("a/moved", 1, true),
        file("a/two", 15, false),
        plain("b", EntryKind::Directory),
        file("b/link", 77, false),
        file("b/new", 77, true),
        file("ü", 20, false),
        plain("ümlaut", EntryKind::Directory),
        file("ümlaut/x", 10, false),
    ];
    let mut other = vec![object(9), sorted[0].clone(), sorted[2].clone(), object(7)];
    other.sort();
    let new = manifest("x", &other, new);
    for listed in [vec![], vec![object(7)]] {
        round_trip(&new, Some(&old), &listed);
        round_trip(&new, None, &listed);
        round_trip(&old, Some(&new), &listed);
    }
    let id = ObjectId::placeholder("own");
    let target = format!("/s/{id}-x");
    // The id of an object with a link to itself cannot be a stand-in, so the form alone is looked at.
    let (told, _) = told(&manifest("x", &[], vec![plain("self", link(&target, vec![3]))]), None, &[], Elision::None);
    let error = told.build(&mut Tally::new(), &[]).unwrap_err();
    assert!(matches!(error, TransferError::Manifest { .. }), "{error}");
}

fn varints(numbers: &[u64]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for number in numbers {
        encode_varint(&mut bytes, *number);
    }
    bytes
}

#[test]
fn whatever_breaks_the_form_is_refused_in_words() {
    let base = manifest("x", &[object(1)], vec![file("a", 1, false), Entry { path: "d".parse().unwrap(), kind: EntryKind::Directory }]);
    let refuse = |numbers: &[u64], tail: &[u8], words: &str| {
        let bytes = [varints(numbers), tail.to_vec()].concat();
        let context = Context { listed: [object(5)].into(), blind: false };
        let told = Told { object: base.object.clone(), base: Some(Arc::new(base.clone())), bytes, context };
        let error = told.survey(&mut Tally::new(), |_| Ok(())).unwrap_err().to_string();
        assert!(error.contains(words), "{error}: {words}");
    };
    refuse(&[], b"", "cut off");
    refuse(&[0], b"", "leaves references of its base open");
    refuse(&[8, 0], b"", "goes beyond its base");
    refuse(&[1], b"", "goes beyond its base");
    refuse(&[4 * u64::MAX.wrapping_div(4), 0], b"", "goes beyond its base");
    refuse(&[4, 6], b"", "unknown operation on references");
    refuse(&[4, 7], b"", "not one of the listed objects");
    refuse(&[4, 0, 0], b"", "leaves entries of its base open");
    refuse(&[4, 0, 8, 0, 0], b"", "goes on after its end");
    refuse(&[4, 0, 12], b"", "goes beyond its base");
    // Changes: of a directory, with an impossible size, mode, content, own references.
    refuse(&[4, 0, 4, 2], b"", "changes what is no file");
    refuse(&[4, 0, 2, zigzag(-1000)], b"", "impossible size");
    refuse(&[4, 0, 10, 0], b"", "neither executable nor not");
    refuse(&[4, 0, 2, 0, 0], b"", "left out that was asked for");
    refuse(&[4, 0, 2, 0, 4], b"", "that of no file of the base");
    refuse(&[4, 0, 2, 0, 3], b"", "one that was not told");
    refuse(&[4, 0, 2, 0, 2, 1], b"", "has the own references of one that has none");
    refuse(&[4, 0, 2, 0, 2, 1 << 30], b"", "own references: 1073741823 exceeds");
    refuse(&[4, 0, 2, 0, 2, 3, u64::MAX, 1], b"", "out of all bounds");
    // Additions: of an unknown kind, with a path that is longer than it can be.
    refuse(&[4, 0, 8, 19, 0, 1], b"z", "an unknown kind");
    refuse(&[4, 0, 8, 3, 2, 1], b"z", "more in common");
    refuse(&[4, 0, 8, 3, 0, 1], b"\xff", "not UTF-8");
    refuse(&[4, 0, 8, 3, 0, 4000], &[b'z'; 4000], "bytes of a path: 4000 exceeds");
}

#[test]
fn a_few_bytes_cannot_make_many() {
    // Each entry has a long path in common with the one before: three bytes that would make thousands.
    let first = [b'x'; 3790];
    let mut bytes = varints(&[0, 3, 0, 3790]);
    bytes.extend(first);
    for _ in 0..100_000 {
        bytes.extend(varints(&[3, 3790, 0]));
    }
    let context = Context { listed: [].into(), blind: true };
    let told = Told { object: object(1), base: None, bytes, context };
    let error = told.survey(&mut Tally::new(), |_| Ok(())).unwrap_err();
    assert!(matches!(error, TransferError::Limit { what: "bytes of manifests", .. }), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_two_manifests_tell_each_other(
        old in prop::collection::btree_map("[a-cü]{1,3}", (0u64..12, any::<bool>()), 0..20),
        new in prop::collection::btree_map("[a-cü]{1,3}", (0u64..12, any::<bool>()), 0..20),
        references in prop::collection::btree_set(0u64..6, 0..5),
        others in prop::collection::btree_set(0u64..6, 0..5),
        listed in prop::collection::btree_set(0u64..6, 0..5),
    ) {
        let make = |files: &std::collections::BTreeMap<String, (u64, bool)>, references: &std::collections::BTreeSet<u64>| {
            let mut references: Vec<ObjectRef> = references.iter().map(|seed| object(*seed)).collect();
            references.sort();
            manifest("x", &references, files.iter().map(|(path, (seed, executable))| file(path, *seed, *executable)).collect())
        };
        let (old, new) = (make(&old, &references), make(&new, &others));
        let listed: Vec<ObjectRef> = listed.into_iter().map(object).collect();
        round_trip(&new, Some(&old), &listed);
        round_trip(&new, None, &listed);
    }

    #[test]
    fn damaged_bytes_never_make_another_manifest(flips in prop::collection::vec((any::<u16>(), any::<u8>()), 1..4)) {
        let old = manifest("x", &[object(1)], vec![file("a", 1, false), file("b", 2, true), file("c", 5, false)]);
        let new = manifest("x", &[object(2)], vec![file("a", 6, false), file("b", 2, true), file("bb", 9, false)]);
        let (mut told, digests) = told(&new, Some(&old), &[object(2)], Elision::New(CommonContents::default()));
        for (at, value) in flips {
            let at = usize::from(at) % told.bytes.len();
            told.bytes[at] ^= value;
        }
        if let Ok(manifest) = told.build(&mut Tally::new(), &digests) {
            prop_assert_eq!(manifest, new);
        }
    }
}

//! Round trips, other programs' view, golden bytes, and signatures. What is refused is in `tests/refused.rs`.

#![expect(clippy::disallowed_methods, reason = "tests run `tar` and `zstd`, and write their own files")]

mod refused;
mod refused_exports;

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::objects::ObjectStore;
use crate::signature::{SecretKey, TrustedKeys};
use crate::transaction::{NewEntry, NewEntryKind};
use crate::{ObjectId, ObjectManifest, ObjectRef};

pub(super) fn store() -> (TempDir, ObjectStore) {
    let directory = tempfile::tempdir().unwrap();
    let store = ObjectStore::open(&directory.path().join("root")).unwrap();
    (directory, store)
}

pub(super) fn file(path: &str, content: &[u8]) -> NewEntry {
    NewEntry { path: path.parse().unwrap(), kind: NewEntryKind::File { content: content.into(), executable: path.starts_with("bin/") } }
}

pub(super) fn link(path: &str, target: &str) -> NewEntry {
    NewEntry { path: path.parse().unwrap(), kind: NewEntryKind::Symlink { target: target.to_owned() } }
}

fn directory(path: &str) -> NewEntry {
    NewEntry { path: path.parse().unwrap(), kind: NewEntryKind::Directory }
}

pub(super) fn put(store: &ObjectStore, name: &str, entries: &[NewEntry], candidates: &[ObjectRef]) -> ObjectRef {
    let own = ObjectId::placeholder("own");
    let mut transaction = store.begin().unwrap();
    let object = transaction.put_entries(&name.parse().unwrap(), entries, Some(&own), candidates).unwrap();
    transaction.barrier().unwrap();
    object
}

/// An object with something of everything that an archive has to say.
fn varied(store: &ObjectStore) -> ObjectRef {
    let own = ObjectId::placeholder("own");
    let long = format!("{}/{}", "l".repeat(90), "m".repeat(90));
    let entries = [
        file("bin/app", format!("run {own}-app/x").as_bytes()),
        file("bin-tool", b"between a directory and what is in it, by bytes"),
        file("share/block", &[7; 512]),
        file("share/empty", b""),
        file("share/zwölf", b"not ASCII"),
        file("share/two\nlines ü", b"a line feed in a record"),
        file(&long, b"too long for one field"),
        file(&format!("n/{}", "n".repeat(200)), b"too long for ustar"),
        directory("none"),
        directory(&format!("o/{}", "o".repeat(120))),
        link("link", &format!("/s/{own}-app/bin")),
        link("far", &"../".repeat(40)),
        link("weit", "ü"),
    ];
    put(store, "varied", &entries, &[])
}

pub(super) fn pack(store: &ObjectStore, object: &ObjectRef) -> Vec<u8> {
    let mut packed = Vec::new();
    let stated = pack_object(store, object, &mut packed).unwrap();
    assert_eq!(stated.packed_bytes, packed.len() as u64);
    assert_eq!(stated.statement.tar_bytes, zstd::decode_all(&packed[..]).unwrap().len() as u64);
    packed
}

/// An error with its causes, as the cli shows it.
pub(super) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

pub(super) fn key(name: &str, seed: u8) -> SecretKey {
    use ed25519_dalek::SigningKey;
    let pair = SigningKey::from_bytes(&[seed; 32]).to_keypair_bytes();
    let text = format!("{name}:{}", base64(&pair));
    text.parse().unwrap()
}

/// 64 bytes as text, by way of a signature's text.
fn base64(bytes: &[u8]) -> String {
    use crate::signature::Signature;
    let mut padded = [0; 64];
    padded.copy_from_slice(bytes);
    let text = Signature::from_bytes("x".parse().unwrap(), padded).to_string();
    text.split_once(':').unwrap().1.to_owned()
}

pub(super) fn trusting(keys: &[SecretKey]) -> TrustedKeys {
    TrustedKeys::new(keys.iter().map(SecretKey::public)).unwrap()
}

#[test]
fn a_packed_object_comes_out_as_it_went_in() {
    let ((_here, from), (_there, to)) = (store(), store());
    let object = varied(&from);
    let packed = pack(&from, &object);
    let mut transaction = to.begin().unwrap();
    let manifest = unpack_object(&mut transaction, &object, &packed[..]).unwrap();
    assert_eq!(transaction.barrier().unwrap().objects(), std::slice::from_ref(&object));
    assert_eq!(manifest, from.manifest(&object).unwrap());
    assert_eq!(to.manifest(&object).unwrap(), manifest);
    assert!(to.verify_object(&object).unwrap().is_empty());
    assert_eq!(pack(&to, &object), packed, "the bytes follow from the object");
    // Once more into a store that has it.
    let mut transaction = to.begin().unwrap();
    unpack_object(&mut transaction, &object, &packed[..]).unwrap();
    transaction.barrier().unwrap();
}

#[test]
fn a_closure_travels_as_one_file() {
    let ((_here, from), (_there, to)) = (store(), store());
    let library = put(&from, "library", &[file("lib", b"code")], &[]);
    let application = put(&from, "app", &[file("bin/app", format!("uses {library}").as_bytes())], std::slice::from_ref(&library));
    let other = put(&from, "other", &[file("lib", b"code")], &[]);
    let keys = [key("ci-1", 1), key("ci-0", 2)];
    let mut bytes = Vec::new();
    let exported = export(&from, &[application.clone(), other.clone()], &mut bytes, &keys).unwrap();
    assert_eq!(exported.objects, [library.clone(), application.clone(), other.clone()]);
    assert_eq!(exported.file_bytes, bytes.len() as u64);
    // One of the two keys is enough.
    let imported = import(&to, &bytes[..], &trusting(&[key("ci-0", 2)])).unwrap();
    assert_eq!(imported.durable.objects(), exported.objects);
    assert_eq!(imported.roots, [application.clone(), other.clone()]);
    assert_eq!(imported.objects_new, 3);
    assert!(to.verify().unwrap().is_empty());
    assert_eq!(import(&to, &bytes[..], &trusting(&keys)).unwrap().objects_new, 0);
    let mut again = Vec::new();
    export(&to, &[application, other], &mut again, &keys).unwrap();
    assert_eq!(again, bytes);
}

fn any_entries() -> impl Strategy<Value = Vec<NewEntry>> {
    let component = prop_oneof![
        4 => "[a-c]{1,2}".boxed(),
        // No line feeds: the reader that is compared with takes them for the ends of records. GNU tar's test has one.
        1 => "[a-c .+\\-\\\\:]{0,8}x".boxed(),
        1 => "[äöü日本]{1,60}".boxed(),
        1 => "[x-z]{90,255}".boxed(),
    ];
    let path = prop::collection::vec(component, 1..5).prop_map(|components| components.join("/"));
    let kind = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..1500).prop_map(|content| NewEntryKind::File { content: content.into(), executable: false }),
        (0..4usize).prop_map(|blocks| NewEntryKind::File { content: vec![b'a'; blocks * 512].into(), executable: true }),
        Just(NewEntryKind::File { content: format!("I am {}", ObjectId::placeholder("own")).into_bytes().into(), executable: false }),
        "[a-z/.ü]{1,300}".prop_map(|target| NewEntryKind::Symlink { target }),
        Just(NewEntryKind::Directory),
    ];
    prop::collection::vec((path, kind), 0..12).prop_map(|entries| {
        let parsed = entries.into_iter().filter_map(|(path, kind)| Some(NewEntry { path: path.parse().ok()?, kind }));
        // Each path once, and nothing below what is no directory.
        let mut kept: BTreeMap<String, NewEntry> = BTreeMap::new();
        for entry in parsed {
            let path = entry.path.as_str().to_owned();
            let clashes = |other: &NewEntry| {
                let other_path = other.path.as_str();
                other_path == path
                    || (path.starts_with(&format!("{other_path}/")) && other.kind != NewEntryKind::Directory)
                    || (other_path.starts_with(&format!("{path}/")) && entry.kind != NewEntryKind::Directory)
            };
            if !kept.values().any(clashes) {
                kept.insert(path, entry);
            }
        }
        kept.into_values().collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_tree_round_trips(entries in any_entries()) {
        let ((_here, from), (_there, to)) = (store(), store());
        let object = put(&from, "any", &entries, &[]);
        let keys = [key("ci", 1)];
        let mut bytes = Vec::new();
        export(&from, std::slice::from_ref(&object), &mut bytes, &keys).unwrap();
        import(&to, &bytes[..], &trusting(&keys)).unwrap();
        let manifest = to.manifest(&object).unwrap();
        prop_assert_eq!(&manifest, &from.manifest(&object).unwrap());
        prop_assert!(to.verify_object(&object).unwrap().is_empty());
        prop_assert_eq!(paths_by_another_reader(&pack(&to, &object), &object), paths(&manifest));
    }
}

/// What the crate `tar` reads, which we do not read with: path, kind and content of everything below the top.
fn paths_by_another_reader(packed: &[u8], object: &ObjectRef) -> Vec<(String, char, u64)> {
    let mut archive = tar::Archive::new(zstd::Decoder::new(packed).unwrap());
    let mut found = Vec::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let path = String::from_utf8(entry.path_bytes().into_owned()).unwrap();
        let mut content = Vec::new();
        let length = entry.read_to_end(&mut content).unwrap() as u64;
        if let Some(below) = path.strip_prefix(&format!("{object}/")).filter(|below| !below.is_empty()) {
            let kind = char::from(entry.header().entry_type().as_byte());
            let length = entry.link_name_bytes().map_or(length, |target| target.len() as u64);
            found.push((below.trim_end_matches('/').to_owned(), kind, length));
        }
    }
    found.sort();
    found
}

fn paths(manifest: &ObjectManifest) -> Vec<(String, char, u64)> {
    let entries = manifest.tree.entries().map(|entry| {
        let (kind, length) = match &entry.kind {
            crate::EntryKind::Directory => ('5', 0),
            crate::EntryKind::File { size, .. } => ('0', *size),
            crate::EntryKind::Symlink { target, .. } => ('2', target.len() as u64),
        };
        (entry.path.to_string(), kind, length)
    });
    let mut paths: Vec<_> = entries.collect();
    paths.sort();
    paths
}

/// Everything below a directory: mode, time of modification, and content or target.
fn listing(top: &Path) -> BTreeMap<PathBuf, (u32, i64, Vec<u8>)> {
    let mut found = BTreeMap::new();
    let mut open = vec![top.to_owned()];
    while let Some(path) = open.pop() {
        let metadata = fs::symlink_metadata(&path).unwrap();
        let content = if metadata.is_dir() {
            open.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            Vec::new()
        } else if metadata.is_symlink() {
            fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes()
        } else {
            fs::read(&path).unwrap()
        };
        found.insert(path.strip_prefix(top).unwrap().to_owned(), (metadata.mode(), metadata.mtime(), content));
    }
    found
}

#[test]
fn gnu_tar_reads_packed_objects_and_exports() {
    let programs = ["tar", "zstd"];
    let there = |program: &&str| Command::new(program).arg("--version").stdout(Stdio::null()).status().is_ok_and(|status| status.success());
    if !programs.iter().all(there) {
        println!("skipped: `tar` and `zstd` are not both installed");
        return;
    }
    let (here, from) = store();
    let application = varied(&from);
    let other = put(&from, "other", &[file("f", format!("needs {application}").as_bytes())], std::slice::from_ref(&application));
    let packed = here.path().join("packed.tar.zst");
    fs::write(&packed, pack(&from, &application)).unwrap();
    let exported = here.path().join("export");
    export(&from, std::slice::from_ref(&other), fs::File::create(&exported).unwrap(), &[]).unwrap();
    for (archive, flags, objects) in [(&packed, "-xpf", vec![&application]), (&exported, "-xipf", vec![&application, &other])] {
        let output = here.path().join(format!("output{}", objects.len()));
        fs::create_dir(&output).unwrap();
        let script = "zstd -q -d -c < \"$1\" > \"$1.tar\" && tar \"$2\" \"$1.tar\" -C \"$3\" && tar -tf \"$1.tar\"";
        let ran = Command::new("sh").args(["-euc", script, "sh"]).arg(archive).arg(flags).arg(&output).output().unwrap();
        let (listed, complaints) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
        assert!(ran.status.success() && complaints.is_empty(), "{complaints}");
        assert!(listed.starts_with(&format!("{}.manifest\n{application}/\n{application}/bin/\n", application.id)), "{listed}");
        for object in objects {
            assert_eq!(listing(&output.join(object.to_string())), listing(&from.object_path(object)));
            let manifest = fs::read(output.join(format!("{}.manifest", object.id))).unwrap();
            assert_eq!(ObjectManifest::decode(&manifest).unwrap(), from.manifest(object).unwrap());
        }
    }
}

#[test]
fn the_bytes_are_those_of_version_1() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/golden/store");
    let changed = "the format has changed: give it a new version, and say so in FORMAT.md and the changelog";
    let (_here, from) = store();
    let object = varied(&from);
    let archive = zstd::decode_all(&pack(&from, &object)[..]).unwrap();
    assert!(archive == fs::read(golden.join("object-v1.tar")).unwrap(), "{changed}");
    // Compressed bytes may differ with the version of zstd, so those of an export are only read.
    let keys = [key("golden", 7)];
    let mut exported = Vec::new();
    export(&from, std::slice::from_ref(&object), &mut exported, &keys).unwrap();
    let kept = fs::read(golden.join("export-v1")).unwrap();
    let list_end = 8 + usize::try_from(u32::from_le_bytes(kept[4..8].try_into().unwrap())).unwrap();
    assert!(exported[..list_end] == kept[..list_end], "{changed}");
    let (_there, to) = store();
    assert_eq!(import(&to, &kept[..], &trusting(&keys)).unwrap().roots, [object]);
}

#[test]
fn a_full_output_is_an_error() {
    let (_here, from) = store();
    let object = put(&from, "thing", &[file("f", b"content")], &[]);
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    assert!(matches!(export(&from, &[object], full, &[key("ci", 1)]), Err(PackError::Write(_))));
}

//! The seeds of the fuzz targets (`store/fuzz/corpus`) are still what this store says: a format that changes needs new ones, which
//! `cargo run -p sarsen-store --example fuzz_seeds -- store/fuzz/corpus` writes. Seeds that are refused at the first byte would test nothing.

#![expect(clippy::disallowed_methods, reason = "the test puts a foreign index in place")]

#[path = "../fuzz/src/world.rs"]
#[allow(dead_code, unreachable_pub, missing_docs, missing_debug_implementations, clippy::pedantic, reason = "the fuzz workspace owns it")]
mod world;

use std::fs;
use std::io;
use std::path::Path;

use sarsen_store::manifest::Manifest;
use sarsen_store::signature::{PublicKey, Signature};
use sarsen_store::transfer::{TransferOptions, receive_closure, send_closure};
use sarsen_store::wire::{FrameReader, FrameWriter};
use sarsen_store::{Digest, ObjectManifest, ObjectStore, Tree, pack};
use world::{Temporary, compress, put_version, trusted};

fn seed(target: &str, name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target).join(name);
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn text(target: &str, name: &str) -> String {
    String::from_utf8(seed(target, name)).expect("the seed is text")
}

#[test]
fn decoders_take_their_seeds() {
    for name in ["application", "library"] {
        ObjectManifest::decode(&seed("manifests", &format!("object-{name}"))).unwrap();
        Tree::decode(&seed("manifests", &format!("tree-{name}"))).unwrap();
    }
    Manifest::parse(&seed("manifests", "bundle")).unwrap();
    assert!(text("keys", "public").parse::<PublicKey>().is_ok());
    let signature: Signature = text("keys", "signature").parse().unwrap();
    assert!(signature.fits(&Digest::of(b""), trusted().get(signature.key()).unwrap()));
}

#[test]
fn packed_objects_and_exports_are_taken() {
    let (from, to) = (Temporary::new(), Temporary::new());
    let object = put_version(&from.store, 1);
    for name in ["compressed", "archive"] {
        let seed = seed("packed", name);
        let packed = if seed[0] == 0 { seed[1..].to_vec() } else { compress(&seed[1..]) };
        let mut transaction = to.store.begin().unwrap();
        assert_eq!(pack::unpack_object(&mut transaction, &object, &packed[..]).unwrap().object, object);
    }
    assert!(pack::import(&to.store, &seed("exports", "unsigned")[..], &trusted()).is_err());
    assert_eq!(pack::import(&to.store, &seed("exports", "signed")[..], &trusted()).unwrap().roots, [object]);
}

#[test]
fn both_sides_of_a_transfer_understand_what_was_said_once() {
    let from = Temporary::new();
    let versions = [put_version(&from.store, 1), put_version(&from.store, 2)];
    for name in ["first", "first-2", "update", "nothing"] {
        let (said, heard) = (seed("receiver", name), seed("sender", name));
        let to = Temporary::with_versions(said[0]);
        let (mut reader, mut writer) = (FrameReader::new(&said[1..]), FrameWriter::new(io::sink()));
        receive_closure(&to.store, &mut reader, &mut writer).unwrap_or_else(|error| panic!("{name}: {error}"));
        let roots = &versions[usize::from(heard[0])..][..1];
        let (mut reader, mut writer) = (FrameReader::new(&heard[1..]), FrameWriter::new(io::sink()));
        send_closure(&from.store, roots, &TransferOptions::default(), &mut reader, &mut writer)
            .unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}

#[test]
fn an_index_of_the_corpus_is_one() {
    let world = Temporary::with_versions(1);
    let objects = world.store.objects().unwrap();
    let directory = world.into_directory();
    let root = directory.path().join("root");
    for log in ["index.sqlite-wal", "index.sqlite-shm"] {
        drop(fs::remove_file(root.join(log)));
    }
    fs::write(root.join("index.sqlite"), seed("index", "objects")).unwrap();
    let again = ObjectStore::open(&root).unwrap();
    assert_eq!(again.objects().unwrap(), objects);
    assert!(again.result(&Digest::of(b"recipe")).unwrap().is_some());
}

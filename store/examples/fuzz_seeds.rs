//! Writes the seeds of the fuzz targets: `cargo run -p sarsen-store --example fuzz_seeds -- store/fuzz/corpus`.
//!
//! An example of the store and not a program of the fuzz workspace, because that one's are instrumented, and wait for libFuzzer's runtime.
//! The key is made anew each time; its public half is kept in `corpus/key`.

#![expect(clippy::disallowed_methods, reason = "a program that writes files for people")]

#[path = "../fuzz/src/world.rs"]
#[allow(dead_code, unreachable_pub, missing_docs, missing_debug_implementations, clippy::pedantic, reason = "the fuzz workspace owns it")]
mod world;

use std::fs;
use std::io::{self, Read, Write};
use std::path::Path;
use std::thread;

use sarsen_store::signature::{KeyName, SecretKey};
use sarsen_store::transfer::{TransferOptions, receive_closure, send_closure};
use sarsen_store::wire::{FrameReader, FrameWriter};
use sarsen_store::{Digest, ObjectRef, ObjectStore, pack};
use world::{Temporary, put_version};

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

fn main() -> Outcome<()> {
    let Some(corpus) = std::env::args().nth(1) else { return Err("say where the seeds go".into()) };
    let corpus = Path::new(&corpus);
    let from = Temporary::new();
    let versions = [put_version(&from.store, 1), put_version(&from.store, 2)];
    write_decoders(corpus, &from.store, &versions)?;
    write_packed(corpus, &from.store, &versions)?;
    write_transfers(corpus, &from.store, &versions)?;
    write_indexes(corpus, &versions[0])
}

fn write(corpus: &Path, target: &str, name: &str, bytes: &[u8]) -> Outcome<()> {
    let directory = corpus.join(target);
    fs::create_dir_all(&directory)?;
    Ok(fs::write(directory.join(name), bytes)?)
}

fn write_decoders(corpus: &Path, store: &ObjectStore, versions: &[ObjectRef]) -> Outcome<()> {
    for object in store.closure(&versions[..1])? {
        let manifest = store.manifest(&object)?;
        write(corpus, "manifests", &format!("object-{}", object.name), &manifest.encode())?;
        write(corpus, "manifests", &format!("tree-{}", object.name), &manifest.tree.encode())?;
        write(corpus, "keys", "object", object.to_string().as_bytes())?;
    }
    write(corpus, "keys", "path", "share/zwölf".as_bytes())
}

fn write_packed(corpus: &Path, store: &ObjectStore, versions: &[ObjectRef]) -> Outcome<()> {
    let mut packed = Vec::new();
    pack::pack_object(store, &versions[0], &mut packed)?;
    write(corpus, "packed", "compressed", &[&[0], packed.as_slice()].concat())?;
    let archive = zstd::decode_all(&packed[..])?;
    write(corpus, "packed", "archive", &[&[1], archive.as_slice()].concat())?;
    let key = SecretKey::generate("seeds".parse::<KeyName>()?)?;
    fs::write(corpus.join("key"), format!("{}\n", key.public()))?;
    write(corpus, "keys", "public", key.public().to_string().as_bytes())?;
    write(corpus, "keys", "signature", key.sign(&Digest::of(b"")).to_string().as_bytes())?;
    for (name, keys) in [("signed", &[key][..]), ("unsigned", &[])] {
        let mut export = Vec::new();
        pack::export(store, &versions[..1], &mut export, keys)?;
        write(corpus, "exports", name, &export)?;
    }
    Ok(())
}

/// Keeps what passes.
struct Recorded<R> {
    inner: R,
    heard: Vec<u8>,
}

impl<R: Read> Read for &mut Recorded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.inner.read(buffer)?;
        self.heard.extend_from_slice(&buffer[..length]);
        Ok(length)
    }
}

/// A first copy of each version, an update, and one of what is there already; both sides' words.
fn write_transfers(corpus: &Path, store: &ObjectStore, versions: &[ObjectRef; 2]) -> Outcome<()> {
    for (name, before, version) in [("first", 0, 0), ("first-2", 0, 1), ("update", 1, 1), ("nothing", 1, 0)] {
        let to = Temporary::with_versions(before);
        let (receiver_reads, sender_writes) = io::pipe()?;
        let (sender_reads, receiver_writes) = io::pipe()?;
        let receiver = thread::spawn(move || {
            let mut recorded = Recorded { inner: receiver_reads, heard: Vec::new() };
            let outcome = receive_closure(&to.store, &mut FrameReader::new(&mut recorded), &mut FrameWriter::new(receiver_writes));
            outcome.map(|_| recorded.heard).map_err(|error| error.to_string())
        });
        let mut recorded = Recorded { inner: sender_reads, heard: Vec::new() };
        let (mut reader, mut writer) = (FrameReader::new(&mut recorded), FrameWriter::new(sender_writes));
        send_closure(store, &versions[version..=version], &TransferOptions::default(), &mut reader, &mut writer)?;
        drop((reader, writer));
        let told = receiver.join().map_err(|_| "the receiver panicked")??;
        write(corpus, "receiver", name, &[&[before], told.as_slice()].concat())?;
        write(corpus, "sender", name, &[&[u8::try_from(version)?], recorded.heard.as_slice()].concat())?;
    }
    Ok(io::stdout().flush()?)
}

/// An index with an object, and one that has forgotten all, as plain databases without a log.
fn write_indexes(corpus: &Path, object: &ObjectRef) -> Outcome<()> {
    for (name, versions) in [("objects", 1), ("empty", 0)] {
        let world = Temporary::with_versions(versions);
        let root = world.root();
        if versions > 0 {
            world.store.record_result(&Digest::of(b"recipe"), &[("out".to_owned(), object.clone())].into())?;
        }
        // The last connection that closes brings everything from the log into the database.
        drop(world.store);
        write(corpus, "index", name, &fs::read(root.join("index.sqlite"))?)?;
    }
    Ok(())
}

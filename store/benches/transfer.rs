//! Measures transfers between two stores over a pipe: the first copy of an old tree, then the update to a new one.
//!
//! `cargo bench -p sarsen-store --bench transfer -- OLD NEW [OLD NEW]...` takes pairs of directories and prints one line each: the bytes of
//! the new files, the bytes of both copies on the wire, and the seconds of processor time of both sides for the update.

#![expect(clippy::print_stdout, reason = "a benchmark prints what it finds")]

use std::io;
use std::path::{Path, PathBuf};
use std::thread;

use rustix::time::{ClockId, clock_gettime};
use sarsen_store::transfer::{TransferOptions, TransferStats, receive_closure, send_closure};
use sarsen_store::wire::{FrameReader, FrameWriter};
use sarsen_store::{ObjectRef, ObjectStore};

fn main() {
    let paths: Vec<PathBuf> = std::env::args_os().skip(1).filter(|argument| argument != "--bench").map(PathBuf::from).collect();
    println!("new_bytes first_wire update_wire contents sender_cpu receiver_cpu peak_kib pair");
    for pair in paths.chunks_exact(2) {
        measure(&pair[0], &pair[1]);
    }
}

fn measure(old: &Path, new: &Path) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let open = |name: &str| ObjectStore::open(&directory.path().join(name)).expect("a store");
    let (from, to) = (open("from"), open("to"));
    let old_object = put(&from, old);
    let first = copy(&from, &to, &old_object);
    let new_object = put(&from, new);
    let bytes = from.manifest(&new_object).expect("the manifest").tree.file_bytes();
    let update = copy(&from, &to, &new_object);
    let findings = to.verify_object(&new_object).expect("the received object");
    assert!(findings.is_empty(), "{findings:?}");
    println!(
        "{bytes} {} {} {} {:.2} {:.2} {} {}",
        first.stats.bytes_wire,
        update.stats.bytes_wire,
        update.stats.blobs_sent,
        update.sender_seconds,
        update.receiver_seconds,
        peak_memory(),
        new.display()
    );
}

fn put(store: &ObjectStore, directory: &Path) -> ObjectRef {
    let mut transaction = store.begin().expect("a transaction");
    let object = transaction.put_directory(&"tree".parse().expect("a name"), directory, None, &[]).expect("an object");
    transaction.barrier().expect("the barrier");
    object
}

struct Copied {
    stats: TransferStats,
    sender_seconds: f64,
    receiver_seconds: f64,
}

fn copy(from: &ObjectStore, to: &ObjectStore, object: &ObjectRef) -> Copied {
    let (to_receiver_read, to_receiver) = io::pipe().expect("a pipe");
    let (to_sender_read, to_sender) = io::pipe().expect("a pipe");
    thread::scope(|scope| {
        let receiver = scope.spawn(|| {
            let start = processor_seconds();
            let received = receive_closure(to, &mut FrameReader::new(to_receiver_read), &mut FrameWriter::new(to_sender));
            received.expect("the receiver");
            processor_seconds() - start
        });
        let start = processor_seconds();
        let (mut reader, mut writer) = (FrameReader::new(to_sender_read), FrameWriter::new(to_receiver));
        let options = TransferOptions::default();
        let stats = send_closure(from, std::slice::from_ref(object), &options, &mut reader, &mut writer).expect("the sender");
        let sender_seconds = processor_seconds() - start;
        Copied { stats, sender_seconds, receiver_seconds: receiver.join().expect("the receiver's thread") }
    })
}

/// The processor time of this thread.
fn processor_seconds() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    #[expect(clippy::cast_precision_loss, reason = "seconds of a benchmark")]
    let seconds = time.tv_sec as f64 + time.tv_nsec as f64 / 1e9;
    seconds
}

/// The most memory that this process has held, both sides together, in KiB.
fn peak_memory() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.split_whitespace().next()).unwrap_or("?").to_owned()
}

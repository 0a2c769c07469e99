//! Measures transfers between two stores, over a pipe or over any command.
//!
//! `cargo bench -p sarsen-store --bench transfer -- WORK ...`; without arguments it does nothing, so that `cargo test --benches` passes.
//!
//! * `pairs OLD NEW [OLD NEW]...`: both sides in this process, first the old tree of each pair, then the update to the new one, one line each:
//!   bytes of the new files, bytes of both copies on the wire, seconds of processor time of both sides for the update;
//! * `send STORE OBJECT [--effort fast|balanced|small] -- COMMAND...`: sends an object and what it needs to the command's input, and hears its output:
//!   `ssh HOST transfer receive STORE`. Prints wall and processor seconds (this side's, without the command), bytes that went out and came in, what travelled, peak memory;
//! * `receive STORE`: the other side of that, on standard input and output; says the same on standard error.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a benchmark prints what it finds")]

use std::io;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Instant;

use rustix::time::{ClockId, clock_gettime};
use sarsen_store::transfer::{Effort, TransferOptions, TransferStats, receive_closure, send_closure};
use sarsen_store::wire::{FrameReader, FrameWriter};
use sarsen_store::{ObjectRef, ObjectStore};

type Outcome = Result<(), Box<dyn std::error::Error>>;

fn main() -> Outcome {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        [] => Ok(()),
        ["pairs", pairs @ ..] => {
            println!("new_bytes first_wire update_wire contents sender_cpu receiver_cpu peak_kib pair");
            pairs.chunks_exact(2).for_each(|pair| measure(Path::new(pair[0]), Path::new(pair[1])));
            Ok(())
        }
        ["send", store, object, "--effort", effort, "--", command @ ..] => {
            send(Path::new(store), object, Some(parse_effort(effort)?), command)
        }
        ["send", store, object, "--", command @ ..] => send(Path::new(store), object, None, command),
        ["receive", store] => receive(Path::new(store)),
        other => Err(format!("unknown work: {}", other.join(" ")).into()),
    }
}

fn parse_effort(effort: &str) -> Result<Effort, String> {
    match effort {
        "fast" => Ok(Effort::Fast),
        "balanced" => Ok(Effort::Balanced),
        "small" => Ok(Effort::Small),
        other => Err(format!("an effort is fast, balanced or small, not {other}")),
    }
}

#[expect(clippy::disallowed_methods, reason = "the benchmark starts the command that it was given")]
fn send(store: &Path, object: &str, effort: Option<Effort>, command: &[&str]) -> Outcome {
    let started = Instant::now();
    let (program, arguments) = command.split_first().ok_or("a command is missing behind `--`")?;
    let mut child = Command::new(program).args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let (input, output) = (child.stdin.take().ok_or("no input")?, child.stdout.take().ok_or("no output")?);
    let (mut reader, mut writer) = (FrameReader::new(output), FrameWriter::new(input));
    let store = ObjectStore::open(store)?;
    let object: ObjectRef = object.parse()?;
    let options = TransferOptions { effort, ..TransferOptions::default() };
    let stats = send_closure(&store, &[object], &options, &mut reader, &mut writer)?;
    let (bytes_in, bytes_out) = (reader.bytes(), writer.bytes());
    drop(writer);
    child.wait()?;
    println!(
        "send wall {:.3} cpu {:.3} out {bytes_out} in {bytes_in} objects {} contents {} raw {} peak_kib {}",
        started.elapsed().as_secs_f64(),
        processor_seconds(ClockId::ProcessCPUTime),
        stats.objects_sent,
        stats.blobs_sent,
        stats.bytes_raw,
        peak_memory()
    );
    Ok(())
}

fn receive(store: &Path) -> Outcome {
    let started = Instant::now();
    let store = ObjectStore::open(store)?;
    let (mut reader, mut writer) = (FrameReader::new(io::stdin()), FrameWriter::new(io::stdout()));
    let (_kept, stats) = receive_closure(&store, &mut reader, &mut writer)?;
    eprintln!(
        "receive wall {:.3} cpu {:.3} in {} out {} objects {} contents {} raw {} peak_kib {}",
        started.elapsed().as_secs_f64(),
        processor_seconds(ClockId::ProcessCPUTime),
        reader.bytes(),
        writer.bytes(),
        stats.objects_sent,
        stats.blobs_sent,
        stats.bytes_raw,
        peak_memory()
    );
    Ok(())
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
            let start = processor_seconds(ClockId::ThreadCPUTime);
            let received = receive_closure(to, &mut FrameReader::new(to_receiver_read), &mut FrameWriter::new(to_sender));
            received.expect("the receiver");
            processor_seconds(ClockId::ThreadCPUTime) - start
        });
        let start = processor_seconds(ClockId::ThreadCPUTime);
        let (mut reader, mut writer) = (FrameReader::new(to_sender_read), FrameWriter::new(to_receiver));
        // A pipe is faster than any link, so the effort is fixed.
        let options = TransferOptions { effort: Some(Effort::Balanced), ..TransferOptions::default() };
        let stats = send_closure(from, std::slice::from_ref(object), &options, &mut reader, &mut writer).expect("the sender");
        let sender_seconds = processor_seconds(ClockId::ThreadCPUTime) - start;
        Copied { stats, sender_seconds, receiver_seconds: receiver.join().expect("the receiver's thread") }
    })
}

/// The processor time of this thread or process.
fn processor_seconds(clock: ClockId) -> f64 {
    let time = clock_gettime(clock);
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

//! The power goes while a store works: on ext4, xfs and btrfs, whatever a disk may have kept.
//!
//! All writes of a file system go through a log (`qemu-storage-daemon` with `blklogwrites`, under a loop device). From the log the disk is built
//! again as it could have been at any instant: everything up to the last flush, and of what came later all, nothing or any part. Each of these
//! disks is mounted, and the oracle of `sarsen-store-work` judges it: what a work promised when it ended is there, everything
//! registered is intact, and the work that was under way succeeds when it is done again. `SARSEN_ROUNDS` says how many disks there are.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::full::{rounds, work_binary};

/// What happens on the disk, one after the other.
const WORKS: [&str; 8] = ["ingest", "gc", "receive", "ingest-again", "import", "gc", "rebuild", "open"];

/// Disks of each file system at one round. Ten rounds are 210 disks.
const DISKS_PER_ROUND: usize = 7;

/// How long a daemon or a loop device may take to be there.
const PATIENCE: Duration = Duration::from_secs(30);

/// The sectors of the log.
const SECTOR: u64 = 512;

/// A kind of file system: its name, the program that makes it, the options to mount it, and the least size of a disk in MiB.
type Kind = (&'static str, &'static [&'static str], &'static str, u64);

const KINDS: [Kind; 3] = [
    ("ext4", &["mkfs.ext4", "-q", "-F"], "rw", 96),
    ("xfs", &["mkfs.xfs", "-q", "-f"], "rw,nouuid", 320),
    ("btrfs", &["mkfs.btrfs", "-q", "-f"], "rw", 160),
];

/// Runs a program that must succeed; returns what it printed.
fn run(words: &[&str]) -> String {
    let output = Command::new(words[0]).args(&words[1..]).output().unwrap_or_else(|error| panic!("{words:?}: {error}"));
    assert!(output.status.success(), "{words:?}: {}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// A loop device; goes with the value.
struct Loop(String);

impl Loop {
    fn of(file: &Path) -> Self {
        Self(run(&["losetup", "-f", "--show", &file.display().to_string()]))
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        // What is left is visible in `losetup -a`; the test has its result already.
        let _ = Command::new("losetup").args(["-d", &self.0]).status();
    }
}

/// A mounted file system; goes with the value.
struct Mount(PathBuf);

impl Mount {
    /// Mounts a device, or says why that does not work.
    fn of(device: &str, options: &str, kind: &str, place: &Path) -> Result<Self, String> {
        let mut command = Command::new("mount");
        let output = command.args(["-t", kind, "-o", options, device]).arg(place).output().expect("mount starts");
        if output.status.success() { Ok(Self(place.to_owned())) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg(&self.0).status().is_ok_and(|status| status.success());
        if !unmounted {
            let _ = Command::new("umount").arg("-l").arg(&self.0).status();
        }
    }
}

/// One write or flush in the log.
#[derive(Debug, Clone, Copy)]
struct Logged {
    sector: u64,
    sectors: u64,
    flags: u64,
    /// Where its data are in the log.
    data: u64,
}

impl Logged {
    /// Whether all writes before it are on the disk when it is.
    const fn is_flush(&self) -> bool {
        self.flags & 1 != 0
    }

    /// Whether it is on the disk itself when it is done.
    const fn is_forced(&self) -> bool {
        self.flags & 2 != 0
    }

    const fn is_write(&self) -> bool {
        self.flags & 4 == 0 && self.sectors > 0
    }
}

/// A disk whose writes are logged.
struct Recorder {
    daemon: Child,
    log: File,
    export: PathBuf,
    bytes: u64,
}

impl Recorder {
    fn new(directory: &Path, mebibytes: u64) -> Self {
        let bytes = mebibytes << 20;
        let at = |name: &str| directory.join(name);
        // The log holds every write; it is sparse, so that its length costs nothing.
        for (name, length) in [("disk", bytes), ("log", 4 << 30), ("export", 0)] {
            File::create(at(name)).and_then(|file| file.set_len(length)).expect("a file for the disk");
        }
        let file = |name: &str, node: &str| format!("driver=file,filename={},node-name={node}", at(name).display());
        let daemon = Command::new("qemu-storage-daemon")
            .args(["--blockdev", &file("disk", "disk"), "--blockdev", &file("log", "log")])
            .args(["--blockdev", "driver=blklogwrites,file=disk,log=log,log-sector-size=512,node-name=logged"])
            .args(["--export", &format!("type=fuse,id=e,node-name=logged,writable=on,mountpoint={}", at("export").display())])
            .stdin(Stdio::null())
            .spawn()
            .expect("qemu-storage-daemon starts: it is in qemu-utils");
        let recorder = Self { daemon, log: File::open(at("log")).expect("the log"), export: at("export"), bytes };
        recorder.wait();
        recorder
    }

    fn wait(&self) {
        let started = Instant::now();
        while fs::metadata(&self.export).map_or(0, |metadata| metadata.len()) != self.bytes {
            assert!(started.elapsed() < PATIENCE, "{} does not become a disk", self.export.display());
            thread::yield_now();
        }
    }

    /// The log so far, from its beginning.
    fn entries(&self) -> Vec<Logged> {
        let (mut entries, mut offset) = (Vec::new(), SECTOR);
        loop {
            let mut head = [0; 32];
            self.log.read_exact_at(&mut head, offset).expect("the log is longer than what is in it");
            let number = |at: usize| u64::from_le_bytes(head[at..at + 8].try_into().expect("eight bytes"));
            let entry = Logged { sector: number(0), sectors: number(8), flags: number(16), data: offset + SECTOR };
            // Behind the last entry the log is empty.
            if entry.sectors == 0 && entry.flags == 0 {
                return entries;
            }
            offset += SECTOR + if entry.is_write() { entry.sectors * SECTOR } else { 0 };
            entries.push(entry);
        }
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        if let Ok(raw) = i32::try_from(self.daemon.id()) {
            let _ = Pid::from_raw(raw).map(|pid| kill_process(pid, Signal::INT));
        }
        let _ = self.daemon.wait();
    }
}

/// How far the log had come when a work had ended, and the objects that were there.
struct Milestone {
    entries: usize,
    objects: Vec<String>,
}

/// One file system: what was written to it, and where its disks are built again.
struct Recording {
    kind: Kind,
    directory: tempfile::TempDir,
    entries: Vec<Logged>,
    log: File,
    milestones: Vec<Milestone>,
}

fn work(arguments: &[&str]) -> Output {
    Command::new(work_binary()).args(arguments).output().expect("sarsen-store-work starts")
}

impl Recording {
    fn of(kind: Kind) -> Self {
        let (name, make, options, mebibytes) = kind;
        let directory = tempfile::Builder::new().prefix("sarsen-power-").tempdir_in("/dev/shm").expect("a directory in memory");
        let place = directory.path().join("place");
        fs::create_dir(&place).expect("a place to mount to");
        let recorder = Recorder::new(directory.path(), mebibytes);
        let device = Loop::of(&recorder.export);
        run(&[make, &[&device.0]].concat());
        let mount = Mount::of(&device.0, options, name, &place).expect("a new file system");
        let mut milestones = Vec::new();
        let (root, inputs) = (place.join("root").display().to_string(), directory.path().join("inputs").display().to_string());
        for done in ["prepare"].iter().chain(&WORKS) {
            let output = if *done == "receive" { receive(&root, &inputs) } else { work(&[done, &root, &inputs]) };
            assert!(output.status.success(), "{done} on {name}: {}", String::from_utf8_lossy(&output.stderr));
            let entries = recorder.entries().len();
            let listed = work(&["list", &root, &inputs]).stdout;
            let objects = String::from_utf8_lossy(&listed).lines().map(str::to_owned).collect();
            milestones.push(Milestone { entries, objects });
        }
        drop(mount);
        drop(device);
        let entries = recorder.entries();
        let log = recorder.log.try_clone().expect("the log");
        drop(recorder);
        Self { kind, directory, entries, log, milestones }
    }

    fn apply(&self, disk: &File, entry: &Logged) {
        let mut data = vec![0; usize::try_from(entry.sectors * SECTOR).expect("a write fits into memory")];
        self.log.read_exact_at(&mut data, entry.data).expect("the log");
        disk.write_all_at(&data, entry.sector * SECTOR).expect("the disk");
    }

    /// What is wrong with the disk as it may be when the power goes before entry `cut`; `kept` says which of the unflushed writes it has.
    fn judge(&self, cut: usize, flushed: &mut Flushed, kept: &mut impl FnMut() -> bool) -> Result<(), String> {
        let (name, _, options, _) = self.kind;
        let last_flush = self.entries[..cut].iter().rposition(Logged::is_flush).unwrap_or(0);
        flushed.advance(self, last_flush);
        let disk = self.directory.path().join("cut");
        run(&["cp", "--sparse=always", &flushed.path.display().to_string(), &disk.display().to_string()]);
        let file = OpenOptions::new().write(true).open(&disk).expect("the disk");
        for entry in self.entries[last_flush..cut].iter().filter(|entry| entry.is_write()) {
            if entry.is_forced() || kept() {
                self.apply(&file, entry);
            }
        }
        let place = self.directory.path().join("place");
        let device = Loop::of(&disk);
        let mount = Mount::of(&device.0, options, name, &place).map_err(|error| format!("it cannot be mounted: {error}"))?;
        let done = self.milestones.iter().rposition(|milestone| milestone.entries <= cut).expect("cuts come after the first work");
        let under_way = WORKS.get(done).unwrap_or(&"open");
        let next = self.milestones.get(done + 1).unwrap_or(&self.milestones[done]);
        let (root, inputs) = (place.join("root").display().to_string(), self.directory.path().join("inputs").display().to_string());
        let mut arguments = vec!["judge", under_way, &root, &inputs];
        // What the next work may remove is not promised.
        let promised = self.milestones[done].objects.iter().filter(|object| next.objects.contains(object));
        arguments.extend(promised.map(String::as_str));
        let output = work(&arguments);
        drop(mount);
        drop(device);
        if name == "btrfs" {
            // Otherwise the next disk of the same identity counts as an older copy of this one.
            run(&["btrfs", "device", "scan", "--forget"]);
        }
        if output.status.success() {
            return Ok(());
        }
        let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        Err(format!("{under_way} was under way:\n{text}"))
    }
}

/// The receiver is the work, its sender another process.
fn receive(root: &str, inputs: &str) -> Output {
    let mut sender = Command::new(work_binary());
    let mut sender = sender.args(["send", inputs]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the sender starts");
    let mut receiver = Command::new(work_binary());
    receiver.args(["receive", root, inputs]).stdin(sender.stdout.take().expect("a pipe"));
    let output = receiver.stdout(sender.stdin.take().expect("a pipe")).output().expect("the receiver starts");
    drop(receiver);
    sender.wait().expect("the sender ends");
    output
}

/// The disk with everything up to some flush, built further as cuts come later.
struct Flushed {
    path: PathBuf,
    disk: File,
    applied: usize,
}

impl Flushed {
    fn new(recording: &Recording) -> Self {
        let path = recording.directory.path().join("flushed");
        let disk = File::create(&path).expect("a disk");
        disk.set_len(recording.kind.3 << 20).expect("a disk");
        Self { path, disk, applied: 0 }
    }

    fn advance(&mut self, recording: &Recording, to: usize) {
        recording.entries[self.applied..to].iter().filter(|entry| entry.is_write()).for_each(|entry| recording.apply(&self.disk, entry));
        self.applied = to.max(self.applied);
    }
}

/// Numbers that look random, the same for the same seed.
struct Random(u64);

impl Random {
    const fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

/// Where the power goes: at flushes, and anywhere between them. In order.
fn cuts(recording: &Recording, count: usize) -> Vec<usize> {
    let (first, last) = (recording.milestones[0].entries, recording.entries.len());
    let flushes: Vec<usize> = (first..last).filter(|position| recording.entries[*position].is_flush()).collect();
    assert!(flushes.len() > 10, "works sync: {} flushes among {} entries", flushes.len(), last - first);
    let mut random = Random(0x5a17_5e11);
    let mut cuts: Vec<usize> = (0..count)
        .map(|number| {
            let position = flushes[number * flushes.len() / count];
            // Every other one just behind a flush, the rest somewhere in what follows it.
            let behind = flushes.iter().find(|flush| **flush > position).map_or(last, |next| *next) - position;
            let distance = u64::try_from(behind).map_or(0, |behind| if number % 2 == 0 { 0 } else { random.next() % behind });
            position + 1 + usize::try_from(distance).unwrap_or(0)
        })
        .collect();
    cuts.sort_unstable();
    cuts
}

#[test]
fn whenever_the_power_goes_what_is_registered_is_intact() {
    let judged = |kind: Kind| {
        let recording = Recording::of(kind);
        let count = rounds() * DISKS_PER_ROUND;
        let mut flushed = Flushed::new(&recording);
        let mut faults = Vec::new();
        for (number, cut) in cuts(&recording, count).into_iter().enumerate() {
            let mut random = Random(number as u64 * 2 + 1);
            let mut kept = || random.next().is_multiple_of(2);
            if let Err(fault) = recording.judge(cut, &mut flushed, &mut kept) {
                faults.push(format!("{}, power off before write {cut}, disk {number}: {fault}", kind.0));
            }
        }
        println!("{}: {count} disks from {} writes and flushes, {} bad", kind.0, recording.entries.len(), faults.len());
        faults
    };
    let faults: Vec<String> = thread::scope(|scope| {
        let threads: Vec<_> = KINDS.iter().map(|kind| scope.spawn(move || judged(*kind))).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("a file system")).collect()
    });
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

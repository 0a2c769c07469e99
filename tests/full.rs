//! Full disks: a file system of memory is filled up to some page or inode, and a store works on it.
//!
//! Here a write is really cut short in the middle. Whoever finds no room says so and leaves an intact store, by the oracle of
//! `sarsen-store-work`; the same work succeeds when there is room; and a collection needs none at all.

use std::path::PathBuf;
use std::process::{Command, Output};

use crate::world::sarsen_binary;

/// The size that is enough for everything, in bytes.
const AMPLE_BYTES: u64 = 64 << 20;

/// The inodes that are enough for everything.
const AMPLE_INODES: u64 = 100_000;

/// How many sizes are tried at one round; between them lie equal steps.
const SIZES_PER_ROUND: u64 = 4;

/// How often everything is done: 1 by default, for a sample.
pub(crate) fn rounds() -> usize {
    std::env::var("SARSEN_ROUNDS").map_or(1, |text| text.parse().expect("SARSEN_ROUNDS is a number")).max(1)
}

/// The program that works on a store and judges it; cargo builds it only when the whole workspace is built.
pub(crate) fn work_binary() -> PathBuf {
    let path = sarsen_binary().with_file_name("sarsen-store-work");
    assert!(path.is_file(), "{} is missing: run `cargo build --workspace` first, or tests/run", path.display());
    path
}

/// A file system of memory with a prepared store; goes with the value.
struct Disk {
    directory: tempfile::TempDir,
}

impl Disk {
    fn new() -> Self {
        let disk = Self { directory: tempfile::Builder::new().prefix("sarsen-full-").tempdir().expect("a directory") };
        std::fs::create_dir(disk.mount()).expect("a place to mount to");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "sarsen-full"]).arg(disk.mount()).status().expect("mount starts");
        assert!(mounted.success(), "a file system of memory");
        disk.resize(AMPLE_BYTES, AMPLE_INODES);
        assert!(disk.work(&["prepare"]).status.success());
        disk
    }

    fn mount(&self) -> PathBuf {
        self.directory.path().join("disk")
    }

    fn resize(&self, bytes: u64, inodes: u64) {
        let options = format!("remount,size={bytes},nr_inodes={inodes}");
        let resized = Command::new("mount").args(["-o", &options]).arg(self.mount()).status().expect("mount starts");
        assert!(resized.success(), "{options}");
    }

    fn work(&self, arguments: &[&str]) -> Output {
        let (root, inputs) = (self.mount().join("root"), self.directory.path().join("inputs"));
        // `judge` has the name of the work first.
        let own = if arguments[0] == "judge" { 2 } else { 1 };
        let mut command = Command::new(work_binary());
        command.args(&arguments[..own]).args([root, inputs]).args(&arguments[own..]).output().expect("sarsen-store-work starts")
    }

    fn objects(&self) -> Vec<String> {
        String::from_utf8_lossy(&self.work(&["list"]).stdout).lines().map(str::to_owned).collect()
    }

    /// Bytes and inodes in use.
    fn used(&self) -> (u64, u64) {
        let status = rustix::fs::statvfs(self.mount()).expect("the file system");
        ((status.f_blocks - status.f_bfree) * status.f_frsize, status.f_files - status.f_ffree)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.mount()).status();
    }
}

/// Runs a work on a disk with room for `share` of what it takes at most, and judges; returns whether there was enough.
fn squeeze(work: &str, (share, of): (u64, u64), inodes_too: bool) -> Result<bool, String> {
    let disk = Disk::new();
    assert!(disk.work(&["gc"]).status.success());
    let live = disk.objects();
    let (bytes, inodes) = disk.used();
    // Staging takes the most: 3 MiB and 120 inodes are more than any of the works needs.
    if inodes_too {
        disk.resize(AMPLE_BYTES, inodes + 120 * share / of);
    } else {
        disk.resize((bytes + (3 << 20) * share / of).next_multiple_of(4096), AMPLE_INODES);
    }
    let run = disk.work(&[work]);
    let told = String::from_utf8_lossy(&run.stderr).into_owned();
    disk.resize(AMPLE_BYTES, AMPLE_INODES);
    let what = format!("{work} with room for {share}/{of}, inodes {inodes_too}");
    let enough = match run.status.code() {
        Some(0) => true,
        Some(1) if ["No space left", "full", "bytes are free"].iter().any(|word| told.contains(word)) => false,
        code => return Err(format!("{what} ended with {code:?}: {told}")),
    };
    let mut arguments = vec!["judge", work];
    arguments.extend(live.iter().map(String::as_str));
    let judged = disk.work(&arguments);
    if judged.status.success() { Ok(enough) } else { Err(format!("{what} ({told}):\n{}", String::from_utf8_lossy(&judged.stdout))) }
}

#[test]
fn a_disk_that_is_full_at_any_place_leaves_an_intact_store() {
    let sizes = SIZES_PER_ROUND * rounds() as u64;
    let mut faults = Vec::new();
    for work in ["ingest", "import", "receive-here"] {
        for inodes_too in [false, true] {
            let outcomes: Vec<_> = (0..=sizes).map(|share| squeeze(work, (share, sizes), inodes_too)).collect();
            let enough = outcomes.iter().filter(|outcome| matches!(outcome, Ok(true))).count();
            let short = outcomes.iter().filter(|outcome| matches!(outcome, Ok(false))).count();
            assert!(enough > 0 && short > 0, "{work}, inodes {inodes_too}: {enough} times enough, {short} times not: {outcomes:?}");
            faults.extend(outcomes.into_iter().filter_map(Result::err));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn a_collection_needs_no_room() {
    let disk = Disk::new();
    let (bytes, inodes) = disk.used();
    disk.resize(bytes, inodes);
    assert!(std::fs::write(disk.mount().join("more"), b"more").is_err(), "the disk is full");
    let objects = || std::fs::read_dir(disk.mount().join("root/store")).expect("the store").count();
    let before = objects();
    let collected = disk.work(&["gc"]);
    assert!(collected.status.success(), "{}", String::from_utf8_lossy(&collected.stderr));
    assert!(objects() < before);
    let judged = disk.work(&["judge", "gc"]);
    assert!(judged.status.success(), "{}", String::from_utf8_lossy(&judged.stdout));
}

//! What all sweeps share: a store that is put back before each point, the list of a work's system calls, and runs under strace.
//!
//! A point is the name of a system call and how often its thread has made that call, which is how strace counts.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Mutex;
use std::thread;

use sarsen_store::fsutil;

/// The program that does the works.
pub(crate) const WORK: &str = env!("CARGO_BIN_EXE_sarsen-store-work");

/// The rounds at which no kill is left out.
pub(crate) const ROUNDS_ALL: usize = 10;

/// How many places are swept side by side: most of a point is waiting for other processes.
const WORKERS: usize = 3;

/// System calls that change files.
pub(crate) const MUTATIONS: &str = "rename,renameat,renameat2,link,linkat,symlink,symlinkat,unlink,unlinkat,rmdir,mkdir,mkdirat,ftruncate,\
    chmod,fchmod,fchmodat,utimensat,syncfs,fsync,fdatasync,write,pwrite64,pwritev,writev,copy_file_range,sendfile,fallocate";

/// System calls that change something when they make a file.
pub(crate) const OPENINGS: &str = "open,openat,openat2,creat";

/// Everything else that can fail on a file.
pub(crate) const READINGS: &str = "read,pread64,getdents64,readlink,readlinkat,statx,stat,fstat,lstat,newfstatat,statfs,flock,flistxattr";

/// How often everything is done: 1 by default, for a sample.
pub(crate) fn rounds() -> usize {
    std::env::var("SARSEN_ROUNDS").map_or(1, |text| text.parse().expect("SARSEN_ROUNDS is a number")).max(1)
}

/// A system call of one thread: its name and the how many-th of that name it is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Point {
    pub(crate) call: String,
    pub(crate) nth: u64,
}

/// One traced call.
pub(crate) struct Traced {
    pub(crate) point: Point,
    /// What strace printed of its arguments and its result.
    pub(crate) text: String,
}

/// Where syncing costs nothing, if there is such a place.
pub(crate) fn memory() -> PathBuf {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() }
}

/// A store with the inputs of the works.
pub(crate) struct Place {
    directory: tempfile::TempDir,
}

impl Place {
    /// A place in memory, where syncing costs nothing and disturbs nobody.
    pub(crate) fn new() -> Self {
        let directory = tempfile::Builder::new().prefix("sarsen-faults-").tempdir_in(memory()).expect("a temporary directory");
        let place = Self { directory };
        fs::create_dir(place.path("now")).expect("a directory");
        let prepared = place.work(&["prepare"]);
        assert!(prepared.status.success(), "prepare: {}", String::from_utf8_lossy(&prepared.stderr));
        place.copy("now", "saved");
        place
    }

    pub(crate) fn path(&self, below: &str) -> PathBuf {
        self.directory.path().join(below)
    }

    fn copy(&self, from: &str, to: &str) {
        fsutil::remove_tree(&self.path(to)).expect("the old copy goes");
        let copied = Command::new("cp").arg("-a").arg(self.path(from)).arg(self.path(to)).status().expect("cp starts");
        assert!(copied.success(), "{from} to {to}");
    }

    /// Puts the store and the inputs back as they were prepared.
    pub(crate) fn restore(&self) {
        self.copy("saved", "now");
    }

    /// Runs `sarsen-store-work`; root and inputs follow the first argument.
    pub(crate) fn work(&self, arguments: &[&str]) -> Output {
        self.command(&[], arguments).output().expect("the work starts")
    }

    fn command(&self, prefix: &[String], arguments: &[&str]) -> Command {
        let words = prefix.iter().map(OsStr::new).chain([OsStr::new(WORK)]).collect::<Vec<_>>();
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).arg(arguments[0]).arg(self.path("now/root")).arg(self.path("now/inputs")).args(&arguments[1..]);
        command
    }

    /// Runs a work under strace; a receiver gets its sender, which is not traced.
    pub(crate) fn run_traced(&self, work: &str, strace: &[&str]) -> Output {
        let prefix: Vec<String> = ["strace", "-f", "-qq"].iter().chain(strace).map(|&word| word.to_owned()).collect();
        let mut command = self.command(&prefix, &[work]);
        command.stderr(Stdio::piped());
        if work != "receive" {
            return command.output().expect("strace starts");
        }
        let mut sender = Command::new(WORK);
        sender.arg("send").arg(self.path("now/inputs")).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut sender = sender.spawn().expect("the sender starts");
        command.stdin(sender.stdout.take().expect("a pipe")).stdout(sender.stdin.take().expect("a pipe"));
        let output = command.output().expect("strace starts");
        // The command still holds its ends of the pipes, on which the sender would wait.
        drop(command);
        sender.wait().expect("the sender ends");
        output
    }

    /// All calls of a work to files of this place.
    pub(crate) fn trace(&self, work: &str, calls: &str) -> Vec<Traced> {
        self.restore();
        let traces = self.path("traces");
        fsutil::remove_tree(&traces).expect("old traces go");
        fs::create_dir(&traces).expect("a directory for traces");
        let output = format!("{}/trace", traces.display());
        let run = self.run_traced(work, &["-ff", "-y", "-s", "200", "-o", &output, "-e", &format!("trace={calls}")]);
        assert!(run.status.success(), "{work}: {}", String::from_utf8_lossy(&run.stderr));
        let own = self.path("now").display().to_string();
        let mut found = Vec::new();
        for trace in fs::read_dir(&traces).expect("traces").flatten() {
            let text = fs::read(trace.path()).expect("a trace");
            let mut counts: BTreeMap<String, u64> = BTreeMap::new();
            for line in String::from_utf8_lossy(&text).lines() {
                let is_name = |name: &str| name.bytes().all(|byte| byte.is_ascii_alphanumeric());
                let Some((name, rest)) = line.split_once('(').filter(|(name, _)| is_name(name)) else { continue };
                let count = counts.entry(name.to_owned()).or_default();
                *count += 1;
                if rest.contains(&own) {
                    let point = Point { call: name.to_owned(), nth: *count };
                    found.push(Traced { point, text: rest.to_owned() });
                }
            }
        }
        found
    }

    /// The objects that roots need after `work`.
    pub(crate) fn live_after(&self, work: &str) -> Vec<String> {
        self.restore();
        let done = if work == "receive" { self.work(&["receive-here"]) } else { self.work(&[work]) };
        assert!(done.status.success(), "{work}: {}", String::from_utf8_lossy(&done.stderr));
        let listed = self.work(&["list"]);
        String::from_utf8(listed.stdout).expect("objects are ASCII").lines().map(str::to_owned).collect()
    }

    /// What the oracle says; `required` are the objects that must be there.
    pub(crate) fn judge(&self, work: &str, required: &[String]) -> Result<(), String> {
        let mut command = Command::new(WORK);
        command.arg("judge").arg(work).arg(self.path("now/root")).arg(self.path("now/inputs")).args(required);
        let output = command.output().expect("the judge starts");
        let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        if output.status.success() { Ok(()) } else { Err(text) }
    }
}

/// Whether a traced call changes a file.
pub(crate) fn changes_a_file(traced: &Traced) -> bool {
    let listed = |list: &str| list.split(',').any(|entry| entry.trim() == traced.point.call);
    listed(MUTATIONS) || (listed(OPENINGS) && traced.text.contains("O_CREAT"))
}

/// A part of some things, so that `SARSEN_ROUNDS` decides how much of them is done: all of them from `rounds_all` on.
pub(crate) fn sample<T>(all: Vec<T>, rounds_all: usize) -> Vec<T> {
    let step = (rounds_all / rounds()).max(1);
    // The last ones are the most interesting: names and syncs come at the end.
    let skipped = all.len().saturating_sub(1) % step;
    all.into_iter().skip(skipped).step_by(step).collect()
}

/// Does something at each point, in several places side by side; returns what was wrong, sorted.
pub(crate) fn at_each<T: Send>(points: Vec<T>, check: impl Fn(&Place, &T) -> Result<(), String> + Sync) -> BTreeSet<String> {
    let queue = Mutex::new(points);
    let faults = Mutex::new(BTreeSet::new());
    thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                let place = Place::new();
                let next = || queue.lock().expect("the queue").pop();
                while let Some(point) = next() {
                    place.restore();
                    if let Err(fault) = check(&place, &point) {
                        faults.lock().expect("the list").insert(fault);
                    }
                }
            });
        }
    });
    faults.into_inner().expect("the list")
}

//! The activator is killed at each of its changes to the file system in turn.
//!
//! `sarsen` finds its activator beside itself, so a script of that name stands there and runs the real one under strace: once to list
//! the system calls that change something, then once for each of them, killed at its entry. A point is a name and how
//! often the thread has made that call, which is how strace counts. Whatever else of the activation still runs is killed as
//! well, as by a power cut. Then `current` must be the old or the new generation, every object complete, and the next
//! deployment must end on the new one.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::sync::Mutex;
use std::thread;

use crate::world::World;

/// System calls that change files whatever their arguments.
const MUTATIONS: &str = "rename,renameat,renameat2,link,linkat,symlink,symlinkat,unlink,unlinkat,rmdir,mkdir,mkdirat,ftruncate,\
    chmod,fchmod,fchmodat,chown,fchown,fchownat,utimensat,syncfs";

/// System calls that change files when they are about one of the world's.
const ON_FILES: &str = "write,pwrite64,writev,copy_file_range,sendfile,fsync,fdatasync,fallocate";

/// System calls that change something when they make a file.
const OPENINGS: &str = "open,openat,openat2,creat";

/// How many worlds are swept side by side: most of a point is waiting.
const WORKERS: usize = 4;

/// A system call of one thread: its name and the how many-th of that name it is.
type Point = (String, u64);

struct Bench {
    world: World,
}

impl Bench {
    /// Version 1 runs; version 2 was staged and tried before, so that what follows is the activation alone.
    fn new() -> Self {
        let world = World::of("mutations");
        world.copy_binaries();
        fs::rename(world.bin().join("sarsen-activator"), world.bin().join("real-activator")).expect("the activator");
        fs::create_dir(world.path().join("place")).expect("a place for links");
        let place = world.path().join("place");
        world.append("environments/dev/environment.toml", &format!("\n[components.mutations]\nplace = \"{}\"\n", place.display()));
        let bench = Self { world };
        bench.activator("exec");
        bench.world.sarsen(&["deploy", "dev", "--yes"]).expect(0);
        bench.world.append("environments/dev/environment.toml", "version = \"2\"\n");
        bench.world.sarsen(&["deploy", "dev", "--yes"]).expect(0);
        bench.world.sarsen(&["rollback", "dev", "--yes"]).expect(0);
        bench.world.end_processes();
        assert_eq!(bench.version(), "1");
        bench.copy("data", "saved-data");
        bench.copy("place", "saved-place");
        bench
    }

    /// Lets `sarsen-activator` run the real one through `how`.
    fn activator(&self, how: &str) {
        let script = self.world.bin().join("sarsen-activator");
        let real = self.world.bin().join("real-activator");
        fs::write(&script, format!("#!/bin/sh\n{how} {} \"$@\"\n", real.display())).expect("the activator's stand-in");
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("the activator's stand-in");
    }

    /// Files with their hard links, as they are.
    fn copy(&self, from: &str, to: &str) {
        let target = self.world.path().join(to);
        let removed = Command::new("rm").arg("-rf").arg(&target).status().expect("rm starts");
        let copied = Command::new("cp").arg("-a").arg(self.world.path().join(from)).arg(&target).status().expect("cp starts");
        assert!(removed.success() && copied.success(), "{from} to {to}");
    }

    fn restore(&self) {
        self.copy("saved-data", "data");
        self.copy("saved-place", "place");
    }

    /// The version that `current` leads to; it must be there in full.
    fn version(&self) -> String {
        let note = self.world.root().join("profiles/mutations/current/mutations/note");
        let text = fs::read_to_string(&note).unwrap_or_else(|error| panic!("{}: {error}", note.display()));
        text.trim().strip_prefix("version ").expect("a version").to_owned()
    }

    /// Every system call of an activation that changes a file, as points.
    fn points(&self) -> BTreeSet<Point> {
        self.restore();
        let traces = self.world.path().join("traces");
        fs::create_dir(&traces).expect("a directory for traces");
        let calls = format!("{MUTATIONS},{ON_FILES},{OPENINGS}");
        self.activator(&format!("exec strace -DDD -ff -qq -y -o {}/trace -e trace={calls} --", traces.display()));
        self.world.sarsen(&["deploy", "dev", "--yes"]).expect(0);
        self.world.end_processes();
        let mut points = BTreeSet::new();
        for trace in fs::read_dir(&traces).expect("traces").flatten() {
            let text = fs::read_to_string(trace.path()).expect("a trace");
            let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
            for line in text.lines() {
                let Some((name, rest)) = line.split_once('(').filter(|(name, _)| name.bytes().all(|byte| byte.is_ascii_alphanumeric()))
                else {
                    continue;
                };
                let count = counts.entry(name).or_default();
                *count += 1;
                if self.changes_a_file(name, rest) {
                    points.insert((name.to_owned(), *count));
                }
            }
        }
        points
    }

    fn changes_a_file(&self, name: &str, rest: &str) -> bool {
        let listed = |list: &str| list.split(',').any(|entry| entry.trim() == name);
        let ours = || rest.split(',').next().is_some_and(|argument| argument.contains(&*self.world.path().to_string_lossy()));
        listed(MUTATIONS) || (listed(ON_FILES) && ours()) || (listed(OPENINGS) && rest.contains("O_CREAT"))
    }

    /// Kills at one point; says what was wrong afterwards.
    fn kill_at(&self, (name, nth): &Point) -> Result<Kill, String> {
        self.restore();
        let trace = self.world.path().join("kill-trace");
        let inject = format!("-e trace={name} -e inject={name}:signal=KILL:when={nth}");
        self.activator(&format!("exec strace -DDD -f -qq --seccomp-bpf -o {} {inject} --", trace.display()));
        let run = self.world.sarsen(&["deploy", "dev", "--yes"]);
        self.world.end_processes();
        let killed = fs::read_to_string(&trace).is_ok_and(|text| text.contains("killed by SIGKILL"));
        self.activator("exec");
        let version = self.version();
        if version != "1" && version != "2" {
            return Err(format!("current is version `{version}`"));
        }
        let verified = self.world.sarsen(&["store", "verify"]);
        if verified.code != 0 {
            return Err(format!("the store is damaged: {}{}", verified.stdout, verified.stderr));
        }
        let again = self.world.sarsen(&["deploy", "dev", "--yes"]);
        let status = self.world.sarsen(&["status", "dev"]);
        self.world.end_processes();
        if again.code != 0 {
            return Err(format!(
                "the next deployment ended with {}: {}\nthe killed one with {}: {}",
                again.code, again.stderr, run.code, run.stderr
            ));
        }
        if status.code != 0 || !status.stdout.contains("idle.service  active") {
            return Err(format!("the service does not run: {}{}", status.stdout, status.stderr));
        }
        self.converged()?;
        Ok(if killed { Kill::Done } else { Kill::Missed })
    }

    /// The new version runs, and nothing of the old one is left outside.
    fn converged(&self) -> Result<(), String> {
        let place = self.world.path().join("place");
        let names: BTreeSet<String> =
            fs::read_dir(&place).expect("the place").flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        let expected = BTreeSet::from(["copy", "note", "note-2"].map(str::to_owned));
        let copy = fs::read_to_string(place.join("copy")).unwrap_or_default();
        let pending = self.world.root().join("profiles/mutations/pending.json").exists();
        if self.version() != "2" || names != expected || copy != "version 2\n" || pending {
            return Err(format!("not converged: version {}, {names:?}, copy `{}`, pending {pending}", self.version(), copy.trim()));
        }
        Ok(())
    }
}

enum Kill {
    Done,
    /// The run took another way than the traced one and did not come by.
    Missed,
}

#[test]
fn an_activator_killed_at_any_change_of_a_file_leaves_the_old_or_the_new_generation() {
    let first = Bench::new();
    let points = first.points();
    assert!(points.len() > 20, "an activation changes files: {points:?}");
    let queue = Mutex::new(points.iter().cloned().collect::<Vec<_>>());
    let (faults, missed) = (Mutex::new(Vec::new()), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for worker in 0..WORKERS {
            let (queue, faults, missed) = (&queue, &faults, &missed);
            let first = (worker == 0).then_some(&first);
            scope.spawn(move || {
                let own = first.is_none().then(Bench::new);
                let bench = own.as_ref().or(first).expect("a bench");
                let next = || queue.lock().expect("the queue").pop();
                while let Some(point) = next() {
                    match bench.kill_at(&point) {
                        Ok(Kill::Done) => {}
                        Ok(Kill::Missed) => missed.lock().expect("the list").push(point),
                        Err(fault) => faults.lock().expect("the list").push(format!("{point:?}: {fault}")),
                    }
                }
            });
        }
    });
    let (faults, missed) = (faults.into_inner().expect("the list"), missed.into_inner().expect("the list"));
    println!("{} points, {} not met: {missed:?}", points.len(), missed.len());
    assert!(faults.is_empty(), "{} of {} points:\n{}", faults.len(), points.len(), faults.join("\n"));
    assert!(missed.len() * 10 <= points.len(), "too many points were not met: {missed:?}");
}

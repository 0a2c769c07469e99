//! The activator is killed at each of its changes to the file system in turn.
//!
//! `sarsen` finds its activator beside itself, so a script of that name stands there and runs the real one under strace: once to list
//! the system calls that change something, then once for each of them, killed at its entry. A point is a name and how
//! often the thread has made that call, which is how strace counts. Whatever else of the activation still runs is killed as
//! well, as by a power cut. Then the oracle of `oracle.rs` judges. A deployment with its confirmation, a rollback at the machine itself,
//! and the settling of a trial that was killed are swept: a sample by default, all points at more rounds.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::thread;

use crate::full::rounds;
use crate::oracle;
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

/// Of a sweep that is sampled, so many points are tried in one round; [`ALL_ROUNDS`] try all of them.
const SAMPLE: usize = 8;

/// From so many rounds on nothing is sampled.
const ALL_ROUNDS: usize = 4;

/// What is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Work {
    /// `sarsen deploy`, up to the confirmation and what follows.
    Deploy,
    /// `sarsen-activator rollback` to the other generation.
    Rollback,
    /// `sarsen-activator settle`, for a trial whose process was killed after the switch.
    Settle,
}

/// A system call of one thread: its name and the how many-th of that name it is.
type Point = (String, u64);

struct Bench {
    world: World,
}

impl Bench {
    /// Version 1 runs; version 2 was staged and tried before, so that what follows is the activation alone.
    fn new(work: Work) -> Self {
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
        assert_eq!(oracle::judge(&bench.world), Ok("1".to_owned()));
        bench.copy("data", "saved-data");
        bench.copy("place", "saved-place");
        if work == Work::Settle {
            bench.break_off();
        }
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

    fn restore(&self, work: Work) {
        let state = if work == Work::Settle { "broken" } else { "saved" };
        self.copy(&format!("{state}-data"), "data");
        self.copy(&format!("{state}-place"), "place");
    }

    /// Does a work through the stand-in of the activator.
    fn run(&self, work: Work) -> String {
        let (root, activator) = (self.world.root(), self.world.bin().join("sarsen-activator"));
        let arguments: &[&str] = match work {
            Work::Deploy => {
                let run = self.world.sarsen(&["deploy", "dev", "--yes"]);
                return format!("{}: {}", run.code, run.stderr);
            }
            Work::Rollback => &["rollback", "--to", "2"],
            Work::Settle => &["settle"],
        };
        let mut command = Command::new(activator);
        command.args(arguments).args(["--profile", "mutations", "--root"]).arg(root).env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        // What it leaves running holds its streams open, so they lead to a file.
        let told = self.world.path().join("told");
        let file = fs::File::create(&told).expect("a file for what it says");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(file);
        let status = command.status().expect("the activator's stand-in starts");
        format!("{status}: {}", fs::read_to_string(&told).unwrap_or_default())
    }

    /// Leaves a trial behind whose process was killed after the switch, for settling.
    fn break_off(&self) {
        let renames: Vec<Point> = self.points(Work::Rollback).into_iter().filter(|(name, _)| name.starts_with("rename")).collect();
        for point in renames.iter().rev() {
            self.restore(Work::Rollback);
            self.inject(point);
            self.run(Work::Rollback);
            self.world.end_processes();
            self.activator("exec");
            if self.world.root().join("profiles/mutations/pending.json").exists() && oracle::judge(&self.world).is_ok_and(|it| it == "2") {
                self.copy("data", "broken-data");
                self.copy("place", "broken-place");
                return;
            }
        }
        panic!("no kill left a trial behind after the switch");
    }

    /// Lets the activator be killed at a point. Without `--seccomp-bpf`: strace 6.1 has no signal delivered with it.
    fn inject(&self, (name, nth): &Point) {
        let trace = self.world.path().join("kill-trace");
        let inject = format!("-e trace={name} -e inject={name}:signal=KILL:when={nth}");
        self.activator(&format!("exec strace -DDD -f -qq -o {} {inject} --", trace.display()));
    }

    /// Every system call of an activation that changes a file, as points.
    fn points(&self, work: Work) -> BTreeSet<Point> {
        self.restore(work);
        let traces = self.world.path().join(format!("traces-{work:?}"));
        fs::create_dir(&traces).expect("a directory for traces");
        let calls = format!("{MUTATIONS},{ON_FILES},{OPENINGS}");
        self.activator(&format!("exec strace -DDD -ff -qq -y -o {}/trace -e trace={calls} --", traces.display()));
        self.run(work);
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
    fn kill_at(&self, work: Work, point: &Point) -> Result<Kill, String> {
        self.restore(work);
        self.inject(point);
        let told = self.run(work);
        self.world.end_processes();
        // The call never returned. Not every death counts: what is left after a work is killed as well.
        let trace = fs::read_to_string(self.world.path().join("kill-trace")).unwrap_or_default();
        let killed = trace.lines().any(|line| line.contains(&format!("{}(", point.0)) && line.trim_end().ends_with("= ?"));
        self.activator("exec");
        oracle::judge(&self.world)?;
        oracle::converge(&self.world).map_err(|fault| format!("{fault}\nthe killed one ended with {told}"))?;
        Ok(if killed { Kill::Done } else { Kill::Missed })
    }
}

enum Kill {
    Done,
    /// The run took another way than the traced one and did not come by.
    Missed,
}

/// Kills a work at all its points, or at a sample of them.
#[expect(clippy::print_stdout, reason = "how many points there were belongs to the report")]
#[track_caller]
fn sweep(work: Work, is_sampled: bool) {
    let first = Bench::new(work);
    let all = first.points(work);
    assert!(all.len() > 20, "it changes files: {all:?}");
    let share = if is_sampled && rounds() < ALL_ROUNDS { all.len().div_ceil(SAMPLE * rounds()) } else { 1 };
    let points: Vec<Point> = all.iter().step_by(share).cloned().collect();
    let queue = Mutex::new(points.clone());
    let (faults, missed) = (Mutex::new(Vec::new()), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for worker in 0..if share > 1 { 1 } else { WORKERS } {
            let (queue, faults, missed) = (&queue, &faults, &missed);
            let first = (worker == 0).then_some(&first);
            scope.spawn(move || {
                let own = first.is_none().then(|| Bench::new(work));
                let bench = own.as_ref().or(first).expect("a bench");
                let next = || queue.lock().expect("the queue").pop();
                while let Some(point) = next() {
                    match bench.kill_at(work, &point) {
                        Ok(Kill::Done) => {}
                        Ok(Kill::Missed) => missed.lock().expect("the list").push(point),
                        Err(fault) => faults.lock().expect("the list").push(format!("{point:?}: {fault}")),
                    }
                }
            });
        }
    });
    let (faults, missed) = (faults.into_inner().expect("the list"), missed.into_inner().expect("the list"));
    println!("{work:?}: {} of {} points, {} not met: {missed:?}", points.len(), all.len(), missed.len());
    assert!(faults.is_empty(), "{} of {} points:\n{}", faults.len(), points.len(), faults.join("\n"));
    assert!(missed.len() * 4 <= points.len(), "too many points were not met: {missed:?}");
}

#[test]
fn an_activator_killed_at_any_change_of_a_file_leaves_the_old_or_the_new_generation() {
    sweep(Work::Deploy, true);
}

#[test]
fn a_rollback_killed_at_any_change_of_a_file_leaves_the_old_or_the_new_generation() {
    sweep(Work::Rollback, true);
}

#[test]
fn a_settling_that_is_killed_is_settled_by_the_next() {
    sweep(Work::Settle, true);
}

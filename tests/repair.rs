//! A repair is killed at each of its changes to the file system in turn.
//!
//! It is run under strace: once to list the system calls that change something, then once for each of them, killed at its entry. Then every file that
//! was right before must be there and right, every other one as it was or right, and the next repair must end with nothing left.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::world::{World, sarsen_binary};

/// System calls that change the names, contents or modes of files.
const MUTATIONS: &str = "rename,renameat,renameat2,link,linkat,symlink,symlinkat,unlink,unlinkat,rmdir,mkdir,mkdirat,ftruncate,\
    chmod,fchmod,fchmodat,utimensat,write,pwrite64,fsync,fdatasync,syncfs";

/// How many points are tried. A repair of some objects has hundreds, of which neighbours are much alike.
const POINTS_MAX: usize = 60;

/// A system call of one thread: its name and the how many-th of that name it is.
type Point = (String, u64);

struct Bench {
    world: World,
    object: String,
    /// What the files of the object should hold.
    right: BTreeMap<PathBuf, String>,
    /// Those that are damaged.
    damaged: BTreeSet<PathBuf>,
}

impl Bench {
    /// An object with damage of several kinds, and another store that has it intact.
    fn new() -> Self {
        let world = World::empty();
        for (path, text) in
            [("site/index.html", "one\n"), ("site/css/style.css", "two\n"), ("site/css/print.css", "three\n"), ("site/about", "four\n")]
        {
            world.write(path, text);
        }
        world.sarsen(&["--root", "../data/there", "store", "add", "site"]).expect(0);
        let object = world.sarsen(&["store", "add", "site"]).expect(0).stdout.trim_end().to_owned();
        let top = world.root().join("store").join(&object);
        let right = ["index.html", "css/style.css", "css/print.css", "about"].map(|path| (PathBuf::from(path), read(&top.join(path))));
        overwrite(&top.join("index.html"), "ONE\n");
        let css = top.join("css");
        fs::set_permissions(&css, fs::Permissions::from_mode(0o755)).expect("the directory");
        fs::remove_file(css.join("print.css")).expect("the file");
        fs::write(css.join("stray"), "stray").expect("a stray");
        fs::remove_file(world.root().join("trees").join(&object[..32])).expect("the manifest");
        let damaged = BTreeSet::from(["index.html", "css/print.css"].map(PathBuf::from));
        let bench = Self { world, object, right: BTreeMap::from(right), damaged };
        bench.copy("data/sarsen", "saved");
        bench
    }

    /// Files with their hard links, as they are.
    fn copy(&self, from: &str, to: &str) {
        let target = self.world.path().join(to);
        let removed = Command::new("rm").arg("-rf").arg(&target).status().expect("rm starts");
        let copied = Command::new("cp").arg("-a").arg(self.world.path().join(from)).arg(&target).status().expect("cp starts");
        assert!(removed.success() && copied.success(), "{from} to {to}");
    }

    /// Repairs under strace; returns what strace wrote.
    fn repair(&self, options: &[&str]) -> String {
        self.copy("saved", "data/sarsen");
        let trace = self.world.path().join("trace");
        let root = self.world.root();
        let there = self.world.path().join("data/there");
        // What is killed has nothing to say; what is not is looked at afterwards.
        Command::new("strace")
            .args(["-f", "-qq", "-o"])
            .arg(&trace)
            .args(options)
            .arg("--")
            .arg(sarsen_binary())
            .arg("--root")
            .arg(root)
            .args(["store", "repair", "--from"])
            .arg(there)
            .output()
            .expect("strace starts");
        read(&trace)
    }

    /// The changes of files of a repair, as points.
    fn points(&self) -> Vec<Point> {
        let trace = self.repair(&["-e", &format!("trace={MUTATIONS}")]);
        let mut counts: BTreeMap<(String, String), u64> = BTreeMap::new();
        let mut points = BTreeSet::new();
        for line in trace.lines() {
            let Some((thread, call)) = line.split_once(' ') else { continue };
            let Some((name, _)) = call.trim_start().split_once('(') else { continue };
            let count = counts.entry((thread.to_owned(), name.to_owned())).or_default();
            *count += 1;
            points.insert((name.to_owned(), *count));
        }
        points.into_iter().collect()
    }

    /// Kills at one point, looks, and repairs again; returns whether the point was met.
    fn kill_at(&self, (name, nth): &Point) -> bool {
        let trace = self.repair(&["-e", &format!("trace={name}"), "-e", &format!("inject={name}:signal=KILL:when={nth}")]);
        let top = self.world.root().join("store").join(&self.object);
        for (path, text) in &self.right {
            let found = fs::read_to_string(top.join(path)).ok();
            let is_right = found.as_ref() == Some(text);
            assert!(is_right || self.damaged.contains(path), "{name} {nth}: {} is {found:?}", path.display());
        }
        let index = fs::read_to_string(top.join("index.html")).unwrap_or_default();
        assert!(matches!(index.as_str(), "one\n" | "ONE\n"), "{name} {nth}: neither the old nor the new: {index}");
        let again = self.world.sarsen(&["store", "repair", "--from", "../data/there"]);
        assert_eq!(again.code, 0, "{name} {nth}: {}{}", again.stdout, again.stderr);
        let verified = self.world.sarsen(&["store", "verify"]);
        assert_eq!(verified.code, 0, "{name} {nth}: {}{}", verified.stdout, verified.stderr);
        assert!(self.right.iter().all(|(path, text)| read(&top.join(path)) == *text), "{name} {nth}");
        assert!(self.still_has("ONE\n") && self.still_has("stray"), "{name} {nth}: what was damaged is lost");
        trace.contains("killed by SIGKILL")
    }

    /// Whether a file of this content is in quarantine.
    fn still_has(&self, text: &str) -> bool {
        let mut open = vec![self.world.root().join("quarantine")];
        while let Some(directory) = open.pop() {
            for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
                match entry.file_type() {
                    Ok(kind) if kind.is_dir() => open.push(entry.path()),
                    Ok(kind) if kind.is_file() && read(&entry.path()) == text => return true,
                    _ => {}
                }
            }
        }
        false
    }
}

fn read(path: &Path) -> String {
    let bytes = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Changes what a file holds, and nothing else of it.
fn overwrite(path: &Path, text: &str) {
    let metadata = fs::metadata(path).expect("the file");
    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).expect("the file");
    fs::write(path, text).expect("the file");
    fs::File::options().write(true).open(path).and_then(|file| file.set_modified(metadata.modified()?)).expect("the file");
    fs::set_permissions(path, fs::Permissions::from_mode(metadata.mode())).expect("the file");
}

#[test]
fn a_repair_killed_at_any_change_of_a_file_loses_nothing_and_the_next_one_finishes() {
    let bench = Bench::new();
    let points = bench.points();
    assert!(points.len() > 30, "a repair changes files: {points:?}");
    let step = points.len().div_ceil(POINTS_MAX);
    let tried: Vec<&Point> = points.iter().step_by(step).collect();
    let met = tried.iter().filter(|point| bench.kill_at(point)).count();
    println!("{} points, {} tried, {met} met", points.len(), tried.len());
    assert!(met * 10 >= tried.len() * 8, "too many points were not met: {met} of {}", tried.len());
}

//! Measures the switch of `current`, and a whole rollback at the machine itself beside `nix-env --rollback`.
//!
//! `cargo bench -p sarsen-activator --bench switch -- DIRECTORY` prints one line for each figure; the directory says on which file system, and nix
//! is measured where it is installed. Without a directory it does nothing, so that `cargo test --benches` passes. `BENCHMARKS.md` has the figures.

#![expect(clippy::print_stdout, reason = "the measurement is what this program is for")]
#![expect(clippy::disallowed_methods, reason = "it runs the programs that it measures")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use sarsen_activator::generation::{Record, TrialResult};
use sarsen_activator::layout::{Layout, ProfileLayout, bundle_target};
use sarsen_store::manifest::{Identity, MANIFEST_VERSION, Manifest};
use sarsen_store::{NewEntry, NewEntryKind, ObjectRef, ObjectStore, fsutil};

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// How often each thing is done.
const SWITCHES: u32 = 1000;
const ROLLBACKS: u32 = 40;

/// Ticks of the processor's time a second, as Linux tells them to programs.
const TICKS: f64 = 100.0;

fn main() -> Outcome<()> {
    let Some(directory) = std::env::args().skip(1).find(|argument| argument != "--bench").map(PathBuf::from) else { return Ok(()) };
    let directory = directory.join(format!("sarsen-bench-{}", std::process::id()));
    fsutil::create_dir_all(&directory, 0o755)?;
    let measured = measure(&directory);
    fsutil::remove_tree(&directory)?;
    measured
}

fn measure(directory: &Path) -> Outcome<()> {
    let profile = prepare(&directory.join("root"))?;
    let (mut plain, mut ours) = (Vec::new(), Vec::new());
    // One after the other, so that both meet the same disk.
    for number in 0..SWITCHES {
        let target = format!("gen/{}", 1 + number % 2);
        plain.push(timed(|| switch_plainly(&profile.directory().join("plain"), Path::new(&target)))?);
        ours.push(timed(|| Ok(profile.switch_to(Some(1 + u64::from(number % 2)))?))?);
    }
    let (plain, ours) = (median(plain), median(ours));
    println!(
        "switch: {:.1} us, symlink + rename + fsync of the directory: {:.1} us, {:.2}x",
        micros(ours),
        micros(plain),
        micros(ours) / micros(plain)
    );
    let sarsen = rollbacks(|number| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sarsen-activator"));
        command.args(["rollback", "--profile", "shop", "--to", &number.to_string(), "--root"]).arg(directory.join("root"));
        command
    })?;
    println!("sarsen-activator rollback: cpu {:.1} ms, wall {:.1} ms", sarsen.0, sarsen.1);
    let Some(nix) = nix(directory)? else {
        println!("nix-env is not installed");
        return Ok(());
    };
    println!("nix-env --switch-generation: cpu {:.1} ms, wall {:.1} ms; cpu {:.2}x", nix.0, nix.1, sarsen.0 / nix.0);
    Ok(())
}

/// A profile with two generations, the second current, of bundles without services.
fn prepare(root: &Path) -> Outcome<ProfileLayout> {
    let store = ObjectStore::open(root)?;
    let profile = Layout::new(root).profile(&"shop".parse()?);
    fsutil::create_dir_all(&profile.generations(), 0o755)?;
    let text = |text: &str| text.to_owned();
    let identity = Identity { project: text("shop"), environment: text("prod"), host: text("h"), profile: text("shop") };
    profile.write_identity(&identity)?;
    for number in 1..=2 {
        let bundle = put(&store, &identity, root, number)?;
        fsutil::replace_symlink(&profile.generation(number), Path::new(&bundle_target(&bundle)))?;
        profile.write_record(&Record {
            number,
            bundle,
            previous: (number > 1).then(|| number - 1),
            created: 1,
            who: text("ann@desk"),
            revision: None,
            message: None,
            nonce: "0".repeat(64),
            result: TrialResult::Committed,
            reason: None,
            failure: None,
            notes: Vec::new(),
        })?;
    }
    profile.switch_to(Some(2))?;
    Ok(profile)
}

fn put(store: &ObjectStore, identity: &Identity, root: &Path, number: u64) -> Outcome<ObjectRef> {
    let manifest: Manifest = serde_json::from_value(serde_json::json!({
        "version": MANIFEST_VERSION, "identity": identity, "store": root.join("store"), "components": [], "services": [], "links": [],
        "state_directories": [], "hooks": [], "health_checks": [], "requirements": [],
    }))?;
    let file = |path: &str, content: String| -> Outcome<NewEntry> {
        Ok(NewEntry { path: path.parse()?, kind: NewEntryKind::File { content: content.into_bytes().into(), executable: false } })
    };
    let entries = [file("manifest.json", manifest.to_json())?, file("number", number.to_string())?];
    let mut transaction = store.begin()?;
    let bundle = transaction.put_entries(&"bundle".parse()?, &entries, None, &[])?;
    transaction.barrier()?;
    Ok(bundle)
}

fn switch_plainly(link: &Path, target: &Path) -> Outcome<()> {
    let temporary = link.with_extension("new");
    std::os::unix::fs::symlink(target, &temporary)?;
    std::fs::rename(&temporary, link)?;
    std::fs::File::open(link.parent().unwrap_or(Path::new("/")))?.sync_all()?;
    Ok(())
}

fn timed(action: impl FnOnce() -> Outcome<()>) -> Outcome<Duration> {
    let begun = Instant::now();
    action()?;
    Ok(begun.elapsed())
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

/// Runs a command for generations 1 and 2 in turn; processor and wall time of one, in milliseconds.
fn rollbacks(command: impl Fn(u32) -> Command) -> Outcome<(f64, f64)> {
    let (cpu, begun) = (children_ticks()?, Instant::now());
    for number in 0..ROLLBACKS {
        let output = command(1 + number % 2).output()?;
        if !output.status.success() {
            return Err(format!("it ended with {}: {}", output.status, String::from_utf8_lossy(&output.stderr)).into());
        }
    }
    let runs = f64::from(ROLLBACKS);
    Ok(((children_ticks()? - cpu) / TICKS * 1000.0 / runs, begun.elapsed().as_secs_f64() * 1000.0 / runs))
}

/// The processor time of all children that were waited for, and of theirs.
fn children_ticks() -> Outcome<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    Ok(fields[13].parse::<f64>()? + fields[14].parse::<f64>()?)
}

/// The same two generations as a profile of nix, in a store of its own.
fn nix(directory: &Path) -> Outcome<Option<(f64, f64)>> {
    if Command::new("nix-env").arg("--version").output().is_err() {
        return Ok(None);
    }
    let place = directory.join("nix");
    fsutil::create_dir_all(&place, 0o755)?;
    for number in 1..=2 {
        fsutil::replace_symlink(&place.join(format!("profile-{number}-link")), Path::new("/etc"))?;
    }
    fsutil::replace_symlink(&place.join("profile"), Path::new("profile-2-link"))?;
    let command = |number: u32| {
        let mut command = Command::new("nix-env");
        command.env("NIX_REMOTE", format!("local?root={}", place.join("store").display())).arg("--profile").arg(place.join("profile"));
        if number == 1 {
            command.arg("--rollback");
        } else {
            command.args(["--switch-generation", "2"]);
        }
        command
    };
    rollbacks(command).map(Some)
}

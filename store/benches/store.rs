//! Measures one piece of work of the store in a process of its own, so that CPU time and memory are that work's alone.
//!
//! `cargo bench -p sarsen-store --bench store -- WORK STORE [ARGUMENT]...` prints one line: work, wall seconds, CPU seconds (user and
//! system, all threads), peak memory in MiB. Opening the store is part of the work. Works: `add NAME SOURCE` (durable at its end),
//! `generations SOURCE` (adds each directory in it, and makes it a generation of one profile), `drop COUNT` (forgets the oldest of them), `verify`,
//! `gc`. Without arguments it does nothing, so that `cargo test --benches` passes. `BENCHMARKS.md` has the figures.

#![expect(clippy::print_stdout, reason = "the measurement is what this program is for")]

use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use rustix::time::{ClockId, clock_gettime};
use sarsen_store::gc::{self, Roots};
use sarsen_store::{ObjectName, ObjectStore, fsutil};

type Outcome = Result<String, Box<dyn std::error::Error>>;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let started = Instant::now();
    let result = match arguments.as_slice() {
        [] => return Ok(()),
        ["add", store, name, source] => add(Path::new(store), name, Path::new(source)),
        ["generations", store, source] => add_generations(Path::new(store), Path::new(source)),
        ["drop", store, count] => drop_generations(Path::new(store), count.parse()?),
        ["verify", store] => verify(Path::new(store)),
        ["gc", store] => collect(Path::new(store)),
        other => return Err(format!("unknown work: {}", other.join(" ")).into()),
    }?;
    let cpu = clock_gettime(ClockId::ProcessCPUTime);
    let cpu = Duration::new(cpu.tv_sec.try_into()?, cpu.tv_nsec.try_into()?);
    println!(
        "{} wall {:.3} cpu {:.3} rss {} {result}",
        arguments[0],
        started.elapsed().as_secs_f64(),
        cpu.as_secs_f64(),
        peak_mebibytes()?
    );
    Ok(())
}

fn add(store: &Path, name: &str, source: &Path) -> Outcome {
    let store = ObjectStore::open(store)?;
    let mut transaction = store.begin()?;
    let object = transaction.put_directory(&name.parse::<ObjectName>()?, source, None, &[])?;
    transaction.barrier()?;
    Ok(object.to_string())
}

fn add_generations(root: &Path, source: &Path) -> Outcome {
    let store = ObjectStore::open(root)?;
    let links = root.join("profiles/bench/gen");
    fsutil::create_dir_all(&links, 0o755)?;
    let count = std::fs::read_dir(source)?.count();
    for number in 0..count {
        let mut transaction = store.begin()?;
        let directory = source.join(number.to_string());
        let object = transaction.put_directory(&"generation".parse::<ObjectName>()?, &directory, None, &[])?;
        let _kept = transaction.barrier()?;
        fsutil::replace_symlink(&links.join(number.to_string()), &store.object_path(&object))?;
    }
    Ok(format!("generations {count}"))
}

fn drop_generations(root: &Path, count: usize) -> Outcome {
    for number in 0..count {
        fsutil::remove_file(&root.join("profiles/bench/gen").join(number.to_string()))?;
    }
    Ok(format!("generations {count}"))
}

fn verify(store: &Path) -> Outcome {
    Ok(format!("findings {}", ObjectStore::open(store)?.verify()?.len()))
}

#[expect(clippy::disallowed_methods, reason = "a program takes its own time")]
fn collect(store: &Path) -> Outcome {
    let store = ObjectStore::open(store)?;
    let plan = gc::plan(&store, &Roots::default(), SystemTime::now(), Duration::ZERO)?;
    let report = gc::execute(&store, &plan)?;
    Ok(format!("objects {} contents {} bytes {}", report.objects, report.contents, report.bytes))
}

fn peak_mebibytes() -> Result<u64, Box<dyn std::error::Error>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).ok_or("no VmHWM")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? / 1024)
}

//! Definitions that want all time, memory or stack: each ends with an error that names it, within its limits.
//!
//! `fixtures/hostile/NAME.star` is the definition; `fixtures/hostile.snap` has what is said about each.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use sarsen_builder::Input;
use sarsen_builder::evaluator::{Evaluator, Limits};
use sarsen_builder::snapshot::Snapshot;

/// Small, so that the test is short; an innocent component needs a hundredth of it.
const LIMITS: Limits = Limits { processor_ms: 700, memory_bytes: 300 << 20 };

/// What one definition may take: two processes with [`LIMITS`], on a machine that does other things too.
const PATIENCE: Duration = Duration::from_mins(2);

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures")
}

fn evaluator(limits: Limits) -> Evaluator<'static> {
    Evaluator { program: Path::new(env!("CARGO_BIN_EXE_sarsen-sandbox-probe")), limits }
}

fn definition(name: &str) -> String {
    std::fs::read_to_string(fixtures().join("hostile").join(name)).unwrap()
}

fn snapshot_of(definition: &str) -> Snapshot {
    Snapshot::from_texts([
        ("sarsen.toml", "[project]\nname = \"demo\"\n"),
        ("environments/dev/environment.toml", "[hosts]\nweb1 = [\"it\"]\n"),
        ("components/it/component.star", definition),
    ])
}

fn explain(name: &str, limits: Limits) -> String {
    let snapshot = snapshot_of(&definition(name));
    let input = Input { snapshot: &snapshot, environment: "dev", local_root: "/home/me/sarsen", workers: 2 };
    let began = Instant::now();
    let assessment = evaluator(limits).assess(&input).expect("the evaluator starts");
    assert!(began.elapsed() < PATIENCE, "it takes {:?}", began.elapsed());
    assert!(assessment.model.is_none(), "a hostile definition has no model");
    let mut text = String::new();
    for diagnostic in &assessment.diagnostics {
        let at = diagnostic.location.as_ref().map_or_else(String::new, |at| format!(" at {}:{}", at.line, at.column));
        let _ = write!(text, "{} {}{at}", diagnostic.code, diagnostic.message);
        for note in &diagnostic.notes {
            let _ = write!(text, " ({})", note.message);
        }
    }
    text
}

#[test]
fn whatever_a_definition_wants_it_gets_an_error() {
    let mut names: Vec<String> =
        fixtures().join("hostile").read_dir().unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert!(names.len() >= 20, "{names:?}");
    let explained = Mutex::new(Vec::new());
    let waiting = Mutex::new(names.iter());
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                loop {
                    let next = waiting.lock().expect("nobody panics with it").next();
                    let Some(name) = next else { return };
                    // Which limit is met first depends on the machine; the evaluator's own one of recursion is one of them.
                    let text = explain(name, LIMITS);
                    let is_limit = text.starts_with("E0208") || text.starts_with("E0205 too many recursion levels");
                    let text = if is_limit { "a limit" } else { &text };
                    explained.lock().expect("nobody panics with it").push(format!("{name}: {text}"));
                }
            });
        }
    });
    let mut explained = explained.into_inner().expect("nobody panicked");
    explained.sort();
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path(fixtures());
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!("hostile", explained.join("\n")));
}

#[test]
fn the_limit_that_was_met_is_named() {
    let place = " (while configuring `it` on web1)";
    let patient = Limits { processor_ms: 60_000, ..LIMITS };
    for (name, limits, expected) in [
        ("shared_lists_compared.star", LIMITS, "the evaluation takes too long: a loop without end? at 9:6"),
        ("doubled_text.star", patient, "the evaluation takes too much memory at 16:6"),
        ("huge_list.star", patient, "the evaluation takes too much memory at once, or handles what is nested too deeply at 5:6"),
        ("deep_struct.star", patient, "the evaluation takes too much memory at once, or handles what is nested too deeply at 7:6"),
    ] {
        assert_eq!(explain(name, limits), format!("E0208 {expected}{place}"), "{name}");
    }
    assert_eq!(explain("module.star", LIMITS), "E0208 the evaluation takes too long: a loop without end? at 1:1");
}

#[test]
fn a_process_of_its_own_gives_the_same_model() {
    let directory = fixtures().join("projects/shop");
    let snapshot = Snapshot::read(&directory).expect("the project");
    for environment in snapshot.environments() {
        let input = Input { snapshot: &snapshot, environment, local_root: "/home/me/sarsen", workers: 2 };
        let apart = evaluator(LIMITS).assess(&input).expect("the evaluator starts");
        let here = sarsen_builder::assess(&input);
        assert_eq!((apart.model, apart.diagnostics), (here.model, here.diagnostics), "{environment}");
    }
}

#[test]
fn a_program_that_says_nothing_is_an_error() {
    let snapshot = snapshot_of("");
    let input = Input { snapshot: &snapshot, environment: "dev", local_root: "/home/me/sarsen", workers: 2 };
    let assess = |program| Evaluator { program: Path::new(program), limits: LIMITS }.assess(&input).map(|_| ()).unwrap_err().to_string();
    assert_eq!(assess("/bin/true"), "the evaluator ended before it said anything: killed from outside, or out of memory");
    assert_eq!(assess("/nonexistent"), "the evaluator `/nonexistent` cannot be started");
}

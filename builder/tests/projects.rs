//! The example projects evaluate, in every environment, without an error, and the same whatever the number of threads.

#![expect(clippy::unwrap_used, reason = "a test may fail")]

use std::path::{Path, PathBuf};

use sarsen_builder::diagnostic::render_diagnostics;
use sarsen_builder::snapshot::Snapshot;
use sarsen_builder::{Input, evaluate};

fn projects() -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/projects");
    let mut projects: Vec<PathBuf> =
        directory.read_dir().unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.join("sarsen.toml").is_file()).collect();
    projects.sort();
    projects
}

#[test]
fn every_example_evaluates() {
    let projects = projects();
    assert!(projects.len() >= 3, "{projects:?}");
    for project in projects {
        let snapshot = Snapshot::read(&project).unwrap();
        assert!(!snapshot.environments().is_empty(), "{}", project.display());
        for environment in snapshot.environments() {
            let input = Input { snapshot: &snapshot, environment, local_root: "/home/me/sarsen", workers: 1 };
            let one = evaluate(&input)
                .unwrap_or_else(|diagnostics| panic!("{}\n{}", project.display(), render_diagnostics(&diagnostics, &snapshot, false)));
            assert_eq!(evaluate(&Input { workers: 8, ..input }).as_ref(), Ok(&one), "{} {environment}", project.display());
        }
    }
}

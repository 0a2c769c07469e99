//! The example projects evaluate, in every environment, without an error, and the same whatever the number of threads.

#![expect(clippy::unwrap_used, reason = "a test may fail")]

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use sarsen_builder::diagnostic::render_diagnostics;
use sarsen_builder::model::StepKind;
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

/// Every file of the model with its mode and its text; bytes that are no text are escaped.
fn contents(model: &sarsen_builder::model::Model) -> String {
    let mut text = String::new();
    for component in model.hosts.iter().flat_map(|host| &host.components) {
        for step in &component.steps {
            let StepKind::File { path, content, executable } = &step.kind else { continue };
            let shown =
                if content.is_ascii() { String::from_utf8_lossy(content).replace('\r', "\\r") } else { content.escape_ascii().to_string() };
            let kind = if *executable { " (executable)" } else { "" };
            let _ = write!(text, "=== {path}{kind}\n{shown}");
            if !shown.ends_with('\n') {
                text.push_str("[no line break]\n");
            }
        }
    }
    text
}

#[test]
fn files_hold_what_they_should() {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path(projects()[0].parent().unwrap());
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| {
        for (name, environment) in [("files", "dev"), ("templates", "dev"), ("environments", "dev")] {
            let project = projects().into_iter().find(|project| project.ends_with(name)).unwrap();
            let snapshot = Snapshot::read(&project).unwrap();
            let input = Input { snapshot: &snapshot, environment, local_root: "/home/me/sarsen", workers: 1 };
            insta::assert_snapshot!(name, contents(&evaluate(&input).unwrap()));
        }
    });
}

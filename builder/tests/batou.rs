//! The broken examples that Batou comes with, written anew: what is said about each.
//!
//! `fixtures/batou/NAME/` is the project, `fixtures/batou/NAME-ENVIRONMENT.snap` what is said.

#![expect(clippy::unwrap_used, reason = "a test may fail")]

use std::path::{Path, PathBuf};

use sarsen_builder::diagnostic::{Severity, render_diagnostics};
use sarsen_builder::snapshot::Snapshot;
use sarsen_builder::{Input, assess};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/batou")
}

/// How many errors an environment has, and what is said about it.
fn assessed(name: &str, environment: &str) -> (usize, String) {
    let snapshot = Snapshot::read(&fixtures().join(name)).unwrap();
    let assessment = assess(&Input { snapshot: &snapshot, environment, local_root: "/home/me/sarsen", workers: 2 });
    let errors = assessment.diagnostics.iter().filter(|diagnostic| diagnostic.severity == Severity::Error).count();
    (errors, render_diagnostics(&assessment.diagnostics, &snapshot, false))
}

fn compare(examples: &[(&str, &str, usize)]) {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path(fixtures());
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| {
        for (name, environment, expected) in examples {
            let (errors, text) = assessed(name, environment);
            insta::assert_snapshot!(format!("{name}-{environment}"), text);
            assert_eq!(errors, *expected, "{name} {environment}");
        }
    });
}

#[test]
fn all_mistakes_are_told_in_one_run() {
    compare(&[("errors2", "errors", 11), ("errors", "errors", 8)]);
}

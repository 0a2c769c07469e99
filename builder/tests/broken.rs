//! Broken projects and what is said about them: `fixtures/broken/NAME/` is the project, `fixtures/broken/NAME.snap` the text.

use std::path::{Path, PathBuf};

use sarsen_builder::diagnostic::render_diagnostics;
use sarsen_builder::snapshot::Snapshot;
use sarsen_builder::{Input, assess};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/broken")
}

#[test]
fn every_broken_project_is_explained() {
    let mut names: Vec<String> = fixtures()
        .read_dir()
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.path().is_dir())
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert!(names.len() >= 10, "{names:?}");
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path(fixtures());
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| {
        for name in names {
            let snapshot = Snapshot::read(&fixtures().join(&name)).unwrap();
            let assessment = assess(&Input { snapshot: &snapshot, environment: "dev", local_root: "/home/me/sarsen", workers: 2 });
            insta::assert_snapshot!(name.as_str(), render_diagnostics(&assessment.diagnostics, &snapshot, false));
        }
    });
}

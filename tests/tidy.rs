//! What the compiler and clippy do not check: the length and headers of files, the edges between crates, words that mean
//! unfinished work or belong to somebody's machine.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::world::repository;

/// The longest source file, in lines, without its inline tests.
const FILE_LINES_MAX: usize = 600;

/// The most packages in the lock file. Each new one is a decision; raising this is part of it.
const PACKAGES_MAX: usize = 330;

/// The most packages that the target's binary is made of.
const ACTIVATOR_PACKAGES_MAX: usize = 60;

/// What git knows of the tree, and what is new in it.
fn tracked_files() -> Vec<PathBuf> {
    let output = Command::new("git")
        .args(["-c", "safe.directory=*", "-C"])
        .arg(repository())
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .output()
        .expect("git starts");
    assert!(output.status.success(), "git ls-files: {}", String::from_utf8_lossy(&output.stderr));
    let names = String::from_utf8(output.stdout).expect("names are UTF-8");
    let files: Vec<PathBuf> = names.split_terminator('\0').map(PathBuf::from).filter(|file| repository().join(file).is_file()).collect();
    assert!(files.len() > 50, "git lists the project");
    files
}

pub(crate) fn sources() -> Vec<(PathBuf, String)> {
    let files = tracked_files().into_iter().filter(|file| file.extension().is_some_and(|extension| extension == "rs"));
    files.map(|file| (file.clone(), fs::read_to_string(repository().join(&file)).expect("sources are UTF-8"))).collect()
}

#[test]
fn files_are_short_and_say_what_they_are() {
    let mut faults = Vec::new();
    for (file, text) in sources() {
        let is_test = file.starts_with("tests") || file.file_name().is_some_and(|name| name == "tests.rs");
        let lines = text.lines().take_while(|line| !line.starts_with("#[cfg(test)]")).count();
        if lines > FILE_LINES_MAX && !is_test {
            faults.push(format!("{}: {lines} lines, more than {FILE_LINES_MAX}: split it by noun", file.display()));
        }
        let header = text.lines().take_while(|line| line.starts_with("//!")).count();
        // `tests.rs` belongs to the file it tests, which says what it is.
        if header == 0 && file.file_name().is_none_or(|name| name != "tests.rs") {
            faults.push(format!("{}: no `//!` header that says what it is", file.display()));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn nothing_is_left_unfinished_or_tied_to_one_machine() {
    // Put together here, so that this file does not hold them itself.
    let everywhere = [concat!("/wo", "rk/"), concat!("pypi", ".org"), concat!("static.crates", ".io")];
    let code = [concat!("FIX", "ME"), concat!("XX", "X "), concat!("unimple", "mented!("), concat!("#[ign", "ore")];
    let mut faults = Vec::new();
    for file in
        tracked_files().iter().filter(|file| file.extension().is_none_or(|extension| extension != "lock" || file.starts_with("fixtures")))
    {
        let Ok(text) = fs::read_to_string(repository().join(file)) else { continue };
        let is_code = file.extension().is_some_and(|extension| extension == "rs");
        for word in everywhere.iter().chain(code.iter().filter(|_| is_code)) {
            let lines = text.lines().enumerate().filter(|(_, line)| line.contains(word));
            faults.extend(lines.map(|(number, _)| format!("{}:{}: `{word}`", file.display(), number + 1)));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn crates_see_only_what_the_architecture_allows() {
    let metadata = cargo(&["metadata", "--format-version=1", "--no-deps", "--offline"]);
    let metadata: Value = serde_json::from_str(&metadata).expect("cargo metadata is JSON");
    let mut edges = BTreeSet::new();
    for package in metadata["packages"].as_array().expect("packages") {
        for dependency in package["dependencies"].as_array().expect("dependencies") {
            let (from, to) = (package["name"].as_str().expect("a name"), dependency["name"].as_str().expect("a name"));
            if to.starts_with("sarsen") {
                edges.insert(format!("{from} -> {to}"));
            }
        }
    }
    let allowed = [
        "sarsen -> sarsen-activator",
        "sarsen -> sarsen-builder",
        "sarsen -> sarsen-store",
        "sarsen-activator -> sarsen-store",
        "sarsen-builder -> sarsen-store",
    ];
    assert_eq!(edges, allowed.into_iter().map(str::to_owned).collect());
}

#[test]
fn dependencies_stay_within_their_budget() {
    let lock = fs::read_to_string(repository().join("Cargo.lock")).expect("Cargo.lock");
    let packages = lock.lines().filter(|&line| line == "[[package]]").count();
    assert!(packages > 0 && packages <= PACKAGES_MAX, "{packages} packages in Cargo.lock, {PACKAGES_MAX} allowed");
    let tree = cargo(&["tree", "--offline", "-p", "sarsen-activator", "-e", "normal", "--prefix", "none", "--format", "{p}"]);
    let names: BTreeSet<&str> = tree.lines().filter(|line| !line.is_empty()).map(|line| line.trim_end_matches(" (*)")).collect();
    assert!(!names.is_empty() && names.len() <= ACTIVATOR_PACKAGES_MAX, "{} packages in sarsen-activator: {names:#?}", names.len());
    assert!(!names.iter().any(|name| name.starts_with("starlark")), "the target's binary cannot evaluate definitions");
}

#[test]
fn every_module_of_the_tests_is_compiled() {
    let main = fs::read_to_string(repository().join("tests/main.rs")).expect("tests/main.rs");
    let modules: BTreeSet<String> =
        main.lines().filter_map(|line| line.strip_prefix("mod ")?.strip_suffix(';')).map(str::to_owned).collect();
    let directory = fs::read_dir(repository().join("tests")).expect("tests").flatten().map(|entry| entry.path());
    let rust = directory.filter(|path| path.extension().is_some_and(|extension| extension == "rs"));
    let stem = |path: PathBuf| path.file_stem().and_then(|stem| stem.to_str()).expect("a UTF-8 name").to_owned();
    let files: BTreeSet<String> = rust.map(stem).filter(|name| name != "main").collect();
    assert_eq!(files, modules);
}

fn cargo(arguments: &[&str]) -> String {
    let cargo = option_env!("CARGO").filter(|path| Path::new(path).exists()).unwrap_or("cargo");
    let output = Command::new(cargo).args(arguments).current_dir(repository()).output().expect("cargo starts");
    assert!(output.status.success(), "cargo {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("cargo writes UTF-8")
}

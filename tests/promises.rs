//! Every promise and every fault of `activator/PROMISES.md` has tests that exist.

use std::collections::BTreeSet;
use std::fs;

use crate::tidy::sources;
use crate::world::repository;

/// What must be listed, whoever edits the list: a line may be renamed here and there, but none falls out unnoticed.
const LINES: usize = 38;

/// The names of all tests: functions after `#[test]`.
fn tests() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for (_, text) in sources() {
        let mut lines = text.lines().map(str::trim);
        while let Some(line) = lines.next() {
            if line == "#[test]" {
                let function = lines.by_ref().find_map(|line| line.strip_prefix("fn "));
                names.extend(function.and_then(|rest| rest.split('(').next()).map(str::to_owned));
            }
        }
    }
    names
}

#[test]
fn every_promise_and_every_fault_has_tests() {
    let text = fs::read_to_string(repository().join("activator/PROMISES.md")).expect("the list of promises");
    let known = tests();
    assert!(known.contains("every_promise_and_every_fault_has_tests"), "tests are found");
    let (mut ids, mut faults) = (BTreeSet::new(), Vec::new());
    for line in text.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| id ")) {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        let [id, _, tests] = cells.as_slice() else {
            faults.push(format!("`{line}` is no line of three cells"));
            continue;
        };
        if !ids.insert((*id).to_owned()) {
            faults.push(format!("`{id}` is listed twice"));
        }
        let named: Vec<&str> = tests.split('`').skip(1).step_by(2).collect();
        if named.is_empty() {
            faults.push(format!("`{id}` has no test"));
        }
        faults.extend(named.iter().filter(|name| !known.contains(**name)).map(|name| format!("`{id}`: there is no test `{name}`")));
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert_eq!(ids.len(), LINES, "promises and faults are added, not dropped: {ids:?}");
}

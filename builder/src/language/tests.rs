//! The reference is complete, current and true.

use std::path::Path;

use super::*;
use crate::diagnostic::render_diagnostics;
use crate::environment::keys::{HOST, SSH};
use crate::snapshot::Snapshot;
use crate::{Assessment, Input, assess};

/// Where examples are evaluated.
const ENVIRONMENT: &str = "[hosts]\nweb1 = [\"it\"]\ndb1 = [\"other\"]\n[resolver]\n\"www.example.net\" = [\"192.0.2.7\"]\n";

/// What examples may use beside the definition, and whom they meet.
const SURROUNDINGS: [(&str, &str); 7] = [
    ("sarsen.toml", "[project]\nname = \"demo\"\n"),
    (
        "components/other/component.star",
        "def configure(self):\n    self.provide(\"backend:address\", Address(\"db1\", 1))\n    self.provide(\"db:address\", Address(\"db1\", 2))\nOther = component(configure = configure)\n",
    ),
    ("components/it/app.conf", "listen on {{ component.port }}\n"),
    ("components/it/tick.sh.j2", "#!/bin/sh\n"),
    ("components/it/assets-1.2.tar.gz", "unpacked by builds only"),
    ("components/it/src/main.c", "int main(void) { return 0; }\n"),
    (
        "components/it/requirements.lock",
        "gunicorn==23.0.0 --hash=sha256:0000000000000000000000000000000000000000000000000000000000000000\n",
    ),
];

/// An example as a definition, and the name of its component: it is one, or the body of one's `configure`.
fn definition(example: &str) -> (String, String) {
    let bound = example.lines().rev().find_map(|line| line.split_once(" = component(")).map(|(name, _)| name.to_lowercase());
    if let Some(name) = bound {
        return (format!("{example}\n"), name);
    }
    let body: String = example.lines().map(|line| if line.is_empty() { "\n".to_owned() } else { format!("    {line}\n") }).collect();
    let component = "It = component(configure = configure, attributes = {\"port\": attribute(int, default = 8080)})";
    (format!("def configure(self):\n{body}\n{component}\n"), "it".to_owned())
}

fn evaluate_example(name: &str, example: &str) -> Result<(), String> {
    let (definition, component) = definition(example);
    let environment = ENVIRONMENT.replace("\"it\"", &format!("\"{component}\""));
    let files = [("components/it/component.star", definition.as_str()), ("environments/dev/environment.toml", environment.as_str())];
    let snapshot = Snapshot::from_texts(SURROUNDINGS.into_iter().chain(files));
    let Assessment { model, diagnostics } =
        assess(&Input { snapshot: &snapshot, environment: "dev", local_root: "/home/me/sarsen", workers: 1 });
    let said = render_diagnostics(&diagnostics, &snapshot, false);
    if model.is_some() { Ok(()) } else { Err(format!("the example of `{name}` does not work:\n{example}\n{said}")) }
}

fn all() -> Vec<Entry> {
    let (steps, others) = functions();
    let member = |entry: &TypeEntry| {
        let prefix = entry.name.clone();
        entry
            .members
            .clone()
            .into_iter()
            .map(move |member| Entry { name: format!("{prefix}.{}", member.name), ..member })
            .collect::<Vec<_>>()
    };
    steps.into_iter().chain(others).chain(types().iter().flat_map(member)).collect()
}

#[test]
fn every_builtin_is_described_with_all_that_it_takes() {
    let mut faults = Vec::new();
    for entry in all() {
        let mut fault = |what: String| faults.push(format!("`{}` has no {what} in its doc comment", entry.name));
        if entry.summary.is_empty() {
            fault("description".to_owned());
        }
        if entry.example.is_empty() {
            fault("`# Example`".to_owned());
        }
        if entry.type_name == "any" {
            fault("type `(...)` before its description".to_owned());
        }
        for parameter in entry.call.iter().flat_map(|call| &call.parameters) {
            if parameter.text.is_empty() {
                fault(format!("`* `{}`: ...` below `# Arguments`", parameter.name));
            }
            if parameter.type_name.contains("any")
                && !parameter.text.is_empty()
                && !["data", "default", "value", "message"].contains(&parameter.name.as_str())
            {
                fault(format!("type `(...)` before the text of argument `{}`", parameter.name));
            }
        }
    }
    assert!(all().len() > 30, "the builtins are found");
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn every_example_is_evaluated() {
    let faults: Vec<String> = all().iter().filter_map(|entry| evaluate_example(&entry.name, &entry.example).err()).collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert!(evaluate_example("broken", "self.add(File(\"x\", contents = \"\"))").is_err(), "an example that is wrong is found");
}

/// A project's TOML files that use every key of the list once, as a test evaluates them.
fn every_key() -> (String, String) {
    let section = |name: &str| {
        let keys = KEYS.iter().filter(|key| key.section == name && !key.example.is_empty());
        keys.map(|key| format!("{} = {}", key.name, key.example)).collect::<Vec<_>>().join("\n")
    };
    let project = format!("[project]\n{}", section("[project]"));
    let host = section(HOST);
    (
        project,
        format!(
            "[environment]\n{}\n[hosts.web1]\n{host}\n[ssh]\n{}\n[groups.frontend]\ntags = [\"x\"]\n[resolver]\n\"www.example.net\" = [\"192.0.2.7\"]\n",
            section("[environment]"),
            section(SSH)
        ),
    )
}

#[test]
fn every_key_is_one() {
    let (project, environment) = every_key();
    let files = [
        ("sarsen.toml", project.as_str()),
        ("environments/dev/environment.toml", environment.as_str()),
        ("environments/base/environment.toml", ""),
        (
            "components/web/component.star",
            "def configure(self):\n    pass\nWeb = component(configure = configure, attributes = {\"port\": attribute(int, default = 1)})\n",
        ),
    ];
    let snapshot = Snapshot::from_texts(files);
    let assessment = assess(&Input { snapshot: &snapshot, environment: "dev", local_root: "/home/me/sarsen", workers: 1 });
    assert!(assessment.diagnostics.is_empty(), "{environment}\n{}", render_diagnostics(&assessment.diagnostics, &snapshot, false));
}

/// Set to anything, it makes the test below write the file instead of comparing it.
const REGENERATE: &str = "SARSEN_REGENERATE";

#[test]
#[expect(clippy::disallowed_methods, reason = "a test that writes the file it checks, when asked to")]
fn the_reference_is_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("LANGUAGE.md");
    let wanted = reference();
    if std::env::var(REGENERATE).is_ok() {
        std::fs::write(&path, &wanted).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    let line =
        wanted.lines().zip(found.lines()).position(|(a, b)| a != b).unwrap_or_else(|| wanted.lines().count().min(found.lines().count()));
    assert!(
        wanted == found,
        "builder/LANGUAGE.md is not current from line {} on: write it with `{REGENERATE}=1 cargo test -p sarsen-builder the_reference`",
        line + 1
    );
}

/// The sections of the map of Batou's features that the language answers, by their first and last numbers: project to code, templates,
/// files, addresses, errors, and prediction. Provisioning, secrets, the rest of the library, command line and output are not the language's.
const FEATURES: [(u32, u32); 5] = [(1, 118), (140, 161), (179, 184), (206, 225), (226, 230)];

/// The feature numbers of the rows of the table, in order of the rows; a row without them is its own complaint.
fn features(table: &str) -> Result<Vec<u32>, String> {
    let rows = table.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| # |"));
    let numbers = rows.map(|row| {
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        let [numbers, theirs, ours] = cells[..] else { return Err(format!("not three cells: {row}")) };
        if theirs.is_empty() || ours.is_empty() {
            return Err(format!("an empty cell: {row}"));
        }
        numbers.split(", ").map(|number| number.parse().map_err(|_| format!("no number: {row}"))).collect::<Result<Vec<u32>, String>>()
    });
    Ok(numbers.collect::<Result<Vec<_>, _>>()?.concat())
}

#[test]
fn every_feature_of_batou_is_answered_once() {
    let mut found = features(include_str!("batou.md")).unwrap();
    found.sort_unstable();
    let wanted: Vec<u32> = FEATURES.iter().flat_map(|(first, last)| *first..=*last).collect();
    let twice: Vec<u32> = found.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| pair[0]).collect();
    let missing: Vec<&u32> = wanted.iter().filter(|number| !found.contains(number)).collect();
    let unknown: Vec<&u32> = found.iter().filter(|number| !wanted.contains(number)).collect();
    assert!(
        twice.is_empty() && missing.is_empty() && unknown.is_empty(),
        "in builder/src/language/batou.md: twice {twice:?}, missing {missing:?}, unknown {unknown:?}"
    );
    assert!(features("| `x` | y | z |").is_err() && features("| 1 | y |").is_err(), "a row without numbers is found");
}

#[test]
fn single_entries_are_found() {
    assert!(explain("File").unwrap().contains("| `content` |"));
    assert!(explain("self.add").unwrap().contains("self.add(what)"));
    assert!(explain("jobs").unwrap().contains("1 to 64"));
    assert_eq!(explain("Fiel"), None);
    assert!(names().iter().all(|name| explain(name).is_some()));
}

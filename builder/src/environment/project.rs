//! The project's own file, `sarsen.toml`.

use std::collections::BTreeMap;

use sarsen_store::gc::Retention;
use sarsen_store::signature::{KeyName, PublicKey};

use super::{begins, tree};
use crate::diagnostic::{Diagnostic, sort_diagnostics};
use crate::lock::{PackageRequest, Reference, is_revision};
use crate::snapshot::{PROJECT_FILE, Snapshot};
use tree::{Node, NodeKind, Section};

/// The most generations that a policy can ask for by number: one an hour for ten years.
const KEEP_LAST_MAX: u32 = 100_000;

/// The most days that a policy can ask for: a hundred years.
const KEEP_DAYS_MAX: u32 = 36_500;

/// The longest URL and the longest name of a branch, in bytes; git hosts allow less.
const REPOSITORY_BYTES_MAX: usize = 1000;

/// What `sarsen.toml` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Project {
    /// The project's name: `[a-z][a-z0-9-]*`.
    pub name: String,
    /// Which generations hosts keep after a deployment; all of them if the project does not say.
    pub retention: Option<Retention>,
    /// Whose signatures count when objects are imported. No name stands for two keys.
    pub trusted_keys: Vec<PublicKey>,
    /// Packages of components from other repositories, by the names under which they are loaded.
    pub packages: BTreeMap<String, PackageRequest>,
}

/// Reads what `sarsen.toml` says, whatever state the rest of the project is in.
///
/// Errors: what is wrong with the file, in order.
pub fn find_project_settings(snapshot: &Snapshot) -> Result<Project, Vec<Diagnostic>> {
    let mut diagnostics = Vec::new();
    let project = parse_project(snapshot, &mut diagnostics);
    sort_diagnostics(&mut diagnostics);
    project.filter(|_| diagnostics.is_empty()).ok_or(diagnostics)
}

/// Reads `sarsen.toml`; every unknown key and every value that is wrong is pushed to `diagnostics`.
pub(crate) fn parse_project(snapshot: &Snapshot, diagnostics: &mut Vec<Diagnostic>) -> Option<Project> {
    if snapshot.file(PROJECT_FILE).is_none() {
        diagnostics.push(Diagnostic::new("E0107", "the project has no `sarsen.toml`").hint("`sarsen init` makes one"));
        return None;
    }
    let node = tree::parse_file(snapshot, PROJECT_FILE, diagnostics)?;
    let mut file = Section::open(snapshot, "the file", node, diagnostics);
    let table = file.take("project");
    let retention = file.take("retention").map(|table| parse_retention(snapshot, table, diagnostics));
    let packages = file.take("packages").map(|table| parse_packages(snapshot, table, diagnostics)).unwrap_or_default();
    file.finish(diagnostics);
    let Some(table) = table else {
        diagnostics
            .push(Diagnostic::new("E0107", "`sarsen.toml` has no section `[project]`").hint("write `[project]` and `name = \"...\"`"));
        return None;
    };
    let span = table.span.clone();
    let mut section = Section::open(snapshot, "[project]", table, diagnostics);
    let known = diagnostics.len();
    let name = section.take_as("name", "a name of `a-z0-9-` that begins with a letter", diagnostics, |kind| {
        tree::text(kind).filter(|name| is_project_name(name)).map(str::to_owned)
    });
    if name.is_none() && diagnostics.len() == known {
        diagnostics.push(
            span.diagnostic(snapshot, "E0107", "`[project]` has no `name`").hint("the name is also the name of the profile on the hosts"),
        );
    }
    let trusted_keys = section.take("trusted_keys").map(|node| parse_trusted_keys(snapshot, node, diagnostics));
    section.finish(diagnostics);
    Some(Project { name: name?, retention, trusted_keys: trusted_keys.unwrap_or_default(), packages })
}

/// Reads `trusted_keys`; each key that is none is named where it stands.
fn parse_trusted_keys(snapshot: &Snapshot, node: Node, diagnostics: &mut Vec<Diagnostic>) -> Vec<PublicKey> {
    let hint = "`sarsen store key public FILE` prints a key in its form, `NAME:BASE64`";
    let NodeKind::List(nodes) = node.kind else {
        let message = format!("`trusted_keys` wants a list of keys, not {}", node.type_name());
        diagnostics.push(node.span.diagnostic(snapshot, "E0103", message).hint(hint));
        return Vec::new();
    };
    let mut keys: BTreeMap<KeyName, PublicKey> = BTreeMap::new();
    for node in nodes {
        let Some(text) = tree::text(&node.kind) else {
            let message = format!("a trusted key is a string, not {}", node.type_name());
            diagnostics.push(node.span.diagnostic(snapshot, "E0103", message).hint(hint));
            continue;
        };
        match text.parse::<PublicKey>() {
            Ok(key) if keys.get(key.name()).is_some_and(|other| *other != key) => {
                let message = format!("two different keys are called `{}`", key.name());
                diagnostics.push(node.span.diagnostic(snapshot, "E0105", message).hint("give a key that replaces another one a new name"));
            }
            Ok(key) => drop(keys.insert(key.name().clone(), key)),
            Err(error) => diagnostics.push(node.span.diagnostic(snapshot, "E0103", error.to_string()).hint(hint)),
        }
    }
    keys.into_values().collect()
}

/// Reads `[packages]`: what is not usable is reported and left out.
fn parse_packages(snapshot: &Snapshot, table: Node, diagnostics: &mut Vec<Diagnostic>) -> BTreeMap<String, PackageRequest> {
    let mut packages = BTreeMap::new();
    for (name, span, node) in Section::open(snapshot, "[packages]", table, diagnostics).into_rest() {
        if !is_package_name(&name) {
            let message = format!("`{name}` cannot be the name of a package");
            diagnostics.push(span.diagnostic(snapshot, "E0117", message).hint("names are made of `a-z0-9_` and begin with a letter"));
            continue;
        }
        let mut section = Section::open(snapshot, format!("package `{name}`"), node, diagnostics);
        let known = diagnostics.len();
        let git = section.take_as("git", "the URL or path of a repository", diagnostics, |kind| {
            tree::text(kind).filter(|text| is_repository(text)).map(str::to_owned)
        });
        let revision = section.take_as("rev", "the full name of a commit, 40 or 64 of `0-9a-f`", diagnostics, |kind| {
            tree::text(kind).filter(|text| is_revision(text)).map(str::to_owned)
        });
        let mut reference = |key| {
            section.take_as(key, "a name as git has it", diagnostics, |kind| {
                tree::text(kind).filter(|text| is_reference(text)).map(str::to_owned)
            })
        };
        let (tag, branch) = (reference("tag"), reference("branch"));
        section.finish(diagnostics);
        let reference = match (revision, tag, branch) {
            (Some(name), None, None) => Some(Reference::Revision(name)),
            (None, Some(name), None) => Some(Reference::Tag(name)),
            (None, None, Some(name)) => Some(Reference::Branch(name)),
            _ => None,
        };
        match (git, reference) {
            (Some(git), Some(reference)) => drop(packages.insert(name, PackageRequest { git, reference })),
            _ if diagnostics.len() > known => {}
            (git, _) => {
                let wanted = if git.is_none() { "`git`" } else { "one of `rev`, `tag` and `branch`" };
                let diagnostic = span.diagnostic(snapshot, "E0117", format!("package `{name}` wants {wanted}"));
                diagnostics.push(diagnostic.hint("for example `web = { git = \"https://git.example.net/web.git\", tag = \"v1\" }`"));
            }
        }
    }
    packages
}

/// Whether a text names a repository and is no option of git.
fn is_repository(text: &str) -> bool {
    !text.is_empty() && text.len() <= REPOSITORY_BYTES_MAX && !text.starts_with('-') && !text.chars().any(|c| c.is_control() || c == ' ')
}

/// Whether a text can be the name of a branch or tag; git-check-ref-format(1) knows more, and git will say so.
fn is_reference(text: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._-+/".contains(c);
    begins(text, |c| c.is_ascii_alphanumeric(), allowed) && text.len() <= REPOSITORY_BYTES_MAX && !text.contains("..")
}

/// Whether a text can be the name of a package.
pub(crate) fn is_package_name(text: &str) -> bool {
    text.len() <= 64 && begins(text, |c| c.is_ascii_lowercase(), |c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

/// Reads `[retention]`; a key that is left out has its default.
fn parse_retention(snapshot: &Snapshot, table: Node, diagnostics: &mut Vec<Diagnostic>) -> Retention {
    let mut section = Section::open(snapshot, "[retention]", table, diagnostics);
    let default = Retention::default();
    let generations = "a number of generations, 1 or more";
    let keep_last = section.take_as("keep_last", generations, diagnostics, |kind| tree::int_in(kind, 1..=KEEP_LAST_MAX));
    let keep_days = section.take_as("keep_days", "a number of days", diagnostics, |kind| tree::int_in(kind, 0..=KEEP_DAYS_MAX));
    section.finish(diagnostics);
    Retention { keep_last: keep_last.unwrap_or(default.keep_last), keep_days: keep_days.unwrap_or(default.keep_days) }
}

fn is_project_name(text: &str) -> bool {
    begins(text, |c| c.is_ascii_lowercase(), |c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Project, Vec<String>> {
        let snapshot = Snapshot::from_texts([(PROJECT_FILE, text)]);
        find_project_settings(&snapshot).map_err(|diagnostics| diagnostics.into_iter().map(|diagnostic| diagnostic.message).collect())
    }

    #[test]
    fn retention_is_a_wish_with_defaults() {
        let retention = |text: &str| parse(&format!("[project]\nname = \"p\"\n{text}")).unwrap().retention;
        assert_eq!(retention(""), None);
        assert_eq!(retention("[retention]"), Some(Retention::default()));
        assert_eq!(retention("[retention]\nkeep_last = 3\nkeep_days = 0"), Some(Retention { keep_last: 3, keep_days: 0 }));
    }

    #[test]
    fn trusted_keys_are_keys() {
        let keys = |list: &str| parse(&format!("[project]\nname = \"p\"\ntrusted_keys = {list}"));
        let key = "ci-1:11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=";
        assert_eq!(keys("[]").unwrap().trusted_keys, []);
        // The same one twice is one.
        assert_eq!(keys(&format!("[\"{key}\", \"{key}\"]")).unwrap().trusted_keys, [key.parse().unwrap()]);
        let other = "ci-1:PUAXw+hDiVqStwqnTRt+vJyYLM8uxJaMwM1V8Sr0Zgw=";
        for (list, expected) in [
            ("\"ci-1\"".to_owned(), "`trusted_keys` wants a list of keys, not a string"),
            ("[1]".to_owned(), "a trusted key is a string, not an integer"),
            ("[\"ci-1\"]".to_owned(), "a public key has the form `<name>:<base64>`"),
            ("[\"ci-1:AAAA\"]".to_owned(), "expected 44 characters of base64"),
            (format!("[\"{key}\", \"{other}\"]"), "two different keys are called `ci-1`"),
        ] {
            let wrong = keys(&list).unwrap_err();
            assert!(wrong.len() == 1 && wrong[0].contains(expected), "{list}: {wrong:?}");
        }
    }

    #[test]
    fn unusable_settings_are_named() {
        let wrong = parse("[project]\nname = \"p\"\n[retention]\nkeep_last = 0\nkeep_days = \"all\"\nkeep = 1").unwrap_err();
        assert_eq!(wrong.len(), 3, "{wrong:?}");
        assert!(wrong[0].contains("`keep_last` wants a number of generations, 1 or more, not `0`"), "{wrong:?}");
        assert!(wrong[2].contains("unknown key `keep` in [retention]"), "{wrong:?}");
    }
}

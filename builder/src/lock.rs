//! The lock file, `sarsen.lock`: what outside things were when `sarsen lock` looked at them. Pure; its format is `builder/LOCK.md`.
//!
//! Evaluation uses what is pinned and nothing else: what is declared and not pinned, or pinned for another declaration, is a diagnostic.
//! Only `sarsen lock` writes the file; it never depends on the machine or the time, only on what was found.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

use sarsen_store::Digest;
use serde::Deserialize;

use crate::diagnostic::{Diagnostic, sort_diagnostics};
use crate::environment::{Project, parse_project};
use crate::snapshot::{LOCK_FILE, PROJECT_FILE, Snapshot};

/// The version of the format.
const VERSION: i64 = 1;

/// The file's first lines.
const HEADER: &str = "# Written by `sarsen lock`; what it means: builder/LOCK.md. Do not edit.\n";

/// What is said about an entry that is not as it should be.
const LOCK_HINT: &str = "run `sarsen lock`";

/// What a project asks for under the name of a package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackageRequest {
    /// The repository, as git takes it; a path is relative to the project directory.
    pub git: String,
    /// What of it.
    pub reference: Reference,
}

/// A state of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reference {
    /// A commit by its full name.
    Revision(String),
    /// A tag.
    Tag(String),
    /// What a branch is when it is locked.
    Branch(String),
}

impl Reference {
    /// The key and the value that stand for it in both files.
    pub fn pair(&self) -> (&'static str, &str) {
        match self {
            Self::Revision(name) => ("rev", name),
            Self::Tag(name) => ("tag", name),
            Self::Branch(name) => ("branch", name),
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (key, name) = self.pair();
        write!(f, "{key} `{name}`")
    }
}

/// What a package is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockedPackage {
    /// What was asked for.
    pub request: PackageRequest,
    /// The commit, in hexadecimal.
    pub revision: String,
    /// The digest of its files; see `builder/LOCK.md`.
    pub tree: Digest,
}

/// All that is pinned.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Lock {
    /// Packages by name.
    pub packages: BTreeMap<String, LockedPackage>,
}

impl Lock {
    /// The file's text: one block for each entry, sorted.
    pub fn render(&self) -> String {
        let mut text = format!("{HEADER}version = {VERSION}\n");
        for (name, LockedPackage { request, revision, tree }) in &self.packages {
            let (key, value) = request.reference.pair();
            let quoted = |text: &str| toml::Value::String(text.to_owned()).to_string();
            let (git, value) = (quoted(&request.git), quoted(value));
            let block = format!("\n[packages.{name}]\ngit = {git}\n{key} = {value}\nrevision = \"{revision}\"\ntree = \"{tree}\"\n");
            let _ = text.write_str(&block);
        }
        text
    }
}

/// Reads the lock file of a project; none is one without entries.
///
/// Errors: what is wrong with it, in order.
pub fn find_lock(snapshot: &Snapshot) -> Result<Lock, Vec<Diagnostic>> {
    let mut diagnostics = Vec::new();
    let lock = parse_lock(snapshot, &mut diagnostics);
    sort_diagnostics(&mut diagnostics);
    if diagnostics.is_empty() { Ok(lock) } else { Err(diagnostics) }
}

/// The packages that can be used: declared, and pinned for just this declaration.
pub(crate) fn find_pinned(snapshot: &Snapshot) -> BTreeMap<String, LockedPackage> {
    let Some(project) = parse_project(snapshot, &mut Vec::new()) else { return BTreeMap::new() };
    let mut lock = parse_lock(snapshot, &mut Vec::new());
    lock.packages.retain(|name, locked| project.packages.get(name) == Some(&locked.request));
    lock.packages
}

/// Reports what is declared and not pinned, and what is pinned for another declaration.
pub(crate) fn check_lock(snapshot: &Snapshot, project: &Project, diagnostics: &mut Vec<Diagnostic>) {
    let known = diagnostics.len();
    let lock = parse_lock(snapshot, diagnostics);
    if diagnostics.len() > known {
        return;
    }
    for (name, request) in &project.packages {
        let message = match lock.packages.get(name) {
            Some(locked) if locked.request == *request => continue,
            Some(LockedPackage { request: PackageRequest { git, reference }, .. }) => {
                format!("the entry of package `{name}` in `{LOCK_FILE}` is stale: it is for {reference} of `{git}`")
            }
            None => format!("package `{name}` has no entry in `{LOCK_FILE}`"),
        };
        let text = snapshot.text(PROJECT_FILE).unwrap_or_default();
        let start = text.find("[packages").unwrap_or(0);
        let start = text[start..].find(name.as_str()).map_or(start, |at| start + at);
        diagnostics.push(Diagnostic::new("E0114", message).at_range(PROJECT_FILE, text, &(start..start + name.len())).hint(LOCK_HINT));
    }
    for name in lock.packages.keys().filter(|name| !project.packages.contains_key(*name)) {
        let text = snapshot.text(LOCK_FILE).unwrap_or_default();
        let header = format!("[packages.{name}]");
        let start = text.find(&header).unwrap_or(0);
        let message = format!("`{LOCK_FILE}` has an entry for package `{name}`, which `{PROJECT_FILE}` does not declare");
        let diagnostic = Diagnostic::new("E0115", message).warning();
        diagnostics.push(diagnostic.at_range(LOCK_FILE, text, &(start..start + header.len())).hint(LOCK_HINT));
    }
}

#[derive(Deserialize)]
struct Version {
    version: i64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(rename = "version")]
    _version: i64,
    #[serde(default)]
    packages: BTreeMap<String, Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    git: String,
    rev: Option<String>,
    tag: Option<String>,
    branch: Option<String>,
    revision: String,
    tree: String,
}

fn parse_lock(snapshot: &Snapshot, diagnostics: &mut Vec<Diagnostic>) -> Lock {
    if snapshot.file(LOCK_FILE).is_none() {
        return Lock::default();
    }
    parse_file(snapshot).unwrap_or_else(|diagnostic| {
        diagnostics.push(*diagnostic);
        Lock::default()
    })
}

fn parse_file(snapshot: &Snapshot) -> Result<Lock, Box<Diagnostic>> {
    let Some(text) = snapshot.text(LOCK_FILE) else {
        return Err(Box::new(Diagnostic::new("E0116", format!("`{LOCK_FILE}` is not UTF-8 text")).hint(LOCK_HINT)));
    };
    let refuse = |message: String, range| Box::new(Diagnostic::new("E0116", message).at_range(LOCK_FILE, text, &range));
    if let Some(range) = find_conflict(text) {
        let diagnostic = refuse(format!("`{LOCK_FILE}` has an unresolved merge conflict"), range);
        return Err(Box::new(diagnostic.hint("keep one side of each block, or take the file of one side; then run `sarsen lock`")));
    }
    let unreadable = |error: toml::de::Error| {
        let message = error.message().lines().next().unwrap_or("invalid TOML").trim_end_matches('.').to_owned();
        Box::new(
            refuse(format!("`{LOCK_FILE}`: {message}"), error.span().unwrap_or(0..0))
                .hint("restore it from version control, or remove it and run `sarsen lock`"),
        )
    };
    let Version { version } = toml::from_str(text).map_err(unreadable)?;
    if version != VERSION {
        let message = format!("`{LOCK_FILE}` has version {version}, this sarsen knows version {VERSION}");
        return Err(Box::new(refuse(message, 0..0).hint("use the sarsen that wrote it, or a newer one")));
    }
    let File { _version: _, packages } = toml::from_str(text).map_err(unreadable)?;
    let convert = |(name, entry): (String, Entry)| match convert(entry) {
        Some(locked) if crate::environment::is_package_name(&name) => Ok((name, locked)),
        _ => {
            let header = format!("[packages.{name}]");
            let start = text.find(&header).unwrap_or(0);
            let message = format!("the entry of package `{name}` in `{LOCK_FILE}` is not one that `sarsen lock` writes");
            let end = (start + header.len()).min(text.len());
            Err(Box::new(refuse(message, start..end).hint(LOCK_HINT.to_owned() + " after removing it")))
        }
    };
    Ok(Lock { packages: packages.into_iter().map(convert).collect::<Result<_, Box<Diagnostic>>>()? })
}

fn convert(entry: Entry) -> Option<LockedPackage> {
    let Entry { git, rev, tag, branch, revision, tree } = entry;
    let reference = match (rev, tag, branch) {
        (Some(name), None, None) => Reference::Revision(name),
        (None, Some(name), None) => Reference::Tag(name),
        (None, None, Some(name)) => Reference::Branch(name),
        _ => return None,
    };
    is_revision(&revision).then_some(())?;
    Some(LockedPackage { request: PackageRequest { git, reference }, revision, tree: tree.parse().ok()? })
}

/// Whether a text is the full name of a commit: SHA-1 or SHA-256, in lower-case hexadecimal.
pub(crate) fn is_revision(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// The first line that git writes into a file whose two sides it cannot put together.
fn find_conflict(text: &str) -> Option<std::ops::Range<usize>> {
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        let bare = line.trim_end();
        if ["<<<<<<< ", ">>>>>>> ", "||||||| "].iter().any(|marker| line.starts_with(marker)) || bare == "=======" {
            return Some(start..start + bare.len());
        }
        start += line.len();
    }
    None
}

#[cfg(test)]
mod tests;

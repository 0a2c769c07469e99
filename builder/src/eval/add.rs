//! `self.add` of a step: what was declared becomes a step of the model, and gives the value that it stands for.

use std::collections::BTreeMap;

use sarsen_store::{ObjectName, RelPath};
use starlark::values::none::NoneType;
use starlark::values::structs::AllocStruct;
use starlark::values::{Heap, Value};

use super::context::Context;
use super::failure::Failure;
use super::files::{Excluded, add_file, add_tree};
use super::instance::Instance;
use super::steps::{BuildDeclaration, Declaration, FetchDeclaration, PythonDeclaration};
use super::values::PathValue;
use crate::data::{Data, TargetPath};
use crate::diagnostic::{Diagnostic, Location, nearest_name};
use crate::model::{Build, Fetch, PythonEnv, Source, StepKind};
use crate::snapshot::SnapshotFile;

/// The kind of names that state directories have.
pub(super) const STATE: &str = "state directories";

/// Adds a step of `instance`, declared at `at`.
///
/// Errors: what cannot be given a value; mistakes that evaluation can live with are reported to the context instead.
pub(super) fn add_step<'v>(
    context: &Context,
    instance: &Instance<'v>,
    declaration: Declaration,
    at: &Location,
    heap: Heap<'v>,
) -> Result<Value<'v>, Failure> {
    let path_value = |path: TargetPath| heap.alloc(PathValue(path));
    match declaration {
        Declaration::File(file) => Ok(path_value(add_file(context, instance, file, at))),
        Declaration::Tree(tree) => Ok(path_value(add_tree(context, instance, tree, at)?)),
        Declaration::Build(build) => add_build(context, instance, build, at, heap),
        Declaration::PythonEnv(python) => Ok(path_value(add_python(context, instance, python, at)?)),
        Declaration::Fetch(fetch) => Ok(path_value(add_fetch(context, fetch, at)?)),
        Declaration::StateDirectory { name, user, mode } => {
            context.claim(STATE, &name, at);
            let path = context.state_path(&name);
            context.push_step(at.clone(), StepKind::StateDirectory { path: path.clone(), user, mode });
            Ok(path_value(TargetPath { base: path, object: None, rest: None }))
        }
        Declaration::Ready(kind) => Ok(add_ready(context, kind, at, heap)),
    }
}

fn add_ready<'v>(context: &Context, kind: StepKind, at: &Location, heap: Heap<'v>) -> Value<'v> {
    let in_tree = |path: &RelPath| heap.alloc(PathValue(TargetPath { rest: Some(path.clone()), ..context.tree() }));
    let value = match &kind {
        StepKind::Directory { path } => {
            let known = context.collected.borrow().tree.get(path).is_some_and(|(_, directory)| *directory);
            if known {
                // Two sub-components may want the same directory; one step makes it.
                return in_tree(path);
            }
            context.claim_path(path, at, true);
            in_tree(path)
        }
        StepKind::Symlink { path, .. } => {
            context.claim_path(path, at, false);
            in_tree(path)
        }
        StepKind::Hook { name, .. } => {
            context.claim("hooks", name, at);
            heap.alloc(NoneType)
        }
        StepKind::HealthCheck { name, .. } => {
            context.claim("health checks", name, at);
            heap.alloc(NoneType)
        }
        StepKind::Timer(timer) => heap.alloc(AllocStruct(
            [("unit", "timer"), ("service", "service")].map(|(field, suffix)| (field, format!("{}.{suffix}", timer.job.name))),
        )),
        StepKind::Service(service) => heap.alloc(AllocStruct([("unit", format!("{}.service", service.name))])),
        StepKind::File { .. }
        | StepKind::Build(_)
        | StepKind::PythonEnv(_)
        | StepKind::Fetch(_)
        | StepKind::StateDirectory { .. }
        | StepKind::Link { .. }
        | StepKind::Requirement(_) => heap.alloc(NoneType),
    };
    context.push_step(at.clone(), kind);
    value
}

pub(super) fn template_context(context: &Context, instance: &Instance<'_>, extra: Vec<(String, Data)>) -> Data {
    let usual = [("component", instance.template_fields()), ("host", context.host_fields()), ("environment", context.environment_fields())];
    let mut entries: Vec<(String, Data)> = usual.into_iter().map(|(name, fields)| (name.to_owned(), Data::Dict(fields))).collect();
    entries.retain(|(name, _)| !extra.iter().any(|(own, _)| own == name));
    entries.extend(extra);
    Data::Dict(entries)
}

/// The file of a step without origin: by its base name, then by its whole path, beside the definition.
pub(super) fn find_beside(context: &Context, directory: &str, path: &RelPath) -> Result<String, Failure> {
    let snapshot = &context.scene.snapshot;
    let candidates = [format!("{directory}/{}", path.file_name()), format!("{directory}/{path}")];
    if let Some(found) = candidates.iter().find(|candidate| snapshot.file(candidate).is_some()) {
        return Ok(found.clone());
    }
    let failure = missing(context, directory, path.file_name(), &candidates[0]);
    Err(failure.hint("or give `content = ...`, `source = ...` or `template = ...`"))
}

/// The file that a definition in `directory` names.
pub(super) fn find_file(context: &Context, directory: &str, written: &str) -> Result<String, Failure> {
    let path = project_path(directory, written)?;
    if context.scene.snapshot.file(&path).is_some() { Ok(path) } else { Err(missing(context, directory, written, &path)) }
}

/// The path below the project directory that a definition in `directory` means.
pub(super) fn project_path(directory: &str, written: &str) -> Result<String, Failure> {
    let home = crate::snapshot::home_of(directory);
    let path = match written.strip_prefix("//") {
        Some(path) => format!("{home}{path}"),
        None => format!("{directory}/{written}"),
    };
    let below = &path[home.len()..];
    let reachable = below.starts_with("lib/") || below.starts_with("components/");
    if !reachable || path.parse::<RelPath>().is_err() {
        let failure = Failure::new("E0426", format!("`{written}` lies outside of what definitions can read"));
        return Err(failure.hint("name a file beside the definition, or one of the project as `//lib/...`"));
    }
    Ok(path)
}

pub(super) fn missing(context: &Context, directory: &str, written: &str, looked_for: &str) -> Failure {
    let beside: Vec<&str> =
        context.scene.snapshot.files_below(directory).map(|(path, _)| path).filter(|path| !super::is_starlark(path)).collect();
    let failure = Failure::new("E0427", format!("there is no file `{looked_for}`"));
    match nearest_name(written, beside) {
        Some(name) => failure.hint(format!("did you mean `{name}`?")),
        None => failure,
    }
}

fn object_name(name: &str) -> Result<String, Failure> {
    name.parse::<ObjectName>().map(|name| name.as_str().to_owned()).map_err(|error| Failure::new("E0406", error.to_string()))
}

fn add_build<'v>(
    context: &Context,
    instance: &Instance<'v>,
    build: BuildDeclaration,
    at: &Location,
    heap: Heap<'v>,
) -> Result<Value<'v>, Failure> {
    let BuildDeclaration { name, script, sources, exclude, inputs, environment, outputs: output_names, timeout_s } = build;
    context.claim("builds", &name, at);
    let mut outputs = BTreeMap::new();
    let mut values = Vec::new();
    for output in output_names {
        let suffix = if output == "out" { String::new() } else { format!("-{output}") };
        let id = context.placeholder(&format!("/build/{name}/{output}"));
        let path = context.object_path(id, &object_name(&format!("{}-{name}{suffix}", context.component))?);
        values.push((output.clone(), heap.alloc(PathValue(path))));
        outputs.insert(output, id);
    }
    let excluded = Excluded::parse(&exclude)?;
    let sources = read_sources(context, &instance.directory, &sources, &excluded, at);
    context.push_step(at.clone(), StepKind::Build(Build { name, script, sources, environment, inputs, outputs, timeout_s }));
    Ok(if let [(_, value)] = values.as_slice() { *value } else { heap.alloc(AllocStruct(values)) })
}

/// Reads the sources of a build; what is missing is reported.
fn read_sources(context: &Context, directory: &str, written: &[String], excluded: &Excluded, at: &Location) -> Vec<Source> {
    let snapshot = &context.scene.snapshot;
    let entry = |path: Option<RelPath>, file: &SnapshotFile| (path, file.content.clone(), file.executable);
    let mut sources: Vec<Source> = Vec::new();
    for source in written {
        let path = match project_path(directory, source.trim_end_matches('/')) {
            Ok(path) => path,
            Err(failure) => {
                context.report(failure.0.at(at.clone()));
                continue;
            }
        };
        let files: Vec<_> = match snapshot.file(&path) {
            Some(file) => vec![entry(None, file)],
            None => snapshot
                .files_below(&path)
                .filter(|(below, _)| !excluded.has(below))
                .filter_map(|(below, file)| Some(entry(Some(below.parse().ok()?), file)))
                .collect(),
        };
        if files.is_empty() {
            context.report(missing(context, directory, source, &path).0.at(at.clone()));
        }
        let name = path.rsplit('/').next().unwrap_or(&path).to_owned();
        if sources.iter().any(|other| other.name == name) {
            let diagnostic = Diagnostic::new("E0428", format!("two sources have the base name `{name}`")).at(at.clone());
            context.report(diagnostic.hint("the script finds each source under its base name: rename one of them"));
        }
        sources.push(Source { name, files });
    }
    sources
}

fn add_python(context: &Context, instance: &Instance<'_>, python: PythonDeclaration, at: &Location) -> Result<TargetPath, Failure> {
    let PythonDeclaration { name, lock, python } = python;
    context.claim("Python environments", &name, at);
    let id = |part: &str| context.placeholder(&format!("/python/{name}/{part}"));
    let (wheels, output) = (id("wheels"), id("env"));
    object_name(&format!("{}-{name}-wheels", context.component))?;
    let path = context.object_path(output, &object_name(&format!("{}-{name}", context.component))?);
    let text = match find_file(context, &instance.directory, &lock) {
        Ok(found) => {
            let text = context.scene.snapshot.text(&found).unwrap_or_default().to_owned();
            for diagnostic in check_lock(&found, &text) {
                context.report(diagnostic.note("used here", at.clone()));
            }
            text
        }
        Err(failure) => {
            context.report(
                failure.hint("make one with `pip-compile --generate-hashes` or `uv pip compile --generate-hashes`").0.at(at.clone()),
            );
            String::new()
        }
    };
    context.push_step(at.clone(), StepKind::PythonEnv(PythonEnv { name, lock: text, python, wheels, output }));
    Ok(path)
}

fn add_fetch(context: &Context, fetch: FetchDeclaration, at: &Location) -> Result<TargetPath, Failure> {
    let FetchDeclaration { name, urls, digest, file, size_max } = fetch;
    context.claim("fetches", &name, at);
    let output = context.placeholder(&format!("/fetch/{name}/out"));
    let path = context.object_path(output, &object_name(&format!("{}-{name}", context.component))?);
    let path = TargetPath { rest: Some(file.clone()), ..path };
    context.push_step(at.clone(), StepKind::Fetch(Fetch { name, urls, digest, file: file.to_string(), size_max, output }));
    Ok(path)
}

/// Checks that every line of a lock file pins one version with hashes.
fn check_lock(file: &str, text: &str) -> Vec<Diagnostic> {
    let mut diagnostics = Vec::new();
    let mut offset = 0;
    let mut logical = String::new();
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        if logical.is_empty() {
            start = offset;
        }
        offset += line.len();
        let line = line.trim_end();
        let line = line.split_once(" #").map_or(line, |(before, _)| before.trim_end());
        if let Some(continued) = line.strip_suffix('\\') {
            logical.push_str(continued);
            logical.push(' ');
            continue;
        }
        logical.push_str(line);
        let requirement = std::mem::take(&mut logical);
        let requirement = requirement.trim();
        let length = text[start..].lines().next().map_or(0, str::len);
        if let Some(refusal) = Some(requirement).filter(|line| !line.is_empty() && !line.starts_with('#')).and_then(refuse_lock_line) {
            let hint = "every line is `name==version --hash=sha256:...`; make it with `pip-compile --generate-hashes` or `uv pip compile --generate-hashes`";
            diagnostics.push(Diagnostic::new("E0429", refusal).at_range(file, text, &(start..start + length)).hint(hint));
        }
    }
    diagnostics
}

fn refuse_lock_line(line: &str) -> Option<&'static str> {
    if line.starts_with('-') {
        return Some("options cannot stand in a lock file");
    }
    let mut words = line.split_whitespace();
    let named = words.next().and_then(|word| word.split_once("==")).is_some_and(|(name, version)| {
        let name = name.split('[').next().unwrap_or_default();
        let allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        !name.is_empty() && name.chars().all(allowed) && !version.is_empty()
    });
    if !named {
        return Some("this does not pin one version");
    }
    let hashes: Vec<&str> = words.filter_map(|word| word.strip_prefix("--hash=")).collect();
    let good =
        |hash: &&str| hash.strip_prefix("sha256:").is_some_and(|hex| hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit()));
    if hashes.is_empty() {
        Some("this has no hash")
    } else if !hashes.iter().all(good) {
        Some("hashes are `sha256:` and 64 hexadecimal digits")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lock_files() {
        let hash = "0".repeat(64);
        let good = format!(
            "# made by hand\n\nflask==3.0.0 ; python_version > '3' \\\n    --hash=sha256:{hash} \\\n    --hash=sha256:{hash}\n    # via x\nuvicorn[standard]==1 --hash=sha256:{hash}  # why\n"
        );
        assert_eq!(check_lock("l", &good), []);
        for (line, expected) in [
            ("flask", "this does not pin"),
            ("flask==1", "this has no hash"),
            ("--index-url x", "options"),
            ("a==1 --hash=md5:0", "hashes are"),
        ] {
            let diagnostics = check_lock("l", &format!("{good}{line}\n"));
            assert_eq!(diagnostics.len(), 1, "{line}");
            assert!(diagnostics[0].message.starts_with(expected) && diagnostics[0].location.as_ref().unwrap().line == 8, "{line}");
        }
    }
}

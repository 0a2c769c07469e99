//! `self.add` of files and trees of files: reading, rendering, writing data, encoding.

use std::sync::Arc;

use ignore::gitignore::{Gitignore, GitignoreBuilder};
use sarsen_store::RelPath;

use super::add::{find_beside, find_file, missing, project_path, template_context};
use super::context::Context;
use super::failure::Failure;
use super::instance::Instance;
use super::mako;
use super::steps::{Content, Engine, FileDeclaration, Formatted, TreeDeclaration, render_mode};
use crate::data::{Data, TargetPath};
use crate::diagnostic::{Diagnostic, Location};
use crate::encoding::Encoding;
use crate::model::StepKind;
use crate::template::{INLINE, relocate};

/// Adds one file; what is wrong with it is reported.
pub(super) fn add_file(context: &Context, instance: &Instance<'_>, file: FileDeclaration, at: &Location) -> TargetPath {
    context.claim_path(&file.path, at, false);
    let mode = file.mode;
    if let Some(mode) = mode.filter(|mode| mode & 0o004 == 0) {
        let kept = if mode & 0o111 == 0 { "r--r--r--" } else { "r-xr-xr-x" };
        let message =
            format!("`{}` will have the mode {kept}, not {}: the immutable tree can be read by everyone", file.path, render_mode(mode));
        context.report(Diagnostic::new("E0442", message).warning().at(at.clone()).hint("write 0o644 or 0o755, and keep secrets out of it"));
    }
    let path = file.path.clone();
    let (bytes, runnable) = render(context, instance, file, at).unwrap_or_else(|diagnostic| {
        context.report(*diagnostic);
        (Arc::from([]), false)
    });
    let executable = mode.map_or(runnable, |mode| mode & 0o111 != 0);
    context.push_step(at.clone(), StepKind::File { path: path.clone(), content: bytes, executable });
    TargetPath { rest: Some(path), ..context.tree() }
}

/// The bytes of a file, and whether its source may be executed.
fn render(context: &Context, instance: &Instance<'_>, file: FileDeclaration, at: &Location) -> Result<(Arc<[u8]>, bool), Box<Diagnostic>> {
    let FileDeclaration { path, content, raw, mode: _, context: extra, encoding, engine, formatted } = file;
    let is_mako = |source: &str| engine.map_or_else(|| has_suffix(source, "mako"), |engine| engine == Engine::Mako);
    let mut executable = false;
    let mut origin = None;
    let text = match content {
        Content::Data(data) => return write_data(&path, data, formatted, encoding, at).map(|bytes| (bytes, false)),
        Content::Inline(text) if raw => text,
        Content::Inline(text) if is_mako("") => {
            let rendered = render_mako(context, instance, INLINE, &text, &template_context(context, instance, extra));
            rendered.map_err(|diagnostic| Box::new(relocate(*diagnostic, at, &text)))?
        }
        Content::Inline(text) => {
            context.templates(&instance.directory).render_text(&text, at, &template_context(context, instance, extra))?
        }
        Content::Source(_) | Content::Beside => {
            let source = if let Content::Source(source) = &content {
                find_file(context, &instance.directory, source)
            } else {
                find_beside(context, &instance.directory, &path)
            };
            let source = source.map_err(|failure| Box::new(failure.0.at(at.clone())))?;
            let Some(file) = context.scene.snapshot.file(&source) else { return Ok((Arc::from([]), false)) };
            executable = file.executable;
            if raw && formatted.is_none() {
                return Ok((file.content.clone(), executable));
            }
            let text = decode(&source, &file.content, encoding, at)?;
            if raw {
                origin = Some(source);
                text
            } else {
                let values = template_context(context, instance, extra);
                let rendered = if is_mako(&source) {
                    render_mako(context, instance, &source, &text, &values)
                } else {
                    context.templates(&instance.directory).render_source(&source, &text, &values)
                };
                rendered.map_err(|diagnostic| Box::new(rendered_for(*diagnostic, at)))?
            }
        }
    };
    let Some(formatted) = formatted else {
        return encode(&path, &text, encoding, at).map(|bytes| (bytes, executable));
    };
    let data = formatted.format.read(&text).map_err(|error| {
        let message = format!("not valid {}: {}", formatted.format.title(), error.message);
        let diagnostic = Diagnostic::new("E0443", message);
        let Some(file) = origin else {
            let shown = shorten(line_of(&text, error.line));
            let note = format!("in line {}, column {} of what was rendered: `{shown}`", error.line, error.column);
            return Box::new(diagnostic.at(at.clone()).note(note, None));
        };
        Box::new(rendered_for(diagnostic.at(Location { file, line: error.line, column: error.column }), at))
    })?;
    write_data(&path, data, Some(formatted), encoding, at).map(|bytes| (bytes, executable))
}

fn has_suffix(name: &str, suffix: &str) -> bool {
    std::path::Path::new(name).extension().is_some_and(|extension| extension == suffix)
}

/// Renders a Mako template; what it includes lies beside the definition, or in `//lib`.
fn render_mako(context: &Context, instance: &Instance<'_>, path: &str, text: &str, values: &Data) -> Result<String, Box<Diagnostic>> {
    let find = |written: &str| {
        let found = find_file(context, &instance.directory, written).map_err(|failure| match failure.0.hints.first() {
            Some(hint) => format!("{} ({hint})", failure.0.message),
            None => failure.0.message.clone(),
        })?;
        let text = context.scene.snapshot.text(&found).ok_or_else(|| format!("`{found}` is not UTF-8 text"))?;
        Ok((found, text.to_owned()))
    };
    mako::render(path, text, values, &find)
}

/// Data with what is laid over it, as the bytes of a file.
fn write_data(
    path: &RelPath,
    data: Data,
    formatted: Option<Formatted>,
    encoding: Encoding,
    at: &Location,
) -> Result<Arc<[u8]>, Box<Diagnostic>> {
    let Some(Formatted { format, overrides, lists }) = formatted else { return Ok(Arc::from([])) };
    if !overrides.is_empty() && !matches!(data, Data::Dict(_)) {
        let message = format!("the data of `{path}` is no dict, so that nothing can be laid over it");
        return Err(Box::new(Diagnostic::new("E0443", message).at(at.clone())));
    }
    let data = overrides.into_iter().fold(data, |data, over| data.merged(over, lists));
    let text = format.write(&data).map_err(|refusal| Box::new(Diagnostic::new("E0417", format!("`{path}`: {refusal}")).at(at.clone())))?;
    encode(path, &text, encoding, at)
}

fn decode(file: &str, bytes: &[u8], encoding: Encoding, at: &Location) -> Result<String, Box<Diagnostic>> {
    encoding.decode(bytes).map_err(|offset| {
        let line = bytes.get(..offset).unwrap_or_default().split(|byte| *byte == b'\n').count();
        let byte = bytes.get(offset).copied().unwrap_or_default();
        let what = if encoding == Encoding::Utf8 { "UTF-8 text" } else { "text in the encoding given" };
        let diagnostic = Diagnostic::new("E0603", format!("`{file}` is not {what}: the byte 0x{byte:02x} in line {line} is none"));
        Box::new(diagnostic.at(at.clone()).hint("take the bytes as they are with `raw = True`, or say which `encoding = ...` it has"))
    })
}

fn encode(path: &RelPath, text: &str, encoding: Encoding, at: &Location) -> Result<Arc<[u8]>, Box<Diagnostic>> {
    encoding.encode(text).map(Arc::from).map_err(|(offset, c)| {
        let place = Location::of_offset("", text, offset);
        let message = format!("`{path}` cannot hold `{c}` (U+{:04X}) in its encoding", u32::from(c));
        let shown = shorten(line_of(text, place.line));
        let note = format!("in line {}, column {} of its text: `{shown}`", place.line, place.column);
        Box::new(Diagnostic::new("E0440", message).at(at.clone()).note(note, None))
    })
}

fn line_of(text: &str, line: u32) -> &str {
    text.lines().nth(usize::try_from(line).unwrap_or(1).saturating_sub(1)).unwrap_or_default()
}

fn shorten(line: &str) -> String {
    line.trim().chars().take(80).collect()
}

fn rendered_for(diagnostic: Diagnostic, at: &Location) -> Diagnostic {
    if diagnostic.location.is_none() { diagnostic.at(at.clone()) } else { diagnostic.note("rendered for this file", at.clone()) }
}

/// Adds all files of a directory of the project that are not excluded.
pub(super) fn add_tree(context: &Context, instance: &Instance<'_>, tree: TreeDeclaration, at: &Location) -> Result<TargetPath, Failure> {
    let TreeDeclaration { path, source, exclude } = tree;
    let excluded = Excluded::parse(&exclude)?;
    let directory = project_path(&instance.directory, source.trim_end_matches('/'))?;
    let snapshot = &context.scene.snapshot;
    if snapshot.file(&directory).is_some() {
        return Err(Failure::new("E0444", format!("`{directory}` is a file, not a directory")).hint("use `File(...)`"));
    }
    let mut found = false;
    let mut taken = 0;
    for (below, file) in snapshot.files_below(&directory) {
        found = true;
        if excluded.has(below) {
            continue;
        }
        let placed = match &path {
            Some(path) => below.parse().and_then(|below: RelPath| path.join(&below)),
            None => below.parse(),
        };
        let placed = placed.map_err(|error| Failure::new("E0409", error.to_string()))?;
        context.claim_path(&placed, at, false);
        context.push_step(at.clone(), StepKind::File { path: placed, content: file.content.clone(), executable: file.executable });
        taken += 1;
    }
    if !found {
        let failure = missing(context, &instance.directory, &source, &directory);
        context.report(failure.hint("directories without files do not exist for sarsen").0.at(at.clone()));
    } else if taken == 0 {
        let diagnostic = Diagnostic::new("E0444", format!("`exclude` leaves nothing of `{directory}`"));
        context.report(diagnostic.at(at.clone()).hint("for an empty directory leave `source` out"));
    }
    Ok(TargetPath { rest: path, ..context.tree() })
}

/// Patterns as in `.gitignore`: the last one that fits decides, `!` takes back.
pub(super) struct Excluded(Gitignore);

impl Excluded {
    pub(super) fn parse(patterns: &[String]) -> Result<Self, Failure> {
        let refuse = |pattern: &str| {
            Failure::new("E0445", format!("`{pattern}` is not a pattern"))
                .hint("patterns are those of `.gitignore`: `*.pyc`, `/build`, `docs/**/*.png`, `!keep.png`")
        };
        let mut builder = GitignoreBuilder::new("");
        for pattern in patterns {
            builder.add_line(None, pattern).map_err(|_| refuse(pattern))?;
        }
        builder.build().map(Self).map_err(|_| refuse(&patterns.join("`, `")))
    }

    /// Whether a file, or a directory above it, is excluded.
    pub(super) fn has(&self, path: &str) -> bool {
        self.0.matched_path_or_any_parents(path, false).is_ignore()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_those_of_gitignore() {
        let patterns = ["*.pyc", "/build", "docs/**/*.png", "!docs/keep.png", "cache/", "# x"].map(str::to_owned);
        let excluded = Excluded::parse(&patterns).unwrap();
        for (path, expected) in [
            ("a.pyc", true),
            ("x/y/a.pyc", true),
            ("build/x", true),
            ("x/build/y", false),
            ("docs/a/b.png", true),
            ("docs/keep.png", false),
            ("x/cache/y", true),
            ("cache", false),
            ("a.py", false),
        ] {
            assert_eq!(excluded.has(path), expected, "{path}");
        }
        assert!(Excluded::parse(&["a{".to_owned()]).is_err());
    }
}

//! Steps that make content: files, directories, links, builds, Python environments.

#![expect(clippy::too_many_arguments, reason = "what definitions name is arguments")]

use std::collections::{BTreeMap, BTreeSet};

use sarsen_store::{ObjectId, RelPath};
use starlark::environment::GlobalsBuilder;
use starlark::eval::Evaluator;
use starlark::starlark_module;
use starlark::values::list::UnpackList;
use starlark::values::none::NoneOr;
use starlark::values::{Value, ValueLike};

use super::{Declaration, bounded, checked_absolute, checked_name, make};
use crate::data::Data;
use crate::eval::convert::{to_data, to_text, to_text_map};
use crate::eval::failure::Failure;
use crate::eval::values::{PathValue, StepValue};
use crate::model::StepKind;

/// The longest build, in seconds: a day.
const BUILD_TIMEOUT_S_MAX: u32 = 86_400;

/// `File(...)`.
#[derive(Debug)]
pub(in crate::eval) struct FileDeclaration {
    pub(in crate::eval) path: RelPath,
    pub(in crate::eval) content: Content,
    /// Whether the bytes are taken as they are.
    pub(in crate::eval) raw: bool,
    /// Nothing: as the source has it.
    pub(in crate::eval) executable: Option<bool>,
    /// What templates see beyond the usual.
    pub(in crate::eval) context: Vec<(String, Data)>,
}

/// Where a file's bytes come from.
#[derive(Debug)]
pub(in crate::eval) enum Content {
    /// The file of the same name beside the definition.
    Beside,
    /// A file of the project.
    Source(String),
    /// A text.
    Inline(String),
    /// Rendered already, from data.
    Final(String),
}

/// `Build(...)`.
#[derive(Debug)]
pub(in crate::eval) struct BuildDeclaration {
    pub(in crate::eval) name: String,
    pub(in crate::eval) script: String,
    pub(in crate::eval) sources: Vec<String>,
    pub(in crate::eval) inputs: Vec<ObjectId>,
    pub(in crate::eval) environment: BTreeMap<String, String>,
    pub(in crate::eval) outputs: Vec<String>,
    pub(in crate::eval) timeout_s: u64,
}

/// `PythonEnv(...)`.
#[derive(Debug)]
pub(in crate::eval) struct PythonDeclaration {
    pub(in crate::eval) name: String,
    pub(in crate::eval) lock: String,
    pub(in crate::eval) python: String,
}

fn rel_path(path: &str, what: &str) -> Result<RelPath, Failure> {
    path.parse().map_err(|error: sarsen_store::InvalidPath| {
        let failure = Failure::new("E0409", format!("{what}: {error}"));
        if path.starts_with('/') {
            failure.hint("paths are relative to the component's tree; for an absolute path on the host add a `Link`")
        } else {
            failure
        }
    })
}

fn executable(mode: Option<i32>) -> Result<Option<bool>, Failure> {
    let Some(mode) = mode else { return Ok(None) };
    if mode & !0o777 != 0 {
        let failure = Failure::new("E0416", format!("mode 0o{mode:o} is not possible: the immutable tree has no set-id and sticky bits"));
        return Err(failure.hint("write 0o644 or 0o755"));
    }
    if mode & 0o444 == 0 {
        return Err(Failure::new("E0416", format!("mode 0o{mode:o} makes the file unreadable")).hint("write 0o644 or 0o755"));
    }
    Ok(Some(mode & 0o111 != 0))
}

fn formatted(format: &str, data: Value<'_>, path: &RelPath) -> Result<String, Failure> {
    let data = to_data(data, &format!("`data` of `{path}`"))?;
    match format {
        "json" => Ok(data.to_pretty_json()),
        "toml" => data.to_toml().map_err(|refusal| Failure::new("E0417", refusal.to_string())),
        other => {
            Err(Failure::new("E0417", format!("`{other}` is not a format that can be written")).hint("formats are \"json\" and \"toml\""))
        }
    }
}

fn context_entries(context: Option<Value<'_>>) -> Result<Vec<(String, Data)>, Failure> {
    let Some(context) = context else { return Ok(Vec::new()) };
    let data = to_data(context, "`context`")?;
    if let Data::Dict(entries) = data {
        Ok(entries)
    } else {
        Err(Failure::new("E0402", format!("`context` wants a dict, not `{}`", data.type_name())))
    }
}

fn input_of(value: Value<'_>) -> Result<ObjectId, Failure> {
    let path = value.downcast_ref::<PathValue>();
    let object = path.and_then(|path| path.0.object);
    object.ok_or_else(|| {
        Failure::new("E0418", format!("`inputs` wants paths of files and builds, not `{}`", value.to_str()))
            .hint("what `self.add(Build(...))` and `self.path(...)` give")
    })
}

fn checked_outputs(outputs: Vec<String>) -> Result<Vec<String>, Failure> {
    for (index, output) in outputs.iter().enumerate() {
        let identifier =
            output.chars().enumerate().all(|(index, c)| c.is_ascii_lowercase() || index > 0 && (c.is_ascii_digit() || c == '_'));
        if output.is_empty() || !identifier {
            return Err(Failure::new("E0419", format!("`{output}` cannot be the name of an output"))
                .hint("each output is a variable of the script: use `a-z0-9_`"));
        }
        if outputs[..index].contains(output) {
            return Err(Failure::new("E0419", format!("output `{output}` is named twice")));
        }
    }
    if outputs.is_empty() { Err(Failure::new("E0419", "a build without outputs does nothing")) } else { Ok(outputs) }
}

fn check_variables(variables: &BTreeMap<String, String>) -> Result<(), Failure> {
    let identifier = |name: &str| {
        !name.is_empty()
            && name.chars().enumerate().all(|(index, c)| c == '_' || c.is_ascii_alphabetic() || index > 0 && c.is_ascii_digit())
    };
    match variables.iter().find(|(name, value)| !identifier(name) || value.contains('\0')) {
        Some((name, _)) => Err(Failure::new("E0420", format!("`{name}` cannot be an environment variable"))),
        None => Ok(()),
    }
}

#[starlark_module]
pub(in crate::eval) fn builtins(builder: &mut GlobalsBuilder) {
    /// A regular file of the component's tree; a template unless `raw`.
    fn File<'v>(
        path: &str,
        #[starlark(require = named, default = NoneOr::None)] content: NoneOr<&str>,
        #[starlark(require = named, default = NoneOr::None)] source: NoneOr<&str>,
        #[starlark(require = named, default = NoneOr::None)] template: NoneOr<&str>,
        #[starlark(require = named, default = false)] raw: bool,
        #[starlark(require = named, default = NoneOr::None)] mode: NoneOr<i32>,
        #[starlark(require = named, default = NoneOr::None)] format: NoneOr<&str>,
        #[starlark(require = named, default = NoneOr::None)] data: NoneOr<Value<'v>>,
        #[starlark(require = named, default = NoneOr::None)] context: NoneOr<Value<'v>>,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<StepValue> {
        let path = rel_path(path, "File")?;
        let executable = executable(mode.into_option())?;
        let context = context_entries(context.into_option())?;
        let content = match (content.into_option(), source.into_option(), template.into_option(), format.into_option(), data.into_option())
        {
            (None, None, None, None, None) => Content::Beside,
            (Some(text), None, None, None, None) => Content::Inline(text.to_owned()),
            (None, Some(source), None, None, None) => Content::Source(source.to_owned()),
            (None, None, Some(_), None, None) if raw => {
                return Err(Failure::new("E0421", "a template is rendered, `raw = True` is not")
                    .hint("use `source = ...` with `raw = True`")
                    .into());
            }
            (None, None, Some(template), None, None) => Content::Source(template.to_owned()),
            (None, None, None, Some(format), Some(data)) => Content::Final(formatted(format, data, &path)?),
            (None, None, None, Some(_), None) | (None, None, None, None, Some(_)) => {
                return Err(Failure::new("E0421", "`format` and `data` belong together")
                    .hint("for example `format = \"json\", data = {...}`")
                    .into());
            }
            _ => {
                return Err(Failure::new("E0421", "a file has one origin")
                    .hint("give one of `content`, `source`, `template`, and `format` with `data`")
                    .into());
            }
        };
        let label = format!("File `{path}`");
        Ok(make(eval, label, Declaration::File(FileDeclaration { path, content, raw, executable, context }))?)
    }

    /// An empty directory of the component's tree.
    fn Directory<'v>(path: &str, eval: &mut Evaluator<'v, '_, '_>) -> starlark::Result<StepValue> {
        let path = rel_path(path, "Directory")?;
        Ok(make(eval, format!("Directory `{path}`"), Declaration::Ready(StepKind::Directory { path }))?)
    }

    /// A symbolic link of the component's tree.
    fn Symlink<'v>(path: &str, target: Value<'v>, eval: &mut Evaluator<'v, '_, '_>) -> starlark::Result<StepValue> {
        let path = rel_path(path, "Symlink")?;
        let target = to_text(target, "the target of a link")?;
        if target.is_empty() || target.contains('\0') {
            return Err(Failure::new("E0409", format!("the link `{path}` has no target")).into());
        }
        Ok(make(eval, format!("Symlink `{path}`"), Declaration::Ready(StepKind::Symlink { path, target }))?)
    }

    /// A sandboxed build: a shell script that fills `$out`.
    fn Build<'v>(
        name: &str,
        script: &str,
        #[starlark(require = named, default = UnpackList::default())] sources: UnpackList<String>,
        #[starlark(require = named, default = UnpackList::default())] inputs: UnpackList<Value<'v>>,
        #[starlark(require = named)] env: Option<Value<'v>>,
        #[starlark(require = named)] outputs: Option<UnpackList<String>>,
        #[starlark(require = named, default = 3600)] timeout: i32,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<StepValue> {
        let environment = env.map_or_else(|| Ok(BTreeMap::new()), |env| to_text_map(env, "`env`"))?;
        check_variables(&environment)?;
        let inputs: BTreeSet<ObjectId> = inputs.items.into_iter().map(input_of).collect::<Result<_, _>>()?;
        let outputs = checked_outputs(outputs.map_or_else(|| vec!["out".to_owned()], |outputs| outputs.items))?;
        if let Some(output) = outputs.iter().find(|output| environment.contains_key(*output)) {
            return Err(Failure::new("E0420", format!("the variable `{output}` is that of an output")).hint("give it another name").into());
        }
        let declaration = BuildDeclaration {
            name: checked_name(name, "build")?,
            script: script.to_owned(),
            sources: sources.items,
            inputs: inputs.into_iter().collect(),
            environment,
            outputs,
            timeout_s: bounded(timeout, "timeout", BUILD_TIMEOUT_S_MAX)?,
        };
        Ok(make(eval, format!("Build `{name}`"), Declaration::Build(declaration))?)
    }

    /// A Python environment from a lock file with hashes.
    fn PythonEnv<'v>(
        name: &str,
        #[starlark(require = named, default = "requirements.lock")] lock: &str,
        #[starlark(require = named, default = "/usr/bin/python3")] python: &str,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<StepValue> {
        let declaration = PythonDeclaration {
            name: checked_name(name, "Python environment")?,
            lock: lock.to_owned(),
            python: checked_absolute(python, "`python`")?,
        };
        Ok(make(eval, format!("PythonEnv `{name}`"), Declaration::PythonEnv(declaration))?)
    }
}

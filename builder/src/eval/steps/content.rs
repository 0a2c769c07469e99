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
    /// A regular file of the component's tree, rendered at evaluation.
    ///
    /// Without any origin it is the file of the same name beside the definition. The mode on the target is 0444, or 0555 if it may be
    /// executed: the tree is immutable and belongs to nobody.
    ///
    /// # Arguments
    /// * `path`: where it lies in the tree; relative, without `..`
    /// * `content`: the text itself, a template unless `raw`; `""` gives an empty file
    /// * `source`: the file to take instead: beside the definition, or of the project as `//lib/NAME`; a template unless `raw`
    /// * `template`: the same as `source`, for templates that say so in their name
    /// * `raw`: whether the bytes are taken as they are, so that they need not be UTF-8
    /// * `mode`: permission bits, of which only "may be executed" is kept; if not given, as the source has it
    /// * `format`: how `data` is written: `"json"` or `"toml"`
    /// * `data`: (any) plain values to be written in `format`
    /// * `context`: (dict) further names for the template, beside `component`, `host` and `environment`
    ///
    /// # Returns
    /// `self.add` gives its `Path`
    ///
    /// # Errors
    /// * `E0409`: the path is absolute or leads outside
    /// * `E0411`: another step has this path, or what should be a directory is none
    /// * `E0416`: the mode has set-id bits, or nobody could read the file
    /// * `E0417`: the data cannot be written in the format
    /// * `E0421`: two origins, or half of one
    /// * `E0426`, `E0427`: the source lies outside of the project, or does not exist
    /// * `E0601` to `E0606`: the template is wrong
    ///
    /// # Example
    /// ```python
    /// self.add(File("app.conf"))
    /// self.add(File("bin/tick", template = "tick.sh.j2", mode = 0o755))
    /// self.add(File("motd", content = "{{ host.name }} says {{ word }}\n", context = {"word": "hello"}))
    /// self.add(File("etc/app.json", format = "json", data = {"port": self.port}))
    /// ```
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

    /// A directory of the component's tree; what is immutable is empty for ever.
    ///
    /// Directories above files are there anyway. Mutable data belongs into a `StateDirectory`.
    ///
    /// # Arguments
    /// * `path`: where it lies in the tree; relative, without `..`
    ///
    /// # Returns
    /// `self.add` gives its `Path`
    ///
    /// # Errors
    /// * `E0409`: the path is absolute or leads outside
    /// * `E0411`: the path is that of a file or link; that of another directory is fine
    ///
    /// # Example
    /// ```python
    /// self.add(Directory("etc/conf.d"))
    /// ```
    fn Directory<'v>(path: &str, eval: &mut Evaluator<'v, '_, '_>) -> starlark::Result<StepValue> {
        let path = rel_path(path, "Directory")?;
        Ok(make(eval, format!("Directory `{path}`"), Declaration::Ready(StepKind::Directory { path }))?)
    }

    /// A symbolic link of the component's tree.
    ///
    /// # Arguments
    /// * `path`: where it lies in the tree; relative, without `..`
    /// * `target`: (str or Path) what it points to, as it is written into the link
    ///
    /// # Returns
    /// `self.add` gives its `Path`
    ///
    /// # Errors
    /// * `E0409`: the path is absolute or leads outside, or there is no target
    /// * `E0411`: another step has this path
    ///
    /// # Example
    /// ```python
    /// self.add(Symlink("bin/python", "/usr/bin/python3"))
    /// ```
    fn Symlink<'v>(path: &str, target: Value<'v>, eval: &mut Evaluator<'v, '_, '_>) -> starlark::Result<StepValue> {
        let path = rel_path(path, "Symlink")?;
        let target = to_text(target, "the target of a link")?;
        if target.is_empty() || target.contains('\0') {
            return Err(Failure::new("E0409", format!("the link `{path}` has no target")).into());
        }
        Ok(make(eval, format!("Symlink `{path}`"), Declaration::Ready(StepKind::Symlink { path, target }))?)
    }

    /// A sandboxed build: a shell script that fills `$out`.
    ///
    /// The script runs with `sh -eu` in a directory that holds each source under its base name. It sees `/usr` of the build machine
    /// read-only, its inputs, and nothing else; there is no network, and clock, locale, user and host name are fixed.
    /// It is run again only if something that it sees has changed.
    ///
    /// # Arguments
    /// * `name`: unique in the component; the object is called `<component>-<name>`
    /// * `script`: the script
    /// * `sources`: files and directories: beside the definition, or of the project as `//lib/NAME`
    /// * `inputs`: (list of Path) objects that it may see beyond those that script and environment name
    /// * `env`: (dict of str or Path) environment variables
    /// * `outputs`: names of outputs, each a variable of the script; if not given, `out` alone
    /// * `timeout`: seconds that it may take, at most a day
    ///
    /// # Returns
    /// `self.add` gives the `Path` of the output, or with several outputs a struct of paths by their names
    ///
    /// # Errors
    /// * `E0406`: the name is no name
    /// * `E0407`: the time is out of its bounds
    /// * `E0410`: the component has another build of this name
    /// * `E0418`: an input is not the path of a file or build
    /// * `E0419`: an output's name is no variable, or is named twice
    /// * `E0420`: a variable's name is none, or that of an output
    /// * `E0426`, `E0427`: a source lies outside of the project, or does not exist
    /// * `E0428`: two sources have the same base name
    ///
    /// # Example
    /// ```python
    /// server = self.add(Build("server", "gcc -O2 -o $out/server main.c", sources = ["src/main.c"]))
    /// self.add(Service("web", [server / "server", "--port", str(self.port)]))
    /// ```
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

    /// A Python environment from a lock file: wheels, fetched by their hashes, installed without network.
    ///
    /// Every line of the lock file is `name==version --hash=sha256:...`, as `uv pip compile --generate-hashes` and
    /// `pip-compile --generate-hashes` write it. Nothing is built from source.
    ///
    /// # Arguments
    /// * `name`: unique in the component; the object is called `<component>-<name>`
    /// * `lock`: the lock file: beside the definition, or of the project as `//lib/NAME`
    /// * `python`: absolute path of the interpreter, on the build machine and on the target
    ///
    /// # Returns
    /// `self.add` gives the environment's `Path`; programs lie in `bin`
    ///
    /// # Errors
    /// * `E0406`: the name is no name
    /// * `E0408`: the interpreter is no absolute path
    /// * `E0410`: the component has another Python environment of this name
    /// * `E0426`, `E0427`: the lock file lies outside of the project, or does not exist
    /// * `E0429`: a line of it does not pin one version with hashes
    ///
    /// # Example
    /// ```python
    /// python = self.add(PythonEnv("env", lock = "requirements.lock"))
    /// self.add(Service("app", [python / "bin/gunicorn", "app:main"]))
    /// ```
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

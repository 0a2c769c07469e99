//! Steps that make content, beside files: links, builds, Python environments.

#![expect(clippy::too_many_arguments, reason = "what definitions name is arguments")]

use std::collections::{BTreeMap, BTreeSet};

use sarsen_store::{ObjectId, RelPath};
use starlark::environment::GlobalsBuilder;
use starlark::eval::Evaluator;
use starlark::starlark_module;
use starlark::values::list::UnpackList;
use starlark::values::{Value, ValueLike};

use super::fetch::FETCH_SIZE_MAX;
use super::{Declaration, FetchDeclaration, bounded, checked_absolute, checked_name, make};
use crate::data::Data;
use crate::eval::convert::{to_data, to_text, to_text_map};
use crate::eval::failure::Failure;
use crate::eval::values::{PathValue, StepValue};
use crate::model::StepKind;

/// The longest build, in seconds: a day.
const BUILD_TIMEOUT_S_MAX: u32 = 86_400;

/// `Build(...)`.
#[derive(Debug)]
pub(in crate::eval) struct BuildDeclaration {
    pub(in crate::eval) name: String,
    pub(in crate::eval) script: String,
    pub(in crate::eval) sources: Vec<String>,
    /// Patterns as in `.gitignore`, for what lies in directories among the sources.
    pub(in crate::eval) exclude: Vec<String>,
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

pub(super) fn rel_path(path: &str, what: &str) -> Result<RelPath, Failure> {
    path.parse().map_err(|error: sarsen_store::InvalidPath| {
        let failure = Failure::new("E0409", format!("{what}: {error}"));
        if path.starts_with('/') {
            failure.hint("paths are relative to the component's tree; for an absolute path on the host add a `Link`")
        } else {
            failure
        }
    })
}

pub(super) fn context_entries(context: Option<Value<'_>>) -> Result<Vec<(String, Data)>, Failure> {
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
    /// * `exclude`: (list of str) what is left out of directories among the sources, in patterns of `.gitignore`
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
        #[starlark(require = named, default = UnpackList::default())] exclude: UnpackList<String>,
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
            exclude: exclude.items,
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

    /// A file from the network, known by its digest: it is fetched once, and whatever the addresses give later, it stays the same.
    ///
    /// The build machine's own `curl` fetches it, with the proxies, certificates and `.netrc` of the user.
    ///
    /// # Arguments
    /// * `name`: unique in the component; the object is called `<component>-<name>`
    /// * `urls`: where it can be had, `http` or `https`; tried in order, until one gives what has the digest
    /// * `digest`: `sha256:`, `sha512:` or `blake3:`, then hexadecimal digits
    /// * `file`: the file's name; usually the last part of the first address
    /// * `size_max`: (int) the largest size, in bytes
    ///
    /// # Returns
    /// `self.add` gives the file's `Path`: the `source` of an `Archive`, or a name in the script of a `Build`
    ///
    /// # Errors
    /// * `E0406`: the name is no name
    /// * `E0407`: `size_max` is out of range
    /// * `E0410`: the component has another fetch of this name
    /// * `E0446`: an address, the digest or the file's name is none
    ///
    /// # Example
    /// ```python
    /// hello = self.add(Fetch(
    ///     "hello",
    ///     urls = ["https://ftp.gnu.org/gnu/hello/hello-2.12.1.tar.gz", "https://mirror.example.com/hello-2.12.1.tar.gz"],
    ///     digest = "sha256:8d99142afd92576f30b0cd7cb42a8dc6809998bc5d607d88761f512e26c7db20",
    /// ))
    /// source = self.add(Archive("source", source = hello, strip = 1))
    /// ```
    fn Fetch<'v>(
        name: &str,
        #[starlark(require = named)] urls: UnpackList<String>,
        #[starlark(require = named)] digest: &str,
        #[starlark(require = named, default = "")] file: &str,
        #[starlark(require = named, default = FETCH_SIZE_MAX)] size_max: u64,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<StepValue> {
        let declaration = FetchDeclaration::checked(name, urls.items, digest, file, size_max)?;
        Ok(make(eval, format!("Fetch `{name}`"), Declaration::Fetch(declaration))?)
    }
}

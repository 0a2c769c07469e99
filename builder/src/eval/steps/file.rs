//! Steps that make files: `File`, trees of them, unpacked archives, and `merge` for their data.

#![expect(clippy::too_many_arguments, reason = "what definitions name is arguments")]

use std::collections::BTreeMap;

use sarsen_store::RelPath;
use starlark::environment::GlobalsBuilder;
use starlark::eval::Evaluator;
use starlark::starlark_module;
use starlark::values::Value;
use starlark::values::list::{ListRef, UnpackList};
use starlark::values::none::NoneOr;
use starlark::values::tuple::UnpackTuple;

use super::content::{BuildDeclaration, context_entries, rel_path};
use super::mode::parse_mode;
use super::{Declaration, checked_name, make};
use crate::data::format::Format;
use crate::data::{Data, Lists};
use crate::encoding::{Encoding, NAMES};
use crate::eval::convert::{to_data, to_text, to_value};
use crate::eval::failure::Failure;
use crate::eval::values::StepValue;
use crate::model::StepKind;

/// The widest indentation of JSON.
const INDENT_MAX: i32 = 16;

/// How long unpacking may take, in seconds.
const UNPACK_TIMEOUT_S: u64 = 3600;

/// `File(...)`.
#[derive(Debug)]
pub(in crate::eval) struct FileDeclaration {
    pub(in crate::eval) path: RelPath,
    pub(in crate::eval) content: Content,
    /// Whether the bytes are taken as they are.
    pub(in crate::eval) raw: bool,
    /// The wanted permission bits; nothing: as the source has them.
    pub(in crate::eval) mode: Option<u32>,
    /// What templates see beyond the usual.
    pub(in crate::eval) context: Vec<(String, Data)>,
    /// The encoding of the source and of the file.
    pub(in crate::eval) encoding: Encoding,
    /// What templates are written in; nothing: as the name of the source says.
    pub(in crate::eval) engine: Option<Engine>,
    /// For files that are data: their format and what is laid over the data.
    pub(in crate::eval) formatted: Option<Formatted>,
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
    /// Data, to be written in a format.
    Data(Data),
}

/// What templates are written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::eval) enum Engine {
    Jinja,
    Mako,
}

/// A file that is data.
#[derive(Debug)]
pub(in crate::eval) struct Formatted {
    pub(in crate::eval) format: Format,
    /// What is laid over the data, one after the other.
    pub(in crate::eval) overrides: Vec<Data>,
    pub(in crate::eval) lists: Lists,
}

/// `Directory(..., source = ...)`.
#[derive(Debug)]
pub(in crate::eval) struct TreeDeclaration {
    /// Where it goes; nothing: the top of the component's tree.
    pub(in crate::eval) path: Option<RelPath>,
    /// The directory of the project.
    pub(in crate::eval) source: String,
    /// Patterns as in `.gitignore`.
    pub(in crate::eval) exclude: Vec<String>,
}

/// The arguments that say where a file comes from.
struct Origin<'v> {
    content: Option<&'v str>,
    source: Option<&'v str>,
    template: Option<&'v str>,
    data: Option<Value<'v>>,
}

impl Origin<'_> {
    fn resolve(self, raw: bool, format: Option<Format>, path: &RelPath) -> Result<Content, Failure> {
        let one = "give one of `content`, `source`, `template`, and `format` with `data`";
        match (self.content, self.source, self.template, self.data) {
            (None, None, None, None) => Ok(Content::Beside),
            (Some(text), None, None, None) => Ok(Content::Inline(text.to_owned())),
            (None, Some(source), None, None) => Ok(Content::Source(source.to_owned())),
            (None, None, Some(_), None) if raw => {
                Err(Failure::new("E0421", "a template is rendered, `raw = True` is not").hint("use `source = ...` with `raw = True`"))
            }
            (None, None, Some(template), None) => Ok(Content::Source(template.to_owned())),
            (None, None, None, Some(_)) if format.is_none() => {
                Err(Failure::new("E0421", "`format` and `data` belong together").hint("for example `format = \"json\", data = {...}`"))
            }
            (None, None, None, Some(data)) => Ok(Content::Data(to_data(data, &format!("`data` of `{path}`"))?)),
            _ => Err(Failure::new("E0421", "a file has one origin").hint(one)),
        }
    }
}

fn parse_format(name: Option<&str>, indent: Option<i32>) -> Result<Option<Format>, Failure> {
    let format = name.map(|name| {
        Format::parse(name).ok_or_else(|| {
            Failure::new("E0417", format!("`{name}` is not a format that can be written"))
                .hint("formats are \"json\", \"yaml\", \"toml\" and \"ini\"")
        })
    });
    match (format.transpose()?, indent) {
        (Some(Format::Json(_)), Some(indent)) => {
            let width = usize::try_from(indent).ok().filter(|_| indent <= INDENT_MAX);
            let width = width.ok_or_else(|| Failure::new("E0407", format!("`indent` goes from 0 to {INDENT_MAX}, not `{indent}`")))?;
            Ok(Some(Format::Json(width)))
        }
        (_, Some(_)) => Err(Failure::new("E0421", "`indent` is for `format = \"json\"`")),
        (format, None) => Ok(format),
    }
}

fn parse_engine(written: Option<&str>, raw: bool) -> Result<Option<Engine>, Failure> {
    match written {
        None => Ok(None),
        Some(_) if raw => Err(Failure::new("E0421", "a template is rendered, `raw = True` is not")),
        Some("jinja") => Ok(Some(Engine::Jinja)),
        Some("mako") => Ok(Some(Engine::Mako)),
        Some(other) => Err(Failure::new("E0421", format!("`engine` does not know `{other}`")).hint("it is \"jinja\" or \"mako\"")),
    }
}

fn parse_lists(written: &str) -> Result<Lists, Failure> {
    match written {
        "append" => Ok(Lists::Append),
        "replace" => Ok(Lists::Replace),
        other => Err(Failure::new("E0421", format!("`lists` does not know `{other}`")).hint("it is \"append\" or \"replace\"")),
    }
}

/// What is laid over the data: a dict, or a list of them.
fn parse_overrides(value: Option<Value<'_>>) -> Result<Vec<Data>, Failure> {
    let Some(value) = value else { return Ok(Vec::new()) };
    let values = ListRef::from_value(value).map_or_else(|| vec![value], |list| list.content().to_vec());
    values
        .into_iter()
        .map(|value| {
            let data = to_data(value, "`override`")?;
            let wrong = || Failure::new("E0402", format!("`override` wants a dict or a list of dicts, not `{}`", data.type_name()));
            if matches!(data, Data::Dict(_)) { Ok(data) } else { Err(wrong()) }
        })
        .collect()
}

fn parse_encoding(name: &str, raw: bool) -> Result<Encoding, Failure> {
    let encoding = Encoding::parse(name).ok_or_else(|| {
        Failure::new("E0440", format!("`{name}` is not an encoding that files can have"))
            .hint(format!("encodings are {}; take other bytes as they are with `raw = True`", crate::diagnostic::list_names(&NAMES)))
    })?;
    if raw && encoding != Encoding::Utf8 {
        return Err(Failure::new("E0421", "`raw = True` takes bytes, which have no encoding"));
    }
    Ok(encoding)
}

/// The permission bits of a file of the immutable tree.
fn file_mode(value: Value<'_>) -> Result<u32, Failure> {
    let mode = parse_mode(value)?;
    if mode & !0o777 != 0 {
        let failure = Failure::new("E0416", format!("mode 0o{mode:o} is not possible: the immutable tree has no set-id and sticky bits"));
        return Err(failure.hint("write 0o644 or 0o755"));
    }
    if mode & 0o444 == 0 {
        return Err(Failure::new("E0416", format!("mode 0o{mode:o} makes the file unreadable")).hint("write 0o644 or 0o755"));
    }
    Ok(mode)
}

/// The script that unpacks an archive into `$out`: a source of the build, or a path that it may read.
fn unpack_script(archive: &str, is_path: bool, strip: i32) -> Result<String, Failure> {
    let strip = u32::try_from(strip).ok().filter(|strip| *strip <= 64);
    let strip = strip.ok_or_else(|| Failure::new("E0407", "`strip` goes from 0 to 64"))?;
    let name = archive.rsplit('/').next().unwrap_or(archive);
    let quoted = |text: &str| format!("'{}'", text.replace('\'', r"'\''"));
    let place = if is_path { quoted(archive) } else { format!("\"$PWD\"/{}", quoted(name)) };
    let is = |suffixes: &[&str]| suffixes.iter().any(|suffix| name.to_ascii_lowercase().ends_with(suffix));
    if is(&[".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst"]) {
        // `._x` are what macOS adds to archives.
        return Ok(format!("tar --no-same-owner --exclude='._*' --strip-components={strip} -x -C \"$out\" -f {place}\n"));
    }
    if is(&[".zip"]) {
        if strip > 0 {
            return Err(
                Failure::new("E0441", "`strip` is for tar archives").hint("go below the output instead: `self.add(...) / \"directory\"`")
            );
        }
        return Ok(format!("unzip -q {place} -d \"$out\" -x '__MACOSX/*' '*/._*' || [ $? = 11 ]\n"));
    }
    Err(Failure::new("E0441", format!("`{name}` is not an archive that can be unpacked"))
        .hint("archives end in .tar, .tar.gz, .tgz, .tar.bz2, .tar.xz, .tar.zst or .zip"))
}

#[starlark_module]
pub(in crate::eval) fn builtins(builder: &mut GlobalsBuilder) {
    /// A regular file of the component's tree, rendered or written at evaluation.
    ///
    /// Without any origin it is the file of the same name beside the definition. The mode on the target is 0444, or 0555 if it may be
    /// executed: the tree is immutable and belongs to nobody. Line breaks are kept as they are, and none is added.
    ///
    /// With a `format` the file is data: `data`, or what stands in `source` (taken as it is), `template` or `content` (rendered, then
    /// read). What `override` says is laid over it. Keys keep their order; comments of a source are not kept. A `Path` or an `Address`
    /// is written as text. YAML is read by the rules of version 1.2, so that `yes` is a text, and written so that readers of 1.1
    /// find the same. INI is what Python's `configparser` takes: a dict of sections, each a dict of keys; a list is a value of several lines.
    ///
    /// # Arguments
    /// * `path`: where it lies in the tree; relative, without `..`
    /// * `content`: the text itself, a template unless `raw`; `""` gives an empty file
    /// * `source`: the file to take instead: beside the definition, or of the project as `//lib/NAME`; a template unless `raw` or data
    /// * `template`: the same as `source`, for templates that say so in their name
    /// * `raw`: whether the bytes are taken as they are, so that they need not be text
    /// * `mode`: (int or str) permission bits as `0o755`, `"0755"` or `"rwxr-xr-x"`, of which only "may be executed" is kept; if not
    ///   given, as the source has it
    /// * `format`: `"json"`, `"yaml"`, `"toml"` or `"ini"`
    /// * `data`: (any) plain values to be written in `format`
    /// * `override`: (dict or list of dict) what is laid over the data: dicts are merged at every level, everything else is replaced
    /// * `lists`: what becomes of two lists: `"append"`, or `"replace"`
    /// * `indent`: spaces of indentation of JSON, 2 if not given; 0 puts everything into one line
    /// * `context`: (dict) further names for the template, beside `component`, `host` and `environment`
    /// * `encoding`: of the source and of the file: `"utf-8"`, `"ascii"`, `"latin-1"`, `"latin-9"` or `"windows-1252"`
    /// * `engine`: what the template is written in: `"jinja"` or `"mako"`; if not given, Mako for sources that end in `.mako`
    ///
    /// # Returns
    /// `self.add` gives its `Path`
    ///
    /// # Errors
    /// * `E0407`: the indentation is none
    /// * `E0409`: the path is absolute or leads outside
    /// * `E0411`: another step has this path, or what should be a directory is none
    /// * `E0416`: the mode is none, has set-id bits, or nobody could read the file
    /// * `E0417`: the data cannot be written in the format, or there is no such format
    /// * `E0421`: two origins, or half of one
    /// * `E0426`, `E0427`: the source lies outside of the project, or does not exist
    /// * `E0440`: the encoding is not known, or does not have a character of the text
    /// * `E0442`: a warning: the mode asks for more privacy than the immutable tree has
    /// * `E0443`: the source is not what `format` says
    /// * `E0601` to `E0607`: the template is wrong
    ///
    /// # Example
    /// ```python
    /// self.add(File("app.conf"))
    /// self.add(File("bin/tick", template = "tick.sh.j2", mode = 0o755))
    /// self.add(File("motd", content = "{{ host.name }} says {{ word }}\n", context = {"word": "hello"}))
    /// self.add(File("etc/app.json", format = "json", data = {"port": self.port}))
    /// self.add(File("etc/app.ini", format = "ini", data = {"server": {"port": self.port, "hosts": ["a", "b"]}}))
    /// self.add(File("etc/log.yaml", format = "yaml", data = {"level": "info"}, override = {"level": "debug"}))
    /// ```
    fn File<'v>(
        path: &'v str,
        #[starlark(require = named, default = NoneOr::None)] content: NoneOr<&'v str>,
        #[starlark(require = named, default = NoneOr::None)] source: NoneOr<&'v str>,
        #[starlark(require = named, default = NoneOr::None)] template: NoneOr<&'v str>,
        #[starlark(require = named, default = false)] raw: bool,
        #[starlark(require = named, default = NoneOr::None)] mode: NoneOr<Value<'v>>,
        #[starlark(require = named, default = NoneOr::None)] format: NoneOr<&'v str>,
        #[starlark(require = named, default = NoneOr::None)] data: NoneOr<Value<'v>>,
        #[starlark(require = named, default = NoneOr::None)] r#override: NoneOr<Value<'v>>,
        #[starlark(require = named, default = "append")] lists: &'v str,
        #[starlark(require = named, default = NoneOr::None)] indent: NoneOr<i32>,
        #[starlark(require = named, default = NoneOr::None)] context: NoneOr<Value<'v>>,
        #[starlark(require = named, default = "utf-8")] encoding: &'v str,
        #[starlark(require = named, default = NoneOr::None)] engine: NoneOr<&'v str>,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<StepValue> {
        let path = rel_path(path, "File")?;
        let mode = mode.into_option().map(file_mode).transpose()?;
        let context = context_entries(context.into_option())?;
        let format = parse_format(format.into_option(), indent.into_option())?;
        let (overrides, lists) = (parse_overrides(r#override.into_option())?, parse_lists(lists)?);
        if format.is_none() && !overrides.is_empty() {
            return Err(Failure::new("E0421", "`override` is for data")
                .hint("say what the file is: `format = \"yaml\"`, with `data`, `source` or `template`")
                .into());
        }
        if format.is_some() && raw {
            return Err(Failure::new("E0421", "`raw = True` takes bytes as they are, `format` reads and writes them").into());
        }
        let is_template = template != NoneOr::None || content != NoneOr::None;
        let origin = Origin {
            content: content.into_option(),
            source: source.into_option(),
            template: template.into_option(),
            data: data.into_option(),
        };
        let declaration = FileDeclaration {
            content: origin.resolve(raw, format, &path)?,
            path,
            // A source of data is data; only what is called a template is rendered first.
            raw: raw || format.is_some() && !is_template,
            mode,
            context,
            encoding: parse_encoding(encoding, raw)?,
            engine: parse_engine(engine.into_option(), raw)?,
            formatted: format.map(|format| Formatted { format, overrides, lists }),
        };
        Ok(make(eval, format!("File `{}`", declaration.path), Declaration::File(declaration))?)
    }

    /// A directory of the component's tree: empty for ever, or with all that lies in a directory of the project.
    ///
    /// Directories above files are there anyway. Mutable data belongs into a `StateDirectory`. Files of a `source` are taken as they
    /// are and are no templates; they keep whether they may be executed. Directories without files do not exist for sarsen.
    ///
    /// # Arguments
    /// * `path`: where it lies in the tree; relative, without `..`; with a `source` also `"."`, the top of the tree
    /// * `source`: the directory whose files it holds: beside the definition, or of the project as `//lib/NAME`
    /// * `exclude`: (list of str) what is left out, in patterns of `.gitignore`: the last one that fits decides, `!` takes back
    ///
    /// # Returns
    /// `self.add` gives its `Path`
    ///
    /// # Errors
    /// * `E0409`: the path is absolute or leads outside
    /// * `E0411`: the path is that of a file or link; that of another directory is fine
    /// * `E0421`: `exclude` without `source`
    /// * `E0426`, `E0427`: the source lies outside of the project, or does not exist
    /// * `E0444`: the source is a file, or everything in it is excluded
    /// * `E0445`: a pattern is none
    ///
    /// # Example
    /// ```python
    /// self.add(Directory("etc/conf.d"))
    /// self.add(Directory("htdocs", source = "src", exclude = ["*.o", "/cache", "drafts/**", "!drafts/index.html"]))
    /// ```
    fn Directory<'v>(
        path: &str,
        #[starlark(require = named, default = NoneOr::None)] source: NoneOr<&str>,
        #[starlark(require = named, default = UnpackList::default())] exclude: UnpackList<String>,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<StepValue> {
        let label = format!("Directory `{path}`");
        let Some(source) = source.into_option() else {
            if !exclude.items.is_empty() {
                return Err(Failure::new("E0421", "`exclude` is for a directory with a `source`").into());
            }
            let path = rel_path(path, "Directory")?;
            return Ok(make(eval, label, Declaration::Ready(StepKind::Directory { path }))?);
        };
        let path = if path == "." { None } else { Some(rel_path(path, "Directory")?) };
        Ok(make(eval, label, Declaration::Tree(TreeDeclaration { path, source: source.to_owned(), exclude: exclude.items }))?)
    }

    /// An archive that lies in the project, or was fetched, unpacked in the sandbox.
    ///
    /// # Arguments
    /// * `name`: the name, unique among the component's builds
    /// * `source`: (str | Path) the archive: beside the definition, of the project as `//lib/NAME`, or what a `Fetch` gave; `.tar`, `.tar.gz`, `.tgz`, `.tar.bz2`,
    ///   `.tar.xz`, `.tar.zst` or `.zip`
    /// * `strip`: how many directories are taken off the front of each name in a tar archive
    ///
    /// # Returns
    /// `self.add` gives the `Path` of the directory that holds what was in it
    ///
    /// # Errors
    /// * `E0406`: the name cannot be one
    /// * `E0407`: `strip` is out of range
    /// * `E0426`, `E0427`: the source lies outside of the project, or does not exist
    /// * `E0441`: it is no archive that can be unpacked
    ///
    /// # Example
    /// ```python
    /// assets = self.add(Archive("assets", source = "assets-1.2.tar.gz", strip = 1))
    /// self.add(Symlink("assets", assets / "public"))
    /// ```
    fn Archive<'v>(
        name: &str,
        #[starlark(require = named)] source: Value<'v>,
        #[starlark(require = named, default = 0)] strip: i32,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<StepValue> {
        let archive = to_text(source, "`source`")?;
        let is_path = source.unpack_str().is_none();
        let declaration = BuildDeclaration {
            name: checked_name(name, "archive")?,
            script: unpack_script(&archive, is_path, strip)?,
            sources: if is_path { Vec::new() } else { vec![archive] },
            exclude: Vec::new(),
            inputs: Vec::new(),
            environment: BTreeMap::new(),
            outputs: vec!["out".to_owned()],
            timeout_s: UNPACK_TIMEOUT_S,
        };
        Ok(make(eval, format!("Archive `{name}`"), Declaration::Build(declaration))?)
    }

    /// Dicts laid over one another, from left to right: dicts in them are merged at every level, everything else is replaced.
    ///
    /// # Arguments
    /// * `values`: (dict) the dicts, the uppermost last; none is changed
    /// * `lists`: what becomes of two lists: `"append"`, or `"replace"`
    ///
    /// # Returns
    /// a new dict
    ///
    /// # Errors
    /// * `E0402`: a value is no dict
    /// * `E0421`: `lists` is neither of the two
    ///
    /// # Example
    /// ```python
    /// settings = merge({"log": {"level": "info", "file": "x"}}, {"log": {"level": "debug"}})
    /// ```
    fn merge<'v>(
        #[starlark(args)] values: UnpackTuple<Value<'v>>,
        #[starlark(require = named, default = "append")] lists: &str,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<Value<'v>> {
        let lists = parse_lists(lists)?;
        let mut merged = Data::Dict(Vec::new());
        for value in values.items {
            let data = to_data(value, "a value for `merge`")?;
            if !matches!(data, Data::Dict(_)) {
                return Err(Failure::new("E0402", format!("`merge` wants dicts, not `{}`", data.type_name())).into());
            }
            merged = merged.merged(data, lists);
        }
        Ok(to_value(&merged, eval.heap()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archives_by_their_suffix() {
        assert_eq!(
            unpack_script("dist/it's-1.tar.gz", false, 1).unwrap(),
            "tar --no-same-owner --exclude='._*' --strip-components=1 -x -C \"$out\" -f \"$PWD\"/'it'\\''s-1.tar.gz'\n"
        );
        assert!(unpack_script("x.zip", false, 0).unwrap().contains("unzip"));
        for (archive, strip, expected) in
            [("x.rar", 0, "`x.rar` is not an archive"), ("x.zip", 1, "`strip` is for tar"), ("x.tar", -1, "`strip` goes from 0")]
        {
            assert!(unpack_script(archive, false, strip).unwrap_err().to_string().starts_with(expected));
        }
    }
}

//! Templates: Jinja, strict, hermetic.
//!
//! A template sees the values it is given and the other files of its component's directory and of `lib/`; nothing else.
//! A name that is not defined is an error. Errors point at the template's own line.

mod values;

use std::borrow::Cow;
use std::fmt;
use std::io;

use minijinja::syntax::SyntaxConfig;
use minijinja::{AutoEscape, Environment, Error, ErrorKind, UndefinedBehavior, escape_formatter};
use values::to_template;

use crate::data::Data;
use crate::diagnostic::{Diagnostic, Location, nearest_name};
use crate::snapshot::{Snapshot, home_of};

/// How many instructions one rendering may take: a loop over 100,000 lines needs about a million.
const FUEL: u64 = 20_000_000;

/// The most bytes that one rendering may give. Files of configuration are smaller by far, and all of them are held in memory.
pub(crate) const OUTPUT_BYTES_MAX: usize = 64 << 20;

/// What is said of a `None` where a text should be; told from other errors by it.
const NONE: &str = "this is None, not a text";

/// The name that inline texts have.
pub(crate) const INLINE: &str = "<content>";

/// The templates of one component directory.
pub(crate) struct Templates {
    snapshot: Snapshot,
    /// Where the definitions lie, below the project directory.
    directory: String,
    environment: Environment<'static>,
}

impl fmt::Debug for Templates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Templates").finish_non_exhaustive()
    }
}

impl Templates {
    /// Prepares rendering for the definitions in `directory`, a path below the project directory.
    pub(crate) fn new(snapshot: &Snapshot, directory: &str) -> Self {
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.set_auto_escape_callback(|_| AutoEscape::None);
        let syntax =
            SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).keep_trailing_newline(true).line_statement_prefix("@@").build();
        environment.set_syntax(syntax.expect("the default delimiters are valid"));
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.set_fuel(Some(FUEL));
        environment.set_formatter(|out, state, value| {
            if value.is_none() { Err(Error::new(ErrorKind::InvalidOperation, NONE)) } else { escape_formatter(out, state, value) }
        });
        values::register(&mut environment);
        // Names in `include` and `extends` are looked up beside the definition; `//` begins at the project directory.
        let (beside, home) = (directory.to_owned(), home_of(directory).to_owned());
        let lib = format!("{home}lib/");
        environment.set_path_join_callback(move |name, _| match name.strip_prefix("//") {
            Some(path) => Cow::Owned(format!("{home}{path}")),
            None => Cow::Owned(format!("{beside}/{name}")),
        });
        let (files, allowed) = (snapshot.clone(), format!("{directory}/"));
        environment.set_loader(move |path| {
            let reachable = (path.starts_with(&allowed) || path.starts_with(&lib)) && !path.split('/').any(|part| part == "..");
            Ok(reachable.then(|| files.text(path).map(str::to_owned)).flatten())
        });
        Self { snapshot: snapshot.clone(), directory: directory.to_owned(), environment }
    }

    /// Renders the text of a file of the project, named by its path below the project directory.
    pub(crate) fn render_source(&self, path: &str, text: &str, context: &Data) -> Result<String, Box<Diagnostic>> {
        self.render(path, text, context).map_err(|error| Box::new(self.diagnose(&error, path, text, context)))
    }

    /// Renders a text that stands in a definition.
    pub(crate) fn render_text(&self, text: &str, at: &Location, context: &Data) -> Result<String, Box<Diagnostic>> {
        self.render(INLINE, text, context).map_err(|error| {
            let diagnostic = self.diagnose(&error, INLINE, text, context);
            let inline = diagnostic.location.as_ref().is_none_or(|location| location.file == INLINE);
            Box::new(if inline { relocate(diagnostic, at, text) } else { diagnostic.note("included from here", at.clone()) })
        })
    }

    fn render(&self, name: &str, text: &str, context: &Data) -> Result<String, Error> {
        let mut output = Output(Vec::new());
        self.environment.template_from_named_str(name, text)?.render_captured_to(to_template(context), &mut output)?;
        // Templates give text; what is written piece by piece is whole again.
        Ok(String::from_utf8_lossy(&output.0).into_owned())
    }

    /// Says which templates there are, and where they may lie.
    fn hint_template(&self, diagnostic: Diagnostic, error: &Error) -> Diagnostic {
        let Some(written) = missing_template(error) else { return diagnostic };
        let leads_out = written.starts_with('/') && !written.starts_with("//lib/") || written.split('/').any(|part| part == "..");
        if leads_out {
            return diagnostic.hint("templates lie beside the definition, or below `lib/` as `//lib/NAME`; nothing else can be reached");
        }
        let known = self.snapshot.files_below(&self.directory).map(|(path, _)| path);
        match nearest_name(written, known) {
            Some(near) => diagnostic.hint(format!("did you mean `{near}`?")),
            None => diagnostic.hint("templates are looked for beside the definition; those in `lib/` are `//lib/NAME`"),
        }
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "the kinds of errors are not exhaustive")]
    fn diagnose(&self, error: &Error, name: &str, text: &str, context: &Data) -> Diagnostic {
        let error = innermost(error);
        let name = error.name().unwrap_or(name);
        let text = self.snapshot.text(name).unwrap_or(text);
        let written = error.range().and_then(|range| text.get(range)).unwrap_or_default();
        let (code, message) = word(error, written);
        let diagnostic = Diagnostic::new(code, message);
        let diagnostic = match (error.range(), error.line()) {
            (Some(range), _) => diagnostic.at_range(name, text, &range),
            (None, Some(line)) => {
                diagnostic.at(Location { file: name.to_owned(), line: u32::try_from(line).unwrap_or(1).max(1), column: 1 })
            }
            (None, None) => diagnostic.at(Location { file: name.to_owned(), line: 1, column: 1 }),
        };
        match error.kind() {
            ErrorKind::UndefinedError => match near(written, context) {
                Some(name) => diagnostic.hint(format!("did you mean `{name}`?")),
                None => diagnostic.hint("templates see `component`, `host`, `environment` and what `context = {...}` adds; use `| default(...)` for what may be missing"),
            },
            _ if code == "E0607" => diagnostic.hint("say what to write then: `| default(\"\", true)`"),
            ErrorKind::TemplateNotFound => self.hint_template(diagnostic, error),
            ErrorKind::UnknownFilter => {
                let known = crate::filters::FILTERS.iter().map(|filter| filter.name).chain(ENGINE_FILTERS);
                match nearest_name(written, known) {
                    Some(name) => diagnostic.hint(format!("did you mean `{name}`?")),
                    None => diagnostic.hint("`sarsen explain` and builder/LANGUAGE.md list the filters"),
                }
            }
            ErrorKind::SyntaxError => diagnostic.hint("take the bytes as they are with `raw = True` if this is no template"),
            _ => diagnostic,
        }
    }
}

/// Filters of the engine that are often meant.
const ENGINE_FILTERS: [&str; 27] = [
    "abs",
    "batch",
    "bool",
    "capitalize",
    "default",
    "dictsort",
    "first",
    "float",
    "format",
    "groupby",
    "indent",
    "int",
    "items",
    "join",
    "last",
    "length",
    "list",
    "lower",
    "map",
    "reject",
    "replace",
    "select",
    "selectattr",
    "sort",
    "title",
    "trim",
    "upper",
];

/// Where a rendering goes: memory, up to a limit.
struct Output(Vec<u8>);

impl io::Write for &mut Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > OUTPUT_BYTES_MAX {
            return Err(io::Error::from(io::ErrorKind::FileTooLarge));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The defined name nearest to `a` or `a.b` as a template writes it.
fn near(written: &str, context: &Data) -> Option<String> {
    let Data::Dict(entries) = context else { return None };
    let (outer, inner) = written.split_once('.').map_or((written, None), |(outer, inner)| (outer, Some(inner)));
    match (inner, entries.iter().find(|(name, _)| name == outer)) {
        (Some(inner), Some((_, Data::Dict(fields)))) => {
            let nearest = nearest_name(inner, fields.iter().map(|(name, _)| name.as_str()))?;
            Some(format!("{outer}.{nearest}"))
        }
        (_, None) => nearest_name(outer, entries.iter().map(|(name, _)| name.as_str())).map(str::to_owned),
        (_, Some(_)) => None,
    }
}

/// The error that a chain of includes began with, as far as it knows its template.
fn innermost(error: &Error) -> &Error {
    let mut found = error;
    let mut next = std::error::Error::source(error);
    while let Some(source) = next {
        if let Some(inner) = source.downcast_ref::<Error>().filter(|inner| inner.name().is_some()) {
            found = inner;
        }
        next = source.source();
    }
    found
}

/// The name of the template that does not exist, as it was written; the engine has it in its text only.
fn missing_template(error: &Error) -> Option<&str> {
    error.detail()?.split(['"', '\'', '`']).nth(1)
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the kinds of errors are not exhaustive")]
fn word(error: &Error, written: &str) -> (&'static str, String) {
    let detail = error.detail().map(str::to_owned);
    let named =
        |message: &str| if written.is_empty() || written.contains('\n') { message.to_owned() } else { format!("{message}: `{written}`") };
    match error.kind() {
        ErrorKind::UndefinedError => ("E0601", named("not defined")),
        ErrorKind::SyntaxError => ("E0602", format!("invalid template: {}", detail.unwrap_or_else(|| "syntax error".to_owned()))),
        ErrorKind::TemplateNotFound => ("E0604", format!("there is no template `{}`", missing_template(error).unwrap_or(written))),
        ErrorKind::WriteFailure => ("E0605", format!("rendering gives more than {} MiB", OUTPUT_BYTES_MAX >> 20)),
        ErrorKind::UnknownFilter => ("E0606", format!("there is no filter `{written}`")),
        ErrorKind::InvalidOperation if detail.as_deref() == Some("recursion limit exceeded") => {
            ("E0605", "includes or macros are nested too deeply: does one use itself?".to_owned())
        }
        ErrorKind::InvalidOperation if detail.as_deref() == Some(NONE) => ("E0607", named(NONE)),
        ErrorKind::InvalidOperation if detail.is_some() => ("E0606", detail.unwrap_or_default()),
        ErrorKind::OutOfFuel => ("E0605", "rendering takes too long: a loop without end?".to_owned()),
        kind => ("E0606", detail.map_or_else(|| named(&kind.to_string()), |detail| format!("{kind}: {detail}"))),
    }
}

/// Moves a diagnostic from a text inside a definition to the definition.
pub(crate) fn relocate(mut diagnostic: Diagnostic, at: &Location, text: &str) -> Diagnostic {
    let line = diagnostic.location.take().map_or(1, |location| location.line);
    diagnostic.length = 0;
    let shown = text.lines().nth(usize::try_from(line).unwrap_or(1).saturating_sub(1)).unwrap_or_default();
    let shown: String = shown.trim().chars().take(80).collect();
    diagnostic.at(at.clone()).note(format!("in line {line} of `content`: `{shown}`"), None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{Address, TargetPath};

    const FILES: [(&str, &str); 5] = [
        (
            "components/a/ok.j2",
            "{% include \"part.j2\" %}\n{% for x in xs %}\n  {{ x }}\n{% endfor %}\n{{ address }} {{ address.port }} {{ path }}\n",
        ),
        ("components/a/part.j2", "part {{ n }} {{ d.items() | list | length }}"),
        ("components/a/bad.j2", "fine\n{{ nothing.here }}\n"),
        ("components/a/deep.j2", "{% include \"bad.j2\" %}"),
        ("components/b/other", ""),
    ];

    fn context() -> Data {
        let path = TargetPath { base: "/p".to_owned(), object: None, rest: Some("x".parse().unwrap()) };
        Data::Dict(vec![
            ("n".to_owned(), Data::Int(1)),
            ("xs".to_owned(), Data::List(vec![Data::Text("<1>".to_owned())])),
            ("d".to_owned(), Data::Dict(vec![("k".to_owned(), Data::None)])),
            ("address".to_owned(), Data::Address(Address { host: "h".to_owned(), port: 1, v4: None, v6: None })),
            ("path".to_owned(), Data::Path(path)),
        ])
    }

    fn render(path: &str) -> Result<String, Box<Diagnostic>> {
        let snapshot = Snapshot::from_texts(FILES);
        Templates::new(&snapshot, "components/a").render_source(path, snapshot.text(path).unwrap(), &context())
    }

    #[test]
    fn renders() {
        assert_eq!(render("components/a/ok.j2").unwrap(), "part 1 1  <1>\nh:1 1 /p/x\n");
    }

    #[test]
    fn errors_have_places() {
        let templates = Templates::new(&Snapshot::from_texts(FILES), "components/a");
        let at = Location { file: "x.star".to_owned(), line: 7, column: 3 };
        let place = |result: Result<String, Box<Diagnostic>>| {
            let diagnostic = result.unwrap_err();
            format!("{} {} {}", diagnostic.code, diagnostic.location.as_ref().unwrap(), diagnostic.message)
        };
        assert_eq!(place(render("components/a/bad.j2")), "E0601 components/a/bad.j2:2:4 not defined: `nothing.here`");
        assert_eq!(place(render("components/a/deep.j2")), "E0601 components/a/bad.j2:2:4 not defined: `nothing.here`");
        assert_eq!(place(templates.render_text("a\n{{ no }}", &at, &context())), "E0601 x.star:7:3 not defined: `no`");
        for escape in ["../b/other", "//components/b/other", "//sarsen.toml"] {
            let result = templates.render_text(&format!("{{% include \"{escape}\" %}}"), &at, &context());
            assert!(place(result).starts_with("E0604 x.star:7:3"), "{escape}");
        }
        let endless = "{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}";
        assert!(place(templates.render_text(endless, &at, &context())).starts_with("E0605"));
    }

    fn said(text: &str) -> String {
        let files = FILES.into_iter().chain([
            ("components/a/base.j2", "<{% block body %}base{% endblock %}>\n"),
            ("components/a/child.j2", "{% extends \"base.j2\" %}{% block body %}{{ super() }} child{% endblock %}"),
            ("components/a/macros.j2", "{% macro twice(x) %}{{ x }}{{ x }}{% endmacro %}"),
            ("components/a/self.j2", "{% include \"self.j2\" %}"),
            ("lib/shared.j2", "shared {{ n }}"),
        ]);
        let templates = Templates::new(&Snapshot::from_texts(files), "components/a");
        let at = Location { file: "x.star".to_owned(), line: 1, column: 1 };
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().stack_size(crate::eval::STACK_BYTES);
            let render = || match templates.render_text(text, &at, &context()) {
                Ok(text) => text,
                Err(diagnostic) => format!("{} {} {}", diagnostic.code, diagnostic.message, diagnostic.hints.join("; ")),
            };
            thread.spawn_scoped(scope, render).unwrap().join().unwrap()
        })
    }

    #[test]
    fn settings_of_batou_and_files_of_the_project() {
        for (text, expected) in [
            ("a\n\n", "a\n\n"),
            ("no line break", "no line break"),
            ("a\r\n{{ n }}\r\n", "a\r\n1\r\n"),
            ("@@ for x in xs\n{{ x }}\n@@ endfor\nend\n", "<1>\nend\n"),
            ("  @@ if n == 1\nyes\n  @@ endif\n", "yes\n"),
            ("a @@ b", "a @@ b"),
            ("{% include \"child.j2\" %}", "<base child>\n"),
            ("{% import \"macros.j2\" as m %}{{ m.twice(n) }}", "11"),
            ("{% include \"//lib/shared.j2\" %}", "shared 1"),
            (
                "{{ d | to_json }} {{ \"it's\" | quote }} {{ address | b64encode }} {{ xs | to_yaml }}",
                "{\"k\":null} 'it'\"'\"'s' aDox - '<1>'\n",
            ),
            ("{{ \"a1\" | regex_replace(pattern=\"\\\\d\", replacement=\"x\") }}", "ax"),
            ("{{ \"a\\nb\" | indent(2) }}", "a\n  b"),
            ("{{ d.k | default(\"none\", true) }}", "none"),
        ] {
            assert_eq!(said(text), expected, "{text}");
        }
    }

    #[test]
    fn limits_and_mistakes() {
        for (text, expected) in [
            ("{{ d.k }}", "E0607 this is None, not a text: `d.k`"),
            ("{{ n | uper }}", "E0606 there is no filter `uper` did you mean `upper`?"),
            ("{{ n | to_jsn }}", "E0606 there is no filter `to_jsn` did you mean `to_json`?"),
            ("{{ xs | quote }}", "E0606 `quote` wants a text, not list"),
            ("{{ n | quote(1) }}", "E0606 `quote` takes at most 0 arguments"),
            ("{{ no | quote }}", "E0601 not defined"),
            ("{{ fail(\"not here\") }}", "E0606 not here"),
            ("{% include \"prat.j2\" %}", "E0604 there is no template `prat.j2` did you mean `part.j2`?"),
            ("{% include \"//sarsen.toml\" %}", "E0604 there is no template `//sarsen.toml` templates lie beside"),
            ("{% include \"self.j2\" %}", "E0605 includes or macros are nested too deeply"),
            ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "E0605 includes or macros are nested too deeply"),
            ("{% for a in range(100000) %}{{ \"a\" * 1000 }}{% endfor %}", "E0605 rendering gives more than 64 MiB"),
            ("{{ \"a\" * 1000000000 }}", "E0606 "),
            ("{% for i in range(10**9) %}{% endfor %}", "E0606 "),
            ("{% if x", "E0602 "),
        ] {
            let found = said(text);
            assert!(found.starts_with(expected), "{text}\n{found}\nexpected {expected}");
        }
    }
}

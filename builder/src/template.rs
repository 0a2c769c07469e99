//! Templates: Jinja, strict, hermetic.
//!
//! A template sees the values it is given and the other files of its component's directory and of `lib/`; nothing else.
//! A name that is not defined is an error. Errors point at the template's own line.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Object, ObjectRepr};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, UndefinedBehavior, Value};

use crate::data::{Address, Data, TargetPath};
use crate::diagnostic::{Diagnostic, Location, nearest_name};
use crate::snapshot::Snapshot;

/// How many instructions one rendering may take: a loop over 100,000 lines needs about a million.
const FUEL: u64 = 20_000_000;

/// The name that inline texts have.
const INLINE: &str = "<content>";

/// The templates of one component directory.
pub(crate) struct Templates {
    snapshot: Snapshot,
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
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).keep_trailing_newline(true).build();
        environment.set_syntax(syntax.expect("the default delimiters are valid"));
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.set_fuel(Some(FUEL));
        // Names in `include` and `extends` are looked up beside the definition; `//` begins at the project directory.
        let beside = directory.to_owned();
        environment.set_path_join_callback(move |name, _| match name.strip_prefix("//") {
            Some(path) => Cow::Borrowed(path),
            None => Cow::Owned(format!("{beside}/{name}")),
        });
        let (files, allowed) = (snapshot.clone(), format!("{directory}/"));
        environment.set_loader(move |path| {
            let reachable = (path.starts_with(&allowed) || path.starts_with("lib/")) && !path.split('/').any(|part| part == "..");
            Ok(reachable.then(|| files.text(path).map(str::to_owned)).flatten())
        });
        Self { snapshot: snapshot.clone(), environment }
    }

    /// Renders the text of a file of the project, named by its path below the project directory.
    pub(crate) fn render_source(&self, path: &str, text: &str, context: &Data) -> Result<String, Box<Diagnostic>> {
        self.environment
            .render_named_str(path, text, to_template(context))
            .map_err(|error| Box::new(self.diagnose(&error, path, text, context)))
    }

    /// Renders a text that stands in a definition.
    pub(crate) fn render_text(&self, text: &str, at: &Location, context: &Data) -> Result<String, Box<Diagnostic>> {
        self.environment.render_named_str(INLINE, text, to_template(context)).map_err(|error| {
            let diagnostic = self.diagnose(&error, INLINE, text, context);
            let inline = diagnostic.location.as_ref().is_none_or(|location| location.file == INLINE);
            Box::new(if inline { relocate(diagnostic, at, text) } else { diagnostic.note("included from here", at.clone()) })
        })
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
            ErrorKind::SyntaxError => diagnostic.hint("take the bytes as they are with `raw = True` if this is no template"),
            _ => diagnostic,
        }
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

#[expect(clippy::wildcard_enum_match_arm, reason = "the kinds of errors are not exhaustive")]
fn word(error: &Error, written: &str) -> (&'static str, String) {
    let detail = error.detail().map(str::to_owned);
    let named =
        |message: &str| if written.is_empty() || written.contains('\n') { message.to_owned() } else { format!("{message}: `{written}`") };
    match error.kind() {
        ErrorKind::UndefinedError => ("E0601", named("not defined")),
        ErrorKind::SyntaxError => ("E0602", format!("invalid template: {}", detail.unwrap_or_else(|| "syntax error".to_owned()))),
        ErrorKind::TemplateNotFound => ("E0604", detail.unwrap_or_else(|| "the included template does not exist".to_owned())),
        ErrorKind::OutOfFuel => ("E0605", "rendering takes too long: a loop without end?".to_owned()),
        kind => ("E0606", detail.map_or_else(|| named(&kind.to_string()), |detail| format!("{kind}: {detail}"))),
    }
}

/// Moves a diagnostic from a text inside a definition to the definition.
fn relocate(mut diagnostic: Diagnostic, at: &Location, text: &str) -> Diagnostic {
    let line = diagnostic.location.take().map_or(1, |location| location.line);
    diagnostic.length = 0;
    let shown = text.lines().nth(usize::try_from(line).unwrap_or(1).saturating_sub(1)).unwrap_or_default();
    let shown: String = shown.trim().chars().take(80).collect();
    diagnostic.at(at.clone()).note(format!("in line {line} of `content`: `{shown}`"), None)
}

/// A value as templates see it.
fn to_template(data: &Data) -> Value {
    match data {
        Data::None => Value::from(()),
        Data::Bool(value) => Value::from(*value),
        Data::Int(value) => Value::from(*value),
        Data::Float(value) => Value::from(*value),
        Data::Text(text) => Value::from(text.as_str()),
        Data::List(values) => values.iter().map(to_template).collect(),
        Data::Dict(entries) => Value::from_pairs(entries.iter().map(|(key, value)| (key.as_str(), to_template(value)))),
        Data::Path(path) => Value::from_object(PathObject(path.clone())),
        Data::Address(address) => Value::from_object(AddressObject(address.clone())),
    }
}

#[derive(Debug)]
struct PathObject(TargetPath);

impl Object for PathObject {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        match key.as_str()? {
            "name" => Some(Value::from(self.0.name())),
            "parent" => Some(self.0.parent().map_or_else(|| Value::from(()), |parent| Value::from_object(Self(parent)))),
            _ => None,
        }
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

#[derive(Debug)]
struct AddressObject(Address);

impl Object for AddressObject {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        match key.as_str()? {
            "host" => Some(Value::from(self.0.host.as_str())),
            "port" => Some(Value::from(self.0.port)),
            "v4" => self.0.v4.as_deref().map(Value::from),
            "v6" => self.0.v6.as_deref().map(Value::from),
            _ => None,
        }
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
}

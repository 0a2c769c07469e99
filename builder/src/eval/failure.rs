//! Errors of builtins, and how any Starlark error becomes a diagnostic.

use std::fmt;

use starlark::ErrorKind;
use starlark::codemap::FileSpan;

use crate::diagnostic::{Diagnostic, Location};

/// What is said when the limit of memory is reached, or one value is beyond it.
pub(crate) const TOO_MUCH_MEMORY: &str = "the evaluation takes too much memory";

/// What is said when the limit of steps or of time is reached.
pub(crate) const TOO_MUCH_TIME: &str = "the evaluation takes too long: a loop without end?";

/// What is said about the limits.
pub(crate) const LIMITS_HINT: &str = "one evaluation may take 2 million steps, 20 seconds of a processor and 1 GiB of memory";

/// A diagnostic on its way through the evaluator.
#[derive(Debug)]
pub(super) struct Failure(pub(super) Box<Diagnostic>);

impl Failure {
    pub(super) fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self(Box::new(Diagnostic::new(code, message)))
    }

    pub(super) fn hint(self, hint: impl Into<String>) -> Self {
        Self(Box::new(self.0.hint(hint)))
    }

    pub(super) fn note(self, message: impl Into<String>, at: Location) -> Self {
        Self(Box::new(self.0.note(message, at)))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl std::error::Error for Failure {}

impl From<Failure> for starlark::Error {
    fn from(failure: Failure) -> Self {
        Self::new_native(failure)
    }
}

/// The place of a span; columns count from 1.
pub(super) fn location_of(span: &FileSpan) -> Location {
    let begin = span.resolve_span().begin;
    let count = |zero_based: usize| u32::try_from(zero_based).unwrap_or(u32::MAX - 1) + 1;
    Location { file: span.filename().to_owned(), line: count(begin.line), column: count(begin.column) }
}

/// The first tab after a span: where indentation is wrong, the span is the end of the line before.
fn tab_after(span: &FileSpan) -> Option<Location> {
    let start = usize::try_from(span.span.begin().get()).ok()?;
    let tab = span.file.source().get(start..)?.find('\t')?;
    Some(Location::of_offset(span.filename(), span.file.source(), start + tab))
}

/// How many bytes a span covers.
pub(super) fn span_length(span: &FileSpan) -> u32 {
    u32::try_from(span.source_span().len()).unwrap_or(0)
}

/// Words a Starlark error.
#[expect(clippy::wildcard_enum_match_arm, reason = "the kinds of errors are not exhaustive")]
pub(super) fn to_diagnostic(error: &starlark::Error) -> Diagnostic {
    let span = error.span();
    let own = match error.kind() {
        ErrorKind::Native(inner) | ErrorKind::Other(inner) | ErrorKind::Value(inner) | ErrorKind::Freeze(inner) => {
            inner.downcast_ref::<Failure>()
        }
        _ => None,
    };
    let mut diagnostic = own.map_or_else(|| word(error), |failure| (*failure.0).clone());
    if let (None, Some(span)) = (&diagnostic.location, span) {
        diagnostic.location = Some(location_of(span));
        diagnostic.length = span_length(span);
    }
    // The innermost frame is the place itself; what is said here is how it was reached.
    for frame in error.call_stack().frames.iter().rev() {
        let Some(at) = frame.location.as_ref().map(location_of) else { continue };
        let known = diagnostic.location.as_ref() == Some(&at) || diagnostic.notes.iter().any(|note| note.location.as_ref() == Some(&at));
        if !known && super::is_starlark(&at.file) && diagnostic.notes.len() < 6 {
            diagnostic = diagnostic.note(format!("in a call of `{}`", called(&frame.name)), at);
        }
    }
    diagnostic
}

/// What a frame of the stack is called in the definition: `self.add` is `add`, `<component Shop>` is `Shop`.
fn called(frame: &str) -> &str {
    let component = frame.strip_prefix("<component ").and_then(|name| name.strip_suffix('>'));
    component.unwrap_or_else(|| frame.rsplit('.').next().unwrap_or(frame))
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the kinds of errors are not exhaustive")]
fn word(error: &starlark::Error) -> Diagnostic {
    let text = error.without_diagnostic().to_string();
    let text = text.trim().trim_end_matches('.');
    if let Some(diagnostic) = super::parameters::word(text, error.span()) {
        return diagnostic;
    }
    let text = text.strip_prefix("fail: ").unwrap_or(text);
    let code = match error.kind() {
        ErrorKind::Parser(_) => "E0201",
        ErrorKind::Scope(_) => "E0202",
        ErrorKind::Function(_) => "E0204",
        ErrorKind::Fail(_) => "E0206",
        ErrorKind::StackOverflow(_) => "E0207",
        _ if text.contains("limit of") => "E0208",
        _ if text == "Immutable" => "E0209",
        _ if text.starts_with("Expected type") => "E0203",
        _ => "E0205",
    };
    let (text, hint) = match text.split_once(", did you mean ") {
        Some((text, names)) => (text, Some(format!("did you mean {names}"))),
        None => (text, None),
    };
    let text = text.strip_prefix("Parse error: ").unwrap_or(text);
    let mut message = text.lines().next().unwrap_or_default().trim_end_matches(':').to_owned();
    let acronym = message.chars().nth(1).is_some_and(char::is_uppercase);
    if !acronym && let Some(first) = message.get_mut(..1) {
        first.make_ascii_lowercase();
    }
    let code = if message == "tabs are not allowed" { "E0217" } else { code };
    let message = message.replace("object of type `Component`", "the component");
    let message = match code {
        "E0207" => "calls are nested too deeply".to_owned(),
        "E0208" if message.contains("ticks") => TOO_MUCH_TIME.to_owned(),
        "E0208" => TOO_MUCH_MEMORY.to_owned(),
        "E0209" => "this value cannot be changed: it was made outside of `configure`".to_owned(),
        _ => message,
    };
    let diagnostic = Diagnostic::new(code, message);
    let diagnostic = match code {
        "E0207" => diagnostic.hint("is there a component or a function that uses itself?"),
        "E0209" => diagnostic.hint("make a copy: `list(x)` or `dict(x)`"),
        "E0217" => diagnostic.at(error.span().and_then(tab_after)).hint("indent with spaces"),
        "E0208" => diagnostic.hint(LIMITS_HINT),
        _ => diagnostic,
    };
    match hint {
        Some(hint) => diagnostic.hint(hint),
        None => diagnostic,
    }
}

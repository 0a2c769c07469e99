//! Parameters that a builtin does not have: the evaluator says that much, here is said which ones it has.

use starlark::codemap::FileSpan;
use starlark::docs::{DocItem, DocMember};

use crate::diagnostic::{Diagnostic, list_names};

/// Words the evaluator's two errors about named arguments; nothing for other errors.
///
/// `text` is the evaluator's, `span` the place of the error: the argument itself, or the whole call.
pub(super) fn word(text: &str, span: Option<&FileSpan>) -> Option<Diagnostic> {
    let (written, function) = if let Some(rest) = text.strip_prefix("Unexpected parameter named `") {
        let span = span?;
        let before = span.file.source().get(..usize::try_from(span.span.begin().get()).ok()?)?;
        (vec![rest.strip_suffix('`')?], called(before)?)
    } else {
        let rest = text.strip_prefix("Found `")?;
        let (names, function) = rest.split_once("` extra named parameter(s) for call to ")?;
        (names.split("` `").collect(), function.rsplit('.').next()?)
    };
    let diagnostic = Diagnostic::new("E0204", format!("`{function}` has no parameter {}", list_names(&written)));
    let known = parameters_of(function);
    let mut diagnostic = written.iter().fold(diagnostic, |diagnostic, name| diagnostic.hint_names(name, known.iter().map(String::as_str)));
    diagnostic.hints.dedup();
    Some(diagnostic)
}

/// The name of the function whose argument list is open at the end of `before`.
fn called(before: &str) -> Option<&str> {
    let mut closed = 0;
    let open = before.char_indices().rev().find_map(|(at, c)| {
        match c {
            ')' | ']' | '}' => closed += 1,
            '(' | '[' | '{' if closed > 0 => closed -= 1,
            '(' => return Some(at),
            _ => {}
        }
        None
    })?;
    let before = before[..open].trim_end();
    let start = before.rfind(|c: char| !(c.is_alphanumeric() || c == '_')).map_or(0, |at| at + 1);
    Some(&before[start..]).filter(|name| !name.is_empty())
}

/// The parameters of a builtin that can be named; none for what is no builtin.
fn parameters_of(function: &str) -> Vec<String> {
    let documentation = super::globals().documentation();
    let Some(DocItem::Member(DocMember::Function(function))) = documentation.members.get(function) else { return Vec::new() };
    function.params.pos_or_named.iter().chain(&function.params.named_only).map(|parameter| parameter.name.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_open_call_is_found() {
        for (before, expected) in [
            ("self.add(File(\"x\", ", Some("File")),
            ("self.add(File(join([\"x\"]), ", Some("File")),
            ("f(g(1), {\"a\": (2)}, ", Some("f")),
            ("x = (", None),
            ("x = 1", None),
        ] {
            assert_eq!(called(before), expected, "{before}");
        }
    }

    #[test]
    fn parameters_have_near_names_or_are_listed() {
        let hints = |text| word(text, None).unwrap().hints;
        assert_eq!(hints("Found `attribute` extra named parameter(s) for call to component"), ["did you mean `attributes`?"]);
        assert_eq!(hints("Found `xyzzy` extra named parameter(s) for call to Directory"), ["known are `path`, `source`, `exclude`"]);
        assert!(hints("Found `a` `b` extra named parameter(s) for call to mine").is_empty());
        assert!(word("Something else", None).is_none());
    }
}

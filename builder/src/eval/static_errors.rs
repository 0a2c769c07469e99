//! What can be said of a definition without running it: all of its unknown names, wrong types and missing symbols, together.
//!
//! The evaluator ends at the first of them. Only files that are wrong are looked at here a second time. Of what is no Starlark at all the
//! parser gives the first place only.

use starlark::environment::{FrozenModule, Globals};
use starlark::syntax::{AstLoad, AstModule};
use starlark::typing::AstModuleTypecheck;

use super::{failure, loader::dialect};
use crate::diagnostic::{Diagnostic, nearest_name};

/// The most errors of one file; further ones are seldom independent of these.
const ERRORS_MAX: usize = 50;

/// All unknown names and wrong types of a file, in the order of the text. What it loads may be anything.
pub(super) fn find(file: &str, text: &str, globals: &Globals) -> Vec<Diagnostic> {
    let Ok(ast) = AstModule::parse(file, text.to_owned(), &dialect()) else { return Vec::new() };
    #[expect(clippy::default_trait_access, reason = "an empty map of a type that is banned for its order")]
    let (errors, ..) = ast.typecheck(globals, &Default::default());
    let mut diagnostics: Vec<Diagnostic> = errors.iter().map(failure::to_diagnostic).collect();
    crate::diagnostic::sort_diagnostics(&mut diagnostics);
    diagnostics.dedup();
    diagnostics.truncate(ERRORS_MAX);
    diagnostics
}

/// The errors of a file whose evaluation ended with `error`: that one, and those that are as static as it is.
pub(super) fn with_others(error: Diagnostic, file: &str, text: &str, globals: &Globals) -> Vec<Diagnostic> {
    let all = find(file, text, globals);
    let same = |other: &Diagnostic| (other.code, &other.location) == (error.code, &error.location);
    // What comes up when code runs says nothing about the rest.
    if all.iter().any(same) { all } else { vec![error] }
}

/// What a `load` wants of a module and does not find there.
pub(super) fn missing_symbols(load: &AstLoad<'_>, module: &FrozenModule, file: &str, text: &str) -> Vec<Diagnostic> {
    let mut wanted: Vec<&str> = load.symbols.values().copied().collect();
    wanted.sort_unstable();
    let missing = wanted.into_iter().filter(|name| !matches!(module.get_option(name), Ok(Some(_))));
    let diagnostic = |name: &str| {
        let quoted = format!("\"{name}\"");
        let after = usize::try_from(load.span.span.end().get()).unwrap_or(0);
        let start = text.get(after..).and_then(|rest| rest.find(&quoted)).map_or(after, |offset| after + offset);
        let diagnostic = Diagnostic::new("E0219", format!("`{}` has no `{name}`", load.module_id));
        let diagnostic = diagnostic.at_range(file, text, &(start..(start + quoted.len()).min(text.len())));
        if name.starts_with('_') {
            return diagnostic.hint("names that begin with `_` are the file's own");
        }
        let names: Vec<String> = module.names().map(|name| name.as_str().to_owned()).filter(|name| !name.starts_with('_')).collect();
        match nearest_name(name, names.iter().map(String::as_str)) {
            Some(nearest) => diagnostic.hint(format!("did you mean `{nearest}`?")),
            None => diagnostic,
        }
    };
    missing.map(diagnostic).collect()
}

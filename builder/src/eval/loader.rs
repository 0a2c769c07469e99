//! Definitions: parsing, `load`, and the table of components.
//!
//! Every module is evaluated once, whoever loads it, and is frozen afterwards. A module that is wrong is reported once;
//! those that load it are not evaluated and not reported again.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use starlark::environment::{FrozenModule, Globals, Module};
use starlark::eval::{Evaluator, FileLoader};
use starlark::syntax::{AstModule, Dialect, DialectTypes};
use starlark::values::{FreezeError, FrozenHeapName, OwnedFrozenValue, ValueLike};

use super::component::{FrozenComponentType, Info};
use super::{failure, messages, nesting, running, static_errors};
use crate::diagnostic::{Diagnostic, Location};
use crate::environment::is_component_name;
use crate::snapshot::{Snapshot, home_of, written_as};

/// The largest source file, in bytes. Data belongs into `environment.toml` or templates.
pub(super) const SOURCE_BYTES_MAX: usize = 1 << 20;

/// The name of the file in a component's directory.
const DEFINITION_FILE: &str = "component.star";

/// A component as its definition has it.
#[derive(Debug)]
pub(crate) struct ComponentInfo {
    /// The name in environments.
    pub(crate) name: String,
    /// What its definition says.
    pub(crate) info: Info,
    pub(super) value: OwnedFrozenValue,
}

/// All components of a project.
#[derive(Debug, Default)]
pub(crate) struct Definitions {
    /// By name.
    pub(crate) components: BTreeMap<String, ComponentInfo>,
    /// Whether a definition could not be loaded, so that more components may exist than are known.
    pub(crate) incomplete: bool,
}

/// Loads every `components/*/component.star`. Must run on a stack of [`super::STACK_BYTES`].
pub(crate) fn load_definitions(snapshot: &Snapshot, diagnostics: &mut Vec<Diagnostic>) -> Definitions {
    let mut loader = Loader { snapshot, globals: super::globals(), modules: BTreeMap::new(), diagnostics };
    let files: Vec<String> = snapshot
        .files_below("components")
        .filter(|(path, _)| path.split_once('/').is_some_and(|(_, file)| file == DEFINITION_FILE))
        .map(|(path, _)| format!("components/{path}"))
        .collect();
    let mut definitions = Definitions::default();
    for file in &files {
        match loader.load(file, &mut Vec::new()) {
            Some(module) => collect(&module, file, &mut definitions, loader.diagnostics),
            None => definitions.incomplete = true,
        }
    }
    definitions
}

/// Takes the components out of a module.
fn collect(module: &FrozenModule, file: &str, definitions: &mut Definitions, diagnostics: &mut Vec<Diagnostic>) {
    let mut names: Vec<String> = module.names().map(|name| name.as_str().to_owned()).collect();
    names.sort();
    for variable in names {
        let Ok(Some(value)) = module.get_option(&variable) else { continue };
        let Some(component) = value.value().downcast_ref::<FrozenComponentType>() else { continue };
        if component.name != variable || component.info.at.file != file {
            continue;
        }
        let info = component.info.clone();
        let at = info.at.clone();
        let name = variable.to_lowercase();
        if !is_component_name(&name) {
            diagnostics.push(
                Diagnostic::new("E0306", format!("`{variable}` cannot be the name of a component"))
                    .at(at)
                    .hint("use letters, digits and `_`"),
            );
        } else if let Some(other) = definitions.components.get(&name) {
            let message = format!("there are two components `{name}`");
            diagnostics.push(Diagnostic::new("E0307", message).at(at).note("the other one", other.info.at.clone()));
        } else {
            definitions.components.insert(name.clone(), ComponentInfo { name, info, value });
        }
    }
}

struct Loader<'a> {
    snapshot: &'a Snapshot,
    globals: Globals,
    /// What was loaded, or that it is wrong.
    modules: BTreeMap<String, Option<FrozenModule>>,
    diagnostics: &'a mut Vec<Diagnostic>,
}

impl Loader<'_> {
    /// The module of a file, or nothing if it or one that it loads is wrong.
    fn load(&mut self, file: &str, chain: &mut Vec<String>) -> Option<FrozenModule> {
        if let Some(module) = self.modules.get(file) {
            return module.clone();
        }
        chain.push(file.to_owned());
        let module = self.evaluate(file, chain);
        chain.pop();
        self.modules.insert(file.to_owned(), module.clone());
        module
    }

    fn evaluate(&mut self, file: &str, chain: &mut Vec<String>) -> Option<FrozenModule> {
        let text = self.source(file)?;
        let ast = match AstModule::parse(file, text.clone(), &dialect()) {
            Ok(ast) => ast,
            Err(error) => {
                self.diagnostics.push(failure::to_diagnostic(&error));
                return None;
            }
        };
        let mut loads = Loads(BTreeMap::new());
        let mut complete = true;
        for load in ast.loads() {
            let at = failure::location_of(&load.span);
            let loaded = match self.target(file, load.module_id, chain) {
                Ok(target) => self.load(&target, chain),
                Err(diagnostic) => {
                    let mut diagnostic = diagnostic.at(at);
                    diagnostic.length = failure::span_length(&load.span);
                    self.diagnostics.push(diagnostic);
                    None
                }
            };
            match loaded {
                Some(module) => {
                    let missing = static_errors::missing_symbols(&load, &module, file, &text);
                    complete &= missing.is_empty();
                    self.diagnostics.extend(missing);
                    loads.0.insert(load.module_id.to_owned(), module);
                }
                None => complete = false,
            }
        }
        if !complete {
            self.diagnostics.extend(static_errors::find(file, &text, &self.globals));
            return None;
        }
        let globals = &self.globals;
        let printed = Printed::default();
        let _running = running::begin(None, &Location { file: file.to_owned(), line: 1, column: 1 });
        let result = catch_unwind(AssertUnwindSafe(|| evaluate_module(file, ast, &loads, globals, &printed)));
        self.diagnostics.extend(printed.into_note(file));
        let error = match result {
            Ok(Ok(module)) => return Some(module),
            Ok(Err(diagnostic)) => *diagnostic,
            Err(panic) => super::gave_up(&*panic, &Location { file: file.to_owned(), line: 1, column: 1 }),
        };
        self.diagnostics.extend(static_errors::with_others(error, file, &text, &self.globals));
        None
    }

    /// The text of a file, if it is small and flat enough.
    fn source(&mut self, file: &str) -> Option<String> {
        let Some(text) = self.snapshot.text(file) else {
            self.diagnostics.push(Diagnostic::new("E0210", format!("`{file}` is not UTF-8 text")));
            return None;
        };
        if text.len() > SOURCE_BYTES_MAX {
            let message = format!("`{file}` has {} bytes, more than the {SOURCE_BYTES_MAX} allowed", text.len());
            self.diagnostics.push(Diagnostic::new("E0211", message).hint("data belongs into environment.toml or templates"));
            return None;
        }
        if let Some((offset, c)) = text.char_indices().find(|(_, c)| is_hidden(*c)) {
            let message = format!("this file holds the invisible character U+{:04X}", u32::from(c));
            let diagnostic = Diagnostic::new("E0218", message).at_range(file, text, &(offset..offset + c.len_utf8()));
            self.diagnostics.push(diagnostic.hint("what is meant can be written as an escape in a string, such as `\\u202e`"));
            return None;
        }
        if let Some(offset) = nesting::too_deep_at(text) {
            self.diagnostics.push(Diagnostic::new("E0212", "this is nested too deeply").at_range(file, text, &(offset..offset + 1)));
            return None;
        }
        Some(text.to_owned())
    }

    /// Says that a file does not exist, or the package that it would be of.
    fn missing(&self, target: &str) -> Diagnostic {
        let home = home_of(target);
        if !home.is_empty() && !self.snapshot.files().any(|(path, _)| path.starts_with(home)) {
            let diagnostic = Diagnostic::new("E0214", format!("there is no package `{}`", home.trim_matches(['@', '/'])));
            return diagnostic.hint("declare it in `[packages]` of sarsen.toml, and run `sarsen lock`");
        }
        let known = self.snapshot.files().map(|(path, _)| path).filter(|path| super::is_starlark(path) && home_of(path) == home);
        let diagnostic = Diagnostic::new("E0214", format!("there is no file `{target}`"));
        match crate::diagnostic::nearest_name(target, known) {
            Some(name) => diagnostic.hint(format!("did you mean `{}`?", written_as(name))),
            None => diagnostic,
        }
    }

    /// The file that a `load` means.
    fn target(&self, file: &str, written: &str, chain: &[String]) -> Result<String, Box<Diagnostic>> {
        let home = home_of(file);
        let target = match (written.strip_prefix("//"), written.strip_prefix('@').and_then(|rest| rest.split_once("//"))) {
            (Some(path), _) => format!("{home}{path}"),
            // What a package loads is its own, so that it means the same wherever it is used.
            (None, Some((name, path))) if home.is_empty() => format!("@{name}/{path}"),
            (None, Some(_)) => String::new(),
            (None, None) => format!("{}/{written}", file.rsplit_once('/').map_or("", |(directory, _)| directory)),
        };
        let below = &target[home_of(&target).len()..];
        let inside = below.starts_with("lib/") || below.starts_with("components/");
        if !inside || target.parse::<sarsen_store::RelPath>().is_err() {
            let diagnostic = Diagnostic::new("E0213", format!("`{written}` cannot be loaded"));
            let hint = if home.is_empty() {
                "load files beside this one by their name, others as `//lib/NAME.star` or `//components/NAME/FILE.star`, and those of packages as `@PACKAGE//lib/NAME.star`"
            } else {
                "a package loads its own files only: those beside this one by their name, others as `//lib/NAME.star`"
            };
            return Err(Box::new(diagnostic.hint(hint)));
        }
        if self.snapshot.file(&target).is_none() {
            return Err(Box::new(self.missing(&target)));
        }
        if let Some(start) = chain.iter().position(|loading| *loading == target) {
            let circle = format!("{} -> {target}", chain[start..].join(" -> "));
            return Err(Box::new(Diagnostic::new("E0215", format!("files load each other in a circle: {circle}"))));
        }
        Ok(target)
    }
}

fn evaluate_module(
    file: &str,
    ast: AstModule,
    loads: &Loads,
    globals: &Globals,
    printed: &Printed,
) -> Result<FrozenModule, Box<Diagnostic>> {
    Module::with_temp_heap(|module| {
        {
            let mut evaluator = Evaluator::new(&module);
            evaluator.set_loader(loads);
            evaluator.enable_static_typechecking(true);
            evaluator.set_print_handler(printed);
            super::limit(&mut evaluator);
            evaluator.eval_module(ast, globals).map_err(|error| Box::new(failure::to_diagnostic(&error)))?;
        }
        module.freeze_named(FrozenHeapName::User(Box::new(file.to_owned()))).map_err(|error| Box::new(refuse_to_freeze(file, &error)))
    })
}

/// Whether a character shows a reader something else than what is there: controls, and those that turn the direction of writing.
fn is_hidden(c: char) -> bool {
    let is_turning = matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    is_turning || c.is_control() && !matches!(c, '\t' | '\n' | '\r')
}

/// Words that a module holds what it cannot hold; the context of our own errors is the place.
fn refuse_to_freeze(file: &str, error: &FreezeError) -> Diagnostic {
    let place = error.contexts.iter().find_map(|context| {
        let (line, column) = context.split_once(':')?;
        Some((line.parse().ok()?, column.parse().ok()?))
    });
    let (line, column) = place.unwrap_or((1, 1));
    let diagnostic = Diagnostic::new("E0305", error.err_msg.clone()).at(Location { file: file.to_owned(), line, column });
    if place.is_some() { diagnostic.hint("write `Name = component(...)` at the top level of the file") } else { diagnostic }
}

pub(super) fn dialect() -> Dialect {
    Dialect {
        enable_types: DialectTypes::Enable,
        enable_f_strings: true,
        enable_keyword_only_arguments: true,
        enable_positional_only_arguments: true,
        enable_load_reexport: false,
        ..Dialect::Standard
    }
}

struct Loads(BTreeMap<String, FrozenModule>);

impl FileLoader for Loads {
    fn load(&self, path: &str) -> starlark::Result<FrozenModule> {
        let missing = || failure::Failure::new("E0214", format!("`{path}` was not loaded"));
        Ok(self.0.get(path).cloned().ok_or_else(missing)?)
    }
}

/// What a module prints while it is loaded: there is no instance whose message it could be.
#[derive(Default)]
struct Printed(RefCell<Vec<String>>);

impl Printed {
    fn into_note(self, file: &str) -> Option<Diagnostic> {
        let messages = self.0.into_inner();
        let note = Diagnostic::new("E0216", format!("`{file}` prints while it is loaded")).as_note();
        (!messages.is_empty()).then(|| messages.into_iter().fold(note, |note, message| note.note(message, None)))
    }
}

impl starlark::PrintHandler for Printed {
    fn println(&self, text: &str) -> starlark::Result<()> {
        messages::push(&mut self.0.borrow_mut(), text);
        Ok(())
    }
}

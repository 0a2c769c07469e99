//! Starlark: loading definitions and evaluating component instances.
//!
//! No Starlark type leaves this directory. A module evaluation gives a table of components; the evaluation of one instance
//! (one component on one host) gives an [`Outcome`], plain data that the builtins collected in a [`context::Context`].
//! Evaluation is hermetic: it sees the snapshot, the environment and the frozen resources of the round before, no more.

#![expect(unsafe_code, reason = "the derives of starlark write `unsafe impl ProvidesStaticType`; no other unsafe code is here")]

mod add;
mod attribute;
mod component;
mod context;
mod convert;
mod failure;
mod files;
mod instance;
mod loader;
mod mako;
mod messages;
mod nesting;
mod parameters;
pub(crate) mod reference;
pub(crate) mod running;
mod static_errors;
mod steps;
mod values;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use starlark::environment::{Globals, GlobalsBuilder, LibraryExtension, Module};
use starlark::eval::Evaluator;

pub(crate) use attribute::AttributeInfo;
pub(crate) use context::{ENVIRONMENT_FIELDS, HOST_FIELDS, Scene};
pub(crate) use failure::{LIMITS_HINT, TOO_MUCH_MEMORY, TOO_MUCH_TIME};
pub(crate) use loader::{ComponentInfo, Definitions, load_definitions};

use crate::data::Data;
use crate::diagnostic::{Diagnostic, Location};
use crate::evaluator::LIMITS;
use crate::model::{Order, Step};
use context::Context;

/// The name of every thread that evaluates. The evaluator panics at values of several GiB; that is caught and becomes a diagnostic.
pub(crate) const EVALUATION_THREAD: &str = "evaluation";

/// The stack of a thread that evaluates. The evaluator recurses; with this size 20,000 levels of nesting were survived.
pub(crate) const STACK_BYTES: usize = 64 << 20;

/// The most steps of the evaluator for one module or instance: about a second of work. A host with 100 components took 1,100.
const TICKS_MAX: u64 = 2_000_000;

/// The most memory of one evaluation, in bytes.
const HEAP_BYTES_MAX: usize = 1 << 30;

/// The deepest chain of calls.
const CALLS_MAX: usize = 200;

/// Resources as one round sees them: by key, sorted by host, component and order of provision.
#[derive(Debug, Default)]
pub(crate) struct Resources(pub(crate) BTreeMap<String, Vec<Provision>>);

/// One provided value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Provision {
    pub(crate) host: String,
    pub(crate) component: String,
    pub(crate) value: Data,
    pub(crate) at: Location,
}

impl Resources {
    /// The values of a key, of one host if it is named.
    pub(crate) fn find<'a>(&'a self, key: &str, host: Option<&'a str>) -> impl Iterator<Item = &'a Provision> {
        self.0.get(key).into_iter().flatten().filter(move |provision| host.is_none_or(|host| provision.host == host))
    }
}

/// One use of `require`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Requirement {
    pub(crate) at: Location,
    pub(crate) key: String,
    /// The only host whose values are wanted.
    pub(crate) host: Option<String>,
    /// Whether it is an error if there is none.
    pub(crate) strict: bool,
    /// Who comes first.
    pub(crate) order: Order,
    /// Whether it sees the values; if not, only the order is wanted.
    pub(crate) values: bool,
}

/// What one evaluation of one instance gave.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) attributes: BTreeMap<String, String>,
    pub(crate) steps: Vec<Step>,
    pub(crate) messages: Vec<String>,
    pub(crate) provided: Vec<(String, Data, Location)>,
    pub(crate) required: Vec<Requirement>,
    /// How many of the diagnostics were there before something strictly required was not found, if anything was not: what follows may be a
    /// consequence.
    pub(crate) sure: Option<usize>,
    /// What is wrong; evaluation goes on after some mistakes and ends at others.
    pub(crate) diagnostics: Vec<Diagnostic>,
    /// Whether it ended before the end of `configure`.
    pub(crate) failed: bool,
}

/// One component on one host, to be evaluated.
#[derive(Debug)]
pub(crate) struct Task<'a> {
    /// The component's definition.
    pub(crate) component: &'a ComponentInfo,
    /// The host's place in the environment's list.
    pub(crate) host: usize,
    /// The features chosen.
    pub(crate) features: &'a [String],
    /// Every attribute with its value.
    pub(crate) attributes: &'a [(String, Data)],
}

/// Evaluates one instance against the frozen resources of the round before. Must run on a stack of [`STACK_BYTES`].
pub(crate) fn evaluate_instance(scene: &Arc<Scene>, task: &Task<'_>, resources: &Arc<Resources>) -> Outcome {
    let context = Context::new(scene.clone(), task, resources.clone());
    let _running = running::begin(Some((&task.component.name, &context.host().name)), &task.component.info.at);
    let result = catch_unwind(AssertUnwindSafe(|| {
        Module::with_temp_heap(|module| {
            let mut evaluator = Evaluator::new(&module);
            evaluator.disable_gc();
            evaluator.extra = Some(&context);
            evaluator.set_print_handler(&context);
            limit(&mut evaluator);
            instance::configure_root(task, &mut evaluator).map_err(|error| Box::new(failure::to_diagnostic(&error)))
        })
    }));
    let failure = match result {
        Ok(result) => result.err().map(|diagnostic| *diagnostic),
        Err(panic) => Some(gave_up(&*panic, &task.component.info.at)),
    };
    // What has no place of its own, such as running out of steps, is the component's.
    let failure = failure.map(|mut failure| {
        failure.location.get_or_insert_with(|| task.component.info.at.clone());
        failure
    });
    context.into_outcome(task, failure)
}

/// The limits, as a chapter of the language reference.
pub(crate) fn limits_text() -> String {
    format!(
        "\n## Limits\n\nA definition that is wrong or hostile ends with an error, not with the process:\n\n\
         | what | at most |\n|---|---|\n\
         | steps of one evaluation (calls and turns of loops) | {TICKS_MAX} |\n\
         | memory of one evaluation | {} MiB |\n\
         | time of one evaluation on a processor | {} s |\n\
         | memory of all evaluations together | {} MiB |\n\
         | calls within calls | {CALLS_MAX} |\n\
         | levels of brackets, chained operators and branches in a source | {} |\n\
         | size of a source | {} KiB |\n\
         | values inside of one that is provided, written or given to a template | {} |\n\
         | levels of lists and dicts in it | {} |\n\
         | rounds until resources come to rest | {} |\n\
         | messages of one evaluation | {} |\n\
         | files of a project | {} |\n\
         | bytes of a project | {} MiB |\n\n\
         Definitions are evaluated in a process of their own. It is ended when it takes more, and the error names the component. Nothing\n\
         outside of the project directory can be read, through no path and no symbolic link.\n",
        HEAP_BYTES_MAX >> 20,
        LIMITS.processor_ms / 1000,
        LIMITS.memory_bytes >> 20,
        nesting::LEVELS_MAX,
        loader::SOURCE_BYTES_MAX >> 10,
        convert::VALUES_MAX,
        crate::data::NESTING_MAX,
        crate::resolve::ROUNDS_MAX,
        messages::MESSAGES_MAX,
        crate::snapshot::FILES_MAX,
        crate::snapshot::BYTES_MAX >> 20,
    )
}

fn limit(evaluator: &mut Evaluator<'_, '_, '_>) {
    // These refuse only zero and being set twice.
    let set = evaluator.set_max_callstack_size(CALLS_MAX).and_then(|()| evaluator.set_max_tick_count(TICKS_MAX));
    set.and_then(|()| evaluator.set_max_heap_size(HEAP_BYTES_MAX)).expect("limits of a new evaluator can be set once");
}

fn gave_up(panic: &(dyn std::any::Any + Send), at: &Location) -> Diagnostic {
    let reason =
        panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("unknown reason");
    // One value of several GiB is past the evaluator's own limits before it looks at that of the memory.
    if ["len overflow", "AlignedSize must not exceed", "capacity overflow"].iter().any(|size| reason.contains(size)) {
        return Diagnostic::new("E0208", failure::TOO_MUCH_MEMORY).at(at.clone()).hint(failure::LIMITS_HINT);
    }
    Diagnostic::new("E0299", format!("the evaluator gave up: {reason}"))
        .at(at.clone())
        .hint("this is a defect of sarsen, or a definition that is far too large")
}

/// Whether a file holds definitions.
fn is_starlark(path: &str) -> bool {
    std::path::Path::new(path).extension().is_some_and(|extension| extension == "star")
}

/// What definitions can use of Starlark's extensions.
const EXTENSIONS: [LibraryExtension; 10] = [
    LibraryExtension::StructType,
    LibraryExtension::RecordType,
    LibraryExtension::EnumType,
    LibraryExtension::Typing,
    LibraryExtension::Json,
    LibraryExtension::SetType,
    LibraryExtension::Map,
    LibraryExtension::Filter,
    LibraryExtension::Print,
    LibraryExtension::Partial,
];

fn globals() -> Globals {
    own_builtins(GlobalsBuilder::extended_by(&EXTENSIONS)).build()
}

/// What sarsen adds.
fn own_builtins(globals: GlobalsBuilder) -> GlobalsBuilder {
    globals
        .with(attribute::builtins)
        .with(component::builtins)
        .with(values::builtins)
        .with(steps::content)
        .with(steps::host)
        .with(steps::activation)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_beyond_the_evaluator_are_too_large_and_other_panics_are_defects() {
        let at = Location { file: "x.star".to_owned(), line: 1, column: 1 };
        let code = |panic: &(dyn std::any::Any + Send)| gave_up(panic, &at).code;
        assert_eq!(code(&"len overflow"), "E0208");
        assert_eq!(code(&"AlignedSize must not exceed u32::MAX".to_owned()), "E0208");
        assert_eq!(code(&"something else"), "E0299");
    }
}

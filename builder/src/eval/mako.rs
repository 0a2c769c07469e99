//! Rendering of Mako templates: what `mako` translated is evaluated, with limits of its own.
//!
//! A rendering sees the template's context and no more; it cannot make steps, and has no access to the instance.

use std::cell::RefCell;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use allocative::Allocative;
use starlark::any::ProvidesStaticType;
use starlark::collections::SmallMap;
use starlark::environment::{Globals, GlobalsBuilder, Module};
use starlark::eval::{Arguments, Evaluator};
use starlark::syntax::AstModule;
use starlark::values::list::AllocList;
use starlark::values::none::NoneType;
use starlark::values::structs::AllocStruct;
use starlark::values::tuple::UnpackTuple;
use starlark::values::{Heap, NoSerialize, StarlarkPagablePanic, StarlarkValue, Value, starlark_value};
use starlark::{starlark_module, starlark_simple_value};

use super::convert::{to_data, to_value};
use super::failure::{self, Failure};
use crate::data::Data;
use crate::diagnostic::{Diagnostic, Location};
use crate::filters;
use crate::mako::{Find, Program, own_filters, translate};
use crate::template::OUTPUT_BYTES_MAX;

/// The name of the generated file in errors, before they are led back to the template.
const GENERATED: &str = "<mako>";

/// Renders a template; `path` is `<content>` for a text that stands in a definition.
pub(super) fn render(path: &str, text: &str, context: &Data, find: Find<'_>) -> Result<String, Box<Diagnostic>> {
    let program = translate(path, text, &|name| filters::find(name).is_some(), find).map_err(|fault| {
        let code = if fault.missing { "E0604" } else { "E0602" };
        let diagnostic = Diagnostic::new(code, fault.message).at_range(&fault.path, &fault.text, &(fault.offset..fault.offset));
        Box::new(match fault.hint {
            Some(hint) => diagnostic.hint(hint),
            None => diagnostic,
        })
    })?;
    if super::nesting::too_deep_at(&program.source.text).is_some() {
        return Err(Box::new(Diagnostic::new("E0212", "this is nested too deeply").at_range(path, text, &(0..0))));
    }
    let output = Output::default();
    match catch_unwind(AssertUnwindSafe(|| evaluate(&program, context, &output))) {
        Ok(Ok(())) => Ok(output.0.into_inner().buffers.concat()),
        Ok(Err(diagnostic)) => Err(Box::new(lead_back(*diagnostic, &program, path, text))),
        Err(panic) => {
            let diagnostic = super::gave_up(&*panic, &Location { file: path.to_owned(), line: 1, column: 1 });
            Err(Box::new(lead_back(diagnostic, &program, path, text)))
        }
    }
}

fn evaluate(program: &Program, context: &Data, output: &Output) -> Result<(), Box<Diagnostic>> {
    let ast = AstModule::parse(GENERATED, program.source.text.clone(), &super::loader::dialect())
        .map_err(|error| Box::new(failure::to_diagnostic(&error)))?;
    Module::with_temp_heap(|module| {
        let heap = module.heap();
        if let Data::Dict(entries) = context {
            for (name, value) in entries {
                let value = match (name.as_str(), value) {
                    // `component.port`, as in Python.
                    ("component" | "host" | "environment", Data::Dict(fields)) => {
                        let fields: Vec<(&str, Value<'_>)> =
                            fields.iter().map(|(name, value)| (name.as_str(), to_value(value, heap))).collect();
                        heap.alloc(AllocStruct(fields))
                    }
                    (_, other) => to_value(other, heap),
                };
                module.set(name, value);
            }
        }
        module.set("context", to_value(context, heap));
        let mut evaluator = Evaluator::new(&module);
        evaluator.disable_gc();
        evaluator.extra = Some(output);
        super::limit(&mut evaluator);
        evaluator.eval_module(ast, &globals()).map_err(|error| Box::new(failure::to_diagnostic(&error)))?;
        Ok(())
    })
}

/// Gives a diagnostic about generated code the place in the template, and the code that templates' errors have.
fn lead_back(mut diagnostic: Diagnostic, program: &Program, path: &str, text: &str) -> Diagnostic {
    let back = |location: &Location| {
        if location.file != GENERATED {
            return Some(location.clone());
        }
        let (file, offset) = program.source.origin(location.line, location.column)?;
        let file = program.files.get(file)?;
        Some(Location::of_offset(&file.path, &file.text, offset))
    };
    let length = diagnostic.length;
    let found = diagnostic.location.as_ref().and_then(back);
    diagnostic.length = if found.is_some() { length } else { 0 };
    diagnostic.location = Some(found.unwrap_or_else(|| Location::of_offset(path, text, 0)));
    // What called what is the generated code's affair.
    diagnostic.notes.retain(|note| note.location.as_ref().is_none_or(|location| location.file != GENERATED));
    if diagnostic.code == "E0202" {
        diagnostic.message = diagnostic.message.replacen("variable", "template variable", 1);
        if diagnostic.hints.is_empty() {
            diagnostic = diagnostic.hint("templates see `component`, `host`, `environment` and what `context = {...}` adds");
        }
    }
    diagnostic.code = match diagnostic.code {
        "E0202" => "E0601",
        "E0201" => "E0602",
        "E0207" | "E0208" => "E0605",
        "E0607" => "E0607",
        _ => "E0606",
    };
    diagnostic
}

/// Where a rendering writes: the text so far, and what `capture` and filters hold back.
#[derive(Default, ProvidesStaticType)]
struct Output(RefCell<Buffers>);

struct Buffers {
    buffers: Vec<String>,
    bytes: usize,
}

impl Default for Buffers {
    fn default() -> Self {
        Self { buffers: vec![String::new()], bytes: 0 }
    }
}

impl Output {
    fn of<'a>(eval: &Evaluator<'_, 'a, '_>) -> Result<&'a Self, Failure> {
        eval.extra.and_then(|extra| extra.downcast_ref()).ok_or_else(|| Failure::new("E0299", "a template without output"))
    }

    fn write(&self, text: &str) -> Result<(), Failure> {
        let mut output = self.0.borrow_mut();
        output.bytes += text.len();
        if output.bytes > OUTPUT_BYTES_MAX {
            return Err(Failure::new("E0208", format!("rendering gives more than {} MiB", OUTPUT_BYTES_MAX >> 20)));
        }
        if let Some(buffer) = output.buffers.last_mut() {
            buffer.push_str(text);
        }
        Ok(())
    }

    fn push(&self) {
        self.0.borrow_mut().buffers.push(String::new());
    }

    fn pop(&self) -> String {
        self.0.borrow_mut().buffers.pop().unwrap_or_default()
    }
}

fn text_of(value: Value<'_>) -> Result<String, Failure> {
    if value.is_none() {
        return Err(Failure::new("E0607", "this is None, not a text").hint("say what to write then: `${x or \"\"}`"));
    }
    Ok(value.to_str())
}

/// A filter as a function.
#[derive(Debug, Clone, ProvidesStaticType, Allocative, NoSerialize, StarlarkPagablePanic)]
struct FilterValue(&'static str);
starlark_simple_value!(FilterValue);

impl fmt::Display for FilterValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

#[starlark_value(type = "filter")]
impl<'v> StarlarkValue<'v> for FilterValue {
    fn invoke(&self, _me: Value<'v>, args: &Arguments<'v, '_>, eval: &mut Evaluator<'v, '_, '_>) -> starlark::Result<Value<'v>> {
        let heap = eval.heap();
        let values: Vec<Value<'v>> = args.positions(heap)?.collect();
        let named: SmallMap<_, Value<'v>> = args.names_map()?;
        if self.0 == "h" || self.0 == "x" || self.0 == "u" || self.0 == "entity" || self.0 == "trim" || self.0 == "str" {
            let [value] = values.as_slice() else { return Err(Failure::new("E0606", format!("`{}` takes one value", self.0)).into()) };
            return Ok(heap.alloc(own_filter(self.0, &text_of(*value)?)));
        }
        let filter = filters::find(self.0).ok_or_else(|| Failure::new("E0299", "a filter that does not exist"))?;
        let mut arguments = filters::Arguments::default();
        for value in values {
            arguments.values.push(to_data(value, &format!("the argument of `{}`", self.0))?);
        }
        for (name, value) in named {
            arguments.named.insert(name.as_str().to_owned(), to_data(value, &format!("`{}` of `{}`", name.as_str(), self.0))?);
        }
        let result = filter.apply(&arguments).map_err(|reason| Failure::new("E0606", format!("`{}` {reason}", self.0)))?;
        Ok(to_value(&result, heap))
    }
}

/// Mako's own filters.
fn own_filter(name: &str, text: &str) -> String {
    match name {
        "h" | "x" | "entity" => text.chars().fold(String::with_capacity(text.len()), |mut out, c| {
            match c {
                '&' => out.push_str("&amp;"),
                '<' => out.push_str("&lt;"),
                '>' => out.push_str("&gt;"),
                '"' => out.push_str("&#34;"),
                '\'' => out.push_str("&#39;"),
                c => out.push(c),
            }
            out
        }),
        "u" => filters::quote_plus(text),
        "trim" => text.trim().to_owned(),
        _ => text.to_owned(),
    }
}

fn globals() -> Globals {
    let mut builder = GlobalsBuilder::extended_by(&super::EXTENSIONS).with(builtins);
    for filter in filters::FILTERS {
        builder.set(filter.name, FilterValue(filter.name));
        builder.set(&format!("__filter_{}", filter.name), FilterValue(filter.name));
    }
    for (name, filter) in own_filters() {
        builder.set(&name, FilterValue(filter));
    }
    builder.set("STOP_RENDERING", "");
    builder.build()
}

#[starlark_module]
fn builtins(builder: &mut GlobalsBuilder) {
    fn __write<'v>(#[starlark(require = pos)] value: Value<'v>, eval: &mut Evaluator<'v, '_, '_>) -> starlark::Result<NoneType> {
        let output = Output::of(eval)?;
        match value.unpack_str() {
            Some(text) => output.write(text)?,
            None => output.write(&text_of(value)?)?,
        }
        Ok(NoneType)
    }

    fn __push<'v>(eval: &mut Evaluator<'v, '_, '_>) -> starlark::Result<NoneType> {
        Output::of(eval)?.push();
        Ok(NoneType)
    }

    fn __pop<'v>(eval: &mut Evaluator<'v, '_, '_>) -> starlark::Result<String> {
        Ok(Output::of(eval)?.pop())
    }

    /// The elements of a loop with their places.
    fn __loop<'v>(
        #[starlark(require = pos)] parent: Value<'v>,
        #[starlark(require = pos)] items: Value<'v>,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<Value<'v>> {
        let heap = eval.heap();
        let items: Vec<Value<'v>> = items.iterate(heap)?.collect();
        let count = items.len();
        let places = items.into_iter().enumerate().map(|(index, item)| place(index, count, item, parent, heap));
        Ok(heap.alloc(AllocList(places.collect::<Vec<_>>())))
    }

    /// What a function of the template would write.
    fn capture<'v>(
        #[starlark(require = pos)] function: Value<'v>,
        #[starlark(args)] args: UnpackTuple<Value<'v>>,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<String> {
        let output = Output::of(eval)?;
        output.push();
        eval.eval_function(function, &args.items, &[])?;
        Ok(output.pop())
    }
}

fn place<'v>(index: usize, count: usize, item: Value<'v>, parent: Value<'v>, heap: Heap<'v>) -> Value<'v> {
    let number = |number: usize| heap.alloc(i64::try_from(number).unwrap_or(i64::MAX));
    heap.alloc(AllocStruct([
        ("index", number(index)),
        ("reverse_index", number(count - 1 - index)),
        ("first", Value::new_bool(index == 0)),
        ("last", Value::new_bool(index + 1 == count)),
        ("even", Value::new_bool(index.is_multiple_of(2))),
        ("odd", Value::new_bool(!index.is_multiple_of(2))),
        ("item", item),
        ("parent", parent),
    ]))
}

#[cfg(test)]
mod tests;

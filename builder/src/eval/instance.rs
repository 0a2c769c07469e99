//! Instances: what `self` is inside `configure`.

mod methods;

use std::cell::RefCell;
use std::fmt;

use allocative::Allocative;
use starlark::any::ProvidesStaticType;
use starlark::environment::Methods;
use starlark::eval::Evaluator;
use starlark::values::list::AllocList;
use starlark::values::structs::AllocStruct;
use starlark::values::{
    AllocValue, FrozenValue, Heap, NoSerialize, StarlarkPagablePanic, StarlarkValue, Trace, Value, ValueLike, starlark_value,
};

use super::attribute::AttributeType;
use super::component::{ComponentType, FrozenComponentType, RESERVED};
use super::context::{Context, Made};
use super::convert::{to_data, to_value};
use super::failure::Failure;
use super::{Requirement, Task};
use crate::data::Data;
use crate::diagnostic::{Location, list_names, nearest_name};
use crate::model::Order;

/// A component on a host, with its attributes.
#[derive(Debug, Trace, ProvidesStaticType, Allocative, NoSerialize, StarlarkPagablePanic)]
pub(super) struct Instance<'v> {
    name: String,
    /// How breadcrumbs call it, such as `User(joe)`.
    label: String,
    /// `configure`, and what belongs to the host's platform.
    configure: Vec<Value<'v>>,
    /// Declared attributes, then those that `configure` set.
    attributes: RefCell<Vec<(String, Value<'v>)>>,
    parent: RefCell<Option<Value<'v>>>,
    /// The directory of the definition, below the project directory.
    pub(super) directory: String,
    /// Its place in the context's list; the root component has none.
    index: Option<usize>,
    /// `host`, `environment` and `features`, in this order.
    surroundings: (Value<'v>, Value<'v>, Value<'v>),
}

impl fmt::Display for Instance<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{}>", self.name)
    }
}

impl<'v> AllocValue<'v> for Instance<'v> {
    fn alloc_value(self, heap: Heap<'v>) -> Value<'v> {
        heap.alloc_complex_no_freeze(self)
    }
}

starlark::methods_static!(INSTANCE_METHODS = methods::instance_methods);

#[starlark_value(type = "Component", StarlarkTypeRepr, UnpackValue)]
impl<'v> StarlarkValue<'v> for Instance<'v> {
    fn get_methods() -> Option<&'static Methods> {
        Some(INSTANCE_METHODS.methods())
    }

    fn get_attr(&self, attribute: &str, _heap: Heap<'v>) -> Option<Value<'v>> {
        self.attributes.borrow().iter().find(|(name, _)| name == attribute).map(|(_, value)| *value)
    }

    fn dir_attr(&self) -> Vec<String> {
        self.attributes.borrow().iter().map(|(name, _)| name.clone()).collect()
    }

    fn set_attr(&self, attribute: &str, new_value: Value<'v>) -> starlark::Result<()> {
        if RESERVED.contains(&attribute) {
            return Err(Failure::new("E0309", format!("`self.{attribute}` cannot be set")).into());
        }
        let mut attributes = self.attributes.borrow_mut();
        match attributes.iter_mut().find(|(name, _)| name == attribute) {
            Some((_, value)) => *value = new_value,
            None => attributes.push((attribute.to_owned(), new_value)),
        }
        Ok(())
    }
}

impl<'v> Instance<'v> {
    /// What templates see as `component`: the attributes that are plain data.
    pub(super) fn template_fields(&self) -> Vec<(String, Data)> {
        let attributes = self.attributes.borrow();
        let plain = attributes.iter().filter_map(|(name, value)| Some((name.clone(), to_data(*value, name).ok()?)));
        plain.chain([("name".to_owned(), Data::Text(self.name.clone()))]).collect()
    }

    fn new(
        component: &FrozenComponentType,
        attributes: Vec<(String, Value<'v>)>,
        index: Option<usize>,
        context: &Context,
        heap: Heap<'v>,
    ) -> Self {
        let fields = |fields: Vec<(String, Data)>| {
            let fields: Vec<(String, Value<'v>)> = fields.into_iter().map(|(name, data)| (name, to_value(&data, heap))).collect();
            heap.alloc(AllocStruct(fields))
        };
        let platform = context.host_fields().into_iter().find_map(|(name, value)| (name == "platform").then(|| value.to_display()));
        let for_platform = component.platforms.iter().find(|(name, _)| Some(name) == platform.as_ref()).map(|(_, function)| *function);
        Self {
            name: component.name.to_lowercase(),
            label: label(component, &attributes),
            configure: [component.configure].into_iter().chain(for_platform).map(FrozenValue::to_value).collect(),
            attributes: RefCell::new(attributes),
            parent: RefCell::new(None),
            directory: component.info.at.file.rsplit_once('/').map_or(String::new(), |(directory, _)| directory.to_owned()),
            index,
            surroundings: (
                fields(context.host_fields()),
                fields(context.environment_fields()),
                heap.alloc(AllocList(context.features.iter().map(String::as_str))),
            ),
        }
    }
}

/// Makes the root instance and configures it.
pub(super) fn configure_root(task: &Task<'_>, eval: &mut Evaluator<'_, '_, '_>) -> starlark::Result<()> {
    let heap = eval.heap();
    let context = Context::of(eval)?;
    let value = heap.access_owned_frozen_value(&task.component.value);
    let component = value.downcast_ref::<FrozenComponentType>().ok_or_else(|| Failure::new("E0299", "a component is none"))?;
    let mut attributes = Vec::new();
    for ((name, data), (attribute, conversion)) in task.attributes.iter().zip(component.info.attributes.iter().zip(&component.conversions))
    {
        let conversion = conversion.map(FrozenValue::to_value);
        attributes.push((name.clone(), attribute.prepare(data.clone(), conversion, &component.info.at, eval)?));
    }
    let instance = heap.alloc(Instance::new(component, attributes, None, context, heap));
    configure(instance, eval)
}

/// Calls what configures an instance.
fn configure<'v>(value: Value<'v>, eval: &mut Evaluator<'v, '_, '_>) -> starlark::Result<()> {
    let instance = instance_of(value)?;
    let context = Context::of(eval)?;
    context.enter(instance.label.clone());
    for function in &instance.configure {
        eval.eval_function(*function, &[value], &[])?;
    }
    context.leave();
    Ok(())
}

/// The component's name, with the value that was given without a name.
fn label(component: &FrozenComponentType, attributes: &[(String, Value<'_>)]) -> String {
    let positional = attributes.iter().find(|(name, _)| Some(name) == component.info.positional.as_ref());
    match positional.and_then(|(_, value)| value.unpack_str()) {
        Some(text) => format!("{}({})", component.name, text.chars().take(60).collect::<String>()),
        None => component.name.clone(),
    }
}

/// Makes an instance of a component that another one adds.
pub(super) fn create<'v>(
    component: &FrozenComponentType,
    given: &[(String, Value<'v>)],
    eval: &mut Evaluator<'v, '_, '_>,
) -> starlark::Result<Value<'v>> {
    let Some(context) = Context::find(eval) else {
        return Err(super::component::outside("components are used").into());
    };
    let unknown: Vec<&str> = given
        .iter()
        .map(|(name, _)| name.as_str())
        .filter(|name| !component.info.attributes.iter().any(|known| known.name == *name))
        .collect();
    if !unknown.is_empty() {
        return Err(unknown_attributes(component, &unknown).into());
    }
    let heap = eval.heap();
    let mut attributes = Vec::new();
    let mut missing = Vec::new();
    for (attribute, conversion) in component.info.attributes.iter().zip(&component.conversions) {
        let conversion = conversion.map(FrozenValue::to_value);
        let given = given.iter().find(|(name, _)| *name == attribute.name).map(|(_, value)| *value);
        let data = match (given, &attribute.default) {
            // Any value, even one that is not plain.
            (Some(value), _) if attribute.kind == AttributeType::Any && conversion.is_none() => {
                attributes.push((attribute.name.clone(), value));
                continue;
            }
            // What is not set by default can be unset.
            (Some(value), Some(Data::None)) if value.is_none() => Data::None,
            (Some(value), _) => {
                let label = format!("attribute `{}` of `{}`", attribute.name, component.name);
                let data = to_data(value, &label)?;
                attribute.kind.accept(data).map_err(|refusal| Failure::new("E0303", format!("{label} {refusal}")))?
            }
            (None, Some(default)) => default.clone(),
            (None, None) => {
                missing.push(attribute.name.as_str());
                continue;
            }
        };
        attributes.push((attribute.name.clone(), attribute.prepare(data, conversion, &component.info.at, eval)?));
    }
    if !missing.is_empty() {
        let message = format!("`{}` needs {}", component.name, list_names(&missing));
        return Err(Failure::new("E0304", message).note("defined here", component.info.at.clone()).into());
    }
    let label = format!("component `{}`", component.name);
    let index = remember(context, label, Context::caller(eval), None);
    Ok(heap.alloc(Instance::new(component, attributes, Some(index), context, heap)))
}

fn unknown_attributes(component: &FrozenComponentType, unknown: &[&str]) -> Failure {
    let known: Vec<&str> = component.info.attributes.iter().map(|attribute| attribute.name.as_str()).collect();
    let mut failure = Failure::new("E0303", format!("`{}` has no attribute {}", component.name, list_names(unknown)));
    for name in unknown {
        if let Some(nearest) = nearest_name(name, known.iter().copied()) {
            failure = failure.hint(format!("`{name}`: did you mean `{nearest}`?"));
        }
    }
    match (failure.0.hints.is_empty(), known.is_empty()) {
        (true, false) => failure.hint(format!("its attributes are {}", list_names(&known))),
        (true, true) => failure.hint("it has no attributes"),
        (false, _) => failure,
    }
}

/// Writes down that something was made that has to be added.
pub(super) fn remember(context: &Context, label: String, at: Location, declaration: Option<super::steps::Declaration>) -> usize {
    let mut collected = context.collected.borrow_mut();
    collected.made.push(Made { label, at, added: None, declaration });
    collected.made.len() - 1
}

/// Writes down that something made was added; adding twice is an error.
fn mark_added(context: &Context, index: usize, at: &Location) -> Result<Option<super::steps::Declaration>, Failure> {
    let mut collected = context.collected.borrow_mut();
    let made = &mut collected.made[index];
    if let Some(first) = &made.added {
        return Err(Failure::new("E0413", format!("{} was added already", made.label)).note("first added here", first.clone()));
    }
    made.added = Some(at.clone());
    Ok(made.declaration.take())
}

/// Makes a component a part of another one.
fn take<'v>(parent: Value<'v>, what: Value<'v>, at: &Location, context: &Context) -> Result<(), Failure> {
    let Some(child) = what.downcast_ref::<Instance<'v>>() else {
        let failure = Failure::new("E0414", format!("`self.add` wants a step or a component, not `{}`", what.get_type()));
        let uncalled = what.downcast_ref::<FrozenComponentType>().is_some() || what.downcast_ref::<ComponentType<'v>>().is_some();
        return Err(if uncalled { failure.hint("call it: `self.add(Name(...))`") } else { failure });
    };
    let Some(index) = child.index else {
        return Err(Failure::new("E0413", "the outermost component cannot be added"));
    };
    mark_added(context, index, at)?;
    *child.parent.borrow_mut() = Some(parent);
    Ok(())
}

fn instance_of<'v>(value: Value<'v>) -> Result<&'v Instance<'v>, Failure> {
    value.downcast_ref::<Instance<'v>>().ok_or_else(|| Failure::new("E0309", "`self` is not a component"))
}

/// The short name of the host that a definition means: by its short or full name, or by itself, as in `self.host`.
fn named_host<'v>(host: Value<'v>, context: &Context, heap: Heap<'v>) -> Result<String, Failure> {
    let name = match host.unpack_str() {
        Some(name) => name.to_owned(),
        None => match host.get_attr("name", heap).ok().flatten().and_then(Value::unpack_str) {
            Some(name) => name.to_owned(),
            None => return Err(Failure::new("E0402", format!("`host` wants the name of a host, not `{}`", host.get_type()))),
        },
    };
    let hosts = &context.scene.environment.hosts;
    if let Some(known) = context.scene.environment.find_host(&name) {
        return Ok(known.name.clone());
    }
    let failure = Failure::new("E0504", format!("there is no host `{name}` in the environment"));
    Err(match nearest_name(&name, hosts.iter().map(|host| host.name.as_str())) {
        Some(name) => failure.hint(format!("did you mean `{name}`?")),
        None => failure,
    })
}

/// What is asked of a key.
struct Question<'v> {
    host: Option<Value<'v>>,
    strict: bool,
    order: Order,
}

/// The order that a definition names.
fn parse_order(text: &str) -> Result<Order, Failure> {
    match text {
        "after" => Ok(Order::After),
        "before" => Ok(Order::Before),
        "none" => Ok(Order::Free),
        other => Err(Failure::new("E0507", format!("there is no order `{other}`")).hint("orders are `after`, `before` and `none`")),
    }
}

/// Notes a requirement of which only the order is wanted.
fn require_order<'v>(key: &str, question: &Question<'v>, eval: &Evaluator<'v, '_, '_>) -> Result<(), Failure> {
    let Question { host, strict, order } = *question;
    let context = Context::of(eval)?;
    let host = host.map(|host| named_host(host, context, eval.heap())).transpose()?;
    context.require(Requirement { at: Context::caller(eval), key: key.to_owned(), host, strict, order, values: false });
    Ok(())
}

fn require_values<'v>(key: &str, question: &Question<'v>, eval: &Evaluator<'v, '_, '_>) -> Result<(Vec<Value<'v>>, Vec<String>), Failure> {
    let Question { host, strict, order } = *question;
    let context = Context::of(eval)?;
    let host = host.map(|host| named_host(host, context, eval.heap())).transpose()?;
    context.require(Requirement { at: Context::caller(eval), key: key.to_owned(), host: host.clone(), strict, order, values: true });
    let found = context.resources.find(key, host.as_deref());
    if strict && context.resources.find(key, host.as_deref()).next().is_none() {
        context.note_unmet();
    }
    Ok(found.map(|provision| (to_value(&provision.value, eval.heap()), format!("{} on {}", provision.component, provision.host))).unzip())
}

//! Instances: what `self` is inside `configure`.

use std::cell::RefCell;
use std::fmt;

use allocative::Allocative;
use starlark::any::ProvidesStaticType;
use starlark::environment::{Methods, MethodsBuilder};
use starlark::eval::Evaluator;
use starlark::starlark_module;
use starlark::values::list::AllocList;
use starlark::values::none::{NoneOr, NoneType};
use starlark::values::structs::AllocStruct;
use starlark::values::{AllocValue, Heap, NoSerialize, StarlarkPagablePanic, StarlarkValue, Trace, Value, ValueLike, starlark_value};

use super::component::{ComponentType, FrozenComponentType, RESERVED};
use super::context::{Context, Made};
use super::convert::{to_data, to_value};
use super::failure::Failure;
use super::values::{PathValue, StepValue};
use super::{Requirement, Task, add, messages};
use crate::data::Data;
use crate::diagnostic::{Location, list_names, nearest_name};

/// A component on a host, with its attributes.
#[derive(Debug, Trace, ProvidesStaticType, Allocative, NoSerialize, StarlarkPagablePanic)]
pub(super) struct Instance<'v> {
    name: String,
    configure: Value<'v>,
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

starlark::methods_static!(INSTANCE_METHODS = instance_methods);

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
        Self {
            name: component.name.to_lowercase(),
            configure: component.configure.to_value(),
            attributes: RefCell::new(attributes),
            parent: RefCell::new(None),
            directory: component.at.file.rsplit_once('/').map_or(String::new(), |(directory, _)| directory.to_owned()),
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
    let attributes = task.attributes.iter().map(|(name, data)| (name.clone(), to_value(data, heap))).collect();
    let instance = heap.alloc(Instance::new(component, attributes, None, context, heap));
    eval.eval_function(component.configure.to_value(), &[instance], &[])?;
    Ok(())
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
    let unknown: Vec<&str> =
        given.iter().map(|(name, _)| name.as_str()).filter(|name| !component.attributes.iter().any(|known| known.name == *name)).collect();
    if !unknown.is_empty() {
        return Err(unknown_attributes(component, &unknown).into());
    }
    let heap = eval.heap();
    let mut attributes = Vec::new();
    let mut missing = Vec::new();
    for attribute in &component.attributes {
        let value = if let Some((_, value)) = given.iter().find(|(name, _)| *name == attribute.name) {
            let label = format!("attribute `{}` of `{}`", attribute.name, component.name);
            let data = to_data(*value, &label)?;
            let accepted = attribute.kind.accept(data).map_err(|refusal| Failure::new("E0303", format!("{label} {refusal}")))?;
            to_value(&accepted, heap)
        } else if let Some(data) = &attribute.default {
            to_value(data, heap)
        } else {
            missing.push(attribute.name.as_str());
            continue;
        };
        attributes.push((attribute.name.clone(), value));
    }
    if !missing.is_empty() {
        let message = format!("`{}` needs {}", component.name, list_names(&missing));
        return Err(Failure::new("E0304", message).note("defined here", component.at.clone()).into());
    }
    let label = format!("component `{}`", component.name);
    let index = remember(context, label, Context::caller(eval), None);
    Ok(heap.alloc(Instance::new(component, attributes, Some(index), context, heap)))
}

fn unknown_attributes(component: &FrozenComponentType, unknown: &[&str]) -> Failure {
    let known: Vec<&str> = component.attributes.iter().map(|attribute| attribute.name.as_str()).collect();
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

fn instance_of<'v>(value: Value<'v>) -> Result<&'v Instance<'v>, Failure> {
    value.downcast_ref::<Instance<'v>>().ok_or_else(|| Failure::new("E0309", "`self` is not a component"))
}

fn require_values<'v>(
    key: &str,
    host: Option<&str>,
    strict: bool,
    eval: &Evaluator<'v, '_, '_>,
) -> Result<(Vec<Value<'v>>, Vec<String>), Failure> {
    let context = Context::of(eval)?;
    if let Some(host) = host.filter(|host| !context.scene.environment.hosts.iter().any(|known| known.name == **host)) {
        let failure = Failure::new("E0504", format!("there is no host `{host}` in the environment"));
        let nearest = nearest_name(host, context.scene.environment.hosts.iter().map(|host| host.name.as_str()));
        return Err(match nearest {
            Some(name) => failure.hint(format!("did you mean `{name}`?")),
            None => failure,
        });
    }
    context.require(Requirement { at: Context::caller(eval), key: key.to_owned(), host: host.map(str::to_owned), strict });
    let found = context.resources.find(key, host);
    Ok(found.map(|provision| (to_value(&provision.value, eval.heap()), format!("{} on {}", provision.component, provision.host))).unzip())
}

/// The component on a host, as its `configure` function gets it.
///
/// It has its declared attributes with their values, and what stands here. Further attributes can be set, `self.data = ...`,
/// for other functions of the same component and for templates.
#[starlark_module]
fn instance_methods(builder: &mut MethodsBuilder) {
    /// The name of the component, in lower case.
    ///
    /// # Example
    /// ```python
    /// self.log(self.name)
    /// ```
    #[starlark(attribute)]
    fn name<'v>(this: Value<'v>) -> starlark::Result<String> {
        Ok(instance_of(this)?.name.clone())
    }

    /// (struct) The host it is on, see "A host".
    ///
    /// # Example
    /// ```python
    /// self.log("%s is %s" % (self.host.name, self.host.fqdn))
    /// ```
    #[starlark(attribute)]
    fn host<'v>(this: Value<'v>) -> starlark::Result<Value<'v>> {
        Ok(instance_of(this)?.surroundings.0)
    }

    /// (struct) The environment it is in, see "An environment".
    ///
    /// # Example
    /// ```python
    /// level = "warning" if self.environment.name == "prod" else "debug"
    /// self.add(File("log.conf", content = "level = %s\n" % level))
    /// ```
    #[starlark(attribute)]
    fn environment<'v>(this: Value<'v>) -> starlark::Result<Value<'v>> {
        Ok(instance_of(this)?.surroundings.1)
    }

    /// (list of str) The features that the environment chose on this host, sorted: `["jobs", "web"]` for `"shop:web", "shop:jobs"`.
    ///
    /// # Example
    /// ```python
    /// if not self.features or "web" in self.features:
    ///     self.add(Service("web", ["/usr/bin/env", "true"]))
    /// ```
    #[starlark(attribute)]
    fn features<'v>(this: Value<'v>) -> starlark::Result<Value<'v>> {
        Ok(instance_of(this)?.surroundings.2)
    }

    /// (Component or None) The component that added this one; None for the outermost.
    ///
    /// # Example
    /// ```python
    /// self.log("outermost" if self.parent == None else "part of " + self.parent.name)
    /// ```
    #[starlark(attribute)]
    fn parent<'v>(this: Value<'v>, heap: Heap<'v>) -> starlark::Result<Value<'v>> {
        Ok(instance_of(this)?.parent.borrow().unwrap_or_else(|| heap.alloc(NoneType)))
    }

    /// (Component) The outermost component, which the environment names.
    ///
    /// # Example
    /// ```python
    /// self.log(self.root.name)
    /// ```
    #[starlark(attribute)]
    fn root<'v>(this: Value<'v>) -> starlark::Result<Value<'v>> {
        let mut root = this;
        while let Some(parent) = *instance_of(root)?.parent.borrow() {
            root = parent;
        }
        Ok(root)
    }

    /// Adds a step or a component; gives the path, output or component that it stands for.
    ///
    /// A component's `configure` runs at once. Steps take effect in the order in which they are added.
    ///
    /// # Arguments
    /// * `what`: (Step or Component) what a step function or a component gives
    ///
    /// # Returns
    /// (any) what the step stands for, as it says; for a component itself
    ///
    /// # Errors
    /// * `E0412`: a step was made and never added
    /// * `E0413`: it was added already
    /// * `E0414`: it is neither a step nor a component
    ///
    /// # Example
    /// ```python
    /// config = self.add(File("app.conf"))
    /// self.add(Symlink("current.conf", config))
    /// ```
    fn add<'v>(
        this: Value<'v>,
        #[starlark(require = pos)] what: Value<'v>,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<Value<'v>> {
        let instance = instance_of(this)?;
        let context = Context::of(eval)?;
        let at = Context::caller(eval);
        if let Some(step) = what.downcast_ref::<StepValue>() {
            let step_at = context.collected.borrow().made[step.index].at.clone();
            let declaration = mark_added(context, step.index, &at)?;
            let declaration = declaration.ok_or_else(|| Failure::new("E0299", "a step without declaration"))?;
            return Ok(add::add_step(context, instance, declaration, &step_at, eval.heap())?);
        }
        let Some(child) = what.downcast_ref::<Instance<'v>>() else {
            let failure = Failure::new("E0414", format!("`self.add` wants a step or a component, not `{}`", what.get_type()));
            let uncalled = what.downcast_ref::<FrozenComponentType>().is_some() || what.downcast_ref::<ComponentType<'v>>().is_some();
            return Err(if uncalled { failure.hint("call it: `self.add(Name(...))`") } else { failure }.into());
        };
        let Some(index) = child.index else {
            return Err(Failure::new("E0413", "the outermost component cannot be added").into());
        };
        mark_added(context, index, &at)?;
        *child.parent.borrow_mut() = Some(this);
        eval.eval_function(child.configure, &[what], &[])?;
        Ok(what)
    }

    /// Provides a value to whoever requires the key, on any host of the environment.
    ///
    /// # Arguments
    /// * `key`: the key, by custom `<component>:<what>`
    /// * `value`: (any) a plain value: None, bool, int, float, str, list, dict, struct, Path or Address
    ///
    /// # Errors
    /// * `E0401`: the value is not plain
    /// * `E0502`: nobody requires it; a warning
    ///
    /// # Example
    /// ```python
    /// self.provide("web:address", Address(self.host.fqdn, self.port))
    /// ```
    fn provide<'v>(this: Value<'v>, key: &str, value: Value<'v>, eval: &mut Evaluator<'v, '_, '_>) -> starlark::Result<NoneType> {
        instance_of(this)?;
        let data = to_data(value, &format!("the value of resource `{key}`"))?;
        let at = Context::caller(eval);
        Context::of(eval)?.collected.borrow_mut().outcome.provided.push((key.to_owned(), data, at));
        Ok(NoneType)
    }

    /// All values that are provided for the key, sorted by host, component and order of provision.
    ///
    /// The first time it may be empty: everybody is evaluated, then those are evaluated again who would now find something else, until
    /// nothing changes. An error on the way that a missing value explains is not shown.
    ///
    /// # Arguments
    /// * `key`: the key
    /// * `host`: the short name of the only host whose values are wanted
    /// * `strict`: whether it is an error if there is none in the end
    ///
    /// # Returns
    /// (list) the values
    ///
    /// # Errors
    /// * `E0501`: there is none, and `strict`
    /// * `E0503`: the values never come to rest
    /// * `E0504`: there is no such host
    ///
    /// # Example
    /// ```python
    /// backends = ["server %s" % address for address in self.require("backend:address")]
    /// self.add(File("backends", content = "\n".join(backends)))
    /// local = self.require("sidecar:port", host = self.host.name, strict = False)
    /// ```
    fn require<'v>(
        this: Value<'v>,
        key: &str,
        #[starlark(default = NoneOr::None)] host: NoneOr<&str>,
        #[starlark(require = named, default = true)] strict: bool,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<Value<'v>> {
        instance_of(this)?;
        let (values, _) = require_values(key, host.into_option(), strict, eval)?;
        Ok(eval.heap().alloc(AllocList(values)))
    }

    /// The one value that is provided for the key; None if there is none and it is not strict.
    ///
    /// # Arguments
    /// * `key`: the key
    /// * `host`: the short name of the only host whose values are wanted
    /// * `strict`: whether it is an error if there is none in the end
    ///
    /// # Returns
    /// (any) the value
    ///
    /// # Errors
    /// * `E0501`: there is none, and `strict`
    /// * `E0504`: there is no such host
    /// * `E0505`: there are several; the error names who provides them
    ///
    /// # Example
    /// ```python
    /// database = self.require_one("db:address")
    /// self.add(File("db.conf", content = "host = %s\nport = %d\n" % (database.host, database.port)))
    /// ```
    fn require_one<'v>(
        this: Value<'v>,
        key: &str,
        #[starlark(default = NoneOr::None)] host: NoneOr<&str>,
        #[starlark(require = named, default = true)] strict: bool,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<Value<'v>> {
        instance_of(this)?;
        let (values, providers) = require_values(key, host.into_option(), strict, eval)?;
        match values.as_slice() {
            [] if strict => Err(Failure::new("E0501", format!("nothing provides `{key}`")).into()),
            [] => Ok(eval.heap().alloc(NoneType)),
            [value] => Ok(*value),
            several => {
                let failure = Failure::new("E0505", format!("`{key}` is provided {} times, `require_one` wants one", several.len()));
                Err(failure
                    .hint(format!("it is provided by {}; name the host with `host = ...`, or use `self.require`", list_names(&providers)))
                    .into())
            }
        }
    }

    /// The immutable place of a file in the component's own tree: what services use.
    ///
    /// # Arguments
    /// * `path`: the file's path in the tree; the tree itself if not given
    ///
    /// # Errors
    /// * `E0403`: the path is absolute or leads outside
    ///
    /// # Example
    /// ```python
    /// self.add(File("etc/include.conf", content = "x = 1\n"))
    /// self.add(File("etc/main.conf", content = "include %s\n" % self.path("etc/include.conf")))
    /// ```
    fn path<'v>(this: Value<'v>, #[starlark(default = "")] path: &str, eval: &mut Evaluator<'v, '_, '_>) -> starlark::Result<PathValue> {
        instance_of(this)?;
        let tree = Context::of(eval)?.tree();
        if path.is_empty() {
            return Ok(PathValue(tree));
        }
        Ok(PathValue(tree.join(path).map_err(|error| Failure::new("E0403", error.to_string()))?))
    }

    /// The stable path of a file, `<root>/profiles/<profile>/current/<component>/<path>`: for people and cron.
    ///
    /// It stays the same when the generation changes, so what reads it all the time sees a newer file under it; services do better with
    /// `self.path`.
    ///
    /// # Arguments
    /// * `path`: the file's path in the tree; the tree itself if not given
    ///
    /// # Errors
    /// * `E0403`: the path is absolute or leads outside
    ///
    /// # Example
    /// ```python
    /// self.add(File("bin/report", content = "#!/bin/sh\n", mode = 0o755))
    /// self.log("run " + self.current("bin/report"))
    /// ```
    fn current<'v>(this: Value<'v>, #[starlark(default = "")] path: &str, eval: &mut Evaluator<'v, '_, '_>) -> starlark::Result<String> {
        instance_of(this)?;
        let context = Context::of(eval)?;
        let base = format!("{}/profiles/{}/current/{}", context.scene.root, context.scene.profile, context.component);
        if path.is_empty() {
            return Ok(base);
        }
        let path: sarsen_store::RelPath =
            path.parse().map_err(|error: sarsen_store::InvalidPath| Failure::new("E0403", error.to_string()))?;
        Ok(format!("{base}/{path}"))
    }

    /// The path of a state directory that was added before.
    ///
    /// # Arguments
    /// * `name`: the state directory's name
    ///
    /// # Errors
    /// * `E0415`: the component has no such state directory
    ///
    /// # Example
    /// ```python
    /// self.add(StateDirectory("data"))
    /// self.log(str(self.state("data") / "app.db"))
    /// ```
    fn state<'v>(this: Value<'v>, name: &str, eval: &mut Evaluator<'v, '_, '_>) -> starlark::Result<PathValue> {
        instance_of(this)?;
        let context = Context::of(eval)?;
        let path = context.state_path(name);
        let collected = context.collected.borrow();
        let declared: Vec<&str> = collected.names.keys().filter(|(kind, _)| *kind == add::STATE).map(|(_, name)| name.as_str()).collect();
        if !declared.contains(&name) {
            let failure = Failure::new("E0415", format!("there is no state directory `{name}`"));
            let hint = nearest_name(name, declared)
                .map_or_else(|| format!("add it before: `self.add(StateDirectory(\"{name}\"))`"), |name| format!("did you mean `{name}`?"));
            return Err(failure.hint(hint).into());
        }
        Ok(PathValue(crate::data::TargetPath { base: path, object: None, rest: None }))
    }

    /// The text of a file: beside the definition, or of the project as `//lib/NAME`.
    ///
    /// # Arguments
    /// * `path`: the file
    ///
    /// # Errors
    /// * `E0426`, `E0427`: it lies outside of the project, or does not exist
    /// * `E0603`: it is not UTF-8
    ///
    /// # Example
    /// ```python
    /// lines = self.source("app.conf").splitlines()
    /// self.log("%d lines" % len(lines))
    /// ```
    fn source<'v>(this: Value<'v>, path: &str, eval: &mut Evaluator<'v, '_, '_>) -> starlark::Result<String> {
        let instance = instance_of(this)?;
        let context = Context::of(eval)?;
        let found = add::find_file(context, &instance.directory, path)?;
        let text = context.scene.snapshot.text(&found).ok_or_else(|| Failure::new("E0603", format!("`{found}` is not UTF-8 text")))?;
        Ok(text.to_owned())
    }

    /// Writes a message that `sarsen show` shows with the component; `print` does the same.
    ///
    /// Of the messages of the last evaluation at most 1,000 are kept, each of at most 4 KiB.
    ///
    /// # Arguments
    /// * `message`: (any) the message
    ///
    /// # Example
    /// ```python
    /// self.log("listening on %d" % self.port)
    /// ```
    fn log<'v>(
        this: Value<'v>,
        #[starlark(require = pos)] message: Value<'v>,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<NoneType> {
        instance_of(this)?;
        messages::push(&mut Context::of(eval)?.collected.borrow_mut().outcome.messages, &message.to_str());
        Ok(NoneType)
    }

    /// Ends the evaluation of this component with an error.
    ///
    /// # Arguments
    /// * `message`: what is wrong
    ///
    /// # Errors
    /// * `E0206`: always
    ///
    /// # Example
    /// ```python
    /// if self.port < 1024:
    ///     self.fail("port %d needs root" % self.port)
    /// ```
    fn fail<'v>(this: Value<'v>, #[starlark(require = pos)] message: &str) -> starlark::Result<NoneType> {
        instance_of(this)?;
        Err(Failure::new("E0206", message).into())
    }
}

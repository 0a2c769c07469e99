//! What definitions can do with `self`, and the texts of the language reference about it.

use starlark::environment::MethodsBuilder;
use starlark::eval::Evaluator;
use starlark::starlark_module;
use starlark::values::list::AllocList;
use starlark::values::none::{NoneOr, NoneType};
use starlark::values::{Heap, Value, ValueLike};

use super::{Question, configure, instance_of, mark_added, parse_order, require_order, require_values, take};
use crate::diagnostic::{Diagnostic, list_names, nearest_name};
use crate::eval::context::Context;
use crate::eval::convert::to_data;
use crate::eval::failure::Failure;
use crate::eval::values::{PathValue, StepValue};
use crate::eval::{add, messages};
use crate::model::Order;

/// The component on a host, as its `configure` function gets it.
///
/// It has its declared attributes with their values, and what stands here. Further attributes can be set, `self.data = ...`,
/// for other functions of the same component and for templates.
#[starlark_module]
pub(super) fn instance_methods(builder: &mut MethodsBuilder) {
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
            context.enter_step(&step.label);
            let declaration = mark_added(context, step.index, &at)?;
            let declaration = declaration.ok_or_else(|| Failure::new("E0299", "a step without declaration"))?;
            let value = add::add_step(context, instance, declaration, &step_at, eval.heap())?;
            context.leave();
            return Ok(value);
        }
        take(this, what, &at, context)?;
        configure(what, eval)?;
        Ok(what)
    }

    /// Evaluates a component without adding it: to read what it sets.
    ///
    /// Its steps and what it provides are dropped, so paths of its files lead nowhere; what it requires counts.
    ///
    /// # Arguments
    /// * `what`: (Component) what a component gives
    ///
    /// # Returns
    /// (Component) the component
    ///
    /// # Errors
    /// * `E0413`: it was added or evaluated already
    /// * `E0414`: it is no component
    ///
    /// # Example
    /// ```python
    /// def configure_ports(self):
    ///     self.first = self.base + 1
    ///
    /// Ports = component(configure = configure_ports, attributes = {"base": attribute(int)})
    ///
    /// def configure(self):
    ///     self.log(str(self.evaluate(Ports(base = 8000)).first))
    ///
    /// Web = component(configure = configure)
    /// ```
    fn evaluate<'v>(
        this: Value<'v>,
        #[starlark(require = pos)] what: Value<'v>,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<Value<'v>> {
        let context = Context::of(eval)?;
        take(this, what, &Context::caller(eval), context)?;
        let mark = context.mark();
        configure(what, eval)?;
        context.rewind(mark);
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
    /// * `host`: (str or host) the only host whose values are wanted: its name, or such as `self.host`
    /// * `strict`: whether it is an error if there is none in the end
    /// * `order`: `"after"`: this component comes after those that provide it; `"before"`: before them; `"none"`: only the values matter
    ///
    /// # Returns
    /// (list) the values
    ///
    /// # Errors
    /// * `E0501`: there is none, and `strict`
    /// * `E0503`: the values never come to rest
    /// * `E0504`: there is no such host
    /// * `E0506`: components wait for each other in a circle
    /// * `E0507`: there is no such order
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
        #[starlark(default = NoneOr::None)] host: NoneOr<Value<'v>>,
        #[starlark(require = named, default = true)] strict: bool,
        #[starlark(require = named, default = "after")] order: &str,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<Value<'v>> {
        instance_of(this)?;
        let (values, _) = require_values(key, &Question { host: host.into_option(), strict, order: parse_order(order)? }, eval)?;
        Ok(eval.heap().alloc(AllocList(values)))
    }

    /// The one value that is provided for the key; None if there is none and it is not strict.
    ///
    /// # Arguments
    /// * `key`: the key
    /// * `host`: (str or host) the only host whose values are wanted: its name, or such as `self.host`
    /// * `strict`: whether it is an error if there is none in the end
    /// * `order`: who comes first, as for `self.require`
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
        #[starlark(default = NoneOr::None)] host: NoneOr<Value<'v>>,
        #[starlark(require = named, default = true)] strict: bool,
        #[starlark(require = named, default = "after")] order: &str,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<Value<'v>> {
        instance_of(this)?;
        let (values, providers) = require_values(key, &Question { host: host.into_option(), strict, order: parse_order(order)? }, eval)?;
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

    /// Comes after whoever provides the key, whatever the values are.
    ///
    /// Components of a host are activated in this order: hooks, services and health checks of what comes first come first. Whoever provides
    /// the key itself is a peer of the others who do, and comes neither before nor after them because of it.
    ///
    /// # Arguments
    /// * `key`: the key
    /// * `host`: (str or host) the only host that matters: its name, or such as `self.host`
    /// * `strict`: whether it is an error if nobody provides it
    ///
    /// # Errors
    /// * `E0501`: nobody provides it, and `strict`
    /// * `E0504`: there is no such host
    /// * `E0506`: components wait for each other in a circle
    ///
    /// # Example
    /// ```python
    /// self.after("maintenance", strict = False)
    /// ```
    fn after<'v>(
        this: Value<'v>,
        key: &str,
        #[starlark(default = NoneOr::None)] host: NoneOr<Value<'v>>,
        #[starlark(require = named, default = true)] strict: bool,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<NoneType> {
        instance_of(this)?;
        require_order(key, &Question { host: host.into_option(), strict, order: Order::After }, eval)?;
        Ok(NoneType)
    }

    /// Comes before whoever provides the key, whatever the values are.
    ///
    /// One component that comes before and another that comes after the same key have everything between them that provides it.
    ///
    /// # Arguments
    /// * `key`: the key
    /// * `host`: (str or host) the only host that matters: its name, or such as `self.host`
    /// * `strict`: whether it is an error if nobody provides it
    ///
    /// # Errors
    /// * `E0501`: nobody provides it, and `strict`
    /// * `E0504`: there is no such host
    /// * `E0506`: components wait for each other in a circle
    ///
    /// # Example
    /// ```python
    /// self.before("maintenance", strict = False)
    /// ```
    fn before<'v>(
        this: Value<'v>,
        key: &str,
        #[starlark(default = NoneOr::None)] host: NoneOr<Value<'v>>,
        #[starlark(require = named, default = true)] strict: bool,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<NoneType> {
        instance_of(this)?;
        require_order(key, &Question { host: host.into_option(), strict, order: Order::Before }, eval)?;
        Ok(NoneType)
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

    /// Warns of something; the evaluation goes on.
    ///
    /// # Arguments
    /// * `message`: what is doubtful
    ///
    /// # Errors
    /// * `E0310`: always, as a warning
    ///
    /// # Example
    /// ```python
    /// if self.port < 1024:
    ///     self.warn("port %d needs root" % self.port)
    /// ```
    fn warn<'v>(this: Value<'v>, #[starlark(require = pos)] message: &str, eval: &mut Evaluator<'v, '_, '_>) -> starlark::Result<NoneType> {
        instance_of(this)?;
        let at = Context::caller(eval);
        Context::of(eval)?.report(Diagnostic::new("E0310", messages::clean(message)).warning().at(at));
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

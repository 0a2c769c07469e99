//! `component(...)`: what a component is before it is an instance.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt;

use allocative::Allocative;
use starlark::any::ProvidesStaticType;
use starlark::environment::GlobalsBuilder;
use starlark::eval::{Arguments, Evaluator};
use starlark::starlark_module;
use starlark::values::dict::DictRef;
use starlark::values::list::UnpackList;
use starlark::values::none::NoneOr;
use starlark::values::{
    Freeze, FreezeError, FreezeResult, Freezer, FrozenValue, NoSerialize, StarlarkPagablePanic, StarlarkValue, Trace, Value, starlark_value,
};

use super::attribute::{AttributeInfo, parse_attributes};
use super::context::Context;
use super::failure::{Failure, location_of};
use super::instance;
use crate::diagnostic::Location;

/// Names that `self` has already.
pub(super) const RESERVED: [&str; 22] = [
    "add",
    "after",
    "before",
    "current",
    "environment",
    "evaluate",
    "fail",
    "features",
    "host",
    "log",
    "name",
    "parent",
    "path",
    "provide",
    "require",
    "require_one",
    "root",
    "source",
    "state",
    "warn",
    "configure",
    "self",
];

/// A component while its module is evaluated.
#[derive(Debug, Trace, ProvidesStaticType, Allocative, NoSerialize, StarlarkPagablePanic)]
pub(super) struct ComponentType<'v> {
    #[trace(unsafe_ignore)]
    name: RefCell<Option<String>>,
    configure: Value<'v>,
    /// By attribute, in their order: what turns its values into others.
    conversions: Vec<Option<Value<'v>>>,
    /// By platform: what configures it further there.
    platforms: Vec<(String, Value<'v>)>,
    #[trace(unsafe_ignore)]
    #[allocative(skip)]
    info: Info,
}

/// A component, ready for use.
#[derive(Debug, ProvidesStaticType, Allocative, NoSerialize, StarlarkPagablePanic)]
pub(super) struct FrozenComponentType {
    /// The variable it was bound to.
    pub(super) name: String,
    pub(super) configure: FrozenValue,
    pub(super) conversions: Vec<Option<FrozenValue>>,
    pub(super) platforms: Vec<(String, FrozenValue)>,
    #[allocative(skip)]
    pub(super) info: Info,
}

/// What is known of a component without evaluating anything of it.
#[derive(Debug, Clone)]
pub(crate) struct Info {
    /// In the order of their writing.
    pub(crate) attributes: Vec<AttributeInfo>,
    /// The attribute that a value without a name is for.
    pub(crate) positional: Option<String>,
    /// The features that environments can choose from; nothing if it does not say.
    pub(crate) features: Option<Vec<String>>,
    /// The platforms that it has something extra for.
    pub(crate) platforms: Vec<String>,
    /// What it is for.
    pub(crate) doc: String,
    /// Where `component(...)` stands.
    pub(crate) at: Location,
}

starlark::starlark_complex_values!(ComponentType);

impl fmt::Display for ComponentType<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<component {}>", self.name.borrow().as_deref().unwrap_or("without a name"))
    }
}

impl fmt::Display for FrozenComponentType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<component {}>", self.name)
    }
}

impl Freeze for ComponentType<'_> {
    type Frozen = FrozenComponentType;

    fn freeze(self, freezer: &Freezer<'_>) -> FreezeResult<FrozenComponentType> {
        let nameless = || {
            FreezeError::new("this component is not bound to a name".to_owned())
                .context(&format!("{}:{}", self.info.at.line, self.info.at.column))
        };
        Ok(FrozenComponentType {
            name: self.name.into_inner().ok_or_else(nameless)?,
            configure: self.configure.freeze(freezer)?,
            conversions: self.conversions.freeze(freezer)?,
            platforms: self.platforms.freeze(freezer)?,
            info: self.info,
        })
    }
}

#[starlark_value(type = "component")]
impl<'v> StarlarkValue<'v> for ComponentType<'v> {
    type Canonical = FrozenComponentType;

    fn export_as(&self, variable_name: &str, _eval: &mut Evaluator<'v, '_, '_>) -> starlark::Result<()> {
        self.name.borrow_mut().get_or_insert_with(|| variable_name.to_owned());
        Ok(())
    }

    fn invoke(&self, _me: Value<'v>, _args: &Arguments<'v, '_>, _eval: &mut Evaluator<'v, '_, '_>) -> starlark::Result<Value<'v>> {
        Err(outside("components are used").into())
    }
}

#[starlark_value(type = "component")]
impl<'v> StarlarkValue<'v> for FrozenComponentType {
    type Canonical = Self;

    fn invoke(&self, _me: Value<'v>, args: &Arguments<'v, '_>, eval: &mut Evaluator<'v, '_, '_>) -> starlark::Result<Value<'v>> {
        let mut given: Vec<(String, Value<'v>)> =
            args.names_map()?.iter().map(|(name, value)| (name.as_str().to_owned(), *value)).collect();
        let positional: Vec<Value<'v>> = args.positions(eval.heap())?.collect();
        match (positional.as_slice(), &self.info.positional) {
            ([], _) => {}
            ([value], Some(name)) if given.iter().all(|(known, _)| known != name) => given.insert(0, (name.clone(), *value)),
            ([_], Some(name)) => return Err(Failure::new("E0303", format!("`{}` gets `{name}` twice", self.name)).into()),
            (_, known) => {
                let failure = Failure::new("E0303", format!("`{}` cannot have {} without a name", self.name, count(positional.len())));
                return Err(match known {
                    Some(name) => failure.hint(format!("the first value is `{name}`, the others are given by name")),
                    None => failure.hint("give attributes by name: `NAME = value`"),
                }
                .into());
            }
        }
        instance::create(self, &given, eval)
    }
}

/// Says that something is possible inside `configure` only.
pub(super) fn outside(what: &str) -> Failure {
    Failure::new("E0301", format!("{what} inside `configure` functions only"))
        .hint("move this into the function that is given as `configure = ...`")
}

#[starlark_module]
pub(super) fn builtins(builder: &mut GlobalsBuilder) {
    /// A component: how it is configured, and with which attributes.
    ///
    /// Bound to a name at the top level of `components/*/component.star` it is what environments call by the lower-case of that
    /// name. Any component can be called inside of `configure`, with attributes by name, and given to `self.add`.
    ///
    /// # Arguments
    /// * `configure`: (function) called with `self`; may run several times, until what it requires no longer changes
    /// * `attributes`: (dict of attribute) its attributes by name
    /// * `positional`: the attribute that a value without a name is for: `User("joe")`
    /// * `features`: the features that environments can choose from; those who choose none get all. If not given, any can be chosen
    /// * `platforms`: (dict of function) by platform: what is called with `self` after `configure`, where the host has that platform
    /// * `doc`: what it is for, shown by `sarsen explain`
    ///
    /// # Returns
    /// (component) the component
    ///
    /// # Errors
    /// * `E0302`: an argument has the wrong type, or an attribute a name that `self` has already
    /// * `E0305`: not at the top level of a file, or not bound to a name
    /// * `E0306`, `E0307`: in environments the name is none, or there are two of it
    ///
    /// # Example
    /// ```python
    /// def configure_user(self):
    ///     self.add(File("users/" + self.login, content = self.login))
    ///
    /// User = component(configure = configure_user, attributes = {"login": attribute(str)}, positional = "login")
    ///
    /// def configure(self):
    ///     self.add(User("joe"))
    ///     self.add(User("jane"))
    ///
    /// def configure_debian(self):
    ///     self.add(Requirement(program = "dpkg"))
    ///
    /// Users = component(configure = configure, platforms = {"debian12": configure_debian}, features = ["web"], doc = "accounts")
    /// ```
    fn component<'v>(
        #[starlark(require = named)] configure: Value<'v>,
        #[starlark(require = named)] attributes: Option<Value<'v>>,
        #[starlark(require = named, default = NoneOr::None)] positional: NoneOr<&str>,
        #[starlark(require = named)] features: Option<UnpackList<String>>,
        #[starlark(require = named)] platforms: Option<Value<'v>>,
        #[starlark(require = named, default = "")] doc: &str,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<Value<'v>> {
        if Context::find(eval).is_some() {
            return Err(Failure::new("E0305", "components are defined at the top level of a file").into());
        }
        checked_function(configure, "`configure`")?;
        let (attributes, conversions) =
            attributes.filter(|value| !value.is_none()).map_or_else(|| Ok((Vec::new(), Vec::new())), parse_attributes)?;
        let positional = positional.into_option().map(str::to_owned);
        if let Some(name) = positional.as_ref().filter(|name| !attributes.iter().any(|attribute| attribute.name == **name)) {
            return Err(Failure::new("E0302", format!("`positional` names `{name}`, which is not an attribute")).into());
        }
        let features = features.map(|features| checked_features(features.items)).transpose()?;
        let platforms = platforms.filter(|value| !value.is_none()).map_or_else(|| Ok(Vec::new()), parse_platforms)?;
        let at = eval
            .call_stack_top_location()
            .map(|span| location_of(&span))
            .ok_or_else(|| Failure::new("E0305", "components are defined in files"))?;
        let names = platforms.iter().map(|(name, _)| name.clone()).collect();
        let info = Info { attributes, positional, features, platforms: names, doc: doc.to_owned(), at };
        Ok(eval.heap().alloc(ComponentType { name: RefCell::new(None), configure, conversions, platforms, info }))
    }
}

fn count(values: usize) -> String {
    if values == 1 { "a value".to_owned() } else { format!("{values} values") }
}

fn checked_function(value: Value<'_>, what: &str) -> Result<(), Failure> {
    if value.get_type() == "function" {
        return Ok(());
    }
    Err(Failure::new("E0302", format!("{what} wants a function, not `{}`", value.get_type())))
}

fn checked_features(features: Vec<String>) -> Result<Vec<String>, Failure> {
    if let Some(name) = features.iter().find(|name| !crate::environment::is_name(name)) {
        return Err(Failure::new("E0302", format!("`{name}` cannot be the name of a feature")).hint("names are made of `A-Za-z0-9._-`"));
    }
    // As environments have them: sorted, each once.
    Ok(features.into_iter().collect::<BTreeSet<_>>().into_iter().collect())
}

fn parse_platforms(value: Value<'_>) -> Result<Vec<(String, Value<'_>)>, Failure> {
    let Some(dict) = DictRef::from_value(value) else {
        return Err(Failure::new("E0302", format!("`platforms` wants a dict, not `{}`", value.get_type())));
    };
    let entry = |(name, function): (Value<'_>, _)| {
        let name = name.unpack_str().ok_or_else(|| Failure::new("E0302", "the keys of `platforms` are strings"))?.to_owned();
        checked_function(function, &format!("platform `{name}`"))?;
        Ok((name, function))
    };
    dict.iter().map(entry).collect()
}

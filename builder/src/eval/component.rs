//! `component(...)` and `attribute(...)`: what a component is before it is an instance.

use std::cell::RefCell;
use std::fmt;

use allocative::Allocative;
use starlark::any::ProvidesStaticType;
use starlark::environment::GlobalsBuilder;
use starlark::eval::{Arguments, Evaluator};
use starlark::values::dict::DictRef;
use starlark::values::{
    Freeze, FreezeError, FreezeResult, Freezer, FrozenValue, NoSerialize, StarlarkPagablePanic, StarlarkValue, Trace, Value, ValueLike,
    starlark_value,
};
use starlark::{starlark_module, starlark_simple_value};

use super::context::Context;
use super::convert::to_data;
use super::failure::{Failure, location_of};
use super::instance;
use crate::data::Data;
use crate::diagnostic::Location;

/// Names that `self` has already.
pub(super) const RESERVED: [&str; 18] = [
    "add",
    "current",
    "environment",
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
    "configure",
    "self",
];

/// The type of an attribute's values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AttributeType {
    Str,
    Int,
    Bool,
    Float,
    List,
    Dict,
    Address,
}

impl AttributeType {
    fn name(self) -> &'static str {
        match self {
            Self::Str => "str",
            Self::Int => "int",
            Self::Bool => "bool",
            Self::Float => "float",
            Self::List => "list",
            Self::Dict => "dict",
            Self::Address => "Address",
        }
    }

    fn parse(name: &str) -> Option<Self> {
        [Self::Str, Self::Int, Self::Bool, Self::Float, Self::List, Self::Dict, Self::Address].into_iter().find(|kind| kind.name() == name)
    }

    /// Takes a value of this type; a whole number is a float too, nothing else is converted.
    ///
    /// Errors: what is wrong, to be put after the attribute's name.
    pub(crate) fn accept(self, data: Data) -> Result<Data, String> {
        match (self, data) {
            (Self::Str, data @ Data::Text(_))
            | (Self::Int, data @ Data::Int(_))
            | (Self::Bool, data @ Data::Bool(_))
            | (Self::Float, data @ Data::Float(_))
            | (Self::List, data @ Data::List(_))
            | (Self::Dict, data @ Data::Dict(_))
            | (Self::Address, data @ Data::Address(_)) => Ok(data),
            #[expect(clippy::cast_precision_loss, reason = "what people write as a whole number is far below 2^53")]
            (Self::Float, Data::Int(value)) => Ok(Data::Float(value as f64)),
            (wanted, data) => Err(format!("wants {}, not {} `{}`", wanted.name(), data.type_name(), shorten(&data))),
        }
    }
}

fn shorten(data: &Data) -> String {
    let text = if let Data::Text(text) = data { format!("{text:?}") } else { data.to_display() };
    if text.chars().count() > 60 { format!("{}...", text.chars().take(57).collect::<String>()) } else { text }
}

/// One attribute of a component.
#[derive(Debug, Clone)]
pub(crate) struct AttributeInfo {
    pub(crate) name: String,
    pub(crate) kind: AttributeType,
    pub(crate) default: Option<Data>,
}

/// What `attribute(...)` gives: an attribute without its name.
#[derive(Debug, Clone, ProvidesStaticType, Allocative, NoSerialize, StarlarkPagablePanic)]
pub(super) struct AttributeValue {
    #[allocative(skip)]
    kind: AttributeType,
    #[allocative(skip)]
    default: Option<Data>,
}
starlark_simple_value!(AttributeValue);

impl fmt::Display for AttributeValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "attribute({})", self.kind.name())
    }
}

#[expect(clippy::elidable_lifetime_names, reason = "the macro wants the name")]
#[starlark_value(type = "attribute")]
impl<'v> StarlarkValue<'v> for AttributeValue {}

/// The type of secret attributes, which do not exist yet.
#[derive(Debug, Clone, ProvidesStaticType, Allocative, NoSerialize, StarlarkPagablePanic)]
struct SecretType;
starlark_simple_value!(SecretType);

impl fmt::Display for SecretType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("secret")
    }
}

#[expect(clippy::elidable_lifetime_names, reason = "the macro wants the name")]
#[starlark_value(type = "secret")]
impl<'v> StarlarkValue<'v> for SecretType {}

/// A component while its module is evaluated.
#[derive(Debug, Trace, ProvidesStaticType, Allocative, NoSerialize, StarlarkPagablePanic)]
pub(super) struct ComponentType<'v> {
    #[trace(unsafe_ignore)]
    name: RefCell<Option<String>>,
    configure: Value<'v>,
    #[trace(unsafe_ignore)]
    #[allocative(skip)]
    attributes: Vec<AttributeInfo>,
    #[trace(unsafe_ignore)]
    #[allocative(skip)]
    at: Location,
}

/// A component, ready for use.
#[derive(Debug, ProvidesStaticType, Allocative, NoSerialize, StarlarkPagablePanic)]
pub(super) struct FrozenComponentType {
    /// The variable it was bound to.
    pub(super) name: String,
    pub(super) configure: FrozenValue,
    #[allocative(skip)]
    pub(super) attributes: Vec<AttributeInfo>,
    #[allocative(skip)]
    pub(super) at: Location,
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
            FreezeError::new("this component is not bound to a name".to_owned()).context(&format!("{}:{}", self.at.line, self.at.column))
        };
        Ok(FrozenComponentType {
            name: self.name.into_inner().ok_or_else(nameless)?,
            configure: self.configure.freeze(freezer)?,
            attributes: self.attributes,
            at: self.at,
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
        args.no_positional_args(eval.heap())?;
        let given: Vec<(String, Value<'v>)> = args.names_map()?.iter().map(|(name, value)| (name.as_str().to_owned(), *value)).collect();
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
    /// The type of attributes whose values are secrets; refused until there are secrets.
    const secret: SecretType = SecretType;

    /// An attribute of a component: its type, its default, what it is for.
    ///
    /// Every value is checked against the type, wherever it comes from; a whole number is a float too, nothing else is converted.
    ///
    /// # Arguments
    /// * `type`: (type) `str`, `int`, `bool`, `float`, `list`, `dict` or `Address`
    /// * `default`: (any) the value where nothing else is given; without a default the attribute is required
    /// * `doc`: what it is for
    ///
    /// # Returns
    /// (attribute) for `attributes` of `component`
    ///
    /// # Errors
    /// * `E0302`: the type is none, or the default is not of the type
    /// * `E0308`: the type is `secret`
    ///
    /// # Example
    /// ```python
    /// def configure(self):
    ///     self.add(File("port", content = str(self.port)))
    ///
    /// Web = component(
    ///     configure = configure,
    ///     attributes = {
    ///         "port": attribute(int, default = 8080, doc = "where it listens"),
    ///         "admin": attribute(str, default = None, doc = "whom to write to; nobody if not set"),
    ///     },
    /// )
    /// ```
    fn attribute<'v>(
        #[starlark(require = pos)] r#type: Value<'v>,
        #[starlark(require = named)] default: Option<Value<'v>>,
        #[starlark(require = named, default = "")] doc: &str,
    ) -> starlark::Result<AttributeValue> {
        let _ = doc;
        if r#type.downcast_ref::<SecretType>().is_some() {
            return Err(Failure::new("E0308", "secrets are not available in this version")
                .hint("keep the value out of the project: let the service read it from a file on the host")
                .into());
        }
        let Some(kind) = AttributeType::parse(&r#type.to_str()) else {
            let failure = Failure::new("E0302", format!("`{}` is not a type of attributes", r#type.to_str()));
            return Err(failure.hint("types are `str`, `int`, `bool`, `float`, `list`, `dict` and `Address`").into());
        };
        let default = match default.filter(|value| !value.is_none()) {
            Some(value) => {
                let data = to_data(value, "the default")?;
                Some(kind.accept(data).map_err(|refusal| Failure::new("E0302", format!("the default {refusal}")))?)
            }
            None => default.map(|_| Data::None),
        };
        Ok(AttributeValue { kind, default })
    }

    /// A component: how it is configured, and with which attributes.
    ///
    /// Bound to a name at the top level of `components/*/component.star` it is what environments call by the lower-case of that
    /// name. Any component can be called inside of `configure`, with attributes by name, and given to `self.add`.
    ///
    /// # Arguments
    /// * `configure`: (function) called with `self`; may run several times, until what it requires no longer changes
    /// * `attributes`: (dict of attribute) its attributes by name
    /// * `doc`: what it is for
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
    /// User = component(configure = configure_user, attributes = {"login": attribute(str)})
    ///
    /// def configure(self):
    ///     self.add(User(login = "joe"))
    ///     self.add(User(login = "jane"))
    ///
    /// Users = component(configure = configure, doc = "accounts")
    /// ```
    fn component<'v>(
        #[starlark(require = named)] configure: Value<'v>,
        #[starlark(require = named)] attributes: Option<Value<'v>>,
        #[starlark(require = named, default = "")] doc: &str,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<Value<'v>> {
        let _ = doc;
        if Context::find(eval).is_some() {
            return Err(Failure::new("E0305", "components are defined at the top level of a file").into());
        }
        if configure.get_type() != "function" {
            return Err(Failure::new("E0302", format!("`configure` wants a function, not `{}`", configure.get_type())).into());
        }
        let attributes = attributes.filter(|value| !value.is_none()).map_or_else(|| Ok(Vec::new()), parse_attributes)?;
        let at = eval
            .call_stack_top_location()
            .map(|span| location_of(&span))
            .ok_or_else(|| Failure::new("E0305", "components are defined in files"))?;
        Ok(eval.heap().alloc(ComponentType { name: RefCell::new(None), configure, attributes, at }))
    }
}

fn parse_attributes(value: Value<'_>) -> Result<Vec<AttributeInfo>, Failure> {
    let Some(dict) = DictRef::from_value(value) else {
        return Err(Failure::new("E0302", format!("`attributes` wants a dict, not `{}`", value.get_type())));
    };
    let mut attributes = Vec::new();
    for (name, value) in dict.iter() {
        let name = name.unpack_str().ok_or_else(|| Failure::new("E0302", "the keys of `attributes` are strings"))?;
        let identifier = name.chars().enumerate().all(|(index, c)| c == '_' || c.is_ascii_alphabetic() || index > 0 && c.is_ascii_digit());
        if name.is_empty() || !identifier {
            return Err(Failure::new("E0302", format!("`{name}` cannot be the name of an attribute"))
                .hint("names are made of letters, digits and `_`"));
        }
        if RESERVED.contains(&name) {
            return Err(Failure::new("E0302", format!("an attribute cannot be called `{name}`: `self.{name}` is something else"))
                .hint("choose another name"));
        }
        let Some(attribute) = value.downcast_ref::<AttributeValue>() else {
            let failure = Failure::new("E0302", format!("attribute `{name}` wants `attribute(...)`, not `{}`", value.get_type()));
            return Err(failure.hint(format!("write `\"{name}\": attribute(str, default = ...)`")));
        };
        attributes.push(AttributeInfo { name: name.to_owned(), kind: attribute.kind, default: attribute.default.clone() });
    }
    Ok(attributes)
}

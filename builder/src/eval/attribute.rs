//! `attribute(...)`: the types of attributes, and how a value becomes one of theirs.

use std::fmt;

use allocative::Allocative;
use either::Either;
use starlark::any::ProvidesStaticType;
use starlark::environment::GlobalsBuilder;
use starlark::eval::Evaluator;
use starlark::values::dict::DictRef;
use starlark::values::{
    Freeze, FreezeResult, Freezer, FrozenValue, NoSerialize, StarlarkPagablePanic, StarlarkValue, Trace, Value, ValueLike, starlark_value,
};
use starlark::{starlark_module, starlark_simple_value};

use super::component::RESERVED;
use super::context::Context;
use super::convert::{to_data, to_value};
use super::failure::Failure;
use crate::data::{Address, Data, TargetPath};
use crate::diagnostic::Location;

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
    Path,
    /// A dict that becomes a record.
    Record,
    /// Any plain value.
    Any,
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
            Self::Path => "Path",
            Self::Record => "record",
            Self::Any => "typing.Any",
        }
    }

    fn parse(written: Value<'_>) -> Option<Self> {
        let known = [Self::Str, Self::Int, Self::Bool, Self::Float, Self::List, Self::Dict, Self::Address, Self::Path, Self::Any];
        let (is_function, written) = (written.get_type() == "function", written.to_str());
        if is_function && written.starts_with("record(") {
            return Some(Self::Record);
        }
        known.into_iter().find(|kind| kind.name() == written)
    }

    /// Takes a value of this type; a whole number is a float too, `host:port` an Address, an absolute path a Path;
    /// nothing else is converted.
    ///
    /// Errors: what is wrong, to be put after the attribute's name.
    pub(crate) fn accept(self, data: Data) -> Result<Data, String> {
        match (self, data) {
            (Self::Str, data @ Data::Text(_))
            | (Self::Int, data @ Data::Int(_))
            | (Self::Bool, data @ Data::Bool(_))
            | (Self::Float, data @ Data::Float(_))
            | (Self::List, data @ Data::List(_))
            | (Self::Dict | Self::Record, data @ Data::Dict(_))
            | (Self::Address, data @ Data::Address(_))
            | (Self::Path, data @ Data::Path(_))
            | (Self::Any, data) => Ok(data),
            (Self::Address, Data::Text(text)) => parse_address(&text).map(Data::Address),
            (Self::Path, Data::Text(text)) => parse_path(text).map(Data::Path),
            #[expect(clippy::cast_precision_loss, reason = "what people write as a whole number is far below 2^53")]
            (Self::Float, Data::Int(value)) => Ok(Data::Float(value as f64)),
            (wanted, data) => Err(format!("wants {}, not {} `{}`", wanted.name(), data.type_name(), shorten(&data))),
        }
    }
}

/// `host:port`; who resolves names puts the addresses in when it is used.
fn parse_address(text: &str) -> Result<Address, String> {
    let parts = text.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse().ok().filter(|port| *port > 0)?)));
    let brackets = |host: &str| host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).map(str::to_owned);
    let (host, port) = parts.ok_or_else(|| format!("wants `host:port`, not `{text}`"))?;
    let host = brackets(host).unwrap_or_else(|| host.to_owned());
    if host.is_empty() || host.chars().any(|c| c.is_whitespace() || "/[]".contains(c)) {
        return Err(format!("wants `host:port`, not `{text}`"));
    }
    Ok(crate::environment::Resolver::default().address(&host, port))
}

fn parse_path(text: String) -> Result<TargetPath, String> {
    let good = text.strip_prefix('/').is_some_and(|rest| rest.parse::<sarsen_store::RelPath>().is_ok());
    if good { Ok(TargetPath { base: text, object: None, rest: None }) } else { Err(format!("wants an absolute path, not `{text}`")) }
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
    /// Whether texts are rendered as templates.
    pub(crate) expand: bool,
    /// What it is for.
    pub(crate) doc: String,
}

impl AttributeInfo {
    /// The type as the definition names it.
    pub(crate) fn type_name(&self) -> &'static str {
        self.kind.name()
    }

    /// The value that `configure` sees: expanded, then converted.
    pub(super) fn prepare<'v>(
        &self,
        data: Data,
        conversion: Option<Value<'v>>,
        definition: &Location,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<Value<'v>> {
        let context = Context::of(eval)?;
        let data = if self.expand { expand(data, context, definition)? } else { data };
        let data = if let Data::Address(address) = data {
            // An address that was written down knows no resolver yet.
            Data::Address(context.scene.environment.resolver.address(&address.host, address.port))
        } else {
            data
        };
        let value = to_value(&data, eval.heap());
        let Some(conversion) = conversion.filter(|_| !value.is_none()) else { return Ok(value) };
        context.enter(format!("attribute({})", self.name));
        let converted = if self.kind == AttributeType::Record {
            let Data::Dict(entries) = &data else { return Ok(value) };
            let fields: Vec<(&str, Value<'v>)> =
                entries.iter().map(|(name, field)| (name.as_str(), to_value(field, eval.heap()))).collect();
            eval.eval_function(conversion, &[], &fields)?
        } else {
            eval.eval_function(conversion, &[value], &[])?
        };
        context.leave();
        Ok(converted)
    }
}

/// Renders a text, or the texts of a list, as templates that see `host` and `environment`.
fn expand(data: Data, context: &Context, definition: &Location) -> Result<Data, Failure> {
    match data {
        Data::Text(text) if text.contains('{') => {
            let directory = definition.file.rsplit_once('/').map_or("", |(directory, _)| directory);
            let names = [("host", context.host_fields()), ("environment", context.environment_fields())];
            let names = Data::Dict(names.into_iter().map(|(name, fields)| (name.to_owned(), Data::Dict(fields))).collect());
            context.templates(directory).render_text(&text, definition, &names).map(Data::Text).map_err(Failure)
        }
        Data::List(values) => values.into_iter().map(|value| expand(value, context, definition)).collect::<Result<_, _>>().map(Data::List),
        other @ (Data::None
        | Data::Bool(_)
        | Data::Int(_)
        | Data::Float(_)
        | Data::Text(_)
        | Data::Dict(_)
        | Data::Path(_)
        | Data::Address(_)) => Ok(other),
    }
}

/// What `attribute(...)` gives: an attribute without its name.
#[derive(Debug, Trace, ProvidesStaticType, Allocative, NoSerialize, StarlarkPagablePanic)]
pub(super) struct AttributeValue<'v> {
    conversion: Option<Value<'v>>,
    #[trace(unsafe_ignore)]
    #[allocative(skip)]
    info: AttributeInfo,
}

/// The same in a file that was loaded.
#[derive(Debug, ProvidesStaticType, Allocative, NoSerialize, StarlarkPagablePanic)]
pub(super) struct FrozenAttributeValue {
    conversion: Option<FrozenValue>,
    #[allocative(skip)]
    info: AttributeInfo,
}

starlark::starlark_complex_values!(AttributeValue);

impl Freeze for AttributeValue<'_> {
    type Frozen = FrozenAttributeValue;

    fn freeze(self, freezer: &Freezer<'_>) -> FreezeResult<FrozenAttributeValue> {
        Ok(FrozenAttributeValue { conversion: self.conversion.freeze(freezer)?, info: self.info })
    }
}

impl fmt::Display for AttributeValue<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "attribute({})", self.info.kind.name())
    }
}

impl fmt::Display for FrozenAttributeValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "attribute({})", self.info.kind.name())
    }
}

#[starlark_value(type = "attribute")]
impl<'v> StarlarkValue<'v> for AttributeValue<'v> {
    type Canonical = FrozenAttributeValue;
}

#[expect(clippy::elidable_lifetime_names, reason = "the macro wants the name")]
#[starlark_value(type = "attribute")]
impl<'v> StarlarkValue<'v> for FrozenAttributeValue {
    type Canonical = Self;
}

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

#[starlark_module]
pub(super) fn builtins(builder: &mut GlobalsBuilder) {
    /// The type of attributes whose values are secrets; refused until there are secrets.
    const secret: SecretType = SecretType;

    /// An attribute of a component: its type, its default, what it is for.
    ///
    /// Every value is checked against the type, wherever it comes from. A whole number is a float too; a text `host:port` becomes an
    /// Address, an absolute path a Path, a dict a record; nothing else is converted, unless `convert` does.
    ///
    /// # Arguments
    /// * `type`: (type) `str`, `int`, `bool`, `float`, `list`, `dict`, `Address`, `"Path"`, a record type, or `typing.Any` for any plain value
    /// * `default`: (any) the value where nothing else is given; without a default the attribute is required
    /// * `convert`: (function) called with a value of the type; what it gives is what `configure` sees. None stays None
    /// * `expand`: whether texts are templates that see `host` and `environment`, the default and others alike
    /// * `doc`: what it is for, shown by `sarsen explain`
    ///
    /// # Returns
    /// (attribute) for `attributes` of `component`
    ///
    /// # Errors
    /// * `E0302`: the type is none, or the default is not of the type
    /// * `E0303`: elsewhere, a value is not of the type
    /// * `E0304`: elsewhere, no value was given
    /// * `E0308`: the type is `secret`
    ///
    /// # Example
    /// ```python
    /// Backend = record(host = str, weight = field(int, 1))
    ///
    /// def configure(self):
    ///     self.log("%s %s %d" % (self.url, self.backend.host, self.listen.port))
    ///
    /// Web = component(
    ///     configure = configure,
    ///     attributes = {
    ///         "listen": attribute(Address, default = "localhost:8080", doc = "where it listens"),
    ///         "url": attribute(str, default = "http://{{ host.fqdn }}/", expand = True),
    ///         "backend": attribute(Backend, default = {"host": "localhost"}),
    ///         "level": attribute(str, default = "info", convert = lambda level: level.upper()),
    ///         "admin": attribute(str, default = None, doc = "whom to write to; nobody if not set"),
    ///     },
    /// )
    /// ```
    fn attribute<'v>(
        #[starlark(require = pos)] r#type: Value<'v>,
        #[starlark(require = named)] default: Option<Value<'v>>,
        #[starlark(require = named)] convert: Option<Value<'v>>,
        #[starlark(require = named, default = false)] expand: bool,
        #[starlark(require = named, default = "")] doc: &str,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<Value<'v>> {
        if r#type.downcast_ref::<SecretType>().is_some() {
            return Err(Failure::new("E0308", "secrets are not available in this version")
                .hint("keep the value out of the project: let the service read it from a file on the host")
                .into());
        }
        let Some(kind) = AttributeType::parse(r#type) else {
            let failure = Failure::new("E0302", format!("`{}` is not a type of attributes", r#type.to_str()));
            let hint = "types are `str`, `int`, `bool`, `float`, `list`, `dict`, `Address`, `\"Path\"`, record types and `typing.Any`";
            return Err(failure.hint(hint).into());
        };
        let conversion = match (kind, convert.filter(|value| !value.is_none())) {
            (AttributeType::Record, None) => Some(r#type),
            (AttributeType::Record, Some(_)) => {
                return Err(Failure::new("E0302", "a record is converted already: give one of the record type and `convert`").into());
            }
            (_, Some(function)) if function.get_type() != "function" => {
                return Err(Failure::new("E0302", format!("`convert` wants a function, not `{}`", function.get_type())).into());
            }
            (_, conversion) => conversion,
        };
        let default = match default.filter(|value| !value.is_none()) {
            Some(value) => {
                let data = to_data(value, "the default")?;
                Some(kind.accept(data).map_err(|refusal| Failure::new("E0302", format!("the default {refusal}")))?)
            }
            None => default.map(|_| Data::None),
        };
        let info = AttributeInfo { name: String::new(), kind, default, expand, doc: doc.to_owned() };
        Ok(eval.heap().alloc(AttributeValue { conversion, info }))
    }
}

/// Attributes with their conversions, in the order of their writing.
type Parsed<'v> = (Vec<AttributeInfo>, Vec<Option<Value<'v>>>);

/// Reads the `attributes` of a component.
pub(super) fn parse_attributes(value: Value<'_>) -> Result<Parsed<'_>, Failure> {
    let Some(dict) = DictRef::from_value(value) else {
        return Err(Failure::new("E0302", format!("`attributes` wants a dict, not `{}`", value.get_type())));
    };
    let (mut attributes, mut conversions) = (Vec::new(), Vec::new());
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
        let (info, conversion) = match AttributeValue::from_value(value) {
            Some(Either::Left(attribute)) => (&attribute.info, attribute.conversion),
            Some(Either::Right(attribute)) => (&attribute.info, attribute.conversion.map(FrozenValue::to_value)),
            None => {
                let failure = Failure::new("E0302", format!("attribute `{name}` wants `attribute(...)`, not `{}`", value.get_type()));
                return Err(failure.hint(format!("write `\"{name}\": attribute(str, default = ...)`")));
            }
        };
        attributes.push(AttributeInfo { name: name.to_owned(), ..info.clone() });
        conversions.push(conversion);
    }
    Ok((attributes, conversions))
}

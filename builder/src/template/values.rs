//! Between template values and plain data, and the filters as the engine calls them.

use std::fmt;
use std::sync::Arc;

use minijinja::value::{Kwargs, Object, ObjectRepr, Rest, ValueKind};
use minijinja::{Environment, Error, ErrorKind, Value};

use crate::data::{Address, Data, NESTING_MAX, TargetPath};
use crate::filters::{Arguments, FILTERS, Filter};

/// Gives an environment all filters and functions that sarsen adds.
pub(super) fn register(environment: &mut Environment<'_>) {
    for filter in FILTERS {
        environment.add_filter(filter.name, move |value: Value, rest: Rest<Value>, named: Kwargs| apply(filter, value, rest, &named));
    }
    environment.add_function("fail", |message: String| -> Result<Value, Error> { Err(Error::new(ErrorKind::InvalidOperation, message)) });
}

fn apply(filter: &Filter, value: Value, rest: Rest<Value>, named: &Kwargs) -> Result<Value, Error> {
    let wrong = |reason: String| Error::new(ErrorKind::InvalidOperation, format!("`{}` {reason}", filter.name));
    let data = |value: &Value| to_data(value, NESTING_MAX).map_err(wrong);
    let mut arguments = Arguments::default();
    for value in std::iter::once(value).chain(rest.0) {
        if value.is_undefined() {
            return Err(Error::from(ErrorKind::UndefinedError));
        }
        arguments.values.push(data(&value)?);
    }
    for name in named.args() {
        arguments.named.insert(name.to_owned(), data(&named.peek::<Value>(name)?)?);
    }
    filter.apply(&arguments).map(|data| to_template(&data)).map_err(wrong)
}

/// A value of a template as plain data.
#[expect(clippy::wildcard_enum_match_arm, reason = "the kinds of values are not exhaustive")]
fn to_data(value: &Value, levels: usize) -> Result<Data, String> {
    if levels == 0 {
        return Err("found values nested too deeply".to_owned());
    }
    if let Some(path) = value.downcast_object_ref::<PathObject>() {
        return Ok(Data::Path(path.0.clone()));
    }
    if let Some(address) = value.downcast_object_ref::<AddressObject>() {
        return Ok(Data::Address(address.0.clone()));
    }
    let elements = || value.try_iter().map_err(|error| error.to_string());
    match value.kind() {
        ValueKind::None => Ok(Data::None),
        ValueKind::Bool => Ok(Data::Bool(value.is_true())),
        ValueKind::Number => match value.as_i64().filter(|_| value.is_integer()) {
            Some(integer) => Ok(Data::Int(integer)),
            None => match f64::try_from(value.clone()) {
                Ok(float) if float.is_finite() && !value.is_integer() => Ok(Data::Float(float)),
                _ => Err(format!("found the number {value}, which no file can hold")),
            },
        },
        ValueKind::String => Ok(Data::Text(value.as_str().unwrap_or_default().to_owned())),
        ValueKind::Seq | ValueKind::Iterable => {
            elements()?.map(|value| to_data(&value, levels - 1)).collect::<Result<_, _>>().map(Data::List)
        }
        ValueKind::Map => {
            let entry = |key: Value| {
                let name = key.as_str().map_or_else(|| key.to_string(), str::to_owned);
                let value = value.get_item(&key).map_err(|error| error.to_string())?;
                Ok::<_, String>((name, to_data(&value, levels - 1)?))
            };
            elements()?.map(entry).collect::<Result<_, _>>().map(Data::Dict)
        }
        kind => Err(format!("cannot use a value of type {kind}")),
    }
}

/// A value as templates see it.
pub(super) fn to_template(data: &Data) -> Value {
    match data {
        Data::None => Value::from(()),
        Data::Bool(value) => Value::from(*value),
        Data::Int(value) => Value::from(*value),
        Data::Float(value) => Value::from(*value),
        Data::Text(text) => Value::from(text.as_str()),
        Data::List(values) => values.iter().map(to_template).collect(),
        Data::Dict(entries) => Value::from_pairs(entries.iter().map(|(key, value)| (key.as_str(), to_template(value)))),
        Data::Path(path) => Value::from_object(PathObject(path.clone())),
        Data::Address(address) => Value::from_object(AddressObject(address.clone())),
    }
}

#[derive(Debug)]
struct PathObject(TargetPath);

impl Object for PathObject {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        match key.as_str()? {
            "name" => Some(Value::from(self.0.name())),
            "parent" => Some(self.0.parent().map_or_else(|| Value::from(()), |parent| Value::from_object(Self(parent)))),
            _ => None,
        }
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

#[derive(Debug)]
struct AddressObject(Address);

impl Object for AddressObject {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        match key.as_str()? {
            "host" => Some(Value::from(self.0.host.as_str())),
            "port" => Some(Value::from(self.0.port)),
            "v4" => self.0.v4.as_deref().map(Value::from),
            "v6" => self.0.v6.as_deref().map(Value::from),
            "connect" => Some(Value::from(self.0.to_string())),
            "listen" => self.0.v4.clone().map(|host| Value::from_object(Self(Address { host, v6: None, ..self.0.clone() }))),
            "listen_v6" => self.0.v6.clone().map(|host| Value::from_object(Self(Address { host, v4: None, ..self.0.clone() }))),
            _ => None,
        }
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

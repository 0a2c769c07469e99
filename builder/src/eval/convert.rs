//! Between Starlark values and plain data.

use starlark::values::dict::{AllocDict, DictRef};
use starlark::values::float::StarlarkFloat;
use starlark::values::list::{AllocList, ListRef};
use starlark::values::none::NoneType;
use starlark::values::record::Record;
use starlark::values::structs::StructRef;
use starlark::values::tuple::TupleRef;
use starlark::values::{Heap, UnpackValue, Value, ValueLike};

use super::failure::Failure;
use super::values::{AddressValue, PathValue};
use crate::data::{Data, NESTING_MAX};

/// The most values inside of one: a list of lists of lists shares what is equal, plain data does not.
pub(super) const VALUES_MAX: usize = 200_000;

/// A value as plain data; `what` names it in the error.
pub(super) fn to_data(value: Value<'_>, what: &str) -> Result<Data, Failure> {
    convert(value, NESTING_MAX, &mut { VALUES_MAX }).map_err(|refusal| Failure::new("E0401", format!("{what} {refusal}")))
}

fn convert(value: Value<'_>, levels: usize, left: &mut usize) -> Result<Data, String> {
    if levels == 0 {
        return Err("is nested too deeply".to_owned());
    }
    *left = left.checked_sub(1).ok_or_else(|| format!("holds more than {VALUES_MAX} values"))?;
    let mut below = |value: Value<'_>| convert(value, levels - 1, left);
    let mut all = |values: &[Value<'_>]| values.iter().map(|value| below(*value)).collect::<Result<_, _>>().map(Data::List);
    if value.is_none() {
        Ok(Data::None)
    } else if let Some(value) = value.unpack_bool() {
        Ok(Data::Bool(value))
    } else if let Some(text) = value.unpack_str() {
        Ok(Data::Text(text.to_owned()))
    } else if let Some(float) = value.downcast_ref::<StarlarkFloat>() {
        if float.0.is_finite() { Ok(Data::Float(float.0)) } else { Err("is a float that is no number".to_owned()) }
    } else if value.get_type() == "int" {
        i64::unpack_value(value).ok().flatten().map(Data::Int).ok_or_else(|| "is an integer beyond 64 bits".to_owned())
    } else if let Some(list) = ListRef::from_value(value) {
        all(list.content())
    } else if let Some(tuple) = TupleRef::from_value(value) {
        all(tuple.content())
    } else if let Some(path) = value.downcast_ref::<PathValue>() {
        Ok(Data::Path(path.0.clone()))
    } else if let Some(address) = value.downcast_ref::<AddressValue>() {
        Ok(Data::Address(address.0.clone()))
    } else if let Some(dict) = DictRef::from_value(value) {
        let key = |key: Value<'_>| {
            key.unpack_str().map(str::to_owned).ok_or_else(|| format!("has a key of type `{}`; keys are strings", key.get_type()))
        };
        dict.iter().map(|(name, value)| Ok((key(name)?, below(value)?))).collect::<Result<_, String>>().map(Data::Dict)
    } else if let Some(fields_of) = StructRef::from_value(value) {
        let converted = fields_of.iter().map(|(name, value)| Ok((name.as_str().to_owned(), below(value)?)));
        converted.collect::<Result<_, String>>().map(Data::Dict)
    } else if let Some(record) = Record::from_value(value) {
        let converted = record.iter().map(|(name, value)| Ok((name.to_owned(), below(value)?)));
        converted.collect::<Result<_, String>>().map(Data::Dict)
    } else {
        Err(format!(
            "holds a value of type `{}`; plain values are None, bool, int, float, str, list, dict, struct, record, Path and Address",
            value.get_type()
        ))
    }
}

/// Plain data as a fresh value.
pub(super) fn to_value<'v>(data: &Data, heap: Heap<'v>) -> Value<'v> {
    match data {
        Data::None => heap.alloc(NoneType),
        Data::Bool(value) => heap.alloc(*value),
        Data::Int(value) => heap.alloc(*value),
        Data::Float(value) => heap.alloc(*value),
        Data::Text(text) => heap.alloc(text.as_str()),
        Data::List(values) => heap.alloc(AllocList(values.iter().map(|value| to_value(value, heap)))),
        Data::Dict(entries) => heap.alloc(AllocDict(entries.iter().map(|(key, value)| (key.as_str(), to_value(value, heap))))),
        Data::Path(path) => heap.alloc(PathValue(path.clone())),
        Data::Address(address) => heap.alloc(AddressValue(address.clone())),
    }
}

/// A text, or what stands for one in text: a path, an address, a whole number.
pub(super) fn to_text(value: Value<'_>, what: &str) -> Result<String, Failure> {
    if let Some(text) = value.unpack_str() {
        return Ok(text.to_owned());
    }
    let speaks = value.downcast_ref::<PathValue>().is_some() || value.downcast_ref::<AddressValue>().is_some() || value.get_type() == "int";
    if speaks {
        Ok(value.to_str())
    } else {
        Err(Failure::new("E0402", format!("{what} wants a string or a path, not `{}`", value.get_type())))
    }
}

/// A list of such texts.
pub(super) fn to_texts(value: Value<'_>, what: &str) -> Result<Vec<String>, Failure> {
    let values = ListRef::from_value(value).map(ListRef::content).or_else(|| TupleRef::from_value(value).map(TupleRef::content));
    let Some(values) = values else {
        let failure = Failure::new("E0402", format!("{what} wants a list, not `{}`", value.get_type()));
        return Err(if value.unpack_str().is_some() {
            failure.hint("every argument is an element of its own: `[\"program\", \"argument\"]`")
        } else {
            failure
        });
    };
    values.iter().enumerate().map(|(index, value)| to_text(*value, &format!("element {} of {what}", index + 1))).collect()
}

/// A dict of such texts.
pub(super) fn to_text_map(value: Value<'_>, what: &str) -> Result<std::collections::BTreeMap<String, String>, Failure> {
    let Some(dict) = DictRef::from_value(value) else {
        return Err(Failure::new("E0402", format!("{what} wants a dict, not `{}`", value.get_type())));
    };
    let entry = |(key, value): (Value<'_>, Value<'_>)| {
        let key = key.unpack_str().ok_or_else(|| Failure::new("E0402", format!("the keys of {what} are strings")))?.to_owned();
        let text = to_text(value, &format!("`{key}` in {what}"))?;
        Ok((key, text))
    };
    dict.iter().map(entry).collect()
}

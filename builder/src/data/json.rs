//! Reading JSON: with the order of keys, without keys that stand twice, with the place of what is wrong.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::{Data, NESTING_MAX, ParseError};

/// The key under which `serde_json` hands over a number as text, when another crate of the program asked for exact numbers.
const EXACT_NUMBER: &str = "$serde_json::private::Number";

/// Reads one JSON value.
pub(crate) fn parse(text: &str) -> Result<Data, ParseError> {
    let refuse = |error: &serde_json::Error| {
        let message = error.to_string();
        let message = message.rsplit_once(" at line ").map_or(message.as_str(), |(message, _)| message).to_owned();
        let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX).max(1);
        ParseError { message, line: count(error.line()), column: count(error.column()) }
    };
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let data = Level(NESTING_MAX).deserialize(&mut deserializer).map_err(|error| refuse(&error))?;
    deserializer.end().map_err(|error| refuse(&error))?;
    Ok(data)
}

/// Reads a value that may hold so many levels.
struct Level(usize);

impl Level {
    fn below<E: Error>(&self) -> Result<Self, E> {
        self.0.checked_sub(1).map(Self).ok_or_else(|| E::custom("nested too deeply"))
    }
}

impl<'de> DeserializeSeed<'de> for Level {
    type Value = Data;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Data, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Level {
    type Value = Data;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Data, E> {
        Ok(Data::None)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Data, E> {
        Ok(Data::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Data, E> {
        Ok(Data::Int(value))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Data, E> {
        i64::try_from(value).map(Data::Int).map_err(|_| E::custom("an integer beyond 64 bits"))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Data, E> {
        number(&value.to_string())
    }

    fn visit_str<E>(self, value: &str) -> Result<Data, E> {
        Ok(Data::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Data, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = elements.next_element_seed(self.below()?)? {
            values.push(value);
        }
        Ok(Data::List(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Data, A::Error> {
        let mut entries: Vec<(String, Data)> = Vec::new();
        let mut known = std::collections::BTreeSet::new();
        while let Some(key) = members.next_key::<String>()? {
            if key == EXACT_NUMBER {
                return number(&members.next_value::<String>()?);
            }
            if !known.insert(key.clone()) {
                return Err(A::Error::custom(format!("the key `{key}` stands twice")));
            }
            let value = members.next_value_seed(self.below()?)?;
            entries.push((key, value));
        }
        Ok(Data::Dict(entries))
    }
}

fn number<E: Error>(text: &str) -> Result<Data, E> {
    if text.contains(['.', 'e', 'E']) {
        let value = text.parse().ok().filter(|value: &f64| value.is_finite());
        return value.map(Data::Float).ok_or_else(|| E::custom("a float that is no number"));
    }
    text.parse().map(Data::Int).map_err(|_| E::custom("an integer beyond 64 bits"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_and_numbers_are_kept() {
        let text = r#"{"b":[1,1.0,-3,1e3,"ä"],"a":{"x":null,"y":true}}"#;
        let data = parse(text).unwrap();
        assert_eq!(data.to_pretty_json(0), "{\"b\":[1,1.0,-3,1000.0,\"ä\"],\"a\":{\"x\":null,\"y\":true}}\n");
    }

    #[test]
    fn what_is_wrong_has_a_place() {
        let deep = format!("{}{}", "[".repeat(70), "]".repeat(70));
        for (text, expected) in [
            ("{\n  \"a\": 1,\n  \"a\": 2\n}", "3:5 the key `a` stands twice"),
            ("{\n \"a\" 1}", "2:6 expected `:`"),
            ("1 2", "1:3 trailing characters"),
            ("99999999999999999999", "1:20 an integer beyond 64 bits"),
            (deep.as_str(), "1:65 nested too deeply"),
        ] {
            let error = parse(text).unwrap_err();
            assert_eq!(format!("{}:{} {}", error.line, error.column, error.message), expected, "{text}");
        }
    }
}

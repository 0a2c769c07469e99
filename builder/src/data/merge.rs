//! Laying one value over another.

use super::Data;

/// What becomes of two lists that meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lists {
    /// The elements of the upper one follow those of the lower one.
    Append,
    /// The upper one stands alone.
    Replace,
}

impl Data {
    /// This value with `over` laid on top: dicts are merged at every level, lists as `lists` says, everything else is replaced.
    #[must_use]
    pub(crate) fn merged(self, over: Self, lists: Lists) -> Self {
        match (self, over) {
            (Self::Dict(mut entries), Self::Dict(over)) => {
                for (key, value) in over {
                    match entries.iter().position(|(known, _)| *known == key) {
                        Some(position) => {
                            let below = std::mem::replace(&mut entries[position].1, Self::None);
                            entries[position].1 = below.merged(value, lists);
                        }
                        None => entries.push((key, value)),
                    }
                }
                Self::Dict(entries)
            }
            (Self::List(mut values), Self::List(over)) if lists == Lists::Append => {
                values.extend(over);
                Self::List(values)
            }
            (_, over) => over,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::json;
    use super::*;

    #[test]
    fn dicts_merge_lists_append_the_rest_is_replaced() {
        for (lower, upper, lists, expected) in [
            (r#"{"a":{"b":1,"c":2}}"#, r#"{"a":{"c":3,"d":4}}"#, Lists::Append, r#"{"a":{"b":1,"c":3,"d":4}}"#),
            (r#"{"a":[1]}"#, r#"{"a":[2]}"#, Lists::Append, r#"{"a":[1,2]}"#),
            (r#"{"a":[1]}"#, r#"{"a":[2]}"#, Lists::Replace, r#"{"a":[2]}"#),
            (r#"{"a":{"b":1}}"#, r#"{"a":null}"#, Lists::Append, r#"{"a":null}"#),
            (r#"{"a":1}"#, r#"{"a":{"b":[]}}"#, Lists::Append, r#"{"a":{"b":[]}}"#),
        ] {
            let [lower, upper] = [lower, upper].map(|text| json::parse(text).unwrap());
            assert_eq!(lower.merged(upper, lists).to_canonical_json(), expected);
        }
    }
}

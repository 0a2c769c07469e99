//! Names of objects: the id, the human name beside it, and both together.
//!
//! On disk an object is `<id>-<name>`. The id is the proof of content, the name is for people; the pair is
//! what other files' bytes hold, so its length never changes when an id is filled in for a placeholder.
//! How an id is computed stands in `FORMAT.md` and in [`crate::object`].

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The alphabet of ids: lower case without `e`, `o`, `t`, `u`, as Nix has it, so that no id spells a word.
const ALPHABET: &[u8; 32] = b"0123456789abcdfghijklmnpqrsvwxyz";

/// The length of an id in text, in characters of the alphabet: 160 bits at 5 bits each.
pub const ID_CHARS: usize = 32;

/// The longest name of an object, in bytes: `<id>-<name>` stays below the 255 bytes of a file name with room for suffixes.
pub const NAME_BYTES_MAX: usize = 180;

/// The identity of an object: the first 160 bits of the digest of its canonical form.
///
/// Shape: in text 32 characters of `0-9a-z` without `e o t u`; `Display` and `FromStr` round-trip exactly.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectId([u8; 20]);

impl ObjectId {
    /// Takes the first 160 bits of a digest.
    pub fn from_digest(digest: &crate::Digest) -> Self {
        let mut bytes = [0; 20];
        bytes.copy_from_slice(&digest.as_bytes()[..20]);
        Self(bytes)
    }

    /// A stand-in for an id that is not known yet, made from a label that is unique within one plan.
    ///
    /// It has the form of an id, so text that holds it keeps its length when the real id replaces it.
    pub fn placeholder(label: &str) -> Self {
        Self::from_digest(&crate::Digest::from(
            *blake3::Hasher::new_derive_key("sarsen 2026 placeholder v1").update(label.as_bytes()).finalize().as_bytes(),
        ))
    }

    /// Wraps 20 bytes that are an id already.
    pub const fn from_bytes(bytes: [u8; 20]) -> Self {
        Self(bytes)
    }

    /// The 20 bytes.
    pub const fn as_bytes(&self) -> &[u8; 20] {
        &self.0
    }

    /// The id as its 32 ASCII characters.
    pub fn to_chars(self) -> [u8; ID_CHARS] {
        let mut chars = [0; ID_CHARS];
        for (group, bytes) in chars.chunks_exact_mut(8).zip(self.0.chunks_exact(5)) {
            let bits = bytes.iter().fold(0u64, |bits, byte| bits << 8 | u64::from(*byte));
            for (position, c) in group.iter_mut().enumerate() {
                *c = ALPHABET[usize::from((bits >> (35 - 5 * position) & 31) as u8)];
            }
        }
        chars
    }

    /// Reads the 32 characters of an id.
    pub fn from_chars(chars: &[u8]) -> Option<Self> {
        if chars.len() != ID_CHARS {
            return None;
        }
        let mut bytes = [0; 20];
        for (group, out) in chars.chunks_exact(8).zip(bytes.chunks_exact_mut(5)) {
            let mut bits = 0u64;
            for c in group {
                bits = bits << 5 | u64::from(char_value(*c)?);
            }
            out.copy_from_slice(&bits.to_be_bytes()[3..]);
        }
        Some(Self(bytes))
    }
}

/// The value of one character of an id, or nothing if no id holds it.
pub(crate) fn char_value(c: u8) -> Option<u8> {
    ALPHABET.iter().position(|known| *known == c).and_then(|position| u8::try_from(position).ok())
}

impl From<[u8; 32]> for crate::Digest {
    fn from(bytes: [u8; 32]) -> Self {
        Self::from_bytes(bytes)
    }
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_chars().iter().try_for_each(|c| fmt::Write::write_char(f, char::from(*c)))
    }
}

impl fmt::Debug for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ObjectId({self})")
    }
}

/// A text that is not an object's id, name or reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not {expected}")]
pub struct InvalidObjectName {
    text: String,
    expected: &'static str,
}

impl FromStr for ObjectId {
    type Err = InvalidObjectName;

    fn from_str(text: &str) -> Result<Self, InvalidObjectName> {
        Self::from_chars(text.as_bytes()).ok_or_else(|| InvalidObjectName {
            text: text.chars().take(80).collect(),
            expected: "an object id: expected 32 characters of `0-9a-z` without `e`, `o`, `t`, `u`",
        })
    }
}

/// The human part of an object's name.
///
/// Shape: 1 to [`NAME_BYTES_MAX`] characters of `A-Z a-z 0-9 + - . _`, the first a letter, digit or `_`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectName(String);

impl ObjectName {
    /// The text of the name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for ObjectName {
    type Err = InvalidObjectName;

    fn from_str(text: &str) -> Result<Self, InvalidObjectName> {
        let allowed = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'+' | b'-' | b'.' | b'_');
        let starts_well = text.bytes().next().is_some_and(|c| c.is_ascii_alphanumeric() || c == b'_');
        if starts_well && text.len() <= NAME_BYTES_MAX && text.bytes().all(allowed) {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidObjectName {
                text: text.chars().take(80).collect(),
                expected: "an object name: expected 1 to 180 of `A-Za-z0-9+-._`, first a letter, digit or `_`",
            })
        }
    }
}

/// An object's id and name together, as they stand on disk and inside other files.
///
/// Shape: in text `<id>-<name>`; round-trips exactly.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectRef {
    /// The identity.
    pub id: ObjectId,
    /// The human name.
    pub name: ObjectName,
}

impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.id, self.name)
    }
}

impl FromStr for ObjectRef {
    type Err = InvalidObjectName;

    fn from_str(text: &str) -> Result<Self, InvalidObjectName> {
        match (text.get(..ID_CHARS), text.get(ID_CHARS..ID_CHARS + 1), text.get(ID_CHARS + 1..)) {
            (Some(id), Some("-"), Some(name)) => Ok(Self { id: id.parse()?, name: name.parse()? }),
            _ => Err(InvalidObjectName { text: text.chars().take(80).collect(), expected: "an object: expected `<id>-<name>`" }),
        }
    }
}

macro_rules! text_serde {
    ($($type:ty),*) => {$(
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    )*};
}
text_serde!(ObjectId, ObjectName, ObjectRef);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_round_trip() {
        for seed in 0..200u32 {
            let id = ObjectId::placeholder(&seed.to_string());
            assert_eq!(id.to_string().len(), ID_CHARS);
            assert_eq!(id.to_string().parse(), Ok(id));
        }
        assert_eq!(ObjectId::from_bytes([0xff; 20]).to_string(), "z".repeat(32));
    }

    #[test]
    fn names_are_checked_byte_by_byte() {
        for byte in 0..=255u8 {
            let text = format!("a{}", char::from(byte));
            let allowed = byte.is_ascii_alphanumeric() || b"+-._".contains(&byte);
            assert_eq!(text.parse::<ObjectName>().is_ok(), allowed, "{byte:#x}");
        }
        for text in ["", ".hidden", "-x", "a/b", &"x".repeat(181)] {
            assert!(text.parse::<ObjectName>().is_err(), "{text}");
        }
    }

    #[test]
    fn references_round_trip() {
        let reference = ObjectRef { id: ObjectId::placeholder("x"), name: "app-1.0".parse().unwrap() };
        assert_eq!(reference.to_string().parse(), Ok(reference.clone()));
        assert!(reference.id.to_string().parse::<ObjectRef>().is_err());
    }
}

//! Finding and filling placeholders in bytes.
//!
//! A placeholder is the 32 characters of an id that stand for an id not known yet. It is found wherever these characters stand, in text
//! as in binary data; neighbouring characters do not matter, so that a path without separators around it counts too.

use std::collections::{BTreeMap, BTreeSet};

use sarsen_store::ObjectId;
use sarsen_store::id::ID_CHARS;

/// The ids that are looked for.
pub(crate) trait Known {
    /// Whether these characters are one of them.
    fn has(&self, chars: &[u8; ID_CHARS]) -> bool;
}

impl Known for BTreeSet<[u8; ID_CHARS]> {
    fn has(&self, chars: &[u8; ID_CHARS]) -> bool {
        self.contains(chars)
    }
}

impl<V> Known for BTreeMap<[u8; ID_CHARS], V> {
    fn has(&self, chars: &[u8; ID_CHARS]) -> bool {
        self.contains_key(chars)
    }
}

/// Returns where known ids start in `bytes`, ascending, without overlaps.
pub(crate) fn positions(bytes: &[u8], known: &impl Known) -> Vec<(usize, [u8; ID_CHARS])> {
    let mut found = Vec::new();
    let mut run = 0;
    for (end, byte) in bytes.iter().enumerate() {
        run = if byte.is_ascii_digit() || byte.is_ascii_lowercase() { run + 1 } else { 0 };
        if run < ID_CHARS {
            continue;
        }
        let start = end + 1 - ID_CHARS;
        let Ok(chars) = <[u8; ID_CHARS]>::try_from(&bytes[start..=end]) else { continue };
        if known.has(&chars) {
            found.push((start, chars));
            run = 0;
        }
    }
    found
}

/// What stands where a placeholder stood: placeholders' characters to those of real ids.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Substitution {
    ids: BTreeMap<[u8; ID_CHARS], ObjectId>,
}

impl Substitution {
    /// Makes an empty one, which changes nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets `id` stand for `placeholder`.
    pub fn insert(&mut self, placeholder: ObjectId, id: ObjectId) {
        self.ids.insert(placeholder.to_chars(), id);
    }

    /// Returns `bytes` with every known placeholder replaced. The length stays the same.
    pub fn fill(&self, bytes: &[u8]) -> Vec<u8> {
        let mut filled = bytes.to_vec();
        for (start, chars) in positions(bytes, &self.ids) {
            filled[start..start + ID_CHARS].copy_from_slice(&self.ids[&chars].to_chars());
        }
        filled
    }

    /// The same for text.
    pub fn fill_text(&self, text: &str) -> String {
        // ASCII characters replace ASCII characters, so nothing is lossy.
        String::from_utf8_lossy(&self.fill(text.as_bytes())).into_owned()
    }

    /// The id that stands for `id`: the one given for it, or itself if it is none of the known placeholders.
    pub fn resolve(&self, id: &ObjectId) -> ObjectId {
        self.ids.get(&id.to_chars()).copied().unwrap_or(*id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_are_filled_wherever_they_stand() {
        let (a, b) = (ObjectId::placeholder("a"), ObjectId::placeholder("b"));
        let mut substitution = Substitution::new();
        substitution.insert(a, b);
        for (before, after) in [("", ""), ("x", "x"), ("/store/", "-name"), ("0123", "zzz"), ("\u{fc}", "\u{fc}")] {
            assert_eq!(substitution.fill_text(&format!("{before}{a}{after}")), format!("{before}{b}{after}"));
        }
        assert_eq!(substitution.fill_text(&format!("{a}{a}{b}")), format!("{b}{b}{b}"));
        assert_eq!(substitution.fill_text(&a.to_string()[1..]), a.to_string()[1..]);
    }
}

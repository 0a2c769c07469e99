//! Relative paths inside objects.
//!
//! A [`RelPath`] can neither be absolute nor climb out: such paths cannot be constructed, so no reader has to check.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The deepest nesting of a path, in components. Nix chose 64 for its archives after CVE-2026-44028; npm trees need more.
pub const DEPTH_MAX: usize = 128;

/// The longest component of a path, in bytes (`NAME_MAX` of Linux file systems).
pub const COMPONENT_BYTES_MAX: usize = 255;

/// The longest path, in bytes: `PATH_MAX` less room for the store's own prefix.
pub const PATH_BYTES_MAX: usize = 3800;

/// A path below some directory.
///
/// Shape: one or more components joined by `/`; none is empty, `.` or `..`; no NUL; UTF-8;
/// at most [`DEPTH_MAX`] components of [`COMPONENT_BYTES_MAX`] bytes, [`PATH_BYTES_MAX`] bytes in all.
/// Order: bytewise, the order of trees.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RelPath(String);

impl RelPath {
    /// Takes a text that is known to be a path: it was one before it was stored in a tree.
    pub(crate) const fn of_checked(text: String) -> Self {
        Self(text)
    }

    /// The text of the path.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The path for use with file functions.
    pub fn as_path(&self) -> &Path {
        Path::new(&self.0)
    }

    /// The components from the top down.
    pub fn components(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.0.split('/')
    }

    /// The last component.
    pub fn file_name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or(&self.0)
    }

    /// The path one level up, or nothing at the top.
    pub fn parent(&self) -> Option<RelPath> {
        self.0.rsplit_once('/').map(|(parent, _)| Self(parent.to_owned()))
    }

    /// The path `below` under this one.
    ///
    /// Errors: [`InvalidPath`] if the result is too long or too deep.
    pub fn join(&self, below: &RelPath) -> Result<RelPath, InvalidPath> {
        format!("{}/{}", self.0, below.0).parse()
    }
}

/// A text that is not a path below some directory.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{path}` is not a usable relative path: {reason}")]
pub struct InvalidPath {
    path: String,
    reason: &'static str,
}

impl FromStr for RelPath {
    type Err = InvalidPath;

    fn from_str(text: &str) -> Result<Self, InvalidPath> {
        check_path(text)?;
        Ok(Self(text.to_owned()))
    }
}

/// Checks that a text is a path, without making one.
pub(crate) fn check_path(text: &str) -> Result<(), InvalidPath> {
    let refuse = |reason| Err(InvalidPath { path: text.chars().take(200).collect(), reason });
    if text.is_empty() {
        return refuse("it is empty");
    }
    if text.starts_with('/') {
        return refuse("it is absolute");
    }
    if text.len() > PATH_BYTES_MAX {
        return refuse("it is longer than 3800 bytes");
    }
    if text.contains('\0') {
        return refuse("it holds a NUL byte");
    }
    if text.split('/').count() > DEPTH_MAX {
        return refuse("it is deeper than 128 levels");
    }
    for component in text.split('/') {
        match component {
            "" => return refuse("it has an empty component"),
            "." | ".." => return refuse("it has a component `.` or `..`"),
            long if long.len() > COMPONENT_BYTES_MAX => return refuse("a component is longer than 255 bytes"),
            _ => {}
        }
    }
    Ok(())
}

impl fmt::Display for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for RelPath {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for RelPath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_leave_or_confuse_are_refused() {
        let deep = vec!["d"; DEPTH_MAX + 1].join("/");
        for text in ["", "/", "/etc", "..", "a/..", "a/../b", "./a", "a//b", "a/", "a\0b", &deep, &"x".repeat(256)] {
            assert!(text.parse::<RelPath>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn parts() {
        let path: RelPath = "bin/app".parse().unwrap();
        assert_eq!(path.file_name(), "app");
        assert_eq!(path.parent().unwrap().as_str(), "bin");
        assert_eq!(path.parent().unwrap().parent(), None);
        assert_eq!(path.join(&path).unwrap().as_str(), "bin/app/bin/app");
    }
}

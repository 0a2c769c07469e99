//! One difference between the disk and what should be there, as data and in words.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use crate::{Digest, ObjectRef};

/// One difference between the disk and what should be there.
///
/// Shape: `Display` is one line, whatever names the disk holds.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// The object concerned, or nothing if the difference is outside of any.
    pub object: Option<ObjectRef>,
    /// Where: below the object, `.` for the object itself; without an object below the store's root. Unprintable characters are escaped.
    pub path: String,
    /// What is wrong.
    pub problem: Problem,
}

/// What is wrong with something on disk.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Problem {
    /// It should be there and is not.
    Missing,
    /// It is there and should not be.
    Extra,
    /// It is not a directory, file or symbolic link as it should be.
    Kind {
        /// What should be there.
        expected: &'static str,
        /// What is there.
        found: &'static str,
    },
    /// The file's length is wrong.
    Size {
        /// The length in the manifest, in bytes.
        expected: u64,
        /// The length on disk, in bytes.
        found: u64,
    },
    /// The permission bits are wrong.
    Mode {
        /// The bits that it should have.
        expected: u32,
        /// The bits that it has.
        found: u32,
    },
    /// The time of the last change is not the one that everything in objects has.
    Time {
        /// The time on disk, in nanoseconds since the epoch.
        found: i64,
    },
    /// The file's bytes are wrong.
    Content {
        /// The digest in the manifest, or in the name of a blob.
        expected: Digest,
        /// The digest of what is on disk.
        found: Digest,
    },
    /// The file's bytes are right, but what the manifest says about its references to the own object is not.
    SelfReferences,
    /// The symbolic link points elsewhere.
    Target {
        /// Where it should point.
        expected: String,
        /// Where it points, escaped.
        found: String,
    },
    /// The manifest is absent or damaged, so the content cannot be judged.
    Manifest {
        /// What is wrong with it.
        reason: String,
    },
    /// It is the manifest of an object that is not there.
    NoObject,
    /// Another object that this one needs is not in the store.
    Reference {
        /// The absent object.
        reference: ObjectRef,
    },
    /// The index says something else than the manifest about what the object needs.
    Index,
    /// The object is complete on disk, but the index does not know it.
    Unindexed,
    /// It cannot be read.
    Unreadable {
        /// The system's answer.
        reason: String,
    },
}

impl Problem {
    /// One word for programs.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Extra => "extra",
            Self::Kind { .. } => "kind",
            Self::Size { .. } => "size",
            Self::Mode { .. } => "mode",
            Self::Time { .. } => "time",
            Self::Content { .. } => "content",
            Self::SelfReferences => "self-references",
            Self::Target { .. } => "target",
            Self::Manifest { .. } => "manifest",
            Self::NoObject => "no-object",
            Self::Reference { .. } => "reference",
            Self::Index => "index",
            Self::Unindexed => "unindexed",
            Self::Unreadable { .. } => "unreadable",
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.object {
            Some(object) if self.path == "." => write!(f, "`{object}` {}", self.problem),
            Some(object) => write!(f, "`{}` in `{object}` {}", self.path, self.problem),
            None => write!(f, "`{}` {}", self.path, self.problem),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("is missing"),
            Self::Extra => f.write_str("does not belong there"),
            Self::Kind { expected, found } => write!(f, "is {found}, should be {expected}"),
            Self::Size { expected, found } => write!(f, "has {found} bytes, should have {expected}"),
            Self::Mode { expected, found } => write!(f, "has mode {found:04o}, should have {expected:04o}"),
            Self::Time { found } => {
                let (seconds, rest) = (found.div_euclid(1_000_000_000), found.rem_euclid(1_000_000_000));
                write!(f, "was changed {seconds}.{rest:09} s after the epoch, should be 1 s")
            }
            Self::Content { expected, found } => write!(f, "has changed: its digest is {found}, should be {expected}"),
            Self::SelfReferences => f.write_str("does not name its own object where the manifest says"),
            Self::Target { expected, found } => write!(f, "points to `{found}`, should point to `{expected}`"),
            Self::Manifest { reason } => write!(f, "cannot be judged: {reason}"),
            Self::NoObject => f.write_str("is the manifest of an object that is not there"),
            Self::Reference { reference } => write!(f, "needs `{reference}`, which is missing"),
            Self::Index => f.write_str("has other references in the index than in its manifest"),
            Self::Unindexed => f.write_str("is not in the index"),
            Self::Unreadable { reason } => write!(f, "cannot be read: {reason}"),
        }
    }
}

/// Findings from several threads.
#[derive(Debug, Default)]
pub(super) struct Findings(Mutex<Vec<Finding>>);

impl Findings {
    pub(super) fn push(&self, object: Option<&ObjectRef>, path: &str, problem: Problem) {
        let finding = Finding { object: object.cloned(), path: escape(path), problem };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(finding);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// Sorted, none twice.
    pub(super) fn into_sorted(self) -> Vec<Finding> {
        let mut findings = self.0.into_inner().unwrap_or_else(PoisonError::into_inner);
        findings.sort();
        findings.dedup();
        findings
    }
}

/// Makes any text fit into one line.
pub(crate) fn escape(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { c.escape_default().to_string() } else { c.to_string() }).collect()
}

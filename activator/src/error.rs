//! What can go wrong on a target before anything is decided, as one list.
//!
//! What goes wrong during a trial is no error here: it is a reason to go back, and ends in a `Response`.

use std::fmt::Write;
use std::io;
use std::path::PathBuf;

use sarsen_store::fsutil::FsError;
use sarsen_store::manifest::ManifestError;

use crate::services::ServiceError;

/// An activation that could not be carried out.
#[derive(Debug, thiserror::Error)]
pub enum ActivateError {
    /// A file could not be read or changed.
    #[error(transparent)]
    File(#[from] FsError),
    /// Another system call on a file failed.
    #[error("cannot {action} `{path}`")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A file of the profile is not what this program writes.
    #[error("`{path}` is damaged")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// How.
        #[source]
        source: serde_json::Error,
    },
    /// A link of the profile leads to something that this program does not write.
    #[error("`{path}` is damaged: it leads to `{target}`")]
    StrayLink {
        /// The link.
        path: PathBuf,
        /// Its target.
        target: String,
    },
    /// A file of the profile has another version.
    #[error("`{path}` has version {found}, this sarsen-activator knows version {known}: use the sarsen that wrote it")]
    Version {
        /// The file.
        path: PathBuf,
        /// The version that it states.
        found: u64,
        /// The version that is known.
        known: u32,
    },
    /// A bundle's manifest cannot be used.
    #[error("bundle `{bundle}` cannot be used")]
    Manifest {
        /// The bundle.
        bundle: String,
        /// Why.
        #[source]
        source: ManifestError,
    },
    /// A bundle lacks something that its manifest names.
    #[error("bundle `{bundle}` cannot be used: {problem}")]
    Bundle {
        /// The bundle.
        bundle: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A generation that is not there.
    #[error("there is no generation {number}")]
    NoGeneration {
        /// Its number.
        number: u64,
    },
    /// The manager of services failed.
    #[error(transparent)]
    Services(#[from] ServiceError),
    /// The machine could not do what was asked of it.
    #[error("{message}")]
    Machine {
        /// What and why.
        message: String,
    },
}

impl ActivateError {
    /// Says that the file or what it names does not exist.
    pub fn is_missing(&self) -> bool {
        match self {
            Self::File(error) => error.is_missing(),
            Self::Io { source, .. } => source.kind() == io::ErrorKind::NotFound,
            Self::NoGeneration { .. } => true,
            Self::Damaged { .. }
            | Self::StrayLink { .. }
            | Self::Version { .. }
            | Self::Manifest { .. }
            | Self::Bundle { .. }
            | Self::Services(_)
            | Self::Machine { .. } => false,
        }
    }
}

/// Cuts a text after at most `bytes_max` bytes, and shows that it was cut.
pub(crate) fn shorten(text: &str, bytes_max: usize) -> String {
    if text.len() <= bytes_max { text.to_owned() } else { format!("{}…", &text[..text.floor_char_boundary(bytes_max)]) }
}

/// An error and its causes in one line, joined by `: `.
pub fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        write!(text, ": {error}").expect("writing to a string cannot fail");
        cause = error.source();
    }
    text
}

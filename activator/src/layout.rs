//! Where everything lives below the root of an installation on a target.
//!
//! Names only: nothing here touches the disk. The normative text is `LAYOUT.md`, section "Directories".
//! A [`ProfileName`] is one safe file name by construction, so no path below can leave the root.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use sarsen_store::ObjectRef;

/// The longest name of a profile, in bytes: it is part of unit and lock names.
pub const PROFILE_BYTES_MAX: usize = 64;

/// The name of the activator's link in `<root>/bin`: what boot and dead-man units call.
pub const ACTIVATOR: &str = "sarsen-activator";

/// The name of a profile.
///
/// Shape: 1 to [`PROFILE_BYTES_MAX`] characters of `a-z A-Z 0-9 _ - .`, the first a letter or digit.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ProfileName(String);

impl ProfileName {
    /// The text of the name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ProfileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A text that cannot name a profile.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` cannot name a profile: expected 1 to {PROFILE_BYTES_MAX} of `A-Za-z0-9_-.`, the first a letter or digit")]
pub struct InvalidProfile {
    text: String,
}

impl FromStr for ProfileName {
    type Err = InvalidProfile;

    fn from_str(text: &str) -> Result<Self, InvalidProfile> {
        let starts_well = text.bytes().next().is_some_and(|c| c.is_ascii_alphanumeric());
        let allowed = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'_' | b'-' | b'.');
        if starts_well && text.len() <= PROFILE_BYTES_MAX && text.bytes().all(allowed) {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidProfile { text: text.chars().take(80).collect() })
        }
    }
}

/// The root of an installation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    root: PathBuf,
}

impl Layout {
    /// Names the installation at `root`, an absolute path.
    pub fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// The root itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where an object lives.
    pub fn object(&self, object: &ObjectRef) -> PathBuf {
        self.root.join("store").join(object.to_string())
    }

    /// The directory of all profiles.
    pub fn profiles(&self) -> PathBuf {
        self.root.join("profiles")
    }

    /// One profile.
    pub fn profile(&self, name: &ProfileName) -> ProfileLayout {
        ProfileLayout { layout: self.clone(), name: name.clone(), directory: self.profiles().join(name.as_str()) }
    }

    /// The directory of the activator's binaries, each named by its digest.
    pub fn binaries(&self) -> PathBuf {
        self.root.join("bin")
    }

    /// The link to the newest activator that was used.
    pub fn activator(&self) -> PathBuf {
        self.binaries().join(ACTIVATOR)
    }
}

/// The files of one profile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProfileLayout {
    layout: Layout,
    name: ProfileName,
    directory: PathBuf,
}

impl ProfileLayout {
    /// The installation it belongs to.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The profile's name.
    pub fn name(&self) -> &ProfileName {
        &self.name
    }

    /// The profile's directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Whom the profile belongs to.
    pub fn identity(&self) -> PathBuf {
        self.directory.join("identity.json")
    }

    /// The directory of generations.
    pub fn generations(&self) -> PathBuf {
        self.directory.join("gen")
    }

    /// The link of generation `number` to its bundle.
    pub fn generation(&self, number: u64) -> PathBuf {
        self.generations().join(number.to_string())
    }

    /// The record of generation `number`.
    pub fn record(&self, number: u64) -> PathBuf {
        self.generations().join(format!("{number}.json"))
    }

    /// The link to the generation that is current.
    pub fn current(&self) -> PathBuf {
        self.directory.join("current")
    }

    /// The link to the generation that was confirmed last.
    pub fn good(&self) -> PathBuf {
        self.directory.join("good")
    }

    /// The state of the trial that runs, while one runs.
    pub fn pending(&self) -> PathBuf {
        self.directory.join("pending.json")
    }

    /// What the last activation did.
    pub fn journal(&self) -> PathBuf {
        self.directory.join("journal")
    }

    /// For which triggers hooks succeeded.
    pub fn hook_records(&self) -> PathBuf {
        self.directory.join("hooks.json")
    }

    /// The log of what was done.
    pub fn audit_log(&self) -> PathBuf {
        self.directory.join("audit.log")
    }

    /// The lock that an activation holds from its first look to its end.
    pub fn lock(&self) -> PathBuf {
        self.directory.join("lock")
    }

    /// The lock that whoever decides over a trial holds for that moment.
    pub fn commit_lock(&self) -> PathBuf {
        self.directory.join("commit.lock")
    }
}

/// The target of a generation's link: relative, so that the installation can be looked at from elsewhere.
pub fn bundle_target(bundle: &ObjectRef) -> String {
    format!("../../../store/{bundle}")
}

/// The target of `current` and `good`.
pub fn generation_target(number: u64) -> String {
    format!("gen/{number}")
}

/// Reads the target of a generation's link.
pub fn parse_bundle_target(target: &str) -> Option<ObjectRef> {
    target.strip_prefix("../../../store/")?.parse().ok()
}

/// Reads the target of `current` and `good`.
pub fn parse_generation_target(target: &str) -> Option<u64> {
    parse_generation_number(target.strip_prefix("gen/")?)
}

/// Reads the number of a generation: decimal, from 1, without leading zeros.
pub fn parse_generation_number(text: &str) -> Option<u64> {
    text.parse().ok().filter(|number: &u64| *number > 0 && number.to_string() == text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_profiles_are_single_file_names() {
        for text in ["shop", "a", "A.b-c_1", "9"] {
            assert!(text.parse::<ProfileName>().is_ok(), "{text}");
        }
        for text in ["", ".", "..", "a/b", "/", "-x", "_x", "a b", "ä", "a\n", &"x".repeat(65)] {
            assert!(text.parse::<ProfileName>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn links_round_trip_and_nothing_else_is_read() {
        assert_eq!(parse_generation_target(&generation_target(7)), Some(7));
        for text in ["gen/0", "gen/07", "gen/+7", "gen/", "7", "../gen/7", "gen/7/", "gen/99999999999999999999"] {
            assert_eq!(parse_generation_target(text), None, "{text}");
        }
        assert_eq!(parse_bundle_target("../../../store/x"), None);
    }
}

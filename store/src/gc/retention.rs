//! Which generations a policy gives up. Data in, data out: removing a generation is the business of who owns profiles.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::ObjectRef;
use crate::fsutil::{FsError, read_file_if_exists};
use crate::objects::ObjectStore;

use super::{GcError, roots};

/// How many generations of a profile are kept. A generation stays if any member wants it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Retention {
    /// The newest so many are kept.
    pub keep_last: u32,
    /// All from the last so many days are kept.
    pub keep_days: u32,
}

impl Default for Retention {
    fn default() -> Self {
        Self { keep_last: 10, keep_days: 30 }
    }
}

/// A generation of a profile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Generation {
    /// The name of the profile.
    pub profile: String,
    /// Its number.
    pub number: u64,
    /// Its link.
    pub link: PathBuf,
    /// The bundle.
    pub object: ObjectRef,
    /// When the link was made.
    pub made: SystemTime,
    /// Whether the profile is at it or would return to it, so that no policy may give it up.
    pub needed: bool,
}

/// All generations, by profile and number.
///
/// Errors: [`GcError::Roots`] for what cannot be understood, as a collection would refuse it.
pub fn generations(store: &ObjectStore) -> Result<Vec<Generation>, GcError> {
    let mut found = Vec::new();
    let mut needed = BTreeMap::new();
    for roots::GenerationLink { profile, link, object } in roots::generations(store.root())? {
        let failed = |reason: &str| GcError::Roots { path: link.clone(), reason: reason.to_owned() };
        let number = number_of(&link).ok_or_else(|| failed("its name is not a number"))?;
        let name = profile.file_name().and_then(|name| name.to_str()).ok_or_else(|| failed("its profile's name is not UTF-8"))?.to_owned();
        let made = std::fs::symlink_metadata(&link).and_then(|metadata| metadata.modified()).map_err(|error| failed(&error.to_string()))?;
        if !needed.contains_key(&name) {
            needed.insert(name.clone(), Needed::of(&profile)?);
        }
        let needed = needed.get(&name).is_none_or(|needed| needed.has(number));
        found.push(Generation { profile: name, number, link, object, made, needed });
    }
    found.sort_by(|one, other| (&one.profile, one.number).cmp(&(&other.profile, other.number)));
    Ok(found)
}

impl Retention {
    /// The generations that may go, in the order given. Those that are needed never do, nor does the last of a profile.
    pub fn expired<'a>(&self, generations: &'a [Generation], now: SystemTime) -> Vec<&'a Generation> {
        let age_max = Duration::from_secs(u64::from(self.keep_days) * 24 * 60 * 60);
        let mut newer: BTreeMap<&str, u32> = BTreeMap::new();
        let mut expired: Vec<&Generation> = Vec::new();
        let mut newest_first: Vec<&Generation> = generations.iter().collect();
        newest_first.sort_by_key(|generation| std::cmp::Reverse(generation.number));
        for generation in newest_first {
            let rank = newer.entry(&generation.profile).or_default();
            *rank += 1;
            // A generation from the future is young: the clock was set back.
            let old = now.duration_since(generation.made).is_ok_and(|age| age > age_max);
            if !generation.needed && *rank > self.keep_last.max(1) && old {
                expired.push(generation);
            }
        }
        expired.sort_by(|one, other| (&one.profile, one.number).cmp(&(&other.profile, other.number)));
        expired
    }
}

/// The generations of a profile that it is at or would return to.
struct Needed {
    /// Whether a trial is under way: then any may be one to return to.
    all: bool,
    numbers: Vec<u64>,
}

impl Needed {
    fn of(profile: &Path) -> Result<Self, GcError> {
        let pending = profile.join("pending.json");
        let mut needed = Self { all: pending.try_exists().map_err(|error| FsError::new("inspect", &pending, error))?, numbers: Vec::new() };
        for name in ["current", "good"] {
            let path = profile.join(name);
            match std::fs::read_link(&path) {
                Ok(target) => needed.note(number_of(&target)),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                // It may be a file that holds the number.
                Err(_) => {
                    let text = read_file_if_exists(&path, 64)?.unwrap_or_default();
                    needed.note(std::str::from_utf8(&text).ok().and_then(|text| text.trim().parse().ok()));
                }
            }
        }
        Ok(needed)
    }

    fn note(&mut self, number: Option<u64>) {
        match number {
            Some(number) => self.numbers.push(number),
            // What cannot be understood may be any of them.
            None => self.all = true,
        }
    }

    fn has(&self, number: u64) -> bool {
        self.all || self.numbers.contains(&number)
    }
}

fn number_of(link: &Path) -> Option<u64> {
    link.file_name()?.to_str()?.parse().ok()
}

//! What keeps objects: generations, pins, results that the user keeps, leases, and processes that use an object.
//!
//! Generations and results are read strictly: what cannot be understood stops the collection. Normative text: `FORMAT.md`, "Collection".

use std::collections::BTreeSet;
use std::fmt;
use std::io::{self, BufRead, BufReader};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::ObjectRef;
use crate::fsutil::{Directory, FsError, NodeKind};
use crate::objects::ObjectStore;

use super::GcError;

/// Who keeps an object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Root {
    /// A generation of a profile.
    Generation {
        /// Its link.
        link: PathBuf,
    },
    /// A pin.
    Pin {
        /// The name of the pin.
        name: String,
    },
    /// A result that a user keeps, see [`ObjectStore::keep_result`].
    Result {
        /// The user's link.
        link: PathBuf,
    },
    /// A transaction that is under way, or somebody who is about to name the object.
    Lease,
    /// A running process.
    Process {
        /// Its number.
        process: u32,
        /// What it uses the object as: `exe`, `cwd`, `root`, `maps` or `fd`, as under `/proc`.
        part: &'static str,
    },
}

impl fmt::Display for Root {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Generation { link } => write!(f, "generation `{}`", link.display()),
            Self::Pin { name } => write!(f, "pin `{name}`"),
            Self::Result { link } => write!(f, "result `{}`", link.display()),
            Self::Lease => f.write_str("a transaction under way"),
            Self::Process { process, part } => write!(f, "process {process} ({part})"),
        }
    }
}

/// A generation of a profile: its link and the object behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct GenerationLink {
    pub(super) profile: PathBuf,
    pub(super) link: PathBuf,
    pub(super) object: ObjectRef,
}

/// How often the generations are looked at before it counts as an error that some vanish meanwhile. Each time takes a moment, and people switch rarely.
const LOOKS_MAX: usize = 20;

/// The generations of all profiles: their links and the objects behind them.
///
/// Source: the layout of the activator, `profiles/<profile>/gen/<n>` is a link to `<root>/store/<object>`.
pub(super) fn generations(root: &Path) -> Result<Vec<GenerationLink>, GcError> {
    let mut looks = 1;
    loop {
        match look_for_generations(root) {
            // Something was removed or replaced between being listed and being read. What came in its place may not have been listed.
            Err(Look::Vanished(_)) if looks < LOOKS_MAX => looks += 1,
            Err(Look::Vanished(error)) => return Err(unreadable(&error)),
            Err(Look::Refused(error)) => return Err(error),
            Ok(found) => return Ok(found),
        }
    }
}

/// Why the generations cannot be told.
enum Look {
    /// Something is not there any more.
    Vanished(FsError),
    Refused(GcError),
}

impl From<FsError> for Look {
    fn from(error: FsError) -> Self {
        if error.is_missing() { Self::Vanished(error) } else { Self::Refused(unreadable(&error)) }
    }
}

fn look_for_generations(root: &Path) -> Result<Vec<GenerationLink>, Look> {
    let mut found = Vec::new();
    let profiles = match Directory::open(&root.join("profiles")) {
        Ok(profiles) => profiles,
        Err(error) if error.is_missing() => return Ok(found),
        Err(error) => return Err(error.into()),
    };
    for name in profiles.names()? {
        if profiles.kind_of(&name)? == NodeKind::Directory {
            let profile = profiles.open_child(&name)?;
            let before = found.len();
            let recorded = generations_of(&profile, &mut found)?;
            if found.len() == before && recorded {
                let reason = "there are traces of generations, but no link to one".to_owned();
                return Err(Look::Refused(GcError::Roots { path: profile.path().to_owned(), reason }));
            }
        }
    }
    Ok(found)
}

/// Adds the generations of one profile; returns whether anything says that there are or were some.
fn generations_of(profile: &Directory, found: &mut Vec<GenerationLink>) -> Result<bool, Look> {
    let names = profile.names()?;
    let mut recorded = names.iter().any(|name| matches!(name.to_str(), Some("current" | "good" | "pending.json")));
    if !names.iter().any(|name| name == "gen") {
        return Ok(recorded);
    }
    let generations = profile.open_child("gen".as_ref())?;
    for name in generations.names()? {
        if name.as_encoded_bytes().starts_with(b".") {
            // The temporary name of a link that is being made, by somebody who still has a lease, or was killed.
            continue;
        }
        let link = generations.path().join(&name);
        match generations.kind_of(&name)? {
            NodeKind::Symlink => {
                let target = generations.read_link(&name)?;
                let object = std::str::from_utf8(&target).ok().and_then(|target| target.rsplit('/').next()?.parse().ok());
                let Some(object) = object else {
                    return Err(Look::Refused(GcError::Roots { path: link, reason: "it does not point to an object".to_owned() }));
                };
                found.push(GenerationLink { profile: profile.path().to_owned(), link, object });
            }
            NodeKind::File => recorded = true,
            NodeKind::Directory | NodeKind::Special => {
                let reason = "it is neither a generation nor a record of one".to_owned();
                return Err(Look::Refused(GcError::Roots { path: link, reason }));
            }
        }
    }
    Ok(recorded)
}

/// What `results/` says.
pub(super) struct Results {
    /// The users' links, and the objects that they point to.
    pub(super) kept: Vec<(PathBuf, ObjectRef)>,
    /// The records of links that are gone.
    pub(super) stale: Vec<PathBuf>,
}

/// The results that users keep, and the records of those whose link is gone.
pub(super) fn results(store: &ObjectStore) -> Result<Results, GcError> {
    let records = Directory::open(&store.root().join("results"))?;
    let (mut kept, mut stale) = (Vec::new(), Vec::new());
    for name in records.names()? {
        if name.as_encoded_bytes().starts_with(b".") {
            // What a crash left of a replacement.
            continue;
        }
        let record = records.path().join(&name);
        let link = std::fs::read_link(&record).map_err(|error| unreadable(&FsError::new("read the link", &record, error)))?;
        match std::fs::read_link(&link) {
            Ok(target) => match target.file_name().and_then(crate::objects::object_of_name) {
                Some(object) => kept.push((link, object)),
                // The user made the link point elsewhere.
                None => stale.push(record),
            },
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::InvalidInput) => {
                stale.push(record);
            }
            Err(error) => return Err(unreadable(&FsError::new("read the link", &link, error))),
        }
    }
    Ok(Results { kept, stale })
}

/// The objects of `all` that running processes use.
///
/// Paths are as the process sees them: in its mount namespace the store may be elsewhere. So any part of a path that is the name of an
/// object counts, unless what is there is known to be another store's. Of other users' processes, only root sees what they use.
pub(super) fn in_use(store: &ObjectStore, all: &BTreeSet<ObjectRef>) -> Result<Vec<(Root, ObjectRef)>, GcError> {
    let processes = Path::new("/proc");
    let mut found = BTreeSet::new();
    for name in Directory::open(processes).and_then(|directory| directory.names()).map_err(|error| unreadable(&error))? {
        let Some(process) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let directory = processes.join(&name);
        let mut note = |part: &'static str, path: &[u8]| {
            let Ok(path) = std::str::from_utf8(path) else { return };
            let mut end = 0;
            for component in path.split('/') {
                end += component.len() + 1;
                let Some(object) = component.parse().ok().filter(|object| all.contains(object)) else { continue };
                let seen = directory.join("root").join(path[..end - 1].trim_start_matches('/'));
                if !is_another(&seen, &store.object_path(&object)) {
                    found.insert((Root::Process { process, part }, object));
                }
            }
        };
        // A process may end while it is looked at, and those of others do not show what they use: neither is an error.
        for part in ["exe", "cwd", "root"] {
            if let Ok(target) = std::fs::read_link(directory.join(part)) {
                note(part, target.as_os_str().as_encoded_bytes());
            }
        }
        for entry in std::fs::read_dir(directory.join("fd")).into_iter().flatten().flatten() {
            if let Ok(target) = std::fs::read_link(entry.path()) {
                note("fd", target.as_os_str().as_encoded_bytes());
            }
        }
        if let Ok(maps) = std::fs::File::open(directory.join("maps")) {
            for line in BufReader::new(maps).split(b'\n').map_while(Result::ok) {
                if let Some(start) = line.iter().position(|byte| *byte == b'/') {
                    note("maps", &line[start..]);
                }
            }
        }
    }
    Ok(found.into_iter().collect())
}

/// Whether two paths surely lead to different things.
fn is_another(seen: &Path, own: &Path) -> bool {
    match (std::fs::metadata(seen), std::fs::metadata(own)) {
        (Ok(seen), Ok(own)) => (seen.dev(), seen.ino()) != (own.dev(), own.ino()),
        _ => false,
    }
}

pub(super) fn unreadable(error: &FsError) -> GcError {
    GcError::Roots { path: error.path.clone(), reason: error.source.to_string() }
}

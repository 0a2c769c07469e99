//! Doing what a plan says: objects in the store, a bundle per host.
//!
//! Recipes are worked on as soon as what they need is there, by a fixed number of threads. A recipe whose key the store knows is not
//! done again; equal recipes of one plan are done once, and so are those of several processes on one store. One
//! failure does not stop the rest: everything that does not need what failed is still done, and all failures are reported together.
//! Trees and bundles that are ready at the same time are published together, since publishing waits for the disk twice, however much there is.

mod claim;
mod outputs;
mod schedule;
mod work;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sarsen_store::manifest::Manifest;
use sarsen_store::{Durable, ObjectRef, ObjectStore, StoreError};

use crate::diagnostic::Location;
use crate::plan::Plan;

/// The most threads that work at once: a plan for a thousand hosts on a large machine stays below it.
pub const JOBS_MAX: usize = 256;

/// How a plan is to be realised.
pub struct Options<'a> {
    /// How many recipes are worked on at once; at least 1, at most [`JOBS_MAX`].
    pub jobs: usize,
    /// Called for everything that happens, from any thread.
    pub events: &'a (dyn Fn(BuildEvent) + Sync),
    /// Where the logs of builds are kept: `<recipe key, short>.log`. Usually `<store root>/log`, see [`log_directory`].
    pub log_directory: PathBuf,
    /// The program that is started as the sandbox, with `__sandbox` as its first argument; see [`crate::sandbox::own_program`].
    pub sandbox_program: PathBuf,
}

impl fmt::Debug for Options<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { jobs, events: _, log_directory, sandbox_program } = self;
        f.debug_struct("Options")
            .field("jobs", jobs)
            .field("log_directory", log_directory)
            .field("sandbox_program", sandbox_program)
            .finish_non_exhaustive()
    }
}

/// The directory for logs that belongs to a store: `<root>/log`.
pub fn log_directory(store: &ObjectStore) -> PathBuf {
    store.root().join("log")
}

/// Something that happened; `label` is the recipe's name for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BuildEvent {
    /// A build or fetch was started.
    Started {
        /// The recipe.
        label: String,
    },
    /// Another process works on the same recipe; its result is waited for.
    Waiting {
        /// The recipe.
        label: String,
        /// Who works on it, such as `process 4711`.
        holder: String,
    },
    /// The store has the result already.
    Cached {
        /// The recipe.
        label: String,
    },
    /// A build, a fetch, a tree or a bundle is in the store now.
    Built {
        /// The recipe.
        label: String,
        /// How long it took.
        duration: Duration,
    },
    /// It failed; what it was comes with the result of [`realise`].
    Failed {
        /// The recipe.
        label: String,
        /// The log, if there is one.
        log: Option<PathBuf>,
    },
}

/// What came of a plan. As long as it lives, garbage collection leaves all of it alone.
#[derive(Debug)]
pub struct Realised {
    /// The bundles, in the order of the plan's hosts.
    pub hosts: Vec<HostBundle>,
    /// The labels of builds, fetches, trees and bundles that were made, sorted.
    pub built: Vec<String>,
    /// The labels of those that the store had already, sorted.
    pub cached: Vec<String>,
    /// The proof that everything is on disk.
    pub guards: Vec<Durable>,
}

/// One host's bundle in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostBundle {
    /// The host's short name.
    pub host: String,
    /// The bundle.
    pub bundle: ObjectRef,
    /// What it says.
    pub manifest: Manifest,
}

/// One recipe that failed.
#[derive(Debug)]
pub struct Failure {
    /// The recipe.
    pub label: String,
    /// Where it was declared.
    pub at: Option<Location>,
    /// What happened.
    pub error: RecipeError,
}

/// Why a plan was not realised.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// Recipes failed; everything that does not need them was done.
    #[error("{}", count_failures(failures, skipped))]
    Recipes {
        /// The failures, in the order of the plan.
        failures: Vec<Failure>,
        /// The labels of those that were not tried because they need what failed.
        skipped: Vec<String>,
    },
    /// The directory for the logs cannot be made.
    #[error("the directory for build logs cannot be made")]
    Logs(#[source] sarsen_store::fsutil::FsError),
    /// The build machine's toolchain cannot be described.
    #[error(transparent)]
    Toolchain(#[from] crate::toolchain::ToolchainError),
}

fn count_failures(failures: &[Failure], skipped: &[String]) -> String {
    let names: Vec<String> = failures.iter().take(8).map(|failure| format!("`{}`", failure.label)).collect();
    let more = if failures.len() > 8 { format!(" and {} more", failures.len() - 8) } else { String::new() };
    let waiting = if skipped.is_empty() { String::new() } else { format!("; not tried because of that: {}", skipped.len()) };
    format!("failed: {}{more}{waiting}", names.join(", "))
}

/// What happened to a recipe.
#[derive(Debug, thiserror::Error)]
pub enum RecipeError {
    /// The script or the client ended with something else than success.
    #[error("{ending}{}", LogNote { log, tail })]
    Unsuccessful {
        /// How it ended.
        ending: String,
        /// The whole log.
        log: PathBuf,
        /// The last lines of the log, at most 20.
        tail: Vec<String>,
    },
    /// The sandbox could not be set up.
    #[error(transparent)]
    Sandbox(#[from] crate::sandbox::SandboxError),
    /// The wheels could not be fetched, or are not what the lock file says.
    #[error(transparent)]
    Fetch(#[from] crate::fetch::FetchError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A file could not be prepared or read.
    #[error(transparent)]
    File(#[from] sarsen_store::fsutil::FsError),
    /// Outputs of one build name one another, so that none can be named first.
    #[error("the outputs {} name one another: objects cannot need one another in a circle", outputs.join(", "))]
    Circle {
        /// The names of the outputs.
        outputs: Vec<String>,
    },
    /// The script ended well, but an output holds nothing: it was written elsewhere, or not at all.
    #[error("the script succeeded, but left its output `${output}` empty: it must write what it makes below `${output}`")]
    Empty {
        /// The output's name.
        output: String,
    },
    /// Another process works on the same recipe, and does not come to an end.
    #[error(
        "{holder} has been at the same work for {} s, longer than that may take: end it, or wait for it, then build again; its lock: {}",
        patience.as_secs(),
        lock.display()
    )]
    Busy {
        /// Who works on it.
        holder: String,
        /// How long it was waited for.
        patience: Duration,
        /// The file that the other one has locked.
        lock: PathBuf,
    },
    /// Trees and bundles are published together, and another one met the error.
    #[error("not published, because of what happened to `{label}`")]
    PublishedWith {
        /// The other recipe.
        label: String,
    },
    /// An entry of a bundle has a name that no file may have.
    #[error("the bundle cannot hold this name")]
    Name(#[from] sarsen_store::InvalidPath),
}

impl RecipeError {
    /// The log, if there is one that says more.
    pub fn log(&self) -> Option<&Path> {
        match self {
            Self::Unsuccessful { log, .. } | Self::Fetch(crate::fetch::FetchError::Client { log, .. }) => Some(log),
            Self::Sandbox(_)
            | Self::Fetch(_)
            | Self::Store(_)
            | Self::File(_)
            | Self::Circle { .. }
            | Self::Empty { .. }
            | Self::Busy { .. }
            | Self::PublishedWith { .. }
            | Self::Name(_) => None,
        }
    }
}

struct LogNote<'a> {
    log: &'a Path,
    tail: &'a [String],
}

impl fmt::Display for LogNote<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "; log: {}", self.log.display())?;
        self.tail.iter().try_for_each(|line| write!(f, "\n    {line}"))
    }
}

/// Realises a plan: builds, fetches and assembles everything that its hosts need.
///
/// Errors: [`BuildError::Recipes`] with all failures, after everything else was done.
/// Durability: the bundles and all they refer to are on disk when this returns.
pub fn realise(plan: &Plan, store: &ObjectStore, options: &Options<'_>) -> Result<Realised, BuildError> {
    sarsen_store::fsutil::create_dir_all(&options.log_directory, 0o755).map_err(BuildError::Logs)?;
    let wanted = schedule::wanted(plan);
    let toolchain = if work::needs_toolchain(plan, &wanted) { Some(crate::toolchain::read_host()?) } else { None };
    let worker = work::Worker { plan, store, options, toolchain };
    let finished = schedule::run(&worker, &wanted, options.jobs.clamp(1, JOBS_MAX));
    finished.into_result(plan)
}

/// The ids that stand for the placeholders of finished recipes.
pub(crate) type Objects = BTreeMap<sarsen_store::ObjectId, ObjectRef>;

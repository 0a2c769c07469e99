//! What is done for one recipe: look it up, build it, fetch it, or write it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, Permissions};
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use sarsen_store::fsutil::{self, FsError};
use sarsen_store::manifest::Manifest;
use sarsen_store::{Digest, Durable, NewEntry, NewEntryKind, ObjectRef, ObjectStore, Transaction};

use super::claim::claim;
use super::outputs::{self, Taking};
use super::{BuildEvent, Objects, Options, RecipeError};
use crate::fetch;
use crate::model::Source;
use crate::plan::{Plan, Recipe, RecipeKind, Substitution, TreeEntry, TreeEntryKind};
use crate::recipe::{FilledBuild, Surroundings, file_key, scratch_id, wheels_key};
use crate::sandbox::{self, Ending, Patience, Spec};

/// How many characters of a recipe key name its log: enough to be unique among the builds of a machine.
const LOG_NAME_CHARS: usize = 20;

/// How long a process may take to bring what was built into the store, beyond the time limit of the build: some gigabytes on a slow disk.
const TAKING_TIME: Duration = Duration::from_mins(10);

/// How long to wait for another process that does the same: as long as it may take.
fn patience_with_others(kind: &RecipeKind) -> Duration {
    let work = match kind {
        RecipeKind::Build(build) => Duration::from_secs(build.timeout_s),
        RecipeKind::PythonFetch(_) | RecipeKind::Fetch(_) => fetch::DOWNLOAD_TIMEOUT,
        RecipeKind::Tree(_) | RecipeKind::Bundle(_) => Duration::ZERO,
    };
    work.saturating_add(TAKING_TIME)
}

/// Whether any of the recipes runs in a sandbox.
pub(super) fn needs_toolchain(plan: &Plan, wanted: &BTreeSet<usize>) -> bool {
    wanted.iter().any(|index| matches!(plan.recipes[*index].kind, RecipeKind::Build(_)))
}

/// What a recipe gave.
pub(super) struct Made {
    pub(super) outputs: BTreeMap<String, ObjectRef>,
    pub(super) manifest: Option<Manifest>,
    pub(super) cached: bool,
    pub(super) started: Instant,
    pub(super) guards: Vec<Durable>,
}

/// Everything that work needs besides the recipe.
pub(super) struct Worker<'a> {
    pub(super) plan: &'a Plan,
    pub(super) store: &'a ObjectStore,
    pub(super) options: &'a Options<'a>,
    pub(super) toolchain: Option<Digest>,
}

impl Worker<'_> {
    /// Computes the key under which the store may know the result.
    pub(super) fn key(&self, index: usize, inputs: &Objects) -> Result<Digest, RecipeError> {
        let recipe = &self.plan.recipes[index];
        match &recipe.kind {
            RecipeKind::Build(build) => {
                let toolchain = self.toolchain.expect("read before the first build");
                let surroundings = Surroundings { architecture: std::env::consts::ARCH, store: &self.plan.store, toolchain };
                Ok(FilledBuild::new(recipe, build, inputs).key(&surroundings))
            }
            RecipeKind::PythonFetch(wheels) => {
                let requirements = fetch::parse_lock(&wheels.lock)?;
                let interpreter = fetch::describe_interpreter(&wheels.python)?;
                Ok(wheels_key(&recipe.outputs, &requirements, &interpreter))
            }
            RecipeKind::Fetch(file) => Ok(file_key(&recipe.outputs, file)),
            RecipeKind::Tree(_) | RecipeKind::Bundle(_) => unreachable!("trees and bundles have no key"),
        }
    }

    /// Looks a build or fetch up, or does it.
    pub(super) fn make(&self, index: usize, inputs: &Objects, key: &Digest) -> Result<Made, RecipeError> {
        let recipe = &self.plan.recipes[index];
        if let Some(known) = self.look_up(recipe, key)? {
            return Ok(known);
        }
        let waiting = |holder| (self.options.events)(BuildEvent::Waiting { label: recipe.label.clone(), holder });
        let _claim = claim(self.store, key, patience_with_others(&recipe.kind), waiting)?;
        // Whoever had the claim before has recorded the result, unless it failed.
        if let Some(known) = self.look_up(recipe, key)? {
            return Ok(known);
        }
        let started = Instant::now();
        (self.options.events)(BuildEvent::Started { label: recipe.label.clone() });
        let log = self.log_path(key);
        let (outputs, guard) = match &recipe.kind {
            RecipeKind::Build(build) => self.build(&FilledBuild::new(recipe, build, inputs), &log)?,
            RecipeKind::PythonFetch(wheels) => {
                self.fetch(recipe, |directory, scratch| fetch::download(wheels, directory, scratch, &log))?
            }
            RecipeKind::Fetch(file) => self.fetch(recipe, |directory, _| fetch::download_file(file, &directory.join(&file.file), &log))?,
            RecipeKind::Tree(_) | RecipeKind::Bundle(_) => unreachable!("trees and bundles are published in batches"),
        };
        self.store.record_result(key, &outputs)?;
        Ok(Made { outputs, manifest: None, cached: false, started, guards: vec![guard] })
    }

    fn look_up(&self, recipe: &Recipe, key: &Digest) -> Result<Option<Made>, RecipeError> {
        let started = Instant::now();
        let Some(outputs) = self.store.result(key)?.filter(|known| known.keys().eq(recipe.outputs.keys())) else { return Ok(None) };
        let objects: Vec<ObjectRef> = outputs.values().cloned().collect();
        Ok(Some(Made { guards: self.hold(&objects)?, outputs, manifest: None, cached: true, started }))
    }

    fn hold(&self, objects: &[ObjectRef]) -> Result<Vec<Durable>, RecipeError> {
        Ok(objects.iter().map(|object| Durable::of(self.store, object)).collect::<Result<_, _>>()?)
    }

    fn log_path(&self, key: &Digest) -> PathBuf {
        let short: String = key.to_string().chars().take(LOG_NAME_CHARS).collect();
        self.options.log_directory.join(format!("{short}.log"))
    }

    fn build(&self, build: &FilledBuild<'_>, log: &Path) -> Result<(BTreeMap<String, ObjectRef>, Durable), RecipeError> {
        let mut transaction = self.store.begin()?;
        let visible = self.store.closure(&build.inputs)?;
        let (spec, directories) = self.prepare(build, &visible, &transaction)?;
        let timeout = Duration::from_secs(build.recipe.timeout_s);
        let patience = Patience { wall: timeout, silence: sandbox::SILENCE };
        let outcome = sandbox::run(&spec, &self.options.sandbox_program, log, patience)?;
        if outcome.ending != Ending::Exited(0) {
            return Err(RecipeError::Unsuccessful { ending: outcome.ending.to_string(), log: log.to_owned(), tail: outcome.tail });
        }
        let taking = if outcome.is_gone { Taking::Move } else { Taking::Copy };
        let made = outputs::take_in(&mut transaction, taking, (build.outputs, &directories), visible)?;
        Ok((made, transaction.barrier()?))
    }

    /// Fills the build's directory and says what the sandbox is to contain; returns the outputs' directories, too.
    fn prepare(
        &self,
        build: &FilledBuild<'_>,
        visible: &[ObjectRef],
        transaction: &Transaction,
    ) -> Result<(Spec, BTreeMap<String, PathBuf>), RecipeError> {
        let directory = transaction.scratch("build")?;
        for source in &build.recipe.sources {
            write_source(&directory, source)?;
        }
        let mut directories = BTreeMap::new();
        let mut outputs = BTreeMap::new();
        let mut environment = self.environment();
        environment.extend(build.environment.clone());
        for (index, (name, output)) in build.outputs.iter().enumerate() {
            let outside = transaction.scratch(&format!("output-{index}"))?;
            let inside = format!("{}-{}", scratch_id(output), output.name);
            environment.insert(name.clone(), format!("{}/{inside}", self.plan.store));
            outputs.insert(inside, outside.clone());
            directories.insert(name.clone(), outside);
        }
        let spec = Spec {
            script: build.script.clone(),
            environment,
            root: transaction.scratch("root")?,
            build: directory,
            store: PathBuf::from(&self.plan.store),
            inputs: visible.iter().map(|object| (object.to_string(), self.store.object_path(object))).collect(),
            outputs,
        };
        Ok((spec, directories))
    }

    /// The variables that every build has. Only `SARSEN_JOBS` differs from machine to machine.
    fn environment(&self) -> BTreeMap<String, String> {
        let jobs = std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get) / self.options.jobs.max(1);
        [
            ("PATH", "/usr/bin:/bin"),
            ("HOME", "/homeless"),
            ("TMPDIR", "/tmp"),
            ("PWD", "/build"),
            ("TZ", "UTC"),
            ("LANG", "C.UTF-8"),
            ("LC_ALL", "C.UTF-8"),
            ("SOURCE_DATE_EPOCH", "1"),
            ("PYTHONHASHSEED", "0"),
            ("SARSEN_JOBS", &jobs.max(1).to_string()),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into()
    }

    /// Takes in what `download` puts into the first of its directories; the second is for what it needs besides.
    fn fetch(
        &self,
        recipe: &Recipe,
        download: impl FnOnce(&Path, &Path) -> Result<(), fetch::FetchError>,
    ) -> Result<(BTreeMap<String, ObjectRef>, Durable), RecipeError> {
        let mut transaction = self.store.begin()?;
        let directory = transaction.scratch("fetched")?;
        download(&directory, &transaction.scratch("lock")?)?;
        let mut made = BTreeMap::new();
        for (name, output) in &recipe.outputs {
            made.insert(name.clone(), transaction.put_directory(&output.name, &directory, None, &[])?);
        }
        Ok((made, transaction.barrier()?))
    }

    /// Writes trees and bundles and publishes them together.
    pub(super) fn publish(&self, recipes: &[(usize, Objects)]) -> Vec<(usize, Result<Made, RecipeError>)> {
        let started = Instant::now();
        let mut settled = Vec::new();
        let mut open = Vec::new();
        let published = self.store.begin().and_then(|mut transaction| {
            for (index, inputs) in recipes {
                match self.write(&mut transaction, *index, inputs) {
                    Ok(written) => open.push((*index, written)),
                    Err(error) => settled.push((*index, Err(error))),
                }
            }
            transaction.barrier()
        });
        let mut published = published.map_err(Some);
        let first = open.first().map(|(index, _)| self.plan.recipes[*index].label.clone());
        for (index, written) in open {
            let Written { outputs, manifest, cached } = written;
            let result = match &mut published {
                Ok(guard) => Ok(Made { outputs, manifest, cached, started, guards: vec![guard.clone()] }),
                Err(error) => Err(match error.take() {
                    Some(error) => RecipeError::Store(error),
                    None => RecipeError::PublishedWith { label: first.clone().unwrap_or_default() },
                }),
            };
            settled.push((index, result));
        }
        settled
    }

    fn write(&self, transaction: &mut Transaction, index: usize, inputs: &Objects) -> Result<Written, RecipeError> {
        let recipe = &self.plan.recipes[index];
        let mut substitution = Substitution::new();
        for (placeholder, object) in inputs {
            substitution.insert(*placeholder, object.id);
        }
        let (entries, manifest) = match &recipe.kind {
            RecipeKind::Tree(entries) => (entries.iter().map(|entry| fill_entry(entry, &substitution)).collect(), None),
            RecipeKind::Bundle(bundle) => {
                let (manifest, entries) = crate::bundle::assemble(bundle, &substitution)?;
                (entries, Some(manifest))
            }
            RecipeKind::Build(_) | RecipeKind::PythonFetch(_) | RecipeKind::Fetch(_) => unreachable!("builds and fetches have keys"),
        };
        let candidates: Vec<ObjectRef> = inputs.values().cloned().collect::<BTreeSet<_>>().into_iter().collect();
        let mut outputs = BTreeMap::new();
        let mut cached = true;
        for (name, output) in &recipe.outputs {
            let object = transaction.put_entries(&output.name, &entries, Some(&output.placeholder), &candidates)?;
            cached &= self.store.contains(&object.id)?;
            outputs.insert(name.clone(), object);
        }
        Ok(Written { outputs, manifest, cached })
    }
}

/// What waits to be published.
struct Written {
    outputs: BTreeMap<String, ObjectRef>,
    manifest: Option<Manifest>,
    cached: bool,
}

fn fill_entry(entry: &TreeEntry, substitution: &Substitution) -> NewEntry {
    let kind = match &entry.kind {
        TreeEntryKind::File { content, executable } => {
            NewEntryKind::File { content: Arc::from(substitution.fill(content)), executable: *executable }
        }
        TreeEntryKind::Symlink { target } => NewEntryKind::Symlink { target: substitution.fill_text(target) },
        TreeEntryKind::Directory => NewEntryKind::Directory,
    };
    NewEntry { path: entry.path.clone(), kind }
}

/// Writes a source into the build's directory, with modes and times that depend on nothing.
fn write_source(directory: &Path, source: &Source) -> Result<(), FsError> {
    let base = directory.join(&source.name);
    if !matches!(source.files.as_slice(), [(None, _, _)]) {
        fsutil::create_dir(&base, 0o755)?;
    }
    let mut made = BTreeSet::new();
    for (path, bytes, executable) in &source.files {
        let Some(path) = path else {
            write_file(&base, bytes, *executable)?;
            continue;
        };
        let mut parents: Vec<_> = std::iter::successors(path.parent(), sarsen_store::RelPath::parent).collect();
        while let Some(parent) = parents.pop() {
            if made.insert(parent.clone()) {
                fsutil::create_dir(&base.join(parent.as_path()), 0o755)?;
            }
        }
        write_file(&base.join(path.as_path()), bytes, *executable)?;
    }
    // Children first, since making an entry changes the time of its directory.
    for parent in made.iter().rev() {
        set_time(&base.join(parent.as_path()))?;
    }
    set_time(&base)
}

fn write_file(path: &Path, bytes: &[u8], executable: bool) -> Result<(), FsError> {
    let mode = if executable { 0o755 } else { 0o644 };
    let written = File::options().write(true).create_new(true).mode(mode).open(path).and_then(|mut file| {
        file.write_all(bytes)?;
        file.set_permissions(Permissions::from_mode(mode))
    });
    written.map_err(|error| FsError::new("write", path, error))?;
    set_time(path)
}

/// Sets the time of last change to what `SOURCE_DATE_EPOCH` says.
fn set_time(path: &Path) -> Result<(), FsError> {
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1);
    File::open(path).and_then(|file| file.set_modified(time)).map_err(|error| FsError::new("set the time of", path, error))
}

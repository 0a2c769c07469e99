//! From the model to recipes: what has to be made, out of what, in which order. Pure.
//!
//! One recipe per build, per fetch of wheels, per component's tree and per host's bundle. Texts still hold placeholders: a recipe needs
//! another one if its texts name one of the other's placeholders, or if the definition says so. Every recipe stands after those it
//! needs. Nothing is decided later: `realise` fills placeholders with real ids, and does what the recipes say.
//!
//! Equal work on different hosts is planned as often as it is asked for; its recipe keys are equal, so it is done once.

mod graph;
mod placeholders;
mod python;
mod texts;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use sarsen_store::manifest::Identity;
use sarsen_store::{ObjectId, ObjectName, RelPath};

use crate::diagnostic::Location;
use crate::model::{Build, ComponentModel, Fetch, HostModel, Model, Source, Step, StepKind};

pub use placeholders::Substitution;
pub(crate) use placeholders::positions;

/// What has to be made for one environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The directory of objects on the targets, an absolute path: what texts in objects name.
    pub store: String,
    /// All recipes; each stands after those it needs.
    pub recipes: Vec<Recipe>,
    /// The hosts to deploy to, sorted by name; ignored hosts are not among them.
    pub hosts: Vec<HostPlan>,
    /// Which recipe makes what stands behind a placeholder: an index into `recipes`.
    pub producers: BTreeMap<ObjectId, usize>,
}

/// What belongs to one host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPlan {
    /// The host's short name.
    pub name: String,
    /// Its bundle: an index into the recipes.
    pub bundle: usize,
    /// All its recipes, ascending: builds are done even if nothing refers to their outputs.
    pub recipes: Vec<usize>,
}

/// One piece of work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipe {
    /// The name for people: `<host>/<component>/<build>`, `<host>/<component>` for a tree, `<host>` for a bundle.
    pub label: String,
    /// Where it was declared; a bundle is declared nowhere.
    pub at: Option<Location>,
    /// What it makes. One output is called `out`, unless a build names its outputs.
    pub outputs: BTreeMap<String, Output>,
    /// Placeholders of other recipes' outputs that it needs, its own not among them.
    pub inputs: BTreeSet<ObjectId>,
    /// What is to be done.
    pub kind: RecipeKind,
}

/// One object that a recipe makes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// What stands for its id.
    pub placeholder: ObjectId,
    /// The object's name.
    pub name: ObjectName,
}

/// The kinds of work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecipeKind {
    /// A script in the sandbox.
    Build(BuildRecipe),
    /// Wheels by their digests, with the network.
    PythonFetch(PythonFetch),
    /// A file by its digest, with the network.
    Fetch(Fetch),
    /// Rendered files, directories and links.
    Tree(Vec<TreeEntry>),
    /// A host's bundle.
    Bundle(BundleRecipe),
}

/// A script in the sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildRecipe {
    /// The script, for `sh -eu`.
    pub script: String,
    /// What lies in its directory.
    pub sources: Vec<Source>,
    /// Environment variables beyond those that every build has.
    pub environment: BTreeMap<String, String>,
    /// How long it may take, in seconds.
    pub timeout_s: u64,
}

/// Wheels by their digests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PythonFetch {
    /// The lock file's text.
    pub lock: String,
    /// The interpreter whose `pip` fetches them.
    pub python: String,
}

/// An entry of a component's tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TreeEntry {
    /// Its path in the tree.
    pub path: RelPath,
    /// What it is.
    pub kind: TreeEntryKind,
}

/// The kinds of entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TreeEntryKind {
    /// A regular file.
    File {
        /// Its bytes; may hold placeholders.
        content: Arc<[u8]>,
        /// Whether it may be executed.
        executable: bool,
    },
    /// A symbolic link.
    Symlink {
        /// What it points to; may hold placeholders.
        target: String,
    },
    /// A directory.
    Directory,
}

/// A host's bundle: what `crate::bundle` assembles once the ids are known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BundleRecipe {
    /// Whom it is for.
    pub identity: Identity,
    /// The directory of objects on the target.
    pub store: String,
    /// The host with all its components.
    pub host: Arc<HostModel>,
}

/// What is wrong with a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What it is, without places.
    pub message: String,
    /// The places that take part, in the order of the definition or of the cycle.
    pub places: Vec<Location>,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(first) = self.places.first() {
            write!(f, "{}:{}: ", first.file, first.line)?;
        }
        f.write_str(&self.message)?;
        for place in self.places.iter().skip(1) {
            write!(f, "; {}:{}", place.file, place.line)?;
        }
        Ok(())
    }
}

/// Plans a model.
///
/// Hosts and components that are ignored contribute only what others refer to.
/// Errors: all findings at once: objects that need one another in a circle, entries of a tree that exclude one another, two steps that
/// make the same object, names that no object may have.
pub fn plan(model: &Model) -> Result<Plan, Vec<Finding>> {
    let mut draft = Draft { store: model.store(), ..Draft::default() };
    let mut hosts = Vec::new();
    for host in &model.hosts {
        let mut recipes = Vec::new();
        for component in &host.components {
            let first = draft.recipes.len();
            draft.add_component(host, component);
            if !component.ignore {
                recipes.extend(first..draft.recipes.len());
            }
        }
        draft.add_bundle(model, host);
        if !host.ignore {
            let bundle = draft.recipes.len() - 1;
            recipes.push(bundle);
            hosts.push(HostPlan { name: host.name.clone(), bundle, recipes });
        }
    }
    let Draft { store, mut recipes, explicit, mut findings } = draft;
    let producers = graph::connect(&mut recipes, &explicit, &mut findings);
    if !findings.is_empty() {
        findings.dedup();
        return Err(findings);
    }
    graph::arrange(Plan { store, recipes, hosts, producers })
}

/// The name of a host's bundle among the objects.
pub(crate) fn bundle_name(project: &str, environment: &str, host: &str) -> String {
    format!("{project}-{environment}-{host}")
}

/// What `plan` collects before the recipes are connected.
#[derive(Default)]
struct Draft {
    store: String,
    recipes: Vec<Recipe>,
    /// Inputs that the definition names, by index of the recipe.
    explicit: BTreeMap<usize, Vec<ObjectId>>,
    findings: Vec<Finding>,
}

impl Draft {
    fn add_component(&mut self, host: &HostModel, component: &ComponentModel) {
        for step in &component.steps {
            let label = |name: &str| format!("{}/{}/{name}", host.name, component.name);
            match &step.kind {
                StepKind::Build(build) => self.add_build(component, step, build, label(&build.name)),
                StepKind::PythonEnv(python) => {
                    let name = format!("{}-{}", component.name, python.name);
                    let wheels_name = format!("{name}-wheels");
                    let wheels = RecipeKind::PythonFetch(PythonFetch { lock: python.lock.clone(), python: python.python.clone() });
                    let install = RecipeKind::Build(python::install(python, &self.store, &wheels_name));
                    self.add(label(&format!("{}-wheels", python.name)), Some(&step.at), &[("out", wheels_name, python.wheels)], wheels);
                    self.add(label(&python.name), Some(&step.at), &[("out", name, python.output)], install);
                }
                StepKind::Fetch(fetch) => {
                    let outputs = [("out", format!("{}-{}", component.name, fetch.name), fetch.output)];
                    self.add(label(&fetch.name), Some(&step.at), &outputs, RecipeKind::Fetch(fetch.clone()));
                }
                StepKind::File { .. }
                | StepKind::Directory { .. }
                | StepKind::Symlink { .. }
                | StepKind::Service(_)
                | StepKind::Timer(_)
                | StepKind::Hook { .. }
                | StepKind::StateDirectory { .. }
                | StepKind::Link { .. }
                | StepKind::HealthCheck { .. }
                | StepKind::Requirement(_) => {}
            }
        }
        let entries = self.tree_entries(host, component);
        let label = format!("{}/{}", host.name, component.name);
        let at = component.steps.first().map(|step| &step.at);
        self.add(label, at, &[("out", component.name.clone(), component.output)], RecipeKind::Tree(entries));
    }

    fn add_build(&mut self, component: &ComponentModel, step: &Step, build: &Build, label: String) {
        let base = format!("{}-{}", component.name, build.name);
        let outputs: Vec<_> = build
            .outputs
            .iter()
            .map(|(output, placeholder)| {
                let name = if output == "out" { base.clone() } else { format!("{base}-{output}") };
                (output.as_str(), name, *placeholder)
            })
            .collect();
        self.explicit.insert(self.recipes.len(), build.inputs.clone());
        let kind = RecipeKind::Build(BuildRecipe {
            script: build.script.clone(),
            sources: build.sources.clone(),
            environment: build.environment.clone(),
            timeout_s: build.timeout_s,
        });
        self.add(label, Some(&step.at), &outputs, kind);
    }

    /// The bundle of a host, without its ignored components.
    fn add_bundle(&mut self, model: &Model, host: &HostModel) {
        let identity = Identity {
            project: model.project.clone(),
            environment: model.environment.clone(),
            host: host.name.clone(),
            profile: model.profile.clone(),
        };
        let name = bundle_name(&identity.project, &identity.environment, &identity.host);
        let placeholder = ObjectId::placeholder(&host.name);
        let mut host = host.clone();
        host.components.retain(|component| !component.ignore);
        let kind = RecipeKind::Bundle(BundleRecipe { identity, store: model.store(), host: Arc::new(host.clone()) });
        self.add(host.name.clone(), None, &[("out", name, placeholder)], kind);
    }

    fn add(&mut self, label: String, at: Option<&Location>, outputs: &[(&str, String, ObjectId)], kind: RecipeKind) {
        let mut made = BTreeMap::new();
        for (output, name, placeholder) in outputs {
            match name.parse() {
                Ok(name) => {
                    made.insert((*output).to_owned(), Output { placeholder: *placeholder, name });
                }
                Err(invalid) => {
                    self.findings.push(Finding { message: format!("{label}: {invalid}"), places: at.cloned().into_iter().collect() });
                }
            }
        }
        self.recipes.push(Recipe { label, at: at.cloned(), outputs: made, inputs: BTreeSet::new(), kind });
    }

    /// The tree's entries in the order of their paths; what excludes one another becomes a finding.
    fn tree_entries(&mut self, host: &HostModel, component: &ComponentModel) -> Vec<TreeEntry> {
        let mut entries: BTreeMap<&RelPath, (TreeEntryKind, &Location)> = BTreeMap::new();
        let owner = format!("{}/{}", host.name, component.name);
        for step in &component.steps {
            let Some((path, kind)) = tree_entry(step) else { continue };
            if let Some((other, at)) = entries.get(path) {
                if *other != TreeEntryKind::Directory || kind != TreeEntryKind::Directory {
                    let message = format!("`{path}` is declared twice in {owner}");
                    self.findings.push(Finding { message, places: vec![(*at).clone(), step.at.clone()] });
                }
                continue;
            }
            entries.insert(path, (kind, &step.at));
        }
        for (path, (_, at)) in &entries {
            let mut above = path.parent();
            while let Some(parent) = above {
                if let Some((TreeEntryKind::File { .. } | TreeEntryKind::Symlink { .. }, other)) = entries.get(&parent) {
                    let message = format!("`{parent}` in {owner} is not a directory, but `{path}` is to lie in it");
                    self.findings.push(Finding { message, places: vec![(*other).clone(), (*at).clone()] });
                }
                above = parent.parent();
            }
        }
        entries.into_iter().map(|(path, (kind, _))| TreeEntry { path: path.clone(), kind }).collect()
    }
}

fn tree_entry(step: &Step) -> Option<(&RelPath, TreeEntryKind)> {
    match &step.kind {
        StepKind::File { path, content, executable } => {
            Some((path, TreeEntryKind::File { content: Arc::clone(content), executable: *executable }))
        }
        StepKind::Directory { path } => Some((path, TreeEntryKind::Directory)),
        StepKind::Symlink { path, target } => Some((path, TreeEntryKind::Symlink { target: target.clone() })),
        StepKind::Build(_)
        | StepKind::PythonEnv(_)
        | StepKind::Fetch(_)
        | StepKind::Service(_)
        | StepKind::Timer(_)
        | StepKind::Hook { .. }
        | StepKind::StateDirectory { .. }
        | StepKind::Link { .. }
        | StepKind::HealthCheck { .. }
        | StepKind::Requirement(_) => None,
    }
}

#[cfg(test)]
mod tests;

//! Where the evaluation of one instance writes what it finds: the only thing that builtins and Rust share.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use sarsen_store::{ObjectId, RelPath};
use starlark::any::ProvidesStaticType;
use starlark::eval::Evaluator;

use super::failure::{Failure, location_of};
use super::steps::Declaration;
use super::{Outcome, Requirement, Resources, Task};
use crate::data::{Data, TargetPath};
use crate::diagnostic::{Diagnostic, Location};
use crate::environment::{Environment, HostEntry};
use crate::model::{Step, StepKind};
use crate::snapshot::Snapshot;
use crate::template::Templates;

/// The fields of a host: name, type, meaning.
pub(crate) const HOST_FIELDS: [(&str, &str, &str); 7] = [
    ("name", "str", "the short name"),
    ("fqdn", "str", "the full name: `<name>.<host_domain>`, or the short name where there is no domain"),
    ("platform", "str or None", "the platform, such as `debian12`"),
    ("groups", "list of str", "its groups, in the order in which it names them"),
    ("data", "dict", "what the environment says with `data = {...}`, at the host and its groups"),
    ("tags", "list of str", "the environment's tags for it, sorted"),
    ("addresses", "list of str", "its addresses in the environment's `[resolver]`"),
];

/// The fields of an environment: name, type, meaning.
pub(crate) const ENVIRONMENT_FIELDS: [(&str, &str, &str); 4] = [
    ("name", "str", "the name of its directory"),
    ("service_user", "str or None", "the user services run as"),
    ("platform", "str or None", "the platform of its hosts"),
    ("host_domain", "str or None", "the domain of its hosts"),
];

/// What all instances of an evaluation share.
#[derive(Debug)]
pub(crate) struct Scene {
    pub(crate) snapshot: Snapshot,
    pub(crate) environment: Environment,
    pub(crate) profile: String,
    pub(crate) root: String,
    /// By directory of the definition; made when first needed, used by all instances.
    pub(crate) templates: Mutex<BTreeMap<String, Arc<Templates>>>,
}

/// What is made in `configure` and has to be added.
pub(super) struct Made {
    pub(super) label: String,
    pub(super) at: Location,
    /// Where it was added, if it was.
    pub(super) added: Option<Location>,
    /// The step; a component holds its own.
    pub(super) declaration: Option<Declaration>,
}

/// What was collected so far.
#[derive(Default)]
pub(super) struct Collected {
    pub(super) made: Vec<Made>,
    /// Paths of the tree: where declared, and whether it is a directory.
    pub(super) tree: BTreeMap<RelPath, (Location, bool)>,
    /// Every directory that paths of the tree need, with the first of them.
    pub(super) needed: BTreeMap<RelPath, RelPath>,
    /// Names that must be unique: kind and name.
    pub(super) names: BTreeMap<(&'static str, String), Location>,
    pub(super) outcome: Outcome,
}

/// The evaluation of one instance.
#[derive(ProvidesStaticType)]
pub(super) struct Context {
    pub(super) scene: Arc<Scene>,
    pub(super) resources: Arc<Resources>,
    pub(super) component: String,
    pub(super) features: Vec<String>,
    host: usize,
    pub(super) collected: RefCell<Collected>,
    /// What is being configured, from the outermost component inwards.
    trail: RefCell<Vec<Crumb>>,
}

/// A part of a trail.
#[derive(Debug, Clone)]
struct Crumb {
    text: String,
    /// Whether it is a step, which its place names already.
    step: bool,
}

/// How far things were before a component was evaluated that is not added.
pub(super) struct Mark {
    steps: usize,
    provided: usize,
    tree: BTreeMap<RelPath, (Location, bool)>,
    needed: BTreeMap<RelPath, RelPath>,
    names: BTreeMap<(&'static str, String), Location>,
}

impl Context {
    pub(super) fn new(scene: Arc<Scene>, task: &Task<'_>, resources: Arc<Resources>) -> Self {
        Self {
            scene,
            resources,
            component: task.component.name.clone(),
            features: task.features.to_vec(),
            host: task.host,
            collected: RefCell::default(),
            trail: RefCell::default(),
        }
    }

    /// The context, if an instance is being evaluated and not a module.
    pub(super) fn find<'a>(eval: &Evaluator<'_, 'a, '_>) -> Option<&'a Self> {
        eval.extra.and_then(|extra| extra.downcast_ref::<Self>())
    }

    /// The context of a builtin that needs one.
    pub(super) fn of<'a>(eval: &Evaluator<'_, 'a, '_>) -> Result<&'a Self, Failure> {
        Self::find(eval).ok_or_else(|| super::component::outside("this is possible"))
    }

    /// Where the builtin that runs was called.
    pub(super) fn caller(eval: &Evaluator<'_, '_, '_>) -> Location {
        eval.call_stack_top_location().map_or_else(|| Location { file: String::new(), line: 1, column: 1 }, |span| location_of(&span))
    }

    pub(super) fn host(&self) -> &HostEntry {
        &self.scene.environment.hosts[self.host]
    }

    /// A path in an object of this instance.
    pub(super) fn object_path(&self, id: ObjectId, name: &str) -> TargetPath {
        TargetPath { base: format!("{}/store/{id}-{name}", self.scene.root), object: Some(id), rest: None }
    }

    /// The placeholder of the component's tree, or of something of it.
    pub(super) fn placeholder(&self, of: &str) -> ObjectId {
        ObjectId::placeholder(&format!("{}/{}{of}", self.host().name, self.component))
    }

    /// The component's own tree.
    pub(super) fn tree(&self) -> TargetPath {
        self.object_path(self.placeholder(""), &self.component)
    }

    /// The absolute path of a state directory.
    pub(super) fn state_path(&self, name: &str) -> String {
        format!("{}/state/{}/{}/{name}", self.scene.root, self.scene.profile, self.component)
    }

    /// Notes that a component, or an attribute of one, is being configured. What fails before [`Self::leave`] is told with it.
    pub(super) fn enter(&self, text: String) {
        self.trail.borrow_mut().push(Crumb { text, step: false });
    }

    /// Notes that a step is being added, by its label such as ``File `app.conf` ``.
    pub(super) fn enter_step(&self, label: &str) {
        let text =
            label.split_once(" `").map_or_else(|| label.to_owned(), |(kind, name)| format!("{kind}({})", name.trim_end_matches('`')));
        self.trail.borrow_mut().push(Crumb { text, step: true });
    }

    /// Notes that it is done.
    pub(super) fn leave(&self) {
        self.trail.borrow_mut().pop();
    }

    /// Where evaluation is, as breadcrumbs, if it is inside of more than the component that the environment names.
    fn breadcrumbs(&self) -> Option<String> {
        let trail = self.trail.borrow();
        let inside = trail.iter().filter(|crumb| !crumb.step).count() > 1;
        inside.then(|| trail.iter().map(|crumb| crumb.text.as_str()).collect::<Vec<_>>().join(" > "))
    }

    /// Remembers how far things are.
    pub(super) fn mark(&self) -> Mark {
        let collected = self.collected.borrow();
        let Collected { tree, needed, names, outcome, .. } = &*collected;
        let (steps, provided) = (outcome.steps.len(), outcome.provided.len());
        Mark { steps, provided, tree: tree.clone(), needed: needed.clone(), names: names.clone() }
    }

    /// Drops what was added since.
    pub(super) fn rewind(&self, mark: Mark) {
        let mut collected = self.collected.borrow_mut();
        collected.outcome.steps.truncate(mark.steps);
        collected.outcome.provided.truncate(mark.provided);
        (collected.tree, collected.needed, collected.names) = (mark.tree, mark.needed, mark.names);
    }

    /// Notes a mistake that evaluation can live with.
    pub(super) fn report(&self, mut diagnostic: Diagnostic) {
        diagnostic.within.extend(self.breadcrumbs());
        self.collected.borrow_mut().outcome.diagnostics.push(diagnostic);
    }

    pub(super) fn push_step(&self, at: Location, kind: StepKind) {
        let trail = self.trail.borrow();
        let within = trail.iter().skip(1).filter(|crumb| !crumb.step).map(|crumb| crumb.text.clone()).collect();
        self.collected.borrow_mut().outcome.steps.push(Step { at, within, kind });
    }

    /// Claims a name that one component may use once; the second use is a mistake.
    pub(super) fn claim(&self, kind: &'static str, name: &str, at: &Location) {
        let mut collected = self.collected.borrow_mut();
        let first = collected.names.get(&(kind, name.to_owned())).cloned();
        match first {
            Some(first) => {
                let diagnostic = Diagnostic::new("E0410", format!("`{}` has two {kind} `{name}`", self.component))
                    .at(at.clone())
                    .note("the first one", first);
                collected.outcome.diagnostics.push(diagnostic);
            }
            None => drop(collected.names.insert((kind, name.to_owned()), at.clone())),
        }
    }

    /// Claims a path of the component's tree.
    pub(super) fn claim_path(&self, path: &RelPath, at: &Location, directory: bool) {
        let mut collected = self.collected.borrow_mut();
        let tree = &collected.tree;
        let mut above = std::iter::successors(path.parent(), RelPath::parent);
        let clash = match tree.get(path) {
            Some((_, true)) if directory => None,
            Some((first, _)) => Some((format!("`{path}` is declared twice"), first)),
            None => above
                .find_map(|parent| tree.get_key_value(&parent).filter(|(_, (_, directory))| !directory))
                .map(|(parent, (first, _))| (format!("`{path}` cannot lie below `{parent}`, which is not a directory"), first))
                .or_else(|| {
                    let below = collected.needed.get(path).filter(|_| !directory)?;
                    Some((format!("`{path}` is not a directory, but `{below}` lies below it"), &tree.get(below)?.0))
                }),
        };
        if let Some((message, first)) = clash {
            let diagnostic = Diagnostic::new("E0411", message).at(at.clone()).note("the other one", first.clone());
            collected.outcome.diagnostics.push(diagnostic);
            return;
        }
        for parent in std::iter::successors(path.parent(), RelPath::parent) {
            collected.needed.entry(parent).or_insert_with(|| path.clone());
        }
        collected.tree.insert(path.clone(), (at.clone(), directory));
    }

    pub(super) fn require(&self, requirement: Requirement) {
        self.collected.borrow_mut().outcome.required.push(requirement);
    }

    /// Notes that something strictly required is not there, so that what goes wrong from now on may be a consequence.
    pub(super) fn note_unmet(&self) {
        let outcome = &mut self.collected.borrow_mut().outcome;
        let reported = outcome.diagnostics.len();
        outcome.sure.get_or_insert(reported);
    }

    pub(super) fn templates(&self, directory: &str) -> Arc<Templates> {
        let mut templates = self.scene.templates.lock().unwrap_or_else(PoisonError::into_inner);
        templates.entry(directory.to_owned()).or_insert_with(|| Arc::new(Templates::new(&self.scene.snapshot, directory))).clone()
    }

    /// `host` as definitions and templates see it; [`HOST_FIELDS`] says what the fields are.
    pub(super) fn host_fields(&self) -> Vec<(String, Data)> {
        let host = self.host();
        let resolver = &self.scene.environment.resolver;
        let mut addresses = resolver.addresses(&host.fqdn);
        if addresses.is_empty() {
            addresses = resolver.addresses(&host.name);
        }
        let texts = |texts: Vec<String>| Data::List(texts.into_iter().map(Data::Text).collect());
        let fields = [
            ("name", Data::Text(host.name.clone())),
            ("fqdn", Data::Text(host.fqdn.clone())),
            ("platform", optional(host.platform.as_ref())),
            ("groups", texts(host.groups.clone())),
            ("data", host.data.clone()),
            ("tags", texts(host.tags.clone())),
            ("addresses", texts(addresses.iter().map(ToString::to_string).collect())),
        ];
        debug_assert!(fields.iter().map(|(name, _)| *name).eq(HOST_FIELDS.map(|field| field.0)), "HOST_FIELDS is the list of them");
        fields.into_iter().map(|(name, data)| (name.to_owned(), data)).collect()
    }

    /// `environment` as definitions and templates see it; [`ENVIRONMENT_FIELDS`] says what the fields are.
    pub(super) fn environment_fields(&self) -> Vec<(String, Data)> {
        let environment = &self.scene.environment;
        let fields = [
            ("name", Data::Text(environment.name.clone())),
            ("service_user", optional(environment.service_user.as_ref())),
            ("platform", optional(environment.platform.as_ref())),
            ("host_domain", optional(environment.host_domain.as_ref())),
        ];
        debug_assert!(fields.iter().map(|(name, _)| *name).eq(ENVIRONMENT_FIELDS.map(|field| field.0)), "ENVIRONMENT_FIELDS is the list");
        fields.into_iter().map(|(name, data)| (name.to_owned(), data)).collect()
    }

    /// What was collected, with the error that ended the evaluation, if one did.
    pub(super) fn into_outcome(self, task: &Task<'_>, failure: Option<Diagnostic>) -> Outcome {
        let breadcrumbs = self.breadcrumbs();
        let failure = failure.map(|mut failure| {
            failure.within.extend(breadcrumbs);
            failure
        });
        let Collected { made, mut outcome, .. } = self.collected.into_inner();
        if failure.is_none() {
            for forgotten in made.iter().filter(|made| made.added.is_none()) {
                let diagnostic = Diagnostic::new("E0412", format!("{} was made but never added", forgotten.label)).at(forgotten.at.clone());
                outcome.diagnostics.push(diagnostic.hint("write `self.add(...)` around it"));
            }
        }
        outcome.failed = failure.is_some();
        outcome.diagnostics.extend(failure);
        outcome.attributes = task.attributes.iter().map(|(name, value)| (name.clone(), value.to_display())).collect();
        outcome
    }
}

fn optional(text: Option<&String>) -> Data {
    text.map_or(Data::None, |text| Data::Text(text.clone()))
}

impl starlark::PrintHandler for Context {
    fn println(&self, text: &str) -> starlark::Result<()> {
        super::messages::push(&mut self.collected.borrow_mut().outcome.messages, text);
        Ok(())
    }
}

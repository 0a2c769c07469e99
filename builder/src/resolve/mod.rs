//! Evaluation of one environment: definitions, instances in rounds, and the model that comes out.
//!
//! What can be collected is collected: syntax errors of all files, mistakes in TOML and in all instances are reported
//! together. Only what would be a mere consequence of another mistake is left out.

mod order;
mod overrides;
mod report;
mod rounds;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use crate::describe::{Description, describe_here};
use crate::diagnostic::{Diagnostic, Location, Severity, sort_diagnostics};
use crate::environment::{Environment, parse_environment, parse_project};
use crate::eval::{Definitions, EVALUATION_THREAD, Resources, STACK_BYTES, Scene, load_definitions};
use crate::model::{Attribute, ComponentModel, Fleet, FleetHost, HostModel, Model, Place, Resource, ResourceUse};
use crate::snapshot::Snapshot;
use overrides::Attributes;
use rounds::Instance;
pub(crate) use rounds::ROUNDS_MAX;

/// What is evaluated, and how.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a> {
    /// The project.
    pub snapshot: &'a Snapshot,
    /// The name of the environment.
    pub environment: &'a str,
    /// The root of the installation for `connect = "local"` where the environment names none, an absolute path.
    pub local_root: &'a str,
    /// How many threads evaluate; has no influence on the result.
    pub workers: usize,
}

/// What came of an evaluation.
#[derive(Debug)]
pub struct Assessment {
    /// The model, if there is no error.
    pub model: Option<Model>,
    /// Errors and warnings, in order.
    pub diagnostics: Vec<Diagnostic>,
}

/// Evaluates one environment of a project.
///
/// Errors: all errors of the definitions, in order; warnings are left out, see [`assess`].
pub fn evaluate(input: &Input<'_>) -> Result<Model, Vec<Diagnostic>> {
    let Assessment { model, mut diagnostics } = assess(input);
    diagnostics.retain(|diagnostic| diagnostic.severity == Severity::Error);
    model.ok_or(diagnostics)
}

/// Evaluates one environment of a project and keeps warnings.
pub fn assess(input: &Input<'_>) -> Assessment {
    let gave_up = |diagnostic: Box<Diagnostic>| Assessment { model: None, diagnostics: vec![*diagnostic] };
    let mut assessment = on_large_stack(|| assess_here(input)).unwrap_or_else(gave_up);
    sort_diagnostics(&mut assessment.diagnostics);
    assessment
}

/// Reads what the components of a project say of themselves; what is wrong with the definitions comes with it.
pub fn describe(snapshot: &Snapshot) -> (Vec<Description>, Vec<Diagnostic>) {
    on_large_stack(|| describe_here(snapshot)).unwrap_or_else(|diagnostic| (Vec::new(), vec![*diagnostic]))
}

/// Runs what evaluates on a thread that has the stack for it.
fn on_large_stack<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T, Box<Diagnostic>> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name(EVALUATION_THREAD.to_owned()).stack_size(STACK_BYTES).spawn_scoped(scope, work);
        let result = thread.ok().and_then(|thread| thread.join().ok());
        let diagnostic = || Diagnostic::new("E0299", "the evaluator gave up").hint("is there enough memory for a stack of 64 MiB?");
        result.ok_or_else(|| Box::new(diagnostic()))
    })
}

/// Finds the hosts of one environment and how they are reached; components are not looked at, so a broken one is no obstacle.
///
/// Errors: what is wrong with `sarsen.toml` and the environment, in order.
pub fn find_fleet(snapshot: &Snapshot, environment: &str, local_root: &str) -> Result<Fleet, Vec<Diagnostic>> {
    let mut diagnostics = Vec::new();
    let project = parse_project(snapshot, &mut diagnostics);
    let environment = parse_environment(snapshot, environment, &mut diagnostics);
    diagnostics.retain(|diagnostic| diagnostic.severity == Severity::Error);
    sort_diagnostics(&mut diagnostics);
    let (Some(project), Some(environment), true) = (project, environment, diagnostics.is_empty()) else { return Err(diagnostics) };
    let host = |host: &crate::environment::HostEntry| FleetHost {
        name: host.name.clone(),
        fqdn: host.fqdn.clone(),
        ignore: host.ignore,
        ssh: host.ssh.clone(),
    };
    Ok(Fleet {
        profile: environment.profile(&project.name).to_owned(),
        project: project.name,
        root: environment.root(local_root).to_owned(),
        connect: environment.connect,
        jobs: environment.jobs,
        timeout_s: environment.timeout_s,
        hosts: environment.hosts.iter().map(host).collect(),
        environment: environment.name,
    })
}

fn assess_here(input: &Input<'_>) -> Assessment {
    let mut diagnostics = Vec::new();
    let project = parse_project(input.snapshot, &mut diagnostics);
    if let Some(project) = &project {
        crate::lock::check_lock(input.snapshot, project, &mut diagnostics);
    }
    let environment = parse_environment(input.snapshot, input.environment, &mut diagnostics);
    let definitions = load_definitions(input.snapshot, &mut diagnostics);
    let Some(environment) = environment else { return Assessment { model: None, diagnostics } };

    let project = project.map_or_else(|| "project".to_owned(), |project| project.name);
    check_bundle_names(&project, &environment, &mut diagnostics);
    check_names(input.snapshot, &environment, &definitions, &mut diagnostics);
    let named = diagnostics.iter().all(|diagnostic| diagnostic.severity != Severity::Error);
    let attributes = overrides::resolve(input.snapshot, &environment, &definitions, &mut diagnostics);

    let profile = environment.profile(&project).to_owned();
    let root = environment.root(input.local_root).to_owned();
    let scene = Arc::new(Scene { snapshot: input.snapshot.clone(), environment, profile, root, templates: Mutex::default() });
    let mut instances = instances(&scene.environment, &definitions, &attributes);
    // A wrong override takes no component away, unless that has no other value.
    let consistent = named && instances.len() == scene.environment.hosts.iter().map(|host| host.components.len()).sum::<usize>();
    let mut resources = Arc::new(Resources::default());
    let restless = rounds::converge(&scene, &mut instances, &mut resources, input.workers);

    diagnostics.extend(report::diagnose(&scene, &instances, &resources, &restless, consistent));
    let (order, circles) = order::arrange(&instances);
    if restless.is_empty() {
        diagnostics.extend(circles);
    }
    let failed = diagnostics.iter().any(|diagnostic| diagnostic.severity == Severity::Error);
    let model = (!failed).then(|| model(project, &scene, instances, &order, &attributes, &resources));
    Assessment { model, diagnostics }
}

/// Reports hosts whose bundles could have no name, because it would be too long.
fn check_bundle_names(project: &str, environment: &Environment, diagnostics: &mut Vec<Diagnostic>) {
    for host in &environment.hosts {
        let name = crate::plan::bundle_name(project, &environment.name, &host.name);
        if name.parse::<sarsen_store::ObjectName>().is_err() {
            let message = format!("host `{}` can have no bundle: `{name}` is too long for an object's name", host.name);
            let diagnostic = Diagnostic::new("E0109", message);
            diagnostics.push(diagnostic.hint("shorten the name of the project, the environment or the host, or set `host_domain`"));
        }
    }
}

/// Reports components that hosts or overrides name and that do not exist.
fn check_names(snapshot: &Snapshot, environment: &Environment, definitions: &Definitions, diagnostics: &mut Vec<Diagnostic>) {
    if definitions.incomplete {
        // What is not known may stand in a file that could not be loaded.
        return;
    }
    let known = || definitions.components.keys().map(String::as_str);
    let unknown = |span: &crate::environment::Span, code, name: &str| {
        let diagnostic = span.diagnostic(snapshot, code, format!("there is no component `{name}`"));
        if definitions.components.is_empty() {
            diagnostic.hint(format!("write `components/{name}/component.star`"))
        } else {
            diagnostic.hint_names(name, known())
        }
    };
    for assignment in environment.hosts.iter().flat_map(|host| &host.components) {
        let Some(component) = definitions.components.get(&assignment.component) else {
            diagnostics.push(unknown(&assignment.span, "E0110", &assignment.component));
            continue;
        };
        let Some(declared) = &component.info.features else { continue };
        for feature in assignment.features.iter().filter(|feature| !declared.contains(feature)) {
            let message = format!("`{}` has no feature `{feature}`", assignment.component);
            let diagnostic = assignment.span.diagnostic(snapshot, "E0113", message).note("defined here", component.info.at.clone());
            diagnostics.push(diagnostic.hint_names(feature, declared.iter().map(String::as_str)));
        }
    }
    let of_hosts = environment.hosts.iter().flat_map(|host| &host.overrides);
    for overrides in environment.overrides.iter().chain(of_hosts) {
        if !definitions.components.contains_key(&overrides.component) {
            diagnostics.push(unknown(&overrides.span, "E0111", &overrides.component));
        }
    }
}

/// All instances that can be evaluated, sorted by host and component.
fn instances<'a>(environment: &Environment, definitions: &'a Definitions, attributes: &'a Attributes) -> Vec<Instance<'a>> {
    let mut instances = Vec::new();
    for (host, entry) in environment.hosts.iter().enumerate() {
        for assignment in &entry.components {
            let component = definitions.components.get(&assignment.component);
            if let (Some(component), Some(attributes)) = (component, attributes.of(host, &assignment.component)) {
                let declared = component.info.features.as_ref().filter(|_| assignment.features.is_empty());
                let features = declared.unwrap_or(&assignment.features).clone();
                instances.push(Instance::new(component, host, entry.name.clone(), features, &attributes.values));
            }
        }
    }
    instances
}

fn model(
    project: String,
    scene: &Scene,
    instances: Vec<Instance<'_>>,
    order: &[usize],
    attributes: &Attributes,
    resources: &Resources,
) -> Model {
    let environment = &scene.environment;
    let mut hosts: Vec<HostModel> = environment
        .hosts
        .iter()
        .map(|host| HostModel {
            name: host.name.clone(),
            fqdn: host.fqdn.clone(),
            platform: host.platform.clone(),
            ignore: host.ignore,
            tags: host.tags.clone(),
            ssh: host.ssh.clone(),
            components: Vec::new(),
        })
        .collect();
    let uses: BTreeSet<ResourceUse> = instances.iter().flat_map(uses).collect();
    let place = |instance: &Instance<'_>| Place { host: instance.host_name.clone(), component: instance.component.name.clone() };
    let places = order.iter().map(|index| place(&instances[*index])).collect();
    let mut instances: Vec<Option<Instance<'_>>> = instances.into_iter().map(Some).collect();
    for instance in order.iter().filter_map(|index| instances[*index].take()) {
        let assignments = &environment.hosts[instance.host].components;
        let origins = attributes
            .of(instance.host, &instance.component.name)
            .map_or_else(Vec::new, |values| values.values.iter().map(|(name, _)| name.clone()).zip(values.origins.clone()).collect());
        let origins: BTreeMap<String, (String, Location)> = origins.into_iter().collect();
        let attribute = |(name, value): (String, String)| {
            let (origin, at) = origins.get(&name).cloned().unwrap_or_else(|| ("default".to_owned(), instance.component.info.at.clone()));
            (name, Attribute { value, origin, at })
        };
        hosts[instance.host].components.push(ComponentModel {
            name: instance.component.name.clone(),
            features: instance.features,
            ignore: assignments.iter().any(|assignment| assignment.component == instance.component.name && assignment.ignore),
            attributes: instance.outcome.attributes.into_iter().map(attribute).collect(),
            output: sarsen_store::ObjectId::placeholder(&format!("{}/{}", instance.host_name, instance.component.name)),
            steps: instance.outcome.steps,
            messages: instance.outcome.messages,
        });
    }
    let resource = |key: &String, provision: &crate::eval::Provision| Resource {
        key: key.clone(),
        host: provision.host.clone(),
        component: provision.component.clone(),
        value: provision.value.to_canonical_json(),
    };
    Model {
        project,
        environment: environment.name.clone(),
        profile: scene.profile.clone(),
        root: scene.root.clone(),
        connect: environment.connect,
        service_user: environment.service_user.clone(),
        jobs: environment.jobs,
        timeout_s: environment.timeout_s,
        hosts,
        uses: uses.into_iter().collect(),
        order: places,
        resources: resources
            .0
            .iter()
            .flat_map(|(key, provisions)| provisions.iter().map(move |provision| resource(key, provision)))
            .collect(),
    }
}

fn uses<'a>(instance: &'a Instance<'_>) -> impl Iterator<Item = ResourceUse> + use<'a> {
    let (host, component) = (&instance.host_name, &instance.component.name);
    instance.outcome.required.iter().map(|requirement| ResourceUse {
        key: requirement.key.clone(),
        host: host.clone(),
        component: component.clone(),
        of: requirement.host.clone(),
        order: requirement.order,
        values: requirement.values,
    })
}

#[cfg(test)]
mod tests;

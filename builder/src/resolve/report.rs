//! What is wrong after the last round, each thing once, with the instances it concerns.

use std::collections::{BTreeMap, BTreeSet};

use super::rounds::{Instance, ROUNDS_MAX};
use crate::diagnostic::{Diagnostic, LISTED_MAX, Location, Severity, WHILE_CONFIGURING, nearest_name};
use crate::eval::{Outcome, Requirement, Resources, Scene};
use crate::model::{StepKind, Timer};

/// All diagnostics of the instances.
///
/// `consistent` says that every component that the environment names could be evaluated; if not, missing resources are likely a
/// consequence and are not reported.
pub(super) fn diagnose(
    scene: &Scene,
    instances: &[Instance<'_>],
    resources: &Resources,
    restless: &[usize],
    consistent: bool,
) -> Vec<Diagnostic> {
    let mut found = Grouped::default();
    if let Some(diagnostic) = name_restless(instances, restless) {
        return vec![diagnostic];
    }
    // What an instance that failed for a reason of its own would have provided, nobody knows.
    let suspect = instances.iter().find(|instance| instance.outcome.failed && unsatisfied(instance, resources).next().is_none());
    for instance in instances {
        let mut satisfied = true;
        for requirement in unsatisfied(instance, resources) {
            satisfied = false;
            if consistent {
                found.add(nothing_provides(requirement, resources, suspect), instance);
            }
        }
        let Outcome { diagnostics, sure, .. } = &instance.outcome;
        let shown = if satisfied { diagnostics.len() } else { sure.unwrap_or(0) };
        for diagnostic in diagnostics.iter().take(shown) {
            found.add(diagnostic.clone(), instance);
        }
    }
    shared_names(instances, &mut found);
    let mut diagnostics = found.into_diagnostics();
    if consistent && diagnostics.iter().all(|diagnostic| diagnostic.severity == Severity::Warning) {
        diagnostics.extend(unused(scene, instances, resources));
    }
    diagnostics
}

/// The strict requirements of an instance for which there is nothing.
fn unsatisfied<'a>(instance: &'a Instance<'_>, resources: &'a Resources) -> impl Iterator<Item = &'a Requirement> {
    let missing =
        |requirement: &&Requirement| requirement.strict && resources.find(&requirement.key, requirement.host.as_deref()).next().is_none();
    instance.outcome.required.iter().filter(missing)
}

fn nothing_provides(requirement: &Requirement, resources: &Resources, suspect: Option<&Instance<'_>>) -> Diagnostic {
    let Requirement { at, key, host, .. } = requirement;
    let on = host.as_ref().map_or_else(String::new, |host| format!(" on host `{host}`"));
    let diagnostic = Diagnostic::new("E0501", format!("nothing provides `{key}`{on}")).at(at.clone());
    let elsewhere: BTreeSet<&str> = resources.find(key, None).map(|provision| provision.host.as_str()).collect();
    if !elsewhere.is_empty() {
        let hosts: Vec<&str> = elsewhere.into_iter().collect();
        return diagnostic.hint(format!("it is provided on {}", crate::diagnostic::list_names(&hosts)));
    }
    match (nearest_name(key, resources.0.keys().map(String::as_str)), suspect) {
        (Some(name), _) => diagnostic.hint(format!("did you mean `{name}`?")),
        (None, Some(failed)) => diagnostic.note(format!("{} failed and may be what provides it", failed.label()), None),
        (None, None) => diagnostic.hint("give a host a component that provides it, or write `strict = False`"),
    }
}

/// Names the instances whose requirements never came to rest.
fn name_restless(instances: &[Instance<'_>], restless: &[usize]) -> Option<Diagnostic> {
    let first = instances.get(*restless.first()?)?;
    let labels: Vec<String> = restless.iter().map(|index| instances[*index].label()).collect();
    let message = format!("resources do not come to rest after {ROUNDS_MAX} rounds: {}", enumerate(&labels));
    let keys: BTreeSet<String> =
        restless.iter().flat_map(|index| &instances[*index].outcome.required).map(|requirement| format!("`{}`", requirement.key)).collect();
    let at = first.outcome.required.first().map_or_else(|| first.component.info.at.clone(), |requirement| requirement.at.clone());
    let keys: Vec<String> = keys.into_iter().collect();
    let diagnostic = Diagnostic::new("E0503", message).at(at).note(format!("they require {}", enumerate(&keys)), None);
    Some(diagnostic.hint("a value must not depend on itself: does a component provide something made of what it requires?"))
}

/// Services, links and ports are the host's: two components cannot have the same.
fn shared_names(instances: &[Instance<'_>], found: &mut Grouped) {
    let mut first: BTreeMap<(usize, &'static str, String), &Location> = BTreeMap::new();
    for instance in instances {
        for step in &instance.outcome.steps {
            let claim = match &step.kind {
                StepKind::Service(service) | StepKind::Timer(Timer { job: service, .. }) => ("services", service.name.clone()),
                StepKind::Link { path, .. } => ("links", path.clone()),
                StepKind::Requirement(sarsen_store::manifest::Requirement::Port { port, .. }) => ("ports", port.to_string()),
                StepKind::File { .. }
                | StepKind::Directory { .. }
                | StepKind::Symlink { .. }
                | StepKind::Build(_)
                | StepKind::PythonEnv(_)
                | StepKind::Fetch(_)
                | StepKind::Hook { .. }
                | StepKind::StateDirectory { .. }
                | StepKind::HealthCheck { .. }
                | StepKind::Requirement(_) => continue,
            };
            if let Some(other) = first.get(&(instance.host, claim.0, claim.1.clone())) {
                let message = format!("the host gets two {} `{}`", claim.0, claim.1);
                found.add(Diagnostic::new("E0410", message).at(step.at.clone()).note("the first one", (*other).clone()), instance);
            } else {
                first.insert((instance.host, claim.0, claim.1), &step.at);
            }
        }
    }
}

/// Warns of values that nobody requires.
fn unused(scene: &Scene, instances: &[Instance<'_>], resources: &Resources) -> Vec<Diagnostic> {
    let mut found = Grouped::default();
    let required: Vec<&Requirement> = instances.iter().flat_map(|instance| &instance.outcome.required).collect();
    let used: BTreeSet<(&str, Option<&str>)> =
        required.iter().map(|requirement| (requirement.key.as_str(), requirement.host.as_deref())).collect();
    for instance in instances.iter().filter(|instance| !scene.environment.hosts[instance.host].ignore) {
        for (key, _, at) in &instance.outcome.provided {
            if used.contains(&(key.as_str(), None)) || used.contains(&(key.as_str(), Some(instance.host_name.as_str()))) {
                continue;
            }
            let diagnostic = Diagnostic::new("E0502", format!("nothing requires `{key}`")).warning().at(at.clone());
            let wanted = required.iter().map(|requirement| requirement.key.as_str()).filter(|wanted| !resources.0.contains_key(*wanted));
            let diagnostic = match nearest_name(key, wanted) {
                Some(name) => diagnostic.hint(format!("`{name}` is required and not provided")),
                None => diagnostic,
            };
            found.add(diagnostic, instance);
        }
    }
    found.into_diagnostics()
}

/// The same diagnostic of many instances is one.
#[derive(Default)]
struct Grouped {
    groups: Vec<(Diagnostic, BTreeMap<String, Vec<String>>)>,
    /// Where a place's diagnostics stand in `groups`.
    by_place: BTreeMap<Option<Location>, Vec<usize>>,
}

impl Grouped {
    fn add(&mut self, mut diagnostic: Diagnostic, instance: &Instance<'_>) {
        let same_place = self.by_place.entry(diagnostic.location.clone()).or_default();
        // The same mistake in several sub-components is one.
        let within = std::mem::take(&mut diagnostic.within);
        let same = |index: &usize| {
            let Diagnostic { severity, code, message, location, length, notes, hints, within: _ } = &self.groups[*index].0;
            let other = &diagnostic;
            (severity, code, message, location) == (&other.severity, &other.code, &other.message, &other.location)
                && (length, notes, hints) == (&other.length, &other.notes, &other.hints)
        };
        let known = same_place.iter().copied().find(same);
        let index = known.unwrap_or_else(|| {
            same_place.push(self.groups.len());
            self.groups.push((diagnostic, BTreeMap::new()));
            self.groups.len() - 1
        });
        for breadcrumbs in within {
            if !self.groups[index].0.within.contains(&breadcrumbs) {
                self.groups[index].0.within.push(breadcrumbs);
            }
        }
        let hosts = self.groups[index].1.entry(instance.component.name.clone()).or_default();
        if hosts.last() != Some(&instance.host_name) {
            hosts.push(instance.host_name.clone());
        }
    }

    fn into_diagnostics(self) -> Vec<Diagnostic> {
        let label = |instances: BTreeMap<String, Vec<String>>| {
            let labels: Vec<String> =
                instances.into_iter().map(|(component, hosts)| format!("`{component}` on {}", enumerate(&hosts))).collect();
            labels.join("; ")
        };
        self.groups
            .into_iter()
            .map(|(diagnostic, instances)| diagnostic.note(format!("{WHILE_CONFIGURING} {}", label(instances)), None))
            .collect()
    }
}

/// Labels with commas, shortened after [`LISTED_MAX`].
pub(super) fn enumerate(labels: &[String]) -> String {
    let listed = labels.iter().take(LISTED_MAX).cloned().collect::<Vec<_>>().join(", ");
    match labels.len().saturating_sub(LISTED_MAX) {
        0 => listed,
        more => format!("{listed} and {more} more"),
    }
}

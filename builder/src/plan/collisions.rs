//! Names that the components of one host must share: units, managed paths, and names in the bundle.

use std::collections::BTreeMap;

use sarsen_store::manifest::{MANIFEST_FILE, UNIT_DIRECTORY};

use super::Finding;
use crate::diagnostic::Location;
use crate::model::{HostModel, Service, StepKind};

/// Finds what two components of `host` both claim, and components whose names the bundle needs itself.
pub(super) fn find(host: &HostModel) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut claimed: BTreeMap<String, (&str, &Location)> = BTreeMap::new();
    for component in &host.components {
        if [MANIFEST_FILE, UNIT_DIRECTORY].contains(&component.name.as_str()) {
            let message = format!("no component can be called `{}`: the bundle has a file of that name", component.name);
            findings.push(Finding { message, places: component.steps.first().map(|step| step.at.clone()).into_iter().collect() });
        }
        for step in &component.steps {
            let Some(claim) = claim(&step.kind) else { continue };
            if let Some((other, at)) = claimed.get(&claim) {
                let message = format!("{claim} is declared by `{other}` and by `{}` on host `{}`", component.name, host.name);
                findings.push(Finding { message, places: vec![(*at).clone(), step.at.clone()] });
            } else {
                claimed.insert(claim, (&component.name, &step.at));
            }
        }
    }
    findings
}

/// What only one component of a host can have, as messages name it.
fn claim(step: &StepKind) -> Option<String> {
    match step {
        StepKind::Service(Service { name, .. }) => Some(format!("the service `{name}`")),
        StepKind::Link { path, .. } => Some(format!("the link `{path}`")),
        StepKind::File { .. }
        | StepKind::Directory { .. }
        | StepKind::Symlink { .. }
        | StepKind::Build(_)
        | StepKind::PythonEnv(_)
        | StepKind::Hook { .. }
        | StepKind::StateDirectory { .. }
        | StepKind::HealthCheck { .. }
        | StepKind::Requirement(_) => None,
    }
}

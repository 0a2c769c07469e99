//! The attributes of components on hosts: what is laid over what, and who said it.
//!
//! From the bottom up: the default of the definition, `[components.NAME]` of the environment (and of those it extends), the groups of
//! the host in the order in which it names them, the pattern that the host fits, the host. A value is replaced as a whole.

use std::collections::BTreeMap;

use crate::data::Data;
use crate::diagnostic::{Diagnostic, Location, list_names};
use crate::environment::{Environment, Overrides};
use crate::eval::{ComponentInfo, Definitions};
use crate::snapshot::Snapshot;

/// The attributes of one component.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Values {
    pub(super) values: Vec<(String, Data)>,
    /// By attribute, in the same order: who gave the value, and where.
    pub(super) origins: Vec<(String, Location)>,
}

/// The attributes of all components on all hosts. Components that lack a value are left out.
#[derive(Debug, Default)]
pub(super) struct Attributes {
    /// Where no group or host says anything.
    common: BTreeMap<String, Values>,
    /// By host, its place in the environment's list, and component.
    own: BTreeMap<(usize, String), Values>,
}

impl Attributes {
    pub(super) fn of(&self, host: usize, component: &str) -> Option<&Values> {
        self.own.get(&(host, component.to_owned())).or_else(|| self.common.get(component))
    }
}

/// What was given for attributes, by name.
type Given<'a> = BTreeMap<&'a str, (Data, String, Location)>;

/// Finds the attributes of all components on all hosts; what is wrong with overrides, and values that are missing, are reported.
pub(super) fn resolve(
    snapshot: &Snapshot,
    environment: &Environment,
    definitions: &Definitions,
    diagnostics: &mut Vec<Diagnostic>,
) -> Attributes {
    let mut attributes = Attributes::default();
    for (name, component) in &definitions.components {
        let known = diagnostics.len();
        let mut given = Given::new();
        for overrides in environment.overrides.iter().filter(|overrides| overrides.component == *name) {
            accept(snapshot, component, overrides, &mut given, diagnostics);
        }
        let common = complete(component, &given);
        let mut reported = diagnostics.len() > known;
        for (index, host) in environment.hosts.iter().enumerate() {
            let Some(used) = host.components.iter().find(|assignment| assignment.component == *name) else { continue };
            let mut own = given.clone();
            for overrides in host.overrides.iter().filter(|overrides| overrides.component == *name) {
                accept(snapshot, component, overrides, &mut own, diagnostics);
            }
            let values = if own == given { common.clone() } else { complete(component, &own) };
            match values {
                Ok(values) if common.as_ref() != Ok(&values) => drop(attributes.own.insert((index, name.clone()), values)),
                Err(missing) if !reported => {
                    reported = true;
                    let message = format!("`{name}` has no value for {}", list_names(&missing));
                    let diagnostic = used.span.diagnostic(snapshot, "E0304", message).note("defined here", component.info.at.clone());
                    diagnostics.push(diagnostic.hint(format!("set it in [components.{name}], or give the attribute a default")));
                }
                // The common ones, or reported before.
                Ok(_) | Err(_) => {}
            }
        }
        if let Ok(values) = common {
            attributes.common.insert(name.clone(), values);
        }
    }
    attributes
}

/// Every attribute with its value.
///
/// Errors: the names of those that have none.
fn complete<'a>(component: &'a ComponentInfo, given: &Given<'_>) -> Result<Values, Vec<&'a str>> {
    let mut complete = Values { values: Vec::new(), origins: Vec::new() };
    let mut missing = Vec::new();
    for attribute in &component.info.attributes {
        let (value, origin) = match (given.get(attribute.name.as_str()), &attribute.default) {
            (Some((value, by, at)), _) => (value.clone(), (by.clone(), at.clone())),
            (None, Some(default)) => (default.clone(), ("default".to_owned(), component.info.at.clone())),
            (None, None) => {
                missing.push(attribute.name.as_str());
                continue;
            }
        };
        complete.values.push((attribute.name.clone(), value));
        complete.origins.push(origin);
    }
    if missing.is_empty() { Ok(complete) } else { Err(missing) }
}

/// Lays overrides over what was given so far.
fn accept<'a>(
    snapshot: &Snapshot,
    component: &'a ComponentInfo,
    overrides: &Overrides,
    given: &mut Given<'a>,
    diagnostics: &mut Vec<Diagnostic>,
) {
    for (name, span, data) in &overrides.attributes {
        let Some(attribute) = component.info.attributes.iter().find(|attribute| attribute.name == *name) else {
            let message = format!("`{}` has no attribute `{name}`", component.name);
            let known = component.info.attributes.iter().map(|attribute| attribute.name.as_str());
            diagnostics.push(span.diagnostic(snapshot, "E0303", message).hint_names(name, known));
            continue;
        };
        match attribute.kind.accept(data.clone()) {
            Ok(data) => {
                let by = overrides.by.clone().unwrap_or_else(|| "environment".to_owned());
                given.insert(attribute.name.as_str(), (data, by, span.location(snapshot)));
            }
            Err(refusal) => {
                let message = format!("attribute `{name}` of `{}` {refusal}", component.name);
                diagnostics.push(span.diagnostic(snapshot, "E0303", message).note("defined here", component.info.at.clone()));
            }
        }
    }
}

//! The pure comparison of two generations: what activating the new one changes on the host.
//!
//! It reads manifests and texts of units that were loaded before, so the same two generations always give the
//! same plan. How two texts of one unit compare stands in [`crate::unitfile`].

use std::collections::{BTreeMap, BTreeSet};

use sarsen_store::ObjectRef;
use sarsen_store::manifest::{Manifest, Phase, Role};
use serde::{Deserialize, Serialize};

use crate::unitfile::{Change, compare_units};

/// What an activation changes, in the order in which it happens. Leaves no choice to the activation.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ActivationPlan {
    /// The new bundle is the current one and as it was left: nothing happens.
    pub unchanged: bool,
    /// The new bundle is the current one, but not as it was left: it is put right, and no new generation is made.
    pub repair: bool,
    /// Units that are stopped before the switch: removed ones, and changed ones (restarted by stop and start).
    pub stop: Vec<String>,
    /// Units that are started after the switch: new and changed ones.
    pub start: Vec<String>,
    /// Units that are told to read their configuration again.
    pub reload: Vec<String>,
    /// Units that go on untouched.
    pub keep: Vec<String>,
    /// Units that would go on, but have ended by themselves: they are started.
    pub revive: Vec<String>,
    /// State directories that are made.
    pub directories_make: Vec<String>,
    /// Managed paths that are made or changed.
    pub links_make: Vec<String>,
    /// Managed paths that are removed.
    pub links_remove: Vec<String>,
    /// Components that are new.
    pub components_added: Vec<String>,
    /// Components whose tree differs.
    pub components_changed: Vec<String>,
    /// Components that leave.
    pub components_removed: Vec<String>,
    /// Hooks that will be asked, as `component/name`.
    pub hooks: Vec<String>,
}

/// A bundle as far as comparisons and activations need it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// The bundle.
    pub bundle: ObjectRef,
    /// Its manifest.
    pub manifest: Manifest,
    /// The text of each unit of the manifest.
    pub units: BTreeMap<String, String>,
}

impl Loaded {
    /// The names of the units that run while the generation is current, in the order of the manifest: all but jobs, which their
    /// triggers start.
    pub fn unit_names(&self) -> Vec<String> {
        running_units(&self.manifest)
    }
}

/// The units of a manifest that run while its generation is current.
pub fn running_units(manifest: &Manifest) -> Vec<String> {
    manifest.services.iter().filter(|service| service.role != Role::Job).map(|service| service.unit.clone()).collect()
}

/// What of a generation is not as its activation left it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Drift {
    /// Units that do not run.
    pub ended: BTreeSet<String>,
    /// Managed paths that do not lead where they should.
    pub links: BTreeSet<String>,
    /// State directories that are not there.
    pub directories: BTreeSet<String>,
    /// Hooks that have not succeeded for what the generation wants of them, as `component/name`.
    pub hooks: BTreeSet<String>,
}

/// Adds to a plan what has drifted: of the new generation's paths and directories, and of the units that go on.
pub fn put_right(plan: &mut ActivationPlan, new: &Manifest, drift: &Drift) {
    (plan.revive, plan.keep) = std::mem::take(&mut plan.keep).into_iter().partition(|unit| drift.ended.contains(unit));
    plan.directories_make = drift.directories.iter().cloned().collect();
    let links: BTreeSet<String> = drift.links.iter().cloned().chain(std::mem::take(&mut plan.links_make)).collect();
    plan.links_make = links.into_iter().collect();
    let as_it_was_left = plan.revive.is_empty() && plan.links_make.is_empty() && plan.directories_make.is_empty() && drift.hooks.is_empty();
    if plan.unchanged && !as_it_was_left {
        (plan.unchanged, plan.repair, plan.hooks) = (false, true, list_hooks(new));
    }
}

/// Computes what activating `new` changes where `old` is current, or nothing is.
///
/// Shape: `stop` is in the reverse of the old order, `start` and `reload` in the new order.
pub fn plan_activation(old: Option<&Loaded>, new: &Loaded) -> ActivationPlan {
    if old.is_some_and(|old| old.bundle == new.bundle) {
        return ActivationPlan { unchanged: true, keep: new.unit_names(), ..ActivationPlan::default() };
    }
    let mut plan = ActivationPlan { hooks: list_hooks(&new.manifest), ..ActivationPlan::default() };
    compare_services(old, new, &mut plan);
    compare_links(old.map(|old| &old.manifest), &new.manifest, &mut plan);
    compare_components(old.map(|old| &old.manifest), &new.manifest, &mut plan);
    plan
}

fn compare_services(old: Option<&Loaded>, new: &Loaded, plan: &mut ActivationPlan) {
    let text = |loaded: &Loaded, unit: &str| loaded.units.get(unit).cloned().unwrap_or_default();
    let old_units = old.map(Loaded::unit_names).unwrap_or_default();
    let new_units = new.unit_names();
    for unit in &new_units {
        let change = match old {
            Some(old) if old_units.contains(unit) => compare_units(&text(old, unit), &text(new, unit)),
            _ => Change::Restart,
        };
        match change {
            Change::Keep => plan.keep.push(unit.clone()),
            Change::Reload => plan.reload.push(unit.clone()),
            Change::Restart => plan.start.push(unit.clone()),
        }
    }
    plan.stop = old_units.into_iter().rev().filter(|unit| plan.start.contains(unit) || !new_units.contains(unit)).collect();
}

fn compare_links(old: Option<&Manifest>, new: &Manifest, plan: &mut ActivationPlan) {
    let table =
        |manifest: &Manifest| manifest.links.iter().map(|link| (link.path.clone(), link.target.clone())).collect::<BTreeMap<_, _>>();
    let (old, new) = (old.map(table).unwrap_or_default(), table(new));
    plan.links_make = new.iter().filter(|(path, target)| old.get(*path) != Some(target)).map(|(path, _)| path.clone()).collect();
    plan.links_remove = old.into_keys().filter(|path| !new.contains_key(path)).collect();
}

fn compare_components(old: Option<&Manifest>, new: &Manifest, plan: &mut ActivationPlan) {
    let table = |manifest: &Manifest| manifest.components.iter().map(|it| (it.name.clone(), it.object.clone())).collect::<BTreeMap<_, _>>();
    let (old, new) = (old.map(table).unwrap_or_default(), table(new));
    for (name, object) in &new {
        match old.get(name) {
            None => plan.components_added.push(name.clone()),
            Some(former) if former != object => plan.components_changed.push(name.clone()),
            Some(_) => {}
        }
    }
    plan.components_removed = old.into_keys().filter(|name| !new.contains_key(name)).collect();
}

fn list_hooks(manifest: &Manifest) -> Vec<String> {
    let mut hooks: Vec<_> = manifest.hooks.iter().filter(|hook| hook.phase != Phase::OnRollback).collect();
    hooks.sort_by_key(|hook| hook.phase);
    let mut seen = BTreeSet::new();
    hooks.into_iter().map(|hook| format!("{}/{}", hook.component, hook.name)).filter(|name| seen.insert(name.clone())).collect()
}

#[cfg(test)]
mod tests;

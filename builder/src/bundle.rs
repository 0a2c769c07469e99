//! A host's bundle: manifest, links to its components, unit files. Pure: from a recipe and the ids that came of its inputs.
//!
//! ```text
//! manifest.json           see `sarsen_store::manifest`
//! <component>             -> ../<id>-<component>
//! unit.d/<unit>           one text per service
//! ```
//!
//! The links are relative, so that they hold wherever the store lies. Everything comes sorted or in the order of the definition; nothing
//! depends on the machine that builds.

mod unit;

use std::collections::BTreeMap;
use std::sync::Arc;

use sarsen_store::canon::Encoder;
use sarsen_store::manifest::{
    Component, HealthCheck, Hook, Link, MANIFEST_FILE, MANIFEST_VERSION, Manifest, Probe, Requirement, Restart, Role, Service,
    StateDirectory,
};
use sarsen_store::{InvalidPath, NewEntry, NewEntryKind, ObjectRef};

use crate::model::{self, ComponentModel, StepKind};
use crate::plan::{BundleRecipe, Substitution};

/// How long stopping a timer may take: it has no process to wait for.
const TIMER_STOP_MS: u64 = 5000;

/// Assembles a bundle: its manifest, and all its entries, the manifest's text among them.
///
/// Errors: [`InvalidPath`] if a component or service has a name that no file may have.
pub fn assemble(recipe: &BundleRecipe, ids: &Substitution) -> Result<(Manifest, Vec<NewEntry>), InvalidPath> {
    let mut assembly = Assembly { recipe, ids, manifest: empty_manifest(recipe), entries: Vec::new() };
    for component in &recipe.host.components {
        assembly.add_component(component)?;
    }
    let Assembly { mut manifest, mut entries, .. } = assembly;
    manifest.components.sort_by(|a, b| a.name.cmp(&b.name));
    manifest.links.sort_by(|a, b| a.path.cmp(&b.path));
    manifest.state_directories.sort_by(|a, b| a.path.cmp(&b.path));
    entries.push(file(MANIFEST_FILE, &manifest.to_json())?);
    Ok((manifest, entries))
}

fn empty_manifest(recipe: &BundleRecipe) -> Manifest {
    Manifest {
        version: MANIFEST_VERSION,
        identity: recipe.identity.clone(),
        store: recipe.store.clone(),
        components: Vec::new(),
        services: Vec::new(),
        links: Vec::new(),
        state_directories: Vec::new(),
        hooks: Vec::new(),
        health_checks: Vec::new(),
        requirements: Vec::new(),
    }
}

fn file(path: &str, text: &str) -> Result<NewEntry, InvalidPath> {
    Ok(NewEntry { path: path.parse()?, kind: NewEntryKind::File { content: Arc::from(text.as_bytes()), executable: false } })
}

struct Assembly<'a> {
    recipe: &'a BundleRecipe,
    ids: &'a Substitution,
    manifest: Manifest,
    entries: Vec<NewEntry>,
}

impl Assembly<'_> {
    fn add_component(&mut self, component: &ComponentModel) -> Result<(), InvalidPath> {
        let name = component.name.parse().expect("the plan has parsed the component's name as that of its object");
        let object = ObjectRef { id: self.ids.resolve(&component.output), name };
        let target = format!("../{object}");
        self.entries.push(NewEntry { path: component.name.parse()?, kind: NewEntryKind::Symlink { target } });
        self.manifest.components.push(Component { name: component.name.clone(), features: component.features.clone(), object });
        component.steps.iter().try_for_each(|step| self.add_step(&component.name, &step.kind))
    }

    fn add_step(&mut self, component: &str, step: &StepKind) -> Result<(), InvalidPath> {
        let fill = |text: &String| self.ids.fill_text(text);
        let component = component.to_owned();
        match step {
            StepKind::Service(service) => self.add_service(component, service, Role::Service)?,
            StepKind::Timer(timer) => self.add_timer(component, timer)?,
            StepKind::Link { path, target } => self.manifest.links.push(Link { path: path.clone(), target: fill(target), component }),
            StepKind::StateDirectory { path, user, mode } => {
                let mode = format!("{mode:04o}");
                self.manifest.state_directories.push(StateDirectory { path: path.clone(), user: user.clone(), mode, component });
            }
            StepKind::Hook { name, phase, verify, update, user, timeout_ms, on_change } => self.manifest.hooks.push(Hook {
                name: name.clone(),
                component,
                phase: *phase,
                verify: fill(verify),
                update: fill(update),
                user: user.clone(),
                timeout_ms: *timeout_ms,
                trigger: hook_trigger(update, on_change, fill),
            }),
            StepKind::HealthCheck { name, probe, timeout_ms, interval_ms, successes } => self.manifest.health_checks.push(HealthCheck {
                name: name.clone(),
                component,
                probe: fill_probe(probe, fill),
                timeout_ms: *timeout_ms,
                interval_ms: *interval_ms,
                successes: *successes,
            }),
            StepKind::Requirement(requirement) => self.manifest.requirements.push(fill_requirement(requirement, fill)),
            StepKind::File { .. }
            | StepKind::Directory { .. }
            | StepKind::Symlink { .. }
            | StepKind::Build(_)
            | StepKind::PythonEnv(_)
            | StepKind::Fetch(_) => {}
        }
        Ok(())
    }

    fn add_service(&mut self, component: String, service: &model::Service, role: Role) -> Result<(), InvalidPath> {
        let fill = |text: &String| self.ids.fill_text(text);
        let filled = model::Service {
            name: service.name.clone(),
            command: service.command.iter().map(fill).collect(),
            reload: service.reload.iter().map(fill).collect(),
            reload_on: service.reload_on.iter().map(fill).collect(),
            environment: service.environment.iter().map(|(name, value)| (name.clone(), fill(value))).collect(),
            user: service.user.clone(),
            working_directory: service.working_directory.as_ref().map(fill),
            restart: service.restart,
            kind: service.kind.clone(),
            after: service.after.clone(),
            stop_timeout_ms: service.stop_timeout_ms,
            settings: service.settings.iter().map(|(name, value)| (name.clone(), fill(value))).collect(),
        };
        let unit = format!("{}.service", service.name);
        let reload_trigger = reload_trigger(&filled.reload_on);
        let text = unit::render(&filled, &self.recipe.identity, &component, &reload_trigger);
        let path = Manifest::unit_path(&unit)?;
        self.entries.push(file(path.as_str(), &text)?);
        self.manifest.services.push(Service {
            unit,
            component,
            command: filled.command,
            reload: filled.reload,
            environment: filled.environment,
            user: filled.user,
            working_directory: filled.working_directory,
            restart: filled.restart,
            reload_trigger,
            stop_timeout_ms: filled.stop_timeout_ms,
            role,
        });
        Ok(())
    }

    /// The timer comes after what it starts, which systemd must know by then.
    fn add_timer(&mut self, component: String, timer: &model::Timer) -> Result<(), InvalidPath> {
        self.add_service(component.clone(), &timer.job, Role::Job)?;
        let unit = format!("{}.timer", timer.job.name);
        let path = Manifest::unit_path(&unit)?;
        self.entries.push(file(path.as_str(), &unit::render_timer(timer, &self.recipe.identity, &component))?);
        self.manifest.services.push(Service {
            unit,
            component,
            command: Vec::new(),
            reload: Vec::new(),
            environment: BTreeMap::new(),
            user: None,
            working_directory: None,
            restart: Restart::No,
            reload_trigger: String::new(),
            stop_timeout_ms: TIMER_STOP_MS,
            role: Role::Trigger,
        });
        Ok(())
    }
}

fn fill_probe(probe: &Probe, fill: impl Fn(&String) -> String) -> Probe {
    match probe {
        Probe::Command { command } => Probe::Command { command: fill(command) },
        Probe::Http { url, status } => Probe::Http { url: fill(url), status: *status },
        Probe::Tcp { .. } | Probe::Unit { .. } => probe.clone(),
    }
}

fn fill_requirement(requirement: &Requirement, fill: impl Fn(&String) -> String) -> Requirement {
    match requirement {
        Requirement::Program { program, component } => Requirement::Program { program: fill(program), component: component.clone() },
        Requirement::Port { .. } | Requirement::User { .. } => requirement.clone(),
    }
}

/// One digest for all whose change makes a hook's `update` run, its own text included; empty if there is nothing.
fn hook_trigger(update: &String, on_change: &[String], fill: impl Fn(&String) -> String) -> String {
    if on_change.is_empty() {
        return String::new();
    }
    let mut encoder = Encoder::new("sarsen 2026 hook trigger v1");
    encoder.text(&fill(update));
    encoder.count(on_change.len());
    for text in on_change {
        encoder.text(&fill(text));
    }
    encoder.finish().to_string()
}

/// One digest for all that a service reads again on reload; empty if there is nothing.
fn reload_trigger(texts: &[String]) -> String {
    if texts.is_empty() {
        return String::new();
    }
    let mut encoder = Encoder::new("sarsen 2026 reload trigger v1");
    encoder.count(texts.len());
    for text in texts {
        encoder.text(text);
    }
    encoder.finish().to_string()
}

#[cfg(test)]
mod tests;

//! All texts of a recipe that may hold placeholders.
//!
//! Whoever adds a field that may hold one to the model adds it here: dependencies are found in these texts alone.

use sarsen_store::manifest::{Probe, Requirement};

use super::{BundleRecipe, Recipe, RecipeKind, TreeEntryKind};
use crate::model::{Service, StepKind, Timer};

/// Calls `visit` with each text of the recipe.
pub(super) fn visit(recipe: &Recipe, mut visit: impl FnMut(&[u8])) {
    match &recipe.kind {
        RecipeKind::Build(build) => {
            visit(build.script.as_bytes());
            build.environment.values().for_each(|value| visit(value.as_bytes()));
        }
        RecipeKind::PythonFetch(_) | RecipeKind::Fetch(_) => {}
        RecipeKind::Tree(entries) => {
            for entry in entries {
                match &entry.kind {
                    TreeEntryKind::File { content, .. } => visit(content),
                    TreeEntryKind::Symlink { target } => visit(target.as_bytes()),
                    TreeEntryKind::Directory => {}
                }
            }
        }
        RecipeKind::Bundle(bundle) => visit_bundle(bundle, &mut visit),
    }
}

fn visit_bundle(bundle: &BundleRecipe, visit: &mut impl FnMut(&[u8])) {
    for component in &bundle.host.components {
        // The component's own tree is part of the bundle whatever the texts say.
        visit(&component.output.to_chars());
        for step in &component.steps {
            match &step.kind {
                StepKind::Service(service) | StepKind::Timer(Timer { job: service, .. }) => visit_service(service, visit),
                StepKind::Hook { verify, update, on_change, .. } => {
                    [verify, update].into_iter().chain(on_change).for_each(|text| visit(text.as_bytes()));
                }
                StepKind::Link { target, .. } => visit(target.as_bytes()),
                StepKind::HealthCheck { probe, .. } => match probe {
                    Probe::Command { command } => visit(command.as_bytes()),
                    Probe::Http { url, .. } => visit(url.as_bytes()),
                    Probe::Tcp { .. } | Probe::Unit { .. } => {}
                },
                StepKind::Requirement(Requirement::Program { program, .. }) => visit(program.as_bytes()),
                StepKind::Requirement(Requirement::Port { .. } | Requirement::User { .. })
                | StepKind::StateDirectory { .. }
                | StepKind::File { .. }
                | StepKind::Directory { .. }
                | StepKind::Symlink { .. }
                | StepKind::Build(_)
                | StepKind::PythonEnv(_)
                | StepKind::Fetch(_) => {}
            }
        }
    }
}

fn visit_service(service: &Service, visit: &mut impl FnMut(&[u8])) {
    let lists = service.command.iter().chain(&service.reload).chain(&service.reload_on);
    let maps = service.environment.values().chain(service.settings.values());
    lists.chain(maps).chain(&service.working_directory).for_each(|text| visit(text.as_bytes()));
}

//! `sarsen build`: the bundle of every host, in the local store.

use clap::Args;
use sarsen_store::ObjectRef;
use sarsen_store::manifest::Manifest;
use serde::Serialize;

use crate::args::{Environment, Evaluation, Format, Jobs};
use crate::context::Context;
use crate::error::{CommandError, Exit};
use crate::project::{Project, build, open_store};
use crate::render::columns;

/// Build the bundle of every host
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    environment: Environment,
    #[command(flatten)]
    jobs: Jobs,
    #[command(flatten)]
    evaluation: Evaluation,
}

#[derive(Serialize)]
struct Report<'a> {
    project: &'a str,
    environment: &'a str,
    hosts: Vec<HostEntry<'a>>,
}

#[derive(Serialize)]
struct HostEntry<'a> {
    host: &'a str,
    bundle: &'a ObjectRef,
    manifest: &'a Manifest,
}

pub(crate) fn run(arguments: &Arguments, context: &Context) -> Result<Exit, CommandError> {
    let model = Project::open_with_packages(context, arguments.evaluation.access())?.model(context, &arguments.environment.environment)?;
    let store = open_store(context)?;
    let realised = build(context, &model, &store, context.jobs(&arguments.jobs))?;
    context.say(&format!("{} built, {} in the store already", realised.built.len(), realised.cached.len()));
    match context.format {
        Format::Json => {
            let hosts = realised.hosts.iter().map(|host| HostEntry { host: &host.host, bundle: &host.bundle, manifest: &host.manifest });
            context.print_json(&Report { project: &model.project, environment: &model.environment, hosts: hosts.collect() })?;
        }
        Format::Text => {
            let rows: Vec<[String; 2]> =
                realised.hosts.iter().map(|host| [host.host.clone(), store.object_path(&host.bundle).display().to_string()]).collect();
            context.print(&columns(&rows, 0))?;
        }
    }
    Ok(Exit::Done)
}

//! `sarsen deploy`: plan, ask, bring all hosts to their bundles or none.

use std::time::Duration;

use clap::Args;
use sarsen_activator::deployment::{Options, deploy};
use sarsen_activator::protocol::Claim;

use super::{outcome, plan};
use crate::args::{Environment, Evaluation, Jobs};
use crate::context::Context;
use crate::error::{CommandError, Exit};
use crate::hosts::jobs;
use crate::project::Project;
use crate::render::count;
use crate::revision::revision;

/// Bring all hosts of an environment to what the project says
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    environment: Environment,
    #[command(flatten)]
    jobs: Jobs,
    #[command(flatten)]
    evaluation: Evaluation,
    #[command(flatten)]
    pub(crate) consent: Consent,
    /// Take over profiles that belong to another environment or host; each host records it
    #[arg(long)]
    pub(crate) take_over: bool,
}

/// What commands have in common that change hosts.
#[derive(Debug, Args)]
pub(crate) struct Consent {
    /// Do not ask
    #[arg(short, long)]
    pub(crate) yes: bool,
    /// How long a healthy host waits for its confirmation before it goes back
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub(crate) confirm_timeout: u32,
    /// Why, for the log of every host
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: Option<String>,
}

pub(crate) fn run(arguments: &Arguments, context: &Context) -> Result<Exit, CommandError> {
    let Consent { yes, confirm_timeout, ref reason } = arguments.consent;
    context.require_consent(yes, "deployment")?;
    let project = Project::open_with_packages(context, arguments.evaluation.access())?;
    let model = project.model(context, &arguments.environment.environment)?;
    let retention = project.retention(context)?;
    let claim = if arguments.take_over { Claim::TakeOver } else { Claim::OwnOnly };
    let prepared = plan::prepare(context, &model, retention, context.jobs(&arguments.jobs), claim)?;
    context.say(prepared.text().trim_end());
    if let Some(obstacle) = prepared.obstacle() {
        return Err(obstacle);
    }
    if let Some(report) = prepared.unchanged() {
        return outcome::finish(context, &model.environment, &report);
    }
    let question = format!("Deploy `{}` to {}?", model.environment, count(prepared.hosts.len(), "host"));
    if !context.consents(yes, &question)? {
        return Err(CommandError::new(Exit::Failed, "not deployed: the answer was no"));
    }
    let options = Options {
        jobs: jobs(&model.fleet()),
        confirm_timeout: Duration::from_secs(confirm_timeout.into()),
        who: context.who.clone(),
        revision: revision(&project.directory),
        message: reason.clone(),
        retention,
        events: &|host, message| context.say(&format!("{host}: {message}")),
    };
    let report = deploy(&prepared.hosts, &prepared.store, &options);
    outcome::finish(context, &model.environment, &report)
}

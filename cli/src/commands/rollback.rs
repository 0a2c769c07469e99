//! `sarsen rollback`: all hosts of an environment back to an earlier generation.

use std::time::Duration;

use clap::Args;
use sarsen_activator::deployment::{History, Host, Options, history, rollback, status};
use sarsen_activator::protocol::Status;

use super::deploy::Consent;
use super::outcome;
use crate::args::Environment;
use crate::context::Context;
use crate::error::{CommandError, Exit};
use crate::hosts::{hosts, jobs};
use crate::project::Project;
use crate::render::count;

/// How many generations are looked at to see whether the wanted one is there.
const GENERATIONS_MAX: u32 = 10_000;

/// Bring all hosts of an environment back to an earlier generation
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    environment: Environment,
    /// Generation to go back to [default: the one that ran before the present one]
    #[arg(long, value_name = "GENERATION")]
    to: Option<u64>,
    #[command(flatten)]
    consent: Consent,
}

pub(crate) fn run(arguments: &Arguments, context: &Context) -> Result<Exit, CommandError> {
    let Consent { yes, confirm_timeout, ref reason } = arguments.consent;
    context.require_consent(yes, "rollback")?;
    let fleet = Project::open(context)?.fleet(context, &arguments.environment.environment)?;
    let hosts = hosts(context, &fleet)?;
    for line in outlook(&hosts, arguments.to, &fleet.environment, jobs(&fleet))? {
        context.say(&line);
    }
    if !context.consents(yes, &format!("Roll back `{}` on {}?", fleet.environment, count(hosts.len(), "host")))? {
        return Err(CommandError::new(Exit::Failed, "not rolled back: the answer was no"));
    }
    let options = Options {
        jobs: jobs(&fleet),
        confirm_timeout: Duration::from_secs(confirm_timeout.into()),
        who: context.who.clone(),
        // What returns is an earlier source, whose revision stands in its own record.
        revision: None,
        message: reason.clone(),
        // A way back gives nothing up.
        retention: None,
        events: &|host, message| context.say(&format!("{host}: {message}")),
    };
    outcome::finish(context, &fleet.environment, &rollback(&hosts, arguments.to, &options))
}

/// What the rollback will do on each host, one line each.
fn outlook(hosts: &[Host], to: Option<u64>, environment: &str, jobs: usize) -> Result<Vec<String>, CommandError> {
    let unreachable = |error| CommandError::of(Exit::Refused, &error).hint("nothing was changed on any host");
    let mut lines = Vec::new();
    let found = status(hosts, jobs).into_iter().zip(history(hosts, GENERATIONS_MAX, jobs));
    for (host, (status, generations)) in hosts.iter().zip(found) {
        let (status, generations) = (status.map_err(unreachable)?, generations.map_err(unreachable)?);
        let line = goal(&status, &generations, to).map_err(|reason| {
            CommandError::new(Exit::Failed, format!("{}: nothing to roll back to: {reason}", host.name()))
                .hint(format!("`sarsen history {environment}` shows the generations of every host"))
        })?;
        lines.push(format!("{}: {line}", host.name()));
    }
    Ok(lines)
}

fn goal(status: &Status, history: &History, to: Option<u64>) -> Result<String, String> {
    let Some(current) = &status.current else { return Err(String::from("it has no generation")) };
    let goal = match to {
        Some(to) if to == current.number => return Ok(format!("nothing to do, it runs generation {to} already")),
        // What is recorded of it is damaged, which says nothing about its bundle: the host looks.
        Some(to) if history.damaged.iter().any(|generation| generation.number == to) => to,
        Some(to) if history.generations.iter().any(|generation| generation.number == to && !generation.given_up) => to,
        Some(to) if history.generations.iter().any(|generation| generation.number == to) => {
            return Err(format!("generation {to} was given up by the project's retention"));
        }
        Some(to) => return Err(format!("there is no generation {to}")),
        None => current.previous.ok_or_else(|| format!("generation {} is its first", current.number))?,
    };
    Ok(format!("back from generation {} to generation {goal}", current.number))
}

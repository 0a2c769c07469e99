//! `sarsen status`: what runs on the hosts.

use clap::Args;
use sarsen_activator::deployment::status;
use sarsen_activator::protocol::Status;
use serde::Serialize;

use crate::args::{Environment, Format};
use crate::context::Context;
use crate::error::{CommandError, Exit, chain};
use crate::hosts::{hosts, jobs};
use crate::project::Project;
use crate::render::{columns, push_line, time};

/// Show what runs on the hosts
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    environment: Environment,
}

#[derive(Serialize)]
struct Report<'a> {
    environment: &'a str,
    hosts: Vec<HostStatus<'a>>,
}

#[derive(Serialize)]
struct HostStatus<'a> {
    host: &'a str,
    status: Option<&'a Status>,
    error: Option<String>,
}

pub(crate) fn run(arguments: &Arguments, context: &Context) -> Result<Exit, CommandError> {
    let fleet = Project::open(context)?.fleet(context, &arguments.environment.environment)?;
    let hosts = hosts(context, &fleet)?;
    let found = status(&hosts, jobs(&fleet));
    match context.format {
        Format::Json => {
            let hosts = hosts.iter().zip(&found).map(|(host, status)| HostStatus {
                host: host.name(),
                status: status.as_ref().ok(),
                error: status.as_ref().err().map(|error| chain(error)),
            });
            context.print_json(&Report { environment: &fleet.environment, hosts: hosts.collect() })?;
        }
        Format::Text => {
            let text: String =
                hosts.iter().zip(&found).filter_map(|(host, status)| Some(host_text(host.name(), status.as_ref().ok()?))).collect();
            context.print(&text)?;
        }
    }
    let errors: Vec<String> = found.iter().filter_map(|status| status.as_ref().err().map(|error| chain(error))).collect();
    if errors.is_empty() { Ok(Exit::Done) } else { Err(CommandError::new(Exit::Failed, errors.join("\nerror: "))) }
}

fn host_text(host: &str, status: &Status) -> String {
    let mut text = match &status.current {
        None => format!("{host}: nothing is deployed\n"),
        Some(current) => {
            let revision = current.revision.as_ref().map(|revision| format!(" of {revision}")).unwrap_or_default();
            format!("{host}: generation {}{revision}, deployed by {} at {}\n", current.number, current.who, time(current.created))
        }
    };
    if let Some(pending) = status.pending {
        push_line(&mut text, &format!("  generation {pending} is on trial"));
    } else if status.good != status.current.as_ref().map(|current| current.number) {
        text.push_str("  it was not confirmed\n");
    }
    let rows: Vec<[String; 3]> = status
        .units
        .iter()
        .map(|unit| [unit.unit.clone(), unit.state.clone(), unit.pid.map(|pid| format!("pid {pid}")).unwrap_or_default()])
        .collect();
    text.push_str(&columns(&rows, 2));
    if !status.units.is_empty() && status.services == "development supervisor" {
        text.push_str("  under the development supervisor, which is for development only\n");
    }
    text
}

//! `sarsen history`: the generations of the hosts, newest first.

use clap::Args;
use sarsen_activator::deployment::history;
use sarsen_activator::protocol::GenerationInfo;
use serde::Serialize;

use crate::args::{Environment, Format};
use crate::context::Context;
use crate::error::{CommandError, Exit, chain};
use crate::hosts::{hosts, jobs};
use crate::project::Project;
use crate::render::{columns, time};

/// How much of a revision is shown to people: enough to find it.
const REVISION_CHARACTERS: usize = 12;

/// Show the generations of the hosts
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    environment: Environment,
    /// How many generations of each host
    #[arg(short = 'n', long, value_name = "N", default_value_t = 20)]
    limit: u32,
}

#[derive(Serialize)]
struct Report<'a> {
    environment: &'a str,
    hosts: Vec<HostHistory<'a>>,
}

#[derive(Serialize)]
struct HostHistory<'a> {
    host: &'a str,
    generations: Option<&'a [GenerationInfo]>,
    error: Option<String>,
}

pub(crate) fn run(arguments: &Arguments, context: &Context) -> Result<Exit, CommandError> {
    let fleet = Project::open(context)?.fleet(context, &arguments.environment.environment)?;
    let hosts = hosts(context, &fleet)?;
    let found = history(&hosts, arguments.limit, jobs(&fleet));
    match context.format {
        Format::Json => {
            let hosts = hosts.iter().zip(&found).map(|(host, generations)| HostHistory {
                host: host.name(),
                generations: generations.as_deref().ok(),
                error: generations.as_ref().err().map(|error| chain(error)),
            });
            context.print_json(&Report { environment: &fleet.environment, hosts: hosts.collect() })?;
        }
        Format::Text => {
            let text: String = hosts
                .iter()
                .zip(&found)
                .filter_map(|(host, generations)| Some(host_text(host.name(), generations.as_deref().ok()?)))
                .collect();
            context.print(&text)?;
        }
    }
    let errors: Vec<String> = found.iter().filter_map(|generations| generations.as_ref().err().map(|error| chain(error))).collect();
    if errors.is_empty() { Ok(Exit::Done) } else { Err(CommandError::new(Exit::Failed, errors.join("\nerror: "))) }
}

fn host_text(host: &str, generations: &[GenerationInfo]) -> String {
    if generations.is_empty() {
        return format!("{host}: nothing was ever deployed\n");
    }
    let rows: Vec<[String; 6]> = generations
        .iter()
        .map(|generation| {
            [
                if generation.current { String::from("*") } else { String::new() },
                generation.number.to_string(),
                if generation.given_up { format!("{}, given up", generation.result) } else { generation.result.clone() },
                time(generation.created),
                generation.who.clone(),
                note(generation),
            ]
        })
        .collect();
    format!("{host}:\n{}", columns(&rows, 2))
}

fn note(generation: &GenerationInfo) -> String {
    let revision = generation.revision.as_ref().map(|revision| match revision.split_once('-') {
        Some((commit, state)) => format!("{}-{state}", commit.chars().take(REVISION_CHARACTERS).collect::<String>()),
        None => revision.chars().take(REVISION_CHARACTERS).collect(),
    });
    [revision, generation.reason.clone()].into_iter().flatten().collect::<Vec<String>>().join("  ")
}

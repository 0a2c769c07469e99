//! `sarsen history`: the generations of the hosts, newest first.

use clap::Args;
use sarsen_activator::deployment::{History, history};
use sarsen_activator::protocol::{DamagedGeneration, GenerationInfo, LogEntry};
use serde::Serialize;

use crate::args::{Environment, Format};
use crate::context::Context;
use crate::error::{CommandError, Exit, chain};
use crate::hosts::{hosts, jobs};
use crate::project::Project;
use crate::render::{columns, harmless, time};

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
    /// Generations whose record cannot be read.
    damaged: Option<&'a [DamagedGeneration]>,
    /// What was done, newest first.
    log: Option<&'a [LogEntry]>,
    log_problem: Option<&'a str>,
    /// The digest of the log's last line: kept elsewhere, it shows whether the log was written anew.
    log_head: Option<&'a str>,
    error: Option<String>,
}

pub(crate) fn run(arguments: &Arguments, context: &Context) -> Result<Exit, CommandError> {
    let fleet = Project::open(context)?.fleet(context, &arguments.environment.environment)?;
    let hosts = hosts(context, &fleet)?;
    let found = history(&hosts, arguments.limit, jobs(&fleet));
    match context.format {
        Format::Json => {
            let hosts = hosts.iter().zip(&found).map(|(host, found)| HostHistory {
                host: host.name(),
                generations: found.as_ref().ok().map(|history| history.generations.as_slice()),
                damaged: found.as_ref().ok().map(|history| history.damaged.as_slice()),
                log: found.as_ref().ok().map(|history| history.log.as_slice()),
                log_problem: found.as_ref().ok().and_then(|history| history.log_problem.as_deref()),
                log_head: found.as_ref().ok().map(|history| history.log_head.as_str()),
                error: found.as_ref().err().map(|error| chain(error)),
            });
            context.print_json(&Report { environment: &fleet.environment, hosts: hosts.collect() })?;
        }
        Format::Text => {
            let text: String =
                hosts.iter().zip(&found).filter_map(|(host, history)| Some(host_text(host.name(), history.as_ref().ok()?))).collect();
            context.print(&text)?;
        }
    }
    let mut errors: Vec<String> = found.iter().filter_map(|history| history.as_ref().err().map(|error| chain(error))).collect();
    for (host, history) in hosts.iter().zip(&found) {
        let problem = history.as_ref().ok().and_then(|history| history.log_problem.as_ref());
        errors.extend(problem.map(|problem| format!("{}: the log is broken: {}", host.name(), harmless(problem))));
    }
    if errors.is_empty() { Ok(Exit::Done) } else { Err(CommandError::new(Exit::Failed, errors.join("\nerror: "))) }
}

fn host_text(host: &str, history: &History) -> String {
    let History { generations, damaged, log, .. } = history;
    if generations.is_empty() && damaged.is_empty() && log.is_empty() {
        return format!("{host}: nothing was ever deployed\n");
    }
    let mut rows: Vec<(u64, [String; 6])> = generations
        .iter()
        .map(|generation| {
            let row = [
                if generation.current { String::from("*") } else { String::new() },
                generation.number.to_string(),
                if generation.given_up { format!("{}, given up", generation.result) } else { generation.result.clone() },
                time(generation.created),
                generation.who.clone(),
                note(generation),
            ];
            (generation.number, row)
        })
        .collect();
    for DamagedGeneration { number, problem } in damaged {
        let cells = ["", &number.to_string(), "damaged", "", "", &harmless(problem)].map(str::to_owned);
        rows.push((*number, cells));
    }
    rows.sort_by_key(|(number, _)| std::cmp::Reverse(*number));
    let rows: Vec<[String; 6]> = rows.into_iter().map(|(_, row)| row).collect();
    let entries: Vec<[String; 5]> = log.iter().map(log_row).collect();
    let heading = if entries.is_empty() { "" } else { "  what was done:\n" };
    format!("{host}:\n{}{heading}{}", columns(&rows, 2), columns(&entries, 4))
}

fn log_row(entry: &LogEntry) -> [String; 5] {
    let name = |generation: Option<u64>| generation.map_or_else(|| String::from("none"), |number| number.to_string());
    let what = match entry.generation {
        Some(_) => format!("{} {} -> {}", entry.action, name(entry.previous), name(entry.generation)),
        None => entry.action.clone(),
    };
    let why = [entry.message.clone(), entry.reason.clone()].into_iter().flatten().collect::<Vec<String>>().join("; ");
    [time(entry.time), what, entry.result.clone(), entry.who.clone(), harmless(&why)]
}

fn note(generation: &GenerationInfo) -> String {
    let revision = generation.revision.as_ref().map(|revision| match revision.split_once('-') {
        Some((commit, state)) => format!("{}-{state}", commit.chars().take(REVISION_CHARACTERS).collect::<String>()),
        None => revision.chars().take(REVISION_CHARACTERS).collect(),
    });
    [revision, generation.message.clone(), generation.reason.clone()].into_iter().flatten().collect::<Vec<String>>().join("  ")
}

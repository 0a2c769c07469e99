//! What became of the hosts of a deployment: table, JSON, exit code.

use sarsen_activator::deployment::{DeploymentReport, Outcome};
use serde::Serialize;

use crate::args::Format;
use crate::context::Context;
use crate::error::{CommandError, Exit};
use crate::render::columns;

#[derive(Serialize)]
struct Report<'a> {
    environment: &'a str,
    hosts: Vec<HostEntry<'a>>,
}

#[derive(Serialize)]
struct HostEntry<'a> {
    host: &'a str,
    outcome: &'static str,
    generation: Option<u64>,
    reason: Option<String>,
}

/// Prints the report and says how the command ends.
pub(crate) fn finish(context: &Context, environment: &str, report: &DeploymentReport) -> Result<Exit, CommandError> {
    let hosts: Vec<HostEntry<'_>> = report.iter().map(|host| describe(&host.host, &host.outcome)).collect();
    let printed = match context.format {
        Format::Json => context.print_json(&Report { environment, hosts }),
        Format::Text => {
            let rows: Vec<[String; 3]> = hosts.iter().map(row).collect();
            context.print(&columns(&rows, 0))
        }
    };
    let exit = report.iter().map(|host| exit_of(&host.outcome)).max_by_key(|exit| weight(*exit)).unwrap_or(Exit::Done);
    let hint = match exit {
        Exit::Done => return printed.map(|()| exit),
        Exit::Refused | Exit::Failed => "nothing was changed on any host that is not named as changed above",
        Exit::Locked => "wait for the other deployment, or ask who holds the lock",
        Exit::RolledBack => "every host named `rolled back` runs what it ran before",
        Exit::RollbackFailed => "look at these hosts now: `sarsen status` shows what runs there",
        Exit::Unknown | Exit::Usage => "a host that was not confirmed goes back by itself; `sarsen status` shows what runs there",
    };
    // What became of the hosts matters more than whether the table could be written.
    Err(CommandError::new(exit, summary(environment, exit)).hint(hint))
}

fn summary(environment: &str, exit: Exit) -> String {
    let what = match exit {
        Exit::Done => "succeeded",
        Exit::Failed | Exit::Usage => "failed",
        Exit::Refused => "was refused before anything was changed",
        Exit::RolledBack => "failed, and the hosts went back",
        Exit::RollbackFailed => "failed, and so did going back",
        Exit::Unknown => "ended in a state that is not known on every host",
        Exit::Locked => "met another one",
    };
    format!("the deployment of `{environment}` {what}")
}

fn describe<'a>(host: &'a str, outcome: &Outcome) -> HostEntry<'a> {
    let (name, generation, reason) = match outcome.clone() {
        Outcome::Unchanged { generation } => ("unchanged", Some(generation), None),
        Outcome::Committed { generation } => ("committed", Some(generation), None),
        Outcome::RolledBack { generation, reason } => ("rolled-back", generation, Some(reason)),
        Outcome::RollbackFailed { reason } => ("rollback-failed", None, Some(reason)),
        Outcome::Refused { reasons } => ("refused", None, Some(reasons.join("; "))),
        Outcome::Unreachable { reason } => ("unreachable", None, Some(reason)),
        Outcome::Locked { holder } => ("locked", None, Some(format!("held by {holder}"))),
        Outcome::Failed { reason } => ("failed", None, Some(reason)),
        Outcome::Skipped => ("skipped", None, None),
        Outcome::Unknown { reason } => ("unknown", None, Some(reason)),
    };
    HostEntry { host, outcome: name, generation, reason }
}

fn row(host: &HostEntry<'_>) -> [String; 3] {
    let generation = host.generation.map(|generation| format!("generation {generation}"));
    let detail = match (generation, &host.reason) {
        (Some(generation), Some(reason)) => format!("runs {generation}: {reason}"),
        (Some(generation), None) => generation,
        (None, Some(reason)) => reason.clone(),
        (None, None) => String::from("nothing was changed here"),
    };
    [host.host.to_owned(), host.outcome.replace('-', " "), detail]
}

fn exit_of(outcome: &Outcome) -> Exit {
    match outcome {
        Outcome::Unchanged { .. } | Outcome::Committed { .. } | Outcome::Skipped => Exit::Done,
        Outcome::RolledBack { .. } => Exit::RolledBack,
        Outcome::RollbackFailed { .. } => Exit::RollbackFailed,
        Outcome::Refused { .. } | Outcome::Unreachable { .. } => Exit::Refused,
        Outcome::Locked { .. } => Exit::Locked,
        Outcome::Failed { .. } => Exit::Failed,
        Outcome::Unknown { .. } => Exit::Unknown,
    }
}

/// What needs a person most comes first.
fn weight(exit: Exit) -> u8 {
    match exit {
        Exit::Done => 0,
        Exit::Failed | Exit::Usage => 1,
        Exit::Refused => 2,
        Exit::Locked => 3,
        Exit::RolledBack => 4,
        Exit::Unknown => 5,
        Exit::RollbackFailed => 6,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_host_decides_the_exit_code() {
        let reason = String::new;
        let outcomes = [
            Outcome::Committed { generation: 1 },
            Outcome::Failed { reason: reason() },
            Outcome::Refused { reasons: Vec::new() },
            Outcome::Locked { holder: reason() },
            Outcome::RolledBack { generation: None, reason: reason() },
            Outcome::Unknown { reason: reason() },
            Outcome::RollbackFailed { reason: reason() },
        ];
        let codes: Vec<u8> = (1..=outcomes.len())
            .filter_map(|length| outcomes[..length].iter().map(exit_of).max_by_key(|exit| weight(*exit)).map(|exit| exit as u8))
            .collect();
        assert_eq!(codes, [0, 1, 3, 7, 4, 6, 5]);
    }
}

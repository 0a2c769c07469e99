//! What follows a deployment that was confirmed everywhere: hosts give up old generations and free what nobody needs.
//!
//! It is no part of the deployment's outcome. A host that cannot be collected is told about and runs what it shall all the same.

use std::time::Duration;

use sarsen_store::gc::Retention;

use super::{DeploymentReport, Freshness, HostDeployment, HostReport, Options, Outcome, Request, Response, TargetError, in_parallel, open};

/// How long a collection may take: a million files are removed in seconds, a slow disk may need minutes.
const COLLECT_TIMEOUT: Duration = Duration::from_mins(30);

/// Collects the hosts that have a new generation, if every host has what it shall: else all may have to return to an old one together.
pub(super) fn collect(hosts: &[HostDeployment], report: &DeploymentReport, retention: Retention, options: &Options<'_>) {
    let is_fine = |report: &HostReport| matches!(report.outcome, Outcome::Committed { .. } | Outcome::Unchanged { .. });
    if !report.iter().all(is_fine) {
        return;
    }
    let changed: Vec<&HostDeployment> =
        hosts.iter().zip(report).filter(|(_, report)| matches!(report.outcome, Outcome::Committed { .. })).map(|(host, _)| host).collect();
    in_parallel(&changed, options.jobs, |deployment| {
        let told = match collect_host(deployment, retention) {
            Ok(told) => told,
            Err(error) => Some(format!("old generations stay: {}", error.chain())),
        };
        if let Some(told) = told {
            (options.events)(deployment.host.name(), &told);
        }
    });
}

/// Returns what is worth telling, if anything.
fn collect_host(deployment: &HostDeployment, retention: Retention) -> Result<Option<String>, TargetError> {
    let (mut session, _) = open(&deployment.host, Freshness::Shared)?;
    match session.request(&Request::Collect { retention }, COLLECT_TIMEOUT, &mut |_| {})? {
        Response::Collected { generations, objects, bytes } => Ok(words(&generations, objects, bytes)),
        Response::Locked { holder } => Ok(Some(format!("old generations stay: it is locked by {holder}"))),
        other => Err(session.unexpected("the collection", other)),
    }
}

fn words(generations: &[u64], objects: u64, bytes: u64) -> Option<String> {
    let freed = format!("removed {objects} objects, {bytes} bytes of files");
    match (generations, objects) {
        ([], 0) => None,
        ([], _) => Some(freed),
        ([only], _) => Some(format!("gave up generation {only}, {freed}")),
        ([first, .., last], _) => Some(format!("gave up {} generations from {first} to {last}, {freed}", generations.len())),
    }
}

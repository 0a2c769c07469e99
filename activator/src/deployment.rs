//! Deployments: bringing several hosts to new generations together, from the operator's side.
//!
//! The phases: pre-flight on all hosts -> copy to all -> activate on all -> a fresh connection to all -> confirm on all.
//! Up to the activation a host that refuses stops the deployment, and nothing is changed anywhere. From then on a host that
//! fails takes the others back with it: their trials are given up. What became of a host whose connection was lost is asked
//! over a new one, never assumed. Nothing here touches a terminal; what happens is told through [`Options::events`].

#![expect(clippy::wildcard_enum_match_arm, reason = "whatever else a target answers is one and the same error")]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use sarsen_store::fsutil::{self, FsError};
use sarsen_store::gc::Retention;
use sarsen_store::manifest::{Identity, Manifest};
use sarsen_store::{ObjectRef, ObjectStore};

use crate::diff::ActivationPlan;
use crate::error::describe;
use crate::protocol::{Activation, Claim, DamagedGeneration, Facts, GenerationInfo, LogEntry, Request, Response, Status, Trial};
use crate::target::{ANSWER_TIMEOUT, Freshness, Session, Target, TargetError};

mod collect;
mod run;
mod space;

#[cfg(test)]
mod tests;

/// The longest text of one unit, in bytes; they are written by the builder and have some kilobytes.
const UNIT_BYTES_MAX: u64 = 1 << 20;

/// A host to speak to.
#[derive(Debug)]
pub struct Host {
    /// How to reach it.
    pub target: Box<dyn Target>,
    /// Environment, host and profile that are meant.
    pub identity: Identity,
    /// What is wanted with a profile of somebody else.
    pub claim: Claim,
}

impl Host {
    /// The host's name in the environment.
    pub fn name(&self) -> &str {
        &self.identity.host
    }
}

/// A host and what it shall run.
#[derive(Debug)]
pub struct HostDeployment {
    /// The host.
    pub host: Host,
    /// The bundle; its closure is in the store.
    pub bundle: ObjectRef,
    /// The bundle's manifest.
    pub manifest: Manifest,
}

/// How a deployment is run.
pub struct Options<'a> {
    /// How many hosts are worked on at once, at least one.
    pub jobs: usize,
    /// How long a healthy trial waits for its confirmation beyond what the other hosts may need to become healthy.
    pub confirm_timeout: Duration,
    /// Who deploys, as `user@machine`.
    pub who: String,
    /// The project's source revision.
    pub revision: Option<String>,
    /// Why, in the deployer's words.
    pub message: Option<String>,
    /// Which generations hosts keep when all is confirmed; none are given up without it.
    pub retention: Option<Retention>,
    /// Is told what happens: the host's name and one line.
    pub events: &'a (dyn Fn(&str, &str) + Sync),
}

impl std::fmt::Debug for Options<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options").field("jobs", &self.jobs).field("who", &self.who).finish_non_exhaustive()
    }
}

/// What became of a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It runs what was asked for already; nothing was changed.
    Unchanged {
        /// The current generation.
        generation: u64,
    },
    /// The new generation is current, healthy and confirmed.
    Committed {
        /// The generation.
        generation: u64,
    },
    /// The trial was given up; the recorded previous generation runs again, verified.
    RolledBack {
        /// What runs now, if anything.
        generation: Option<u64>,
        /// Why.
        reason: String,
    },
    /// The trial was given up, and going back failed as well.
    RollbackFailed {
        /// Why the trial was given up, and what failed then.
        reason: String,
    },
    /// It refused; nothing was changed.
    Refused {
        /// Why.
        reasons: Vec<String>,
    },
    /// It could not be spoken to at all; nothing was changed.
    Unreachable {
        /// Why not.
        reason: String,
    },
    /// Another deployment holds it; nothing was changed.
    Locked {
        /// Who.
        holder: String,
    },
    /// Something failed before anything was changed.
    Failed {
        /// What.
        reason: String,
    },
    /// Nothing was changed, because another host stopped the deployment.
    Skipped,
    /// The connection was lost and no new one told the outcome.
    Unknown {
        /// What was last heard.
        reason: String,
    },
}

/// What became of one host in a deployment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostReport {
    /// The host's name.
    pub host: String,
    /// What became of it.
    pub outcome: Outcome,
}

/// What became of all hosts, in the order in which they were given.
pub type DeploymentReport = Vec<HostReport>;

/// What a deployment would change on one host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Comparison {
    /// The generation that is current, if any.
    pub current: Option<u64>,
    /// What would change.
    pub plan: ActivationPlan,
    /// Why the host would refuse, in words; empty if it would not.
    pub refusals: Vec<String>,
    /// Who holds the host's lock, if anybody.
    pub locked_by: Option<String>,
    /// Generations that would be given up afterwards, ascending.
    pub expired: Vec<u64>,
}

impl Comparison {
    /// The generations that a deployment would give up: none where it would change nothing.
    pub fn given_up(&self) -> &[u64] {
        if self.plan.unchanged { &[] } else { &self.expired }
    }
}

/// Why a host could not be compared.
#[derive(Debug, thiserror::Error)]
pub enum CompareError {
    /// The host could not be asked.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// A unit of the bundle could not be read.
    #[error("cannot read the units of `{bundle}`")]
    Unit {
        /// The bundle.
        bundle: ObjectRef,
        /// The cause.
        #[source]
        source: FsError,
    },
}

/// Brings all hosts to their bundles, or none: see the head of this file.
pub fn deploy(hosts: &[HostDeployment], store: &ObjectStore, options: &Options<'_>) -> DeploymentReport {
    let work: Vec<run::Work<'_>> =
        hosts.iter().map(|deployment| run::Work { host: &deployment.host, change: run::Change::Deploy { deployment, store } }).collect();
    let report = run::run(&work, options);
    if let Some(retention) = options.retention {
        collect::collect(hosts, &report, retention, options);
    }
    report
}

/// Brings all hosts back to generation `to`, or to the one that was current before the present one.
pub fn rollback(hosts: &[Host], to: Option<u64>, options: &Options<'_>) -> DeploymentReport {
    let work: Vec<run::Work<'_>> = hosts.iter().map(|host| run::Work { host, change: run::Change::Rollback { to } }).collect();
    run::run(&work, options)
}

/// Asks every host what deploying would change there, and giving up generations by this policy afterwards. Changes nothing.
pub fn compare(
    hosts: &[HostDeployment],
    store: &ObjectStore,
    retention: Option<Retention>,
    jobs: usize,
) -> Vec<Result<Comparison, CompareError>> {
    in_parallel(hosts, jobs, |deployment| compare_host(deployment, store, retention))
}

/// Asks every host what runs there.
pub fn status(hosts: &[Host], jobs: usize) -> Vec<Result<Status, TargetError>> {
    in_parallel(hosts, jobs, |host| {
        let (mut session, _) = open(host, Freshness::Shared)?;
        status_of(&mut session)
    })
}

/// What a host remembers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct History {
    /// Its newest generations, newest first.
    pub generations: Vec<GenerationInfo>,
    /// Those of them whose record cannot be read.
    pub damaged: Vec<DamagedGeneration>,
    /// What was done, newest first.
    pub log: Vec<LogEntry>,
    /// What is wrong with the log, if something is.
    pub log_problem: Option<String>,
    /// The digest of the log's last line.
    pub log_head: String,
}

/// Asks every host for its newest generations, newest first, and what was done.
pub fn history(hosts: &[Host], limit: u32, jobs: usize) -> Vec<Result<History, TargetError>> {
    in_parallel(hosts, jobs, |host| {
        let (mut session, _) = open(host, Freshness::Shared)?;
        match session.request(&Request::History { limit }, ANSWER_TIMEOUT, &mut |_| {})? {
            Response::History { generations, damaged, log, log_problem, log_head } => {
                Ok(History { generations, damaged, log, log_problem, log_head })
            }
            other => Err(session.unexpected("the question for the history", other)),
        }
    })
}

fn compare_host(deployment: &HostDeployment, store: &ObjectStore, retention: Option<Retention>) -> Result<Comparison, CompareError> {
    let (mut session, facts) = open(&deployment.host, Freshness::Shared)?;
    let mut refusals = refusals(&facts, deployment, store);
    let request = Request::Compare {
        bundle: deployment.bundle.clone(),
        manifest: Box::new(deployment.manifest.clone()),
        units: read_units(deployment, store).map_err(|source| CompareError::Unit { bundle: deployment.bundle.clone(), source })?,
        retention,
    };
    match session.request(&request, ANSWER_TIMEOUT, &mut |_| {})? {
        Response::Compared { plan, unmet, expired } => {
            refusals.extend(unmet);
            Ok(Comparison { current: facts.current, plan, refusals, locked_by: facts.locked_by, expired })
        }
        other => Err(session.unexpected("the comparison", other).into()),
    }
}

fn read_units(deployment: &HostDeployment, store: &ObjectStore) -> Result<BTreeMap<String, String>, FsError> {
    let directory = store.object_path(&deployment.bundle).join(sarsen_store::manifest::UNIT_DIRECTORY);
    let units = deployment.manifest.services.iter().map(|service| &service.unit);
    units
        .map(|unit| {
            let text = fsutil::read_file_bounded(&directory.join(unit), UNIT_BYTES_MAX)?;
            Ok((unit.clone(), String::from_utf8_lossy(&text).into_owned()))
        })
        .collect()
}

fn open(host: &Host, freshness: Freshness) -> Result<(Session, Facts), TargetError> {
    let mut session = host.target.connect(freshness)?;
    let facts = session.hello_claiming(&host.identity, host.claim)?;
    Ok((session, facts))
}

fn status_of(session: &mut Session) -> Result<Status, TargetError> {
    match session.request(&Request::Status, ANSWER_TIMEOUT, &mut |_| {})? {
        Response::Status(status) => Ok(status),
        other => Err(session.unexpected("the question for the status", other)),
    }
}

/// What speaks against deploying to a host with these facts, in words.
fn refusals(facts: &Facts, deployment: &HostDeployment, store: &ObjectStore) -> Vec<String> {
    let mut reasons = identity_refusals(facts, &deployment.host);
    if facts.architecture != std::env::consts::ARCH {
        reasons.push(format!("the machine is `{}`, the bundle was built for `{}`", facts.architecture, std::env::consts::ARCH));
    }
    let store_of_target = format!("{}/store", facts.root);
    if store_of_target != deployment.manifest.store {
        reasons.push(format!("its objects live in `{store_of_target}`, the bundle was built for `{}`", deployment.manifest.store));
    }
    if facts.bundle.as_ref() != Some(&deployment.bundle) {
        match space::needed(store, &deployment.bundle, facts.bundle.as_ref()) {
            Ok(needed) => reasons.extend(needed.refusal(facts)),
            Err(error) => reasons.push(describe(&error)),
        }
    }
    reasons
}

fn identity_refusals(facts: &Facts, host: &Host) -> Vec<String> {
    let meant = &host.identity;
    match &facts.identity {
        Some(found) if found != meant && host.claim == Claim::OwnOnly => vec![format!(
            "profile `{}` belongs to host `{}` of environment `{}` of project `{}`, not to host `{}` of `{}` of `{}`",
            found.profile, found.host, found.environment, found.project, meant.host, meant.environment, meant.project
        )],
        _ => Vec::new(),
    }
}

/// Does `work` for all items, at most `jobs` at once; results come in the order of the items.
fn in_parallel<T: Sync, R: Send>(items: &[T], jobs: usize, work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let results: Vec<Mutex<Option<R>>> = items.iter().map(|_| Mutex::new(None)).collect();
    std::thread::scope(|scope| {
        for _ in 0..jobs.clamp(1, items.len().max(1)) {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let (Some(item), Some(slot)) = (items.get(index), results.get(index)) else { break };
                    *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(work(item));
                }
            });
        }
    });
    let taken = results.into_iter().map(|slot| slot.into_inner().unwrap_or_else(PoisonError::into_inner));
    taken.map(|result| result.expect("every index was taken by one thread")).collect()
}

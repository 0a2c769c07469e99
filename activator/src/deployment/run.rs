//! The phases of a deployment over all its hosts, and what each answer means.
//!
//! Each phase is one function from what the phase before left; a host that has its outcome takes no further part. Between
//! phases one decision is taken for all hosts, from values alone: go on, or stop, or go back.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use sarsen_store::transfer::{DeltaCache, Effort, TransferOptions};
use sarsen_store::{ObjectStore, fsutil};

use super::{
    ANSWER_TIMEOUT, Activation, DeploymentReport, Freshness, Host, HostDeployment, HostReport, Manifest, Options, Outcome, Request,
    Response, Session, Status, TargetError, Trial, identity_refusals, in_parallel, open, refusals, status_of,
};
use crate::activate::CONFIRM_TIME_MAX;

/// What an activation may take beside its hooks, services and health checks: verifying, journalling, starting.
const ACTIVATION_BASE: Duration = Duration::from_mins(5);

/// How long going back to a generation may take whose manifest the operator does not have.
const ROLLBACK_TIMEOUT: Duration = Duration::from_mins(30);

/// How long the copy of one closure may take.
const STAGE_TIMEOUT: Duration = Duration::from_hours(6);

/// From so many hosts on, deltas are made as small as possible: each is made once, and the uplink carries it so many times.
const MANY_HOSTS: usize = 8;

/// How often a lost host is asked again what became of it; each attempt has the connection's own time limit.
const QUESTIONS_MAX: usize = 3;

/// One host's part.
pub(super) struct Work<'a> {
    pub(super) host: &'a Host,
    pub(super) change: Change<'a>,
}

/// What is asked of a host.
pub(super) enum Change<'a> {
    Deploy { deployment: &'a HostDeployment, store: &'a ObjectStore },
    Rollback { to: Option<u64> },
}

/// Where a host stands.
enum Stand {
    /// Spoken to, nothing changed yet.
    Ready(Session),
    /// On trial and healthy.
    OnTrial { generation: u64, nonce: String, session: Session },
    /// Finished.
    Ended(Outcome),
}

/// What is done with all hosts after the activation.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Confirm,
    GoBack { reason: String },
}

type Stands = Vec<Mutex<Option<Stand>>>;

pub(super) fn run(work: &[Work<'_>], options: &Options<'_>) -> DeploymentReport {
    run_with(work, options, &transfer_options(work.len()))
}

/// How closures are copied to so many hosts: whatever several of them lack in the same way is made once.
fn transfer_options(hosts: usize) -> TransferOptions {
    let cache = (hosts > 1).then(DeltaCache::default);
    TransferOptions { cache, effort: (hosts >= MANY_HOSTS).then_some(Effort::Small) }
}

pub(super) fn run_with(work: &[Work<'_>], options: &Options<'_>, transfer: &TransferOptions) -> DeploymentReport {
    let stands: Stands = in_parallel(work, options.jobs, |work| Mutex::new(Some(preflight(work, options))));
    stop_unless_all_are_ready(&stands);
    step(work, &stands, options, |work, stand| match stand {
        Stand::Ready(session) => stage(work, session, transfer, options),
        other => other,
    });
    stop_unless_all_are_ready(&stands);
    let confirm_timeout = confirm_time(work, options);
    step(work, &stands, options, |work, stand| match stand {
        Stand::Ready(session) => activate(work, session, confirm_timeout, options),
        other => other,
    });
    let mut verdict = verdict(&outcomes(work, &stands));
    let mut fresh = Vec::new();
    if verdict == Verdict::Confirm {
        // Every host is reached anew before the first is confirmed, so that one that cut itself off takes all back.
        fresh = in_parallel(&pairs(work, &stands), options.jobs, |(work, stand)| reach_again(work, stand));
        if let Some(error) = fresh.iter().find_map(|connection| connection.as_ref()?.as_ref().err()) {
            verdict = Verdict::GoBack { reason: format!("it cannot be reached over a new connection: {}", error.chain()) };
        }
    }
    let mut fresh: Vec<Option<Session>> = fresh.into_iter().map(|connection| connection.and_then(Result::ok)).collect();
    fresh.resize_with(work.len(), || None);
    let fresh: Vec<Mutex<Option<Session>>> = fresh.into_iter().map(Mutex::new).collect();
    let indexed: Vec<usize> = (0..work.len()).collect();
    in_parallel(&indexed, options.jobs, |index| {
        let (work, slot) = (&work[*index], &stands[*index]);
        let Some(stand) = take(slot) else { return };
        let stand = match (stand, &verdict) {
            (Stand::OnTrial { generation, nonce, session }, Verdict::Confirm) => {
                confirm(work, generation, &nonce, (take(&fresh[*index]), session), options)
            }
            (Stand::OnTrial { generation, nonce, session }, Verdict::GoBack { reason }) => {
                abort(work, generation, &nonce, (session, reason), options)
            }
            (other, _) => other,
        };
        put(slot, stand);
    });
    outcomes(work, &stands).into_iter().map(|(host, outcome)| HostReport { host, outcome: outcome.unwrap_or(Outcome::Skipped) }).collect()
}

fn step<'w>(work: &[Work<'w>], stands: &Stands, options: &Options<'_>, next: impl Fn(&Work<'w>, Stand) -> Stand + Sync) {
    in_parallel(&pairs(work, stands), options.jobs, |(work, slot)| {
        if let Some(stand) = take(slot) {
            put(slot, next(work, stand));
        }
    });
}

fn pairs<'p, 'w>(work: &'p [Work<'w>], stands: &'p Stands) -> Vec<(&'p Work<'w>, &'p Mutex<Option<Stand>>)> {
    work.iter().zip(stands).collect()
}

fn take<T>(slot: &Mutex<Option<T>>) -> Option<T> {
    slot.lock().unwrap_or_else(PoisonError::into_inner).take()
}

fn put(slot: &Mutex<Option<Stand>>, stand: Stand) {
    *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(stand);
}

/// The outcome of every host that has one.
fn outcomes(work: &[Work<'_>], stands: &Stands) -> Vec<(String, Option<Outcome>)> {
    let outcome = |slot: &Mutex<Option<Stand>>| match &*slot.lock().unwrap_or_else(PoisonError::into_inner) {
        Some(Stand::Ended(outcome)) => Some(outcome.clone()),
        _ => None,
    };
    work.iter().zip(stands).map(|(work, slot)| (work.host.name().to_owned(), outcome(slot))).collect()
}

fn stop_unless_all_are_ready(stands: &Stands) {
    let is_ready = |slot: &Mutex<Option<Stand>>| matches!(&*slot.lock().unwrap_or_else(PoisonError::into_inner), Some(Stand::Ready(_)));
    if stands.iter().all(is_ready) {
        return;
    }
    for slot in stands {
        if is_ready(slot) {
            put(slot, Stand::Ended(Outcome::Skipped));
        }
    }
}

/// What all hosts do next, from the outcomes so far; a host without one is on trial and healthy.
pub(super) fn verdict(outcomes: &[(String, Option<Outcome>)]) -> Verdict {
    let failure = |(host, outcome): &(String, Option<Outcome>)| match outcome {
        None | Some(Outcome::Unchanged { .. } | Outcome::Committed { .. } | Outcome::Skipped) => None,
        Some(
            Outcome::RolledBack { reason, .. }
            | Outcome::RollbackFailed { reason }
            | Outcome::Failed { reason }
            | Outcome::Unreachable { reason }
            | Outcome::Unknown { reason },
        ) => Some(format!("{host} failed: {reason}")),
        Some(Outcome::Refused { reasons }) => Some(format!("{host} refused: {}", reasons.join("; "))),
        Some(Outcome::Locked { holder }) => Some(format!("{host} is locked by {holder}")),
    };
    outcomes.iter().find_map(failure).map_or(Verdict::Confirm, |reason| Verdict::GoBack { reason })
}

fn preflight(work: &Work<'_>, options: &Options<'_>) -> Stand {
    (options.events)(work.host.name(), "connecting");
    let (session, facts) = match open(work.host, Freshness::Shared) {
        Ok(opened) => opened,
        Err(TargetError::Refused { reasons, .. }) => return Stand::Ended(Outcome::Refused { reasons }),
        Err(error) => return Stand::Ended(Outcome::Unreachable { reason: without_host(&error) }),
    };
    if let Some(holder) = facts.locked_by {
        return Stand::Ended(Outcome::Locked { holder });
    }
    let reasons = match &work.change {
        Change::Deploy { deployment, store } => refusals(&facts, deployment, store),
        Change::Rollback { .. } => identity_refusals(&facts, work.host),
    };
    if reasons.is_empty() { Stand::Ready(session) } else { Stand::Ended(Outcome::Refused { reasons }) }
}

/// What an error means while nothing has been changed.
fn before_change(error: TargetError) -> Outcome {
    match error {
        TargetError::Refused { reasons, .. } => Outcome::Refused { reasons },
        other => Outcome::Failed { reason: without_host(&other) },
    }
}

/// The error's words without the host's name, which the report has beside them.
fn without_host(error: &TargetError) -> String {
    let chain = error.chain();
    chain.split_once(": ").map_or(chain.clone(), |(_, rest)| rest.to_owned())
}

fn stage(work: &Work<'_>, mut session: Session, transfer: &TransferOptions, options: &Options<'_>) -> Stand {
    let Change::Deploy { deployment, store } = &work.change else { return Stand::Ready(session) };
    match session.stage(store, &deployment.bundle, transfer, STAGE_TIMEOUT) {
        Ok(stats) => {
            if stats.objects > 0 {
                (options.events)(work.host.name(), &format!("copied {} objects, {} bytes of files", stats.objects, stats.bytes));
            }
            Stand::Ready(session)
        }
        Err(error) => Stand::Ended(before_change(error)),
    }
}

fn activate(work: &Work<'_>, mut session: Session, confirm_timeout: Duration, options: &Options<'_>) -> Stand {
    let nonce = match random_nonce() {
        Ok(nonce) => nonce,
        Err(error) => return Stand::Ended(Outcome::Failed { reason: error.to_string() }),
    };
    let trial = Trial {
        nonce: nonce.clone(),
        confirm_timeout_ms: u64::try_from(confirm_timeout.as_millis()).unwrap_or(u64::MAX),
        who: options.who.clone(),
        revision: options.revision.clone(),
        message: options.message.clone(),
        claim: work.host.claim,
    };
    let request = match &work.change {
        Change::Deploy { deployment, .. } => Request::Activate(Activation { bundle: deployment.bundle.clone(), trial }),
        Change::Rollback { to } => Request::Rollback { to: *to, trial },
    };
    let events = &mut |message: String| (options.events)(work.host.name(), &message);
    match session.request(&request, time_of(&work.change), events) {
        Ok(Response::OnTrial { generation, .. }) => {
            (options.events)(work.host.name(), &format!("generation {generation} is healthy"));
            Stand::OnTrial { generation, nonce, session }
        }
        Ok(response) => Stand::Ended(outcome_of(&session, response)),
        Err(error) => {
            drop(session);
            Stand::Ended(ask_what_became(work, &Lost { generation: None, nonce: &nonce, error: &error }, options))
        }
    }
}

/// What a final response means.
fn outcome_of(session: &Session, response: Response) -> Outcome {
    match response {
        Response::Unchanged { generation } => Outcome::Unchanged { generation },
        Response::Committed { generation } => Outcome::Committed { generation },
        Response::RolledBack { generation, reason } => Outcome::RolledBack { generation, reason },
        Response::RollbackFailed { reason, failure } => {
            Outcome::RollbackFailed { reason: format!("{reason}; going back failed: {failure}") }
        }
        Response::Refused { reasons } => Outcome::Refused { reasons },
        Response::Locked { holder } => Outcome::Locked { holder },
        Response::Failed { message } => Outcome::Failed { reason: message },
        other => Outcome::Unknown { reason: without_host(&session.unexpected("the activation", other)) },
    }
}

/// Opens the connection that proves that a host on trial can still be reached; nothing for hosts that are not.
fn reach_again(work: &Work<'_>, slot: &Mutex<Option<Stand>>) -> Option<Result<Session, TargetError>> {
    let on_trial = matches!(&*slot.lock().unwrap_or_else(PoisonError::into_inner), Some(Stand::OnTrial { .. }));
    on_trial.then(|| open(work.host, Freshness::Fresh).map(|(session, _)| session))
}

fn confirm(work: &Work<'_>, generation: u64, nonce: &str, sessions: (Option<Session>, Session), options: &Options<'_>) -> Stand {
    let (fresh, first) = sessions;
    // A target takes one trial's confirmation over any connection, and the first one has nothing left to say.
    drop(first);
    let mut session = match fresh.map_or_else(|| open(work.host, Freshness::Fresh).map(|(session, _)| session), Ok) {
        Ok(session) => session,
        Err(error) => return Stand::Ended(ask_what_became(work, &Lost { generation: Some(generation), nonce, error: &error }, options)),
    };
    let events = &mut |message: String| (options.events)(work.host.name(), &message);
    match session.request(&Request::Confirm { nonce: nonce.to_owned() }, time_of(&work.change), events) {
        Ok(response @ (Response::Committed { .. } | Response::RolledBack { .. } | Response::RollbackFailed { .. })) => {
            Stand::Ended(outcome_of(&session, response))
        }
        Ok(other) => {
            let error = session.unexpected("the confirmation", other);
            Stand::Ended(ask_what_became(work, &Lost { generation: Some(generation), nonce, error: &error }, options))
        }
        Err(error) => Stand::Ended(ask_what_became(work, &Lost { generation: Some(generation), nonce, error: &error }, options)),
    }
}

fn abort(work: &Work<'_>, generation: u64, nonce: &str, why: (Session, &str), options: &Options<'_>) -> Stand {
    let (mut session, reason) = why;
    (options.events)(work.host.name(), &format!("going back, because {reason}"));
    let events = &mut |message: String| (options.events)(work.host.name(), &message);
    let answer = session.request(&Request::Abort { nonce: nonce.to_owned() }, time_of(&work.change), events);
    match answer {
        Ok(Response::RolledBack { generation, .. }) => Stand::Ended(Outcome::RolledBack { generation, reason: reason.to_owned() }),
        Ok(response @ (Response::RollbackFailed { .. } | Response::Committed { .. })) => Stand::Ended(outcome_of(&session, response)),
        Ok(other) => {
            let error = session.unexpected("going back", other);
            Stand::Ended(ask_what_became(work, &Lost { generation: Some(generation), nonce, error: &error }, options))
        }
        Err(error) => {
            drop(session);
            Stand::Ended(ask_what_became(work, &Lost { generation: Some(generation), nonce, error: &error }, options))
        }
    }
}

/// A trial whose session was lost.
struct Lost<'a> {
    /// Its generation, if it was heard of.
    generation: Option<u64>,
    nonce: &'a str,
    error: &'a TargetError,
}

/// Learns over new connections what became of a trial; one that still runs is given up.
fn ask_what_became(work: &Work<'_>, lost: &Lost<'_>, options: &Options<'_>) -> Outcome {
    let reason = without_host(lost.error);
    (options.events)(work.host.name(), &format!("{reason}; asking what became of it"));
    for _ in 0..QUESTIONS_MAX {
        let Ok((mut session, facts)) = open(work.host, Freshness::Fresh) else { continue };
        let Ok(mut status) = status_of(&mut session) else { continue };
        // Without a trial, who holds the lock may be about to begin ours.
        if status.pending.is_some() || facts.locked_by.is_some() {
            let abort = Request::Abort { nonce: lost.nonce.to_owned() };
            match session.request(&abort, time_of(&work.change), &mut |_| {}) {
                Ok(Response::RolledBack { generation, .. }) => return Outcome::RolledBack { generation, reason },
                Ok(response @ Response::RollbackFailed { .. }) => return outcome_of(&session, response),
                // Somebody was faster, the target itself for one: its state tells.
                Ok(_) => match status_of(&mut session) {
                    Ok(again) => status = again,
                    Err(_) => continue,
                },
                Err(_) => continue,
            }
        }
        return outcome_from(&status, &work.change, lost.generation, reason);
    }
    Outcome::Unknown { reason: format!("{reason}; it could not be asked what became of it") }
}

/// What a target's state says about a trial that has ended.
fn outcome_from(status: &Status, change: &Change<'_>, generation: Option<u64>, reason: String) -> Outcome {
    if let Some(pending) = status.pending {
        return Outcome::Unknown { reason: format!("{reason}; generation {pending} is still on trial") };
    }
    let Some(current) = &status.current else { return Outcome::RolledBack { generation: None, reason } };
    let is_ours = match (generation, change) {
        (Some(generation), _) => current.number == generation,
        (None, Change::Deploy { deployment, .. }) => current.bundle == deployment.bundle,
        // Which generation the target would have chosen was never heard.
        (None, Change::Rollback { .. }) => return Outcome::Unknown { reason: format!("{reason}; it runs generation {}", current.number) },
    };
    if is_ours && status.good == Some(current.number) {
        Outcome::Committed { generation: current.number }
    } else if is_ours {
        Outcome::Unknown { reason: format!("{reason}; generation {} is current but not confirmed", current.number) }
    } else {
        Outcome::RolledBack { generation: Some(current.number), reason }
    }
}

/// How long a host may be busy with a change: the target keeps its own, shorter limits for every part of it.
fn time_of(change: &Change<'_>) -> Duration {
    match change {
        Change::Deploy { deployment, .. } => activation_time(&deployment.manifest),
        Change::Rollback { .. } => ROLLBACK_TIMEOUT,
    }
}

fn activation_time(manifest: &Manifest) -> Duration {
    let hooks = manifest.hooks.iter().map(|hook| hook.timeout_ms.saturating_mul(2));
    let stops = manifest.services.iter().map(|service| service.stop_timeout_ms);
    let checks = manifest.health_checks.iter().map(|check| check.timeout_ms);
    // Twice: the way there, and the way back.
    let parts = hooks.chain(stops).chain(checks).fold(0u64, u64::saturating_add).saturating_mul(2);
    ACTIVATION_BASE + Duration::from_millis(parts.min(24 * 3_600_000))
}

/// How long hosts wait for their confirmation: what was asked for, and what the other hosts may need, as far as targets wait at all.
fn confirm_time(work: &[Work<'_>], options: &Options<'_>) -> Duration {
    options.confirm_timeout.saturating_add(others_time(work, options.jobs)).min(CONFIRM_TIME_MAX)
}

/// How long a host that is healthy first may have to wait for the others.
fn others_time(work: &[Work<'_>], jobs: usize) -> Duration {
    let longest = work.iter().map(|work| time_of(&work.change)).max().unwrap_or_default();
    let rounds = work.len().div_ceil(jobs.max(1));
    let others = longest.saturating_mul(u32::try_from(rounds).unwrap_or(u32::MAX)).saturating_add(ANSWER_TIMEOUT);
    if work.len() < 2 { Duration::ZERO } else { others }
}

/// 32 random bytes in hexadecimal.
fn random_nonce() -> Result<String, fsutil::FsError> {
    Ok(fsutil::random_name()? + &fsutil::random_name()?)
}

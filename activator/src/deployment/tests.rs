//! Deployments against targets in memory that speak the protocol and misbehave in one way each.

use std::sync::Arc;

use sarsen_store::wire::{FrameReader, FrameWriter};

use super::*;
use crate::activate::CONFIRM_TIME_MAX;
use crate::protocol::{PROTOCOL_VERSION, REQUEST, RESPONSE};

/// How a target in memory behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manner {
    Healthy,
    /// Its health check fails; it goes back by itself.
    Unhealthy,
    /// It refuses before anything is changed.
    Refuses,
    /// Somebody else deploys to it.
    Locked,
    /// It cannot be reached at all.
    Down,
    /// No new connection can be made once it is on trial.
    CutsItselfOff,
    /// The session ends within the activation; the trial goes on.
    LosesTheSession,
    /// The session ends after the confirmation took effect, before its answer.
    LosesTheAnswer,
    /// Nothing is heard of it from the activation on.
    Vanishes,
    /// Going back fails.
    CannotGoBack,
}

/// What a target in memory knows; generation 1 is current, 2 is tried.
#[derive(Debug)]
struct State {
    manner: Manner,
    seen: Vec<String>,
    pending: Option<String>,
    committed: bool,
}

#[derive(Debug, Clone)]
struct Fake {
    name: String,
    state: Arc<Mutex<State>>,
}

impl Fake {
    fn seen(&self) -> Vec<String> {
        self.state.lock().unwrap().seen.clone()
    }
}

impl Target for Fake {
    fn name(&self) -> &str {
        &self.name
    }

    fn connect(&self, freshness: Freshness) -> Result<Session, TargetError> {
        let mut state = self.state.lock().unwrap();
        state.seen.push(format!("{freshness:?}"));
        let tried = state.seen.iter().any(|seen| seen == "rollback");
        if state.manner == Manner::Down || tried && matches!(state.manner, Manner::CutsItselfOff | Manner::Vanishes) {
            return Err(TargetError::Unreachable { host: self.name.clone(), words: String::from("no route to host") });
        }
        let (their_input, our_output) = std::io::pipe().unwrap();
        let (our_input, their_output) = std::io::pipe().unwrap();
        let served = Arc::clone(&self.state);
        std::thread::spawn(move || serve(&served, their_input, their_output));
        Ok(Session::over(&self.name, Box::new(our_input), Box::new(our_output)))
    }
}

fn serve(state: &Mutex<State>, input: std::io::PipeReader, output: std::io::PipeWriter) {
    let (mut reader, mut writer) = (FrameReader::new(input), FrameWriter::new(output));
    while let Ok(Some(frame)) = reader.read() {
        assert_eq!(frame.kind, REQUEST);
        let request = serde_json::from_slice(&frame.payload).unwrap();
        let Some(response) = state.lock().unwrap().answer(request) else { return };
        let text = serde_json::to_vec(&response).unwrap();
        if writer.write(RESPONSE, &text).and_then(|()| writer.flush()).is_err() {
            return;
        }
    }
}

impl State {
    /// The answer, or nothing if the session ends instead.
    fn answer(&mut self, request: Request) -> Option<Response> {
        let back = || Response::RolledBack { generation: Some(1), reason: String::from("asked to") };
        match request {
            Request::Hello { .. } => Some(Response::Hello { version: PROTOCOL_VERSION, facts: self.facts() }),
            Request::Status => Some(Response::Status(self.status())),
            Request::Rollback { trial, .. } => {
                self.seen.push(String::from("rollback"));
                assert!(u128::from(trial.confirm_timeout_ms) <= CONFIRM_TIME_MAX.as_millis(), "a target refuses to wait longer");
                self.pending = Some(trial.nonce);
                match self.manner {
                    Manner::LosesTheSession | Manner::Vanishes => None,
                    Manner::Refuses => {
                        self.pending = None;
                        Some(Response::Refused { reasons: vec![String::from("port 80 is taken")] })
                    }
                    Manner::Unhealthy => {
                        self.pending = None;
                        Some(Response::RolledBack { generation: Some(1), reason: String::from("the page answers 500") })
                    }
                    _ => Some(Response::OnTrial { generation: 2, previous: Some(1) }),
                }
            }
            Request::Confirm { nonce } => {
                self.seen.push(String::from("confirm"));
                assert_eq!(self.pending.take(), Some(nonce));
                self.committed = true;
                (self.manner != Manner::LosesTheAnswer).then_some(Response::Committed { generation: 2 })
            }
            Request::Abort { nonce } => {
                self.seen.push(String::from("abort"));
                assert_eq!(self.pending.take(), Some(nonce));
                Some(if self.manner == Manner::CannotGoBack {
                    Response::RollbackFailed { reason: String::from("asked to"), failure: String::from("a.service does not start") }
                } else {
                    back()
                })
            }
            other => panic!("{other:?}"),
        }
    }

    fn facts(&self) -> Facts {
        Facts {
            architecture: std::env::consts::ARCH.to_owned(),
            root: String::from("/var/lib/sarsen"),
            services: String::from("systemd"),
            free_bytes: 1 << 40,
            free_inodes: 1 << 20,
            identity: None,
            current: Some(1),
            bundle: None,
            locked_by: (self.manner == Manner::Locked).then(|| String::from("eve@laptop")),
        }
    }

    fn status(&self) -> Status {
        let number = if self.committed || self.pending.is_some() { 2 } else { 1 };
        let current = GenerationInfo {
            number,
            bundle: "0123456789abcdfghijklmnpqrsvwxyz-bundle".parse().unwrap(),
            previous: None,
            created: 0,
            who: String::new(),
            revision: None,
            message: None,
            result: String::new(),
            reason: None,
            current: true,
            given_up: false,
        };
        let pending = self.pending.as_ref().map(|_| 2);
        Status {
            good: Some(if self.committed { 2 } else { 1 }),
            current: Some(current),
            pending,
            services: String::new(),
            units: Vec::new(),
        }
    }
}

/// Rolls hosts of these manners back; what became of each, and what each was asked.
fn run_with(manners: &[Manner]) -> (Vec<Outcome>, Vec<Vec<String>>) {
    let fakes: Vec<Fake> = manners
        .iter()
        .enumerate()
        .map(|(index, manner)| Fake {
            name: format!("web{index}"),
            state: Arc::new(Mutex::new(State { manner: *manner, seen: Vec::new(), pending: None, committed: false })),
        })
        .collect();
    let host = |fake: &Fake| Host {
        target: Box::new(fake.clone()),
        identity: Identity {
            project: String::from("shop"),
            environment: String::from("prod"),
            host: fake.name.clone(),
            profile: String::from("shop"),
        },
        claim: Claim::OwnOnly,
    };
    let hosts: Vec<Host> = fakes.iter().map(host).collect();
    let options = Options {
        jobs: 2,
        confirm_timeout: Duration::from_secs(1),
        who: String::from("ann@desk"),
        revision: None,
        message: None,
        retention: None,
        events: &|_, _| {},
    };
    let report = rollback(&hosts, None, &options);
    assert!(report.iter().zip(&fakes).all(|(report, fake)| report.host == fake.name));
    (report.into_iter().map(|report| report.outcome).collect(), fakes.iter().map(Fake::seen).collect())
}

#[test]
fn healthy_hosts_are_confirmed_over_fresh_connections() {
    // Many more than are worked on at once, so that the first to be healthy would wait for hours.
    let (outcomes, seen) = run_with(&[Manner::Healthy; 9]);
    assert!(outcomes.iter().all(|outcome| *outcome == Outcome::Committed { generation: 2 }), "{outcomes:?}");
    assert!(seen.iter().all(|seen| *seen == ["Shared", "rollback", "Fresh", "confirm"]), "{seen:?}");
}

#[test]
fn a_host_that_stops_the_preflight_leaves_all_untouched() {
    for manner in [Manner::Locked, Manner::Down] {
        let (outcomes, seen) = run_with(&[Manner::Healthy, manner, Manner::Healthy]);
        assert_eq!((&outcomes[0], &outcomes[2]), (&Outcome::Skipped, &Outcome::Skipped));
        assert!(matches!(outcomes[1], Outcome::Locked { .. } | Outcome::Unreachable { .. }), "{outcomes:?}");
        assert!(seen.iter().all(|seen| *seen == ["Shared"]), "{seen:?}");
    }
}

#[test]
fn one_host_that_fails_takes_all_back() {
    for manner in [Manner::Unhealthy, Manner::Refuses, Manner::LosesTheSession] {
        let (outcomes, seen) = run_with(&[Manner::Healthy, manner]);
        assert!(matches!(&outcomes[0], Outcome::RolledBack { generation: Some(1), reason } if reason.starts_with("web1 ")), "{outcomes:?}");
        assert!(seen[0].ends_with(&["abort".to_owned()]) && !seen.concat().contains(&"confirm".to_owned()), "{seen:?}");
        let expected = |outcome: &Outcome| match manner {
            Manner::Refuses => matches!(outcome, Outcome::Refused { .. }),
            _ => matches!(outcome, Outcome::RolledBack { generation: Some(1), .. }),
        };
        assert!(expected(&outcomes[1]), "{outcomes:?}");
    }
}

#[test]
fn a_host_that_cut_itself_off_takes_all_back_and_nobody_is_confirmed() {
    let (outcomes, seen) = run_with(&[Manner::CutsItselfOff, Manner::Healthy]);
    assert!(outcomes.iter().all(|outcome| matches!(outcome, Outcome::RolledBack { .. })), "{outcomes:?}");
    assert!(!seen.concat().contains(&"confirm".to_owned()), "{seen:?}");
}

#[test]
fn the_truth_is_asked_for_when_an_answer_is_lost() {
    assert_eq!(run_with(&[Manner::LosesTheAnswer]).0, [Outcome::Committed { generation: 2 }]);
    assert!(matches!(&run_with(&[Manner::Vanishes]).0[..], [Outcome::Unknown { .. }]));
}

#[test]
fn failing_to_go_back_is_told_apart() {
    let (outcomes, _) = run_with(&[Manner::CannotGoBack, Manner::Unhealthy]);
    assert!(matches!(&outcomes[0], Outcome::RollbackFailed { reason } if reason.contains("a.service")), "{outcomes:?}");
}

/// A host with a store of its own that takes closures and refuses to activate them.
#[derive(Debug, Clone)]
struct Taker(sarsen_store::ObjectStore);

impl Target for Taker {
    fn name(&self) -> &'static str {
        "taker"
    }

    fn connect(&self, _: Freshness) -> Result<Session, TargetError> {
        let (their_input, our_output) = std::io::pipe().unwrap();
        let (our_input, their_output) = std::io::pipe().unwrap();
        let store = self.0.clone();
        std::thread::spawn(move || {
            let (mut reader, mut writer) = (FrameReader::new(their_input), FrameWriter::new(their_output));
            let state = State { manner: Manner::Healthy, seen: Vec::new(), pending: None, committed: false };
            while let Ok(Some(frame)) = reader.read() {
                let say = |response: Response, writer: &mut FrameWriter<_>| {
                    writer.write(RESPONSE, &serde_json::to_vec(&response).unwrap()).and_then(|()| writer.flush()).unwrap();
                };
                match serde_json::from_slice(&frame.payload).unwrap() {
                    Request::Hello { .. } => say(Response::Hello { version: PROTOCOL_VERSION, facts: state.facts() }, &mut writer),
                    Request::Stage { .. } => {
                        say(Response::Ready, &mut writer);
                        let (_, moved) = sarsen_store::transfer::receive_closure(&store, &mut reader, &mut writer).unwrap();
                        say(Response::Staged { objects: moved.objects_sent, bytes: moved.bytes_raw }, &mut writer);
                    }
                    _ => say(Response::Refused { reasons: vec![String::from("not today")] }, &mut writer),
                }
            }
        });
        Ok(Session::over("taker", Box::new(our_input), Box::new(our_output)))
    }
}

fn empty_manifest(identity: Identity) -> Manifest {
    Manifest {
        version: sarsen_store::manifest::MANIFEST_VERSION,
        identity,
        store: String::from("/var/lib/sarsen/store"),
        components: vec![],
        services: vec![],
        links: vec![],
        state_directories: vec![],
        hooks: vec![],
        health_checks: vec![],
        requirements: vec![],
    }
}

/// A bundle whose one file differs from version to version in a few places.
fn bundle(store: &sarsen_store::ObjectStore, version: usize) -> ObjectRef {
    use sarsen_store::{NewEntry, NewEntryKind};
    let mut program: Vec<u8> = (0..100_000u32).flat_map(|i| (i.wrapping_mul(2_654_435_761)).to_le_bytes()).collect();
    program[1000..1008].copy_from_slice(&version.to_le_bytes());
    let kind = NewEntryKind::File { content: program.into(), executable: true };
    let mut transaction = store.begin().unwrap();
    let entries = [NewEntry { path: "bin/program".parse().unwrap(), kind }];
    let bundle = transaction.put_entries(&"bundle".parse().unwrap(), &entries, None, &[]).unwrap();
    transaction.barrier().unwrap();
    bundle
}

#[test]
fn a_delta_is_made_once_for_all_hosts() {
    let directory = tempfile::tempdir().unwrap();
    let open = |name: &str| sarsen_store::ObjectStore::open(&directory.path().join(name)).unwrap();
    let store = open("operator");
    let (old, new) = (bundle(&store, 1), bundle(&store, 2));
    let takers = ["web1", "web2"].map(|name| Taker(open(name)));
    let host = |taker: &Taker| {
        let text = || String::from("x");
        let identity = Identity { project: text(), environment: text(), host: text(), profile: text() };
        Host { target: Box::new(taker.clone()), identity, claim: Claim::OwnOnly }
    };
    let transfer = sarsen_store::transfer::TransferOptions { cache: Some(sarsen_store::transfer::DeltaCache::default()), effort: None };
    let options = Options {
        jobs: 2,
        confirm_timeout: Duration::from_secs(1),
        who: String::from("ann@desk"),
        revision: None,
        message: None,
        retention: None,
        events: &|_, _| {},
    };
    let copy = |bundle: &ObjectRef| {
        let deployments: Vec<HostDeployment> = takers
            .iter()
            .map(|taker| {
                let host = host(taker);
                let manifest = empty_manifest(host.identity.clone());
                HostDeployment { host, bundle: bundle.clone(), manifest }
            })
            .collect();
        let work: Vec<run::Work<'_>> = deployments
            .iter()
            .map(|deployment| run::Work { host: &deployment.host, change: run::Change::Deploy { deployment, store: &store } })
            .collect();
        let report = run::run_with(&work, &options, &transfer);
        assert!(
            report.iter().all(|report| matches!(&report.outcome, Outcome::Refused { reasons } if reasons == &["not today"])),
            "{report:?}"
        );
    };
    copy(&old);
    assert_eq!(transfer.cache.as_ref().unwrap().made(), 0);
    copy(&new);
    assert_eq!(transfer.cache.as_ref().unwrap().made(), 1);
    for taker in &takers {
        assert!(taker.0.contains(&new.id).unwrap());
        assert!(taker.0.verify().unwrap().is_empty());
    }
}

#[test]
fn work_in_parallel_keeps_its_order_and_its_bound() {
    let running = AtomicUsize::new(0);
    let items: Vec<usize> = (0..100).collect();
    let results = in_parallel(&items, 3, |item| {
        let now = running.fetch_add(1, Ordering::SeqCst) + 1;
        running.fetch_sub(1, Ordering::SeqCst);
        (*item, now)
    });
    assert!(results.iter().enumerate().all(|(index, (item, now))| index == *item && *now <= 3));
    assert!(in_parallel(&[] as &[usize], 0, |item| *item).is_empty());
}

//! The worker: one thread that waits for whatever comes first (a request, the end of a service, what it prints, a time)
//! and acts on it.
//!
//! It ends when it is asked to, when its keeper is gone, when the profile's directory is gone, or when for
//! [`IDLE`] nothing was wanted of it; all services are stopped before.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use sarsen_store::fsutil;
use sarsen_store::manifest::Service;

use super::log::Log;
use super::messages::{self, Request, Response};
use super::place::Place;
use super::record::{ProcessId, Record};
use super::unit::Unit;
use crate::process::{spawn, wait_ready};
use crate::services::DEAD_MAN_LOOK;

/// How long a supervisor without services waits for work.
const IDLE: Duration = Duration::from_mins(1);

/// How often it looks at what no event tells.
const LOOK: Duration = Duration::from_secs(1);

pub(super) struct Worker<'a> {
    place: Place,
    listener: UnixListener,
    /// Readable when the keeper is gone.
    keeper: BorrowedFd<'a>,
    units: BTreeMap<String, Unit>,
    /// The units in the order of the manifest.
    order: Vec<String>,
    record: Record,
    log: Log,
    /// When to look after the trial.
    dead_man: Option<Instant>,
    /// The `settle` that runs.
    settling: Option<Child>,
    /// The last time that anything was wanted of it.
    busy: Instant,
    ending: bool,
}

/// What happened.
#[derive(Debug, Clone)]
enum Event {
    Request,
    KeeperGone,
    Ended(String),
    Output(String),
}

impl<'a> Worker<'a> {
    /// Takes over the place: ends what an earlier supervisor left behind, and starts what should run.
    ///
    /// The caller holds the place's lock.
    pub(super) fn new(place: &Place, keeper: BorrowedFd<'a>) -> io::Result<Self> {
        let record = Record::load(&place.record())?;
        record.kill_leftovers();
        if let Err(error) = fsutil::remove_file(&place.socket())
            && !error.is_missing()
        {
            return Err(error.source);
        }
        let listener = place.listen()?;
        fsutil::set_mode(&place.socket(), 0o600).map_err(|error| error.source)?;
        let mut worker = Self {
            place: place.clone(),
            listener,
            keeper,
            units: BTreeMap::new(),
            order: Vec::new(),
            record: Record::default(),
            log: Log::new(place.own_log()),
            // A trial that is pending now was left by a dead owner, or its owner is about to say how long it may take.
            dead_man: place.pending().exists().then(|| Instant::now() + DEAD_MAN_LOOK),
            settling: None,
            busy: Instant::now(),
            ending: false,
        };
        worker.log.note("the development supervisor starts");
        worker.install(record.services);
        for unit in record.wanted {
            worker.start(&unit);
        }
        worker.write_record();
        Ok(worker)
    }

    /// Works until there is nothing left to do.
    pub(super) fn run(mut self) -> io::Result<()> {
        while !(self.ending && self.units.values().all(|unit| unit.process().is_none())) {
            for event in self.wait()? {
                self.handle(event);
            }
            self.tick(Instant::now());
            self.write_record();
        }
        self.log.note("the development supervisor ends");
        // Whoever comes next makes another.
        let _ = fsutil::remove_file(&self.place.socket());
        Ok(())
    }

    fn wait(&self) -> io::Result<Vec<Event>> {
        let mut events = vec![Event::Request];
        let mut watched = vec![PollFd::new(&self.listener, PollFlags::IN)];
        if !self.ending {
            events.push(Event::KeeperGone);
            watched.push(PollFd::from_borrowed_fd(self.keeper, PollFlags::IN));
        }
        for (name, unit) in &self.units {
            let Some(process) = unit.process() else { continue };
            if let Some(output) = &process.output {
                events.push(Event::Output(name.clone()));
                watched.push(PollFd::new(output, PollFlags::IN));
            }
            events.push(Event::Ended(name.clone()));
            watched.push(PollFd::new(&process.ended, PollFlags::IN));
        }
        let due = self.units.values().filter_map(Unit::due).chain(self.dead_man).min();
        let time = due.map_or(LOOK, |due| due.saturating_duration_since(Instant::now()).min(LOOK));
        wait_ready(&mut watched, time)?;
        let happened = watched.iter().zip(events).filter(|(descriptor, _)| !descriptor.revents().is_empty());
        Ok(happened.map(|(_, event)| event).collect())
    }

    fn handle(&mut self, event: Event) {
        let now = Instant::now();
        match event {
            Event::KeeperGone => {
                self.log.note("the keeper is gone");
                self.end(now);
            }
            Event::Request => {
                self.busy = now;
                // The next one gets its turn even if this one breaks off.
                if let Err(error) = self.listener.accept().and_then(|(stream, _)| self.serve(&stream)) {
                    self.log.note(&format!("a request failed: {error}"));
                }
            }
            Event::Output(name) => {
                if let Some(unit) = self.units.get_mut(&name) {
                    unit.read_output();
                }
            }
            Event::Ended(name) => {
                if let Some(unit) = self.units.get_mut(&name) {
                    unit.ended(now);
                }
            }
        }
    }

    fn serve(&mut self, stream: &UnixStream) -> io::Result<()> {
        let peer = rustix::net::sockopt::socket_peercred(stream)?.uid;
        if peer != rustix::process::geteuid() && !peer.is_root() {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        messages::answer(stream, |request| self.obey(request))
    }

    fn obey(&mut self, request: Request) -> Response {
        let now = Instant::now();
        if self.ending && !matches!(request, Request::Shutdown) {
            return Response::Ending;
        }
        match request {
            Request::Install { services } => self.install(services),
            Request::Start { units } => {
                if let Some(unknown) = units.iter().find(|unit| !self.units.contains_key(*unit)) {
                    return Response::Failed { message: format!("there is no unit `{unknown}`") };
                }
                for unit in &units {
                    self.start(unit);
                }
            }
            Request::Stop { units } => {
                for unit in &units {
                    self.units.get_mut(unit).into_iter().for_each(|unit| unit.stop(now));
                }
            }
            Request::Reload { unit, timeout_ms } => {
                let Some(found) = self.units.get_mut(&unit) else {
                    return Response::Failed { message: format!("there is no unit `{unit}`") };
                };
                if let Err(message) = found.reload(Duration::from_millis(timeout_ms)) {
                    return Response::Failed { message };
                }
            }
            Request::States { units } => return Response::States { states: units.iter().map(|unit| self.state(unit)).collect() },
            Request::ArmDeadMan { after_ms } => self.dead_man = Some(now + Duration::from_millis(after_ms).min(DEAD_MAN_LOOK)),
            Request::DisarmDeadMan => self.dead_man = None,
            Request::Shutdown => self.end(now),
        }
        // Before the answer, so that what was confirmed is remembered.
        self.write_record();
        Response::Done
    }

    fn state(&self, unit: &str) -> messages::State {
        self.units.get(unit).map_or_else(
            || messages::State {
                unit: unit.to_owned(),
                active: false,
                failed: false,
                state: "inactive".to_owned(),
                pid: None,
                restarts: 0,
            },
            Unit::to_wire,
        )
    }

    /// Knows exactly `services` from now on; a running unit keeps running as it was started.
    fn install(&mut self, services: Vec<Service>) {
        let now = Instant::now();
        self.order = services.iter().map(|service| service.unit.clone()).collect();
        let known: BTreeSet<&String> = self.order.iter().collect();
        for unit in self.units.values_mut().filter(|unit| !known.contains(&unit.service.unit)) {
            unit.removed = true;
            unit.stop(now);
        }
        for service in services {
            if let Some(unit) = self.units.get_mut(&service.unit) {
                unit.removed = false;
                unit.service = service;
            } else {
                let log = Log::new(self.place.unit_log(&service.unit));
                self.units.insert(service.unit.clone(), Unit::new(service, log));
            }
        }
    }

    fn start(&mut self, unit: &str) {
        if let Some(unit) = self.units.get_mut(unit) {
            unit.start();
        }
    }

    fn end(&mut self, now: Instant) {
        self.ending = true;
        self.units.values_mut().for_each(|unit| unit.stop(now));
    }

    fn tick(&mut self, now: Instant) {
        self.units.values_mut().for_each(|unit| unit.tick(now));
        self.units.retain(|_, unit| !unit.removed || unit.process().is_some());
        self.settle(now);
        let wanted = self.dead_man.is_some() || self.settling.is_some() || self.units.values().any(|unit| unit.wanted);
        if wanted {
            self.busy = now;
        }
        let idle = now.duration_since(self.busy) >= IDLE;
        if !self.ending && (idle || !self.place.directory().exists()) {
            self.end(now);
        }
    }

    /// Looks after a pending trial by running `settle`, which gives it up if its owner is dead.
    fn settle(&mut self, now: Instant) {
        if let Some(child) = &mut self.settling {
            match child.try_wait() {
                Ok(None) => return,
                Ok(Some(_)) | Err(_) => self.settling = None,
            }
            if self.dead_man.is_none() && self.place.pending().exists() {
                self.dead_man = Some(now + DEAD_MAN_LOOK);
            }
        }
        if self.ending || self.dead_man.is_none_or(|due| now < due) {
            return;
        }
        self.dead_man = None;
        if !self.place.pending().exists() {
            return;
        }
        self.log.note("a trial is pending: settle looks after it");
        match self.start_settle() {
            Ok(child) => self.settling = Some(child),
            Err(error) => {
                self.log.note(&format!("cannot settle: {error}"));
                self.dead_man = Some(now + DEAD_MAN_LOOK);
            }
        }
    }

    #[expect(clippy::disallowed_methods, reason = "the development supervisor owns the processes that it starts")]
    fn start_settle(&self) -> Result<Child, crate::process::ProcessError> {
        let mut command = Command::new("/proc/self/exe");
        command.arg("settle").arg("--root").arg(&self.place.root).arg("--profile").arg(&self.place.profile);
        spawn(command, &BTreeMap::new(), None)
    }

    /// Writes down what should run and what does, if it differs from what was written last.
    fn write_record(&mut self) {
        let listed = || self.order.iter().filter_map(|unit| self.units.get(unit));
        let mut record = Record::default();
        record.services = listed().map(|unit| unit.service.clone()).collect();
        // The end of the supervisor stops services, but it does not mean that they are not wanted any more.
        record.wanted = if self.ending {
            self.record.wanted.clone()
        } else {
            listed().filter(|unit| unit.wanted).map(|unit| unit.service.unit.clone()).collect()
        };
        let identify = |(name, unit): (&String, &Unit)| Some((name.clone(), ProcessId::of(unit.process()?.pid())?));
        record.processes = self.units.iter().filter_map(identify).collect();
        if record == self.record {
            return;
        }
        if let Err(error) = record.store(&self.place.record()) {
            self.log.note(&format!("{error}: {}", error.source));
        }
        self.record = record;
    }
}

//! The worker on a thread with real processes; its end is ordered by closing the pipe that stands for the keeper.

use std::collections::BTreeMap;
use std::io::PipeWriter;
use std::os::fd::AsFd;
use std::thread::JoinHandle;

use sarsen_store::fsutil;
use sarsen_store::manifest::{Restart, Role};
use tempfile::TempDir;

use super::*;

const LONG: Duration = Duration::from_secs(20);

struct Stage {
    directory: TempDir,
    client: SupervisorClient,
    worker: Option<(PipeWriter, JoinHandle<std::io::Result<()>>)>,
}

impl Stage {
    fn new() -> Self {
        let directory = TempDir::new().unwrap();
        let client = SupervisorClient::new(directory.path(), "web");
        let mut stage = Self { directory, client, worker: None };
        stage.start_worker();
        stage
    }

    fn start_worker(&mut self) {
        let (reader, writer) = std::io::pipe().unwrap();
        let place = self.client.place.clone();
        let worker = std::thread::spawn(move || daemon::work(&place, reader.as_fd()));
        let end = Instant::now() + LONG;
        while messages::ask_running(&self.client.place, &Request::States { units: Vec::new() }).unwrap().is_none() {
            assert!(Instant::now() < end, "the worker does not answer");
            std::thread::yield_now();
        }
        self.worker = Some((writer, worker));
    }

    fn lose_keeper(&mut self) {
        let (keeper, worker) = self.worker.take().unwrap();
        drop(keeper);
        worker.join().unwrap().unwrap();
    }

    fn install(&self, services: &[Service]) {
        self.client.install(Path::new("unused"), services, &[]).unwrap();
    }

    fn state(&self, unit: &str) -> UnitState {
        self.client.states(&[unit.to_owned()]).unwrap().remove(0)
    }

    #[track_caller]
    fn wait_for(&self, unit: &str, what: impl Fn(&UnitState) -> bool) -> UnitState {
        let end = Instant::now() + LONG;
        loop {
            let state = self.state(unit);
            if what(&state) {
                return state;
            }
            assert!(Instant::now() < end, "never seen: {state:?}\n{}", self.client.log_tail(unit));
            std::thread::yield_now();
        }
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if self.worker.is_some() {
            self.lose_keeper();
        }
    }
}

fn shell(unit: &str, script: &str, restart: Restart) -> Service {
    Service {
        unit: unit.to_owned(),
        component: "app".to_owned(),
        command: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
        reload: Vec::new(),
        environment: BTreeMap::from([("GREETING".to_owned(), "hello".to_owned())]),
        user: None,
        working_directory: None,
        restart,
        reload_trigger: String::new(),
        role: Role::Service,
        stop_timeout_ms: 10_000,
    }
}

fn names(units: &[&str]) -> Vec<String> {
    units.iter().map(|&unit| unit.to_owned()).collect()
}

fn runs(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

#[test]
fn starts_tells_and_stops_with_the_whole_process_group() {
    let stage = Stage::new();
    let script = "echo $GREETING ${HOSTNAME:-nothing else}; sleep 1000 & echo $! > child; wait";
    let directory = Some(stage.directory.path().display().to_string());
    stage.install(&[Service { working_directory: directory, ..shell("a.service", script, Restart::Always) }]);
    stage.client.start(&names(&["a.service"]), LONG).unwrap();
    let seen = stage.state("a.service");
    assert_eq!((seen.active, seen.failed, seen.state.as_str(), seen.restarts), (true, false, "active", 0));
    let end = Instant::now() + LONG;
    let child = loop {
        let text = std::fs::read_to_string(stage.directory.path().join("child")).unwrap_or_default();
        if let Ok(pid) = text.trim().parse::<u32>() {
            break pid;
        }
        assert!(Instant::now() < end);
    };
    assert!(runs(child));
    stage.client.stop(&names(&["a.service", "unknown.service"]), LONG).unwrap();
    assert!(!runs(seen.pid.unwrap()));
    assert_eq!(stage.state("a.service").state, "inactive");
    let log = stage.client.log_tail("a.service");
    assert!(log.contains("\nhello nothing else\n"), "{log}");
}

#[test]
fn restarts_with_growing_pauses_and_says_so() {
    let stage = Stage::new();
    let begun = Instant::now();
    stage.install(&[shell("crash.service", "exit 3", Restart::OnFailure)]);
    // It may be seen running or ended already.
    let _ = stage.client.start(&names(&["crash.service"]), LONG);
    let seen = stage.wait_for("crash.service", |state| state.restarts >= 3 && state.failed);
    assert!(begun.elapsed() >= Duration::from_millis(100 + 200 + 400));
    assert_eq!(seen.state, "ended (exit code 3) and being started again");
    stage.client.stop(&names(&["crash.service"]), LONG).unwrap();
    let seen = stage.state("crash.service");
    assert_eq!((seen.state.as_str(), seen.failed), ("inactive", false));
}

#[test]
fn obeys_the_restart_policy() {
    let stage = Stage::new();
    stage.install(&[shell("no.service", "exit 3", Restart::No), shell("done.service", "exit 0", Restart::OnFailure)]);
    let _ = stage.client.start(&names(&["no.service"]), LONG);
    let _ = stage.client.start(&names(&["done.service"]), Duration::ZERO);
    let seen = stage.wait_for("no.service", |state| !state.active);
    assert_eq!((seen.state.as_str(), seen.failed, seen.restarts), ("failed (exit code 3)", true, 0));
    let seen = stage.wait_for("done.service", |state| !state.active);
    assert_eq!((seen.state.as_str(), seen.failed, seen.restarts), ("inactive", false, 0));
}

#[test]
fn a_service_that_cannot_be_started_is_an_error_in_words() {
    let stage = Stage::new();
    let missing = Service { command: vec!["/nonexistent/daemon".to_owned()], ..shell("a.service", "", Restart::Always) };
    stage.install(&[missing]);
    let error = stage.client.start(&names(&["a.service"]), LONG).unwrap_err().to_string();
    let expected = "development supervisor could not start a.service: a.service is failed (cannot start `/nonexistent/daemon`: \
                    No such file or directory (os error 2))";
    assert!(error.starts_with(expected), "{error}");
    let error = stage.client.start(&names(&["b.service"]), LONG).unwrap_err().to_string();
    assert_eq!(error, "development supervisor could not start b.service: there is no unit `b.service`");
}

#[test]
fn kills_a_service_that_does_not_stop_in_its_time() {
    let stage = Stage::new();
    let script = "trap '' TERM; echo ready; while :; do sleep 1000; done";
    stage.install(&[Service { stop_timeout_ms: 200, ..shell("deaf.service", script, Restart::Always) }]);
    stage.client.start(&names(&["deaf.service"]), LONG).unwrap();
    let end = Instant::now() + LONG;
    while !stage.client.log_tail("deaf.service").contains("ready") {
        assert!(Instant::now() < end);
    }
    stage.client.stop(&names(&["deaf.service"]), LONG).unwrap();
    assert!(stage.client.log_tail("deaf.service").contains("ended with signal 9"));
}

#[test]
fn reloads_with_the_installed_command_and_stops_what_is_no_longer_installed() {
    let stage = Stage::new();
    let script = "trap 'echo reloaded' HUP; echo ready; while :; do sleep 0.05; done";
    let reload = ["/bin/sh", "-c", "kill -HUP $0", "$MAINPID"].map(str::to_owned).to_vec();
    stage.install(&[Service { reload, ..shell("a.service", script, Restart::Always) }]);
    stage.client.start(&names(&["a.service"]), LONG).unwrap();
    let end = Instant::now() + LONG;
    while !stage.client.log_tail("a.service").contains("ready") {
        assert!(Instant::now() < end);
    }
    stage.client.reload(&names(&["a.service"]), LONG).unwrap();
    while !stage.client.log_tail("a.service").lines().any(|line| line == "reloaded") {
        assert!(Instant::now() < end, "{}", stage.client.log_tail("a.service"));
    }
    let pid = stage.state("a.service").pid.unwrap();
    assert!(stage.client.has_services());
    stage.install(&[]);
    assert!(!stage.client.has_services());
    while runs(pid) {
        assert!(Instant::now() < end);
    }
}

#[test]
fn losing_the_keeper_stops_services_and_the_next_supervisor_starts_them_again() {
    let mut stage = Stage::new();
    stage.install(&[shell("a.service", "exec sleep 1000", Restart::Always), shell("b.service", "exec sleep 1000", Restart::Always)]);
    stage.client.start(&names(&["a.service"]), LONG).unwrap();
    let first = stage.state("a.service").pid.unwrap();
    stage.lose_keeper();
    assert!(!runs(first));
    assert!(!stage.client.place.socket().exists());
    stage.start_worker();
    let seen = stage.wait_for("a.service", |state| state.active);
    assert_ne!(seen.pid, Some(first));
    assert_eq!(stage.state("b.service").state, "inactive");
}

#[test]
fn ends_what_a_killed_supervisor_left_behind() {
    let stage = Stage::new();
    stage.install(&[shell("a.service", "exec sleep 1000", Restart::Always)]);
    stage.client.start(&names(&["a.service"]), LONG).unwrap();
    let pid = stage.state("a.service").pid.unwrap();
    record::Record::load(&stage.client.place.record()).unwrap().kill_leftovers();
    let seen = stage.wait_for("a.service", |state| state.restarts > 0 && state.active);
    assert_ne!(seen.pid, Some(pid));
    assert!(stage.client.log_tail("a.service").contains("ended with signal 9"));
}

#[test]
fn a_client_without_supervisor_knows_that_nothing_runs_and_starts_none() {
    let directory = TempDir::new().unwrap();
    let client = SupervisorClient::new(directory.path(), "web");
    assert_eq!(client.states(&names(&["a.service"])).unwrap()[0].state, "inactive");
    client.stop(&names(&["a.service"]), LONG).unwrap();
    client.install(Path::new("unused"), &[], &[]).unwrap();
    client.disarm_dead_man().unwrap();
    client.shut_down(LONG).unwrap();
    assert!(!client.has_services());
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
}

#[test]
fn the_socket_is_reached_through_a_directory_of_any_length() {
    let directory = TempDir::new().unwrap();
    let place = Place::new(&directory.path().join("long".repeat(40)), "web");
    fsutil::create_dir_all(&place.directory(), 0o755).unwrap();
    let listener = place.listen().unwrap();
    assert!(place.socket().exists());
    place.connect().unwrap();
    listener.accept().unwrap();
}

//! The two processes of the development supervisor, as the program that targets run: what each one's death means.
#![expect(clippy::disallowed_methods, reason = "the test owns the processes that it starts")]
#![expect(clippy::unwrap_used, reason = "a test ends at what it did not expect")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use sarsen_activator::services::{ServiceManager, UnitState};
use sarsen_activator::supervisor::SupervisorClient;
use sarsen_store::manifest::{Restart, Role, Service};
use tempfile::TempDir;

const LONG: Duration = Duration::from_secs(20);

struct Stage {
    root: TempDir,
    keeper: Child,
    client: SupervisorClient,
}

impl Stage {
    fn new() -> Self {
        let root = TempDir::new().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_sarsen-activator"));
        command.arg("supervise").arg("--root").arg(root.path()).args(["--profile", "web"]);
        let keeper = command.stdin(Stdio::null()).spawn().unwrap();
        let client = SupervisorClient::new(root.path(), "web");
        let stage = Self { root, keeper, client };
        until(|| stage.path("supervisor.sock").exists());
        stage.client.install(Path::new("unused"), &[sleeper()], &[]).unwrap();
        stage.client.start(&units(), LONG).unwrap();
        stage
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join("profiles/web").join(name)
    }

    fn service(&self) -> UnitState {
        self.client.states(&units()).unwrap().remove(0)
    }

    /// The worker: the only child of the keeper.
    fn worker(&self) -> u32 {
        let keeper = self.keeper.id();
        let children = std::fs::read_to_string(format!("/proc/{keeper}/task/{keeper}/children")).unwrap();
        children.trim().parse().unwrap()
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // Harmless when the test has ended it already.
        let _ = self.keeper.kill();
        let _ = self.keeper.wait();
    }
}

fn units() -> Vec<String> {
    vec!["a.service".to_owned()]
}

fn sleeper() -> Service {
    Service {
        unit: "a.service".to_owned(),
        component: "app".to_owned(),
        command: ["/bin/sleep", "1000"].map(str::to_owned).to_vec(),
        reload: Vec::new(),
        environment: BTreeMap::new(),
        user: None,
        working_directory: None,
        restart: Restart::Always,
        reload_trigger: String::new(),
        role: Role::Service,
        stop_timeout_ms: 10_000,
    }
}

fn runs(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

#[track_caller]
fn until(happened: impl Fn() -> bool) {
    let end = Instant::now() + LONG;
    while !happened() {
        assert!(Instant::now() < end, "it never happened");
        std::thread::yield_now();
    }
}

fn kill(pid: u32) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

#[test]
fn the_end_of_the_keeper_stops_everything_in_good_order() {
    let mut stage = Stage::new();
    let (service, worker) = (stage.service().pid.unwrap(), stage.worker());
    let noted: u32 = std::fs::read_to_string(stage.path("supervisor.pid")).unwrap().trim().parse().unwrap();
    assert_eq!(noted, stage.keeper.id());
    kill(noted);
    stage.keeper.wait().unwrap();
    until(|| !runs(worker));
    assert!(!runs(service));
    assert!(!stage.path("supervisor.sock").exists() && !stage.path("supervisor.pid").exists());
    assert!(stage.client.log_tail("a.service").ends_with("ended with signal 15"));
}

#[test]
fn the_keeper_ends_what_a_killed_worker_left() {
    let mut stage = Stage::new();
    let service = stage.service().pid.unwrap();
    kill(stage.worker());
    assert!(!stage.keeper.wait().unwrap().success());
    until(|| !runs(service));
}

#[test]
fn a_shutdown_ends_both_processes() {
    let mut stage = Stage::new();
    let service = stage.service().pid.unwrap();
    stage.client.shut_down(LONG).unwrap();
    assert!(stage.keeper.wait().unwrap().success());
    assert!(!runs(service));
}

#[test]
fn a_second_supervisor_leaves_the_first_alone() {
    let stage = Stage::new();
    let service = stage.service().pid;
    let mut command = Command::new(env!("CARGO_BIN_EXE_sarsen-activator"));
    command.arg("supervise").arg("--root").arg(stage.root.path()).args(["--profile", "web"]);
    assert!(command.status().unwrap().success());
    assert_eq!(stage.service().pid, service);
}

#[test]
fn a_pending_trial_is_looked_after() {
    let stage = Stage::new();
    std::fs::OpenOptions::new().write(true).create_new(true).open(stage.path("pending.json")).unwrap();
    stage.client.arm_dead_man(Duration::from_millis(50)).unwrap();
    let log = stage.root.path().join("log/web/supervisor.log");
    until(|| std::fs::read_to_string(&log).is_ok_and(|text| text.contains("settle looks after it") && text.contains("pending.json")));
}

#[test]
fn a_supervisor_whose_installation_is_gone_ends() {
    let mut stage = Stage::new();
    let service = stage.service().pid.unwrap();
    sarsen_store::fsutil::remove_tree(&stage.root.path().join("profiles")).unwrap();
    stage.keeper.wait().unwrap();
    until(|| !runs(service));
}

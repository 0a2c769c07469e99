//! Deployments through the real program: sessions, trial processes, the development supervisor, and a kill in between.
#![expect(clippy::disallowed_methods, reason = "the test owns the processes that it starts")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use sarsen_activator::deployment::{self, Host, HostDeployment, Options, Outcome};
use sarsen_activator::protocol::{Activation, Claim, PROTOCOL_VERSION, REQUEST, Request, Response, Trial};
use sarsen_activator::services::ServiceManager;
use sarsen_activator::supervisor::SupervisorClient;
use sarsen_activator::target::{Freshness, Local, Target};
use sarsen_store::manifest::{HealthCheck, Identity, MANIFEST_VERSION, Manifest, Probe, Restart, Role, Service};
use sarsen_store::transfer::TransferOptions;
use sarsen_store::wire::FrameWriter;
use sarsen_store::{NewEntry, NewEntryKind, ObjectRef, ObjectStore};
use tempfile::TempDir;

const LONG: Duration = Duration::from_mins(1);
const PROGRAM: &str = env!("CARGO_BIN_EXE_sarsen-activator");

struct Lab {
    source: TempDir,
    root: TempDir,
    is_mounted: bool,
}

impl Drop for Lab {
    fn drop(&mut self) {
        let _ = SupervisorClient::new(self.root.path(), "shop").shut_down(LONG);
        if self.is_mounted {
            let _ = Command::new("umount").arg("-l").arg(self.root.path()).status();
        }
    }
}

impl Lab {
    fn new() -> Self {
        Self::start(Self { source: tempfile::tempdir().unwrap(), root: tempfile::tempdir().unwrap(), is_mounted: false })
    }

    /// A lab whose root is a file system of memory, which can be filled up.
    fn on_small_disk() -> Self {
        let lab = Self { source: tempfile::tempdir().unwrap(), root: tempfile::tempdir().unwrap(), is_mounted: true };
        assert!(Command::new("mount").args(["-t", "tmpfs", "sarsen-room"]).arg(lab.root.path()).status().unwrap().success());
        lab.resize(256 << 20, 100_000);
        Self::start(lab)
    }

    fn resize(&self, bytes: u64, inodes: u64) {
        let options = format!("remount,size={bytes},nr_inodes={inodes}");
        assert!(Command::new("mount").args(["-o", &options]).arg(self.root.path()).status().unwrap().success(), "{options}");
    }

    /// Leaves no free byte and no free inode.
    fn fill(&self) {
        let status = rustix::fs::statvfs(self.root.path()).unwrap();
        self.resize((status.f_blocks - status.f_bfree) * status.f_frsize, status.f_files - status.f_ffree);
        let status = rustix::fs::statvfs(self.root.path()).unwrap();
        assert_eq!((status.f_bavail, status.f_favail), (0, 0));
    }

    fn remove_index(&self) {
        for name in ["index.sqlite", "index.sqlite-wal", "index.sqlite-shm"] {
            let _ = std::fs::remove_file(self.root.path().join(name));
        }
    }

    fn start(lab: Self) -> Self {
        // A profile stays with the manager that runs its services: without this, a test would reach the developer's own systemd.
        let services = manifest(lab.root.path(), &["/bin/true"]).services;
        let mut keeper = Command::new(PROGRAM);
        keeper.args(["supervise", "--profile", "shop", "--root"]).arg(lab.root.path()).stdin(Stdio::null()).stderr(Stdio::null());
        let mut keeper = keeper.spawn().unwrap();
        while !lab.root.path().join("profiles/shop/supervisor.sock").exists() {
            assert_eq!(keeper.try_wait().unwrap(), None, "the supervisor runs");
            std::thread::yield_now();
        }
        std::thread::spawn(move || keeper.wait());
        SupervisorClient::new(lab.root.path(), "shop").install(Path::new("unused"), &services, &[]).unwrap();
        lab
    }

    fn store(&self) -> ObjectStore {
        ObjectStore::open(self.source.path()).unwrap()
    }

    fn host(&self) -> Host {
        Host { target: Box::new(self.target()), identity: identity(), claim: Claim::OwnOnly }
    }

    fn target(&self) -> Local {
        Local { host: "h".to_owned(), activator: PROGRAM.into(), root: self.root.path().to_owned(), timeout: LONG }
    }

    /// A bundle with one service that runs `command`.
    fn bundle(&self, command: &[&str]) -> (ObjectRef, Manifest) {
        let manifest = manifest(self.root.path(), command);
        let unit = format!("[Service]\nExecStart={}\n", command.join(" "));
        let file = |path: &str, content: &str| NewEntry {
            path: path.parse().unwrap(),
            kind: NewEntryKind::File { content: content.as_bytes().into(), executable: false },
        };
        let entries = [file("manifest.json", &manifest.to_json()), file("unit.d/shop-app.service", &unit)];
        let mut transaction = self.store().begin().unwrap();
        let bundle = transaction.put_entries(&"bundle".parse().unwrap(), &entries, None, &[]).unwrap();
        transaction.barrier().unwrap();
        (bundle, manifest)
    }

    fn deploy(&self, command: &[&str]) -> Outcome {
        let (bundle, manifest) = self.bundle(command);
        let options = Options {
            jobs: 1,
            confirm_timeout: LONG,
            who: "ada@desk".to_owned(),
            revision: None,
            message: None,
            retention: None,
            events: &|_, _| (),
        };
        let hosts = [HostDeployment { host: self.host(), bundle, manifest }];
        deployment::deploy(&hosts, &self.store(), &options).remove(0).outcome
    }

    /// What runs: the current generation, whether a trial runs, the state of the service.
    fn status(&self) -> String {
        let status = deployment::status(&[self.host()], 1).remove(0).unwrap();
        let mut text = format!("{:?} {:?}", status.current.map(|it| it.number), status.pending);
        for unit in status.units {
            write!(text, " {}", unit.state).unwrap();
        }
        text
    }
}

fn identity() -> Identity {
    let text = |text: &str| text.to_owned();
    Identity { project: text("shop"), environment: text("prod"), host: text("h"), profile: text("shop") }
}

fn manifest(root: &Path, command: &[&str]) -> Manifest {
    let unit = "shop-app.service".to_owned();
    Manifest {
        version: MANIFEST_VERSION,
        identity: identity(),
        store: root.join("store").display().to_string(),
        components: Vec::new(),
        services: vec![Service {
            unit: unit.clone(),
            component: "app".to_owned(),
            command: command.iter().map(|&word| word.to_owned()).collect(),
            reload: Vec::new(),
            environment: BTreeMap::new(),
            user: None,
            working_directory: None,
            restart: Restart::No,
            reload_trigger: String::new(),
            role: Role::Service,
            stop_timeout_ms: 10_000,
        }],
        links: Vec::new(),
        state_directories: Vec::new(),
        hooks: Vec::new(),
        health_checks: vec![HealthCheck {
            name: "up".to_owned(),
            component: "app".to_owned(),
            probe: Probe::Unit { unit },
            timeout_ms: 10_000,
            interval_ms: 50,
            successes: 2,
        }],
        requirements: Vec::new(),
    }
}

#[test]
fn a_host_keeps_what_is_healthy_and_goes_back_from_what_is_not() {
    let lab = Lab::new();
    assert_eq!(lab.status(), "None None");
    assert_eq!(lab.deploy(&["/bin/sleep", "1000"]), Outcome::Committed { generation: 1 });
    assert_eq!(lab.status(), "Some(1) None active");
    assert_eq!(lab.deploy(&["/bin/sleep", "1000"]), Outcome::Unchanged { generation: 1 });
    let failed = lab.deploy(&["/bin/sh", "-c", "echo no luck; exit 3"]);
    assert!(matches!(&failed, Outcome::RolledBack { generation: Some(1), reason } if reason.contains("no luck")), "{failed:?}");
    assert_eq!(lab.status(), "Some(1) None active");
    assert_eq!(lab.deploy(&["/bin/sleep", "2000"]), Outcome::Committed { generation: 3 });
    let done = Command::new(PROGRAM).args(["rollback", "--profile", "shop", "--root"]).arg(lab.root.path()).output().unwrap();
    assert_eq!((done.status.code(), String::from_utf8_lossy(&done.stdout).as_ref()), (Some(0), "generation 1 is current\n"));
    assert_eq!(lab.status(), "Some(1) None active");
}

#[test]
fn a_trial_whose_process_is_killed_is_settled_by_the_next_session() {
    let lab = Lab::new();
    assert_eq!(lab.deploy(&["/bin/sleep", "1000"]), Outcome::Committed { generation: 1 });
    let (bundle, _) = lab.bundle(&["/bin/sleep", "2000"]);
    let nonce = "ab".repeat(16);
    let mut session = lab.target().connect(Freshness::Shared).unwrap();
    session.hello(&identity()).unwrap();
    session.stage(&lab.store(), &bundle, &TransferOptions::default(), LONG).unwrap();
    let trial = Trial {
        nonce: nonce.clone(),
        confirm_timeout_ms: 60_000,
        who: "ada@desk".to_owned(),
        revision: None,
        message: None,
        claim: Claim::OwnOnly,
    };
    let response = session.request(&Request::Activate(Activation { bundle, trial }), LONG, &mut |_| ()).unwrap();
    assert_eq!(response, Response::OnTrial { generation: 2, previous: Some(1) });
    assert_eq!(lab.status(), "Some(2) Some(2) active");
    let holder = std::fs::read_to_string(lab.root.path().join("profiles/shop/lock")).unwrap();
    let process = holder.trim().rsplit(' ').next().unwrap();
    assert!(Command::new("/bin/kill").args(["-9", process]).status().unwrap().success());
    drop(session);
    // The kernel frees the lock with the process; until then the trial still counts as running.
    let gone = PathBuf::from(format!("/proc/{process}/fd/0"));
    while gone.symlink_metadata().is_ok() {
        std::thread::yield_now();
    }
    let mut session = lab.target().connect(Freshness::Fresh).unwrap();
    session.hello(&identity()).unwrap();
    let late = session.request(&Request::Confirm { nonce }, LONG, &mut |_| ()).unwrap();
    assert_eq!(late, Response::RolledBack { generation: Some(1), reason: "the activation was interrupted".to_owned() });
    assert_eq!(lab.status(), "Some(1) None active");
}

/// Wherever a trial is killed, the next settling leads to the previous generation, running, and the next deployment works.
#[test]
fn a_trial_may_be_killed_at_any_moment() {
    let lab = Lab::new();
    assert_eq!(lab.deploy(&["/bin/sleep", "1000"]), Outcome::Committed { generation: 1 });
    let (bundle, _) = lab.bundle(&["/bin/sleep", "2000"]);
    let mut session = lab.target().connect(Freshness::Shared).unwrap();
    session.hello(&identity()).unwrap();
    session.stage(&lab.store(), &bundle, &TransferOptions::default(), LONG).unwrap();
    let mut switched = 0;
    for step in 0..30u64 {
        let trial = Trial {
            nonce: format!("{step:032x}"),
            confirm_timeout_ms: 60_000,
            who: "ada@desk".to_owned(),
            revision: None,
            message: None,
            claim: Claim::OwnOnly,
        };
        let mut activate = Command::new(PROGRAM);
        activate.args(["activate", "--profile", "shop", "--root"]).arg(lab.root.path()).stdin(Stdio::piped()).stdout(Stdio::null());
        let mut process = activate.spawn().unwrap();
        let mut writer = FrameWriter::new(process.stdin.take().unwrap());
        let hello = Request::Hello { version: PROTOCOL_VERSION, identity: identity(), claim: Claim::OwnOnly };
        for request in [hello, Request::Activate(Activation { bundle: bundle.clone(), trial })] {
            writer.write(REQUEST, &serde_json::to_vec(&request).unwrap()).unwrap();
        }
        writer.flush().unwrap();
        // Not a wait for anything: the moment of the kill is what the test varies.
        std::thread::sleep(Duration::from_millis(step * 4));
        process.kill().unwrap();
        process.wait().unwrap();
        let current = std::fs::read_link(lab.root.path().join("profiles/shop/current")).unwrap();
        assert!(lab.root.path().join("profiles/shop").join(&current).join("manifest.json").is_file(), "{}", current.display());
        switched += u32::from(current != Path::new("gen/1"));
        assert_eq!(lab.status(), "Some(1) None active", "after {} ms", step * 4);
    }
    assert!(switched > 0, "no kill came after the switch");
    assert!(matches!(lab.deploy(&["/bin/sleep", "3000"]), Outcome::Committed { .. }));
}

#[test]
fn a_rollback_needs_no_room_and_no_index() {
    let lab = Lab::on_small_disk();
    assert_eq!(lab.deploy(&["/bin/sleep", "1000"]), Outcome::Committed { generation: 1 });
    assert_eq!(lab.deploy(&["/bin/sleep", "2000"]), Outcome::Committed { generation: 2 });
    lab.remove_index();
    lab.fill();
    let mut rollback = Command::new(PROGRAM);
    rollback.args(["rollback", "--profile", "shop", "--reason", "the disk is full", "--root"]).arg(lab.root.path());
    let done = rollback.output().unwrap();
    let told = String::from_utf8_lossy(&done.stderr);
    assert_eq!((done.status.code(), String::from_utf8_lossy(&done.stdout).as_ref()), (Some(0), "generation 1 is current\n"), "{told}");
    lab.resize(256 << 20, 100_000);
    assert_eq!(lab.status(), "Some(1) None active");
    let history = deployment::history(&[lab.host()], 10, 1).remove(0).unwrap();
    assert_eq!((history.log[0].action.as_str(), history.log[0].message.as_deref()), ("rollback", Some("the disk is full")));
    lab.remove_index();
    let done = Command::new(PROGRAM).args(["rollback", "--profile", "shop", "--to", "2", "--root"]).arg(lab.root.path()).output().unwrap();
    assert_eq!(done.status.code(), Some(0), "with room for a new index: {}", String::from_utf8_lossy(&done.stderr));
    assert_eq!(lab.status(), "Some(2) None active");
    assert!(matches!(lab.deploy(&["/bin/sleep", "3000"]), Outcome::Committed { .. }));
}

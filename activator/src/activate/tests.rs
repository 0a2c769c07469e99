//! Drives the engine on a machine that records what is asked of it, with a clock that moves when somebody waits.

use std::cell::{Cell, RefCell};
use std::path::PathBuf;
use std::sync::Mutex;

use sarsen_store::manifest::{Hook, Link, MANIFEST_VERSION, Restart, Role};
use sarsen_store::{ObjectId, ObjectRef};
use tempfile::TempDir;

use super::*;
use crate::clock::Moment;
use crate::generation::TrialResult;
use crate::layout::Layout;
use crate::pending::{Decision, Phase};
use crate::services::{ServiceError, ServiceManager, UnitState};

/// What was asked, in order, and which request fails.
#[derive(Default)]
struct Manager {
    asked: Mutex<Vec<String>>,
    fails: Mutex<Option<String>>,
    /// A unit that ended by itself.
    ended: Mutex<Option<String>>,
}

impl Manager {
    fn ask(&self, request: String) -> Result<(), ServiceError> {
        self.asked.lock().unwrap().push(request.clone());
        match &*self.fails.lock().unwrap() {
            Some(failing) if *failing == request => {
                Err(ServiceError::Manager { manager: "fake", action: request, message: "it is broken".to_owned() })
            }
            _ => Ok(()),
        }
    }
}

fn names(services: &[Service]) -> String {
    services.iter().map(|service| service.unit.clone()).collect::<Vec<_>>().join(" ")
}

impl ServiceManager for Manager {
    fn name(&self) -> &'static str {
        "fake"
    }
    fn install(&self, current: &Path, services: &[Service], former: &[Service]) -> Result<(), ServiceError> {
        let target = std::fs::read_link(current).map_or("nothing".to_owned(), |target| target.display().to_string());
        self.ask(format!("install [{}] for [{}] at {target}", names(services), names(former)))
    }
    fn start(&self, units: &[String], _: Duration) -> Result<(), ServiceError> {
        self.ended.lock().unwrap().take_if(|ended| units.contains(ended));
        self.ask(format!("start {}", units.join(" ")))
    }
    fn stop(&self, units: &[String], _: Duration) -> Result<(), ServiceError> {
        self.ask(format!("stop {}", units.join(" ")))
    }
    fn reload(&self, units: &[String], _: Duration) -> Result<(), ServiceError> {
        self.ask(format!("reload {}", units.join(" ")))
    }
    fn states(&self, units: &[String]) -> Result<Vec<UnitState>, ServiceError> {
        let state = |unit: &String| UnitState {
            unit: unit.clone(),
            active: self.ended.lock().unwrap().as_ref() != Some(unit),
            failed: self.fails.lock().unwrap().as_deref() == Some(&format!("state {unit}")),
            state: "odd".to_owned(),
            pid: None,
            restarts: 0,
        };
        Ok(units.iter().map(state).collect())
    }
    fn log_tail(&self, _: &str) -> String {
        String::new()
    }
    fn arm_dead_man(&self, _: Duration) -> Result<(), ServiceError> {
        self.ask("arm".to_owned())
    }
    fn disarm_dead_man(&self) -> Result<(), ServiceError> {
        self.ask("disarm".to_owned())
    }
    fn has_triggers(&self) -> bool {
        true
    }

    fn notes(&self) -> Vec<String> {
        Vec::new()
    }
}

/// What the operator does while a trial waits.
type Operator = Box<dyn Fn(&Rig)>;

/// A machine below a temporary directory.
struct Rig {
    directory: TempDir,
    profile: ProfileLayout,
    manager: Manager,
    boottime_ms: Cell<u64>,
    boot_id: RefCell<String>,
    unhealthy: RefCell<Option<String>>,
    unmet: RefCell<Vec<String>>,
    operator: RefCell<Operator>,
    reports: RefCell<Vec<Response>>,
}

impl Machine for Rig {
    fn services(&self) -> &dyn ServiceManager {
        &self.manager
    }
    fn moment(&self) -> Moment {
        Moment { unix_seconds: 1_800_000_000, boottime_ms: self.boottime_ms.get(), boot_id: self.boot_id.borrow().clone() }
    }
    fn pause(&self) {
        self.boottime_ms.set(self.boottime_ms.get() + 1000);
        (self.operator.borrow())(self);
    }
    fn check_closure(&self, bundle: &ObjectRef) -> Result<Vec<String>, ActivateError> {
        Ok(if self.profile.layout().object(bundle).join("damaged").exists() { vec!["it is damaged".to_owned()] } else { Vec::new() })
    }
    fn check_requirements(&self, _: &Manifest, _: &[String]) -> Vec<String> {
        self.unmet.borrow().clone()
    }
    fn make_state_directories(&self, _: &Manifest) -> Result<(), ActivateError> {
        Ok(())
    }
    fn run_hooks(&self, manifest: &Manifest, phase: HookPhase, generation: u64) -> Result<Vec<String>, String> {
        for hook in manifest.hooks.iter().filter(|hook| hook.phase == phase) {
            self.manager.ask(format!("hook {} for {generation}", hook.name)).map_err(|error| error.to_string())?;
        }
        Ok(Vec::new())
    }
    fn wait_healthy(&self, _: &Manifest, _: &dyn Fn() -> Option<String>) -> Result<(), String> {
        self.unhealthy.borrow().clone().map_or(Ok(()), Err)
    }
    fn adopt_program(&self) -> Result<(), ActivateError> {
        Ok(())
    }
}

impl Rig {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let profile = Layout::new(&directory.path().join("root")).profile(&"shop".parse().unwrap());
        Self {
            directory,
            profile,
            manager: Manager::default(),
            boottime_ms: Cell::new(5000),
            boot_id: RefCell::new("first".to_owned()),
            unhealthy: RefCell::default(),
            unmet: RefCell::default(),
            operator: RefCell::new(Box::new(Rig::confirm_all)),
            reports: RefCell::default(),
        }
    }

    fn confirm_all(&self) {
        let pending = self.profile.read_pending().unwrap().unwrap();
        self.profile.confirm(&pending.nonce, &self.moment()).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn with_engine<T>(&self, action: impl FnOnce(&Engine<'_>) -> T) -> T {
        let report = |response| self.reports.borrow_mut().push(response);
        action(&Engine { profile: &self.profile, machine: self, report: &report })
    }

    /// Writes a bundle with one unit for each of `units`, whose text is `text`, and one link.
    fn bundle(&self, label: &str, units: &[&str], text: &str) -> ObjectRef {
        let bundle = ObjectRef { id: ObjectId::placeholder(label), name: "bundle".parse().unwrap() };
        let directory = self.profile.layout().object(&bundle);
        fsutil::create_dir_all(&directory.join("unit.d"), 0o755).unwrap();
        for unit in units {
            fsutil::replace_file(&directory.join("unit.d").join(unit), format!("[Service]\nExecStart={text}\n").as_bytes(), 0o444).unwrap();
        }
        fsutil::replace_file(&directory.join("manifest.json"), self.manifest(label, units).to_json().as_bytes(), 0o444).unwrap();
        bundle
    }

    fn manifest(&self, label: &str, units: &[&str]) -> Manifest {
        let service = |unit: &&str| Service {
            unit: (*unit).to_owned(),
            component: "app".to_owned(),
            command: vec!["/bin/true".to_owned()],
            reload: Vec::new(),
            environment: std::collections::BTreeMap::new(),
            user: None,
            working_directory: None,
            restart: Restart::No,
            reload_trigger: String::new(),
            role: Role::Service,
            stop_timeout_ms: 1000,
        };
        let hook = |name: &str, phase| Hook {
            name: name.to_owned(),
            component: "app".to_owned(),
            phase,
            verify: String::new(),
            update: "true".to_owned(),
            user: None,
            timeout_ms: 1000,
            trigger: String::new(),
        };
        Manifest {
            version: MANIFEST_VERSION,
            identity: identity("prod"),
            store: self.path("root/store").display().to_string(),
            components: Vec::new(),
            services: units.iter().map(service).collect(),
            links: vec![Link {
                path: self.path("etc/app").display().to_string(),
                target: format!("/{label}"),
                component: "app".to_owned(),
            }],
            state_directories: Vec::new(),
            hooks: vec![hook("pre", HookPhase::PreSwitch), hook("back", HookPhase::OnRollback)],
            health_checks: Vec::new(),
            requirements: Vec::new(),
        }
    }

    fn deploy(&self, bundle: &ObjectRef) -> Response {
        let task = Task::Activate(Activation { bundle: bundle.clone(), trial: trial() });
        self.with_engine(|engine| engine.carry_out(&task, Some(&identity("prod")), Confirmation::Awaited))
    }

    fn roll_back(&self, to: Option<u64>) -> Response {
        let task = Task::Rollback { to, trial: trial() };
        self.with_engine(|engine| engine.carry_out(&task, None, Confirmation::NotNeeded))
    }

    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut *self.manager.asked.lock().unwrap())
    }

    fn fail(&self, request: &str) {
        *self.manager.fails.lock().unwrap() = Some(request.to_owned());
    }

    /// The state that counts: current, good, whether a trial runs, where the link leads.
    #[track_caller]
    fn check(&self, current: Option<u64>, good: Option<u64>, link: Option<&str>) {
        assert_eq!(self.profile.read_current().unwrap(), current, "current");
        assert_eq!(self.profile.read_good().unwrap(), good, "good");
        assert_eq!(self.profile.read_pending().unwrap(), None, "pending");
        assert_eq!(statefile::read_link(&self.path("etc/app")).unwrap().as_deref(), link, "link");
    }

    fn result(&self, number: u64) -> (TrialResult, String) {
        let record = self.profile.read_record(number).unwrap().unwrap();
        (record.result, record.reason.unwrap_or_default())
    }
}

fn identity(environment: &str) -> Identity {
    Identity { project: "p".to_owned(), environment: environment.to_owned(), host: "h".to_owned(), profile: "shop".to_owned() }
}

fn trial() -> Trial {
    Trial {
        nonce: fsutil::random_name().unwrap(),
        confirm_timeout_ms: 30_000,
        who: "ada@desk".to_owned(),
        revision: None,
        message: None,
        claim: Claim::OwnOnly,
    }
}

fn committed(generation: u64) -> Response {
    Response::Committed { generation }
}

fn rolled_back(generation: Option<u64>, reason: &str) -> Response {
    Response::RolledBack { generation, reason: reason.to_owned() }
}

#[test]
fn a_deployment_is_kept_when_it_is_confirmed() {
    let rig = Rig::new();
    assert_eq!(rig.deploy(&rig.bundle("one", &["a", "b"], "/1")), committed(1));
    assert_eq!(rig.asked(), ["hook pre for 1", "arm", "install [a b] for [] at gen/1", "start a b", "disarm"]);
    rig.check(Some(1), Some(1), Some("/one"));
    assert_eq!(rig.deploy(&rig.bundle("two", &["b", "c"], "/2")), committed(2));
    assert_eq!(rig.asked(), ["hook pre for 2", "arm", "stop b a", "install [b c] for [a b] at gen/2", "start b c", "disarm"]);
    rig.check(Some(2), Some(2), Some("/two"));
    assert_eq!(rig.result(2), (TrialResult::Committed, String::new()));
    let waiting = Response::OnTrial { generation: 2, previous: Some(1) };
    assert!(rig.reports.borrow().contains(&waiting));
}

#[test]
fn what_has_drifted_is_put_right_without_a_new_generation() {
    let rig = Rig::new();
    let one = rig.bundle("one", &["a", "b"], "/1");
    rig.deploy(&one);
    rig.asked();
    *rig.manager.ended.lock().unwrap() = Some("b".to_owned());
    statefile::remove(&rig.path("etc/app")).unwrap();
    assert_eq!(rig.deploy(&one), committed(1));
    assert_eq!(rig.asked(), ["hook pre for 1", "arm", "install [a b] for [a b] at gen/1", "start b", "disarm"]);
    rig.check(Some(1), Some(1), Some("/one"));
    assert_eq!(rig.deploy(&one), Response::Unchanged { generation: 1 });
    // What cannot be put right is as it was before, and the generation's record stays true.
    statefile::remove(&rig.path("etc/app")).unwrap();
    *rig.unhealthy.borrow_mut() = Some("it does not answer".to_owned());
    assert_eq!(rig.deploy(&one), rolled_back(Some(1), "it does not answer"));
    rig.check(Some(1), Some(1), None);
    assert_eq!(rig.result(1), (TrialResult::Committed, String::new()));
}

#[test]
fn a_kept_unit_that_ended_by_itself_is_started() {
    let rig = Rig::new();
    rig.deploy(&rig.bundle("one", &["a", "b"], "/1"));
    rig.asked();
    *rig.manager.ended.lock().unwrap() = Some("b".to_owned());
    assert_eq!(rig.deploy(&rig.bundle("two", &["a", "b", "c"], "/1")), committed(2));
    assert_eq!(rig.asked()[2..5], ["install [a b c] for [a b] at gen/2", "start b", "start c"]);
}

#[test]
fn a_unit_that_cannot_reload_is_started_anew_on_the_way_back() {
    let rig = Rig::new();
    rig.deploy(&rig.bundle("one", &["a"], "/a\nExecReload=/r 1"));
    rig.asked();
    rig.fail("reload a");
    let outcome = rig.deploy(&rig.bundle("two", &["a"], "/a\nExecReload=/r 2"));
    assert_eq!(outcome, rolled_back(Some(1), "fake could not reload a: it is broken"));
    let way_back = ["reload a", "install [a] for [a] at gen/1", "reload a", "stop a", "start a", "hook back for 2", "disarm"];
    assert_eq!(rig.asked()[3..], way_back);
    rig.check(Some(1), Some(1), Some("/one"));
}

#[test]
fn a_damaged_generation_is_not_returned_to() {
    let rig = Rig::new();
    let one = rig.bundle("one", &["a"], "/1");
    rig.deploy(&one);
    rig.deploy(&rig.bundle("two", &["a"], "/2"));
    fsutil::replace_file(&rig.profile.layout().object(&one).join("damaged"), b"", 0o444).unwrap();
    assert_eq!(rig.roll_back(None), Response::Refused { reasons: vec!["it is damaged".to_owned()] });
    rig.check(Some(2), Some(2), Some("/two"));
}

#[test]
fn deploying_what_is_current_writes_nothing() {
    let rig = Rig::new();
    let bundle = rig.bundle("one", &["a"], "/1");
    rig.deploy(&bundle);
    rig.asked();
    let snapshot = |rig: &Rig| {
        let mut files: Vec<_> = [rig.profile.directory().to_owned(), rig.profile.generations()]
            .iter()
            .flat_map(|directory| std::fs::read_dir(directory).unwrap())
            .map(|entry| entry.unwrap())
            .map(|entry| (entry.path(), entry.metadata().unwrap().modified().unwrap(), entry.metadata().unwrap().len()))
            .collect();
        files.sort();
        files
    };
    let before = snapshot(&rig);
    assert_eq!(rig.deploy(&bundle), Response::Unchanged { generation: 1 });
    assert_eq!(snapshot(&rig), before);
    assert_eq!(rig.asked(), Vec::<String>::new());
}

#[test]
fn an_unhealthy_generation_goes_back_with_everything() {
    let rig = Rig::new();
    rig.deploy(&rig.bundle("one", &["a", "b"], "/1"));
    rig.asked();
    *rig.unhealthy.borrow_mut() = Some("nobody answers".to_owned());
    assert_eq!(rig.deploy(&rig.bundle("two", &["b", "c"], "/2")), rolled_back(Some(1), "nobody answers"));
    let way_back = ["stop c b", "install [a b] for [b c] at gen/1", "start a b", "hook back for 2", "disarm"];
    assert_eq!(rig.asked()[5..], way_back);
    rig.check(Some(1), Some(1), Some("/one"));
    assert_eq!(rig.result(2), (TrialResult::RolledBack, "nobody answers".to_owned()));
    *rig.unhealthy.borrow_mut() = None;
    assert_eq!(rig.deploy(&rig.bundle("three", &["b"], "/3")), committed(3), "numbers are never used again");
}

#[test]
fn a_failure_that_is_long_is_shortened_and_does_not_get_in_the_way() {
    let rig = Rig::new();
    *rig.unhealthy.borrow_mut() = Some("ä".repeat(1 << 20));
    let Response::RolledBack { reason, .. } = rig.deploy(&rig.bundle("one", &["a"], "/1")) else { panic!("it goes back") };
    assert!(reason.len() <= statefile::FAILURE_BYTES_MAX + 3 && reason.ends_with("ä…"));
    *rig.unhealthy.borrow_mut() = None;
    assert_eq!(rig.deploy(&rig.bundle("two", &["a"], "/2")), committed(2));
}

#[test]
fn a_link_that_is_no_longer_ours_is_not_removed() {
    for (by_hand, left) in [(None, None), (Some("/mine"), Some("/mine"))] {
        let rig = Rig::new();
        rig.deploy(&rig.bundle("one", &["a"], "/1"));
        if let Some(target) = by_hand {
            fsutil::replace_symlink(&rig.path("etc/app"), Path::new(target)).unwrap();
        }
        let two = rig.bundle("two", &["a"], "/2");
        let manifest = Manifest { links: Vec::new(), ..rig.manifest("two", &["a"]) };
        let place = rig.profile.layout().object(&two).join("manifest.json");
        fsutil::replace_file(&place, manifest.to_json().as_bytes(), 0o444).unwrap();
        assert_eq!(rig.deploy(&two), committed(2));
        rig.check(Some(2), Some(2), left);
    }
}

#[test]
fn a_first_deployment_that_fails_leaves_nothing_active() {
    let rig = Rig::new();
    rig.fail("start a");
    let reason = "fake could not start a: it is broken";
    assert_eq!(rig.deploy(&rig.bundle("one", &["a"], "/1")), rolled_back(None, reason));
    assert_eq!(rig.asked()[4..], ["stop a", "install [] for [a] at nothing", "hook back for 1", "disarm"]);
    rig.check(None, None, None);
}

#[test]
fn nothing_is_touched_when_a_hook_before_the_switch_fails() {
    let rig = Rig::new();
    rig.fail("hook pre for 1");
    assert!(matches!(rig.deploy(&rig.bundle("one", &["a"], "/1")), Response::Failed { message } if message.contains("it is broken")));
    assert_eq!(rig.asked(), ["hook pre for 1"]);
    rig.check(None, None, None);
    assert_eq!(rig.profile.list_generations().unwrap(), Vec::<u64>::new());
}

#[test]
fn going_back_that_fails_is_an_outcome_of_its_own() {
    let rig = Rig::new();
    rig.deploy(&rig.bundle("one", &["a"], "/1"));
    *rig.unhealthy.borrow_mut() = Some("nobody answers".to_owned());
    rig.fail("state a");
    let failure = "unit `a` of generation 1 is odd".to_owned();
    let two = rig.bundle("two", &["a"], "/2");
    assert_eq!(rig.deploy(&two), Response::RollbackFailed { reason: "nobody answers".to_owned(), failure });
    rig.check(Some(1), Some(1), Some("/one"));
    assert_eq!(rig.result(2).0, TrialResult::Failed);
}

#[test]
fn a_trial_ends_by_its_deadline_or_by_the_operators_wish() {
    let rig = Rig::new();
    rig.deploy(&rig.bundle("one", &["a"], "/1"));
    *rig.operator.borrow_mut() = Box::new(|_| ());
    assert_eq!(rig.deploy(&rig.bundle("two", &["a"], "/2")), rolled_back(Some(1), "not confirmed in time"));
    rig.check(Some(1), Some(1), Some("/one"));
    *rig.operator.borrow_mut() = Box::new(|rig| {
        let pending = rig.profile.read_pending().unwrap().unwrap();
        rig.profile.give_up(&pending.nonce, "another host failed").unwrap();
    });
    assert_eq!(rig.deploy(&rig.bundle("three", &["a"], "/3")), rolled_back(Some(1), "another host failed"));
    rig.check(Some(1), Some(1), Some("/one"));
}

#[test]
fn only_the_right_nonce_in_time_and_in_the_same_boot_confirms() {
    let rig = Rig::new();
    *rig.operator.borrow_mut() = Box::new(|rig| {
        let pending = rig.profile.read_pending().unwrap().unwrap();
        assert_eq!(rig.profile.confirm(&"0".repeat(32), &rig.moment()).unwrap(), Decision::NoTrial);
        let late = Moment { boot_id: "second".to_owned(), ..rig.moment() };
        assert!(matches!(rig.profile.confirm(&pending.nonce, &late).unwrap(), Decision::GivenUp(..)));
        assert!(matches!(rig.profile.confirm(&pending.nonce, &rig.moment()).unwrap(), Decision::GivenUp(..)), "a decision stays");
    });
    assert_eq!(rig.deploy(&rig.bundle("one", &["a"], "/1")), rolled_back(None, "the confirmation came too late"));
}

#[test]
fn what_is_not_meant_for_here_is_refused() {
    let rig = Rig::new();
    let bundle = rig.bundle("one", &["a"], "/1");
    let task = Task::Activate(Activation { bundle: bundle.clone(), trial: trial() });
    let other = rig.with_engine(|engine| engine.carry_out(&task, Some(&identity("test")), Confirmation::Awaited));
    assert!(matches!(other, Response::Refused { reasons } if reasons[0].contains("environment `test`") && reasons[0].contains("`prod`")));
    fsutil::create_dir_all(rig.profile.directory(), 0o755).unwrap();
    rig.profile.write_identity(&identity("stage")).unwrap();
    assert!(
        matches!(rig.deploy(&bundle), Response::Refused { reasons } if reasons[0].starts_with("this profile belongs to project `p`, environment `stage`"))
    );
    rig.profile.write_identity(&identity("prod")).unwrap();
    fsutil::replace_file(&rig.profile.layout().object(&bundle).join("damaged"), b"", 0o444).unwrap();
    *rig.unmet.borrow_mut() = vec!["there is no user `app`".to_owned()];
    fsutil::create_dir_all(&rig.path("etc/app"), 0o755).unwrap();
    let Response::Refused { reasons } = rig.deploy(&bundle) else { panic!("it is refused") };
    assert_eq!(reasons[..2], ["it is damaged", "there is no user `app`"]);
    assert!(reasons[2].ends_with("etc/app` is not a symbolic link: remove it, or do not declare it"), "{reasons:?}");
    assert_eq!(rig.asked(), Vec::<String>::new());
}

#[test]
fn a_profile_is_taken_over_when_that_is_kept_and_not_before() {
    let rig = Rig::new();
    rig.deploy(&rig.bundle("one", &["a"], "/1"));
    rig.profile.write_identity(&identity("stage")).unwrap();
    let two = rig.bundle("two", &["a"], "/2");
    assert!(matches!(rig.deploy(&two), Response::Refused { .. }));
    let take_over = |rig: &Rig| {
        let trial = Trial { claim: Claim::TakeOver, ..trial() };
        let task = Task::Activate(Activation { bundle: two.clone(), trial });
        rig.with_engine(|engine| engine.carry_out(&task, Some(&identity("prod")), Confirmation::Awaited))
    };
    *rig.unhealthy.borrow_mut() = Some("no".to_owned());
    assert_eq!(take_over(&rig), rolled_back(Some(1), "no"));
    assert_eq!(rig.profile.read_identity().unwrap(), Some(identity("stage")), "what was given up takes nothing");
    *rig.unhealthy.borrow_mut() = None;
    assert_eq!(take_over(&rig), committed(3));
    assert_eq!(rig.profile.read_identity().unwrap(), Some(identity("prod")));
    let log = rig.profile.read_log().unwrap();
    let taken: Vec<_> = log.entries.iter().filter(|entry| entry.action == crate::audit::Action::TakeOver).collect();
    assert!(taken.len() == 1 && taken[0].reason.as_ref().unwrap().contains("environment `stage`"), "{taken:?}");
}

#[test]
fn links_are_only_managed_outside_of_the_installation() {
    let rig = Rig::new();
    for path in ["relative/path", "/etc/../usr/app", &rig.path("root/store/x").display().to_string()] {
        let bundle = rig.bundle(path, &["a"], "/1");
        let mut manifest = rig.manifest("one", &["a"]);
        manifest.links[0].path = path.to_owned();
        let place = rig.profile.layout().object(&bundle).join("manifest.json");
        fsutil::replace_file(&place, manifest.to_json().as_bytes(), 0o444).unwrap();
        assert!(matches!(rig.deploy(&bundle), Response::Refused { reasons } if reasons[0].contains("cannot be managed")), "{path}");
    }
}

#[test]
fn a_second_deployment_is_told_who_is_at_it() {
    let rig = Rig::new();
    let two = rig.bundle("two", &["a"], "/2");
    let seen = std::rc::Rc::new(RefCell::new(None));
    let saw = seen.clone();
    *rig.operator.borrow_mut() = Box::new(move |rig| {
        *saw.borrow_mut() = Some(rig.deploy(&two));
        rig.confirm_all();
    });
    assert_eq!(rig.deploy(&rig.bundle("one", &["a"], "/1")), committed(1));
    assert!(matches!(seen.take(), Some(Response::Locked { holder }) if holder.starts_with("ada@desk since 1800000000")));
}

#[test]
fn rolling_back_goes_to_the_recorded_generation_or_the_one_that_is_named() {
    let rig = Rig::new();
    assert!(
        matches!(rig.roll_back(None), Response::Refused { reasons } if reasons[0] == "no generation is recorded as the one before none: there are none")
    );
    rig.deploy(&rig.bundle("one", &["a"], "/1"));
    assert!(matches!(rig.roll_back(None), Response::Refused { reasons } if reasons[0].ends_with("before generation 1: there are 1")));
    *rig.unhealthy.borrow_mut() = Some("no".to_owned());
    rig.deploy(&rig.bundle("two", &["a"], "/2"));
    *rig.unhealthy.borrow_mut() = None;
    rig.deploy(&rig.bundle("three", &["a"], "/3"));
    assert_eq!(rig.roll_back(None), committed(1), "not one back, but what was current");
    rig.check(Some(1), Some(1), Some("/one"));
    assert_eq!(rig.roll_back(Some(3)), committed(3));
    assert_eq!(rig.roll_back(Some(3)), Response::Unchanged { generation: 3 });
    assert!(matches!(rig.roll_back(Some(9)), Response::Refused { reasons } if reasons[0] == "there is no generation 9: there are 1, 2, 3"));
    rig.check(Some(3), Some(3), Some("/three"));
}

/// A machine on generation 1 whose trial of generation 2 was killed after `steps` lines of its journal.
fn interrupted(steps: usize) -> Rig {
    let rig = Rig::new();
    rig.deploy(&rig.bundle("one", &["a", "b"], "/1"));
    let state = std::rc::Rc::new(RefCell::new(Vec::new()));
    let kept = state.clone();
    *rig.operator.borrow_mut() = Box::new(move |rig| {
        *kept.borrow_mut() = std::fs::read(rig.profile.pending()).unwrap();
        rig.confirm_all();
    });
    rig.deploy(&rig.bundle("two", &["b", "c"], "/2"));
    // The disk as a kill leaves it: the trial undecided, `good` still the former, and only so much done.
    let journal = std::fs::read_to_string(rig.profile.journal()).unwrap();
    let lines: Vec<_> = journal.split_inclusive('\n').collect();
    let done = lines[..steps.min(lines.len())].concat();
    fsutil::replace_file(&rig.profile.journal(), done.as_bytes(), 0o644).unwrap();
    fsutil::replace_file(&rig.profile.pending(), &state.borrow(), 0o644).unwrap();
    fsutil::replace_symlink(&rig.profile.good(), Path::new("gen/1")).unwrap();
    if !done.contains("\"switch\"") {
        rig.profile.switch_to(Some(1)).unwrap();
    }
    if !done.contains("\"link\"") {
        fsutil::replace_symlink(&rig.path("etc/app"), Path::new("/one")).unwrap();
    }
    rig.asked();
    rig
}

#[test]
fn a_trial_that_was_killed_anywhere_is_settled_by_whoever_comes_next() {
    for steps in 1..=6 {
        let rig = interrupted(steps);
        let settled = rig.with_engine(|engine| engine.settle_if_free(Verification::Now)).unwrap();
        assert_eq!(settled, Some(rolled_back(Some(1), "the activation was interrupted")), "{steps}");
        rig.check(Some(1), Some(1), Some("/one"));
        assert_eq!(rig.asked().contains(&"start a b".to_owned()), steps > 1, "{steps}");
        assert_eq!(rig.with_engine(|engine| engine.settle_if_free(Verification::Now)).unwrap(), None);
        *rig.operator.borrow_mut() = Box::new(Rig::confirm_all);
        assert_eq!(rig.deploy(&rig.bundle("three", &["c"], "/3")), committed(3));
    }
}

#[test]
fn a_damaged_journal_restores_everything() {
    let rig = interrupted(6);
    fsutil::replace_file(&rig.profile.journal(), b"{\"step\":\n{}\n", 0o644).unwrap();
    let settled = rig.with_engine(|engine| engine.settle_if_free(Verification::Now)).unwrap();
    assert_eq!(settled, Some(rolled_back(Some(1), "the activation was interrupted")));
    rig.check(Some(1), Some(1), Some("/one"));
    assert_eq!(rig.asked()[..3], ["stop c b", "install [a b] for [b c] at gen/1", "start a b"]);
}

#[test]
fn a_reboot_or_a_dead_waiter_is_named_as_the_reason() {
    for (boot, later_ms, reason) in [("second", 0, "reboot before confirmation"), ("first", 60_000, "not confirmed in time")] {
        let rig = interrupted(6);
        rig.boot_id.replace(boot.to_owned());
        rig.boottime_ms.set(rig.boottime_ms.get() + later_ms);
        let settled = rig.with_engine(|engine| engine.settle_if_free(Verification::LeftToBoot)).unwrap();
        assert_eq!(settled, Some(rolled_back(Some(1), reason)));
    }
}

#[test]
fn a_commit_that_was_killed_is_finished_and_not_undone() {
    let rig = interrupted(6);
    let mut pending = rig.profile.read_pending().unwrap().unwrap();
    pending.phase = Phase::Committed;
    rig.profile.write_pending(&pending).unwrap();
    assert_eq!(rig.with_engine(|engine| engine.settle_if_free(Verification::Now)).unwrap(), Some(committed(2)));
    rig.check(Some(2), Some(2), Some("/two"));
    assert_eq!(rig.result(2).0, TrialResult::Committed);
}

#[test]
fn hooks_after_a_confirmation_are_run_by_whoever_settles() {
    let rig = interrupted(6);
    rig.confirm_all();
    let bundle = rig.profile.layout().object(&rig.profile.read_bundle(2).unwrap());
    let mut manifest = rig.manifest("two", &["b", "c"]);
    manifest.hooks[0].phase = HookPhase::PostConfirm;
    fsutil::replace_file(&bundle.join("manifest.json"), manifest.to_json().as_bytes(), 0o444).unwrap();
    // At boot the machine is not up yet: they are left to the dead man.
    rig.boot_id.replace("second".to_owned());
    assert_eq!(rig.with_engine(|engine| engine.settle_if_free(Verification::LeftToBoot)).unwrap(), Some(committed(2)));
    assert_eq!((rig.asked(), rig.profile.read_good().unwrap()), (vec!["arm".to_owned(), "arm".to_owned()], Some(2)));
    assert_eq!(rig.with_engine(|engine| engine.settle_if_free(Verification::Now)).unwrap(), Some(committed(2)));
    assert_eq!(rig.asked(), ["arm", "hook pre for 2", "disarm"]);
    rig.check(Some(2), Some(2), Some("/two"));
}

#[test]
fn what_was_done_stands_in_the_log() {
    let rig = Rig::new();
    rig.deploy(&rig.bundle("one", &["a"], "/1"));
    *rig.unhealthy.borrow_mut() = Some("no".to_owned());
    rig.deploy(&rig.bundle("two", &["a"], "/2"));
    *rig.unhealthy.borrow_mut() = None;
    rig.deploy(&rig.bundle("three", &["a"], "/3"));
    rig.roll_back(None);
    let log = rig.profile.read_log().unwrap();
    let line = |entry: &crate::audit::Entry| {
        let reason = entry.reason.clone().unwrap_or_default();
        format!("{} {:?} -> {:?} {} {reason}", entry.action.as_str(), entry.previous, entry.generation, entry.result)
    };
    let expected = [
        "deploy None -> Some(1) committed ",
        "deploy Some(1) -> Some(2) rolled-back no",
        "deploy Some(1) -> Some(3) committed ",
        "rollback Some(3) -> Some(1) committed ",
    ];
    assert_eq!(log.entries.iter().map(line).collect::<Vec<_>>(), expected);
    assert_eq!(log.problem, None);
}

#[test]
fn the_dead_man_goes_when_nothing_is_left_to_look_after_and_not_before() {
    let rig = interrupted(6);
    let dismiss = |rig: &Rig| Engine { profile: &rig.profile, machine: rig, report: &|_| () }.dismiss_dead_man().unwrap();
    dismiss(&rig);
    assert_eq!(rig.asked(), [""; 0], "a trial is pending");
    rig.confirm_all();
    // Whoever confirmed was killed before the trial came to its end.
    rig.with_engine(|engine| engine.settle_if_free(Verification::Now)).unwrap();
    rig.asked();
    let lock = crate::lock::Lock::attempt(&rig.profile.lock()).unwrap();
    dismiss(&rig);
    assert_eq!(rig.asked(), [""; 0], "somebody is at it");
    drop(lock);
    dismiss(&rig);
    assert_eq!(rig.asked(), ["disarm"]);
}

#[test]
fn a_link_that_was_being_made_goes_with_its_trial() {
    let rig = interrupted(6);
    let names = [".0123456789abcdef0123456789abcdef.tmp", ".fedcba9876543210fedcba9876543210.tmp", ".mine.tmp"]
        .map(|name| rig.path("etc").join(name));
    for (name, target) in names.iter().zip(["/two", "/elsewhere", "/two"]) {
        fsutil::replace_symlink(name, Path::new(target)).unwrap();
    }
    let settled = rig.with_engine(|engine| engine.settle_if_free(Verification::Now)).unwrap();
    assert_eq!(settled, Some(rolled_back(Some(1), "the activation was interrupted")));
    let left = names.map(|name| name.is_symlink());
    assert_eq!(left, [false, true, true], "only what is ours by its name and its target");
}

#[test]
fn a_generation_whose_trial_never_began_is_marked() {
    let rig = interrupted(6);
    statefile::remove(&rig.profile.pending()).unwrap();
    rig.profile.switch_to(Some(1)).unwrap();
    let mut record = rig.profile.read_record(2).unwrap().unwrap();
    record.result = TrialResult::Pending;
    rig.profile.write_record(&record).unwrap();
    *rig.operator.borrow_mut() = Box::new(Rig::confirm_all);
    assert_eq!(rig.deploy(&rig.bundle("three", &["a"], "/3")), committed(3));
    assert_eq!(rig.result(2), (TrialResult::RolledBack, "the activation was interrupted before it changed anything".to_owned()));
}

#[test]
fn a_link_that_somebody_else_took_is_left_alone() {
    let rig = interrupted(6);
    fsutil::replace_symlink(&rig.path("etc/app"), Path::new("/mine")).unwrap();
    let settled = rig.with_engine(|engine| engine.settle_if_free(Verification::Now)).unwrap();
    assert!(matches!(settled, Some(Response::RollbackFailed { failure, .. }) if failure.contains("was changed by somebody else")));
    rig.check(Some(1), Some(1), Some("/mine"));
}

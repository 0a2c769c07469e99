//! systemd's files in a temporary directory, and its programs replaced by a script that writes down how it was called.

use std::collections::BTreeMap;
use std::fs;

use sarsen_store::fsutil;
use sarsen_store::manifest::{Restart, Role};
use tempfile::TempDir;

use super::*;

struct Stage {
    directory: TempDir,
}

impl Stage {
    /// `answer` is the body of the script that stands for all of systemd's programs.
    fn new(answer: &str) -> Self {
        let directory = TempDir::new().unwrap();
        let script = format!("#!/bin/sh\necho \"$*\" >> {}/calls\n{answer}\n", directory.path().display());
        fsutil::replace_file(&directory.path().join("program"), script.as_bytes(), 0o755).unwrap();
        Self { directory }
    }

    fn path(&self, path: &str) -> PathBuf {
        self.directory.path().join(path)
    }

    fn systemd(&self) -> Systemd {
        let program = self.path("program").display().to_string();
        Systemd {
            scope: Scope::System,
            root: "/srv/sarsen".into(),
            profile: "web".to_owned(),
            directory: self.path("units"),
            account: Account::own(),
            programs: Programs { systemctl: program.clone(), systemd_run: program.clone(), journalctl: program },
        }
    }

    fn install(&self, units: &[&str], former: &[&str]) -> Result<(), ServiceError> {
        let services = |units: &[&str]| units.iter().map(|unit| service(unit)).collect::<Vec<_>>();
        self.systemd().install(&self.path("profiles/web/current"), &services(units), &services(former))
    }

    fn calls(&self) -> Vec<String> {
        fs::read_to_string(self.path("calls")).unwrap_or_default().lines().map(str::to_owned).collect()
    }

    /// The names in the directory of units and in that of the boot target.
    fn names(&self) -> Vec<String> {
        let list = |path: &str| fs::read_dir(self.path(path)).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let wanted = list("units/multi-user.target.wants").map(|name| format!("wants/{name}"));
        let mut names: Vec<String> = list("units").chain(wanted).filter(|name| !name.contains("sarsen-settle")).collect();
        names.sort_unstable();
        names
    }
}

fn service(unit: &str) -> Service {
    Service {
        unit: unit.to_owned(),
        component: "app".to_owned(),
        command: vec!["/bin/true".to_owned()],
        reload: Vec::new(),
        environment: BTreeMap::new(),
        user: None,
        working_directory: None,
        restart: Restart::No,
        reload_trigger: String::new(),
        role: Role::Service,
        stop_timeout_ms: 1000,
    }
}

fn names(units: &[&str]) -> Vec<String> {
    units.iter().map(|&unit| unit.to_owned()).collect()
}

#[test]
fn links_units_through_current_enables_them_and_removes_only_its_own_others() {
    let stage = Stage::new("");
    stage.install(&["a.service", "b.service"], &[]).unwrap();
    let definition = stage.path("profiles/web/current/unit.d/a.service");
    assert_eq!(fs::read_link(stage.path("units/a.service")).unwrap(), definition);
    assert_eq!(fs::read_link(stage.path("units/multi-user.target.wants/a.service")).unwrap(), definition);
    fsutil::replace_symlink(&stage.path("units/other.service"), Path::new("/srv/sarsen/profiles/other/current/unit.d/other.service"))
        .unwrap();
    fsutil::replace_file(&stage.path("units/sshd.service"), b"[Unit]\n", 0o644).unwrap();
    stage.install(&["b.service", "c.service"], &["a.service", "b.service"]).unwrap();
    let expected =
        ["b.service", "c.service", "multi-user.target.wants", "other.service", "sshd.service", "wants/b.service", "wants/c.service"];
    assert_eq!(stage.names(), expected);
    assert_eq!(
        stage.calls(),
        ["--no-ask-password daemon-reload --", "--no-ask-password daemon-reload --", "--no-ask-password reset-failed -- a.service"]
    );
}

#[test]
fn a_job_is_known_to_systemd_and_not_started_at_boot() {
    let stage = Stage::new("");
    let job = Service { role: Role::Job, ..service("job.service") };
    let trigger = Service { role: Role::Trigger, ..service("job.timer") };
    let install = |units: &[Service]| stage.systemd().install(&stage.path("profiles/web/current"), units, &[]).unwrap();
    install(&[service("job.service")]);
    install(&[job, trigger]);
    assert_eq!(stage.names(), ["job.service", "job.timer", "multi-user.target.wants", "wants/job.timer"]);
    install(&[]);
    assert_eq!(stage.names(), ["multi-user.target.wants"]);
}

#[test]
fn a_foreign_file_or_link_at_a_units_path_is_an_error_before_anything_changes() {
    let stage = Stage::new("");
    fsutil::create_dir_all(&stage.path("units"), 0o755).unwrap();
    fsutil::replace_file(&stage.path("units/z.service"), b"mine", 0o644).unwrap();
    let error = stage.install(&["a.service", "z.service"], &[]).unwrap_err();
    let path = stage.path("units/z.service");
    assert_eq!(error.to_string(), format!("`{}` is not sarsen's: remove it or rename the service", path.display()));
    assert_eq!(fs::read(path).unwrap(), b"mine");
    assert!(fs::symlink_metadata(stage.path("units/a.service")).is_err());
    assert_eq!(stage.calls(), [""; 0]);
}

#[test]
fn every_installation_has_a_unit_that_settles_it_at_boot_and_all_units_wait_for_all() {
    let stage = Stage::new("");
    stage.install(&[], &[]).unwrap();
    let other = Systemd { root: "/home/x".into(), ..stage.systemd() };
    other.install(&stage.path("current"), &[], &[]).unwrap();
    for systemd in [stage.systemd(), other] {
        let (unit, root) = (systemd.settle_unit(), systemd.root.display());
        let text = fs::read_to_string(stage.path("units").join(&unit)).unwrap();
        assert!(text.contains(&format!("\nExecStart=\"{root}/bin/sarsen-activator\" settle --root \"{root}\"\n")), "{text}");
        assert!(text.contains("\nAfter=local-fs.target\nBefore=sarsen-settle.service multi-user.target shutdown.target\n"), "{text}");
        assert!(stage.path("units/multi-user.target.wants").join(unit).exists());
    }
    let all = fs::read_to_string(stage.path("units/sarsen-settle.service")).unwrap();
    assert!(all.contains("\nExecStart=/bin/true\n") && !all.contains("activator"), "{all}");
    assert!(stage.path("units/multi-user.target.wants/sarsen-settle.service").exists());
    fsutil::replace_file(&stage.path("units/sarsen-settle.service"), b"mine", 0o644).unwrap();
    assert!(matches!(stage.install(&[], &[]), Err(ServiceError::Foreign { .. })));
}

#[test]
fn a_failed_start_says_which_unit_failed_and_what_it_printed() {
    let stage = Stage::new(
        "case \"$*\" in\n\
         *show*) echo Id=a.service; echo ActiveState=failed; echo Result=exit-code; echo LoadState=loaded;;\n\
         -u*) echo cannot bind;;\n\
         *' start '*) echo Job failed. >&2; exit 1;;\n\
         esac",
    );
    let error = stage.systemd().start(&names(&["a.service"]), QUESTION).unwrap_err();
    let expected = "systemd could not start a.service: Job failed.\na.service is failed (exit-code)\n  cannot bind";
    assert_eq!(error.to_string(), expected);
    assert_eq!(stage.calls()[0], "--no-ask-password reset-failed -- a.service");
}

#[test]
fn a_manager_that_hangs_is_a_deadline_in_words() {
    let stage = Stage::new("case \"$*\" in *' start '*) sleep 60;; esac");
    let error = stage.systemd().start(&names(&["a.service"]), Duration::from_millis(300)).unwrap_err();
    assert_eq!(error.to_string(), "systemd did not start a.service within 1 s");
}

#[test]
fn at_boot_units_are_queued_because_they_wait_for_the_settling() {
    let stage = Stage::new(
        "case \"$*\" in *show*sarsen-settle-*) for unit; do :; done; echo Id=$unit; echo ActiveState=activating; echo SubState=start;; esac",
    );
    stage.systemd().start(&names(&["a.service"]), QUESTION).unwrap();
    assert_eq!(stage.calls().last().unwrap(), "--no-ask-password --no-block start -- a.service");
}

#[test]
fn stops_only_what_is_known() {
    let stage = Stage::new(
        "case \"$*\" in *show*) printf 'Id=a.service\\nActiveState=active\\nLoadState=loaded\\n\\n\
         Id=b.service\\nActiveState=inactive\\nLoadState=not-found\\n';; esac",
    );
    stage.systemd().stop(&names(&["a.service", "b.service"]), QUESTION).unwrap();
    assert_eq!(stage.calls().last().unwrap(), "--no-ask-password stop -- a.service");
}

#[test]
fn an_activation_is_a_service_of_its_own() {
    let stage = Stage::new("");
    let words = stage.systemd().detach(names(&["/srv/sarsen/bin/activator", "activate"])).join(" ");
    assert!(
        words.contains("program --quiet --collect --pipe --wait ") && words.ends_with(" -- /srv/sarsen/bin/activator activate"),
        "{words}"
    );
    let user = Systemd { scope: Scope::User, ..stage.systemd() }.detach(names(&["activate"])).join(" ");
    assert!(user.starts_with("env XDG_RUNTIME_DIR=/run/user/") && user.contains("program --user --quiet"), "{user}");
}

#[test]
fn the_dead_man_timer_runs_settle_for_the_profile() {
    let stage = Stage::new("");
    stage.systemd().arm_dead_man(Duration::from_millis(2_500)).unwrap();
    let call = stage.calls().pop().unwrap();
    assert!(
        call.contains(&format!("--unit={} ", stage.systemd().dead_man_unit()))
            && call.contains(" --on-active=2500ms --on-unit-inactive=15s "),
        "{call}"
    );
    assert!(call.ends_with(" -- /srv/sarsen/bin/sarsen-activator settle --root /srv/sarsen --profile web"), "{call}");
}

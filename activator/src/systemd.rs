//! Services under systemd: the system's manager for root, the user's own for everybody else.
//!
//! Everything goes through `systemctl`, `systemd-run` and `journalctl`, each call with a deadline; only properties are
//! parsed, never text for people. A unit is a symbolic link in systemd's directory that leads through
//! `<profile>/current`, so that the switch of that one link changes all units at once; see `links`.
//! Source: systemctl(1), systemd-run(1), org.freedesktop.systemd1(5).
//!
//! Boot: a unit for each installation gives up trials that a reboot interrupted, before the managed units start. While it runs,
//! units are only queued for their start: they wait for it, so waiting for them would wait for ever.
//! Limit: systemd reads units before it mounts other file systems, so the root of the installation must be on the root
//! file system for services to start at boot.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sarsen_store::Digest;
use sarsen_store::manifest::{Role, Service};

use crate::process::accounts::Account;
use crate::process::{Completed, Invocation, ProcessError, last_lines};
use crate::services::{DEAD_MAN_LOOK, ServiceError, ServiceManager, UnitState};

mod links;
mod properties;

/// How long a question to systemd may take.
const QUESTION: Duration = Duration::from_secs(10);

/// How long a reload of all definitions may take; on a busy host with thousands of units it takes seconds.
const DEFINITIONS: Duration = Duration::from_mins(1);

/// How many units one question asks for, so that the answer of some 200 bytes each fits into what is kept of an output.
const UNITS_ASKED_MAX: usize = 100;

/// How many lines of a unit's journal a failure report shows.
const LOG_LINES: usize = 20;

/// The unit after which all installations are settled at boot; managed units name it in `After=`. It does nothing by itself.
pub const SETTLE_UNIT: &str = "sarsen-settle.service";

/// How many characters of a root's digest tell installations apart in names of units.
const INSTALLATION_CHARACTERS: usize = 12;

/// Whose services.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scope {
    System,
    User,
}

/// The programs that are called; tests put others in their place.
#[derive(Debug, Clone)]
struct Programs {
    systemctl: String,
    systemd_run: String,
    journalctl: String,
}

/// One systemd, for one profile.
#[derive(Debug)]
pub struct Systemd {
    scope: Scope,
    root: PathBuf,
    profile: String,
    /// Where unit links are made.
    directory: PathBuf,
    account: Account,
    programs: Programs,
}

impl Systemd {
    /// Finds the systemd that this process may command, if one runs: the system's for root, else the user's own.
    pub fn detect(root: &Path, profile: &str) -> Option<Self> {
        let account = Account::own();
        let (scope, directory) = if account.uid == 0 {
            (Scope::System, PathBuf::from("/etc/systemd/system"))
        } else {
            (Scope::User, account.home.join(".config/systemd/user"))
        };
        let running = match scope {
            Scope::System => PathBuf::from("/run/systemd/system"),
            Scope::User => runtime_directory(&account).join("systemd"),
        };
        let programs =
            Programs { systemctl: "systemctl".to_owned(), systemd_run: "systemd-run".to_owned(), journalctl: "journalctl".to_owned() };
        let systemd = Self { scope, root: root.to_owned(), profile: profile.to_owned(), directory, account, programs };
        running.is_dir().then_some(systemd)
    }

    fn invocation(&self, program: &str, arguments: &[&str], deadline: Duration) -> Invocation {
        let mut invocation = Invocation::new(program, arguments, deadline);
        if self.scope == Scope::User {
            let runtime = runtime_directory(&self.account).display().to_string();
            invocation.arguments.insert(0, "--user".to_owned());
            invocation.environment.insert("DBUS_SESSION_BUS_ADDRESS".to_owned(), format!("unix:path={runtime}/bus"));
            invocation.environment.insert("XDG_RUNTIME_DIR".to_owned(), runtime);
        }
        invocation
    }

    /// Runs a program of systemd; another exit code than 0 is an error with its words.
    fn call(&self, program: &str, arguments: &[&str], deadline: Duration, action: &str) -> Result<String, ServiceError> {
        let manager = self.name();
        match self.invocation(program, arguments, deadline).run() {
            Ok(Completed { status, output }) if status.success() => Ok(output),
            Ok(Completed { output, .. }) => {
                let message = last_lines(&output, LOG_LINES);
                Err(ServiceError::Manager { manager, action: action.to_owned(), message })
            }
            Err(ProcessError::Deadline { .. }) => {
                Err(ServiceError::Deadline { manager, action: action.to_owned(), seconds: deadline.as_millis().div_ceil(1000) })
            }
            Err(source) => Err(ServiceError::Program { manager, action: action.to_owned(), source: Box::new(source) }),
        }
    }

    fn systemctl(&self, arguments: &[&str], units: &[String], deadline: Duration, action: &str) -> Result<String, ServiceError> {
        let mut all = vec!["--no-ask-password"];
        all.extend(arguments);
        all.push("--");
        all.extend(units.iter().map(String::as_str));
        self.call(&self.programs.systemctl, &all, deadline, action)
    }

    /// Whether this boot waits for what settles.
    fn is_settling(&self) -> Result<bool, ServiceError> {
        Ok(self.properties(&[self.settle_unit()])?.first().is_some_and(properties::Properties::is_starting))
    }

    /// Starts or reloads units and waits, except at boot, where they wait for this very process.
    fn bring_up(&self, verb: &str, units: &[String], deadline: Duration, action: &str) -> Result<(), ServiceError> {
        if units.is_empty() {
            return Ok(());
        }
        let arguments: &[&str] = if self.is_settling()? { &["--no-block", verb] } else { &[verb] };
        let result = self.systemctl(arguments, units, deadline, action);
        match result {
            Ok(_) => Ok(()),
            Err(ServiceError::Manager { manager, action, message }) => {
                Err(ServiceError::Manager { manager, action, message: self.explain(message, units) })
            }
            Err(error) => Err(error),
        }
    }

    /// Adds to systemd's words the states and last words of the units that failed.
    fn explain(&self, mut message: String, units: &[String]) -> String {
        for state in self.states(units).unwrap_or_default().iter().filter(|state| state.failed) {
            message.extend(["\n", &state.unit, " is ", &state.state]);
            for line in self.log_tail(&state.unit).lines() {
                message.extend(["\n  ", line]);
            }
        }
        message
    }

    fn properties(&self, units: &[String]) -> Result<Vec<properties::Properties>, ServiceError> {
        let mut all = Vec::new();
        for some in units.chunks(UNITS_ASKED_MAX) {
            let output = self.systemctl(&["show", properties::QUERY], some, QUESTION, "show the units' states")?;
            all.extend(properties::parse_properties(&output, some));
        }
        Ok(all)
    }

    /// What tells this installation's units from those of others under the same systemd.
    fn installation(&self) -> String {
        Digest::of(self.root.as_os_str().as_bytes()).to_string().chars().take(INSTALLATION_CHARACTERS).collect()
    }

    /// The unit that settles this installation at boot.
    fn settle_unit(&self) -> String {
        format!("sarsen-settle-{}.service", self.installation())
    }

    fn dead_man_unit(&self) -> String {
        format!("sarsen-deadman-{}-{}", self.profile, self.installation())
    }

    fn activator(&self) -> String {
        self.root.join("bin/sarsen-activator").display().to_string()
    }
}

fn runtime_directory(account: &Account) -> PathBuf {
    PathBuf::from(format!("/run/user/{}", account.uid))
}

fn list(verb: &str, units: &[String]) -> String {
    format!("{verb} {}", units.join(", "))
}

impl ServiceManager for Systemd {
    fn name(&self) -> &'static str {
        match self.scope {
            Scope::System => "systemd",
            Scope::User => "systemd --user",
        }
    }

    fn install(&self, current: &Path, services: &[Service], former: &[Service]) -> Result<(), ServiceError> {
        let units: Vec<String> = services.iter().map(|service| service.unit.clone()).collect();
        let place = links::Place { directory: &self.directory, target: self.boot_target(), current };
        let wanted: Vec<String> = services.iter().filter(|unit| unit.role != Role::Job).map(|unit| unit.unit.clone()).collect();
        place.install(&units, &wanted)?;
        place.install_settle_unit(&self.root, &self.settle_unit())?;
        // Always: what lies behind `current` has changed even if no link did.
        self.systemctl(&["daemon-reload"], &[], DEFINITIONS, "read its definitions again")?;
        let gone: Vec<String> = former.iter().map(|service| service.unit.clone()).filter(|unit| !units.contains(unit)).collect();
        if !gone.is_empty() {
            // Removed units that had failed would be listed as failed for ever. Most are not loaded any more, which is no error.
            let _ = self.systemctl(&["reset-failed"], &gone, QUESTION, "forget removed units");
        }
        Ok(())
    }

    fn start(&self, units: &[String], deadline: Duration) -> Result<(), ServiceError> {
        if !units.is_empty() {
            // A unit that failed too often before would be refused. One that never ran is not loaded: no error.
            let _ = self.systemctl(&["reset-failed"], units, QUESTION, "forget earlier failures");
        }
        self.bring_up("start", units, deadline, &list("start", units))
    }

    fn stop(&self, units: &[String], deadline: Duration) -> Result<(), ServiceError> {
        if units.is_empty() {
            return Ok(());
        }
        // systemd refuses to stop what it does not know.
        let known = self.properties(units)?.into_iter().filter(|unit| !unit.is_gone());
        let running: Vec<String> = known.map(|unit| unit.unit).collect();
        if running.is_empty() {
            return Ok(());
        }
        self.systemctl(&["stop"], &running, deadline, &list("stop", &running)).map(drop)
    }

    fn reload(&self, units: &[String], deadline: Duration) -> Result<(), ServiceError> {
        self.bring_up("reload-or-restart", units, deadline, &list("reload", units))
    }

    fn states(&self, units: &[String]) -> Result<Vec<UnitState>, ServiceError> {
        if units.is_empty() {
            return Ok(Vec::new());
        }
        Ok(self.properties(units)?.iter().map(properties::Properties::to_state).collect())
    }

    fn log_tail(&self, unit: &str) -> String {
        let lines = LOG_LINES.to_string();
        let arguments = ["-u", unit, "-n", &lines, "-o", "cat", "--no-pager", "--quiet"];
        let done = self.invocation(&self.programs.journalctl, &arguments, QUESTION).run();
        done.map(|done| last_lines(&done.output, LOG_LINES)).unwrap_or_default()
    }

    fn arm_dead_man(&self, after: Duration) -> Result<(), ServiceError> {
        self.disarm_dead_man()?;
        let root = self.root.display().to_string();
        let arguments = [
            // At boot a timer starts when the system is initialised, for which nothing may wait that settles.
            if self.is_settling()? { "--no-block" } else { "--no-ask-password" },
            "--quiet",
            "--collect",
            &format!("--unit={}", self.dead_man_unit()),
            &format!("--description=sarsen gives up a deployment to {} whose processes are dead", self.profile),
            &format!("--on-active={}ms", after.min(DEAD_MAN_LOOK).as_millis()),
            &format!("--on-unit-inactive={}s", DEAD_MAN_LOOK.as_secs()),
            "--timer-property=AccuracySec=1s",
            "--",
            &self.activator(),
            "settle",
            "--root",
            &root,
            "--profile",
            &self.profile,
        ];
        self.call(&self.programs.systemd_run, &arguments, QUESTION, "arm the timer that gives up the trial").map(drop)
    }

    fn disarm_dead_man(&self) -> Result<(), ServiceError> {
        self.stop(&[format!("{}.timer", self.dead_man_unit())], QUESTION)
    }

    fn has_triggers(&self) -> bool {
        true
    }

    fn detach(&self, command: Vec<String>) -> Vec<String> {
        let mut words = Vec::new();
        if self.scope == Scope::User {
            let runtime = runtime_directory(&self.account).display().to_string();
            words.extend([
                "env".to_owned(),
                format!("XDG_RUNTIME_DIR={runtime}"),
                format!("DBUS_SESSION_BUS_ADDRESS=unix:path={runtime}/bus"),
            ]);
        }
        words.push(self.programs.systemd_run.clone());
        words.extend((self.scope == Scope::User).then(|| "--user".to_owned()));
        let description = format!("--description=sarsen deploys to {}", self.profile);
        // A service of its own: a login's end kills what belongs to its scope, and a stopped one must not take the children of hooks along.
        words.extend(["--quiet", "--collect", "--pipe", "--wait", "--property=KillMode=mixed", &description, "--"].map(str::to_owned));
        words.extend(command);
        words
    }

    fn notes(&self) -> Vec<String> {
        let lingers = Path::new("/var/lib/systemd/linger").join(&self.account.name).exists();
        match self.scope {
            Scope::User if !lingers => vec![format!(
                "services stop when the last session of `{0}` ends and do not start at boot: run `loginctl enable-linger {0}` as root",
                self.account.name
            )],
            Scope::User | Scope::System => Vec::new(),
        }
    }
}

impl Systemd {
    /// The target that wants managed units at boot.
    fn boot_target(&self) -> &'static str {
        match self.scope {
            Scope::System => "multi-user.target",
            Scope::User => "default.target",
        }
    }
}

#[cfg(test)]
mod tests;

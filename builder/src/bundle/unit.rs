//! Unit files for systemd.
//!
//! Quoting follows systemd.service(5) "Command lines" and systemd.syntax(7): `%` starts a specifier and `$` a variable in command lines,
//! each doubled to stand for itself; quotes, backslashes and control characters are escaped as in C.

use std::fmt::Write;

use sarsen_store::manifest::{Identity, Restart};

use crate::model::{Service, Timer};

/// How long systemd waits before it starts a service again, in seconds: its own default of 0.1 s gives up after half a second.
const RESTART_S: u32 = 1;

/// The type of services that only a trigger starts.
const JOB: &str = "oneshot";

/// How late a timer may be: systemd's own minute is later than whoever comes from cron expects.
const ACCURACY: &str = "1s";

/// Renders the unit of `service`, whose texts hold real ids.
pub(super) fn render(service: &Service, identity: &Identity, component: &str, reload_trigger: &str) -> String {
    let mut unit = Unit { text: String::new() };
    let Identity { project, environment, host: _, profile: _ } = identity;
    unit.section("Unit");
    unit.line("Description", &percent(&format!("{component}/{} of {project} {environment}", service.name)));
    let after =
        ["network.target", "sarsen-settle.service"].map(str::to_owned).into_iter().chain(service.after.iter().map(|name| unit_name(name)));
    unit.line("After", &percent(&after.collect::<Vec<_>>().join(" ")));
    if !reload_trigger.is_empty() {
        unit.line("X-Reload-Triggers", reload_trigger);
    }
    unit.section("Service");
    unit.line("Type", &service.kind);
    unit.line("ExecStart", &command_line(&service.command));
    if !service.reload.is_empty() {
        unit.line("ExecReload", &reload_line(&service.reload));
    }
    if let Some(user) = &service.user {
        unit.line("User", &percent(user));
    }
    if let Some(directory) = &service.working_directory {
        unit.line("WorkingDirectory", &percent(directory));
    }
    for (name, value) in &service.environment {
        unit.line("Environment", &quote(&percent(&format!("{name}={value}"))));
    }
    if let Some(restart) = restart(service) {
        unit.line("Restart", restart);
        unit.line("RestartSec", &RESTART_S.to_string());
    }
    unit.line("TimeoutStopSec", &format!("{}ms", service.stop_timeout_ms));
    // Last, so that they win over what stands above.
    for (name, value) in &service.settings {
        unit.line(name, value);
    }
    if service.kind != JOB {
        unit.section("Install");
        unit.line("WantedBy", "multi-user.target");
    }
    unit.text
}

/// Renders the unit that starts a timer's job.
///
/// Without the default dependencies, which would let all of the boot, sshd included, wait for this timer and what is settled before it.
pub(super) fn render_timer(timer: &Timer, identity: &Identity, component: &str) -> String {
    let mut unit = Unit { text: String::new() };
    let Identity { project, environment, host: _, profile: _ } = identity;
    unit.section("Unit");
    unit.line("Description", &percent(&format!("when {component}/{} of {project} {environment} runs", timer.job.name)));
    unit.line("DefaultDependencies", "no");
    unit.line("After", "sysinit.target time-set.target sarsen-settle.service");
    unit.line("Before", "shutdown.target");
    unit.line("Conflicts", "shutdown.target");
    unit.section("Timer");
    for event in &timer.calendar {
        unit.line("OnCalendar", &percent(event));
    }
    if let Some(seconds) = timer.every_s {
        unit.line("OnActiveSec", &format!("{seconds}s"));
        unit.line("OnUnitActiveSec", &format!("{seconds}s"));
    }
    unit.line("AccuracySec", ACCURACY);
    if timer.spread_s > 0 {
        unit.line("RandomizedDelaySec", &format!("{}s", timer.spread_s));
    }
    if timer.catch_up {
        unit.line("Persistent", "yes");
    }
    unit.section("Install");
    unit.line("WantedBy", "multi-user.target");
    unit.text
}

fn restart(service: &Service) -> Option<&'static str> {
    match service.restart {
        Restart::Always => Some("always"),
        Restart::OnFailure => Some("on-failure"),
        Restart::No => None,
    }
}

/// A name without a suffix is that of a service.
fn unit_name(name: &str) -> String {
    if name.contains('.') { name.to_owned() } else { format!("{name}.service") }
}

struct Unit {
    text: String,
}

impl Unit {
    fn section(&mut self, name: &str) {
        let gap = if self.text.is_empty() { "" } else { "\n" };
        let _ = writeln!(self.text, "{gap}[{name}]");
    }

    /// Several lines of a value become as many settings: that is how systemd takes lists, and none can end the line of another.
    fn line(&mut self, name: &str, value: &str) {
        for value in value.split(['\n', '\r']) {
            let _ = writeln!(self.text, "{name}={value}");
        }
    }
}

fn percent(text: &str) -> String {
    text.replace('%', "%%")
}

fn command_line(words: &[String]) -> String {
    let words: Vec<String> = words.iter().map(|word| quote(&literal(word))).collect();
    words.join(" ")
}

/// As a command line; the main process's number, which only the service manager knows, is the one variable that may be used.
fn reload_line(words: &[String]) -> String {
    let with_pid = |word: &String| literal(word).replace("$${MAINPID}", "${MAINPID}").replace("$$MAINPID", "${MAINPID}");
    let words: Vec<String> = words.iter().map(|word| quote(&with_pid(word))).collect();
    words.join(" ")
}

fn literal(word: &str) -> String {
    percent(word).replace('$', "$$")
}

/// Puts a word into quotes if it needs them.
fn quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+=:,@%${}".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    let mut quoted = String::from("\"");
    for c in word.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            c if c.is_ascii_control() => {
                let _ = write!(quoted, "\\x{:02x}", u32::from(c));
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_a_command_line() {
        #[track_caller]
        fn check(word: &str, line: &str) {
            assert_eq!(command_line(&[word.to_owned()]), line);
        }
        check("/bin/app", "/bin/app");
        check("--name=a b", "\"--name=a b\"");
        check("100%", "100%%");
        check("$HOME", "$$HOME");
        check("say \"hi\"\\", "\"say \\\"hi\\\"\\\\\"");
        check("two\nlines", "\"two\\nlines\"");
        check("\u{1b}", "\"\\x1b\"");
        check("", "\"\"");
        check(";", "\";\"");
        check("it's", "\"it's\"");
    }

    #[test]
    fn only_reloading_knows_the_process() {
        let words = ["/bin/kill", "$MAINPID", "-s${MAINPID}", "$HOME"].map(str::to_owned);
        assert_eq!(reload_line(&words), "/bin/kill ${MAINPID} -s${MAINPID} $$HOME");
        assert_eq!(command_line(&words[1..2]), "$$MAINPID");
    }

    #[test]
    fn no_value_reaches_into_the_next_line() {
        let mut unit = Unit { text: String::new() };
        unit.line("ExecStartPre", "/a\n/b\r[Install]");
        assert_eq!(unit.text, "ExecStartPre=/a\nExecStartPre=/b\nExecStartPre=[Install]\n");
    }
}

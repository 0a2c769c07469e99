//! What a change of a unit file means for the running unit.
//!
//! The rules are those of NixOS' `switch-to-configuration` (`compare_units`), and the table in the tests has a line for each: what only describes or installs a unit
//! is no reason to touch it, what the unit can read again is a reload, and anything else is a restart. The file is
//! read as systemd reads it: sections of `key=value`, comments with `#` or `;`, lines that go on after a backslash,
//! and an empty value that clears what was collected for its key.

use std::collections::{BTreeMap, BTreeSet};

/// Keys of `[Unit]` that say nothing about how what runs was started: they describe it, or systemd looks at them when something happens.
const DESCRIPTIVE: &[&str] = &[
    "Description",
    "Documentation",
    "OnFailure",
    "OnSuccess",
    "OnFailureJobMode",
    "IgnoreOnIsolate",
    "StopWhenUnneeded",
    "RefuseManualStart",
    "RefuseManualStop",
    "AllowIsolate",
    "CollectMode",
    "SourcePath",
];

/// The key of `[Unit]` whose change asks for a reload.
const RELOAD_TRIGGERS: &str = "X-Reload-Triggers";

/// What has to be done to a running unit so that it is what its new file says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Nothing.
    Keep,
    /// It has to read its configuration again.
    Reload,
    /// It has to be stopped as the old file says, and started as the new one says.
    Restart,
}

type Settings<'a> = BTreeMap<(&'a str, &'a str), Vec<String>>;

/// Compares two texts of one unit.
pub fn compare_units(old: &str, new: &str) -> Change {
    if old == new {
        return Change::Keep;
    }
    let (old_joined, new_joined) = (join_lines(old), join_lines(new));
    let (old, new) = (parse(&old_joined), parse(&new_joined));
    let can_reload = new.contains_key(&("Service", "ExecReload"));
    let keys: BTreeSet<_> = old.keys().chain(new.keys()).copied().collect();
    let mut change = Change::Keep;
    for key in keys.into_iter().filter(|key| old.get(key) != new.get(key)) {
        match key {
            ("Install", _) => {}
            ("Unit", name) if DESCRIPTIVE.contains(&name) => {}
            // A command for reloading that has gone changes nothing of what runs.
            ("Service", "ExecReload") if !can_reload => {}
            ("Service", "ExecReload") | ("Unit", RELOAD_TRIGGERS) if can_reload => change = Change::Reload,
            _ => return Change::Restart,
        }
    }
    change
}

fn join_lines(text: &str) -> String {
    text.replace("\\\n", " ")
}

fn parse(text: &str) -> Settings<'_> {
    let mut settings = Settings::new();
    let mut section = "";
    for line in text.lines().map(str::trim) {
        if line.is_empty() || line.starts_with(['#', ';']) {
            continue;
        }
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            section = name;
            continue;
        }
        let (key, value) = line.split_once('=').unwrap_or((line, ""));
        let (key, value) = ((section, key.trim()), value.trim());
        if value.is_empty() {
            settings.remove(&key);
        } else {
            settings.entry(key).or_default().push(value.to_owned());
        }
    }
    settings
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNIT: &str = "[Unit]\nDescription=app\n[Service]\nExecStart=/a\nExecReload=/bin/kill -HUP $MAINPID\n[Install]\nWantedBy=x\n";

    #[track_caller]
    fn check(from: &str, to: &str, expected: Change) {
        let changed = UNIT.replace(from, to);
        assert_ne!(changed, UNIT, "the case changes nothing");
        assert_eq!(compare_units(UNIT, &changed), expected);
    }

    /// Every rule: the sections of the old text, of the new one, and what the difference means. Each text is completed by what is the same.
    #[test]
    fn every_rule_has_its_line() {
        let with = |text: &str| format!("{text}\n[Service]\nExecStart=/a\nExecReload=/r\n");
        for (old, new, expected) in [
            ("", "[Install]\nWantedBy=x", Change::Keep),
            ("[Install]\nWantedBy=x", "[Install]\nAlias=y.service", Change::Keep),
            ("", "[Unit]\nDescription=a", Change::Keep),
            ("", "[Unit]\nDocumentation=man:a", Change::Keep),
            ("", "[Unit]\nOnFailure=a.service", Change::Keep),
            ("", "[Unit]\nOnSuccess=a.service", Change::Keep),
            ("", "[Unit]\nOnFailureJobMode=fail", Change::Keep),
            ("", "[Unit]\nIgnoreOnIsolate=yes", Change::Keep),
            ("", "[Unit]\nStopWhenUnneeded=yes", Change::Keep),
            ("", "[Unit]\nRefuseManualStart=yes", Change::Keep),
            ("", "[Unit]\nRefuseManualStop=yes", Change::Keep),
            ("", "[Unit]\nAllowIsolate=yes", Change::Keep),
            ("", "[Unit]\nCollectMode=inactive", Change::Keep),
            ("", "[Unit]\nSourcePath=/a", Change::Keep),
            ("", "[Unit]\nX-Reload-Triggers=1", Change::Reload),
            ("[Unit]\nX-Reload-Triggers=1", "[Unit]\nX-Reload-Triggers=2", Change::Reload),
            ("[Unit]\nX-Reload-Triggers=1", "", Change::Reload),
            ("", "[Service]\nExecReload=/r2", Change::Reload),
            ("", "[Unit]\nX-Restart-Triggers=1", Change::Restart),
            ("", "[Unit]\nAfter=b.service", Change::Restart),
            ("", "[Unit]\nX-Reload-Triggers=1\nX-Restart-Triggers=1", Change::Restart),
            ("", "[Unit]\nDescription=a\nRequires=b.service", Change::Restart),
            ("", "[Service]\nUser=a", Change::Restart),
            ("[Service]\nUser=a", "[Service]\nUser=a\nUser=", Change::Restart),
            ("[Service]\nUser=a", "[Service]\nUser=b\nUser=\nUser=a", Change::Keep),
            ("", "[Service]\nDescription=a", Change::Restart),
            ("", "[Timer]\nOnCalendar=daily", Change::Restart),
        ] {
            assert_eq!(compare_units(&with(old), &with(new)), expected, "{old:?} -> {new:?}");
        }
    }

    #[test]
    fn what_only_describes_is_kept() {
        check("Description=app", "Description=other\nDocumentation=man:app(8)", Change::Keep);
        check("WantedBy=x", "WantedBy=y\nAlias=z.service", Change::Keep);
        check("[Install]\nWantedBy=x\n", "", Change::Keep);
        check("ExecStart=/a", "# a comment\n; another\n\nExecStart = /a", Change::Keep);
        check("ExecStart=/a", "ExecStart=/wrong\nExecStart=\nExecStart=/a", Change::Keep);
        assert_eq!(compare_units(UNIT, UNIT), Change::Keep);
    }

    #[test]
    fn what_can_be_read_again_is_reloaded() {
        check("Description=app", "Description=app\nX-Reload-Triggers=abc", Change::Reload);
        check("kill -HUP", "kill -USR1", Change::Reload);
        check("Description=app", "Description=new\nX-Reload-Triggers=abc", Change::Reload);
    }

    #[test]
    fn anything_else_is_restarted() {
        check("ExecStart=/a", "ExecStart=/b", Change::Restart);
        check("ExecStart=/a", "ExecStart=/a \\\n  --more", Change::Restart);
        check("ExecStart=/a", "ExecStart=/a\nEnvironment=A=1", Change::Restart);
        check("Description=app", "Description=app\nX-Restart-Triggers=abc", Change::Restart);
        check("Description=app", "Description=app\nX-Reload-Triggers=abc\nAfter=b.service", Change::Restart);
        check("[Service]", "[Socket]", Change::Restart);
    }

    #[test]
    fn a_trigger_without_a_way_to_reload_restarts_and_a_removed_way_is_nothing() {
        let plain = UNIT.replace("ExecReload=/bin/kill -HUP $MAINPID\n", "");
        assert_eq!(compare_units(&plain, &plain.replace("Description=app", "X-Reload-Triggers=1")), Change::Restart);
        assert_eq!(compare_units(UNIT, &plain), Change::Keep);
        assert_eq!(compare_units(&plain, UNIT), Change::Reload);
    }
}

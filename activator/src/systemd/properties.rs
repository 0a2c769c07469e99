//! What `systemctl show` says of units. Pure.

use std::collections::BTreeMap;

use crate::services::UnitState;

/// The properties that are asked for.
pub(super) const QUERY: &str = "--property=Id,ActiveState,SubState,Result,MainPID,NRestarts,LoadState";

/// The properties of one unit.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Properties {
    /// The name that was asked for.
    pub(super) unit: String,
    active: String,
    sub: String,
    result: String,
    load: String,
    pid: Option<u32>,
    restarts: u32,
}

/// Reads the blocks of `systemctl show`, one for each unit and in the order asked, separated by blank lines.
///
/// A unit without a block has no properties, which counts as not loaded. Values may contain `=`.
pub(super) fn parse_properties(output: &str, units: &[String]) -> Vec<Properties> {
    let blocks: Vec<BTreeMap<&str, &str>> = output
        .split("\n\n")
        .map(|block| block.lines().filter_map(|line| line.split_once('=')).collect::<BTreeMap<_, _>>())
        .filter(|block| !block.is_empty())
        .collect();
    let read = |(position, unit): (usize, &String)| {
        // By name where possible; a unit that is an alias answers with its other name, in its place.
        let named = blocks.iter().find(|block| block.get("Id") == Some(&unit.as_str()));
        let block = named.or_else(|| blocks.get(position).filter(|_| blocks.len() == units.len()));
        let value = |key: &str| block.and_then(|block| block.get(key)).copied().unwrap_or_default();
        Properties {
            unit: unit.clone(),
            active: value("ActiveState").to_owned(),
            sub: value("SubState").to_owned(),
            result: value("Result").to_owned(),
            load: value("LoadState").to_owned(),
            pid: value("MainPID").parse().ok().filter(|&pid| pid != 0),
            restarts: value("NRestarts").parse().unwrap_or(0),
        }
    };
    units.iter().enumerate().map(read).collect()
}

impl Properties {
    /// It is being started right now.
    pub(super) fn is_starting(&self) -> bool {
        self.active == "activating" && self.sub != "auto-restart"
    }

    /// Nothing of it runs or is about to.
    pub(super) fn is_gone(&self) -> bool {
        matches!(self.active.as_str(), "" | "inactive" | "failed") && matches!(self.load.as_str(), "" | "not-found")
    }

    pub(super) fn to_state(&self) -> UnitState {
        let restarting = self.active == "activating" && self.sub.starts_with("auto-restart");
        let unusable = matches!(self.load.as_str(), "" | "not-found" | "bad-setting" | "error" | "masked");
        let active = matches!(self.active.as_str(), "active" | "reloading" | "refreshing");
        let failed = self.active == "failed" || restarting || (unusable && !active);
        let state = match (self.active.as_str(), self.load.as_str()) {
            ("active", _) => "active".to_owned(),
            (_, "" | "not-found") => "unknown to systemd".to_owned(),
            (_, load @ ("bad-setting" | "error" | "masked")) => format!("not usable ({load})"),
            ("failed", _) => format!("failed ({})", self.result),
            _ if restarting => format!("ended ({}) and being started again", self.result),
            (other, _) => format!("{other} ({})", self.sub),
        };
        UnitState { unit: self.unit.clone(), active, failed, state, pid: self.pid, restarts: self.restarts }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(block: &str, active: bool, failed: bool, state: &str) {
        let units = ["a.service".to_owned()];
        let found = parse_properties(block, &units)[0].to_state();
        assert_eq!((found.active, found.failed, found.state.as_str()), (active, failed, state));
    }

    #[test]
    fn tells_states_apart() {
        let show = |active: &str, sub: &str, load: &str| {
            format!("MainPID=0\nNRestarts=2\nResult=exit-code\nId=a.service\nLoadState={load}\nActiveState={active}\nSubState={sub}\n")
        };
        check(&show("active", "running", "loaded"), true, false, "active");
        check(&show("active", "exited", "loaded"), true, false, "active");
        check(&show("reloading", "reload", "loaded"), true, false, "reloading (reload)");
        check(&show("failed", "failed", "loaded"), false, true, "failed (exit-code)");
        check(&show("activating", "auto-restart", "loaded"), false, true, "ended (exit-code) and being started again");
        check(&show("activating", "start", "loaded"), false, false, "activating (start)");
        check(&show("inactive", "dead", "loaded"), false, false, "inactive (dead)");
        check(&show("inactive", "dead", "not-found"), false, true, "unknown to systemd");
        check(&show("inactive", "dead", "bad-setting"), false, true, "not usable (bad-setting)");
        check(&show("active", "running", "not-found"), true, false, "active");
        check("", false, true, "unknown to systemd");
    }

    #[test]
    fn keeps_the_order_asked_and_reads_numbers() {
        let output = "Id=b.service\nActiveState=active\nLoadState=loaded\nMainPID=42\nNRestarts=3\n\nId=a.service\nActiveState=inactive\nLoadState=loaded\nMainPID=0\n";
        let units = ["a.service".to_owned(), "b.service".to_owned()];
        let found: Vec<_> = parse_properties(output, &units).iter().map(Properties::to_state).collect();
        assert_eq!((found[0].unit.as_str(), found[0].active, found[0].pid, found[0].restarts), ("a.service", false, None, 0));
        assert_eq!((found[1].unit.as_str(), found[1].active, found[1].pid, found[1].restarts), ("b.service", true, Some(42), 3));
    }
}

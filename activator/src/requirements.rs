//! What must exist on the host before anything is changed: programs, free ports, users.
//!
//! All requirements are checked and all that are not met are reported at once, in words. A port counts as free while only
//! services of the current generation listen on it, because they are stopped or kept by the activation itself. Who listens
//! is read from `/proc`, so a listener of another user is "another process" unless root asks.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use sarsen_store::manifest::{Requirement, Role, Service};

use crate::process::accounts::{Account, AccountError};
use crate::process::{SEARCH_PATH, clean};
use crate::services::ServiceManager;

/// How far up the parents of a listening process are followed; a service that nests deeper is not recognised as its own.
const ANCESTORS_MAX: usize = 16;

/// The state of a listening socket in `/proc/net/tcp`.
///
/// Source: `include/net/tcp_states.h`, `TCP_LISTEN`.
const LISTENING: &str = "0A";

/// Checks all requirements and says in words which are not met, in their order.
///
/// `own_units` are the units of the current generation.
pub fn check_requirements(requirements: &[Requirement], own_units: &[String], services: &dyn ServiceManager) -> Vec<String> {
    requirements.iter().filter_map(|requirement| check_requirement(requirement, own_units, services)).collect()
}

/// Says in words which triggers this host's manager of services cannot run: a job that nobody starts would be missed too late.
pub fn check_triggers(units: &[Service], services: &dyn ServiceManager) -> Vec<String> {
    if services.has_triggers() {
        return Vec::new();
    }
    let triggers = units.iter().filter(|unit| unit.role == Role::Trigger);
    let name = services.name();
    let describe =
        |unit: &Service| format!("`{}` of component `{}` needs systemd, and services run under the {name} here", unit.unit, unit.component);
    triggers.map(describe).collect()
}

fn check_requirement(requirement: &Requirement, own_units: &[String], services: &dyn ServiceManager) -> Option<String> {
    match requirement {
        Requirement::Program { program, component } => {
            let problem = check_program(program)?;
            Some(format!("component `{component}` needs the program `{program}`: {problem}"))
        }
        Requirement::User { user, component } => match Account::find(user) {
            Ok(_) => None,
            Err(error @ AccountError::Unknown { .. }) => Some(format!("component `{component}` needs the user `{user}`: {error}")),
            Err(error @ AccountError::Read { .. }) => Some(format!("component `{component}` needs the user `{user}`, but: {error}")),
        },
        Requirement::Port { port, component } => {
            let listeners = find_listeners(*port);
            if listeners.is_empty() {
                return None;
            }
            let own = find_main_processes(own_units, services);
            let foreign = listeners.iter().find(|&&inode| !find_owners(inode).iter().any(|&owner| belongs_to(owner, &own)))?;
            let who = find_owners(*foreign).first().map_or_else(|| "another process".to_owned(), |&pid| describe_process(pid));
            Some(format!("component `{component}` needs the TCP port {port}: {who} listens on it"))
        }
    }
}

fn check_program(program: &str) -> Option<&'static str> {
    let candidates: Vec<PathBuf> = if program.starts_with('/') {
        vec![program.into()]
    } else {
        SEARCH_PATH.split(':').map(|directory| Path::new(directory).join(program)).collect()
    };
    let mut problem = if program.starts_with('/') { "there is no such file" } else { "it is not in the search path" };
    for candidate in candidates {
        let Ok(metadata) = fs::metadata(candidate) else { continue };
        if metadata.is_file() && metadata.permissions().mode() & 0o111 != 0 {
            return None;
        }
        problem = "it is not executable";
    }
    Some(problem)
}

/// The inodes of the sockets that listen on a port, whatever their address.
fn find_listeners(port: u16) -> BTreeSet<u64> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(|path| fs::read_to_string(path).unwrap_or_default());
    tables.iter().flat_map(|table| parse_listeners(table, port)).collect()
}

/// Reads one table of sockets.
///
/// Source: `proc(5)`, `/proc/net/tcp`; columns 1, 3 and 9 are local address, state and inode.
fn parse_listeners(table: &str, port: u16) -> Vec<u64> {
    let parse_line = |line: &str| {
        let columns: Vec<&str> = line.split_ascii_whitespace().collect();
        let (_, local_port) = columns.get(1)?.rsplit_once(':')?;
        let listens = *columns.get(3)? == LISTENING && u16::from_str_radix(local_port, 16).ok()? == port;
        listens.then(|| columns.get(9)?.parse().ok()).flatten()
    };
    table.lines().skip(1).filter_map(parse_line).collect()
}

/// The processes that hold a socket open; those of other users cannot be seen without privilege.
fn find_owners(inode: u64) -> Vec<u32> {
    let wanted = PathBuf::from(format!("socket:[{inode}]"));
    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    let holds = |pid: &u32| {
        let Ok(mut descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
        descriptors.any(|entry| entry.is_ok_and(|entry| fs::read_link(entry.path()).is_ok_and(|target| target == wanted)))
    };
    pids.filter(holds).collect()
}

fn find_main_processes(units: &[String], services: &dyn ServiceManager) -> BTreeSet<u32> {
    let states = if units.is_empty() { Vec::new() } else { services.states(units).unwrap_or_default() };
    states.iter().filter_map(|state| state.pid).collect()
}

/// Whether a process is one of `own`, descends from one, or stays in its process group.
fn belongs_to(pid: u32, own: &BTreeSet<u32>) -> bool {
    let mut present = pid;
    for _ in 0..ANCESTORS_MAX {
        if own.contains(&present) {
            return true;
        }
        let Some((parent, group)) = read_parent_and_group(present) else { return false };
        if own.contains(&group) {
            return true;
        }
        present = parent;
    }
    false
}

/// Reads parent and process group of a process.
///
/// Source: `proc(5)`, `/proc/pid/stat`; the name in parentheses may contain anything, so counting starts behind it.
fn read_parent_and_group(pid: u32) -> Option<(u32, u32)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = text.rsplit_once(')')?;
    let mut columns = rest.split_ascii_whitespace().skip(1);
    Some((columns.next()?.parse().ok()?, columns.next()?.parse().ok()?))
}

fn describe_process(pid: u32) -> String {
    let name = fs::read(format!("/proc/{pid}/comm")).map(|name| clean(&name)).unwrap_or_default();
    format!("process {pid} (`{name}`)")
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;
    use crate::services::UnitState;
    use crate::services::fake::FakeManager;

    fn state(pid: u32) -> UnitState {
        UnitState { unit: "a.service".to_owned(), active: true, failed: false, state: "active".to_owned(), pid: Some(pid), restarts: 0 }
    }

    #[test]
    fn reports_everything_that_is_missing_at_once() {
        let component = "app".to_owned();
        let requirements = [
            Requirement::Program { program: "sh".to_owned(), component: component.clone() },
            Requirement::Program { program: "/etc/passwd".to_owned(), component: component.clone() },
            Requirement::Program { program: "no-such-program".to_owned(), component: component.clone() },
            Requirement::User { user: "root".to_owned(), component: component.clone() },
            Requirement::User { user: "no-such-user".to_owned(), component },
        ];
        let unmet = check_requirements(&requirements, &[], &FakeManager::default());
        let expected = [
            "component `app` needs the program `/etc/passwd`: it is not executable",
            "component `app` needs the program `no-such-program`: it is not in the search path",
            "component `app` needs the user `no-such-user`: no user `no-such-user` in /etc/passwd",
        ];
        assert_eq!(unmet, expected);
    }

    #[test]
    fn a_timer_needs_who_runs_timers() {
        let unit = |name: &str, role| Service {
            unit: name.to_owned(),
            component: "app".to_owned(),
            command: Vec::new(),
            reload: Vec::new(),
            environment: std::collections::BTreeMap::new(),
            user: None,
            working_directory: None,
            restart: sarsen_store::manifest::Restart::No,
            reload_trigger: String::new(),
            stop_timeout_ms: 1000,
            role,
        };
        let units = [unit("a.service", Role::Service), unit("b.service", Role::Job), unit("b.timer", Role::Trigger)];
        assert_eq!(check_triggers(&units, &FakeManager::default()), [""; 0]);
        let root = tempfile::tempdir().unwrap();
        let supervisor = crate::supervisor::SupervisorClient::new(root.path(), "shop");
        let expected = "`b.timer` of component `app` needs systemd, and services run under the development supervisor here";
        assert_eq!(check_triggers(&units, &supervisor), [expected]);
    }

    #[test]
    fn a_port_is_free_when_nobody_or_an_own_service_listens() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let required = [Requirement::Port { port, component: "app".to_owned() }];
        let units = ["a.service".to_owned()];
        let own = FakeManager::with_states(vec![state(std::process::id())]);
        let stranger = FakeManager::with_states(vec![state(u32::MAX)]);
        assert_eq!(check_requirements(&required, &units, &own), [""; 0]);
        let unmet = check_requirements(&required, &units, &stranger);
        assert_eq!(unmet.len(), 1);
        assert!(unmet[0].starts_with(&format!("component `app` needs the TCP port {port}: process {} (", std::process::id())), "{unmet:?}");
        drop(listener);
        assert_eq!(check_requirements(&required, &units, &stranger), [""; 0]);
    }

    #[test]
    fn reads_only_listening_sockets_of_the_port() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
            0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0 100 0 0 10 0\n\
            1: 0100007F:1F90 0100007F:C350 01 00000000:00000000 00:00000000 00000000     0        0 4712 1 0 100 0 0 10 0\n\
            2: 00000000:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4713 1 0 100 0 0 10 0\n broken\n";
        assert_eq!(parse_listeners(table, 8080), [4711]);
    }
}

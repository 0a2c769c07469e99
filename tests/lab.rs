//! Real Debian hosts with systemd and sshd, through `tests/testhost`, and an operator's place in their network.
//!
//! Needs root, loop devices and network namespaces. The operator runs in the hosts' network, with the
//! system's own `ssh` and a configuration file of the lab, as a user's `~/.ssh/config` would be.

use std::fs;
use std::net::SocketAddr;
use std::process::{Command, Output};
use std::thread;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::world::{World, http_get, repository};

/// A set of hosts.
pub(crate) struct Lab {
    name: String,
    hosts: Vec<String>,
}

impl Lab {
    /// Starts hosts, all at once; each is a name and the last number of its address 10.77.0.N.
    pub(crate) fn start(name: &str, hosts: &[(&str, u8)]) -> Self {
        assert!(rustix::process::geteuid().is_root(), "real hosts need root: run tests/run as root or with sudo");
        // A lab that an interrupted run left behind goes first.
        let lab = Self { name: name.to_owned(), hosts: hosts.iter().map(|&(host, _)| host.to_owned()).collect() };
        lab.testhost(&["down"]);
        lab.must(&["image"]);
        for (host, number) in hosts {
            lab.must(&["up", host, &number.to_string()]);
        }
        for (host, _) in hosts {
            lab.must(&["wait", host]);
        }
        lab
    }

    /// Makes a world's commands run in the hosts' network and reach them by ssh.
    pub(crate) fn operator(&self, world: World) -> World {
        let configuration = world.path().join("ssh_config");
        fs::write(&configuration, self.must(&["config"])).expect("an ssh configuration");
        let namespace = format!("--net={}", self.namespace());
        let ssh = format!("ssh -F {}", configuration.display());
        world.with("SARSEN_SSH", ssh).through(&["nsenter", &namespace, "--"])
    }

    /// Runs a command on a host and gives its output; it must succeed.
    #[track_caller]
    pub(crate) fn on(&self, host: &str, command: &str) -> String {
        self.must(&["ssh", host, command]).trim_end().to_owned()
    }

    /// Whether a host answers over ssh.
    pub(crate) fn reaches(&self, host: &str) -> bool {
        self.testhost(&["ssh", host, "true"]).status.success()
    }

    /// Lets all processes of a host die at once and waits until it has booted again.
    pub(crate) fn crash(&self, host: &str) {
        self.must(&["crash", host]);
        self.must(&["wait", host]);
    }

    /// Reboots a host and waits until it is back.
    pub(crate) fn reboot(&self, host: &str) {
        let before = self.on(host, "cat /proc/sys/kernel/random/boot_id");
        // The connection is cut by the reboot, so its exit code says nothing.
        self.testhost(&["ssh", host, "systemctl reboot"]);
        crate::world::eventually("the host is back with another boot id", || {
            let now = self.testhost(&["ssh", host, "cat /proc/sys/kernel/random/boot_id"]);
            now.status.success() && String::from_utf8_lossy(&now.stdout).trim() != before
        });
        self.must(&["wait", host]);
    }

    /// Asks a web server in the hosts' network.
    pub(crate) fn http_get(&self, address: &str, path: &str) -> Option<(u16, String)> {
        let (namespace, address, path) = (self.namespace(), address.parse::<SocketAddr>().expect("an address"), path.to_owned());
        // A network namespace is a thread's own: this thread ends with the question.
        let question = thread::spawn(move || {
            let namespace = fs::File::open(namespace).expect("the operator's network namespace");
            move_into_link_name_space(std::os::fd::AsFd::as_fd(&namespace), Some(LinkNameSpaceType::Network))
                .expect("entering a namespace needs root");
            http_get(address, &path)
        });
        question.join().expect("the question can be asked")
    }

    fn namespace(&self) -> String {
        format!("/run/netns/th-{}", self.name)
    }

    #[track_caller]
    fn must(&self, arguments: &[&str]) -> String {
        let output = self.testhost(arguments);
        let talk = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "testhost {arguments:?}: {}\n{talk}", output.status);
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn testhost(&self, arguments: &[&str]) -> Output {
        let script = repository().join("tests/testhost");
        Command::new(script).args(arguments).env("TESTHOST_LAB", &self.name).output().expect("tests/testhost starts")
    }
}

#[expect(clippy::print_stderr, reason = "what the hosts said belongs to the report of a failed test")]
impl Drop for Lab {
    fn drop(&mut self) {
        if thread::panicking() {
            for host in &self.hosts {
                let journal = self.testhost(&["ssh", host, "journalctl --no-pager -n 60 -o short-precise; systemctl --failed --no-pager"]);
                eprintln!("--- journal of {host}\n{}", String::from_utf8_lossy(&journal.stdout));
            }
        }
        self.must(&["down"]);
    }
}

//! The binaries need nothing but a kernel: they run in a directory that holds only them.

use std::fs;
use std::process::Command;

use crate::world::{World, activator_binary, sarsen_binary};

/// Runs a binary as the only file of a root directory.
fn alone(binary: &std::path::Path, arguments: &[&str]) -> (i32, String) {
    let world = World::empty();
    fs::copy(binary, world.path().join("program")).expect("a copy of the binary");
    let output = Command::new("/usr/sbin/chroot").arg(world.path()).arg("/program").args(arguments).output().expect("chroot starts");
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.code().unwrap_or(-1), text)
}

#[test]
fn sarsen_runs_in_an_empty_root() {
    assert!(rustix::process::geteuid().is_root(), "chroot needs root: run tests/run as root or with sudo");
    let (code, text) = alone(sarsen_binary(), &["--version"]);
    assert_eq!((code, text), (0, format!("sarsen {}\n", env!("CARGO_PKG_VERSION"))));
}

#[test]
fn the_activator_runs_in_an_empty_root() {
    assert!(rustix::process::geteuid().is_root(), "chroot needs root: run tests/run as root or with sudo");
    let (code, text) = alone(&activator_binary(), &["--help"]);
    assert!(code == 0 && text.starts_with("Usage: sarsen-activator"), "{code}: {text}");
}

//! What nobody confirms does not stay, on real hosts: a generation that cuts its own host off, and one whose host crashes meanwhile.

use std::thread;

use crate::full::rounds;
use crate::lab::Lab;
use crate::world::{World, eventually};

const NOTE: &str = "cat /var/lib/sarsen/profiles/cutting/current/note/note";
const AFTER: &str = "cat /run/after 2>/dev/null || true";
const TICKS: &str = "cat /var/lib/sarsen/state/cutting/note/ticks/log 2>/dev/null || true";

/// How long the hosts of these tests wait for a confirmation, in seconds.
const CONFIRM_SECONDS: &str = "5";

/// How long a host may be cut off by its own generation, in seconds: the time for the confirmation, and two for all the rest.
const CUT_SECONDS_MAX: f64 = 7.0;

/// The operator needs most of a minute to give a lost connection up, so this is done once where other faults are done so often.
const ROUNDS_PER_CUT: usize = 5;

/// A crash and its boot take some seconds.
const ROUNDS_PER_CRASH: usize = 2;

#[test]
fn a_generation_that_cuts_its_host_off_is_given_up_by_the_host_itself() {
    let lab = Lab::start("trial", &[("web1", 11)]);
    let operator = lab.operator(World::of("cutting"));
    operator.sarsen(&["deploy", "lab", "--yes"]).expect(0);
    assert_eq!(lab.on("web1", NOTE), "version 1");
    operator.append("environments/lab/environment.toml", "\n[components.note]\ncut = true\nversion = \"2\"\n");
    for _ in 0..rounds().div_ceil(ROUNDS_PER_CUT) {
        // The operator loses the connection, asks again when the host is back, and learns how it ended.
        operator.sarsen(&["deploy", "lab", "--yes", "--confirm-timeout", CONFIRM_SECONDS]).expect(4).says("web1");

        eventually("the host is back in the network", || lab.reaches("web1"));
        eventually("the host is back at its recorded generation", || lab.on("web1", NOTE) == "version 1");
        operator.sarsen(&["status", "lab"]).expect(0);
        let times: Vec<f64> = lab.on("web1", "cat /run/cut /run/mended").lines().map(|line| line.parse().expect("seconds")).collect();
        let seconds = times[1] - times[0];
        println!("cut off for {seconds:.2} s");
        assert!(seconds > 0.0 && seconds <= CUT_SECONDS_MAX, "the host was cut off for {seconds} s");
        lab.on("web1", "rm /run/cut /run/mended");
    }
    operator.edit("environments/lab/environment.toml", "cut = true", "cut = false");
    operator.sarsen(&["deploy", "lab", "--yes"]).expect(0);
    assert_eq!(lab.on("web1", NOTE), "version 2");
}

#[test]
fn a_host_that_crashes_during_a_trial_boots_into_its_recorded_generation() {
    let lab = Lab::start("boot", &[("web1", 11)]);
    let operator = lab.operator(World::of("cutting"));
    operator.append("environments/lab/environment.toml", "\n[components.note]\nstall = false\ntick = true\nversion = \"1\"\n");
    operator.sarsen(&["deploy", "lab", "--yes"]).expect(0);
    eventually("the timer starts its job", || lab.on("web1", TICKS).contains('1'));
    operator.edit("environments/lab/environment.toml", "stall = false", "stall = true");
    operator.edit("environments/lab/environment.toml", "version = \"1\"", "version = \"2\"");
    for round in 0..rounds().div_ceil(ROUNDS_PER_CRASH) {
        thread::scope(|scope| {
            let deployment = scope.spawn(|| operator.sarsen(&["deploy", "lab", "--yes"]));
            eventually("version 2 is on trial", || lab.on("web1", NOTE) == "version 2");
            if round % 2 == 0 {
                lab.crash("web1");
            } else {
                lab.reboot("web1");
            }
            let run = deployment.join().expect("the deployment ends");
            assert!([4, 6].contains(&run.code), "rolled back, or not known yet: {} {}", run.code, run.stderr);
        });
        assert_eq!(lab.on("web1", NOTE), "version 1");
        assert_eq!(lab.on("web1", "ls /var/lib/sarsen/profiles/cutting/pending.json 2>/dev/null || true"), "");
        lab.on("web1", "rm /var/lib/sarsen/state/cutting/note/ticks/log");
        eventually("the timer starts the recorded generation's job after the boot", || lab.on("web1", TICKS).contains('1'));
        // Who settles at boot has ended before what starts managed units begins.
        let settled = lab.on("web1", "systemctl show -P Result 'sarsen-settle-*.service' sarsen-settle.service | sort -u");
        assert_eq!(settled.trim(), "success");
    }
    operator.edit("environments/lab/environment.toml", "stall = true", "stall = false");
    operator.sarsen(&["deploy", "lab", "--yes"]).expect(0);
    assert_eq!(lab.on("web1", NOTE), "version 2");
    eventually("the timer starts the new job", || lab.on("web1", TICKS).contains('2'));
    operator.sarsen(&["deploy", "lab", "--yes"]).expect(0).says("nothing to do");

    operator.edit("environments/lab/environment.toml", "tick = true", "tick = false\nafter_confirmation = true");
    operator.sarsen(&["deploy", "lab", "--yes"]).expect(0);
    assert_eq!(
        lab.on("web1", "systemctl list-unit-files --no-legend 'note-tick*'; systemctl list-units --all --no-legend 'note-tick.timer'"),
        ""
    );

    // A hook that failed after the confirmation is not lost: nothing else is to be done, and it runs all the same, until it has succeeded.
    assert_eq!(lab.on("web1", AFTER), "");
    operator.sarsen(&["deploy", "lab", "--yes"]).expect(0);
    assert_eq!(lab.on("web1", AFTER), "", "the host is not ready yet");
    lab.on("web1", "touch /run/ready");
    operator.sarsen(&["deploy", "lab", "--yes"]).expect(0);
    eventually("the hook has run", || lab.on("web1", AFTER) == "2");
    operator.sarsen(&["deploy", "lab", "--yes"]).expect(0).says("nothing to do");
    assert_eq!(lab.on("web1", AFTER), "2");
}

//! What nobody confirms does not stay, on real hosts: a generation that cuts its own host off, and one whose host crashes meanwhile.

use std::thread;

use crate::lab::Lab;
use crate::world::{World, eventually};

const NOTE: &str = "cat /var/lib/sarsen/profiles/cutting/current/note/note";
const AFTER: &str = "cat /run/after 2>/dev/null || true";
const TICKS: &str = "cat /var/lib/sarsen/state/cutting/note/ticks/log 2>/dev/null || true";

#[test]
fn a_generation_that_cuts_its_host_off_is_given_up_by_the_host_itself() {
    let lab = Lab::start("trial", &[("web1", 11)]);
    let operator = lab.operator(World::of("cutting"));
    operator.sarsen(&["deploy", "lab", "--yes"]).expect(0);
    assert_eq!(lab.on("web1", NOTE), "version 1");

    operator.append("environments/lab/environment.toml", "\n[components.note]\ncut = true\nversion = \"2\"\n");
    // The operator loses the connection, asks again when the host is back, and learns how it ended.
    operator.sarsen(&["deploy", "lab", "--yes"]).expect(4).says("web1");

    eventually("the host is back in the network", || lab.reaches("web1"));
    eventually("the host is back at its recorded generation", || lab.on("web1", NOTE) == "version 1");
    operator.sarsen(&["status", "lab"]).expect(0);

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
    thread::scope(|scope| {
        let deployment = scope.spawn(|| operator.sarsen(&["deploy", "lab", "--yes"]));
        eventually("version 2 is on trial", || lab.on("web1", NOTE) == "version 2");
        lab.crash("web1");
        let run = deployment.join().expect("the deployment ends");
        assert!([4, 6].contains(&run.code), "rolled back, or not known yet: {} {}", run.code, run.stderr);
    });
    assert_eq!(lab.on("web1", NOTE), "version 1");
    assert_eq!(lab.on("web1", "ls /var/lib/sarsen/profiles/cutting/pending.json 2>/dev/null || true"), "");
    lab.on("web1", "rm /var/lib/sarsen/state/cutting/note/ticks/log");
    eventually("the timer starts the recorded generation's job after the boot", || lab.on("web1", TICKS).contains('1'));

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

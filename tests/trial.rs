//! What nobody confirms does not stay: a generation that cuts its own host off, on a real host.

use crate::lab::Lab;
use crate::world::{World, eventually};

const NOTE: &str = "cat /var/lib/sarsen/profiles/cutting/current/note/note";

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

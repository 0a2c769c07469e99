//! What a user meets first when something is wrong: each message with its place and its way out, and the exit code.

use std::net::TcpListener;

use insta::assert_snapshot;

use crate::world::{World, free_port};

#[test]
fn no_project_here() {
    let world = World::empty();
    assert_snapshot!(world.sarsen(&["plan", "dev"]).expect(2).snapshot());
}

#[test]
fn unknown_environment() {
    let world = World::of("hello");
    world.write("environments/prod/environment.toml", "[environment]\nconnect = \"local\"\n\n[hosts]\nlocalhost = [\"hello\"]\n");
    assert_snapshot!(world.sarsen(&["plan", "dve"]).expect(2).snapshot());
}

#[test]
fn no_environment_at_all() {
    let world = World::empty();
    world.write("sarsen.toml", "[project]\nname = \"new\"\nstor = \"x\"\n");
    assert_snapshot!(world.sarsen(&["check"]).expect(2).snapshot());
}

#[test]
fn no_hosts() {
    let world = World::of("hello");
    world.write("environments/dev/environment.toml", "[environment]\nconnect = \"local\"\n");
    assert_snapshot!(world.sarsen(&["deploy", "dev", "--yes"]).expect(2).snapshot());
}

#[test]
fn a_reader_that_went_away_does_not_make_a_failure_a_success() {
    let world = World::of("hello").through(&["bash", "-c", r#"exec {gone}> >(:); wait $!; exec "$0" "$@" >&"$gone""#]);
    world.sarsen(&["check", "--format", "json"]).expect(0);
    world.edit("environments/dev/environment.toml", "connect =", "conect =");
    world.sarsen(&["check", "--format", "json"]).expect(2).says("1 environment: 1 error");
}

#[test]
fn unknown_component() {
    let world = World::of("hello");
    world.edit("environments/dev/environment.toml", "\"hello\"", "\"helo\"");
    assert_snapshot!(world.sarsen(&["plan", "dev"]).expect(2).snapshot());
}

#[test]
fn unknown_setting() {
    let world = World::of("hello");
    world.edit("environments/dev/environment.toml", "connect =", "conect =");
    assert_snapshot!(world.sarsen(&["plan", "dev"]).expect(2).snapshot());
}

#[test]
fn syntax_error() {
    let world = World::of("hello");
    world.edit("components/hello/component.star", "def configure(self):", "def configure(self)");
    assert_snapshot!(world.sarsen(&["plan", "dev"]).expect(2).snapshot());
}

#[test]
fn wrong_type_of_an_attribute() {
    let world = World::of("hello");
    world.append("environments/dev/environment.toml", "\n[components.hello]\nport = \"eighty\"\n");
    assert_snapshot!(world.sarsen(&["plan", "dev"]).expect(2).snapshot());
}

#[test]
fn undefined_template_variable() {
    let world = World::of("hello");
    world.append("components/hello/page.html.j2", "<p>{{ component.greting }}</p>\n");
    assert_snapshot!(world.sarsen(&["plan", "dev"]).expect(2).snapshot());
}

#[test]
fn unsatisfied_requirement() {
    let world = World::of("shop");
    world.edit("environments/lab/environment.toml", "app1 = [\"app\"]\napp2 = [\"app\"]\n", "");
    assert_snapshot!(world.sarsen(&["plan", "lab"]).expect(2).snapshot());
}

#[test]
fn several_mistakes_at_once() {
    let world = World::of("hello");
    world.edit("environments/dev/environment.toml", "connect =", "conect =");
    world.write("components/other/component.star", "def configure(self):\n    self.add(\n\nOther = component(configure = configure)\n");
    world.append("components/hello/component.star", "\nAlso = component(configure = configur)\n");
    assert_snapshot!(world.sarsen(&["plan", "dev"]).expect(2).snapshot());
}

#[test]
fn failing_build() {
    let world = World::of("cutoff");
    world.edit("components/cutoff/component.star", "\"grep -v", "\"echo no stones today >&2; exit 3; grep -v");
    let run = world.sarsen(&["build", "dev"]).expect(1);
    // The log is named by the recipe, which knows the machine's toolchain.
    let logs: Vec<_> = std::fs::read_dir(world.root().join("log")).expect("the logs").flatten().map(|entry| entry.file_name()).collect();
    assert_eq!(logs.len(), 1, "{logs:?}");
    assert_snapshot!(run.snapshot().replace(logs[0].to_str().expect("a UTF-8 name"), "$LOG"));
}

#[test]
fn unreachable_host() {
    let world = World::of("touch");
    // A name that no resolver knows, by RFC 6761.
    world.write(
        "environments/far/environment.toml",
        "[environment]\nhost_domain = \"invalid\"\ntimeout = 5\n\n[hosts]\nweb1 = [\"touch\"]\n",
    );
    assert_snapshot!(world.sarsen(&["deploy", "far", "--yes"]).expect(3).snapshot());
}

#[test]
fn failing_health_check() {
    let world = World::of("hello");
    let port = free_port();
    world.append("environments/dev/environment.toml", &format!("\n[components.hello]\nport = {port}\n"));
    world.edit(
        "components/hello/component.star",
        "http = \"http://127.0.0.1:%d/\" % self.port, timeout = 10",
        "http = \"http://127.0.0.1:%d/\" % self.port, status = 204, timeout = 1",
    );
    let run = world.sarsen(&["deploy", "dev", "--yes"]).expect(4);
    assert_snapshot!(run.snapshot().replace(&port.to_string(), "$PORT"));
}

#[test]
fn requirement_not_met() {
    let world = World::of("hello");
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("an address").port();
    world.append("environments/dev/environment.toml", &format!("\n[components.hello]\nport = {port}\n"));
    world.edit("components/hello/component.star", "    page = ", "    self.add(Requirement(port = self.port))\n    page = ");
    let run = world.sarsen(&["deploy", "dev", "--yes"]).expect(3);
    let comm = std::fs::read_to_string("/proc/self/comm").expect("the name of this process");
    let this = format!("process {} (`{}`)", std::process::id(), comm.trim());
    assert_snapshot!(run.snapshot().replace(&this, "process $THIS").replace(&port.to_string(), "$PORT"));
}

#[test]
fn nothing_to_roll_back_to() {
    let world = World::of("touch");
    world.append("environments/dev/environment.toml", &format!("\n[components.touch]\nfile = \"{}/touched\"\n", world.path().display()));
    assert_snapshot!("never_deployed", world.sarsen(&["rollback", "dev", "--yes"]).expect(1).snapshot());
    world.sarsen(&["deploy", "dev", "--yes"]).expect(0);
    assert_snapshot!("deployed_once", world.sarsen(&["rollback", "dev", "--yes"]).expect(1).snapshot());
    assert_snapshot!("no_such_generation", world.sarsen(&["rollback", "dev", "--to", "7", "--yes"]).expect(1).snapshot());
}

#[test]
fn no_terminal_to_ask_on() {
    let world = World::of("touch");
    assert_snapshot!(world.sarsen(&["deploy", "dev"]).expect(2).snapshot());
}

#[test]
fn a_host_of_another_environment() {
    let world = World::of("touch");
    world.append("environments/dev/environment.toml", &format!("\n[components.touch]\nfile = \"{}/touched\"\n", world.path().display()));
    world.write("environments/prod/environment.toml", "[environment]\nextends = \"dev\"\n");
    world.sarsen(&["deploy", "dev", "--yes"]).expect(0);
    assert_snapshot!(world.sarsen(&["deploy", "prod", "--yes"]).expect(3).snapshot());
    world.sarsen(&["deploy", "prod", "--yes", "--take-over", "--reason", "dev has moved"]).expect(0);
    let history = world.sarsen(&["history", "prod"]).expect(0);
    for words in ["take-over", "environment `dev`", "dev has moved"] {
        assert!(history.stdout.contains(words), "{}", history.stdout);
    }
    world.sarsen(&["deploy", "dev", "--yes"]).expect(3);
}

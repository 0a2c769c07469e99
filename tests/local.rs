//! Deployments to this machine: the seed's `touch`, `tick`, and `hello` of the README, as root and as nobody, under the
//! development supervisor.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::world::{NOBODY, World, eventually, free_port, http_get};

/// `hello` on a port of its own.
fn hello() -> (World, SocketAddr) {
    let (world, port) = (World::of("hello"), free_port());
    world.append("environments/dev/environment.toml", &format!("\n[components.hello]\nport = {port}\n"));
    (world, SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
}

fn page(address: SocketAddr) -> String {
    http_get(address, "/").map(|(status, body)| format!("{status} {body}")).unwrap_or_default()
}

/// What lies in the profile, so that "nothing changed" can be told: link, generations, journal.
fn profile(world: &World) -> Vec<(String, Option<fs::FileType>, u64)> {
    use std::os::unix::fs::MetadataExt;
    let mut entries = Vec::new();
    let mut directories = vec![world.root().join("profiles")];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).expect("a directory of the profile").flatten() {
            let metadata = entry.path().symlink_metadata().expect("an entry of the profile");
            // The supervisor's log and state are its services' business.
            if metadata.is_dir() {
                directories.push(entry.path());
            }
            entries.push((entry.path().display().to_string(), Some(metadata.file_type()), metadata.ino()));
        }
    }
    entries.sort_by(|left, right| left.0.cmp(&right.0));
    entries
}

#[test]
fn touch_makes_its_file_and_then_has_nothing_to_do() {
    let world = World::of("touch");
    let file = world.path().join("touched");
    world.append("environments/dev/environment.toml", &format!("\n[components.touch]\nfile = \"{}\"\n", file.display()));
    world.sarsen(&["deploy", "dev", "--yes"]).expect(0);
    assert!(file.exists());
    world.sarsen(&["deploy", "dev", "--yes"]).expect(0).says("nothing to do");
    fs::remove_file(&file).expect("the file");
    world.append("environments/dev/environment.toml", "\n");
    world.sarsen(&["deploy", "dev", "--yes"]).expect(0).says("nothing to do");
    assert!(!file.exists(), "a hook runs when a generation is activated, and at no other time");
}

#[test]
fn old_generations_are_given_up_as_the_plan_said() {
    let world = World::of("touch");
    world.append("sarsen.toml", "\n[retention]\nkeep_last = 2\nkeep_days = 0\n");
    for number in 1..=4 {
        let file = world.path().join(format!("touched-{number}"));
        world.write(
            "environments/dev/environment.toml",
            &format!(
                "[environment]\nconnect = \"local\"\n\n[hosts]\nlocalhost = [\"touch\"]\n\n[components.touch]\nfile = \"{}\"\n",
                file.display()
            ),
        );
        let planned = world.sarsen(&["plan", "dev"]).expect(0);
        let deployed = world.sarsen(&["deploy", "dev", "--yes"]).expect(0);
        // The newest two stay.
        if let Some(expired) = (number > 2).then(|| number - 2) {
            planned.says(&format!("give up  generation  {expired}"));
            deployed.says(&format!("gave up generation {expired}"));
        }
    }
    let history = world.sarsen(&["history", "dev"]).expect(0).snapshot();
    assert_eq!(history.matches("given up").count(), 2, "{history}");
    world.sarsen(&["rollback", "dev", "--to", "1", "--yes"]).expect(1).says("generation 1 was given up by the project's retention");
    // Generation 4 is current, and a rollback from it would return to 3.
    world.sarsen(&["store", "gc", "--keep-last", "1"]).expect(0).says("0 objects to remove");
    world.sarsen(&["rollback", "dev", "--yes"]).expect(0);
}

#[test]
fn a_service_that_is_gone_is_not_reported_as_nothing_to_do() {
    let (world, address) = hello();
    world.sarsen(&["deploy", "dev", "--yes"]).expect(0);
    world.end_processes();
    world.sarsen(&["status", "dev"]).expect(0).says("hello.service  inactive");
    assert!(world.processes().is_empty(), "to look starts nothing");
    world
        .sarsen(&["plan", "dev"])
        .expect(0)
        .says("it runs generation 1 already, but not as it was left")
        .says("revive  service  hello.service");
    world.sarsen(&["deploy", "dev", "--yes"]).expect(0).says("committed  generation 1");
    assert!(page(address).starts_with("200 "), "{}", page(address));
    world.sarsen(&["deploy", "dev", "--yes"]).expect(0).says("nothing to do");
}

#[test]
fn a_supervisor_that_was_killed_is_an_outage_until_the_next_deployment() {
    let (world, address) = hello();
    world.sarsen(&["deploy", "dev", "--yes"]).expect(0);
    let mut profiles = fs::read_dir(world.root().join("profiles")).expect("the profiles").flatten();
    let pid_file = profiles.next().expect("a profile").path().join("supervisor.pid");
    let pid = fs::read_to_string(&pid_file).expect("the supervisor's number");
    let keeper = pid.trim().parse().ok().and_then(Pid::from_raw).expect("a number");
    kill_process(keeper, Signal::KILL).expect("the supervisor was there");
    // The worker that it leaves behind stops the service in good order, then ends.
    eventually("its worker ends", || world.processes().is_empty());
    world.sarsen(&["status", "dev"]).expect(0).says("hello.service  inactive");
    world.sarsen(&["plan", "dev"]).expect(0).says("revive  service  hello.service");
    assert!(world.processes().is_empty() && !pid_file.exists(), "to look starts nothing");
    world.sarsen(&["deploy", "dev", "--yes"]).expect(0).says("committed  generation 1");
    assert!(page(address).starts_with("200 "), "{}", page(address));
}

#[test]
fn a_broken_definition_is_no_obstacle_on_the_way_back() {
    let (world, address) = hello();
    world.sarsen(&["deploy", "dev", "--yes"]).expect(0);
    world.append("environments/dev/environment.toml", "greeting = \"Good evening\"\n");
    world.sarsen(&["deploy", "dev", "--yes"]).expect(0);
    world.append("components/hello/component.star", "oops(\n");
    world.sarsen(&["deploy", "dev", "--yes"]).expect(2);
    world.sarsen(&["history", "dev"]).expect(0).says("*  2  committed");
    world.sarsen(&["rollback", "dev", "--yes"]).expect(0);
    world.sarsen(&["status", "dev"]).expect(0).says("generation 1");
    assert!(page(address).contains("Hello from sarsen"), "{}", page(address));
}

#[test]
fn tick_writes_to_its_state_directory() {
    let world = World::of("tick");
    world.sarsen(&["deploy", "dev", "--yes"]).expect(0);
    let ticks = world.root().join("state/tick/tick/data/ticks");
    eventually("the service writes", || fs::read_to_string(&ticks).is_ok_and(|text| text.contains("tick on localhost\n")));
    // Another attribute, another script, a restart; the data stays.
    world.append("environments/dev/environment.toml", "\n[components.tick]\nsleep = 2\n");
    let before = fs::read_to_string(&ticks).expect("ticks");
    world.sarsen(&["deploy", "dev", "--yes"]).expect(0);
    assert!(fs::read_to_string(&ticks).expect("ticks").starts_with(&before));
}

#[test]
fn hello_answers_and_a_second_deployment_changes_nothing() {
    let (world, address) = hello();
    world.sarsen(&["deploy", "dev", "--yes"]).expect(0);
    assert!(page(address).starts_with("200 "), "{}", page(address));
    assert!(page(address).contains("Hello from sarsen, on localhost in environment dev."));
    let (processes, files) = (world.processes(), profile(&world));
    let second = world.sarsen(&["deploy", "dev", "--yes"]).expect(0).says("nothing to do");
    assert!(second.took < Duration::from_secs(2), "{:?}", second.took);
    assert_eq!(world.processes(), processes, "the service goes on as it was");
    assert_eq!(profile(&world), files, "the profile is as it was");
}

#[test]
fn hello_as_nobody_changes_and_rolls_back() {
    let (world, address) = hello();
    let world = world.owned_by(NOBODY);
    world.sarsen(&["deploy", "dev", "--yes"]).expect(0);
    assert!(page(address).contains("Hello from sarsen"), "{}", page(address));
    world.append("environments/dev/environment.toml", "greeting = \"Good morning\"\n");
    world.sarsen(&["plan", "dev"]).expect(0).says("hello.service");
    assert!(page(address).contains("Hello from sarsen"), "a plan changes nothing");
    world.sarsen(&["deploy", "dev", "--yes"]).expect(0);
    assert!(page(address).contains("Good morning"), "{}", page(address));
    world.sarsen(&["rollback", "dev", "--yes"]).expect(0);
    assert!(page(address).contains("Hello from sarsen"), "{}", page(address));
    world.sarsen(&["rollback", "dev", "--to", "2", "--yes"]).expect(0);
    assert!(page(address).contains("Good morning"), "{}", page(address));
    world.sarsen(&["status", "dev"]).expect(0).says("hello.service  active");
    let history = world.sarsen(&["history", "dev", "--format", "json"]).expect(0).json();
    assert!(history.to_string().contains("\"number\":2"), "{history}");
}

#[test]
fn a_failed_health_check_brings_the_recorded_generation_back() {
    let (world, address) = hello();
    world.sarsen(&["deploy", "dev", "--yes"]).expect(0);
    world.append("environments/dev/environment.toml", "greeting = \"Good morning\"\n");
    world.edit("components/hello/component.star", "timeout = 10", "status = 204, timeout = 1");
    world.sarsen(&["deploy", "dev", "--yes"]).expect(4);
    assert!(page(address).contains("Hello from sarsen"), "{}", page(address));
    let current = fs::read_link(world.root().join("profiles/hello/current")).expect("current");
    assert_eq!(current.to_str(), Some("gen/1"));
}

#[test]
fn the_supervisor_starts_a_killed_service_again() {
    let (world, address) = hello();
    world.sarsen(&["deploy", "dev", "--yes"]).expect(0);
    let server = |world: &World| -> Vec<Pid> {
        let named = |pid: &Pid| fs::read_to_string(format!("/proc/{}/comm", pid.as_raw_nonzero())).is_ok_and(|name| name.trim() == "hello");
        world.processes().into_iter().filter(named).collect()
    };
    let before = server(&world);
    assert_eq!(before.len(), 1, "one server");
    kill_process(before[0], Signal::KILL).expect("the server can be killed");
    eventually("another process serves", || {
        server(&world).first().is_some_and(|pid| *pid != before[0]) && page(address).starts_with("200 ")
    });
}

#[test]
fn a_build_is_done_once_and_a_comment_upstream_stops_where_it_changes_nothing() {
    let world = World::of("cutoff");
    let first = world.sarsen(&["build", "dev", "--format", "json"]).expect(0);
    let second = world.sarsen(&["build", "dev", "--format", "json"]).expect(0).says("0 built");
    assert_eq!(first.stdout, second.stdout);
    world.edit("components/cutoff/words.txt", "changing it", "having changed it");
    let third = world.sarsen(&["build", "dev", "--format", "json"]).expect(0).says("1 built");
    assert_eq!(first.stdout, third.stdout);
}

#[test]
fn the_store_verifies_and_finds_a_flipped_bit() {
    use std::os::unix::fs::PermissionsExt;
    let world = World::of("touch");
    world.write("components/touch/note.txt", "note\n");
    world.edit("components/touch/component.star", "    self.add(Hook(", "    self.add(File(\"note.txt\"))\n    self.add(Hook(");
    world.sarsen(&["build", "dev"]).expect(0);
    world.sarsen(&["store", "verify"]).expect(0);
    let objects = fs::read_dir(world.root().join("store")).expect("the store").flatten();
    let note = objects.map(|entry| entry.path().join("note.txt")).find(|path| path.exists()).expect("the component's tree");
    fs::set_permissions(&note, fs::Permissions::from_mode(0o644)).expect("the note");
    fs::write(&note, "nota\n").expect("the note");
    fs::set_permissions(&note, fs::Permissions::from_mode(0o444)).expect("the note");
    world.sarsen(&["store", "verify"]).expect(1).says("note.txt");
}

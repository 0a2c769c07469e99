//! Same project, same environment, same bundle: whatever the directory, user, umask, time zone, locale or number of workers.

use std::fs;

use crate::world::{NOBODY, World};

/// A project with every kind of step that makes content, for hosts whose store lies in one known place.
fn project() -> World {
    let world = World::of("hello");
    for component in ["tick", "cutoff"] {
        let from = crate::world::repository().join("fixtures/projects").join(component).join("components").join(component);
        crate::world::copy_tree(&from, &world.project().join("components").join(component));
    }
    let environment =
        "[environment]\nhost_domain = \"example.net\"\n\n[hosts]\nweb1 = [\"hello\", \"tick\"]\nweb2 = [\"cutoff\", \"hello\"]\n";
    world.write("environments/remote/environment.toml", environment);
    world
}

/// The bundles of both hosts, as `sarsen build` prints them.
fn bundles(world: &World, jobs: &str) -> String {
    let output = world.sarsen(&["build", "remote", "--format", "json", "--jobs", jobs]).expect(0).stdout;
    assert!(output.contains("web1") && output.contains("web2"), "{output}");
    output
}

#[test]
fn bundles_are_the_same_wherever_and_however_they_are_built() {
    let reference = bundles(&project(), "1");
    let again = project();
    assert_eq!(bundles(&again, "8"), reference, "eight workers in another directory");
    assert_eq!(bundles(&again, "8"), reference, "a second time");
    let umask = project().through(&["sh", "-c", "umask 077; exec \"$@\"", "sh"]);
    assert_eq!(bundles(&umask, "8"), reference, "umask 077");
    let elsewhere = project().with("TZ", "Pacific/Chatham").with("LANG", "de_DE.UTF-8").with("LC_ALL", "tr_TR.UTF-8");
    assert_eq!(bundles(&elsewhere, "2"), reference, "another time zone and locale");
    assert_eq!(bundles(&project().owned_by(NOBODY), "8"), reference, "another user");
}

#[test]
fn the_order_of_files_on_disk_does_not_matter() {
    let reference = bundles(&project(), "2");
    let world = project();
    // Written again in the opposite order, with other times.
    let components = world.project().join("components");
    for name in ["tick", "hello", "cutoff"] {
        let files: Vec<_> = fs::read_dir(components.join(name)).expect("a component").flatten().map(|entry| entry.path()).collect();
        for file in files.iter().rev() {
            let content = fs::read(file).expect("a file");
            fs::remove_file(file).expect("a file");
            fs::write(file, content).expect("a file");
        }
    }
    assert_eq!(bundles(&world, "2"), reference);
}

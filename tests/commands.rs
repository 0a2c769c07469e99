//! The commands that only look, and the small ones: what they print, for people and for programs.

use insta::assert_snapshot;

use crate::world::World;

/// `hello` with a place in the world that does not vary, so that its texts do not either.
fn hello() -> World {
    let world = World::of("hello");
    world.edit("environments/dev/environment.toml", "connect = \"local\"", "connect = \"local\"\nroot = \"/srv/sarsen\"");
    world
}

#[test]
fn help_is_one_screen() {
    let world = World::empty();
    assert_snapshot!(world.sarsen(&["--help"]).expect(0).snapshot());
}

#[test]
fn a_new_project_is_complete() {
    let world = World::empty();
    world.sarsen(&["init"]).expect(0);
    world.sarsen(&["check"]).expect(0);
    world.sarsen(&["init"]).expect(2).says("sarsen.toml");
}

#[test]
fn check_covers_all_environments() {
    let world = World::of("hello");
    world.write("environments/prod/environment.toml", "[environment]\n\n[hosts]\nweb1 = [\"helo\"]\n");
    world.sarsen(&["check"]).expect(2).says("environments/prod/environment.toml:4:9");
    world.sarsen(&["check", "dev"]).expect(0);
}

#[test]
fn components_and_the_language_are_explained() {
    let world = World::of("tick");
    assert_snapshot!("explain_components", world.sarsen(&["explain"]).expect(0).snapshot());
    assert_snapshot!("explain_tick", world.sarsen(&["explain", "Tick"]).expect(0).snapshot());
    assert_snapshot!("explain_directory", World::empty().sarsen(&["explain", "Directory"]).expect(0).snapshot());
    assert_snapshot!("explain_unknown", world.sarsen(&["explain", "tcik"]).expect(2).snapshot());
    let document = world.sarsen(&["explain", "tick", "--format", "json"]).expect(0).json();
    assert_eq!(document["components"][0]["attributes"][0]["name"], "sleep");
}

#[test]
fn show_prints_the_model() {
    assert_snapshot!("show_hello", hello().sarsen(&["show", "dev"]).expect(0).snapshot());
    assert_snapshot!("show_shop", World::of("shop").sarsen(&["show", "lab"]).expect(0).snapshot());
    assert_snapshot!("show_shop_dot", World::of("shop").sarsen(&["show", "lab", "--dot"]).expect(0).snapshot());
    let document = World::of("environments").sarsen(&["show", "dev", "--origin", "--format", "json"]).expect(0).json();
    let origins = &document["hosts"][4]["components"][0]["origins"];
    let by = |name: &str| origins[name]["by"].as_str().unwrap_or_default().to_owned();
    assert_eq!((by("port"), by("workers"), by("level")), ("host `web03`".to_owned(), "group `big`".to_owned(), "environment".to_owned()));
    assert_eq!(origins["level"]["at"].as_str(), Some("environments/dev/environment.toml:6:1"));
    let document = hello().sarsen(&["show", "dev", "--format", "json"]).expect(0).json();
    assert_eq!((document["version"].as_u64(), document["project"].as_str()), (Some(1), Some("hello")));
}

#[test]
fn plan_prints_what_would_change_and_changes_nothing() {
    let world = World::of("touch");
    assert_snapshot!(world.sarsen(&["plan", "dev"]).expect(0).snapshot());
    let document = world.sarsen(&["plan", "dev", "--format", "json"]).expect(0).json();
    assert_eq!(document["version"].as_u64(), Some(1));
    assert_eq!(document["hosts"][0]["plan"]["hooks"][0].as_str(), Some("touch/touch"));
    assert!(!world.root().join("profiles/touch/current").exists());
}

#[test]
fn garbage_is_what_no_generation_needs() {
    let world = World::of("touch");
    let file = world.path().join("touched");
    world.append("environments/dev/environment.toml", &format!("\n[components.touch]\nfile = \"{}\"\n", file.display()));
    world.sarsen(&["deploy", "dev", "--yes"]).expect(0);
    let objects = || std::fs::read_dir(world.root().join("store")).expect("the store").count();
    let needed = objects();
    world.write("components/touch/note.txt", "not deployed\n");
    world.edit("components/touch/component.star", "    self.add(Hook(", "    self.add(File(\"note.txt\"))\n    self.add(Hook(");
    world.sarsen(&["build", "dev"]).expect(0);
    assert!(objects() > needed);
    world.sarsen(&["store", "gc", "--grace", "0", "--yes"]).expect(0);
    assert_eq!(objects(), needed);
    world.sarsen(&["store", "verify"]).expect(0);
    world.sarsen(&["rollback", "dev", "--to", "1", "--yes"]).expect(0);
}

#[test]
fn shells_get_completions() {
    let world = World::empty();
    for shell in ["bash", "zsh", "fish"] {
        world.sarsen(&["completions", shell]).expect(0).says("rollback");
    }
}

//! The commands of `sarsen store`: what they print, what they refuse and how, and that nobody loses an object by them.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;

use insta::assert_snapshot;

use crate::world::World;

/// An empty project's place with a directory of a few files, `site`.
fn world_with_site() -> World {
    let world = World::empty();
    world.write("site/index.html", "<h1>one</h1>\n");
    world.write("site/css/style.css", "h1 { color: teal }\n");
    world.write("site/serve", "#!/bin/sh\n");
    fs::set_permissions(world.project().join("site/serve"), fs::Permissions::from_mode(0o755)).expect("the script");
    symlink("index.html", world.project().join("site/start")).expect("the link");
    world
}

fn add(world: &World, directory: &str) -> String {
    world.sarsen(&["store", "add", directory]).expect(0).stdout.trim_end().to_owned()
}

/// The second version of `site`.
fn add_changed_site(world: &World) -> String {
    world.write("site/index.html", "<h1>two</h1>\n");
    world.write("site/news/today.html", "<p>news</p>\n");
    fs::remove_file(world.project().join("site/start")).expect("the link");
    fs::set_permissions(world.project().join("site/serve"), fs::Permissions::from_mode(0o644)).expect("the script");
    add(world, "site")
}

/// Changes a byte of a file behind the store's back, as decay does: the times stay.
fn damage(path: &PathBuf) {
    let modified = fs::metadata(path).and_then(|metadata| metadata.modified()).expect("the file");
    let mut bytes = fs::read(path).expect("the file");
    bytes[0] ^= 1;
    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).expect("the file");
    fs::write(path, bytes).expect("the file");
    fs::File::options().write(true).open(path).and_then(|file| file.set_modified(modified)).expect("the file");
    fs::set_permissions(path, fs::Permissions::from_mode(0o444)).expect("the file");
}

#[test]
fn a_directory_becomes_an_object() {
    let world = world_with_site();
    let first = world.sarsen(&["store", "add", "site"]).expect(0);
    assert_snapshot!("add", first.snapshot());
    let object = first.stdout.trim_end();
    let again = world.sarsen(&["store", "add", "site", "--format", "json"]).expect(0).json();
    assert_eq!((again["version"].as_u64(), again["object"].as_str(), again["new"].as_bool()), (Some(1), Some(object), Some(false)));
    let named = world.sarsen(&["store", "add", "site", "--name", "other"]).expect(0);
    assert!(named.stdout.trim_end().ends_with("-other"));
    let path = world.root().join("store").join(object);
    for text in [object, &object[..32], &object[..8], path.to_str().expect("UTF-8"), path.join("css").to_str().expect("UTF-8")] {
        assert_eq!(world.sarsen(&["store", "path", text]).expect(0).stdout.trim_end(), path.display().to_string(), "{text}");
    }
}

#[test]
fn what_cannot_be_added() {
    let world = world_with_site();
    world.write("two words/x", "x");
    assert_snapshot!("add_file", world.sarsen(&["store", "add", "site/index.html"]).expect(2).snapshot());
    assert_snapshot!("add_nothing", world.sarsen(&["store", "add", "sight"]).expect(2).snapshot());
    assert_snapshot!("add_unnameable", world.sarsen(&["store", "add", "two words"]).expect(2).snapshot());
    assert_snapshot!("add_the_store", world.sarsen(&["store", "add", "../data"]).expect(2).snapshot());
    let fifo = world.project().join("site/pipe");
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, 0o600.into(), 0).expect("a fifo");
    assert_snapshot!("add_fifo", world.sarsen(&["store", "add", "site"]).expect(1).snapshot());
    assert_eq!(world.sarsen(&["store", "ls"]).expect(0).stdout, "");
}

#[test]
fn objects_and_their_files_are_listed() {
    let world = world_with_site();
    let object = add(&world, "site");
    assert_snapshot!("ls", world.sarsen(&["store", "ls"]).expect(0).snapshot());
    assert_snapshot!("ls_object", world.sarsen(&["store", "ls", &object]).expect(0).snapshot());
    assert_snapshot!("ls_object_json", world.sarsen(&["store", "ls", &object, "--format", "json"]).expect(0).snapshot());
    let all = world.sarsen(&["store", "ls", "--format", "json"]).expect(0).json();
    assert_eq!((all["objects"][0]["object"].as_str(), all["objects"][0]["files"].as_u64()), (Some(object.as_str()), Some(3)));
}

#[test]
fn names_of_files_cannot_talk_to_the_terminal() {
    let world = World::empty();
    world.write("site/\u{1b}[31mred\nline", "x");
    symlink("\u{7}bell", world.project().join("site/link")).expect("a link");
    let object = add(&world, "site");
    world.write("other/x", "x");
    let other = add(&world, "other");
    assert_snapshot!("ls_control_characters", world.sarsen(&["store", "ls", &object]).expect(0).snapshot());
    let diff = world.sarsen(&["store", "diff", &other, &object]).expect(0);
    assert!(!diff.stdout.contains(['\u{1b}', '\u{7}']), "{}", diff.stdout);
    assert_eq!(world.sarsen(&["store", "cat", &object, "\u{1b}[31mred\nline"]).expect(0).stdout, "x");
}

#[test]
fn files_are_read_and_checked() {
    let world = world_with_site();
    let object = add(&world, "site");
    let cat = |path: &str| world.sarsen(&["store", "cat", &object, path]);
    assert_eq!(cat("css/style.css").expect(0).stdout, "h1 { color: teal }\n");
    let document = world.sarsen(&["store", "cat", &object, "./serve", "--format", "json"]).expect(0).json();
    assert_eq!((document["text"].as_str(), document["executable"].as_bool()), (Some("#!/bin/sh\n"), Some(true)));
    assert_snapshot!("cat_missing", cat("style.css").expect(1).snapshot());
    assert_snapshot!("cat_directory", cat("css/").expect(1).snapshot());
    assert_snapshot!("cat_link", cat("start").expect(1).snapshot());
    assert_snapshot!("cat_outside", cat("../x").expect(2).snapshot());
    damage(&world.root().join("store").join(&object).join("index.html"));
    assert_snapshot!("cat_damaged", cat("index.html").expect(1).snapshot());
}

#[test]
fn objects_are_compared() {
    let world = world_with_site();
    let (one, two) = (add(&world, "site"), add_changed_site(&world));
    assert_snapshot!("diff", world.sarsen(&["store", "diff", &one, &two]).expect(0).snapshot());
    let document = world.sarsen(&["store", "diff", &one, &two, "--format", "json"]).expect(0).json();
    assert_eq!(document["changed"][0]["path"].as_str(), Some("index.html"));
    assert_eq!(document["changed"][1]["new"]["executable"].as_bool(), Some(false));
    world.sarsen(&["store", "diff", &one, &one]).expect(0).says("0 added, 0 removed, 0 changed");
}

#[test]
fn objects_that_are_not_there() {
    let world = world_with_site();
    let (one, two) = (add(&world, "site"), add_changed_site(&world));
    assert_snapshot!("unknown_object", world.sarsen(&["store", "path", "0000000000000000000000000000000z"]).expect(1).snapshot());
    assert_snapshot!(
        "a_name_is_no_object",
        world.sarsen(&["store", "ls", "site"]).expect(1).snapshot().replace(&one, "").replace(&two, "")
    );
    assert_snapshot!("too_short", world.sarsen(&["store", "ls", "a"]).expect(2).snapshot());
    assert_snapshot!("foreign_path", world.sarsen(&["store", "ls", "/etc/passwd"]).expect(2).snapshot());
    for arguments in [&["cat", "zzzz", "x"][..], &["diff", &one, "zzzz"], &["verify", "zzzz"], &["pin", "x", "zzzz"]] {
        let words: Vec<&str> = ["store"].iter().chain(arguments).copied().collect();
        world.sarsen(&words).expect(1).says("`zzzz` is not in the store").says("sarsen store ls");
    }
}

#[test]
fn damage_is_found_where_it_is() {
    let world = world_with_site();
    let (one, two) = (add(&world, "site"), add_changed_site(&world));
    world.sarsen(&["store", "verify"]).expect(0).says("2 objects verified");
    damage(&world.root().join("store").join(&one).join("index.html"));
    assert_snapshot!("verify", world.sarsen(&["store", "verify", &one]).expect(1).snapshot());
    world.sarsen(&["store", "verify", &two]).expect(0).says("1 object verified");
    let document = world.sarsen(&["store", "verify", "--format", "json"]).expect(1).json();
    let found = document["findings"].as_array().expect("findings").iter();
    let of_object: Vec<_> = found.filter(|finding| finding["object"].as_str() == Some(&one)).collect();
    assert_eq!((of_object.len(), of_object[0]["path"].as_str()), (1, Some("index.html")));
}

#[test]
fn parts_of_the_store_are_verified_in_turn() {
    let world = world_with_site();
    let (one, _) = (add(&world, "site"), add_changed_site(&world));
    damage(&world.root().join("store").join(&one).join("css/style.css"));
    let mut found = BTreeSet::new();
    let mut rounds = 0;
    // The first round starts at the beginning.
    for part in 0.. {
        let document = world.sarsen(&["store", "verify", "--sample", "30%", "--rate", "100", "--format", "json"]).json();
        for finding in document["findings"].as_array().expect("findings") {
            found.insert((finding["path"].as_str().expect("a path").to_owned(), finding["kind"].as_str().expect("a kind").to_owned()));
        }
        rounds = document["sample"]["rounds"].as_u64().expect("rounds");
        if rounds > 0 {
            break;
        }
        assert!(part < 10, "a round has an end");
    }
    assert_eq!(rounds, 1);
    let of_objects: Vec<_> = found.iter().filter(|(path, _)| !path.starts_with("blobs/")).collect();
    assert_eq!((found.len(), of_objects), (2, vec![&("css/style.css".to_owned(), "content".to_owned())]));
    assert_snapshot!("verify_sample_unusable", world.sarsen(&["store", "verify", "--sample", "half"]).expect(2).snapshot());
    assert_snapshot!("verify_rate_unusable", world.sarsen(&["store", "verify", "--rate", "0"]).expect(2).snapshot());
    assert_snapshot!("verify_sample_of_objects", world.sarsen(&["store", "verify", "--sample", "5%", &one]).expect(2).snapshot());
}

#[test]
fn damage_is_repaired_from_another_store_or_an_export() {
    let world = world_with_site();
    let object = add(&world, "site");
    world.sarsen(&["--root", "../data/there", "store", "add", "site"]).expect(0);
    world.sarsen(&["store", "export", &object, "-o", "site.export"]).expect(0);
    let file = world.root().join("store").join(&object).join("index.html");
    for source in ["../data/there", "site.export"] {
        damage(&file);
        let left = world.sarsen(&["store", "repair"]).expect(1);
        left.says("`index.html` in").says("--from");
        let name = if source.starts_with("..") { "repair_store" } else { "repair_export" };
        let time = |text: String| text.replace(char::is_numeric, "N");
        let repaired = world.sarsen(&["store", "repair", "--from", source]).expect(0);
        assert_snapshot!(name, time(repaired.snapshot()));
        assert_eq!(fs::read_to_string(&file).expect("the file"), "<h1>one</h1>\n");
        world.sarsen(&["store", "verify"]).expect(0);
    }
    let document = world.sarsen(&["store", "repair", &object, "--format", "json"]).expect(0).json();
    assert_eq!((document["repaired"].as_array().map(Vec::len), document["left"].as_array().map(Vec::len)), (Some(0), Some(0)));
    world.sarsen(&["store", "du"]).expect(0).says("only you remove them");
    let usage = world.sarsen(&["store", "du", "--format", "json"]).expect(0).json();
    assert_eq!((usage["quarantine"].as_u64(), usage["trash"].as_u64()), (Some(26), Some(0)));
    assert_eq!(world.sarsen(&["store", "gc", "--format", "json"]).expect(0).json()["quarantine"].as_u64(), Some(26));
}

#[test]
fn what_cannot_be_repaired_is_listed_with_what_to_do() {
    let world = world_with_site();
    let object = add(&world, "site");
    damage(&world.root().join("store").join(&object).join("index.html"));
    assert_snapshot!(
        "repair_nothing_to_take",
        world.sarsen(&["store", "repair", &object]).expect(1).snapshot().replace(char::is_numeric, "N")
    );
    assert_snapshot!("repair_no_source", world.sarsen(&["store", "repair", "--from", "site"]).expect(2).snapshot());
    assert_snapshot!("repair_source_missing", world.sarsen(&["store", "repair", "--from", "sight"]).expect(1).snapshot());
    assert_snapshot!("repair_source_not_export", world.sarsen(&["store", "repair", "--from", "site/index.html"]).expect(1).snapshot());
}

#[test]
fn pins_keep_what_else_is_collected() {
    let world = world_with_site();
    let (one, two) = (add(&world, "site"), add_changed_site(&world));
    world.sarsen(&["store", "pin", "front", &two]).expect(0);
    assert_snapshot!("pin_moves", world.sarsen(&["store", "pin", "front", &one]).expect(0).snapshot());
    assert_snapshot!("pins", world.sarsen(&["store", "pin"]).expect(0).snapshot());
    assert_eq!(world.sarsen(&["store", "pin", "--format", "json"]).expect(0).json()["pins"]["front"].as_str(), Some(one.as_str()));
    assert_snapshot!("gc_plan", world.sarsen(&["store", "gc", "--grace", "0"]).expect(0).snapshot());
    let planned = world.sarsen(&["store", "gc", "--grace", "0", "--format", "json"]).expect(0).json();
    assert_eq!((planned["remove"][0]["object"].as_str(), planned["removed"].as_bool()), (Some(two.as_str()), Some(false)));
    world.sarsen(&["store", "gc", "--yes"]).expect(0).says("0 objects to remove");
    world.sarsen(&["store", "path", &two]).expect(0);
    assert_snapshot!("gc", world.sarsen(&["store", "gc", "--grace", "0", "--yes"]).expect(0).snapshot());
    world.sarsen(&["store", "path", &two]).expect(1);
    world.sarsen(&["store", "verify"]).expect(0).says("1 object verified");
    assert_snapshot!("no_such_pin", world.sarsen(&["store", "pin", "--remove", "back"]).expect(1).snapshot());
    world.sarsen(&["store", "pin", "--remove", "front"]).expect(0);
    world.sarsen(&["store", "gc", "--grace", "0", "--yes"]).expect(0).says("removed 1 object");
    world.sarsen(&["store", "pin", "front"]).expect(2).says("<OBJECT>");
}

#[test]
fn the_index_comes_from_the_disk() {
    let world = world_with_site();
    let object = add(&world, "site");
    for end in ["", "-wal", "-shm"] {
        let _ = fs::remove_file(world.root().join(format!("index.sqlite{end}")));
    }
    world.sarsen(&["store", "path", &object]).expect(0);
    fs::write(world.root().join("index.sqlite"), "this is no database, whatever its name says".repeat(100)).expect("the index");
    let rebuilt = world.sarsen(&["store", "rebuild-index", "--format", "json"]).expect(0).json();
    assert_eq!(rebuilt["objects"].as_u64(), Some(1));
    world.sarsen(&["store", "verify", &object]).expect(0);
}

#[test]
fn who_needs_an_object_and_what_it_takes() {
    let world = World::of("touch");
    let file = world.path().join("touched");
    world.append("environments/dev/environment.toml", &format!("\n[components.touch]\nfile = \"{}\"\n", file.display()));
    world.sarsen(&["deploy", "dev", "--yes"]).expect(0);
    let all = world.sarsen(&["store", "ls", "--format", "json"]).expect(0).json();
    let names = all["objects"].as_array().expect("objects").iter().map(|object| object["object"].as_str().expect("a name"));
    let bundle = fs::read_link(world.root().join("profiles/touch/gen/1")).expect("the generation");
    let bundle = bundle.file_name().and_then(|name| name.to_str()).expect("UTF-8");
    let part = names.into_iter().find(|name| *name != bundle).expect("something in the bundle");
    assert_snapshot!("why", world.sarsen(&["store", "why", part]).expect(0).snapshot());
    let reasons = world.sarsen(&["store", "why", part, "--format", "json"]).expect(0).json();
    assert_eq!(reasons["reasons"][0]["root"]["kind"].as_str(), Some("generation"));
    assert_eq!(reasons["reasons"][0]["chain"][0].as_str(), Some(bundle));
    let usage = world.sarsen(&["store", "du", "--format", "json"]).expect(0).json();
    assert_eq!((usage["rows"][0]["object"].as_str(), usage["rows"][0]["generations"][0].as_str()), (Some(bundle), Some("touch/1")));
    assert_eq!(usage["rows"][0]["unique"], usage["total"]["distinct"]);
}

#[test]
fn what_objects_share_is_told() {
    let world = world_with_site();
    let (one, two) = (add(&world, "site"), add_changed_site(&world));
    assert_snapshot!("du", world.sarsen(&["store", "du", &one, &two]).expect(0).snapshot());
    assert_snapshot!("why_nothing", world.sarsen(&["store", "why", &one]).expect(0).snapshot());
    world.sarsen(&["store", "gc", "--grace", "0", "--max-freed", "1", "--yes"]).expect(0).says("removed 1 object");
    assert_snapshot!("gc_unusable_limit", world.sarsen(&["store", "gc", "--max-freed", "some"]).expect(2).snapshot());
}

#[test]
fn exports_are_taken_if_a_trusted_key_signed_them() {
    let world = world_with_site();
    let object = add(&world, "site");
    let key = world.sarsen(&["store", "key", "generate", "me", "-o", "me.key"]).expect(0).stdout.trim_end().to_owned();
    let stranger = world.sarsen(&["store", "key", "generate", "stranger", "-o", "stranger.key"]).expect(0).stdout.trim_end().to_owned();
    assert_eq!(world.sarsen(&["store", "key", "public", "me.key"]).expect(0).stdout.trim_end(), key);
    assert_snapshot!("key_exists", world.sarsen(&["store", "key", "generate", "me", "-o", "me.key"]).expect(2).snapshot());
    assert_snapshot!("key_missing", world.sarsen(&["store", "export", &object, "-o", "x", "--sign", "my.key"]).expect(1).snapshot());
    world.sarsen(&["store", "export", &object, "-o", "signed", "--sign", "me.key"]).expect(0).says("exported 1 object");
    world.sarsen(&["store", "export", &object, "-o", "unsigned"]).expect(0).says("it is not signed");
    let import = |file: &str, key: &str| world.sarsen(&["--root", "../data/there", "store", "import", file, "--trusted-key", key]);
    assert_snapshot!("import_unsigned", import("unsigned", &key).expect(1).snapshot());
    assert_snapshot!("import_unknown_signer", import("signed", &stranger).expect(1).snapshot());
    assert_snapshot!("import_directory", import("site", &key).expect(2).snapshot());
    assert_snapshot!("import_something_else", import("site/index.html", &key).expect(1).snapshot());
    import("signed", "me").expect(2).says("<name>:<base64>");
    let bytes = fs::read(world.project().join("signed")).expect("the export");
    fs::write(world.project().join("cut"), &bytes[..bytes.len() - 10]).expect("a part of the export");
    import("cut", &key).expect(1);
    assert_eq!(world.sarsen(&["--root", "../data/there", "store", "ls"]).expect(0).stdout, "");
    assert_eq!(import("signed", &key).expect(0).says("1 of them new").stdout.trim_end(), object);
    import("signed", &key).expect(0).says("0 of them new");
    world.sarsen(&["--root", "../data/there", "store", "verify", &object]).expect(0);
}

#[test]
fn a_project_says_whom_it_trusts() {
    let world = world_with_site();
    let object = add(&world, "site");
    let key = world.sarsen(&["store", "key", "generate", "me", "-o", "me.key"]).expect(0).stdout.trim_end().to_owned();
    world.sarsen(&["store", "export", &object, "-o", "signed", "--sign", "me.key"]).expect(0);
    let import = || world.sarsen(&["--root", "../data/there", "store", "import", "signed"]);
    import().expect(1).says("is not trusted here");
    world.write("sarsen.toml", "[project]\nname = \"shop\"\ntrusted_keys = [\"me\"]\n");
    import().expect(2).says("a public key has the form `<name>:<base64>`").says("sarsen.toml:3:");
    world.write("sarsen.toml", &format!("[project]\nname = \"shop\"\ntrusted_keys = [\"{key}\"]\n"));
    assert_eq!(import().expect(0).stdout.trim_end(), object);
}

#[test]
fn exports_replace_files_and_nothing_else() {
    let world = world_with_site();
    let object = add(&world, "site");
    assert_snapshot!("export_to_directory", world.sarsen(&["store", "export", &object, "-o", "site"]).expect(2).snapshot());
    symlink("elsewhere", world.project().join("link")).expect("a link");
    world.sarsen(&["store", "export", &object, "-o", "link"]).expect(2).says("is not a file");
    world.sarsen(&["store", "export", &object, "-o", "-", "--format", "json"]).expect(2).says("name a file");
    world.write("old", "old");
    let report = world.sarsen(&["store", "export", &object, "-o", "old", "--format", "json"]).expect(0).json();
    let length = fs::metadata(world.project().join("old")).expect("the export").len();
    assert_eq!((report["objects"][0].as_str(), report["file_bytes"].as_u64()), (Some(object.as_str()), Some(length)));
    let left =
        fs::read_dir(world.project()).expect("the project").flatten().filter(|entry| entry.file_name().as_encoded_bytes()[0] == b'.');
    assert_eq!(left.count(), 0);
}

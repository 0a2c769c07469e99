//! `sarsen.lock` and packages, from a real repository that the test makes.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use insta::assert_snapshot;

use crate::world::World;

/// A project that uses a component of a package, which uses everything a package can have.
struct Place {
    world: World,
}

impl Place {
    fn new() -> Self {
        let place = Self { world: World::empty() };
        place.git(&["init", "--quiet", "--initial-branch=main", "."]);
        place.publish("lib/words.star", "def greeting(name):\n    return \"hello \" + name\n");
        place.publish("lib/shared.j2", "shared\n");
        place.publish("components/greeter/greeter.j2", "{% include \"//lib/shared.j2\" %}{{ component.text }}\n");
        place.publish(
            "components/greeter/component.star",
            "load(\"//lib/words.star\", \"greeting\")\ndef configure(self):\n    self.text = greeting(self.who)\n    self.add(File(\"greeting\", source = \"greeter.j2\"))\n\
             Greeter = component(configure = configure, attributes = {\"who\": attribute(str), \"text\": attribute(str, default = \"\")})\n",
        );
        // It would change what a checkout writes.
        place.publish(".gitattributes", "*.star text eol=crlf\n");
        place.commit();
        place.world.write("sarsen.toml", "[project]\nname = \"p\"\n\n[packages]\nweb = { git = \"../package\", branch = \"main\" }\n");
        place.world.write("environments/dev/environment.toml", "[environment]\nconnect = \"local\"\n[hosts]\nhere = [\"own\"]\n");
        place.world.write(
            "components/own/component.star",
            "load(\"@web//components/greeter/component.star\", \"Greeter\")\ndef configure(self):\n    self.add(Greeter(who = \"world\"))\nOwn = component(configure = configure)\n",
        );
        place
    }

    fn repository(&self) -> PathBuf {
        self.world.path().join("package")
    }

    fn publish(&self, path: &str, text: &str) {
        let path = self.repository().join(path);
        fs::create_dir_all(path.parent().expect("a path in the repository")).expect("a directory");
        fs::write(path, text).expect("a file of the repository");
    }

    fn commit(&self) {
        self.git(&["add", "--all"]);
        self.git(&["-c", "user.name=n", "-c", "user.email=e", "-c", "core.autocrlf=false", "commit", "--quiet", "--message=m"]);
    }

    fn git(&self, arguments: &[&str]) -> String {
        fs::create_dir_all(self.repository()).expect("a directory");
        let mut command = Command::new("git");
        command.current_dir(self.repository()).args(arguments).env("HOME", self.world.path());
        let output = command.output().expect("git runs");
        assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    fn lock(&self) -> String {
        fs::read_to_string(self.world.project().join("sarsen.lock")).expect("the lock file")
    }

    /// What the component's file holds, once built.
    fn greeting(&self, arguments: &[&str]) -> String {
        let run = self.world.sarsen(&[&["--format", "json", "build", "dev"], arguments].concat()).expect(0);
        let store = self.world.root().join("store");
        let found = fs::read_dir(store).expect("the store").flatten().map(|entry| entry.path().join("greeting"));
        let texts: Vec<String> = found.filter_map(|path| fs::read_to_string(path).ok()).collect();
        assert!(run.json()["hosts"][0]["bundle"].is_object() || run.json()["hosts"][0]["bundle"].is_string(), "{}", run.stdout);
        texts.concat()
    }
}

#[test]
fn a_package_is_pinned_used_and_moved_only_when_asked() {
    let place = Place::new();
    assert_snapshot!(place.world.sarsen(&["check"]).expect(2).snapshot());
    place.world.sarsen(&["lock"]).expect(0).says("added");
    let first = place.lock();
    let commit = place.git(&["rev-parse", "HEAD"]);
    assert!(first.contains(&format!("revision = \"{commit}\"")), "{first}");
    assert_eq!(place.greeting(&["--frozen"]), "shared\nhello world\n");

    // The branch goes on; the lock stays, and so does what is built, offline too.
    place.publish("lib/words.star", "def greeting(name):\n    return \"good day \" + name\n");
    place.commit();
    place.world.sarsen(&["lock"]).expect(0).says("kept");
    assert_eq!(place.lock(), first);
    fs::rename(place.repository(), place.world.path().join("away")).expect("the repository is away");
    place.world.sarsen(&["check", "--frozen"]).expect(0);
    assert_snapshot!(place.world.sarsen(&["lock", "--update", "web"]).expect(1).snapshot());
    fs::rename(place.world.path().join("away"), place.repository()).expect("the repository is back");

    place.world.sarsen(&["lock", "--update", "web"]).expect(0).says("changed");
    assert_ne!(place.lock(), first);
    assert!(place.greeting(&[]).contains("good day world\n"));
    place.world.sarsen(&["lock", "--update", "wep"]).expect(2).says("there is no package `wep`").says("packages are web");

    // A store that has nothing: fetched by commit, although the branch is elsewhere by now; refused when frozen.
    place.world.write("sarsen.lock", &first);
    let other = place.world.path().join("other");
    let other = other.to_str().expect("UTF-8");
    place.world.sarsen(&["check", "--frozen", "--root", other]).expect(1).says("package `web` is not in the store").says("--frozen");
    place.world.sarsen(&["check", "--root", other]).expect(0);

    // A server that gives only what has a name: the branch is fetched, and the commit found in its history.
    fs::write(place.world.path().join("home/.gitconfig"), "[protocol]\nversion = 0\n").expect("a configuration");
    let third = place.world.path().join("third");
    place.world.sarsen(&["check", "--root", third.to_str().expect("UTF-8")]).expect(0);
}

#[test]
fn what_is_not_what_was_pinned_is_refused_with_both_digests() {
    let place = Place::new();
    place.world.sarsen(&["lock"]).expect(0);
    let good = place.lock();
    let tree = good.lines().find_map(|line| line.strip_prefix("tree = \"")).expect("a digest").trim_end_matches('"');
    let forged = "0".repeat(64);
    place.world.write("sarsen.lock", &good.replace(tree, &forged));
    place.world.sarsen(&["check"]).expect(1).says(tree).says(&forged).says("sarsen lock --update NAME");

    // Someone writes into the store.
    place.world.write("sarsen.lock", &good);
    let store = fs::read_dir(place.world.root().join("store")).expect("the store").flatten();
    let words = store.map(|entry| entry.path().join("lib/words.star")).find(|path| path.is_file()).expect("the package");
    fs::remove_file(&words).and_then(|()| fs::write(&words, "def greeting(name):\n    return 1\n")).expect("root may do that");
    place.world.sarsen(&["check"]).expect(1).says("the files from the store have the digest").says(tree);
}

#[test]
fn what_a_package_cannot_be_is_told() {
    let place = Place::new();
    let settings = |text: &str| place.world.write("sarsen.toml", &format!("[project]\nname = \"p\"\n\n[packages]\n{text}\n"));
    settings("web = { git = \"../package\", tag = \"v9\" }");
    place.world.sarsen(&["lock"]).expect(1).says("`../package` has no tag `v9`");
    settings("web = { git = \"../package\" }\nX = { git = \"-x\", rev = \"12\", tog = 1 }\nz = { git = \"-x\", rev = \"12\", tog = 1 }");
    assert_snapshot!(place.world.sarsen(&["lock"]).expect(2).snapshot());
    settings("web = { git = \"ext::sh -c true\", branch = \"main\" }");
    place.world.sarsen(&["lock"]).expect(2).says("`git` wants the URL or path of a repository");
    settings("web = { git = \"ext::true\", branch = \"main\" }");
    place.world.sarsen(&["lock"]).expect(1).says("transport 'ext' not allowed");

    // A package reaches itself only, and has plain files only.
    settings("web = { git = \"../package\", branch = \"main\" }");
    place.publish("lib/words.star", "load(\"@web//lib/other.star\", \"x\")\n");
    place.commit();
    place.world.sarsen(&["lock"]).expect(0);
    place.world.sarsen(&["check"]).expect(2).says("@web/lib/words.star").says("a package loads its own files only");
    std::os::unix::fs::symlink("/etc/passwd", place.repository().join("lib/link")).expect("a link");
    place.commit();
    place.world.sarsen(&["lock", "--update", "web"]).expect(1).says("`lib/link` is a symbolic link, which packages cannot have");

    // An annotated tag is the commit that it stands for.
    place.git(&["-c", "user.name=n", "-c", "user.email=e", "tag", "--annotate", "--message=m", "v1", "HEAD~2"]);
    settings("web = { git = \"../package\", tag = \"v1\" }");
    place.world.sarsen(&["check"]).expect(2).says("is stale: it is for branch `main`");
    place.world.sarsen(&["lock"]).expect(0);
    assert!(place.lock().contains(&place.git(&["rev-parse", "HEAD~2"])));
    place.world.sarsen(&["check"]).expect(0);
}

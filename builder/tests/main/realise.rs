//! From models to objects: what is built, what is not built again, what the objects hold, what failures say.

mod fetch;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use sarsen_builder::diagnostic::Location;
use sarsen_builder::model::{Build, ComponentModel, Connect, HostModel, Model, PythonEnv, Service, Source, Step, StepKind};
use sarsen_builder::plan::plan;
use sarsen_builder::realise::{BuildError, BuildEvent, Options, Realised, RecipeError, realise};
use sarsen_store::manifest::{MANIFEST_FILE, Restart};
use sarsen_store::{ObjectId, ObjectRef, ObjectStore};

const PROBE: &str = env!("CARGO_BIN_EXE_sarsen-sandbox-probe");
const ROOT: &str = "/var/lib/sarsen";

/// A store of its own, and what to do with it.
struct Workshop {
    directory: tempfile::TempDir,
    store: ObjectStore,
}

impl Workshop {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = ObjectStore::open(&directory.path().join("data")).unwrap();
        Self { directory, store }
    }

    fn realise_with(&self, model: &Model, jobs: usize) -> (Result<Realised, BuildError>, Vec<String>) {
        let started = Mutex::new(Vec::new());
        let events = |event| {
            if let BuildEvent::Started { label } = event {
                started.lock().unwrap().push(label);
            }
        };
        let options = Options { jobs, events: &events, log_directory: self.directory.path().join("log"), sandbox_program: PROBE.into() };
        let result = realise(&plan(model).unwrap(), &self.store, &options);
        let mut started = started.into_inner().unwrap();
        started.sort();
        (result, started)
    }

    /// Realises, which has to succeed; returns the started builds, too.
    #[track_caller]
    fn realise(&self, model: &Model) -> (Realised, Vec<String>) {
        let (result, started) = self.realise_with(model, 4);
        match result {
            Ok(realised) => (realised, started),
            Err(error) => panic!("{error}: {error:#?}"),
        }
    }

    /// Reads a file of a component's object.
    fn read(&self, realised: &Realised, host: usize, component: &str, path: &str) -> String {
        let components = &realised.hosts[host].manifest.components;
        let object = &components.iter().find(|known| known.name == component).unwrap().object;
        fs::read_to_string(self.store.object_path(object).join(path)).unwrap()
    }

    fn names_of(&self, realised: &Realised) -> BTreeSet<String> {
        let bundles: Vec<ObjectRef> = realised.hosts.iter().map(|host| host.bundle.clone()).collect();
        self.store.closure(&bundles).unwrap().into_iter().map(|object| object.name.to_string()).collect()
    }
}

fn model(hosts: Vec<HostModel>) -> Model {
    Model {
        project: "shop".to_owned(),
        environment: "prod".to_owned(),
        profile: "shop".to_owned(),
        root: ROOT.to_owned(),
        connect: Connect::Local,
        service_user: None,
        jobs: 10,
        timeout_s: 10,
        hosts,
        resources: Vec::new(),
        uses: Vec::new(),
        order: Vec::new(),
    }
}

fn host(name: &str, components: Vec<ComponentModel>) -> HostModel {
    HostModel {
        name: name.to_owned(),
        fqdn: name.to_owned(),
        platform: None,
        ignore: false,
        tags: Vec::new(),
        ssh: sarsen_builder::model::SshSettings::default(),
        components,
    }
}

fn component(host: &str, name: &str, steps: Vec<StepKind>) -> ComponentModel {
    let at = |line| Location { file: format!("components/{name}/component.star"), line, column: 5 };
    ComponentModel {
        name: name.to_owned(),
        features: Vec::new(),
        ignore: false,
        attributes: BTreeMap::new(),
        output: ObjectId::placeholder(&format!("{host}/{name}")),
        steps: steps.into_iter().zip(1..).map(|(kind, line)| Step { at: at(line), within: Vec::new(), kind }).collect(),
        messages: Vec::new(),
    }
}

fn file(path: &str, content: &str) -> StepKind {
    StepKind::File { path: path.parse().unwrap(), content: content.as_bytes().into(), executable: false }
}

fn placeholder(host: &str, component: &str, build: &str, output: &str) -> ObjectId {
    ObjectId::placeholder(&format!("{host}/{component}/{build}/{output}"))
}

/// The path of a build's output in text.
fn output(host: &str, component: &str, build: &str, output: &str) -> String {
    let suffix = if output == "out" { String::new() } else { format!("-{output}") };
    format!("{ROOT}/store/{}-{component}-{build}{suffix}", placeholder(host, component, build, output))
}

fn build(host: &str, component: &str, name: &str, outputs: &[&str], script: &str) -> StepKind {
    StepKind::Build(Build {
        name: name.to_owned(),
        script: script.to_owned(),
        sources: Vec::new(),
        environment: BTreeMap::new(),
        inputs: Vec::new(),
        outputs: outputs.iter().map(|output| ((*output).to_owned(), placeholder(host, component, name, output))).collect(),
        timeout_s: 60,
    })
}

/// A component whose file names the output of its build.
fn app(host: &str, script: &str) -> ComponentModel {
    let out = output(host, "app", "code", "out");
    component(host, "app", vec![build(host, "app", "code", &["out"], script), file("where", &format!("{out}/result"))])
}

#[test]
fn one_build_serves_all_hosts_and_is_not_done_again() {
    let workshop = Workshop::new();
    let script = "echo \"$out\" > $out/self; echo built";
    let both = model(vec![host("a", vec![app("a", script)]), host("b", vec![app("b", script)])]);
    let (first, started) = workshop.realise(&both);
    assert_eq!(started.len(), 1, "{started:?}");
    assert_eq!(workshop.read(&first, 0, "app", "where"), workshop.read(&first, 1, "app", "where"));
    let place = workshop.read(&first, 0, "app", "where");
    let object: ObjectRef = place.strip_prefix("/var/lib/sarsen/store/").unwrap().strip_suffix("/result").unwrap().parse().unwrap();
    let own = fs::read_to_string(workshop.store.object_path(&object).join("self")).unwrap();
    assert_eq!(own, format!("{ROOT}/store/{object}\n"), "the output knows its own place");
    assert_ne!(first.hosts[0].bundle, first.hosts[1].bundle);

    let (second, started) = workshop.realise(&both);
    assert!(started.is_empty(), "{started:?}");
    assert!(second.built.is_empty(), "{:?}", second.built);
    assert_eq!(second.hosts, first.hosts);
    assert_eq!(workshop.names_of(&first), BTreeSet::from(["app", "app-code", "shop-prod-a", "shop-prod-b"].map(str::to_owned)));
    assert_eq!(workshop.store.verify().unwrap(), []);
}

/// While the first one builds, until the second one says that it waits. Nobody sleeps: what does not come is seen by its sender's end.
#[test]
fn two_processes_on_one_store_build_once() {
    let workshop = Workshop::new();
    let plan = plan(&model(vec![host("a", vec![app("a", "echo built > $out/result")])])).unwrap();
    let started = Mutex::new(Vec::new());
    let (go_ahead, first_builds) = mpsc::channel();
    let (tell_holder, second_waits) = mpsc::channel();
    let limit = Duration::from_mins(1);
    let run = |events: &(dyn Fn(BuildEvent) + Sync)| {
        let store = ObjectStore::open(&workshop.directory.path().join("data")).unwrap();
        let options = Options { jobs: 1, events, log_directory: workshop.directory.path().join("log"), sandbox_program: PROBE.into() };
        realise(&plan, &store, &options).unwrap()
    };
    let (first_builds, second_waits, go_ahead, tell_holder) =
        (Mutex::new(first_builds), Mutex::new(second_waits), Mutex::new(go_ahead), Mutex::new(Some(tell_holder)));
    let (first, second, holder) = std::thread::scope(|scope| {
        let second = scope.spawn(|| {
            first_builds.lock().unwrap().recv_timeout(limit).unwrap();
            let realised = run(&|event| match event {
                BuildEvent::Started { label } => started.lock().unwrap().push(label),
                BuildEvent::Waiting { holder, .. } => tell_holder.lock().unwrap().as_ref().unwrap().send(holder).unwrap(),
                BuildEvent::Cached { .. } | BuildEvent::Built { .. } | BuildEvent::Failed { .. } => {}
            });
            drop(tell_holder.lock().unwrap().take());
            realised
        });
        let holder = Mutex::new(None);
        let first = run(&|event| {
            if let BuildEvent::Started { label } = event {
                started.lock().unwrap().push(label);
                go_ahead.lock().unwrap().send(()).unwrap();
                *holder.lock().unwrap() = second_waits.lock().unwrap().recv_timeout(limit).ok();
            }
        });
        (first, second.join().unwrap(), holder.into_inner().unwrap())
    });
    assert_eq!(*started.lock().unwrap(), ["a/app/code"], "built once");
    assert_eq!(holder, Some(format!("process {}", std::process::id())));
    assert!(second.cached.contains(&started.lock().unwrap()[0]), "{:?}", second.cached);
    assert_eq!(first.hosts, second.hosts);
}

#[test]
fn what_a_build_has_written_is_moved_into_the_store_unless_it_has_a_second_name() {
    let workshop = Workshop::new();
    let script = "echo one > $out/one; echo two > $out/two; ln $out/two $out/second; stat -c %i $out/one $out/two > $out/inodes
        sleep 1000 < $out/one 3>> $out/one &";
    let (realised, _) = workshop.realise(&model(vec![host("a", vec![app("a", script)])]));
    let place = workshop.read(&realised, 0, "app", "where");
    let object: ObjectRef = place.strip_prefix("/var/lib/sarsen/store/").unwrap().strip_suffix("/result").unwrap().parse().unwrap();
    let path = |name: &str| workshop.store.object_path(&object).join(name);
    let before: Vec<u64> = fs::read_to_string(path("inodes")).unwrap().lines().map(|line| line.parse().unwrap()).collect();
    let inode = |name: &str| fs::metadata(path(name)).unwrap().ino();
    assert_eq!(inode("one"), before[0], "the process that holds it open is dead");
    assert_ne!(inode("two"), before[1]);
    assert_eq!(inode("two"), inode("second"), "one content, one inode");
    assert_eq!(workshop.store.verify().unwrap(), []);
}

#[test]
fn a_change_that_gives_the_same_bytes_stops_there() {
    let workshop = Workshop::new();
    let chain = |script: &str| {
        let lower = build("a", "app", "lower", &["out"], script);
        let upper = build("a", "app", "upper", &["out"], &format!("cat {}/x > $out/y", output("a", "app", "lower", "out")));
        let place = file("where", &output("a", "app", "upper", "out"));
        model(vec![host("a", vec![component("a", "app", vec![lower, upper, place])])])
    };
    let (first, started) = workshop.realise(&chain("echo 1 > $out/x"));
    assert_eq!(started, ["a/app/lower", "a/app/upper"]);
    let (second, started) = workshop.realise(&chain("echo 1 > $out/x # changed"));
    assert_eq!(started, ["a/app/lower"]);
    assert_eq!(second.hosts, first.hosts);
    let (third, started) = workshop.realise(&chain("echo 2 > $out/x"));
    assert_eq!(started, ["a/app/lower", "a/app/upper"]);
    assert_ne!(third.hosts[0].bundle, first.hosts[0].bundle);
}

#[test]
fn outputs_may_name_one_another_but_not_in_a_circle() {
    let workshop = Workshop::new();
    let with = |script: &str| {
        let steps = vec![build("a", "app", "code", &["dev", "lib"], script), file("x", &output("a", "app", "code", "dev"))];
        model(vec![host("a", vec![component("a", "app", steps)])])
    };
    let (realised, _) = workshop.realise(&with("ln -s $lib $dev/lib; echo $lib > $dev/path; echo x > $lib/x; chmod 400 $dev/path"));
    let place = workshop.read(&realised, 0, "app", "x");
    let dev: ObjectRef = Path::new(&place).file_name().unwrap().to_str().unwrap().parse().unwrap();
    let link = fs::read_link(workshop.store.object_path(&dev).join("lib")).unwrap();
    let lib: ObjectRef = link.file_name().unwrap().to_str().unwrap().parse().unwrap();
    assert!(workshop.store.contains(&lib.id).unwrap());
    assert_eq!(workshop.store.manifest(&dev).unwrap().references, [lib]);

    let (result, _) = workshop.realise_with(&with("echo $lib > $dev/x; echo $dev > $lib/x"), 1);
    let Err(BuildError::Recipes { failures, .. }) = result else { panic!("{result:?}") };
    assert_eq!(failures[0].error.to_string(), "the outputs `dev`, `lib` name one another: objects cannot need one another in a circle");
}

#[test]
fn everything_that_can_be_done_is_done_and_all_failures_are_told() {
    let workshop = Workshop::new();
    let steps = vec![
        build("a", "app", "bad", &["out"], "echo compiling; echo 'no such symbol' >&2; exit 3"),
        build("a", "app", "good", &["out"], "echo fine > $out/x"),
        build("a", "app", "needy", &["out"], &format!("cat {}", output("a", "app", "bad", "out"))),
        build("a", "app", "worse", &["out"], "mkfifo $out/fifo"),
        build("a", "app", "zero", &["out"], "echo lost > elsewhere"),
    ];
    let (result, started) = workshop.realise_with(&model(vec![host("a", vec![component("a", "app", steps)])]), 2);
    let error = result.unwrap_err();
    assert_eq!(error.to_string(), "failed: `a/app/bad`, `a/app/worse`, `a/app/zero`; not tried because of that: 1");
    let BuildError::Recipes { failures, skipped } = error else { panic!() };
    assert_eq!(skipped, ["a/app/needy"]);
    assert_eq!(started, ["a/app/bad", "a/app/good", "a/app/worse", "a/app/zero"]);
    assert_eq!(failures[0].at.as_ref().unwrap().line, 1);
    let RecipeError::Unsuccessful { ending, log, tail } = &failures[0].error else { panic!("{failures:?}") };
    assert_eq!(ending, "the script ended with exit code 3");
    assert_eq!(tail, &["compiling", "no such symbol"]);
    assert_eq!(fs::read_to_string(log).unwrap(), "compiling\nno such symbol\n");
    assert!(matches!(failures[1].error, RecipeError::Store(_)), "{failures:?}");
    assert_eq!(
        failures[2].error.to_string(),
        "the script succeeded, but left its output `$out` empty: it must write what it makes below `$out`"
    );
}

#[test]
fn sources_and_inputs_are_where_the_script_looks() {
    let workshop = Workshop::new();
    let StepKind::Build(mut code) = build(
        "a",
        "app",
        "code",
        &["out"],
        "./run > $out/result; cat tree/a/b tree/c >> $out/result; stat -c '%a %Y' run tree tree/a tree/a/b >> $out/result; printf %s \"$MODE\" >> $out/result",
    ) else {
        unreachable!()
    };
    let bytes = |text: &str| -> Arc<[u8]> { text.as_bytes().into() };
    code.sources = vec![
        Source { name: "run".to_owned(), files: vec![(None, bytes("#!/bin/sh\necho ran\n"), true)] },
        Source {
            name: "tree".to_owned(),
            files: vec![(Some("a/b".parse().unwrap()), bytes("b"), false), (Some("c".parse().unwrap()), bytes("c\n"), false)],
        },
    ];
    code.environment = BTreeMap::from([("MODE".to_owned(), "release".to_owned())]);
    let place = file("where", &output("a", "app", "code", "out"));
    let (realised, _) = workshop.realise(&model(vec![host("a", vec![component("a", "app", vec![StepKind::Build(code), place])])]));
    let object: ObjectRef = Path::new(&workshop.read(&realised, 0, "app", "where")).file_name().unwrap().to_str().unwrap().parse().unwrap();
    let result = fs::read_to_string(workshop.store.object_path(&object).join("result")).unwrap();
    assert_eq!(result, "ran\nbc\n755 1\n755 1\n755 1\n644 1\nrelease");
}

#[test]
fn the_same_model_gives_the_same_bundles_whatever_the_store_and_the_workers() {
    let script = "for name in c a b; do echo $name > $out/$name; done; chmod 700 $out/a";
    let model =
        model(vec![host("a", vec![app("a", script)]), host("b", vec![app("b", script), component("b", "other", vec![file("x", "y")])])]);
    let bundles = |jobs| {
        let workshop = Workshop::new();
        workshop.realise_with(&model, jobs).0.unwrap().hosts
    };
    assert_eq!(bundles(1), bundles(8));
}

#[test]
fn a_bundle_names_all_that_its_host_needs() {
    let workshop = Workshop::new();
    let service = StepKind::Service(Service {
        name: "web".to_owned(),
        command: vec![format!("{}/bin/web", output("a", "app", "code", "out"))],
        reload: Vec::new(),
        reload_on: vec![format!("{ROOT}/store/{}-app/conf", ObjectId::placeholder("a/app"))],
        environment: BTreeMap::new(),
        user: None,
        working_directory: None,
        restart: Restart::Always,
        kind: "simple".to_owned(),
        after: Vec::new(),
        stop_timeout_ms: 1000,
        settings: BTreeMap::new(),
    });
    let steps = vec![build("a", "app", "code", &["out"], "mkdir $out/bin; echo > $out/bin/web"), service, file("conf", "port = 1")];
    let mut ignored = host("z", vec![component("z", "app", vec![build("z", "app", "code", &["out"], "exit 1")])]);
    ignored.ignore = true;
    let (realised, _) = workshop.realise(&model(vec![host("a", vec![component("a", "app", steps)]), ignored]));
    let [host] = realised.hosts.as_slice() else { panic!("the ignored host is left out") };
    let bundle = workshop.store.object_path(&host.bundle);
    let text = fs::read_to_string(bundle.join(MANIFEST_FILE)).unwrap();
    assert_eq!(text, host.manifest.to_json());
    assert!(!text.contains(&ObjectId::placeholder("a/app").to_string()), "placeholders are filled in");
    assert!(fs::metadata(bundle.join("app").join("conf")).unwrap().is_file(), "the component's link holds in the store");
    assert!(fs::read_to_string(bundle.join("unit.d/web.service")).unwrap().contains(&host.manifest.services[0].command[0]));
    assert!(workshop.names_of(&realised).contains("app-code"));
}

/// Makes a wheel with a console script, without any tool but Python itself.
fn make_wheel(directory: &Path) -> String {
    let script = r"
import hashlib, sys, zipfile
files = {
    'tick.py': 'def main():\n    print(\'tick\')\n',
    'tick-1.0.dist-info/METADATA': 'Metadata-Version: 2.1\nName: tick\nVersion: 1.0\n',
    'tick-1.0.dist-info/WHEEL': 'Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n',
    'tick-1.0.dist-info/entry_points.txt': '[console_scripts]\ntick = tick:main\n',
}
files['tick-1.0.dist-info/RECORD'] = ''.join(name + ',,\n' for name in [*files, 'tick-1.0.dist-info/RECORD'])
path = sys.argv[1] + '/tick-1.0-py3-none-any.whl'
with zipfile.ZipFile(path, 'w') as wheel:
    for name, text in files.items():
        wheel.writestr(zipfile.ZipInfo(name), text)
print(hashlib.sha256(open(path, 'rb').read()).hexdigest())
";
    let made = Command::new("/usr/bin/python3").args(["-c", script]).arg(directory).output().unwrap();
    assert!(made.status.success(), "{made:?}");
    String::from_utf8(made.stdout).unwrap().trim().to_owned()
}

#[test]
fn wheels_are_fetched_once_and_installed_without_network() {
    if !Command::new("/usr/bin/python3").args(["-m", "pip", "--version"]).output().is_ok_and(|output| output.status.success()) {
        println!("skipped: /usr/bin/python3 has no pip");
        return;
    }
    let workshop = Workshop::new();
    let wheels = tempfile::tempdir().unwrap();
    let digest = make_wheel(wheels.path());
    let environment = |digest: &str| {
        let python = StepKind::PythonEnv(PythonEnv {
            name: "venv".to_owned(),
            lock: format!("--no-index\n--find-links {}\ntick==1.0 \\\n    --hash=sha256:{digest}\n", wheels.path().display()),
            python: "/usr/bin/python3".to_owned(),
            wheels: placeholder("a", "app", "venv", "wheels"),
            output: placeholder("a", "app", "venv", "out"),
        });
        model(vec![host("a", vec![component("a", "app", vec![python, file("where", &output("a", "app", "venv", "out"))])])])
    };
    let (first, started) = workshop.realise(&environment(&digest));
    assert_eq!(started, ["a/app/venv", "a/app/venv-wheels"]);
    assert!(!workshop.names_of(&first).contains("app-venv-wheels"), "wheels stay on the build machine");
    let object: ObjectRef = Path::new(&workshop.read(&first, 0, "app", "where")).file_name().unwrap().to_str().unwrap().parse().unwrap();
    let installed = workshop.store.object_path(&object);
    let wrapper = fs::read_to_string(installed.join("bin/tick")).unwrap();
    assert!(wrapper.contains(&format!("exec \"{ROOT}/store/{object}/lib/python/bin/tick\" \"$@\"")), "{wrapper}");
    let ran = Command::new(installed.join("lib/python/bin/tick")).env("PYTHONPATH", installed.join("lib/python")).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&ran.stdout), "tick\n", "{ran:?}");
    assert!(fs::read_dir(installed.join("lib/python/__pycache__")).unwrap().count() > 0);

    let (_, started) = workshop.realise(&environment(&digest));
    assert!(started.is_empty(), "{started:?}");
    assert_eq!(Workshop::new().realise(&environment(&digest)).0.hosts, first.hosts, "byte code depends on nothing but the wheels");

    let (result, _) = workshop.realise_with(&environment(&"0".repeat(64)), 1);
    let Err(BuildError::Recipes { failures, .. }) = result else { panic!("{result:?}") };
    let RecipeError::Fetch(error) = &failures[0].error else { panic!("{failures:?}") };
    assert!(error.to_string().contains("DO NOT MATCH THE HASHES"), "{error}");
}

#[test]
fn an_archive_is_unpacked_without_its_first_directory() {
    let workshop = Workshop::new();
    let project = workshop.directory.path().join("project");
    let beside = project.join("components/it");
    fs::create_dir_all(beside.join("site-1.0/css")).unwrap();
    fs::create_dir_all(project.join("environments/dev")).unwrap();
    for (path, text) in [
        ("sarsen.toml", "[project]\nname = \"demo\"\n"),
        ("environments/dev/environment.toml", "[hosts]\nweb1 = [\"it\"]\n"),
        (
            "components/it/component.star",
            "def configure(self):\n    site = self.add(Archive(\"site\", source = \"the site.tar.gz\", strip = 1))\n    self.add(Symlink(\"site\", site / \"css\"))\n\nIt = component(configure = configure)\n",
        ),
        ("components/it/site-1.0/css/site.css", "p {}\n"),
        ("components/it/site-1.0/._metadata", "x"),
    ] {
        fs::write(project.join(path), text).unwrap();
    }
    let packed =
        Command::new("tar").args(["-C", beside.to_str().unwrap(), "-czf", "the site.tar.gz", "site-1.0"]).current_dir(&beside).status();
    assert!(packed.unwrap().success());
    let snapshot = sarsen_builder::snapshot::Snapshot::read(&project).unwrap();
    let input = sarsen_builder::Input { snapshot: &snapshot, environment: "dev", local_root: ROOT, workers: 1 };
    let (realised, _) = workshop.realise(&sarsen_builder::evaluate(&input).unwrap());
    let object = &realised.hosts[0].manifest.components[0].object;
    let link = fs::read_link(workshop.store.object_path(object).join("site")).unwrap();
    let name = link.strip_prefix(format!("{ROOT}/store")).unwrap();
    assert_eq!(fs::read_to_string(workshop.store.root().join("store").join(name).join("site.css")).unwrap(), "p {}\n");
    assert!(!workshop.store.root().join("store").join(name).join("../._metadata").exists());
}

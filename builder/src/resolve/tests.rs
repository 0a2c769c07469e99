//! Whole small projects: text in, model or diagnostics out.

use super::*;
use crate::diagnostic::render_diagnostics;
use crate::model::{Step, StepKind};

const SARSEN: (&str, &str) = ("sarsen.toml", "[project]\nname = \"demo\"\n");

fn project(files: &[(&'static str, &'static str)]) -> Snapshot {
    Snapshot::from_texts([SARSEN].into_iter().chain(files.iter().copied()))
}

fn input(snapshot: &Snapshot) -> Input<'_> {
    Input { snapshot, environment: "dev", local_root: "/home/me/sarsen", workers: 2 }
}

#[track_caller]
fn model_of(files: &[(&'static str, &'static str)]) -> Model {
    let snapshot = project(files);
    evaluate(&input(&snapshot)).unwrap_or_else(|diagnostics| panic!("{}", render_diagnostics(&diagnostics, &snapshot, false)))
}

fn steps(model: &Model) -> &[Step] {
    &model.hosts[0].components[0].steps
}

const LOCAL: &str = "[environment]\nconnect = \"local\"\n[hosts]\nlocalhost = [\"it\"]\n";

/// A project of one component with this body of `configure`.
fn component(body: &str) -> String {
    let body: Vec<String> = body.lines().map(|line| format!("    {line}")).collect();
    let body = body.join("\n");
    format!("def configure(self):\n{body}\nIt = component(configure = configure)\n")
}

#[track_caller]
fn steps_of(body: &str) -> Vec<Step> {
    let text = component(body);
    let snapshot = Snapshot::from_texts([
        SARSEN,
        ("environments/dev/environment.toml", LOCAL),
        ("components/it/component.star", &text),
        ("components/it/app.conf", "x = {{ host.name }}\n"),
    ]);
    let model = evaluate(&input(&snapshot)).unwrap_or_else(|diagnostics| panic!("{}", render_diagnostics(&diagnostics, &snapshot, false)));
    steps(&model).to_vec()
}

#[test]
fn the_seed_example() {
    let steps = steps_of("self.add(Hook(\"touch\", update = \"touch /tmp/asdf\", verify = \"test -e /tmp/asdf\"))");
    let [Step { at, kind: StepKind::Hook { name, verify, update, timeout_ms, .. }, .. }] = steps.as_slice() else { panic!("{steps:?}") };
    assert_eq!((name.as_str(), update.as_str(), verify.as_str(), *timeout_ms), ("touch", "touch /tmp/asdf", "test -e /tmp/asdf", 60_000));
    assert_eq!(at.to_string(), "components/it/component.star:2:14");
}

const TICK: &str = r#"
def configure(self):
    script = self.add(File("bin/tick", mode = 0o755, template = "tick.sh.j2"))
    self.add(StateDirectory("data"))
    self.add(Service("tick", command = [script, self.state("data")]))
    self.provide("tick:address", Address(self.host.fqdn, self.port))

Tick = component(
    configure = configure,
    attributes = {
        "sleep": attribute(int, default = 1, doc = "seconds between ticks"),
        "port": attribute(int, default = 9000),
    },
)
"#;

#[test]
fn the_tick_component() {
    let model = model_of(&[
        (
            "environments/dev/environment.toml",
            "[environment]\nhost_domain = \"example.net\"\n[hosts]\nweb1 = [\"tick\"]\n[components.tick]\nsleep = 3\n",
        ),
        ("components/tick/component.star", TICK),
        ("components/tick/tick.sh.j2", "#!/bin/sh\nsleep {{ component.sleep }} # {{ host.fqdn }}\n"),
    ]);
    let component = &model.hosts[0].components[0];
    let tree = format!("/var/lib/sarsen/store/{}-tick", component.output);
    let [
        Step { kind: StepKind::File { content, executable: true, .. }, .. },
        Step { kind: StepKind::StateDirectory { path, .. }, .. },
        Step { kind: StepKind::Service(service), .. },
    ] = component.steps.as_slice()
    else {
        panic!("{component:?}")
    };
    assert_eq!(std::str::from_utf8(content).unwrap(), "#!/bin/sh\nsleep 3 # web1.example.net\n");
    assert_eq!(path, "/var/lib/sarsen/state/demo/tick/data");
    assert_eq!(service.command, [format!("{tree}/bin/tick"), path.clone()]);
    assert_eq!(model.resources[0].value, r#"{"host":"web1.example.net","port":9000}"#);
    assert_eq!(component.attributes["sleep"].value, "3");
}

#[test]
fn files_paths_and_builds() {
    let steps = steps_of(
        r#"
conf = self.add(File("etc/app.conf"))
self.add(File("raw", content = "{{ x }}", raw = True))
self.add(File("empty", content = ""))
self.add(File("data.json", format = "json", data = {"conf": conf, "n": [1, 2]}))
out = self.add(Build("app", "cp app.conf $out/", sources = ["app.conf"], inputs = [conf], env = {"A": out_env(conf)}))
both = self.add(Build("two", "true", outputs = ["out", "doc"]))
self.add(File("text", content = f"{out / 'bin/x'} " + both.doc + " {{ p.name }}", context = {"p": out / "bin" / "y"}))
self.add(File("up", content = str((out / "a/b").parent) + self.current("x")))
"#
        .replace("out_env(conf)", "conf")
        .trim(),
    );
    let text = |index: usize| {
        let StepKind::File { content, .. } = &steps[index].kind else { panic!("{:?}", steps[index]) };
        String::from_utf8(content.to_vec()).unwrap()
    };
    let store = |label: &str, name: &str| format!("/home/me/sarsen/store/{}-{name}", sarsen_store::ObjectId::placeholder(label));
    let (tree, out, doc) =
        (store("localhost/it", "it"), store("localhost/it/build/app/out", "it-app"), store("localhost/it/build/two/doc", "it-two-doc"));
    assert_eq!([text(0), text(1), text(2)], ["x = localhost\n", "{{ x }}", ""]);
    assert_eq!(text(3), format!("{{\n  \"conf\": \"{tree}/etc/app.conf\",\n  \"n\": [\n    1,\n    2\n  ]\n}}\n"));
    let StepKind::Build(build) = &steps[4].kind else { panic!() };
    assert_eq!((build.sources[0].name.as_str(), build.environment["A"].as_str()), ("app.conf", format!("{tree}/etc/app.conf").as_str()));
    assert_eq!(build.inputs, [sarsen_store::ObjectId::placeholder("localhost/it")]);
    assert_eq!(text(6), format!("{out}/bin/x {doc} y"));
    assert_eq!(text(7), format!("{out}/a/home/me/sarsen/profiles/demo/current/it/x"));
}

#[test]
fn components_in_components() {
    let model = model_of(&[
        ("environments/dev/environment.toml", "[hosts]\na = [\"outer:x\"]"),
        (
            "components/outer/component.star",
            "load(\"//lib/inner.star\", \"Inner\")\ndef configure(self):\n    child = self.add(Inner(port = 7, peer = Address(\"h\", 1)))\n    self.add(File(\"f\", content = \"{} {} {}\".format(child.url, child.parent.name, self.features)))\nOuter = component(configure = configure)\n",
        ),
        (
            "lib/inner.star",
            "def configure(self):\n    self.url = \"http://%s:%d\" % (self.host.name, self.port)\n    self.log(self.root.name)\n    self.add(File(\"sub/g.txt\"))\nInner = component(configure = configure, attributes = {\"port\": attribute(int), \"peer\": attribute(Address)})\n",
        ),
        ("lib/g.txt", "{{ component.port }} {{ component.url }} {{ component.peer }}"),
    ]);
    let texts: Vec<_> = steps(&model)
        .iter()
        .map(|step| {
            if let StepKind::File { path, content, .. } = &step.kind {
                format!("{path}={}", String::from_utf8_lossy(content))
            } else {
                panic!()
            }
        })
        .collect();
    assert_eq!(texts, ["sub/g.txt=7 http://a:7 h:1", "f=http://a:7 outer [\"x\"]"]);
    assert_eq!(model.hosts[0].components[0].messages, ["outer"]);
}

#[test]
fn shared_values_are_not_written_out_for_ever() {
    let nest = "x = [1]\nfor _ in range(50):\n    x = [x] * 10\n";
    for (use_it, what) in
        [("self.provide(\"x\", x)", "the value of resource `x`"), ("File(\"x\", format = \"json\", data = x)", "`data` of `x`")]
    {
        let text = component(&format!("{nest}{use_it}"));
        let snapshot =
            Snapshot::from_texts([SARSEN, ("environments/dev/environment.toml", LOCAL), ("components/it/component.star", &text)]);
        let diagnostics = evaluate(&input(&snapshot)).unwrap_err();
        assert_eq!(diagnostics[0].message, format!("{what} holds more than 200000 values"));
    }
}

#[test]
fn one_directory_for_two() {
    let steps = steps_of("self.add(Directory(\"var\"))\nself.add(File(\"var/x\", content = \"\"))\nself.add(Directory(\"var\"))");
    assert_eq!(steps.len(), 2);
}

const RESOURCES: [(&str, &str); 5] = [
    ("environments/dev/environment.toml", "[hosts]\na = [\"first\"]\nb = [\"second\", \"third\"]\nc = [\"third\"]\n"),
    (
        "components/first/component.star",
        "def configure(self):\n    names = [\"%s:%d\" % (x.host, x.port) for x in self.require(\"backend\")]\n    self.provide(\"all\", {\"names\": names, \"path\": self.path(\"x\")})\n    self.require(\"backend\", host = \"c\")\nFirst = component(configure = configure)\n",
    ),
    (
        "components/second/component.star",
        "def configure(self):\n    everything = self.require_one(\"all\")\n    self.add(File(\"x\", content = \",\".join(everything[\"names\"]) + \" \" + str(everything[\"path\"] / \"y\")))\nSecond = component(configure = configure)\n",
    ),
    (
        "components/third/component.star",
        "def configure(self):\n    self.provide(\"backend\", Address(self.host.name, 80))\nThird = component(configure = configure)\n",
    ),
    ("lib/unused", ""),
];

#[test]
fn resources_travel_between_hosts() {
    let model = model_of(&RESOURCES);
    let second = model.hosts[1].components.iter().find(|component| component.name == "second").unwrap();
    let StepKind::File { content, .. } = &second.steps[0].kind else { panic!() };
    let first = sarsen_store::ObjectId::placeholder("a/first");
    assert_eq!(String::from_utf8_lossy(content), format!("b:80,c:80 /var/lib/sarsen/store/{first}-first/x/y"));
    assert_eq!(
        model.resources.iter().map(|r| format!("{} {} {}", r.key, r.host, r.component)).collect::<Vec<_>>(),
        ["all a first", "backend b third", "backend c third"]
    );
}

#[test]
fn the_order_of_work_does_not_matter() {
    let snapshot = project(&RESOURCES);
    let mut shuffled: Vec<_> = RESOURCES.into_iter().chain([SARSEN]).collect();
    shuffled.reverse();
    let shuffled = Snapshot::from_texts(shuffled);
    let one = evaluate(&Input { workers: 1, ..input(&snapshot) }).unwrap();
    let eight = evaluate(&Input { workers: 8, ..input(&shuffled) }).unwrap();
    assert_eq!(one, eight);
}

const EVERYTHING: &str = r#"
Backend = record(host = str, weight = field(int, 1))

def configure_user(self):
    self.fqdn = "%s@%s" % (self.login, self.host.fqdn)
    self.add(File("users/" + self.login, content = self.parent.name))
    self.provide("user", self.login)

User = component(configure = configure_user, attributes = {"login": attribute(str), "shell": attribute(str, default = None)}, positional = "login")

def configure(self):
    seen = self.evaluate(User("ghost"))
    self.add(User("joe", shell = None))
    self.warn("port %d is taken" % self.listen.port)
    texts = [self.url, self.backend.host, str(self.backend.weight), self.level, self.listen.v4, str(self.spool / "x"), seen.fqdn]
    texts += self.features + self.require("user", host = self.host) + [str(self.anything)]
    self.add(File("out", content = " ".join(texts), raw = True))

def configure_debian(self):
    self.add(File("debian", content = ""))

It = component(
    configure = configure,
    platforms = {"debian12": configure_debian, "nixos": lambda self: self.fail("this is no nixos")},
    features = ["web", "jobs"],
    attributes = {
        "listen": attribute(Address),
        "url": attribute(str, default = "http://{{ host.fqdn }}/", expand = True),
        "backend": attribute(Backend, default = {"host": "localhost"}),
        "level": attribute(str, default = "info", convert = lambda level: level.upper()),
        "spool": attribute("Path", default = "/var/spool/it"),
        "anything": attribute(typing.Any),
    },
)
"#;

#[test]
fn attributes_are_converted_and_components_configured_as_they_say() {
    let snapshot = project(&[
        (
            "environments/dev/environment.toml",
            "[environment]\nplatform = \"debian12\"\nhost_domain = \"example.net\"\n[hosts]\nweb1 = [\"it\"]\n[components.it]\nlisten = \"www:80\"\nlevel = \"debug\"\nanything = [1]\n[resolver]\nwww = [\"192.0.2.7\"]\n",
        ),
        ("components/it/component.star", EVERYTHING),
    ]);
    let Assessment { model, diagnostics } = assess(&input(&snapshot));
    let said = render_diagnostics(&diagnostics, &snapshot, false);
    let model = model.unwrap_or_else(|| panic!("{said}"));
    let files: Vec<_> = steps(&model)
        .iter()
        .map(|step| {
            let StepKind::File { path, content, .. } = &step.kind else { panic!("{step:?}") };
            format!("{}{path}={}", step.within.join(">"), String::from_utf8_lossy(content))
        })
        .collect();
    let out = "out=http://web1.example.net/ localhost 1 DEBUG 192.0.2.7 /var/spool/it/x ghost@web1.example.net jobs web joe [1]";
    assert_eq!(files, ["User(joe)users/joe=it", out, "debian="]);
    assert_eq!(diagnostics.iter().map(|d| (d.code, d.message.as_str())).collect::<Vec<_>>(), [("E0310", "port 80 is taken")]);
}

/// A small generator of numbers, so that the order differs from seed to seed and not from run to run.
fn shuffle<T>(values: &mut [T], seed: &mut u64) {
    for index in (1..values.len()).rev() {
        *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        values.swap(index, usize::try_from(*seed >> 33).unwrap() % (index + 1));
    }
}

#[test]
fn neither_order_nor_number_of_threads_matters() {
    let chain = |number: usize| {
        let text = format!(
            "def configure(self):\n    found = sorted(self.require(\"k{}\", strict = False, order = \"{order}\"))\n    here = self.require(\"k{number}\", host = self.host.name, strict = False)\n    self.before(\"k{}\", host = \"h3\", strict = False) if \"{order}\" == \"after\" and {number} > 1 else None\n    self.provide(\"k{number}\", self.host.name + \"/{number}\")\n    self.add(File(\"n\", content = \" \".join(found + here)))\nC{number} = component(configure = configure)\n",
            (number + 1) % 6,
            number - number.min(2),
            order = ["after", "none"][usize::from(number == 5)],
        );
        (format!("components/c{number}/component.star"), text)
    };
    let mut files: Vec<(String, String)> = (0..6).map(chain).collect();
    let mut hosts: Vec<String> = (0..7).map(|host| format!("h{host}")).collect();
    let mut names: Vec<String> = (0..6).map(|number| format!("c{number}")).collect();
    let mut first = None;
    for mut seed in 1..=20u64 {
        let workers = usize::try_from(seed % 8 + 1).unwrap();
        shuffle(&mut files, &mut seed);
        shuffle(&mut hosts, &mut seed);
        shuffle(&mut names, &mut seed);
        let environment = format!("[hosts]\n{}", hosts.iter().map(|host| format!("{host} = {names:?}\n")).collect::<Vec<_>>().concat());
        let texts = files.iter().map(|(path, text)| (path.as_str(), text.as_str()));
        let snapshot = Snapshot::from_texts([SARSEN, ("environments/dev/environment.toml", environment.as_str())].into_iter().chain(texts));
        let model = evaluate(&Input { workers, ..input(&snapshot) }).unwrap();
        assert_eq!(first.get_or_insert_with(|| model.clone()), &model);
    }
    let model = first.unwrap();
    let last = model.hosts[2].components.iter().find(|component| component.name == "c5").unwrap();
    let StepKind::File { content, .. } = &last.steps[0].kind else { panic!() };
    assert_eq!(String::from_utf8_lossy(content), "h0/0 h1/0 h2/0 h3/0 h4/0 h5/0 h6/0 h2/5");
}

#[test]
fn a_hundred_hosts() {
    let names: Vec<String> = (0..10).map(|number| format!("c{number}")).collect();
    let hosts: Vec<String> = (0..100).map(|host| format!("host{host} = {names:?}")).collect();
    let environment = format!(
        "[hosts]
{}
",
        hosts.join(
            "
"
        )
    );
    let files: Vec<(String, String)> = (0..10)
        .map(|number| {
            let require = if number > 0 { format!("total = len(self.require(\"k{}\"))", number - 1) } else { "total = 100".to_owned() };
            let text = format!("def configure(self):\n    {require}\n    self.provide(\"k{number}\", total)\n    self.add(File(\"n\", content = str(total)))\nC{number} = component(configure = configure)\n");
            (format!("components/c{number}/component.star"), text)
        })
        .collect();
    let snapshot = Snapshot::from_texts(
        [SARSEN, ("environments/dev/environment.toml", environment.as_str())]
            .into_iter()
            .chain(files.iter().map(|(path, text)| (path.as_str(), text.as_str()))),
    );
    let assessment = assess(&Input { workers: 4, ..input(&snapshot) });
    let model = assessment.model.unwrap();
    assert_eq!((model.hosts.len(), model.resources.len()), (100, 1000));
    assert!(model.resources.iter().all(|resource| resource.value == "100"));
    assert_eq!(assessment.diagnostics.iter().map(|d| d.code).collect::<Vec<_>>(), ["E0502"]);
}

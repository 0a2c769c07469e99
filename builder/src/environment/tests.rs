//! Environments: what is right, and what is said about what is wrong.

use super::*;
use crate::diagnostic::{render_diagnostics, sort_diagnostics};

fn parse(text: &str) -> (Environment, Vec<Diagnostic>) {
    let snapshot = Snapshot::from_texts([("environments/e/environment.toml", text)]);
    let mut diagnostics = Vec::new();
    let environment = parse_environment(&snapshot, "e", &mut diagnostics).unwrap();
    (environment, diagnostics)
}

#[test]
fn names_domains_and_features() {
    let (environment, diagnostics) = parse(
        r#"
        [environment]
        host_domain = "example.net"
        [hosts]
        "web1.example.net" = ["shop:web", "shop:jobs", "haproxy"]
        web2 = { components = ["shop"], tags = ["b", "a"], ignore = true, data = { disk = "/dev/vdb" } }
        [resolver]
        "www.example.net" = ["2001:db8::7", "192.0.2.7"]
        "#,
    );
    assert_eq!(diagnostics, []);
    let [web1, web2] = environment.hosts.as_slice() else { panic!() };
    assert_eq!((web1.name.as_str(), web1.fqdn.as_str(), web2.fqdn.as_str()), ("web1", "web1.example.net", "web2.example.net"));
    assert_eq!(
        web1.components.iter().map(|a| (a.component.as_str(), a.features.join(","))).collect::<Vec<_>>(),
        [("haproxy", String::new()), ("shop", "jobs,web".to_owned())]
    );
    assert_eq!((web2.tags.join(","), web2.ignore), ("a,b".to_owned(), true));
    let address = environment.resolver.address("www.example.net", 80);
    assert_eq!((address.v4.as_deref(), address.v6.as_deref()), (Some("192.0.2.7"), Some("2001:db8::7")));
    assert_eq!(environment.root("/home/x"), "/var/lib/sarsen");
}

#[test]
fn one_host_under_two_names() {
    let (_, diagnostics) = parse("[environment]\nhost_domain = \"example.net\"\n[hosts]\nweb1 = []\n\"web1.example.net\" = []\n");
    assert_eq!(diagnostics.iter().map(|d| d.message.as_str()).collect::<Vec<_>>(), ["host `web1` stands twice in [hosts]"]);
}

#[test]
fn extends_lays_one_over_the_other() {
    let snapshot = Snapshot::from_texts([
        (
            "environments/prod/environment.toml",
            "[environment]\njobs = 3\nplatform = \"debian12\"\n[hosts]\na = [\"x\"]\nb = [\"y\"]\n[components.x]\np = 1\nq = 2",
        ),
        ("environments/dev/environment.toml", "[environment]\nextends = \"prod\"\njobs = 4\n[hosts]\nb = [\"z\"]\n[components.x]\nq = 3"),
    ]);
    let mut diagnostics = Vec::new();
    let environment = parse_environment(&snapshot, "dev", &mut diagnostics).unwrap();
    assert_eq!(diagnostics, []);
    assert_eq!((environment.jobs, environment.platform.as_deref()), (4, Some("debian12")));
    assert_eq!(environment.hosts.iter().map(|h| h.components[0].component.as_str()).collect::<Vec<_>>(), ["x", "z"]);
    let values: Vec<_> = environment.overrides[0].attributes.iter().map(|(name, _, data)| (name.as_str(), data.clone())).collect();
    assert_eq!(values, [("p", Data::Int(1)), ("q", Data::Int(3))]);
}

#[test]
fn everything_wrong_is_said_at_once() {
    let text = r#"[environment]
host-domain = "example.net"
jobs = 0
connect = "rsh"
root = "/var/../etc"
[host]
[hosts]
"-x" = []
web1 = { component = ["a"], tags = "t" }
web2 = ["Shop", 3]
web3 = 7
[resolver]
www = ["localhost"]
[deploy]
waves = ["rest"]
"#;
    let (_, mut diagnostics) = parse(text);
    sort_diagnostics(&mut diagnostics);
    let snapshot = Snapshot::from_texts([("environments/e/environment.toml", text)]);
    insta::assert_snapshot!(render_diagnostics(&diagnostics, &snapshot, false));
}

#[test]
fn circles_and_unknown_environments() {
    let snapshot = Snapshot::from_texts([
        ("environments/a/environment.toml", "[environment]\nextends = \"b\""),
        ("environments/b/environment.toml", "[environment]\nextends = \"a\""),
        ("environments/prod/environment.toml", "[environment]\nextends = \"prd\"\nx ="),
    ]);
    let messages = |name: &str| {
        let mut diagnostics = Vec::new();
        parse_environment(&snapshot, name, &mut diagnostics);
        diagnostics.into_iter().map(|d| format!("{} {} {}", d.code, d.message, d.hints.join("; "))).collect::<Vec<_>>()
    };
    assert_eq!(messages("a"), ["E0104 environments extend each other in a circle: a -> b -> a "]);
    assert_eq!(messages("prodd"), ["E0101 there is no environment `prodd` did you mean `prod`?"]);
    assert_eq!(messages("staging"), ["E0101 there is no environment `staging` known are `a`, `b`, `prod`"]);
    assert_eq!(messages("prod").len(), 1);
}

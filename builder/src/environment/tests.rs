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

#[test]
fn patterns_groups_and_hosts_lie_over_one_another() {
    let (environment, diagnostics) = parse(
        r#"
        [environment]
        host_domain = "example.net"
        platform = "debian12"
        service_user = "all"
        require_v6 = false
        [ssh]
        user = "deploy"
        port = 2222
        [groups.frontend]
        components = ["haproxy", "shop:web"]
        data = { rack = { row = 1, name = "a" }, ports = [80] }
        tags = ["public"]
        attributes.shop = { port = 1, workers = 2 }
        [groups.big]
        attributes.shop.workers = 8
        ssh.port = 22
        [hosts]
        "web[1-3]" = { groups = ["frontend"], components = ["shop:jobs"] }
        "web2.example.net" = { groups = ["frontend", "big"], data = { rack = { row = 2 }, ports = [81] }, attributes.shop.port = 3 }
        web3 = { ignore = true, platform = "debian13", service_user = "me", ssh.address = "192.0.2.3", components = ["!haproxy"] }
        db1 = ["postgres"]
        "#,
    );
    assert_eq!(diagnostics, []);
    assert_eq!(environment.require_v6, Wanted::Never);
    let [db1, web1, web2, web3] = environment.hosts.as_slice() else { panic!("{:?}", environment.hosts) };
    let components = |host: &HostEntry| {
        let text = |a: &Assignment| format!("{}{}:{}", if a.ignore { "!" } else { "" }, a.component, a.features.join(","));
        host.components.iter().map(text).collect::<Vec<_>>().join(" ")
    };
    assert_eq!((components(db1).as_str(), components(web1).as_str()), ("postgres:", "haproxy: shop:jobs,web"));
    assert_eq!((components(web3).as_str(), web3.ignore, web1.ignore), ("!haproxy: shop:jobs,web", true, false));
    assert_eq!(web2.data.to_canonical_json(), r#"{"ports":[81],"rack":{"name":"a","row":2}}"#);
    assert_eq!((web2.groups.join(","), web2.tags.join(",")), ("frontend,big".to_owned(), "public".to_owned()));
    let said = |host: &HostEntry| {
        let one = |o: &Overrides| o.attributes.iter().map(|(name, _, data)| format!("{name}={}", data.to_display())).collect::<Vec<_>>();
        host.overrides.iter().map(|o| format!("{}: {}", o.by.as_deref().unwrap_or("-"), one(o).join(" "))).collect::<Vec<_>>()
    };
    assert_eq!(said(web1), ["group `frontend`: port=1 workers=2"]);
    assert_eq!(said(web2), ["group `frontend`: port=1 workers=2", "group `big`: workers=8", "host `web2`: port=3"]);
    assert_eq!((web1.ssh.port, web2.ssh.port, web3.ssh.address.as_deref()), (Some(2222), Some(22), Some("192.0.2.3")));
    assert_eq!(
        (web1.ssh.user.as_deref(), web3.platform.as_deref(), web1.platform.as_deref()),
        (Some("deploy"), Some("debian13"), Some("debian12"))
    );
    assert_eq!((web3.service_user.as_deref(), web1.service_user.as_deref()), (Some("me"), Some("all")));
    assert_eq!(environment.find_host("web2.example.net").map(|host| host.name.as_str()), Some("web2"));
    assert!(environment.find_host("web2.other.net").is_none());
}

#[test]
fn what_all_share_lies_below_every_chain() {
    let snapshot = Snapshot::from_texts([
        ("environments/shared.toml", "[environment]\njobs = 2\ntimeout = 5\n[components.x]\np = 1\nq = 1\n"),
        ("environments/prod/environment.toml", "[environment]\ntimeout = 6\n[hosts]\na = [\"x\"]\n[components.x]\nq = 2\n"),
        ("environments/dev/environment.toml", "[environment]\nextends = \"prod\"\n[components.x]\nr = 3\n"),
    ]);
    let mut diagnostics = Vec::new();
    let environment = parse_environment(&snapshot, "dev", &mut diagnostics).unwrap();
    assert_eq!(diagnostics, []);
    assert_eq!((environment.jobs, environment.timeout_s), (2, 6));
    let values: Vec<_> =
        environment.overrides[0].attributes.iter().map(|(name, span, data)| (name.as_str(), &*span.file, data.to_display())).collect();
    assert_eq!(
        values,
        [
            ("p", "environments/shared.toml", "1".to_owned()),
            ("q", "environments/prod/environment.toml", "2".to_owned()),
            ("r", "environments/dev/environment.toml", "3".to_owned())
        ]
    );
    assert_eq!(snapshot.environments(), ["dev", "prod"]);
}

#[test]
fn names_are_found_in_either_spelling() {
    let (environment, _) =
        parse("[environment]\nhost_domain = \"example.net\"\n[resolver]\n\"db1.example.net\" = [\"192.0.2.1\"]\nweb1 = [\"192.0.2.2\"]\n");
    let found = |name: &str| environment.resolver.address(name, 1).v4;
    for (name, expected) in [
        ("db1", Some("192.0.2.1")),
        ("db1.example.net", Some("192.0.2.1")),
        ("web1.example.net", Some("192.0.2.2")),
        ("web1", Some("192.0.2.2")),
        ("db1.myexample.net", None),
        ("192.0.2.9", Some("192.0.2.9")),
    ] {
        assert_eq!(found(name).as_deref(), expected, "{name}");
    }
}

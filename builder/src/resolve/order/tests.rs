//! Small projects: who provides and requires what, and the order that comes of it, or the circles.

use super::super::{Assessment, Input, assess};
use crate::diagnostic::Severity;
use crate::snapshot::Snapshot;

/// Evaluates hosts with their components, and components with the bodies of their `configure`.
fn assess_project(hosts: &[(&str, &[&str])], components: &[(&str, &str)]) -> Assessment {
    let hosts: Vec<String> = hosts.iter().map(|(host, components)| format!("{host} = {components:?}\n")).collect();
    let hosts = hosts.concat();
    let definition = |(name, body): &(&str, &str)| {
        let variable = format!("{}{}", name[..1].to_uppercase(), &name[1..]);
        let body = body.replace('\n', "\n    ");
        let text = format!("def configure(self):\n    {body}\n{variable} = component(configure = configure)\n");
        (format!("components/{name}/component.star"), text)
    };
    let mut files: Vec<(String, String)> = components.iter().map(definition).collect();
    files.push(("environments/dev/environment.toml".to_owned(), format!("[hosts]\n{hosts}")));
    files.push(("sarsen.toml".to_owned(), "[project]\nname = \"demo\"\n".to_owned()));
    let snapshot = Snapshot::from_texts(files.iter().map(|(path, text)| (path.as_str(), text.as_str())));
    assess(&Input { snapshot: &snapshot, environment: "dev", local_root: "/home/me/sarsen", workers: 2 })
}

#[track_caller]
fn check(hosts: &[(&str, &[&str])], components: &[(&str, &str)], expected: &str) {
    let Assessment { model, diagnostics } = assess_project(hosts, components);
    let model = model.unwrap_or_else(|| panic!("{diagnostics:?}"));
    let order: Vec<String> = model.order.iter().map(|place| format!("{}/{}", place.host, place.component)).collect();
    assert_eq!(order.join(" "), expected);
    for host in &model.hosts {
        let of_host = model.order.iter().filter(|place| place.host == host.name).map(|place| &place.component);
        assert!(host.components.iter().map(|component| &component.name).eq(of_host), "{host:?}");
    }
}

#[track_caller]
fn check_circles(hosts: &[(&str, &[&str])], components: &[(&str, &str)], expected: &[&str]) {
    let diagnostics = assess_project(hosts, components).diagnostics;
    let errors = diagnostics.iter().filter(|diagnostic| diagnostic.severity == Severity::Error);
    let said: Vec<String> = errors
        .map(|error| {
            let notes = error.notes.iter().map(|note| format!("{} {}", note.message, note.location.as_ref().unwrap()));
            format!("{} {}: {}", error.code, error.message, notes.collect::<Vec<_>>().join("; "))
        })
        .collect();
    assert_eq!(said, expected);
}

#[test]
fn names_decide_where_nothing_else_does() {
    check(&[("b", &["x", "a"]), ("a", &["z", "x"])], &[("a", "pass"), ("x", "pass"), ("z", "pass")], "a/x a/z b/a b/x");
}

#[test]
fn who_requires_comes_after_who_provides_whichever_is_listed_first() {
    let components = [("app", "self.require(\"db\")"), ("zdb", "self.provide(\"db\", 1)")];
    check(&[("a", &["app", "zdb"])], &components, "a/zdb a/app");
    check(&[("a", &["zdb", "app"])], &components, "a/zdb a/app");
    check(&[("a", &["app"]), ("b", &["zdb"])], &components, "b/zdb a/app");
    let free = [("app", "self.require(\"db\", order = \"none\")"), components[1]];
    check(&[("a", &["app"]), ("b", &["zdb"])], &free, "a/app b/zdb");
}

#[test]
fn an_order_goes_through_other_hosts() {
    let components = [
        ("app", "self.require(\"queue\")"),
        ("queue", "self.provide(\"queue\", self.require_one(\"db\"))"),
        ("zdb", "self.provide(\"db\", 1)"),
    ];
    check(&[("a", &["app", "zdb"]), ("b", &["queue"])], &components, "a/zdb b/queue a/app");
}

#[test]
fn what_is_between_before_and_after_is_in_between() {
    let components = [
        ("begin", "self.before(\"maintained\")"),
        ("an", "self.provide(\"maintained\", None)"),
        ("zoo", "self.provide(\"maintained\", None)"),
        ("cease", "self.after(\"maintained\")"),
        ("m", "self.require(\"maintained\", order = \"before\", host = \"b\")"),
    ];
    check(&[("a", &["an", "begin", "cease", "m"]), ("b", &["zoo"])], &components, "a/begin a/an a/m b/zoo a/cease");
}

#[test]
fn order_alone_sees_no_values_and_never_needs_a_second_round() {
    let components =
        [("app", "self.after(\"db\")\nself.provide(\"app\", 1)"), ("db", "self.provide(\"db\", self.require(\"app\", order = \"none\"))")];
    check(&[("a", &["app", "db"])], &components, "a/db a/app");
    let missing = assess_project(&[("a", &["app"])], &[("app", "self.after(\"db\")\nself.before(\"x\", strict = False)")]).diagnostics;
    assert_eq!(missing.iter().map(|diagnostic| diagnostic.message.as_str()).collect::<Vec<_>>(), ["nothing provides `db`"]);
}

#[test]
fn who_provides_a_key_is_a_peer_of_the_others_who_do() {
    let member = "self.provide(\"member\", self.host.name)\nself.require(\"member\")";
    check(
        &[("a", &["member"]), ("b", &["member", "user"])],
        &[("member", member), ("user", "self.require(\"member\")")],
        "a/member b/member b/user",
    );
    check(&[("a", &["own"])], &[("own", "self.provide(\"k\", 1)\nself.require_one(\"k\")")], "a/own");
}

#[test]
fn a_circle_is_told_with_each_step_and_the_shortest_one() {
    let components = [
        ("a", "self.provide(\"a\", 1)\nself.require(\"b\")"),
        ("b", "self.provide(\"b\", 1)\nself.require(\"c\")\nself.require(\"d\")"),
        ("c", "self.provide(\"c\", 1)\nself.require(\"a\")"),
        ("d", "self.provide(\"d\", 1)\nself.require(\"b\")"),
        ("e", "self.require(\"a\")"),
        ("x", "self.provide(\"x\", 1)\nself.require(\"y\", order = \"before\")"),
        ("y", "self.provide(\"y\", 1)\nself.before(\"x\")"),
    ];
    let first = "E0506 components wait for each other in a circle: `b` on h, `d` on h: \
                 `d` on h comes after `b` on h, which provides `b` components/d/component.star:3:5; \
                 `b` on h comes after `d` on h, which provides `d` components/b/component.star:4:5";
    let second = "E0506 components wait for each other in a circle: `x` on h, `y` on h: \
                  `x` on h comes before `y` on h, which provides `y` components/x/component.star:3:5; \
                  `y` on h comes before `x` on h, which provides `x` components/y/component.star:3:5";
    check_circles(&[("h", &["a", "b", "c", "d", "e", "x", "y"])], &components, &[first, second]);
}

#[test]
fn a_circle_far_from_the_first_names_is_found() {
    let count = super::STARTS_MAX + 20;
    let names: Vec<String> = (0..count).map(|number| format!("n{number:04}")).collect();
    let mut components: Vec<(String, String)> = Vec::new();
    for (number, name) in names.iter().enumerate() {
        // Each waits for the next one; the last two wait for each other.
        let required = if number + 1 == count { number - 1 } else { number + 1 };
        components.push((name.clone(), format!("self.provide(\"{name}\", 1)\nself.require(\"n{required:04}\")")));
    }
    let components: Vec<(&str, &str)> = components.iter().map(|(name, body)| (name.as_str(), body.as_str())).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let diagnostics = assess_project(&[("h", &names)], &components).diagnostics;
    let said: Vec<&str> =
        diagnostics.iter().filter(|diagnostic| diagnostic.code == "E0506").map(|diagnostic| diagnostic.message.as_str()).collect();
    let (first, second) = (count - 2, count - 1);
    assert_eq!(said, [format!("components wait for each other in a circle: `n{first:04}` on h, `n{second:04}` on h")]);
}

#[test]
fn an_order_that_is_none_is_refused() {
    let diagnostics = assess_project(&[("a", &["app"])], &[("app", "self.require(\"x\", strict = False, order = \"later\")")]).diagnostics;
    assert_eq!(
        diagnostics.iter().map(|diagnostic| (diagnostic.code, diagnostic.message.as_str())).collect::<Vec<_>>(),
        [("E0507", "there is no order `later`")]
    );
}

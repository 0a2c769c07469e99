//! Which recipes come of a model, in which order, and what is found wrong.

use super::*;
use crate::model::Connect;

fn at(line: u32) -> Location {
    Location { file: "components/app/component.star".to_owned(), line, column: 1 }
}

fn file(path: &str, content: &str) -> StepKind {
    StepKind::File { path: path.parse().unwrap(), content: content.as_bytes().into(), executable: false }
}

fn directory(path: &str) -> StepKind {
    StepKind::Directory { path: path.parse().unwrap() }
}

fn build(name: &str, script: &str) -> StepKind {
    let outputs = BTreeMap::from([("out".to_owned(), ObjectId::placeholder(&format!("a/app/{name}/out")))]);
    let (sources, environment, inputs) = (Vec::new(), BTreeMap::new(), Vec::new());
    StepKind::Build(Build { name: name.to_owned(), script: script.to_owned(), sources, environment, inputs, outputs, timeout_s: 1 })
}

fn output(name: &str) -> String {
    format!("/r/store/{}-app-{name}", ObjectId::placeholder(&format!("a/app/{name}/out")))
}

fn host(name: &str, steps: Vec<StepKind>) -> HostModel {
    let component = ComponentModel {
        name: "app".to_owned(),
        features: Vec::new(),
        ignore: false,
        attributes: BTreeMap::new(),
        output: ObjectId::placeholder(&format!("{name}/app")),
        steps: steps.into_iter().zip(1..).map(|(kind, line)| Step { at: at(line), within: Vec::new(), kind }).collect(),
        messages: Vec::new(),
    };
    HostModel {
        name: name.to_owned(),
        fqdn: name.to_owned(),
        platform: None,
        ignore: false,
        tags: Vec::new(),
        ssh: crate::model::SshSettings::default(),
        components: vec![component],
    }
}

fn model(hosts: Vec<HostModel>) -> Model {
    Model {
        project: "p".to_owned(),
        environment: "e".to_owned(),
        profile: "p".to_owned(),
        root: "/r".to_owned(),
        connect: Connect::Local,
        service_user: None,
        jobs: 1,
        timeout_s: 1,
        hosts,
        resources: Vec::new(),
        uses: Vec::new(),
        order: Vec::new(),
    }
}

/// Plans one host's component and shows the labels in order, or the findings.
#[track_caller]
fn check(steps: Vec<StepKind>, expected: &[&str]) {
    let shown: Vec<String> = match plan(&model(vec![host("a", steps)])) {
        Ok(plan) => plan.recipes.iter().map(|recipe| recipe.label.clone()).collect(),
        Err(findings) => findings.iter().map(Finding::to_string).collect(),
    };
    assert_eq!(shown, expected);
}

#[test]
fn recipes_stand_after_what_their_texts_name() {
    check(vec![file("x", "y")], &["a/app", "a"]);
    check(vec![build("late", &output("soon")), build("soon", "true")], &["a/app/soon", "a/app/late", "a/app", "a"]);
    check(vec![file("x", &output("code")), build("code", "true")], &["a/app/code", "a/app", "a"]);
    let link = StepKind::Symlink { path: "x".parse().unwrap(), target: output("code") };
    check(vec![link, build("code", "true")], &["a/app/code", "a/app", "a"]);
}

#[test]
fn an_object_may_name_itself() {
    check(vec![file("x", &ObjectId::placeholder("a/app").to_string())], &["a/app", "a"]);
    check(vec![build("code", &output("code"))], &["a/app/code", "a/app", "a"]);
}

#[test]
fn circles_are_shown_with_their_places() {
    let circle = "components/app/component.star:1: these need one another in a circle, so none can be built first: \
        a/app/one -> a/app/two -> a/app/one; components/app/component.star:2";
    check(vec![build("one", &output("two")), build("two", &output("one")), build("user", &output("one"))], &[circle]);
}

#[test]
fn entries_of_a_tree_must_not_exclude_one_another() {
    check(vec![directory("d"), directory("d"), file("d/x", "")], &["a/app", "a"]);
    check(
        vec![file("x", "1"), file("x", "1")],
        &["components/app/component.star:1: `x` is declared twice in a/app; components/app/component.star:2"],
    );
    check(
        vec![file("x", ""), directory("x")],
        &["components/app/component.star:1: `x` is declared twice in a/app; components/app/component.star:2"],
    );
    let inside =
        "components/app/component.star:2: `x` in a/app is not a directory, but `x/y/z` is to lie in it; components/app/component.star:1";
    check(vec![file("x/y/z", ""), file("x", "")], &[inside]);
}

#[test]
fn names_that_would_collide_are_found() {
    check(
        vec![build("code", "1"), build("code", "2")],
        &["components/app/component.star:1: `a/app/code` is built twice under the same name; components/app/component.star:2"],
    );
    let StepKind::Build(mut code) = build("code", "") else { unreachable!() };
    code.inputs.push(ObjectId::placeholder("elsewhere"));
    let missing = format!(
        "components/app/component.star:1: a/app/code: the input `{}` is not something that this environment builds",
        ObjectId::placeholder("elsewhere")
    );
    check(vec![StepKind::Build(code)], &[&missing]);
}

#[test]
fn hosts_know_their_recipes_and_ignored_hosts_have_none() {
    let mut ignored = host("b", vec![file("x", "y")]);
    ignored.ignore = true;
    let plan = plan(&model(vec![host("a", vec![build("code", "true")]), ignored])).unwrap();
    let [a] = plan.hosts.as_slice() else { panic!("{:?}", plan.hosts) };
    let labels: Vec<&str> = a.recipes.iter().map(|index| plan.recipes[*index].label.as_str()).collect();
    assert_eq!(labels, ["a/app/code", "a/app", "a"]);
    assert_eq!(plan.recipes[a.bundle].outputs["out"].name.as_str(), "p-e-a");
}

#[test]
fn ignored_components_are_no_part_of_the_bundle() {
    let mut here = host("a", vec![build("code", "true")]);
    here.components[0].ignore = true;
    let plan = plan(&model(vec![here])).unwrap();
    assert_eq!(plan.hosts[0].recipes, [plan.hosts[0].bundle]);
    let RecipeKind::Bundle(bundle) = &plan.recipes[plan.hosts[0].bundle].kind else { panic!() };
    assert!(bundle.host.components.is_empty());
}

use sarsen_store::ObjectId;
use sarsen_store::manifest::{Component, Hook, Identity, Link, MANIFEST_VERSION, Restart, Role, Service};

use super::*;

fn object(label: &str) -> ObjectRef {
    ObjectRef { id: ObjectId::placeholder(label), name: "x".parse().unwrap() }
}

fn service(unit: &str) -> Service {
    Service {
        unit: unit.to_owned(),
        component: "app".to_owned(),
        command: vec!["/bin/true".to_owned()],
        reload: Vec::new(),
        environment: BTreeMap::new(),
        user: None,
        working_directory: None,
        restart: Restart::No,
        reload_trigger: String::new(),
        role: Role::Service,
        stop_timeout_ms: 1000,
    }
}

/// A bundle named `label` with units and their texts, links and components.
fn loaded(label: &str, units: &[(&str, &str)], links: &[(&str, &str)], components: &[(&str, &str)]) -> Loaded {
    let identity = Identity { project: "p".to_owned(), environment: "e".to_owned(), host: "h".to_owned(), profile: "shop".to_owned() };
    let link = |(path, target): &(&str, &str)| Link { path: (*path).to_owned(), target: (*target).to_owned(), component: "app".to_owned() };
    let component = |(name, label): &(&str, &str)| Component { name: (*name).to_owned(), features: Vec::new(), object: object(label) };
    Loaded {
        bundle: object(label),
        manifest: Manifest {
            version: MANIFEST_VERSION,
            identity,
            store: "/s/store".to_owned(),
            components: components.iter().map(component).collect(),
            services: units.iter().map(|(unit, _)| service(unit)).collect(),
            links: links.iter().map(link).collect(),
            state_directories: Vec::new(),
            hooks: Vec::new(),
            health_checks: Vec::new(),
            requirements: Vec::new(),
        },
        units: units.iter().map(|(unit, text)| ((*unit).to_owned(), (*text).to_owned())).collect(),
    }
}

const RELOADABLE: &str = "[Unit]\nX-Reload-Triggers=1\n[Service]\nExecStart=/a\nExecReload=/r\n";

#[test]
fn a_first_deployment_starts_everything_in_order() {
    let new = loaded("new", &[("b", ""), ("a", "")], &[("/z", "/1"), ("/y", "/2")], &[("app", "1")]);
    let plan = plan_activation(None, &new);
    assert_eq!((plan.start, plan.stop.len()), (vec!["b".to_owned(), "a".to_owned()], 0));
    assert_eq!(plan.links_make, ["/y", "/z"]);
    assert_eq!(plan.components_added, ["app"]);
}

#[test]
fn each_unit_gets_what_its_change_means() {
    let old = loaded("old", &[("gone", ""), ("same", "x"), ("config", RELOADABLE), ("changed", "[Service]\nExecStart=/a")], &[], &[]);
    let new = loaded(
        "new",
        &[("added", ""), ("changed", "[Service]\nExecStart=/b"), ("config", &RELOADABLE.replace("=1", "=2")), ("same", "x")],
        &[],
        &[],
    );
    let plan = plan_activation(Some(&old), &new);
    assert_eq!(plan.stop, ["changed", "gone"], "in the reverse of the old order");
    assert_eq!(plan.start, ["added", "changed"]);
    assert_eq!(plan.reload, ["config"]);
    assert_eq!(plan.keep, ["same"]);
}

#[test]
fn links_and_components_are_compared_by_what_they_lead_to() {
    let old = loaded("old", &[], &[("/same", "/1"), ("/moved", "/1"), ("/gone", "/1")], &[("same", "1"), ("changed", "1"), ("gone", "1")]);
    let new = loaded("new", &[], &[("/same", "/1"), ("/moved", "/2"), ("/new", "/1")], &[("same", "1"), ("changed", "2"), ("new", "1")]);
    let plan = plan_activation(Some(&old), &new);
    assert_eq!(plan.links_make, ["/moved", "/new"]);
    assert_eq!(plan.links_remove, ["/gone"]);
    assert_eq!(
        (plan.components_added, plan.components_changed, plan.components_removed),
        (vec!["new".to_owned()], vec!["changed".to_owned()], vec!["gone".to_owned()])
    );
}

#[test]
fn the_same_bundle_changes_nothing() {
    let bundle = loaded("same", &[("a", "x")], &[("/l", "/1")], &[("app", "1")]);
    let plan = plan_activation(Some(&bundle), &bundle);
    assert_eq!(plan, ActivationPlan { unchanged: true, keep: vec!["a".to_owned()], ..ActivationPlan::default() });
}

#[test]
fn hooks_are_listed_in_the_order_of_their_phases() {
    let hook = |name: &str, phase| Hook {
        name: name.to_owned(),
        component: "app".to_owned(),
        phase,
        verify: String::new(),
        update: "true".to_owned(),
        user: None,
        timeout_ms: 1,
        trigger: String::new(),
    };
    let mut new = loaded("new", &[], &[], &[]);
    new.manifest.hooks = vec![
        hook("last", Phase::PostConfirm),
        hook("never", Phase::OnRollback),
        hook("first", Phase::PreSwitch),
        hook("then", Phase::PreSwitch),
    ];
    assert_eq!(plan_activation(None, &new).hooks, ["app/first", "app/then", "app/last"]);
}

#[test]
fn a_job_is_left_to_its_trigger() {
    let with_job = |label: &str, text: &str, timer: &str| {
        let mut loaded = loaded(label, &[("job.service", text), ("job.timer", timer)], &[], &[]);
        loaded.manifest.services[0].role = Role::Job;
        loaded.manifest.services[1].role = Role::Trigger;
        loaded
    };
    let old = with_job("old", "[Service]\nExecStart=/a\n", "[Timer]\nOnCalendar=daily\n");
    let first = plan_activation(None, &old);
    assert_eq!((first.start, first.stop), (vec!["job.timer".to_owned()], Vec::new()));
    let changed = plan_activation(Some(&old), &with_job("new", "[Service]\nExecStart=/b\n", "[Timer]\nOnCalendar=daily\n"));
    assert_eq!((changed.start, changed.stop, changed.keep), (Vec::new(), Vec::new(), vec!["job.timer".to_owned()]));
    let rescheduled = plan_activation(Some(&old), &with_job("new", "[Service]\nExecStart=/a\n", "[Timer]\nOnCalendar=weekly\n"));
    assert_eq!((&rescheduled.start, &rescheduled.stop), (&vec!["job.timer".to_owned()], &vec!["job.timer".to_owned()]));
    let removed = plan_activation(Some(&old), &loaded("new", &[], &[], &[]));
    assert_eq!(removed.stop, ["job.timer"], "a job that is running goes on to its end");
    assert_eq!(plan_activation(Some(&old), &old).keep, ["job.timer"], "a job that does not run has not drifted");
}

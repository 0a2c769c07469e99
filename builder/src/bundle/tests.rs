//! The manifest and a unit file, byte by byte.

use std::collections::BTreeMap;

use sarsen_store::ObjectId;
use sarsen_store::manifest::{Identity, Phase, Restart};

use super::*;
use crate::diagnostic::Location;
use crate::model::{HostModel, Step};

const MANIFEST: &str = include_str!("../../../fixtures/golden/manifest-v1.json");
const UNIT: &str = include_str!("../../../fixtures/golden/unit-v1.service");

fn own(rest: &str) -> String {
    format!("/var/lib/sarsen/store/{}-web/{rest}", ObjectId::placeholder("a/web"))
}

fn service() -> model::Service {
    model::Service {
        name: "web".to_owned(),
        command: vec![own("bin/web"), "--greeting".to_owned(), "100% \"$HOME\"".to_owned()],
        reload: vec!["/bin/kill".to_owned(), "-HUP".to_owned(), "$MAINPID".to_owned()],
        reload_on: vec![own("web.conf")],
        environment: BTreeMap::from([("CONF".to_owned(), own("web.conf")), ("NOTE".to_owned(), "a b%".to_owned())]),
        user: Some("www-data".to_owned()),
        working_directory: Some("/var/lib/sarsen/state/shop/web/data".to_owned()),
        restart: Restart::OnFailure,
        kind: "notify".to_owned(),
        after: vec!["redis".to_owned(), "postgresql.service".to_owned()],
        stop_timeout_ms: 10_000,
        settings: BTreeMap::from([("LimitNOFILE".to_owned(), "4096".to_owned())]),
    }
}

fn steps() -> Vec<StepKind> {
    vec![
        StepKind::Service(service()),
        StepKind::StateDirectory { path: "/var/lib/sarsen/state/shop/web/data".to_owned(), user: Some("www-data".to_owned()), mode: 0o750 },
        StepKind::Link { path: "/etc/cron.d/web".to_owned(), target: own("web.cron") },
        StepKind::Link { path: "/etc/app".to_owned(), target: own("app") },
        StepKind::Hook {
            name: "migrate".to_owned(),
            phase: Phase::PreSwitch,
            verify: String::new(),
            update: format!("{} migrate", own("bin/web")),
            user: None,
            timeout_ms: 60_000,
            on_change: Vec::new(),
        },
        StepKind::HealthCheck {
            name: "answers".to_owned(),
            probe: Probe::Http { url: "http://127.0.0.1:8080/".to_owned(), status: 200 },
            timeout_ms: 5000,
            interval_ms: 250,
            successes: 2,
        },
        StepKind::Requirement(Requirement::Port { port: 8080, component: "web".to_owned() }),
    ]
}

fn recipe() -> BundleRecipe {
    let at = Location { file: "components/web/component.star".to_owned(), line: 1, column: 1 };
    let component = ComponentModel {
        name: "web".to_owned(),
        features: vec!["tls".to_owned()],
        ignore: false,
        attributes: BTreeMap::new(),
        output: ObjectId::placeholder("a/web"),
        steps: steps().into_iter().map(|kind| Step { at: at.clone(), within: Vec::new(), kind }).collect(),
        messages: Vec::new(),
    };
    let host = HostModel {
        name: "a".to_owned(),
        fqdn: "a.example.com".to_owned(),
        platform: None,
        ignore: false,
        tags: Vec::new(),
        ssh: crate::model::SshSettings::default(),
        components: vec![component],
    };
    let names = ["shop", "prod", "a", "shop"].map(str::to_owned);
    let [project, environment, host_name, profile] = names;
    let identity = Identity { project, environment, host: host_name, profile };
    BundleRecipe { identity, store: "/var/lib/sarsen/store".to_owned(), host: Arc::new(host) }
}

fn ids() -> Substitution {
    let mut ids = Substitution::new();
    ids.insert(ObjectId::placeholder("a/web"), ObjectId::from_bytes([0x11; 20]));
    ids
}

fn text_of(entries: &[NewEntry], path: &str) -> String {
    let entry = entries.iter().find(|entry| entry.path.as_str() == path).unwrap();
    match &entry.kind {
        NewEntryKind::File { content, .. } => String::from_utf8(content.to_vec()).unwrap(),
        NewEntryKind::Symlink { target } => target.clone(),
        NewEntryKind::Directory => panic!("{path} is a directory"),
    }
}

#[test]
fn manifest_and_unit_are_pinned() {
    let (manifest, entries) = assemble(&recipe(), &ids()).unwrap();
    assert_eq!(text_of(&entries, MANIFEST_FILE), MANIFEST, "a format change: bump MANIFEST_VERSION and say so in the changelog");
    assert_eq!(Manifest::parse(MANIFEST.as_bytes()).unwrap(), manifest);
    assert_eq!(text_of(&entries, "unit.d/web.service"), UNIT, "changed units are restarted on every host: say so in the changelog");
    assert_eq!(text_of(&entries, "web"), format!("../{}-web", ObjectId::from_bytes([0x11; 20])));
    assert_eq!(entries.len(), 3);
}

#[test]
fn a_changed_reload_trigger_is_the_only_difference_that_changed_content_makes() {
    let trigger = |id: u8| {
        let mut ids = Substitution::new();
        ids.insert(ObjectId::placeholder("a/web"), ObjectId::from_bytes([id; 20]));
        assemble(&recipe(), &ids).unwrap().0.services[0].reload_trigger.clone()
    };
    assert_eq!(trigger(1), trigger(1));
    assert_ne!(trigger(1), trigger(2));
}

#[test]
fn a_timer_is_a_job_and_what_starts_it() {
    let job = model::Service { kind: "oneshot".to_owned(), restart: Restart::No, reload: Vec::new(), reload_on: Vec::new(), ..service() };
    let calendar = vec!["Mon..Fri 03:17".to_owned(), "*-*-01 04:00".to_owned()];
    let timer = model::Timer { job, calendar, every_s: Some(300), spread_s: 60, catch_up: true };
    let mut recipe = recipe();
    let host = Arc::make_mut(&mut recipe.host);
    host.components[0].steps.truncate(1);
    host.components[0].steps[0].kind = StepKind::Timer(timer);
    let (manifest, entries) = assemble(&recipe, &ids()).unwrap();
    let roles: Vec<_> = manifest.services.iter().map(|unit| (unit.unit.as_str(), unit.role)).collect();
    assert_eq!(roles, [("web.service", Role::Job), ("web.timer", Role::Trigger)]);
    assert_eq!(Manifest::parse(manifest.to_json().as_bytes()).unwrap(), manifest);
    let job = text_of(&entries, "unit.d/web.service");
    assert!(job.contains("Type=oneshot\n") && !job.contains("[Install]"), "{job}");
    assert_eq!(
        text_of(&entries, "unit.d/web.timer"),
        "[Unit]\nDescription=when web/web of shop prod runs\nDefaultDependencies=no\nAfter=sysinit.target time-set.target sarsen-settle.service\n\
         Before=shutdown.target\nConflicts=shutdown.target\n\n[Timer]\nOnCalendar=Mon..Fri 03:17\nOnCalendar=*-*-01 04:00\nOnActiveSec=300s\n\
         OnUnitActiveSec=300s\nAccuracySec=1s\nRandomizedDelaySec=60s\nPersistent=yes\n\n[Install]\nWantedBy=multi-user.target\n"
    );
}

#[test]
fn a_hooks_trigger_is_what_it_names_as_it_will_be() {
    let trigger = |on_change: Vec<String>, id: u8| {
        let mut recipe = recipe();
        let host = Arc::make_mut(&mut recipe.host);
        for step in &mut host.components[0].steps {
            if let StepKind::Hook { on_change: names, update, .. } = &mut step.kind {
                (*names, *update) = (on_change.clone(), "true".to_owned());
            }
        }
        let mut ids = Substitution::new();
        ids.insert(ObjectId::placeholder("a/web"), ObjectId::from_bytes([id; 20]));
        assemble(&recipe, &ids).unwrap().0.hooks[0].trigger.clone()
    };
    assert_eq!(trigger(Vec::new(), 1), "");
    assert_eq!(trigger(vec!["a".to_owned()], 1), trigger(vec!["a".to_owned()], 2));
    assert_ne!(trigger(vec!["a".to_owned()], 1), trigger(vec!["b".to_owned()], 1));
    assert_ne!(trigger(vec![own("conf")], 1), trigger(vec![own("conf")], 2), "another tree is another content");
}

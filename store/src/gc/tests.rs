//! Collection: what stays, what goes, and when it refuses.

use std::os::unix::fs::symlink;

use tempfile::TempDir;

use super::*;
use crate::Digest;
use crate::transaction::{Durable, NewEntry, NewEntryKind, Transaction};

const LATER: Duration = Duration::from_hours(1_000_000);
const HOUR: Duration = Duration::from_hours(1);

fn store() -> (TempDir, ObjectStore) {
    let directory = tempfile::tempdir().unwrap();
    let store = ObjectStore::open(&directory.path().join("root")).unwrap();
    (directory, store)
}

/// Puts an object of two files: one of its own, which names `references`, and one that all objects share.
fn put(transaction: &mut Transaction, name: &str, references: &[ObjectRef]) -> ObjectRef {
    let own = format!("{name} {references:?} {}", references.iter().map(ToString::to_string).collect::<String>());
    let entry = |path: &str, content: &[u8]| NewEntry {
        path: path.parse().unwrap(),
        kind: NewEntryKind::File { content: content.into(), executable: false },
    };
    let entries = [entry("own", own.as_bytes()), entry("shared", &[1; 1000])];
    transaction.put_entries(&name.parse().unwrap(), &entries, None, references).unwrap()
}

/// Publishes `library` <- `application` and `lone`.
fn publish(store: &ObjectStore) -> [ObjectRef; 3] {
    let mut transaction = store.begin().unwrap();
    let library = put(&mut transaction, "library", &[]);
    let application = put(&mut transaction, "application", std::slice::from_ref(&library));
    let lone = put(&mut transaction, "lone", &[]);
    transaction.barrier().unwrap();
    [library, application, lone]
}

/// A plan made when everything is old.
fn plan_later(store: &ObjectStore, roots: &[ObjectRef]) -> Result<GcPlan, GcError> {
    plan(store, &Roots { objects: roots.to_vec(), given_up: BTreeSet::new() }, SystemTime::UNIX_EPOCH + LATER, HOUR)
}

fn removed(plan: &GcPlan) -> Vec<ObjectRef> {
    plan.remove.iter().map(|removal| removal.object.clone()).collect()
}

fn generation(store: &ObjectStore, profile: &str, number: u32, target: &str) -> PathBuf {
    let directory = store.root().join("profiles").join(profile).join("gen");
    fsutil::create_dir_all(&directory, 0o755).unwrap();
    let link = directory.join(number.to_string());
    symlink_for_test(target, &link);
    link
}

#[expect(clippy::disallowed_methods, reason = "the test plays the activator")]
fn symlink_for_test(target: &str, link: &Path) {
    symlink(target, link).unwrap();
}

#[test]
fn only_what_nothing_needs_goes() {
    let (_directory, store) = store();
    let [library, application, lone] = publish(&store);
    let shared = store.blob_path(&Digest::of(&[1; 1000]), false);

    let all = plan_later(&store, &[]).unwrap();
    assert_eq!(all.keep, []);
    let order = removed(&all);
    assert!(order.iter().position(|object| *object == application) < order.iter().position(|object| *object == library));

    generation(&store, "web", 1, &format!("../../../store/{application}"));
    let some = plan_later(&store, &[]).unwrap();
    assert_eq!(removed(&some), std::slice::from_ref(&lone));
    assert!(some.bytes > 0 && some.bytes < 1000, "the shared file is not freed: {some:?}");
    assert_eq!(store.objects().unwrap().len(), 3, "a plan changes nothing");

    let report = execute(&store, &some).unwrap();
    assert_eq!((report.objects, report.contents, report.bytes), (1, 1, some.bytes));
    assert!(!store.contains(&lone.id).unwrap() && !store.object_path(&lone).exists() && !store.manifest_path(&lone.id).exists());
    assert!(shared.exists());
    assert_eq!(store.verify().unwrap(), []);
    assert_eq!(execute(&store, &plan_later(&store, &[]).unwrap()).unwrap(), GcReport::default());

    // Without the generation the first plan is right again, but for what it lists and is gone already.
    fsutil::remove_tree(&store.root().join("profiles")).unwrap();
    assert_eq!(execute(&store, &all).unwrap().objects, 2);
    assert!(!shared.exists());
    assert_eq!((store.objects().unwrap(), store.verify().unwrap()), (vec![], vec![]));
}

#[test]
fn pins_callers_and_fresh_objects_are_kept_with_what_they_need() {
    let (_directory, store) = store();
    let [library, application, lone] = publish(&store);
    let pin = "release".parse().unwrap();
    store.pin(&pin, &application).unwrap();
    assert_eq!(removed(&plan_later(&store, &[]).unwrap()), std::slice::from_ref(&lone));
    assert_eq!(removed(&plan_later(&store, std::slice::from_ref(&lone)).unwrap()), []);
    store.unpin(&pin).unwrap();
    assert_eq!(removed(&plan_later(&store, &[application]).unwrap()), [lone]);
    let fresh = plan(&store, &Roots::default(), SystemTime::UNIX_EPOCH + HOUR, HOUR).unwrap();
    assert_eq!(removed(&fresh), []);
    assert!(fresh.keep.contains(&library));
}

#[test]
fn what_is_held_or_under_way_stays_until_it_is_let_go() {
    let (_directory, store) = store();
    let [library, application, lone] = publish(&store);
    let unheld = plan_later(&store, &[]).unwrap();
    // Everything here happens after the plan was made.
    let proof = Durable::of(&store, &application).unwrap();
    let mut transaction = store.begin().unwrap();
    assert_eq!(put(&mut transaction, "lone", &[]), lone);
    let new = put(&mut transaction, "new", &[]);
    let report = execute(&store, &unheld).unwrap();
    assert!(report.objects == 0 && report.contents_postponed, "{report:?}");
    let published = transaction.barrier().unwrap();
    assert_eq!(removed(&plan_later(&store, &[]).unwrap()), []);
    drop((proof, published));
    let report = execute(&store, &plan_later(&store, std::slice::from_ref(&new)).unwrap()).unwrap();
    assert_eq!((report.objects, report.contents_postponed), (3, false));
    assert!(!store.contains(&library.id).unwrap());
    assert_eq!(store.verify().unwrap(), []);
}

#[test]
fn doubtful_generations_stop_the_collection() {
    let refused = |prepare: &dyn Fn(&ObjectStore)| {
        let (_directory, store) = store();
        publish(&store);
        prepare(&store);
        plan_later(&store, &[]).unwrap_err().to_string()
    };
    let profile = |store: &ObjectStore| {
        let profile = store.root().join("profiles/web");
        fsutil::create_dir_all(&profile.join("gen"), 0o755).unwrap();
        profile
    };
    let traces = "there are traces of generations";
    assert!(refused(&|store| symlink_for_test("gen/3", &profile(store).join("current"))).contains(traces));
    assert!(refused(&|store| fsutil::replace_file(&profile(store).join("gen/3.json"), b"{}", 0o644).unwrap()).contains(traces));
    assert!(refused(&|store| drop(generation(store, "web", 1, "../../elsewhere"))).contains("does not point to an object"));
    let absent = ObjectRef { id: crate::ObjectId::placeholder("absent"), name: "absent".parse().unwrap() };
    assert!(refused(&|store| drop(generation(store, "web", 1, &format!("../../../store/{absent}")))).contains("is incomplete"));
    assert!(refused(&|store| fsutil::create_dir_all(&profile(store).join("gen/1"), 0o755).unwrap()).contains("neither a generation"));
    let not_a_directory = |store: &ObjectStore| fsutil::replace_file(&store.root().join("profiles"), b"", 0o644).unwrap();
    assert!(refused(&not_a_directory).contains("cannot be told"));

    // A profile that has only been set up is no reason to refuse.
    let (_directory, store) = store();
    publish(&store);
    fsutil::replace_file(&profile(&store).join("identity.json"), b"{}", 0o644).unwrap();
    assert_eq!(removed(&plan_later(&store, &[]).unwrap()).len(), 3);
}

#[test]
fn a_collection_that_was_cut_off_is_finished_by_the_next() {
    let (_directory, store) = store();
    let [_, application, lone] = publish(&store);
    generation(&store, "web", 1, &format!("/elsewhere/store/{application}"));
    let digest = store.manifest(&lone).unwrap().tree.file(0).unwrap().digest;
    // Killed after the rename: the row and the manifest are still there.
    store.move_to_trash(&store.object_path(&lone)).unwrap();
    let root = store.root().to_owned();
    drop(store);
    let store = ObjectStore::open(&root).unwrap();
    assert!(!store.contains(&lone.id).unwrap());
    let report = execute(&store, &plan_later(&store, &[]).unwrap()).unwrap();
    assert_eq!((report.objects, report.contents), (0, 1));
    assert!(!store.blob_path(&digest, false).exists());
    assert_eq!(std::fs::read_dir(root.join("trash")).unwrap().count(), 0);
    assert_eq!(store.verify().unwrap(), []);
}

#[test]
fn a_plan_can_be_cut_and_says_what_each_removal_frees() {
    let (_directory, store) = store();
    publish(&store);
    let plan = plan_later(&store, &[]).unwrap();
    assert_eq!(plan.remove.len(), 3);
    assert_eq!(plan.remove.iter().map(|removal| removal.frees).sum::<u64>(), plan.bytes);
    // All three hold the 1000 bytes; they are free with the last one.
    let frees: Vec<bool> = plan.remove.iter().map(|removal| removal.frees >= 1000).collect();
    assert_eq!(frees, [false, false, true]);
    let first = plan.clone().up_to(1);
    assert_eq!(removed(&first), removed(&plan)[..1]);
    assert_eq!(first.keep.len(), 2);
    let report = execute(&store, &first).unwrap();
    assert_eq!((report.objects, report.bytes), (1, first.bytes));
    // What was cut off is whole.
    assert_eq!(store.verify().unwrap(), []);
    assert!(plan.clone().up_to(0).remove.is_empty());
    assert_eq!(plan.clone().up_to(u64::MAX), plan);
}

#[test]
fn a_lost_row_costs_no_object_and_is_found() {
    let (_directory, store) = store();
    let [library, application, lone] = publish(&store);
    generation(&store, "shop", 1, &format!("../../../store/{application}"));
    let index = rusqlite::Connection::open(store.root().join("index.sqlite")).unwrap();
    assert_eq!(index.execute("DELETE FROM reference", []).unwrap(), 1);
    assert_eq!(removed(&plan_later(&store, &[]).unwrap()), [lone]);
    let findings: Vec<String> = store.verify().unwrap().iter().map(ToString::to_string).collect();
    assert_eq!(findings, [format!("`{application}` has other references in the index than in its manifest")]);
    store.rebuild_index().unwrap();
    assert_eq!(store.verify().unwrap(), []);
    assert_eq!(store.closure(std::slice::from_ref(&application)).unwrap(), [library, application]);
}

#[test]
fn a_result_is_kept_while_its_link_is_there() {
    let (directory, store) = store();
    let [library, application, lone] = publish(&store);
    let link = directory.path().join("result");
    store.keep_result(&link, &application).unwrap();
    assert_eq!(std::fs::read_link(&link).unwrap(), store.object_path(&application));
    let plan = plan_later(&store, &[]).unwrap();
    assert_eq!(removed(&plan), std::slice::from_ref(&lone));
    assert_eq!(
        why(&store, &library).unwrap(),
        [Reason { root: Root::Result { link: link.clone() }, chain: vec![application.clone(), library.clone()] }]
    );
    assert_eq!(why(&store, &lone).unwrap(), []);
    fsutil::remove_file(&link).unwrap();
    execute(&store, &plan_later(&store, &[]).unwrap()).unwrap();
    assert_eq!(store.objects().unwrap(), []);
    assert!(Directory::open(&store.root().join("results")).unwrap().names().unwrap().is_empty());
    // Something that is not ours is not replaced.
    fsutil::replace_file(&link, b"mine", 0o644).unwrap();
    let [_, application, _] = publish(&store);
    assert!(matches!(store.keep_result(&link, &application), Err(StoreError::Refused { .. })));
}

#[test]
fn an_object_in_use_by_a_process_stays() {
    let (_directory, store) = store();
    let [library, application, lone] = publish(&store);
    // An open file is enough; this process is a process like any other.
    let open = std::fs::File::open(store.object_path(&application).join("own")).unwrap();
    let plan = plan_later(&store, &[]).unwrap();
    assert_eq!(removed(&plan), std::slice::from_ref(&lone));
    let process = std::process::id();
    let reasons = why(&store, &library).unwrap();
    assert_eq!(reasons, [Reason { root: Root::Process { process, part: "fd" }, chain: vec![application, library] }]);
    assert_eq!(reasons[0].root.to_string(), format!("process {process} (fd)"));
    drop(open);
    assert_eq!(removed(&plan_later(&store, &[]).unwrap()).len(), 3);
}

#[test]
fn why_shows_the_shortest_way_from_every_root() {
    let (_directory, store) = store();
    let [library, application, _] = publish(&store);
    let mut transaction = store.begin().unwrap();
    let bundle = put(&mut transaction, "bundle", &[application.clone(), library.clone()]);
    transaction.barrier().unwrap();
    let link = generation(&store, "web", 3, &format!("/var/lib/sarsen/store/{bundle}"));
    store.pin(&"mine".parse().unwrap(), &application).unwrap();
    let expected = [
        Reason { root: Root::Generation { link }, chain: vec![bundle, library.clone()] },
        Reason { root: Root::Pin { name: "mine".to_owned() }, chain: vec![application, library.clone()] },
    ];
    assert_eq!(why(&store, &library).unwrap(), expected);
    let absent = ObjectRef { id: crate::ObjectId::placeholder("absent"), name: library.name };
    assert!(matches!(why(&store, &absent), Err(GcError::Store(StoreError::Missing { .. }))));
}

#[test]
fn retention_never_gives_up_what_a_profile_needs() {
    let (_directory, store) = store();
    let [_, application, _] = publish(&store);
    for number in 1..=6 {
        generation(&store, "web", number, &format!("../../../store/{application}"));
    }
    let profile = store.root().join("profiles/web");
    symlink_for_test("gen/4", &profile.join("current"));
    symlink_for_test("gen/2", &profile.join("good"));
    let policy = Retention { keep_last: 1, keep_days: 3 };
    let expired = |days: u64| {
        let all = generations(&store).unwrap();
        let now = all[0].made + Duration::from_hours(24 * days);
        policy.expired(&all, now).iter().map(|generation| generation.number).collect::<Vec<_>>()
    };
    assert_eq!(expired(4), [1, 3, 5]);
    assert!(expired(2).is_empty());
    // During a trial nothing goes.
    fsutil::replace_file(&profile.join("pending.json"), b"{}", 0o644).unwrap();
    assert!(expired(4).is_empty());
}

#[test]
fn a_plan_shows_what_giving_up_a_generation_would_free() {
    let directory = TempDir::new().unwrap();
    let store = ObjectStore::open(directory.path()).unwrap();
    let [_, application, lone] = publish(&store);
    let old = generation(&store, "shop", 1, &format!("../../../store/{lone}"));
    generation(&store, "shop", 2, &format!("../../../store/{application}"));
    let planned = |given_up: BTreeSet<PathBuf>| {
        let roots = Roots { given_up, ..Roots::default() };
        plan(&store, &roots, SystemTime::UNIX_EPOCH + LATER, HOUR).unwrap()
    };
    assert_eq!(removed(&planned(BTreeSet::new())), []);
    let with = planned(BTreeSet::from([old.clone()]));
    assert_eq!(removed(&with), std::slice::from_ref(&lone));
    // What the caller has not done is not done: the link still counts.
    assert_eq!(execute(&store, &with).unwrap().objects, 0);
    fsutil::remove_file(&old).unwrap();
    assert_eq!(execute(&store, &with).unwrap().objects, 1);
}

#[test]
fn what_is_published_again_between_two_attempts_at_the_index_stays() {
    let (_directory, store) = store();
    let [_, application, lone] = publish(&store);
    // The first attempt: the objects are gone, their rows could not be.
    let remove = [application, lone.clone()];
    store.discard(&remove).unwrap();
    let mut transaction = store.begin().unwrap();
    assert_eq!(put(&mut transaction, "lone", &[]), lone);
    let _durable = transaction.barrier().unwrap();
    store.forget_removed(&remove).unwrap();
    assert_eq!(store.find(&lone.id).unwrap(), Some(lone));
    assert_eq!(store.objects().unwrap().len(), 2);
    assert_eq!(store.verify().unwrap(), []);
}

#[test]
fn what_killed_programs_left_goes_and_keeps_nothing() {
    let (directory, store) = store();
    let [library, application, _] = publish(&store);
    generation(&store, "web", 1, &format!("../../../store/{application}"));
    let temporary = |below: &str| store.root().join(below).join(format!(".{}.tmp", fsutil::random_name().unwrap()));
    let [pin, record, file] = ["pins", "results", ""].map(temporary);
    symlink_for_test(&format!("../store/{application}"), &pin);
    symlink_for_test(directory.path().join("outer").to_str().unwrap(), &record);
    fsutil::write_new_file(&file, b"{", 0o644).unwrap();
    let manifest = store.manifest_path(&crate::ObjectId::placeholder("of an object that is not there"));
    fsutil::write_new_file(&manifest, b"of nothing", 0o444).unwrap();
    let all = plan_later(&store, &[]).unwrap();
    execute(&store, &all).unwrap();
    for left in [&pin, &record, &file, &manifest] {
        assert!(std::fs::symlink_metadata(left).is_err(), "{}", left.display());
    }
    let left: BTreeSet<ObjectRef> = store.objects().unwrap().into_iter().collect();
    assert_eq!(left, BTreeSet::from([library, application]));
    assert_eq!(store.verify().unwrap(), []);
}

#[test]
fn what_came_after_the_plan_keeps_what_it_needs() {
    let (_directory, store) = store();
    let [library, application, lone] = publish(&store);
    let plan = plan_later(&store, &[]).unwrap();
    assert_eq!(plan.remove.len(), 3);
    let mut transaction = store.begin().unwrap();
    let newer = put(&mut transaction, "newer", std::slice::from_ref(&library));
    // Nobody holds it any more when the plan is carried out, but it was in no plan, and who finds it counts on its closure.
    drop(transaction.barrier().unwrap());
    assert_eq!(execute(&store, &plan).unwrap().objects, 2);
    assert_eq!(store.closure(std::slice::from_ref(&newer)).unwrap().len(), 2);
    assert_eq!(store.verify().unwrap(), []);
    assert!(!store.contains(&application.id).unwrap() && !store.contains(&lone.id).unwrap());
    execute(&store, &plan_later(&store, &[]).unwrap()).unwrap();
    assert_eq!(store.objects().unwrap(), []);
}

//! Collection: what stays, what goes, and when it refuses.

use std::os::unix::fs::symlink;

use tempfile::TempDir;

use super::*;
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
    plan(store, &Roots { objects: roots.to_vec() }, SystemTime::UNIX_EPOCH + LATER, HOUR)
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
    assert!(some.remove[0].bytes > 1000 && some.bytes < 1000, "the shared file is not freed: {some:?}");
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
    let own = store.manifest(&lone).unwrap().tree.entries()[0].clone();
    let EntryKind::File { digest, .. } = own.kind else { panic!("{own:?}") };
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

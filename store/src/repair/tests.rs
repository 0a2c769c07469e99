//! Damage as verification finds it, put right from every kind of source; and what nobody can put right.

#![expect(clippy::disallowed_methods, reason = "the tests damage stores on purpose")]

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::time::Duration;

use super::*;
use crate::Digest;
use crate::progress::Counters;
use crate::verify::tests::damage::{Random, World};

fn effort() -> Effort<'static> {
    static COUNTERS: Counters = Counters::new();
    Effort { threads: 2, bytes_per_second: None, progress: &COUNTERS }
}

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_hours(500_000)
}

fn repair(world: &World, sources: &[Source]) -> Repaired {
    world.store.repair(None, sources, now(), &effort()).unwrap()
}

/// The names of all files below a directory.
fn files_below(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).into_iter().flatten().map(Result::unwrap) {
        if entry.file_type().unwrap().is_dir() { files.extend(files_below(&entry.path())) } else { files.push(entry.path()) }
    }
    files
}

#[test]
fn everything_is_put_right_from_another_store() {
    let other = World::new();
    let sources = [Source::of(other.store.root()).unwrap()];
    for seed in 7_000_000..7_000_030 {
        let world = World::new();
        let planned = world.plan(5, &mut Random(seed));
        let what: Vec<String> = planned.iter().map(|damage| damage.what.clone()).collect();
        for damage in planned {
            drop(damage.apply());
        }
        let before = world.store.verify().unwrap();
        let Repaired { repaired, left, quarantined } = repair(&world, &sources);
        assert_eq!(left, [], "seed {seed}: {what:#?}");
        assert_eq!(world.store.verify().unwrap(), [], "seed {seed}: {what:#?}");
        assert!(before.iter().all(|finding| repaired.contains(finding)), "seed {seed}: {what:#?}: {repaired:#?}");
        assert!(quarantined.iter().all(|path| path.symlink_metadata().is_ok()), "{quarantined:?}");
        // What was there is still somewhere.
        let is_thing = |finding: &&Finding| matches!(finding.problem, Problem::Content { .. } | Problem::Extra | Problem::Kind { .. });
        assert!(quarantined.len() >= before.iter().filter(is_thing).count().min(1), "seed {seed}: {what:#?}: {quarantined:?}");
        assert_eq!(repair(&world, &sources), Repaired { repaired: Vec::new(), left: Vec::new(), quarantined: Vec::new() });
    }
    assert_eq!(other.store.verify().unwrap(), []);
}

#[test]
fn a_store_repairs_from_itself_what_it_still_has() {
    for seed in 8_000_000..8_000_040 {
        let world = World::new();
        let planned = world.plan(1, &mut Random(seed));
        let (what, expected) = (planned[0].what.clone(), planned[0].expected.clone());
        for damage in planned {
            drop(damage.apply());
        }
        let Repaired { left, .. } = repair(&world, &[]);
        // Bytes that are nowhere else stay lost. All else can be told from names, manifests or other inodes.
        let bytes_lost = expected.iter().any(|(_, _, kind)| matches!(*kind, "content" | "size"));
        assert!(left.is_empty() || bytes_lost, "seed {seed}: {what}: {left:#?}");
        // Nobody will take the bad bytes for good ones.
        assert!(
            left.iter().all(|finding| finding.object.is_some() || finding.problem == Problem::Missing),
            "seed {seed}: {what}: {left:#?}"
        );
        for path in files_below(&world.store.root().join("blobs")) {
            let name = path.file_name().unwrap().to_str().unwrap().trim_end_matches('x').to_owned();
            assert_eq!(Digest::of(&fs::read(&path).unwrap()).to_string(), name, "seed {seed}: {what}");
        }
    }
}

#[test]
fn an_export_is_as_good_as_a_store() {
    let other = World::new();
    let file = other.store.root().with_file_name("export");
    crate::pack::export(&other.store, &other.store.objects().unwrap(), fs::File::create(&file).unwrap(), &[]).unwrap();
    for seed in 9_000_000..9_000_005 {
        let world = World::new();
        for damage in world.plan(5, &mut Random(seed)) {
            drop(damage.apply());
        }
        assert_eq!(repair(&world, &[Source::of(&file).unwrap()]).left, [], "seed {seed}");
        assert_eq!(world.store.verify().unwrap(), []);
        assert_eq!(fs::read_dir(world.store.root().join("stage")).unwrap().count(), 0);
    }
    let text = fs::read(&file).unwrap();
    fs::write(&file, &text[..text.len() / 2]).unwrap();
    let world = World::new();
    let plan = world.plan(1, &mut Random(1));
    for damage in plan {
        drop(damage.apply());
    }
    assert!(matches!(world.store.repair(None, &[Source::of(&file).unwrap()], now(), &effort()), Err(RepairError::Export { .. })));
}

#[test]
fn an_object_that_is_gone_with_its_manifest_comes_back() {
    let (world, other) = (World::new(), World::new());
    let objects = world.store.objects().unwrap();
    let named: BTreeSet<ObjectRef> = objects.iter().cloned().collect();
    {
        let _publication = world.store.lock_publication().unwrap();
        world.store.discard(&objects).unwrap();
    }
    let nothing = world.store.repair(Some(&named), &[], now(), &effort()).unwrap();
    assert_eq!(nothing.left.len(), objects.len());
    let sources = [Source::of(other.store.root()).unwrap()];
    assert_eq!(world.store.repair(Some(&named), &sources, now(), &effort()).unwrap().left, []);
    assert_eq!((world.store.verify().unwrap(), world.store.objects().unwrap()), (Vec::new(), objects));
}

/// Changes the bytes of a file, and nothing else of it.
fn corrupt(path: &Path) {
    let times = fs::metadata(path).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
    let mut bytes = fs::read(path).unwrap();
    bytes[0] ^= 1;
    fs::write(path, bytes).unwrap();
    fs::File::options().write(true).open(path).unwrap().set_modified(times.modified().unwrap()).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(times.mode() & 0o7777)).unwrap();
}

#[test]
fn bytes_that_do_not_fit_are_never_taken() {
    let (world, other) = (World::new(), World::new());
    let digest = Digest::of(b"nobody else has this");
    for store in [&world.store, &other.store] {
        corrupt(&store.blob_path(&digest, false));
    }
    let sharing = world.store.objects().unwrap().into_iter().find(|object| object.name.as_str() == "sharing").unwrap();
    let file = world.store.object_path(&sharing).join("alone");
    let open = fs::File::open(&file).unwrap();
    let sources = [Source::of(other.store.root()).unwrap()];
    let Repaired { left, quarantined, .. } = repair(&world, &sources);
    assert_eq!(left.iter().map(|finding| finding.problem.kind()).collect::<Vec<_>>(), ["missing", "content"]);
    // It is out of the way of other objects, and still there for who can make use of it.
    assert_eq!((quarantined.len(), fs::metadata(&file).unwrap().ino()), (1, fs::metadata(&quarantined[0]).unwrap().ino()));

    // Now there is a good one. Who has the old file open keeps it.
    let good = World::new();
    assert_eq!(repair(&world, &[Source::of(good.store.root()).unwrap()]).left, []);
    assert_eq!(fs::read(&file).unwrap(), b"nobody else has this");
    assert_ne!(open.metadata().unwrap().ino(), fs::metadata(&file).unwrap().ino());
    assert_eq!(fs::metadata(&file).unwrap().ino(), fs::metadata(world.store.blob_path(&digest, false)).unwrap().ino());
    let place = world.store.root().join(format!("quarantine/1800000000-{sharing}/alone"));
    assert_ne!(fs::read(place).unwrap(), b"nobody else has this");
}

#[test]
fn what_is_no_source_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    assert!(matches!(Source::of(directory.path()), Err(RepairError::Source { .. })));
    assert!(matches!(Source::of(&directory.path().join("none")), Err(RepairError::Store(_))));
}

#[test]
fn the_collector_leaves_quarantine_alone() {
    let world = World::new();
    corrupt(&world.store.blob_path(&Digest::of(b"nobody else has this"), false));
    let kept = repair(&world, &[]).quarantined;
    let later = SystemTime::UNIX_EPOCH + Duration::from_secs(1 << 40);
    let plan = crate::gc::plan(&world.store, &crate::gc::Roots::default(), later, Duration::ZERO).unwrap();
    assert_eq!(crate::gc::execute(&world.store, &plan).unwrap().objects, 3);
    assert!(!kept.is_empty() && kept.iter().all(|path| path.is_file()), "{kept:?}");
}

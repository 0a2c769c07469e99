//! Damage of every kind, at random places.

use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{FileExt, symlink};

use tempfile::TempDir;

use super::*;
use crate::ObjectId;
use crate::transaction::{NewEntry, NewEntryKind};

fn store() -> (TempDir, ObjectStore) {
    let directory = tempfile::tempdir().unwrap();
    let store = ObjectStore::open(&directory.path().join("root")).unwrap();
    (directory, store)
}

fn entry(path: &str, kind: NewEntryKind) -> NewEntry {
    NewEntry { path: path.parse().unwrap(), kind }
}

fn file(path: &str, content: &[u8]) -> NewEntry {
    entry(path, NewEntryKind::File { content: content.into(), executable: path.starts_with("bin/") })
}

fn publish(store: &ObjectStore) -> ObjectRef {
    let own = ObjectId::placeholder("app");
    let entries = [
        file("bin/app", format!("run {own}-app/x").as_bytes()),
        file("bin/tool", b"tool"),
        file("share/data", &[7; 3000]),
        file("share/deep/er/data", b"data"),
        file("share/empty", b""),
        entry("share/none", NewEntryKind::Directory),
        entry("link", NewEntryKind::Symlink { target: format!("/s/{own}-app/bin") }),
        entry("share/up", NewEntryKind::Symlink { target: "../bin/app".to_owned() }),
    ];
    let mut transaction = store.begin().unwrap();
    let application = transaction.put_entries(&"app".parse().unwrap(), &entries, Some(&own), &[]).unwrap();
    transaction.barrier().unwrap();
    application
}

/// A small generator, so that a failing round can be repeated by its number.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % limit
    }
}

#[expect(clippy::disallowed_methods, reason = "the test damages a store on purpose")]
fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

/// Changes one thing in an object; says what, and whether the quick check has to see it.
#[expect(clippy::disallowed_methods, reason = "the test damages a store on purpose")]
fn damage(top: &Path, tree: &Tree, random: &mut Random) -> (String, bool) {
    let entry = &tree.entry(random.below(tree.len())).unwrap();
    let path = top.join(entry.path.as_path());
    let parent = path.parent().unwrap();
    set_mode(parent, 0o755);
    let action = random.below(6);
    match (&entry.kind, action) {
        (EntryKind::File { size, .. }, 0 | 1) if *size > 0 => {
            let bit = random.below(usize::try_from(*size).unwrap() * 8);
            let mut content = std::fs::read(&path).unwrap();
            content[bit / 8] ^= 1 << (bit % 8);
            set_mode(&path, 0o644);
            let handle = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
            handle.write_all_at(&content, 0).unwrap();
            let EntryKind::File { executable, .. } = &entry.kind else { unreachable!() };
            set_mode(&path, if *executable { 0o555 } else { 0o444 });
            set_mode(parent, 0o555);
            return (format!("bit {bit} of {}", entry.path), false);
        }
        (EntryKind::File { .. } | EntryKind::Directory, 2 | 3) => {
            let bit = random.below(12);
            let old = std::fs::symlink_metadata(&path).unwrap().permissions().mode();
            set_mode(parent, 0o555);
            set_mode(&path, (old ^ (1 << bit)) & 0o7777);
            return (format!("mode bit {bit} of {}", entry.path), true);
        }
        (EntryKind::Symlink { target, .. }, 0..=3) => {
            std::fs::remove_file(&path).unwrap();
            symlink(format!("{target}x"), &path).unwrap();
        }
        (_, 4) => {
            std::fs::rename(&path, path.with_file_name(format!("{}~", entry.path.file_name()))).unwrap();
        }
        (EntryKind::Directory, _) => std::fs::write(path.with_file_name(".hidden"), b"").unwrap(),
        (EntryKind::File { .. } | EntryKind::Symlink { .. }, _) => {
            std::fs::remove_file(&path).unwrap();
            // A third of the time something else takes the place.
            match random.below(3) {
                0 => std::fs::create_dir(&path).unwrap(),
                1 => symlink("elsewhere", &path).unwrap(),
                _ => {}
            }
        }
    }
    set_mode(parent, 0o555);
    (format!("names or links at {} by {action}", entry.path), true)
}

#[test]
fn every_damage_is_found_at_its_place() {
    for round in 0..60 {
        let mut random = Random(round);
        let (_directory, store) = store();
        let object = publish(&store);
        assert_eq!(store.verify().unwrap(), []);
        assert_eq!(store.check_object(&object).unwrap(), []);
        let tree = store.manifest(&object).unwrap().tree;
        let (what, quick) = damage(&store.object_path(&object), &tree, &mut random);
        let findings = store.verify_object(&object).unwrap();
        assert!(!findings.is_empty(), "round {round}: {what} was not found");
        assert!(findings.iter().all(|finding| finding.object.as_ref() == Some(&object) && !finding.to_string().contains('\n')));
        assert_eq!(!store.check_object(&object).unwrap().is_empty(), quick, "round {round}: {what} by the quick check");
        let all = store.verify().unwrap();
        assert!(findings.iter().all(|finding| all.contains(finding)), "round {round}: {what}: {all:?}");
        make_removable(&store.object_path(&object));
    }
}

/// Gives directories back the mode by which the temporary directory can be removed.
fn make_removable(path: &Path) {
    set_mode(path, 0o755);
    for entry in std::fs::read_dir(path).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_dir() {
            make_removable(&entry.path());
        }
    }
}

#[test]
#[expect(clippy::disallowed_methods, reason = "the test damages a store on purpose")]
fn every_flipped_bit_of_a_manifest_is_found() {
    let (_directory, store) = store();
    let object = publish(&store);
    let path = store.manifest_path(&object.id);
    let good = std::fs::read(&path).unwrap();
    for bit in (0..good.len() * 8).step_by(11) {
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, &bad).unwrap();
        let findings = store.verify_object(&object).unwrap();
        assert!(!findings.is_empty() && findings.iter().all(|finding| !finding.to_string().contains('\n')), "bit {bit}");
    }
    std::fs::remove_file(&path).unwrap();
    let findings = store.verify().unwrap();
    assert!(matches!(&findings[..], [Finding { problem: Problem::Manifest { .. }, .. }]), "{findings:?}");
}

#[test]
#[expect(clippy::disallowed_methods, reason = "the test damages a store on purpose")]
fn what_lies_beside_objects_is_found() {
    let (_directory, store) = store();
    let object = publish(&store);
    let tool = Digest::of(b"tool");
    let wrong = store.blob_path(&tool, true).with_file_name(format!("{}{}", &tool.to_string()[..2], "0".repeat(62)));
    std::fs::write(&wrong, b"not what the name says").unwrap();
    std::fs::write(store.root().join("blobs/readme"), b"").unwrap();
    std::fs::write(store.root().join("store").join(std::ffi::OsString::from_vec(b"a\nb\xff".to_vec())), b"").unwrap();
    let found: Vec<String> = store.verify().unwrap().iter().map(Finding::to_string).collect();
    assert_eq!(found.len(), 3, "{found:?}");
    assert!(found[0].starts_with("`blobs/") && found[0].contains("has changed"), "{found:?}");
    assert_eq!(found[1], "`blobs/readme` does not belong there");
    assert_eq!(found[2], "`store/a\\nb\u{fffd}` does not belong there");

    make_removable(&store.object_path(&object));
    std::fs::remove_dir_all(store.object_path(&object)).unwrap();
    let missing = Finding { object: Some(object.clone()), path: ".".to_owned(), problem: Problem::Missing };
    assert_eq!(store.check_object(&object).unwrap(), std::slice::from_ref(&missing));
    assert!(store.verify().unwrap().contains(&missing));
}

#[test]
fn an_object_whose_reference_is_gone_is_found() {
    let (_directory, store) = store();
    let mut transaction = store.begin().unwrap();
    let below = transaction.put_entries(&"below".parse().unwrap(), &[file("f", b"x")], None, &[]).unwrap();
    let content = format!("uses {below}");
    let above =
        transaction.put_entries(&"above".parse().unwrap(), &[file("f", content.as_bytes())], None, std::slice::from_ref(&below)).unwrap();
    drop(transaction.barrier().unwrap());
    store.discard(std::slice::from_ref(&below)).unwrap();
    let problem = Problem::Reference { reference: below };
    assert_eq!(store.check_object(&above).unwrap(), [Finding { object: Some(above), path: ".".to_owned(), problem }]);
}

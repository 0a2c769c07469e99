//! Ingest: the same object whatever the way, and nothing trusted that may have changed.

#![expect(clippy::disallowed_methods, reason = "tests prepare sources by hand")]

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::time::{Duration, SystemTime};

use crate::{ObjectId, ObjectRef, ObjectStore, StoreError};

struct Fixture {
    directory: tempfile::TempDir,
    store: ObjectStore,
}

impl Fixture {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = ObjectStore::open(&directory.path().join("root")).unwrap();
        Self { directory, store }
    }

    fn source(&self) -> std::path::PathBuf {
        self.directory.path().join("source")
    }

    fn put(&self, source: &Path) -> ObjectRef {
        let mut transaction = self.store.begin().unwrap();
        let object = transaction.put_directory(&"thing".parse().unwrap(), source, None, &[]).unwrap();
        transaction.barrier().unwrap();
        object
    }
}

/// Many directories and files, some of them alike, one large, so that several threads have something to do.
fn fill(top: &Path, own: &ObjectId) {
    for directory in 0..40 {
        let path = top.join(format!("d{}/e{directory}", directory % 5));
        fs::create_dir_all(&path).unwrap();
        for file in 0..60 {
            fs::write(path.join(format!("f{file}")), format!("content {}", (directory * 60 + file) % 700)).unwrap();
        }
        fs::set_permissions(path.join("f7"), fs::Permissions::from_mode(0o755)).unwrap();
        symlink("../f", path.join("link")).unwrap();
    }
    for name in ["large", "twin"] {
        fs::write(top.join(name), vec![7; 3 << 20]).unwrap();
    }
    let mut large = vec![9; 2 << 20];
    large.extend_from_slice(own.to_string().as_bytes());
    fs::write(top.join("self"), &large).unwrap();
    fs::write(top.join("d0/self"), own.to_string()).unwrap();
}

/// Sets the times of all files back, so that the stat cache trusts them; their last change of metadata cannot be set, so it waits
/// until that is old enough too.
fn settle(top: &Path) {
    let probe = top.with_extension("probe");
    let newest = newest_change(top);
    let deadline = SystemTime::now() + Duration::from_secs(10);
    loop {
        fs::write(&probe, "").unwrap();
        let now = fs::metadata(&probe).unwrap();
        if now.ctime() * 1_000_000_000 + now.ctime_nsec() > newest + 30_000_000 {
            return;
        }
        assert!(SystemTime::now() < deadline, "the clock of the file system stands still");
    }
}

fn newest_change(path: &Path) -> i64 {
    let metadata = fs::symlink_metadata(path).unwrap();
    let own = metadata.ctime() * 1_000_000_000 + metadata.ctime_nsec();
    if !metadata.is_dir() {
        return own;
    }
    fs::read_dir(path).unwrap().map(|entry| newest_change(&entry.unwrap().path())).fold(own, i64::max)
}

#[test]
fn all_ways_in_give_the_same_object() {
    let fixture = Fixture::new();
    let own = ObjectId::placeholder("own");
    fill(&fixture.source(), &own);
    let name = "thing".parse().unwrap();
    let mut transaction = fixture.store.begin().unwrap();
    let copied = transaction.put_directory(&name, &fixture.source(), Some(&own), &[]).unwrap();
    transaction.barrier().unwrap();
    assert_eq!(fixture.store.verify().unwrap(), []);
    // Each content has one inode: 700 small ones twice over (f7 is executable in 40 places), and the large ones.
    let manifest = fixture.store.manifest(&copied).unwrap();
    for entry in manifest.tree.entries() {
        if let crate::EntryKind::File { digest, executable, .. } = &entry.kind {
            let here = fs::metadata(fixture.store.object_path(&copied).join(entry.path.as_path())).unwrap();
            let there = fs::metadata(fixture.store.blob_path(digest, *executable)).unwrap();
            assert_eq!((here.dev(), here.ino()), (there.dev(), there.ino()), "{}", entry.path);
        }
    }

    let other = Fixture::new();
    let mut transaction = other.store.begin().unwrap();
    let scratch = transaction.scratch("build").unwrap();
    fill(&scratch, &own);
    let inode = fs::metadata(scratch.join("large")).unwrap().ino();
    let owned = transaction.put_directory_given_away(&name, &scratch, Some(&own), &[]).unwrap();
    transaction.barrier().unwrap();
    assert_eq!(owned, copied);
    assert_eq!(other.store.verify().unwrap(), []);
    let (large, twin) = (other.store.object_path(&owned).join("large"), other.store.object_path(&owned).join("twin"));
    // One of the two was moved, and the other is a link to it.
    assert_eq!(fs::metadata(&large).unwrap().ino(), fs::metadata(&twin).unwrap().ino());
    assert!(fs::metadata(&large).unwrap().nlink() == 3 && inode > 0);
}

#[test]
fn a_file_with_a_second_name_is_not_given_away() {
    let fixture = Fixture::new();
    let mut transaction = fixture.store.begin().unwrap();
    let scratch = transaction.scratch("build").unwrap();
    fs::write(scratch.join("f"), "one").unwrap();
    let outside = fixture.directory.path().join("outside");
    fs::hard_link(scratch.join("f"), &outside).unwrap();
    let object = transaction.put_directory_given_away(&"thing".parse().unwrap(), &scratch, None, &[]).unwrap();
    transaction.barrier().unwrap();
    fs::write(&outside, "two").unwrap();
    assert_eq!(fs::read(fixture.store.object_path(&object).join("f")).unwrap(), b"one");
}

#[test]
fn an_unchanged_source_is_not_read_and_a_changed_one_is() {
    let fixture = Fixture::new();
    let source = fixture.source();
    fill(&source, &ObjectId::placeholder("own"));
    settle(&source);
    let first = fixture.put(&source);
    // Bytes that change without a trace are not seen: so the second time nothing was read.
    let cache = fixture.store.stat_cache(&super::Directory::open(&source).unwrap());
    let recalled = super::super::recall::recall(cache.unwrap(), &super::Directory::open(&source).unwrap());
    assert_eq!(recalled, Some(fixture.store.manifest(&first).unwrap().tree));
    assert_eq!(fixture.put(&source), first);

    // The same length, and the time of the last change set back to what it was.
    let file = source.join("d1/e1/f3");
    let before = fs::metadata(&file).unwrap().modified().unwrap();
    let length = fs::read(&file).unwrap().len();
    fs::write(&file, vec![b'!'; length]).unwrap();
    fs::File::options().write(true).open(&file).unwrap().set_modified(before).unwrap();
    let second = fixture.put(&source);
    assert_ne!(second, first);
    assert_eq!(fs::read(fixture.store.object_path(&second).join("d1/e1/f3")).unwrap(), vec![b'!'; length]);
    assert_eq!(fixture.store.verify().unwrap(), []);

    // It may go at any time, and so may the contents that it knows.
    fs::remove_file(fixture.store.root().join("cache.sqlite")).unwrap();
    let reopened = ObjectStore::open(fixture.store.root()).unwrap();
    let mut transaction = reopened.begin().unwrap();
    assert_eq!(transaction.put_directory(&"thing".parse().unwrap(), &source, None, &[]).unwrap(), second);
}

#[test]
fn a_file_that_was_just_changed_is_read_again() {
    let fixture = Fixture::new();
    let source = fixture.source();
    fs::create_dir(&source).unwrap();
    fs::write(source.join("f"), "one").unwrap();
    let first = fixture.put(&source);
    fs::write(source.join("f"), "two").unwrap();
    assert_ne!(fixture.put(&source), first);
}

#[test]
fn a_failure_on_any_thread_is_told() {
    let fixture = Fixture::new();
    let source = fixture.source();
    fill(&source, &ObjectId::placeholder("own"));
    let bad = source.join("d3/e38/f59");
    fs::set_permissions(&bad, fs::Permissions::from_mode(0o4755)).unwrap();
    let mut transaction = fixture.store.begin().unwrap();
    match transaction.put_directory(&"thing".parse().unwrap(), &source, None, &[]) {
        Err(StoreError::Refused { path, reason: _ }) => assert_eq!(path, bad),
        other => panic!("{other:?}"),
    }
    // Nothing of it stays, and the transaction goes on.
    fs::set_permissions(&bad, fs::Permissions::from_mode(0o755)).unwrap();
    transaction.put_directory(&"thing".parse().unwrap(), &source, None, &[]).unwrap();
    transaction.barrier().unwrap();
    assert_eq!(fixture.store.verify().unwrap(), []);
}

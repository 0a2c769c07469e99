//! Tests of the store as a whole: what decides an id, what survives a crash, what is refused.

#![expect(clippy::disallowed_methods, reason = "tests prepare sources and damage stores by hand")]

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use super::*;
use crate::tree::EntryKind;
use crate::{Durable, NewEntry, NewEntryKind};

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

    fn reopen(self) -> Self {
        let Self { directory, store } = self;
        let root = store.root().to_owned();
        drop(store);
        Self { store: ObjectStore::open(&root).unwrap(), directory }
    }

    fn source(&self, name: &str) -> PathBuf {
        let path = self.directory.path().join(name);
        fs::create_dir(&path).unwrap();
        path
    }

    fn put(&self, source: &Path, placeholder: Option<&ObjectId>, candidates: &[ObjectRef]) -> Result<ObjectRef, StoreError> {
        let mut transaction = self.store.begin()?;
        let object = transaction.put_directory(&name("thing"), source, placeholder, candidates)?;
        transaction.barrier()?;
        Ok(object)
    }

    fn put_file(&self, content: &str) -> ObjectRef {
        let mut transaction = self.store.begin().unwrap();
        let object = transaction.put_entries(&name("file"), &[file("f", content.as_bytes(), false)], None, &[]).unwrap();
        transaction.barrier().unwrap();
        object
    }
}

fn name(text: &str) -> ObjectName {
    text.parse().unwrap()
}

fn file(path: &str, content: &[u8], executable: bool) -> NewEntry {
    NewEntry { path: path.parse().unwrap(), kind: NewEntryKind::File { content: content.into(), executable } }
}

fn link(path: &str, target: &str) -> NewEntry {
    NewEntry { path: path.parse().unwrap(), kind: NewEntryKind::Symlink { target: target.to_owned() } }
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn modes_times_and_order_do_not_decide_an_id() {
    let fixture = Fixture::new();
    let mut ids = BTreeSet::new();
    for (label, names, (file_mode, directory_mode)) in
        [("one", ["a", "b", "c"], (0o600, 0o700)), ("two", ["c", "a", "b"], (0o666, 0o2777)), ("three", ["b", "c", "a"], (0o444, 0o555))]
    {
        let source = fixture.source(label);
        fs::create_dir(source.join("empty")).unwrap();
        fs::create_dir(source.join("sub")).unwrap();
        symlink("sub/a", source.join("link")).unwrap();
        for name in names {
            fs::write(source.join("sub").join(name), format!("content of {name}")).unwrap();
            set_mode(&source.join("sub").join(name), file_mode);
        }
        set_mode(&source.join("sub"), directory_mode);
        let object = fixture.put(&source, None, &[]).unwrap();
        set_mode(&source.join("sub"), 0o755);
        ids.insert(object);
    }
    let entries = [
        file("sub/c", b"content of c", false),
        link("link", "sub/a"),
        file("sub/a", b"content of a", false),
        NewEntry { path: "empty".parse().unwrap(), kind: NewEntryKind::Directory },
        file("sub/b", b"content of b", false),
    ];
    let mut transaction = fixture.store.begin().unwrap();
    ids.insert(transaction.put_entries(&name("thing"), &entries, None, &[]).unwrap());
    assert_eq!(ids.len(), 1, "{ids:?}");
}

#[test]
fn golden_identities_stand() {
    let fixture = Fixture::new();
    let own = ObjectId::placeholder("own");
    let mut transaction = fixture.store.begin().unwrap();
    let library = transaction.put_entries(&name("library-1.0"), &[file("lib/data", b"golden\n", false)], None, &[]).unwrap();
    let entries = [
        file("bin/tool", format!("exec /store/{library}/lib /store/{own}-tool\n").as_bytes(), true),
        link("bin/alias", &format!("/store/{own}-tool/bin/tool")),
        link("data", "share/\u{fc}"),
        file("share/\u{fc}", b"golden\n", false),
        NewEntry { path: "share/empty".parse().unwrap(), kind: NewEntryKind::Directory },
    ];
    let tool = transaction.put_entries(&name("tool"), &entries, Some(&own), std::slice::from_ref(&library)).unwrap();
    transaction.barrier().unwrap();
    let mut found = Vec::new();
    for object in [library, tool] {
        let stored = fs::read(fixture.store.manifest_path(&object.id)).unwrap();
        assert_eq!(fixture.store.manifest(&object).unwrap().encode(), stored);
        let hex = stored.iter().fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"));
        let lines: Vec<&str> = hex.as_bytes().chunks(96).map(|line| std::str::from_utf8(line).unwrap()).collect();
        found.push(format!("{object}\n{}\n\n", lines.join("\n")));
    }
    let golden = include_str!("../../../fixtures/golden/store/objects-v1.txt");
    assert_eq!(found.concat(), golden, "format change: bump the version and say so in CHANGELOG");
}

#[test]
fn what_is_on_disk_is_read_only_and_of_no_time() {
    let fixture = Fixture::new();
    let source = fixture.source("source");
    fs::create_dir(source.join("bin")).unwrap();
    fs::write(source.join("bin/tool"), "#!/bin/sh\n").unwrap();
    set_mode(&source.join("bin/tool"), 0o700);
    fs::write(source.join("data"), "x").unwrap();
    symlink("data", source.join("link")).unwrap();
    let object = fixture.put(&source, None, &[]).unwrap();
    let top = fixture.store.object_path(&object);
    for (path, mode) in [("", 0o40555), ("bin", 0o40555), ("bin/tool", 0o100_555), ("data", 0o100_444)] {
        let metadata = fs::metadata(top.join(path)).unwrap();
        assert_eq!((metadata.mode(), metadata.mtime()), (mode, 1), "{path}");
    }
    assert_eq!(fs::symlink_metadata(top.join("link")).unwrap().mtime(), 1);
    // The object's file and the shared inode are one.
    let blob = fixture.store.blob_path(&Digest::of(b"x"), false);
    assert_eq!(fs::metadata(blob).unwrap().ino(), fs::metadata(top.join("data")).unwrap().ino());
}

#[test]
fn an_executable_bit_makes_another_object_and_another_inode() {
    let fixture = Fixture::new();
    let mut transaction = fixture.store.begin().unwrap();
    let put = |transaction: &mut Transaction, executable| {
        transaction.put_entries(&name("thing"), &[file("f", b"same", executable)], None, &[]).unwrap()
    };
    let (plain, executable) = (put(&mut transaction, false), put(&mut transaction, true));
    assert_ne!(plain, executable);
    transaction.barrier().unwrap();
    let mode = |object| fs::metadata(fixture.store.object_path(object).join("f")).unwrap().mode() & 0o7777;
    assert_eq!((mode(&plain), mode(&executable)), (0o444, 0o555));
}

#[test]
fn an_object_may_name_itself_whatever_stood_for_it() {
    let fixture = Fixture::new();
    let mut objects = BTreeSet::new();
    for label in ["one", "two"] {
        let own = ObjectId::placeholder(label);
        let source = fixture.source(label);
        fs::write(source.join("script"), format!("exec /x/{own}-thing/bin/{own}\n")).unwrap();
        // Longer than two chunks, the id across the border of the first.
        let mut large = vec![b' '; (2 << 20) + 77];
        large[(1 << 20) - 10..(1 << 20) + 22].copy_from_slice(&own.to_chars());
        fs::write(source.join("large"), large).unwrap();
        symlink(format!("/x/{own}-thing/script"), source.join("link")).unwrap();
        objects.insert(fixture.put(&source, Some(&own), &[]).unwrap());
    }
    assert_eq!(objects.len(), 1, "{objects:?}");
    let object = objects.first().unwrap();
    let top = fixture.store.object_path(object);
    assert_eq!(fs::read_to_string(top.join("script")).unwrap(), format!("exec /x/{}-thing/bin/{}\n", object.id, object.id));
    assert_eq!(fs::read_link(top.join("link")).unwrap(), Path::new(&format!("/x/{object}/script")));
    assert_eq!(fs::read(top.join("large")).unwrap()[(1 << 20) - 10..(1 << 20) + 22], object.id.to_chars());
    let manifest = fixture.store.manifest(object).unwrap();
    assert_eq!(manifest.references, []);
    for entry in manifest.tree.entries() {
        let EntryKind::File { digest, self_references: Some(own), .. } = &entry.kind else { continue };
        let content = fs::read(top.join(entry.path.as_path())).unwrap();
        assert_eq!(*digest, Digest::of(&content), "{}", entry.path);
        assert!(!own.offsets.is_empty() && own.modulo != *digest);
    }
}

#[test]
fn references_are_found_in_files_links_and_names() {
    let fixture = Fixture::new();
    let [in_file, in_link, in_name, absent] = ["1", "2", "3", "4"].map(|content| fixture.put_file(content));
    let candidates = [in_file.clone(), in_link.clone(), in_name.clone(), absent];
    let mut transaction = fixture.store.begin().unwrap();
    let entries = [
        file("f", format!("see {in_file}").as_bytes(), false),
        link("l", &format!("/s/{in_link}/f")),
        file(&in_name.id.to_string(), b"", false),
    ];
    let object = transaction.put_entries(&name("user"), &entries, None, &candidates).unwrap();
    transaction.barrier().unwrap();
    let mut expected = vec![in_file, in_link, in_name];
    expected.sort();
    assert_eq!(fixture.store.manifest(&object).unwrap().references, expected);
    let closure = fixture.store.closure(std::slice::from_ref(&object)).unwrap();
    assert_eq!(closure.last(), Some(&object));
    assert_eq!(closure.len(), 4);
}

#[test]
fn a_reference_that_is_not_there_stops_the_barrier() {
    let fixture = Fixture::new();
    let absent = ObjectRef { id: ObjectId::placeholder("absent"), name: name("absent") };
    let mut transaction = fixture.store.begin().unwrap();
    let entry = file("f", absent.to_string().as_bytes(), false);
    let object = transaction.put_entries(&name("user"), &[entry], None, std::slice::from_ref(&absent)).unwrap();
    let error = transaction.barrier().unwrap_err();
    assert!(matches!(&error, StoreError::MissingReference { reference, .. } if *reference == absent), "{error}");
    assert!(!fixture.store.object_path(&object).exists());
    assert_eq!(Directory::open(&fixture.store.root().join("stage")).unwrap().names().unwrap(), Vec::<std::ffi::OsString>::new());
}

#[test]
fn two_transactions_may_put_the_same() {
    let fixture = Fixture::new();
    let entries = [file("f", b"same", false), file("dir/g", &vec![7; 3 << 20], true)];
    let (mut first, mut second) = (fixture.store.begin().unwrap(), fixture.store.begin().unwrap());
    let object = first.put_entries(&name("thing"), &entries, None, &[]).unwrap();
    assert_eq!(second.put_entries(&name("thing"), &entries, None, &[]).unwrap(), object);
    let (left, right) = std::thread::scope(|scope| {
        let left = scope.spawn(|| first.barrier().unwrap());
        let right = scope.spawn(|| second.barrier().unwrap());
        (left.join().unwrap(), right.join().unwrap())
    });
    assert_eq!(left.objects(), right.objects());
    assert_eq!(fixture.store.objects().unwrap(), std::slice::from_ref(&object));
    assert_eq!(fs::read(fixture.store.object_path(&object).join("f")).unwrap(), b"same");
}

#[test]
fn special_files_set_id_bits_and_strange_names_are_refused() {
    use std::os::unix::ffi::OsStrExt;
    let fixture = Fixture::new();
    let source = fixture.source("fifo");
    rustix::fs::mkfifoat(rustix::fs::CWD, source.join("pipe"), rustix::fs::Mode::from_raw_mode(0o600)).unwrap();
    let check = |source: &Path, expected: &str| {
        let error = fixture.put(source, None, &[]).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    };
    check(&source, "neither a file");
    let source = fixture.source("socket");
    let _socket = std::os::unix::net::UnixListener::bind(source.join("socket")).unwrap();
    check(&source, "neither a file");
    let source = fixture.source("set-user-id");
    fs::write(source.join("su"), "").unwrap();
    set_mode(&source.join("su"), 0o4755);
    check(&source, "set-user-id");
    let source = fixture.source("name");
    fs::write(source.join(OsStr::from_bytes(b"\xff")), "").unwrap();
    check(&source, "not UTF-8");
    assert_eq!(fixture.store.objects().unwrap(), []);
    assert_eq!(Directory::open(&fixture.store.root().join("stage")).unwrap().names().unwrap(), Vec::<std::ffi::OsString>::new());
}

#[test]
fn what_a_crash_left_is_put_in_order() {
    let fixture = Fixture::new();
    let kept = fixture.put_file("kept");
    let root = fixture.store.root().to_owned();
    // A transaction that was killed: its directory and its lease, which nobody locks.
    fs::create_dir_all(root.join("stage/dead/object-1/sub")).unwrap();
    fs::write(root.join("leases/dead"), "process 1\n").unwrap();
    fs::create_dir_all(root.join("stage/without-lease")).unwrap();
    // Killed between the rename and the index: the manifest is there, the row is not, the top may still be writable.
    fixture.store.index().remove([kept.id]).unwrap();
    set_mode(&fixture.store.object_path(&kept), 0o755);
    // An object directory without a manifest was never published.
    let fake = ObjectRef { id: ObjectId::placeholder("fake"), name: name("fake") };
    fs::create_dir_all(fixture.store.object_path(&fake)).unwrap();
    // A row without a directory.
    let gone = fixture.put_file("gone");
    set_mode(&fixture.store.object_path(&gone), 0o755);
    fs::remove_dir_all(fixture.store.object_path(&gone)).unwrap();

    let living = fixture.store.begin().unwrap();
    let fixture = fixture.reopen();
    assert_eq!(fixture.store.objects().unwrap(), std::slice::from_ref(&kept));
    assert_eq!(fs::metadata(fixture.store.object_path(&kept)).unwrap().mode() & 0o7777, 0o555);
    assert!(!fixture.store.object_path(&fake).exists());
    assert!(!root.join("leases/dead").exists());
    // The living transaction is left alone, and works.
    assert_eq!(Directory::open(&root.join("stage")).unwrap().names().unwrap().len(), 1);
    drop(living.barrier().unwrap());
    assert_eq!(Directory::open(&root.join("leases")).unwrap().names().unwrap(), Vec::<std::ffi::OsString>::new());
    fixture.store.empty_trash().unwrap();
    assert_eq!(Directory::open(&root.join("trash")).unwrap().names().unwrap(), Vec::<std::ffi::OsString>::new());
}

#[test]
fn a_damaged_manifest_costs_no_object_when_the_index_is_lost() {
    let fixture = Fixture::new();
    let mut transaction = fixture.store.begin().unwrap();
    let object = transaction.put_entries(&name("kept"), &[file("a", b"content", false)], None, &[]).unwrap();
    transaction.barrier().unwrap();
    let manifest = fixture.store.manifest_path(&object.id);
    let whole = fs::read(&manifest).unwrap();
    set_mode(&manifest, 0o644);
    fs::write(&manifest, b"no manifest").unwrap();
    fs::remove_file(fixture.store.root().join("index.sqlite")).unwrap();
    let fixture = fixture.reopen();
    assert!(!fixture.store.contains(&object.id).unwrap(), "nobody vouches for it");
    assert!(fixture.store.object_path(&object).join("a").exists(), "and nobody throws it away");
    fs::write(&manifest, whole).unwrap();
    assert!(fixture.reopen().store.contains(&object.id).unwrap());
}

#[test]
fn what_is_no_manifest_stops_nobody() {
    let fixture = Fixture::new();
    fs::create_dir(fixture.store.root().join("trees/directory")).unwrap();
    fs::write(fixture.store.root().join("trees/notes"), "mine").unwrap();
    fixture.store.remove_lone_manifests().unwrap();
    assert!(fixture.store.root().join("trees/notes").exists());
}

#[test]
fn an_object_on_its_way_to_the_trash_goes_on() {
    let fixture = Fixture::new();
    let (kept, gone) = (fixture.put_file("kept"), fixture.put_file("gone"));
    let store = fixture.store.root().join("store");
    fs::rename(fixture.store.object_path(&gone), store.join(format!("{REMOVED_PREFIX}1"))).unwrap();
    let fixture = fixture.reopen();
    assert_eq!(fixture.store.objects().unwrap(), [kept]);
    assert_eq!(fs::read_dir(store).unwrap().count(), 1);
    assert_eq!(fixture.store.verify().unwrap(), []);
}

#[test]
fn nothing_is_put_in_order_while_somebody_publishes() {
    let fixture = Fixture::new();
    let (registered, unknown) = (fixture.put_file("one"), fixture.put_file("two"));
    fixture.store.index().remove([unknown.id]).unwrap();
    // As if the collector had just removed it and a publisher were about to give it its name again.
    let aside = fixture.directory.path().join("aside");
    fs::rename(fixture.store.object_path(&registered), &aside).unwrap();
    let publication = fixture.store.share_publication().unwrap();
    let fixture = fixture.reopen();
    assert_eq!(fixture.store.objects().unwrap(), std::slice::from_ref(&registered));
    fs::rename(&aside, fixture.store.object_path(&registered)).unwrap();
    drop(publication);
    let fixture = fixture.reopen();
    assert_eq!(fixture.store.objects().unwrap(), BTreeSet::from([registered, unknown]).into_iter().collect::<Vec<_>>());
}

#[test]
fn a_damaged_or_missing_index_is_made_anew() {
    let mut fixture = Fixture::new();
    let (first, second) = (fixture.put_file("first"), fixture.put_file("second"));
    let expected = BTreeSet::from([first, second]).into_iter().collect::<Vec<_>>();
    let path = fixture.store.root().join("index.sqlite");
    for damage in [b"not a database at all, but long enough to be looked at".repeat(100), Vec::new()] {
        let root = fixture.store.root().to_owned();
        drop(fixture.store);
        if damage.is_empty() {
            fs::remove_file(&path).unwrap();
        } else {
            fs::write(&path, damage).unwrap();
        }
        fixture.store = ObjectStore::open(&root).unwrap();
        assert_eq!(fixture.store.objects().unwrap(), expected);
    }
    assert_eq!(fixture.store.rebuild_index().unwrap(), 2);
    assert_eq!(fixture.store.objects().unwrap(), expected);
}

#[test]
fn results_count_only_while_all_outputs_are_there() {
    let fixture = Fixture::new();
    let (first, second) = (fixture.put_file("first"), fixture.put_file("second"));
    let key = Digest::of(b"recipe");
    let outputs = BTreeMap::from([("out".to_owned(), first.clone()), ("dev".to_owned(), second)]);
    assert_eq!(fixture.store.result(&key).unwrap(), None);
    fixture.store.record_result(&key, &outputs).unwrap();
    assert_eq!(fixture.store.result(&key).unwrap(), Some(outputs));
    fixture.store.discard(std::slice::from_ref(&first)).unwrap();
    assert_eq!(fixture.store.result(&key).unwrap(), None);
    assert!(matches!(Durable::of(&fixture.store, &first), Err(StoreError::Missing { .. })));
}

#[test]
fn leases_last_as_long_as_what_they_are_for() {
    let fixture = Fixture::new();
    let object = fixture.put_file("x");
    let durable = Durable::of(&fixture.store, &object).unwrap();
    assert_eq!(fixture.store.leased_objects().unwrap(), std::slice::from_ref(&object));
    drop(durable);
    let mut transaction = fixture.store.begin().unwrap();
    assert_eq!(fixture.store.leased_objects().unwrap(), []);
    transaction.put_entries(&name("file"), &[file("f", b"x", false)], None, &[]).unwrap();
    assert_eq!(fixture.store.leased_objects().unwrap(), [object]);
}

#[test]
fn formats_of_others_are_refused_in_words() {
    let fixture = Fixture::new();
    let root = fixture.store.root().to_owned();
    for (text, expected) in [
        (r#"{"version":2,"features":[],"new":1}"#, "has format version 2, this sarsen knows version 1"),
        (r#"{"version":1,"features":["packs"]}"#, "demands the feature `packs`"),
        (r#"{"features":[]}"#, "it has no version"),
        ("{", "is damaged"),
    ] {
        fs::write(root.join("format.json"), text).unwrap();
        let error = ObjectStore::open(&root).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    fs::remove_file(root.join("format.json")).unwrap();
    assert!(ObjectStore::open(&root).unwrap_err().to_string().contains("missing beside"));
}

#[test]
fn pins_are_listed_replaced_and_dropped() {
    let fixture = Fixture::new();
    let (first, second) = (fixture.put_file("first"), fixture.put_file("second"));
    let absent = ObjectRef { id: ObjectId::placeholder("absent"), name: name("absent") };
    assert!(matches!(fixture.store.pin(&name("p"), &absent), Err(StoreError::Missing { .. })));
    fixture.store.pin(&name("p"), &first).unwrap();
    fixture.store.pin(&name("p"), &second).unwrap();
    assert_eq!(fixture.store.pins().unwrap(), BTreeMap::from([("p".to_owned(), second)]));
    fixture.store.unpin(&name("p")).unwrap();
    assert_eq!(fixture.store.pins().unwrap(), BTreeMap::new());
}

#[test]
fn long_works_count_what_they_have_done() {
    let fixture = Fixture::new();
    let source = fixture.source("tree");
    fs::write(source.join("small"), "small").unwrap();
    fs::write(source.join("large"), vec![b'x'; (2 << 20) + 1]).unwrap();
    let added = Arc::new(Counters::new());
    let mut transaction = fixture.store.counting_into(Arc::clone(&added)).begin().unwrap();
    transaction.put_directory(&name("tree"), &source, None, &[]).unwrap();
    drop(transaction.barrier().unwrap());
    assert_eq!((added.files(), added.bytes()), (2, (2 << 20) + 6));

    let rebuilt = Arc::new(Counters::of("object"));
    fixture.store.counting_into(Arc::clone(&rebuilt)).rebuild_index().unwrap();
    assert_eq!(rebuilt.files(), 1);

    let removed = Arc::new(Counters::new());
    let later = std::time::SystemTime::now() + Duration::from_mins(1);
    let plan = crate::gc::plan(&fixture.store, &crate::gc::Roots::default(), later, Duration::ZERO).unwrap();
    crate::gc::execute(&fixture.store.counting_into(Arc::clone(&removed)), &plan).unwrap();
    assert!(removed.files() >= 4, "two names in the object and two contents at least: {}", removed.files());
}

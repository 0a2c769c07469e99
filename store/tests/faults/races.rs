//! Collectors race everybody else: who ingests, who receives, who switches a generation, in this process and in others.
//!
//! Objects come and go all the time, because each new generation takes the place of the one before, and the contents are so few that
//! what is being collected is being published again. Nobody may ever find an object gone that he was promised, and at the end there is nothing
//! but what roots need.
#![expect(clippy::unwrap_used, reason = "whoever fails here has found what is looked for")]

use std::io;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, SystemTime};

use sarsen_store::gc::{self, Roots};
use sarsen_store::wire::{FrameReader, FrameWriter};
use sarsen_store::{Durable, NewEntry, NewEntryKind, ObjectName, ObjectRef, ObjectStore, StoreError, fsutil, transfer};

use crate::sweep::{WORK, memory, rounds};

/// Collections at one round.
const COLLECTIONS_PER_ROUND: u64 = 100;

/// How many different applications there are.
const VARIANTS: u64 = 12;

fn file(path: &str, content: &str) -> NewEntry {
    NewEntry { path: path.parse().unwrap(), kind: NewEntryKind::File { content: content.as_bytes().into(), executable: false } }
}

/// Publishes a variant: an application and the library that it needs, which others need too.
fn publish(store: &ObjectStore, variant: u64) -> Result<(Durable, ObjectRef), StoreError> {
    let name = |text: &str| text.parse::<ObjectName>().unwrap();
    let mut transaction = store.begin()?;
    let library = [file("library", &format!("library {}", variant / 2)), file("common", "common")];
    let library = transaction.put_entries(&name("library"), &library, None, &[])?;
    let application = [file("application", &format!("{variant} needs {library}")), file("common", "common")];
    let application = transaction.put_entries(&name("application"), &application, None, &[library])?;
    Ok((transaction.barrier()?, application))
}

/// Makes an object the one generation of a profile, as the activator does: the link first, then the promise is given up.
fn switch(store: &ObjectStore, profile: &str, object: &ObjectRef, durable: Durable) {
    let link = store.root().join("profiles").join(profile).join("gen/1");
    fsutil::create_dir_all(link.parent().unwrap(), 0o755).unwrap();
    fsutil::replace_symlink(&link, &Path::new("../../../store").join(object.to_string())).unwrap();
    drop(durable);
}

/// What a generation names must be whole.
fn expect_whole(store: &ObjectStore, who: &str, object: &ObjectRef) {
    let closure = store.closure(std::slice::from_ref(object)).unwrap_or_else(|error| panic!("{who} lost something: {error}"));
    for object in &closure {
        // Findings about no object are of names in `blobs/`: two publishers at once leave one of their inodes without.
        let mut findings = store.verify_object(object).unwrap();
        findings.retain(|finding| finding.object.is_some());
        assert!(findings.is_empty(), "{who}: {findings:?}");
    }
}

/// What the collector and the others tell each other.
#[derive(Default)]
struct Stage {
    over: AtomicBool,
    changes: AtomicU64,
}

/// Does something with ever other variants until the collector has had enough; returns how often.
fn repeat(stage: &Stage, who: &str, seed: u64, mut work: impl FnMut(u64)) -> (String, u64) {
    let (mut random, mut count) = (seed, 0);
    while !stage.over.load(Ordering::Relaxed) {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        work((random >> 33) % VARIANTS);
        count += 1;
        stage.changes.fetch_add(1, Ordering::Relaxed);
    }
    (who.to_owned(), count)
}

fn ingest(root: &Path, who: &str, variant: u64) {
    let store = ObjectStore::open(root).unwrap();
    let (durable, application) = publish(&store, variant).unwrap();
    switch(&store, who, &application, durable);
    expect_whole(&store, who, &application);
}

fn receive(root: &Path, from: &ObjectStore, variant: u64) {
    let store = ObjectStore::open(root).unwrap();
    let (_durable, wanted) = publish(from, variant).unwrap();
    let (to_receiver_read, to_receiver) = io::pipe().unwrap();
    let (to_sender_read, to_sender) = io::pipe().unwrap();
    thread::scope(|scope| {
        scope.spawn(|| {
            transfer::send_closure(
                from,
                std::slice::from_ref(&wanted),
                &transfer::TransferOptions::default(),
                &mut FrameReader::new(to_sender_read),
                &mut FrameWriter::new(to_receiver),
            )
            .unwrap()
        });
        let (mut durable, _) =
            transfer::receive_closure(&store, &mut FrameReader::new(to_receiver_read), &mut FrameWriter::new(to_sender)).unwrap();
        switch(&store, "receiver", &wanted, durable.pop().unwrap());
    });
    expect_whole(&store, "the receiver", &wanted);
}

/// Goes back to whatever object happens to be there, if it still is.
fn go_back(store: &ObjectStore, variant: u64) {
    let objects = store.objects().unwrap();
    let applications: Vec<&ObjectRef> = objects.iter().filter(|object| object.name.as_str() == "application").collect();
    let Some(chosen) = usize::try_from(variant).ok().and_then(|position| applications.get(position % applications.len().max(1))) else {
        return;
    };
    match Durable::of(store, chosen) {
        Ok(durable) => {
            switch(store, "switcher", chosen, durable);
            expect_whole(store, "the switcher", chosen);
        }
        Err(StoreError::Missing { .. }) => {}
        Err(error) => panic!("{error}"),
    }
}

fn collect(store: &ObjectStore) -> u64 {
    let plan = gc::plan(store, &Roots::default(), SystemTime::now() + Duration::from_secs(2), Duration::ZERO).unwrap();
    gc::execute(store, &plan).unwrap().objects
}

#[test]
fn collectors_take_nothing_from_anybody() {
    let directory = tempfile::Builder::new().prefix("sarsen-races-").tempdir_in(memory()).unwrap();
    let (root, inputs) = (directory.path().join("root"), directory.path().join("inputs"));
    let prepared = Command::new(WORK).arg("prepare").args([&root, &inputs]).status().unwrap();
    assert!(prepared.success());
    let store = ObjectStore::open(&root).unwrap();
    let from = ObjectStore::open(&directory.path().join("from")).unwrap();
    let (stage, removed) = (Stage::default(), AtomicU64::new(0));
    let collections = COLLECTIONS_PER_ROUND * rounds() as u64;
    let counts: Vec<(String, u64)> = thread::scope(|scope| {
        let workers = [
            scope.spawn(|| repeat(&stage, "one", 1, |variant| ingest(&root, "one", variant))),
            scope.spawn(|| repeat(&stage, "two", 2, |variant| ingest(&root, "two", variant))),
            scope.spawn(|| repeat(&stage, "receiver", 3, |variant| receive(&root, &from, variant))),
            scope.spawn(|| repeat(&stage, "switcher", 4, |variant| go_back(&store, variant))),
            // Another process, which ingests or collects.
            scope.spawn(|| {
                repeat(&stage, "processes", 5, |variant| {
                    let work = if variant % 2 == 0 { "ingest" } else { "gc" };
                    let output = Command::new(WORK).arg(work).args([&root, &inputs]).output().unwrap();
                    assert!(output.status.success(), "{work}: {}", String::from_utf8_lossy(&output.stderr));
                })
            }),
        ];
        let collected = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for _ in 0..collections {
                let seen = stage.changes.load(Ordering::Relaxed);
                removed.fetch_add(collect(&store), Ordering::Relaxed);
                assert!(workers.iter().all(|worker| !worker.is_finished()), "a worker has failed");
                // The next collection only when there may be something to collect.
                while stage.changes.load(Ordering::Relaxed) == seen && workers.iter().all(|worker| !worker.is_finished()) {
                    thread::yield_now();
                }
            }
        }));
        stage.over.store(true, Ordering::Relaxed);
        let counts = workers.into_iter().map(|worker| worker.join().expect("a worker")).collect();
        collected.expect("the collector");
        counts
    });
    println!("{collections} collections took {} objects from {counts:?}", removed.load(Ordering::Relaxed));
    assert!(removed.into_inner() >= collections / 4 && counts.iter().all(|(_, count)| *count > 0), "{counts:?}");
    collect(&store);
    let left: Vec<_> = ["leases", "stage", "trash"].iter().flat_map(|name| std::fs::read_dir(root.join(name)).unwrap()).collect();
    assert!(left.is_empty(), "{left:?}");
    let judged = Command::new(WORK).args(["judge", "open"]).args([&root, &inputs]).output().unwrap();
    assert!(judged.status.success(), "{}", String::from_utf8_lossy(&judged.stdout));
}

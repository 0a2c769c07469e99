//! The index as a file that anything may have happened to: a store with it opens, or says why not; and what it then says is so.
#![no_main]

use std::cell::RefCell;
use std::fs;

use sarsen_store::{Digest, ObjectRef, ObjectStore};
use sarsen_store_fuzz::world::Temporary;

thread_local! {
    static WORLD: RefCell<(tempfile::TempDir, Vec<ObjectRef>)> = {
        let world = Temporary::with_versions(1);
        let objects = world.store.objects().expect("the index answers");
        RefCell::new((world.into_directory(), objects))
    };
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    WORLD.with_borrow(|(directory, objects)| {
        let root = directory.path().join("root");
        let index = root.join("index.sqlite");
        for log in ["index.sqlite-wal", "index.sqlite-shm", "index.sqlite-journal"] {
            drop(fs::remove_file(root.join(log)));
        }
        drop(fs::remove_file(&index));
        fs::write(&index, bytes).expect("the index is written");
        // A newer version, or tables of others, are refused with words.
        let Ok(store) = ObjectStore::open(&root) else { return };
        drop(store.objects());
        for object in objects {
            drop(store.find(&object.id));
            drop(store.closure(std::slice::from_ref(object)));
        }
        drop(store.result(&Digest::of(b"recipe")));
        // From the disk all of them come back, whatever was in the file.
        if store.rebuild_index().is_ok() {
            assert_eq!(store.objects().expect("a new index answers"), *objects);
        }
        drop(store);
        for entry in fs::read_dir(root.join("trash")).into_iter().flatten().flatten() {
            drop(fs::remove_file(entry.path()));
        }
    });
});

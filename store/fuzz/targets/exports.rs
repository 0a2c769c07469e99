//! The list of an export, its signed statements, and what follows: without a signature that fits nothing is taken.
#![no_main]

use std::cell::RefCell;

use sarsen_store::pack;
use sarsen_store_fuzz::world::{Temporary, trusted};

thread_local! {
    static WORLD: RefCell<Temporary> = RefCell::new(Temporary::new());
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    WORLD.with_borrow_mut(|to| match pack::import(&to.store, bytes, &trusted()) {
        Ok(imported) => {
            assert_eq!(to.store.objects().expect("the index answers").len() as u64, imported.objects_new);
            assert!(to.store.verify().expect("the store is read").is_empty());
            drop(imported);
            *to = Temporary::new();
        }
        Err(_) => assert!(to.store.objects().expect("the index answers").is_empty()),
    });
});

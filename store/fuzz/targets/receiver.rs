//! Frames and messages to a receiver: the first byte says whether it has an older version, the rest is what the sender says.
//!
//! Whatever comes, it ends, and what has a name then is right.
#![no_main]

use std::cell::RefCell;

use sarsen_store::transfer::receive_closure;
use sarsen_store::wire::{FrameReader, FrameWriter};
use sarsen_store_fuzz::world::Temporary;

thread_local! {
    static WORLDS: RefCell<[Temporary; 2]> = RefCell::new([Temporary::new(), Temporary::with_versions(1)]);
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some((which, rest)) = bytes.split_first() else { return };
    let versions = which % 2;
    WORLDS.with_borrow_mut(|worlds| {
        let world = &mut worlds[usize::from(versions)];
        let before = world.store.objects().expect("the index answers");
        let outcome = receive_closure(&world.store, &mut FrameReader::new(rest), &mut FrameWriter::new(std::io::sink()));
        let is_received = outcome.is_ok();
        drop(outcome);
        let after = world.store.objects().expect("the index answers");
        if is_received {
            assert!(before.iter().all(|object| after.contains(object)));
            assert!(world.store.verify().expect("the store is read").is_empty());
        } else {
            assert_eq!(before, after, "a transfer that failed leaves no name");
        }
        // What came whole before a cut is kept, which must not change what the next input meets.
        if after != before || holds_remains(world) {
            *world = Temporary::with_versions(versions);
        }
    });
});

/// Whether contents of a transfer that was cut are kept.
fn holds_remains(world: &Temporary) -> bool {
    world.root().join("left-overs").symlink_metadata().is_ok()
}

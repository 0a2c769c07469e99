//! The reader of packed objects: the first byte says whether the rest is compressed, or an archive that is compressed here first, so that changes
//! reach what is inside.
//!
//! Whatever is taken is the object, byte for byte; what is refused leaves nothing behind.
#![no_main]

use std::cell::RefCell;

use sarsen_store::{ObjectRef, pack};
use sarsen_store_fuzz::world::{Temporary, compress, put_version};

thread_local! {
    static WORLD: RefCell<(Temporary, ObjectRef)> = {
        let from = Temporary::new();
        RefCell::new((Temporary::new(), put_version(&from.store, 1)))
    };
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some((how, rest)) = bytes.split_first() else { return };
    let packed = if how % 2 == 0 { rest.to_vec() } else { compress(rest) };
    WORLD.with_borrow(|(to, object)| {
        let mut transaction = to.store.begin().expect("a transaction begins");
        if let Ok(manifest) = pack::unpack_object(&mut transaction, object, &packed[..]) {
            assert_eq!(manifest.object, *object);
            assert_eq!(manifest.id(), object.id);
        }
        drop(transaction);
        assert!(to.store.objects().expect("the index answers").is_empty());
        assert_eq!(std::fs::read_dir(to.root().join("stage")).expect("the stage is there").count(), 0);
    });
});

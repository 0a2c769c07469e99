//! Frames and messages to a sender: the first byte says which version it sends, the rest is what the receiver says. It ends, whatever comes.
#![no_main]

use std::cell::RefCell;

use sarsen_store::ObjectRef;
use sarsen_store::transfer::{TransferOptions, send_closure};
use sarsen_store::wire::{FrameReader, FrameWriter};
use sarsen_store_fuzz::world::{Temporary, put_version};

thread_local! {
    static WORLD: RefCell<(Temporary, [ObjectRef; 2])> = {
        let world = Temporary::new();
        let versions = [put_version(&world.store, 1), put_version(&world.store, 2)];
        RefCell::new((world, versions))
    };
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some((which, rest)) = bytes.split_first() else { return };
    WORLD.with_borrow(|(world, versions)| {
        let root = versions[usize::from(which % 2)].clone();
        let options = TransferOptions::default();
        drop(send_closure(&world.store, &[root], &options, &mut FrameReader::new(rest), &mut FrameWriter::new(std::io::sink())));
    });
});

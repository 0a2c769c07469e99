//! The kernel tells each open handle once of pages that it lost, so the handle must be older than what is written.

use crate::sweep::Place;

#[test]
fn what_is_synced_was_opened_before_anything_was_written() {
    let place = Place::new();
    for work in ["ingest", "import", "receive"] {
        let traced = place.trace(work, "openat,open,mkdir,mkdirat,syncfs");
        let position = |wanted: &dyn Fn(&str, &str) -> bool| traced.iter().position(|call| wanted(&call.point.call, &call.text));
        let staged = position(&|call, text| call.starts_with("mkdir") && text.contains("/root/stage/")).expect("something is staged");
        let syncs: Vec<&str> = traced.iter().filter(|call| call.point.call == "syncfs").map(|call| call.text.as_str()).collect();
        assert!(syncs.len() >= 2, "{work}: before the names, and after them");
        for sync in syncs {
            let handle = sync.split_once(')').expect("strace's form").0;
            let opened = traced.iter().rposition(|call| call.point.call.starts_with("open") && call.text.ends_with(&format!("= {handle}")));
            assert!(opened.expect("the handle was opened") < staged, "{work}: {sync}");
        }
    }
}

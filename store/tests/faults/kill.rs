//! Each work is killed at each of its changes to files: at its entry, so the change has not happened.
//!
//! What the process had written is in the page cache and stays, as after a crash of the program alone; `tests/power.rs` takes the power away.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::sweep::{self, MUTATIONS, OPENINGS, Place, Point};

/// The works that are swept.
const WORKS: [&str; 6] = ["create", "ingest", "import", "receive", "gc", "rebuild"];

#[test]
fn whoever_is_killed_at_any_change_of_a_file_leaves_an_intact_store() {
    let first = Place::new();
    let live = first.live_after("open");
    let mut points = Vec::new();
    for work in WORKS {
        let traced = first.trace(work, &format!("{MUTATIONS},{OPENINGS}"));
        let mut found: Vec<Point> = traced.into_iter().filter(sweep::changes_a_file).map(|traced| traced.point).collect();
        found.sort();
        found.dedup();
        assert!(found.len() > 5, "{work} changes files: {found:?}");
        points.extend(sweep::sample(found, sweep::ROUNDS_ALL).into_iter().map(|point| (work, point)));
    }
    let (count, killed) = (points.len(), AtomicUsize::new(0));
    let faults = sweep::at_each(points, |place, (work, Point { call, nth })| {
        let trace = place.path("kill-trace").display().to_string();
        let inject = format!("inject={call}:signal=KILL:when={nth}");
        place.run_traced(work, &["-o", &trace, "-e", &format!("trace={call}"), "-e", &inject]);
        let text = std::fs::read_to_string(&trace).unwrap_or_default();
        killed.fetch_add(usize::from(text.contains("killed by SIGKILL")), Ordering::Relaxed);
        place.judge(work, &live).map_err(|fault| format!("{work} killed at {call} {nth}:\n{fault}"))
    });
    let killed = killed.into_inner();
    println!("{count} points, {killed} killed");
    assert!(faults.is_empty(), "{} of {count} points:\n{}", faults.len(), faults.into_iter().collect::<Vec<_>>().join("\n"));
    assert!(killed * 10 >= count * 9, "only {killed} of {count} were killed");
}

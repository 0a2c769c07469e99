//! Each work meets an error at each of its calls about files: no space, no quota, an error of the disk, a read-only file system, no
//! handle left, an interruption. (A short write cannot be put on: strace would claim bytes that nobody wrote. `tests/power.rs` fills real disks.)
//!
//! Beside the oracle: the program ends by itself, with 0 or 1, does not panic, and says which file. If it ends with 0, all that it was to do
//! is done. A sync that failed ends the work with an error: nobody tries it again.

use crate::sweep::{self, MUTATIONS, OPENINGS, Place, Point, READINGS, Traced};

/// The works that are swept.
const WORKS: [&str; 6] = ["create", "ingest", "import", "receive", "gc", "rebuild"];

/// What can happen at a call of this name, as strace has it.
fn errors_of(call: &str) -> &'static [&'static str] {
    match call {
        "write" | "pwrite64" | "pwritev" | "writev" => &["error=ENOSPC", "error=EIO", "error=EDQUOT", "error=EINTR"],
        "copy_file_range" | "sendfile" | "fallocate" | "ftruncate" => &["error=ENOSPC", "error=EIO"],
        "syncfs" | "fsync" | "fdatasync" => &["error=EIO", "error=ENOSPC", "error=EDQUOT"],
        "open" | "openat" | "openat2" | "creat" => &["error=EMFILE", "error=EIO", "error=EROFS", "error=ENOSPC", "error=EINTR"],
        "read" | "pread64" => &["error=EIO", "error=EINTR"],
        "getdents64" | "readlink" | "readlinkat" | "statx" | "stat" | "fstat" | "lstat" | "newfstatat" | "statfs" => &["error=EIO"],
        "flock" => &["error=EINTR", "error=ENOLCK"],
        "flistxattr" => &["error=EOPNOTSUPP"],
        _ => &["error=ENOSPC", "error=EIO", "error=EROFS", "error=EDQUOT"],
    }
}

/// One error at one point.
struct Case {
    work: &'static str,
    point: Point,
    error: &'static str,
    is_sync: bool,
    after: Vec<String>,
}

fn cases(place: &Place) -> Vec<Case> {
    let mut cases = Vec::new();
    for work in WORKS {
        let after = place.live_after(work);
        let traced = place.trace(work, &format!("{MUTATIONS},{OPENINGS},{READINGS}"));
        let mut found: Vec<Traced> = traced.into_iter().collect();
        found.sort_by(|one, other| one.point.cmp(&other.point));
        found.dedup_by(|one, other| one.point == other.point);
        for (position, Traced { point, text }) in found.into_iter().enumerate() {
            let errors = errors_of(&point.call);
            // SQLite goes on after a failed sync where nothing depends on it: while it closes, and for names in its directory.
            let of_the_index = text.contains("/index.sqlite") || text.contains("/root>");
            let is_sync = point.call == "syncfs" || (matches!(point.call.as_str(), "fsync" | "fdatasync") && !of_the_index);
            // All errors of a name come by turns; at syncs all of them come each time.
            let chosen = if matches!(point.call.as_str(), "syncfs" | "fsync" | "fdatasync") {
                errors
            } else {
                &errors[position % errors.len()..][..1]
            };
            cases.extend(chosen.iter().map(|error| Case { work, point: point.clone(), error, is_sync, after: after.clone() }));
        }
    }
    cases
}

#[test]
fn whoever_meets_an_error_at_any_call_leaves_an_intact_store_and_says_so() {
    let first = Place::new();
    let live = first.live_after("open");
    let cases = sweep::sample(cases(&first), 3 * sweep::ROUNDS_ALL);
    let count = cases.len();
    assert!(count > 20, "there are calls: {count}");
    let faults = sweep::at_each(cases, |place, case| {
        let Case { work, point: Point { call, nth }, error, is_sync, after } = case;
        let trace = place.path("error-trace").display().to_string();
        let inject = format!("inject={call}:{error}:when={nth}");
        let run = place.run_traced(work, &["-y", "-o", &trace, "-e", &format!("trace={call}"), "-e", &inject]);
        let told = String::from_utf8_lossy(&run.stderr).into_owned();
        let injected = std::fs::read(&trace).map(|text| String::from_utf8_lossy(&text).into_owned()).unwrap_or_default();
        let injected = injected.lines().find(|line| line.contains("INJECTED")).unwrap_or("not injected").to_owned();
        let fault = |what: &str| Err(format!("{work}, {error} at {call} {nth}: {what}\n  {injected}\n  {told}"));
        let code = run.status.code();
        if told.contains("panicked") || !matches!(code, Some(0 | 1)) {
            return fault(&format!("ended with {code:?}"));
        }
        // The file that is imported is the caller's, who knows its name.
        if code == Some(1) && !told.contains('`') && !told.contains("this is not an export") {
            return fault("does not say which file");
        }
        if code == Some(0) && *is_sync && injected.contains("INJECTED") {
            return fault("a failed sync passed for a success");
        }
        let required = if code == Some(0) { after } else { &live };
        place.judge(work, required).or_else(|violations| fault(&format!("ended with {code:?}, then:\n{violations}")))
    });
    println!("{count} cases");
    assert!(faults.is_empty(), "{} of {count} cases:\n{}", faults.len(), faults.into_iter().collect::<Vec<_>>().join("\n"));
}

#[test]
fn a_store_on_a_network_file_system_is_refused() {
    let place = Place::new();
    // What statfs(2) has answered is replaced: a file system's magic number is the first word. All calls get the same answer.
    for (magic, kind) in [("6969000000000000", "NFS"), ("424d53ff00000000", "SMB"), ("9419020100000000", "")] {
        let inject = format!("inject=statfs:poke_exit=@arg2={magic}");
        let run = place.run_traced("open", &["-o", "/dev/null", "-e", "trace=statfs", "-e", &inject]);
        let told = String::from_utf8_lossy(&run.stderr);
        if kind.is_empty() {
            assert!(!told.contains("network file system"), "{told}");
        } else {
            assert_eq!(run.status.code(), Some(1), "{told}");
            let root = place.path("now/root");
            let expected = format!("`{}` is on {kind}, a network file system: a store needs a local one", root.display());
            assert!(told.contains(&expected), "{told}");
        }
    }
}

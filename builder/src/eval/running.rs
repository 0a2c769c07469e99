//! What is being evaluated at this moment, on all threads: for whoever watches over time and memory from outside.
//!
//! One operation of the evaluator can take for ever or all memory without ever coming back to look at a limit. Whoever
//! watches (`crate::evaluator`) learns here whom to name, and for how long it has kept its processor.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use crate::diagnostic::Location;

/// An evaluation of a module or an instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Running {
    /// The component and the host; nothing for a module.
    pub(crate) instance: Option<(String, String)>,
    /// Where the component or the module begins.
    pub(crate) at: Location,
    /// The kernel's number of the thread.
    pub(crate) thread: i32,
    /// How long the thread had been on a processor when this began, in nanoseconds.
    pub(crate) began_ns: u64,
}

static ALL: Mutex<BTreeMap<u64, Running>> = Mutex::new(BTreeMap::new());
static NEXT: AtomicU64 = AtomicU64::new(0);
static WATCHED: AtomicBool = AtomicBool::new(false);
static TRACED: AtomicBool = AtomicBool::new(false);

/// Takes the entry away when the evaluation ends, however it ends.
#[derive(Debug)]
pub(super) struct Ended(Option<u64>);

impl Drop for Ended {
    fn drop(&mut self) {
        if let Some(number) = self.0 {
            lock().remove(&number);
        }
    }
}

/// Begins to keep the list, which costs two system calls for each evaluation; `trace` also writes each beginning to standard output.
pub(crate) fn watch(trace: bool) {
    WATCHED.store(true, Ordering::Relaxed);
    TRACED.store(trace, Ordering::Relaxed);
}

/// Everything that is being evaluated.
pub(crate) fn list() -> Vec<Running> {
    lock().values().cloned().collect()
}

/// Notes that an evaluation begins.
pub(super) fn begin(instance: Option<(&str, &str)>, at: &Location) -> Ended {
    if !WATCHED.load(Ordering::Relaxed) {
        return Ended(None);
    }
    let thread = rustix::thread::gettid().as_raw_nonzero().get();
    let instance = instance.map(|(component, host)| (component.to_owned(), host.to_owned()));
    let running = Running { instance, at: at.clone(), thread, began_ns: processor_ns(thread).unwrap_or(0) };
    if TRACED.load(Ordering::Relaxed)
        && let Ok(line) = serde_json::to_string(&running)
    {
        let _ = writeln!(std::io::stdout(), "{line}");
    }
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    lock().insert(number, running);
    Ended(Some(number))
}

/// How long a thread of this process has been on a processor, in nanoseconds.
pub(crate) fn processor_ns(thread: i32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/self/task/{thread}/schedstat")).ok()?;
    text.split_whitespace().next()?.parse().ok()
}

fn lock() -> MutexGuard<'static, BTreeMap<u64, Running>> {
    ALL.lock().unwrap_or_else(PoisonError::into_inner)
}

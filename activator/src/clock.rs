//! The only owner of time on a target: what it is now, and waiting.
//!
//! Deadlines are taken from the time since boot, which nobody can set; together with the boot's id they are
//! right or recognisably stale. Seconds since 1970 are for people only.
#![expect(clippy::disallowed_methods, reason = "the owner of the clock")]

use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

/// One moment, as a target sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moment {
    /// Seconds since 1970, for people.
    pub unix_seconds: u64,
    /// Milliseconds since boot, with the time asleep.
    pub boottime_ms: u64,
    /// The boot that `boottime_ms` counts from.
    pub boot_id: String,
}

impl Moment {
    /// Reads the clocks.
    pub fn now() -> Self {
        Self { unix_seconds: unix_seconds(), boottime_ms: milliseconds(boottime()), boot_id: boot_id() }
    }
}

/// The time of day, for ages of what is on disk: never for deadlines.
pub fn now() -> SystemTime {
    SystemTime::now()
}

/// Seconds since 1970; 0 if the clock stands before.
pub fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |passed| passed.as_secs())
}

/// The time since boot, with the time asleep.
pub fn boottime() -> Duration {
    let time = clock_gettime(ClockId::Boottime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// The kernel's random name of this boot; `unknown` where the kernel does not tell, which equals itself and no other.
pub fn boot_id() -> String {
    match std::fs::read_to_string("/proc/sys/kernel/random/boot_id") {
        Ok(text) => text.trim().chars().take(64).collect(),
        Err(_) => "unknown".to_owned(),
    }
}

/// Waits. Only for polling another process's decision, never in place of an event.
pub fn pause(time: Duration) {
    thread::sleep(time);
}

/// Whole milliseconds of a duration.
pub fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

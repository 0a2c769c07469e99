//! What a store is after faults: processes killed, system calls that fail, and collectors racing everybody else.
//!
//! `sweep` runs the works of `sarsen-store-work` at each of their system calls; its judge is the oracle of `oracle.rs`. By default a
//! sample of the calls is taken, so that the tests stay quick; with `SARSEN_ROUNDS=30` none is left out, see CONTRIBUTING.md.
#![expect(clippy::disallowed_methods, reason = "tests set up files, run programs and read their environment from outside")]

mod errors;
mod kill;
mod races;
mod sweep;
mod sync;

//! Targets, staging, generations, units, health.
//!
//! Two halves that meet in [`protocol`]: the operator's (`target`, `deployment`) and the target's (everything else, run by
//! the binary `sarsen-activator`). This crate knows nothing of recipes; it meets the builder in `sarsen_store::manifest`.

pub mod activate;
pub mod audit;
pub mod binary;
pub mod clock;
pub mod course;
pub mod deployment;
pub mod diff;
mod drift;
pub mod drive;
pub mod error;
pub mod generation;
pub mod goback;
pub mod health;
pub mod hooks;
pub mod journal;
pub mod layout;
pub mod lock;
pub mod machine;
pub mod pending;
pub mod process;
pub mod protocol;
pub mod requirements;
mod reserve;
pub mod retention;
pub mod serve;
pub mod services;
pub mod settle;
mod statefile;
pub mod supervisor;
pub mod systemd;
pub mod target;
pub mod unitfile;

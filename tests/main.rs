//! The end-to-end tests: the built binaries, run the way people run them.
//!
//! One binary, one module a topic. `world` is a place for one test: a copy of a fixture project, a home directory, a store and
//! the processes started from it, all gone at the end. `lab` is a set of real Debian hosts. Logic is tested in the crates; here it is
//! wiring, messages, exit codes, and what only whole machines show. Some tests need root; `tests/run` says what else.
//!
//! Nothing is skipped: where a machine cannot carry a test, the test fails and says what is missing.
#![expect(clippy::disallowed_methods, reason = "tests set up files and run programs themselves, from outside")]

mod commands;
mod crash;
mod determinism;
mod errors;
mod full;
mod lab;
mod local;
mod lock;
mod oracle;
mod power;
mod promises;
mod reflink;
mod repair;
mod shop;
mod standalone;
mod store;
mod tidy;
mod trial;
mod world;

//! What the fuzz targets share: stores whose objects are the same in each run, and whose peers' words are therefore valid seeds.
//!
//! `store/examples/fuzz_seeds.rs` includes `world.rs` too, and writes the seeds with it: a program that is not instrumented.

pub mod world;

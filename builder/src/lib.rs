//! From a project to bundles: evaluation, planning, sandboxed builds, objects.
//!
//! This crate knows nothing of targets' state; it meets the activator in `sarsen_store::manifest`.

pub mod bundle;
mod data;
pub mod describe;
pub mod diagnostic;
mod encoding;
pub mod environment;
mod eval;
pub mod evaluator;
mod fetch;
mod filters;
pub mod language;
pub mod lock;
mod mako;
pub mod model;
pub mod package;
pub mod plan;
pub mod realise;
pub mod recipe;
mod resolve;
pub mod sandbox;
pub mod snapshot;
mod template;
pub mod toolchain;

pub use environment::{Project, find_project_settings};
pub use resolve::{Assessment, Input, assess, describe, evaluate, find_fleet};

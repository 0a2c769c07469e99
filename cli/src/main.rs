//! The `sarsen` command: arguments, rendering, exit codes. What it does lies in the libraries.
//!
//! The same binary is the build sandbox's first process, and the one that evaluates: with `__sandbox` or `__evaluate` as its first
//! argument it becomes that and nothing else. Standard output carries data, standard error talk; a reader that goes away is no failure.

use std::process::ExitCode;

use clap::Parser;

mod args;
mod commands;
mod context;
mod error;
mod hosts;
mod progress;
mod project;
mod render;
mod revision;

use context::Context;

fn main() -> ExitCode {
    match std::env::args_os().nth(1) {
        Some(argument) if argument == sarsen_builder::sandbox::ENTRY_ARGUMENT => return sarsen_builder::sandbox::enter(),
        Some(argument) if argument == sarsen_builder::evaluator::ENTRY_ARGUMENT => return sarsen_builder::evaluator::enter(),
        _ => {}
    }
    let arguments = args::Arguments::parse();
    let context = match Context::read(&arguments.global) {
        Ok(context) => context,
        Err(error) => return error.report().into(),
    };
    match commands::run(arguments.command, &context) {
        Ok(exit) => exit.into(),
        Err(error) => error.report().into(),
    }
}

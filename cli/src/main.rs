//! The `sarsen` command: arguments, rendering, exit codes. What it does lies in the libraries.
//!
//! The same binary is the build sandbox's first process: with `__sandbox` as its first argument it becomes that and
//! nothing else. Standard output carries data, standard error talk; a reader that goes away is no failure.

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
    if std::env::args_os().nth(1).is_some_and(|argument| argument == sarsen_builder::sandbox::ENTRY_ARGUMENT) {
        return sarsen_builder::sandbox::enter();
    }
    silence_evaluation();
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

/// A definition that makes the evaluator panic is shown as a diagnostic; the panic itself is nothing for a user to read.
fn silence_evaluation() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if std::thread::current().name() != Some(sarsen_builder::EVALUATION_THREAD) {
            usual(panic);
        }
    }));
}

//! The commands, one file each. This one only dispatches.

use crate::args::Command;
use crate::context::Context;
use crate::error::{CommandError, Exit};

pub(crate) mod build;
pub(crate) mod check;
pub(crate) mod completions;
pub(crate) mod deploy;
pub(crate) mod explain;
pub(crate) mod history;
pub(crate) mod init;
pub(crate) mod lock;
pub(crate) mod outcome;
pub(crate) mod plan;
pub(crate) mod rollback;
pub(crate) mod show;
pub(crate) mod status;
pub(crate) mod store;

/// Runs a command.
pub(crate) fn run(command: Command, context: &Context) -> Result<Exit, CommandError> {
    match command {
        Command::Init(arguments) => init::run(&arguments, context),
        Command::Check(arguments) => check::run(&arguments, context),
        Command::Show(arguments) => show::run(&arguments, context),
        Command::Explain(arguments) => explain::run(&arguments, context),
        Command::Lock(arguments) => lock::run(&arguments, context),
        Command::Plan(arguments) => plan::run(&arguments, context),
        Command::Build(arguments) => build::run(&arguments, context),
        Command::Deploy(arguments) => deploy::run(&arguments, context),
        Command::Rollback(arguments) => rollback::run(&arguments, context),
        Command::Status(arguments) => status::run(&arguments, context),
        Command::History(arguments) => history::run(&arguments, context),
        Command::Store(command) => store::run(&command, context),
        Command::Completions(arguments) => completions::run(&arguments, context),
    }
}

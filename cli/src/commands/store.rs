//! `sarsen store`: the local store. One file a subcommand; this one only dispatches.

use clap::Subcommand;

use crate::context::Context;
use crate::error::{CommandError, Exit};

mod add;
mod amount;
mod cat;
mod diff;
mod du;
mod export;
mod gc;
mod import;
mod key;
mod leftovers;
mod ls;
mod path;
mod pin;
mod rebuild_index;
mod repair;
mod selection;
mod verify;
mod why;

/// Look after the local store
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Take a directory in as an object, and print the object
    Add(add::Arguments),
    /// List the objects, or what an object holds
    Ls(ls::Arguments),
    /// Write a file of an object to standard output
    Cat(cat::Arguments),
    /// Compare what two objects hold
    Diff(diff::Arguments),
    /// Print where the store, or an object in it, lies
    Path(path::Arguments),
    /// Read objects again and name everything that is not what the object says
    Verify(verify::Arguments),
    /// Put right what verify finds, from what else has the right bytes
    Repair(repair::Arguments),
    /// Show what no generation, pin or running transaction needs, and remove it with --yes
    Gc(gc::Arguments),
    /// Show who needs an object, and through which others
    Why(why::Arguments),
    /// Show how much space objects take, and how much of it is theirs alone
    Du(du::Arguments),
    /// Keep an object under a name, or list what is kept so
    Pin(pin::Arguments),
    /// Write objects and all that they need into one file, signed
    Export(export::Arguments),
    /// Take in what an export holds, if a trusted key has signed it
    Import(import::Arguments),
    #[command(subcommand)]
    Key(key::Command),
    /// Make the index anew from what is on disk
    RebuildIndex,
}

pub(crate) fn run(command: &Command, context: &Context) -> Result<Exit, CommandError> {
    match command {
        Command::Add(arguments) => add::run(arguments, context),
        Command::Ls(arguments) => ls::run(arguments, context),
        Command::Cat(arguments) => cat::run(arguments, context),
        Command::Diff(arguments) => diff::run(arguments, context),
        Command::Path(arguments) => path::run(arguments, context),
        Command::Verify(arguments) => verify::run(arguments, context),
        Command::Repair(arguments) => repair::run(arguments, context),
        Command::Gc(arguments) => gc::run(arguments, context),
        Command::Why(arguments) => why::run(arguments, context),
        Command::Du(arguments) => du::run(arguments, context),
        Command::Pin(arguments) => pin::run(arguments, context),
        Command::Export(arguments) => export::run(arguments, context),
        Command::Import(arguments) => import::run(arguments, context),
        Command::Key(command) => key::run(command, context),
        Command::RebuildIndex => rebuild_index::run(context),
    }
}

/// A failure of a library, as a failed command.
fn failed(error: impl std::error::Error) -> CommandError {
    CommandError::of(Exit::Failed, &error)
}

//! `sarsen store path`: where things lie.

use clap::Args;
use serde::Serialize;

use super::selection::select;
use crate::args::Format;
use crate::context::Context;
use crate::error::{CommandError, Exit};
use crate::project::open_store;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Object: `<id>-<name>`, or the beginning of it
    object: Option<String>,
}

#[derive(Serialize)]
struct Report {
    path: String,
}

pub(super) fn run(arguments: &Arguments, context: &Context) -> Result<Exit, CommandError> {
    let store = open_store(context)?;
    let path = match &arguments.object {
        None => store.root().join("store"),
        Some(object) => store.object_path(&select(&store, object)?),
    };
    let path = path.display().to_string();
    match context.format {
        Format::Json => context.print_json(&Report { path })?,
        Format::Text => context.print(&(path + "\n"))?,
    }
    Ok(Exit::Done)
}

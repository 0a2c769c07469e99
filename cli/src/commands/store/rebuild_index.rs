//! `sarsen store rebuild-index`: the index from what is on disk.

use serde::Serialize;

use super::failed;
use crate::args::Format;
use crate::context::Context;
use crate::error::{CommandError, Exit};
use crate::project::open_store;

#[derive(Serialize)]
struct Report {
    objects: u64,
}

pub(super) fn run(context: &Context) -> Result<Exit, CommandError> {
    let objects = open_store(context)?.rebuild_index().map_err(failed)?;
    match context.format {
        Format::Json => context.print_json(&Report { objects })?,
        Format::Text => context.say(&format!("the index has {objects} objects")),
    }
    Ok(Exit::Done)
}

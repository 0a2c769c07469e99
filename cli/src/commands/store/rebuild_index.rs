//! `sarsen store rebuild-index`: the index from what is on disk.

use std::sync::Arc;

use sarsen_store::progress::Counters;
use serde::Serialize;

use super::failed;
use crate::args::Format;
use crate::context::Context;
use crate::error::{CommandError, Exit};
use crate::progress::watch;
use crate::project::open_store;

#[derive(Serialize)]
struct Report {
    objects: u64,
}

pub(super) fn run(context: &Context) -> Result<Exit, CommandError> {
    let counters = Arc::new(Counters::of("object"));
    let store = open_store(context)?.counting_into(Arc::clone(&counters));
    let objects = watch("rebuilding", &counters, || store.rebuild_index()).map_err(failed)?;
    match context.format {
        Format::Json => context.print_json(&Report { objects })?,
        Format::Text => context.say(&format!("the index has {objects} objects")),
    }
    Ok(Exit::Done)
}

//! `sarsen store pin`: names under which objects are kept.

use std::collections::BTreeMap;

use clap::Args;
use sarsen_store::{ObjectName, ObjectRef, ObjectStore};
use serde::Serialize;

use super::failed;
use super::selection::select;
use crate::args::Format;
use crate::context::Context;
use crate::error::{CommandError, Exit};
use crate::project::open_store;
use crate::render::{columns, count};

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Name of the pin; an older pin of that name is replaced
    #[arg(requires = "object")]
    name: Option<ObjectName>,
    /// Object: `<id>-<name>`, or the beginning of it
    object: Option<String>,
    /// Drop the pin of this name; what it kept goes with the next collection
    #[arg(long, value_name = "NAME", conflicts_with_all = ["name", "object"])]
    remove: Option<ObjectName>,
}

#[derive(Serialize)]
struct Report<'a> {
    pins: &'a BTreeMap<String, ObjectRef>,
}

pub(super) fn run(arguments: &Arguments, context: &Context) -> Result<Exit, CommandError> {
    let store = open_store(context)?;
    match (&arguments.remove, &arguments.name, &arguments.object) {
        (Some(name), _, _) => remove(&store, name, context)?,
        (None, Some(name), Some(object)) => {
            let object = select(&store, object)?;
            let former = store.pins().map_err(failed)?.remove(name.as_str()).filter(|former| *former != object);
            store.pin(name, &object).map_err(failed)?;
            let former = former.map(|former| format!(", no longer {former}")).unwrap_or_default();
            context.say(&format!("`{name}` keeps {object}{former}"));
        }
        // clap lets no name come without an object.
        (None, _, _) => return list(&store, context),
    }
    if context.format == Format::Json { list(&store, context) } else { Ok(Exit::Done) }
}

fn list(store: &ObjectStore, context: &Context) -> Result<Exit, CommandError> {
    let pins = store.pins().map_err(failed)?;
    match context.format {
        Format::Json => context.print_json(&Report { pins: &pins })?,
        Format::Text => {
            let rows: Vec<[String; 2]> = pins.iter().map(|(name, object)| [name.clone(), object.to_string()]).collect();
            context.print(&columns(&rows, 0))?;
            context.say(&count(pins.len(), "pin"));
        }
    }
    Ok(Exit::Done)
}

fn remove(store: &ObjectStore, name: &ObjectName, context: &Context) -> Result<(), CommandError> {
    let pins = store.pins().map_err(failed)?;
    let Some(object) = pins.get(name.as_str()) else {
        return Err(CommandError::new(Exit::Failed, format!("there is no pin `{name}`")).hint("`sarsen store pin` lists the pins"));
    };
    store.unpin(name).map_err(failed)?;
    context.say(&format!("`{name}` no longer keeps {object}"));
    Ok(())
}

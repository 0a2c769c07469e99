//! `sarsen store why`: who needs an object.

use std::path::PathBuf;

use clap::Args;
use sarsen_store::ObjectRef;
use sarsen_store::gc::{self, Root};
use serde::Serialize;

use super::failed;
use super::selection::select;
use crate::args::Format;
use crate::context::Context;
use crate::error::{CommandError, Exit};
use crate::project::open_store;
use crate::render::push_line;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Object: `<id>-<name>`, or the beginning of it
    object: String,
}

#[derive(Serialize)]
struct Report<'a> {
    object: &'a ObjectRef,
    reasons: Vec<Reason<'a>>,
}

#[derive(Serialize)]
struct Reason<'a> {
    root: Keeper<'a>,
    chain: &'a [ObjectRef],
}

/// Who keeps an object, as programs read it.
#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
enum Keeper<'a> {
    Generation { link: &'a PathBuf },
    Pin { name: &'a str },
    Result { link: &'a PathBuf },
    Lease,
    Process { process: u32, part: &'a str },
}

pub(super) fn run(arguments: &Arguments, context: &Context) -> Result<Exit, CommandError> {
    let store = open_store(context)?;
    let object = select(&store, &arguments.object)?;
    let reasons = gc::why(&store, &object).map_err(failed)?;
    match context.format {
        Format::Json => {
            let reasons = reasons.iter().map(|reason| Reason { root: keeper(&reason.root), chain: &reason.chain }).collect();
            context.print_json(&Report { object: &object, reasons })?;
        }
        Format::Text => context.print(&reasons.iter().map(text).collect::<String>())?,
    }
    if reasons.is_empty() {
        context.say("nothing needs it: the next collection removes it when its grace time is over");
    }
    Ok(Exit::Done)
}

fn keeper(root: &Root) -> Keeper<'_> {
    match root {
        Root::Generation { link } => Keeper::Generation { link },
        Root::Pin { name } => Keeper::Pin { name },
        Root::Result { link } => Keeper::Result { link },
        Root::Lease => Keeper::Lease,
        Root::Process { process, part } => Keeper::Process { process: *process, part },
    }
}

/// The root, and under it one object a line, each referring to the next.
fn text(reason: &gc::Reason) -> String {
    let mut text = String::new();
    push_line(&mut text, &reason.root.to_string());
    for object in &reason.chain {
        push_line(&mut text, &format!("  {object}"));
    }
    text
}

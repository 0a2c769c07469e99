//! `sarsen store add`: a directory as an object.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use sarsen_store::progress::Counters;
use sarsen_store::{ObjectName, ObjectRef, ObjectStore};
use serde::Serialize;

use super::failed;
use crate::args::Format;
use crate::context::Context;
use crate::error::{CommandError, Exit};
use crate::progress::watch;
use crate::project::open_store;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Directory
    path: PathBuf,
    /// Name of the object [default: that of the directory]
    #[arg(long)]
    name: Option<ObjectName>,
}

#[derive(Serialize)]
struct Report<'a> {
    object: &'a ObjectRef,
    path: String,
    new: bool,
}

pub(super) fn run(arguments: &Arguments, context: &Context) -> Result<Exit, CommandError> {
    let source = find_directory(&arguments.path)?;
    let name = arguments.name.clone().map_or_else(|| name_of(&source), Ok)?;
    let store = open_store(context)?;
    refuse_the_store_itself(&store, &source)?;
    let counters = Arc::new(Counters::new());
    let store = store.counting_into(Arc::clone(&counters));
    let (object, new) = watch("adding", &counters, || add(&store, &name, &source))?;
    match context.format {
        Format::Json => {
            let path = store.object_path(&object).display().to_string();
            context.print_json(&Report { object: &object, path, new })?;
        }
        Format::Text => context.print(&format!("{object}\n"))?,
    }
    if new {
        context.say("nothing needs it yet: `sarsen store pin NAME OBJECT` keeps it from being collected");
    } else {
        context.say("it was in the store already");
    }
    Ok(Exit::Done)
}

fn add(store: &ObjectStore, name: &ObjectName, source: &Path) -> Result<(ObjectRef, bool), CommandError> {
    let mut transaction = store.begin().map_err(failed)?;
    let object = transaction.put_directory(name, source, None, &[]).map_err(failed)?;
    let new = !store.contains(&object.id).map_err(failed)?;
    transaction.barrier().map_err(failed)?;
    Ok((object, new))
}

/// The directory with symbolic links followed, so that its name is the one it has.
fn find_directory(path: &Path) -> Result<PathBuf, CommandError> {
    let unusable = |reason: String| CommandError::new(Exit::Usage, format!("`{}` {reason}", path.display()));
    let found = path.canonicalize().map_err(|error| unusable(String::from("cannot be taken in")).because(&error))?;
    if found.is_dir() {
        return Ok(found);
    }
    Err(unusable(String::from("is not a directory")).hint("an object is a directory: put the file into one of its own"))
}

fn name_of(source: &Path) -> Result<ObjectName, CommandError> {
    let name = source.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
    name.parse().map_err(|error| CommandError::of(Exit::Usage, &error).hint("give the object another with --name NAME"))
}

/// A store cannot hold itself: it would grow while it is read.
fn refuse_the_store_itself(store: &ObjectStore, source: &Path) -> Result<(), CommandError> {
    let root = store.root().canonicalize().unwrap_or_else(|_| store.root().to_owned());
    if root.starts_with(source) {
        return Err(CommandError::new(Exit::Usage, format!("the store at `{}` is in `{}`", root.display(), source.display()))
            .hint("a store cannot hold itself: name a directory beside it, or another store with --root DIR"));
    }
    Ok(())
}

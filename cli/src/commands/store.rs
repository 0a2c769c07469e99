//! `sarsen store`: the local store.

use std::time::Duration;

use clap::Subcommand;
use sarsen_store::ObjectRef;
use sarsen_store::gc::{self, Roots};
use serde::Serialize;

use crate::args::Format;
use crate::context::Context;
use crate::error::{CommandError, Exit};
use crate::project::open_store;
use crate::render::{bytes, count};

/// Look after the local store
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Read everything again and name every object that is not what its name says
    Verify,
    /// Remove objects that no generation, pin or running transaction needs; prints the plan first
    Gc {
        /// Stop after the plan
        #[arg(long, conflicts_with = "yes")]
        dry_run: bool,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
        /// How long ago an object must have been made
        #[arg(long, value_name = "HOURS", default_value_t = 24)]
        grace: u32,
    },
    /// Print where the store, or an object in it, lies
    Path {
        /// Object, as `<id>-<name>`
        object: Option<ObjectRef>,
    },
}

#[derive(Serialize)]
struct Verified {
    objects: usize,
    findings: Vec<String>,
}

#[derive(Serialize)]
struct Collected<'a> {
    keep: usize,
    remove: Vec<&'a ObjectRef>,
    bytes: u64,
    removed: bool,
}

/// What happens after the plan of a collection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Consent {
    Stop,
    Ask,
    Given,
}

fn consent(dry_run: bool, yes: bool) -> Consent {
    match (dry_run, yes) {
        (true, _) => Consent::Stop,
        (false, true) => Consent::Given,
        (false, false) => Consent::Ask,
    }
}

#[derive(Serialize)]
struct Place {
    path: String,
}

pub(crate) fn run(command: &Command, context: &Context) -> Result<Exit, CommandError> {
    match command {
        Command::Verify => verify(context),
        Command::Gc { dry_run, yes, grace } => collect(context, Duration::from_secs(u64::from(*grace) * 3600), consent(*dry_run, *yes)),
        Command::Path { object } => path(context, object.as_ref()),
    }
}

fn verify(context: &Context) -> Result<Exit, CommandError> {
    let failed = |error| CommandError::of(Exit::Failed, &error);
    let store = open_store(context)?;
    let objects = store.objects().map_err(failed)?.len();
    let findings: Vec<String> = store.verify().map_err(failed)?.iter().map(ToString::to_string).collect();
    let damage = findings.len();
    match context.format {
        Format::Json => context.print_json(&Verified { objects, findings })?,
        Format::Text => findings.iter().try_for_each(|finding| context.print(&format!("{finding}\n")))?,
    }
    if damage == 0 {
        context.say(&format!("{} verified", count(objects, "object")));
        return Ok(Exit::Done);
    }
    Err(CommandError::new(Exit::Failed, format!("the store at `{}` has {}", context.root.display(), count(damage, "damaged place")))
        .hint("remove the objects that are named and build again"))
}

fn collect(context: &Context, grace: Duration, consent: Consent) -> Result<Exit, CommandError> {
    if consent != Consent::Stop {
        context.require_consent(consent == Consent::Given, "removal")?;
    }
    let failed = |error| CommandError::of(Exit::Failed, &error);
    let store = open_store(context)?;
    let plan = gc::plan(&store, &Roots::default(), context.now, grace).map_err(failed)?;
    let mut removed = false;
    if context.format == Format::Text {
        plan.remove.iter().try_for_each(|removal| context.print(&format!("{}  {}\n", removal.object, bytes(removal.bytes))))?;
    }
    context.say(&format!("{} to remove, {} to free, {} to keep", count(plan.remove.len(), "object"), bytes(plan.bytes), plan.keep.len()));
    if consent != Consent::Stop && !plan.remove.is_empty() {
        if !context.consents(consent == Consent::Given, &format!("Remove {}?", count(plan.remove.len(), "object")))? {
            return Err(CommandError::new(Exit::Failed, "not removed: the answer was no"));
        }
        let report = gc::execute(&store, &plan).map_err(failed)?;
        removed = true;
        context.say(&format!("removed {} objects, {}", report.objects, bytes(report.bytes)));
    }
    if context.format == Format::Json {
        let remove = plan.remove.iter().map(|removal| &removal.object).collect();
        context.print_json(&Collected { keep: plan.keep.len(), remove, bytes: plan.bytes, removed })?;
    }
    Ok(Exit::Done)
}

fn path(context: &Context, object: Option<&ObjectRef>) -> Result<Exit, CommandError> {
    let store = open_store(context)?;
    let path = match object {
        None => store.root().join("store"),
        Some(object) if store.contains(&object.id).map_err(|error| CommandError::of(Exit::Failed, &error))? => store.object_path(object),
        Some(object) => {
            return Err(CommandError::new(Exit::Failed, format!("`{object}` is not in the store at `{}`", store.root().display())));
        }
    };
    let path = path.display().to_string();
    match context.format {
        Format::Json => context.print_json(&Place { path })?,
        Format::Text => context.print(&(path + "\n"))?,
    }
    Ok(Exit::Done)
}

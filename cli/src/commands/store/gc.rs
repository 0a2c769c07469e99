//! `sarsen store gc`: removes what nobody needs; the plan comes first, and alone unless told to go on.
//!
//! Generations are given up first, if a policy is given: the plan shows what would be free then.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use sarsen_activator::layout::{Layout, ProfileLayout};
use sarsen_activator::retention::{find_expired, give_up};
use sarsen_store::gc::{self, GcPlan, Generation, Retention, Roots, generations};
use sarsen_store::progress::Counters;
use sarsen_store::{Leftovers, ObjectRef, ObjectStore};
use serde::Serialize;

use super::amount::parse_bytes;
use super::{failed, leftovers};
use crate::args::Format;
use crate::context::Context;
use crate::error::{CommandError, Exit};
use crate::progress::watch;
use crate::project::open_store;
use crate::render::{bytes, count};

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Only show the plan, as without --yes
    #[arg(long, conflicts_with = "yes")]
    dry_run: bool,
    /// Carry the plan out
    #[arg(short, long)]
    yes: bool,
    /// How long ago an object must have been made
    #[arg(long, value_name = "HOURS", default_value_t = 24)]
    grace: u32,
    /// Give up generations of this machine's profiles, but for the newest N
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    keep_last: Option<u32>,
    /// Give up generations of this machine's profiles that are older than so many days
    #[arg(long, value_name = "DAYS")]
    keep_days: Option<u32>,
    /// Stop when so many bytes are freed; K, M, G and T stand for powers of 1024
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    max_freed: Option<u64>,
}

#[derive(Serialize)]
struct Report<'a> {
    /// As `<profile>/<number>`.
    generations: &'a [String],
    keep: usize,
    remove: Vec<Planned<'a>>,
    bytes: u64,
    removed: bool,
    /// What lay there before, in bytes.
    trash: u64,
    quarantine: u64,
}

#[derive(Serialize)]
struct Planned<'a> {
    object: &'a ObjectRef,
    /// What its removal frees after those before it, in bytes of file contents.
    frees: u64,
}

pub(super) fn run(arguments: &Arguments, context: &Context) -> Result<Exit, CommandError> {
    let store = open_store(context)?;
    let grace = Duration::from_secs(u64::from(arguments.grace) * 3600);
    let expired = expired(arguments, &store, context)?;
    let generations: Vec<String> = expired.iter().map(|generation| format!("{}/{}", generation.profile, generation.number)).collect();
    let given_up = expired.into_iter().map(|generation| generation.link).collect();
    let roots = Roots { given_up, ..Roots::default() };
    let plan = watch("planning", &Counters::new(), || gc::plan(&store, &roots, context.now, grace)).map_err(failed)?;
    let plan = if let Some(max) = arguments.max_freed { plan.up_to(max) } else { plan };
    show(&plan, &generations, context)?;
    if !plan.remove.is_empty() && !rustix::process::geteuid().is_root() {
        context.say("processes of other users are not seen: what only they use counts as unused; as root, the collector sees all");
    }
    let Leftovers { trash, quarantine } = leftovers::tell(&store, context)?;
    if arguments.yes {
        if let Some(retention) = arguments.retention() {
            for profile in profiles(&store)? {
                give_up(&profile, &store, retention, context.now).map_err(failed)?;
            }
        }
        // Also without anything to remove: what an earlier collection left unfinished is.
        let counters = Arc::new(Counters::new());
        let counted = store.counting_into(Arc::clone(&counters));
        let report = watch("removing", &counters, || gc::execute(&counted, &plan)).map_err(failed)?;
        let objects = usize::try_from(report.objects).unwrap_or(usize::MAX);
        context.say(&format!("removed {}, freed {}", count(objects, "object"), bytes(report.bytes)));
        if report.contents_postponed {
            context.say("contents stay until the next collection: somebody is writing to the store");
        }
    } else if !plan.remove.is_empty() || !generations.is_empty() {
        context.say("nothing was removed: `sarsen store gc --yes` does it");
    }
    if context.format == Format::Json {
        let remove = plan.remove.iter().map(|removal| Planned { object: &removal.object, frees: removal.frees });
        context.print_json(&Report {
            generations: &generations,
            keep: plan.keep.len(),
            remove: remove.collect(),
            bytes: plan.bytes,
            removed: arguments.yes,
            trash,
            quarantine,
        })?;
    }
    Ok(Exit::Done)
}

impl Arguments {
    /// The policy for generations, if any is given. A generation stays if one of both wants it.
    fn retention(&self) -> Option<Retention> {
        let asked = self.keep_last.is_some() || self.keep_days.is_some();
        asked.then(|| Retention { keep_last: self.keep_last.unwrap_or(1), keep_days: self.keep_days.unwrap_or(0) })
    }
}

/// The profiles of this machine.
fn profiles(store: &ObjectStore) -> Result<Vec<ProfileLayout>, CommandError> {
    let layout = Layout::new(store.root());
    let names: BTreeSet<String> = generations(store).map_err(failed)?.into_iter().map(|generation| generation.profile).collect();
    names.iter().map(|name| Ok(layout.profile(&name.parse().map_err(failed)?))).collect()
}

/// The generations that the policy gives up.
fn expired(arguments: &Arguments, store: &ObjectStore, context: &Context) -> Result<Vec<Generation>, CommandError> {
    let Some(retention) = arguments.retention() else { return Ok(Vec::new()) };
    let mut expired = Vec::new();
    for profile in profiles(store)? {
        expired.extend(find_expired(&profile, store, retention, context.now).map_err(failed)?);
    }
    Ok(expired)
}

fn show(plan: &GcPlan, generations: &[String], context: &Context) -> Result<(), CommandError> {
    if context.format == Format::Text {
        generations.iter().try_for_each(|generation| context.print(&format!("generation {generation}\n")))?;
        plan.remove.iter().try_for_each(|removal| context.print(&format!("{}  {}\n", removal.object, bytes(removal.frees))))?;
    }
    context.say(&format!("{} to remove, {} to free, {} to keep", count(plan.remove.len(), "object"), bytes(plan.bytes), plan.keep.len()));
    Ok(())
}

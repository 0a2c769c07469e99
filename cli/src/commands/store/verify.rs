//! `sarsen store verify`: everything read again, or a part of it at a time.

use std::collections::BTreeSet;

use clap::Args;
use sarsen_store::progress::Counters;
use sarsen_store::verify::{Effort, Finding, Portion, Sampled};
use sarsen_store::{ObjectRef, ObjectStore};
use serde::Serialize;

use super::amount::{parse_portion, parse_rate};
use super::failed;
use super::selection::select_all;
use crate::args::Format;
use crate::context::Context;
use crate::error::{CommandError, Exit};
use crate::progress::watch;
use crate::project::open_store;
use crate::render::count;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Objects: `<id>-<name>`, or the beginning of it [default: all, and the contents that no object has]
    #[arg(value_name = "OBJECT", conflicts_with = "sample")]
    objects: Vec<String>,
    /// Verify only the next part of the store, such as `5%` or `2G`, and go on after it the next time
    #[arg(long, value_name = "PERCENT|BYTES", value_parser = parse_portion)]
    sample: Option<Portion>,
    /// Read at most so many MiB in a second
    #[arg(long, value_name = "MIB", value_parser = parse_rate)]
    rate: Option<u64>,
}

#[derive(Serialize)]
struct Report<'a> {
    objects: usize,
    findings: Vec<Found<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sample: Option<Sample>,
}

/// A finding as programs read it.
#[derive(Serialize)]
pub(super) struct Found<'a> {
    object: Option<&'a ObjectRef>,
    path: &'a str,
    kind: &'static str,
    problem: String,
}

impl<'a> Found<'a> {
    pub(super) fn of(finding: &'a Finding) -> Self {
        let Finding { object, path, problem } = finding;
        Self { object: object.as_ref(), path, kind: problem.kind(), problem: problem.to_string() }
    }
}

/// Where in the store a sample was taken.
#[derive(Clone, Copy, Serialize)]
struct Sample {
    contents: u64,
    /// How far this round through the store is, in millionths.
    millionths: u32,
    /// How many rounds are complete.
    rounds: u64,
}

pub(super) fn run(arguments: &Arguments, context: &Context) -> Result<Exit, CommandError> {
    let store = open_store(context)?;
    let counters = Counters::new();
    let effort = Effort { bytes_per_second: arguments.rate, ..Effort::full(&counters) };
    let selected: Option<BTreeSet<ObjectRef>> =
        if arguments.objects.is_empty() { None } else { Some(select_all(&store, &arguments.objects)?.into_iter().collect()) };
    let (objects, findings, sample) = watch("verifying", &counters, || verify(&store, selected, arguments.sample, &effort))?;
    match context.format {
        Format::Json => {
            context.print_json(&Report { objects, findings: findings.iter().map(Found::of).collect(), sample })?;
        }
        Format::Text => findings.iter().try_for_each(|finding| context.print(&format!("{finding}\n")))?,
    }
    if let Some(Sample { contents, millionths, rounds }) = sample {
        let contents = count(usize::try_from(contents).unwrap_or(usize::MAX), "content");
        let (percent, decimals) = (millionths / 10_000, millionths % 10_000 / 100);
        context.say(&format!(
            "{contents} and {} verified; round {} is at {percent}.{decimals:02} %",
            count(objects, "object"),
            rounds.saturating_add(1)
        ));
    } else if findings.is_empty() {
        context.say(&format!("{} verified", count(objects, "object")));
    }
    if findings.is_empty() {
        return Ok(Exit::Done);
    }
    Err(CommandError::new(
        Exit::Failed,
        format!("the store at `{}` has {}", context.root.display(), count(findings.len(), "damaged place")),
    )
    .hint("`sarsen store repair` puts right what the store, another one or an export still has: --from SOURCE"))
}

fn verify(
    store: &ObjectStore,
    selected: Option<BTreeSet<ObjectRef>>,
    portion: Option<Portion>,
    effort: &Effort<'_>,
) -> Result<(usize, Vec<Finding>, Option<Sample>), CommandError> {
    match (selected, portion) {
        (Some(objects), _) => Ok((objects.len(), store.verify_objects(&objects, effort).map_err(failed)?, None)),
        (None, Some(portion)) => {
            let Sampled { findings, objects, contents, millionths, rounds } = store.verify_sample(portion, effort).map_err(failed)?;
            Ok((usize::try_from(objects).unwrap_or(usize::MAX), findings, Some(Sample { contents, millionths, rounds })))
        }
        (None, None) => Ok((store.objects().map_err(failed)?.len(), store.verify_with(effort).map_err(failed)?, None)),
    }
}

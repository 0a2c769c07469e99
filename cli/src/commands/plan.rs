//! `sarsen plan`: what a deployment would change on every host. Changes nothing there.

use clap::Args;
use sarsen_activator::deployment::{CompareError, Comparison, DeploymentReport, HostDeployment, HostReport, Outcome, compare};
use sarsen_activator::diff::ActivationPlan;
use sarsen_activator::protocol::Claim;
use sarsen_activator::target::TargetError;
use sarsen_builder::model::Model;
use sarsen_store::gc::Retention;
use sarsen_store::{ObjectRef, ObjectStore};
use serde::Serialize;

use crate::args::{Environment, Evaluation, Format, Jobs};
use crate::context::Context;
use crate::error::{CommandError, Exit, chain};
use crate::hosts::{deployments, jobs};
use crate::project::{Project, build, open_store};
use crate::render::{columns, push_line};

/// Show what a deployment would change
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    environment: Environment,
    #[command(flatten)]
    jobs: Jobs,
    #[command(flatten)]
    evaluation: Evaluation,
}

/// A deployment that was prepared: everything is built, every host was asked.
pub(crate) struct Prepared {
    pub(crate) store: ObjectStore,
    pub(crate) hosts: Vec<HostDeployment>,
    comparisons: Vec<Result<Comparison, CompareError>>,
}

#[derive(Serialize)]
struct Report<'a> {
    project: &'a str,
    environment: &'a str,
    hosts: Vec<HostEntry<'a>>,
}

#[derive(Serialize)]
struct HostEntry<'a> {
    host: &'a str,
    bundle: &'a ObjectRef,
    current: Option<u64>,
    plan: Option<&'a ActivationPlan>,
    /// Generations that are given up afterwards.
    expired: &'a [u64],
    refusals: &'a [String],
    locked_by: Option<&'a str>,
    error: Option<String>,
}

pub(crate) fn run(arguments: &Arguments, context: &Context) -> Result<Exit, CommandError> {
    let project = Project::open_with_packages(context, arguments.evaluation.access())?;
    let model = project.model(context, &arguments.environment.environment)?;
    let prepared = prepare(context, &model, project.retention(context)?, context.jobs(&arguments.jobs), Claim::OwnOnly)?;
    match context.format {
        Format::Json => context.print_json(&prepared.report(&model))?,
        Format::Text => context.print(&prepared.text())?,
    }
    prepared.obstacle().map_or(Ok(Exit::Done), Err)
}

/// Builds everything and asks every host.
pub(crate) fn prepare(
    context: &Context,
    model: &Model,
    retention: Option<Retention>,
    build_jobs: usize,
    claim: Claim,
) -> Result<Prepared, CommandError> {
    let store = open_store(context)?;
    let realised = build(context, model, &store, build_jobs)?;
    let fleet = model.fleet();
    let mut hosts = deployments(context, &fleet, realised)?;
    for deployment in &mut hosts {
        deployment.host.claim = claim;
    }
    let comparisons = compare(&hosts, &store, retention, jobs(&fleet));
    Ok(Prepared { store, hosts, comparisons })
}

impl Prepared {
    fn pairs(&self) -> impl Iterator<Item = (&HostDeployment, &Result<Comparison, CompareError>)> {
        self.hosts.iter().zip(&self.comparisons)
    }

    /// The report of a deployment that has nothing to do: every host runs what it shall, and none is being changed.
    pub(crate) fn unchanged(&self) -> Option<DeploymentReport> {
        let report = |(host, comparison): (&HostDeployment, &Result<Comparison, CompareError>)| {
            let comparison = comparison.as_ref().ok().filter(|comparison| comparison.plan.unchanged && comparison.locked_by.is_none())?;
            Some(HostReport { host: host.host.name().to_owned(), outcome: Outcome::Unchanged { generation: comparison.current? } })
        };
        self.pairs().map(report).collect()
    }

    /// Why a deployment would not start, if so.
    pub(crate) fn obstacle(&self) -> Option<CommandError> {
        let failed: Vec<String> =
            self.comparisons.iter().filter_map(|comparison| comparison.as_ref().err().map(|error| chain(error))).collect();
        let failed_error = (!failed.is_empty()).then(|| {
            CommandError::new(Exit::Refused, failed.join("\nerror: "))
                .hint("nothing was changed on any host; every host must answer before one is changed")
        });
        failed_error.or_else(|| {
            let refused = self.pairs().find_map(|(host, comparison)| {
                let comparison = comparison.as_ref().ok()?;
                (!comparison.refusals.is_empty()).then(|| format!("{} would refuse: {}", host.host.name(), comparison.refusals.join("; ")))
            });
            refused.map(|message| CommandError::new(Exit::Refused, message).hint("nothing was changed on any host"))
        })
    }

    /// The plan for people.
    pub(crate) fn text(&self) -> String {
        self.pairs().map(|(host, comparison)| host_text(host.host.name(), comparison)).collect()
    }

    fn report<'a>(&'a self, model: &'a Model) -> Report<'a> {
        let hosts = self.pairs().map(|(host, comparison)| {
            let found = comparison.as_ref().ok();
            HostEntry {
                host: host.host.name(),
                bundle: &host.bundle,
                current: found.and_then(|found| found.current),
                plan: found.map(|found| &found.plan),
                expired: found.map_or(&[], Comparison::given_up),
                refusals: found.map_or(&[], |found| &found.refusals),
                locked_by: found.and_then(|found| found.locked_by.as_deref()),
                error: comparison.as_ref().err().map(|error| chain(error)),
            }
        });
        Report { project: &model.project, environment: &model.environment, hosts: hosts.collect() }
    }
}

fn host_text(host: &str, comparison: &Result<Comparison, CompareError>) -> String {
    let comparison = match comparison {
        Ok(comparison) => comparison,
        Err(CompareError::Target(TargetError::Refused { .. })) => return format!("{host}: it refuses\n"),
        Err(CompareError::Target(_) | CompareError::Unit { .. }) => return format!("{host}: no answer\n"),
    };
    let mut text = match (comparison.plan.unchanged, comparison.current) {
        (false, Some(current)) if comparison.plan.repair => {
            format!("{host}: it runs generation {current} already, but not as it was left\n")
        }
        (true, Some(current)) => format!("{host}: nothing to do, it runs generation {current} already\n"),
        (true, None) => format!("{host}: nothing to do\n"),
        (false, Some(current)) => format!("{host}: a new generation after generation {current}\n"),
        (false, None) => format!("{host}: its first generation\n"),
    };
    if let Some(holder) = &comparison.locked_by {
        push_line(&mut text, &format!("  locked by {holder}"));
    }
    if !comparison.plan.unchanged {
        let mut rows = rows(&comparison.plan);
        rows.extend(comparison.given_up().iter().map(|number| ["give up".to_owned(), "generation".to_owned(), number.to_string()]));
        text.push_str(&columns(&rows, 2));
    }
    text
}

fn rows(plan: &ActivationPlan) -> Vec<[String; 3]> {
    let mut rows = Vec::new();
    let mut add = |verb: &str, noun: &str, names: &mut dyn Iterator<Item = &String>| {
        rows.extend(names.map(|name| [verb.to_owned(), noun.to_owned(), name.clone()]));
    };
    add("add", "component", &mut plan.components_added.iter());
    add("change", "component", &mut plan.components_changed.iter());
    add("remove", "component", &mut plan.components_removed.iter());
    add("stop", "service", &mut plan.stop.iter().filter(|unit| !plan.start.contains(unit)));
    add("start", "service", &mut plan.start.iter().filter(|unit| !plan.stop.contains(unit)));
    add("restart", "service", &mut plan.start.iter().filter(|unit| plan.stop.contains(unit)));
    add("reload", "service", &mut plan.reload.iter());
    add("revive", "service", &mut plan.revive.iter());
    add("make", "directory", &mut plan.directories_make.iter());
    add("make", "link", &mut plan.links_make.iter());
    add("remove", "link", &mut plan.links_remove.iter());
    add("ask", "hook", &mut plan.hooks.iter());
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_reads_well() {
        let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<String>>();
        let plan = ActivationPlan {
            stop: names(&["old.service", "shop.service"]),
            start: names(&["shop.service", "new.service"]),
            reload: names(&["lb.service"]),
            links_make: names(&["/etc/cron.d/shop"]),
            components_changed: names(&["shop"]),
            hooks: names(&["shop/migrate"]),
            ..ActivationPlan::default()
        };
        let comparison = Comparison { current: Some(3), plan, refusals: Vec::new(), locked_by: None, expired: vec![1] };
        insta::assert_snapshot!(host_text("web1", &Ok(comparison)), @r"
        web1: a new generation after generation 3
          change   component   shop
          stop     service     old.service
          start    service     new.service
          restart  service     shop.service
          reload   service     lb.service
          make     link        /etc/cron.d/shop
          ask      hook        shop/migrate
          give up  generation  1
        ");
    }
}

//! `sarsen show`: the evaluated model of an environment.

use std::collections::{BTreeMap, BTreeSet};

use clap::Args;
use sarsen_builder::model::{Attribute, ComponentModel, Connect, HostModel, Model, Order, Resource, ResourceUse, Step, StepKind};
use sarsen_builder::package::Access;
use sarsen_store::manifest::{Probe, Requirement};
use serde::Serialize;

use crate::args::{Environment, Format};
use crate::context::Context;
use crate::error::{CommandError, Exit};
use crate::project::Project;
use crate::render::{columns, push_line};

/// Show the evaluated hosts, components, steps and resources of an environment
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    environment: Environment,
    /// Print who uses what of whom, as a graph in DOT
    #[arg(long, conflicts_with = "format")]
    dot: bool,

    /// Say of every attribute who gave its value, and where
    #[arg(long)]
    origin: bool,
}

#[derive(Serialize)]
struct Report<'a> {
    project: &'a str,
    environment: &'a str,
    profile: &'a str,
    root: &'a str,
    connect: &'static str,
    hosts: Vec<HostEntry<'a>>,
    resources: Vec<ResourceEntry<'a>>,
    uses: Vec<UseEntry<'a>>,
    /// Host and component, in the order of activation.
    order: Vec<[&'a str; 2]>,
}

#[derive(Serialize)]
struct HostEntry<'a> {
    host: &'a str,
    fqdn: &'a str,
    platform: Option<&'a str>,
    ignore: bool,
    tags: &'a [String],
    components: Vec<ComponentEntry<'a>>,
}

#[derive(Serialize)]
struct ComponentEntry<'a> {
    component: &'a str,
    features: &'a [String],
    attributes: BTreeMap<&'a str, &'a str>,
    /// Whether it is not part of the host's bundle.
    ignore: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    origins: Option<BTreeMap<&'a str, OriginEntry<'a>>>,
    steps: Vec<StepLine>,
    messages: &'a [String],
}

#[derive(Serialize)]
struct OriginEntry<'a> {
    by: &'a str,
    at: String,
}

#[derive(Serialize)]
struct StepLine {
    kind: &'static str,
    name: String,
    at: String,
    /// The sub-components that it belongs to, from the outside inwards.
    within: Vec<String>,
}

#[derive(Serialize)]
struct ResourceEntry<'a> {
    key: &'a str,
    host: &'a str,
    component: &'a str,
    /// The value as JSON text, as the components exchange it.
    value: &'a str,
}

#[derive(Serialize)]
struct UseEntry<'a> {
    key: &'a str,
    host: &'a str,
    component: &'a str,
    /// The only host whose values are wanted.
    of: Option<&'a str>,
    /// `after`, `before` or `none`: where it comes, seen from whoever provides.
    order: &'static str,
    /// Whether it sees the values.
    values: bool,
}

pub(crate) fn run(arguments: &Arguments, context: &Context) -> Result<Exit, CommandError> {
    let model = Project::open_with_packages(context, Access::Network)?.model(context, &arguments.environment.environment)?;
    match context.format {
        _ if arguments.dot => context.print(&dot(&model))?,
        Format::Json => context.print_json(&report(&model, arguments.origin))?,
        Format::Text => context.print(&text(&report(&model, arguments.origin)))?,
    }
    Ok(Exit::Done)
}

fn report(model: &Model, origin: bool) -> Report<'_> {
    Report {
        project: &model.project,
        environment: &model.environment,
        profile: &model.profile,
        root: &model.root,
        connect: match model.connect {
            Connect::Local => "local",
            Connect::Ssh => "ssh",
        },
        hosts: model.hosts.iter().map(|entry| host(entry, origin)).collect(),
        resources: model.resources.iter().map(resource).collect(),
        uses: model.uses.iter().map(usage).collect(),
        order: model.order.iter().map(|place| [place.host.as_str(), place.component.as_str()]).collect(),
    }
}

fn usage(usage: &ResourceUse) -> UseEntry<'_> {
    let order = match usage.order {
        Order::After => "after",
        Order::Before => "before",
        Order::Free => "none",
    };
    UseEntry { key: &usage.key, host: &usage.host, component: &usage.component, of: usage.of.as_deref(), order, values: usage.values }
}

fn resource(resource: &Resource) -> ResourceEntry<'_> {
    ResourceEntry { key: &resource.key, host: &resource.host, component: &resource.component, value: &resource.value }
}

fn host(host: &HostModel, origin: bool) -> HostEntry<'_> {
    HostEntry {
        host: &host.name,
        fqdn: &host.fqdn,
        platform: host.platform.as_deref(),
        ignore: host.ignore,
        tags: &host.tags,
        components: host.components.iter().map(|entry| component(entry, origin)).collect(),
    }
}

fn component(component: &ComponentModel, origin: bool) -> ComponentEntry<'_> {
    let origins = || component.attributes.iter().map(|(name, attribute)| (name.as_str(), origin_of(attribute))).collect();
    ComponentEntry {
        component: &component.name,
        features: &component.features,
        attributes: component.attributes.iter().map(|(name, attribute)| (name.as_str(), attribute.value.as_str())).collect(),
        ignore: component.ignore,
        origins: origin.then(origins),
        steps: component.steps.iter().map(step).collect(),
        messages: &component.messages,
    }
}

fn origin_of(attribute: &Attribute) -> OriginEntry<'_> {
    OriginEntry { by: &attribute.origin, at: format!("{}:{}:{}", attribute.at.file, attribute.at.line, attribute.at.column) }
}

fn step(step: &Step) -> StepLine {
    let (kind, name) = match &step.kind {
        StepKind::File { path, .. } => ("file", path.to_string()),
        StepKind::Directory { path } => ("directory", path.to_string()),
        StepKind::Symlink { path, .. } => ("symlink", path.to_string()),
        StepKind::Build(build) => ("build", build.name.clone()),
        StepKind::PythonEnv(environment) => ("python environment", environment.name.clone()),
        StepKind::Fetch(fetch) => ("fetch", fetch.name.clone()),
        StepKind::Service(service) => ("service", format!("{}.service", service.name)),
        StepKind::Timer(timer) => ("timer", format!("{}.timer", timer.job.name)),
        StepKind::Hook { name, .. } => ("hook", name.clone()),
        StepKind::StateDirectory { path, .. } => ("state directory", path.clone()),
        StepKind::Link { path, .. } => ("link", path.clone()),
        StepKind::HealthCheck { name, probe, .. } => ("health check", format!("{name}: {}", probe_words(probe))),
        StepKind::Requirement(requirement) => ("requirement", requirement_words(requirement)),
    };
    StepLine { kind, name, at: step.at.to_string(), within: step.within.clone() }
}

fn probe_words(probe: &Probe) -> String {
    match probe {
        Probe::Http { url, status } => format!("{url} answers {status}"),
        Probe::Tcp { host, port } => format!("{host}:{port} accepts"),
        Probe::Command { command } => command.clone(),
        Probe::Unit { unit } => format!("{unit} is active"),
    }
}

fn requirement_words(requirement: &Requirement) -> String {
    match requirement {
        Requirement::Program { program, .. } => format!("program {program}"),
        Requirement::Port { port, .. } => format!("port {port}"),
        Requirement::User { user, .. } => format!("user {user}"),
    }
}

fn text(report: &Report<'_>) -> String {
    let mut text = format!(
        "project {}, environment {}, profile {}, root {}, by {}\n",
        report.project, report.environment, report.profile, report.root, report.connect
    );
    for host in &report.hosts {
        let ignored = if host.ignore { ", ignored" } else { "" };
        push_line(&mut text, &format!("\n{} ({}{ignored})", host.host, host.fqdn));
        for component in &host.components {
            let features = if component.features.is_empty() { String::new() } else { format!(":{}", component.features.join(",")) };
            let ignored = if component.ignore { " (ignored)" } else { "" };
            push_line(&mut text, &format!("  {}{features}{ignored}", component.component));
            let from = |name: &str| {
                let origin = component.origins.as_ref().and_then(|origins| origins.get(name));
                origin.map_or_else(String::new, |origin| format!("from {}, {}", origin.by, origin.at))
            };
            let attributes: Vec<[String; 3]> =
                component.attributes.iter().map(|(name, value)| [(*name).to_owned(), format!("= {value}"), from(name)]).collect();
            text.push_str(&columns(&attributes, 4));
            push_steps(&mut text, &component.steps);
            component.messages.iter().for_each(|message| push_line(&mut text, &format!("    {message}")));
        }
    }
    if !report.resources.is_empty() {
        text.push_str("\nresources\n");
        let rows: Vec<[String; 3]> = report
            .resources
            .iter()
            .map(|resource| [resource.key.to_owned(), format!("{}/{}", resource.host, resource.component), resource.value.to_owned()])
            .collect();
        text.push_str(&columns(&rows, 2));
    }
    text
}

/// The steps as a tree: those of a sub-component stand below its name.
fn push_steps(text: &mut String, steps: &[StepLine]) {
    let mut above: &[String] = &[];
    for group in steps.chunk_by(|a, b| a.within == b.within) {
        let within = group[0].within.as_slice();
        let shared = above.iter().zip(within).take_while(|(a, b)| a == b).count();
        for (level, name) in within.iter().enumerate().skip(shared) {
            push_line(text, &format!("{}{name}", " ".repeat(4 + 2 * level)));
        }
        let rows: Vec<[String; 3]> = group.iter().map(|step| [step.kind.to_owned(), step.name.clone(), step.at.clone()]).collect();
        text.push_str(&columns(&rows, 4 + 2 * within.len()));
        above = within;
    }
}

/// Components in their hosts, and a line from whoever provides a resource to whoever requires it; its arrow points to who comes later.
fn dot(model: &Model) -> String {
    let quote = |text: &str| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
    let title = quote(&format!("{} {}", model.project, model.environment));
    let mut text = format!("digraph {title} {{\n  rankdir = LR;\n  node [shape = box];\n");
    for (number, host) in model.hosts.iter().enumerate() {
        push_line(&mut text, &format!("  subgraph cluster_{number} {{\n    label = {};", quote(&host.name)));
        for component in &host.components {
            let node = quote(&format!("{}/{}", host.name, component.name));
            push_line(&mut text, &format!("    {node} [label = {}];", quote(&component.name)));
        }
        push_line(&mut text, "  }");
    }
    let mut arrows = BTreeSet::new();
    for usage in &model.uses {
        let wanted = |resource: &&Resource| resource.key == usage.key && usage.of.as_ref().is_none_or(|host| *host == resource.host);
        let to = format!("{}/{}", usage.host, usage.component);
        for resource in model.resources.iter().filter(wanted) {
            let style = match (usage.order, usage.values) {
                (Order::Before, _) => ", dir = back",
                (Order::Free, _) => ", arrowhead = none",
                (Order::After, false) => ", style = dashed",
                (Order::After, true) => "",
            };
            arrows.insert((format!("{}/{}", resource.host, resource.component), to.clone(), usage.key.as_str(), style));
        }
    }
    for (from, to, key, style) in arrows {
        push_line(&mut text, &format!("  {} -> {} [label = {}{style}];", quote(&from), quote(&to), quote(key)));
    }
    text + "}\n"
}

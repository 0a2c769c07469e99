//! Environment files, `environments/NAME/environment.toml`; the project's own file is in [`project`].
//!
//! Every key is known or a diagnostic with the nearest known one; every diagnostic has its place. Whether a component or an
//! attribute exists is not known here: that is checked when the components are loaded.

pub(crate) mod keys;
pub(crate) mod project;
pub(crate) mod tree;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

pub(crate) use project::parse_project;
pub use project::{Project, find_project_settings};
pub(crate) use tree::Span;
use tree::{Node, NodeKind, Section};

use crate::data::{Address, Data};
use crate::diagnostic::Diagnostic;
use crate::model::Connect;
use crate::snapshot::Snapshot;

/// How many hosts are worked on at once, unless the environment says otherwise.
const JOBS_DEFAULT: u32 = 8;
/// The most hosts at once: each is a connection and a thread.
const JOBS_MAX: u32 = 64;
/// Seconds for connecting to a host, unless the environment says otherwise.
const TIMEOUT_S_DEFAULT: u32 = 30;
/// The longest time for connecting, in seconds.
const TIMEOUT_S_MAX: u32 = 3600;
/// Where a root install lives.
const ROOT_DEFAULT: &str = "/var/lib/sarsen";

/// One environment: settings, hosts, overrides and addresses.
#[derive(Debug, Clone)]
pub struct Environment {
    pub(crate) name: String,
    pub(crate) host_domain: Option<String>,
    pub(crate) platform: Option<String>,
    pub(crate) service_user: Option<String>,
    pub(crate) connect: Connect,
    pub(crate) jobs: u32,
    pub(crate) timeout_s: u32,
    pub(crate) profile: Option<String>,
    pub(crate) root: Option<String>,
    /// Sorted by name.
    pub(crate) hosts: Vec<HostEntry>,
    pub(crate) overrides: Vec<Overrides>,
    pub(crate) resolver: Resolver,
}

/// One host as the environment has it.
#[derive(Debug, Clone)]
pub(crate) struct HostEntry {
    pub(crate) name: String,
    pub(crate) fqdn: String,
    pub(crate) ignore: bool,
    pub(crate) tags: Vec<String>,
    pub(crate) data: Data,
    /// Sorted by component.
    pub(crate) components: Vec<Assignment>,
}

/// One component on one host.
#[derive(Debug, Clone)]
pub(crate) struct Assignment {
    pub(crate) component: String,
    pub(crate) features: Vec<String>,
    pub(crate) span: Span,
}

/// `[components.NAME]`.
#[derive(Debug, Clone)]
pub(crate) struct Overrides {
    pub(crate) component: String,
    pub(crate) span: Span,
    pub(crate) attributes: Vec<(String, Span, Data)>,
}

/// `[resolver]`: names and their addresses.
#[derive(Debug, Clone, Default)]
pub(crate) struct Resolver(BTreeMap<String, Vec<IpAddr>>);

impl Resolver {
    /// The addresses of a host name; an address is its own.
    pub(crate) fn addresses(&self, host: &str) -> Vec<IpAddr> {
        host.parse().map_or_else(|_| self.0.get(host).cloned().unwrap_or_default(), |address| vec![address])
    }

    /// An address value.
    pub(crate) fn address(&self, host: &str, port: u16) -> Address {
        let addresses = self.addresses(host);
        let first = |wanted: fn(&IpAddr) -> bool| addresses.iter().find(|address| wanted(address)).map(ToString::to_string);
        Address { host: host.to_owned(), port, v4: first(IpAddr::is_ipv4), v6: first(IpAddr::is_ipv6) }
    }
}

impl Environment {
    /// The profile on the targets: the project's name, unless the environment sets another.
    pub(crate) fn profile<'a>(&'a self, project: &'a str) -> &'a str {
        self.profile.as_deref().unwrap_or(project)
    }

    /// The root on the targets.
    pub(crate) fn root<'a>(&'a self, local_root: &'a str) -> &'a str {
        match (&self.root, self.connect) {
            (Some(root), _) => root,
            (None, Connect::Local) => local_root,
            (None, Connect::Ssh) => ROOT_DEFAULT,
        }
    }
}

/// Parses an environment with all that it extends; what is wrong is pushed to `diagnostics`, what is right is kept.
pub(crate) fn parse_environment(snapshot: &Snapshot, name: &str, diagnostics: &mut Vec<Diagnostic>) -> Option<Environment> {
    let known = snapshot.environments();
    if !known.contains(&name) {
        let diagnostic = Diagnostic::new("E0101", format!("there is no environment `{name}`"));
        diagnostics.push(if known.is_empty() {
            diagnostic.hint(format!("write `environments/{name}/environment.toml`"))
        } else {
            diagnostic.hint_names(name, known.iter().copied())
        });
        return None;
    }
    if !is_name(name) {
        let file = environment_file(name);
        diagnostics.push(
            Diagnostic::new("E0101", format!("`{name}` cannot be the name of an environment"))
                .at_range(&file, snapshot.text(&file).unwrap_or_default(), &(0..0))
                .hint("names are made of `A-Za-z0-9._-` and begin with a letter or digit: rename the directory"),
        );
        return None;
    }
    let node = read_chain(snapshot, name, &mut Vec::new(), diagnostics)?;
    let parser = Parser { snapshot, name };
    Some(parser.environment(node, diagnostics))
}

/// The environment's tree laid over those that it extends.
fn read_chain(snapshot: &Snapshot, name: &str, chain: &mut Vec<String>, diagnostics: &mut Vec<Diagnostic>) -> Option<Node> {
    chain.push(name.to_owned());
    let file = environment_file(name);
    let node = tree::parse_file(snapshot, &file, diagnostics)?;
    let Some(extends) = find(&node, "environment").and_then(|section| find(section, "extends")) else {
        return Some(node);
    };
    let NodeKind::Text(base) = &extends.kind else {
        diagnostics.push(extends.span.diagnostic(
            snapshot,
            "E0103",
            format!("`extends` wants the name of an environment, not {}", extends.type_name()),
        ));
        return Some(node);
    };
    if chain.contains(base) {
        let circle = format!("{} -> {base}", chain.join(" -> "));
        diagnostics.push(extends.span.diagnostic(snapshot, "E0104", format!("environments extend each other in a circle: {circle}")));
        return Some(node);
    }
    let known = snapshot.environments();
    if !known.contains(&base.as_str()) {
        let diagnostic = extends.span.diagnostic(snapshot, "E0101", format!("there is no environment `{base}`"));
        diagnostics.push(diagnostic.hint_names(base, known.into_iter().filter(|other| *other != name)));
        return Some(node);
    }
    let mut merged = read_chain(snapshot, &base.clone(), chain, diagnostics)?;
    merged.merge(node);
    Some(merged)
}

pub(crate) fn environment_file(name: &str) -> String {
    format!("environments/{name}/environment.toml")
}

fn find<'a>(node: &'a Node, key: &str) -> Option<&'a Node> {
    let NodeKind::Table(entries) = &node.kind else { return None };
    entries.iter().find(|entry| entry.0 == key).map(|entry| &entry.2)
}

struct Parser<'a> {
    snapshot: &'a Snapshot,
    name: &'a str,
}

impl Parser<'_> {
    fn environment(&self, node: Node, diagnostics: &mut Vec<Diagnostic>) -> Environment {
        let file = environment_file(self.name);
        let mut sections = Section::open(self.snapshot, "the file", node, diagnostics);
        let settings = sections.take("environment").unwrap_or_else(|| Node::empty(&file));
        let hosts = sections.take("hosts").unwrap_or_else(|| Node::empty(&file));
        let components = sections.take("components").unwrap_or_else(|| Node::empty(&file));
        let resolver = sections.take("resolver").unwrap_or_else(|| Node::empty(&file));
        sections.finish(diagnostics);

        let mut environment = self.settings(settings, diagnostics);
        environment.hosts = self.hosts(hosts, environment.host_domain.as_deref(), diagnostics);
        environment.overrides = self.overrides(components, diagnostics);
        environment.resolver = self.resolver(resolver, diagnostics);
        let reached: Vec<&str> = environment.hosts.iter().filter(|host| !host.ignore).map(|host| host.name.as_str()).collect();
        if environment.connect == Connect::Local && reached.len() > 1 {
            let message = format!("`connect = \"local\"` is for one host, this environment has {}", reached.len());
            diagnostics.push(
                Diagnostic::new("E0106", message)
                    .note(format!("hosts are {}", crate::diagnostic::list_names(&reached)), None)
                    .hint("use `connect = \"ssh\"`, or set `ignore = true` for the others"),
            );
        }
        environment
    }

    fn settings(&self, node: Node, diagnostics: &mut Vec<Diagnostic>) -> Environment {
        let mut section = Section::open(self.snapshot, "[environment]", node, diagnostics);
        let text = |check: fn(&str) -> bool| move |kind: &NodeKind| tree::text(kind).filter(|text| check(text)).map(str::to_owned);
        section.take("extends");
        let environment = Environment {
            name: self.name.to_owned(),
            host_domain: section.take_as("host_domain", "a domain such as `example.net`", diagnostics, text(is_host_name)),
            platform: section.take_as("platform", "a name such as `debian12`", diagnostics, text(is_name)),
            service_user: section.take_as("service_user", "the name of a user", diagnostics, text(is_user_name)),
            connect: section
                .take_as("connect", "`\"ssh\"` or `\"local\"`", diagnostics, |kind| match tree::text(kind)? {
                    "ssh" => Some(Connect::Ssh),
                    "local" => Some(Connect::Local),
                    _ => None,
                })
                .unwrap_or(Connect::Ssh),
            jobs: section
                .take_as("jobs", "a number from 1 to 64", diagnostics, |kind| tree::int_in(kind, 1..=JOBS_MAX))
                .unwrap_or(JOBS_DEFAULT),
            timeout_s: section
                .take_as("timeout", "a number of seconds from 1 to 3600", diagnostics, |kind| tree::int_in(kind, 1..=TIMEOUT_S_MAX))
                .unwrap_or(TIMEOUT_S_DEFAULT),
            profile: section.take_as("profile", "a name of `A-Za-z0-9._-`", diagnostics, text(is_name)),
            root: section.take_as("root", "an absolute path of `A-Za-z0-9._+@-` without `..`", diagnostics, text(is_root)),
            hosts: Vec::new(),
            overrides: Vec::new(),
            resolver: Resolver::default(),
        };
        section.finish(diagnostics);
        environment
    }

    fn hosts(&self, node: Node, domain: Option<&str>, diagnostics: &mut Vec<Diagnostic>) -> Vec<HostEntry> {
        let mut hosts: BTreeMap<String, (HostEntry, Span)> = BTreeMap::new();
        for (written, span, node) in Section::open(self.snapshot, "[hosts]", node, diagnostics).into_rest() {
            if !is_host_name(&written) {
                let message = format!("`{written}` is not a host name");
                diagnostics.push(
                    span.diagnostic(self.snapshot, "E0105", message)
                        .hint("host names are made of letters, digits, `-`, `_` and `.`, and begin with a letter or digit"),
                );
                continue;
            }
            let suffix = domain.map(|domain| format!(".{domain}"));
            let name = suffix.as_deref().and_then(|suffix| written.strip_suffix(suffix)).unwrap_or(&written).to_owned();
            let fqdn = suffix.map_or_else(|| name.clone(), |suffix| format!("{name}{suffix}"));
            let host = self.host(name.clone(), fqdn, node, diagnostics);
            if let Some((_, first)) = hosts.get(&name) {
                let message = format!("host `{name}` stands twice in [hosts]");
                diagnostics.push(span.diagnostic(self.snapshot, "E0105", message).note("first here", first.location(self.snapshot)));
            } else {
                hosts.insert(name, (host, span));
            }
        }
        hosts.into_values().map(|(host, _)| host).collect()
    }

    fn host(&self, name: String, fqdn: String, node: Node, diagnostics: &mut Vec<Diagnostic>) -> HostEntry {
        let mut host = HostEntry { name, fqdn, ignore: false, tags: Vec::new(), data: Data::Dict(Vec::new()), components: Vec::new() };
        if matches!(node.kind, NodeKind::List(_)) {
            host.components = self.assignments(&node, diagnostics);
            return host;
        }
        if !matches!(node.kind, NodeKind::Table(_)) {
            let message = format!("host `{}` wants a list of components or a table, not {}", host.name, node.type_name());
            diagnostics
                .push(node.span.diagnostic(self.snapshot, "E0103", message).hint(format!("for example `{} = [\"shop:web\"]`", host.name)));
            return host;
        }
        let mut section = Section::open(self.snapshot, format!("host `{}`", host.name), node, diagnostics);
        if let Some(components) = section.take("components") {
            host.components = self.assignments(&components, diagnostics);
        }
        if let Some(data) = section.take("data") {
            host.data = self.host_data(&data, diagnostics);
        }
        let tags: BTreeSet<String> = section
            .take_as("tags", "a list of names of `A-Za-z0-9._-`", diagnostics, |kind| {
                let NodeKind::List(tags) = kind else { return None };
                tags.iter().map(|tag| tree::text(&tag.kind).filter(|tag| is_name(tag)).map(str::to_owned)).collect()
            })
            .unwrap_or_default();
        host.tags = tags.into_iter().collect();
        host.ignore = section
            .take_as("ignore", "`true` or `false`", diagnostics, |kind| if let NodeKind::Bool(value) = kind { Some(*value) } else { None })
            .unwrap_or(false);
        section.finish(diagnostics);
        host
    }

    fn host_data(&self, node: &Node, diagnostics: &mut Vec<Diagnostic>) -> Data {
        match node.to_data() {
            Ok(data @ Data::Dict(_)) => return data,
            Ok(_) => {
                let message = format!("`data` wants a table, not {}", node.type_name());
                diagnostics.push(node.span.diagnostic(self.snapshot, "E0103", message));
            }
            Err(wrong) => diagnostics.push(self.no_data(wrong)),
        }
        Data::Dict(Vec::new())
    }

    fn no_data(&self, wrong: &Node) -> Diagnostic {
        wrong
            .span
            .diagnostic(self.snapshot, "E0103", format!("{} cannot be used as a value", wrong.type_name()))
            .hint("write it as a string")
    }

    fn assignments(&self, node: &Node, diagnostics: &mut Vec<Diagnostic>) -> Vec<Assignment> {
        let NodeKind::List(entries) = &node.kind else {
            diagnostics.push(node.span.diagnostic(
                self.snapshot,
                "E0103",
                format!("`components` wants a list of component names, not {}", node.type_name()),
            ));
            return Vec::new();
        };
        let mut assignments: BTreeMap<String, (BTreeSet<String>, Span)> = BTreeMap::new();
        for entry in entries {
            let parts = tree::text(&entry.kind)
                .map(|text| text.split_once(':').map_or((text, None), |(component, feature)| (component, Some(feature))));
            let Some((component, feature)) =
                parts.filter(|(component, feature)| is_component_name(component) && feature.is_none_or(is_name))
            else {
                let diagnostic = entry.span.diagnostic(self.snapshot, "E0103", "not a component");
                diagnostics
                    .push(diagnostic.hint("write `\"component\"` or `\"component:feature\"`; component names are made of `a-z0-9_`"));
                continue;
            };
            let (features, _) = assignments.entry(component.to_owned()).or_insert_with(|| (BTreeSet::new(), entry.span.clone()));
            features.extend(feature.map(str::to_owned));
        }
        let assignments = assignments.into_iter();
        assignments.map(|(component, (features, span))| Assignment { component, features: features.into_iter().collect(), span }).collect()
    }

    fn overrides(&self, node: Node, diagnostics: &mut Vec<Diagnostic>) -> Vec<Overrides> {
        let mut overrides = Vec::new();
        for (component, span, node) in Section::open(self.snapshot, "[components]", node, diagnostics).into_rest() {
            let mut attributes = Vec::new();
            for (attribute, span, node) in Section::open(self.snapshot, format!("[components.{component}]"), node, diagnostics).into_rest()
            {
                match node.to_data() {
                    Ok(data) => attributes.push((attribute, span, data)),
                    Err(wrong) => diagnostics.push(self.no_data(wrong)),
                }
            }
            overrides.push(Overrides { component, span, attributes });
        }
        overrides
    }

    fn resolver(&self, node: Node, diagnostics: &mut Vec<Diagnostic>) -> Resolver {
        let mut names = BTreeMap::new();
        for (name, span, node) in Section::open(self.snapshot, "[resolver]", node, diagnostics).into_rest() {
            let addresses = match &node.kind {
                NodeKind::List(addresses) => addresses.iter().map(|address| tree::text(&address.kind)?.parse().ok()).collect(),
                NodeKind::Text(_)
                | NodeKind::Int(_)
                | NodeKind::Float(_)
                | NodeKind::Bool(_)
                | NodeKind::Table(_)
                | NodeKind::Unsupported(_) => None,
            };
            if !is_host_name(&name) {
                diagnostics.push(span.diagnostic(self.snapshot, "E0105", format!("`{name}` is not a host name")));
            }
            match addresses {
                Some(addresses) => {
                    names.insert(name, addresses);
                }
                None => diagnostics.push(
                    node.span
                        .diagnostic(self.snapshot, "E0103", format!("`{name}` wants a list of IP addresses"))
                        .hint(format!("for example `\"{name}\" = [\"192.0.2.7\", \"2001:db8::7\"]`")),
                ),
            }
        }
        Resolver(names)
    }
}

fn begins(text: &str, first: fn(char) -> bool, all: fn(char) -> bool) -> bool {
    text.len() <= 253 && text.chars().next().is_some_and(first) && text.chars().all(all)
}

fn is_host_name(text: &str) -> bool {
    begins(text, |c| c.is_ascii_alphanumeric(), |c| c.is_ascii_alphanumeric() || "._-".contains(c))
        && !text.contains("..")
        && !text.ends_with('.')
}

fn is_user_name(text: &str) -> bool {
    text.len() <= 32
        && begins(text, |c| c.is_ascii_lowercase() || c == '_', |c| c.is_ascii_lowercase() || c.is_ascii_digit() || "_-".contains(c))
}

/// Whether a text is a name of `A-Za-z0-9._-`, as features, tags, hooks and profiles have it.
pub(crate) fn is_name(text: &str) -> bool {
    text.len() <= 100 && begins(text, |c| c.is_ascii_alphanumeric(), |c| c.is_ascii_alphanumeric() || "._-".contains(c))
}

/// Whether a text is the name of a component in environments.
pub(crate) fn is_component_name(text: &str) -> bool {
    text.len() <= 64 && begins(text, |c| c.is_ascii_lowercase(), |c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

fn is_root(text: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "/._+@-".contains(c);
    text.chars().all(allowed) && text.strip_prefix('/').is_some_and(|path| path.parse::<sarsen_store::RelPath>().is_ok())
}

#[cfg(test)]
mod tests;

//! Environment files, `environments/NAME/environment.toml`; the project's own file is in `project`.
//!
//! Every key is known or a diagnostic with the nearest known one; every diagnostic has its place. Whether a component or an
//! attribute exists is not known here: that is checked when the components are loaded.

mod hosts;
pub(crate) mod keys;
pub(crate) mod names;
pub(crate) mod project;
pub(crate) mod tree;

use std::collections::BTreeMap;
use std::net::IpAddr;

pub use project::{Project, find_project_settings};
pub(crate) use project::{is_package_name, parse_project};
pub(crate) use tree::Span;
use tree::{Node, NodeKind, Section};

use crate::data::{Address, Data};
use crate::diagnostic::Diagnostic;
use crate::model::{Connect, SshSettings};
use crate::snapshot::Snapshot;

/// How many hosts are worked on at once, unless the environment says otherwise.
const JOBS_DEFAULT: u32 = 8;
/// The most hosts at once: each is a connection and a thread.
const JOBS_MAX: u32 = 64;
/// Seconds for connecting to a host, unless the environment says otherwise.
const TIMEOUT_S_DEFAULT: u32 = 30;
/// The longest time for connecting, in seconds.
const TIMEOUT_S_MAX: u32 = 3600;
/// What every environment lies over, if it exists.
const SHARED_FILE: &str = "environments/shared.toml";

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
    pub(crate) ssh: SshSettings,
    pub(crate) require_v4: Wanted,
    pub(crate) require_v6: Wanted,
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
    /// In the order in which the host names them.
    pub(crate) groups: Vec<String>,
    pub(crate) platform: Option<String>,
    pub(crate) service_user: Option<String>,
    pub(crate) ssh: SshSettings,
    pub(crate) data: Data,
    /// Sorted by component.
    pub(crate) components: Vec<Assignment>,
    /// From the lowest to the uppermost: those of its groups, of its pattern, its own.
    pub(crate) overrides: Vec<Overrides>,
}

/// One component on one host.
#[derive(Debug, Clone)]
pub(crate) struct Assignment {
    pub(crate) component: String,
    pub(crate) features: Vec<String>,
    /// Whether it is evaluated only, and not part of what the host gets.
    pub(crate) ignore: bool,
    pub(crate) span: Span,
}

/// `[components.NAME]`, or `attributes.NAME` of a group or host.
#[derive(Debug, Clone)]
pub(crate) struct Overrides {
    /// Who says it, such as ``group `web` ``; nothing for the environment.
    pub(crate) by: Option<String>,
    pub(crate) component: String,
    pub(crate) span: Span,
    pub(crate) attributes: Vec<(String, Span, Data)>,
}

/// Whether addresses must have one of a family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Wanted {
    Required,
    #[default]
    Optional,
    /// There is none, whatever the resolver knows.
    Never,
}

/// `[resolver]`: names and their addresses.
#[derive(Debug, Clone, Default)]
pub(crate) struct Resolver {
    /// By full name.
    names: BTreeMap<String, Vec<IpAddr>>,
    domain: Option<String>,
}

impl Resolver {
    /// The addresses of a host name, in whichever spelling; an address is its own.
    pub(crate) fn addresses(&self, host: &str) -> Vec<IpAddr> {
        if let Ok(address) = host.parse() {
            return vec![address];
        }
        // A name with dots may be complete: what stands there so comes first.
        let full = names::full_name(host, self.domain.as_deref());
        self.names
            .get(host)
            .or_else(|| self.names.get(&full))
            .or_else(|| self.names.get(names::short_name(host, self.domain.as_deref())))
            .cloned()
            .unwrap_or_default()
    }

    /// An address value.
    pub(crate) fn address(&self, host: &str, port: u16) -> Address {
        let addresses = self.addresses(host);
        let first = |wanted: fn(&IpAddr) -> bool| addresses.iter().find(|address| wanted(address)).map(ToString::to_string);
        Address { host: host.to_owned(), port, v4: first(IpAddr::is_ipv4), v6: first(IpAddr::is_ipv6) }
    }
}

impl Environment {
    /// The host of that name, in its short or its full spelling.
    pub(crate) fn find_host(&self, written: &str) -> Option<&HostEntry> {
        let short = names::short_name(written, self.host_domain.as_deref());
        self.hosts.iter().find(|host| host.name == short)
    }

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
        return read_shared(snapshot, node, diagnostics);
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

/// The environment's tree laid over what all environments share, if there is such a file.
fn read_shared(snapshot: &Snapshot, node: Node, diagnostics: &mut Vec<Diagnostic>) -> Option<Node> {
    if snapshot.file(SHARED_FILE).is_none() {
        return Some(node);
    }
    let mut shared = tree::parse_file(snapshot, SHARED_FILE, diagnostics)?;
    if let Some(extends) = find(&shared, "environment").and_then(|section| find(section, "extends")) {
        let diagnostic =
            extends.span.diagnostic(snapshot, "E0103", format!("`{SHARED_FILE}` extends nothing: all environments lie over it"));
        diagnostics.push(diagnostic);
        return Some(node);
    }
    shared.merge(node);
    Some(shared)
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
        let ssh = sections.take("ssh").unwrap_or_else(|| Node::empty(&file));
        let groups = sections.take("groups").unwrap_or_else(|| Node::empty(&file));
        let hosts = sections.take("hosts").unwrap_or_else(|| Node::empty(&file));
        let components = sections.take("components").unwrap_or_else(|| Node::empty(&file));
        let resolver = sections.take("resolver").unwrap_or_else(|| Node::empty(&file));
        sections.finish(diagnostics);

        let mut environment = self.settings(settings, diagnostics);
        environment.ssh = self.ssh(ssh, diagnostics);
        let base = hosts::Base {
            domain: environment.host_domain.as_deref(),
            platform: environment.platform.as_ref(),
            service_user: environment.service_user.as_ref(),
            ssh: &environment.ssh,
        };
        environment.hosts = self.hosts(hosts, groups, &base, diagnostics);
        environment.overrides = self.overrides(components, "", diagnostics);
        environment.resolver = self.resolver(resolver, environment.host_domain.clone(), diagnostics);
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
            ssh: SshSettings::default(),
            require_v4: section.take_as("require_v4", WANTED, diagnostics, wanted).unwrap_or_default(),
            require_v6: section.take_as("require_v6", WANTED, diagnostics, wanted).unwrap_or_default(),
            hosts: Vec::new(),
            overrides: Vec::new(),
            resolver: Resolver::default(),
        };
        section.finish(diagnostics);
        environment
    }

    fn no_data(&self, wrong: &Node) -> Diagnostic {
        wrong
            .span
            .diagnostic(self.snapshot, "E0103", format!("{} cannot be used as a value", wrong.type_name()))
            .hint("write it as a string")
    }

    /// Attributes of components; `by` is who says it if it is not the environment, such as ``host `web1` ``.
    fn overrides(&self, node: Node, by: &str, diagnostics: &mut Vec<Diagnostic>) -> Vec<Overrides> {
        let mut overrides = Vec::new();
        let title = if by.is_empty() { "[components]".to_owned() } else { format!("`attributes` of {by}") };
        for (component, span, node) in Section::open(self.snapshot, title, node, diagnostics).into_rest() {
            let mut attributes = Vec::new();
            for (attribute, span, node) in Section::open(self.snapshot, format!("[components.{component}]"), node, diagnostics).into_rest()
            {
                match node.to_data() {
                    Ok(data) => attributes.push((attribute, span, data)),
                    Err(wrong) => diagnostics.push(self.no_data(wrong)),
                }
            }
            let by = (!by.is_empty()).then(|| by.to_owned());
            overrides.push(Overrides { by, component, span, attributes });
        }
        overrides
    }

    fn resolver(&self, node: Node, domain: Option<String>, diagnostics: &mut Vec<Diagnostic>) -> Resolver {
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
        Resolver { names, domain }
    }
}

/// What `require_v4` and `require_v6` can be.
const WANTED: &str = "`true`, `false` or `\"optional\"`";

fn wanted(kind: &NodeKind) -> Option<Wanted> {
    match kind {
        NodeKind::Bool(true) => Some(Wanted::Required),
        NodeKind::Bool(false) => Some(Wanted::Never),
        NodeKind::Text(text) if text == "optional" => Some(Wanted::Optional),
        NodeKind::Text(_) | NodeKind::Int(_) | NodeKind::Float(_) | NodeKind::List(_) | NodeKind::Table(_) | NodeKind::Unsupported(_) => {
            None
        }
    }
}

fn begins(text: &str, first: fn(char) -> bool, all: fn(char) -> bool) -> bool {
    text.len() <= 253 && text.chars().next().is_some_and(first) && text.chars().all(all)
}

fn is_host_name(text: &str) -> bool {
    names::refuse_host_name(text).is_none()
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

//! `[hosts]` and `[groups]`: names and patterns, and what is laid over what.
//!
//! From the bottom up: the environment, the groups in the order in which a host names them, the pattern that the host fits, the host.

use std::collections::{BTreeMap, BTreeSet};

use super::names::{expand, full_name, is_pattern, refuse_host_name, short_name};
use super::tree::{self, Node, NodeKind, Section, Span};
use super::{Assignment, HostEntry, Overrides, Parser, is_component_name, is_name, is_user_name};
use crate::data::{Data, Lists};
use crate::diagnostic::Diagnostic;
use crate::model::SshSettings;

/// What one table says of a host.
#[derive(Debug, Clone)]
struct Layer {
    components: BTreeMap<String, Assigned>,
    data: Data,
    tags: BTreeSet<String>,
    groups: Vec<(String, Span)>,
    platform: Option<String>,
    service_user: Option<String>,
    ssh: SshSettings,
    ignore: Option<bool>,
    attributes: Vec<Overrides>,
}

/// A component of one layer.
#[derive(Debug, Clone)]
struct Assigned {
    features: BTreeSet<String>,
    ignore: bool,
    span: Span,
}

impl Default for Layer {
    fn default() -> Self {
        Self {
            components: BTreeMap::new(),
            data: Data::Dict(Vec::new()),
            tags: BTreeSet::new(),
            groups: Vec::new(),
            platform: None,
            service_user: None,
            ssh: SshSettings::default(),
            ignore: None,
            attributes: Vec::new(),
        }
    }
}

impl Layer {
    /// Lays another one over this.
    fn lay(&mut self, over: Self) {
        for (component, assigned) in over.components {
            match self.components.get_mut(&component) {
                Some(below) => {
                    below.features.extend(assigned.features);
                    below.ignore |= assigned.ignore;
                    below.span = assigned.span;
                }
                None => drop(self.components.insert(component, assigned)),
            }
        }
        let below = std::mem::replace(&mut self.data, Data::None);
        self.data = below.merged(over.data, Lists::Replace);
        self.tags.extend(over.tags);
        self.platform = over.platform.or(self.platform.take());
        self.service_user = over.service_user.or(self.service_user.take());
        self.ssh = over.ssh.over(std::mem::take(&mut self.ssh));
        self.ignore = over.ignore.or(self.ignore);
        self.attributes.extend(over.attributes);
    }
}

/// What the environment says for all hosts.
pub(super) struct Base<'a> {
    pub(super) domain: Option<&'a str>,
    pub(super) platform: Option<&'a String>,
    pub(super) service_user: Option<&'a String>,
    pub(super) ssh: &'a SshSettings,
}

/// A host as it is written: its short name, where, and its table.
type Written = (String, Span, Node);

impl Parser<'_> {
    pub(super) fn hosts(&self, hosts: Node, groups: Node, base: &Base<'_>, diagnostics: &mut Vec<Diagnostic>) -> Vec<HostEntry> {
        let groups = self.groups(groups, diagnostics);
        let (patterns, exact) = self.spread(hosts, base.domain, diagnostics);
        let mut layers: BTreeMap<String, Layer> = BTreeMap::new();
        let mut places: BTreeMap<String, Span> = BTreeMap::new();
        for (title, _, node, names) in patterns {
            let layer = self.layer(&title, node, diagnostics);
            for (name, span) in names {
                places.insert(name.clone(), span);
                layers.insert(name, layer.clone());
            }
        }
        for (name, span, node) in exact {
            places.insert(name.clone(), span);
            let layer = self.layer(&format!("host `{name}`"), node, diagnostics);
            match layers.get_mut(&name) {
                Some(below) => {
                    if !layer.groups.is_empty() {
                        below.groups.clone_from(&layer.groups);
                    }
                    below.lay(layer);
                }
                None => drop(layers.insert(name, layer)),
            }
        }
        let hosts: Vec<HostEntry> = layers.into_iter().map(|(name, layer)| self.entry(name, layer, &groups, base, diagnostics)).collect();
        self.warn_of_one_machine(&hosts, &places, diagnostics);
        hosts
    }

    /// Warns of hosts that ssh would reach at the same place: the same address, port and jump. Ports and jumps are compared because
    /// forwarded ports and private networks are why one address may well be two machines. A warning, because the user's own ssh
    /// configuration has a say in where a name leads.
    fn warn_of_one_machine(&self, hosts: &[HostEntry], places: &BTreeMap<String, Span>, diagnostics: &mut Vec<Diagnostic>) {
        let mut seen: BTreeMap<(String, Option<u16>, Option<&str>), &HostEntry> = BTreeMap::new();
        for host in hosts.iter().filter(|host| !host.ignore) {
            let address = host.ssh.address.as_ref().unwrap_or(&host.fqdn);
            let place = (address.to_lowercase(), host.ssh.port, host.ssh.jump.as_deref());
            let Some(first) = seen.get(&place) else {
                seen.insert(place, host);
                continue;
            };
            let (Some(here), Some(there)) = (places.get(&host.name), places.get(&first.name)) else { continue };
            let message = format!("hosts `{}` and `{}` are reached at one address, `{address}`", first.name, host.name);
            diagnostics.push(
                here.diagnostic(self.snapshot, "E0118", message)
                    .warning()
                    .note("the other host", there.location(self.snapshot))
                    .hint("give each its own `ssh.address`; components that share a machine belong to one host"),
            );
        }
    }

    fn groups(&self, node: Node, diagnostics: &mut Vec<Diagnostic>) -> BTreeMap<String, Layer> {
        let mut groups = BTreeMap::new();
        for (name, span, node) in Section::open(self.snapshot, "[groups]", node, diagnostics).into_rest() {
            if !is_name(&name) {
                let diagnostic = span.diagnostic(self.snapshot, "E0105", format!("`{name}` cannot be the name of a group"));
                diagnostics.push(diagnostic.hint("names are made of `A-Za-z0-9._-` and begin with a letter or digit"));
            }
            let layer = self.layer(&format!("group `{name}`"), node, diagnostics);
            if let Some((_, span)) = layer.groups.first() {
                diagnostics.push(span.diagnostic(self.snapshot, "E0103", "a group is in no group").hint("name both at the host"));
            }
            groups.insert(name, layer);
        }
        groups
    }

    /// Patterns with their hosts, and hosts that are named; names that are none, and those that stand twice, are reported.
    #[expect(clippy::type_complexity, reason = "used here only, and taken apart at once")]
    fn spread(
        &self,
        node: Node,
        domain: Option<&str>,
        diagnostics: &mut Vec<Diagnostic>,
    ) -> (Vec<(String, Span, Node, Vec<(String, Span)>)>, Vec<Written>) {
        let mut seen: [BTreeMap<String, Span>; 2] = Default::default();
        let (mut patterns, mut exact) = (Vec::new(), Vec::new());
        for (written, span, node) in Section::open(self.snapshot, "[hosts]", node, diagnostics).into_rest() {
            let several = is_pattern(&written);
            let names = if several { expand(&written) } else { Ok(vec![written.clone()]) };
            let names = names.and_then(|names| match names.iter().find_map(|name| refuse_host_name(name)) {
                Some(reason) => Err(reason),
                None => Ok(names),
            });
            let names = match names {
                Ok(names) => names,
                Err(reason) => {
                    let what = if several { "pattern of host names" } else { "host name" };
                    let diagnostic =
                        span.diagnostic(self.snapshot, "E0105", format!("`{}` is not a {what}: {reason}", written.escape_debug()));
                    diagnostics
                        .push(diagnostic.hint("host names are made of letters, digits, `-`, `_` and `.`; `web[1-20]` stands for twenty"));
                    continue;
                }
            };
            let mut new = Vec::new();
            for name in names {
                let name = short_name(&name, domain).to_owned();
                // Names of hosts are the same in capitals.
                let key = name.to_lowercase();
                let known = &mut seen[usize::from(several)];
                if let Some(first) = known.get(&key) {
                    let message = format!("host `{name}` stands twice in [hosts]");
                    diagnostics.push(span.diagnostic(self.snapshot, "E0105", message).note("first here", first.location(self.snapshot)));
                } else {
                    known.insert(key, span.clone());
                    new.push((name, span.clone()));
                }
            }
            if several {
                patterns.push((format!("host `{written}`"), span, node, new));
            } else if let Some((name, span)) = new.pop() {
                exact.push((name, span, node));
            }
        }
        (patterns, exact)
    }

    fn entry(
        &self,
        name: String,
        own: Layer,
        groups: &BTreeMap<String, Layer>,
        base: &Base<'_>,
        diagnostics: &mut Vec<Diagnostic>,
    ) -> HostEntry {
        let mut layer =
            Layer { platform: base.platform.cloned(), service_user: base.service_user.cloned(), ssh: base.ssh.clone(), ..Layer::default() };
        let mut names: Vec<String> = Vec::new();
        for (group, span) in &own.groups {
            match groups.get(group) {
                Some(_) if names.contains(group) => {}
                Some(members) => {
                    layer.lay(members.clone());
                    names.push(group.clone());
                }
                None => {
                    let diagnostic = span.diagnostic(self.snapshot, "E0112", format!("there is no group `{group}`"));
                    diagnostics.push(if groups.is_empty() {
                        diagnostic.hint(format!("write `[groups.{group}]`"))
                    } else {
                        diagnostic.hint_names(group, groups.keys().map(String::as_str))
                    });
                }
            }
        }
        layer.lay(own);
        HostEntry {
            fqdn: full_name(&name, base.domain),
            name,
            ignore: layer.ignore.unwrap_or(false),
            tags: layer.tags.into_iter().collect(),
            groups: names,
            platform: layer.platform,
            service_user: layer.service_user,
            ssh: layer.ssh,
            data: layer.data,
            components: layer
                .components
                .into_iter()
                .map(|(component, assigned)| Assignment {
                    component,
                    features: assigned.features.into_iter().collect(),
                    ignore: assigned.ignore,
                    span: assigned.span,
                })
                .collect(),
            overrides: layer.attributes,
        }
    }

    /// One table, or the list of components that stands for it.
    fn layer(&self, title: &str, node: Node, diagnostics: &mut Vec<Diagnostic>) -> Layer {
        let mut layer = Layer::default();
        if matches!(node.kind, NodeKind::List(_)) {
            layer.components = self.assignments(&node, diagnostics);
            return layer;
        }
        if !matches!(node.kind, NodeKind::Table(_)) {
            let message = format!("{title} wants a list of components or a table, not {}", node.type_name());
            diagnostics.push(node.span.diagnostic(self.snapshot, "E0103", message).hint("for example `web1 = [\"shop:web\"]`"));
            return layer;
        }
        let mut section = Section::open(self.snapshot, title, node, diagnostics);
        if let Some(components) = section.take("components") {
            layer.components = self.assignments(&components, diagnostics);
        }
        if let Some(data) = section.take("data") {
            layer.data = self.host_data(&data, diagnostics);
        }
        if let Some(groups) = section.take("groups") {
            layer.groups = self.group_names(&groups, diagnostics);
        }
        layer.tags = section
            .take_as("tags", "a list of names of `A-Za-z0-9._-`", diagnostics, |kind| {
                let NodeKind::List(tags) = kind else { return None };
                tags.iter().map(|tag| tree::text(&tag.kind).filter(|tag| is_name(tag)).map(str::to_owned)).collect()
            })
            .unwrap_or_default();
        let checked = |check: fn(&str) -> bool| move |kind: &NodeKind| tree::text(kind).filter(|text| check(text)).map(str::to_owned);
        layer.platform = section.take_as("platform", "a name such as `debian12`", diagnostics, checked(is_name));
        layer.service_user = section.take_as("service_user", "the name of a user", diagnostics, checked(is_user_name));
        layer.ignore = section
            .take_as("ignore", "`true` or `false`", diagnostics, |kind| if let NodeKind::Bool(value) = kind { Some(*value) } else { None });
        if let Some(ssh) = section.take("ssh") {
            layer.ssh = self.ssh(ssh, diagnostics);
        }
        if let Some(attributes) = section.take("attributes") {
            layer.attributes = self.overrides(attributes, title, diagnostics);
        }
        section.finish(diagnostics);
        layer
    }

    fn group_names(&self, node: &Node, diagnostics: &mut Vec<Diagnostic>) -> Vec<(String, Span)> {
        let list = if let NodeKind::List(entries) = &node.kind { entries.as_slice() } else { &[] };
        let names: Option<Vec<_>> = list.iter().map(|entry| Some((tree::text(&entry.kind)?.to_owned(), entry.span.clone()))).collect();
        match names {
            Some(names) if matches!(node.kind, NodeKind::List(_)) => names,
            _ => {
                diagnostics.push(node.span.diagnostic(self.snapshot, "E0103", "`groups` wants a list of names of groups"));
                Vec::new()
            }
        }
    }

    /// How a host is reached by ssh.
    pub(super) fn ssh(&self, node: Node, diagnostics: &mut Vec<Diagnostic>) -> SshSettings {
        let mut section = Section::open(self.snapshot, "[ssh]", node, diagnostics);
        let name = |kind: &NodeKind| tree::text(kind).filter(|text| refuse_host_name(text).is_none()).map(str::to_owned);
        let user = |kind: &NodeKind| tree::text(kind).filter(|text| is_user_name(text)).map(str::to_owned);
        let jump = |kind: &NodeKind| {
            let text = tree::text(kind)?;
            let host = text.split_once('@').map_or(Some(text), |(login, host)| is_user_name(login).then_some(host))?;
            refuse_host_name(host).is_none().then(|| text.to_owned())
        };
        let settings = SshSettings {
            address: section.take_as("address", "a host name or an IPv4 address", diagnostics, name),
            user: section.take_as("user", "the name of a user", diagnostics, user),
            port: section
                .take_as("port", "a port from 1 to 65535", diagnostics, |kind| u16::try_from(tree::int_in(kind, 1..=65_535)?).ok()),
            jump: section.take_as("jump", "a host name, or `user@host`", diagnostics, jump),
        };
        section.finish(diagnostics);
        settings
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

    fn assignments(&self, node: &Node, diagnostics: &mut Vec<Diagnostic>) -> BTreeMap<String, Assigned> {
        let mut assignments: BTreeMap<String, Assigned> = BTreeMap::new();
        let NodeKind::List(entries) = &node.kind else {
            let message = format!("`components` wants a list of component names, not {}", node.type_name());
            diagnostics.push(node.span.diagnostic(self.snapshot, "E0103", message));
            return assignments;
        };
        for entry in entries {
            let written = tree::text(&entry.kind).unwrap_or_default();
            let (ignore, name) = written.strip_prefix('!').map_or((false, written), |name| (true, name));
            let (component, feature) = name.split_once(':').map_or((name, None), |(component, feature)| (component, Some(feature)));
            if !is_component_name(component) || !feature.is_none_or(is_name) {
                let diagnostic = entry.span.diagnostic(self.snapshot, "E0103", "not a component");
                let hint = "write `\"component\"`, `\"component:feature\"` or `\"!component\"`; component names are made of `a-z0-9_`";
                diagnostics.push(diagnostic.hint(hint));
                continue;
            }
            let new = || Assigned { features: BTreeSet::new(), ignore: false, span: entry.span.clone() };
            let assigned = assignments.entry(component.to_owned()).or_insert_with(new);
            assigned.features.extend(feature.map(str::to_owned));
            assigned.ignore |= ignore;
        }
        assignments
    }
}

//! The order of all components of all hosts: whoever requires something comes after whoever provides it, unless it says otherwise.
//!
//! Between all providers and all who require of one key stands one knot, so that the graph grows with the number of components and not
//! with its square. Those who provide a key themselves are peers (the members of a cluster): what they require of each other under this key
//! orders nothing. Where nothing else decides, hosts and components stand in the order of their names.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::rounds::Instance;
use crate::diagnostic::{Diagnostic, Location};
use crate::eval::Requirement;
use crate::model::Order;

/// The most circles that are reported: more than these are seldom independent of one another.
const CIRCLES_MAX: usize = 8;

/// From how many components of what goes round in circles the shortest circle is looked for: each costs a walk over all of it.
const STARTS_MAX: usize = 200;

/// The order of instances, by their places; and one error for each circle. With circles the order is that of names.
pub(super) fn arrange(instances: &[Instance<'_>]) -> (Vec<usize>, Vec<Diagnostic>) {
    let graph = Graph::of(instances);
    let mut left_out = BTreeSet::new();
    let mut circles = Vec::new();
    loop {
        let (order, rest) = graph.sort(&left_out);
        let circle = if circles.len() < CIRCLES_MAX { graph.shortest_circle(&rest) } else { Vec::new() };
        if circle.is_empty() {
            let order = if circles.is_empty() { order } else { (0..instances.len()).collect() };
            return (order, circles);
        }
        left_out.extend(circle.iter().map(|edge| edge.from));
        circles.push(word(&circle, instances));
    }
}

/// That one node comes before another.
#[derive(Debug, Clone, Copy)]
struct Edge<'a> {
    to: usize,
    /// Why, if the edge is that of one requirement.
    because: Option<&'a Requirement>,
}

/// One step of a circle, between components.
#[derive(Debug, Clone, Copy)]
struct Link<'a> {
    from: usize,
    to: usize,
    because: &'a Requirement,
}

/// Instances by their places, then the knots.
struct Graph<'a> {
    instances: usize,
    edges: Vec<Vec<Edge<'a>>>,
}

/// A key, the only host whose values count, and the direction.
type Knot<'a> = (&'a str, Option<&'a str>, Order);

impl<'a> Graph<'a> {
    fn of(instances: &'a [Instance<'_>]) -> Self {
        let mut providers: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for (index, instance) in instances.iter().enumerate() {
            let keys: BTreeSet<&str> = instance.outcome.provided.iter().map(|(key, _, _)| key.as_str()).collect();
            for key in keys {
                providers.entry(key).or_default().push(index);
            }
        }
        let mut graph = Self { instances: instances.len(), edges: vec![Vec::new(); instances.len()] };
        let mut knots: BTreeMap<Knot<'a>, usize> = BTreeMap::new();
        for (index, instance) in instances.iter().enumerate() {
            let mut seen = BTreeSet::new();
            for requirement in &instance.outcome.required {
                let knot = (requirement.key.as_str(), requirement.host.as_deref(), requirement.order);
                let own = instance.outcome.provided.iter().any(|(key, _, _)| *key == requirement.key);
                if own || requirement.order == Order::Free || !seen.insert(knot) {
                    continue;
                }
                let number = *knots.entry(knot).or_insert_with(|| graph.tie(knot, &providers, instances));
                let (from, to) = if requirement.order == Order::After { (number, index) } else { (index, number) };
                graph.edges[from].push(Edge { to, because: Some(requirement) });
            }
        }
        graph
    }

    /// Adds a knot with its edges from or to all who provide.
    fn tie(&mut self, (key, host, order): Knot<'a>, providers: &BTreeMap<&str, Vec<usize>>, instances: &[Instance<'_>]) -> usize {
        let number = self.edges.len();
        self.edges.push(Vec::new());
        let wanted = |index: &&usize| host.is_none_or(|host| instances[**index].host_name == host);
        for &index in providers.get(key).into_iter().flatten().filter(wanted) {
            let (from, to) = if order == Order::After { (index, number) } else { (number, index) };
            self.edges[from].push(Edge { to, because: None });
        }
        number
    }

    /// All instances that can be ordered, and those that cannot because they wait for each other. What is left out is taken for done.
    fn sort(&self, left_out: &BTreeSet<usize>) -> (Vec<usize>, BTreeSet<usize>) {
        let mut waits_for = vec![0u32; self.edges.len()];
        let present = |node: &usize| !left_out.contains(node);
        for edge in (0..self.edges.len()).filter(present).flat_map(|node| &self.edges[node]) {
            waits_for[edge.to] += 1;
        }
        // Knots have higher numbers than instances, and go first: they are no work.
        let rank = |node: usize| if node < self.instances { (1, node) } else { (0, node) };
        let mut ready: BTreeSet<(u8, usize)> =
            (0..self.edges.len()).filter(present).filter(|node| waits_for[*node] == 0).map(rank).collect();
        let mut order = Vec::new();
        let mut rest: BTreeSet<usize> = (0..self.edges.len()).filter(present).collect();
        while let Some((_, node)) = ready.pop_first() {
            rest.remove(&node);
            if node < self.instances {
                order.push(node);
            }
            for edge in &self.edges[node] {
                waits_for[edge.to] -= 1;
                if waits_for[edge.to] == 0 && present(&edge.to) {
                    ready.insert(rank(edge.to));
                }
            }
        }
        (order, rest)
    }

    /// The shortest circle among nodes of which each waits for another one; nothing if there are none.
    fn shortest_circle(&self, rest: &BTreeSet<usize>) -> Vec<Link<'a>> {
        let starts = rest.iter().copied().filter(|node| *node < self.instances).take(STARTS_MAX);
        let circles = starts.map(|start| self.circle_from(start, rest)).filter(|circle| !circle.is_empty());
        // What is in the rest may also only wait for a circle that is further away than the starts.
        circles.min_by_key(Vec::len).or_else(|| rest.first().map(|first| self.any_circle(*first, rest))).unwrap_or_default()
    }

    /// The shortest circle through a node.
    fn circle_from(&self, start: usize, rest: &BTreeSet<usize>) -> Vec<Link<'a>> {
        let mut came: BTreeMap<usize, (usize, Option<&'a Requirement>)> = BTreeMap::new();
        let mut queue = VecDeque::from([start]);
        while let Some(node) = queue.pop_front() {
            for edge in self.edges[node].iter().filter(|edge| rest.contains(&edge.to)) {
                if came.contains_key(&edge.to) {
                    continue;
                }
                came.insert(edge.to, (node, edge.because));
                if edge.to == start {
                    return self.links(start, &came);
                }
                queue.push_back(edge.to);
            }
        }
        Vec::new()
    }

    /// A circle that is found by walking backwards from a node: each of the rest waits for another one of it.
    fn any_circle(&self, from: usize, rest: &BTreeSet<usize>) -> Vec<Link<'a>> {
        let mut before: BTreeMap<usize, usize> = BTreeMap::new();
        for node in rest {
            for edge in self.edges[*node].iter().filter(|edge| rest.contains(&edge.to)) {
                before.entry(edge.to).or_insert(*node);
            }
        }
        let mut seen = BTreeSet::new();
        let mut node = from;
        while seen.insert(node) {
            let Some(next) = before.get(&node) else { return Vec::new() };
            node = *next;
        }
        let start = std::iter::successors(Some(node), |node| before.get(node).copied()).take(2).find(|node| *node < self.instances);
        start.map_or_else(Vec::new, |start| self.circle_from(start, rest))
    }

    /// The steps of a circle between instances; knots are passed over.
    fn links(&self, start: usize, came: &BTreeMap<usize, (usize, Option<&'a Requirement>)>) -> Vec<Link<'a>> {
        let mut links = Vec::new();
        let (mut to, mut node, mut because) = (start, start, None);
        while let Some((previous, reason)) = came.get(&node) {
            because = because.or(*reason);
            node = *previous;
            if node < self.instances {
                links.extend(because.map(|because| Link { from: node, to, because }));
                (to, because) = (node, None);
            }
            if node == start {
                break;
            }
        }
        links.reverse();
        links
    }
}

fn word(circle: &[Link<'_>], instances: &[Instance<'_>]) -> Diagnostic {
    let first = circle.first().map(|link| link.because.at.clone());
    let labels: Vec<String> = circle.iter().map(|link| instances[link.from].label()).collect();
    let message = format!("components wait for each other in a circle: {}", super::report::enumerate(&labels));
    let mut diagnostic = Diagnostic::new("E0506", message);
    diagnostic.location = first;
    for Link { from, to, because } in circle {
        let (before, after) = (instances[*from].label(), instances[*to].label());
        let key = &because.key;
        let note = match because.order {
            Order::Before => format!("{before} comes before {after}, which provides `{key}`"),
            Order::After | Order::Free => format!("{after} comes after {before}, which provides `{key}`"),
        };
        diagnostic = diagnostic.note(note, Location::clone(&because.at));
    }
    diagnostic.hint("where only the value matters, not who is activated first, write `self.require(..., order = \"none\")`")
}

#[cfg(test)]
mod tests;

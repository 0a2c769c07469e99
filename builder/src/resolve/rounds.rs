//! Rounds: instances are evaluated until what they require no longer changes.
//!
//! Each round works against the frozen resources of the round before, so the order of evaluation inside a round, and the
//! number of threads, cannot matter.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::data::Data;
use crate::eval::{ComponentInfo, EVALUATION_THREAD, Outcome, Provision, Resources, STACK_BYTES, Scene, Task, evaluate_instance};

/// The most rounds. Values travel one provider a round; chains in real projects have three or four links.
pub(crate) const ROUNDS_MAX: usize = 50;

/// The most threads: each has a stack of 64 MiB.
const WORKERS_MAX: usize = 64;

/// One component on one host, with what its last evaluation gave.
#[derive(Debug)]
pub(super) struct Instance<'a> {
    pub(super) component: &'a ComponentInfo,
    /// The host's place in the environment's list.
    pub(super) host: usize,
    pub(super) host_name: String,
    pub(super) features: Vec<String>,
    attributes: &'a [(String, Data)],
    pub(super) outcome: Outcome,
}

impl<'a> Instance<'a> {
    pub(super) fn new(
        component: &'a ComponentInfo,
        host: usize,
        host_name: String,
        features: Vec<String>,
        attributes: &'a [(String, Data)],
    ) -> Self {
        Self { component, host, host_name, features, attributes, outcome: Outcome::default() }
    }

    /// The instance for messages.
    pub(super) fn label(&self) -> String {
        format!("`{}` on {}", self.component.name, self.host_name)
    }
}

/// Evaluates until nothing changes; gives the instances that never came to rest, if any.
pub(super) fn converge(scene: &Arc<Scene>, instances: &mut [Instance<'_>], resources: &mut Arc<Resources>, workers: usize) -> Vec<usize> {
    let mut changed: Vec<usize> = (0..instances.len()).collect();
    for _ in 0..ROUNDS_MAX {
        for (index, outcome) in evaluate_round(scene, instances, &changed, resources, workers) {
            instances[index].outcome = outcome;
        }
        let next = Arc::new(collect(instances));
        changed = (0..instances.len()).filter(|index| sees_change(&instances[*index].outcome, resources, &next)).collect();
        *resources = next;
        if changed.is_empty() {
            break;
        }
    }
    changed
}

fn evaluate_round(
    scene: &Arc<Scene>,
    instances: &[Instance<'_>],
    changed: &[usize],
    resources: &Arc<Resources>,
    workers: usize,
) -> Vec<(usize, Outcome)> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut outcomes = Vec::new();
        while let Some(&index) = changed.get(next.fetch_add(1, Ordering::Relaxed)) {
            let Instance { component, host, features, attributes, .. } = &instances[index];
            outcomes.push((index, evaluate_instance(scene, &Task { component, host: *host, features, attributes }, resources)));
        }
        outcomes
    };
    std::thread::scope(|scope| {
        // This thread has the stack for it and works too; further threads are a help, not a need.
        let helpers = workers.clamp(1, WORKERS_MAX).min(changed.len().max(1)) - 1;
        let spawn =
            |_| std::thread::Builder::new().name(EVALUATION_THREAD.to_owned()).stack_size(STACK_BYTES).spawn_scoped(scope, work).ok();
        let helpers: Vec<_> = (0..helpers).map_while(spawn).collect();
        let mut outcomes = work();
        for helper in helpers {
            outcomes.extend(helper.join().expect("panics of an evaluation are caught inside it"));
        }
        outcomes
    })
}

/// All resources, sorted: instances are in the order of hosts and components already.
fn collect(instances: &[Instance<'_>]) -> Resources {
    let mut resources = Resources::default();
    for instance in instances {
        for (key, value, at) in &instance.outcome.provided {
            let provision = Provision {
                host: instance.host_name.clone(),
                component: instance.component.name.clone(),
                value: value.clone(),
                at: at.clone(),
            };
            resources.0.entry(key.clone()).or_default().push(provision);
        }
    }
    resources
}

/// Whether an evaluation would find something else now than what it found.
fn sees_change(outcome: &Outcome, before: &Resources, now: &Resources) -> bool {
    outcome.required.iter().filter(|requirement| requirement.values).any(|requirement| {
        let host = requirement.host.as_deref();
        !before.find(&requirement.key, host).eq(now.find(&requirement.key, host))
    })
}

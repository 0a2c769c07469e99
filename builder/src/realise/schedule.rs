//! Which recipe is worked on when: by what is ready, by some threads, one time per key.
//!
//! What happens to a recipe is the business of [`super::work`]; here is the order, and the book-keeping under one lock.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use sarsen_store::manifest::Manifest;
use sarsen_store::{Digest, Durable, ObjectRef};

use super::work::{Made, Worker};
use super::{BuildError, BuildEvent, Failure, HostBundle, Objects, Realised, RecipeError};
use crate::plan::{Plan, RecipeKind};

/// The recipes that the plan's hosts need: their own and all that these name.
pub(super) fn wanted(plan: &Plan) -> BTreeSet<usize> {
    let mut wanted = BTreeSet::new();
    let mut open: Vec<usize> = plan.hosts.iter().flat_map(|host| host.recipes.iter().copied()).collect();
    while let Some(index) = open.pop() {
        if wanted.insert(index) {
            open.extend(needs(plan, index));
        }
    }
    wanted
}

fn needs(plan: &Plan, index: usize) -> BTreeSet<usize> {
    plan.recipes[index].inputs.iter().filter_map(|input| plan.producers.get(input).copied()).collect()
}

/// Works on all of `wanted`, with `jobs` threads, until everything is done that can be done.
pub(super) fn run(worker: &Worker<'_>, wanted: &BTreeSet<usize>, jobs: usize) -> Finished {
    let board = Board { state: Mutex::new(State::new(worker.plan, wanted)), changed: Condvar::new() };
    std::thread::scope(|scope| {
        for _ in 0..jobs.min(wanted.len()) {
            scope.spawn(|| board.work(worker));
        }
    });
    board.state.into_inner().unwrap_or_else(PoisonError::into_inner).finish()
}

/// What a thread does next.
enum Job {
    /// Something that takes time, with what its inputs are.
    Slow(usize, Objects),
    /// Trees and bundles, published together.
    Memory(Vec<(usize, Objects)>),
}

struct Board {
    state: Mutex<State>,
    changed: Condvar,
}

impl Board {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self, worker: &Worker<'_>) {
        while let Some(job) = self.next(worker.plan) {
            let _busy = Busy { board: self };
            match job {
                Job::Slow(index, inputs) => self.do_slow(worker, index, &inputs),
                Job::Memory(recipes) => {
                    let results = worker.publish(&recipes);
                    let mut state = self.lock();
                    for (index, result) in results {
                        state.settle(worker, index, result);
                    }
                }
            }
        }
    }

    /// Waits for work; nothing when there will be none. What is waited for ends by its own time limits.
    fn next(&self, plan: &Plan) -> Option<Job> {
        let mut state = self.lock();
        loop {
            if let Some(job) = state.take(plan) {
                state.running += 1;
                return Some(job);
            }
            if state.running == 0 {
                return None;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn do_slow(&self, worker: &Worker<'_>, index: usize, inputs: &Objects) {
        let key = match worker.key(index, inputs) {
            Ok(key) => key,
            Err(error) => {
                self.lock().settle(worker, index, Err(error));
                return;
            }
        };
        {
            let mut state = self.lock();
            if let Some(parked) = state.keys.get_mut(&key) {
                // Somebody is at it. Afterwards it is tried again, and found in the store.
                parked.push(index);
                return;
            }
            state.keys.insert(key, Vec::new());
        }
        let result = worker.make(index, inputs, &key);
        let mut state = self.lock();
        state.settle(worker, index, result);
        let parked = state.keys.remove(&key).unwrap_or_default();
        state.slow.extend(parked);
    }
}

/// A thread at work. However that ends, by a panic too, the others learn of it and do not wait for ever.
struct Busy<'a> {
    board: &'a Board,
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.board.lock().running -= 1;
        self.board.changed.notify_all();
    }
}

struct State {
    /// How many other recipes have to be done first.
    waiting: BTreeMap<usize, usize>,
    users: BTreeMap<usize, Vec<usize>>,
    slow: BTreeSet<usize>,
    memory: BTreeSet<usize>,
    running: usize,
    /// Keys that are worked on, with the recipes that wait for them.
    keys: BTreeMap<Digest, Vec<usize>>,
    finished: Finished,
}

/// What there is at the end.
#[derive(Default)]
pub(super) struct Finished {
    objects: Objects,
    manifests: BTreeMap<usize, Manifest>,
    bundles: BTreeMap<usize, ObjectRef>,
    built: BTreeSet<usize>,
    cached: BTreeSet<usize>,
    failures: BTreeMap<usize, RecipeError>,
    skipped: BTreeSet<usize>,
    guards: Vec<Durable>,
}

impl State {
    fn new(plan: &Plan, wanted: &BTreeSet<usize>) -> Self {
        let mut state = Self {
            waiting: BTreeMap::new(),
            users: BTreeMap::new(),
            slow: BTreeSet::new(),
            memory: BTreeSet::new(),
            running: 0,
            keys: BTreeMap::new(),
            finished: Finished::default(),
        };
        for index in wanted {
            let needs = needs(plan, *index);
            for needed in &needs {
                state.users.entry(*needed).or_default().push(*index);
            }
            if needs.is_empty() {
                state.ready(plan, *index);
            } else {
                state.waiting.insert(*index, needs.len());
            }
        }
        state
    }

    fn ready(&mut self, plan: &Plan, index: usize) {
        match plan.recipes[index].kind {
            RecipeKind::Build(_) | RecipeKind::PythonFetch(_) | RecipeKind::Fetch(_) => self.slow.insert(index),
            RecipeKind::Tree(_) | RecipeKind::Bundle(_) => self.memory.insert(index),
        };
    }

    fn take(&mut self, plan: &Plan) -> Option<Job> {
        if let Some(index) = self.slow.pop_first() {
            return Some(Job::Slow(index, self.inputs(plan, index)));
        }
        let ready = std::mem::take(&mut self.memory);
        (!ready.is_empty()).then(|| Job::Memory(ready.into_iter().map(|index| (index, self.inputs(plan, index))).collect()))
    }

    fn inputs(&self, plan: &Plan, index: usize) -> Objects {
        let objects = &self.finished.objects;
        plan.recipes[index].inputs.iter().filter_map(|input| Some((*input, objects.get(input)?.clone()))).collect()
    }

    /// Writes down how a recipe ended, tells the caller, and readies those that waited for it.
    fn settle(&mut self, worker: &Worker<'_>, index: usize, result: Result<Made, RecipeError>) {
        let label = worker.plan.recipes[index].label.clone();
        match result {
            Ok(made) => {
                let Made { outputs, manifest, cached, started, guards } = made;
                for (name, object) in outputs {
                    if let Some(output) = worker.plan.recipes[index].outputs.get(&name) {
                        self.finished.bundles.extend(manifest.as_ref().map(|_| (index, object.clone())));
                        self.finished.objects.insert(output.placeholder, object);
                    }
                }
                self.finished.manifests.extend(manifest.map(|manifest| (index, manifest)));
                self.finished.guards.extend(guards);
                if cached {
                    self.finished.cached.insert(index);
                    (worker.options.events)(BuildEvent::Cached { label });
                } else {
                    self.finished.built.insert(index);
                    (worker.options.events)(BuildEvent::Built { label, duration: Instant::now().saturating_duration_since(started) });
                }
                for user in self.users.remove(&index).unwrap_or_default() {
                    let Some(open) = self.waiting.get_mut(&user) else { continue };
                    *open -= 1;
                    if *open == 0 {
                        self.waiting.remove(&user);
                        self.ready(worker.plan, user);
                    }
                }
            }
            Err(error) => {
                let log = error.log().map(Path::to_owned);
                (worker.options.events)(BuildEvent::Failed { label, log });
                self.finished.failures.insert(index, error);
            }
        }
    }

    fn finish(mut self) -> Finished {
        self.finished.skipped = self.waiting.into_keys().collect();
        self.finished
    }
}

impl Finished {
    pub(super) fn into_result(mut self, plan: &Plan) -> Result<Realised, BuildError> {
        let labels = |indexes: &BTreeSet<usize>| {
            let mut labels: Vec<String> = indexes.iter().map(|index| plan.recipes[*index].label.clone()).collect();
            labels.sort_unstable();
            labels
        };
        if !self.failures.is_empty() {
            let failures = self.failures.into_iter().map(|(index, error)| {
                let recipe = &plan.recipes[index];
                Failure { label: recipe.label.clone(), at: recipe.at.clone(), error }
            });
            return Err(BuildError::Recipes { failures: failures.collect(), skipped: labels(&self.skipped) });
        }
        let hosts = plan.hosts.iter().map(|host| HostBundle {
            host: host.name.clone(),
            bundle: self.bundles.remove(&host.bundle).expect("nothing failed, so every host has its bundle"),
            manifest: self.manifests.remove(&host.bundle).expect("a bundle comes with its manifest"),
        });
        let hosts = hosts.collect();
        Ok(Realised { hosts, built: labels(&self.built), cached: labels(&self.cached), guards: self.guards })
    }
}

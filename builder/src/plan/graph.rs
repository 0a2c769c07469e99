//! Connecting recipes by the placeholders in their texts, and putting them into an order.

use std::collections::{BTreeMap, BTreeSet};

use sarsen_store::ObjectId;

use super::{Finding, Plan, Recipe, positions, texts};

/// Fills in every recipe's inputs and says which recipe makes what.
///
/// Two recipes with the same placeholder, and inputs that nothing makes, become findings.
pub(super) fn connect(
    recipes: &mut [Recipe],
    explicit: &BTreeMap<usize, Vec<ObjectId>>,
    findings: &mut Vec<Finding>,
) -> BTreeMap<ObjectId, usize> {
    let mut producers: BTreeMap<ObjectId, usize> = BTreeMap::new();
    for (index, recipe) in recipes.iter().enumerate() {
        for output in recipe.outputs.values() {
            if let Some(other) = producers.insert(output.placeholder, index).filter(|other| *other != index) {
                let message = format!("`{}` is built twice under the same name", recipe.label);
                let places = [&recipes[other].at, &recipe.at].into_iter().flatten().cloned().collect();
                findings.push(Finding { message, places });
            }
        }
    }
    let known: BTreeMap<_, ObjectId> = producers.keys().map(|id| (id.to_chars(), *id)).collect();
    for (index, recipe) in recipes.iter_mut().enumerate() {
        let mut inputs = BTreeSet::new();
        texts::visit(recipe, |text| inputs.extend(positions(text, &known).into_iter().map(|(_, chars)| known[&chars])));
        for input in explicit.get(&index).into_iter().flatten() {
            if producers.contains_key(input) {
                inputs.insert(*input);
            } else {
                let message = format!("{}: the input `{input}` is not something that this environment builds", recipe.label);
                findings.push(Finding { message, places: recipe.at.iter().cloned().collect() });
            }
        }
        inputs.retain(|input| producers.get(input) != Some(&index));
        recipe.inputs = inputs;
    }
    producers
}

/// Puts every recipe after those that it needs, otherwise keeping their order.
///
/// Errors: a finding per circle.
pub(super) fn arrange(plan: Plan) -> Result<Plan, Vec<Finding>> {
    let needs: Vec<BTreeSet<usize>> =
        plan.recipes.iter().map(|recipe| recipe.inputs.iter().filter_map(|input| plan.producers.get(input).copied()).collect()).collect();
    let mut waiting: Vec<usize> = needs.iter().map(BTreeSet::len).collect();
    let mut users: Vec<Vec<usize>> = vec![Vec::new(); needs.len()];
    for (user, needed) in needs.iter().enumerate() {
        for needed in needed {
            users[*needed].push(user);
        }
    }
    let mut ready: BTreeSet<usize> = waiting.iter().enumerate().filter(|(_, open)| **open == 0).map(|(index, _)| index).collect();
    let mut order = Vec::with_capacity(needs.len());
    while let Some(next) = ready.pop_first() {
        order.push(next);
        for user in &users[next] {
            waiting[*user] -= 1;
            if waiting[*user] == 0 {
                ready.insert(*user);
            }
        }
    }
    if order.len() < needs.len() {
        return Err(circles(&plan.recipes, &needs, &order));
    }
    Ok(renumber(plan, &order))
}

fn renumber(plan: Plan, order: &[usize]) -> Plan {
    let mut position = vec![0; order.len()];
    order.iter().enumerate().for_each(|(new, old)| position[*old] = new);
    let mut recipes: Vec<Option<Recipe>> = plan.recipes.into_iter().map(Some).collect();
    let recipes = order.iter().filter_map(|old| recipes[*old].take()).collect();
    let producers = plan.producers.into_iter().map(|(id, old)| (id, position[old])).collect();
    let mut hosts = plan.hosts;
    for host in &mut hosts {
        host.bundle = position[host.bundle];
        host.recipes = host.recipes.iter().map(|old| position[*old]).collect();
        host.recipes.sort_unstable();
    }
    Plan { store: plan.store, recipes, hosts, producers }
}

/// Names one circle among the recipes that could not be put into order, from its smallest member on.
fn circles(recipes: &[Recipe], needs: &[BTreeSet<usize>], done: &[usize]) -> Vec<Finding> {
    let done: BTreeSet<usize> = done.iter().copied().collect();
    let mut seen = BTreeSet::new();
    let mut findings = Vec::new();
    for start in (0..recipes.len()).filter(|index| !done.contains(index)) {
        let mut path: Vec<usize> = Vec::new();
        let mut at = start;
        // Every recipe that is left needs another one that is left, so the walk ends where it has been before.
        while !seen.contains(&at) {
            seen.insert(at);
            path.push(at);
            match needs[at].iter().find(|needed| !done.contains(needed)) {
                Some(next) => at = *next,
                None => break,
            }
        }
        let Some(first) = path.iter().position(|index| *index == at) else { continue };
        let circle = &path[first..];
        let names: Vec<&str> = circle.iter().chain(circle.first()).map(|index| recipes[*index].label.as_str()).collect();
        let message = format!("these need one another in a circle, so none can be built first: {}", names.join(" -> "));
        findings.push(Finding { message, places: circle.iter().filter_map(|index| recipes[*index].at.clone()).collect() });
    }
    findings
}

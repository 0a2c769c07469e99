//! What changes a key and what does not.

use std::collections::BTreeSet;

use super::*;
use crate::model::Source;
use crate::plan::RecipeKind;

const SURROUNDINGS: Surroundings<'_> =
    Surroundings { architecture: "x86_64", store: "/var/lib/sarsen/store", toolchain: Digest::from_bytes([7; 32]) };

fn input() -> (ObjectId, ObjectRef) {
    (ObjectId::placeholder("input"), ObjectRef { id: ObjectId::from_bytes([1; 20]), name: "lib".parse().unwrap() })
}

/// A recipe on the given host: a script that names itself and an input.
fn recipe(host: &str) -> Recipe {
    let own = ObjectId::placeholder(&format!("{host}/app/code/out"));
    let (input, _) = input();
    let build = BuildRecipe {
        script: format!("cp /s/{input}-lib/x {own}"),
        sources: vec![Source { name: "src".to_owned(), files: vec![(Some("a".parse().unwrap()), b"text".as_slice().into(), false)] }],
        environment: BTreeMap::from([("MODE".to_owned(), format!("at {own}"))]),
        timeout_s: 60,
    };
    Recipe {
        label: format!("{host}/app/code"),
        at: None,
        outputs: BTreeMap::from([("out".to_owned(), Output { placeholder: own, name: "app-code".parse().unwrap() })]),
        inputs: BTreeSet::from([input]),
        kind: RecipeKind::Build(build),
    }
}

fn key(recipe: &Recipe, surroundings: &Surroundings<'_>, object: ObjectRef) -> Digest {
    let RecipeKind::Build(build) = &recipe.kind else { unreachable!() };
    FilledBuild::new(recipe, build, &BTreeMap::from([(input().0, object)])).key(surroundings)
}

fn changed(change: impl FnOnce(&mut BuildRecipe)) -> Digest {
    let mut recipe = recipe("a");
    let RecipeKind::Build(build) = &mut recipe.kind else { unreachable!() };
    change(build);
    key(&recipe, &SURROUNDINGS, input().1)
}

#[test]
fn the_key_is_pinned() {
    // A change here means that every build is done again everywhere: bump the domain's version and say so in the changelog.
    assert_eq!(changed(|_| {}).to_string(), "abdd000bf77d478a934208254e34afc9666f59df8555830445b562fe129163ec");
}

#[test]
fn host_and_time_limit_do_not_matter() {
    assert_eq!(key(&recipe("b"), &SURROUNDINGS, input().1), changed(|_| {}));
    assert_eq!(changed(|build| build.timeout_s = 1), changed(|_| {}));
}

#[test]
fn everything_in_the_table_matters() {
    let base = changed(|_| {});
    let mut keys = vec![
        base,
        changed(|build| build.script.push(' ')),
        changed(|build| build.environment.clear()),
        changed(|build| build.sources[0].name.push('x')),
        changed(|build| build.sources[0].files[0].0 = Some("b".parse().unwrap())),
        changed(|build| build.sources[0].files[0].1 = b"other".as_slice().into()),
        changed(|build| build.sources[0].files[0].2 = true),
        changed(|build| build.sources.clear()),
        key(&recipe("a"), &Surroundings { architecture: "aarch64", ..SURROUNDINGS }, input().1),
        key(&recipe("a"), &Surroundings { store: "/other/store", ..SURROUNDINGS }, input().1),
        key(&recipe("a"), &Surroundings { toolchain: Digest::from_bytes([8; 32]), ..SURROUNDINGS }, input().1),
        key(&recipe("a"), &SURROUNDINGS, ObjectRef { id: ObjectId::from_bytes([2; 20]), ..input().1 }),
        key(&recipe("a"), &SURROUNDINGS, ObjectRef { name: "lib2".parse().unwrap(), ..input().1 }),
    ];
    let mut renamed = recipe("a");
    renamed.outputs.get_mut("out").unwrap().name = "app-other".parse().unwrap();
    keys.push(key(&renamed, &SURROUNDINGS, input().1));
    assert_eq!(keys.iter().collect::<BTreeSet<_>>().len(), keys.len());
}

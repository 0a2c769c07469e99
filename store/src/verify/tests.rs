//! Damage of every kind, at random places.

pub(crate) mod damage;

use std::collections::BTreeSet;

use super::*;
use crate::transaction::{NewEntry, NewEntryKind};
use damage::{Damage, Expected, Random, World};

/// What was found, as [`Damage`] says what is to be found.
fn found(findings: &[Finding]) -> BTreeSet<Expected> {
    findings.iter().map(|finding| (finding.object.clone(), finding.path.clone(), finding.problem.kind())).collect()
}

/// Does damage in rounds, each of which is taken back; all of it must be found, and nothing else.
fn damage_in_rounds(rounds: u64, bunch: usize, seed: u64) {
    let world = World::new();
    assert_eq!(world.store.verify().unwrap(), []);
    println!("{rounds} rounds of {bunch}, seeds from {seed}");
    for round in 0..rounds {
        let planned = world.plan(bunch, &mut Random(seed + round));
        let expected: BTreeSet<Expected> = planned.iter().flat_map(|damage| damage.expected.clone()).collect();
        let what: Vec<String> = planned.iter().map(|damage| damage.what.clone()).collect();
        let undo: Vec<_> = planned.into_iter().map(Damage::apply).collect();
        let findings = world.store.verify().unwrap();
        assert_eq!(found(&findings), expected, "seed {}: {what:#?}", seed + round);
        assert!(findings.iter().all(|finding| !finding.to_string().contains('\n')), "{findings:?}");
        undo.into_iter().rev().for_each(|undo| undo());
    }
    assert_eq!(world.store.verify().unwrap(), []);
}

// Together 10,000. Four tests, as they run side by side.

#[test]
fn every_damage_is_found_at_its_place() {
    damage_in_rounds(1000, 1, 1_000_000);
}

#[test]
fn every_damage_is_found_at_its_place_again() {
    damage_in_rounds(1000, 1, 2_000_000);
}

#[test]
fn damage_of_several_kinds_at_once_is_found() {
    damage_in_rounds(500, 8, 3_000_000);
}

#[test]
fn damage_of_several_kinds_at_once_is_found_again() {
    damage_in_rounds(500, 8, 4_000_000);
}

#[test]
fn a_round_of_samples_finds_what_a_full_verification_finds() {
    let world = World::new();
    for seed in 5_000_000..5_000_020 {
        let mut random = Random(seed);
        let planned = world.plan(6, &mut random);
        let expected: BTreeSet<Expected> = planned.iter().flat_map(|damage| damage.expected.clone()).collect();
        let what: Vec<String> = planned.iter().map(|damage| damage.what.clone()).collect();
        let undo: Vec<_> = planned.into_iter().map(Damage::apply).collect();
        let portion = if seed % 2 == 0 { Portion::Millionths(70_000) } else { Portion::Bytes(30_000) };
        // Started anywhere, a whole round is done when the second one has begun anew.
        let start = world.store.verify_sample(Portion::Millionths(1 + u32::try_from(random.below(1_000_000)).unwrap()), &effort()).unwrap();
        let (mut all, mut contents) = (BTreeSet::new(), 0);
        for part in 1.. {
            let sampled = world.store.verify_sample(portion, &effort()).unwrap();
            all.extend(found(&sampled.findings));
            contents += sampled.contents;
            if sampled.rounds > start.rounds + 1 {
                break;
            }
            assert!(part < 100, "seed {seed}: {part} parts and no end");
        }
        let wrong: Vec<_> = all.symmetric_difference(&expected).collect();
        assert!(wrong.is_empty(), "seed {seed}: {what:#?}\nfound without reason, or not: {wrong:?}");
        assert!(contents >= 5, "{contents} contents");
        undo.into_iter().rev().for_each(|undo| undo());
    }
}

fn effort() -> Effort<'static> {
    static COUNTERS: Counters = Counters::new();
    Effort { threads: 2, bytes_per_second: None, progress: &COUNTERS }
}

#[test]
#[expect(clippy::disallowed_methods, reason = "the test damages what it may lose")]
fn a_sample_without_a_known_place_starts_anew() {
    let world = World::new();
    let all = world.store.verify_sample(Portion::Millionths(1_000_000), &effort()).unwrap();
    assert_eq!((all.objects, all.rounds, all.findings), (3, 1, Vec::new()));
    let path = world.store.root().join("verify.json");
    for text in ["", "{", "{\"version\":2,\"position\":5,\"rounds\":5}", "[]"] {
        std::fs::write(&path, text).unwrap();
        let part = world.store.verify_sample(Portion::Bytes(1), &effort()).unwrap();
        assert_eq!((part.objects + part.contents, part.rounds), (1, 0), "{text}");
    }
}

#[test]
#[expect(clippy::disallowed_methods, reason = "the test damages what it may lose")]
fn what_a_sample_has_found_is_told_even_if_its_place_cannot_be_kept() {
    let world = World::new();
    let path = world.store.root().join("verify.json");
    std::fs::create_dir(&path).unwrap();
    let whole = Portion::Millionths(1_000_000);
    let error = world.store.verify_sample(whole, &effort()).unwrap_err();
    assert!(error.to_string().starts_with("cannot rename `"), "{error}");
    let planned = world.plan(1, &mut Random(9_500_000));
    let expected: Vec<Expected> = planned.iter().flat_map(|damage| damage.expected.clone()).collect();
    for damage in planned {
        drop(damage.apply());
    }
    let sampled = world.store.verify_sample(whole, &effort()).unwrap();
    let all = found(&sampled.findings);
    assert!(!expected.is_empty() && expected.iter().all(|damage| all.contains(damage)), "{all:?}, expected {expected:?}");
    assert!(sampled.findings.iter().any(|finding| finding.object.is_none() && finding.path == "."), "{:?}", sampled.findings);
    assert_eq!((sampled.millionths, sampled.rounds), (0, 0), "the place stays");
}

#[test]
fn a_content_of_both_modes_does_not_hold_a_round_up() {
    let directory = tempfile::tempdir().unwrap();
    let store = ObjectStore::open(directory.path()).unwrap();
    let file = |path: &str, executable| {
        let kind = NewEntryKind::File { content: vec![1; 100_000].into(), executable };
        NewEntry { path: path.parse().unwrap(), kind }
    };
    let mut transaction = store.begin().unwrap();
    transaction.put_entries(&"both".parse().unwrap(), &[file("plain", false), file("program", true)], None, &[]).unwrap();
    transaction.barrier().unwrap();
    let ended = (0..5).any(|_| store.verify_sample(Portion::Bytes(1), &effort()).unwrap().rounds > 0);
    assert!(ended, "five parts for an object and one content");
}

#[test]
fn the_quick_check_sees_all_but_contents_and_times() {
    let world = World::new();
    for seed in 6_000_000..6_000_200 {
        let planned = world.plan(1, &mut Random(seed));
        let quick: BTreeSet<Expected> = planned[0]
            .expected
            .iter()
            .filter(|(object, _, kind)| object.is_some() && !matches!(*kind, "content" | "time" | "unindexed"))
            .cloned()
            .collect();
        let undo: Vec<_> = planned.into_iter().map(Damage::apply).collect();
        let mut seen = BTreeSet::new();
        for object in world.store.known_objects().unwrap() {
            seen.extend(found(&world.store.check_object(&object).unwrap()));
        }
        seen.retain(|(object, _, _)| object.is_some());
        // The id does not vouch for the digest of a file that holds it; only reading tells.
        let full = world.store.verify().unwrap();
        if !full.iter().any(|finding| matches!(&finding.problem, Problem::Manifest { reason } if reason.contains("a wrong digest of"))) {
            assert_eq!(seen, quick, "seed {seed}");
        }
        undo.into_iter().rev().for_each(|undo| undo());
    }
}

#[test]
#[expect(clippy::disallowed_methods, reason = "the test damages what it may lose")]
fn contents_whose_directory_is_closed_are_read_in_objects() {
    let world = World::new();
    let root = world.store.root();
    let text = b"nobody else has this";
    let blob = world.store.blob_path(&crate::Digest::of(text), false);
    let shard = blob.parent().unwrap();
    let set_mode = |mode| std::fs::set_permissions(&blob, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
    set_mode(0o644);
    std::fs::write(&blob, text.map(|byte| byte ^ 1)).unwrap();
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1);
    std::fs::File::open(&blob).unwrap().set_modified(time).unwrap();
    set_mode(0o444);
    // A link is not followed by who lists it, and is by who looks at a name behind it: as a directory of which the disk gives no names.
    let aside = root.parent().unwrap().join("aside");
    std::fs::rename(shard, aside.join("shard")).unwrap();
    std::os::unix::fs::symlink(aside.join("shard"), shard).unwrap();

    let place = shard.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
    let sharing = world.store.objects().unwrap().into_iter().find(|object| object.name.to_string() == "sharing").unwrap();
    let closed = (None, place, "extra");
    let expected = BTreeSet::from([closed.clone(), (Some(sharing), "alone".to_owned(), "content")]);
    assert_eq!(found(&world.store.verify().unwrap()), expected);
    let sampled = world.store.verify_sample(Portion::Millionths(1_000_000), &effort()).unwrap();
    assert_eq!((found(&sampled.findings), sampled.rounds), (BTreeSet::from([closed]), 1));
}

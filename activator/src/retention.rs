//! Gives up old generations of a profile by a policy, and lets the store collect what nobody needs then.
//!
//! The policy is data ([`Retention`]); which generations it may take is decided there and here: never the current one, the last good one,
//! the newest, the one that a rollback would return to, and none at all during a trial. Records stay, so `history` still tells what
//! ran. The link of a generation goes first, durably, then its objects: a crash in between leaves garbage that the next
//! collection finds, never a generation without its bundle. LAYOUT.md, section "Retention".

use std::time::{Duration, SystemTime};

use sarsen_store::gc::{self, GcError, GcReport, Generation, Retention, Roots};
use sarsen_store::{ObjectStore, fsutil};

use crate::error::ActivateError;
use crate::layout::ProfileLayout;
use crate::lock::{Attempt, Lock};

/// How old an object must be to be removed: one that was copied today may become a generation yet.
pub const GRACE: Duration = Duration::from_hours(24);

/// Why a profile was not collected.
#[derive(Debug, thiserror::Error)]
pub enum CollectError {
    /// Somebody is changing the profile.
    #[error("the profile is locked by {holder}")]
    Locked {
        /// Who.
        holder: String,
    },
    /// The profile could not be read or changed.
    #[error(transparent)]
    Profile(#[from] ActivateError),
    /// The store would not or could not collect.
    #[error(transparent)]
    Store(#[from] GcError),
}

/// What a collection did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Collected {
    /// The generations that were given up, ascending.
    pub generations: Vec<u64>,
    /// What the store removed.
    pub report: GcReport,
}

/// The generations that a policy gives up by now, ascending. Changes nothing.
///
/// Errors: [`CollectError`] if the generations cannot be told.
pub fn find_expired(
    profile: &ProfileLayout,
    store: &ObjectStore,
    retention: Retention,
    now: SystemTime,
) -> Result<Vec<Generation>, CollectError> {
    let previous = match profile.read_current()? {
        Some(current) => profile.read_record(current)?.and_then(|record| record.previous),
        None => None,
    };
    Ok(expired_among(&generations_of(profile, store)?, retention, previous, now))
}

/// The generations that a policy will give up after a deployment, by number, ascending. Changes nothing.
///
/// Errors: [`CollectError`] if the generations cannot be told.
pub fn find_expired_after(
    profile: &ProfileLayout,
    store: &ObjectStore,
    retention: Retention,
    now: SystemTime,
) -> Result<Vec<u64>, CollectError> {
    let mut generations = generations_of(profile, store)?;
    let current = profile.read_current()?;
    // As it will be then: the newest generation is the current and the good one, and a rollback from it returns to the one that is current now.
    if let Some(newest) = generations.last().cloned() {
        for generation in &mut generations {
            generation.needed = false;
        }
        generations.push(Generation { number: newest.number.saturating_add(1), made: now, needed: true, ..newest });
    }
    Ok(numbers(&expired_among(&generations, retention, current, now)))
}

/// The generations of one profile, by number.
fn generations_of(profile: &ProfileLayout, store: &ObjectStore) -> Result<Vec<Generation>, CollectError> {
    let mut generations = gc::generations(store)?;
    generations.retain(|generation| generation.profile == profile.name().as_str());
    Ok(generations)
}

fn expired_among(generations: &[Generation], retention: Retention, kept: Option<u64>, now: SystemTime) -> Vec<Generation> {
    let expired = retention.expired(generations, now);
    expired.into_iter().filter(|generation| Some(generation.number) != kept).cloned().collect()
}

fn numbers(generations: &[Generation]) -> Vec<u64> {
    generations.iter().map(|generation| generation.number).collect()
}

/// Gives up what the policy does not want any more; returns the numbers, ascending. Waits for nobody. Durable.
///
/// Errors: [`CollectError`]; what was given up until then stays given up.
pub fn give_up(profile: &ProfileLayout, store: &ObjectStore, retention: Retention, now: SystemTime) -> Result<Vec<u64>, CollectError> {
    let _held = match Lock::attempt(&profile.lock())? {
        Attempt::Held(lock) => lock,
        Attempt::Busy(holder) => return Err(CollectError::Locked { holder }),
    };
    let expired = find_expired(profile, store, retention, now)?;
    for generation in &expired {
        fsutil::remove_file(&generation.link).map_err(ActivateError::from)?;
    }
    if !expired.is_empty() {
        fsutil::sync_dir(&profile.generations()).map_err(ActivateError::from)?;
    }
    Ok(numbers(&expired))
}

/// Gives up what the policy does not want any more, and collects the store.
///
/// Errors: [`CollectError`]; what was given up until then stays given up, and the next collection goes on.
pub fn collect(profile: &ProfileLayout, store: &ObjectStore, retention: Retention, now: SystemTime) -> Result<Collected, CollectError> {
    let generations = give_up(profile, store, retention, now)?;
    let plan = gc::plan(store, &Roots::default(), now, GRACE)?;
    Ok(Collected { generations, report: gc::execute(store, &plan)? })
}

#[cfg(test)]
mod tests {
    use sarsen_store::{NewEntry, NewEntryKind, ObjectRef};

    use super::*;
    use crate::generation::{Record, TrialResult};
    use crate::layout::{Layout, bundle_target};

    const DAY: Duration = Duration::from_hours(24);

    struct Fixture {
        _directory: tempfile::TempDir,
        store: ObjectStore,
        profile: ProfileLayout,
    }

    /// A profile at generation `current`, of generations 1 to 5; each is made from the one before.
    fn fixture(current: u64) -> Fixture {
        let directory = tempfile::tempdir().unwrap();
        let store = ObjectStore::open(directory.path()).unwrap();
        let profile = Layout::new(directory.path()).profile(&"shop".parse().unwrap());
        fsutil::create_dir_all(&profile.generations(), 0o755).unwrap();
        for number in 1..=5 {
            let bundle = put(&store, number);
            fsutil::replace_symlink(&profile.generation(number), bundle_target(&bundle).as_ref()).unwrap();
            profile.write_record(&record(number, bundle)).unwrap();
        }
        profile.switch_to(Some(current)).unwrap();
        Fixture { _directory: directory, store, profile }
    }

    fn put(store: &ObjectStore, number: u64) -> ObjectRef {
        let content = NewEntryKind::File { content: number.to_string().into_bytes().into(), executable: false };
        let entries = [NewEntry { path: "file".parse().unwrap(), kind: content }];
        let mut transaction = store.begin().unwrap();
        let bundle = transaction.put_entries(&"bundle".parse().unwrap(), &entries, None, &[]).unwrap();
        transaction.barrier().unwrap();
        bundle
    }

    fn record(number: u64, bundle: ObjectRef) -> Record {
        Record {
            number,
            bundle,
            previous: number.checked_sub(1).filter(|previous| *previous > 0),
            created: 1,
            who: "ann@desk".to_owned(),
            revision: None,
            message: None,
            nonce: "0".repeat(64),
            result: TrialResult::Committed,
            reason: None,
            failure: None,
            notes: Vec::new(),
        }
    }

    fn keep(keep_last: u32) -> Retention {
        Retention { keep_last, keep_days: 1 }
    }

    fn later() -> SystemTime {
        crate::clock::now() + 7 * DAY
    }

    /// What a deployment to generation 6 gives up, as planned before and as found after it.
    #[track_caller]
    fn check_planned(current: u64, keep_last: u32, expected: &[u64]) {
        let fixture = fixture(current);
        let planned = find_expired_after(&fixture.profile, &fixture.store, keep(keep_last), later()).unwrap();
        let bundle = put(&fixture.store, 6);
        fsutil::replace_symlink(&fixture.profile.generation(6), bundle_target(&bundle).as_ref()).unwrap();
        fixture.profile.write_record(&Record { previous: Some(current), ..record(6, bundle) }).unwrap();
        fixture.profile.switch_to(Some(6)).unwrap();
        fsutil::replace_symlink(&fixture.profile.good(), fixture.profile.generation(6).as_path()).unwrap();
        let given_up = give_up(&fixture.profile, &fixture.store, keep(keep_last), later()).unwrap();
        assert_eq!((planned.as_slice(), given_up.as_slice()), (expected, expected));
    }

    #[test]
    fn what_goes_after_a_deployment_is_what_was_planned() {
        check_planned(5, 1, &[1, 2, 3, 4]);
        check_planned(5, 3, &[1, 2, 3]);
        // After a rollback to 4, generation 5 is one of the older ones.
        check_planned(4, 1, &[1, 2, 3, 5]);
        check_planned(4, 2, &[1, 2, 3]);
        check_planned(2, 6, &[]);
    }

    #[test]
    fn objects_go_with_their_generations() {
        let fixture = fixture(5);
        let bundle = fixture.profile.read_bundle(1).unwrap();
        let collected = collect(&fixture.profile, &fixture.store, keep(3), later()).unwrap();
        assert_eq!((collected.generations.as_slice(), collected.report.objects), ([1, 2].as_slice(), 2));
        assert!(!fixture.store.contains(&bundle.id).unwrap());
        assert!(fixture.profile.read_record(1).unwrap().is_some(), "the history goes on telling of it");
        assert_eq!(collect(&fixture.profile, &fixture.store, keep(3), later()).unwrap(), Collected::default());
    }

    #[test]
    fn a_rollback_keeps_its_way() {
        // The current generation is 4, so a rollback returns to 3.
        let fixture = fixture(4);
        assert_eq!(give_up(&fixture.profile, &fixture.store, keep(1), later()).unwrap(), [1, 2]);
        assert_eq!(fixture.profile.read_bundle(3).unwrap(), fixture.profile.read_record(3).unwrap().unwrap().bundle);
    }

    #[test]
    fn the_young_and_what_is_on_trial_stay() {
        let fixture = fixture(5);
        assert!(give_up(&fixture.profile, &fixture.store, keep(1), crate::clock::now()).unwrap().is_empty());
        let Attempt::Held(lock) = Lock::attempt(&fixture.profile.lock()).unwrap() else { panic!("nobody else is here") };
        assert!(matches!(give_up(&fixture.profile, &fixture.store, keep(1), later()), Err(CollectError::Locked { .. })));
        drop(lock);
        fsutil::write_new_file(&fixture.profile.pending(), b"{}", 0o600).unwrap();
        assert!(give_up(&fixture.profile, &fixture.store, keep(1), later()).unwrap().is_empty());
    }
}

//! Says why an object is kept: the shortest way to it from each root.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::ObjectRef;
use crate::error::StoreError;
use crate::objects::ObjectStore;

use super::{GcError, Root, roots};

/// One reason to keep an object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reason {
    /// Who keeps it.
    pub root: Root,
    /// From the object that the root names to the one in question, each referring to the next; at least one.
    pub chain: Vec<ObjectRef>,
}

/// Why the collector keeps an object, apart from its age: all roots that need it, each with the shortest chain of references.
///
/// Shape: sorted by root. Nothing if the next collection may remove it.
/// Errors: [`StoreError::Missing`]; [`GcError::Roots`] if the roots cannot be told.
pub fn why(store: &ObjectStore, object: &ObjectRef) -> Result<Vec<Reason>, GcError> {
    let _publication = store.lock_publication()?;
    if store.find(&object.id)?.as_ref() != Some(object) {
        return Err(StoreError::Missing { object: object.to_string() }.into());
    }
    let next = referrers_of(store, object)?;
    let mut reasons = BTreeSet::new();
    for (root, named) in all_roots(store, &next)? {
        if !next.contains_key(&named) {
            continue;
        }
        let mut chain = vec![named];
        while let Some(Some(step)) = chain.last().and_then(|last| next.get(last)) {
            chain.push(step.clone());
        }
        reasons.insert(Reason { root, chain });
    }
    Ok(reasons.into_iter().collect())
}

/// All objects that need `object`, each with the next one on a shortest way to it; nothing for the object itself.
fn referrers_of(store: &ObjectStore, object: &ObjectRef) -> Result<BTreeMap<ObjectRef, Option<ObjectRef>>, StoreError> {
    let mut next = BTreeMap::from([(object.clone(), None)]);
    let mut open = VecDeque::from([object.clone()]);
    while let Some(reached) = open.pop_front() {
        for referrer in store.index().referrers(&reached.id)? {
            if !next.contains_key(&referrer) {
                next.insert(referrer.clone(), Some(reached.clone()));
                open.push_back(referrer);
            }
        }
    }
    Ok(next)
}

fn all_roots(store: &ObjectStore, of: &BTreeMap<ObjectRef, Option<ObjectRef>>) -> Result<Vec<(Root, ObjectRef)>, GcError> {
    let mut found: Vec<(Root, ObjectRef)> = Vec::new();
    found.extend(roots::generations(store.root())?.into_iter().map(|found| (Root::Generation { link: found.link }, found.object)));
    found.extend(store.pins()?.into_iter().map(|(name, object)| (Root::Pin { name }, object)));
    found.extend(roots::results(store)?.kept.into_iter().map(|(link, object)| (Root::Result { link }, object)));
    found.extend(store.leased_objects()?.into_iter().map(|object| (Root::Lease, object)));
    found.extend(roots::in_use(store, &of.keys().cloned().collect())?);
    Ok(found)
}

//! What a receiver names as present, so that the sender can tell the difference by itself.
//!
//! Every object of a store is there with all that it needs, so one name stands for a whole closure. Worth naming are the generations,
//! newest first, because the next one resembles them most; then whatever has the name of an offered root. The list is a hint: what is
//! missing in it costs bytes, never correctness, so links that cannot be read are passed over here.

use std::collections::BTreeSet;
use std::path::Path;

use super::limits::PRESENT_MAX;
use crate::ObjectRef;
use crate::error::StoreError;
use crate::objects::{ObjectStore, object_of_name};

/// The objects to name, the most useful first, at most [`PRESENT_MAX`].
pub(crate) fn worth_naming(store: &ObjectStore, roots: &[ObjectRef]) -> Result<Vec<ObjectRef>, StoreError> {
    let names: BTreeSet<_> = roots.iter().map(|root| &root.name).collect();
    let mut generations = generations(store.root());
    // A target of another name belongs to another host or project: it comes after those that the roots would replace.
    generations.sort_by_key(|(number, object)| (!names.contains(&object.name), std::cmp::Reverse(*number)));
    let alike = store.objects()?.into_iter().filter(|object| names.contains(&object.name));
    let mut seen = BTreeSet::new();
    let mut objects: Vec<ObjectRef> = generations.into_iter().map(|(_, object)| object).chain(alike).collect();
    objects.retain(|object| !roots.contains(object) && seen.insert(object.clone()));
    objects.truncate(PRESENT_MAX);
    Ok(objects)
}

/// The links `profiles/<profile>/gen/<n>` that can be read: the number, and the object.
fn generations(root: &Path) -> Vec<(u64, ObjectRef)> {
    let mut found = Vec::new();
    for profile in std::fs::read_dir(root.join("profiles")).into_iter().flatten().flatten() {
        for link in std::fs::read_dir(profile.path().join("gen")).into_iter().flatten().flatten() {
            let number = link.file_name().to_str().and_then(|name| name.parse().ok());
            let object = std::fs::read_link(link.path()).ok().and_then(|target| object_of_name(target.file_name()?));
            found.extend(number.zip(object));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ObjectId;
    use crate::transaction::{NewEntry, NewEntryKind};

    fn publish(store: &ObjectStore, name: &str, content: &str) -> ObjectRef {
        let mut transaction = store.begin().unwrap();
        let kind = NewEntryKind::File { content: content.as_bytes().into(), executable: false };
        let entry = NewEntry { path: "f".parse().unwrap(), kind };
        let object = transaction.put_entries(&name.parse().unwrap(), &[entry], None, &[]).unwrap();
        transaction.barrier().unwrap();
        object
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "the test makes a profile as the activator would")]
    fn generations_come_first_newest_first_then_what_has_the_same_name() {
        let directory = tempfile::tempdir().unwrap();
        let store = ObjectStore::open(directory.path()).unwrap();
        assert_eq!(worth_naming(&store, &[]).unwrap(), []);
        let [one, two, three] = ["1", "2", "3"].map(|content| publish(&store, "bundle", content));
        let (other, component) = (publish(&store, "other", "1"), publish(&store, "component", "1"));
        for (link, object) in [("p/gen/2", &two), ("p/gen/10", &one), ("q/gen/99", &other), ("q/gen/note", &component)] {
            let link = directory.path().join("profiles").join(link);
            std::fs::create_dir_all(link.parent().unwrap()).unwrap();
            std::os::unix::fs::symlink(store.object_path(object), link).unwrap();
        }
        let offered = ObjectRef { id: ObjectId::placeholder("new"), name: "bundle".parse().unwrap() };
        assert_eq!(worth_naming(&store, &[offered]).unwrap(), [one, two, other, three]);
    }
}

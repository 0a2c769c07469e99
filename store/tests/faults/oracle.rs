//! The oracle: what must hold of a store after any fault at any instant. "Registered means intact, old or new."
//!
//! The store is opened afresh, so that recovery runs. Then: the index and `store/` list the same objects, each with a good manifest; every
//! byte, mode, name and link is right; every closure is complete; generations, pins, results and the results of recipes lead to objects; and
//! what was promised before the fault is there. The work that was cut off is done again and must succeed; a collection after it must
//! leave nothing but what roots need, and no file that belongs to nobody.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use sarsen_store::verify::Problem;
use sarsen_store::{ObjectRef, ObjectStore, StoreError};

use super::with_causes;
use super::works::{self, Places};

/// What may lie in the root of a store.
const TOP_NAMES: [&str; 17] = [
    "left-overs",
    "format.json",
    "store",
    "trees",
    "blobs",
    "pins",
    "results",
    "stage",
    "leases",
    "trash",
    "publication.lock",
    "index.sqlite",
    "index.sqlite-wal",
    "index.sqlite-shm",
    "cache.sqlite",
    "cache.sqlite-journal",
    "profiles",
];

/// What does not hold.
#[derive(Default)]
pub(crate) struct Violations(Vec<String>);

impl Violations {
    pub(crate) fn lines(&self) -> &[String] {
        &self.0
    }

    fn add(&mut self, when: &str, what: impl Display) {
        self.0.push(format!("{when}: {what}"));
    }

    fn expect<T>(&mut self, when: &str, result: Result<T, impl std::error::Error>) -> Option<T> {
        result.map_err(|error| self.add(when, with_causes(&error))).ok()
    }
}

/// Applies the oracle to a store in which `work` was cut off; `required` are the objects that must be there.
pub(crate) fn judge(work: &str, places: &Places, required: &[&str], violations: &mut Violations) {
    examine("at once", places, required, violations);
    if let Err(error) = works::run(work, places) {
        violations.add("the work done again", with_causes(&*error));
    }
    let Some(store) = examine("after the work was done again", places, required, violations) else { return };
    if let Err(error) = works::collect(&store) {
        violations.add("the collection", with_causes(&*error));
    }
    drop(store);
    let Some(store) = examine("after a collection", places, required, violations) else { return };
    look_for_garbage("after a collection", &store, violations);
}

fn examine(when: &str, places: &Places, required: &[&str], violations: &mut Violations) -> Option<ObjectStore> {
    let store = violations.expect(when, ObjectStore::open(&places.root))?;
    let objects = violations.expect(when, store.objects())?;
    compare_names(when, &store, &objects, violations);
    for finding in violations.expect(when, store.verify()).into_iter().flatten() {
        // A content without a name is whole and costs space only, see "Shared inodes".
        if finding.object.is_some() || finding.problem != Problem::Missing || !finding.path.starts_with("blobs/") {
            violations.add(when, finding);
        }
    }
    violations.expect(when, store.closure(&objects));
    for object in required {
        if !objects.iter().any(|found| found.to_string() == **object) {
            violations.add(when, format!("`{object}` was promised and is gone"));
        }
    }
    for (name, object) in violations.expect(when, store.pins()).into_iter().flatten() {
        if !objects.contains(&object) {
            violations.add(when, format!("the pin `{name}` leads nowhere"));
        }
    }
    for (link, object) in rooted(places) {
        if !objects.contains(&object) {
            violations.add(when, format!("`{}` leads nowhere", link.display()));
        }
    }
    Some(store)
}

/// All links that keep objects, with the objects: generations, and results outside of the store.
fn rooted(places: &Places) -> Vec<(PathBuf, ObjectRef)> {
    let above = places.root.parent().map(links_below).unwrap_or_default();
    let links = links_below(&places.root.join("profiles/web/gen")).into_iter().chain(above);
    let object = |link: &Path| std::fs::read_link(link).ok()?.file_name()?.to_str()?.parse::<ObjectRef>().ok();
    links.filter_map(|link| object(&link).map(|object| (link, object))).collect()
}

/// The objects that roots need. What a collector leaves may be more: it minds every process that uses an object of the same name.
pub(crate) fn needed(places: &Places) -> Result<Vec<ObjectRef>, StoreError> {
    let store = ObjectStore::open(&places.root)?;
    let mut roots: Vec<ObjectRef> = store.pins()?.into_values().collect();
    roots.extend(rooted(places).into_iter().map(|(_, object)| object));
    store.closure(&roots)
}

/// The index, `store/` and `trees/` must speak of the same objects.
fn compare_names(when: &str, store: &ObjectStore, objects: &[ObjectRef], violations: &mut Violations) {
    let named: BTreeSet<String> = names_in(&store.root().join("store"));
    let known: BTreeSet<String> = objects.iter().map(ToString::to_string).collect();
    for name in named.symmetric_difference(&known) {
        violations.add(when, format!("`{name}` is in {} only", if known.contains(name) { "the index" } else { "`store/`" }));
    }
    for object in objects {
        violations.expect(when, store.manifest(object));
    }
}

/// After a collection nothing lies around that nobody needs.
fn look_for_garbage(when: &str, store: &ObjectStore, violations: &mut Violations) {
    let root = store.root();
    let Some(objects) = violations.expect(when, store.objects()) else { return };
    for name in names_in(root).iter().filter(|name| !TOP_NAMES.contains(&name.as_str())) {
        violations.add(when, format!("`{name}` belongs to nobody"));
    }
    for directory in ["stage", "leases", "trash"] {
        for name in names_in(&root.join(directory)) {
            violations.add(when, format!("`{directory}/{name}` is left over"));
        }
    }
    let ids: BTreeSet<String> = objects.iter().map(|object| object.id.to_string()).collect();
    for name in names_in(&root.join("trees")).difference(&ids) {
        violations.add(when, format!("the manifest `{name}` has no object"));
    }
    for directory in ["pins", "results"] {
        for name in names_in(&root.join(directory)).iter().filter(|name| name.starts_with('.')) {
            violations.add(when, format!("`{directory}/{name}` is left over"));
        }
    }
    for shard in names_in(&root.join("blobs")) {
        let shard = root.join("blobs").join(shard);
        for name in names_in(&shard) {
            if std::fs::symlink_metadata(shard.join(&name)).is_ok_and(|metadata| metadata.nlink() == 1) {
                violations.add(when, format!("the content `{name}` has no object"));
            }
        }
    }
}

fn names_in(directory: &Path) -> BTreeSet<String> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

fn links_below(directory: &Path) -> Vec<PathBuf> {
    names_in(directory).iter().map(|name| directory.join(name)).filter(|path| path.is_symlink()).collect()
}

//! How much the removal of objects frees, object by object in the order of their removal.
//!
//! A content is freed with the last object that holds it, and not at all if an object that stays holds it too. For a million contents this
//! takes 24 MB, because contents are told apart by 64 bits of their digests: the figure is shown to people and ends a
//! collection with `--max-freed`; nothing is removed by it.

use crate::tree::FileFacts;
use crate::{ObjectManifest, ObjectRef};

/// How many repeated contents are carried along before they are looked for: few enough for memory, enough to look rarely.
const REPEATED_MAX: usize = 1 << 16;

/// A content and the last object that holds it.
struct Holder {
    /// 63 bits of the digest, and whether it is the executable inode.
    content: u64,
    size: u64,
    position: u32,
}

/// The bytes of contents that each of `remove` frees after those before it, when `keep` stays.
///
/// An object whose manifest cannot be read frees nothing as far as is known.
pub(super) fn freed_by<'a>(
    remove: &[ObjectRef],
    keep: impl IntoIterator<Item = &'a ObjectRef>,
    manifest: impl Fn(&ObjectRef) -> Option<ObjectManifest>,
) -> Vec<u64> {
    let mut holders: Vec<Holder> = Vec::new();
    let mut distinct = 0;
    for (position, object) in (0u32..).zip(remove) {
        let Some(manifest) = manifest(object) else { continue };
        holders.extend(manifest.tree.files().map(|(_, file)| Holder { content: content_of(&file), size: file.size, position }));
        // Objects repeat each other's contents; they are remembered once, or as good as.
        if holders.len() > 2 * distinct + REPEATED_MAX {
            keep_last(&mut holders);
            distinct = holders.len();
        }
    }
    keep_last(&mut holders);
    for object in keep {
        if holders.is_empty() {
            break;
        }
        let Some(manifest) = manifest(object) else { continue };
        for (_, file) in manifest.tree.files() {
            if let Ok(found) = holders.binary_search_by_key(&content_of(&file), |holder| holder.content) {
                holders[found].size = 0;
            }
        }
    }
    let mut freed = vec![0u64; remove.len()];
    for holder in holders {
        if let Some(freed) = usize::try_from(holder.position).ok().and_then(|position| freed.get_mut(position)) {
            *freed += holder.size;
        }
    }
    freed
}

/// Sorts by content and drops all holders of a content but the last.
fn keep_last(holders: &mut Vec<Holder>) {
    holders.sort_unstable_by_key(|holder| (holder.content, std::cmp::Reverse(holder.position)));
    holders.dedup_by_key(|holder| holder.content);
}

fn content_of(file: &FileFacts) -> u64 {
    let mut start = [0; 8];
    start.copy_from_slice(&file.digest.as_bytes()[..8]);
    u64::from_le_bytes(start) << 1 | u64::from(file.executable)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::object::object_id;
    use crate::{Digest, Entry, EntryKind, Tree};

    /// Objects whose files have these sizes; the size is the content.
    fn objects(sizes: &[&[u64]]) -> (Vec<ObjectRef>, BTreeMap<ObjectRef, ObjectManifest>) {
        let manifests = sizes.iter().enumerate().map(|(number, sizes)| {
            let entry = |(place, size): (usize, &u64)| {
                let kind =
                    EntryKind::File { size: *size, digest: Digest::of(&size.to_le_bytes()), executable: false, self_references: None };
                Entry { path: format!("f{place}").parse().unwrap(), kind }
            };
            let tree = Tree::new(sizes.iter().enumerate().map(entry).collect()).unwrap();
            let name = format!("object-{number}").parse().unwrap();
            let object = ObjectRef { id: object_id(&name, &[], &tree), name };
            (object.clone(), ObjectManifest { object, references: Vec::new(), tree })
        });
        let manifests: Vec<(ObjectRef, ObjectManifest)> = manifests.collect();
        (manifests.iter().map(|(object, _)| object.clone()).collect(), manifests.into_iter().collect())
    }

    #[track_caller]
    fn check(remove: &[&[u64]], keep: &[&[u64]], expected: &[u64]) {
        let all: Vec<&[u64]> = remove.iter().chain(keep).copied().collect();
        let (objects, manifests) = objects(&all);
        let (remove, keep) = objects.split_at(remove.len());
        assert_eq!(freed_by(remove, keep, |object| manifests.get(object).cloned()), expected);
    }

    #[test]
    fn the_last_holder_frees_a_content() {
        check(&[], &[&[1]], &[]);
        check(&[&[1, 2, 2], &[2, 4]], &[], &[1, 6]);
        check(&[&[1, 2], &[2, 4]], &[&[4, 8], &[1]], &[0, 2]);
        check(&[&[7], &[7], &[7]], &[], &[0, 0, 7]);
    }

    #[test]
    fn repeated_contents_count_once_however_many_there_are() {
        let many: Vec<u64> = (1..=40_000).collect();
        check(&[&many, &many, &many, &many], &[], &[0, 0, 0, many.iter().sum()]);
    }

    #[test]
    fn an_unreadable_manifest_frees_nothing() {
        let (objects, manifests) = objects(&[&[1], &[2]]);
        assert_eq!(freed_by(&objects, [], |object| manifests.get(object).filter(|_| *object == objects[1]).cloned()), [0, 2]);
    }
}

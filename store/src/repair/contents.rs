//! Puts the contents in `blobs/` right, from which everything else is then linked.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::material::{Holders, copy_if_right, has_content};
use super::{RepairError, Round};
use crate::fsutil::{self, Node, NodeKind};
use crate::verify::{Finding, OBJECT_TIME, Problem, blob_of_path, mode_of_file};
use crate::{Digest, ObjectRef};

/// A content and whether it is executable: what has one name in `blobs/`.
type Key = (Digest, bool);

/// What becomes of one name.
enum Action {
    /// The right bytes with the wrong mode or time.
    Freeze,
    /// A good file, to be linked.
    Link(PathBuf),
    /// A fresh copy.
    Copy(PathBuf),
    /// There is no good copy anywhere, so nobody may take the bad one for good.
    TakeAway,
}

impl Round<'_> {
    /// Gives all contents that findings and absent objects are about good names, or none.
    pub(super) fn repair_contents(&mut self, findings: &[Finding], gone: &BTreeSet<ObjectRef>) -> Result<(), RepairError> {
        let keys = self.wanted_contents(findings, gone);
        if keys.is_empty() {
            return Ok(());
        }
        let holders = self.holders(&keys, gone)?;
        let scratch = self.transaction.scratch("contents")?;
        let mut actions = Vec::new();
        for (number, key) in keys.into_iter().enumerate() {
            actions.extend(self.decide(&key, &holders, scratch.join(number.to_string()))?.map(|action| (key, action)));
        }
        fsutil::sync_file_system(&scratch)?;
        let _publication = self.store.lock_publication()?;
        for ((digest, executable), action) in actions {
            let path = self.store.blob_path(&digest, executable);
            if let Some(shard) = path.parent() {
                fsutil::create_dir_all(shard, 0o755)?;
            }
            match action {
                Action::Freeze => {
                    fsutil::set_mode(&path, mode_of_file(executable))?;
                    fsutil::freeze_file(&fsutil::open_plain_file(&path)?, executable, &path)?;
                }
                Action::Copy(fresh) => self.quarantine.take(&path, Some(&fresh))?,
                Action::Link(existing) => {
                    let fresh = scratch.join(format!("link-{digest}-{executable}"));
                    // An inode with as many names as there can be, or one that a collector took: the next round copies.
                    if fsutil::hard_link(&existing, &fresh).is_ok() {
                        self.quarantine.take(&path, Some(&fresh))?;
                    }
                }
                Action::TakeAway => self.quarantine.take(&path, None)?,
            }
        }
        Ok(fsutil::sync_file_system(self.store.root())?)
    }

    /// Finds out what is to be done about a name; nothing if it is right.
    fn decide(&self, (digest, executable): &Key, holders: &Holders, fresh: PathBuf) -> Result<Option<Action>, RepairError> {
        let path = self.store.blob_path(digest, *executable);
        let node = fsutil::node_at(&path);
        let is_ours = |node: &Node| node.mode == mode_of_file(*executable) && node.stamp.modified == OBJECT_TIME;
        if let Ok(node) = &node
            && node.kind == NodeKind::File
            && has_content(&path, digest)
        {
            if is_ours(node) {
                return Ok(None);
            }
            // One inode under both modes cannot be right for both.
            let other = fsutil::node_at(&self.store.blob_path(digest, !*executable));
            if other.map_or(true, |other| inode(&other) != inode(node)) {
                return Ok(Some(Action::Freeze));
            }
        }
        for place in self.material.places_of(self.store, digest, holders) {
            let is_own = place.starts_with(self.store.root()) && !place.starts_with(self.store.root().join("stage"));
            let Ok(found) = fsutil::node_at(&place) else { continue };
            if is_own && place != path && found.kind == NodeKind::File && is_ours(&found) && has_content(&place, digest) {
                return Ok(Some(Action::Link(place)));
            }
            if copy_if_right(&place, digest, *executable, &fresh)? {
                return Ok(Some(Action::Copy(fresh)));
            }
        }
        Ok(node.is_ok().then_some(Action::TakeAway))
    }

    /// The contents that findings and absent objects are about.
    fn wanted_contents(&self, findings: &[Finding], gone: &BTreeSet<ObjectRef>) -> BTreeSet<Key> {
        let mut keys = BTreeSet::new();
        for object in gone {
            if let Some(manifest) = self.manifest_at_hand(object) {
                keys.extend(manifest.tree.files().map(|(_, file)| (file.digest, file.executable)));
            }
        }
        for finding in findings {
            match &finding.object {
                None => keys.extend(blob_of_path(&finding.path)),
                Some(object) => {
                    let Ok(manifest) = self.store.manifest(object) else { continue };
                    let Some(position) = manifest.tree.position(&finding.path) else { continue };
                    let key = |position| manifest.tree.file(position).map(|file| (file.digest, file.executable));
                    keys.extend(key(position));
                    if matches!(finding.problem, Problem::Missing | Problem::Kind { .. }) {
                        keys.extend(manifest.tree.below(position).filter_map(key));
                    }
                }
            }
        }
        keys
    }

    fn holders(&self, keys: &BTreeSet<Key>, gone: &BTreeSet<ObjectRef>) -> Result<Holders, RepairError> {
        let digests: BTreeSet<Digest> = keys.iter().map(|(digest, _)| *digest).collect();
        let absent: Vec<_> = gone.iter().filter_map(|object| self.manifest_at_hand(object)).collect();
        let mut holders = Holders::find(&digests, absent.iter());
        for object in self.store.objects_on_disk()? {
            if let Ok(manifest) = self.store.manifest(&object) {
                holders.add(&digests, &manifest);
            }
        }
        Ok(holders)
    }
}

fn inode(node: &Node) -> (u64, u64) {
    (node.stamp.device, node.stamp.inode)
}

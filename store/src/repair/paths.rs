//! Puts the paths of objects right: what should be there is made beside, and changes places with what is there.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::{RepairError, Round};
use crate::error::StoreError;
use crate::fsutil::{self, Directory, FsError, NodeKind};
use crate::tree::EntryKind;
use crate::verify::{Finding, Problem};
use crate::{ObjectManifest, ObjectRef};

impl Round<'_> {
    /// Repairs what is wrong within objects, as far as the contents are at hand by now.
    pub(super) fn repair_paths(&mut self, findings: &[Finding]) -> Result<(), RepairError> {
        let mut objects: BTreeMap<&ObjectRef, Vec<&Finding>> = BTreeMap::new();
        for finding in findings {
            if let Some(object) = &finding.object {
                objects.entry(object).or_default().push(finding);
            }
        }
        for (object, findings) in objects {
            // Without a manifest nobody knows what should be there.
            let Ok(manifest) = self.store.manifest(object) else { continue };
            self.repair_object(&manifest, &findings)?;
        }
        Ok(())
    }

    fn repair_object(&mut self, manifest: &ObjectManifest, findings: &[&Finding]) -> Result<(), RepairError> {
        let object = &manifest.object;
        let top = self.store.object_path(object);
        let mut replace = BTreeSet::new();
        for finding in findings {
            let Some(position) = manifest.tree.position(&finding.path) else { continue };
            let is_directory = manifest.tree.entry(position).is_some_and(|entry| matches!(entry.kind, EntryKind::Directory));
            let is_of_node = matches!(finding.problem, Problem::Mode { .. } | Problem::Time { .. } | Problem::Unreadable { .. });
            if !(is_directory && is_of_node) {
                replace.insert(finding.path.clone());
            }
        }
        let part = self.transaction.assemble_part(manifest, &replace)?;
        fsutil::sync_file_system(&part)?;
        let _publication = self.store.lock_publication()?;
        match fsutil::node_at(&top) {
            Ok(node) if node.kind == NodeKind::Directory => {}
            // A collector was faster.
            Err(error) if error.is_missing() => return Ok(()),
            Ok(_) => return Ok(self.quarantine.take_stray(&top)?),
            Err(error) => return Err(error.into()),
        }
        for path in &replace {
            let fresh = part.join(path);
            // Without its content there is nothing to replace it with.
            if fsutil::node_at(&fresh).is_ok() {
                self.put(manifest, path, &fresh)?;
            }
        }
        if findings.iter().any(|finding| finding.problem == Problem::Extra) {
            self.put_away_extras(manifest, &top)?;
        }
        for finding in findings {
            let is_of_node = matches!(finding.problem, Problem::Mode { .. } | Problem::Time { .. } | Problem::Unreadable { .. });
            if is_of_node && !replace.contains(&finding.path) {
                freeze_directory(&if finding.path == "." { top.clone() } else { top.join(&finding.path) })?;
            }
        }
        Ok(fsutil::sync_file_system(self.store.root())?)
    }

    /// Puts a fresh file, link or directory into its place.
    fn put(&mut self, manifest: &ObjectManifest, path: &str, fresh: &Path) -> Result<(), StoreError> {
        let object = &manifest.object;
        let top = self.store.object_path(object);
        let target = top.join(path);
        let Some(parent) = target.parent() else { return Ok(()) };
        // One that is none is repaired itself, with all that is in it.
        if !matches!(fsutil::node_at(parent), Ok(node) if node.kind == NodeKind::Directory) {
            return Ok(());
        }
        let is_same = |one: &Path, two: &Path| match (fsutil::node_at(one), fsutil::node_at(two)) {
            (Ok(one), Ok(two)) => one.kind == NodeKind::File && (one.stamp.device, one.stamp.inode) == (two.stamp.device, two.stamp.inode),
            _ => false,
        };
        // It was enough to put the inode right.
        if is_same(fresh, &target) {
            return Ok(());
        }
        fsutil::set_mode(parent, 0o755)?;
        self.quarantine.take_from_object(object, Path::new(path), &target, Some(fresh))?;
        let position = manifest.tree.position(path);
        let below = position.map(|position| manifest.tree.below(position)).unwrap_or_default();
        for position in below.rev().chain(position) {
            let Some(entry) = manifest.tree.entry(position).filter(|entry| matches!(entry.kind, EntryKind::Directory)) else { continue };
            freeze_directory(&top.join(entry.path.as_path()))?;
        }
        Ok(freeze_directory(parent)?)
    }

    /// Moves away what the tree does not know.
    fn put_away_extras(&mut self, manifest: &ObjectManifest, top: &Path) -> Result<(), StoreError> {
        let mut directories = vec![String::new()];
        let mut cursor = manifest.tree.cursor();
        while let Some(entry) = cursor.next() {
            if matches!(entry.kind, crate::tree::KindView::Directory) {
                directories.push(entry.path.to_owned());
            }
        }
        for path in directories {
            let place = top.join(&path);
            let is_directory = matches!(fsutil::node_at(&place), Ok(node) if node.kind == NodeKind::Directory);
            if !is_directory {
                continue;
            }
            let mut extras = Vec::new();
            let known = |name: &str| {
                let full = if path.is_empty() { name.to_owned() } else { format!("{path}/{name}") };
                manifest.tree.position(&full).is_some()
            };
            for name in Directory::open(&place)?.names()? {
                if !name.to_str().is_some_and(known) {
                    extras.push(name);
                }
            }
            if extras.is_empty() {
                continue;
            }
            fsutil::set_mode(&place, 0o755)?;
            for name in extras {
                self.quarantine.take_from_object(&manifest.object, &Path::new(&path).join(&name), &place.join(&name), None)?;
            }
            freeze_directory(&place)?;
        }
        Ok(())
    }
}

/// Gives a directory of an object its mode and time; one that denies its owner to look into it, too.
fn freeze_directory(path: &Path) -> Result<(), FsError> {
    if !matches!(fsutil::node_at(path), Ok(node) if node.kind == NodeKind::Directory) {
        return Ok(());
    }
    fsutil::set_mode(path, 0o755)?;
    Directory::open(path)?.freeze()
}

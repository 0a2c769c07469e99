//! Compares one object's directory with its tree.
//!
//! The tree is followed in its order, by directory handles; a directory's names are looked up in the tree as they are listed. So nothing is
//! remembered but the handles on the way down, however many entries there are.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};

use super::blobs::{BadContents, name_in_blobs};
use super::finding::{Findings, Problem, escape};
use super::hashing::{Hashing, Outcome};
use super::{OBJECT_TIME, describe_kind, mode_of_file};
use crate::fsutil::{self, Directory, FsError, Node, NodeKind};
use crate::objects::ObjectStore;
use crate::tree::{EntryView, KindView, SelfReferences};
use crate::{Digest, ObjectManifest, ObjectRef};

/// The mode of directories in objects.
const DIRECTORY_MODE: u32 = 0o555;

/// How closely to look.
pub(super) enum Depth<'a, 'env> {
    /// At names, kinds, sizes, modes, link targets.
    Quick,
    /// At times and at every byte, too.
    Full {
        hashing: &'a Hashing<'env>,
        /// What is wrong with contents that were read under their names in `blobs/`; without, none was read.
        bad: Option<&'a BadContents>,
    },
}

/// The comparison of one object's directory with its tree.
pub(super) struct Comparison<'a, 'env> {
    pub(super) store: &'a ObjectStore,
    /// The directory of all objects.
    pub(super) objects: &'a Directory,
    pub(super) manifest: &'a ObjectManifest,
    pub(super) findings: &'env Findings,
    pub(super) depth: &'a Depth<'a, 'env>,
}

impl<'env> Comparison<'_, 'env> {
    /// Compares everything.
    pub(super) fn run(&self) {
        let name = OsString::from(self.manifest.object.to_string());
        let Some(top) = self.enter(self.objects, &name, "") else { return };
        let mut open = vec![(String::new(), top)];
        // Directories that are missing, are none or cannot be opened: that is said once, of what should be in them nothing.
        let mut closed = BTreeSet::new();
        let mut cursor = self.manifest.tree.cursor();
        while let Some(EntryView { path, kind, .. }) = cursor.next() {
            let blob = self.look_up_content(&kind);
            let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
            let unopened = |path: &str, error: &FsError| self.push(path, unreadable(error));
            let Some(parent) = find_parent(&mut open, &mut closed, parent, unopened) else { continue };
            let name = OsStr::new(name);
            match kind {
                KindView::Directory => match self.enter(parent, name, path) {
                    Some(directory) => open.push((path.to_owned(), directory)),
                    None => drop(closed.insert(path.to_owned())),
                },
                KindView::Symlink { target, self_offsets: _ } => self.compare_link(parent, name, path, target),
                KindView::File { size, digest, executable, self_references } => {
                    let Some(node) = self.inspect(parent, name, path, NodeKind::File) else { continue };
                    self.compare_mode(path, &node, mode_of_file(executable));
                    if node.stamp.size != size {
                        self.push(path, Problem::Size { expected: size, found: node.stamp.size });
                    } else if let Depth::Full { hashing, bad } = self.depth {
                        let file = File { path, digest: *digest, executable, blob, own: self_references };
                        self.compare_content((parent, name), &file, &node, hashing, *bad);
                    }
                }
            }
        }
    }

    /// Compares a directory and the names in it; returns it if it can be looked into. The path of the object itself is empty.
    fn enter(&self, parent: &Directory, name: &OsStr, path: &str) -> Option<Directory> {
        let place = if path.is_empty() { "." } else { path };
        let node = self.inspect(parent, name, place, NodeKind::Directory)?;
        self.compare_mode(place, &node, DIRECTORY_MODE);
        let listed = parent.open_child(name).and_then(|directory| {
            directory.visit_names(|name| {
                let path = if path.is_empty() { name.to_string_lossy().into_owned() } else { format!("{path}/{}", name.to_string_lossy()) };
                let known = name.to_str().is_some() && self.manifest.tree.position(&path).is_some();
                if !known {
                    self.push(&path, Problem::Extra);
                }
            })?;
            Ok(directory)
        });
        listed.map_err(|error| self.push(place, unreadable(&error))).ok()
    }

    /// Device and inode of the name of a file's content, which should have one; where every byte counts.
    fn look_up_content(&self, kind: &KindView<'_>) -> Option<(u64, u64)> {
        let (KindView::File { digest, executable, self_references, .. }, Depth::Full { .. }) = (kind, self.depth) else { return None };
        match fsutil::node_at(&self.store.blob_path(digest, *executable)) {
            Ok(blob) => Some((blob.stamp.device, blob.stamp.inode)),
            Err(error) => {
                // The id does not vouch for the digest of a file that holds it: that is looked at first.
                if error.is_missing() && self_references.is_none() {
                    self.findings.push(None, &name_in_blobs(digest, *executable), Problem::Missing);
                }
                // Who checks the name itself says what else is wrong with it.
                None
            }
        }
    }

    fn compare_link(&self, parent: &Directory, name: &OsStr, path: &str, target: &str) {
        if self.inspect(parent, name, path, NodeKind::Symlink).is_none() {
            return;
        }
        match parent.read_link(name) {
            Ok(found) if found == target.as_bytes() => {}
            Ok(found) => {
                let found = escape(&String::from_utf8_lossy(&found));
                self.push(path, Problem::Target { expected: escape(target), found });
            }
            Err(error) => self.push(path, unreadable(&error)),
        }
    }

    /// Has a file's bytes compared, unless they were read under their name in `blobs/`.
    fn compare_content(
        &self,
        (parent, name): (&Directory, &OsStr),
        file: &File<'_>,
        node: &Node,
        hashing: &Hashing<'env>,
        bad: Option<&BadContents>,
    ) {
        let place = file.path;
        let inode = (node.stamp.device, node.stamp.inode);
        let read = bad.filter(|bad| file.blob == Some(inode) && !bad.is_unread(&file.digest));
        if let (Some(bad), None) = (read, file.own) {
            if let Some(outcome) = bad.get(inode) {
                judge(self.findings, (&self.manifest.object, place), file.digest, outcome.clone());
            }
            return;
        }
        let opened = match parent.open_file(name) {
            Ok(opened) => opened,
            Err(error) => return self.push(place, unreadable(&error)),
        };
        let (findings, object, path, expected) = (self.findings, self.manifest.object.clone(), file.path.to_owned(), file.digest);
        match file.own {
            None => hashing.hash(opened, node, move |outcome| {
                judge(findings, (&object, &path), expected, outcome.map(|digests| digests.digest));
            }),
            Some(SelfReferences { offsets, modulo }) => {
                let modulo = *modulo;
                let nameless = file.blob.is_none().then(|| name_in_blobs(&expected, file.executable));
                hashing.hash_own(opened, object.id, offsets.clone(), move |outcome| {
                    let is_right = outcome.as_ref().is_ok_and(|found| found.digest == expected);
                    if let Some(name) = nameless.filter(|_| is_right) {
                        findings.push(None, &name, Problem::Missing);
                    }
                    judge_own(findings, (&object, &path), (expected, modulo), outcome);
                });
            }
        }
    }

    /// What is under the name, if it is of the right kind; where times count, with the right one.
    fn inspect(&self, parent: &Directory, name: &OsStr, place: &str, expected: NodeKind) -> Option<Node> {
        match parent.node(name) {
            Ok(node) if node.kind == expected => {
                if matches!(self.depth, Depth::Full { .. }) && node.stamp.modified != OBJECT_TIME {
                    self.push(place, Problem::Time { found: node.stamp.modified });
                }
                Some(node)
            }
            Ok(node) => {
                self.push(place, Problem::Kind { expected: describe_kind(expected), found: describe_kind(node.kind) });
                None
            }
            Err(error) => {
                self.push(place, if error.is_missing() { Problem::Missing } else { unreadable(&error) });
                None
            }
        }
    }

    fn compare_mode(&self, place: &str, node: &Node, expected: u32) {
        if node.mode != expected {
            self.push(place, Problem::Mode { expected, found: node.mode });
        }
    }

    fn push(&self, place: &str, problem: Problem) {
        self.findings.push(Some(&self.manifest.object), place, problem);
    }
}

/// A file as the tree has it.
struct File<'a> {
    path: &'a str,
    digest: Digest,
    executable: bool,
    /// Device and inode of the content's name, if it has one.
    blob: Option<(u64, u64)>,
    own: Option<&'a SelfReferences>,
}

/// The open directory of this path. Directories above it are open or can be opened again; what lies beside the way is closed.
fn find_parent<'a>(
    open: &'a mut Vec<(String, Directory)>,
    closed: &mut BTreeSet<String>,
    path: &str,
    unopened: impl Fn(&str, &FsError),
) -> Option<&'a Directory> {
    while open.last().is_some_and(|(above, _)| !is_within(path, above)) {
        open.pop();
    }
    // Names sort between a directory and what is in it, `a-b` between `a` and `a/c`: then `a` was closed on the way.
    while open.last().is_some_and(|(above, _)| above.len() < path.len()) {
        let (above, directory) = open.last()?;
        let start = if above.is_empty() { 0 } else { above.len() + 1 };
        let end = path[start..].find('/').map_or(path.len(), |length| start + length);
        if closed.contains(&path[..end]) {
            return None;
        }
        match directory.open_child(OsStr::new(&path[start..end])) {
            Ok(next) => open.push((path[..end].to_owned(), next)),
            Err(error) => {
                // It was open before, and what is below it cannot be looked at now.
                unopened(&path[..end], &error);
                closed.insert(path[..end].to_owned());
                return None;
            }
        }
    }
    open.last().map(|(_, directory)| directory)
}

/// Whether a path is a directory or below it; everything is below the empty path.
fn is_within(path: &str, directory: &str) -> bool {
    directory.is_empty() || path.strip_prefix(directory).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Says what is wrong with a file of an object, if anything is.
pub(super) fn judge(findings: &Findings, (object, path): (&ObjectRef, &str), expected: Digest, outcome: Result<Digest, String>) {
    match outcome {
        Ok(found) if found == expected => {}
        Ok(found) => findings.push(Some(object), path, Problem::Content { expected, found }),
        Err(reason) => findings.push(Some(object), path, Problem::Unreadable { reason }),
    }
}

fn judge_own(findings: &Findings, (object, path): (&ObjectRef, &str), (expected, modulo): (Digest, Digest), outcome: Outcome) {
    match outcome {
        Ok(found) if found.digest == expected => {
            if found.modulo != modulo || !found.own_id_stands {
                findings.push(Some(object), path, Problem::SelfReferences);
            }
        }
        // The id vouches for these bytes, so it is the manifest that is wrong.
        Ok(found) if found.modulo == modulo && found.own_id_stands => {
            let reason = format!("its manifest has a wrong digest of `{}`", escape(path));
            findings.push(Some(object), ".", Problem::Manifest { reason });
        }
        other => judge(findings, (object, path), expected, other.map(|digests| digests.digest)),
    }
}

pub(super) fn unreadable(error: &FsError) -> Problem {
    Problem::Unreadable { reason: escape(&error.source.to_string()) }
}

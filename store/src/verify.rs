//! Compares what is on disk with what manifests say, and reports every difference.
//!
//! Nothing is repaired here, and nothing stops at the first difference. The quick check looks at names, kinds, sizes, modes and link
//! targets; the full one also hashes every byte. Times are not compared: they are not part of an object.
//! Files that share an inode are hashed once.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fmt;
use std::fs::Metadata;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::error::StoreError;
use crate::fsutil::Directory;
use crate::objects::{ObjectStore, object_of_name};
use crate::scan::{FileDigests, digests_of};
use crate::tree::{Entry, EntryKind, SelfReferences, Tree};
use crate::{Digest, ObjectManifest, ObjectRef, RelPath};

/// One difference between the disk and what should be there.
///
/// Shape: `Display` is one line, whatever names the disk holds.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// The object concerned, or nothing if the difference is outside of any.
    pub object: Option<ObjectRef>,
    /// Where: below the object, `.` for the object itself; without an object below the store's root. Unprintable characters are escaped.
    pub path: String,
    /// What is wrong.
    pub problem: Problem,
}

/// What is wrong with something on disk.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Problem {
    /// It should be there and is not.
    Missing,
    /// It is there and should not be.
    Extra,
    /// It is not a directory, file or symbolic link as it should be.
    Kind {
        /// What should be there.
        expected: &'static str,
        /// What is there.
        found: &'static str,
    },
    /// The file's length is wrong.
    Size {
        /// The length in the manifest, in bytes.
        expected: u64,
        /// The length on disk, in bytes.
        found: u64,
    },
    /// The permission bits are wrong.
    Mode {
        /// The bits that it should have.
        expected: u32,
        /// The bits that it has.
        found: u32,
    },
    /// The file's bytes are wrong.
    Content {
        /// The digest in the manifest, or in the name of a blob.
        expected: Digest,
        /// The digest of what is on disk.
        found: Digest,
    },
    /// The file's bytes are right, but what the manifest says about its references to the own object is not.
    SelfReferences,
    /// The symbolic link points elsewhere.
    Target {
        /// Where it should point.
        expected: String,
        /// Where it points, escaped.
        found: String,
    },
    /// The manifest is absent or damaged, so the content cannot be judged.
    Manifest {
        /// What is wrong with it.
        reason: String,
    },
    /// Another object that this one needs is not in the store.
    Reference {
        /// The absent object.
        reference: ObjectRef,
    },
    /// The index says something else than the manifest about what the object needs.
    Index,
    /// It cannot be read.
    Unreadable {
        /// The system's answer.
        reason: String,
    },
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.object {
            Some(object) if self.path == "." => write!(f, "`{object}` {}", self.problem),
            Some(object) => write!(f, "`{}` in `{object}` {}", self.path, self.problem),
            None => write!(f, "`{}` {}", self.path, self.problem),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("is missing"),
            Self::Extra => f.write_str("does not belong there"),
            Self::Kind { expected, found } => write!(f, "is {found}, should be {expected}"),
            Self::Size { expected, found } => write!(f, "has {found} bytes, should have {expected}"),
            Self::Mode { expected, found } => write!(f, "has mode {found:04o}, should have {expected:04o}"),
            Self::Content { expected, found } => write!(f, "has changed: its digest is {found}, should be {expected}"),
            Self::SelfReferences => f.write_str("does not name its own object where the manifest says"),
            Self::Target { expected, found } => write!(f, "points to `{found}`, should point to `{expected}`"),
            Self::Manifest { reason } => write!(f, "cannot be judged: {reason}"),
            Self::Reference { reference } => write!(f, "needs `{reference}`, which is missing"),
            Self::Index => f.write_str("has other references in the index than in its manifest"),
            Self::Unreadable { reason } => write!(f, "cannot be read: {reason}"),
        }
    }
}

impl ObjectStore {
    /// Re-hashes all objects and all contents, and looks for what does not belong.
    ///
    /// Shape: sorted, by object and path.
    /// Errors: [`StoreError`] only if the store as a whole cannot be read; what is wrong with an object is a finding.
    pub fn verify(&self) -> Result<Vec<Finding>, StoreError> {
        let mut findings = Vec::new();
        let mut objects: BTreeSet<ObjectRef> = self.objects()?.into_iter().collect();
        for name in Directory::open(&self.root().join("store"))?.names()? {
            match object_of_name(&name) {
                Some(object) => drop(objects.insert(object)),
                None => findings.push(stray(&Path::new("store").join(name))),
            }
        }
        let mut inodes = BTreeMap::new();
        for object in &objects {
            findings.extend(self.compare(object, &mut Depth::Full { inodes: &mut inodes })?);
        }
        self.verify_blobs(&mut inodes, &mut findings)?;
        findings.sort();
        Ok(findings)
    }

    /// Re-hashes one object.
    ///
    /// Errors: as [`Self::verify`].
    pub fn verify_object(&self, object: &ObjectRef) -> Result<Vec<Finding>, StoreError> {
        self.compare(object, &mut Depth::Full { inodes: &mut BTreeMap::new() })
    }

    /// Compares one object with its manifest without reading its files.
    ///
    /// Errors: as [`Self::verify`].
    pub fn check_object(&self, object: &ObjectRef) -> Result<Vec<Finding>, StoreError> {
        self.compare(object, &mut Depth::Quick)
    }

    fn compare(&self, object: &ObjectRef, depth: &mut Depth<'_>) -> Result<Vec<Finding>, StoreError> {
        // Keeps a collector from taking the object away halfway, which would look like damage.
        let _publication = self.share_publication()?;
        let finding = |problem| Finding { object: Some(object.clone()), path: ".".to_owned(), problem };
        if std::fs::symlink_metadata(self.object_path(object)).is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound) {
            // Removed since it was listed, unless the index still counts on it.
            let counted_on = self.objects()?.binary_search(object).is_ok() || matches!(depth, Depth::Quick);
            return Ok(if counted_on { vec![finding(Problem::Missing)] } else { Vec::new() });
        }
        let manifest = match self.manifest(object) {
            Ok(manifest) => manifest,
            Err(StoreError::Missing { .. }) => {
                return Ok(vec![finding(Problem::Manifest { reason: "its manifest is missing".to_owned() })]);
            }
            Err(StoreError::Damaged { source, .. }) => {
                return Ok(vec![finding(Problem::Manifest {
                    reason: format!("its manifest is damaged: {}", escape(&source.to_string())),
                })]);
            }
            Err(StoreError::WrongId { found, .. }) => {
                return Ok(vec![finding(Problem::Manifest { reason: format!("its manifest is that of {found}") })]);
            }
            Err(StoreError::File(error)) => return Ok(vec![finding(Problem::Unreadable { reason: escape(&error.source.to_string()) })]),
            Err(other) => return Err(other),
        };
        let mut findings = Vec::new();
        if self.index().references(&object.id)? != manifest.references.iter().cloned().collect() {
            findings.push(finding(Problem::Index));
        }
        for reference in &manifest.references {
            if self.find(&reference.id)?.as_ref() != Some(reference) {
                findings.push(finding(Problem::Reference { reference: reference.clone() }));
            }
        }
        let mut comparison = Comparison { manifest: &manifest, top: self.object_path(object), seen: BTreeSet::new(), findings };
        comparison.run(depth);
        comparison.findings.sort();
        Ok(comparison.findings)
    }

    /// Checks the contents that no object was seen to use, and that each content has its own name and mode.
    fn verify_blobs(&self, inodes: &mut Inodes, findings: &mut Vec<Finding>) -> Result<(), StoreError> {
        let blobs = Directory::open(&self.root().join("blobs"))?;
        for shard in blobs.names()? {
            let path = Path::new("blobs").join(&shard);
            let Ok(directory) = blobs.open_child(&shard) else {
                findings.push(stray(&path));
                continue;
            };
            for name in directory.names()? {
                let path = path.join(&name);
                let Some((expected, executable)) = blob_of_name(&shard, &name) else {
                    findings.push(stray(&path));
                    continue;
                };
                let problem = check_blob(&self.root().join(&path), &expected, executable, inodes);
                findings.extend(problem.map(|problem| Finding { object: None, path: escape(&path.to_string_lossy()), problem }));
            }
        }
        Ok(())
    }
}

/// The plain digest of what was hashed already, by device and inode.
type Inodes = BTreeMap<(u64, u64), Digest>;

/// How closely to look.
enum Depth<'a> {
    /// At names, kinds, sizes, modes, link targets.
    Quick,
    /// At every byte.
    Full { inodes: &'a mut Inodes },
}

/// The comparison of one object's directory with its tree.
struct Comparison<'a> {
    manifest: &'a ObjectManifest,
    top: PathBuf,
    seen: BTreeSet<RelPath>,
    findings: Vec<Finding>,
}

impl Comparison<'_> {
    fn run(&mut self, depth: &mut Depth<'_>) {
        self.compare_directory_node(".", &self.top.clone());
        let mut open: Vec<Option<RelPath>> = vec![None];
        while let Some(directory) = open.pop() {
            let path = directory.as_ref().map_or_else(|| self.top.clone(), |directory| self.top.join(directory.as_path()));
            let names = match Directory::open(&path).and_then(|directory| directory.names()) {
                Ok(names) => names,
                Err(error) => {
                    let place = directory.as_ref().map_or(".", |directory| directory.as_str());
                    self.push(place, Problem::Unreadable { reason: escape(&error.source.to_string()) });
                    continue;
                }
            };
            for name in names {
                open.extend(self.compare_name(directory.as_ref(), &name, depth).map(Some));
            }
        }
        self.report_missing();
    }

    /// Compares one name on disk; returns it if it is a directory to look into.
    fn compare_name(&mut self, directory: Option<&RelPath>, name: &OsString, depth: &mut Depth<'_>) -> Option<RelPath> {
        let text = name.to_string_lossy();
        let text = directory.map_or_else(|| text.to_string(), |directory| format!("{directory}/{text}"));
        let tree: &Tree = &self.manifest.tree;
        let known = name.to_str().and_then(|_| text.parse::<RelPath>().ok()).and_then(|path| tree.get(&path));
        let Some(entry) = known else {
            self.push(&text, Problem::Extra);
            return None;
        };
        self.seen.insert(entry.path.clone());
        let path = self.top.join(entry.path.as_path());
        match &entry.kind {
            EntryKind::Directory => self.compare_directory_node(entry.path.as_str(), &path).then(|| entry.path.clone()),
            EntryKind::Symlink { target, self_offsets: _ } => {
                self.compare_link(&entry.path, target, &path);
                None
            }
            EntryKind::File { .. } => {
                self.compare_file(&entry, &path, depth);
                None
            }
        }
    }

    /// Returns whether it is a directory at all.
    fn compare_directory_node(&mut self, place: &str, path: &Path) -> bool {
        let Some(metadata) = self.inspect(place, path, "a directory", Metadata::is_dir) else { return false };
        self.compare_mode(place, &metadata, 0o555);
        true
    }

    fn compare_link(&mut self, place: &RelPath, target: &str, path: &Path) {
        if self.inspect(place.as_str(), path, "a symbolic link", Metadata::is_symlink).is_none() {
            return;
        }
        match std::fs::read_link(path) {
            Ok(found) if found.as_os_str().as_bytes() == target.as_bytes() => {}
            Ok(found) => {
                let found = escape(&found.to_string_lossy());
                self.push(place.as_str(), Problem::Target { expected: escape(target), found });
            }
            Err(error) => self.push(place.as_str(), Problem::Unreadable { reason: error.to_string() }),
        }
    }

    fn compare_file(&mut self, entry: &Entry, path: &Path, depth: &mut Depth<'_>) {
        let EntryKind::File { size, digest, executable, self_references } = &entry.kind else { return };
        let place = entry.path.as_str();
        let Some(metadata) = self.inspect(place, path, "a file", Metadata::is_file) else { return };
        self.compare_mode(place, &metadata, if *executable { 0o555 } else { 0o444 });
        if metadata.len() != *size {
            self.push(place, Problem::Size { expected: *size, found: metadata.len() });
            return;
        }
        let Depth::Full { inodes } = depth else { return };
        let found = match self_references {
            None => hash_once(path, &metadata, inodes),
            Some(SelfReferences { offsets, modulo }) => self.hash_file(path, offsets).map(|digests| {
                if digests.digest == *digest && (digests.modulo != *modulo || !digests.own_id_stands) {
                    self.push(place, Problem::SelfReferences);
                }
                inodes.insert((metadata.dev(), metadata.ino()), digests.digest);
                digests.digest
            }),
        };
        match found {
            Ok(found) if found == *digest => {}
            Ok(found) => self.push(place, Problem::Content { expected: *digest, found }),
            Err(reason) => self.push(place, Problem::Unreadable { reason }),
        }
    }

    fn hash_file(&self, path: &Path, offsets: &[u64]) -> Result<FileDigests, String> {
        hash(path, offsets, &self.manifest.object)
    }

    /// What is at `path`, if it is of the right kind.
    fn inspect(&mut self, place: &str, path: &Path, expected: &'static str, is_right: fn(&Metadata) -> bool) -> Option<Metadata> {
        match std::fs::symlink_metadata(path) {
            Ok(metadata) if is_right(&metadata) => Some(metadata),
            Ok(metadata) => {
                self.push(place, Problem::Kind { expected, found: kind_of(&metadata) });
                None
            }
            Err(error) => {
                self.push(place, Problem::Unreadable { reason: error.to_string() });
                None
            }
        }
    }

    fn compare_mode(&mut self, place: &str, metadata: &Metadata, expected: u32) {
        let found = mode_of(metadata);
        if found != expected {
            self.push(place, Problem::Mode { expected, found });
        }
    }

    /// Reports entries without a name on disk; below a directory that is missing itself, nothing more is said.
    fn report_missing(&mut self) {
        let manifest = self.manifest;
        for entry in manifest.tree.entries() {
            let parent_seen = entry.path.parent().is_none_or(|parent| self.seen.contains(&parent));
            if parent_seen && !self.seen.contains(&entry.path) {
                self.push(entry.path.as_str(), Problem::Missing);
            }
        }
    }

    fn push(&mut self, place: &str, problem: Problem) {
        self.findings.push(Finding { object: Some(self.manifest.object.clone()), path: escape(place), problem });
    }
}

fn hash(path: &Path, offsets: &[u64], object: &ObjectRef) -> Result<FileDigests, String> {
    let file = std::fs::File::open(path).map_err(|error| error.to_string())?;
    digests_of(&file, offsets, &object.id, path).map_err(|error| error.source.to_string())
}

/// The digest of a file without references to its own object; each inode is read once.
fn hash_once(path: &Path, metadata: &Metadata, inodes: &mut Inodes) -> Result<Digest, String> {
    let inode = (metadata.dev(), metadata.ino());
    if let Some(known) = inodes.get(&inode) {
        return Ok(*known);
    }
    let mut hasher = blake3::Hasher::new();
    let file = std::fs::File::open(path).map_err(|error| error.to_string())?;
    let digest = Digest::from(hasher.update_reader(file).map_err(|error| error.to_string())?.finalize());
    inodes.insert(inode, digest);
    Ok(digest)
}

/// Checks one content under its name.
fn check_blob(path: &Path, expected: &Digest, executable: bool, inodes: &mut Inodes) -> Option<Problem> {
    let metadata = match std::fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_file() => metadata,
        Ok(metadata) => return Some(Problem::Kind { expected: "a file", found: kind_of(&metadata) }),
        // A collector was faster.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
        Err(error) => return Some(Problem::Unreadable { reason: error.to_string() }),
    };
    let mode = if executable { 0o555 } else { 0o444 };
    match hash_once(path, &metadata, inodes) {
        Err(reason) => Some(Problem::Unreadable { reason }),
        Ok(found) if found != *expected => Some(Problem::Content { expected: *expected, found }),
        Ok(_) if mode_of(&metadata) != mode => Some(Problem::Mode { expected: mode, found: mode_of(&metadata) }),
        Ok(_) => None,
    }
}

/// What a name under `blobs/` promises: the digest, and whether the file is executable.
pub(crate) fn blob_of_name(shard: &std::ffi::OsStr, name: &std::ffi::OsStr) -> Option<(Digest, bool)> {
    let (shard, name) = (shard.to_str()?, name.to_str()?);
    let (text, executable) = name.strip_suffix('x').map_or((name, false), |text| (text, true));
    let digest = text.parse().ok()?;
    (shard.len() == 2 && text.starts_with(shard)).then_some((digest, executable))
}

fn stray(path: &Path) -> Finding {
    Finding { object: None, path: escape(&path.to_string_lossy()), problem: Problem::Extra }
}

fn mode_of(metadata: &Metadata) -> u32 {
    metadata.permissions().mode() & 0o7777
}

fn kind_of(metadata: &Metadata) -> &'static str {
    match () {
        () if metadata.is_dir() => "a directory",
        () if metadata.is_file() => "a file",
        () if metadata.is_symlink() => "a symbolic link",
        () => "a special file",
    }
}

/// Makes any text fit into one line.
fn escape(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { c.escape_default().to_string() } else { c.to_string() }).collect()
}

#[cfg(test)]
mod tests;

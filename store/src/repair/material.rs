//! Where good manifests and contents may be: in this store under another name, in other stores, in exports.
//!
//! Nothing found here is believed. A manifest has to give the id that is looked for; a content is hashed while it is copied.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use super::{RepairError, Source};
use crate::error::StoreError;
use crate::fsutil::{self, FsError};
use crate::objects::ObjectStore;
use crate::pack;
use crate::transaction::Transaction;
use crate::{Digest, ObjectManifest, ObjectRef};

/// How many files that should have a content are tried. They are mostly one inode.
const HOLDERS_MAX: usize = 64;

/// How much of a file is copied at a time, in bytes.
const COPY_BYTES: usize = 256 << 10;

/// The sources, as roots of stores.
#[derive(Debug)]
pub(super) struct Material {
    roots: Vec<PathBuf>,
}

impl Material {
    /// Makes sources ready; an export is unpacked into a store of its own, which goes with the transaction.
    pub(super) fn open(sources: &[Source], transaction: &mut Transaction) -> Result<Self, RepairError> {
        let mut roots = Vec::new();
        for source in sources {
            match source {
                Source::Store(root) => roots.push(root.clone()),
                Source::Export(path) => {
                    let root = transaction.scratch("export")?;
                    let file = fsutil::open_plain_file(path)?;
                    let store = ObjectStore::open(&root)?;
                    pack::unpack_unsigned(&store, file)
                        .map_err(|source| RepairError::Export { path: path.clone(), source: Box::new(source) })?;
                    roots.push(root);
                }
            }
        }
        Ok(Self { roots })
    }

    /// The manifest of an object, if a source has it.
    pub(super) fn manifest(&self, object: &ObjectRef) -> Option<ObjectManifest> {
        self.roots.iter().find_map(|root| {
            let file = fsutil::open_plain_file(&root.join("trees").join(object.id.to_string())).ok()?;
            let length = file.metadata().ok()?.len();
            ObjectManifest::decode_from(file, length).ok().filter(|manifest| manifest.object == *object)
        })
    }

    /// Files that should have a content, the likely ones first.
    pub(super) fn places_of(&self, store: &ObjectStore, digest: &Digest, holders: &Holders) -> Vec<PathBuf> {
        let mut places = Vec::new();
        let roots = std::iter::once(store.root()).chain(self.roots.iter().map(PathBuf::as_path));
        for root in roots {
            for executable in [false, true] {
                places.push(root.join(crate::verify::name_in_blobs(digest, executable)));
            }
            places.extend(holders.of(digest).iter().map(|path| root.join(path)));
        }
        places
    }
}

/// Which files of which objects should have some contents, by their manifests: paths below the root.
#[derive(Debug, Default)]
pub(super) struct Holders(BTreeMap<Digest, Vec<PathBuf>>);

impl Holders {
    /// Looks through manifests for those contents.
    pub(super) fn find<'a>(wanted: &BTreeSet<Digest>, manifests: impl Iterator<Item = &'a ObjectManifest>) -> Self {
        let mut holders = Self::default();
        for manifest in manifests {
            holders.add(wanted, manifest);
        }
        holders
    }

    /// Adds the files of one object.
    pub(super) fn add(&mut self, wanted: &BTreeSet<Digest>, manifest: &ObjectManifest) {
        for (position, file) in manifest.tree.files() {
            if !wanted.contains(&file.digest) {
                continue;
            }
            let paths = self.0.entry(file.digest).or_default();
            if let Some(path) = manifest.tree.path(position).filter(|_| paths.len() < HOLDERS_MAX) {
                paths.push(Path::new("store").join(manifest.object.to_string()).join(path.as_path()));
            }
        }
    }

    fn of(&self, digest: &Digest) -> &[PathBuf] {
        self.0.get(digest).map_or(&[], Vec::as_slice)
    }
}

/// Whether a file has this content. One that cannot be read has not.
pub(super) fn has_content(path: &Path, digest: &Digest) -> bool {
    let hash = || {
        let mut hasher = blake3::Hasher::new();
        hasher.update_reader(fsutil::open_plain_file(path).ok()?).ok()?;
        Some(Digest::from(hasher.finalize()))
    };
    hash() == Some(*digest)
}

/// Copies a file to `target`, which must not exist, with the mode and time of objects; returns whether it has the content, and leaves nothing otherwise.
pub(super) fn copy_if_right(source: &Path, digest: &Digest, executable: bool, target: &Path) -> Result<bool, StoreError> {
    let Ok(mut source) = fsutil::open_plain_file(source) else { return Ok(false) };
    let mut file = fsutil::create_own_file(target)?;
    let is_right = copy_hashed(&mut source, &mut file, target)? == Some(*digest);
    if is_right {
        fsutil::freeze_file(&file, executable, target)?;
    } else {
        fsutil::remove_file(target)?;
    }
    Ok(is_right)
}

/// Copies and hashes; nothing if the source cannot be read to its end.
fn copy_hashed(source: &mut File, target: &mut File, shown: &Path) -> Result<Option<Digest>, FsError> {
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; COPY_BYTES];
    loop {
        match source.read(&mut buffer) {
            Ok(0) => return Ok(Some(Digest::from(hasher.finalize()))),
            Ok(length) => {
                hasher.update(&buffer[..length]);
                target.write_all(&buffer[..length]).map_err(|error| FsError::new("write", shown, error))?;
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => return Ok(None),
        }
    }
}

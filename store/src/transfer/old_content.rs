//! Old contents, as files of objects that both sides have. They count only if they have their digest: a damaged one makes wrong deltas.

use std::fs::File;
use std::io::Read;

use crate::Digest;
use crate::object::ObjectManifest;
use crate::objects::ObjectStore;
use crate::scan::digests_of;
use crate::tree::FileFacts;

/// The file at this position of the object's tree, if it is there and whole.
pub(crate) fn open_base(store: &ObjectStore, manifest: &ObjectManifest, position: usize) -> Option<File> {
    let digest = manifest.tree.file(position)?.digest;
    let path = store.object_path(&manifest.object).join(manifest.tree.path(position)?.as_path());
    let file = File::open(&path).ok()?;
    let found = digests_of(&file, &[], &manifest.object.id, &path).ok()?;
    (found.digest == digest).then_some(file)
}

/// Its content. The caller has checked that its length is not too much.
pub(crate) fn read_base(store: &ObjectStore, manifest: &ObjectManifest, position: usize) -> Option<Vec<u8>> {
    let FileFacts { digest, size, executable: _ } = manifest.tree.file(position)?;
    let mut content = Vec::with_capacity(usize::try_from(size).ok()?);
    let file = File::open(store.object_path(&manifest.object).join(manifest.tree.path(position)?.as_path())).ok()?;
    file.take(size.saturating_add(1)).read_to_end(&mut content).ok()?;
    (Digest::of(&content) == digest).then_some(content)
}

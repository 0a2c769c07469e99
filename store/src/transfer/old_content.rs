//! Old contents, as files of objects that both sides have. They count only if they have their digest: a damaged one makes wrong deltas.

use super::stores::{Objects, ReadAt};
use crate::Digest;
use crate::object::ObjectManifest;
use crate::tree::FileFacts;

/// How much is read at a time to compute a digest, in bytes.
const READ_BYTES: usize = 256 << 10;

/// The file at this position of the object's tree, if it is there and whole.
pub(crate) fn open_base<S: Objects>(store: &S, manifest: &ObjectManifest, position: usize) -> Option<S::File> {
    let FileFacts { digest, size, executable: _ } = manifest.tree.file(position)?;
    let file = store.open(&manifest.object, &manifest.tree.path(position)?).ok()?;
    if file.length().ok()? != size {
        return None;
    }
    let mut hasher = blake3::Hasher::new();
    let mut chunk = vec![0; READ_BYTES.min(usize::try_from(size).unwrap_or(READ_BYTES))];
    let mut done = 0;
    while done < size {
        let length = usize::try_from(size - done).map_or(chunk.len(), |left| left.min(chunk.len()));
        file.read_exact_at(&mut chunk[..length], done).ok()?;
        hasher.update(&chunk[..length]);
        done += length as u64;
    }
    (Digest::from(hasher.finalize()) == digest).then_some(file)
}

/// Its content. The caller has checked that its length is not too much.
pub(crate) fn read_base<S: Objects>(store: &S, manifest: &ObjectManifest, position: usize) -> Option<Vec<u8>> {
    let FileFacts { digest, size, executable: _ } = manifest.tree.file(position)?;
    let file = store.open(&manifest.object, &manifest.tree.path(position)?).ok()?;
    if file.length().ok()? != size {
        return None;
    }
    let mut content = vec![0; usize::try_from(size).ok()?];
    file.read_exact_at(&mut content, 0).ok()?;
    (Digest::of(&content) == digest).then_some(content)
}

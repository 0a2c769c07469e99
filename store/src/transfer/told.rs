//! Manifests as they travel: told by the manifest of an object that both sides have, without the digests that the receiver computes anyway.
//!
//! An update changes few of the entries of a tree, and of a changed file only its length is news: the digest follows from the content, which travels too.
//! The result counts only if it gives the object's id, so nothing here is believed; what is checked here is the form, and that nobody
//! is made to hold more than the limits. A receiver walks twice over what it was told: first to see what is to come, then, with
//! the digests of what came, to build the tree. FORMAT.md, section "Told manifests".

mod encode;

use std::ops::Range;
use std::sync::Arc;

pub(crate) use encode::{CommonContents, Elision, Telling, tell};

use super::TransferError;
use super::limits::{ENTRIES_MAX, MANIFEST_BYTES_MAX};
use super::varint::{decode_varint, unzigzag};
use crate::canon::DecodeError;
use crate::object::{ObjectManifest, REFERENCES_MAX};
use crate::path::PATH_BYTES_MAX;
use crate::tree::{Cursor, EntryView, KindView, SELF_REFERENCES_MAX, SelfReferences, TreeBuilder};
use crate::{Digest, ObjectId, ObjectRef};

/// Operations, as the number modulo four.
mod operation {
    pub(super) const KEEP: u64 = 0;
    pub(super) const DROP: u64 = 1;
    /// Of a reference: one that follows in full.
    pub(super) const CHANGE: u64 = 2;
    /// Of a reference: one of the listed objects.
    pub(super) const ADD: u64 = 3;
}

/// What a file of a stored manifest takes beside its path, in bytes: tag, lengths, digest.
const ENTRY_BYTES: u64 = 57;

/// A manifest that was told, not yet understood.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) object: ObjectRef,
    pub(crate) base: Option<Arc<ObjectManifest>>,
    pub(crate) bytes: Vec<u8>,
    pub(crate) context: Context,
}

/// A content that a told manifest names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Named {
    /// It is to come, the so-manieth.
    New(usize),
    /// Its digest is told.
    Known(Digest),
}

/// A file, as it was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ToldFile {
    pub(crate) content: Named,
    pub(crate) size: u64,
    /// The position of the file at the same path in the base.
    pub(crate) same_path: Option<usize>,
}

/// What is counted over all manifests of one transfer.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// The sizes of the new contents so far.
    pub(crate) sizes: Vec<u64>,
    entries: u64,
    bytes: u64,
}

/// What the peers agreed on before manifests are told.
#[derive(Debug, Clone)]
pub(crate) struct Context {
    /// The objects that were listed.
    pub(crate) listed: Arc<[ObjectRef]>,
    /// Whether digests may be left out.
    pub(crate) blind: bool,
}

impl Tally {
    pub(crate) const fn new() -> Self {
        Self { sizes: Vec::new(), entries: 0, bytes: 0 }
    }

    /// How many entries were told.
    pub(crate) const fn entries(&self) -> u64 {
        self.entries
    }
}

impl Told {
    /// Sees what is told of the files, in order, and checks the form.
    pub(crate) fn survey(
        &self,
        tally: &mut Tally,
        mut file: impl FnMut(ToldFile) -> Result<(), TransferError>,
    ) -> Result<(), TransferError> {
        let mut walk = Walk { bytes: &self.bytes, base: self.base.as_deref(), context: &self.context, tally };
        walk.references()?;
        let mut previous = String::new();
        walk.entries(&mut previous, |_, item| if let Item::File { file: told, .. } = item { file(told) } else { Ok(()) })
    }

    /// Builds the manifest; `digests` are those of the new contents, in order.
    pub(crate) fn build(&self, tally: &mut Tally, digests: &[Digest]) -> Result<ObjectManifest, TransferError> {
        let mut walk = Walk { bytes: &self.bytes, base: self.base.as_deref(), context: &self.context, tally };
        let references = walk.references()?;
        let invalid = |source| TransferError::Manifest { object: self.object.clone(), source };
        let sorted = references.windows(2).all(|pair| pair[0] < pair[1]) && !references.iter().any(|other| other.id == self.object.id);
        if !sorted {
            return Err(invalid(DecodeError::invalid(
                "the references are not sorted, or hold the object itself",
                self.object.name.as_str(),
            )));
        }
        let mut builder = TreeBuilder::new();
        let mut previous = String::new();
        walk.entries(&mut previous, |path, item| {
            let digest;
            let kind = match &item {
                Item::Other(kind) => *kind,
                Item::Symlink { target, self_offsets } => KindView::Symlink { target, self_offsets },
                Item::File { file, executable, own } => {
                    digest = match file.content {
                        Named::Known(digest) => digest,
                        Named::New(number) => *digests.get(number).ok_or_else(|| malformed("a content has not come"))?,
                    };
                    KindView::File { size: file.size, digest: &digest, executable: *executable, self_references: own.as_ref() }
                }
            };
            builder.push(path, kind).map(drop).map_err(invalid)
        })?;
        let manifest = ObjectManifest { object: self.object.clone(), references, tree: builder.finish().map_err(invalid)? };
        if manifest.id() != self.object.id {
            let problem =
                "what came does not give its id; try again, and if it stays so run `sarsen store verify` on the sending side".to_owned();
            return Err(TransferError::Refused { object: self.object.clone(), problem });
        }
        manifest.tree.check_link_self_references(&self.object.id).map_err(invalid)?;
        Ok(manifest)
    }
}

/// What a told entry is.
enum Item<'a> {
    /// A directory, or a link of the base.
    Other(KindView<'a>),
    Symlink {
        target: &'a str,
        self_offsets: Vec<u64>,
    },
    File {
        file: ToldFile,
        executable: bool,
        own: Option<SelfReferences>,
    },
}

/// One walk over a told manifest.
struct Walk<'a, 't> {
    bytes: &'a [u8],
    base: Option<&'a ObjectManifest>,
    context: &'a Context,
    tally: &'t mut Tally,
}

impl<'a> Walk<'a, '_> {
    fn references(&mut self) -> Result<Vec<ObjectRef>, TransferError> {
        let old: &[ObjectRef] = self.base.map_or(&[], |base| &base.references);
        let mut references: Vec<ObjectRef> = Vec::new();
        let mut place = 0;
        loop {
            let (kind, count) = match self.number()? {
                0 => break,
                number => (number % 4, number / 4),
            };
            match kind {
                operation::KEEP => references.extend_from_slice(&old[run_of(old.len(), &mut place, count)?]),
                operation::DROP => {
                    run_of(old.len(), &mut place, count)?;
                }
                operation::CHANGE if count == 0 => {
                    let id = ObjectId::from_bytes(self.fixed(20)?.try_into().map_err(|_| malformed("an id is cut off"))?);
                    let name = self.text()?;
                    let name = name.parse().map_err(|_| DecodeError::invalid("unusable object name", name))?;
                    references.push(ObjectRef { id, name });
                }
                operation::ADD => {
                    let listed = usize::try_from(count).ok().and_then(|position| self.context.listed.get(position));
                    references.push(listed.ok_or_else(|| malformed("a reference is not one of the listed objects"))?.clone());
                }
                _ => return Err(malformed("an unknown operation on references")),
            }
            limit("references of an object", references.len() as u64, REFERENCES_MAX)?;
        }
        let bytes = references.iter().map(|reference| 28 + reference.name.as_str().len() as u64).sum();
        self.spend(0, bytes)?;
        if place == old.len() { Ok(references) } else { Err(malformed("a told manifest leaves references of its base open")) }
    }

    /// Hands out the entries, in order; `path` is reused from one to the next.
    fn entries(
        &mut self,
        path: &mut String,
        mut each: impl FnMut(&str, Item<'_>) -> Result<(), TransferError>,
    ) -> Result<(), TransferError> {
        let base = self.base;
        let old = base.map_or(0, |base| base.tree.len());
        let mut place = 0;
        loop {
            let (kind, count) = match self.number()? {
                0 => break,
                number => (number % 4, number / 4),
            };
            match kind {
                operation::KEEP => {
                    let run = run_of(old, &mut place, count)?;
                    let mut cursor = base.map(|base| base.tree.cursor_at(run.start));
                    for position in run.clone() {
                        let Some(entry) = cursor.as_mut().and_then(Cursor::next) else { break };
                        self.spend(1, stored_bytes(&entry))?;
                        each(entry.path, kept(&entry))?;
                        if position + 1 == run.end {
                            entry.path.clone_into(path);
                        }
                    }
                }
                operation::DROP => {
                    run_of(old, &mut place, count)?;
                }
                operation::CHANGE => {
                    let position = run_of(old, &mut place, 1)?.start;
                    let mut cursor = base.map(|base| base.tree.cursor_at(position));
                    let entry = cursor.as_mut().and_then(Cursor::next);
                    let Some(EntryView { path: old_path, kind: KindView::File { size, self_references, .. }, .. }) = entry else {
                        return Err(malformed("a told manifest changes what is no file"));
                    };
                    old_path.clone_into(path);
                    let executable = executable(count)?;
                    let size =
                        size.checked_add_signed(unzigzag(self.number()?)).ok_or_else(|| malformed("a file has an impossible size"))?;
                    each(path, self.file(size, executable, Some(position), self_references, path.len())?)?;
                }
                _ => {
                    self.path(path)?;
                    let item = self.added(count, path)?;
                    each(path, item)?;
                }
            }
        }
        match (self.bytes.is_empty(), place == old) {
            (true, true) => Ok(()),
            (false, _) => Err(malformed("a told manifest goes on after its end")),
            (true, false) => Err(malformed("a told manifest leaves entries of its base open")),
        }
    }

    /// The path of an added entry, told by that of the one before.
    fn path(&mut self, path: &mut String) -> Result<(), TransferError> {
        let common = usize::try_from(self.number()?).unwrap_or(usize::MAX);
        let rest = self.text()?;
        if !path.is_char_boundary(common) {
            return Err(malformed("a path has more in common with the one before than that is long"));
        }
        path.truncate(common);
        limit("bytes of a path", (common + rest.len()) as u64, PATH_BYTES_MAX as u64)?;
        path.push_str(rest);
        Ok(())
    }

    fn added(&mut self, tag: u64, path: &str) -> Result<Item<'a>, TransferError> {
        match tag {
            0 => {
                self.spend(1, ENTRY_BYTES + path.len() as u64)?;
                Ok(Item::Other(KindView::Directory))
            }
            1 | 2 => {
                let size = self.number()?;
                let same_path = self.base.and_then(|base| position_of(base, path));
                self.file(size, tag == 2, same_path, None, path.len())
            }
            3 => {
                let target = self.text()?;
                let count = self.number()?;
                let self_offsets = self.places(count)?;
                self.spend(1, ENTRY_BYTES + (path.len() + target.len() + 8 * self_offsets.len()) as u64)?;
                Ok(Item::Symlink { target, self_offsets })
            }
            _ => Err(malformed("an entry is of an unknown kind")),
        }
    }

    fn file(
        &mut self,
        size: u64,
        executable: bool,
        same_path: Option<usize>,
        old_own: Option<&SelfReferences>,
        path_bytes: usize,
    ) -> Result<Item<'a>, TransferError> {
        let content = self.content(size)?;
        let own = match (self.number()?, old_own) {
            (0, _) => None,
            (1, old @ Some(_)) => old.cloned(),
            (1, None) => return Err(malformed("a file has the own references of one that has none")),
            (number, _) => {
                let offsets = self.places(number - 1)?;
                Some(SelfReferences { offsets, modulo: self.digest()? })
            }
        };
        let offsets = own.as_ref().map_or(0, |own| own.offsets.len());
        self.spend(1, ENTRY_BYTES + (path_bytes + 8 * offsets) as u64)?;
        Ok(Item::File { file: ToldFile { content, size, same_path }, executable, own })
    }

    fn content(&mut self, size: u64) -> Result<Named, TransferError> {
        let number = self.number()?;
        match (number, number % 2) {
            (0, _) if self.context.blind => {
                self.tally.sizes.push(size);
                Ok(Named::New(self.tally.sizes.len() - 1))
            }
            (0, _) => Err(malformed("a digest is left out that was asked for")),
            (1, _) => self.digest().map(Named::Known),
            (_, 0) => {
                let position = usize::try_from(number / 2 - 1).unwrap_or(usize::MAX);
                let file = self.base.and_then(|base| base.tree.file(position));
                file.map(|file| Named::Known(file.digest)).ok_or_else(|| malformed("a content is that of no file of the base"))
            }
            _ => {
                let back = usize::try_from((number - 1) / 2).unwrap_or(usize::MAX);
                let number =
                    self.tally.sizes.len().checked_sub(back).ok_or_else(|| malformed("a content is that of one that was not told"))?;
                match self.tally.sizes.get(number) {
                    Some(known) if *known == size => Ok(Named::New(number)),
                    _ => Err(malformed("a content has two sizes")),
                }
            }
        }
    }

    fn places(&mut self, count: u64) -> Result<Vec<u64>, TransferError> {
        limit("own references", count, SELF_REFERENCES_MAX)?;
        let mut places = Vec::new();
        let mut end = 0u64;
        for _ in 0..count {
            let place = end.checked_add(self.number()?).ok_or_else(|| malformed("an own reference is out of all bounds"))?;
            places.push(place);
            end = place.saturating_add(crate::id::ID_CHARS as u64);
        }
        Ok(places)
    }

    /// Counts what a walk makes its caller hold.
    fn spend(&mut self, entries: u64, bytes: u64) -> Result<(), TransferError> {
        self.tally.entries += entries;
        self.tally.bytes = self.tally.bytes.saturating_add(bytes);
        limit("entries of manifests", self.tally.entries, ENTRIES_MAX)?;
        limit("bytes of manifests", self.tally.bytes, MANIFEST_BYTES_MAX)
    }

    fn number(&mut self) -> Result<u64, TransferError> {
        decode_varint(&mut self.bytes).ok_or_else(|| malformed("a told manifest is cut off"))
    }

    fn fixed(&mut self, length: usize) -> Result<&'a [u8], TransferError> {
        let (now, later) = self.bytes.split_at_checked(length).ok_or_else(|| malformed("a told manifest is cut off"))?;
        self.bytes = later;
        Ok(now)
    }

    fn text(&mut self) -> Result<&'a str, TransferError> {
        let length = usize::try_from(self.number()?).unwrap_or(usize::MAX);
        std::str::from_utf8(self.fixed(length)?).map_err(|_| malformed("a text is not UTF-8"))
    }

    fn digest(&mut self) -> Result<Digest, TransferError> {
        Ok(Digest::from_bytes(self.fixed(32)?.try_into().map_err(|_| malformed("a digest is cut off"))?))
    }
}

fn kept<'e>(entry: &EntryView<'e>) -> Item<'e> {
    match entry.kind {
        KindView::File { size, digest, executable, self_references } => Item::File {
            file: ToldFile { content: Named::Known(*digest), size, same_path: Some(entry.position) },
            executable,
            own: self_references.cloned(),
        },
        kind @ (KindView::Directory | KindView::Symlink { .. }) => Item::Other(kind),
    }
}

/// The positions of the next `count` items of a base of `length`, at least one.
fn run_of(length: usize, place: &mut usize, count: u64) -> Result<Range<usize>, TransferError> {
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    let end = place.checked_add(count).filter(|end| *end <= length && *end > *place);
    let end = end.ok_or_else(|| malformed("a told manifest goes beyond its base"))?;
    Ok(std::mem::replace(place, end)..end)
}

/// Where a content of this digest first is, for an error.
pub(crate) fn path_of(told: &Told, digest: &Digest) -> String {
    let mut found = None;
    let mut tally = Tally::new();
    let mut walk = Walk { bytes: &told.bytes, base: told.base.as_deref(), context: &told.context, tally: &mut tally };
    // What cannot be understood without the other manifests ends the search.
    let _ = walk.references().and_then(|_| {
        walk.entries(&mut String::new(), |path, item| {
            if let Item::File { file: ToldFile { content: Named::Known(known), .. }, .. } = item
                && known == *digest
                && found.is_none()
            {
                found = Some(path.to_owned());
            }
            Ok(())
        })
    });
    found.unwrap_or_else(|| "a file".to_owned())
}

/// Where the base has a file at this path.
fn position_of(base: &ObjectManifest, path: &str) -> Option<usize> {
    base.tree.position(path).filter(|position| base.tree.file(*position).is_some())
}

fn executable(flag: u64) -> Result<bool, TransferError> {
    match flag {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(malformed("a file is neither executable nor not")),
    }
}

/// What an entry takes in a stored manifest, at most.
fn stored_bytes(entry: &EntryView<'_>) -> u64 {
    let more = match entry.kind {
        KindView::Directory => 0,
        KindView::File { self_references, .. } => self_references.map_or(0, |own| 8 * own.offsets.len()),
        KindView::Symlink { target, self_offsets } => target.len() + 8 * self_offsets.len(),
    };
    ENTRY_BYTES + (entry.path.len() + more) as u64
}

fn limit(what: &'static str, actual: u64, limit: u64) -> Result<(), TransferError> {
    if actual > limit { Err(TransferError::Limit { what, actual, limit }) } else { Ok(()) }
}

const fn malformed(what: &'static str) -> TransferError {
    TransferError::Malformed { what }
}

#[cfg(test)]
mod tests;

//! Tells a manifest by its base: one merge of two sorted lists.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use super::super::varint::{encode_varint, zigzag};
use super::operation::{ADD, CHANGE, DROP, KEEP};
use crate::id::ID_CHARS;
use crate::object::ObjectManifest;
use crate::tree::{Cursor, EntryView, KindView, SelfReferences};
use crate::{Digest, ObjectRef};

/// Whether digests are left out.
#[derive(Debug)]
pub(crate) enum Elision {
    /// Never.
    None,
    /// Those of contents that no common object has.
    New(CommonContents),
}

/// The contents of the objects that both sides have, by the first bytes of their digests: who takes a new content for a known one
/// causes a question, nothing else.
#[derive(Debug, Default)]
pub(crate) struct CommonContents {
    sorted: Vec<u64>,
}

impl CommonContents {
    /// Of the fronts of their digests.
    pub(crate) fn of(mut sorted: Vec<u64>) -> Self {
        sorted.sort_unstable();
        sorted.dedup();
        Self { sorted }
    }

    fn contains(&self, digest: &Digest) -> bool {
        self.sorted.binary_search(&Self::front(digest)).is_ok()
    }

    pub(crate) fn front(digest: &Digest) -> u64 {
        digest.as_bytes().first_chunk().map_or(0, |front| u64::from_le_bytes(*front))
    }
}

/// What was told so far.
#[derive(Debug)]
pub(crate) struct Telling<'a> {
    /// Where each listed object stands.
    listed: BTreeMap<&'a ObjectRef, usize>,
    elision: Elision,
    /// The new contents, by digest.
    numbers: BTreeMap<Digest, usize>,
    /// Where each new content first occurs: the object, and the entry in its tree.
    pub(crate) new: Vec<(usize, usize)>,
}

impl<'a> Telling<'a> {
    pub(crate) fn new(listed: &'a [ObjectRef], elision: Elision) -> Self {
        let listed = listed.iter().enumerate().map(|(position, object)| (object, position)).collect();
        Self { listed, elision, numbers: BTreeMap::new(), new: Vec::new() }
    }
}

/// Tells `manifest`, the so-manieth of the transfer.
pub(crate) fn tell(telling: &mut Telling<'_>, manifest: &ObjectManifest, object: usize, base: Option<&ObjectManifest>) -> Vec<u8> {
    let mut teller = Teller { telling, object, base, by_digest: None, bytes: Vec::new() };
    teller.references(&manifest.references);
    teller.entries(manifest);
    let rest = teller.bytes;
    let mut told = Vec::with_capacity(rest.len() + 32);
    encode_varint(&mut told, u64::from(base.is_some()));
    if let Some(base) = base {
        told.extend(base.object.id.as_bytes());
    }
    encode_varint(&mut told, rest.len() as u64);
    told.extend(rest);
    told
}

struct Teller<'a, 't> {
    telling: &'a mut Telling<'t>,
    object: usize,
    base: Option<&'a ObjectManifest>,
    /// Where the base has each content; made when the first changed file asks.
    by_digest: Option<BTreeMap<Digest, usize>>,
    bytes: Vec<u8>,
}

/// A run of the same operation that is not written yet.
#[derive(Default)]
struct Run {
    keep: u64,
    drop: u64,
}

impl Teller<'_, '_> {
    fn number(&mut self, value: u64) {
        encode_varint(&mut self.bytes, value);
    }

    fn keep(&mut self, run: &mut Run) {
        if run.drop > 0 {
            self.flush(run);
        }
        run.keep += 1;
    }

    fn drop(&mut self, run: &mut Run) {
        if run.keep > 0 {
            self.flush(run);
        }
        run.drop += 1;
    }

    fn flush(&mut self, run: &mut Run) {
        if run.keep > 0 {
            self.number(4 * run.keep + KEEP);
        }
        if run.drop > 0 {
            self.number(4 * run.drop + DROP);
        }
        *run = Run::default();
    }

    fn references(&mut self, new: &[ObjectRef]) {
        let old: &[ObjectRef] = self.base.map_or(&[], |base| &base.references);
        let mut run = Run::default();
        let (mut old, mut new) = (old.iter().peekable(), new.iter().peekable());
        while old.peek().is_some() || new.peek().is_some() {
            match order(old.peek(), new.peek(), Ord::cmp) {
                Ordering::Equal => {
                    old.next();
                    new.next();
                    self.keep(&mut run);
                }
                Ordering::Less => {
                    old.next();
                    self.drop(&mut run);
                }
                Ordering::Greater => {
                    self.flush(&mut run);
                    let Some(reference) = new.next() else { break };
                    self.reference(reference);
                }
            }
        }
        self.flush(&mut run);
        self.number(0);
    }

    fn reference(&mut self, reference: &ObjectRef) {
        if let Some(position) = self.telling.listed.get(reference) {
            self.number(4 * *position as u64 + ADD);
        } else {
            self.number(CHANGE);
            self.bytes.extend(reference.id.as_bytes());
            self.text(reference.name.as_str());
        }
    }

    fn entries(&mut self, manifest: &ObjectManifest) {
        let mut run = Run::default();
        let mut previous = String::new();
        let (mut old, mut new) = (self.base.map(|base| base.tree.cursor()), manifest.tree.cursor());
        let (mut before, mut entry) = (old.as_mut().and_then(Cursor::next), new.next());
        loop {
            match (before, entry) {
                (None, None) => break,
                (Some(one), Some(other)) if one.path == other.path => {
                    if one.kind == other.kind {
                        self.keep(&mut run);
                    } else if let (KindView::File { .. }, KindView::File { .. }) = (one.kind, other.kind) {
                        self.flush(&mut run);
                        self.change(one, other);
                    } else {
                        self.drop(&mut run);
                        self.flush(&mut run);
                        self.add(&previous, other);
                    }
                    other.path.clone_into(&mut previous);
                    (before, entry) = (old.as_mut().and_then(Cursor::next), new.next());
                }
                (Some(one), other) if other.is_none_or(|other| one.path < other.path) => {
                    self.drop(&mut run);
                    before = old.as_mut().and_then(Cursor::next);
                }
                (_, Some(other)) => {
                    self.flush(&mut run);
                    self.add(&previous, other);
                    other.path.clone_into(&mut previous);
                    entry = new.next();
                }
                (Some(_), None) => {}
            }
        }
        self.flush(&mut run);
        self.number(0);
    }

    fn change(&mut self, before: EntryView<'_>, entry: EntryView<'_>) {
        let KindView::File { size: old_size, self_references: old_own, .. } = before.kind else { return };
        let KindView::File { size, digest, executable, self_references } = entry.kind else { return };
        self.number(4 * u64::from(executable) + CHANGE);
        // Sizes are at most 2^63 - 1, so their difference fits.
        self.number(zigzag(size.cast_signed().wrapping_sub(old_size.cast_signed())));
        self.content(digest, entry.position);
        self.own(self_references, old_own);
    }

    fn add(&mut self, previous: &str, EntryView { position, path, kind }: EntryView<'_>) {
        let tag = match kind {
            KindView::Directory => 0,
            KindView::File { executable: false, .. } => 1,
            KindView::File { executable: true, .. } => 2,
            KindView::Symlink { .. } => 3,
        };
        self.number(4 * tag + ADD);
        let common = previous.bytes().zip(path.bytes()).take_while(|(a, b)| a == b).count();
        let common = path.floor_char_boundary(common);
        self.number(common as u64);
        self.text(&path[common..]);
        match kind {
            KindView::Directory => {}
            KindView::File { size, digest, executable: _, self_references } => {
                self.number(size);
                self.content(digest, position);
                self.own(self_references, None);
            }
            KindView::Symlink { target, self_offsets } => {
                self.text(target);
                self.number(self_offsets.len() as u64);
                self.places(self_offsets);
            }
        }
    }

    fn content(&mut self, digest: &Digest, entry: usize) {
        let base = self.base;
        let by_digest = self.by_digest.get_or_insert_with(|| contents_of(base));
        if let Some(position) = by_digest.get(digest) {
            let position = *position as u64;
            return self.number(2 * position + 2);
        }
        match &self.telling.elision {
            Elision::New(common) if !common.contains(digest) => {}
            Elision::New(_) | Elision::None => {
                self.number(1);
                self.bytes.extend(digest.as_bytes());
                return;
            }
        }
        let next = self.telling.new.len();
        if let Some(known) = self.telling.numbers.get(digest) {
            let back = (next - 1 - known) as u64;
            self.number(2 * back + 3);
        } else {
            self.telling.numbers.insert(*digest, next);
            self.telling.new.push((self.object, entry));
            self.number(0);
        }
    }

    fn own(&mut self, own: Option<&SelfReferences>, old: Option<&SelfReferences>) {
        match own {
            None => self.number(0),
            Some(own) if Some(own) == old => self.number(1),
            Some(SelfReferences { offsets, modulo }) => {
                self.number(offsets.len() as u64 + 1);
                self.places(offsets);
                self.bytes.extend(modulo.as_bytes());
            }
        }
    }

    fn places(&mut self, offsets: &[u64]) {
        let mut end = 0;
        for offset in offsets {
            self.number(offset - end);
            end = offset + ID_CHARS as u64;
        }
    }

    fn text(&mut self, text: &str) {
        self.number(text.len() as u64);
        self.bytes.extend(text.as_bytes());
    }
}

/// Which of two sorted lists goes on first.
fn order<A, B>(old: Option<&A>, new: Option<&B>, compare: impl FnOnce(&A, &B) -> Ordering) -> Ordering {
    match (old, new) {
        (Some(old), Some(new)) => compare(old, new),
        (Some(_), None) => Ordering::Less,
        (None, _) => Ordering::Greater,
    }
}

fn contents_of(base: Option<&ObjectManifest>) -> BTreeMap<Digest, usize> {
    let mut contents = BTreeMap::new();
    for (position, file) in base.into_iter().flat_map(|base| base.tree.files()) {
        contents.entry(file.digest).or_insert(position);
    }
    contents
}

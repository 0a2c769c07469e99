//! How a tree is held in memory: about 55 bytes an entry instead of 200.
//!
//! Paths are front-coded: each is the length that it shares with the one before, and the rest. Every sixteenth stands whole, so
//! that an entry is found by a binary search over those and a few steps. What files are stands beside, one record of fixed size for each entry; targets of
//! links and own references, which few entries have, stand apart. No rule of trees is known here: see [`super::builder`].

use std::collections::BTreeMap;
use std::ops::Range;

use super::{EntryView, FileFacts, KindView, SelfReferences};
use crate::Digest;

/// How many paths lead on from one that stands whole: more would save a byte an entry and cost as many steps for each look-up.
const RESTART_ENTRIES: usize = 16;

/// The bytes before the rest of a path: two lengths of 16 bits, which no path exceeds.
const LENGTHS_BYTES: usize = 4;

/// How many bits of a link's number tell the length of its target.
const TARGET_LENGTH_BITS: u32 = 16;

/// The content of a tree, sorted by path.
#[derive(Clone, PartialEq, Eq, Default)]
pub(super) struct Compact {
    /// For each entry: shared length, length of the rest, the rest.
    paths: Vec<u8>,
    /// Where every sixteenth path begins in `paths`.
    restarts: Vec<u32>,
    kinds: Vec<Kind>,
    facts: Vec<Fact>,
    /// All targets of links, one behind the other.
    targets: String,
    files_own: BTreeMap<usize, SelfReferences>,
    links_own: BTreeMap<usize, Vec<u64>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Directory,
    File,
    Executable,
    Symlink,
    /// A file whose content is not known yet.
    Pending,
}

/// What is known beside the path: a file's digest and size, or where a link's target stands.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Fact {
    digest: Digest,
    number: u64,
}

const NOTHING: Fact = Fact { digest: Digest::from_bytes([0; 32]), number: 0 };

impl Compact {
    pub(super) fn len(&self) -> usize {
        self.kinds.len()
    }

    /// Appends an entry of no kind yet; `shared` bytes of the path are those of the one before. Returns its position.
    pub(super) fn push_path(&mut self, path: &str, shared: usize) -> usize {
        let position = self.kinds.len();
        let shared = if position.is_multiple_of(RESTART_ENTRIES) {
            // The arena is limited by who appends, far below 4 GiB.
            self.restarts.push(u32::try_from(self.paths.len()).unwrap_or(u32::MAX));
            0
        } else {
            shared
        };
        for length in [shared, path.len() - shared] {
            self.paths.extend_from_slice(&u16::try_from(length).unwrap_or(u16::MAX).to_le_bytes());
        }
        self.paths.extend_from_slice(&path.as_bytes()[shared..]);
        self.kinds.push(Kind::Pending);
        self.facts.push(NOTHING);
        position
    }

    /// Says what an entry is.
    pub(super) fn set(&mut self, position: usize, kind: KindView<'_>) {
        let (kind, fact) = match kind {
            KindView::Directory => (Kind::Directory, NOTHING),
            KindView::File { size, digest, executable, self_references } => {
                if let Some(own) = self_references {
                    self.files_own.insert(position, own.clone());
                }
                (if executable { Kind::Executable } else { Kind::File }, Fact { digest: *digest, number: size })
            }
            KindView::Symlink { target, self_offsets } => {
                if !self_offsets.is_empty() {
                    self.links_own.insert(position, self_offsets.to_vec());
                }
                let number = (self.targets.len() as u64) << TARGET_LENGTH_BITS | target.len() as u64;
                self.targets.push_str(target);
                (Kind::Symlink, Fact { number, ..NOTHING })
            }
        };
        self.kinds[position] = kind;
        self.facts[position] = fact;
    }

    /// Gives back what was reserved and not needed.
    pub(super) fn shrink(&mut self) {
        self.paths.shrink_to_fit();
        self.restarts.shrink_to_fit();
        self.kinds.shrink_to_fit();
        self.facts.shrink_to_fit();
        self.targets.shrink_to_fit();
    }

    /// How much memory the entries take.
    #[cfg(test)]
    pub(super) fn memory_bytes(&self) -> usize {
        let (restarts, kinds, facts) = (4 * self.restarts.capacity(), self.kinds.capacity(), size_of::<Fact>() * self.facts.capacity());
        self.paths.capacity() + restarts + kinds + facts + self.targets.capacity()
    }

    /// The first file whose content is not known.
    pub(super) fn first_pending(&self) -> Option<usize> {
        self.kinds.iter().position(|kind| *kind == Kind::Pending)
    }

    pub(super) fn is_directory(&self, position: usize) -> bool {
        self.kinds.get(position) == Some(&Kind::Directory)
    }

    pub(super) fn file(&self, position: usize) -> Option<FileFacts> {
        let executable = match self.kinds.get(position)? {
            Kind::File => false,
            Kind::Executable => true,
            Kind::Directory | Kind::Symlink | Kind::Pending => return None,
        };
        let Fact { digest, number } = self.facts[position];
        Some(FileFacts { size: number, digest, executable })
    }

    fn kind(&self, position: usize) -> KindView<'_> {
        let Fact { digest, number } = &self.facts[position];
        match self.kinds[position] {
            Kind::Directory => KindView::Directory,
            kind @ (Kind::File | Kind::Executable | Kind::Pending) => KindView::File {
                size: *number,
                digest,
                executable: kind == Kind::Executable,
                self_references: self.files_own.get(&position),
            },
            Kind::Symlink => KindView::Symlink {
                target: &self.targets[target_range(*number)],
                self_offsets: self.links_own.get(&position).map_or(&[], Vec::as_slice),
            },
        }
    }

    /// The positions of all entries that hold references to their own object.
    pub(super) fn self_referring(&self) -> Vec<usize> {
        self.links_own.keys().chain(self.files_own.keys()).copied().collect()
    }

    /// Replaces the digest of a file.
    pub(super) fn set_digest(&mut self, position: usize, digest: Digest) {
        self.facts[position].digest = digest;
    }

    /// Writes `chars` at each own reference of a link.
    pub(super) fn write_into_target(&mut self, position: usize, chars: &str) {
        let (Some(offsets), Some(fact)) = (self.links_own.get(&position), self.facts.get(position)) else { return };
        let start = target_range(fact.number).start;
        for offset in offsets {
            let place = start + usize::try_from(*offset).unwrap_or(0);
            self.targets.replace_range(place..place + chars.len(), chars);
        }
    }

    /// The position of a path, or where it would have to be.
    pub(super) fn position(&self, path: &str) -> Result<usize, usize> {
        let block = self.restarts.partition_point(|offset| self.path_at_restart(*offset) <= path.as_bytes());
        let Some(block) = block.checked_sub(1) else { return Err(0) };
        let mut cursor = Cursor::at_restart(self, block);
        while let Some(position) = cursor.step() {
            match cursor.path.as_str().cmp(path) {
                std::cmp::Ordering::Less if position % RESTART_ENTRIES == RESTART_ENTRIES - 1 => return Err(position + 1),
                std::cmp::Ordering::Less => {}
                std::cmp::Ordering::Equal => return Ok(position),
                std::cmp::Ordering::Greater => return Err(position),
            }
        }
        Err(self.len())
    }

    fn path_at_restart(&self, offset: u32) -> &[u8] {
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        &self.paths[start + LENGTHS_BYTES..start + LENGTHS_BYTES + self.length_at(start + 2)]
    }

    fn length_at(&self, start: usize) -> usize {
        usize::from(u16::from_le_bytes([self.paths[start], self.paths[start + 1]]))
    }
}

fn target_range(number: u64) -> Range<usize> {
    let start = usize::try_from(number >> TARGET_LENGTH_BITS).unwrap_or(usize::MAX);
    start..start + usize::try_from(number & ((1 << TARGET_LENGTH_BITS) - 1)).unwrap_or(0)
}

/// Goes through the entries of a tree, from any position on, without making anything for each.
///
/// The path of an entry is in the cursor's own memory, so a view ends with the next step; [`super::Tree::entries`] gives values to keep.
pub struct Cursor<'a> {
    compact: &'a Compact,
    next: usize,
    /// Where the next path begins in the arena.
    offset: usize,
    path: String,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(compact: &'a Compact, position: usize) -> Self {
        let position = position.min(compact.len());
        let mut cursor = Self::at_restart(compact, position / RESTART_ENTRIES);
        while cursor.next < position {
            cursor.step();
        }
        cursor
    }

    fn at_restart(compact: &'a Compact, block: usize) -> Self {
        let offset = compact.restarts.get(block).map_or(compact.paths.len(), |offset| usize::try_from(*offset).unwrap_or(usize::MAX));
        Self { compact, next: block * RESTART_ENTRIES, offset, path: String::new() }
    }

    /// Goes to the next entry; returns its position.
    fn step(&mut self) -> Option<usize> {
        let position = self.next;
        if position >= self.compact.len() {
            return None;
        }
        let (shared, length) = (self.compact.length_at(self.offset), self.compact.length_at(self.offset + 2));
        let start = self.offset + LENGTHS_BYTES;
        let rest = std::str::from_utf8(&self.compact.paths[start..start + length]).expect("paths are cut between characters");
        self.path.truncate(shared);
        self.path.push_str(rest);
        self.offset = start + length;
        self.next += 1;
        Some(position)
    }

    /// The next entry.
    #[expect(clippy::should_implement_trait, reason = "an iterator cannot lend out its own memory")]
    pub fn next(&mut self) -> Option<EntryView<'_>> {
        let position = self.step()?;
        Some(EntryView { position, path: &self.path, kind: self.compact.kind(position) })
    }
}

impl std::fmt::Debug for Cursor<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cursor").field("next", &self.next).finish_non_exhaustive()
    }
}

//! Verifies a part of the store at a time, so that a timer gets through all of it in days.
//!
//! Digests and ids are spread evenly. So a place in the round is a number, what comes next is what starts with at least that number, and it does not matter
//! what came and went in between. The place is kept in `verify.json`; losing it costs a new start.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};

use serde::{Deserialize, Serialize};

use super::blobs::{self, BadContents, Collected, blob_of_name};
use super::finding::{Finding, Findings, Problem};
use super::hashing::{Effort, Hashing, hash_while};
use super::layout;
use super::objects::{Depth, judge};
use crate::error::StoreError;
use crate::fsutil::{self, Directory};
use crate::objects::ObjectStore;
use crate::{Digest, ObjectRef};

/// The longest `verify.json`, in bytes.
const STATE_BYTES_MAX: u64 = 4 << 10;

/// How much is read between two times that the place is kept, in bytes: what is read again after a kill.
const STATE_EVERY_BYTES: u64 = 256 << 20;

/// What looking at one content costs beside reading it, in bytes that could be read meanwhile.
const CONTENT_COST: u64 = 4 << 10;

/// What looking at one object costs at least.
const OBJECT_COST: u64 = 16 << 10;

/// How much to verify.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Portion {
    /// So many millionths of the store.
    Millionths(u32),
    /// What comes until so many bytes were read, at least one object or content.
    Bytes(u64),
}

/// What a part of a round gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sampled {
    /// As of [`ObjectStore::verify_with`].
    pub findings: Vec<Finding>,
    /// How many objects were compared, but for the contents that have names of their own.
    pub objects: u64,
    /// How many contents were read.
    pub contents: u64,
    /// How far the round is, in millionths.
    pub millionths: u32,
    /// How many rounds through the whole store were completed so far.
    pub rounds: u64,
}

/// `verify.json`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
struct State {
    version: u64,
    /// Where to go on: the first 8 bytes of a digest or id, as a number.
    position: u64,
    rounds: u64,
}

impl ObjectStore {
    /// Verifies the next part of the store, and remembers where it ends.
    ///
    /// Every content is read once in a round; every object is compared once. What is found wrong with a content is reported for all objects that hold it.
    /// Cut off, it goes on where it was, or a little before. Errors: as [`ObjectStore::verify_with`], if nothing was found until then; else what ended
    /// this part is one more finding, and the place stays where it was.
    pub fn verify_sample(&self, portion: Portion, effort: &Effort<'_>) -> Result<Sampled, StoreError> {
        let (findings, collected) = (Findings::default(), Collected::default());
        let state = self.read_state();
        let walk = Walk {
            store: self,
            objects: self.known_objects()?,
            portion,
            start: state.position,
            findings: &findings,
            collected: &collected,
            seen: Cell::default(),
        };
        let walked = hash_while(effort, |hashing| walk.run(hashing, state));
        let (objects, contents) = walk.seen.get();
        let bad = collected.into_inner();
        let told = walked.and_then(|(position, rounds)| {
            report_holders(self, &bad, &findings)?;
            layout::check(self, &findings)?;
            self.write_state(State { version: 1, position, rounds })?;
            Ok((position, rounds))
        });
        let (position, rounds) = match told {
            Ok(place) => place,
            Err(error) if findings.is_empty() => return Err(error),
            // What was found is told all the same, and the next part begins where this one did.
            Err(error) => {
                findings.push(None, ".", Problem::Unreadable { reason: with_causes(&error) });
                (state.position, state.rounds)
            }
        };
        let millionths = u32::try_from((u128::from(position) * 1_000_000) >> 64).unwrap_or(0);
        Ok(Sampled { findings: findings.into_sorted(), objects, contents, millionths, rounds })
    }

    fn read_state(&self) -> State {
        let bytes = fsutil::read_file_if_exists(&self.root().join("verify.json"), STATE_BYTES_MAX).ok().flatten().unwrap_or_default();
        serde_json::from_slice(&bytes).ok().filter(|state: &State| state.version == 1).unwrap_or_default()
    }

    fn write_state(&self, state: State) -> Result<(), StoreError> {
        let text = serde_json::to_string(&state).expect("numbers always serialise") + "\n";
        Ok(fsutil::replace_file(&self.root().join("verify.json"), text.as_bytes(), 0o644)?)
    }
}

/// One content or object, where its digest or id puts it.
enum Item {
    Content { name: OsString, content: (Digest, bool) },
    Object(ObjectRef),
}

/// A part of a round.
struct Walk<'a, 'env> {
    store: &'a ObjectStore,
    objects: BTreeSet<ObjectRef>,
    portion: Portion,
    start: u64,
    findings: &'env Findings,
    collected: &'env Collected,
    /// Objects and contents.
    seen: Cell<(u64, u64)>,
}

impl<'env> Walk<'_, 'env> {
    /// Returns where to go on, and how many rounds are complete.
    fn run(&self, hashing: &Hashing<'env>, state: State) -> Result<(u64, u64), StoreError> {
        let blobs = Directory::open(&self.store.root().join("blobs"))?;
        let objects = Directory::open(&self.store.root().join("store"))?;
        // Contents are looked at in their own places, so here none is known to be bad.
        let none_bad = BadContents::default();
        let depth = Depth::Full { hashing, bad: Some(&none_bad) };
        let (mut rounds, mut kept) = (state.rounds, 0);
        let first = self.start >> 56;
        // The first bucket comes again at the end, for what stands before the start.
        for step in 0..=256 {
            let bucket = (first + step) & 0xff;
            if step > 0 && bucket == 0 {
                rounds += 1;
            }
            // Never beyond what is not judged yet, which is less than a bucket, and not at all once something was found: cut off, the
            // next run must find it again.
            if step > 1 && hashing.bytes() >= kept + STATE_EVERY_BYTES && self.findings.is_empty() {
                kept = hashing.bytes();
                let (before, rounds) = if bucket == 0 { (0xff, rounds.saturating_sub(1)) } else { (bucket - 1, rounds) };
                self.store.write_state(State { version: 1, position: before << 56, rounds })?;
            }
            let shard = OsString::from(format!("{bucket:02x}"));
            let listed = if blobs.node(&shard).is_ok() { blobs::list_shard(&blobs, &shard, self.findings) } else { None };
            let (directory, names) = listed.unzip();
            let mut items = self.items(bucket, &shard, names.unwrap_or_default());
            items.retain(|(position, _)| match step {
                0 => *position >= self.start,
                256 => *position < self.start,
                _ => true,
            });
            let mut last = None;
            for (position, item) in items {
                // Both modes of one content have one position, and the next part begins with it: they are done together.
                if last != Some(position) && self.is_enough(position, hashing) {
                    return Ok((position, rounds));
                }
                last = Some(position);
                let (seen_objects, seen_contents) = self.seen.get();
                match item {
                    Item::Object(object) => {
                        self.store.compare(&object, &objects, &depth, self.findings)?;
                        self.seen.set((seen_objects + 1, seen_contents));
                    }
                    Item::Content { name, content } => {
                        if let Some(directory) = &directory {
                            blobs::check_blob(directory, &name, content, hashing, (self.findings, self.collected));
                        }
                        self.seen.set((seen_objects, seen_contents + 1));
                    }
                }
            }
        }
        Ok((self.start, rounds))
    }

    /// Whether the portion is done before this position.
    fn is_enough(&self, position: u64, hashing: &Hashing<'_>) -> bool {
        let (objects, contents) = self.seen.get();
        match self.portion {
            Portion::Millionths(millionths) => {
                u128::from(position.wrapping_sub(self.start)) * 1_000_000 >= u128::from(millionths.max(1)) << 64
            }
            Portion::Bytes(bytes) => objects + contents > 0 && hashing.bytes() + contents * CONTENT_COST + objects * OBJECT_COST >= bytes,
        }
    }

    /// What belongs into a bucket, in order.
    fn items(&self, bucket: u64, shard: &OsStr, names: Vec<OsString>) -> Vec<(u64, Item)> {
        let mut items = Vec::new();
        for name in names {
            if let Some(content) = blob_of_name(shard, &name) {
                items.push((start_of(content.0.as_bytes()), Item::Content { name, content }));
            } else {
                let path = format!("blobs/{}/{}", shard.to_string_lossy(), name.to_string_lossy());
                self.findings.push(None, &path, Problem::Extra);
            }
        }
        let here = self.objects.iter().filter(|object| start_of(object.id.as_bytes()) >> 56 == bucket);
        items.extend(here.map(|object| (start_of(object.id.as_bytes()), Item::Object(object.clone()))));
        // Contents first: the sort keeps the order of what starts alike.
        items.sort_by_key(|(position, _)| *position);
        items
    }
}

fn start_of(bytes: &[u8]) -> u64 {
    bytes.first_chunk::<8>().map_or(0, |start| u64::from_be_bytes(*start))
}

/// An error and its causes, in one line.
fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

/// Reports the files of all objects that are names of bad inodes.
fn report_holders(store: &ObjectStore, bad: &BadContents, findings: &Findings) -> Result<(), StoreError> {
    if bad.is_empty() {
        return Ok(());
    }
    for object in store.known_objects()? {
        let _publication = store.share_publication()?;
        // Without a manifest there is nothing to compare, which is reported when it is the object's turn.
        let Ok(manifest) = store.manifest(&object) else { continue };
        for (position, file) in manifest.tree.files() {
            let Some(path) = manifest.tree.path(position) else { continue };
            let Ok(node) = fsutil::node_at(&store.object_path(&object).join(path.as_path())) else { continue };
            // Another length is found when it is the object's turn, and says enough.
            if let Some(outcome) = bad.get((node.stamp.device, node.stamp.inode)).filter(|_| node.stamp.size == file.size) {
                judge(findings, (&object, path.as_str()), file.digest, outcome.clone());
            }
        }
    }
    Ok(())
}

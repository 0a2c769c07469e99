//! The receiving side of a transfer: a machine that says what is here, learns what is to come, and takes it in.
//!
//! It believes nothing: each list is bounded, each manifest must give its own id, each content its digest, and an object is staged only
//! when all that it refers to is here. Everything goes into one transaction, so a transfer that fails leaves no name behind.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use super::limits::{ENTRIES_MAX, FILE_OVERHEAD_BYTES, MANIFEST_BYTES_MAX, OBJECTS_MAX};
use super::machine::{Machine, Step};
use super::message::{Message, Totals, decode_bits, encode_bits};
use super::receive_contents::{Receiving, Wanted};
use super::stores::Sink;
use super::told::{Context, Named, Tally, Told, ToldFile};
use super::varint::decode_varint;
use super::{TransferError, TransferStats, piece};
use crate::object::ObjectManifest;
use crate::{Digest, ObjectId, ObjectRef};

/// The receiving side.
pub(crate) struct Receiver<S: Sink> {
    sink: S,
    roots: Vec<ObjectRef>,
    stage: Stage<S>,
    queue: VecDeque<Message>,
    stats: TransferStats,
}

enum Stage<S: Sink> {
    Start,
    /// The present objects are named.
    Present {
        objects: Vec<ObjectRef>,
        asks: bool,
    },
    /// So many objects are being listed.
    Listing {
        listed: Vec<ObjectRef>,
        count: u64,
        common: Common,
        rule: Rule,
    },
    Manifests(Box<Manifests>),
    Contents(Box<Incoming<S>>),
    Done(Vec<S::Proof>),
}

/// What follows from the difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rule {
    /// All that is listed is lacked, and new digests are not told.
    Blind,
    /// All that is listed is lacked.
    Shared,
    /// The receiver chooses from the list.
    Choose,
}

/// What both sides have, as far as they know of each other.
type Common = BTreeMap<ObjectId, ObjectRef>;

/// Manifests that are coming.
#[derive(Debug)]
struct Manifests {
    context: Context,
    /// Positions in the list.
    lacked: Vec<usize>,
    common: Common,
    /// What came and is not a whole manifest yet.
    bytes: Vec<u8>,
    told: Vec<Told>,
    /// The manifests of the bases; each is read once.
    bases: BTreeMap<ObjectId, Arc<ObjectManifest>>,
    tally: Tally,
    total: u64,
    new: Vec<Wanted>,
    known: Vec<Wanted>,
    /// Where each known content is in that list.
    positions: BTreeMap<Digest, usize>,
}

/// Contents that are coming.
struct Incoming<S: Sink> {
    blind: bool,
    told: Vec<Told>,
    /// The contents that are told by their digests.
    known: Vec<Wanted>,
    /// The digests of the new ones, once they are here.
    digests: Option<Vec<Digest>>,
    receiving: Receiving<S>,
}

impl<S: Sink> Receiver<S> {
    pub(crate) const fn new(sink: S) -> Self {
        Self { sink, roots: Vec::new(), stage: Stage::Start, queue: VecDeque::new(), stats: NOTHING }
    }

    #[cfg(test)]
    pub(crate) const fn sink(&self) -> &S {
        &self.sink
    }

    /// What the peer makes this side hold, in bytes, as far as it grows with what is said.
    #[cfg(test)]
    pub(crate) fn held_bytes(&self) -> usize {
        let told = |told: &[Told]| told.iter().map(|told| told.bytes.len()).sum::<usize>();
        let item = size_of::<Wanted>();
        match &self.stage {
            Stage::Start | Stage::Present { .. } | Stage::Done(_) => 0,
            Stage::Listing { listed, .. } => listed.len() * size_of::<ObjectRef>(),
            Stage::Manifests(manifests) => {
                manifests.bytes.len() + told(&manifests.told) + item * (manifests.new.len() + manifests.known.len())
            }
            Stage::Contents(incoming) => told(&incoming.told) + item * incoming.known.len(),
        }
    }

    fn offered(&mut self, roots: Vec<ObjectRef>, objects_total: u64) -> Result<Stage<S>, TransferError> {
        check_limit("objects of a closure", objects_total, OBJECTS_MAX)?;
        self.stats.objects_total = objects_total;
        self.roots = roots;
        if let Some(proofs) = self.sink.proofs(&self.roots)? {
            self.queue.push_back(Message::Done(Totals::default()));
            return Ok(Stage::Done(proofs));
        }
        self.sink.begin()?;
        let objects = self.sink.name_present(&self.roots)?;
        let asks = self.sink.may_hold_more(objects.is_empty())?;
        self.queue.push_back(Message::Present { objects: objects.clone(), asks });
        Ok(Stage::Present { objects, asks })
    }

    fn difference(&mut self, present: Vec<ObjectRef>, asks: bool, shared: &[u8], count: u64) -> Result<Stage<S>, TransferError> {
        let shared = decode_bits(shared, present.len())?;
        if count > self.stats.objects_total {
            return Err(TransferError::Malformed { what: "the difference is larger than the closure" });
        }
        let none_named = present.is_empty();
        let shared: Vec<ObjectRef> =
            present.into_iter().zip(shared).filter_map(|(object, is_shared)| is_shared.then_some(object)).collect();
        let rule = match (asks, none_named || !shared.is_empty(), shared.is_empty()) {
            (false, true, _) => Rule::Blind,
            (_, _, false) => Rule::Shared,
            (_, _, true) => Rule::Choose,
        };
        let common = self.sink.closure(&shared)?.into_iter().map(|object| (object.id, object)).collect();
        self.listed(Vec::new(), Vec::new(), count, common, rule)
    }

    /// Takes a part of the list, which must hold each object once.
    fn listed(
        &mut self,
        mut listed: Vec<ObjectRef>,
        part: Vec<ObjectRef>,
        count: u64,
        common: Common,
        rule: Rule,
    ) -> Result<Stage<S>, TransferError> {
        listed.extend(part);
        if (listed.len() as u64) < count {
            return Ok(Stage::Listing { listed, count, common, rule });
        }
        let distinct: BTreeSet<&ObjectRef> = listed.iter().collect();
        if listed.len() as u64 != count || distinct.len() != listed.len() {
            return Err(TransferError::Malformed { what: "the closure is longer than announced, or names an object twice" });
        }
        for root in &self.roots {
            if !distinct.contains(root) && self.sink.lacks(root)? {
                return Err(TransferError::Malformed { what: "the closure does not hold its roots" });
            }
        }
        let lacked = match rule {
            Rule::Blind | Rule::Shared => vec![true; listed.len()],
            Rule::Choose => {
                let lacked = listed.iter().map(|object| self.sink.lacks(object)).collect::<Result<Vec<_>, _>>()?;
                self.queue.push_back(Message::LackedObjects(encode_bits(&lacked)));
                lacked
            }
        };
        let lacked = lacked.iter().enumerate().filter_map(|(position, lacks)| lacks.then_some(position)).collect();
        let manifests = Manifests::new(Context { listed: listed.into(), blind: rule == Rule::Blind }, lacked, common);
        self.stats.objects_sent = manifests.lacked.len() as u64;
        if manifests.is_complete() { self.begin_contents(manifests) } else { Ok(Stage::Manifests(Box::new(manifests))) }
    }

    /// All manifests are told: asks for contents, or waits for those that come without being asked for.
    fn begin_contents(&mut self, manifests: Manifests) -> Result<Stage<S>, TransferError> {
        let Manifests { context, told, tally, new, known, .. } = manifests;
        let blind = context.blind;
        let entries = tally.entries().saturating_mul(ENTRY_OVERHEAD_BYTES);
        let mut incoming = Incoming { blind, told, known, digests: None, receiving: Receiving::new(Vec::new()) };
        if blind {
            self.expect(&mut incoming, new, entries)?;
        } else {
            let lacked = incoming.lacked(&self.sink)?;
            let wanted = chosen(&incoming.known, &lacked);
            self.expect(&mut incoming, wanted, entries)?;
            self.queue.push_back(Message::LackedContents(encode_bits(&lacked)));
        }
        Ok(Stage::Contents(Box::new(incoming)))
    }

    fn expect(&mut self, incoming: &mut Incoming<S>, wanted: Vec<Wanted>, entries: u64) -> Result<(), TransferError> {
        let bytes = wanted.iter().fold(0u64, |sum, content| sum.saturating_add(content.size));
        let overhead = (wanted.len() as u64).saturating_mul(FILE_OVERHEAD_BYTES).saturating_add(entries);
        self.sink.check_space(bytes.saturating_add(overhead))?;
        self.stats.blobs_sent += wanted.len() as u64;
        self.stats.bytes_raw = self.stats.bytes_raw.saturating_add(bytes);
        incoming.receiving = Receiving::new(wanted);
        Ok(())
    }

    /// Takes a message of the contents; at their end, completes or asks once more.
    fn content(&mut self, mut incoming: Box<Incoming<S>>, message: Message) -> Result<Stage<S>, TransferError> {
        let Message::End = message else {
            let answer = incoming.receiving.take(&mut self.sink, &incoming.told, message)?;
            self.queue.push_back(answer);
            return Ok(Stage::Contents(incoming));
        };
        let digests = incoming.receiving.finish(&mut self.sink, &incoming.told)?;
        if incoming.blind && incoming.digests.is_none() {
            incoming.digests = Some(digests);
            let lacked = incoming.lacked(&self.sink)?;
            if lacked.contains(&true) {
                let wanted = chosen(&incoming.known, &lacked);
                self.expect(&mut incoming, wanted, 0)?;
                self.queue.push_back(Message::LackedContents(encode_bits(&lacked)));
                return Ok(Stage::Contents(incoming));
            }
        }
        self.complete(&incoming)
    }

    /// Builds the objects from what is here, and publishes them.
    fn complete(&mut self, incoming: &Incoming<S>) -> Result<Stage<S>, TransferError> {
        let mut tally = Tally::default();
        for told in &incoming.told {
            let manifest = told.build(&mut tally, incoming.digests.as_deref().unwrap_or_default())?;
            self.sink.put(&manifest)?;
        }
        self.sink.publish()?;
        let proofs = self.sink.proofs(&self.roots)?;
        let proofs = proofs.ok_or(TransferError::Malformed { what: "the closure does not hold all that its roots need" })?;
        let TransferStats { objects_sent: objects, blobs_sent: contents, bytes_raw: bytes, .. } = self.stats;
        self.queue.push_back(Message::Done(Totals { objects, contents, bytes }));
        Ok(Stage::Done(proofs))
    }
}

impl<S: Sink> Machine for Receiver<S> {
    type Outcome = (Vec<S::Proof>, TransferStats);

    fn poll(&mut self) -> Result<Step<Self::Outcome>, TransferError> {
        if let Some(message) = self.queue.pop_front() {
            return Ok(Step::Send(message));
        }
        match &mut self.stage {
            Stage::Done(proofs) => Ok(Step::Done((std::mem::take(proofs), self.stats))),
            Stage::Start | Stage::Present { .. } | Stage::Listing { .. } | Stage::Manifests(_) | Stage::Contents(_) => Ok(Step::Await),
        }
    }

    fn handle(&mut self, message: Message) -> Result<(), TransferError> {
        self.stage = match (std::mem::replace(&mut self.stage, Stage::Done(Vec::new())), message) {
            (Stage::Start, Message::Offer { roots, objects }) => self.offered(roots, objects)?,
            (Stage::Present { objects: present, asks }, Message::Difference { shared, objects }) => {
                self.difference(present, asks, &shared, objects)?
            }
            (Stage::Listing { .. }, Message::Closure(part)) if part.is_empty() => {
                return Err(TransferError::Malformed { what: "a part of the closure is empty" });
            }
            (Stage::Listing { listed, count, common, rule }, Message::Closure(part)) => self.listed(listed, part, count, common, rule)?,
            (Stage::Manifests(mut manifests), Message::Manifests(piece)) => {
                manifests.take(&self.sink, &piece)?;
                if manifests.is_complete() { self.begin_contents(*manifests)? } else { Stage::Manifests(manifests) }
            }
            (Stage::Contents(incoming), message) => self.content(incoming, message)?,
            (stage, message) => return Err(TransferError::unexpected(&message, stage.expects())),
        };
        Ok(())
    }

    fn cut(&mut self) {
        self.sink.keep_contents();
    }
}

impl<S: Sink> Stage<S> {
    const fn expects(&self) -> &'static str {
        match self {
            Self::Start => "an offer",
            Self::Present { .. } => "the difference",
            Self::Listing { .. } => "a part of the closure",
            Self::Manifests(_) => "a piece of manifests",
            Self::Contents(_) => "contents",
            Self::Done(_) => "nothing",
        }
    }
}

impl Manifests {
    const fn new(context: Context, lacked: Vec<usize>, common: Common) -> Self {
        Self {
            context,
            lacked,
            common,
            bytes: Vec::new(),
            told: Vec::new(),
            bases: BTreeMap::new(),
            tally: Tally::new(),
            total: 0,
            new: Vec::new(),
            known: Vec::new(),
            positions: BTreeMap::new(),
        }
    }

    const fn is_complete(&self) -> bool {
        self.told.len() == self.lacked.len()
    }

    /// Takes a piece; it must end with the last manifest, if that is in it.
    fn take(&mut self, sink: &impl Sink, piece: &[u8]) -> Result<(), TransferError> {
        let raw = piece::decompress(piece)?;
        self.total = self.total.saturating_add(raw.len() as u64);
        check_limit("bytes of manifests", self.total, MANIFEST_BYTES_MAX)?;
        self.bytes.extend(raw);
        let mut used = 0;
        while !self.is_complete() {
            let Some(length) = self.next(sink, used)? else { break };
            used += length;
        }
        self.bytes.drain(..used);
        if self.is_complete() && !self.bytes.is_empty() {
            return Err(TransferError::Malformed { what: "a stream is longer than its items" });
        }
        Ok(())
    }

    /// Takes the manifest that starts at `from`, and gives its length; none if it has not come whole.
    fn next(&mut self, sink: &impl Sink, from: usize) -> Result<Option<usize>, TransferError> {
        let bytes = &self.bytes[from..];
        let Some((base, length, header)) = header_of(bytes)? else { return Ok(None) };
        check_limit("bytes of manifests", length, MANIFEST_BYTES_MAX)?;
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let Some(bytes) = bytes.get(header..header.saturating_add(length)) else { return Ok(None) };
        let bytes = bytes.to_vec();
        let base = base.map(|id| self.base(sink, &id)).transpose()?;
        let object = self.context.listed[self.lacked[self.told.len()]].clone();
        let told = Told { object, base, bytes, context: self.context.clone() };
        self.survey(&told)?;
        self.told.push(told);
        Ok(Some(header + length))
    }

    /// Notes the contents that a manifest names.
    fn survey(&mut self, told: &Told) -> Result<(), TransferError> {
        let Self { tally, new, known, positions, told: before, .. } = self;
        let object = before.len();
        told.survey(tally, |file| {
            let ToldFile { content, size, same_path } = file;
            match content {
                Named::New(number) if number == new.len() => new.push(Wanted { digest: None, size, object, same_path }),
                Named::New(_) => {}
                Named::Known(digest) => match positions.get(&digest) {
                    None => {
                        positions.insert(digest, known.len());
                        known.push(Wanted { digest: Some(digest), size, object, same_path });
                    }
                    Some(position) if known[*position].size == size => {}
                    Some(position) => {
                        let problem = format!("a file of {size} bytes has the digest of a content of {}", known[*position].size);
                        return Err(TransferError::Refused { object: told.object.clone(), problem });
                    }
                },
            }
            Ok(())
        })
    }

    /// The manifest of an object that both sides have.
    fn base(&mut self, sink: &impl Sink, id: &ObjectId) -> Result<Arc<ObjectManifest>, TransferError> {
        if let Some(manifest) = self.bases.get(id) {
            return Ok(Arc::clone(manifest));
        }
        let object = self.common.get(id);
        let object = object.ok_or(TransferError::Malformed { what: "the base of a manifest is not an object that both sides have" })?;
        let manifest = Arc::new(sink.manifest(object)?);
        let entries: usize = self.bases.values().map(|manifest| manifest.tree.len()).sum();
        check_limit("entries of manifests", (entries + manifest.tree.len()) as u64, ENTRIES_MAX)?;
        self.bases.insert(*id, Arc::clone(&manifest));
        Ok(manifest)
    }
}

/// The base of a told manifest, the length of what follows, and that of the header; none if it is cut off.
fn header_of(bytes: &[u8]) -> Result<Option<(Option<ObjectId>, u64, usize)>, TransferError> {
    let mut rest = bytes;
    let base = match (decode_varint(&mut rest), rest.split_first_chunk::<20>()) {
        (Some(0), _) => None,
        (Some(1), Some((id, after))) => {
            rest = after;
            Some(ObjectId::from_bytes(*id))
        }
        (Some(2..), _) => return Err(TransferError::Malformed { what: "a manifest has neither a base nor none" }),
        (None, _) | (Some(1), None) => return if_cut_off(bytes),
    };
    match decode_varint(&mut rest) {
        Some(length) => Ok(Some((base, length, bytes.len() - rest.len()))),
        None => if_cut_off(bytes),
    }
}

/// More may come, unless the header is longer than any.
fn if_cut_off<T>(bytes: &[u8]) -> Result<Option<T>, TransferError> {
    const HEADER_BYTES_MAX: usize = 1 + 20 + 10;
    if bytes.len() < HEADER_BYTES_MAX { Ok(None) } else { Err(TransferError::Malformed { what: "the header of a manifest has no end" }) }
}

impl<S: Sink> Incoming<S> {
    /// Which of the known contents are not at hand.
    fn lacked(&self, sink: &S) -> Result<Vec<bool>, TransferError> {
        let lacks = |content: &Wanted| match &content.digest {
            Some(digest) => sink.lacks_content(digest),
            None => Ok(false),
        };
        Ok(self.known.iter().map(lacks).collect::<Result<_, _>>()?)
    }
}

fn chosen(contents: &[Wanted], lacked: &[bool]) -> Vec<Wanted> {
    contents.iter().zip(lacked).filter_map(|(content, lacks)| lacks.then_some(*content)).collect()
}

/// What an entry costs on disk beside a content, in bytes: its name in a directory.
const ENTRY_OVERHEAD_BYTES: u64 = 64;

const NOTHING: TransferStats = TransferStats { objects_total: 0, objects_sent: 0, blobs_sent: 0, bytes_raw: 0, bytes_wire: 0 };

fn check_limit(what: &'static str, actual: u64, limit: u64) -> Result<(), TransferError> {
    if actual > limit { Err(TransferError::Limit { what, actual, limit }) } else { Ok(()) }
}

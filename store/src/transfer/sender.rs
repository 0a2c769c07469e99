//! The sending side of a transfer: a machine that offers, lists, tells manifests, and then sends what the receiver lacks.
//!
//! It trusts its own store to be what its manifests say: whoever receives verifies. What it holds in memory are manifests and a few
//! pieces, never a file. It is patient: whoever runs it has the deadline.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::bases::BaseObjects;
use super::limits::{CLOSURE_PART, MANIFEST_BYTES_MAX, OBJECTS_MAX, ROOTS_MAX, SMALL_PIECE, ZSTD_LEVEL, ZSTD_LEVEL_SMALL};
use super::machine::{Machine, Step};
use super::message::{Message, Totals, decode_bits, encode_bits};
use super::options::{Pace, TransferOptions};
use super::piece::PieceBuffer;
use super::send_contents::{Next, Sending};
use super::stores::Source;
use super::told::{CommonContents, Elision, Telling, tell};
use super::{Content, Offered, TransferError, TransferStats, contents_of};
use crate::ObjectRef;
use crate::error::StoreError;

/// The sending side.
pub(crate) struct Sender<'a, S: Source> {
    store: &'a S,
    roots: Vec<ObjectRef>,
    options: TransferOptions,
    pace: Pace,
    stage: Stage<S>,
    queue: VecDeque<Message>,
    stats: TransferStats,
    /// Keeps the collector away from what is read here.
    kept: Vec<S::Kept>,
}

enum Stage<S: Source> {
    Start,
    /// The offer is out; this is the closure.
    Offered(Vec<ObjectRef>),
    /// The listing is out, and the receiver chooses from it.
    Listed(Vec<ObjectRef>, Common),
    /// The manifests are next, those that are lacked of the list.
    Manifests {
        listed: Vec<ObjectRef>,
        lacked: Vec<bool>,
        common: Common,
        asking: Asking,
    },
    /// The manifests are out, and the receiver chooses from their contents.
    Asked(Offered),
    Contents(Box<Sending<S>>, Asking),
    /// The contents are out. A receiver that was not asked may lack more.
    Sent(Offered, Asking),
    Done,
}

/// Whether the receiver says which contents it lacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asking {
    /// It does, before any is sent; or it has done so.
    First,
    /// The transfer is blind: it does so only if something is missing in the end.
    Last,
}

/// What both sides have for certain.
#[derive(Debug, Default)]
struct Common {
    /// Which of the objects that the receiver named are here too.
    shared: Vec<bool>,
    /// They and all that they need.
    objects: BTreeSet<ObjectRef>,
    /// Which of those a new object is told against.
    bases: BaseObjects,
}

impl<'a, S: Source> Sender<'a, S> {
    pub(crate) fn new(store: &'a S, roots: &[ObjectRef], options: &TransferOptions) -> Self {
        Self {
            store,
            roots: roots.to_vec(),
            options: options.clone(),
            pace: Pace::new(options),
            stage: Stage::Start,
            queue: VecDeque::new(),
            stats: TransferStats::default(),
            kept: Vec::new(),
        }
    }

    fn offer(&mut self) -> Result<(), TransferError> {
        check_limit("roots", self.roots.len() as u64, ROOTS_MAX)?;
        for root in &self.roots {
            self.kept.push(self.store.keep(root)?);
        }
        let closure = self.store.closure(&self.roots)?;
        self.stats.objects_total = closure.len() as u64;
        check_limit("objects of a closure", self.stats.objects_total, OBJECTS_MAX)?;
        self.queue.push_back(Message::Offer { roots: self.roots.clone(), objects: self.stats.objects_total });
        self.stage = Stage::Offered(closure);
        Ok(())
    }

    /// Lists what the receiver may lack.
    fn list(&mut self, closure: Vec<ObjectRef>, present: &[ObjectRef], asks: bool) -> Result<(), TransferError> {
        let common = self.common(present)?;
        let listed: Vec<ObjectRef> = closure.into_iter().filter(|object| !common.objects.contains(object)).collect();
        self.queue.push_back(Message::Difference { shared: encode_bits(&common.shared), objects: listed.len() as u64 });
        self.queue.extend(listed.chunks(CLOSURE_PART).map(|part| Message::Closure(part.to_vec())));
        let shares = common.shared.contains(&true);
        self.stage = if !asks && (present.is_empty() || shares) {
            Stage::Manifests { lacked: vec![true; listed.len()], listed, common, asking: Asking::Last }
        } else if shares {
            Stage::Manifests { lacked: vec![true; listed.len()], listed, common, asking: Asking::First }
        } else {
            Stage::Listed(listed, common)
        };
        Ok(())
    }

    /// Looks the objects up that the receiver says it has.
    fn common(&mut self, present: &[ObjectRef]) -> Result<Common, TransferError> {
        let mut common = Common::default();
        let mut ordered = Vec::new();
        for object in present {
            let known = self.store.keep(object).and_then(|kept| {
                // What an earlier one needs was looked at already.
                let new = !common.objects.contains(object);
                Ok((kept, if new { self.store.closure(std::slice::from_ref(object))? } else { Vec::new() }))
            });
            match known {
                Ok((kept, closure)) => {
                    common.shared.push(true);
                    common.objects.extend(closure.iter().cloned());
                    ordered.extend(closure);
                    self.kept.push(kept);
                }
                Err(StoreError::Missing { .. }) => common.shared.push(false),
                Err(other) => return Err(other.into()),
            }
        }
        common.bases = BaseObjects::new(&ordered);
        Ok(common)
    }

    /// Queues the manifests of the lacked objects.
    fn tell_manifests(&mut self, listed: &[ObjectRef], lacked: &[bool], common: &Common, asking: Asking) -> Result<(), TransferError> {
        let elision = match asking {
            Asking::First => Elision::None,
            Asking::Last => Elision::New(self.common_contents(common)),
        };
        let mut telling = Telling::new(listed, elision);
        let mut offered = Offered::default();
        let mut buffer = PieceBuffer::new(ZSTD_LEVEL);
        let mut total = 0;
        for (object, _) in listed.iter().zip(lacked).filter(|(_, lacks)| **lacks) {
            let manifest = self.store.manifest(object)?;
            // Without its base an object is told whole.
            let base = common.bases.of(object).and_then(|base| self.store.manifest(base).ok());
            let told = tell(&mut telling, &manifest, offered.manifests.len(), base.as_ref());
            total += told.len() as u64;
            check_limit("bytes of manifests", total, MANIFEST_BYTES_MAX)?;
            let mut bytes = told.as_slice();
            while !bytes.is_empty() {
                let (now, later) = bytes.split_at(bytes.len().min(buffer.room()));
                self.queue.extend(buffer.append(now)?.map(Message::Manifests));
                bytes = later;
            }
            offered.manifests.push(manifest);
            offered.bases.push(base.map(Arc::new));
        }
        if buffer.length() <= SMALL_PIECE {
            buffer.set_level(ZSTD_LEVEL_SMALL);
        }
        self.queue.extend(buffer.finish()?.map(Message::Manifests));
        self.stats.objects_sent = offered.manifests.len() as u64;
        self.stage = match asking {
            Asking::First => Stage::Asked(offered),
            Asking::Last => {
                let contents: Vec<Content> = telling.new.iter().filter_map(|place| Content::at(&offered.manifests, *place)).collect();
                offered.new = contents.iter().map(|content| content.digest).collect();
                self.send(offered, contents, Asking::Last)
            }
        };
        Ok(())
    }

    /// What the receiver has for certain. Objects that are there as they were before do not count: a content that moved between them travels.
    fn common_contents(&self, common: &Common) -> CommonContents {
        let mut digests = Vec::new();
        for object in &common.objects {
            // What cannot be read here counts as new: it is sent if it is needed, and an old object that is not stops nobody.
            let Ok(manifest) = self.store.manifest(object) else { continue };
            digests.extend(manifest.tree.files().map(|(_, file)| CommonContents::front(&file.digest)));
        }
        CommonContents::of(digests)
    }

    fn send(&mut self, offered: Offered, lacked: Vec<Content>, asking: Asking) -> Stage<S> {
        self.stats.blobs_sent += lacked.len() as u64;
        self.stats.bytes_raw += lacked.iter().map(|content| content.size).sum::<u64>();
        Stage::Contents(Box::new(Sending::new(offered, lacked, self.options.cache.clone())), asking)
    }

    /// Takes the receiver's choice from the contents whose digests were told.
    fn send_chosen(&mut self, offered: Offered, bits: &[u8]) -> Result<(), TransferError> {
        let told = |content: &Content| !offered.new.contains(&content.digest);
        let contents: Vec<Content> = contents_of(&offered.manifests)?.into_iter().filter(told).collect();
        let lacked = decode_bits(bits, contents.len())?;
        let lacked = contents.into_iter().zip(lacked).filter_map(|(content, lacks)| lacks.then_some(content)).collect();
        self.stage = self.send(offered, lacked, Asking::First);
        Ok(())
    }

    /// Compares what the receiver says with what was sent: a difference is a defect of one of the two programs.
    fn confirm(&mut self, totals: Totals) -> Result<(), TransferError> {
        let TransferStats { objects_sent: objects, blobs_sent: contents, bytes_raw: bytes, .. } = self.stats;
        if totals == (Totals { objects, contents, bytes }) {
            self.stage = Stage::Done;
            Ok(())
        } else {
            Err(TransferError::Malformed { what: "the final totals are not what was sent" })
        }
    }
}

impl<S: Source> Machine for Sender<'_, S> {
    type Outcome = TransferStats;

    fn poll(&mut self) -> Result<Step<TransferStats>, TransferError> {
        loop {
            if let Some(message) = self.queue.pop_front() {
                return Ok(Step::Send(message));
            }
            match std::mem::replace(&mut self.stage, Stage::Done) {
                Stage::Start => self.offer()?,
                Stage::Manifests { listed, lacked, common, asking } => self.tell_manifests(&listed, &lacked, &common, asking)?,
                Stage::Contents(mut sending, asking) => match sending.next(self.store, self.pace.levels())? {
                    Next::Send(message) => {
                        self.pace.sent(message.content_bytes());
                        self.stage = Stage::Contents(sending, asking);
                        return Ok(Step::Send(message));
                    }
                    Next::Await => {
                        self.stage = Stage::Contents(sending, asking);
                        return Ok(Step::Await);
                    }
                    Next::Finished => self.stage = Stage::Sent(sending.into_offered(), asking),
                },
                Stage::Done => return Ok(Step::Done(self.stats)),
                waiting @ (Stage::Offered(_) | Stage::Listed(..) | Stage::Asked(_) | Stage::Sent(..)) => {
                    self.stage = waiting;
                    return Ok(Step::Await);
                }
            }
        }
    }

    fn handle(&mut self, message: Message) -> Result<(), TransferError> {
        match (std::mem::replace(&mut self.stage, Stage::Done), message) {
            (Stage::Offered(closure), Message::Present { objects, asks }) => self.list(closure, &objects, asks),
            (Stage::Listed(listed, common), Message::LackedObjects(bits)) => {
                let lacked = decode_bits(&bits, listed.len())?;
                self.stage = Stage::Manifests { listed, lacked, common, asking: Asking::First };
                Ok(())
            }
            (Stage::Contents(mut sending, asking), message @ (Message::Acknowledge | Message::Refused)) => {
                sending.answered(&message)?;
                self.stage = Stage::Contents(sending, asking);
                Ok(())
            }
            (Stage::Offered(_) | Stage::Sent(..), Message::Done(totals)) => self.confirm(totals),
            (Stage::Asked(offered) | Stage::Sent(offered, Asking::Last), Message::LackedContents(bits)) => self.send_chosen(offered, &bits),
            (stage, message) => Err(TransferError::unexpected(&message, stage.expects())),
        }
    }

    fn passed(&mut self, busy: Duration, blocked: Duration) {
        if let Stage::Contents(..) = self.stage {
            self.pace.passed(busy, blocked);
        }
    }
}

impl<S: Source> Stage<S> {
    /// What the receiver should have said.
    const fn expects(&self) -> &'static str {
        match self {
            Self::Offered(_) => "the present objects",
            Self::Listed(..) => "the lacked objects",
            Self::Asked(_) => "the lacked contents",
            Self::Contents(..) => "an acknowledgement",
            Self::Sent(..) => "the final totals",
            Self::Start | Self::Manifests { .. } | Self::Done => "nothing",
        }
    }
}

fn check_limit(what: &'static str, actual: u64, limit: u64) -> Result<(), TransferError> {
    if actual > limit { Err(TransferError::Limit { what, actual, limit }) } else { Ok(()) }
}

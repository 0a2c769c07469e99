//! The two machines against each other, driven by seeds: no threads, no sockets, no files, no clock.
//!
//! A seed makes two stores, a schedule in which messages are late, and sometimes a cut at any byte, a peer that says something else than it
//! should, a full disk, lost or damaged old contents. After each session the receiver has named nothing or a complete, right closure; what arrived
//! before a cut does not travel again; nobody holds more than limits allow; and nobody waits for ever.

mod memory;

use std::cell::RefCell;
use std::collections::VecDeque;

use super::*;
use crate::transfer::machine::{Machine, Side, Step};
use memory::{Memory, NewFile, Receiving};

/// How many seeds every run tries.
const SEEDS: u64 = 2000;

/// The most that a receiver may hold of what it was told, beside a few times what came.
const HELD_BYTES_MAX: usize = 1 << 20;

/// A sequence of numbers that follows from a seed (`SplitMix64`).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut value = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        value = (value ^ value >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        value ^ value >> 31
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).unwrap()
    }

    fn percent(&mut self, chance: usize) -> bool {
        self.below(100) < chance
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        noise(self.next(), length)
    }
}

/// Two stores before a transfer.
struct World {
    sender: Memory,
    receiver: Memory,
    root: ObjectRef,
    /// Files of the receiver that are not what they should be.
    damaged: BTreeSet<(ObjectRef, String)>,
}

impl World {
    fn new(random: &mut Random) -> Self {
        let mut sender = Memory::default();
        let mut files: Vec<Vec<NewFile>> = (0..=random.below(3)).map(|_| files(random)).collect();
        let first = bundle(&mut sender, &files, random.percent(80));
        for component in &mut files {
            if random.percent(70) {
                change(component, random);
            }
        }
        let root = bundle(&mut sender, &files, random.percent(80));
        let mut world = Self { sender, receiver: Memory::default(), root, damaged: BTreeSet::new() };
        world.prepare(&first, random);
        world
    }

    /// Gives the receiver a past.
    fn prepare(&mut self, first: &ObjectRef, random: &mut Random) {
        if random.percent(75) {
            self.receiver.take(&self.sender, first);
            if random.percent(80) {
                self.receiver.generations.push(first.clone());
            }
            if random.percent(15) && *first != self.root {
                // The sender has forgotten it, the components stay.
                self.sender.objects.remove(first);
            }
        }
        if random.percent(30) {
            self.receiver.put("stranger", &[], &files(random));
        }
        if random.percent(20) {
            self.receiver.left_overs = true;
            let some: Vec<_> = self.sender.contents.clone().into_iter().filter(|_| random.percent(30)).collect();
            self.receiver.contents.extend(some);
        }
        if random.percent(20) {
            self.receiver.contents.retain(|_, _| random.percent(70));
        }
        if random.percent(20) {
            for (place, bytes) in &mut self.receiver.files {
                if random.percent(30) {
                    *bytes = random.bytes(bytes.len()).into();
                    self.damaged.insert(place.clone());
                }
            }
        }
    }
}

/// Some files: texts, one that looks like a program, empty ones, some of the same content, some with their object's id in them.
fn files(random: &mut Random) -> Vec<NewFile> {
    let count = random.below(7);
    let mut files = Vec::new();
    for i in 0..count {
        let bytes = match random.below(10) {
            0 => Vec::new(),
            1 => b"the same everywhere".to_vec(),
            2 => [vec![0; 10], random.bytes(17_000)].concat(),
            _ => {
                let length = random.below(400);
                random.bytes(length)
            }
        };
        let own = (bytes.len() > 40 && random.percent(20)).then(|| random.below(bytes.len() - 32) as u64);
        let mut file = NewFile { path: format!("d{}/f{i}.{}", i % 2, random.below(3)), bytes, executable: random.percent(30), own };
        zero_own(&mut file);
        files.push(file);
    }
    files
}

fn zero_own(file: &mut NewFile) {
    if let Some(own) = file.own {
        crate::tree::write_at(&mut file.bytes, &[own], [b'0'; 32]);
    }
}

/// Makes the next version of some files.
fn change(files: &mut Vec<NewFile>, random: &mut Random) {
    for file in files.iter_mut() {
        match random.below(6) {
            0 if file.bytes.len() > 50 => {
                let at = random.below(file.bytes.len());
                file.bytes[at] ^= 1;
                zero_own(file);
            }
            1 if file.own.is_none() => {
                let more = random.below(60);
                file.bytes.extend(random.bytes(more));
            }
            2 => file.path = format!("{}9", file.path),
            3 => file.executable = !file.executable,
            _ => {}
        }
    }
    if random.percent(30) {
        files.pop();
    }
    if random.percent(30) {
        let length = random.below(100);
        files.push(NewFile { path: String::from("new/file"), bytes: random.bytes(length), executable: false, own: None });
    }
}

fn bundle(store: &mut Memory, components: &[Vec<NewFile>], with_files: bool) -> ObjectRef {
    let references: Vec<ObjectRef> =
        components.iter().enumerate().map(|(i, files)| store.put(&format!("component-{i}"), &[], files)).collect();
    let bytes = format!("{references:?}").into_bytes();
    let manifest = NewFile { path: String::from("manifest.json"), bytes, executable: false, own: None };
    store.put("bundle", &references, if with_files { std::slice::from_ref(&manifest) } else { &[] })
}

/// What happens to a session.
#[derive(Default)]
struct Fate {
    /// After so many bytes in both directions the connection is lost.
    cut: Option<usize>,
    /// One message in so many of the sender, and of the receiver, is not what it should be; 0 is none.
    lies: [usize; 2],
    /// What the receiver's disk has room for.
    free: Option<u64>,
}

/// What became of a session.
struct Session {
    sent: Option<Result<TransferStats, TransferError>>,
    received: Option<Result<(Vec<ObjectRef>, TransferStats), TransferError>>,
    /// All that travelled.
    bytes: usize,
}

/// Frames on their way.
#[derive(Default)]
struct Link {
    frames: VecDeque<Frame>,
    /// What was said before, for a peer that repeats itself.
    before: Vec<Frame>,
}

impl Link {
    fn push(&mut self, message: Message, lies: usize, random: &mut Random) -> usize {
        let (kind, payload) = message.encode();
        let frame = Frame { kind, payload };
        let bytes = frame.payload.len() + 5;
        if lies > 0 && random.below(lies) == 0 {
            let frames = lie(&frame, &self.before, random);
            self.frames.extend(frames);
        } else {
            self.frames.push_back(frame.clone());
        }
        self.before.push(frame);
        bytes
    }
}

/// What a peer may say instead.
fn lie(honest: &Frame, before: &[Frame], random: &mut Random) -> Vec<Frame> {
    let mut frame = honest.clone();
    match random.below(9) {
        0 => return Vec::new(),
        1 => return vec![frame.clone(), frame],
        2 if !before.is_empty() => return vec![before[random.below(before.len())].clone()],
        3 => frame.kind = u8::try_from(random.below(0x12)).unwrap(),
        4 => frame.payload.truncate(random.below(frame.payload.len() + 1)),
        5 => {
            let length = random.below(40);
            frame.payload.extend(random.bytes(length));
        }
        6 => {
            let length = random.below(40);
            frame.payload = random.bytes(length);
        }
        _ => {
            for _ in 0..=random.below(3) {
                if !frame.payload.is_empty() {
                    let at = random.below(frame.payload.len());
                    frame.payload[at] ^= 1 << random.below(8);
                }
            }
        }
    }
    vec![frame]
}

fn session(world: &World, receiver: &RefCell<Memory>, fate: &Fate, random: &mut Random) -> Session {
    let sink = Receiving::new(receiver, fate.free.unwrap_or(u64::MAX));
    let roots = std::slice::from_ref(&world.root);
    let mut sender = Some(Side::new(Sender::new(&world.sender, roots, &TransferOptions::default())));
    let mut taker = Some(Side::new(Receiver::new(sink)));
    let (mut to_taker, mut to_sender) = (Link::default(), Link::default());
    let mut session = Session { sent: None, received: None, bytes: 0 };
    let mut waits = [false; 2];
    while sender.is_some() || taker.is_some() {
        let ready = [
            sender.is_some() && (!waits[0] || !to_sender.frames.is_empty()),
            taker.is_some() && (!waits[1] || !to_taker.frames.is_empty()),
        ];
        let cut = fate.cut.is_some_and(|cut| session.bytes >= cut);
        if cut || ready == [false; 2] {
            // A peer that is gone or says too little ends in a cut; two honest ones never wait for each other.
            assert!(cut || fate.lies != [0; 2] || sender.is_none() || taker.is_none(), "nobody goes on");
            session.sent = sender.take().map_or(session.sent, |mut side| Some(Err(side.cut(TransferError::Ended))));
            session.received = taker.take().map_or(session.received, |mut side| Some(Err(side.cut(TransferError::Ended))));
            break;
        }
        if ready[0] && (!ready[1] || random.percent(50)) {
            let Some(side) = sender.as_mut() else { continue };
            match turn(side, &mut waits[0], &mut to_sender, &mut to_taker, fate.lies[0], random) {
                Turn::Said(bytes) => session.bytes += bytes,
                Turn::Nothing => {}
                Turn::Done(outcome) => {
                    session.sent = Some(outcome);
                    sender = None;
                }
            }
        } else {
            let Some(side) = taker.as_mut() else { continue };
            match turn(side, &mut waits[1], &mut to_taker, &mut to_sender, fate.lies[1], random) {
                Turn::Said(bytes) => session.bytes += bytes,
                Turn::Nothing => {}
                Turn::Done(outcome) => {
                    session.received = Some(outcome);
                    taker = None;
                }
            }
            if let Some(side) = &taker {
                let held = side.machine().held_bytes();
                assert!(held <= HELD_BYTES_MAX + 16 * session.bytes, "{held} bytes are held after {}", session.bytes);
                assert!(side.machine().sink().open_writers() <= 2);
            }
        }
        assert!(to_taker.frames.len() <= limits::PIECES_UNDER_WAY + 8 || fate.lies != [0; 2], "the window is not kept");
    }
    session
}

enum Turn<T> {
    Said(usize),
    Nothing,
    Done(Result<T, TransferError>),
}

/// One step of a side.
fn turn<M: Machine>(
    side: &mut Side<M>,
    waits: &mut bool,
    inbox: &mut Link,
    outbox: &mut Link,
    lies: usize,
    random: &mut Random,
) -> Turn<M::Outcome> {
    if *waits {
        if let Some(frame) = inbox.frames.pop_front() {
            side.handle(frame);
            *waits = false;
        }
        return Turn::Nothing;
    }
    match side.poll() {
        Step::Send(message) => Turn::Said(outbox.push(message, lies, random)),
        Step::Await => {
            *waits = true;
            Turn::Nothing
        }
        Step::Done(outcome) => Turn::Done(outcome),
    }
}

fn simulate(seed: u64) {
    let mut random = Random(seed);
    let world = World::new(&mut random);
    world.receiver.check(&world.damaged);
    // An honest run tells how much there is to do.
    let receiver = RefCell::new(world.receiver.clone());
    let honest = session(&world, &receiver, &Fate::default(), &mut random);
    let (roots, stats) = honest.received.unwrap().unwrap();
    assert_eq!(honest.sent.unwrap().unwrap(), stats);
    assert_eq!(roots, std::slice::from_ref(&world.root));
    arrived(&world, &receiver.borrow());

    let receiver = RefCell::new(world.receiver.clone());
    for attempt in 0..=random.below(3) {
        let before = receiver.borrow().clone();
        let fate = match random.below(4) {
            0 | 1 => Fate { cut: Some(random.below(honest.bytes + 1)), ..Fate::default() },
            2 => {
                Fate { lies: [1 + random.below(8), 0], cut: random.percent(20).then(|| random.below(honest.bytes + 1)), ..Fate::default() }
            }
            _ => Fate { lies: [0, 1 + random.below(8)], free: random.percent(30).then_some(10), ..Fate::default() },
        };
        let outcome = session(&world, &receiver, &fate, &mut random);
        let after = receiver.borrow();
        after.check(&world.damaged);
        match outcome.received.unwrap() {
            Ok(_) => arrived(&world, &after),
            // It may be finished, and have heard only that the connection is gone.
            Err(_) if after.objects.contains_key(&world.root) => arrived(&world, &after),
            Err(_) => assert!(after.objects.keys().eq(before.objects.keys()), "a failed transfer named something in attempt {attempt}"),
        }
        if let (Ok(_), 0) = (outcome.sent.unwrap(), fate.lies[1]) {
            arrived(&world, &after);
        }
    }
    // In the end all is well, and what had come whole does not come again.
    let wanted = contents_of_closure(&world);
    let came = |digest: &&Digest| wanted.contains(digest) && !world.receiver.contents.contains_key(digest);
    let kept = receiver.borrow().contents.keys().filter(came).count() as u64;
    let is_there = receiver.borrow().objects.contains_key(&world.root);
    let last = session(&world, &receiver, &Fate::default(), &mut random);
    let (_, again) = last.received.unwrap().unwrap();
    last.sent.unwrap().unwrap();
    arrived(&world, &receiver.borrow());
    let at_most = if is_there { 0 } else { stats.blobs_sent.saturating_sub(kept) };
    assert!(again.blobs_sent <= at_most, "{} contents travelled again, {at_most} were missing", again.blobs_sent);
}

fn contents_of_closure(world: &World) -> BTreeSet<Digest> {
    let closure = world.sender.closure_of(std::slice::from_ref(&world.root)).unwrap();
    closure.iter().flat_map(|object| world.sender.objects[object].tree.files()).map(|(_, file)| file.digest).collect()
}

/// The receiver has the closure, complete and right.
fn arrived(world: &World, receiver: &Memory) {
    receiver.check(&world.damaged);
    let roots = std::slice::from_ref(&world.root);
    assert!(receiver.closure_of(roots).unwrap() == world.sender.closure_of(roots).unwrap(), "the closure is another one");
}

#[test]
fn every_seed_ends_well() {
    for seed in 0..SEEDS {
        if let Err(panic) = std::panic::catch_unwind(|| simulate(seed)) {
            let words = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
            panic!("seed {seed}: {}", words.unwrap_or("no words"));
        }
    }
}

#[test]
fn another_version_is_refused_on_both_sides() {
    let world = World::new(&mut Random(1));
    let mut offer = Message::Offer { roots: vec![world.root.clone()], objects: 1 }.encode().1;
    offer[0] ^= 1;
    let receiver = RefCell::new(world.receiver.clone());
    let mut taker = Side::new(Receiver::new(Receiving::new(&receiver, 0)));
    assert!(matches!(taker.poll(), Step::Await));
    taker.handle(Frame { kind: 1, payload: offer });
    let Step::Send(Message::Error(reason)) = taker.poll() else { panic!("it says nothing") };
    assert!(reason.contains("speaks version") && reason.contains("use the same sarsen on both"), "{reason}");
    let mut sender = Side::new(Sender::new(&world.sender, std::slice::from_ref(&world.root), &TransferOptions::default()));
    assert!(matches!(sender.poll(), Step::Send(Message::Offer { .. })));
    let (kind, payload) = Message::Error(reason).encode();
    sender.handle(Frame { kind, payload });
    let Step::Send(Message::Error(answer)) = sender.poll() else { panic!("it does not answer") };
    assert_eq!(answer, "");
    assert!(matches!(sender.poll(), Step::Done(Err(TransferError::Peer { .. }))));
    taker.handle(Frame { kind: 0x0b, payload: Vec::new() });
    assert!(matches!(taker.poll(), Step::Done(Err(TransferError::Version { .. }))));
}

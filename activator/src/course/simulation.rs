//! A machine in memory that runs the course of trials by a seed, and looks whether the promises of `LAYOUT.md` hold.
//!
//! The disk has two sides: what was written, and what was synced; a power cut keeps any part of the rest. Processes take turns
//! at every effect and may be killed before, in the middle of or after one. Confirmations are delayed, lost, sent twice, late, of
//! another trial or another boot. The dead man fires at any moment, the time of day jumps, the machine sleeps. When faults
//! end, the dead man alone must bring everything to its end: nobody comes.
#![expect(clippy::disallowed_methods, reason = "how many seeds is said by the environment")]

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::audit::Action;

/// How many seeds one run tries, without `SARSEN_ROUNDS`.
const SEEDS: u64 = 50_000;

/// The turns of one simulation: some trials of some 40 effects each.
const TURNS: usize = 160;

/// How many turns after the last fault everything has come to its end: each dead man's look ends one trial.
const QUIET_TURNS: usize = 400;

/// Numbers that depend on a seed alone. Source: Steele, Lea and Flood, "Fast splittable pseudorandom number generators".
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(bound).unwrap()).unwrap()
    }

    fn one_in(&mut self, bound: usize) -> bool {
        self.below(bound) == 0
    }
}

/// What is on disk. Every member is one file or link, and is replaced as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Disk {
    current: Option<u64>,
    good: Option<u64>,
    pending: Option<Pending>,
    /// The journal's nonce, and its moves by number.
    journal: (String, Vec<usize>),
    records: BTreeMap<u64, &'static str>,
    /// Which generation a managed path and the definitions of units belong to.
    link: Option<u64>,
    definitions: Option<u64>,
    log: Vec<(String, &'static str)>,
    hooks_after: BTreeSet<String>,
}

/// A process that carries a trial or settles one, and holds the profile's lock.
struct Process {
    course: Course,
    effect: Effect,
    trial: Pending,
    undo: Vec<Move>,
    at_boot: bool,
    confirm_at_once: bool,
    fails_at: Option<usize>,
}

/// A message of an operator on its way.
struct Message {
    due: usize,
    nonce: String,
    keep: bool,
}

struct World {
    random: Random,
    written: Disk,
    synced: Disk,
    /// Which generation's units run; nothing while they are stopped.
    running: Option<u64>,
    dead_man: bool,
    boot: u64,
    boottime_ms: u64,
    unix_seconds: u64,
    process: Option<Process>,
    messages: Vec<Message>,
    turn: usize,
    trials: u64,
    generations: u64,
    /// Confirmations that arrived in time at a healthy trial, and what operators were told.
    confirmed: BTreeSet<String>,
    told: BTreeMap<String, bool>,
    declared: BTreeSet<String>,
}

/// What every trial of the simulation does.
fn moves() -> Vec<Move> {
    vec![Move::Stop, Move::Switch, Move::Install, Move::Link("/etc/app".to_owned()), Move::Hooks, Move::Start, Move::Health]
}

impl World {
    fn new(seed: u64) -> Self {
        Self {
            random: Random(seed),
            written: Disk::default(),
            synced: Disk::default(),
            running: None,
            dead_man: false,
            boot: 1,
            boottime_ms: 1000,
            unix_seconds: 1_800_000_000,
            process: None,
            messages: Vec::new(),
            turn: 0,
            trials: 0,
            generations: 0,
            confirmed: BTreeSet::new(),
            told: BTreeMap::new(),
            declared: BTreeSet::new(),
        }
    }

    fn moment(&self) -> Moment {
        Moment { unix_seconds: self.unix_seconds, boottime_ms: self.boottime_ms, boot_id: self.boot.to_string() }
    }

    /// Changes the disk, and syncs it before it goes on.
    fn write(&mut self, change: impl FnOnce(&mut Disk)) {
        change(&mut self.written);
        self.synced = self.written.clone();
    }

    /// Runs one seed; how many trials were kept.
    fn run(seed: u64) -> usize {
        let mut world = Self::new(seed);
        while world.turn < TURNS {
            world.take_turn();
            world.check_always(seed);
        }
        world.messages.clear();
        for _ in 0..QUIET_TURNS {
            world.boottime_ms += 15_000;
            if world.process.is_some() {
                world.advance();
            } else if world.dead_man || world.written.pending.as_ref().is_some_and(|pending| world.written.current == pending.previous) {
                // A trial that changed nothing yet may be found by the next session only.
                world.settle(false);
            } else {
                break;
            }
            world.check_always(seed);
        }
        world.check_end(seed);
        world.told_kept().len()
    }

    fn take_turn(&mut self) {
        self.turn += 1;
        self.boottime_ms += u64::try_from(self.random.below(3000)).unwrap();
        self.deliver();
        match self.random.below(256) {
            0..=2 => self.kill(),
            3..=4 => self.cut_power(),
            5 => self.reboot(),
            6 => self.unix_seconds = self.random.next() >> 20,
            7 => self.boottime_ms += 3_600_000,
            8..=30 if self.dead_man && self.process.is_none() => self.settle(false),
            31..=42 if self.process.is_none() => self.settle(false),
            43..=110 if self.process.is_none() => self.deploy(),
            111..=113 => self.send_something(),
            _ => self.advance(),
        }
    }

    /// A session, the dead man, or the boot: whoever comes settles what was left behind.
    fn settle(&mut self, at_boot: bool) {
        match self.written.pending.clone() {
            None if !at_boot => self.dead_man = false,
            None => {}
            Some(trial) => {
                let (course, effect) = Course::settle(&trial, &self.moment()).start();
                let fails_at = None;
                self.process = Some(Process { course, effect, trial, undo: Vec::new(), at_boot, confirm_at_once: false, fails_at });
            }
        }
    }

    fn deploy(&mut self) {
        if self.written.pending.is_some() {
            return self.settle(false);
        }
        self.trials += 1;
        let others: Vec<u64> = self.written.records.keys().copied().filter(|number| Some(*number) != self.written.current).collect();
        let (generation, is_new) = match others.len() {
            0 => (self.generations + 1, true),
            _ if self.random.one_in(3) => (others[self.random.below(others.len())], false),
            _ => (self.generations + 1, true),
        };
        self.generations = self.generations.max(generation);
        let now = self.moment();
        let trial = Pending {
            generation,
            previous: self.written.current,
            nonce: format!("{:04}", self.trials),
            boot_id: now.boot_id,
            who: String::new(),
            message: None,
            revision: None,
            action: Action::Deploy,
            taken_from: None,
            phase: Phase::Activating { deadline_boottime_ms: now.boottime_ms + 600_000 },
        };
        let confirm_at_once = self.random.one_in(6);
        let confirmation = if confirm_at_once { Confirmation::NotNeeded } else { Confirmation::Awaited };
        let fails_at = self.random.one_in(4).then(|| self.random.below(moves().len()));
        let (course, effect) = Course::begin(moves(), confirmation, is_new).start();
        self.process = Some(Process { course, effect, trial, undo: Vec::new(), at_boot: false, confirm_at_once, fails_at });
    }

    /// One effect of the process that is at work.
    fn advance(&mut self) {
        let Some(mut process) = self.process.take() else { return };
        let event = self.carry_out(&mut process);
        (process.course, process.effect) = process.course.step(&event);
        match process.effect {
            Effect::End(_) if process.at_boot => self.start_units(),
            Effect::End(_) => {}
            _ => self.process = Some(process),
        }
    }

    fn carry_out(&mut self, process: &mut Process) -> Event {
        let trial = process.trial.clone();
        let (generation, previous) = (trial.generation, trial.previous);
        match process.effect.clone() {
            Effect::RecordGeneration => self.write(|disk| _ = disk.records.insert(generation, "pending")),
            Effect::BeginJournal => self.write(|disk| disk.journal = (trial.nonce, Vec::new())),
            Effect::Declare => {
                self.declared.insert(trial.nonce.clone());
                self.write(|disk| disk.pending = Some(trial));
            }
            Effect::ArmDeadMan => self.dead_man = true,
            Effect::Look(_) | Effect::Pause => return self.look(&trial),
            Effect::WriteDown(number) => self.write(|disk| disk.journal.1.push(number)),
            Effect::Make(number) => {
                if process.fails_at == Some(number) {
                    return Event::Failed("it is broken".to_owned());
                }
                self.make(&moves()[number], generation);
            }
            Effect::BeginWaiting => {
                let deadline_boottime_ms = self.boottime_ms + 20_000;
                self.decide(&trial.nonce, &Wish::Wait { deadline_boottime_ms });
                return self.look(&trial);
            }
            Effect::Report => self.answer_report(&trial),
            Effect::Confirm => {
                assert!(process.confirm_at_once, "only who stands at the machine confirms himself");
                self.keep(&trial.nonce);
                return self.look(&trial);
            }
            Effect::GiveUp(reason) => return self.give_up(&trial, reason),
            Effect::MarkGood => self.write(|disk| disk.good = Some(generation)),
            Effect::RecordKept => self.write(|disk| _ = disk.records.insert(generation, "committed")),
            Effect::RunHooksAfter if process.at_boot => return Event::Postponed,
            Effect::RunHooksAfter => self.write(|disk| _ = disk.hooks_after.insert(trial.nonce)),
            Effect::PlanBack => return self.plan_back(process),
            // A way back that is shut for now must be gone later.
            Effect::Undo(number) if process.undo[number] == Move::Switch && self.turn < TURNS && self.random.one_in(8) => {
                return Event::Failed("it cannot be switched now".to_owned());
            }
            Effect::Undo(number) => self.undo(&process.undo[number].clone(), &trial),
            Effect::CheckWay if self.written.current == previous => {}
            Effect::CheckWay => return Event::Failed("the way is shut".to_owned()),
            Effect::RunHooksBack => {}
            Effect::VerifyUnits => assert!(process.at_boot || self.running == previous, "the units of {previous:?} run again"),
            Effect::RecordBack { .. } if previous == Some(generation) => {}
            Effect::RecordBack { .. } => self.write(|disk| _ = disk.records.insert(generation, "rolled-back")),
            Effect::Log(end) => {
                let line = (trial.nonce, if end == End::Kept { "committed" } else { "rolled-back" });
                self.write(|disk| {
                    if disk.log.last() != Some(&line) {
                        disk.log.push(line);
                    }
                });
            }
            Effect::EndTrial => self.write(|disk| disk.pending = None),
            Effect::Disarm => self.dead_man = false,
            Effect::End(_) => unreachable!("the end is not carried out"),
        }
        Event::Done
    }

    fn look(&self, trial: &Pending) -> Event {
        let found = self.written.pending.as_ref().filter(|pending| pending.nonce == trial.nonce);
        Event::Found(match found.map(|pending| pending.phase.clone()) {
            None => Standing::Gone,
            Some(Phase::Activating { .. }) => Standing::Activating,
            Some(Phase::OnTrial { deadline_boottime_ms }) if self.boottime_ms >= deadline_boottime_ms => Standing::Late,
            Some(Phase::OnTrial { .. }) => Standing::Waiting,
            Some(Phase::Committed) => Standing::Committed,
            Some(Phase::GivenUp { reason }) => Standing::GivenUp(reason),
        })
    }

    fn make(&mut self, it: &Move, generation: u64) {
        let declared = self.synced.pending.as_ref().is_some_and(|pending| pending.generation == generation);
        assert!(declared && self.dead_man, "nothing changes before the trial is on disk and its dead man is armed");
        match it {
            Move::Stop => self.running = None,
            Move::Switch => self.write(|disk| disk.current = Some(generation)),
            Move::Install => self.write(|disk| disk.definitions = disk.current),
            Move::Link(_) => self.write(|disk| disk.link = Some(generation)),
            Move::Start => self.start_units(),
            Move::Hooks | Move::Reload | Move::Revive | Move::Health => {}
        }
    }

    /// Units run what their definitions say, and those lead through `current`.
    fn start_units(&mut self) {
        self.running = if self.written.definitions.is_some() { self.written.current } else { None };
    }

    fn plan_back(&self, process: &mut Process) -> Event {
        let (nonce, steps) = &self.written.journal;
        let done: Vec<Move> =
            if *nonce == process.trial.nonce { steps.iter().map(|step| moves()[*step].clone()).collect() } else { Vec::new() };
        // As `journal::plan_undo` has it.
        let is_last = |it: &Move| matches!(it, Move::Install | Move::Stop);
        process.undo = done.iter().rev().filter(|it| !is_last(it)).cloned().collect();
        process.undo.extend(done.iter().rev().filter(|it| is_last(it)).cloned());
        Event::Steps(process.undo.len())
    }

    fn undo(&mut self, it: &Move, trial: &Pending) {
        let previous = trial.previous;
        match it {
            Move::Start => self.running = None,
            Move::Link(_) => self.write(|disk| disk.link = previous),
            Move::Switch => self.write(|disk| disk.current = previous),
            Move::Install => self.write(|disk| disk.definitions = previous),
            Move::Stop => self.start_units(),
            Move::Hooks | Move::Reload | Move::Revive | Move::Health => {}
        }
    }

    fn decide(&mut self, nonce: &str, wish: &Wish) {
        let Some(mut pending) = self.written.pending.clone().filter(|pending| pending.nonce == nonce) else { return };
        if let Some(phase) = decide(&pending, wish, &self.moment()) {
            pending.phase = phase;
            self.write(|disk| disk.pending = Some(pending));
        }
    }

    /// A confirmation arrives; what it may lead to is computed apart from [`decide`].
    fn keep(&mut self, nonce: &str) {
        let boot = self.boot.to_string();
        if let Some(pending) = self.written.pending.as_ref().filter(|pending| pending.nonce == nonce)
            && let Phase::OnTrial { deadline_boottime_ms } = pending.phase
            && pending.boot_id == boot
            && self.boottime_ms < deadline_boottime_ms
        {
            self.confirmed.insert(nonce.to_owned());
        }
        self.decide(nonce, &Wish::Keep);
        self.tell(nonce);
    }

    /// What the operator is told by the phase; it may never be told otherwise later.
    fn tell(&mut self, nonce: &str) {
        let kept = match self.written.pending.as_ref().filter(|pending| pending.nonce == nonce).map(|pending| &pending.phase) {
            Some(Phase::Committed) => true,
            Some(Phase::GivenUp { .. }) => false,
            Some(Phase::Activating { .. } | Phase::OnTrial { .. }) | None => return,
        };
        let before = self.told.insert(nonce.to_owned(), kept);
        assert!(before.is_none_or(|before| before == kept), "trial {nonce} had two outcomes");
    }

    fn give_up(&mut self, trial: &Pending, reason: String) -> Event {
        self.decide(&trial.nonce, &Wish::GiveUp(reason));
        self.tell(&trial.nonce);
        Event::Decided(match self.look(trial) {
            Event::Found(Standing::Committed) => Verdict::Kept,
            Event::Found(Standing::GivenUp(reason)) => Verdict::GivenUp(reason),
            _ => Verdict::Gone,
        })
    }

    /// The operator hears that the trial waits, and confirms it, gives it up, or is cut off; messages are late, lost and sent twice.
    fn answer_report(&mut self, trial: &Pending) {
        let keep = !self.random.one_in(5);
        for _ in 0..self.random.below(3) {
            let due = self.turn + self.random.below(24);
            self.messages.push(Message { due, nonce: trial.nonce.clone(), keep });
        }
    }

    /// Somebody confirms or gives up a trial that was, or never was.
    fn send_something(&mut self) {
        let number = self.random.below(usize::try_from(self.trials).unwrap() + 2);
        let (nonce, keep) = (format!("{number:04}"), self.random.one_in(2));
        self.messages.push(Message { due: self.turn, nonce, keep });
    }

    fn deliver(&mut self) {
        let turn = self.turn;
        let (due, later) = std::mem::take(&mut self.messages).into_iter().partition(|message| message.due <= turn);
        self.messages = later;
        let due: Vec<Message> = due;
        for Message { nonce, keep, .. } in due {
            if keep {
                self.keep(&nonce);
            } else {
                self.decide(&nonce, &Wish::GiveUp("the operator gave it up".to_owned()));
                self.tell(&nonce);
            }
        }
    }

    /// The process at work dies; its effect may have happened by then.
    fn kill(&mut self) {
        let Some(mut process) = self.process.take() else { return };
        // Who dies at boot before his first step leaves the trial to the next session or boot: nobody else is there yet.
        let is_unattended = process.at_boot && !self.dead_man;
        if is_unattended || self.random.one_in(2) {
            self.carry_out(&mut process);
        }
        if process.at_boot {
            // systemd starts units even if what settles at boot was killed; the dead man comes back to it.
            self.start_units();
        }
    }

    /// The machine loses what was not synced, any part of it, and boots.
    fn cut_power(&mut self) {
        let before = self.synced.clone();
        let mut process = self.process.take();
        if self.random.one_in(2)
            && let Some(process) = process.as_mut()
        {
            // Nobody is told what is not synced.
            let told = self.told.clone();
            self.carry_out(process);
            self.told = told;
        }
        // What the effect in between wrote had not been synced yet.
        let written = self.synced.clone();
        let mut choose = || self.random.one_in(2);
        let disk = Disk {
            current: if choose() { before.current } else { written.current },
            good: if choose() { before.good } else { written.good },
            pending: if choose() { before.pending } else { written.pending },
            journal: if choose() { before.journal } else { written.journal },
            records: if choose() { before.records } else { written.records },
            link: if choose() { before.link } else { written.link },
            definitions: if choose() { before.definitions } else { written.definitions },
            log: if choose() { before.log } else { written.log },
            hooks_after: written.hooks_after,
        };
        (self.written, self.synced) = (disk.clone(), disk);
        self.start_up();
    }

    fn reboot(&mut self) {
        self.process = None;
        self.start_up();
    }

    /// Boots: what is pending is settled, then units start.
    fn start_up(&mut self) {
        self.boot += 1;
        self.boottime_ms = 1000;
        (self.running, self.dead_man, self.process) = (None, false, None);
        self.settle(true);
        if self.process.is_none() {
            self.start_units();
        }
        // Sessions of before are gone, messages in the network are not.
        if self.random.one_in(2) {
            self.messages.clear();
        }
    }

    #[track_caller]
    fn check_always(&self, seed: u64) {
        let Disk { current, good, pending, .. } = &self.written;
        match pending {
            None if self.process.is_none() => assert_eq!(current, good, "seed {seed}: without a trial the last good generation is current"),
            None => {}
            Some(pending) => {
                let sides = [Some(pending.generation), pending.previous];
                assert!(sides.contains(current), "seed {seed}: {current:?} is neither old nor new");
                if pending.phase == Phase::Committed {
                    assert!(self.confirmed.contains(&pending.nonce), "seed {seed}: kept without a confirmation in time");
                    assert_eq!(*current, Some(pending.generation), "seed {seed}: what was confirmed is current");
                }
                let unattended = self.process.is_none() && !self.dead_man && *current != pending.previous;
                assert!(!unattended, "seed {seed}: a trial that changed something has nobody to look after it");
            }
        }
        if let (Some(process), None) = (&self.process, self.running) {
            // Units that start at boot do so after everything was settled.
            assert!(!process.at_boot || self.running.is_none(), "seed {seed}");
        }
    }

    /// Nobody came, and it is all over.
    #[track_caller]
    fn check_end(&self, seed: u64) {
        let Disk { current, good, pending, link, definitions, log, hooks_after, .. } = &self.written;
        assert!(self.process.is_none() && pending.is_none(), "seed {seed}: {pending:?} has not come to its end");
        assert!(!self.dead_man, "seed {seed}: the dead man stays");
        let kept: Vec<&String> = log.iter().filter(|(_, result)| *result == "committed").map(|(nonce, _)| nonce).collect();
        assert_eq!([current, link, definitions, &self.running], [good; 4], "seed {seed}: current, link, definitions, units");
        assert_eq!(kept.iter().copied().collect::<BTreeSet<_>>(), self.told_kept(), "seed {seed}: what was kept");
        assert_eq!(kept.len(), self.told_kept().len(), "seed {seed}: the end of a trial is logged once");
        assert_eq!(hooks_after.iter().collect::<BTreeSet<_>>(), self.told_kept(), "seed {seed}: hooks after the confirmation ran");
        let ends: BTreeMap<String, bool> = log.iter().map(|(nonce, result)| (nonce.clone(), *result == "committed")).collect();
        assert_eq!(ends, self.told, "seed {seed}: the log has the end of every trial, as it was told");
        assert!(ends.keys().all(|nonce| self.declared.contains(nonce)), "seed {seed}: and of no other");
    }

    fn told_kept(&self) -> BTreeSet<&String> {
        self.told.iter().filter(|(_, kept)| **kept).map(|(nonce, _)| nonce).collect()
    }
}

/// The seeds are the same in every run; a seed that fails is named, and is run alone by `SARSEN_SEED`.
#[test]
fn trials_keep_their_promises_whatever_dies() {
    if let Some(seed) = std::env::var("SARSEN_SEED").ok().and_then(|seed| seed.parse().ok()) {
        World::run(seed);
        return;
    }
    let rounds: u64 = std::env::var("SARSEN_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(1);
    let seeds = SEEDS * rounds.max(1);
    let kept: usize = (0..seeds).map(World::run).sum();
    assert!(
        u64::try_from(kept).unwrap() > seeds / 2,
        "{kept} of the trials of {seeds} seeds were kept: the simulation has lost its subject"
    );
}

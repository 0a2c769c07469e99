//! The course of a trial as a machine without I/O: (state, event) -> (state, effect).
//!
//! It says what is done next, and never does it: a driver carries one effect out and answers with the event that came of it.
//! The real driver is [`crate::drive`]; the simulation in `course/simulation.rs` is another, on a disk that forgets what was not
//! synced, with processes that die anywhere. The same machine carries a trial from its declaration to its end and
//! settles one whose process is dead, because what follows from a decision does not depend on who carries it out.
//! Only [`decide`] may change the phase of a trial, and who asks it holds `commit.lock`. The normative text is
//! `LAYOUT.md`, sections "Trials" and "Activation".
#![expect(clippy::wildcard_enum_match_arm, reason = "an effect has a few events that can come of it; all others are equally impossible")]

use crate::clock::Moment;
use crate::diff::ActivationPlan;
use crate::pending::{Pending, Phase};

/// Why a trial is left that somebody else has settled or replaced.
const TAKEN_OVER: &str = "the trial was taken over by somebody else";

/// One thing that a trial changes, in the order in which it is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Move {
    /// Stop units, as their old definitions say.
    Stop,
    /// Switch `current`.
    Switch,
    /// Install the definitions of units.
    Install,
    /// Change the managed path.
    Link(String),
    /// Run the hooks after the switch.
    Hooks,
    /// Let units read their configuration again.
    Reload,
    /// Start kept units that had ended by themselves.
    Revive,
    /// Start units.
    Start,
    /// Wait until it is healthy.
    Health,
}

impl Move {
    /// Whether it stands in the journal before it is made, because it has to be undone.
    pub fn is_written_down(&self) -> bool {
        match self {
            Self::Stop | Self::Switch | Self::Install | Self::Link(_) | Self::Reload | Self::Start => true,
            // Hooks have their own way back, both generations want revived units, and looking changes nothing.
            Self::Hooks | Self::Revive | Self::Health => false,
        }
    }
}

/// What a plan comes to, in order.
pub fn plan_moves(plan: &ActivationPlan) -> Vec<Move> {
    let some = |units: &[String], it: Move| (!units.is_empty()).then_some(it);
    let mut moves: Vec<Move> = some(&plan.stop, Move::Stop).into_iter().collect();
    moves.extend([Move::Switch, Move::Install]);
    moves.extend(plan.links_make.iter().chain(&plan.links_remove).cloned().map(Move::Link));
    moves.push(Move::Hooks);
    moves.extend(some(&plan.reload, Move::Reload));
    moves.extend(some(&plan.revive, Move::Revive));
    moves.extend(some(&plan.start, Move::Start));
    moves.push(Move::Health);
    moves
}

/// What the driver has to do next; it answers each with an [`Event`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Give a new generation its link and its record.
    RecordGeneration,
    /// Replace the journal by its first line.
    BeginJournal,
    /// Write `pending.json`: the trial begins.
    Declare,
    /// Arm the dead man.
    ArmDeadMan,
    /// Look where the trial stands, before this move.
    Look(usize),
    /// Write this move into the journal.
    WriteDown(usize),
    /// Make this move.
    Make(usize),
    /// Declare the generation healthy and waiting.
    BeginWaiting,
    /// Tell the operator that the trial waits.
    Report,
    /// Confirm it on the spot.
    Confirm,
    /// Wait a moment, then look where the trial stands.
    Pause,
    /// Decide to give the trial up for this reason, unless it was decided before.
    GiveUp(String),
    /// Let `good` lead to the generation.
    MarkGood,
    /// Record that the generation was kept.
    RecordKept,
    /// Run the hooks after the confirmation.
    RunHooksAfter,
    /// Plan the way back from the journal.
    PlanBack,
    /// Take this step of the way back.
    Undo(usize),
    /// See whether `current` leads where it led before the trial.
    CheckWay,
    /// Run the given-up generation's hooks for the way back.
    RunHooksBack,
    /// See whether the units of the generation before run.
    VerifyUnits,
    /// Record what became of the given-up generation; with what failed on the way, if something did.
    RecordBack {
        /// Why it was given up.
        reason: String,
        /// What failed.
        failure: Option<String>,
    },
    /// Write the end into the audit log.
    Log(End),
    /// Remove `pending.json`.
    EndTrial,
    /// Take the dead man back.
    Disarm,
    /// Nothing any more.
    End(End),
}

/// How a trial ended for who carried it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// It never began.
    NotBegun(String),
    /// It is kept.
    Kept,
    /// It was given up.
    Back {
        /// Why.
        reason: String,
        /// What failed on the way back, if something did.
        failure: Option<String>,
    },
}

/// What came of an effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// It was done.
    Done,
    /// There was nothing to do.
    Nothing,
    /// It could not be done, or not fully.
    Failed(String),
    /// It has to be done later, by the next who settles.
    Postponed,
    /// The trial stands so.
    Found(Standing),
    /// The answer to [`Effect::GiveUp`].
    Decided(Verdict),
    /// The way back has so many steps.
    Steps(usize),
}

/// Where a trial stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// It is being made current.
    Activating,
    /// It waits for its confirmation.
    Waiting,
    /// It waited too long.
    Late,
    /// It is decided: kept.
    Committed,
    /// It is decided: goes.
    GivenUp(String),
    /// It is not there.
    Gone,
}

/// What a wish to give a trial up led to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It had been confirmed.
    Kept,
    /// It is given up, for this reason.
    GivenUp(String),
    /// It could not be written down, and nobody can decide otherwise until the driver ends.
    Unwritten,
    /// It is not there any more.
    Gone,
}

/// Who decides over a healthy trial.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Confirmation {
    /// The operator, over a fresh connection.
    Awaited,
    /// Nobody: who stands at the machine sees for himself.
    NotNeeded,
}

/// A trial on its course, as one process carries it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Course {
    /// What was asked of the driver last.
    asked: Option<Effect>,
    first: Effect,
    moves: Vec<Move>,
    confirmation: Confirmation,
    steps: usize,
    reason: String,
    failures: Vec<String>,
    way_is_open: bool,
    kept: bool,
    is_settling: bool,
}

impl Course {
    /// A trial that is about to begin.
    pub fn begin(moves: Vec<Move>, confirmation: Confirmation, is_new: bool) -> Self {
        let first = if is_new { Effect::RecordGeneration } else { Effect::BeginJournal };
        Self { moves, confirmation, ..Self::starting(first) }
    }

    /// A trial that was left behind. Who settles it holds the profile's lock.
    pub fn settle(pending: &Pending, now: &Moment) -> Self {
        let reason = find_reason(pending, now).to_owned();
        // The dead man went with his boot, and who settles may die as well.
        let first = if now.boot_id == pending.boot_id { Effect::GiveUp(reason.clone()) } else { Effect::ArmDeadMan };
        Self { reason, is_settling: true, ..Self::starting(first) }
    }

    fn starting(first: Effect) -> Self {
        Self {
            asked: None,
            first,
            moves: Vec::new(),
            confirmation: Confirmation::Awaited,
            steps: 0,
            reason: String::new(),
            failures: Vec::new(),
            way_is_open: false,
            kept: false,
            is_settling: false,
        }
    }

    /// The move with this number.
    pub fn get_move(&self, number: usize) -> &Move {
        &self.moves[number]
    }

    /// What the trial does first.
    pub fn start(mut self) -> (Self, Effect) {
        let first = self.first.clone();
        self.asked = Some(first.clone());
        (self, first)
    }

    /// What follows from what came of the last effect.
    pub fn step(mut self, event: &Event) -> (Self, Effect) {
        let next = match self.asked.take() {
            None => self.first.clone(),
            Some(asked) => self.follow(asked, event),
        };
        self.asked = Some(next.clone());
        (self, next)
    }

    fn follow(&mut self, asked: Effect, event: &Event) -> Effect {
        let failure = if let Event::Failed(text) = event { Some(text.clone()) } else { None };
        match asked {
            Effect::RecordGeneration => failure.map_or(Effect::BeginJournal, not_begun),
            Effect::BeginJournal => failure.map_or(Effect::Declare, not_begun),
            // It may stand there although the disk would not say so.
            Effect::Declare => failure.map_or(Effect::ArmDeadMan, Effect::GiveUp),
            Effect::ArmDeadMan if self.kept => Effect::End(End::Kept),
            Effect::ArmDeadMan if self.is_settling => Effect::GiveUp(self.reason.clone()),
            Effect::ArmDeadMan => failure.map_or_else(|| self.go_on(0), Effect::GiveUp),
            Effect::Look(number) => match event {
                Event::Found(Standing::Activating) if self.moves[number].is_written_down() => Effect::WriteDown(number),
                Event::Found(Standing::Activating) => Effect::Make(number),
                other => Effect::GiveUp(why_not(other)),
            },
            Effect::WriteDown(number) => match event {
                Event::Nothing => self.go_on(number + 1),
                _ => failure.map_or(Effect::Make(number), Effect::GiveUp),
            },
            Effect::Make(number) => failure.map_or_else(|| self.go_on(number + 1), Effect::GiveUp),
            Effect::BeginWaiting | Effect::Report | Effect::Confirm | Effect::Pause => self.wait(&asked, event),
            Effect::GiveUp(reason) => self.follow_decision(reason, event),
            Effect::MarkGood | Effect::RecordKept | Effect::RunHooksAfter => self.keep(&asked, event),
            Effect::PlanBack | Effect::Undo(_) | Effect::CheckWay | Effect::RunHooksBack | Effect::VerifyUnits => {
                self.failures.extend(failure);
                self.go_back(&asked, event)
            }
            Effect::RecordBack { .. } => Effect::Log(self.end()),
            // A trial whose way back is shut stays, and keeps its dead man, who tries again.
            Effect::Log(_) if self.kept || self.way_is_open => Effect::EndTrial,
            Effect::EndTrial if failure.is_none() => Effect::Disarm,
            Effect::Log(_) | Effect::EndTrial | Effect::Disarm => Effect::End(self.end()),
            Effect::End(end) => Effect::End(end),
        }
    }

    fn go_on(&self, number: usize) -> Effect {
        if number < self.moves.len() { Effect::Look(number) } else { Effect::BeginWaiting }
    }

    fn wait(&self, asked: &Effect, event: &Event) -> Effect {
        match event {
            Event::Found(Standing::Committed) => Effect::MarkGood,
            Event::Found(Standing::Late) => Effect::GiveUp("not confirmed in time".to_owned()),
            Event::Found(Standing::Activating | Standing::Waiting) if *asked == Effect::BeginWaiting => match self.confirmation {
                Confirmation::Awaited => Effect::Report,
                Confirmation::NotNeeded => Effect::Confirm,
            },
            Event::Found(Standing::Activating | Standing::Waiting) if *asked == Effect::Pause => Effect::Pause,
            Event::Done | Event::Failed(_) if *asked == Effect::Report => Effect::Pause,
            other => Effect::GiveUp(why_not(other)),
        }
    }

    fn follow_decision(&mut self, reason: String, event: &Event) -> Effect {
        self.reason = reason;
        match event {
            Event::Decided(Verdict::Kept) => {
                self.kept = true;
                Effect::MarkGood
            }
            Event::Decided(Verdict::GivenUp(reason)) => {
                self.reason.clone_from(reason);
                Effect::PlanBack
            }
            Event::Decided(Verdict::Unwritten) => Effect::PlanBack,
            Event::Failed(text) => {
                self.failures.push(text.clone());
                Effect::End(self.end())
            }
            _ => {
                self.failures.push("the trial is gone".to_owned());
                Effect::End(self.end())
            }
        }
    }

    fn keep(&mut self, asked: &Effect, event: &Event) -> Effect {
        self.kept = true;
        match (asked, event) {
            // What cannot be written down now is written by the next who settles.
            (Effect::MarkGood | Effect::RecordKept, Event::Failed(_)) => Effect::End(End::Kept),
            (Effect::MarkGood, _) => Effect::RecordKept,
            (Effect::RecordKept, _) => Effect::RunHooksAfter,
            (_, Event::Postponed) => Effect::ArmDeadMan,
            _ => Effect::Log(End::Kept),
        }
    }

    fn go_back(&mut self, asked: &Effect, event: &Event) -> Effect {
        match (asked, event) {
            (Effect::PlanBack, Event::Steps(steps)) => {
                self.steps = *steps;
                self.undo_from(0)
            }
            (Effect::Undo(number), _) => self.undo_from(number + 1),
            (Effect::CheckWay, event) => {
                self.way_is_open = *event == Event::Done;
                if self.steps > 0 { Effect::RunHooksBack } else { self.verify() }
            }
            (Effect::RunHooksBack, _) => self.verify(),
            (Effect::VerifyUnits, _) => self.record_back(),
            _ => self.undo_from(0),
        }
    }

    fn undo_from(&self, number: usize) -> Effect {
        if number < self.steps { Effect::Undo(number) } else { Effect::CheckWay }
    }

    fn verify(&self) -> Effect {
        if self.way_is_open { Effect::VerifyUnits } else { self.record_back() }
    }

    fn record_back(&self) -> Effect {
        Effect::RecordBack { reason: self.reason.clone(), failure: self.failure() }
    }

    fn failure(&self) -> Option<String> {
        (!self.failures.is_empty()).then(|| self.failures.join("; "))
    }

    fn end(&self) -> End {
        if self.kept { End::Kept } else { End::Back { reason: self.reason.clone(), failure: self.failure() } }
    }
}

fn not_begun(failure: String) -> Effect {
    Effect::End(End::NotBegun(failure))
}

/// Why a trial cannot go on from here.
fn why_not(event: &Event) -> String {
    match event {
        Event::Found(Standing::GivenUp(reason)) => reason.clone(),
        Event::Failed(text) => text.clone(),
        _ => TAKEN_OVER.to_owned(),
    }
}

/// Why a trial that was left behind is given up, if it was not decided.
pub fn find_reason(pending: &Pending, now: &Moment) -> &'static str {
    let late = match pending.phase {
        Phase::OnTrial { deadline_boottime_ms } => now.boottime_ms >= deadline_boottime_ms,
        Phase::Activating { .. } | Phase::Committed | Phase::GivenUp { .. } => false,
    };
    if now.boot_id != pending.boot_id {
        "reboot before confirmation"
    } else if late {
        "not confirmed in time"
    } else {
        "the activation was interrupted"
    }
}

/// What somebody wants to become of a trial.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wish {
    /// It is healthy, and waits until then.
    Wait {
        /// In milliseconds since boot.
        deadline_boottime_ms: u64,
    },
    /// It is kept.
    Keep,
    /// It goes, for this reason.
    GiveUp(String),
}

/// The phase that a wish leads to; nothing if the trial stays as it is. A decision stays for ever.
pub fn decide(pending: &Pending, wish: &Wish, now: &Moment) -> Option<Phase> {
    match (&pending.phase, wish) {
        (Phase::Committed | Phase::GivenUp { .. }, _)
        | (Phase::Activating { .. }, Wish::Keep)
        | (Phase::OnTrial { .. }, Wish::Wait { .. }) => None,
        (Phase::Activating { .. }, Wish::Wait { deadline_boottime_ms }) => {
            Some(Phase::OnTrial { deadline_boottime_ms: *deadline_boottime_ms })
        }
        (Phase::OnTrial { deadline_boottime_ms }, Wish::Keep) => {
            let in_time = now.boot_id == pending.boot_id && now.boottime_ms < *deadline_boottime_ms;
            Some(if in_time { Phase::Committed } else { Phase::GivenUp { reason: "the confirmation came too late".to_owned() } })
        }
        (Phase::Activating { .. } | Phase::OnTrial { .. }, Wish::GiveUp(reason)) => Some(Phase::GivenUp { reason: reason.clone() }),
    }
}

#[cfg(test)]
mod simulation;

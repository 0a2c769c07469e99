//! How a transfer is to be done: what the caller may choose, and what is chosen for him by how the time goes by.
//!
//! More processor time makes fewer bytes. It is worth spending while the sender would wait for the link anyway, and a waste while the
//! link waits for the sender; both show in where the sender's time goes, whatever the speeds of link, processors and receiver
//! are, and however many transfers share them.

use std::time::Duration;

use super::cache::DeltaCache;

/// What the sender of a closure may choose.
#[derive(Debug, Clone, Default)]
pub struct TransferOptions {
    /// Where deltas are kept that other transfers of the same run need too; none keeps nothing.
    pub cache: Option<DeltaCache>,
    /// How much processor time a byte is worth; none begins with [`Effort::Balanced`] and goes by what the link turns out to be.
    pub effort: Option<Effort>,
}

/// How much processor time a byte on the wire is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Effort {
    /// Little: for links of 60 MB/s and more. Changed contents above 4 MiB travel whole, programs as patches only.
    Fast,
    /// As much as pays on common links.
    Balanced,
    /// Much: for links below 4 MB/s, and for many hosts that share the deltas.
    Small,
}

/// What an effort means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Levels {
    /// The level of zstd for contents that travel whole.
    pub(crate) whole: i32,
    /// That for patches. A prefix costs the higher levels much.
    pub(crate) patch: i32,
    /// That for deltas, whose streams are short.
    pub(crate) delta: i32,
    /// Whether programs are told by deltas, and not by patches only.
    pub(crate) programs: bool,
}

impl Effort {
    pub(crate) const fn levels(self) -> Levels {
        match self {
            Self::Fast => Levels { whole: 1, patch: 1, delta: 6, programs: false },
            Self::Balanced => Levels { whole: 3, patch: 6, delta: 12, programs: true },
            Self::Small => Levels { whole: 9, patch: 12, delta: 19, programs: true },
        }
    }

    const fn more(self) -> Self {
        match self {
            Self::Fast => Self::Balanced,
            Self::Balanced | Self::Small => Self::Small,
        }
    }

    const fn less(self) -> Self {
        match self {
            Self::Fast | Self::Balanced => Self::Fast,
            Self::Small => Self::Balanced,
        }
    }
}

/// How long the time is looked at before an effort changes: several pieces, so that one slow file or answer decides nothing.
const PERIOD: Duration = Duration::from_millis(300);

/// Waits so many hundredths of a period and more mean that there is time to spare.
const SPARE_PERCENT: u128 = 60;

/// Waits so many hundredths of a period and less mean that the link is waiting for the sender. Far from the other number: the next level takes two to four times as long.
const SHORT_PERCENT: u128 = 10;

/// Links below this many bytes a second are worth the highest effort. Above, its few percent are gained only as far as the sender works while the link
/// still sends, and what it takes longer is lost for certain: at 12 MB/s a first copy took a third longer.
const SLOW_BYTES_PER_SECOND: u128 = 3_500_000;

/// Chooses the effort as the transfer goes on.
#[derive(Debug)]
pub(crate) struct Pace {
    effort: Effort,
    is_fixed: bool,
    busy: Duration,
    blocked: Duration,
    /// What went out in this time.
    bytes: u64,
}

impl Pace {
    pub(crate) fn new(options: &TransferOptions) -> Self {
        let effort = options.effort.unwrap_or(Effort::Balanced);
        Self { effort, is_fixed: options.effort.is_some(), busy: Duration::ZERO, blocked: Duration::ZERO, bytes: 0 }
    }

    pub(crate) const fn levels(&self) -> Levels {
        self.effort.levels()
    }

    /// Learns that so many bytes of contents go out.
    pub(crate) const fn sent(&mut self, bytes: usize) {
        self.bytes = self.bytes.saturating_add(bytes as u64);
    }

    /// Learns how time went by while contents were sent.
    pub(crate) fn passed(&mut self, busy: Duration, blocked: Duration) {
        self.busy += busy;
        self.blocked += blocked;
        let period = self.busy + self.blocked;
        if self.is_fixed || period < PERIOD {
            return;
        }
        let percent = self.blocked.as_micros() * 100 / period.as_micros();
        let is_slow = u128::from(self.bytes) * 1_000_000 / period.as_micros() < SLOW_BYTES_PER_SECOND;
        if percent >= SPARE_PERCENT && (is_slow || self.effort == Effort::Fast) {
            self.effort = self.effort.more();
        } else if percent <= SHORT_PERCENT {
            self.effort = self.effort.less();
        }
        (self.busy, self.blocked, self.bytes) = (Duration::ZERO, Duration::ZERO, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The effort after so many periods of which this share was waiting.
    fn after(options: &TransferOptions, periods: u32, blocked_percent: u32) -> Effort {
        after_sending(0, options, periods, blocked_percent)
    }

    /// The same, when so many bytes went out in each period.
    fn after_sending(bytes: usize, options: &TransferOptions, periods: u32, blocked_percent: u32) -> Effort {
        let mut pace = Pace::new(options);
        for _ in 0..periods * 10 {
            pace.sent(bytes / 10);
            pace.passed(PERIOD / 1000 * (100 - blocked_percent), PERIOD / 1000 * blocked_percent);
        }
        pace.effort
    }

    #[test]
    fn waiting_for_the_link_makes_smaller_and_keeping_it_waiting_makes_cheaper() {
        let measured = TransferOptions::default();
        assert_eq!(after(&measured, 1, 95), Effort::Small);
        assert_eq!(after(&measured, 9, 95), Effort::Small);
        assert_eq!(after(&measured, 9, 30), Effort::Balanced);
        // 12 MB/s: the highest effort would not pay. 3 MB/s: it does.
        assert_eq!(after_sending(3_600_000, &measured, 9, 95), Effort::Balanced);
        assert_eq!(after_sending(900_000, &measured, 9, 95), Effort::Small);
        assert_eq!(after(&measured, 1, 2), Effort::Fast);
        assert_eq!(after(&measured, 9, 0), Effort::Fast);
        for effort in [Effort::Fast, Effort::Small] {
            let fixed = TransferOptions { effort: Some(effort), ..TransferOptions::default() };
            assert_eq!((after(&fixed, 9, 0), after(&fixed, 9, 99)), (effort, effort));
        }
    }

    #[test]
    fn one_slow_answer_decides_nothing() {
        let mut pace = Pace::new(&TransferOptions::default());
        pace.passed(Duration::ZERO, PERIOD / 2);
        assert_eq!(pace.effort, Effort::Balanced);
        pace.passed(PERIOD / 2, Duration::ZERO);
        assert_eq!(pace.effort, Effort::Balanced);
        // From Fast, a link that turns slow leads back up, one step a period.
        for _ in 0..2 {
            pace.passed(PERIOD, Duration::ZERO);
        }
        assert_eq!(pace.effort, Effort::Fast);
        for expected in [Effort::Balanced, Effort::Small, Effort::Small] {
            pace.passed(Duration::ZERO, PERIOD);
            assert_eq!(pace.effort, expected);
        }
    }
}

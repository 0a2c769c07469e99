//! How a transfer is to be done: what the caller may choose. The defaults suit a link of unknown speed.

use super::cache::DeltaCache;

/// What the sender of a closure may choose.
#[derive(Debug, Clone, Default)]
pub struct TransferOptions {
    /// Where deltas are kept that other transfers of the same run need too; none keeps nothing.
    pub cache: Option<DeltaCache>,
    /// How much processor time a byte is worth.
    pub effort: Effort,
}

/// How much processor time a byte on the wire is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Effort {
    /// Little: for links of 60 MB/s and more. Changed contents above 4 MiB travel whole, programs as patches only.
    Fast,
    /// As much as pays on common links.
    #[default]
    Balanced,
    /// Much: for links below 4 MB/s, and for many hosts that share the deltas.
    Small,
}

/// What an effort means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Levels {
    /// The level of zstd for contents that travel whole.
    pub(crate) whole: i32,
    /// That for deltas and patches.
    pub(crate) delta: i32,
    /// Whether programs are told by deltas, and not by patches only.
    pub(crate) programs: bool,
}

impl Effort {
    pub(crate) const fn levels(self) -> Levels {
        match self {
            Self::Fast => Levels { whole: 1, delta: 1, programs: false },
            Self::Balanced => Levels { whole: 3, delta: 6, programs: true },
            Self::Small => Levels { whole: 9, delta: 9, programs: true },
        }
    }
}

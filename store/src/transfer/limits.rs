//! What a transfer may cost, each number with its reason.
//!
//! A peer is believed in nothing: whatever it declares is checked against these before memory or disk is spent on it.

/// The version of the protocol that this program speaks; the sender names it first and the receiver refuses any other.
pub(crate) const TRANSFER_VERSION: u64 = 3;

/// The most objects in one closure: as many as one object may refer to. A host has hundreds; with the longest names this is 25 MB of memory.
pub(crate) const OBJECTS_MAX: u64 = 100_000;

/// The most roots of one transfer: every generation of every profile that a host may keep.
pub(crate) const ROOTS_MAX: u64 = 4096;

/// The most objects that a receiver names as present. One of them, the running generation, is what matters; older ones help after a rollback.
pub(crate) const PRESENT_MAX: usize = 64;

/// How many objects of the closure go into one message: at most 208 bytes each, so it stays below the limit of a frame.
pub(crate) const CLOSURE_PART: usize = 32_768;

/// The raw bytes of one compressed piece: enough for a good ratio over small files, little enough to hold several in memory.
pub(crate) const PIECE_BYTES_MAX: usize = 4 << 20;

/// The bytes of all manifests of one transfer, and so of a single one: of what is said about them, and of their stored form. They are held in memory until the end; at 100 bytes an entry this is 2.6 million files.
pub(crate) const MANIFEST_BYTES_MAX: u64 = 256 << 20;

/// The entries of all manifests of one transfer: twice what one object may have. An entry of ten bytes takes fifteen times that in memory.
pub(crate) const ENTRIES_MAX: u64 = 2_000_000;

/// How many pieces of contents the sender may have under way unacknowledged: 64 MiB raw keep a link of 100 MB/s and 200 ms busy
/// several times over once compressed, and a receiver that gives up is heard within that distance.
pub(crate) const PIECES_UNDER_WAY: usize = 16;

/// The longest reason that is sent or believed, in bytes: a chain of errors with paths, as a person would read it.
pub(crate) const MESSAGE_TEXT_BYTES_MAX: usize = 4096;

/// What one new file costs on disk beside its content, in bytes: the rest of its last block, its inode and its names.
pub(crate) const FILE_OVERHEAD_BYTES: u64 = 4096 + 512;

/// How much a peer may still send after this side has given up, in bytes: the manifests that may be under way, and a window of contents.
pub(crate) const DRAIN_BYTES_MAX: u64 = MANIFEST_BYTES_MAX + (2 * PIECES_UNDER_WAY * PIECE_BYTES_MAX) as u64;

/// The bytes of old contents that one patch may refer to: with its piece they fit into a window of 16 MiB, which either side holds in memory.
pub(crate) const PREFIX_BYTES_MAX: u64 = 8 << 20;

/// The window of a patch, as a power of two: that of a longest prefix and a longest piece.
pub(crate) const WINDOW_LOG_MAX: u32 = 24;

/// The most contents of one patch: at four bytes each its header stays small beside a piece.
pub(crate) const PATCH_TARGETS_MAX: usize = 4096;

/// The level of zstd for manifests.
pub(crate) const ZSTD_LEVEL: i32 = 3;

/// Up to this length, in bytes, a piece of manifests is compressed harder: an update's are a few hundred bytes, so that costs nothing.
pub(crate) const SMALL_PIECE: usize = 256 << 10;

/// The level for those.
pub(crate) const ZSTD_LEVEL_SMALL: i32 = 15;

//! What a rule counted and what it remembers, per CPU.

use crate::Shared;

/// Counters of one rule on one CPU. "Packet" means what the stack hands to the hook (an skb,
/// which may hold many wire packets); `*_wire` counts wire packets.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Packets that the rule applied to.
    pub matched: u64,
    /// Packets that the rule did something to.
    pub injected: u64,
    /// Wire packets among `matched`.
    pub matched_wire: u64,
    /// Wire packets among `injected`.
    pub injected_wire: u64,
    /// Bytes of `matched`, link-layer header included.
    pub bytes: u64,
    /// Packets refused by a partition.
    pub refused: u64,
    /// Packets lost.
    pub lost: u64,
    /// Packets corrupted.
    pub corrupted: u64,
    /// Copies made.
    pub duplicated: u64,
    /// Packets delayed.
    pub delayed: u64,
    /// Packets sent ahead of delayed ones.
    pub reordered: u64,
    /// Packets held back by a rate.
    pub shaped: u64,
    /// Packets dropped because the queue in front of a rate was full.
    pub overlimit: u64,
    /// DNS queries answered in place of a server, left unanswered or reset.
    pub answered: u64,
    /// DNS queries that could not be read, and passed.
    pub unreadable: u64,
}

/// What a rule remembers from packet to packet on one CPU.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Number of the next decision.
    pub ordinal: u64,
    /// The last jitter, nanoseconds, signed, two's complement.
    pub jitter: u64,
    /// Bits of [`last`]: the last decisions.
    pub last: u32,
    /// Packets delayed since the last reordered one.
    pub since_reorder: u32,
}

/// Bits of [`Memory::last`]. A `SEEN` bit is 16 positions above its decision.
pub mod last {
    /// The last packet was lost.
    pub const LOST: u32 = 1 << 0;
    /// The last packet was corrupted.
    pub const CORRUPTED: u32 = 1 << 1;
    /// The last packet was duplicated.
    pub const DUPLICATED: u32 = 1 << 2;
    /// The last candidate was reordered.
    pub const REORDERED: u32 = 1 << 3;
    /// `jitter` holds a value.
    pub const JITTERED: u32 = 1 << 4;
    /// Distance between a decision bit and the bit that says it was ever taken.
    pub const SEEN_SHIFT: u32 = 16;
}

/// When a rule's rates are free again, shared by all CPUs. Updates are not atomic: two CPUs in
/// the same nanoseconds may account one packet for two, an error of one packet time.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Clocks {
    /// The `rate` block's link is free from here on.
    pub rate_free_ns: u64,
    /// Theoretical arrival time of the token bucket.
    pub token_ns: u64,
    /// Theoretical arrival time of the peak bucket.
    pub peak_ns: u64,
}

const _: () = assert!(size_of::<Counters>() == 15 * 8);
const _: () = assert!(size_of::<Memory>() == 24);
const _: () = assert!(size_of::<Clocks>() == 24);

// SAFETY: `repr(C)`, integers only, sizes asserted.
unsafe impl Shared for Counters {}
// SAFETY: as above.
unsafe impl Shared for Memory {}
// SAFETY: as above.
unsafe impl Shared for Clocks {}

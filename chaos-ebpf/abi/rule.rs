//! One rule as the kernel sees it: to whom, until when, and what happens.

use crate::Shared;

/// A probability and how much one decision resembles the last.
///
/// `share` is the long-run share of positive decisions in units of 2^-32; [`ALWAYS`] means
/// every one. `correlation` is the lag-1 autocorrelation of the decisions in the same units.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Chance {
    /// Long-run share of positive decisions, 2^-32 units.
    pub share: u32,
    /// Lag-1 autocorrelation of the decisions, 2^-32 units.
    pub correlation: u32,
}

/// The share that means "every packet".
pub const ALWAYS: u32 = u32::MAX;

/// A rule. All times are nanoseconds of `CLOCK_MONOTONIC`, all rates bytes per second.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// The rule acts while now < `deadline_ns`; `0` marks an empty entry.
    pub deadline_ns: u64,
    /// Seed of this rule's dice, already mixed with the rule's identity.
    pub seed: u64,
    /// Delay added to every packet that is not reordered.
    pub delay_ns: u64,
    /// Half-width of the uniform jitter around `delay_ns`.
    pub jitter_ns: u64,
    /// Serialisation rate of the `rate` block; `0` = no such block.
    pub rate: u64,
    /// Token rate of the `bandwidth` block; `0` = no such block.
    pub token_rate: u64,
    /// Depth of the token bucket as the time it takes to fill, nanoseconds.
    pub burst_ns: u64,
    /// Peak rate of the `bandwidth` block; `0` = unlimited.
    pub peak_rate: u64,
    /// Depth of the peak bucket as the time it takes to fill, nanoseconds.
    pub peak_burst_ns: u64,
    /// Longest time that a packet may wait for a rate before it is dropped, nanoseconds.
    pub queue_ns: u64,
    /// The `loss` block.
    pub loss: Chance,
    /// The `corrupt` block.
    pub corrupt: Chance,
    /// The `duplicate` block.
    pub duplicate: Chance,
    /// The share of packets that leave at once, ahead of the delayed ones.
    pub reorder: Chance,
    /// Lag-1 autocorrelation of the jitter, 2^-32 units.
    pub jitter_correlation: u32,
    /// Every `gap`-th packet is a candidate for reordering; `0` = no reordering.
    pub gap: u32,
    /// The peer set that a packet must match; [`EVERYONE`] matches all of them.
    pub peers: u32,
    /// Bits of [`flag`].
    pub flags: u32,
}

/// The peer set that holds every address.
pub const EVERYONE: u32 = 0;

/// Bits of [`Rule::flags`].
pub mod flag {
    /// The rule is a partition: every matched packet is refused.
    pub const PARTITION: u32 = 1 << 0;
    /// The sender of a refused packet is answered (TCP reset, ICMP unreachable).
    pub const REJECT: u32 = 1 << 1;
    /// `corrupt` delivers a flipped payload bit instead of discarding the packet.
    pub const CORRUPT_PAYLOAD: u32 = 1 << 2;
    /// Decide and count, but harm no packet.
    pub const DRY_RUN: u32 = 1 << 3;
    /// DNS queries are answered as the `ANSWERS` map says.
    pub const ANSWER: u32 = 1 << 4;
    /// Only packets that the programs of [`crate::http`] have marked: with [`PARTITION`] those of a
    /// cut request, otherwise those of a late response, which wait for their time.
    pub const MARKED: u32 = 1 << 5;
}

const _: () = assert!(size_of::<Chance>() == 8);
const _: () = assert!(size_of::<Rule>() == 10 * 8 + 4 * 8 + 4 * 4);

// SAFETY: `repr(C)`, integers only, and the size assert above rules out padding.
unsafe impl Shared for Chance {}
// SAFETY: as above.
unsafe impl Shared for Rule {}

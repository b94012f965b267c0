//! Peer sets: prefixes with the ports that count for them.

use crate::Shared;
use crate::limit::{FEW, PORTS_PER_PREFIX};

/// Bits of an LPM key in front of the address: the number of the set.
pub const SET_BITS: u32 = 32;

/// Data of an LPM key for IPv4: big-endian set number, then the address.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key4 {
    /// Number of the peer set, big-endian.
    pub set: u32,
    /// The address, network order.
    pub address: u32,
}

/// Data of an LPM key for IPv6: big-endian set number, then the address.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key6 {
    /// Number of the peer set, big-endian.
    pub set: u32,
    /// The address, words in network order.
    pub address: [u32; 4],
}

/// What a prefix admits. The longest matching prefix decides alone, so userspace has pushed
/// the ports of shorter prefixes into the longer ones.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ports {
    /// 1: every protocol and port. 0: only TCP and UDP packets whose peer port is listed.
    pub any: u32,
    /// How many of `ports` count.
    pub count: u32,
    /// Peer ports, host order.
    pub ports: [u16; PORTS_PER_PREFIX],
}

/// A peer set. Small ones are compared in place: a trie lookup costs more than everything else
/// that happens to a packet that no rule matches.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Set {
    /// How many of `few` count, or [`MANY`].
    pub count: u32,
    /// The prefixes.
    pub few: [Few; FEW],
}

/// The set is in the tries.
pub const MANY: u32 = u32::MAX;

/// One prefix of a small set.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Few {
    /// 4 or 6.
    pub family: u32,
    /// The peer's TCP or UDP port, or [`ANY_PORT`].
    pub port: u32,
    /// The address, words in network order; IPv4 uses the first.
    pub address: [u32; 4],
    /// The bits of it that count, likewise.
    pub mask: [u32; 4],
}

/// Every protocol and port.
pub const ANY_PORT: u32 = u32::MAX - 1;

const _: () = assert!(size_of::<Set>() == 4 + 40 * FEW);
const _: () = assert!(size_of::<Few>() == 40);
const _: () = assert!(size_of::<Key4>() == 8);
const _: () = assert!(size_of::<Key6>() == 20);
const _: () = assert!(size_of::<Ports>() == 8 + 2 * PORTS_PER_PREFIX);

// SAFETY: `repr(C)`, integers only, sizes asserted.
unsafe impl Shared for Set {}
// SAFETY: as above.
unsafe impl Shared for Few {}
// SAFETY: as above.
unsafe impl Shared for Key4 {}
// SAFETY: as above.
unsafe impl Shared for Key6 {}
// SAFETY: as above.
unsafe impl Shared for Ports {}

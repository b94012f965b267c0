//! Peer sets: prefixes with the ports that count for them.

use crate::Shared;
use crate::limit::PORTS_PER_PREFIX;

/// Bits of an LPM key in front of the address: the number of the set.
pub const SET_BITS: u32 = 32;

/// Data of an LPM key for IPv4: big-endian set number, then the address.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key4 {
    /// Number of the peer set, big-endian.
    pub set: [u8; 4],
    /// The address, network order.
    pub address: [u8; 4],
}

/// Data of an LPM key for IPv6: big-endian set number, then the address.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key6 {
    /// Number of the peer set, big-endian.
    pub set: [u8; 4],
    /// The address, network order.
    pub address: [u8; 16],
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

const _: () = assert!(size_of::<Key4>() == 8);
const _: () = assert!(size_of::<Key6>() == 20);
const _: () = assert!(size_of::<Ports>() == 8 + 2 * PORTS_PER_PREFIX);

// SAFETY: `repr(C)`, integers only, sizes asserted.
unsafe impl Shared for Key4 {}
// SAFETY: as above.
unsafe impl Shared for Key6 {}
// SAFETY: as above.
unsafe impl Shared for Ports {}

//! Slots: what a hook point knows about itself.

use crate::Shared;
use crate::limit::RULES_PER_SLOT;

/// The state of one hook point. Index into the `SLOTS` map; a hook learns its own index from
/// the entry program that is attached there.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// How many of `rules` count.
    pub rule_count: u32,
    /// The device's own index inside its namespace.
    pub ifindex: u32,
    /// Index of the delay line's TAP device, or 0 where the queue keeps departure times.
    pub line_ifindex: u32,
    /// Bytes of link-layer header in front of the IP header (14 on Ethernet, 0 on a tunnel).
    pub link_header: u32,
    /// Bit `n` set: some cgroup of level `n` is a target on this device.
    pub cgroup_levels: u32,
    /// Bits of [`flag`].
    pub flags: u32,
    /// Indexes into the `RULES` map.
    pub rules: [u32; RULES_PER_SLOT],
}

impl Slot {
    /// A slot that does nothing.
    pub const IDLE: Self = Self {
        rule_count: 0,
        ifindex: 0,
        line_ifindex: 0,
        link_header: 0,
        cgroup_levels: 0,
        flags: 0,
        rules: [0; RULES_PER_SLOT],
    };
}

/// Bits of [`Slot::flags`].
pub mod flag {
    /// Some rule of this slot holds packets back: the sender's socket must let go of them,
    /// or TCP Small Queues would stall the flow.
    pub const ORPHAN: u32 = 1 << 0;
    /// The device is the namespace's loopback: what leaves it arrives.
    pub const LOOPBACK: u32 = 1 << 1;
}

/// Key of the `CGROUPS` map: a targeted cgroup on the device whose slot is `slot`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CgroupKey {
    /// cgroup v2 id (the inode number of its directory).
    pub cgroup: u64,
    /// Slot of the device.
    pub slot: u32,
    /// Padding, always 0.
    pub zero: u32,
}

const _: () = assert!(size_of::<Slot>() == 24 + 4 * RULES_PER_SLOT);
const _: () = assert!(size_of::<CgroupKey>() == 16);

// SAFETY: `repr(C)`, integers only, sizes asserted.
unsafe impl Shared for Slot {}
// SAFETY: as above.
unsafe impl Shared for CgroupKey {}

//! Hook → slot → rules: the only lookup path. The first thing that is decided is whether
//! anything here is a target at all.

use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::helpers::generated::bpf_skb_ancestor_cgroup_id;
use aya_ebpf::maps::lpm_trie::Key;
use chaos_abi::limit::{CGROUP_LEVELS, PORTS_PER_PREFIX};
use chaos_abi::peer::{Key4, Key6, SET_BITS};
use chaos_abi::rule::EVERYONE;
use chaos_abi::target::{CgroupKey, Slot};

use crate::maps::{CGROUPS, PEERS4, PEERS6, SLOTS};
use crate::skb::Packet;

/// The slot that the entry program in front of us wrote down.
#[inline(always)]
pub fn slot_of(skb: *mut __sk_buff) -> Option<(u32, &'static Slot)> {
    // SAFETY: the context is valid; volatile, or the read is merged with others into an access
    // wider than a word, which the verifier refuses on contexts.
    let index = unsafe { core::ptr::read_volatile(&raw const (*skb).cb[0]) };
    Some((index, SLOTS.get(index)?))
}

/// The slot whose rules apply to this packet: that of the deepest targeted cgroup its socket
/// is in, else the device's own. A cgroup's slot already holds the device's rules and those of
/// its targeted ancestors.
#[inline(always)]
pub fn effective(skb: *mut __sk_buff, index: u32, device: &'static Slot) -> &'static Slot {
    if device.cgroup_levels == 0 {
        return device;
    }
    let mut step = 0;
    while step < CGROUP_LEVELS {
        let level = CGROUP_LEVELS - 1 - step;
        step += 1;
        if device.cgroup_levels >> level & 1 == 0 {
            continue;
        }
        // SAFETY: plain helper call on a valid context.
        let cgroup = unsafe { bpf_skb_ancestor_cgroup_id(skb, level as i32) };
        if cgroup == 0 {
            continue;
        }
        let key = CgroupKey { cgroup, slot: index, zero: 0 };
        // SAFETY: values are u32 and replaced as a whole.
        if let Some(slot) = unsafe { CGROUPS.get(&key) } {
            return SLOTS.get(*slot).unwrap_or(device);
        }
    }
    device
}

/// Whether the packet's peer belongs to a set.
#[inline(always)]
pub fn admits(packet: &Packet, set: u32) -> bool {
    if set == EVERYONE {
        return true;
    }
    let number = set.to_be_bytes();
    let p = &packet.peer;
    let found = if packet.family == 4 {
        let address = [p[0], p[1], p[2], p[3]];
        PEERS4.get(Key::new(SET_BITS + 32, Key4 { set: number, address }))
    } else {
        PEERS6.get(Key::new(SET_BITS + 128, Key6 { set: number, address: *p }))
    };
    let Some(ports) = found else { return false };
    if ports.any != 0 {
        return true;
    }
    let mut hit = 0u32;
    let mut i = 0;
    while i < PORTS_PER_PREFIX {
        hit |= ((i as u32) < ports.count && ports.ports[i] as u32 == packet.port) as u32;
        i += 1;
    }
    hit != 0
}

//! Hook → slot → rules: the only lookup path. The first thing that is decided is whether
//! anything here is a target at all.

use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::helpers::generated::bpf_skb_ancestor_cgroup_id;
use aya_ebpf::maps::lpm_trie::Key;
use chaos_abi::limit::{CGROUP_LEVELS, FEW, PORTS_PER_PREFIX};
use chaos_abi::peer::{ANY_PORT, Key4, Key6, MANY, SET_BITS};
use chaos_abi::rule::EVERYONE;
use chaos_abi::target::{CgroupKey, Slot};

use crate::maps::{CGROUPS, PEERS4, PEERS6, SETS, SLOTS};
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
    let Some(members) = SETS.get(set) else { return false };
    if members.count == MANY {
        return looked_up(packet, set.to_be());
    }
    let mut hit = 0u32;
    let mut i = 0;
    while i < FEW {
        let few = &members.few[i];
        let apart = (packet.peer[0] ^ few.address[0]) & few.mask[0]
            | (packet.peer[1] ^ few.address[1]) & few.mask[1]
            | (packet.peer[2] ^ few.address[2]) & few.mask[2]
            | (packet.peer[3] ^ few.address[3]) & few.mask[3];
        let port = few.port == ANY_PORT || few.port == packet.port;
        hit |= (i < members.count as usize && apart == 0 && few.family == packet.family && port)
            as u32;
        i += 1;
    }
    hit != 0
}

/// Whether the longest prefix of a large set that holds the peer admits its port.
#[inline(always)]
fn looked_up(packet: &Packet, set: u32) -> bool {
    let found = if packet.family == 4 {
        PEERS4.get(Key::new(SET_BITS + 32, Key4 { set, address: packet.peer[0] }))
    } else {
        PEERS6.get(Key::new(SET_BITS + 128, Key6 { set, address: packet.peer }))
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

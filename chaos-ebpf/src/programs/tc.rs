//! `tc`/`tcx`: everything that happens to packets of a device.
//!
//! A held packet goes through the egress hook twice. The first pass decides, writes departure
//! time and copies into per-CPU memory and clones; the nested pass stamps the clone. A clone
//! belongs to no socket, so TCP Small Queues does not stall the flow, and the original is
//! thrown away silently.

use aya_ebpf::bindings::{__sk_buff, TC_ACT_SHOT, TC_ACT_UNSPEC};
use aya_ebpf::helpers::generated::{
    bpf_clone_redirect, bpf_redirect, bpf_set_hash, bpf_skb_change_head, bpf_skb_load_bytes,
    bpf_skb_store_bytes,
};
use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use chaos_abi::limit::COPIES;
use chaos_abi::line::{LINE_HEADER, LineHeader, MAGIC};
use chaos_abi::target::{Slot, flag};

use crate::maps::{
    DECISION, Decision, FATE_LOST, FATE_PASS, FATE_REJECT, FLIP, TO_TC_DNS, TO_TC_EGRESS,
    TO_TC_REFUSE_EGRESS, TO_TC_REFUSE_INGRESS,
};
use crate::skb::{PEER_IS_DESTINATION, PEER_IS_SOURCE, TCP, UDP, mark};
use crate::{effect, skb, target};

/// `tc_index` of a clone that the nested pass has to stamp.
const CLONE: u32 = 0xfa17;
/// `tc_index` of a packet that has its delay behind it.
pub const DONE: u32 = 0xfa18;

/// `cb[1]` of a packet that has been asked about.
const ASKED: u32 = 0xfa17_d045;

/// No device has this index, so a redirect to it frees the packet without an error for the
/// sender; `TC_ACT_SHOT` at egress would tell it.
const NOWHERE: u32 = 0x7fff_fff0;

/// Frees the packet without telling anybody.
#[inline(always)]
pub fn lose() -> i32 {
    // SAFETY: plain helper call.
    unsafe { bpf_redirect(NOWHERE, 0) as i32 }
}

/// Packets that leave through a device.
#[classifier]
pub fn tc_egress(ctx: TcContext) -> i32 {
    let context = ctx.skb.skb;
    // SAFETY: the context is valid.
    let guard = unsafe { (*context).tc_index };
    if guard == CLONE || guard == DONE {
        return second_pass(context, guard);
    }
    let Some((index, device)) = target::slot_of(context) else { return TC_ACT_UNSPEC };
    if device.rule_count == 0 && device.cgroup_levels == 0 {
        return TC_ACT_UNSPEC;
    }
    let slot = target::effective(context, index, device);
    if slot.rule_count == 0 {
        return TC_ACT_UNSPEC;
    }
    let Some(packet) = skb::parse(context, device.link_header, PEER_IS_DESTINATION) else {
        return TC_ACT_UNSPEC;
    };
    // SAFETY: the context is valid.
    let bytes = unsafe { (*context).wire_len } as u64;
    let decision = match resumed(context) {
        Some(decision) => decision,
        None => match effect::decide_all(context, slot, &packet, bytes) {
            Some(decision) => decision,
            None => return TC_ACT_UNSPEC,
        },
    };
    if decision.fate == FATE_REJECT {
        // SAFETY: index 0 holds a classifier; where it does not, the packet is lost.
        unsafe { TO_TC_REFUSE_EGRESS.tail_call(&ctx, 0) };
        return lose();
    }
    if decision.fate == FATE_LOST {
        return lose();
    }
    if decision.asks != 0 {
        // SAFETY: index 0 holds a classifier; where it does not, nothing is answered.
        unsafe { TO_TC_DNS.tail_call(&ctx, 0) };
    }
    if decision.flip != 0 {
        flip(context, &packet, device, decision.flip);
    }
    if decision.held == 0 && decision.copies == 0 {
        return TC_ACT_UNSPEC;
    }
    if decision.held != 0 && device.line_ifindex != 0 {
        return to_line(context, device, decision);
    }
    carry_out(context, slot, device, packet.protocol, decision)
}

/// What was decided about this packet before it was asked about, if it has been. Two marks say so:
/// one on this CPU, which outlives a packet whose slot is disarmed in between, and one on the packet,
/// where there may be anything before.
#[inline(always)]
fn resumed(skb: *mut __sk_buff) -> Option<&'static mut Decision> {
    // SAFETY: per-CPU memory, and programs on one CPU do not interrupt each other here.
    let decision = unsafe { &mut *DECISION.get_ptr_mut(0)? };
    // SAFETY: a field of a valid structure. Volatile: another program reads and writes it.
    unsafe {
        if core::ptr::read_volatile(&raw const decision.resumed) == 0 {
            return None;
        }
        core::ptr::write_volatile(&raw mut decision.resumed, 0);
        if core::ptr::read_volatile(&raw const (*skb).cb[1]) != ASKED {
            return None;
        }
    }
    Some(decision)
}

/// Goes on in [`tc_egress`] with what was decided there. Returns where that cannot be.
#[inline(always)]
pub fn resume(ctx: &TcContext, decision: &mut Decision) {
    decision.asks = 0;
    // SAFETY: fields of valid structures. Volatile: another program reads them. Index 0 holds a
    // classifier.
    unsafe {
        core::ptr::write_volatile(&raw mut (*ctx.skb.skb).cb[1], ASKED);
        core::ptr::write_volatile(&raw mut decision.resumed, 1);
        TO_TC_EGRESS.tail_call(ctx, 0);
        core::ptr::write_volatile(&raw mut decision.resumed, 0);
    }
}

/// Stamps a clone, or lets a packet pass that comes back from the delay line.
#[inline(always)]
fn second_pass(skb: *mut __sk_buff, guard: u32) -> i32 {
    if guard == DONE {
        mark(skb, 0);
        return TC_ACT_UNSPEC;
    }
    let Some(decision) = DECISION.get_ptr_mut(0) else { return TC_ACT_UNSPEC };
    // SAFETY: per-CPU memory, written by the pass that cloned us on this CPU.
    let decision = unsafe { &*decision };
    if decision.armed != 0 {
        mark(skb, 0);
        stamp(skb, decision);
    }
    TC_ACT_UNSPEC
}

#[inline(always)]
fn stamp(skb: *mut __sk_buff, decision: &Decision) {
    if decision.held == 0 {
        return;
    }
    if decision.spread != 0 {
        // SAFETY: plain helper call.
        unsafe { bpf_set_hash(skb, decision.spread) };
    }
    // SAFETY: the context is valid; classifiers may write the stamp, which fq obeys.
    unsafe { core::ptr::write_volatile(&raw mut (*skb).tstamp, decision.departure) };
}

/// What a socket may keep for so long does not slow it down: 1 ms of the default send buffer
/// (212 992 bytes by true size) is a Gbit/s. TCP Small Queues allow TCP far less.
const SHORT_NS: u64 = 1_000_000;

/// Stamps the packet where a socket may keep it; otherwise replaces it by clones.
#[inline(always)]
fn carry_out(
    skb: *mut __sk_buff,
    slot: &Slot,
    device: &Slot,
    protocol: u32,
    decision: &mut Decision,
) -> i32 {
    // fq sorts packets of a socket into one queue, which no packet may overtake.
    let kept =
        protocol != TCP && decision.spread == 0 && decision.departure - decision.now <= SHORT_NS;
    let orphan = decision.held != 0 && slot.flags & flag::ORPHAN != 0 && !kept;
    let clones = decision.copies + orphan as u32;
    // Volatile: the nested pass reads it, which the compiler cannot see, and would drop the store.
    // SAFETY: a field of a valid structure.
    unsafe { core::ptr::write_volatile(&raw mut decision.armed, 1) };
    mark(skb, CLONE);
    let mut made = 0;
    let mut i = 0;
    while i < COPIES + 1 {
        if i < clones {
            // SAFETY: plain helper call; a negative result means that no clone was made.
            if unsafe { bpf_clone_redirect(skb, device.ifindex, 0) } >= 0 {
                made += 1;
            }
        }
        i += 1;
    }
    // SAFETY: as above.
    unsafe { core::ptr::write_volatile(&raw mut decision.armed, 0) };
    if orphan && made != 0 {
        return lose();
    }
    mark(skb, 0);
    stamp(skb, decision);
    TC_ACT_UNSPEC
}

/// Hands the frame to the delay line, its departure time in front of it.
#[inline(always)]
fn to_line(skb: *mut __sk_buff, device: &Slot, decision: &Decision) -> i32 {
    let header = LineHeader { magic: MAGIC, zero: 0, departure_ns: decision.departure };
    // SAFETY: plain helper call; on failure the frame is as it was.
    if unsafe { bpf_skb_change_head(skb, LINE_HEADER, 0) } != 0 {
        return TC_ACT_UNSPEC;
    }
    // SAFETY: the header is LINE_HEADER bytes long.
    let failed = unsafe { bpf_skb_store_bytes(skb, 0, (&raw const header).cast(), LINE_HEADER, 0) };
    if failed != 0 {
        // The frame is no longer what the receiver expects.
        return lose();
    }
    let mut i = 0;
    while i < COPIES {
        if i < decision.copies {
            // SAFETY: plain helper call.
            unsafe { bpf_clone_redirect(skb, device.line_ifindex, 0) };
        }
        i += 1;
    }
    // SAFETY: plain helper call.
    unsafe { bpf_redirect(device.line_ifindex, 0) as i32 }
}

/// Flips one random bit behind the transport header.
#[inline(always)]
fn flip(skb: *mut __sk_buff, packet: &skb::Packet, device: &Slot, random: u32) {
    let header = match packet.protocol {
        TCP => {
            let Some(offset) = skb::load::<1>(skb, packet.transport + 12) else { return };
            ((offset[0] >> 4) as u32) * 4
        }
        UDP => 8,
        _ => 0,
    };
    if packet.transport == 0 {
        return;
    }
    // SAFETY: the context is valid.
    let length = unsafe { (*skb).len };
    let start = device.link_header + packet.transport + header;
    if start >= length {
        return;
    }
    let room = (length - start) as u64;
    let at = start + ((((random & !FLIP) >> 3) as u64 * room) >> 28) as u32;
    let mut byte = [0u8; 1];
    // SAFETY: one byte each way.
    unsafe {
        if bpf_skb_load_bytes(skb.cast(), at, byte.as_mut_ptr().cast(), 1) != 0 {
            return;
        }
        byte[0] ^= 1 << (random & 7);
        bpf_skb_store_bytes(skb, at, byte.as_ptr().cast(), 1, 0);
    }
}

/// Packets that arrive through a device.
#[classifier]
pub fn tc_ingress(ctx: TcContext) -> i32 {
    let context = ctx.skb.skb;
    let Some((_, slot)) = target::slot_of(context) else { return TC_ACT_UNSPEC };
    if slot.rule_count == 0 {
        return TC_ACT_UNSPEC;
    }
    let Some(packet) = skb::parse(context, slot.link_header, PEER_IS_SOURCE) else {
        return TC_ACT_UNSPEC;
    };
    let bytes = ctx.skb.len() as u64;
    let Some(decision) = effect::decide_all(context, slot, &packet, bytes) else {
        return TC_ACT_UNSPEC;
    };
    if decision.fate == FATE_REJECT {
        // SAFETY: index 0 holds a classifier; where it does not, the packet is lost.
        unsafe { TO_TC_REFUSE_INGRESS.tail_call(&ctx, 0) };
        return TC_ACT_SHOT;
    }
    if decision.fate != FATE_PASS {
        return TC_ACT_SHOT;
    }
    if decision.flip != 0 {
        flip(context, &packet, slot, decision.flip);
    }
    TC_ACT_UNSPEC
}

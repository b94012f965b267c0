//! `cgroup_skb`: refusals that the sender's system call sees as EPERM, and drops on arrival
//! for the sockets of one cgroup.

use aya_ebpf::macros::cgroup_skb;
use aya_ebpf::programs::SkBuffContext;

use crate::maps::FATE_PASS;
use crate::skb::{PEER_IS_DESTINATION, PEER_IS_SOURCE};
use crate::{effect, skb, target};

const ALLOW: i32 = 1;
const DENY: i32 = 0;

/// Refuses what leaves the sockets of a cgroup.
#[cgroup_skb(egress)]
pub fn cgroup_egress(ctx: SkBuffContext) -> i32 {
    run(&ctx, PEER_IS_DESTINATION)
}

/// Drops what arrives at the sockets of a cgroup.
#[cgroup_skb(ingress)]
pub fn cgroup_ingress(ctx: SkBuffContext) -> i32 {
    run(&ctx, PEER_IS_SOURCE)
}

#[inline(always)]
fn run(ctx: &SkBuffContext, peer_is_destination: bool) -> i32 {
    let context = ctx.skb.skb;
    let Some((_, slot)) = target::slot_of(context) else { return ALLOW };
    if slot.rule_count == 0 {
        return ALLOW;
    }
    let Some(packet) = skb::parse(context, 0, peer_is_destination) else { return ALLOW };
    let bytes = ctx.skb.len() as u64;
    match effect::decide_all(context, slot, &packet, bytes) {
        Some(decision) if decision.fate != FATE_PASS => DENY,
        _ => ALLOW,
    }
}

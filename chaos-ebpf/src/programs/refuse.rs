//! Second half of a partition that answers: turns the packet into its refusal.

use aya_ebpf::bindings::TC_ACT_UNSPEC;
use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;

use chaos_abi::http::CUT;
use chaos_abi::target::flag;

use super::tc::lose;
use crate::reply::{TO_OUR_STACK, TO_THE_WIRE, refuse, reset_receiver};
use crate::skb::{self, PEER_IS_DESTINATION, PEER_IS_SOURCE};
use crate::target;

/// Answers a packet that was leaving.
#[classifier]
pub fn tc_refuse_egress(ctx: TcContext) -> i32 {
    answer(&ctx, PEER_IS_DESTINATION, TO_OUR_STACK)
}

/// Answers a packet that was arriving.
#[classifier]
pub fn tc_refuse_ingress(ctx: TcContext) -> i32 {
    answer(&ctx, PEER_IS_SOURCE, TO_THE_WIRE)
}

#[inline(always)]
fn answer(ctx: &TcContext, peer_is_destination: bool, way: u64) -> i32 {
    let context = ctx.skb.skb;
    let Some((_, device)) = target::slot_of(context) else { return lose() };
    let Some(packet) = skb::parse(context, device.link_header, peer_is_destination) else {
        return lose();
    };
    // SAFETY: the context is valid.
    let is_cut = unsafe { (*context).tc_index == CUT };
    if is_cut && way == TO_THE_WIRE && device.flags & flag::LOOPBACK != 0 {
        return if reset_receiver(context, &packet, device) { TC_ACT_UNSPEC } else { lose() };
    }
    match refuse(context, &packet, device, way) {
        Some(action) => action,
        None => lose(),
    }
}

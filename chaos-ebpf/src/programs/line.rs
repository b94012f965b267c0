//! The way back from the delay line: a frame that userspace wrote into the TAP device goes out
//! of the device that it was taken from.

use aya_ebpf::bindings::TC_ACT_SHOT;
use aya_ebpf::helpers::generated::bpf_redirect;
use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;

use super::tc::DONE;
use crate::skb::mark;
use crate::target;

/// Attached to the TAP's ingress. Its slot names the device.
#[classifier]
pub fn line_return(ctx: TcContext) -> i32 {
    let context = ctx.skb.skb;
    let Some((_, slot)) = target::slot_of(context) else { return TC_ACT_SHOT };
    if slot.ifindex == 0 {
        return TC_ACT_SHOT;
    }
    mark(context, DONE);
    // SAFETY: plain helper call.
    unsafe { bpf_redirect(slot.ifindex, 0) as i32 }
}

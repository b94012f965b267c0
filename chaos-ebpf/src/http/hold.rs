//! Where packets leave: those of a delayed response are told when they may, and sockets that must not
//! stay in a map leave it ([`leave`]).
//!
//! Only the time is written down here. Another program, at the end of the same chain, holds packets
//! in the device's queue or in the delay line, as it does for delays of packets.

use aya_ebpf::bindings::{__sk_buff, TC_ACT_UNSPEC};
use aya_ebpf::helpers::generated::bpf_sk_fullsock;
use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use chaos_abi::http::LATE;

use crate::maps::{HTTP_SLOTS_MAP, alive, connection};
use crate::{leave, segment};

/// Packets that leave through a device: they pass, some with a time of departure.
#[classifier]
pub fn http_hold(ctx: TcContext) -> i32 {
    let _ = appoint(ctx.skb.skb);
    TC_ACT_UNSPEC
}

#[inline(always)]
fn appoint(skb: *mut __sk_buff) -> Option<()> {
    // SAFETY: the context is valid; volatile, or the reads are merged with others.
    let (index, sk) = unsafe {
        (
            core::ptr::read_volatile(&raw const (*skb).cb[0]),
            core::ptr::read_volatile(&raw const (*skb).__bindgen_anon_2.sk),
        )
    };
    if sk.is_null() {
        return None;
    }
    // SAFETY: plain helper call.
    let sk = unsafe { bpf_sk_fullsock(sk) };
    if sk.is_null() {
        return None;
    }
    // SAFETY: not null; volatile, or the read is merged with others.
    let until = unsafe {
        let mut c = connection(sk.cast(), 0);
        leave::look(sk, c.as_deref_mut());
        core::ptr::read_volatile(&raw const c?.until)
    };
    if until == 0 || until <= alive()? {
        return None;
    }
    // What has no payload is an acknowledgement: the client's data is not what is late.
    segment::parse(skb, HTTP_SLOTS_MAP.get(index)?.link_header)?;
    // SAFETY: the context is valid; classifiers may write both.
    unsafe {
        core::ptr::write_volatile(&raw mut (*skb).tstamp, until);
        core::ptr::write_volatile(&raw mut (*skb).tc_index, LATE);
    }
    Some(())
}

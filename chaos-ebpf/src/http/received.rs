//! What diverted sockets receive: it passes, or is the agent's.

use core::ffi::c_void;

use aya_ebpf::bindings::{__sk_buff, sk_action};
use aya_ebpf::helpers::generated::{
    bpf_get_socket_cookie, bpf_loop, bpf_sk_redirect_hash, bpf_skb_load_bytes,
};
use aya_ebpf::macros::stream_verdict;
use aya_ebpf::programs::SkBuffContext;
use chaos_abi::detour::{Stream, TAKEN, Taken, away, fate};
use chaos_abi::limit::EXCHANGES_PER_DEVICE;

use crate::maps::{NOWHERE, STREAMS, TAKEN_BYTES, below};
use crate::turn::{NOTHING, TRIES, load, replace};

/// What a diverted socket has received: it passes, or is copied for the agent and thrown away. It is
/// not sent on: it would need a header, and the kernel counts as read how long it is then.
#[stream_verdict]
pub fn http_received(ctx: SkBuffContext) -> u32 {
    let skb = ctx.skb.skb;
    // SAFETY: the context is valid; the callback has the signature that the helper calls.
    unsafe {
        let number = bpf_get_socket_cookie(skb.cast());
        let Some(stream) = STREAMS.get_ptr_mut(&number) else { return sk_action::SK_PASS };
        let size = (*skb).len;
        let start = (*stream).next as u32;
        let end = start.wrapping_add(size);
        core::ptr::write_volatile(&raw mut (*stream).next, end as u64);
        if !takes(stream, end) {
            return sk_action::SK_PASS;
        }
        let from = (*stream).from as u32;
        let skip = from.wrapping_sub(start);
        let skip = if skip.cast_signed() > 0 { skip } else { 0 };
        let mut taking = Taking { skb, stream, number, size, skip };
        bpf_loop(MOST, one_part as *mut c_void, (&raw mut taking).cast(), 0);
        (*stream).is_first = 0;
        let early = load(&raw const (*stream).early);
        if early != NOTHING && end.wrapping_sub(early as u32).cast_signed() <= 0 {
            return sk_action::SK_DROP;
        }
        // Whoever waits for bytes is woken by what is dropped, and told that there are none even where
        // he has asked to wait (`tcp_bpf_recvmsg_parser`); nobody is by what is sent to a socket that
        // does not take it. What came before the connection was accepted is looked at when somebody
        // asks, and has to be dropped: the kernel would look no further.
        let (map, mut key) = ((&raw const NOWHERE).cast_mut().cast(), 0u32);
        bpf_sk_redirect_hash(skb, map, (&raw mut key).cast(), 0) as u32
    }
}

/// Whether bytes up to `end` are the agent's; says so, where they are.
///
/// # Safety
/// The stream is a map value.
#[inline(always)]
unsafe fn takes(stream: *mut Stream, end: u32) -> bool {
    let mut i = 0;
    while i < TRIES {
        // SAFETY: as promised.
        unsafe {
            let old = load(&raw const (*stream).away);
            let offset = end.wrapping_sub((*stream).from as u32);
            if old == 0 || offset.cast_signed() <= 0 {
                return false;
            }
            let new = old & !away::MASK | offset as u64 & away::MASK;
            if replace(&raw mut (*stream).away, old, new) == old {
                return true;
            }
        }
        i += 1;
    }
    true
}

/// Parts of what arrives at once at most: 512 KiB.
const MOST: u32 = 128;

#[repr(C)]
struct Taking {
    skb: *mut __sk_buff,
    stream: *mut Stream,
    number: u64,
    size: u32,
    skip: u32,
}

unsafe extern "C" fn one_part(i: u64, taking: *mut Taking) -> i64 {
    // SAFETY: the context that `http_received` gave; the record is submitted or discarded.
    unsafe {
        let t = &*taking;
        // By its number: what would be counted on the stack is another state for the verifier each time.
        let at = below::<{ MOST as u64 - 1 }>(i as u32) as u32 * TAKEN as u32;
        if at >= t.size {
            return 1;
        }
        let left = t.size - at;
        let most = if left > TAKEN as u32 { TAKEN as u32 } else { left };
        // The verifier needs to see that there is a byte, and no more than there is room for.
        let length = below::<{ TAKEN as u64 - 1 }>(most - 1) as u32 + 1;
        let Some(mut record) = TAKEN_BYTES.reserve::<Taken>(0) else {
            // The agent looks for such, and cuts their connections.
            (*t.stream).fate = fate::LOST;
            return 1;
        };
        let taken = record.as_mut_ptr();
        (*taken).connection = t.number;
        (*taken).skip = t.skip.saturating_sub(at) as u64;
        (*taken).is_first = (*t.stream).is_first;
        (*taken).length = length as u64;
        let from = (&raw const (*t.stream).exchanges).cast::<u64>();
        let to = (&raw mut (*taken).exchanges).cast::<u64>();
        let mut k = 0;
        while k < EXCHANGES_PER_DEVICE / 4 {
            core::ptr::write_volatile(to.add(k), core::ptr::read_volatile(from.add(k)));
            k += 1;
        }
        let to = (&raw mut (*taken).bytes).cast();
        if bpf_skb_load_bytes(t.skb.cast(), at, to, length) != 0 {
            record.discard(0);
            (*t.stream).fate = fate::LOST;
            return 1;
        }
        record.submit(0);
        0
    }
}

//! Follows the body of a request in chunks to its end, wherever segments split it.
//!
//! Without that, what a client sends behind an interim response (`100 Continue`) would look like
//! its next request.

use core::ffi::c_void;

use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::helpers::generated::{bpf_loop, bpf_skb_load_bytes};

use crate::chunk;
use crate::maps::{Asked, Connection};

/// What a loop can do at most; no segment has as many bytes.
const STEPS: u32 = 1 << 17;

/// The verifier follows pointers on the stack and forgets what stands in maps, so that paths merge.
#[repr(C)]
struct Context {
    skb: *mut __sk_buff,
    asked: *mut Asked,
    connection: *mut Connection,
}

/// Such a body begins.
#[inline(always)]
pub fn begin(c: &mut Connection) {
    c.request_chunk = chunk::FIRST;
    c.request_left = 0;
}

/// Reads on from `from`, as an offset in the segment. `asked.at` is then behind what belongs to the
/// body, and `c.request_chunk` is [`chunk::NONE`] behind its end, [`chunk::BAD`] where it has none.
#[inline(always)]
pub fn read(skb: *mut __sk_buff, asked: &mut Asked, c: &mut Connection, from: u32) {
    asked.at = from;
    let mut context = Context { skb, asked, connection: c };
    // SAFETY: the callback has the signature that the helper calls.
    unsafe { bpf_loop(STEPS, one_step as *mut c_void, (&raw mut context).cast(), 0) };
}

unsafe extern "C" fn one_step(_: u64, context: *mut Context) -> i64 {
    // SAFETY: the context that `read` gave; the pointers are map values.
    let (skb, asked, c) =
        unsafe { ((*context).skb, &mut *(*context).asked, &mut *(*context).connection) };
    if c.request_chunk == chunk::DATA {
        let rest = asked.size.wrapping_sub(asked.at) as u64;
        let here = if c.request_left < rest { c.request_left } else { rest };
        asked.at = asked.at.wrapping_add(here as u32);
        c.request_left -= here;
        if c.request_left == 0 {
            c.request_chunk = chunk::DATA_END;
        }
    }
    if asked.at >= asked.size {
        return 1;
    }
    let mut byte = 0u8;
    let at = asked.payload.wrapping_add(asked.at);
    // SAFETY: the buffer has this size; the helper fills it or fails.
    if unsafe { bpf_skb_load_bytes(skb.cast(), at, (&raw mut byte).cast(), 1) } != 0 {
        c.request_chunk = chunk::BAD;
        return 1;
    }
    asked.at += 1;
    c.request_chunk = chunk::next(c.request_chunk, &mut c.request_left, byte);
    (c.request_chunk <= chunk::BAD) as i64
}

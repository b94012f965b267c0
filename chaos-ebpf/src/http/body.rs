//! The body that a connection is in the middle of: how much of it a message has.

use aya_ebpf::bindings::sk_msg_md;
use chaos_abi::http::passed;

use crate::chunk;
use crate::maps::{Connection, PHASE_REST, SWALLOWED, count};

/// Of [`Connection::swallow`]: where the old body ends will not be found.
const BROKEN: u32 = 2;

/// How many of a message's first bytes belong to the body.
#[inline(always)]
pub fn read(msg: *mut sk_msg_md, c: &mut Connection, size: u32) -> u32 {
    if c.chunk != chunk::NONE {
        chunk::read(msg, c, 0, size);
        return c.at;
    }
    let here = if c.left < size as u64 { c.left as u32 } else { size };
    c.left -= here as u64;
    here
}

/// Nothing more of the body is to come.
#[inline(always)]
pub fn is_over(c: &Connection) -> bool {
    c.left == 0 && c.chunk == chunk::NONE
}

/// Chunks that end nowhere may pass, but not where the client has been told another length: it
/// could not tell the next response from them.
#[inline(always)]
pub fn may_break(c: &mut Connection) -> bool {
    if c.swallow == BROKEN {
        return false;
    }
    count(c.exchange, |counters| counters.passed[passed::CHUNKED] += 1);
    if c.swallow != 0 {
        swallowed(1);
        c.swallow = BROKEN;
        return false;
    }
    c.chunk = chunk::NONE;
    c.phase = PHASE_REST;
    true
}

/// Counts old bodies: 0 for one that begins to be swallowed, 1 for one that is through.
#[inline(always)]
pub fn swallowed(which: u32) {
    if let Some(counter) = SWALLOWED.get_ptr_mut(which) {
        // SAFETY: the value of this CPU.
        unsafe { *counter += 1 };
    }
}

//! Follows a body in chunks to its end, wherever sends split it: sizes, extensions and trailers are
//! read a byte at a time, data are passed over by their number.

use core::ffi::c_void;

use aya_ebpf::bindings::sk_msg_md;
use aya_ebpf::helpers::generated::{bpf_loop, bpf_msg_pull_data};

use crate::maps::Connection;

/// Values of [`Connection::chunk`]. Not in a body of chunks.
pub const NONE: u32 = 0;
/// No chunks, or none that can be followed.
pub const BAD: u32 = 1;
/// The first digit of a size.
pub const FIRST: u32 = 2;
/// Other digits; `left` is what they say so far.
const DIGITS: u32 = 3;
/// An extension, or the line end, behind a size.
const EXTENSION: u32 = 4;
/// Data.
pub const DATA: u32 = 5;
/// The line end behind data.
pub const DATA_END: u32 = 6;
/// A line of the trailer, or the empty one, begins.
const TRAILER: u32 = 7;
/// In the middle of a line of the trailer.
const FIELD: u32 = 8;
/// Behind the return of what may be the empty line.
const LAST: u32 = 9;

/// A size of more than sixty bits is none.
const SIZES: u64 = 1 << 60;
/// What a loop can do at most; no message has as many bytes.
const STEPS: u32 = 1 << 23;

/// The verifier follows pointers on the stack and forgets what stands in maps, so that paths merge.
#[repr(C)]
struct Context {
    msg: *mut sk_msg_md,
    connection: *mut Connection,
}

/// A body begins.
#[inline(always)]
pub fn begin(c: &mut Connection) {
    c.chunk = FIRST;
    c.left = 0;
}

/// Reads what is here of a body that begins at `from`. False: it cannot be followed.
#[inline(always)]
pub fn start(msg: *mut sk_msg_md, c: &mut Connection, from: u32, size: u32) -> bool {
    begin(c);
    read(msg, c, from, size);
    let is_good = c.chunk != BAD;
    if !is_good {
        c.chunk = NONE;
    }
    is_good
}

/// Reads on from `from`. `c.at` is then behind what belongs to the body, and `c.chunk` is [`NONE`]
/// behind its end.
#[inline(always)]
pub fn read(msg: *mut sk_msg_md, c: &mut Connection, from: u32, size: u32) {
    c.at = from;
    c.size = size;
    let mut context = Context { msg, connection: c };
    // SAFETY: the callback has the signature that the helper calls.
    unsafe { bpf_loop(STEPS, one_step as *mut c_void, (&raw mut context).cast(), 0) };
}

unsafe extern "C" fn one_step(_: u64, context: *mut Context) -> i64 {
    // SAFETY: the context that `read` gave; the pointer is a map value.
    let (msg, c) = unsafe { ((*context).msg, &mut *(*context).connection) };
    if c.chunk == DATA {
        let rest = c.size.wrapping_sub(c.at) as u64;
        let here = if c.left < rest { c.left } else { rest };
        c.at = c.at.wrapping_add(here as u32);
        c.left -= here;
        if c.left == 0 {
            c.chunk = DATA_END;
        }
    }
    if c.at >= c.size {
        return 1;
    }
    let Some(byte) = byte(msg, c.at) else {
        c.chunk = BAD;
        return 1;
    };
    c.at += 1;
    c.chunk = next(c.chunk, &mut c.left, byte);
    (c.chunk <= BAD) as i64
}

/// One byte of a message. A longer range may lie in two pieces, which would be copied then.
#[inline(always)]
fn byte(msg: *mut sk_msg_md, at: u32) -> Option<u8> {
    // SAFETY: the context is valid; the byte is compared with the range's end.
    unsafe {
        if bpf_msg_pull_data(msg, at, at + 1, 0) != 0 {
            return None;
        }
        let data = (*msg).__bindgen_anon_1.data as usize;
        let end = (*msg).__bindgen_anon_2.data_end as usize;
        if data + 1 > end {
            return None;
        }
        Some(core::ptr::read_volatile(data as *const u8))
    }
}

/// What comes behind this byte; `left` is the size of the chunk, as far as it has been read.
#[inline(always)]
pub fn next(chunk: u32, left: &mut u64, byte: u8) -> u32 {
    match chunk {
        FIRST | DIGITS => size(chunk, left, byte),
        EXTENSION if byte == b'\n' => behind_size(*left),
        EXTENSION => EXTENSION,
        DATA_END if byte == b'\n' => FIRST,
        DATA_END if byte == b'\r' => DATA_END,
        TRAILER | LAST if byte == b'\n' => NONE,
        TRAILER if byte == b'\r' => LAST,
        FIELD if byte == b'\n' => TRAILER,
        TRAILER | FIELD => FIELD,
        _ => BAD,
    }
}

#[inline(always)]
fn size(chunk: u32, left: &mut u64, byte: u8) -> u32 {
    let digit = match byte {
        b'0'..=b'9' => byte - b'0',
        b'a'..=b'f' | b'A'..=b'F' => (byte | 0x20) - b'a' + 10,
        _ if chunk == FIRST => return BAD,
        b'\n' => return behind_size(*left),
        b'\r' | b' ' | b'\t' | b';' => return EXTENSION,
        _ => return BAD,
    };
    *left = *left << 4 | digit as u64;
    if *left < SIZES { DIGITS } else { BAD }
}

#[inline(always)]
fn behind_size(left: u64) -> u32 {
    if left == 0 { TRAILER } else { DATA }
}

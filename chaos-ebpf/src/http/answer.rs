//! The parser of responses. On its way it writes the head anew, as an exchange wants it.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::bpf_loop;
use chaos_abi::http::{EMPTY, FRAMING, HttpRule, lower, name_hash, step, together};
use chaos_abi::limit::{HTTP_DROPPED, HTTP_FIELDS};

use crate::maps::{Answered, HEAD, below};

const STATUS: u32 = 0;
const NAME: u32 = 1;
const BEFORE_VALUE: u32 = 2;
const VALUE: u32 = 3;

/// Bits of [`Answer::flags`].
pub mod flag {
    /// The body comes in chunks, where it is [`CODED`].
    pub const CHUNKED: u32 = 1 << 0;
    /// `length` is known.
    pub const LENGTH: u32 = 1 << 1;
    /// This is no response of HTTP/1.
    pub const BAD: u32 = 1 << 2;
    /// The body is coded for its transfer.
    pub const CODED: u32 = 1 << 3;
    /// It is of HTTP/1.0.
    pub const OLD: u32 = 1 << 4;
    /// It says that its connection ends.
    pub const CLOSES: u32 = 1 << 5;
    /// It says that its connection stays.
    pub const STAYS: u32 = 1 << 6;
}

const CONTENT_LENGTH: u64 = name_hash(b"content-length");
const TRANSFER_ENCODING: u64 = name_hash(b"transfer-encoding");
const CONNECTION: u64 = name_hash(b"connection");
/// The last bytes of a list of codings of which the last one is chunks: alone, or behind others.
const CHUNKED: [u64; 2] = [u64::from_be_bytes(*b"\0chunked"), u64::from_be_bytes(*b",chunked")];
/// The last bytes of what the connection is told.
const CLOSE: u64 = u64::from_be_bytes(*b"\0\0\0close");
const CLOSE_MASK: u64 = (1 << 40) - 1;
const KEEP_ALIVE: u64 = u64::from_be_bytes(*b"ep-alive");
/// How responses begin; the digit behind it does not matter.
const START: [u8; 8] = *b"HTTP/1.?";
/// Where the status stands: behind `HTTP/1.1 `.
pub const STATUS_AT: u32 = 9;

/// A response that is being read.
#[repr(C)]
pub struct Answer {
    /// How many bytes there are.
    pub len: u32,
    /// How many have been written.
    pub at: u32,
    /// Where the line began that is being written.
    line: u32,
    mode: u32,
    /// 1: the status line is kept.
    pub keeps_status: u32,
    /// 1: the headers of the framing are kept.
    pub keeps_framing: u32,
    is_dropped: u32,
    /// Bits of [`flag`].
    pub flags: u32,
    /// The status.
    pub code: u32,
    /// Behind the head; 0: it does not end here.
    pub end: u32,
    /// Which headers of the rule the response has, one bit each.
    pub hits: u32,
    zero: u32,
    hash: u64,
    value: u64,
    trimmed: u64,
    number: u64,
    /// The last eight bytes of a value in lower case, without spaces.
    last: u64,
    /// Bytes of the body.
    pub length: u64,
}

impl Answer {
    /// Nothing read yet of `len` bytes.
    #[inline(always)]
    pub fn begin(&mut self, len: u32) {
        self.len = len;
        self.at = 0;
        self.line = 0;
        self.mode = STATUS;
        self.keeps_status = 1;
        self.keeps_framing = 1;
        self.is_dropped = 0;
        self.flags = 0;
        self.code = 0;
        self.end = 0;
        self.hits = 0;
        self.hash = EMPTY;
        self.length = 0;
    }
}

/// The verifier follows pointers on the stack and forgets what stands in maps, so that paths merge.
#[repr(C)]
struct Context {
    answered: *mut Answered,
    rule: *const HttpRule,
}

/// Reads to the end of the head, or of the bytes.
#[inline(always)]
pub fn read(answered: &mut Answered, rule: &HttpRule) {
    let mut context = Context { answered, rule };
    // SAFETY: the callback has the signature that the helper calls.
    unsafe { bpf_loop(HEAD as u32, one_byte as *mut c_void, (&raw mut context).cast(), 0) };
}

unsafe extern "C" fn one_byte(i: u64, context: *mut Context) -> i64 {
    // SAFETY: the context that `read` gave; the pointers are map values, the indexes masked.
    let (a, rule, byte) = unsafe {
        let answered = (*context).answered;
        let a = &mut (*answered).answer;
        if i >= a.len as u64 {
            return 1;
        }
        let from = (&raw const (*answered).head).cast::<u8>();
        let byte = *from.add(below::<{ HEAD as u64 - 1 }>(i as u32));
        if a.mode != STATUS || a.keeps_status != 0 {
            let to = (&raw mut (*answered).out).cast::<u8>();
            *to.add(below::<{ 4 * HEAD as u64 - 1 }>(a.at)) = byte;
            a.at += 1;
        }
        (a, (*context).rule, byte)
    };
    if a.mode == STATUS {
        return status(a, i as u32, byte);
    }
    if byte == b'\n' {
        return line_end(a, rule, i as u32);
    }
    if byte == b'\r' {
        return 0;
    }
    if a.mode == NAME {
        if byte == b':' {
            name_end(a, rule);
        } else {
            a.hash = step(a.hash, lower(byte));
        }
        return 0;
    }
    let is_space = byte == b' ' || byte == b'\t';
    if a.mode == BEFORE_VALUE && is_space {
        return 0;
    }
    a.mode = VALUE;
    a.value = step(a.value, byte);
    if !is_space {
        a.trimmed = a.value;
        a.last = a.last << 8 | lower(byte) as u64;
    }
    if byte.is_ascii_digit() {
        a.number = a.number.wrapping_mul(10).wrapping_add((byte - b'0') as u64);
    }
    0
}

/// `HTTP/1.1 200 OK`.
#[inline(always)]
fn status(a: &mut Answer, i: u32, byte: u8) -> i64 {
    if byte == b'\n' {
        if a.code < 100 || a.code > 999 {
            a.flags |= flag::BAD;
            return 1;
        }
        if a.code == 204 || a.code == 304 {
            a.keeps_framing = 1;
        }
        a.mode = NAME;
        a.line = a.at;
    } else if i < START.len() as u32 {
        // What does not begin so is not waited for.
        if byte != START[i as usize & 7] && i != 7 {
            a.flags |= flag::BAD;
            return 1;
        }
        if i == 7 && byte == b'0' {
            a.flags |= flag::OLD;
        }
    } else if i >= STATUS_AT && i < STATUS_AT + 3 {
        if !byte.is_ascii_digit() {
            a.flags |= flag::BAD;
            return 1;
        }
        a.code = a.code * 10 + (byte - b'0') as u32;
    }
    0
}

#[inline(always)]
fn name_end(a: &mut Answer, rule: *const HttpRule) {
    a.mode = BEFORE_VALUE;
    a.value = EMPTY;
    a.trimmed = EMPTY;
    a.number = 0;
    a.last = 0;
    let mut i = 0;
    while i < HTTP_DROPPED {
        // SAFETY: a map value.
        let dropped = unsafe { (*rule).dropped[i] };
        if dropped == a.hash && (i >= FRAMING || a.keeps_framing == 0) {
            a.is_dropped = 1;
        }
        i += 1;
    }
}

#[inline(always)]
fn line_end(a: &mut Answer, rule: *const HttpRule, i: u32) -> i64 {
    if a.mode == NAME {
        if a.hash == EMPTY {
            // The empty line is the tail's.
            a.at = a.line;
            a.end = i + 1;
        } else {
            a.flags |= flag::BAD;
        }
        return 1;
    }
    let both = together(a.hash, a.trimmed);
    let mut k = 0;
    while k < HTTP_FIELDS {
        // SAFETY: a map value.
        if unsafe { (*rule).response_headers[k].hash } == both {
            a.hits |= 1 << k;
        }
        k += 1;
    }
    if a.hash == CONTENT_LENGTH {
        a.length = a.number;
        a.flags |= flag::LENGTH;
    } else if a.hash == TRANSFER_ENCODING {
        a.flags |= flag::CODED | flag::CHUNKED;
        if a.last != CHUNKED[0] && a.last != CHUNKED[1] {
            a.flags &= !flag::CHUNKED;
        }
    } else if a.hash == CONNECTION {
        if a.last & CLOSE_MASK == CLOSE {
            a.flags |= flag::CLOSES;
        } else if a.last == KEEP_ALIVE {
            a.flags |= flag::STAYS;
        }
    }
    if a.is_dropped != 0 {
        a.at = a.line;
        a.is_dropped = 0;
    }
    a.line = a.at;
    a.mode = NAME;
    a.hash = EMPTY;
    0
}

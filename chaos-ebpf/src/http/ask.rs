//! The parser of requests: one byte at a time, one request at a time.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::bpf_loop;
use chaos_abi::http::{EMPTY, hash, lower, name_hash, step, together};

use crate::maps::{Asked, HEAD, SEEN, below};

const METHOD: u32 = 0;
const PATH: u32 = 1;
const QUERY: u32 = 2;
const VERSION: u32 = 3;
/// In front of a path, or where there is none: a scheme, or an authority alone (RFC 9112, 3.2).
const SCHEME: u32 = 4;
/// Behind the colon of `://`.
const COLON: u32 = 5;
/// Behind its first slash.
const SLASH: u32 = 6;
/// Behind a scheme.
const AUTHORITY: u32 = 7;
const NAME: u32 = 8;
const BEFORE_VALUE: u32 = 9;
const VALUE: u32 = 10;

/// Bits of [`Ask::flags`].
pub mod flag {
    /// The body comes in chunks.
    pub const CHUNKED: u32 = 1 << 0;
    /// This is no request of HTTP/1.
    pub const BAD: u32 = 1 << 1;
    /// It is one of HTTP/2.
    pub const HTTP2: u32 = 1 << 2;
    /// Its connection ends with the response.
    pub const CLOSES: u32 = 1 << 3;
}

const CONTENT_LENGTH: u64 = name_hash(b"content-length");
const TRANSFER_ENCODING: u64 = name_hash(b"transfer-encoding");
const CONNECTION: u64 = name_hash(b"connection");
const CLOSE: [u64; 2] = [hash(b"close"), hash(b"Close")];
const KEEP_ALIVE: [u64; 2] = [hash(b"keep-alive"), hash(b"Keep-Alive")];
const HTTP_1_1: u64 = hash(b"HTTP/1.1");
const HTTP_1_0: u64 = hash(b"HTTP/1.0");
const HTTP_2_0: u64 = hash(b"HTTP/2.0");

/// A request that is being read.
#[repr(C)]
pub struct Ask {
    /// How many bytes there are.
    pub len: u32,
    /// The next one.
    pub at: u32,
    mode: u32,
    /// Bits of [`flag`].
    pub flags: u32,
    /// Hash of the method.
    pub method: u64,
    /// Hash of the path; of nothing where an authority alone is asked for.
    pub path: u64,
    /// Where the path begins.
    pub path_at: u32,
    /// Its length, without a query.
    pub path_len: u32,
    /// Behind the head; 0: it does not end here.
    pub end: u32,
    /// How many headers have been seen.
    pub seen: u32,
    hash: u64,
    value: u64,
    trimmed: u64,
    number: u64,
    /// Bytes of the body.
    pub length: u64,
}

impl Ask {
    /// Nothing read of the request that begins at `at`.
    #[inline(always)]
    pub fn begin(&mut self) {
        self.mode = METHOD;
        self.flags = 0;
        self.method = EMPTY;
        self.path = EMPTY;
        self.path_at = 0;
        self.path_len = 0;
        self.end = 0;
        self.seen = 0;
        self.hash = EMPTY;
        self.length = 0;
    }
}

/// The verifier follows pointers on the stack and forgets what stands in maps, so that paths merge.
#[repr(C)]
struct Context {
    asked: *mut Asked,
}

/// Reads on to the end of the head, or of the bytes.
#[inline(always)]
pub fn read(asked: &mut Asked) {
    let mut context = Context { asked };
    // SAFETY: the callback has the signature that the helper calls.
    unsafe {
        bpf_loop(2 * HEAD as u32, one_byte as *mut c_void, (&raw mut context).cast(), 0);
    }
}

unsafe extern "C" fn one_byte(_: u64, context: *mut Context) -> i64 {
    // SAFETY: the context that `read` gave; the pointer is a map value, the index masked.
    let (a, to, byte) = unsafe {
        let asked = (*context).asked;
        let a = &mut (*asked).ask;
        if a.at >= a.len {
            return 1;
        }
        let from = (&raw const (*asked).bytes).cast::<u8>();
        let byte = *from.add(below::<{ 2 * HEAD as u64 - 1 }>(a.at));
        (a, (&raw mut (*asked).seen).cast::<u64>(), byte)
    };
    a.at += 1;
    if a.mode >= NAME {
        return header(a, to, byte);
    }
    let bad = |a: &mut Ask| {
        a.flags |= flag::BAD;
        1
    };
    match a.mode {
        METHOD => {
            if byte == b' ' && a.method != EMPTY {
                a.mode = PATH;
                a.path_at = a.at;
            } else if byte.is_ascii_uppercase() || byte == b'-' {
                a.method = step(a.method, byte);
            } else if !(a.method == EMPTY && (byte == b'\r' || byte == b'\n')) {
                // An empty line may stand in front (RFC 9112, 2.2).
                return bad(a);
            }
        }
        PATH => {
            let is_first = a.at - 1 == a.path_at;
            if byte < b' ' || is_first && byte == b' ' {
                return bad(a);
            } else if is_first && byte != b'/' && byte != b'*' {
                a.mode = SCHEME;
                before_path(a, byte);
            } else if byte == b' ' || byte == b'?' {
                a.path_len = a.at - 1 - a.path_at;
                a.mode = if byte == b' ' { VERSION } else { QUERY };
            } else {
                a.path = step(a.path, byte);
            }
        }
        QUERY => {
            if byte == b' ' {
                a.mode = VERSION;
            } else if byte < b' ' {
                return bad(a);
            }
        }
        SCHEME..=AUTHORITY => {
            if byte < b' ' {
                return bad(a);
            }
            before_path(a, byte);
        }
        _ => {
            if byte == b'\n' {
                if a.hash != HTTP_1_1 && a.hash != HTTP_1_0 {
                    if a.hash == HTTP_2_0 {
                        a.flags |= flag::HTTP2;
                    }
                    return bad(a);
                }
                if a.hash == HTTP_1_0 {
                    a.flags |= flag::CLOSES;
                }
                a.mode = NAME;
                a.hash = EMPTY;
            } else if byte != b'\r' {
                a.hash = step(a.hash, byte);
            }
        }
    }
    0
}

/// A byte of a target that does not begin with its path.
#[inline(always)]
fn before_path(a: &mut Ask, byte: u8) {
    if a.mode == AUTHORITY && (byte == b'/' || byte == b'?' || byte == b' ') {
        // Where there is none behind an authority, the last slash in front of it is the path.
        a.path = step(EMPTY, b'/');
        a.path_len = 1;
    }
    if byte == b'/' && (a.mode == SLASH || a.mode == AUTHORITY) {
        a.path_at = a.at - 1;
    }
    a.mode = match byte {
        b' ' => VERSION,
        b'?' => QUERY,
        b'/' if a.mode == AUTHORITY => PATH,
        _ if a.mode == AUTHORITY => AUTHORITY,
        b'/' if a.mode == SLASH => AUTHORITY,
        b'/' if a.mode == COLON => SLASH,
        // No scheme comes behind a slash.
        b'/' => QUERY,
        _ if a.mode == SLASH => QUERY,
        b':' => COLON,
        _ => SCHEME,
    };
}

#[inline(always)]
fn header(a: &mut Ask, to: *mut u64, byte: u8) -> i64 {
    if byte == b'\n' {
        if a.mode == NAME {
            if a.hash == EMPTY {
                a.end = a.at;
                return 1;
            }
            a.flags |= flag::BAD;
            return 1;
        }
        let seen = a.seen;
        a.seen += 1;
        // SAFETY: a map value, the index masked.
        unsafe {
            *to.add(below::<{ SEEN as u64 - 1 }>(seen)) = together(a.hash, a.trimmed);
        }
        if a.hash == CONTENT_LENGTH {
            a.length = a.number;
        } else if a.hash == TRANSFER_ENCODING {
            a.flags |= flag::CHUNKED;
        } else if a.hash == CONNECTION {
            if a.trimmed == CLOSE[0] || a.trimmed == CLOSE[1] {
                a.flags |= flag::CLOSES;
            } else if a.trimmed == KEEP_ALIVE[0] || a.trimmed == KEEP_ALIVE[1] {
                a.flags &= !flag::CLOSES;
            }
        }
        a.mode = NAME;
        a.hash = EMPTY;
        return 0;
    }
    if byte == b'\r' {
        return 0;
    }
    if a.mode == NAME {
        if byte == b':' {
            a.mode = BEFORE_VALUE;
            a.value = EMPTY;
            a.trimmed = EMPTY;
            a.number = 0;
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
    }
    if byte.is_ascii_digit() {
        a.number = a.number.wrapping_mul(10).wrapping_add((byte - b'0') as u64);
    }
    0
}

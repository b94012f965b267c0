//! HTTP: which exchanges are meant and what is done to their responses, as the kernel reads it.
//!
//! Texts are compared by [`hash`], 64 bits wide; patterns with wildcards are compared as they are.

use crate::Shared;
use crate::limit::{EXCHANGES_PER_DEVICE, HTTP_DROPPED, HTTP_FIELDS, HTTP_PATTERN, HTTP_STATUS};

/// What one hook point knows. Its index is written into `cb[0]` by the entry program.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HttpSlot {
    /// How many of `exchanges` count.
    pub count: u32,
    /// Bytes of link-layer header in front of the IP header.
    pub link_header: u32,
    /// Bits of [`slot_flag`].
    pub flags: u32,
    /// Padding, always 0.
    pub zero: u32,
    /// Indexes into the `EXCHANGES` map.
    pub exchanges: [u32; EXCHANGES_PER_DEVICE],
}

/// Bits of [`HttpSlot::flags`].
pub mod slot_flag {
    /// Some exchange is of one cgroup only.
    pub const CGROUPS: u32 = 1 << 0;
    /// Some exchange looks at headers of the request.
    pub const HEADERS: u32 = 1 << 1;
}

/// A header, as [`hash`]es of its name in lower case and of its value.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Field {
    /// [`together`] of both; 0 = no header.
    pub hash: u64,
}

/// Which exchanges, and what becomes of the response.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HttpRule {
    /// It acts while now < `deadline_ns`; 0 marks an empty entry.
    pub deadline_ns: u64,
    /// Only sockets of this cgroup; 0 = all of the namespace.
    pub cgroup: u64,
    /// Hash of the method; 0 = any.
    pub method: u64,
    /// Hash of the path, where it has no wildcards.
    pub path: u64,
    /// The response leaves so much later, nanoseconds.
    pub delay_ns: u64,
    /// Headers that the request must have.
    pub request_headers: [Field; HTTP_FIELDS],
    /// Headers that the response must have.
    pub response_headers: [Field; HTTP_FIELDS],
    /// Hashes of the names of headers that the response loses. The first [`FRAMING`] are those
    /// that frame and code a body, and go with it.
    pub dropped: [u64; HTTP_DROPPED],
    /// Depth of the cgroup.
    pub cgroup_level: u32,
    /// Port of the server.
    pub port: u32,
    /// Bits of [`rule_flag`].
    pub flags: u32,
    /// Status that the response must have; 0 = any.
    pub code: u32,
    /// Bytes of `pattern`.
    pub pattern_len: u32,
    /// Bytes of `status`; 0 = the status stays.
    pub status_len: u32,
    /// Bytes of the tail's first part, `Content-Length: N` with its line end.
    pub length_len: u32,
    /// Bytes of the tail's second part, the headers that are added and the empty line.
    pub headers_len: u32,
    /// Bytes of the tail's third part, the body.
    pub body_len: u32,
    /// Padding, always 0.
    pub zero: u32,
    /// Pattern of the path.
    pub pattern: [u8; HTTP_PATTERN],
    /// Status and reason, as in `503 Service Unavailable`.
    pub status: [u8; HTTP_STATUS],
}

/// Entries of [`HttpRule::dropped`] that go only with a body.
pub const FRAMING: usize = 4;

/// Bits of [`HttpRule::flags`].
pub mod rule_flag {
    /// Only paths of this hash.
    pub const PATH_EXACT: u32 = 1 << 0;
    /// Only paths like the pattern.
    pub const PATH_PATTERN: u32 = 1 << 1;
    /// The response is not sent and its connection closed.
    pub const ABORT: u32 = 1 << 2;
    /// The body is replaced.
    pub const BODY: u32 = 1 << 3;
    /// Decide and count, change nothing.
    pub const DRY_RUN: u32 = 1 << 4;
    /// Something of the response becomes another.
    pub const EDIT: u32 = 1 << 5;
    /// The request does not arrive, and its connection is reset.
    pub const CUT: u32 = 1 << 6;
    /// The response goes through the agent, which edits it.
    pub const DETOUR: u32 = 1 << 7;
    /// It does so because its body is merged with something: all of it has to be there.
    pub const MERGE: u32 = 1 << 8;
    /// A response with the new status has no body.
    pub const BODILESS: u32 = 1 << 9;
    /// The request goes through the agent, which edits it.
    pub const ASKS: u32 = 1 << 10;
}

/// What is kept of a request: flags, and up to four exchanges, each as its index and one in
/// twelve bits.
pub mod entry {
    /// Its response has no body.
    pub const HEAD: u64 = 1 << 0;
    /// What follows a good response is no HTTP.
    pub const CONNECT: u64 = 1 << 1;
    /// There is a request.
    pub const SOME: u64 = 1 << 2;
    /// It says that its connection ends with the response.
    pub const CLOSES: u64 = 1 << 3;
    /// Position of the first exchange.
    pub const FIRST: u32 = 16;
    /// Bits of one.
    pub const BITS: u32 = 12;
    /// One of them.
    pub const MASK: u64 = 0xfff;
}

/// `tc_index` of a packet of a delayed response, whose `tstamp` says when it may leave.
pub const LATE: u32 = 0xfa19;
/// `tc_index` of a packet with a request that is cut.
pub const CUT: u32 = 0xfa1a;

/// Why an exchange that might have been meant was let through as it is.
pub mod passed {
    /// TLS: what is said cannot be seen.
    pub const TLS: usize = 0;
    /// HTTP/2.
    pub const HTTP2: usize = 1;
    /// Not understood.
    pub const UNPARSED: usize = 2;
    /// The head is longer than what is looked at.
    pub const LONG_HEAD: usize = 3;
    /// The bytes did not arrive in order.
    pub const UNORDERED: usize = 4;
    /// The request came before its connection was there.
    pub const EARLY: usize = 5;
    /// More requests under way on one connection, or experiments for one response, than are told
    /// apart.
    pub const CROWDED: usize = 6;
    /// The kernel refused: no memory, or the socket is somebody else's.
    pub const REFUSED: usize = 7;
    /// The response was cut into chunks in a way that is not followed.
    pub const CHUNKED: usize = 8;
    /// The connection ends with the response, which leaves no time to edit it elsewhere.
    pub const CLOSING: usize = 9;
    /// The body is longer than what is merged.
    pub const LONG_BODY: usize = 10;
    /// The body is not what can be merged.
    pub const UNPATCHED: usize = 11;
    /// How many reasons there are.
    pub const REASONS: usize = 12;
    /// Their names, in order.
    pub const NAMES: [&str; REASONS] = [
        "tls",
        "http2",
        "unparsed",
        "longHead",
        "unordered",
        "early",
        "crowded",
        "refused",
        "chunked",
        "closing",
        "longBody",
        "unpatched",
    ];
}

/// Counters of one exchange on one CPU.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HttpCounters {
    /// Requests to its port.
    pub seen: u64,
    /// Requests that are meant, as far as they tell.
    pub matched: u64,
    /// Responses, or requests that are cut, that something was done to.
    pub acted: u64,
    /// What was let through, by [`passed`] reason.
    pub passed: [u64; passed::REASONS],
}

impl HttpRule {
    /// One that is not there.
    pub const NONE: Self = Self {
        deadline_ns: 0,
        cgroup: 0,
        method: 0,
        path: 0,
        delay_ns: 0,
        request_headers: [Field { hash: 0 }; HTTP_FIELDS],
        response_headers: [Field { hash: 0 }; HTTP_FIELDS],
        dropped: [0; HTTP_DROPPED],
        cgroup_level: 0,
        port: 0,
        flags: 0,
        code: 0,
        pattern_len: 0,
        status_len: 0,
        length_len: 0,
        headers_len: 0,
        body_len: 0,
        zero: 0,
        pattern: [0; HTTP_PATTERN],
        status: [0; HTTP_STATUS],
    };
}

impl HttpSlot {
    /// One that does nothing.
    pub const IDLE: Self =
        Self { count: 0, link_header: 0, flags: 0, zero: 0, exchanges: [0; EXCHANGES_PER_DEVICE] };
}

/// Where a hash begins: the offset basis of FNV-1a, 64 bits.
pub const EMPTY: u64 = 0xcbf2_9ce4_8422_2325;

/// Takes one more byte into a hash (FNV-1a).
#[inline(always)]
pub const fn step(hash: u64, byte: u8) -> u64 {
    (hash ^ byte as u64).wrapping_mul(0x0000_0100_0000_01b3)
}

/// A letter in lower case; other bytes as they are.
#[inline(always)]
pub const fn lower(byte: u8) -> u8 {
    if byte >= b'A' && byte <= b'Z' { byte | 0x20 } else { byte }
}

/// The hash of a text.
pub const fn hash(text: &[u8]) -> u64 {
    let (mut hash, mut i) = (EMPTY, 0);
    while i < text.len() {
        hash = step(hash, text[i]);
        i += 1;
    }
    hash
}

/// The hash of a header's name.
pub const fn name_hash(name: &[u8]) -> u64 {
    let (mut hash, mut i) = (EMPTY, 0);
    while i < name.len() {
        hash = step(hash, lower(name[i]));
        i += 1;
    }
    hash
}

/// One hash of a header's name and value. Never 0.
#[inline(always)]
pub const fn together(name: u64, value: u64) -> u64 {
    (name.rotate_left(31) ^ value) | 1
}

const _: () = assert!(size_of::<HttpSlot>() == 16 + 4 * EXCHANGES_PER_DEVICE);
const _: () = assert!(size_of::<Field>() == 8);
/// Bytes of a rule, without padding.
const RULE: usize =
    5 * 8 + 16 * HTTP_FIELDS + 8 * HTTP_DROPPED + 10 * 4 + HTTP_PATTERN + HTTP_STATUS;
const _: () = assert!(size_of::<HttpRule>() == RULE);
const _: () = assert!(size_of::<HttpCounters>() == 8 * (3 + passed::REASONS));

// SAFETY: `repr(C)`, integers only, sizes asserted.
unsafe impl Shared for HttpSlot {}
// SAFETY: as above.
unsafe impl Shared for HttpRule {}
// SAFETY: as above.
unsafe impl Shared for HttpCounters {}
// SAFETY: bytes.
unsafe impl Shared for [u8; crate::limit::HTTP_TAIL] {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_the_same_in_any_case_and_a_value_is_not() {
        assert_eq!(name_hash(b"Content-Length"), hash(b"content-length"));
        assert_ne!(hash(b"Close"), hash(b"close"));
        assert_ne!(together(1, 2), together(2, 1));
    }
}

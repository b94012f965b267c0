//! Where packets arrive for a server: which requests are meant.

use core::ffi::c_void;

use aya_ebpf::bindings::{__sk_buff, TC_ACT_SHOT, TC_ACT_UNSPEC, bpf_sock, bpf_sock_tuple};
use aya_ebpf::helpers::generated::{
    bpf_loop, bpf_probe_read_kernel, bpf_sk_lookup_tcp, bpf_sk_release,
};
use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use chaos_abi::http::{CUT, HttpSlot, entry, hash, passed, slot_flag};
use chaos_abi::limit::{EXCHANGES_PER_DEVICE, HTTP_PIPELINE};

use crate::ask::{self, flag};
use crate::maps::{
    ASKED, Asked, Connection, HEAD, HTTP_SLOTS_MAP, PHASE_OVER, alive, below, connection, count,
    part,
};
use crate::meant;
use crate::segment::{self, Segment};
use crate::{chunk, join, turn, upload};

/// `TCP_ESTABLISHED`, `TCP_LISTEN`.
pub const ESTABLISHED: u32 = 1;
const LISTEN: u32 = 10;
const CURRENT_NETNS: u64 = u64::MAX;
const MAKE: u64 = 1;

/// Nobody knows how long the request's body is.
const UNKNOWN: u64 = u64::MAX;
/// A tunnel, as far as anybody knows. Smaller than [`UNKNOWN`], and no length.
const TUNNEL: u64 = UNKNOWN - 1;
const NONE: u32 = u32::MAX;
/// So much of a body does not go through the agent: its bytes are counted in 31 bits.
const LONGEST: u64 = 1 << 30;

const HEAD_METHOD: u64 = hash(b"HEAD");
const CONNECT_METHOD: u64 = hash(b"CONNECT");
const TLS_HANDSHAKE: u8 = 0x16;

/// Packets that arrive through a device: they pass here, whatever is seen; some are marked. The
/// end of a connection whose request the agent has is dropped, and sent again.
#[classifier]
pub fn http_request(ctx: TcContext) -> i32 {
    match observe(ctx.skb.skb) {
        Some(Course::Held) => TC_ACT_SHOT as i32,
        _ => TC_ACT_UNSPEC,
    }
}

/// What becomes of a packet.
enum Course {
    /// It passes.
    Passes,
    /// It has to come again.
    Held,
}

#[inline(always)]
fn observe(skb: *mut __sk_buff) -> Option<Course> {
    // SAFETY: the context is valid; volatile, or the read is merged with others.
    let index = unsafe { core::ptr::read_volatile(&raw const (*skb).cb[0]) };
    let slot = HTTP_SLOTS_MAP.get(index)?;
    if slot.count == 0 {
        return None;
    }
    let segment = segment::parse(skb, slot.link_header)?;
    let now = alive()?;
    let asked = ASKED.get_ptr_mut(0)?;
    // SAFETY: the value of this CPU, and nothing else runs where packets arrive.
    let asked = unsafe { &mut *asked };
    asked.slot = index;
    meant::of_port(slot, segment.port, now, asked);
    if read(&asked.mask) == 0 || segment.len == 0 && read(&asked.asks) == 0 {
        return None;
    }
    let sk = lookup(skb, &segment);
    if sk.is_null() {
        return None;
    }
    let mut found = None;
    let mut is_held = false;
    // SAFETY: not null, and released below.
    unsafe {
        let state = (*sk).state;
        if slot.flags & slot_flag::CGROUPS != 0 {
            meant::members(skb, sk, slot, &mut asked.mask);
        }
        if state == ESTABLISHED && read(&asked.mask) != 0 {
            if segment.len == 0 {
                is_held = turn::holds_end(sk);
            } else {
                if read(&asked.asks) != 0 {
                    turn::arrives(sk, &segment, asked);
                }
                found = connection(sk.cast(), MAKE);
            }
            if let Some(c) = &mut found
                && c.part != 0
            {
                let before = below::<{ HEAD as u64 - 1 }>(c.part);
                let from = part(sk.cast(), 0).map_or(core::ptr::null(), |part| &raw const *part);
                if from.is_null()
                    || bpf_probe_read_kernel(
                        (&raw mut asked.bytes).cast(),
                        before as u32,
                        from.cast(),
                    ) != 0
                {
                    c.part = 0;
                }
            }
        }
        bpf_sk_release(sk.cast());
        if found.is_none() {
            if segment.len == 0 {
                return is_held.then_some(Course::Held);
            }
            let why = if state == LISTEN { passed::EARLY } else { passed::REFUSED };
            pass(asked.slot, &asked.mask, why);
            return None;
        }
    }
    let c = found?;
    write(&mut asked.is_cut, (now < c.cut_until) as u32);
    if now >= c.cut_until {
        let place = &raw mut c.cut_until;
        let _ = arrive(skb, &segment, slot, c, asked);
        if read(&asked.is_cut) != 0 {
            // SAFETY: the state of the socket, which is still there.
            unsafe { *place = asked.cut_until };
        }
    }
    if read(&asked.is_cut) != 0 {
        // Another program of the same chain refuses it, and answers with a reset.
        // SAFETY: the context is valid; classifiers may write the field.
        unsafe { core::ptr::write_volatile(&raw mut (*skb).tc_index, CUT) };
    }
    Some(Course::Passes)
}

/// What stands in a map: where the verifier forgets values, paths merge.
#[inline(always)]
pub fn read(place: &u32) -> u32 {
    // SAFETY: a reference.
    unsafe { core::ptr::read_volatile(place) }
}

#[inline(always)]
pub fn write(place: &mut u32, value: u32) {
    // SAFETY: a reference.
    unsafe { core::ptr::write_volatile(place, value) };
}

/// The socket that a segment is for, held for the caller; null where there is none.
#[inline(always)]
pub fn lookup(skb: *mut __sk_buff, segment: &Segment) -> *mut bpf_sock {
    let tuple = (&raw const segment.tuple).cast_mut().cast::<bpf_sock_tuple>();
    // SAFETY: the tuple has the size of its family.
    unsafe {
        if segment.tuple_len == 12 {
            bpf_sk_lookup_tcp(skb.cast(), tuple, 12, CURRENT_NETNS, 0)
        } else {
            bpf_sk_lookup_tcp(skb.cast(), tuple, 36, CURRENT_NETNS, 0)
        }
    }
}

/// Counts what passes, of the exchanges of a mask.
#[inline(always)]
pub fn pass(slot: u32, mask: &u32, why: usize) {
    http_pass(slot, read(mask), why as u32);
}

/// The same by numbers only, with external linkage: the verifier checks it once, by itself, and not
/// wherever something passes.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn http_pass(slot: u32, mask: u32, why: u32) -> u32 {
    let Some(slot) = HTTP_SLOTS_MAP.get(slot) else { return 0 };
    let mut k = 0;
    while k < EXCHANGES_PER_DEVICE {
        if mask >> k & 1 != 0 {
            count(slot.exchanges[k], |counters| {
                if let Some(counter) = counters.passed.get_mut(why as usize) {
                    *counter += 1;
                }
            });
        }
        k += 1;
    }
    0
}

#[inline(always)]
fn arrive(
    skb: *mut __sk_buff,
    segment: &Segment,
    slot: &'static HttpSlot,
    c: &'static mut Connection,
    asked: &mut Asked,
) -> Option<()> {
    if c.request_left == TUNNEL || c.id != 0 && c.phase == PHASE_OVER {
        return None;
    }
    let (mut skip, mut len) = (0, segment.len);
    let is_new = c.next == 0;
    let ahead = segment.sequence.wrapping_sub(c.next).cast_signed();
    if !is_new && ahead < 0 {
        // Sent again: what is known already is passed over.
        skip = ahead.unsigned_abs();
        if skip >= len {
            return None;
        }
        len -= skip;
    } else if !is_new && ahead > 0 {
        c.part = 0;
        c.request_left = UNKNOWN;
        pass(asked.slot, &asked.mask, passed::UNORDERED);
    }
    c.next = segment.sequence.wrapping_add(segment.len);
    let is_answered = segment.acked != c.acked;
    let was_lost = c.request_left == UNKNOWN;
    if was_lost {
        if !is_answered {
            return None;
        }
        c.request_left = 0;
        c.request_chunk = chunk::NONE;
        c.part = 0;
    }
    asked.payload = segment.payload;
    asked.size = segment.len;
    if c.request_chunk != chunk::NONE {
        upload::read(skb, asked, c, skip);
        if c.request_chunk == chunk::BAD {
            c.request_left = UNKNOWN;
            return None;
        }
        skip = asked.at;
        len = segment.len.wrapping_sub(skip);
        if len == 0 || skip > segment.len {
            return None;
        }
    } else if c.request_left != 0 {
        let body = if c.request_left < len as u64 { c.request_left as u32 } else { len };
        c.request_left -= body as u64;
        skip += body;
        len -= body;
        if len == 0 {
            return None;
        }
    }
    if c.id == 0 && is_answered && c.part == 0 {
        // Nobody counts responses yet: those that were asked for before are through.
        c.answered = c.asked;
        c.deaf = 0;
    }
    let waits = c.asked != c.answered;
    // What the server has said since a head began may be a response, or a part of one.
    let is_unclear = c.part != 0 && is_answered;
    if c.part == 0 {
        c.acked = segment.acked;
    }

    let before = below::<{ HEAD as u64 - 1 }>(c.part);
    c.part = 0;
    let most = if len > HEAD as u32 { HEAD as u32 } else { len };
    let now = below::<{ HEAD as u64 - 1 }>(most.wrapping_sub(1)) + 1;
    // SAFETY: `before` is less than a head, `now` at most one; there is room for two.
    let loaded = unsafe {
        let to = (&raw mut asked.bytes).cast::<u8>().add(before);
        segment.load(skb, skip, to, now as u32)
    };
    if !loaded {
        return None;
    }
    asked.ask.len = before as u32 + now as u32;
    asked.ask.at = 0;
    asked.is_meant = 0;
    asked.turning = 0;
    asked.is_bad = 0;
    asked.unfinished = NONE;
    asked.origin = skip.wrapping_sub(before as u32);
    asked.is_through = 0;
    let mut reading = Reading { asked, slot, connection: c, skb };
    // SAFETY: the callback has the signature that the helper calls.
    unsafe {
        bpf_loop(HTTP_PIPELINE, one_request as *mut c_void, (&raw mut reading).cast(), 0);
    }
    let Reading { asked, connection: c, .. } = reading;
    // SAFETY: what they were before.
    let (asked, c) = unsafe { (&mut *asked, &mut *c) };
    if asked.is_bad != 0 {
        c.request_left = UNKNOWN;
        if !was_lost {
            let why = if asked.bytes[0] == TLS_HANDSHAKE {
                passed::TLS
            } else if asked.ask.flags & flag::HTTP2 != 0 {
                passed::HTTP2
            } else {
                passed::UNPARSED
            };
            pass(asked.slot, &asked.mask, why);
        }
    }
    let beyond = (len - now as u32) as u64;
    if asked.is_through != 0 {
        // What is beyond has been looked at.
    } else if beyond != 0 {
        if c.request_left < beyond {
            // A head begins there, or goes on, where nobody looks.
            pass(asked.slot, &asked.mask, passed::LONG_HEAD);
            c.request_left = UNKNOWN;
        } else if c.request_left < TUNNEL {
            c.request_left -= beyond;
        }
    } else if asked.unfinished != NONE && asked.is_bad == 0 {
        keep(skb, segment, c, asked);
    }
    let is_asking = asked.unfinished != NONE && asked.is_bad == 0;
    if asked.turning != 0 && c.request_left != UNKNOWN && c.request_left >= LONGEST {
        pass(asked.slot, &asked.turning, passed::LONG_BODY);
    } else if asked.turning != 0 || is_asking && asked.asks & asked.mask != 0 {
        turn::http_divert(skb, before as u32, skip);
    }
    if asked.is_meant != 0
        && c.id == 0
        && (waits && is_unclear || !join::join(skb, segment, c, waits))
    {
        pass(asked.slot, &asked.mask, if waits { passed::CROWDED } else { passed::REFUSED });
        c.answered = c.asked;
    }
    if c.request_left == TUNNEL && c.id != 0 {
        // The response side sees whether the server agrees.
        c.request_left = UNKNOWN;
    }
    None
}

/// Keeps the part of a head that has arrived.
#[inline(always)]
fn keep(skb: *mut __sk_buff, segment: &Segment, c: &mut Connection, asked: &Asked) {
    let from = below::<{ 2 * HEAD as u64 - 1 }>(asked.unfinished);
    let len = asked.ask.len.wrapping_sub(from as u32);
    if len >= HEAD as u32 || len == 0 || from >= HEAD {
        c.request_left = UNKNOWN;
        pass(asked.slot, &asked.mask, passed::LONG_HEAD);
        return;
    }
    let sk = lookup(skb, segment);
    if sk.is_null() {
        return;
    }
    // SAFETY: not null, released below; both ends are in their maps.
    unsafe {
        if let Some(part) = part(sk.cast(), MAKE) {
            let from = (&raw const asked.bytes)
                .cast::<u8>()
                .add(below::<{ HEAD as u64 - 1 }>(from as u32));
            let len = below::<{ HEAD as u64 - 1 }>(len);
            if bpf_probe_read_kernel((&raw mut *part).cast(), len as u32, from.cast()) == 0 {
                c.part = len as u32;
            }
        }
        bpf_sk_release(sk.cast());
    }
}

/// What the callbacks work on. The verifier follows pointers on the stack.
#[repr(C)]
pub struct Reading {
    /// Where the bytes are.
    pub asked: *mut Asked,
    /// The exchanges of this device.
    pub slot: *const HttpSlot,
    connection: *mut Connection,
    skb: *mut __sk_buff,
}

unsafe extern "C" fn one_request(_: u64, reading: *mut Reading) -> i64 {
    // SAFETY: the context that `arrive` gave; the pointers are map values.
    let (asked, c) = unsafe { (&mut *(*reading).asked, &mut *(*reading).connection) };
    if asked.ask.at >= asked.ask.len {
        return 1;
    }
    let start = asked.ask.at;
    asked.ask.begin();
    ask::read(asked);
    if asked.ask.flags & flag::BAD != 0 {
        asked.is_bad = 1;
        return 1;
    }
    if asked.ask.end == 0 {
        asked.unfinished = start;
        return 1;
    }
    asked.entry = match asked.ask.method {
        HEAD_METHOD => entry::SOME | entry::HEAD,
        CONNECT_METHOD => entry::SOME | entry::CONNECT,
        _ => entry::SOME,
    };
    if asked.ask.flags & flag::CLOSES != 0 {
        asked.entry |= entry::CLOSES;
    }
    meant::look(asked, reading);
    if asked.candidates != 0 {
        asked.is_meant = 1;
    }
    let open = c.asked.wrapping_sub(c.answered);
    if open != 0 {
        c.pipelines = 1;
    }
    if open >= HTTP_PIPELINE {
        if c.deaf == 0 {
            c.deaf = 1;
            pass(asked.slot, &asked.mask, passed::CROWDED);
        }
        return 1;
    }
    let place = below::<{ HTTP_PIPELINE as u64 - 1 }>(c.asked);
    // SAFETY: the place is masked.
    unsafe { *(&raw mut c.requests).cast::<u64>().add(place) = asked.entry };
    c.asked = c.asked.wrapping_add(1);

    if asked.entry & entry::CONNECT != 0 {
        c.request_left = TUNNEL;
        return 1;
    }
    if asked.ask.flags & flag::CHUNKED != 0 {
        // SAFETY: the context that `arrive` gave.
        let skb = unsafe { (*reading).skb };
        upload::begin(c);
        upload::read(skb, asked, c, asked.origin.wrapping_add(asked.ask.at));
        if c.request_chunk == chunk::BAD {
            c.request_left = UNKNOWN;
            return 1;
        }
        asked.is_through = (asked.at >= asked.size) as u32;
        asked.ask.at = asked.at.wrapping_sub(asked.origin);
        if asked.is_through == 0 && asked.ask.at >= asked.ask.len {
            // A head begins where nobody looks.
            asked.is_through = 1;
            c.request_left = UNKNOWN;
            pass(asked.slot, &asked.mask, passed::LONG_HEAD);
        }
        // The verifier wants to see that it is one of two.
        return if read(&asked.is_through) == 0 { 0 } else { 1 };
    }
    let here = (asked.ask.len - asked.ask.at) as u64;
    if asked.ask.length > here {
        c.request_left = asked.ask.length - here;
        return 1;
    }
    asked.ask.at += asked.ask.length as u32;
    0
}

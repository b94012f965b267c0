//! A DNS query (RFC 1035 section 4.1), and whose name it asks for.

use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::helpers::generated::{bpf_get_smp_processor_id, bpf_skb_load_bytes};
use aya_ebpf::maps::lpm_trie::Key;
use chaos_abi::dns::{EVERY_NAME, LIST, NameKey, TEXT, WORDS, Wild, wild_key};
use chaos_abi::limit::WILDS_PER_LIST;
use chaos_abi::rule::{Rule, flag};
use chaos_abi::verdict::{dice, stream};

use crate::maps::{
    ANSWERS, COUNTERS, DECISION, MEMORY, NAMES, NO_NAME, QUERY, Query, RULES, WILDS,
};
use crate::skb::{self, Packet, TCP};

/// Bytes of a message's header.
pub const HEADER: u32 = 12;
/// Longest name on the wire.
const NAME: u32 = 255;
/// Bytes of an OPT record without options (RFC 6891 section 6.1.2).
pub const OPTIONS: u32 = 11;
/// The part of a query that matters: what comes behind its OPT record is no part of the answer.
const READ: u32 = HEADER + NAME + 4 + OPTIONS;
/// A header, the root's name, type and class.
const SHORTEST: u32 = HEADER + 5;
/// The only type that a query brings in its additional section and that an answer has to honour.
const OPT: u32 = 41;

/// What a packet to a name server is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Not a query: an empty segment, an answer, an update.
    Other,
    /// Perhaps a query, and not to be understood.
    Unreadable,
    /// A query for one name, which is in [`QUERY`] now.
    Query,
}

/// Where the message begins, counted from the network header.
#[inline(always)]
fn message(skb: *mut __sk_buff, packet: &Packet) -> Option<u32> {
    if packet.protocol != TCP {
        return Some(packet.transport + 8);
    }
    let offset: [u8; 1] = skb::load(skb, packet.transport + 12)?;
    Some(packet.transport + ((offset[0] >> 4) as u32) * 4)
}

/// Reads the query that a packet holds; `link` bytes lie in front of its network header.
#[inline(always)]
pub fn read(skb: *mut __sk_buff, packet: &Packet, link: u32) -> Kind {
    let Some(at) = message(skb, packet) else { return Kind::Unreadable };
    // SAFETY: the context is valid.
    let (length, segments) = unsafe { ((*skb).len, (*skb).gso_segs) };
    if length <= link + at {
        return Kind::Other;
    }
    // In TCP a message has its length in front of it (RFC 1035 section 4.2.2).
    let at = if packet.protocol == TCP { at + 2 } else { at };
    // Options and extension headers are not what a resolver sends, and an answer has none.
    let usual = if packet.family == 4 { 20 } else { 40 };
    if packet.transport != usual || segments > 1 || length < link + at + SHORTEST {
        return Kind::Unreadable;
    }
    let Some(query) = QUERY.get_ptr_mut(0) else { return Kind::Unreadable };
    // SAFETY: per-CPU memory, and programs on one CPU do not interrupt each other here.
    let query = unsafe { &mut *query };
    let there = length - link - at;
    let size = if there > READ { READ } else { there };
    if !fetch(skb, link + at, &raw mut query.raw, size) {
        return Kind::Unreadable;
    }
    let raw = &query.raw;
    if raw[2] & 0xf8 != 0 {
        // An answer, or another kind of message than a standard query.
        return Kind::Other;
    }
    // One question: what several mean together is not defined (RFC 9619).
    if raw[4] != 0 || raw[5] != 1 {
        return Kind::Unreadable;
    }
    if kfault_name(0) == 0 {
        return Kind::Unreadable;
    }
    // SAFETY: a field of a valid structure. Volatile, or the compiler knows what it is.
    let end = unsafe { core::ptr::read_volatile(&raw const query.end) };
    let behind = HEADER + end + 1;
    if end >= NAME || behind + 4 > size {
        return Kind::Unreadable;
    }
    let at = (behind & 511) as usize;
    let raw = &query.raw;
    if at + 4 + OPTIONS as usize > raw.len() {
        return Kind::Unreadable;
    }
    let pair = |at: usize| (raw[at] as u32) << 8 | raw[at + 1] as u32;
    query.kind = pair(at) << 16 | pair(at + 2);
    query.length = behind + 4;
    let no_records = raw[6] | raw[7] | raw[8] | raw[9] == 0;
    let is_opt = raw[at + 4] == 0 && pair(at + 5) == OPT;
    let options = no_records && raw[11] != 0 && is_opt && behind + 4 + OPTIONS <= size;
    query.options = options as u32;
    Kind::Query
}

/// Loads `size` bytes of a message, 1 to 512. `at` counts from the start of the packet: the helper
/// that counts from the network header sees the linear part only, where TCP's data are not.
#[inline(always)]
pub fn fetch<const N: usize>(skb: *mut __sk_buff, at: u32, to: *mut [u8; N], size: u32) -> bool {
    const { assert!(N >= 512) };
    let less = size - 1;
    // The compiler would drop the mask, and older verifiers do not learn that a size is not zero.
    // SAFETY: a variable of ours; `to` has room for 512 bytes.
    unsafe {
        let size = (core::ptr::read_volatile(&raw const less) & 511) + 1;
        bpf_skb_load_bytes(skb.cast(), at, to.cast(), size) == 0
    }
}

/// Writes the name behind the header of [`QUERY`] down as the text of its key. 0: it is none (too
/// long, compressed, with a zero byte in it).
///
/// A function of a number with external linkage: the verifier walks it once, by itself. What it
/// remembers from byte to byte is in the map, or each byte would double its ways.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn kfault_name(_: u32) -> u32 {
    let Some(query) = QUERY.get_ptr_mut(0) else { return 0 };
    // SAFETY: per-CPU memory, and programs on one CPU do not interrupt each other here. Volatile,
    // or the compiler keeps what it knows in registers.
    unsafe {
        let left_at = &raw mut (*query).left;
        let end_at = &raw mut (*query).end;
        core::ptr::write_volatile(left_at, 0);
        core::ptr::write_volatile(end_at, NO_NAME);
        let mut i = 0;
        while i < NAME as usize {
            let byte = (*query).raw[HEADER as usize + i];
            let left = core::ptr::read_volatile(left_at);
            let mut text = b'.';
            if byte == 0 {
                if left == 0 {
                    core::ptr::write_volatile(end_at, i as u32);
                }
                break;
            }
            if left == 0 {
                if byte > 63 {
                    break;
                }
                core::ptr::write_volatile(left_at, byte as u32);
            } else {
                core::ptr::write_volatile(left_at, left - 1);
                text = lower(byte);
            }
            // The first length stands where the list's number will be.
            (*query).name.bytes[LIST - 1 + i] = text;
            i += 1;
        }
        let end = core::ptr::read_volatile(end_at);
        if end >= NAME {
            return 0;
        }
        let length = if end == 0 { 0 } else { end as usize - 1 };
        if length >= TEXT {
            return 0;
        }
        (*query).name.bytes[LIST + length] = 0;
        1
    }
}

/// ASCII only, as RFC 4343 has it. No branch: the verifier would walk both ways.
#[inline(always)]
const fn lower(byte: u8) -> u8 {
    let is_upper = (byte.wrapping_sub(b'A') as u32).wrapping_sub(26) >> 31;
    byte | (is_upper as u8) << 5
}

/// Whether the rule at `index` answers the query; if so, [`QUERY`] says how. Counts what it sees.
/// See [`kfault_name`].
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn kfault_ask(index: u32) -> u32 {
    let (Some(rule), Some(answer), Some(query)) =
        (RULES.get(index), ANSWERS.get(index), QUERY.get_ptr_mut(0))
    else {
        return 0;
    };
    let (Some(counters), Some(memory), Some(decision)) =
        (COUNTERS.get_ptr_mut(index), MEMORY.get_ptr_mut(index), DECISION.get(0))
    else {
        return 0;
    };
    // SAFETY: per-CPU memory, and programs on one CPU do not interrupt each other here.
    let (counters, memory, query) = unsafe { (&mut *counters, &mut *memory, &mut *query) };
    counters.matched += 1;
    counters.matched_wire += decision.wire;
    counters.bytes += decision.bytes;
    if query.end == NO_NAME {
        counters.unreadable += 1;
        return 0;
    }
    if answer.list != EVERY_NAME && kfault_names(answer.list << 8 | answer.wilds & 0xff) == 0 {
        return 0;
    }
    counters.injected += 1;
    counters.injected_wire += decision.wire;
    counters.answered += 1;
    let ordinal = memory.ordinal;
    memory.ordinal = ordinal + 1;
    if rule.flags & flag::DRY_RUN != 0 {
        return 0;
    }
    query.answer = *answer;
    query.random = random(rule, ordinal);
    1
}

#[inline(always)]
fn random(rule: &Rule, ordinal: u64) -> [u64; 2] {
    // SAFETY: plain helper call.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    let roll = |stream| dice(rule.seed, cpu, ordinal, stream);
    [roll(stream::ADDRESS), roll(stream::ADDRESS_REST)]
}

/// Whether the name of [`QUERY`] is in a list. `which` is the list's number and, in its last byte,
/// how many patterns with `?` it has. See [`kfault_name`].
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn kfault_names(which: u32) -> u32 {
    let Some(query) = QUERY.get_ptr_mut(0) else { return 0 };
    // SAFETY: per-CPU memory, and programs on one CPU do not interrupt each other here.
    let query = unsafe { &mut *query };
    let list = which >> 8;
    query.bits = (size_of::<NameKey>() * 8) as u32;
    query.name.bytes[0] = (list >> 8) as u8;
    query.name.bytes[1] = list as u8;
    // SAFETY: the length and the data follow each other, as a key has them.
    let key = unsafe { &*(&raw const query.bits).cast::<Key<NameKey>>() };
    if NAMES.get(key).is_some() {
        return 1;
    }
    let length = if query.end == 0 { 0 } else { query.end - 1 };
    let mut number = 0;
    while number < WILDS_PER_LIST as u32 {
        if number >= which & 0xff {
            break;
        }
        // SAFETY: replaced as a whole, before any rule names it.
        if let Some(wild) = unsafe { WILDS.get(wild_key(list, number)) }
            && is_like(query, wild, length)
        {
            return 1;
        }
        number += 1;
    }
    0
}

#[inline(always)]
fn is_like(query: &Query, wild: &Wild, length: u32) -> bool {
    let words = (&raw const query.name).cast::<u64>();
    let mut apart = 0;
    let mut i = 0;
    while i < WORDS {
        // SAFETY: WORDS words, aligned, see `Query`.
        apart |= (unsafe { *words.add(i) } ^ wild.text[i]) & wild.mask[i];
        i += 1;
    }
    apart == 0 && length >= wild.least && length <= wild.most
}

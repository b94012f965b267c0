//! DNS queries: the packet becomes its answer and goes back. What is not to be answered returns to
//! the egress program and goes on with what was decided there.

use aya_ebpf::bindings::{__sk_buff, TC_ACT_UNSPEC};
use aya_ebpf::helpers::generated::{
    bpf_csum_diff, bpf_skb_change_tail, bpf_skb_load_bytes_relative, bpf_skb_store_bytes,
};
use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use chaos_abi::dns::{RANDOM_V4, RANDOM_V4_HOST, RANDOM_V6, reply};
use chaos_abi::limit::RULES_PER_SLOT;
use chaos_abi::target::Slot;

use super::tc::{lose, resume};
use crate::maps::{DECISION, Decision, FRAME, NO_NAME, PACKET, QUERY, Query};
use crate::question::{HEADER, Kind, OPTIONS, fetch, kfault_ask, read};
use crate::reply::{ETHERNET, TO_OUR_STACK, finish, pseudo, refuse, send_back, sum};
use crate::skb::{FROM_NETWORK_HEADER, Packet, TCP, UDP};
use crate::target;

/// Types and classes that have addresses: `IN A` and `IN AAAA`.
const IN_A: u32 = 1 << 16 | 1;
const IN_AAAA: u32 = 28 << 16 | 1;

/// Bytes that are summed up: more than any answer has, and what is behind it is zero.
const SUMMED: usize = 320;

/// Reached from `tc_egress`, for packets to a name server where some rule answers.
#[classifier]
pub fn tc_dns(ctx: TcContext) -> i32 {
    let context = ctx.skb.skb;
    let (Some(decision), Some(packet)) = (DECISION.get_ptr_mut(0), PACKET.get(0)) else {
        return TC_ACT_UNSPEC;
    };
    // SAFETY: per-CPU memory, and programs on one CPU do not interrupt each other here.
    let decision = unsafe { &mut *decision };
    if let Some(action) = answer(context, packet, decision) {
        return action;
    }
    resume(&ctx, decision);
    TC_ACT_UNSPEC
}

#[inline(always)]
fn answer(skb: *mut __sk_buff, packet: &Packet, decision: &Decision) -> Option<i32> {
    let (_, device) = target::slot_of(skb)?;
    let link = device.link_header;
    if link != 0 && link != ETHERNET {
        return None;
    }
    // SAFETY: per-CPU memory, and programs on one CPU do not interrupt each other here.
    let query = unsafe { &mut *QUERY.get_ptr_mut(0)? };
    match read(skb, packet, link) {
        Kind::Other => return None,
        // SAFETY: a field of a valid structure. Volatile: a function reads it.
        Kind::Unreadable => unsafe { core::ptr::write_volatile(&raw mut query.end, NO_NAME) },
        Kind::Query => {}
    }
    let mut is_ours = false;
    let mut i = 0;
    while i < RULES_PER_SLOT {
        if i as u32 >= decision.asks {
            break;
        }
        if kfault_ask(decision.ask[i]) != 0 {
            is_ours = true;
            break;
        }
        i += 1;
    }
    if !is_ours {
        return None;
    }
    if query.answer.reply == reply::TIMEOUT {
        return Some(lose());
    }
    if packet.protocol == TCP {
        return Some(refuse(skb, packet, device, TO_OUR_STACK).unwrap_or_else(lose));
    }
    if packet.protocol != UDP {
        return None;
    }
    let made = if packet.family == 4 {
        make::<28>(skb, packet, device, query)
    } else {
        make::<48>(skb, packet, device, query)
    };
    // What cannot be answered now is not what the resolver sent any more, or never was.
    Some(made.unwrap_or_else(lose))
}

/// Turns a query into its answer. `HEADERS` are the bytes of both headers, 28 or 48.
#[inline(always)]
fn make<const HEADERS: usize>(
    skb: *mut __sk_buff,
    packet: &Packet,
    device: &Slot,
    query: &mut Query,
) -> Option<i32> {
    let body = &raw mut query.body;
    let mut i = 0;
    while i < SUMMED / 8 {
        // SAFETY: inside the body. Volatile, or the compiler makes a loop over bytes of it.
        unsafe { core::ptr::write_volatile(body.cast::<u64>().add(i), 0) };
        i += 1;
    }
    // SAFETY: a field of a valid structure. Volatile, so that its bounds are those of the masks.
    let question = unsafe { core::ptr::read_volatile(&raw const query.length) };
    if !fetch(skb, device.link_header + packet.transport + 8, body, question) {
        return None;
    }
    let length = write_body(query, question);
    let total = HEADERS as u32 + length;
    // SAFETY: per-CPU memory, and programs on one CPU do not interrupt each other here.
    let head = unsafe { &mut (*FRAME.get_ptr_mut(0)?).out };
    // SAFETY: the frame has room for HEADERS bytes.
    let failed = unsafe {
        let to = head.as_mut_ptr().cast();
        bpf_skb_load_bytes_relative(skb.cast(), 0, to, HEADERS as u32, FROM_NETWORK_HEADER)
    };
    if failed != 0 {
        return None;
    }
    let body = &raw mut query.body;
    // SAFETY: SUMMED bytes lie inside the body.
    let seed = pseudo(17, (length + 8) as u16);
    let summed =
        unsafe { bpf_csum_diff(core::ptr::null_mut(), 0, body.cast(), SUMMED as u32, seed) as u32 };
    if HEADERS == 28 {
        head4(head, total as u16, summed);
    } else {
        head6(head, (length + 8) as u16, summed);
    }
    let link = device.link_header;
    // SAFETY: plain helper calls; the frame has HEADERS bytes, the body 512.
    unsafe {
        if bpf_skb_change_tail(skb, link + total, 0) != 0
            || bpf_skb_store_bytes(skb, link, head.as_ptr().cast(), HEADERS as u32, 0) != 0
        {
            return None;
        }
        let less = length - 1;
        let length = (core::ptr::read_volatile(&raw const less) & 511) + 1;
        if bpf_skb_store_bytes(skb, link + HEADERS as u32, body.cast(), length, 0) != 0 {
            return None;
        }
    }
    send_back(skb, device, TO_OUR_STACK)
}

/// Makes the answer out of header and question, which are `question` bytes. Returns its length.
#[inline(always)]
fn write_body(query: &mut Query, question: u32) -> u32 {
    let random = query.reply_is_random();
    let body = &mut query.body;
    let code = if random { 0 } else { query.answer.reply as u8 };
    let has_address = random && (query.kind == IN_A || query.kind == IN_AAAA);
    // An answer with recursion: opcode, "recursion desired" and "checking disabled" as asked.
    body[2] = 0x80 | body[2] & 0x79;
    body[3] = 0x80 | body[3] & 0x10 | code & 15;
    let counts = [0, has_address as u8, 0, 0, 0, query.options as u8];
    let mut i = 0;
    while i < counts.len() {
        body[6 + i] = counts[i];
        i += 1;
    }
    let mut at = question;
    if has_address {
        at = record(query, at);
    }
    if query.options != 0 {
        // The root, OPT, and what may be sent to us; no option.
        at = put(&mut query.body, at, [0, 0, 41, 0x04, 0xd0, 0, 0, 0, 0, 0, 0]);
    }
    at
}

/// The address as a record. Its name is the question's.
#[inline(always)]
fn record(query: &mut Query, at: u32) -> u32 {
    let ttl = query.answer.ttl.to_be_bytes();
    let [first, rest] = query.random;
    if query.kind == IN_A {
        let a = (RANDOM_V4 | (first >> 32) as u32 & RANDOM_V4_HOST).to_be_bytes();
        let [t0, t1, t2, t3] = ttl;
        return put(
            &mut query.body,
            at,
            [0xc0, HEADER as u8, 0, 1, 0, 1, t0, t1, t2, t3, 0, 4, a[0], a[1], a[2], a[3]],
        );
    }
    let [t0, t1, t2, t3] = ttl;
    let head = [0xc0, HEADER as u8, 0, 28, 0, 1, t0, t1, t2, t3, 0, 16];
    let at = put(&mut query.body, at, head);
    let at = put(&mut query.body, at, RANDOM_V6.to_be_bytes());
    let at = put(&mut query.body, at, (first as u32).to_be_bytes());
    put(&mut query.body, at, rest.to_be_bytes())
}

/// Writes bytes at a place of the body, and says where they end.
#[inline(always)]
fn put<const N: usize>(body: &mut [u8; 640], at: u32, bytes: [u8; N]) -> u32 {
    // Volatile, or the compiler drops the mask, which is what the verifier goes by.
    // SAFETY: a variable of ours; 511 and a record are less than 640.
    unsafe {
        let start = (core::ptr::read_volatile(&raw const at) & 511) as usize;
        let to = body.as_mut_ptr().add(start);
        let mut i = 0;
        while i < N {
            core::ptr::write_volatile(to.add(i), bytes[i]);
            i += 1;
        }
    }
    at + N as u32
}

impl Query {
    #[inline(always)]
    fn reply_is_random(&self) -> bool {
        self.answer.reply == reply::RANDOM
    }
}

#[inline(always)]
fn swap<const N: usize>(head: &mut [u8; 96], a: usize, b: usize) {
    let mut i = 0;
    while i < N {
        let byte = head[a + i];
        head[a + i] = head[b + i];
        head[b + i] = byte;
        i += 1;
    }
}

/// Ports the other way round, the length, and no checksum yet.
#[inline(always)]
fn udp<const AT: usize>(head: &mut [u8; 96], length: u16) {
    swap::<2>(head, AT, AT + 2);
    head[AT + 4] = (length >> 8) as u8;
    head[AT + 5] = length as u8;
    head[AT + 6] = 0;
    head[AT + 7] = 0;
}

/// A checksum that is zero means that there is none.
#[inline(always)]
fn never_zero<const AT: usize>(head: &mut [u8; 96]) {
    if head[AT] | head[AT + 1] == 0 {
        head[AT] = 0xff;
        head[AT + 1] = 0xff;
    }
}

#[inline(always)]
fn head4(head: &mut [u8; 96], total: u16, summed: u32) {
    swap::<4>(head, 12, 16);
    head[2] = (total >> 8) as u8;
    head[3] = total as u8;
    head[10] = 0;
    head[11] = 0;
    let own = sum::<0, 20>(head, 0);
    finish::<10>(head, own);
    udp::<20>(head, total - 20);
    let all = sum::<12, 8>(head, summed);
    let all = sum::<20, 8>(head, all);
    finish::<26>(head, all);
    never_zero::<26>(head);
}

#[inline(always)]
fn head6(head: &mut [u8; 96], length: u16, summed: u32) {
    swap::<16>(head, 8, 24);
    head[4] = (length >> 8) as u8;
    head[5] = length as u8;
    udp::<40>(head, length);
    let all = sum::<8, 32>(head, summed);
    let all = sum::<40, 8>(head, all);
    finish::<46>(head, all);
    never_zero::<46>(head);
}

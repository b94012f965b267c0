//! Requests that the agent edits: it gets their bytes in place of the server, and puts what becomes of
//! them where the server reads first.
//!
//! Connections to a port of such an exchange are diverted: a program sees what their sockets receive,
//! in order. It lets pass what the request side has not marked, and copies the rest for the agent. The
//! kernel counts what was taken and what was put back as read (`tcp_eat_skb`,
//! `tcp_bpf_recvmsg_parser`), which is of no importance until a socket leaves: userspace sees to that.

use aya_ebpf::bindings::{
    __sk_buff, BPF_ANY, BPF_F_INGRESS, BPF_SOCK_OPS_STATE_CB_FLAG, bpf_sock, sk_action,
};
use aya_ebpf::helpers::generated::{
    bpf_get_netns_cookie, bpf_get_socket_cookie, bpf_map_update_elem, bpf_msg_pop_data,
    bpf_msg_pull_data, bpf_msg_redirect_hash, bpf_sk_release, bpf_sock_hash_update,
    bpf_sock_ops_cb_flags_set, bpf_tcp_sock,
};
use aya_ebpf::macros::{sk_msg, sock_ops};
use aya_ebpf::programs::{SkMsgContext, SockOpsContext};
use chaos_abi::detour::{AskedPort, HAD, Reader, Stream, away, fate, place, reader as state};
use chaos_abi::http::{HttpSlot, passed};
use chaos_abi::limit::EXCHANGES_PER_DEVICE;

use crate::maps::{
    ASKED, ASKED_PORTS, Asked, DIVERTED, HTTP_SLOTS_MAP, READERS, RETURNS, STREAMS, peek, reader,
};
use crate::request::{ESTABLISHED, lookup, pass};
use crate::response::bounds;
use crate::segment::{self, Segment};

/// `BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB`, `BPF_SOCK_OPS_STATE_CB`.
const ACCEPTED: u32 = 5;
const STATE: u32 = 10;
/// `TCP_CLOSE`.
const CLOSED: u32 = 7;
const MAKE: u64 = 1;
/// Bytes in front of what the agent sends: the connection's number, and a number of bytes.
const WORDS: u32 = 16;
/// See [`Stream::early`].
pub const NOTHING: u64 = u64::MAX;
/// How often a word is tried that others write as well.
pub const TRIES: u32 = 8;

/// Connections that servers get: those to a port of ours are diverted from their first byte on.
#[sock_ops]
pub fn http_accept(ctx: SockOpsContext) -> u32 {
    // SAFETY: the context is valid; the socket is looked at only where there is one.
    unsafe {
        let ops = ctx.ops;
        let op = ctx.op();
        if op == STATE {
            if ctx.arg(1) == CLOSED {
                let number = bpf_get_socket_cookie(ops.cast());
                let _ = STREAMS.remove(&number);
            }
            return 1;
        }
        if op != ACCEPTED {
            return 1;
        }
        let port = ctx.local_port() as u64;
        let key = AskedPort { netns: bpf_get_netns_cookie(ops.cast()), port };
        if ASKED_PORTS.get(&key).is_none() {
            return 1;
        }
        let sk = (*ops).__bindgen_anon_2.sk;
        if sk.is_null() {
            return 1;
        }
        let mut number = bpf_get_socket_cookie(ops.cast());
        let next = (*ops).rcv_nxt as u64;
        let stream = Stream { next, is_first: 1, early: NOTHING, ..Stream::default() };
        if STREAMS.insert(&number, &stream, BPF_ANY as u64).is_err() {
            return 1;
        }
        bpf_sock_ops_cb_flags_set(ops, BPF_SOCK_OPS_STATE_CB_FLAG as i32);
        let map = (&raw const DIVERTED).cast_mut().cast();
        if bpf_sock_hash_update(ops, map, (&raw mut number).cast(), BPF_ANY as u64) != 0 {
            let _ = STREAMS.remove(&number);
        } else if let Some(reader) = reader(sk.cast(), MAKE) {
            (reader.number, reader.state) = (number, state::DIVERTED);
        }
    }
    1
}

/// Writes a word where it is what it was thought to be; what it was.
///
/// # Safety
/// The place is valid and aligned.
#[inline(always)]
pub unsafe fn replace(at: *mut u64, old: u64, new: u64) -> u64 {
    let mut was = old;
    // SAFETY: as promised by the caller: a map value, aligned.
    unsafe {
        core::arch::asm!(
            "r0 = cmpxchg_64({0} + 0, r0, {1})",
            in(reg) at, in(reg) new, inout("r0") was
        );
    }
    was
}

#[inline(always)]
pub unsafe fn load(at: *const u64) -> u64 {
    // SAFETY: as promised by the caller.
    unsafe { core::ptr::read_volatile(at) }
}

/// Tells of a packet that arrives while the agent may have its connection; true where it has, and gets
/// this too.
///
/// # Safety
/// The stream is a map value.
#[inline(always)]
unsafe fn follow(stream: *mut Stream, end: u32) -> bool {
    let mut i = 0;
    while i < TRIES {
        // SAFETY: as promised.
        unsafe {
            let old = load(&raw const (*stream).away);
            if old == 0 {
                return false;
            }
            let offset = end.wrapping_sub((*stream).from as u32);
            let before = (old >> away::LET_IN & away::MASK) as u32;
            if offset.wrapping_sub(before).cast_signed() <= 0 {
                return true;
            }
            let low = old & (away::IS_AWAY | away::MASK);
            let new = low | (offset as u64 & away::MASK) << away::LET_IN;
            if replace(&raw mut (*stream).away, old, new) == old {
                return true;
            }
        }
        i += 1;
    }
    true
}

/// The stream of a socket that is diverted.
///
/// # Safety
/// `sk` is a socket that the verifier knows.
#[inline(always)]
unsafe fn stream(sk: *mut bpf_sock) -> Option<*mut Stream> {
    // SAFETY: as promised.
    let reader = unsafe { reader(sk.cast(), 0) }?;
    if reader.state != state::DIVERTED {
        return None;
    }
    STREAMS.get_ptr_mut(&reader.number)
}

/// True where the end of a connection must come again, because a request before it is with the agent.
///
/// # Safety
/// See [`stream`].
#[inline(always)]
pub unsafe fn holds_end(sk: *mut bpf_sock) -> bool {
    // SAFETY: as promised.
    unsafe {
        let Some(stream) = stream(sk) else { return false };
        let is_away = load(&raw const (*stream).away) != 0;
        if is_away && (*stream).fate == fate::LIVES {
            // It may be that the rest of the request never comes.
            (*stream).fate = fate::ENDS;
        }
        is_away
    }
}

/// Tells of a packet of a connection that the agent may have.
///
/// # Safety
/// See [`stream`].
#[inline(always)]
pub unsafe fn arrives(sk: *mut bpf_sock, segment: &Segment, asked: &mut Asked) {
    // SAFETY: as promised.
    unsafe {
        let end = segment.sequence.wrapping_add(segment.len);
        if let Some(stream) = stream(sk) {
            if follow(stream, end) {
                note_early(stream, sk, end, asked);
            }
        } else if let Some(reader) = reader(sk.cast(), 0) {
            returns(sk, reader, end, &raw mut asked.address);
        }
    }
}

/// Lets one that has left be a reader again, from the next time on that its server waits.
///
/// # Safety
/// `sk` is the packet's socket.
#[inline(always)]
unsafe fn returns(sk: *mut bpf_sock, reader: &mut Reader, end: u32, scratch: *mut u64) {
    // SAFETY: as promised.
    unsafe {
        if reader.state == state::LEFT {
            let (map, number) = ((&raw const READERS).cast_mut().cast(), reader.number);
            let flags = BPF_ANY as u64;
            if bpf_map_update_elem(map, (&raw const number).cast(), sk.cast(), flags) == 0 {
                (reader.since, reader.state) = (end as u64 | state::KNOWN, state::WAITS);
            }
        } else if reader.state == state::WAITS
            && reader.since & state::KNOWN != 0
            && let Some(copied) = copied(sk, scratch)
            && copied.wrapping_sub(reader.since as u32).cast_signed() >= 0
        {
            // It has read what arrived then, and waits anew.
            reader.state = state::OPEN;
        }
    }
}

/// What has been read of a socket: the sequence number behind it.
///
/// # Safety
/// `scratch` is a word of a map.
#[inline(always)]
pub unsafe fn copied(sk: *mut bpf_sock, scratch: *mut u64) -> Option<u32> {
    let mut copied = 0u32;
    let at = (&raw mut copied).cast();
    // SAFETY: as promised; there is room for four bytes.
    unsafe { peek(sk as u64, place::COPIED, scratch, at, 4) }.then_some(copied)
}

/// Gives a connection's requests to the agent from this packet on, whose first `skip` bytes belong to
/// a request that came before, or have come before. Of its head `before` bytes came earlier.
///
/// With external linkage: the verifier checks it once, by itself, and not with all that may have been
/// read of the packet.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn http_divert(skb: *mut __sk_buff, before: u32, skip: u32) -> u32 {
    let _ = divert(skb, before, skip);
    0
}

#[inline(always)]
fn divert(skb: *mut __sk_buff, before: u32, skip: u32) -> Option<()> {
    // SAFETY: the value of this CPU, which is this packet's.
    let asked = unsafe { &mut *ASKED.get_ptr_mut(0)? };
    let slot = HTTP_SLOTS_MAP.get(asked.slot)?;
    let segment = segment::parse(skb, slot.link_header)?;
    let sk = lookup(skb, &segment);
    if sk.is_null() {
        return None;
    }
    // SAFETY: not null, and released behind it.
    let done = unsafe {
        let done = turn(sk, &segment, slot, asked, before, skip);
        bpf_sk_release(sk.cast());
        done
    };
    if let Err(why) = done {
        pass(asked.slot, &asked.turning, why);
    }
    Some(())
}

/// Turns the connection of a packet; why not, where it cannot be.
///
/// # Safety
/// `sk` is the packet's socket.
#[inline(always)]
unsafe fn turn(
    sk: *mut bpf_sock,
    segment: &Segment,
    slot: &HttpSlot,
    asked: &mut Asked,
    before: u32,
    skip: u32,
) -> Result<(), usize> {
    // SAFETY: as promised; pointers are to map values.
    unsafe {
        if (*sk).state != ESTABLISHED {
            return Err(passed::EARLY);
        }
        let Some(reader) = reader(sk.cast(), 0) else { return Err(passed::EARLY) };
        if reader.state == state::WAITS {
            reader.state = state::OPEN;
            return Err(passed::EARLY);
        }
        if reader.state == state::LEFT {
            return Err(passed::EARLY);
        }
        if reader.state == state::OPEN {
            join(sk, segment, reader, asked)?;
        }
        let Some(stream) = STREAMS.get_ptr_mut(&reader.number) else {
            return Err(passed::REFUSED);
        };
        let end = segment.sequence.wrapping_add(segment.len);
        if follow(stream, end) {
            return Ok(());
        }
        if before != 0 {
            // The server may have read what came of it before.
            return Err(passed::REFUSED);
        }
        if segment.is_last != 0 {
            return Err(passed::CLOSING);
        }
        let from = segment.sequence.wrapping_add(skip);
        if from.wrapping_sub(load(&raw const (*stream).next) as u32).cast_signed() < 0 {
            return Err(passed::UNORDERED);
        }
        (*stream).from = from as u64 | HAD;
        note_early(stream, sk, end, asked);
        let may = asked.asks & asked.mask;
        let mut k = 0;
        while k < EXCHANGES_PER_DEVICE {
            let one = if may >> k & 1 != 0 { slot.exchanges[k] as u16 + 1 } else { 0 };
            core::ptr::write_volatile(&raw mut (*stream).exchanges[k], one);
            k += 1;
        }
        let let_in = end.wrapping_sub(from) as u64 & away::MASK;
        // Nobody else writes a word that is 0.
        replace(&raw mut (*stream).away, 0, away::IS_AWAY | let_in << away::LET_IN);
    }
    Ok(())
}

/// Takes note of a packet that arrives before its connection is accepted.
///
/// # Safety
/// The stream is a map value, `sk` its socket.
#[inline(always)]
unsafe fn note_early(stream: *mut Stream, sk: *mut bpf_sock, end: u32, asked: &mut Asked) {
    let mut file = 0u64;
    // SAFETY: as promised.
    unsafe {
        let at = (&raw mut file).cast();
        if peek(sk as u64, place::SOCKET, &raw mut asked.address, at, 8) && file == 0 {
            core::ptr::write_volatile(&raw mut (*stream).early, end as u64);
        }
    }
}

/// Diverts a connection that was open before, at a packet before which everything has been read.
///
/// # Safety
/// `sk` is the packet's socket.
#[inline(always)]
unsafe fn join(
    sk: *mut bpf_sock,
    segment: &Segment,
    reader: &mut Reader,
    asked: &mut Asked,
) -> Result<(), usize> {
    // SAFETY: as promised.
    unsafe {
        let tcp = bpf_tcp_sock(sk);
        if tcp.is_null() {
            return Err(passed::REFUSED);
        }
        let expected = (*tcp).rcv_nxt;
        if expected != segment.sequence {
            return Err(passed::UNORDERED);
        }
        // What lies there unread would be seen twice.
        let Some(copied) = copied(sk, &raw mut asked.address) else {
            return Err(passed::REFUSED);
        };
        if copied != expected {
            return Err(passed::CROWDED);
        }
        asked.stream = Stream { next: expected as u64, early: NOTHING, ..Stream::default() };
        let number = reader.number;
        if STREAMS.insert(&number, &asked.stream, BPF_ANY as u64).is_err() {
            return Err(passed::REFUSED);
        }
        let map = (&raw const DIVERTED).cast_mut().cast();
        let flags = BPF_ANY as u64;
        if bpf_map_update_elem(map, (&raw const number).cast(), sk.cast(), flags) != 0 {
            let _ = STREAMS.remove(&number);
            return Err(passed::REFUSED);
        }
        reader.state = state::DIVERTED;
    }
    Ok(())
}

/// What the agent sends behind two words: the number of a connection, and either all ones, and then
/// its server reads what follows first; or a number of bytes, and then the connection is given back
/// unless more than that have been let in. Other than the former, the words pass, with whether it was
/// given back in the second one. Nothing is refused: the kernel would go on to refuse
/// (`tcp_bpf_send_verdict` keeps such a verdict).
#[sk_msg]
pub fn http_back(ctx: SkMsgContext) -> u32 {
    let msg = ctx.msg;
    let size = ctx.size();
    // SAFETY: the context is valid; accesses are compared with the message's end.
    unsafe {
        if bpf_msg_pull_data(msg, 0, WORDS, 0) != 0 {
            return sk_action::SK_PASS;
        }
        let (data, end) = bounds(msg);
        if data + WORDS as usize > end {
            return sk_action::SK_PASS;
        }
        let words = data as *mut u64;
        let mut number = core::ptr::read_volatile(words);
        let taken = core::ptr::read_volatile(words.add(1));
        if taken != u64::MAX {
            let back = STREAMS.get_ptr_mut(&number).is_none_or(|one| gives_back(one, taken));
            core::ptr::write_volatile(words.add(1), back as u64);
            return sk_action::SK_PASS;
        }
        let map = (&raw const DIVERTED).cast_mut().cast();
        let to = (&raw mut number).cast();
        if bpf_msg_redirect_hash(msg, map, to, BPF_F_INGRESS as u64) != sk_action::SK_PASS as i64 {
            // Its socket is gone. The words alone pass.
            bpf_msg_pop_data(msg, WORDS, size.wrapping_sub(WORDS), 0);
            return sk_action::SK_PASS;
        }
        bpf_msg_pop_data(msg, 0, WORDS, 0);
    }
    sk_action::SK_PASS
}

#[inline(always)]
unsafe fn gives_back(stream: *mut Stream, taken: u64) -> bool {
    // SAFETY: as promised by the caller: a map value.
    unsafe {
        let old = load(&raw const (*stream).away);
        let (let_in, got) = (old >> away::LET_IN & away::MASK, old & away::MASK);
        old == 0
            || (got == taken & away::MASK
                && let_in <= got
                && replace(&raw mut (*stream).away, old, 0) == old)
    }
}

/// Named by userspace alone.
#[used]
static _RETURNS: &aya_ebpf::maps::SockHash<u32> = &RETURNS;

//! What a server sends on a connection that has joined, before it is sent.

use core::ffi::c_void;

use aya_ebpf::bindings::{sk_action, sk_msg_md};
use aya_ebpf::helpers::generated::{
    bpf_ktime_get_ns, bpf_loop, bpf_msg_apply_bytes, bpf_msg_cork_bytes, bpf_msg_pop_data,
    bpf_msg_pull_data, bpf_msg_push_data, bpf_probe_read_kernel,
};
use aya_ebpf::macros::sk_msg;
use aya_ebpf::programs::SkMsgContext;
use chaos_abi::http::{HttpRule, entry, passed, rule_flag};
use chaos_abi::limit::{EXCHANGES, HTTP_MERGED, HTTP_PIPELINE, HTTP_TAIL};

use crate::answer::{STATUS_AT, flag};
use crate::away::{self, Course};
use crate::choice::{CODE, choose, each};
use crate::maps::{
    ANSWERED, Answered, Connection, DEPTH, EXCHANGES_MAP, HEAD, IN_USE, NO_COOKIE, PHASE_AWAY,
    PHASE_BODY, PHASE_HEAD, PHASE_OVER, PHASE_REST, TAILS, below, connection, count,
};
use crate::{body, chunk};

const PASS: u32 = sk_action::SK_PASS;
const DROP: u32 = sk_action::SK_DROP;

/// What is sent: it is let through, changed or, with its connection, refused.
#[sk_msg]
pub fn http_response(ctx: SkMsgContext) -> u32 {
    let msg = ctx.msg;
    // SAFETY: the context is valid.
    let sk = unsafe { (*msg).__bindgen_anon_3.sk };
    if sk.is_null() {
        return PASS;
    }
    // SAFETY: not null.
    let Some(c) = (unsafe { connection(sk.cast(), 0) }) else { return away::introduce() };
    let mut size = ctx.size();
    // Both stay with the message, and what is left of one that was long enough would hold up, or
    // let through unseen, what comes behind it.
    apply(msg, 0);
    cork(msg, 0);
    if c.phase == PHASE_OVER {
        return PASS;
    }
    if c.phase == PHASE_AWAY {
        // SAFETY: the context is valid and has a socket.
        match unsafe { away::follow(msg, c, size) } {
            Course::Passes | Course::Away => return PASS,
            Course::Lost => return DROP,
            Course::Home if c.phase == PHASE_OVER => return PASS,
            Course::Home => {}
        }
    }
    if c.phase == PHASE_BODY {
        let here = body::read(msg, c, size);
        if c.chunk == chunk::BAD {
            return if body::may_break(c) { PASS } else { DROP };
        }
        if body::is_over(c) {
            c.phase = PHASE_HEAD;
        }
        if c.swallow == 0 {
            if here < size {
                apply(msg, here);
            }
            return PASS;
        }
        // SAFETY: plain helper call.
        if unsafe { bpf_msg_pop_data(msg, 0, here, 0) } != 0 {
            return DROP;
        }
        if body::is_over(c) {
            body::swallowed(1);
            c.swallow = 0;
        }
        if here == size {
            return PASS;
        }
        size -= here;
    }
    if c.phase == PHASE_REST {
        if c.asked == c.since {
            return PASS;
        }
        c.phase = PHASE_HEAD;
    }
    if c.deaf != 0 || c.asked == c.answered || size == 0 {
        return PASS;
    }
    let Some(place) = enter() else { return PASS };
    let verdict = match ANSWERED.get_ptr_mut(place) {
        // SAFETY: the value of this CPU at a place that nobody else uses.
        Some(answered) => begin(msg, c, size, unsafe { &mut *answered }),
        None => PASS,
    };
    leave(place);
    verdict
}

/// The verdict is about this many bytes; what follows comes again.
#[inline(always)]
fn apply(msg: *mut sk_msg_md, bytes: u32) {
    // SAFETY: plain helper call.
    unsafe { bpf_msg_apply_bytes(msg, bytes) };
}

/// Nothing is sent before there are this many bytes.
#[inline(always)]
fn cork(msg: *mut sk_msg_md, bytes: u32) {
    // SAFETY: plain helper call.
    unsafe { bpf_msg_cork_bytes(msg, bytes) };
}

/// Takes a place of this CPU.
#[inline(always)]
fn enter() -> Option<u32> {
    let mut place = 0;
    while place < DEPTH {
        let used = IN_USE.get_ptr_mut(place)?;
        // SAFETY: a map value, aligned.
        if unsafe { exchange(used, 1) } == 0 {
            return Some(place);
        }
        place += 1;
    }
    None
}

#[inline(always)]
fn leave(place: u32) {
    if let Some(used) = IN_USE.get_ptr_mut(place) {
        // SAFETY: a map value, aligned.
        unsafe { exchange(used, 0) };
    }
}

/// Writes a word and tells what stood there, in one. The compiler has no such operation for this
/// machine.
///
/// # Safety
/// The place is valid and aligned.
#[inline(always)]
pub unsafe fn exchange(at: *mut u64, value: u64) -> u64 {
    let mut value = value;
    // SAFETY: as promised by the caller.
    unsafe { core::arch::asm!("{0} = xchg_64({1} + 0, {0})", inout(reg) value, in(reg) at) };
    value
}

/// A response begins here.
#[inline(always)]
fn begin(msg: *mut sk_msg_md, c: &mut Connection, size: u32, answered: &mut Answered) -> u32 {
    let most = if size > HEAD as u32 { HEAD as u32 } else { size };
    let looked = below::<{ HEAD as u64 - 1 }>(most - 1) + 1;
    // SAFETY: the range is inside the message, and pulled before it is read.
    unsafe {
        if bpf_msg_pull_data(msg, 0, looked as u32, 0) != 0 {
            return PASS;
        }
        let (data, end) = bounds(msg);
        if data + 1 > end
            || bpf_probe_read_kernel(
                (&raw mut answered.head).cast(),
                looked as u32,
                data as *const c_void,
            ) != 0
        {
            return PASS;
        }
    }
    let place = below::<{ HTTP_PIPELINE as u64 - 1 }>(c.answered);
    // SAFETY: the place is masked.
    let request = unsafe { *(&raw const c.requests).cast::<u64>().add(place) };

    choose(answered, request, looked as u32);
    let chosen = answered.chosen;
    let Some(rule) = EXCHANGES_MAP.get(chosen) else { return PASS };
    let a = &answered.answer;
    if a.flags & flag::BAD != 0 {
        return lost(c, chosen, passed::UNPARSED);
    }
    if a.end == 0 {
        if size >= HEAD as u32 {
            return lost(c, chosen, passed::LONG_HEAD);
        }
        let is_alone = c.asked.wrapping_sub(c.answered) == 1;
        if (chosen == EXCHANGES && is_alone) || size <= c.corked {
            // Nobody cares, or the kernel had no room to wait for more.
            c.corked = 0;
            return lost(c, chosen, passed::UNPARSED);
        }
        // The rest of the head is still to come.
        c.corked = size;
        cork(msg, size + 1);
        return PASS;
    }
    let end = a.end;
    c.corked = 0;
    if a.code < 200 && a.code != 101 {
        if end < size {
            apply(msg, end);
        }
        return PASS;
    }
    c.answered = c.answered.wrapping_add(1);
    c.since = c.asked;
    if a.code == 101 || request & entry::CONNECT != 0 && a.code < 300 {
        c.phase = PHASE_OVER;
        return PASS;
    }
    let is_empty = request & entry::HEAD != 0 || a.code == 204 || a.code == 304;
    let is_coded = !is_empty && a.flags & flag::CODED != 0;
    let is_counted = is_empty || !is_coded && a.flags & flag::LENGTH != 0;
    let length = if is_empty || is_coded { 0 } else { a.length };
    c.exchange = chosen;
    let is_followed = is_coded && a.flags & flag::CHUNKED != 0 && chunk::start(msg, c, end, size);
    if !is_counted && !is_followed {
        c.phase = PHASE_REST;
    } else if is_followed || length != 0 {
        c.phase = PHASE_BODY;
    }
    let mut acts = chosen != EXCHANGES && rule.flags & rule_flag::DRY_RUN == 0;
    if chosen != EXCHANGES {
        let is_abort = acts && rule.flags & rule_flag::ABORT != 0;
        if !is_abort && answered.edits != 0 {
            let is_closing = c.phase == PHASE_REST
                || request & entry::CLOSES != 0
                || a.flags & flag::CLOSES != 0
                || a.flags & (flag::OLD | flag::STAYS) == flag::OLD;
            answered.is_closing = is_closing as u32;
            match detour(msg, c, size, answered, request, rule, length) {
                Detour::Taken => return PASS,
                Detour::Impossible => acts = false,
                Detour::Needless => {}
            }
        }
        let replaces = rule.flags & rule_flag::BODY != 0 && rule.flags & rule_flag::ABORT == 0;
        if acts && is_coded && !is_followed && replaces {
            count(chosen, |counters| counters.passed[passed::CHUNKED] += 1);
            return PASS;
        }
        each(answered, request, |one, rule| {
            let edits = rule.flags & (rule_flag::EDIT | rule_flag::DRY_RUN) == rule_flag::EDIT;
            let is_left_out = edits && !(acts && one == chosen);
            // Why the one that is chosen is left out has been counted.
            count(one, |counters| {
                counters.acted += !is_left_out as u64;
                counters.passed[passed::CROWDED] += (is_left_out && one != chosen) as u64;
            });
        });
        if is_abort {
            return DROP;
        }
        delay(c, answered.wait);
    }
    acts &= rule.flags & rule_flag::EDIT != 0;
    let mut here = size - end;
    if is_followed {
        here = c.at - end;
    } else {
        if length < here as u64 {
            here = length as u32;
        }
        c.left = length - here as u64;
    }
    if !acts {
        return settle(msg, c, end + here, size);
    }
    let has_body = rule.flags & rule_flag::BODY != 0 && !is_empty;
    let gone = if has_body { end + here } else { end };
    if !has_body {
        // What is here of the body comes again.
        c.left = length;
        if is_followed {
            chunk::begin(c);
        }
    }
    if body::is_over(c) && c.phase == PHASE_BODY {
        c.phase = PHASE_HEAD;
    } else if has_body && c.phase == PHASE_BODY {
        c.swallow = 1;
        body::swallowed(0);
    }
    // A body without a length ends with its connection.
    if has_body && c.phase == PHASE_REST {
        c.phase = PHASE_BODY;
        c.left = u64::MAX;
        c.swallow = 1;
    }
    if rule.status_len == CODE as u32 {
        let mut i = 0;
        while i < CODE {
            answered.out[STATUS_AT as usize + i] = rule.status[i];
            i += 1;
        }
    }
    let Some(sent) = rewrite(msg, rule, chosen, answered, gone, has_body) else { return DROP };
    if size > gone {
        apply(msg, sent);
    }
    PASS
}

/// What becomes of a response that may have to go through the agent.
enum Detour {
    /// The kernel edits it.
    Needless,
    /// The agent has it.
    Taken,
    /// It stays as it is.
    Impossible,
}

/// Hands a response over, where it has to be and can be.
#[inline(always)]
fn detour(
    msg: *mut sk_msg_md,
    c: &mut Connection,
    size: u32,
    answered: &Answered,
    request: u64,
    rule: &HttpRule,
    length: u64,
) -> Detour {
    // Where a status that has no body becomes one that has, or the reverse, the head says another
    // end, and the body goes or comes.
    let is_bodiless = answered.answer.code == 204 || answered.answer.code == 304;
    let is_turned = rule.status_len != 0
        && request & entry::HEAD == 0
        && is_bodiless != (rule.flags & rule_flag::BODILESS != 0);
    let is_needed = is_turned || rule.flags & rule_flag::DETOUR != 0;
    if !is_needed && answered.edits < 2 {
        return Detour::Needless;
    }
    let mut merges = 0;
    each(answered, request, |_, rule| merges |= rule.flags & rule_flag::MERGE);
    let why = if answered.is_closing != 0 {
        passed::CLOSING
    } else if merges != 0 && length > HTTP_MERGED {
        passed::LONG_BODY
    } else {
        // SAFETY: the context is valid and has a socket.
        if c.id & NO_COOKIE == 0 && unsafe { away::hand(msg, c, size, c.answered.wrapping_sub(1)) }
        {
            delay(c, answered.wait);
            return Detour::Taken;
        }
        passed::REFUSED
    };
    if !is_needed {
        return Detour::Needless;
    }
    count(answered.chosen, |counters| counters.passed[why] += 1);
    Detour::Impossible
}

/// What is sent from now on waits where it leaves the host.
#[inline(always)]
fn delay(c: &mut Connection, wait: u64) {
    if wait == 0 {
        return;
    }
    // SAFETY: plain helper call.
    let until = unsafe { bpf_ktime_get_ns() } + wait;
    if until > c.until {
        c.until = until;
    }
}

/// Lets the message through to the end of the response.
#[inline(always)]
fn settle(msg: *mut sk_msg_md, c: &mut Connection, to: u32, size: u32) -> u32 {
    if body::is_over(c) && c.phase == PHASE_BODY {
        c.phase = PHASE_HEAD;
    }
    if to < size && c.phase != PHASE_REST {
        apply(msg, to);
    }
    PASS
}

/// Nobody knows where this response ends: all passes until the next request.
#[inline(always)]
fn lost(c: &mut Connection, exchange: u32, why: usize) -> u32 {
    c.answered = c.asked;
    c.since = c.asked;
    c.phase = PHASE_REST;
    if exchange != EXCHANGES {
        count(exchange, |counters| counters.passed[why] += 1);
    }
    PASS
}

/// Sends the head that was made, and the tail, in place of the first `gone` bytes; how many bytes
/// that are.
#[inline(always)]
fn rewrite(
    msg: *mut sk_msg_md,
    rule: &HttpRule,
    exchange: u32,
    answered: &mut Answered,
    gone: u32,
    has_body: bool,
) -> Option<u32> {
    let tail = TAILS.get_ptr(exchange)?;
    let (skip, len) = if has_body {
        (0, rule.length_len + rule.headers_len + rule.body_len)
    } else {
        (rule.length_len, rule.headers_len)
    };
    let head = below::<{ 2 * HEAD as u64 - 1 }>(answered.answer.at);
    let skip = below::<63>(skip);
    let len = below::<{ HTTP_TAIL as u64 - 1 }>(len);
    if skip + len > HTTP_TAIL {
        return None;
    }
    // SAFETY: both ends are in their maps.
    unsafe {
        let to = (&raw mut answered.out).cast::<u8>().add(head);
        let from = tail.cast::<u8>().add(skip);
        let most = HTTP_TAIL - 64;
        if len > most || bpf_probe_read_kernel(to.cast(), len as u32, from.cast()) != 0 {
            return None;
        }
    }
    let sent = head as u32 + len as u32;
    // SAFETY: plain helper calls.
    let failed = unsafe {
        let fitted = if sent > gone {
            bpf_msg_push_data(msg, 0, sent - gone, 0)
        } else if sent < gone {
            bpf_msg_pop_data(msg, 0, gone - sent, 0)
        } else {
            0
        };
        fitted != 0 || bpf_msg_pull_data(msg, 0, sent, 0) != 0
    };
    if failed {
        return None;
    }
    let mut copy = Copy { msg, from: (&raw const answered.out).cast(), len: sent };
    // SAFETY: the callback has the signature that the helper calls.
    unsafe {
        bpf_loop(4 * HEAD as u32 / BLOCK, one_block as *mut c_void, (&raw mut copy).cast(), 0);
    }
    Some(sent)
}

/// Bytes that one step copies.
const BLOCK: u32 = 64;

#[repr(C)]
struct Copy {
    msg: *mut sk_msg_md,
    from: *const u8,
    len: u32,
}

#[inline(always)]
pub fn bounds(msg: *mut sk_msg_md) -> (usize, usize) {
    // SAFETY: the context is valid.
    unsafe { ((*msg).__bindgen_anon_1.data as usize, (*msg).__bindgen_anon_2.data_end as usize) }
}

unsafe extern "C" fn one_block(i: u64, copy: *mut Copy) -> i64 {
    // SAFETY: the context that `rewrite` gave; every access is compared with the message's end.
    unsafe {
        let copy = &*copy;
        let at = below::<{ 4 * HEAD as u64 - 1 }>(i as u32 * BLOCK);
        if at as u32 >= copy.len {
            return 1;
        }
        let (data, end) = bounds(copy.msg);
        let to = data + at;
        if at as u32 + BLOCK <= copy.len && to + BLOCK as usize <= end {
            let mut k = 0;
            while k < BLOCK as usize / 8 {
                let word = core::ptr::read_volatile(copy.from.add(at).cast::<u64>().add(k));
                core::ptr::write_volatile((to as *mut u64).add(k), word);
                k += 1;
            }
            return 0;
        }
        let mut k = 0;
        while k < BLOCK as usize {
            if at as u32 + k as u32 >= copy.len || to + k + 1 > end {
                break;
            }
            let byte = core::ptr::read_volatile(copy.from.add(at + k));
            core::ptr::write_volatile((to + k) as *mut u8, byte);
            k += 1;
        }
    }
    0
}

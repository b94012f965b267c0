//! Which exchanges mean a response, and which of them it is read for.

use aya_ebpf::helpers::generated::bpf_probe_read_kernel;
use chaos_abi::http::{HttpRule, entry, rule_flag};
use chaos_abi::limit::{EXCHANGES, HTTP_CANDIDATES, HTTP_STATUS};

use crate::answer::{self, STATUS_AT, flag};
use crate::maps::{Answered, EXCHANGES_MAP, alive, below};

/// Digits of a status.
pub const CODE: usize = 3;

/// Finds the exchanges that mean a response, and reads it for the one that changes it: what aborts
/// comes first, then the first one that changes bytes.
#[inline(always)]
pub fn choose(answered: &mut Answered, request: u64, looked: u32) {
    answered.chosen = EXCHANGES;
    answered.meant = 0;
    answered.edits = 0;
    answered.wait = 0;
    let is_alive = alive();
    let mut read = EXCHANGES;
    let mut k = 0;
    while k < HTTP_CANDIDATES {
        let one = request >> (entry::FIRST + entry::BITS * k) & entry::MASK;
        if one == 0 {
            break;
        }
        k += 1;
        let index = one as u32 - 1;
        let Some(rule) = EXCHANGES_MAP.get(index) else { continue };
        let Some(now) = is_alive else { break };
        if now >= rule.deadline_ns {
            continue;
        }
        prepare(rule, answered, request, looked);
        answer::read(answered, rule);
        read = index;
        let a = &answered.answer;
        if a.end == 0 || a.flags & flag::BAD != 0 || a.code < 200 {
            answered.chosen = index;
            return;
        }
        if (rule.code != 0 && rule.code != a.code) || a.hits != wanted(rule) {
            continue;
        }
        answered.meant |= 1 << (k - 1);
        let does = rule.flags & rule_flag::DRY_RUN == 0;
        if does && rule.flags & rule_flag::ABORT != 0 {
            answered.chosen = index;
            answered.meant = 1 << (k - 1);
            answered.wait = 0;
            break;
        }
        if does {
            answered.wait += rule.delay_ns;
        }
        let edits = does && rule.flags & rule_flag::EDIT != 0;
        if answered.chosen == EXCHANGES || (edits && answered.edits == 0) {
            answered.chosen = index;
        }
        answered.edits += edits as u32;
    }
    let chosen = answered.chosen;
    if chosen != read || chosen == EXCHANGES {
        let Some(rule) = EXCHANGES_MAP.get(chosen) else { return };
        prepare(rule, answered, request, looked);
        answer::read(answered, rule);
    }
}

/// Calls for each exchange that means the response.
#[inline(always)]
pub fn each(answered: &Answered, request: u64, mut what: impl FnMut(u32, &HttpRule)) {
    let mut k = 0;
    while k < HTTP_CANDIDATES {
        let one = (request >> (entry::FIRST + entry::BITS * k) & entry::MASK) as u32;
        if answered.meant >> k & 1 != 0
            && let Some(rule) = EXCHANGES_MAP.get(one.wrapping_sub(1))
        {
            what(one.wrapping_sub(1), rule);
        }
        k += 1;
    }
}

/// Which headers of the rule a response must have, one bit each.
#[inline(always)]
fn wanted(rule: &HttpRule) -> u32 {
    let mut wanted = 0;
    let mut i = 0;
    while i < rule.response_headers.len() {
        wanted |= ((rule.response_headers[i].hash != 0) as u32) << i;
        i += 1;
    }
    wanted
}

/// Puts the status down and says what shall be kept.
#[inline(always)]
fn prepare(rule: &HttpRule, answered: &mut Answered, request: u64, len: u32) {
    answered.answer.begin(len);
    let replaces = rule.flags & rule_flag::BODY != 0 && request & entry::HEAD == 0;
    answered.answer.keeps_framing = !replaces as u32;
    let status = below::<{ HTTP_STATUS as u64 - 1 }>(rule.status_len);
    // The code alone: the reason stays.
    if status <= CODE {
        return;
    }
    let mut i = 0;
    while i < STATUS_AT as usize {
        answered.out[i] = answered.head[i];
        i += 1;
    }
    // SAFETY: both ends are in their maps.
    unsafe {
        let to = (&raw mut answered.out).cast::<u8>().add(STATUS_AT as usize);
        if bpf_probe_read_kernel(to.cast(), status as u32, (&raw const rule.status).cast()) == 0 {
            *to.add(status) = b'\r';
            *to.add(status + 1) = b'\n';
            answered.answer.keeps_status = 0;
            answered.answer.at = STATUS_AT + status as u32 + 2;
        }
    }
}

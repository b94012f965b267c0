//! Which exchanges mean a request, as far as it tells.

use core::ffi::c_void;

use aya_ebpf::bindings::{__sk_buff, bpf_sock};
use aya_ebpf::helpers::generated::{bpf_loop, bpf_sk_assign, bpf_skb_ancestor_cgroup_id};
use chaos_abi::http::{HttpRule, HttpSlot, entry, passed, rule_flag};
use chaos_abi::limit::{EXCHANGES_PER_DEVICE, HTTP_CANDIDATES, HTTP_FIELDS};

use crate::maps::{Asked, EXCHANGES_MAP, SEEN, below, count};
use crate::request::{Reading, read, write};
use crate::wild;

/// Exchanges on this port that act now.
#[inline(always)]
pub fn of_port(slot: &HttpSlot, port: u32, now: u64, asked: &mut Asked) {
    let Asked { mask, asks, .. } = asked;
    write(mask, 0);
    write(asks, 0);
    let mut k = 0;
    while k < EXCHANGES_PER_DEVICE {
        if k as u32 >= slot.count {
            break;
        }
        if let Some(rule) = EXCHANGES_MAP.get(slot.exchanges[k])
            && rule.port == port
            && now < rule.deadline_ns
        {
            write(mask, read(mask) | 1 << k);
            if rule.flags & rule_flag::ASKS != 0 {
                write(asks, read(asks) | 1 << k);
            }
        }
        k += 1;
    }
}

/// Leaves of these exchanges those that the socket's cgroup belongs to.
///
/// # Safety
/// `sk` is the packet's socket, held by the caller.
#[inline(always)]
pub unsafe fn members(skb: *mut __sk_buff, sk: *mut bpf_sock, slot: &HttpSlot, mask: &mut u32) {
    // SAFETY: as promised. A packet that has its socket tells its cgroups;
    // the stack would look the same socket up.
    let assigned = unsafe { bpf_sk_assign(skb.cast(), sk.cast(), 0) == 0 };
    let mut k = 0;
    while k < EXCHANGES_PER_DEVICE {
        if let Some(rule) = EXCHANGES_MAP.get(slot.exchanges[k])
            && rule.cgroup != 0
        {
            // SAFETY: plain helper call.
            let own = unsafe { bpf_skb_ancestor_cgroup_id(skb, rule.cgroup_level as i32) };
            if !assigned || own != rule.cgroup {
                write(mask, read(mask) & !(1 << k));
            }
        }
        k += 1;
    }
}

/// Asks every exchange of the device about the request that has been read.
#[inline(always)]
pub fn look(asked: &mut Asked, reading: *mut Reading) {
    asked.candidates = 0;
    // SAFETY: the callback has the signature that the helper calls.
    unsafe {
        bpf_loop(EXCHANGES_PER_DEVICE as u32, one_rule as *mut c_void, reading.cast(), 0);
    }
}

unsafe extern "C" fn one_rule(k: u64, reading: *mut Reading) -> i64 {
    // SAFETY: the context that `arrive` gave; the pointers are map values, the index masked.
    let (asked, index) = unsafe {
        let slot = (*reading).slot;
        let at = below::<{ EXCHANGES_PER_DEVICE as u64 - 1 }>(k as u32);
        (&mut *(*reading).asked, *(&raw const (*slot).exchanges).cast::<u32>().add(at))
    };
    if asked.mask >> (k as u32 & 31) & 1 == 0 {
        return 0;
    }
    let Some(rule) = EXCHANGES_MAP.get(index) else { return 0 };
    count(index, |counters| counters.seen += 1);
    match is_meant(rule, asked) {
        Some(true) => {}
        Some(false) => return 0,
        None => {
            count(index, |counters| counters.passed[passed::UNPARSED] += 1);
            return 0;
        }
    }
    if rule.flags & rule_flag::CUT != 0 {
        count(index, |counters| {
            counters.matched += 1;
            counters.acted += 1;
        });
        if rule.flags & rule_flag::DRY_RUN == 0 {
            asked.is_cut = 1;
            asked.cut_until = rule.deadline_ns;
        }
        return 0;
    }
    if rule.flags & rule_flag::ASKS != 0 {
        count(index, |counters| counters.matched += 1);
        asked.turning |= 1 << (k as u32 & 31);
        return 0;
    }
    if asked.candidates >= HTTP_CANDIDATES {
        count(index, |counters| counters.passed[passed::CROWDED] += 1);
        return 0;
    }
    count(index, |counters| counters.matched += 1);
    let shift = entry::FIRST + entry::BITS * (asked.candidates & 3);
    asked.entry |= (index as u64 + 1 & entry::MASK) << shift;
    asked.candidates += 1;
    0
}

#[inline(always)]
fn is_meant(rule: &'static HttpRule, asked: &mut Asked) -> Option<bool> {
    if rule.method != 0 && rule.method != asked.ask.method {
        return Some(false);
    }
    if rule.flags & rule_flag::PATH_EXACT != 0 && rule.path != asked.ask.path {
        return Some(false);
    }
    if rule.flags & rule_flag::PATH_PATTERN != 0 {
        let (at, len) = (asked.ask.path_at, asked.ask.path_len);
        if !wild::is_like(rule, asked, at, len)? {
            return Some(false);
        }
    }
    let mut wanted = 0u32;
    let mut i = 0;
    while i < HTTP_FIELDS {
        wanted |= ((rule.request_headers[i].hash != 0) as u32) << i;
        i += 1;
    }
    if wanted == 0 {
        return Some(true);
    }
    if asked.ask.seen > SEEN as u32 {
        return None;
    }
    asked.hits = 0;
    let mut looking = Looking { asked, rule };
    // SAFETY: the callback has the signature that the helper calls.
    unsafe { bpf_loop(SEEN as u32, one_header as *mut c_void, (&raw mut looking).cast(), 0) };
    // SAFETY: what it was before.
    let hits = unsafe { (*looking.asked).hits };
    Some(hits == wanted)
}

#[repr(C)]
struct Looking {
    asked: *mut Asked,
    rule: *const HttpRule,
}

unsafe extern "C" fn one_header(i: u64, looking: *mut Looking) -> i64 {
    // SAFETY: the context that `is_meant` gave; the pointers are map values, the index masked.
    unsafe {
        let asked = &mut *(*looking).asked;
        if i >= asked.ask.seen as u64 {
            return 1;
        }
        let seen =
            *(&raw const asked.seen).cast::<u64>().add(below::<{ SEEN as u64 - 1 }>(i as u32));
        let mut k = 0;
        while k < HTTP_FIELDS {
            if (*(*looking).rule).request_headers[k].hash == seen {
                asked.hits |= 1 << k;
            }
            k += 1;
        }
    }
    0
}

//! What a rule does to a packet that it matched. Decisions only: nothing here touches the
//! packet. The order is partition → loss → corrupt → duplicate → rate → delay and reorder.
//! Rules that answer DNS queries are noted down here and looked at last: a query that is lost has
//! no answer, and one that has an answer does not leave.

use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::helpers::generated::{bpf_get_smp_processor_id, bpf_ktime_get_ns};
use chaos_abi::counter::{Clocks, Counters, Memory, last};
use chaos_abi::dns;
use chaos_abi::http::{CUT, LATE};
use chaos_abi::limit::{COPIES, DELAY_NS, RULES_PER_SLOT};
use chaos_abi::rule::{ALWAYS, Chance, Rule, flag};
use chaos_abi::target::Slot;
use chaos_abi::verdict::{decide, dice, stream, uniform};

use crate::maps::{
    CLOCKS, COUNTERS, DECISION, Decision, FATE_GONE, FATE_LOST, FATE_PASS, FATE_REJECT, FLIP,
    HEARTBEAT, MEMORY, PACKET, RULES,
};
use crate::skb::Packet;
use crate::target;

/// A departure stamp of the sender that lies further ahead than this is on another clock.
const SANE_STAMP_NS: u64 = 10_000_000_000;

/// Runs every rule of the slot; `None` when none of them applies to this packet.
#[inline(always)]
pub fn decide_all(
    skb: *mut __sk_buff,
    slot: &'static Slot,
    packet: &Packet,
    bytes: u64,
) -> Option<&'static mut Decision> {
    // SAFETY: per-CPU memory, and programs on one CPU do not interrupt each other here.
    let decision = unsafe { &mut *DECISION.get_ptr_mut(0)? };
    // SAFETY: as above.
    unsafe { *PACKET.get_ptr_mut(0)? = *packet };
    // SAFETY: the context is valid.
    let (segments, stamp) =
        unsafe { ((*skb).gso_segs as u64, core::ptr::read_volatile(&raw const (*skb).tstamp)) };
    decision.now = 0;
    decision.own_stamp = stamp;
    decision.bytes = bytes;
    decision.wire = if segments > 1 { segments } else { 1 };
    // SAFETY: the context is valid.
    decision.mark = unsafe { (*skb).tc_index };
    let mut i = 0;
    while i < RULES_PER_SLOT {
        if i as u32 >= slot.rule_count || kfault_rule(slot.rules[i]) != FATE_PASS {
            break;
        }
        i += 1;
    }
    if decision.now == 0 { None } else { Some(decision) }
}

/// Matches the rule at `index` against the current packet and applies it. Returns the fate.
///
/// A function of a number only, with external linkage: the verifier checks it once, by itself
/// (global functions, since Linux 5.6), and not once for every rule of a slot.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn kfault_rule(index: u32) -> u32 {
    let (Some(rule), Some(packet), Some(decision)) =
        (RULES.get(index), PACKET.get(0), DECISION.get_ptr_mut(0))
    else {
        return FATE_PASS;
    };
    // SAFETY: per-CPU memory, and programs on one CPU do not interrupt each other here.
    let decision = unsafe { &mut *decision };
    if rule.flags & flag::MARKED != 0 {
        let mark = if rule.flags & flag::PARTITION != 0 { CUT } else { LATE };
        if decision.mark != mark {
            return FATE_PASS;
        }
    }
    let answers = rule.flags & flag::ANSWER != 0;
    if answers && packet.port != dns::PORT || !target::admits(packet, rule.peers) {
        return FATE_PASS;
    }
    if decision.now == 0 && !begin(decision) {
        return FATE_GONE;
    }
    if decision.now >= rule.deadline_ns {
        return FATE_PASS;
    }
    if answers {
        let asks = decision.asks as usize;
        if asks < RULES_PER_SLOT {
            decision.ask[asks] = index;
            decision.asks += 1;
        }
        return FATE_PASS;
    }
    apply(rule, index, decision)
}

/// Reads the clock once per packet; false when the engine is gone.
#[inline(always)]
fn begin(decision: &mut Decision) -> bool {
    let Some(alive_until) = HEARTBEAT.get(0) else { return false };
    // SAFETY: plain helper call.
    let now = unsafe { bpf_ktime_get_ns() };
    if now >= *alive_until {
        return false;
    }
    // TCP's own pacing survives: its stamp is the earliest time.
    let own = decision.own_stamp;
    decision.now = now;
    let sane = if decision.mark == LATE { DELAY_NS } else { SANE_STAMP_NS };
    decision.departure = if own > now && own - now <= sane { own } else { now };
    let fields = [
        (&raw mut decision.spread, 0),
        (&raw mut decision.copies, 0),
        (&raw mut decision.held, 0),
        (&raw mut decision.fate, FATE_PASS),
        (&raw mut decision.armed, 0),
        (&raw mut decision.flip, 0),
        (&raw mut decision.asks, 0),
    ];
    let mut i = 0;
    while i < fields.len() {
        // SAFETY: fields of a valid structure. Volatile, or the compiler makes one fill of them,
        // which on this machine is a loop over bytes.
        unsafe { core::ptr::write_volatile(fields[i].0, fields[i].1) };
        i += 1;
    }
    true
}

struct Roll<'a> {
    memory: &'a mut Memory,
    seed: u64,
    cpu: u32,
    ordinal: u64,
}

impl Roll<'_> {
    #[inline(always)]
    fn dice(&self, stream: u64) -> u64 {
        dice(self.seed, self.cpu, self.ordinal, stream)
    }

    /// A decision of a block, remembered for the next packet.
    #[inline(always)]
    fn decide(&mut self, chance: Chance, stream: u64, bit: u32) -> bool {
        if chance.share == 0 {
            return false;
        }
        let seen = bit << last::SEEN_SHIFT;
        let before =
            if self.memory.last & seen != 0 { Some(self.memory.last & bit != 0) } else { None };
        let now = decide(chance, self.dice(stream), before);
        self.memory.last = (self.memory.last & !bit) | seen | if now { bit } else { 0 };
        now
    }
}

#[inline(always)]
fn apply(rule: &Rule, index: u32, decision: &mut Decision) -> u32 {
    let (Some(counters), Some(memory), Some(clocks)) =
        (COUNTERS.get_ptr_mut(index), MEMORY.get_ptr_mut(index), CLOCKS.get_ptr_mut(index))
    else {
        return FATE_PASS;
    };
    // SAFETY: per-CPU memory for the first two; the clocks are shared and their races are
    // bounded by one packet time (see `Clocks`).
    let (counters, memory, clocks) = unsafe { (&mut *counters, &mut *memory, &mut *clocks) };
    let (bytes, wire) = (decision.bytes, decision.wire);
    let dry = rule.flags & flag::DRY_RUN != 0;
    counters.matched += 1;
    counters.matched_wire += wire;
    counters.bytes += bytes;
    // SAFETY: plain helper call.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    let ordinal = memory.ordinal;
    memory.ordinal = ordinal + 1;
    let mut roll = Roll { memory, seed: rule.seed, cpu, ordinal };

    let mut fate = FATE_PASS;
    let mut injected = false;
    if rule.flags & flag::PARTITION != 0 {
        counters.refused += 1;
        fate = if rule.flags & flag::REJECT != 0 { FATE_REJECT } else { FATE_LOST };
    } else if roll.decide(rule.loss, stream::LOSS, last::LOST) {
        counters.lost += 1;
        fate = FATE_LOST;
    } else {
        if roll.decide(rule.corrupt, stream::CORRUPT, last::CORRUPTED) {
            counters.corrupted += 1;
            injected = true;
            if rule.flags & flag::CORRUPT_PAYLOAD == 0 {
                fate = FATE_LOST;
            } else if !dry {
                decision.flip = (roll.dice(stream::CORRUPT_BIT) >> 33) as u32 | FLIP;
            }
        }
        if fate == FATE_PASS {
            if roll.decide(rule.duplicate, stream::DUPLICATE, last::DUPLICATED) {
                counters.duplicated += 1;
                injected = true;
                if !dry && decision.copies < COPIES {
                    decision.copies += 1;
                }
            }
            if time(rule, &mut roll, counters, clocks, decision, bytes, dry) {
                injected = true;
            } else if decision.fate == FATE_LOST {
                fate = FATE_LOST;
            }
        }
    }
    if fate != FATE_PASS {
        injected = true;
    }
    if injected {
        counters.injected += 1;
        counters.injected_wire += wire;
    }
    decision.fate = if dry { FATE_PASS } else { fate };
    decision.fate
}

/// Rate, bandwidth, delay and reorder: when the packet leaves. True when it was touched; a full
/// queue sets the fate.
#[inline(always)]
fn time(
    rule: &Rule,
    roll: &mut Roll,
    counters: &mut Counters,
    clocks: &mut Clocks,
    decision: &mut Decision,
    bytes: u64,
    dry: bool,
) -> bool {
    let start = decision.departure;
    let mut leave = start;
    let mut touched = false;
    if rule.flags & flag::MARKED != 0 {
        counters.delayed += 1;
        touched = true;
        if !dry {
            decision.held = 1;
        }
    }
    if rule.rate != 0 {
        // As netem: a packet leaves when its last byte has been serialised.
        let begin = if clocks.rate_free_ns > leave { clocks.rate_free_ns } else { leave };
        if begin - leave > rule.queue_ns {
            return overlimit(counters, decision);
        }
        leave = begin + bytes * 1_000_000_000 / rule.rate;
        clocks.rate_free_ns = leave;
    }
    if rule.token_rate != 0 {
        let cost = bytes * 1_000_000_000 / rule.token_rate;
        let over = beyond(cost, rule.burst_ns);
        let mut at = conforming(clocks.token_ns, leave, cost, rule.burst_ns);
        let (mut peak_cost, mut peak_over) = (0, 0);
        if rule.peak_rate != 0 {
            peak_cost = bytes * 1_000_000_000 / rule.peak_rate;
            peak_over = beyond(peak_cost, rule.peak_burst_ns);
            let peak = conforming(clocks.peak_ns, leave, peak_cost, rule.peak_burst_ns);
            at = if peak > at { peak } else { at };
        }
        if at - over > leave + rule.queue_ns {
            return overlimit(counters, decision);
        }
        clocks.token_ns = charged(clocks.token_ns, at - over, cost);
        clocks.peak_ns = charged(clocks.peak_ns, at - peak_over, peak_cost);
        leave = at;
    }
    if leave > start {
        counters.shaped += 1;
        touched = true;
    }
    if rule.delay_ns != 0 || rule.jitter_ns != 0 {
        let candidate = rule.gap != 0 && roll.memory.since_reorder >= rule.gap - 1;
        if candidate && roll.decide(rule.reorder, stream::REORDER, last::REORDERED) {
            roll.memory.since_reorder = 0;
            counters.reordered += 1;
            decision.spread = spread(roll);
        } else {
            roll.memory.since_reorder = roll.memory.since_reorder.wrapping_add(1);
            counters.delayed += 1;
            leave += latency(rule, roll);
            if rule.jitter_ns != 0 {
                decision.spread = spread(roll);
            }
        }
        touched = true;
    }
    if !dry {
        decision.departure = leave;
        if rule.rate | rule.token_rate | rule.delay_ns | rule.jitter_ns != 0 {
            decision.held = 1;
        }
    }
    touched
}

/// A packet that may overtake others must not share a queue with them: fq wakes a throttled
/// flow at the time of the packet that throttled it.
#[inline(always)]
fn spread(roll: &Roll) -> u32 {
    (roll.dice(stream::JITTER) >> 20) as u32 | 1
}

/// Earliest time at which a bucket of depth `burst` admits a packet of `cost` (both in time
/// units); the generic cell rate algorithm in its virtual scheduling form (ITU-T I.371). One that
/// is larger than the bucket, as segmentation offload makes them, leaves when its last byte may.
#[inline(always)]
fn conforming(theoretical: u64, at: u64, cost: u64, burst: u64) -> u64 {
    let due = cost + if theoretical > at { theoretical } else { at };
    if due > at + burst { due - burst } else { at }
}

/// What does not fit the bucket: the packet waits for it, and the bucket must not be charged for
/// that wait again.
#[inline(always)]
fn beyond(cost: u64, burst: u64) -> u64 {
    if cost > burst { cost - burst } else { 0 }
}

/// The bucket's next theoretical time after a packet that began to leave at `start`.
#[inline(always)]
fn charged(theoretical: u64, start: u64, cost: u64) -> u64 {
    cost + if theoretical > start { theoretical } else { start }
}

#[inline(always)]
fn overlimit(counters: &mut Counters, decision: &mut Decision) -> bool {
    counters.overlimit += 1;
    decision.fate = FATE_LOST;
    false
}

#[inline(always)]
fn latency(rule: &Rule, roll: &mut Roll) -> u64 {
    if rule.jitter_ns == 0 {
        return rule.delay_ns;
    }
    let dice = roll.dice(stream::JITTER);
    let again = roll.memory.last & last::JITTERED != 0
        && (rule.jitter_correlation == ALWAYS || (dice as u32) < rule.jitter_correlation);
    let jitter = if again {
        roll.memory.jitter as i64
    } else {
        let fresh = uniform(rule.jitter_ns, dice);
        roll.memory.jitter = fresh as u64;
        roll.memory.last |= last::JITTERED;
        fresh
    };
    let total = rule.delay_ns as i64 + jitter;
    if total > 0 { total as u64 } else { 0 }
}

//! Plan values → ABI values. Pure.

use chaos_abi::dns::{Answer, reply};
use chaos_abi::limit::FEW;
use chaos_abi::peer::{ANY_PORT, Few, Set};
use chaos_abi::rule::{ALWAYS, Chance, Rule, flag};

use crate::plan::peers::{PeerTable, Ports};
use crate::plan::{self, CorruptMode, Partition, RATE_QUEUE_NS, Reply, bandwidth_queue_ns};

/// A share of 0 to 1 in units of 2^-32; exactly 1 is [`ALWAYS`].
#[must_use]
pub fn share(value: f64) -> u32 {
    if value >= 1.0 {
        return ALWAYS;
    }
    // `as` saturates, and below 1 the result is at most ALWAYS - 0: step back from it.
    ((value.max(0.0) * 4_294_967_296.0).round() as u32).min(ALWAYS - 1)
}

fn chance(chance: &plan::Chance) -> Chance {
    Chance { share: share(chance.share), correlation: share(chance.correlation) }
}

/// Nanoseconds that `bytes` take at `rate` bytes per second.
fn fill_ns(bytes: u32, rate: u64) -> u64 {
    u64::from(bytes) * 1_000_000_000 / rate.max(1)
}

/// A plan's rule as the kernel reads it, acting until `deadline_ns` on peer set `peers`.
#[must_use]
pub fn rule(rule: &plan::Rule, peers: u32, deadline_ns: u64) -> Rule {
    let plan::Effects {
        partition,
        loss,
        corrupt,
        duplicate,
        rate,
        bandwidth,
        delay,
        answer,
        marked,
    } = &rule.effects;
    let mut wire = Rule { deadline_ns, seed: rule.seed, peers, ..Rule::default() };
    if let Some(partition) = partition {
        wire.flags |= flag::PARTITION;
        if *partition == Partition::Reject {
            wire.flags |= flag::REJECT;
        }
    }
    if let Some(loss) = loss {
        wire.loss = chance(loss);
    }
    if let Some(corrupt) = corrupt {
        wire.corrupt = chance(&corrupt.chance);
        if corrupt.mode == CorruptMode::Payload {
            wire.flags |= flag::CORRUPT_PAYLOAD;
        }
    }
    if let Some(duplicate) = duplicate {
        wire.duplicate = chance(duplicate);
    }
    if let Some(rate) = rate {
        wire.rate = *rate;
        wire.queue_ns = RATE_QUEUE_NS;
    }
    if let Some(bandwidth) = bandwidth {
        wire.token_rate = bandwidth.rate;
        wire.burst_ns = fill_ns(bandwidth.buffer, bandwidth.rate);
        wire.queue_ns = wire.queue_ns.max(bandwidth_queue_ns(bandwidth));
        // As tc: a peak rate without its bucket says nothing.
        if let (Some(peak), Some(minburst)) = (bandwidth.peakrate, bandwidth.minburst)
            && peak > 0
        {
            wire.peak_rate = peak;
            wire.peak_burst_ns = fill_ns(minburst, peak);
        }
    }
    if let Some(delay) = delay {
        wire.delay_ns = delay.latency_ns;
        wire.jitter_ns = delay.jitter_ns;
        wire.jitter_correlation = share(delay.correlation);
        if let Some(reorder) = &delay.reorder {
            wire.reorder = chance(&reorder.chance);
            wire.gap = reorder.gap.max(1);
        }
    }
    if answer.is_some() {
        wire.flags |= flag::ANSWER;
    }
    match marked {
        Some(plan::Marked::Late(_)) => wire.flags |= flag::MARKED,
        Some(plan::Marked::Cut) => wire.flags |= flag::MARKED | flag::PARTITION | flag::REJECT,
        None => {}
    }
    if rule.dry_run {
        wire.flags |= flag::DRY_RUN;
    }
    wire
}

/// How a rule answers, with the names of list `list`, which has `wilds` patterns with `?`.
#[must_use]
pub fn answer(answer: &plan::Answer, list: u32, wilds: usize) -> Answer {
    let reply = match answer.reply {
        Reply::Servfail => reply::SERVFAIL,
        Reply::Nxdomain => reply::NXDOMAIN,
        Reply::Refused => reply::REFUSED,
        Reply::Timeout => reply::TIMEOUT,
        Reply::Random => reply::RANDOM,
    };
    Answer { list, wilds: u32::try_from(wilds).unwrap_or(0), reply, ttl: answer.ttl }
}

/// A peer table as a small set, or `None` where it does not fit one.
#[must_use]
pub fn few(table: &PeerTable) -> Option<Set> {
    let v4 = table.v4.iter().map(|(net, ports)| {
        let word = |ip: std::net::Ipv4Addr| [u32::from_ne_bytes(ip.octets()), 0, 0, 0];
        (Few { family: 4, port: 0, address: word(net.network()), mask: word(net.netmask()) }, ports)
    });
    let v6 = table.v6.iter().map(|(net, ports)| {
        let words = |ip: std::net::Ipv6Addr| {
            let o = ip.octets();
            [0, 4, 8, 12].map(|at| u32::from_ne_bytes([o[at], o[at + 1], o[at + 2], o[at + 3]]))
        };
        let (address, mask) = (words(net.network()), words(net.netmask()));
        (Few { family: 6, port: 0, address, mask }, ports)
    });
    let mut set = Set { count: 0, few: [Few::default(); FEW] };
    for (prefix, ports) in v4.chain(v6) {
        let Ports { any, ports } = ports;
        let any = any.then_some(ANY_PORT);
        // A prefix that admits everything needs none of its ports.
        let ports = ports.iter().map(|port| u32::from(*port)).filter(|_| any.is_none());
        for port in any.into_iter().chain(ports) {
            *set.few.get_mut(set.count as usize)? = Few { port, ..prefix };
            set.count += 1;
        }
    }
    Some(set)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_exact_at_both_ends_and_monotone() {
        assert_eq!(share(0.0), 0);
        assert_eq!(share(1.0), ALWAYS);
        assert_eq!(share(0.5), 1 << 31);
        assert!(share(0.999_999_999_9) < ALWAYS);
        assert_eq!(share(-1.0), 0);
    }

    #[test]
    fn a_peak_rate_without_its_bucket_is_left_out() {
        let bandwidth = plan::Bandwidth {
            rate: 1000,
            limit: 500,
            buffer: 100,
            peakrate: Some(5000),
            minburst: None,
        };
        let effects = plan::Effects { bandwidth: Some(bandwidth), ..plan::Effects::default() };
        let wire = rule(&test_rule(effects), 0, 1);
        assert_eq!((wire.peak_rate, wire.burst_ns), (0, 100_000_000));
        assert_eq!(wire.queue_ns, 500_000_000);
    }

    fn test_rule(effects: plan::Effects) -> plan::Rule {
        plan::Rule {
            id: "r".into(),
            experiment: "e".into(),
            target: "t".into(),
            hook: plan::Hook {
                device: plan::Device { netns: String::new(), inode: 0, name: "eth0".into() },
                direction: plan::Direction::Egress,
                cgroup: None,
            },
            peers: plan::Peers::default(),
            effects,
            describes: String::new(),
            declared: None,
            seed: 0,
            duration: None,
            dry_run: false,
        }
    }
}

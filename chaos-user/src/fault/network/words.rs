//! A rule as a sentence for people, and its share where that is one number.

use super::external::{name_text, prefix_text};
use crate::api::duration::GoDuration;
use crate::api::rate::Rate;
use crate::plan::{
    Bandwidth, Chance, Corrupt, CorruptMode, Delay, Direction, Effects, Hook, Partition, Peers,
    Reorder,
};

/// Peers that are named one by one before the rest is only counted.
const NAMED: usize = 3;

/// "delay 500ms ± 10ms at egress of netns:web (eth0) towards 10.0.0.0/8".
pub fn sentence(effects: &Effects, hook: &Hook, workload: &str, peers: &Peers) -> String {
    let mut what = effect_words(effects, hook).join(", ");
    let (way, towards) = match hook.direction {
        Direction::Egress => ("egress", "towards"),
        Direction::Ingress => ("ingress", "from"),
    };
    let whose = if hook.cgroup.is_some() { "the sockets of " } else { "" };
    what.push_str(&format!(" at {way} of {whose}{workload}"));
    if !hook.device.name.is_empty() {
        what.push_str(&format!(" ({})", hook.device.name));
    }
    format!("{what} {towards} {}", peer_words(peers))
}

fn effect_words(effects: &Effects, hook: &Hook) -> Vec<String> {
    // Answers are another kind's.
    let Effects {
        partition,
        loss,
        corrupt,
        duplicate,
        rate,
        bandwidth,
        delay,
        answer: _,
        marked: _,
    } = effects;
    let mut out = Vec::new();
    match partition {
        // The kernel tells a socket of a refused cgroup; nobody else has one to be told.
        Some(Partition::Drop) if hook.cgroup.is_some() && hook.direction == Direction::Egress => {
            out.push("drop every packet (its sender gets EPERM)".to_owned());
        }
        // Without a host nobody knows yet which of the two the target is.
        Some(Partition::Drop)
            if hook.device.netns.is_empty() && hook.direction == Direction::Egress =>
        {
            let how = "drop every packet (a sender in a cgroup gets EPERM, one in a bare network \
                 namespace silence)";
            out.push(how.to_owned());
        }
        Some(Partition::Drop) => out.push("silently drop every packet".to_owned()),
        Some(Partition::Reject) => {
            out.push("refuse every packet (TCP reset, ICMP unreachable)".to_owned());
        }
        None => {}
    }
    if let Some(chance) = loss {
        out.push(format!("lose {}", chance_words(chance)));
    }
    if let Some(Corrupt { chance, mode }) = corrupt {
        let how = match mode {
            CorruptMode::Wire => "the receiver's checksum discards them",
            CorruptMode::Payload => "delivered with a flipped payload bit",
        };
        out.push(format!("corrupt {} ({how})", chance_words(chance)));
    }
    if let Some(chance) = duplicate {
        out.push(format!("duplicate {}", chance_words(chance)));
    }
    if let Some(bytes) = rate {
        out.push(format!("send at {}", Rate { bytes: *bytes }));
    }
    if let Some(bandwidth) = bandwidth {
        out.push(bandwidth_words(bandwidth));
    }
    if let Some(delay) = delay {
        out.push(delay_words(delay));
    }
    out
}

fn chance_words(chance: &Chance) -> String {
    let Chance { share, correlation } = *chance;
    let share = percent(share);
    if correlation == 0.0 {
        format!("{share} of the packets")
    } else {
        format!("{share} of the packets in runs (correlation {})", percent(correlation))
    }
}

fn delay_words(delay: &Delay) -> String {
    let Delay { latency_ns, jitter_ns, correlation, reorder } = delay;
    let mut out = format!("delay {}", nanos(*latency_ns));
    if *jitter_ns > 0 {
        out.push_str(&format!(" ± {}", nanos(*jitter_ns)));
        if *correlation > 0.0 {
            out.push_str(&format!(" (correlation {})", percent(*correlation)));
        }
    }
    if let Some(Reorder { chance, gap }) = reorder {
        out.push_str(&format!(", let {} overtake", chance_words(chance)));
        match *gap {
            0 | 1 => {}
            2 => out.push_str(" after every delayed one"),
            gap => out.push_str(&format!(" after {} delayed ones", gap - 1)),
        }
    }
    out
}

fn bandwidth_words(bandwidth: &Bandwidth) -> String {
    let Bandwidth { rate, limit, buffer, peakrate, minburst } = bandwidth;
    let mut out = format!(
        "shape to {} (bursts of {buffer} bytes, {limit} bytes may wait",
        Rate { bytes: *rate }
    );
    if let (Some(peak), Some(burst)) = (peakrate, minburst) {
        out.push_str(&format!(", peak {} in bursts of {burst} bytes", Rate { bytes: *peak }));
    }
    out.push(')');
    out
}

fn peer_words(peers: &Peers) -> String {
    if peers.is_everyone() {
        return "everyone".to_owned();
    }
    let Peers { prefixes, names, workloads } = peers;
    let count = prefixes.len() + names.len() + workloads.len();
    let mut all: Vec<String> = workloads
        .iter()
        .cloned()
        .chain(prefixes.iter().map(prefix_text))
        .chain(names.iter().map(name_text))
        .take(if count > NAMED + 1 { NAMED } else { count })
        .collect();
    if count > all.len() {
        all.push(format!("{} more", count - all.len()));
    }
    match all.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, front)) => format!("{} and {last}", front.join(", ")),
        None => String::new(),
    }
}

fn nanos(ns: u64) -> String {
    GoDuration { nanos: i64::try_from(ns).unwrap_or(i64::MAX) }.to_string()
}

/// A share as a percentage, without the dust of binary fractions.
fn percent(share: f64) -> String {
    format!("{}%", (share * 1e11).round() / 1e9)
}

/// The share of matched packets that the rule acts on, where that is one number.
///
/// A rule with one block of loss, corrupt or duplicate and nothing else has that block's share.
/// A rule of blocks that act on every packet (partition, rate, bandwidth, delay with or without
/// reorder) has 1. A mixture has none: what acted on a packet is then told by the counters of
/// each effect only.
pub fn declared(effects: &Effects) -> Option<f64> {
    let Effects {
        partition,
        loss,
        corrupt,
        duplicate,
        rate,
        bandwidth,
        delay,
        answer: _,
        marked: _,
    } = effects;
    let corrupt = corrupt.map(|corrupt| corrupt.chance);
    let mut chances = [*loss, corrupt, *duplicate].into_iter().flatten();
    let always = partition.is_some() || rate.is_some() || bandwidth.is_some() || delay.is_some();
    match (chances.next(), chances.next(), always) {
        (None, None, true) => Some(1.0),
        (Some(chance), None, false) => Some(chance.share),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HALF: Chance = Chance { share: 0.5, correlation: 0.0 };

    #[test]
    fn one_chance_alone_is_declared_and_a_mixture_is_not() {
        let loss = Effects { loss: Some(HALF), ..Effects::default() };
        assert_eq!(declared(&loss), Some(0.5));
        assert_eq!(declared(&Effects { duplicate: Some(HALF), ..loss.clone() }), None);
        assert_eq!(declared(&Effects { rate: Some(1), ..loss }), None);
        assert_eq!(declared(&Effects { rate: Some(1), ..Effects::default() }), Some(1.0));
        assert_eq!(declared(&Effects::default()), None);
    }

    #[test]
    fn percentages_are_shown_as_written() {
        for text in ["12.5", "0.1", "33.3", "7", "99.999", "0.0001"] {
            let share = text.parse::<crate::api::percent::Percent>().unwrap().share();
            assert_eq!(percent(share), format!("{text}%"));
        }
    }

    #[test]
    fn many_peers_are_counted() {
        let workloads = (0..9).map(|i| format!("w{i}")).collect();
        let peers = Peers { workloads, ..Peers::default() };
        assert_eq!(peer_words(&peers), "w0, w1, w2 and 6 more");
    }
}

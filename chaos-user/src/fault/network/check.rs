//! What no single field can know: combinations that are refused, and combinations that do less
//! than they seem to.

use chaos_abi::limit::DELAY_NS;

use super::block::{BandwidthBlock, ChanceBlock, DelayBlock, RateBlock, ReorderBlock};
use super::spec::{Action, NetworkChaos, Side};
use crate::api::duration::GoDuration;
use crate::api::finding::Findings;
use crate::api::percent::Percent;

/// Checks the whole of `spec`.
pub fn check(spec: &NetworkChaos, findings: &mut Findings) {
    later(spec, findings);
    direction(spec, findings);
    devices(spec, findings);
    extension(spec, findings);
    blocks(spec, findings);
    if spec.action == Action::Partition {
        return;
    }
    if spec.partition_behavior.is_some() {
        let message = "has no effect: only action \"partition\" refuses packets";
        findings.warn("spec.partitionBehavior", message);
    }
    if let Some(delay) = &spec.delay {
        delay_block(delay, findings);
    }
    for (name, block) in chances(spec) {
        if let Some(block) = block {
            chance_block(&format!("spec.{name}"), name, block, findings);
        }
    }
    if let Some(RateBlock { rate }) = &spec.rate
        && rate.value.bytes == 0
    {
        findings.warn("spec.rate.rate", "is 0, which means no limit: this block does nothing");
    }
    if let Some(bandwidth) = &spec.bandwidth {
        bandwidth_block(bandwidth, findings);
    }
}

type NamedChance<'a> = (&'static str, Option<&'a ChanceBlock>);

fn chances(spec: &NetworkChaos) -> [NamedChance<'_>; 3] {
    [
        ("loss", spec.loss.as_ref()),
        ("corrupt", spec.corrupt.as_ref()),
        ("duplicate", spec.duplicate.as_ref()),
    ]
}

/// What this version cannot do.
fn later(spec: &NetworkChaos, findings: &mut Findings) {
    if let Some(name) = &spec.remote_cluster {
        findings.unsupported(
            "spec.remoteCluster",
            name,
            "apply the experiment in that cluster itself",
        );
    }
    if spec.kfault.per_packet {
        let reason =
            "a decision is made for each packet that the stack hands over (an skb); remove it";
        findings.unsupported("spec.kfault.perPacket", &true, reason);
    }
    if let Some(parameters) = &spec.kfault.gilbert_elliott {
        let reason = "use loss with a correlation";
        findings.unsupported("spec.kfault.gilbertElliott", parameters, reason);
    }
    if !(spec.kfault.ingress && spec.direction.receives()) || spec.action == Action::Partition {
        return;
    }
    for (name, _) in timed(spec).into_iter().filter(|(_, present)| *present) {
        let reason = "where packets arrive, only loss, corrupt and action partition act; use direction \
             \"to\", or name the other end in `target` and leave out spec.kfault.ingress";
        findings.unsupported(&format!("spec.{name}"), &spec.json()[name], reason);
    }
}

/// Blocks that need more than a verdict, which is all there is where packets arrive.
fn timed(spec: &NetworkChaos) -> [(&'static str, bool); 4] {
    [
        ("delay", spec.delay.is_some()),
        ("duplicate", spec.duplicate.is_some()),
        ("rate", spec.rate.is_some()),
        ("bandwidth", spec.bandwidth.is_some()),
    ]
}

fn direction(spec: &NetworkChaos, findings: &mut Findings) {
    let word = spec.direction.word();
    let bounded =
        spec.action != Action::Partition && spec.direction.receives() && !spec.kfault.ingress;
    // What this version would refuse in its turn is no way out.
    let timed = timed(spec).into_iter().any(|(_, present)| present);
    let arriving =
        if timed { "" } else { ", or spec.kfault.ingress: true to act where packets arrive" };
    if bounded && !spec.external_targets.is_empty() {
        let reason = format!(
            "external targets cannot be used with `from` and `both` direction in netem action; use \
             direction \"to\"{arriving}"
        );
        findings.invalid("spec.direction", &word, reason);
    } else if bounded && spec.target.is_none() {
        let reason = format!(
            "`from` and `both` direction cannot be used when `target` is empty in netem action; add \
             `target`{arriving}"
        );
        findings.invalid("spec.direction", &word, reason);
    }
}

fn devices(spec: &NetworkChaos, findings: &mut Findings) {
    let at_target = spec.target.is_some() && spec.direction.receives() && !spec.kfault.ingress;
    if spec.target_device.is_some() && !at_target {
        let message = "has no effect: this experiment acts at the devices of the sources only (see spec.device)";
        findings.warn("spec.targetDevice", message);
    }
    let only_at_target =
        at_target && spec.direction == Side::From && spec.external_targets.is_empty();
    if spec.device.is_some() && only_at_target {
        let message = "has no effect: direction \"from\" acts at the devices of the target (see spec.targetDevice)";
        findings.warn("spec.device", message);
    }
}

fn extension(spec: &NetworkChaos, findings: &mut Findings) {
    if spec.kfault.ingress && !spec.direction.receives() {
        let message = "has no effect with direction \"to\"; write direction: from or both";
        findings.warn("spec.kfault.ingress", message);
    }
    let corrupts = spec.corrupt.is_some() && spec.action != Action::Partition;
    if spec.kfault.corrupt.is_some() && !corrupts {
        findings.warn("spec.kfault.corrupt", "has no effect without a `corrupt` block");
    }
}

/// Which blocks are there, and which the action promises.
fn blocks(spec: &NetworkChaos, findings: &mut Findings) {
    let present = [
        (Action::Delay, "delay", spec.delay.is_some()),
        (Action::Loss, "loss", spec.loss.is_some()),
        (Action::Duplicate, "duplicate", spec.duplicate.is_some()),
        (Action::Corrupt, "corrupt", spec.corrupt.is_some()),
        (Action::Netem, "rate", spec.rate.is_some()),
        (Action::Bandwidth, "bandwidth", spec.bandwidth.is_some()),
    ];
    let word = spec.action.word();
    let none = present.iter().all(|(_, _, there)| !there);
    for (action, name, there) in present {
        let path = format!("spec.{name}");
        if spec.action == Action::Partition {
            if there {
                let message = "has no effect: action \"partition\" lets no packet through";
                findings.warn(&path, message);
            }
            continue;
        }
        let named = spec.action == action;
        // A block that cannot be read has its own error.
        let unread = findings.errors.iter().any(|error| error.field().starts_with(&path));
        if named && !there && !unread && spec.action != Action::Netem {
            let rest = if none { "nothing happens" } else { "only the other blocks act" };
            findings
                .warn(&path, format!("action \"{word}\" without its block: {rest}; add `{name}`"));
        }
        let covered = named || (spec.action == Action::Netem && name != "bandwidth");
        if there && !covered {
            let other = if name == "bandwidth" || spec.action == Action::Bandwidth {
                " (Chaos Mesh leaves it out)"
            } else {
                ""
            };
            findings.warn(
                &path,
                format!(
                    "acts too, although action is \"{word}\"{other}; remove it if it shall not"
                ),
            );
        }
    }
    if none && spec.action == Action::Netem && findings.errors.is_empty() {
        let message = "\"netem\" without any of delay, loss, duplicate, corrupt, rate: nothing happens; add one";
        findings.warn("spec.action", message);
    }
}

fn delay_block(block: &DelayBlock, findings: &mut Findings) {
    let DelayBlock { latency, jitter, correlation, reorder } = block;
    let most = GoDuration { nanos: i64::try_from(DELAY_NS).unwrap_or(i64::MAX) };
    let (latency_ns, jitter_ns) = (latency.value.nanos, jitter.value.nanos);
    if latency_ns > DELAY_NS {
        let reason = format!("is more than {most}, the longest delay; write a shorter one");
        findings.invalid("spec.delay.latency", &latency.text, reason);
    } else if latency_ns.saturating_add(jitter_ns) > DELAY_NS {
        let reason = format!(
            "latency and jitter together are more than {most}, the longest delay; shorten one of them"
        );
        findings.invalid("spec.delay.jitter", &jitter.text, reason);
    }
    if jitter_ns > latency_ns {
        let message = "is above the latency: no packet leaves before it came, so delays pile up at 0 and \
             their mean is above the latency";
        findings.warn("spec.delay.jitter", message);
    }
    let share = correlation.value.share();
    cut("spec.delay.correlation", correlation.value, findings);
    if jitter_ns == 0 && share > 0.0 {
        let message = "has no effect without jitter: every packet has the same delay";
        findings.warn("spec.delay.correlation", message);
    } else if share == 1.0 {
        findings.warn("spec.delay.correlation", "at 100 the jitter keeps its first value for ever");
    }
    let idle = latency_ns == 0 && jitter_ns == 0;
    if idle {
        findings.warn("spec.delay", "latency and jitter are 0: this block does nothing");
    }
    if let Some(ReorderBlock { chance, gap }) = reorder {
        chance_block("spec.delay.reorder", "reorder", chance, findings);
        if *gap == 0 {
            findings
                .warn("spec.delay.reorder.gap", "is 0, which means 1: every packet is a candidate");
        }
        if idle {
            findings.warn(
                "spec.delay.reorder",
                "has no effect: without a delay there is nobody to overtake",
            );
        } else if *gap <= 1 && chance.share.value.share() == 1.0 {
            let message = "at 100 with gap 1 every packet leaves at once and none is delayed: `delay` does \
                 nothing";
            findings.warn("spec.delay.reorder.reorder", message);
        }
    }
}

fn chance_block(path: &str, name: &str, block: &ChanceBlock, findings: &mut Findings) {
    let ChanceBlock { share, correlation } = block;
    let share_path = format!("{path}.{name}");
    cut(&share_path, share.value, findings);
    let correlation_path = format!("{path}.correlation");
    cut(&correlation_path, correlation.value, findings);
    let probability = share.value.share();
    if probability == 0.0 {
        findings.warn(&share_path, "is 0: this block does nothing");
    } else if correlation.value.share() == 1.0 && probability < 1.0 {
        let message = "at 100 the first decision holds for ever: every packet or none";
        findings.warn(&correlation_path, message);
    }
}

/// Upstream checks no range; what it would do with such a number is anybody's guess.
fn cut(path: &str, percent: Percent, findings: &mut Findings) {
    if percent.is_cut() {
        let means = percent.share() * 100.0;
        findings.warn(path, format!("lies outside 0 to 100: it means {means}"));
    }
}

/// The largest piece that the stack hands over at once, to be cut into packets later, in bytes.
const PIECE: u64 = 65_536;

fn bandwidth_block(block: &BandwidthBlock, findings: &mut Findings) {
    let BandwidthBlock { rate, limit, buffer, peakrate, minburst } = block;
    if rate.value.bytes == 0 {
        let reason = "must be above 0; to let nothing through use action \"partition\"";
        findings.invalid("spec.bandwidth.rate", &rate.text, reason);
    } else if u64::from(*limit) / rate.value.bytes >= DELAY_NS / 1_000_000_000 {
        let most = GoDuration { nanos: i64::try_from(DELAY_NS).unwrap_or(i64::MAX) };
        let message = format!(
            "at this rate so many bytes wait longer than {most}, the longest delay: what would is dropped"
        );
        findings.warn("spec.bandwidth.limit", message);
    }
    let room = u64::from(*limit) + u64::from(*buffer);
    if room < PIECE {
        let message = format!(
            "limit and buffer are {room} bytes together: a larger piece of traffic is always dropped, and \
             the stack hands over up to {PIECE} bytes at once; write more"
        );
        findings.warn("spec.bandwidth.limit", message);
    }
    let peak = peakrate.filter(|n| *n > 0);
    match (peak, minburst.filter(|n| *n > 0)) {
        (Some(_), None) => {
            let message = "has no effect without minburst; add it, at least the device's MTU";
            findings.warn("spec.bandwidth.peakrate", message);
        }
        (None, Some(_)) => {
            findings.warn("spec.bandwidth.minburst", "has no effect without peakrate")
        }
        (Some(peak), Some(_)) if peak <= rate.value.bytes => {
            let message = format!(
                "is not above rate ({} bytes per second), so that it alone limits the traffic",
                rate.value.bytes
            );
            findings.warn("spec.bandwidth.peakrate", message);
        }
        _ => {}
    }
}

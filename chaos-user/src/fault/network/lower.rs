//! A network fault and its workloads as rules.
//!
//! `to` acts where the sources send. `from` acts where the target sends (to the sources), and
//! where packets arrive at the sources only when there is no target to act at, or when
//! `spec.kfault.ingress` asks for it. No packet is hit twice by one experiment.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use ipnet::IpNet;

use super::External;
use super::spec::{Action, NetworkChaos};
use super::words::{declared, sentence};
use crate::fault::{Experiment, LowerError, Lowered, Options, distinct};
use crate::plan::{
    Corrupt, CorruptMode, Device, Direction, Effects, Hook, Partition, Peers, Prefix, Rule,
};
use crate::select::{Workload, seed_for};

/// One workload that packets are hit at, and whose packets.
struct Flow<'a> {
    at: &'a Workload,
    /// Device asked for, with its field.
    device: (&'static str, Option<&'a str>),
    direction: Direction,
    peers: Peers,
}

/// Rules on their way, in the order of their ids.
type Rules = BTreeMap<(String, Hook), Rule>;

/// Lowers one experiment. Sources and peers were chosen by `select`.
///
/// # Errors
/// See [`LowerError`].
pub fn lower(
    experiment: &Experiment,
    spec: &NetworkChaos,
    sources: &[Workload],
    peers: Option<&[Workload]>,
    options: &Options,
) -> Result<Lowered, LowerError> {
    let mut lowered = Lowered::default();
    let effects = effects(spec);
    if effects == Effects::default() {
        // The check has said so already.
        return Ok(lowered);
    }
    let others = match (&spec.target, peers) {
        (None, _) => None,
        (Some(_), Some(peers)) => Some(peers),
        (Some(_), None) => return Err(LowerError::NoPeers { experiment: experiment.id() }),
    };
    let is_local = |workload: &Workload| !workload.is_unbound() && !workload.is_elsewhere;
    if !options.in_cluster && spec.kfault.follow && sources.iter().any(is_local) {
        let message = "has an effect in a cluster only: here the choice is made once, at the start";
        lowered.warn("spec.kfault.follow", message);
    }
    // Only a random share can choose none.
    for (field, chosen) in [("spec.selector", Some(sources)), ("spec.target.selector", others)] {
        if chosen.is_some_and(<[Workload]>::is_empty) {
            lowered.warn(field, "the random share chose no workload this time: nothing happens");
        }
    }
    let sources = distinct(sources, "spec.selector", &mut lowered);
    let others = others.map(|others| distinct(others, "spec.target.selector", &mut lowered));
    let flows = flows(experiment, spec, &sources, others.as_deref())?;
    let mut rules = BTreeMap::new();
    for flow in flows.iter().filter(|flow| !flow.at.is_elsewhere) {
        loopback(flow, &sources, others.as_deref(), &mut lowered);
        let rule = rule(experiment, &effects, flow, options)?;
        if let Some(told) = told(&rule, flow.at) {
            merge(&mut rules, told);
        }
        merge(&mut rules, rule);
    }
    lowered.rules = named(rules);
    for rule in &mut lowered.rules {
        rule.describes = sentence(&rule.effects, &rule.hook, &rule.target, &rule.peers);
        rule.seed = seed_for(options.seed, &rule.id);
    }
    lowered.rules.sort_by(|a, b| a.id.cmp(&b.id));
    Ok(lowered)
}

/// What happens to a packet. Blocks that do nothing are left out.
fn effects(spec: &NetworkChaos) -> Effects {
    if spec.action == Action::Partition {
        return Effects { partition: Some(spec.partition()), ..Effects::default() };
    }
    let chance = |block: &Option<super::ChanceBlock>| {
        block.as_ref().map(super::ChanceBlock::chance).filter(|chance| chance.share > 0.0)
    };
    let mode = spec.kfault.corrupt.unwrap_or_default();
    Effects {
        partition: None,
        loss: chance(&spec.loss),
        corrupt: chance(&spec.corrupt).map(|chance| Corrupt { chance, mode }),
        duplicate: chance(&spec.duplicate),
        rate: spec.rate.as_ref().map(|block| block.rate.value.bytes).filter(|bytes| *bytes > 0),
        bandwidth: spec.bandwidth.as_ref().map(super::BandwidthBlock::bandwidth),
        delay: spec.delay.as_ref().and_then(super::DelayBlock::delay),
        answer: None,
        marked: None,
    }
}

fn flows<'a>(
    experiment: &Experiment,
    spec: &'a NetworkChaos,
    sources: &[&'a Workload],
    others: Option<&[&'a Workload]>,
) -> Result<Vec<Flow<'a>>, LowerError> {
    let external = external(spec);
    // Without an other end everyone is meant, and an empty set says so.
    let mut ends = external.clone();
    if let Some(others) = others {
        if others.is_empty() {
            return Ok(Vec::new());
        }
        join(&mut ends, addresses(experiment, others)?);
    }
    let device = ("spec.device", spec.device.as_deref());
    let mut flows = Vec::new();
    let mut at_sources = |direction, peers: &Peers| {
        for &at in sources {
            flows.push(Flow { at, device, direction, peers: peers.clone() });
        }
    };
    if spec.direction.sends() {
        at_sources(Direction::Egress, &ends);
    }
    if !spec.direction.receives() {
        return Ok(flows);
    }
    match others {
        Some(others) if !spec.kfault.ingress => {
            if !external.is_everyone() {
                at_sources(Direction::Ingress, &external);
            }
            if sources.is_empty() {
                return Ok(flows);
            }
            let peers = addresses(experiment, sources)?;
            let device = ("spec.targetDevice", spec.target_device.as_deref());
            for &at in others {
                flows.push(Flow { at, device, direction: Direction::Egress, peers: peers.clone() });
            }
        }
        _ => at_sources(Direction::Ingress, &ends),
    }
    Ok(flows)
}

fn external(spec: &NetworkChaos) -> Peers {
    let mut peers = Peers::default();
    for entry in &spec.external_targets {
        match &entry.value {
            External::Prefix { prefix, .. } => peers.prefixes.push(prefix.clone()),
            External::Name(name) => peers.names.push(name.clone()),
        }
    }
    tidy(&mut peers);
    peers
}

/// The workloads' addresses. Never empty: an empty set would mean everyone.
fn addresses(experiment: &Experiment, workloads: &[&Workload]) -> Result<Peers, LowerError> {
    let mut peers = Peers::default();
    for workload in workloads {
        if workload.is_unbound() {
            peers.workloads.push(workload.name.clone());
        } else if workload.addresses.is_empty() {
            let (experiment, workload) = (experiment.id(), workload.name.clone());
            return Err(LowerError::NoAddress { experiment, workload });
        } else {
            let prefix = |address| Prefix { net: IpNet::from(address), port: None };
            peers.prefixes.extend(workload.addresses.iter().copied().map(prefix));
        }
    }
    tidy(&mut peers);
    Ok(peers)
}

fn join(peers: &mut Peers, more: Peers) {
    let Peers { prefixes, names, workloads } = more;
    peers.prefixes.extend(prefixes);
    peers.names.extend(names);
    peers.workloads.extend(workloads);
    tidy(peers);
}

fn tidy(peers: &mut Peers) {
    let Peers { prefixes, names, workloads } = peers;
    prefixes.sort();
    prefixes.dedup();
    names.sort();
    names.dedup();
    workloads.sort();
    workloads.dedup();
}

/// Ends of a flow that share a network namespace talk over its loopback device.
fn loopback(
    flow: &Flow<'_>,
    sources: &[&Workload],
    others: Option<&[&Workload]>,
    lowered: &mut Lowered,
) {
    let (field, device) = flow.device;
    if device == Some("lo") || flow.at.is_unbound() {
        return;
    }
    let ends = if field == "spec.device" { others.unwrap_or(&[]) } else { sources };
    let near = |end: &&&Workload| {
        end.name != flow.at.name && end.inode == flow.at.inode && end.netns == flow.at.netns
    };
    if let Some(end) = ends.iter().find(near) {
        lowered.warn(field, format!(
            "{} and {} share a network namespace, so what they say to each other passes the device lo \
             and not this one; write \"lo\" to act there",
            flow.at.name, end.name
        ));
    }
}

fn rule(
    experiment: &Experiment,
    effects: &Effects,
    flow: &Flow<'_>,
    options: &Options,
) -> Result<Rule, LowerError> {
    let Flow { at, device, direction, peers } = flow;
    let hook = Hook {
        device: Device {
            netns: at.netns.clone(),
            inode: at.inode,
            name: device_name(experiment, at, *device)?,
        },
        direction: *direction,
        cgroup: at.cgroup.clone(),
    };
    if hook.cgroup.is_some() && *direction == Direction::Ingress {
        drops_only(experiment, effects, at)?;
    }
    let way = match direction {
        Direction::Egress => "egress",
        Direction::Ingress => "ingress",
    };
    Ok(Rule {
        id: format!("{}/{}/{way}", experiment.id(), at.name),
        experiment: experiment.id(),
        target: at.name.clone(),
        hook,
        peers: peers.clone(),
        effects: effects.clone(),
        describes: String::new(),
        declared: declared(effects),
        seed: 0,
        duration: options.duration.or_else(|| experiment.duration()),
        dry_run: options.dry_run,
    })
}

/// What the sockets of a pod send is refused before it reaches the device, so that the sender is
/// told; the device drops what no socket sends.
fn told(rule: &Rule, at: &Workload) -> Option<Rule> {
    let is_silent = rule.effects.partition == Some(Partition::Drop);
    if !is_silent || rule.hook.direction != Direction::Egress || rule.hook.cgroup.is_some() {
        return None;
    }
    let hook = Hook { cgroup: Some(at.sockets.clone()?), ..rule.hook.clone() };
    Some(Rule { id: format!("{}/sockets", rule.id), hook, ..rule.clone() })
}

/// Where packets arrive for a cgroup, they can be dropped and nothing else.
fn drops_only(experiment: &Experiment, effects: &Effects, at: &Workload) -> Result<(), LowerError> {
    let Effects { partition, corrupt, .. } = effects;
    let unsupported = |field, instead| {
        let (experiment, workload) = (experiment.id(), at.name.clone());
        Err(LowerError::CgroupIngress { experiment, workload, field, instead })
    };
    if *partition == Some(Partition::Reject) {
        return unsupported("spec.partitionBehavior", "use partitionBehavior: drop");
    }
    if corrupt.is_some_and(|corrupt| corrupt.mode == CorruptMode::Payload) {
        return unsupported("spec.kfault.corrupt", "use corrupt: wire");
    }
    Ok(())
}

fn device_name(
    experiment: &Experiment,
    at: &Workload,
    (field, wanted): (&'static str, Option<&str>),
) -> Result<String, LowerError> {
    if at.is_unbound() {
        return Ok(wanted.unwrap_or_default().to_owned());
    }
    let (experiment, workload, devices) = (experiment.id(), at.name.clone(), at.devices.join(", "));
    match (wanted, &at.default_device) {
        (Some(wanted), _) if at.devices.iter().any(|device| device == wanted) => {
            Ok(wanted.to_owned())
        }
        (Some(wanted), _) => {
            let device = wanted.to_owned();
            Err(LowerError::MissingDevice { experiment, workload, field, device, devices })
        }
        (None, Some(device)) => Ok(device.clone()),
        (None, None) => Err(LowerError::NoDevice { experiment, workload, field, devices }),
    }
}

/// A workload that is source and target at once gets one rule for both.
fn merge(rules: &mut Rules, rule: Rule) {
    match rules.entry((rule.id.clone(), rule.hook.clone())) {
        Entry::Occupied(mut there) => join(&mut there.get_mut().peers, rule.peers),
        Entry::Vacant(free) => {
            free.insert(rule);
        }
    }
}

/// Rules of one workload at several devices have the device in their id.
fn named(rules: Rules) -> Vec<Rule> {
    let mut out: Vec<Rule> = rules.into_values().collect();
    for same in out.chunk_by_mut(|a, b| a.id == b.id).filter(|same| same.len() > 1) {
        for rule in same {
            rule.id = format!("{}/{}", rule.id, rule.hook.device.name);
        }
    }
    out
}

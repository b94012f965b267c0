//! A fault of name resolution and its workloads as rules: one where queries leave through each
//! device, since any of them may lead to a name server, the loopback device included.

use std::collections::BTreeSet;

use super::DnsChaos;
use crate::fault::{Experiment, LowerError, Lowered, Options};
use crate::plan::{Answer, Device, Direction, Effects, Hook, Peers, Reply, Rule};
use crate::select::{Workload, seed_for};

/// Devices of one workload that rules act at. A node may have hundreds, one for each of its pods.
const DEVICES: usize = 32;
/// Patterns that are named one by one before the rest is only counted.
const NAMED: usize = 3;

/// Lowers one experiment. Sources were chosen by `select`.
///
/// # Errors
/// None yet; the signature is that of every kind.
pub fn lower(
    experiment: &Experiment,
    spec: &DnsChaos,
    sources: &[Workload],
    options: &Options,
) -> Result<Lowered, LowerError> {
    let mut lowered = Lowered::default();
    if !options.in_cluster && spec.kfault.follow && sources.iter().any(|one| !one.is_unbound()) {
        let message = "has an effect in a cluster only: here the choice is made once, at the start";
        lowered.warn("spec.kfault.follow", message);
    }
    if sources.is_empty() {
        let message = "the random share chose no workload this time: nothing happens";
        lowered.warn("spec.selector", message);
    }
    let answer = spec.answer();
    let mut known = BTreeSet::new();
    for at in sources.iter().filter(|at| !at.is_elsewhere) {
        let place = (at.inode, at.netns.clone(), at.cgroup.clone());
        if !at.is_unbound() && !known.insert(place) {
            let message = format!("{} is a workload that another one is; it counts once", at.name);
            lowered.warn("spec.selector", message);
            continue;
        }
        for device in devices(at, &mut lowered) {
            lowered.rules.push(rule(experiment, &answer, at, device, options));
        }
    }
    lowered.rules.sort_by(|a, b| a.id.cmp(&b.id));
    lowered.rules.dedup_by(|a, b| a.id == b.id);
    Ok(lowered)
}

/// Where the queries of a workload may leave: loopback, the default device, and the others as the
/// kernel lists them.
fn devices(at: &Workload, lowered: &mut Lowered) -> Vec<String> {
    if at.is_unbound() {
        return vec!["lo".to_owned(), String::new()];
    }
    let first = ["lo".to_owned()].into_iter().chain(at.default_device.clone());
    let mut devices: Vec<String> = Vec::new();
    for device in first.chain(at.devices.iter().cloned()) {
        if at.devices.contains(&device) && !devices.contains(&device) {
            devices.push(device);
        }
    }
    if devices.len() > DEVICES {
        let message = format!(
            "{} has {} devices, and queries are answered on {DEVICES} of them: loopback, the \
             default device, and the first of the others",
            at.name,
            devices.len()
        );
        lowered.warn("spec.selector", message);
        devices.truncate(DEVICES);
    }
    devices
}

fn rule(
    experiment: &Experiment,
    answer: &Answer,
    at: &Workload,
    device: String,
    options: &Options,
) -> Rule {
    let which = if device.is_empty() { "default" } else { &device };
    let id = format!("{}/{}/dns/{which}", experiment.id(), at.name);
    let describes = sentence(answer, at, &device);
    let hook = Hook {
        device: Device { netns: at.netns.clone(), inode: at.inode, name: device },
        direction: Direction::Egress,
        cgroup: at.cgroup.clone(),
    };
    Rule {
        seed: seed_for(options.seed, &id),
        id,
        experiment: experiment.id(),
        target: at.name.clone(),
        hook,
        peers: Peers::default(),
        effects: Effects { answer: Some(answer.clone()), ..Effects::default() },
        describes,
        declared: answer.names.is_every().then_some(1.0),
        duration: options.duration.or_else(|| experiment.duration()),
        dry_run: options.dry_run,
    }
}

/// "answer DNS queries for google.com with SERVFAIL at egress of netns:web (eth0)".
fn sentence(answer: &Answer, at: &Workload, device: &str) -> String {
    let which = names(answer);
    let what = match answer.reply {
        Reply::Servfail => format!("answer DNS queries for {which} with SERVFAIL"),
        Reply::Nxdomain => format!("answer DNS queries for {which} with NXDOMAIN"),
        Reply::Refused => format!("answer DNS queries for {which} with REFUSED"),
        Reply::Timeout => format!("lose DNS queries for {which}"),
        Reply::Random => {
            format!("answer DNS queries for {which} with a random address, kept {} s", answer.ttl)
        }
    };
    let whose = if at.cgroup.is_some() { "the sockets of " } else { "" };
    let device = match device {
        "" => String::new(),
        device => format!(" ({device})"),
    };
    format!("{what} at egress of {whose}{}{device}", at.name)
}

fn names(answer: &Answer) -> String {
    if answer.names.is_every() {
        return "every name".to_owned();
    }
    let all: Vec<String> = answer.names.patterns().map(ToString::to_string).collect();
    let count = all.len();
    let mut shown: Vec<String> =
        all.into_iter().take(if count > NAMED + 1 { NAMED } else { count }).collect();
    if count > shown.len() {
        shown.push(format!("{} more", count - shown.len()));
    }
    match shown.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, front)) => format!("{} and {last}", front.join(", ")),
        None => String::new(),
    }
}

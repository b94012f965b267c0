//! An HTTP fault and its workloads as exchanges.

use super::HttpChaos;
use super::words::sentence;
use crate::fault::{Experiment, Lowered, Options, distinct};
use crate::plan::exchange::{Exchange, Message, Sockets};
use crate::plan::reach::{self, Beyond};
use crate::plan::{Device, Direction, Effects, Hook, Marked, Peers, Rule};
use crate::select::{Workload, seed_for};

/// Lowers one experiment. Sources were chosen by `select`.
#[must_use]
pub fn lower(
    experiment: &Experiment,
    spec: &HttpChaos,
    sources: &[Workload],
    options: &Options,
) -> Lowered {
    let mut lowered = Lowered::default();
    if spec.edit.is_nothing() {
        // The check has said so already.
        return lowered;
    }
    let is_local = |workload: &Workload| !workload.is_unbound() && !workload.is_elsewhere;
    if !options.in_cluster && spec.kfault.follow && sources.iter().any(is_local) {
        let message = "has an effect in a cluster only: here the choice is made once, at the start";
        lowered.warn("spec.kfault.follow", message);
    }
    if sources.is_empty() {
        let message = "the random share chose no workload this time: nothing happens";
        lowered.warn("spec.selector", message);
    }
    for source in distinct(sources, "spec.selector", &mut lowered) {
        if source.is_elsewhere {
            continue;
        }
        let HttpChaos { message, port, matcher, edit, kfault, .. } = spec;
        let id = format!("{}/{}", experiment.id(), source.name);
        let exchange = Exchange {
            seed: seed_for(options.seed, &id),
            id,
            experiment: experiment.id(),
            target: source.name.clone(),
            sockets: sockets(source),
            role: kfault.role,
            message: *message,
            port: *port,
            matcher: matcher.clone(),
            describes: sentence(edit, *message, matcher, *port, kfault.role, &source.name),
            edit: edit.clone(),
            duration: options.duration.or_else(|| experiment.duration()),
            dry_run: options.dry_run,
        };
        reaches(&exchange, &mut lowered);
        if reach::refused(&exchange).is_none() {
            let rules = marked(&exchange, source, &mut lowered);
            lowered.rules.extend(rules);
        }
        lowered.exchanges.push(exchange);
    }
    lowered.exchanges.sort_by(|a, b| a.id.cmp(&b.id));
    lowered.rules.sort_by(|a, b| a.id.cmp(&b.id));
    lowered
}

/// What carries out at the devices what an exchange decides: packets that it has not marked are
/// not meant.
fn marked(exchange: &Exchange, source: &Workload, lowered: &mut Lowered) -> Vec<Rule> {
    let Exchange { edit, message, sockets, .. } = exchange;
    let (effect, what, direction) = if edit.abort {
        if *message == Message::Response {
            return Vec::new();
        }
        (Marked::Cut, "refuse requests that are cut", Direction::Ingress)
    } else if let Some(delay) = edit.delay {
        let ns = u64::try_from(delay.as_nanos()).unwrap_or(u64::MAX);
        (Marked::Late(ns), "hold late responses", Direction::Egress)
    } else {
        return Vec::new();
    };
    let devices = if source.is_unbound() {
        vec![String::new()]
    } else if direction == Direction::Ingress {
        sockets.watched().cloned().collect()
    } else {
        leaving(exchange, source, lowered)
    };
    let (way, preposition) = match direction {
        Direction::Ingress => ("ingress", "arriving at"),
        Direction::Egress => ("egress", "leaving"),
    };
    let rule = |name: String| Rule {
        id: format!("{}/{way}/{name}", exchange.id).trim_end_matches('/').to_owned(),
        experiment: exchange.experiment.clone(),
        target: exchange.target.clone(),
        describes: format!("{what}, and nothing else, {preposition} {}", exchange.target),
        // The exchange tells whose they are.
        hook: Hook {
            device: Device { netns: source.netns.clone(), inode: source.inode, name },
            direction,
            cgroup: None,
        },
        peers: Peers::default(),
        effects: Effects { marked: Some(effect), ..Effects::default() },
        declared: None,
        seed: exchange.seed,
        duration: exchange.duration,
        dry_run: exchange.dry_run,
    };
    devices.into_iter().map(rule).collect()
}

/// Devices that delayed responses leave by. A namespace that is the target's own is covered whole;
/// where others use it too, a queue at each of its devices would be too much.
fn leaving(exchange: &Exchange, source: &Workload, lowered: &mut Lowered) -> Vec<String> {
    let devices = exchange.sockets.watched();
    if source.cgroup.is_none() {
        return devices.cloned().collect();
    }
    let is_covered =
        |name: &&String| name.as_str() == "lo" || source.default_device.as_ref() == Some(*name);
    let (covered, others): (Vec<&String>, Vec<&String>) = devices.partition(is_covered);
    if !others.is_empty() {
        let named: Vec<&str> = covered.iter().map(|name| name.as_str()).collect();
        let message = format!(
            "{} shares its network with others: what leaves by {} is late, what leaves by other \
             devices is not",
            source.name,
            named.join(" and ")
        );
        lowered.warn("spec.delay", message);
    }
    covered.into_iter().cloned().collect()
}

/// Says once what this version does not do, or does otherwise.
fn reaches(exchange: &Exchange, lowered: &mut Lowered) {
    let all = match reach::refused(exchange) {
        Some(Beyond { field, reason }) => {
            let reason = format!("not supported by this version, so that nothing acts: {reason}");
            vec![Beyond { field, reason }]
        }
        None => reach::left_out(exchange),
    };
    for Beyond { field, reason } in all {
        if lowered.warnings.iter().all(|known| known.message != reason) {
            lowered.warn(field, reason);
        }
    }
}

fn sockets(workload: &Workload) -> Sockets {
    let mut devices = workload.devices.clone();
    devices.sort();
    Sockets {
        netns: workload.netns.clone(),
        inode: workload.inode,
        devices,
        cgroup: workload.cgroup.clone(),
        holder: workload.sockets.clone(),
    }
}

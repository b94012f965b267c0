//! An HTTP fault and its workloads as exchanges.

use super::HttpChaos;
use super::words::sentence;
use crate::fault::{Experiment, Lowered, Options, distinct};
use crate::plan::exchange::{Exchange, Sockets};
use crate::plan::reach::{self, Beyond};
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
        lowered.exchanges.push(exchange);
    }
    lowered.exchanges.sort_by(|a, b| a.id.cmp(&b.id));
    lowered
}

/// Says once what this version does not do.
fn reaches(exchange: &Exchange, lowered: &mut Lowered) {
    let warning = match (reach::refused(exchange), reach::left_out(exchange)) {
        (Some(Beyond { field, reason }), _) => {
            (field, format!("not supported by this version, so that nothing acts: {reason}"))
        }
        (None, Some(Beyond { field, reason })) => (field, reason),
        (None, None) => return,
    };
    if lowered.warnings.iter().all(|known| known.message != warning.1) {
        lowered.warn(warning.0, warning.1);
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

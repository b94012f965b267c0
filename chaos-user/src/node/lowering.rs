//! From tasks to what they mean on this node now: the pods and containers that are meant are
//! found, and their experiments lowered.

use std::collections::BTreeMap;
use std::time::Duration;

use super::drive::Resolved;
use super::kill::kill;
use super::local::Host;
use super::pod_container;
use super::pods::{self, Pods};
use crate::api::nodefault::{NodeRecord, NodeState, Spec};
use crate::api::peerset::Sets;
use crate::fault;
use crate::fault::on_node::{OnNode, container_name, name, on_containers, on_node};
use crate::plan::Plan;
use crate::plan::strain::Strain;
use crate::select::Workload;

/// One task, lowered.
pub struct Lowered {
    /// Rules, strains and records.
    pub on_node: OnNode,
    /// Addresses of its names.
    pub resolved: Resolved,
}

/// What a task means on this node.
pub fn lower(
    host: &mut Host,
    known: &Pods,
    cgroups: &[String],
    (spec, sets): (&Spec, &Sets),
    duration: Option<Duration>,
) -> Lowered {
    let parsed = fault::parse_object("NodeFault", spec.experiment.clone());
    let Some(experiment) = parsed.experiment else {
        // The controller is of another version than this agent.
        let all: Vec<String> = parsed.errors.iter().map(ToString::to_string).collect();
        let records = all_failed(spec, &all.join("; "));
        let on_node = OnNode { records, ..OnNode::default() };
        return Lowered { on_node, resolved: Resolved::new() };
    };
    if experiment.kills_containers() {
        return killed(host, known, cgroups, spec);
    }
    let seed = u64::from(spec.seed);
    let options = fault::Options { seed, duration, dry_run: false, in_cluster: true };
    let on_node = if experiment.containers().is_some() {
        on_containers(&experiment, &containers(host, known, cgroups, spec), &options)
    } else {
        on_node(spec, sets, &experiment, &pods(host, known, spec), &options)
    };
    Lowered { on_node, resolved: spec.names.clone() }
}

/// The pods of this node, by their ids.
fn pods(host: &mut Host, known: &Pods, spec: &Spec) -> BTreeMap<String, Result<Workload, String>> {
    let mut found = BTreeMap::new();
    for pod in spec.sources.iter().chain(spec.targets.iter().flatten()) {
        if pod.node == spec.node && !found.contains_key(&pod.id()) {
            let workload = pods::workload(host, known, pod, &name(&pod.id()));
            found.insert(pod.id(), workload);
        }
    }
    found
}

/// The containers of this node that are meant, by the ids of their records.
fn containers(
    host: &mut Host,
    known: &Pods,
    cgroups: &[String],
    spec: &Spec,
) -> BTreeMap<String, Result<Workload, String>> {
    let mut found = BTreeMap::new();
    for container in spec.containers.iter().filter(|one| one.node == spec.node) {
        let Some(pod) = spec.sources.iter().find(|pod| pod.uid == container.uid) else { continue };
        let name = container_name(&container.record());
        let workload = pod_container::workload(host, known, cgroups, (pod, container), &name);
        found.insert(container.record(), workload);
    }
    found
}

/// Containers that the task asks to kill: nothing is left to do for the engine.
fn killed(host: &Host, known: &Pods, cgroups: &[String], spec: &Spec) -> Lowered {
    let mut on_node = OnNode::default();
    for one in spec.containers.iter().filter(|one| one.node == spec.node) {
        let done = kill(host, known, cgroups, one);
        on_node.records.push(NodeRecord {
            id: one.record(),
            key: ".".to_owned(),
            state: if done.is_ok() { NodeState::Injected } else { NodeState::Failed },
            message: done.err().unwrap_or_default(),
        });
    }
    Lowered { on_node, resolved: Resolved::new() }
}

fn all_failed(spec: &Spec, message: &str) -> Vec<NodeRecord> {
    let failed = |record: NodeRecord| NodeRecord {
        state: NodeState::Failed,
        message: message.to_owned(),
        ..record
    };
    ended(spec).into_iter().map(failed).collect()
}

/// The records of a task that does not act.
pub fn ended(spec: &Spec) -> Vec<NodeRecord> {
    let sources = spec.sources.iter().map(|pod| (".", pod));
    let targets = spec.targets.iter().flatten().map(|pod| (".Target", pod));
    if !spec.containers.is_empty() {
        let here = spec.containers.iter().filter(|one| one.node == spec.node);
        return here.map(|one| recovered(".", one.record())).collect();
    }
    sources
        .chain(targets)
        .filter(|(_, pod)| pod.node == spec.node)
        .map(|(key, pod)| recovered(key, pod.id()))
        .collect()
}

fn recovered(key: &str, id: String) -> NodeRecord {
    NodeRecord { id, key: key.to_owned(), state: NodeState::Recovered, message: String::new() }
}

/// The plan of these tasks, with those of their strains that are fit.
pub fn together(
    lowered: &BTreeMap<String, Lowered>,
    keys: &[&String],
    is_fit: impl Fn(&Strain) -> bool,
) -> (Plan, Resolved) {
    let mut plan = Plan::default();
    let mut resolved = Resolved::new();
    for one in keys.iter().filter_map(|key| lowered.get(*key)) {
        plan.rules.extend(one.on_node.rules.iter().cloned());
        let fit = one.on_node.strains.iter().filter(|strain| is_fit(strain));
        plan.strains.extend(fit.cloned());
        plan.exchanges.extend(one.on_node.exchanges.iter().cloned());
        for (name, addresses) in &one.resolved {
            resolved.entry(name.clone()).or_insert_with(|| addresses.clone());
        }
    }
    plan.sort();
    (plan, resolved)
}

//! What the agent of one node has to do for an experiment: the same lowering as without a
//! cluster, over pods of which some are elsewhere.

use std::collections::{BTreeMap, BTreeSet};

use super::{Experiment, Options, lower};
use crate::api::nodefault::{NodeRecord, NodeState, Pod, Spec};
use crate::plan::Rule;
use crate::select::Workload;

/// The rules of this node, and what is known of its targets before anything is applied.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OnNode {
    /// Sorted by id.
    pub rules: Vec<Rule>,
    /// Targets of this node: those that can be acted on count as injected once the rules are in
    /// force, the others say why not.
    pub records: Vec<NodeRecord>,
}

/// Lowers an experiment for the node that `spec` names. `found` holds the workload of each pod
/// of this node, by the pod's id, or why there is none. A target that cannot be acted on does not
/// keep the others from it.
#[must_use]
pub fn on_node(
    spec: &Spec,
    experiment: &Experiment,
    found: &BTreeMap<String, Result<Workload, String>>,
    options: &Options,
) -> OnNode {
    let mut out = OnNode::default();
    let mut rules = BTreeMap::new();
    let is_here = |pod: &&Pod| pod.node == spec.node;
    let keyed = |key, pods: &[Pod]| -> Vec<(&'static str, String)> {
        pods.iter().filter(is_here).map(|pod| (key, pod.id())).collect()
    };
    let mut records = keyed(".", &spec.sources);
    records.extend(keyed(".Target", spec.targets.as_deref().unwrap_or_default()));
    let ids: BTreeSet<&String> = records.iter().map(|(_, id)| id).collect();
    let mut failed: BTreeMap<&String, String> = BTreeMap::new();
    for id in ids {
        let workload = match found.get(id) {
            Some(Ok(workload)) => workload,
            Some(Err(reason)) => {
                failed.insert(id, reason.clone());
                continue;
            }
            None => {
                failed.insert(id, "the pod was not found on its node".to_owned());
                continue;
            }
        };
        // All others are elsewhere as far as this one is concerned.
        let seen = |pods: &[Pod]| -> Vec<Workload> {
            let one = |pod: &Pod| {
                if pod.id() == *id {
                    // What the API says of its addresses is what others see.
                    Workload { addresses: addresses(pod, workload), ..workload.clone() }
                } else {
                    Workload::elsewhere(&name(&pod.id()), pod.addresses.clone())
                }
            };
            pods.iter().map(one).collect()
        };
        let sources = seen(&spec.sources);
        let targets = spec.targets.as_deref().map(seen);
        match lower(experiment, &sources, targets.as_deref(), options) {
            Ok(lowered) => rules.extend(lowered.rules.into_iter().map(|r| (r.id.clone(), r))),
            Err(error) => {
                failed.insert(id, error.to_string());
            }
        }
    }
    out.rules = rules.into_values().collect();
    for (key, id) in &records {
        let message = failed.get(id).cloned().unwrap_or_default();
        let state = if message.is_empty() { NodeState::Injected } else { NodeState::Failed };
        out.records.push(NodeRecord { id: id.clone(), key: (*key).to_owned(), state, message });
    }
    out
}

/// The name of a pod's workload, as rules carry it.
#[must_use]
pub fn name(id: &str) -> String {
    format!("pod:{id}")
}

fn addresses(pod: &Pod, workload: &Workload) -> Vec<std::net::IpAddr> {
    if pod.addresses.is_empty() { workload.addresses.clone() } else { pod.addresses.clone() }
}

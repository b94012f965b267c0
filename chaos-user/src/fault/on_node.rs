//! What the agent of one node has to do for an experiment: the same lowering as without a
//! cluster, over pods of which some are elsewhere.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::{Experiment, Options, lower};
use crate::api::nodefault::{NodeRecord, NodeState, Pod, Spec};
use crate::api::peerset::{self, Peer, Sets};
use crate::plan::Rule;
use crate::plan::exchange::Exchange;
use crate::plan::strain::Strain;
use crate::select::Workload;

/// The rules of this node, and what is known of its targets before anything is applied.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OnNode {
    /// Sorted by id.
    pub rules: Vec<Rule>,
    /// Sorted by id.
    pub strains: Vec<Strain>,
    /// Sorted by id.
    pub exchanges: Vec<Exchange>,
    /// Targets of this node: those that can be acted on count as injected once the rules are in
    /// force, the others say why not.
    pub records: Vec<NodeRecord>,
    /// A PeerSet that has not been seen yet keeps everything from being done.
    pub waits: bool,
}

/// Lowers an experiment for the node that `spec` names. `sets` are the PeerSets that were seen.
/// `found` holds the workload of each pod of this node, by the pod's id, or why there is none. A
/// target that cannot be acted on does not keep the others from it.
#[must_use]
pub fn on_node(
    spec: &Spec,
    sets: &Sets,
    experiment: &Experiment,
    found: &BTreeMap<String, Result<Workload, String>>,
    options: &Options,
) -> OnNode {
    let mut out = OnNode::default();
    let mut rules = BTreeMap::new();
    let keyed = |key, pods: &[Pod]| -> Vec<(&'static str, String)> {
        let here = pods.iter().filter(|pod| pod.node == spec.node);
        here.map(|pod| (key, pod.id())).collect()
    };
    let mut records = keyed(".", &spec.sources);
    records.extend(keyed(".Target", spec.targets.as_deref().unwrap_or_default()));
    let ids: BTreeSet<&String> = records.iter().map(|(_, id)| id).collect();
    let mut failed: BTreeMap<&String, String> = BTreeMap::new();
    if let Some(missing) = spec.peers.iter().find(|name| !sets.contains_key(*name)) {
        // An empty set would mean everyone, or nobody.
        let reason = format!(
            "the addresses at the other end have not come yet: the agent waits for the PeerSet \
             {missing}"
        );
        failed.extend(ids.iter().map(|id| (*id, reason.clone())));
        out.waits = true;
    }
    let sources = Side::of(".", &spec.sources, sets);
    let targets = spec.targets.as_deref().map(|own| Side::of(".Target", own, sets));
    for id in ids {
        let workload = match found.get(id) {
            _ if out.waits => break,
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
        let (sources, targets) = (sources.seen_by(id, workload), targets.as_ref());
        let targets = targets.map(|side| side.seen_by(id, workload));
        match lower(experiment, &sources, targets.as_deref(), options) {
            Ok(lowered) => {
                rules.extend(lowered.rules.into_iter().map(|r| (r.id.clone(), r)));
                out.exchanges.extend(lowered.exchanges);
            }
            Err(error) => {
                failed.insert(id, error.to_string());
            }
        }
    }
    out.rules = rules.into_values().collect();
    out.exchanges.sort_by(|a, b| a.id.cmp(&b.id));
    out.exchanges.dedup_by(|a, b| a.id == b.id);
    for (key, id) in &records {
        let message = failed.get(id).cloned().unwrap_or_default();
        let state = if message.is_empty() { NodeState::Injected } else { NodeState::Failed };
        out.records.push(NodeRecord { id: id.clone(), key: (*key).to_owned(), state, message });
    }
    out
}

/// Lowers an experiment that acts on containers. `found` holds the workload of each container of
/// this node, by its record's id, or why there is none.
#[must_use]
pub fn on_containers(
    experiment: &Experiment,
    found: &BTreeMap<String, Result<Workload, String>>,
    options: &Options,
) -> OnNode {
    let mut out = OnNode::default();
    for (id, found) in found {
        let lowered = found.clone().and_then(|workload| {
            lower(experiment, &[workload], None, options).map_err(|error| error.to_string())
        });
        let (state, message) = match lowered {
            Ok(lowered) => {
                out.rules.extend(lowered.rules);
                out.strains.extend(lowered.strains);
                (NodeState::Injected, String::new())
            }
            Err(message) => (NodeState::Failed, message),
        };
        out.records.push(NodeRecord { id: id.clone(), key: ".".to_owned(), state, message });
    }
    out.rules.sort_by(|a, b| a.id.cmp(&b.id));
    out.strains.sort_by(|a, b| a.id.cmp(&b.id));
    out
}

/// Everybody on one side of an experiment.
struct Side<'a> {
    /// Pods of this node.
    own: &'a [Pod],
    /// Those of all nodes, as one whose addresses are theirs; where the rules look at them.
    all: Option<Workload>,
    /// What the API says of the addresses of each, by the pod's id.
    addresses: BTreeMap<&'a str, &'a [IpAddr]>,
    /// The rules look at them.
    is_shared: bool,
}

impl<'a> Side<'a> {
    fn of(key: &str, own: &'a [Pod], sets: &'a Sets) -> Self {
        let shared = peerset::side(sets, key);
        let is_shared = shared.is_some();
        let peers: Vec<&Peer> = shared.unwrap_or_default();
        let mut all: Vec<IpAddr> = peers.iter().flat_map(|peer| &peer.addresses).copied().collect();
        all.sort_unstable();
        all.dedup();
        let name =
            if key == "." { "every pod of spec.selector" } else { "every pod of spec.target" };
        Self {
            own,
            all: (!peers.is_empty()).then(|| Workload::elsewhere(name, all)),
            addresses: peers.iter().map(|p| (p.name.as_str(), p.addresses.as_slice())).collect(),
            is_shared,
        }
    }

    /// As one pod of this node sees them: all others are elsewhere.
    fn seen_by(&self, id: &str, workload: &Workload) -> Vec<Workload> {
        let mut out = Vec::new();
        for pod in self.own {
            let own = pod.id();
            if own == id {
                // What the API says of its addresses is what others see.
                let known = self.addresses.get(id).filter(|known| !known.is_empty());
                let addresses = known.map_or(workload.addresses.clone(), |known| known.to_vec());
                out.push(Workload { addresses, ..workload.clone() });
            } else if !self.is_shared {
                // That it is there, and no more.
                out.push(Workload::elsewhere(&name(&own), Vec::new()));
            }
        }
        out.extend(self.all.clone());
        out
    }
}

/// The name of a pod's workload, as rules carry it.
#[must_use]
pub fn name(id: &str) -> String {
    format!("pod:{id}")
}

/// The name of the workload of a container, as strains carry it.
#[must_use]
pub fn container_name(record: &str) -> String {
    format!("container:{record}")
}

#[cfg(test)]
#[path = "on_node_tests.rs"]
mod tests;

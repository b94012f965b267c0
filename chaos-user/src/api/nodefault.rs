//! `NodeFault`: what the controller asks of the agent of one node, and what the agent answers.
//! One per experiment and node; internal.

use std::collections::BTreeMap;
use std::net::IpAddr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::figures::Figures;
use super::peerset::Sets;

/// Group of the kinds that are ours alone.
pub const GROUP: &str = "kfault.dev";
/// Its version.
pub const VERSION: &str = "v1alpha1";
/// The kind.
pub const KIND: &str = "NodeFault";
/// Its resource name.
pub const PLURAL: &str = "nodefaults";
/// Label with the name of the node: an agent watches its own.
pub const NODE_LABEL: &str = "kfault.dev/node";
/// The finalizer that the agent removes when the fault has ended on its node.
pub const FINALIZER: &str = "kfault.dev/agent";

/// What shall be the case on the node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Spec {
    /// The node.
    pub node: String,
    /// Whether the fault shall act.
    pub run: bool,
    /// When it ends by itself, whatever the controller does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// The experiment with its defaults.
    pub experiment: Value,
    /// Seed of its dice; fits JSON's numbers.
    pub seed: u32,
    /// Pods of this node that `spec.selector` chose.
    pub sources: Vec<Pod>,
    /// Pods of this node that `spec.target.selector` chose.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub targets: Option<Vec<Pod>>,
    /// Names of the PeerSets, of the same namespace, with the addresses of both sides on every
    /// node, as far as they matter. Without all of them nothing is done.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub peers: Vec<String>,
    /// Containers of those pods that are meant, where the experiment acts on containers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub containers: Vec<Container>,
    /// Addresses of every name in the experiment.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub names: BTreeMap<String, Vec<IpAddr>>,
}

/// A container of a pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Container {
    /// `namespace/name` of its pod.
    pub pod: String,
    /// Uid of its pod.
    pub uid: String,
    /// The node that it runs on.
    pub node: String,
    /// Its name.
    pub container: String,
    /// Its id, empty while it does not run: a container that was restarted has another one.
    pub id: String,
}

impl Container {
    /// `namespace/pod/container`: the id of its record.
    #[must_use]
    pub fn record(&self) -> String {
        format!("{}/{}", self.pod, self.container)
    }
}

/// A pod, as far as an agent needs to know it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Pod {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid, by which its cgroup is found.
    pub uid: String,
    /// The node that it runs on.
    pub node: String,
    /// It shares the node's network.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub host_network: bool,
}

impl Pod {
    /// `namespace/name`: the id of its record.
    #[must_use]
    pub fn id(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }
}

/// What is the case on the node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Status {
    /// Generation of the object that this answers.
    pub observed_generation: i64,
    /// `Injected`, `Partly`, `Failed` or `Recovered`: for people.
    pub phase: String,
    /// What became of each target on this node.
    pub records: Vec<NodeRecord>,
    /// What its rules did so far.
    pub rules: Vec<NodeRule>,
    /// What its strains do.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub strains: Vec<NodeStrain>,
}

/// What became of a target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRecord {
    /// `namespace/pod`.
    pub id: String,
    /// `.` or `.Target`.
    pub key: String,
    /// Where it stands.
    pub state: NodeState,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// Where a target stands on its node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NodeState {
    /// The fault acts.
    Injected,
    /// It does not.
    Recovered,
    /// It cannot be applied.
    Failed,
}

/// A rule and its counters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeRule {
    /// Its id in the plan.
    pub rule: String,
    /// It in words.
    pub describes: String,
    /// Declared share of what is matched, where that is one number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub declared: Option<f64>,
    /// Packets that it matched.
    pub matched: u64,
    /// Packets that it acted on.
    pub injected: u64,
    /// DNS queries and HTTP messages that it let pass because it could not read or change them.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub unreadable: u64,
}

fn is_zero(value: &u64) -> bool {
    *value == 0
}

/// A strain and what it does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeStrain {
    /// Its id in the plan.
    pub strain: String,
    /// The id of the record that it belongs to.
    #[serde(default)]
    pub record: String,
    /// It in words.
    pub describes: String,
    /// What people should know now.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// Since when it acts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// What it does, in numbers.
    #[serde(default)]
    pub figures: Figures,
}

/// A NodeFault, as far as the node is concerned. Keyed by `namespace/name`.
#[derive(Clone, Debug, PartialEq)]
pub struct Task {
    /// Generation of the object.
    pub generation: i64,
    /// What is asked.
    pub spec: Spec,
    /// Those of the PeerSets that it names which have been seen.
    pub sets: Sets,
    /// The object is being deleted: end it, and say so.
    pub is_going: bool,
}

/// All NodeFaults of the node.
pub type Tasks = BTreeMap<String, Task>;

/// What became of a task.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// `namespace/name` of the NodeFault.
    pub key: String,
    /// For its status.
    pub status: Status,
    /// Nothing of it acts on this node any more.
    pub is_over: bool,
}

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
    /// DNS queries that it let pass because it could not read them.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub unreadable: u64,
    /// HTTP messages that it let pass because it could not read or change them, by reason; those
    /// that there are.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub passed: BTreeMap<String, u64>,
}

fn is_zero(value: &u64) -> bool {
    *value == 0
}

/// What rules have counted, all together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// What they matched.
    pub matched: u64,
    /// What they acted on.
    pub injected: u64,
    /// What they let pass because they could not read or change it, by reason.
    pub passed: BTreeMap<String, u64>,
}

impl Counted {
    /// The sum over these rules.
    #[must_use]
    pub fn of<'a>(rules: impl IntoIterator<Item = &'a NodeRule>) -> Self {
        let mut sum = Self::default();
        for rule in rules {
            sum.matched += rule.matched;
            sum.injected += rule.injected;
            let unreadable = Some(("unreadable", rule.unreadable)).filter(|(_, count)| *count > 0);
            let passed = rule.passed.iter().map(|(reason, count)| (reason.as_str(), *count));
            for (reason, count) in passed.chain(unreadable) {
                *sum.passed.entry(reason.to_owned()).or_default() += count;
            }
        }
        sum
    }

    /// What has been added to `before`; all of it where that is no beginning of this: counters
    /// that begin anew begin at zero.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        let earlier = |reason: &String| before.passed.get(reason).copied().unwrap_or_default();
        let goes_on = before.matched <= self.matched
            && before.injected <= self.injected
            && before
                .passed
                .iter()
                .all(|(reason, count)| self.passed.get(reason).is_some_and(|now| count <= now));
        if !goes_on {
            return self.clone();
        }
        let passed = self.passed.iter();
        Self {
            matched: self.matched - before.matched,
            injected: self.injected - before.injected,
            passed: passed.map(|(reason, now)| (reason.clone(), now - earlier(reason))).collect(),
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(matched: u64, unreadable: u64, passed: &[(&str, u64)]) -> NodeRule {
        NodeRule {
            rule: String::new(),
            describes: String::new(),
            declared: None,
            matched,
            injected: 1,
            unreadable,
            passed: passed.iter().map(|(reason, count)| ((*reason).to_owned(), *count)).collect(),
        }
    }

    #[test]
    fn reasons_are_added_up_by_name() {
        let all = [rule(2, 0, &[("tls", 1), ("early", 4)]), rule(3, 5, &[("tls", 2)])];
        let sum = Counted::of(&all);
        assert_eq!((sum.matched, sum.injected), (5, 2));
        let passed = [("early", 4), ("tls", 3), ("unreadable", 5)];
        assert_eq!(sum.passed, passed.map(|(reason, n)| (reason.to_owned(), n)).into());
    }

    #[test]
    fn what_is_counted_since_is_all_of_it_where_something_began_anew() {
        let before = Counted::of(&[rule(2, 0, &[("tls", 3)])]);
        let later = Counted::of(&[rule(7, 0, &[("tls", 4), ("early", 1)])]);
        let more = later.since(&before);
        assert_eq!((more.matched, more.injected), (5, 0));
        assert_eq!(more.passed, [("early".to_owned(), 1), ("tls".to_owned(), 1)].into());
        for anew in [rule(1, 0, &[("tls", 3)]), rule(7, 0, &[("tls", 2)]), rule(7, 0, &[])] {
            let anew = Counted::of(&[anew]);
            assert_eq!(anew.since(&before), anew);
        }
    }
}

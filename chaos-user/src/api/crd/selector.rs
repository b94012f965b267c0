//! Who is meant: selectors, modes, and how many are chosen.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Which pods, and how many of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PodChoice {
    /// Which pods. An empty selector means every pod of the object's own namespace.
    pub selector: PodSelector,
    /// How many of the selected pods are chosen.
    pub mode: Mode,
    /// The number for mode `fixed`, the percentage for `fixed-percent` and `random-max-percent`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
}

/// How many of the selected objects are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// One of them at random.
    One,
    /// All of them.
    All,
    /// This many at random, or all where there are fewer.
    Fixed,
    /// This share of them, rounded up.
    FixedPercent,
    /// A share of them between none and this, rounded up.
    RandomMaxPercent,
}

/// Criteria for pods. All that are given must hold, except that `nodes` and `nodeSelectors` are a
/// union, and that `pods` makes every other criterion void.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PodSelector {
    /// Namespaces of the pods. Default: that of the object.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub namespaces: Vec<String>,
    /// Labels that must be equal.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub label_selectors: BTreeMap<String, String>,
    /// Labels that must meet an expression.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub expression_selectors: Vec<Expression>,
    /// Annotations that must be equal.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotation_selectors: BTreeMap<String, String>,
    /// Fields of the pod that must be equal, such as `spec.nodeName`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub field_selectors: BTreeMap<String, String>,
    /// Phases, one of which the pod must have. A `!` in front excludes a phase.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pod_phase_selectors: Vec<String>,
    /// Names of nodes that the pod may run on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<String>,
    /// Labels of nodes that the pod may run on.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub node_selectors: BTreeMap<String, String>,
    /// Names of pods by namespace.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub pods: BTreeMap<String, Vec<String>>,
}

/// A condition on a label.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Expression {
    /// The label.
    pub key: String,
    /// `In`, `NotIn`, `Exists` or `DoesNotExist`.
    pub operator: String,
    /// Values for `In` and `NotIn`; none for the others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<String>,
}

/// Criteria for machines outside the cluster. All that are given must hold, except that
/// `physicalMachines` makes every other criterion void.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MachineSelector {
    /// Namespaces of the PhysicalMachine objects. Default: that of the object.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub namespaces: Vec<String>,
    /// Labels that must be equal.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub label_selectors: BTreeMap<String, String>,
    /// Labels that must meet an expression.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub expression_selectors: Vec<Expression>,
    /// Annotations that must be equal.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotation_selectors: BTreeMap<String, String>,
    /// Fields that must be equal: `metadata.name`, `metadata.namespace` or `spec.address`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub field_selectors: BTreeMap<String, String>,
    /// Names of PhysicalMachine objects by namespace.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub physical_machines: BTreeMap<String, Vec<String>>,
}

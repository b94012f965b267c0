//! Load on processors and memory.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::free::FreeForm;
use super::selector::PodChoice;
use super::status::ExperimentStatus;

/// Load on processors and memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StressChaos {
    /// What is done to whom.
    pub spec: StressChaosSpec,
    /// What has become of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<StressStatus>,
}

/// What load which containers get.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StressChaosSpec {
    /// Which pods.
    #[serde(flatten)]
    pub choice: PodChoice,
    /// The load, by kind.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stressors: Option<Stressors>,
    /// The load, as arguments of the program stress-ng.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stressng_stressors: Option<String>,
    /// Containers that are meant. Default: the first of the pod.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub container_names: Vec<String>,
    /// How long, as in `1m30s`, counted from the creation of the object. Default: until it is
    /// deleted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration: Option<String>,
    /// The RemoteCluster to run in. Default: this cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remote_cluster: Option<String>,
    /// What kfault adds to the kind.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kfault: Option<FreeForm>,
}

/// A load, by kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Stressors {
    /// Load on processors.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu: Option<CpuStressor>,
    /// Memory that is taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<MemoryStressor>,
}

/// Load on processors.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CpuStressor {
    /// How many work at it.
    #[schemars(extend("maximum" = 8192))]
    pub workers: i64,
    /// How busy each of them keeps one processor, in percent.
    #[schemars(extend("minimum" = 0, "maximum" = 100))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub load: Option<i64>,
    /// More arguments of the program stress-ng.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
}

/// Memory that is taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MemoryStressor {
    /// How many work at it.
    #[schemars(extend("maximum" = 8192))]
    pub workers: i64,
    /// How much they take together, as in `256MB`, or as a percentage of the node's memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<String>,
    /// How willingly the kernel ends the workers when memory is short.
    #[schemars(extend("minimum" = -1000, "maximum" = 1000))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oom_score_adj: Option<i64>,
    /// More arguments of the worker.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
}

/// What has become of a load.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StressStatus {
    /// What every experiment reports.
    #[serde(flatten)]
    pub experiment: ExperimentStatus,
    /// Workers by target id.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub instances: BTreeMap<String, StressInstance>,
}

/// The workers of one target.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StressInstance {
    /// Who loads the processors.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
    /// Who takes memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_uid: Option<String>,
    /// Since when the processors are loaded.
    #[schemars(extend("format" = "date-time"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_time: Option<String>,
    /// Since when memory is taken.
    #[schemars(extend("format" = "date-time"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_start_time: Option<String>,
}

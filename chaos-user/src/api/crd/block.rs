//! Faults of block devices.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::free::FreeForm;
use super::selector::PodChoice;
use super::status::ExperimentStatus;

/// Block devices that are slow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BlockChaos {
    /// What is done to whom.
    pub spec: BlockChaosSpec,
    /// What has become of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<BlockStatus>,
}

/// What is done to the volumes of which containers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BlockChaosSpec {
    /// Which pods.
    #[serde(flatten)]
    pub choice: PodChoice,
    /// What is done.
    pub action: BlockAction,
    /// Name of the pod's volume.
    pub volume_name: String,
    /// How late requests are. Needed for `delay`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delay: Option<BlockDelay>,
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

/// What is done to a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum BlockAction {
    /// Requests are late.
    Delay,
}

/// How late requests are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BlockDelay {
    /// Time that every request loses, as in `10ms`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency: Option<String>,
    /// How far the latency of a request may be off, either way.
    #[schemars(extend("default" = "0ms"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jitter: Option<String>,
    /// How much the jitter of a request resembles that of the request before, in percent.
    #[schemars(extend("default" = "0"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub correlation: Option<String>,
}

/// What has become of a fault of volumes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BlockStatus {
    /// What every experiment reports.
    #[serde(flatten)]
    pub experiment: ExperimentStatus,
    /// Number of the fault by target id.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub ids: BTreeMap<String, i64>,
}

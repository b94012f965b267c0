//! Limits of containers for a while: a kind of our own.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::selector::PodChoice;
use super::status::ExperimentStatus;

/// Less processor time, memory, disk, tasks or network for containers; or no time at all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ThrottleChaos {
    /// What is limited for whom.
    pub spec: ThrottleChaosSpec,
    /// What has become of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<ExperimentStatus>,
}

/// The limits. At least one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ThrottleChaosSpec {
    /// Which pods.
    #[serde(flatten)]
    pub choice: PodChoice,
    /// Processor time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu: Option<CpuThrottle>,
    /// Memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<MemoryThrottle>,
    /// Throughput of disks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub io: Option<IoThrottle>,
    /// Number of tasks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pids: Option<PidsThrottle>,
    /// What is sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<NetworkThrottle>,
    /// No process of the container runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub freeze: Option<bool>,
    /// Containers that are meant. Default: the first of the pod.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub container_names: Vec<String>,
    /// How long, as in `1m30s`, counted from the creation of the object. Default: until it is
    /// deleted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration: Option<String>,
    /// Act on pods that appear later, too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub follow: Option<bool>,
}

/// Processor time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CpuThrottle {
    /// How much, as in `20%` or `150%`.
    pub quota: String,
    /// What it is a percentage of: one processor (default), or the container's own limit.
    #[schemars(extend("enum" = ["processor", "limit"]))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub of: Option<String>,
}

/// Memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MemoryThrottle {
    /// Above this the container is slowed down and its memory reclaimed: a quantity (`64Mi`), or a
    /// share of the container's own limit (`50%`). Nodes with cgroup v2 only.
    pub high: String,
}

/// Throughput of disks. At least one of the four.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct IoThrottle {
    /// Bytes read per second, as in `1Mi`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub read_bps: Option<String>,
    /// Bytes written per second. Nodes with cgroup v2 only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub write_bps: Option<String>,
    /// Reads per second.
    #[schemars(extend("minimum" = 1))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub read_iops: Option<i64>,
    /// Writes per second.
    #[schemars(extend("minimum" = 1))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub write_iops: Option<i64>,
    /// Disks that are meant, as `/dev/sda` or `8:0`. Default: every one of the node.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<String>,
}

/// Number of tasks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PidsThrottle {
    /// How many there may be.
    #[schemars(extend("minimum" = 0, "maximum" = 4_194_304))]
    pub max: i64,
}

/// What is sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NetworkThrottle {
    /// How fast, as in `1mbit` (bits) or `1mbps` (bytes).
    pub rate: String,
}

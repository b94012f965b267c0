//! Faults of the network.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::free::FreeForm;
use super::selector::PodChoice;
use super::status::InstancesStatus;

/// One number and one unit, without a sign.
const LATENCY: &str = r"^[0-9]+(\.[0-9]+)?(ns|us|ms|s|m|h)$";

/// Packets that come late, damaged, twice or not at all, and links that are slow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NetworkChaos {
    /// What is done to whom.
    pub spec: NetworkChaosSpec,
    /// What has become of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<InstancesStatus>,
}

/// What is done to the packets of which pods.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NetworkChaosSpec {
    /// Which pods.
    #[serde(flatten)]
    pub choice: PodChoice,
    /// What the experiment is about. Every block that is given acts, whatever the action.
    pub action: NetworkAction,
    /// Which packets, seen from the selected pods: those they send, those they get, or both.
    #[schemars(extend("default" = "to"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub direction: Option<Direction>,
    /// Pods at the other end. Only packets to or from them are meant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<PodChoice>,
    /// What becomes of packets that a partition stops. Default: `drop`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub partition_behavior: Option<PartitionBehavior>,
    /// Addresses, prefixes and DNS names at the other end, each with `:port` behind it where only
    /// one port is meant.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub external_targets: Vec<String>,
    /// Network device of the selected pods. Default: that of the default route.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// Network device of the target's pods. Default: that of the default route.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_device: Option<String>,
    /// What is done to a packet.
    #[serde(flatten)]
    pub blocks: NetworkBlocks,
    /// How long, as in `1m30s`, counted from the creation of the object. Default: until it is
    /// deleted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration: Option<String>,
    /// The RemoteCluster to run in. Default: this cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remote_cluster: Option<String>,
    /// What kfault adds to the kind. Without it, everything means what the public API says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kfault: Option<NetworkExtension>,
}

/// What is done to a packet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NetworkBlocks {
    /// Packets come late.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delay: Option<DelayBlock>,
    /// Packets are lost.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loss: Option<LossBlock>,
    /// Packets come twice.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duplicate: Option<DuplicateBlock>,
    /// Packets are damaged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub corrupt: Option<CorruptBlock>,
    /// The link is slow.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<RateBlock>,
    /// The link is slow, with bursts and a bounded queue.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bandwidth: Option<BandwidthBlock>,
}

/// What a network experiment is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum NetworkAction {
    /// Any of the blocks.
    Netem,
    /// Packets come late.
    Delay,
    /// Packets are lost.
    Loss,
    /// Packets come twice.
    Duplicate,
    /// Packets are damaged.
    Corrupt,
    /// No packet passes.
    Partition,
    /// The link is slow.
    Bandwidth,
}

/// Which packets, seen from the selected pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// Those they send.
    To,
    /// Those they get.
    From,
    /// All.
    Both,
}

/// What becomes of packets that a partition stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum PartitionBehavior {
    /// They vanish.
    Drop,
    /// The sender gets an answer: a reset for TCP, otherwise that the host cannot be reached.
    Reject,
}

/// How late packets come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DelayBlock {
    /// Time that every packet loses, as in `500ms`.
    #[schemars(extend("pattern" = LATENCY))]
    pub latency: String,
    /// How far the latency of a packet may be off, either way.
    #[schemars(extend("pattern" = LATENCY, "default" = "0ms"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jitter: Option<String>,
    /// How much the jitter of a packet resembles that of the packet before, in percent.
    #[schemars(extend("default" = "0"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub correlation: Option<String>,
    /// Packets that overtake the others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reorder: Option<ReorderBlock>,
}

/// How often packets overtake others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReorderBlock {
    /// Share of the candidates that leave at once, in percent.
    pub reorder: String,
    /// How much a decision resembles the one before, in percent.
    #[schemars(extend("default" = "0"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub correlation: Option<String>,
    /// With 5, every fifth packet is a candidate; 0 means 1.
    pub gap: i64,
}

/// How often packets are lost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LossBlock {
    /// Share of the packets, in percent.
    pub loss: String,
    /// How much a decision resembles the one before, in percent.
    #[schemars(extend("default" = "0"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub correlation: Option<String>,
}

/// How often packets come twice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DuplicateBlock {
    /// Share of the packets, in percent.
    pub duplicate: String,
    /// How much a decision resembles the one before, in percent.
    #[schemars(extend("default" = "0"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub correlation: Option<String>,
}

/// How often packets are damaged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CorruptBlock {
    /// Share of the packets, in percent.
    pub corrupt: String,
    /// How much a decision resembles the one before, in percent.
    #[schemars(extend("default" = "0"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub correlation: Option<String>,
}

/// A link of a given speed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RateBlock {
    /// Its speed, as in `10mbit` (bits per second) or `1mbps` (bytes per second).
    pub rate: String,
}

/// A link of a given speed, as a token bucket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BandwidthBlock {
    /// Its speed, as in `10mbit` (bits per second) or `1mbps` (bytes per second).
    pub rate: String,
    /// Bytes that may wait.
    #[schemars(extend("minimum" = 1))]
    pub limit: u32,
    /// Bytes that may pass at once.
    #[schemars(extend("minimum" = 1))]
    pub buffer: u32,
    /// Bytes per second within a burst. Counts only together with `minburst`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peakrate: Option<u64>,
    /// Bytes that may pass at once within a burst.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub minburst: Option<u32>,
}

/// What kfault adds to network faults.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NetworkExtension {
    /// Packets that the selected pods get are met where they arrive, not where they are sent. So
    /// `from` and `both` need no target.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ingress: Option<bool>,
    /// What a damaged packet amounts to. Default: `wire`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub corrupt: Option<CorruptMode>,
    /// One decision per packet on the wire, also where the kernel handles several as one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub per_packet: Option<bool>,
    /// Pods that appear later are hit too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub follow: Option<bool>,
    /// Loss with a good and a bad state.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gilbert_elliott: Option<FreeForm>,
}

/// What a damaged packet amounts to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum CorruptMode {
    /// The receiver's kernel notices and throws it away.
    Wire,
    /// The receiver gets it with a flipped bit.
    Payload,
}

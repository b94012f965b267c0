//! The network of machines.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Which packets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct PacketMatch {
    /// How much a decision resembles the one before, in percent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub correlation: Option<String>,
    /// Network device.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// Ports that the machine sends from, with commas between.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_port: Option<String>,
    /// Ports that the machine sends to, with commas between.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub egress_port: Option<String>,
    /// Address that the machine sends to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip_address: Option<String>,
    /// `tcp`, `udp`, `icmp` or `all`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip_protocol: Option<String>,
    /// Name that the machine sends to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
}

/// A share of the packets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct PacketShare {
    /// Which packets.
    #[serde(flatten)]
    pub packets: PacketMatch,
    /// How many of them, in percent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub percent: Option<String>,
}

/// Packets that come late.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct PacketDelay {
    /// Which packets.
    #[serde(flatten)]
    pub packets: PacketMatch,
    /// Time that every packet loses, as in `500ms`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency: Option<String>,
    /// How far the latency of a packet may be off, either way.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jitter: Option<String>,
    /// Packets with these TCP flags pass.
    #[serde(rename = "accept-tcp-flags", skip_serializing_if = "Option::is_none")]
    pub accept_flags: Option<String>,
}

/// Packets that do not pass.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Partition {
    /// Network device.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// Name at the other end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// Address at the other end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip_address: Option<String>,
    /// `to` the other end or `from` it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub direction: Option<String>,
    /// `tcp`, `udp`, `icmp` or `all`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip_protocol: Option<String>,
    /// Packets with these TCP flags pass.
    #[serde(rename = "accept-tcp-flags", skip_serializing_if = "Option::is_none")]
    pub accept_flags: Option<String>,
}

/// Names that are found at the wrong address.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Dns {
    /// Name server that is used instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dns_server: Option<String>,
    /// Address that the name gets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dns_ip: Option<String>,
    /// The name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dns_domain_name: Option<String>,
}

/// A slow link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Bandwidth {
    /// Its speed, as in `10mbit` (bits per second) or `1mbps` (bytes per second).
    pub rate: String,
    /// Bytes that may wait.
    #[schemars(extend("minimum" = 1))]
    pub limit: u32,
    /// Bytes that may pass at once.
    #[schemars(extend("minimum" = 1))]
    pub buffer: u32,
    /// Bytes per second within a burst.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peakrate: Option<u64>,
    /// Bytes that may pass at once within a burst.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub minburst: Option<u32>,
    /// Network device.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// Address that the machine sends to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip_address: Option<String>,
    /// Name that the machine sends to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
}

/// Traffic that fills a link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Flood {
    /// How much, as in `10mbit` (bits per second) or `1mbps` (bytes per second).
    pub rate: String,
    /// Address that it is sent to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip_address: Option<String>,
    /// Port that it is sent to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<String>,
    /// How many connections.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parallel: Option<i32>,
    /// Seconds.
    pub duration: String,
}

/// A network device that is off.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Down {
    /// The device.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// How long, as in `30s`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration: Option<String>,
}

//! Kinds that other implementations keep per pod. kfault makes none of them; they are known so
//! that asking for them is no error.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::http::{HttpActions, HttpTls};
use super::io::{FileAttributes, Mistake};
use super::network::NetworkBlocks;

/// Faults of one pod's network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PodNetworkChaos {
    /// The faults.
    pub spec: PodNetworkChaosSpec,
    /// What has become of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<PodFaultStatus>,
}

/// Faults of one pod's network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PodNetworkChaosSpec {
    /// Sets of addresses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ipsets: Vec<RawIpset>,
    /// Rules that stop packets.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub iptables: Vec<RawIptables>,
    /// Rules that delay, lose and change packets.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tcs: Vec<RawTc>,
}

/// A set of addresses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RawIpset {
    /// Its name.
    pub name: String,
    /// What is in it: `list:set`, `hash:net` or `hash:net,port`.
    pub ipset_type: String,
    /// Prefixes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cidrs: Vec<String>,
    /// Prefixes with a port each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cidr_and_ports: Vec<CidrAndPort>,
    /// Names of other sets.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub set_names: Vec<String>,
    /// The experiment that it belongs to.
    pub source: String,
}

/// A prefix and a port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CidrAndPort {
    /// The prefix.
    pub cidr: String,
    /// The port.
    #[schemars(extend("minimum" = 1))]
    pub port: u16,
}

/// A rule that stops packets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RawIptables {
    /// Its name.
    pub name: String,
    /// `input` or `output`.
    pub direction: String,
    /// Names of sets.
    #[schemars(extend("nullable" = true))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipsets: Option<Vec<String>>,
    /// Network device.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// The experiment that it belongs to.
    pub source: String,
}

/// A rule that delays, loses or changes packets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RawTc {
    /// `netem` or `bandwidth`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Name of a set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipset: Option<String>,
    /// Network device.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// The experiment that it belongs to.
    pub source: String,
    /// What is done to a packet.
    #[serde(flatten)]
    pub blocks: NetworkBlocks,
}

/// What has become of a pod's faults.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PodFaultStatus {
    /// Why they do not act.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failed_message: Option<String>,
    /// Generation of the object that this is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
}

/// What has become of a pod's faults, with the process that makes them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PodProcessStatus {
    /// Why they do not act.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failed_message: Option<String>,
    /// Generation of the object that this is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Number of the process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<i64>,
    /// When it was started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_time: Option<i64>,
}

/// Faults of one pod's files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PodIOChaos {
    /// The faults.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spec: Option<PodIOChaosSpec>,
    /// What has become of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<PodProcessStatus>,
}

/// Faults of one pod's files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PodIOChaosSpec {
    /// Path at which the volume is mounted.
    pub volume_mount_path: String,
    /// The container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    /// The faults.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub actions: Vec<RawIoAction>,
}

/// A fault of a pod's files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RawIoAction {
    /// What is done.
    #[serde(rename = "type")]
    pub kind: String,
    /// Which files.
    pub path: String,
    /// How often, in percent.
    pub percent: i64,
    /// Which operations.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<String>,
    /// Errors, one of which is returned.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub faults: Vec<RawErrno>,
    /// How late an operation is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency: Option<String>,
    /// What is wrong with the data.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mistake: Option<Mistake>,
    /// What is said of the file.
    #[serde(flatten)]
    pub attributes: FileAttributes,
    /// The experiment that it belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
}

/// An error and how likely it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RawErrno {
    /// Its number.
    pub errno: u32,
    /// How likely it is beside the others.
    pub weight: i32,
}

/// Faults of one pod's HTTP traffic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PodHttpChaos {
    /// The faults.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spec: Option<PodHttpChaosSpec>,
    /// What has become of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<PodProcessStatus>,
}

/// Faults of one pod's HTTP traffic.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PodHttpChaosSpec {
    /// The faults.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<RawHttpRule>,
    /// How to read encrypted traffic.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<HttpTls>,
}

/// A fault of a pod's HTTP traffic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RawHttpRule {
    /// `Request` or `Response`.
    pub target: String,
    /// Port of the service.
    pub port: i32,
    /// Which messages.
    pub selector: RawHttpSelector,
    /// What is done to them.
    pub actions: HttpActions,
    /// The experiment that it belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
}

/// Which HTTP messages.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RawHttpSelector {
    /// Port of the service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<i32>,
    /// Paths, with wildcards.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Method of the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// Status code of the response.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<i32>,
    /// Headers that the request must have.
    #[serde(rename = "request_headers", default, skip_serializing_if = "BTreeMap::is_empty")]
    pub request_headers: BTreeMap<String, String>,
    /// Headers that the response must have.
    #[serde(rename = "response_headers", default, skip_serializing_if = "BTreeMap::is_empty")]
    pub response_headers: BTreeMap<String, String>,
}

//! Faults of machines outside the cluster: the kind, and what it may be told to do.

pub mod host;
pub mod jvm;
pub mod network;
pub mod service;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use self::{host as h, jvm as j, network as n, service as s};
use super::free::FreeForm;
use super::selector::{MachineSelector, Mode};
use super::status::ExperimentStatus;

/// A machine outside the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PhysicalMachine {
    /// Where it is.
    pub spec: PhysicalMachineSpec,
}

/// Where a machine is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PhysicalMachineSpec {
    /// Address of the agent on the machine.
    pub address: String,
    /// What kfault adds to the kind.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kfault: Option<FreeForm>,
}

/// Faults of machines outside the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PhysicalMachineChaos {
    /// What is done to which machines.
    pub spec: PhysicalMachineChaosSpec,
    /// What has become of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<ExperimentStatus>,
}

/// What is done to which machines.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PhysicalMachineChaosSpec {
    /// What is done. The block of the same name says how.
    #[schemars(extend("enum" = ACTIONS))]
    pub action: String,
    /// Addresses of the machines. Excludes `selector`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub address: Vec<String>,
    /// Which machines. Excludes `address`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selector: Option<MachineSelector>,
    /// How many of the selected machines are chosen.
    pub mode: Mode,
    /// The number for mode `fixed`, the percentage for `fixed-percent` and `random-max-percent`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// Name of the run on the machines. Default: one at random.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
    /// What is done, by action.
    #[serde(flatten)]
    pub blocks: Blocks,
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

/// The actions. The blocks for HTTP exist without an action that would use them.
const ACTIONS: &[&str] = &[
    "stress-cpu",
    "stress-mem",
    "disk-read-payload",
    "disk-write-payload",
    "disk-fill",
    "network-corrupt",
    "network-duplicate",
    "network-loss",
    "network-delay",
    "network-partition",
    "network-dns",
    "network-bandwidth",
    "network-flood",
    "network-down",
    "process",
    "jvm-exception",
    "jvm-gc",
    "jvm-latency",
    "jvm-return",
    "jvm-stress",
    "jvm-rule-data",
    "jvm-mysql",
    "clock",
    "redis-expiration",
    "redis-penetration",
    "redis-cacheLimit",
    "redis-restart",
    "redis-stop",
    "kafka-fill",
    "kafka-flood",
    "kafka-io",
    "file-create",
    "file-modify",
    "file-delete",
    "file-rename",
    "file-append",
    "file-replace",
    "vm",
    "user_defined",
];

/// What is done, by action.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Blocks {
    /// Processors are loaded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stress_cpu: Option<h::StressCpu>,
    /// Memory is taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stress_mem: Option<h::StressMemory>,
    /// A disk is read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk_read_payload: Option<h::DiskPayload>,
    /// A disk is written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk_write_payload: Option<h::DiskPayload>,
    /// A disk is filled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk_fill: Option<h::DiskFill>,
    /// Packets are damaged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network_corrupt: Option<n::PacketShare>,
    /// Packets come twice.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network_duplicate: Option<n::PacketShare>,
    /// Packets are lost.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network_loss: Option<n::PacketShare>,
    /// Packets come late.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network_delay: Option<n::PacketDelay>,
    /// No packet passes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network_partition: Option<n::Partition>,
    /// Names are found at the wrong address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network_dns: Option<n::Dns>,
    /// The link is slow.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network_bandwidth: Option<n::Bandwidth>,
    /// The link is full.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network_flood: Option<n::Flood>,
    /// A network device is off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network_down: Option<n::Down>,
    /// Processes get a signal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub process: Option<h::Process>,
    /// A method throws.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jvm_exception: Option<j::Exception>,
    /// Garbage is collected.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jvm_gc: Option<j::Agent>,
    /// A method is late.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jvm_latency: Option<j::Latency>,
    /// A method returns something else.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jvm_return: Option<j::Return>,
    /// A Java program takes processors or memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jvm_stress: Option<j::Stress>,
    /// A rule is applied.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jvm_rule_data: Option<j::RuleData>,
    /// Statements for MySQL are late or fail.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jvm_mysql: Option<j::MySql>,
    /// A clock is ahead or behind.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clock: Option<h::Clock>,
    /// Keys of Redis expire.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub redis_expiration: Option<s::RedisExpiration>,
    /// Redis is asked for keys that it does not have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub redis_penetration: Option<s::RedisPenetration>,
    /// Redis gets less memory.
    #[serde(rename = "redis-cacheLimit", skip_serializing_if = "Option::is_none")]
    pub redis_cache_limit: Option<s::RedisCacheLimit>,
    /// A sentinel of Redis is restarted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub redis_restart: Option<s::RedisSentinel>,
    /// A sentinel of Redis is stopped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub redis_stop: Option<s::RedisSentinel>,
    /// Kafka's disk is filled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kafka_fill: Option<s::KafkaFill>,
    /// Kafka gets more messages than it likes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kafka_flood: Option<s::KafkaFlood>,
    /// Kafka cannot read or write.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kafka_io: Option<s::KafkaIo>,
    /// HTTP connections are cut.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http_abort: Option<s::HttpMatch>,
    /// HTTP messages are late.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http_delay: Option<s::HttpDelay>,
    /// HTTP faults from a file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http_config: Option<s::HttpConfig>,
    /// HTTP requests are sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http_request: Option<s::HttpRequest>,
    /// A file or folder is made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file_create: Option<h::FileOrFolder>,
    /// Permissions of a file are changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file_modify: Option<h::FilePrivilege>,
    /// A file or folder is removed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file_delete: Option<h::FileOrFolder>,
    /// A file is renamed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file_rename: Option<h::FileRename>,
    /// Text is put at the end of a file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file_append: Option<h::FileAppend>,
    /// Text in a file is replaced.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file_replace: Option<h::FileReplace>,
    /// A virtual machine is destroyed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vm: Option<h::Vm>,
    /// A command of your own is run.
    #[serde(rename = "user_defined", skip_serializing_if = "Option::is_none")]
    pub user_defined: Option<h::UserDefined>,
}

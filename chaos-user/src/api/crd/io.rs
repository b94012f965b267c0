//! Faults of files.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::free::FreeForm;
use super::selector::PodChoice;
use super::status::InstancesStatus;

/// File operations that are late, that fail, or that tell untruths.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct IOChaos {
    /// What is done to whom.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spec: Option<IOChaosSpec>,
    /// What has become of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<InstancesStatus>,
}

/// What is done to the files of which containers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct IOChaosSpec {
    /// Which pods.
    #[serde(flatten)]
    pub choice: PodChoice,
    /// What is done.
    pub action: IoAction,
    /// Path in the container at which a volume is mounted. Files below it are meant.
    pub volume_path: String,
    /// Which files, as a glob: `*` stays within a folder, `**` does not. Default: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Names of the operations that are meant, such as `read`. Default: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<String>,
    /// How often, in percent.
    #[schemars(extend("default" = 100))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub percent: Option<i64>,
    /// How late an operation is, as in `10ms`. Needed for `latency`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delay: Option<String>,
    /// Number of the error. Needed for `fault`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub errno: Option<u32>,
    /// What is said of files. Needed for `attrOverride`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attr: Option<FileAttributes>,
    /// What is wrong with the data. Meant for `mistake`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mistake: Option<Mistake>,
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

/// What is done to a file operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum IoAction {
    /// It is late.
    Latency,
    /// It fails.
    Fault,
    /// It says wrong things of the file.
    AttrOverride,
    /// It reads or writes wrong data.
    Mistake,
}

/// What is said of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FileAttributes {
    /// Number of the inode.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ino: Option<u64>,
    /// Size in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// Number of blocks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub blocks: Option<u64>,
    /// Time of the last access.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub atime: Option<Timespec>,
    /// Time of the last change of the data.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtime: Option<Timespec>,
    /// Time of the last change of the inode.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ctime: Option<Timespec>,
    /// `namedPipe`, `charDevice`, `blockDevice`, `directory`, `regularFile`, `symlink` or
    /// `socket`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Permissions as a decimal number: 420 is what `chmod` calls 644.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub perm: Option<u16>,
    /// Number of links.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nlink: Option<u32>,
    /// Number of the owner.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// Number of the group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gid: Option<u32>,
    /// Number of the device that the file stands for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rdev: Option<u32>,
}

/// A point in time, from 1970 on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Timespec {
    /// Seconds.
    pub sec: i64,
    /// Nanoseconds.
    pub nsec: i64,
}

/// What is wrong with the data of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Mistake {
    /// What is put in the place of the data.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filling: Option<Filling>,
    /// Most stretches of wrong data in one operation.
    #[schemars(extend("minimum" = 1))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_occurrences: Option<i64>,
    /// Longest stretch of wrong data, in bytes.
    #[schemars(extend("minimum" = 1))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_length: Option<i64>,
}

/// What is put in the place of data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Filling {
    /// Bytes that are 0.
    Zero,
    /// Bytes at random.
    Random,
}

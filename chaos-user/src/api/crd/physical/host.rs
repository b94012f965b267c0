//! Machines: their processors, memory, disks, files, processes and clocks.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Load on processors.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StressCpu {
    /// How busy each worker keeps one processor, in percent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub load: Option<i64>,
    /// How many work at it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workers: Option<i64>,
    /// More arguments of the program stress-ng.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
}

/// Memory that is taken.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StressMemory {
    /// How much, as in `256MB`, or as a percentage of what is free.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<String>,
    /// More arguments of the program stress-ng.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
}

/// A disk that is read or written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct DiskPayload {
    /// How much, as in `1GB`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<String>,
    /// File or device. Default: a temporary file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// How many work at it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub payload_process_num: Option<u8>,
}

/// A disk that is filled.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct DiskFill {
    /// How much, as in `1GB` or `50%`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<String>,
    /// File that is filled. Default: a temporary file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The space is reserved instead of written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fill_by_fallocate: Option<bool>,
}

/// Processes that get a signal.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Process {
    /// Name or number of the process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub process: Option<String>,
    /// Number of the signal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signal: Option<i64>,
    /// Command that brings the process back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recover_cmd: Option<String>,
}

/// A clock that is ahead or behind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Clock {
    /// Process whose clock it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<i64>,
    /// How far, as in `-10m`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_offset: Option<String>,
    /// Which clocks, with commas between.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clock_ids_slice: Option<String>,
}

/// A file or a folder.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct FileOrFolder {
    /// The file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file_name: Option<String>,
    /// The folder.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dir_name: Option<String>,
}

/// Permissions of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct FilePrivilege {
    /// The file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file_name: Option<String>,
    /// The permissions; the digits are those of `chmod`, as in 777.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub privilege: Option<u32>,
}

/// A new name of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct FileRename {
    /// The old name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_file: Option<String>,
    /// The new name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dest_file: Option<String>,
}

/// Text at the end of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct FileAppend {
    /// The file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file_name: Option<String>,
    /// The text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<String>,
    /// How many times.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<i64>,
}

/// Other text in a file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct FileReplace {
    /// The file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file_name: Option<String>,
    /// The text that goes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub origin_string: Option<String>,
    /// The text that comes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dest_string: Option<String>,
    /// The only line that is meant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<i64>,
}

/// A virtual machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Vm {
    /// Its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vm_name: Option<String>,
}

/// Commands of your own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UserDefined {
    /// Makes the fault.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attack_cmd: Option<String>,
    /// Ends it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recover_cmd: Option<String>,
}

//! Faults within Java programs.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::free::FreeForm;
use super::selector::PodChoice;
use super::status::ExperimentStatus;

/// Java programs whose methods are late, fail or return something else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct JVMChaos {
    /// What is done to whom.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spec: Option<JVMChaosSpec>,
    /// What has become of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<ExperimentStatus>,
}

/// What is done in the Java programs of which containers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct JVMChaosSpec {
    /// Which pods.
    #[serde(flatten)]
    pub choice: PodChoice,
    /// What is done.
    pub action: JvmAction,
    /// Class of the method that is meant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
    /// The method that is meant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// Milliseconds that a call loses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency: Option<i64>,
    /// What the method returns, as Java writes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub return_value: Option<String>,
    /// What the method throws, as Java writes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exception: Option<String>,
    /// Processors that `stress` keeps busy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_count: Option<i64>,
    /// Memory that `stress` takes: `stack` or `heap`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mem_type: Option<String>,
    /// A whole rule in the language of Byteman.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule_data: Option<String>,
    /// Major version of the MySQL client: `5` or `8`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mysql_connector_version: Option<String>,
    /// Database that is meant. Default: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub database: Option<String>,
    /// Table that is meant. Default: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub table: Option<String>,
    /// Kind of statement that is meant, such as `select`. Default: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sql_type: Option<String>,
    /// Name of the rule.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Port of the agent in the program. Default: 9277.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<i32>,
    /// Process. Without effect in a cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<i64>,
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

/// What is done in a Java program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum JvmAction {
    /// A method is late.
    Latency,
    /// A method returns something else.
    Return,
    /// A method throws.
    Exception,
    /// Processors are loaded, or memory is taken.
    Stress,
    /// Garbage is collected.
    Gc,
    /// A rule is applied.
    RuleData,
    /// Statements for MySQL are late or fail.
    Mysql,
}

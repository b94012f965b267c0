//! Java programs on machines.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Which program.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Agent {
    /// Port of the agent in the program.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<i32>,
    /// Number of its process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<i64>,
}

/// Which method.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Call {
    /// Its class.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
    /// Its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
}

/// A method that throws.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Exception {
    /// Which program.
    #[serde(flatten)]
    pub agent: Agent,
    /// Which method.
    #[serde(flatten)]
    pub call: Call,
    /// What it throws, as Java writes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exception: Option<String>,
}

/// A method that is late.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Latency {
    /// Which program.
    #[serde(flatten)]
    pub agent: Agent,
    /// Which method.
    #[serde(flatten)]
    pub call: Call,
    /// Milliseconds that a call loses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency: Option<i64>,
}

/// A method that returns something else.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Return {
    /// Which program.
    #[serde(flatten)]
    pub agent: Agent,
    /// Which method.
    #[serde(flatten)]
    pub call: Call,
    /// What it returns, as Java writes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
}

/// A program that takes processors or memory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Stress {
    /// Which program.
    #[serde(flatten)]
    pub agent: Agent,
    /// How many processors.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_count: Option<i64>,
    /// Which memory: `stack` or `heap`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mem_type: Option<String>,
}

/// A rule.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct RuleData {
    /// Which program.
    #[serde(flatten)]
    pub agent: Agent,
    /// The rule in the language of Byteman.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule_data: Option<String>,
}

/// Statements for MySQL that are late or fail.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MySql {
    /// Which program.
    #[serde(flatten)]
    pub agent: Agent,
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
    /// What is thrown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exception: Option<String>,
    /// Milliseconds that a statement loses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency: Option<i64>,
}

//! Experiments that come again and again.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::embedded::Embedded;
use super::free::FreeForm;
use super::workflow::WorkflowSpec;

/// Experiments and workflows that start by the clock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Schedule {
    /// What is started and when.
    pub spec: ScheduleSpec,
    /// What was started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<ScheduleStatus>,
}

/// What is started and when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ScheduleSpec {
    /// When, as a cron expression, optionally with seconds in front, or as in `@every 5m`.
    pub schedule: String,
    /// Kind of what is started. The block of that kind says what it is.
    #[serde(rename = "type")]
    pub kind: String,
    /// What happens when a start is due while the one before still acts.
    #[schemars(extend("default" = "Forbid"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub concurrency_policy: Option<ConcurrencyPolicy>,
    /// Seconds after which a start that was missed is given up.
    #[schemars(extend("minimum" = 0, "nullable" = true))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub starting_deadline_seconds: Option<i64>,
    /// How many finished children are kept.
    #[schemars(extend("minimum" = 1))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub history_limit: Option<i64>,
    /// The experiment to start.
    #[serde(flatten)]
    pub embedded: Embedded,
    /// The workflow to start.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workflow: Option<WorkflowSpec>,
    /// What kfault adds to the kind.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kfault: Option<FreeForm>,
}

/// What is started and when, within a workflow. It starts experiments only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NestedSchedule {
    /// When, as a cron expression, optionally with seconds in front, or as in `@every 5m`.
    pub schedule: String,
    /// Kind of what is started. The block of that kind says what it is.
    #[serde(rename = "type")]
    pub kind: String,
    /// What happens when a start is due while the one before still acts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub concurrency_policy: Option<ConcurrencyPolicy>,
    /// Seconds after which a start that was missed is given up.
    #[schemars(extend("minimum" = 0, "nullable" = true))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub starting_deadline_seconds: Option<i64>,
    /// How many finished children are kept.
    #[schemars(extend("minimum" = 1))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub history_limit: Option<i64>,
    /// The experiment to start.
    #[serde(flatten)]
    pub embedded: Embedded,
}

/// What happens when a start is due while the one before still acts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ConcurrencyPolicy {
    /// The start is left out.
    Forbid,
    /// Both act.
    Allow,
}

/// What a schedule has started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ScheduleStatus {
    /// Children that have not finished.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub active: Vec<ObjectReference>,
    /// When the last one was started.
    #[schemars(extend("format" = "date-time", "nullable" = true))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time: Option<String>,
}

/// Which object.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ObjectReference {
    /// Its API group and version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api_version: Option<String>,
    /// A part of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub field_path: Option<String>,
    /// Its kind.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Its version at that time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource_version: Option<String>,
    /// Its identity.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
}

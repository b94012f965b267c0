//! Whether something outside still works.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::free::FreeForm;

/// A question that is asked again and again: does it still work?
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StatusCheck {
    /// What is asked, and how often.
    pub spec: StatusCheckSpec,
    /// What the answers were.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<StatusCheckStatus>,
}

/// What is asked, and how often.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StatusCheckSpec {
    /// When it ends.
    #[schemars(extend("default" = "Synchronous"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<StatusCheckMode>,
    /// How it asks.
    // The public API demands it and fills it in where it is missing; so it is never missing.
    #[schemars(extend("default" = "HTTP"))]
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<StatusCheckType>,
    /// How long it asks at most, as in `10m`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration: Option<String>,
    /// Seconds to wait for an answer.
    #[schemars(extend("default" = 1, "minimum" = 1))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_seconds: Option<i64>,
    /// Seconds between two questions.
    #[schemars(extend("default" = 10, "minimum" = 1))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval_seconds: Option<i64>,
    /// How many failures in a row are a failure.
    #[schemars(extend("default" = 3, "minimum" = 1))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure_threshold: Option<i64>,
    /// How many successes in a row are a success.
    #[schemars(extend("default" = 1, "minimum" = 1))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub success_threshold: Option<i64>,
    /// How many answers are kept.
    #[schemars(extend("default" = 100, "minimum" = 1, "maximum" = 1000))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub records_history_limit: Option<i64>,
    /// The question.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpQuestion>,
    /// What kfault adds to the kind.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kfault: Option<FreeForm>,
}

/// When a check ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum StatusCheckMode {
    /// With the first success or failure.
    Synchronous,
    /// With the first failure, or when its time is over.
    Continuous,
}

/// How a check asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum StatusCheckType {
    /// By HTTP.
    Http,
}

/// A request, and which answer is a good one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HttpQuestion {
    /// Where it is sent to, with `http://` or `https://` in front.
    pub url: String,
    /// Its method.
    #[schemars(extend("default" = "GET"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<QuestionMethod>,
    /// Its headers.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, Vec<String>>,
    /// Its body.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// Which answer is a good one.
    pub criteria: HttpCriteria,
}

/// Method of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum QuestionMethod {
    /// It reads.
    Get,
    /// It sends something.
    Post,
}

/// Which answer is a good one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HttpCriteria {
    /// Its status code, or a range, as in `200-399`.
    pub status_code: String,
}

/// What the answers were.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StatusCheckStatus {
    /// When the first question was asked.
    #[schemars(extend("format" = "date-time"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_time: Option<String>,
    /// When the last was.
    #[schemars(extend("format" = "date-time"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completion_time: Option<String>,
    /// How many there were.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<i64>,
    /// What holds: `Completed`, `DurationExceed`, `FailureThresholdExceed` and
    /// `SuccessThresholdExceed`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<StatusCheckCondition>,
    /// The last answers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub records: Vec<StatusCheckRecord>,
}

/// Something that holds of a check or does not hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StatusCheckCondition {
    /// What it is about.
    #[serde(rename = "type")]
    pub kind: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// Why, in a word.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// When it was looked at last.
    #[schemars(extend("format" = "date-time", "nullable" = true))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_probe_time: Option<String>,
    /// Since when it is so.
    #[schemars(extend("format" = "date-time", "nullable" = true))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_transition_time: Option<String>,
}

/// One answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StatusCheckRecord {
    /// When it was asked for.
    #[schemars(extend("format" = "date-time"))]
    pub start_time: String,
    /// `Success` or `Failure`.
    pub outcome: String,
}

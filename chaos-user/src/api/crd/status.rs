//! What is reported of an experiment.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What has become of an experiment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExperimentStatus {
    /// What holds of the experiment as a whole: `Selected`, `AllInjected`, `AllRecovered` and
    /// `Paused`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// What is wanted of the experiment, and what has become of each target.
    // The public API demands it wherever there is a status. Here it may be absent, so that a
    // status from elsewhere, or one that holds `kfault` alone, is no reason to refuse an object.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub experiment: Option<Progress>,
    /// What kfault adds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kfault: Option<Summary>,
}

/// Something that holds or does not hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// What it is about.
    #[serde(rename = "type")]
    pub kind: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// Why, in a word.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// What is wanted, and what has become of each target.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Progress {
    /// What is wanted: `Run` or `Stop`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub desired_phase: Option<DesiredPhase>,
    /// One record per target. They are made once and then stay the same targets, unless
    /// `spec.kfault.follow` says otherwise.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub container_records: Vec<Record>,
}

/// What is wanted of an experiment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DesiredPhase {
    /// The fault is to act.
    Run,
    /// The fault is to be recovered.
    Stop,
}

/// What has become of one target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// The target: namespace and pod, and more where a kind acts on parts of a pod.
    pub id: String,
    /// Which selector chose it: `.` or `.Target`.
    pub selector_key: String,
    /// `Not Injected` or `Injected`; with `/Wait` behind it while that is under way.
    pub phase: String,
    /// How often the fault was applied to it.
    pub injected_count: i64,
    /// How often the fault was recovered.
    pub recovered_count: i64,
    /// What was tried, the latest last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub events: Vec<RecordEvent>,
}

/// One attempt on a target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RecordEvent {
    /// `Succeeded` or `Failed`.
    #[serde(rename = "type")]
    pub kind: String,
    /// `Apply` or `Recover`.
    pub operation: String,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// When it was.
    #[schemars(extend("format" = "date-time"))]
    pub timestamp: String,
}

/// An experiment in a few words and numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    /// Where the experiment is, in one word.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<String>,
    /// How many targets were chosen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub targets: Option<i64>,
    /// How often the fault has acted: packets, calls, requests.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub injected: Option<i64>,
    /// What the fault has matched.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub matched: Option<i64>,
    /// What it let pass because it could not read or change it, by reason.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub passed: BTreeMap<String, i64>,
    /// What of the experiment does not do what it seems to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// Uid of each chosen pod, or id of each chosen container, by the id of its record: one that
    /// is replaced under the same name is another one.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub chosen: BTreeMap<String, String>,
}

/// Status of a kind that keeps one generation per target.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct InstancesStatus {
    /// What every experiment reports.
    #[serde(flatten)]
    pub experiment: ExperimentStatus,
    /// Generation by target id.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub instances: BTreeMap<String, i64>,
}

//! The status of an experiment: what clients of the API read and wait for.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// `status` of an experiment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Status {
    /// Four of them, see [`ConditionKind`].
    #[serde(deserialize_with = "or_default")]
    pub conditions: Vec<Condition>,
    /// Phase and records.
    #[serde(deserialize_with = "or_default")]
    pub experiment: ExperimentStatus,
    /// By target's id: for network faults the generation of what asks its node for one that acts
    /// there, for loads who works there and since when.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "or_default")]
    pub instances: BTreeMap<String, Value>,
    /// What this project adds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kfault: Option<Summary>,
    /// What other clients wrote there. Kept.
    #[serde(flatten)]
    pub others: Map<String, Value>,
}

/// Something that is true or not about the experiment as a whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Condition {
    /// Which.
    #[serde(rename = "type")]
    pub kind: ConditionKind,
    /// `True` or `False`.
    pub status: Answer,
    /// Unused by the API; empty.
    #[serde(default)]
    pub reason: String,
}

/// The conditions that every experiment has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum ConditionKind {
    /// The targets were chosen.
    Selected,
    /// Every record is injected, and there is at least one.
    AllInjected,
    /// No record is injected, and there is at least one.
    AllRecovered,
    /// The pause annotation says so.
    Paused,
}

/// Truth as the API spells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// Yes.
    True,
    /// No.
    False,
}

impl From<bool> for Answer {
    fn from(value: bool) -> Self {
        if value { Self::True } else { Self::False }
    }
}

/// `status.experiment`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ExperimentStatus {
    /// What shall be the case. `None` before the controller has looked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub desired_phase: Option<DesiredPhase>,
    /// One record per chosen target. `None`: not chosen yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container_records: Option<Vec<Record>>,
}

/// What shall be the case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DesiredPhase {
    /// The fault acts.
    Run,
    /// It does not.
    Stop,
}

/// One target of an experiment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// `namespace/pod`, or `namespace/pod/container`.
    pub id: String,
    /// Which selector chose it: `.` or `.Target`.
    pub selector_key: String,
    /// Where it stands.
    pub phase: RecordPhase,
    /// How often it was injected.
    #[serde(default)]
    pub injected_count: i64,
    /// How often it was recovered.
    #[serde(default)]
    pub recovered_count: i64,
    /// The last attempts, oldest first; at most [`Record::EVENTS`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub events: Vec<RecordEvent>,
}

impl Record {
    /// How many events a record keeps.
    pub const EVENTS: usize = 100;

    /// A target to which nothing has happened yet.
    #[must_use]
    pub fn new(id: &str, selector_key: &str) -> Self {
        Self {
            id: id.to_owned(),
            selector_key: selector_key.to_owned(),
            phase: RecordPhase::NotInjected,
            injected_count: 0,
            recovered_count: 0,
            events: Vec::new(),
        }
    }

    /// Adds an event and drops the oldest where there are too many.
    pub fn note(&mut self, event: RecordEvent) {
        self.events.push(event);
        let surplus = self.events.len().saturating_sub(Self::EVENTS);
        self.events.drain(..surplus);
    }
}

/// Where a record stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RecordPhase {
    /// The fault does not act.
    #[serde(rename = "Not Injected")]
    NotInjected,
    /// It does not act yet; the node has been asked.
    #[serde(rename = "Not Injected/Wait")]
    NotInjectedWait,
    /// It acts.
    Injected,
    /// It still acts; the node has been asked to end it.
    #[serde(rename = "Injected/Wait")]
    InjectedWait,
}

impl RecordPhase {
    /// True while the fault may act.
    #[must_use]
    pub fn is_injected(self) -> bool {
        matches!(self, Self::Injected | Self::InjectedWait)
    }
}

/// One attempt on a record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordEvent {
    /// How it went.
    #[serde(rename = "type")]
    pub outcome: Outcome,
    /// What was attempted.
    pub operation: Operation,
    /// Why it failed; empty where it did not.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// When.
    pub timestamp: Timestamp,
}

/// How an attempt went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// As it should.
    Succeeded,
    /// It will be tried again.
    Failed,
}

/// What was attempted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Operation {
    /// Beginning the fault.
    Apply,
    /// Ending it.
    Recover,
}

/// `status.kfault`: what one line about an experiment needs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Summary {
    /// `Injecting`, `Running`, `Paused`, `Finished` or `Deleting`.
    pub phase: String,
    /// How many targets were chosen.
    pub targets: i64,
    /// How many times the fault has acted (packets, kills), as far as the nodes have told.
    pub injected: i64,
    /// What the fault has matched.
    pub matched: i64,
    /// What it let pass because it could not read or change it, by reason, as far as the nodes
    /// have told.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub passed: BTreeMap<String, i64>,
    /// What of the experiment does not do what it seems to.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// Uid of each chosen pod, or id of each chosen container, by the id of its record.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub chosen: BTreeMap<String, String>,
}

/// `null` is as good as absent: other writers are not as careful as we are.
fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

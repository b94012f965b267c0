//! Experiments and tasks in an order.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::embedded::Embedded;
use super::free::FreeForm;
use super::schedule::NestedSchedule;
use super::status::Condition;
use super::statuscheck::StatusCheckSpec;

/// Experiments and tasks that run one after another or side by side.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Workflow {
    /// What runs, and in which order.
    pub spec: WorkflowSpec,
    /// What has become of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<WorkflowStatus>,
}

/// What runs, and in which order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WorkflowSpec {
    /// Name of the template that runs first.
    pub entry: String,
    /// What there is to run.
    pub templates: Vec<Template>,
    /// What kfault adds to the kind.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kfault: Option<FreeForm>,
}

/// A step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Template {
    /// Its name, once in a workflow.
    pub name: String,
    /// What it is: `Task`, `Serial`, `Parallel`, `Suspend`, `StatusCheck`, `Schedule`, or the kind
    /// of an experiment.
    pub template_type: String,
    /// How long it may take, as in `5m`. It bounds an experiment in place of `duration`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadline: Option<String>,
    /// What a `Task` runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task: Option<Task>,
    /// Names of the steps within a `Serial` or `Parallel`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub children: Vec<String>,
    /// Where a `Task` leads to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditional_branches: Vec<ConditionalBranch>,
    /// The experiment.
    #[serde(flatten)]
    pub embedded: Embedded,
    /// The experiments of a `Schedule`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schedule: Option<NestedSchedule>,
    /// The check of a `StatusCheck`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status_check: Option<StatusCheckSpec>,
    /// The workflow ends when the check fails.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub abort_with_status_check: Option<bool>,
}

/// A pod that runs once.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Task {
    /// Its container, as in a pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<FreeForm>,
    /// Its volumes, as in a pod.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<FreeForm>,
    /// Its labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// Where a task leads to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConditionalBranch {
    /// Name of a step.
    pub target: String,
    /// When it runs: an expression over `exitCode` and `stdout`. Default: always.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expression: Option<String>,
}

/// What has become of a workflow.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WorkflowStatus {
    /// The step that runs first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entry_node: Option<String>,
    /// When it began.
    #[schemars(extend("format" = "date-time"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_time: Option<String>,
    /// When it ended.
    #[schemars(extend("format" = "date-time"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end_time: Option<String>,
    /// What holds of it: `Scheduled` and `Accomplished`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<WorkflowCondition>,
}

/// Something that holds of a workflow or does not hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WorkflowCondition {
    /// What it is about.
    #[serde(rename = "type")]
    pub kind: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// Why, in a word.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Since when.
    #[schemars(extend("format" = "date-time"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_time: Option<String>,
}

/// One step of a workflow that runs. The controller makes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WorkflowNode {
    /// What runs.
    pub spec: WorkflowNodeSpec,
    /// What has become of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<WorkflowNodeStatus>,
}

/// What runs in a step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WorkflowNodeSpec {
    /// The step's name in the workflow.
    pub template_name: String,
    /// The workflow.
    pub workflow_name: String,
    /// What it is, as in the workflow's `templateType`.
    #[serde(rename = "type")]
    pub kind: String,
    /// When it began.
    #[schemars(extend("format" = "date-time"))]
    pub start_time: String,
    /// When it has to be over.
    #[schemars(extend("format" = "date-time"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadline: Option<String>,
    /// What a `Task` runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task: Option<Task>,
    /// Names of the steps within a `Serial` or `Parallel`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub children: Vec<String>,
    /// Where a `Task` leads to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditional_branches: Vec<ConditionalBranch>,
    /// The experiment.
    #[serde(flatten)]
    pub embedded: Embedded,
    /// The experiments of a `Schedule`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schedule: Option<NestedSchedule>,
    /// The check of a `StatusCheck`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status_check: Option<StatusCheckSpec>,
    /// The workflow ends when the check fails.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub abort_with_status_check: Option<bool>,
    /// What kfault adds to the kind.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kfault: Option<FreeForm>,
}

/// What has become of a step.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WorkflowNodeStatus {
    /// The object that it has made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chaos_resource: Option<LocalObject>,
    /// Which branches of a task were taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub conditional_branches_status: Option<BranchesStatus>,
    /// Steps within it that run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub active_children: Vec<LocalName>,
    /// Steps within it that are over.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub finished_children: Vec<LocalName>,
    /// What holds of it: `Accomplished`, `DeadlineExceed`, `ChaosInjected` and `Aborted`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

/// An object in the same namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LocalObject {
    /// Its API group.
    #[schemars(extend("nullable" = true))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api_group: Option<String>,
    /// Its kind.
    pub kind: String,
    /// Its name.
    pub name: String,
}

/// The name of an object in the same namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LocalName {
    /// The name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// Which branches of a task were taken.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BranchesStatus {
    /// The branches.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub branches: Vec<BranchStatus>,
    /// What was known when they were chosen.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub context: Vec<String>,
}

/// Whether a branch was taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BranchStatus {
    /// Name of the step.
    pub target: String,
    /// `True`, `False` or `Unknown`.
    pub evaluation_result: String,
}

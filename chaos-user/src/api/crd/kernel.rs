//! Faults of the kernel's own resources.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::free::FreeForm;
use super::selector::PodChoice;
use super::status::ExperimentStatus;

/// Memory and blocks that the kernel does not get.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct KernelChaos {
    /// What is done to whom.
    pub spec: KernelChaosSpec,
    /// What has become of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<ExperimentStatus>,
}

/// What the kernel does not get for which pods.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct KernelChaosSpec {
    /// Which pods.
    #[serde(flatten)]
    pub choice: PodChoice,
    /// What fails.
    pub fail_kern_request: FailKernRequest,
    /// Known to the public API and without effect: the whole pod is meant.
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

/// What fails in the kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FailKernRequest {
    /// 0: small pieces of memory. 1: pages of memory. 2: blocks of a disk.
    #[schemars(extend("minimum" = 0, "maximum" = 2))]
    pub failtype: i32,
    /// Kernel headers that the conditions need.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<String>,
    /// Functions that must be under way, the outermost first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub callchain: Vec<Frame>,
    /// How often, in percent.
    #[schemars(extend("minimum" = 0, "maximum" = 100))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub probability: Option<u32>,
    /// How many times at most.
    #[schemars(extend("minimum" = 0))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub times: Option<u32>,
}

/// A function that must be under way.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Frame {
    /// Its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub funcname: Option<String>,
    /// Its parameters, as the kernel's sources write them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parameters: Option<String>,
    /// What must hold of the parameters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub predicate: Option<String>,
}

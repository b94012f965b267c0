//! Other clusters.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::free::FreeForm;
use super::status::Condition;

/// Another cluster that experiments can run in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RemoteCluster {
    /// How to reach it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spec: Option<RemoteClusterSpec>,
    /// What it is like.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<RemoteClusterStatus>,
}

/// How to reach a cluster, and what has to be installed there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RemoteClusterSpec {
    /// Namespace there.
    pub namespace: String,
    /// Version that is wanted there.
    pub version: String,
    /// How to reach it.
    pub kube_config: KubeConfig,
    /// Values for the installation there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config_override: Option<FreeForm>,
    /// What kfault adds to the kind.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kfault: Option<FreeForm>,
}

/// How to reach a cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct KubeConfig {
    /// The secret that says how.
    pub secret_ref: SecretKey,
}

/// An entry of a secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretKey {
    /// Namespace of the secret.
    pub namespace: String,
    /// Name of the secret.
    pub name: String,
    /// Name of the entry.
    pub key: String,
}

/// What a cluster is like.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RemoteClusterStatus {
    /// Version that is installed there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub current_version: Option<String>,
    /// What holds of it: `Installed` and `Ready`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// Generation of the object that this is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
}

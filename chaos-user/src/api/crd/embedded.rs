//! Experiments as part of something larger.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::network::NetworkChaosSpec;
use super::pod::PodChaosSpec;

/// An experiment of any kind, in a field named after the kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Embedded {
    /// Faults of the network.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network_chaos: Option<NetworkChaosSpec>,
    /// Pods and containers that are killed or broken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod_chaos: Option<PodChaosSpec>,
}

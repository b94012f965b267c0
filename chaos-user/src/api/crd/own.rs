//! Kinds of our own group: how the controller and the nodes talk to each other.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::free::FreeForm;

/// What one experiment does on one node. The controller makes it, the node reports in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeFault {
    /// What is to act there.
    pub spec: FreeForm,
    /// What acts there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<FreeForm>,
}

/// Addresses at the other end of rules, kept once for all nodes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PeerSet {
    /// The addresses.
    pub spec: FreeForm,
}

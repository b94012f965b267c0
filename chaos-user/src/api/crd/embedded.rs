//! Experiments as part of something larger.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::block::BlockChaosSpec;
use super::cloud::{AWSChaosSpec, AzureChaosSpec, GCPChaosSpec};
use super::dns::DNSChaosSpec;
use super::http::HTTPChaosSpec;
use super::io::IOChaosSpec;
use super::jvm::JVMChaosSpec;
use super::kernel::KernelChaosSpec;
use super::network::NetworkChaosSpec;
use super::physical::PhysicalMachineChaosSpec;
use super::pod::PodChaosSpec;
use super::stress::StressChaosSpec;
use super::time::TimeChaosSpec;

/// An experiment of any kind, in a field named after the kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Embedded {
    /// Machines of AWS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aws_chaos: Option<AWSChaosSpec>,
    /// Machines of Azure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub azure_chaos: Option<AzureChaosSpec>,
    /// Block devices.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub block_chaos: Option<BlockChaosSpec>,
    /// Name resolution.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dns_chaos: Option<DNSChaosSpec>,
    /// Machines of Google Cloud.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gcp_chaos: Option<GCPChaosSpec>,
    /// HTTP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http_chaos: Option<HTTPChaosSpec>,
    /// Files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub io_chaos: Option<IOChaosSpec>,
    /// Java programs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jvm_chaos: Option<JVMChaosSpec>,
    /// The kernel's own resources.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kernel_chaos: Option<KernelChaosSpec>,
    /// The network.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network_chaos: Option<NetworkChaosSpec>,
    /// Machines outside the cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub physicalmachine_chaos: Option<PhysicalMachineChaosSpec>,
    /// Pods and containers that are killed or broken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod_chaos: Option<PodChaosSpec>,
    /// Load on processors and memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stress_chaos: Option<StressChaosSpec>,
    /// Clocks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_chaos: Option<TimeChaosSpec>,
}

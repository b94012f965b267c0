//! Faults of machines that a cloud runs.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::free::FreeForm;
use super::status::ExperimentStatus;

/// Machines of AWS that stop, restart or lose a volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AWSChaos {
    /// What is done to which machine.
    pub spec: AWSChaosSpec,
    /// What has become of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<ExperimentStatus>,
}

/// What is done to a machine of AWS.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AWSChaosSpec {
    /// What is done.
    pub action: AwsAction,
    /// Region of the machine.
    pub aws_region: String,
    /// Identifier of the machine.
    pub ec2_instance: String,
    /// Secret with the credentials. Default: those that the controller has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_name: Option<String>,
    /// Address of the API. Default: that of the region.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// Volume to detach.
    #[serde(rename = "volumeID", skip_serializing_if = "Option::is_none")]
    pub volume_id: Option<String>,
    /// Device that the volume is attached as.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device_name: Option<String>,
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

/// What is done to a machine of AWS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum AwsAction {
    /// It is stopped.
    Ec2Stop,
    /// It is restarted.
    Ec2Restart,
    /// It loses a volume.
    DetachVolume,
}

/// Machines of Google Cloud that stop, restart or lose disks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GCPChaos {
    /// What is done to which machine.
    pub spec: GCPChaosSpec,
    /// What has become of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<GcpStatus>,
}

/// What is done to a machine of Google Cloud.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GCPChaosSpec {
    /// What is done.
    pub action: GcpAction,
    /// Project of the machine.
    pub project: String,
    /// Zone of the machine.
    pub zone: String,
    /// Name of the machine.
    pub instance: String,
    /// Secret with the credentials. Default: those that the controller has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_name: Option<String>,
    /// Devices of the disks to detach.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub device_names: Vec<String>,
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

/// What is done to a machine of Google Cloud.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum GcpAction {
    /// It is stopped.
    NodeStop,
    /// It is restarted.
    NodeReset,
    /// It loses disks.
    DiskLoss,
}

/// What has become of a fault of a machine of Google Cloud.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GcpStatus {
    /// What every experiment reports.
    #[serde(flatten)]
    pub experiment: ExperimentStatus,
    /// How the lost disks were attached.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attached_disk_strings: Vec<String>,
}

/// Machines of Azure that stop, restart or lose a disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AzureChaos {
    /// What is done to which machine.
    pub spec: AzureChaosSpec,
    /// What has become of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<ExperimentStatus>,
}

/// What is done to a machine of Azure.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AzureChaosSpec {
    /// What is done.
    pub action: AzureAction,
    /// Subscription of the machine.
    #[serde(rename = "subscriptionID")]
    pub subscription_id: String,
    /// Resource group of the machine.
    pub resource_group_name: String,
    /// Name of the machine.
    pub vm_name: String,
    /// Secret with the credentials. Default: those that the controller has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_name: Option<String>,
    /// Disk to detach.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk_name: Option<String>,
    /// Number that the disk is attached as.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lun: Option<i64>,
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

/// What is done to a machine of Azure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum AzureAction {
    /// It is stopped.
    VmStop,
    /// It is restarted.
    VmRestart,
    /// It loses a disk.
    DiskDetach,
}

//! Strains: what an experiment does to the resources of one target, apart from its packets.
//!
//! A strain is a [`Load`], workers that use resources in the target's cgroup, or [`Limits`] on
//! that cgroup. Like rules they are values: comparable, printable, serialisable.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Cgroup, is_zero_i32, is_zero_u32, serde_duration};

/// One experiment's effect on the resources of one target.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Strain {
    /// Stable name, unique in a plan: `StressChaos/ns/name/unit:web.service`.
    pub id: String,
    /// `Kind/namespace/name` of the experiment.
    pub experiment: String,
    /// The workload that it acts on, as the user wrote it (`unit:web.service`), for people.
    pub target: String,
    /// Where it acts.
    pub place: Place,
    /// What it does.
    pub grip: Grip,
    /// One sentence for people: "2 workers at 30 % of a processor each in unit:web.service".
    pub describes: String,
    /// How long it acts from the moment it is applied; `None` = until recovered.
    #[serde(skip_serializing_if = "Option::is_none", default, with = "serde_duration")]
    pub duration: Option<Duration>,
    /// Look whether it could act, and report; start nothing, change nothing.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub dry_run: bool,
}

/// The cgroup of a target, and its first process.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Place {
    /// Its cgroup of the v2 hierarchy, which exists on hybrid hosts too. The controllers of v1
    /// have a cgroup of the same path, or that which the first process is in.
    pub cgroup: Cgroup,
    /// The process with which the target ends, a container's first one. 0: the target is the
    /// cgroup as such, or there is no host.
    #[serde(skip_serializing_if = "is_zero_u32", default)]
    pub leader: u32,
}

/// What a strain does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Grip {
    /// Workers that use resources.
    Load(Load),
    /// Limits of the cgroup.
    Limits(Limits),
}

/// Workers in the target's cgroup. At least one of the four.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Load {
    /// Workers that compute.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub cpu: Option<CpuLoad>,
    /// Workers that take memory.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub memory: Option<MemoryLoad>,
    /// Workers that flush the target's file system (`sync`).
    #[serde(skip_serializing_if = "is_zero_u32", default)]
    pub sync_workers: u32,
    /// Workers that write files.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub disk: Option<DiskLoad>,
}

/// Workers that compute.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct CpuLoad {
    /// How many; 0: one for each processor.
    pub workers: u32,
    /// How much of one processor each of them uses, percent, 0 to 100.
    pub percent: u32,
}

/// Workers that take memory, keep it and keep it resident.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct MemoryLoad {
    /// How many; 0: one for each processor.
    pub workers: u32,
    /// How much they take together.
    pub size: Amount,
    /// How long they take to reach that size, growing steadily, nanoseconds. 0: at once.
    #[serde(skip_serializing_if = "super::is_zero_u64", default)]
    pub ramp_ns: u64,
    /// `oom_score_adj` of the workers, -1000 to 1000.
    #[serde(skip_serializing_if = "is_zero_i32", default)]
    pub oom_score_adj: i32,
}

/// Workers that write a file each in the target's file system, and begin anew when it is full.
/// The file has no name, so that it goes with its worker.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct DiskLoad {
    /// How many, at least 1.
    pub workers: u32,
    /// Size of each one's file, bytes.
    pub bytes: u64,
}

/// An amount of memory.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Amount {
    /// Bytes.
    Bytes(u64),
    /// Percent of the node's memory (`MemTotal`).
    PercentOfNode(f64),
    /// Percent of the target's own limit: the lowest of its cgroup and those above it.
    PercentOfLimit(f64),
}

/// Limits of the target's cgroup. What was there before comes back.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Limits {
    /// Processor time.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub cpu: Option<CpuQuota>,
    /// `memory.high`: above it the kernel slows the target down and reclaims. v2 only.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub memory_high: Option<Amount>,
    /// Throughput of disks, sorted by device.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub io: Vec<IoLimit>,
    /// `pids.max`: how many tasks there may be.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub pids_max: Option<u64>,
    /// No process of the target runs.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub freeze: bool,
}

impl Limits {
    /// The fields that are set, as a manifest writes them.
    pub fn fields(&self) -> impl Iterator<Item = &'static str> {
        let io = |is_set: fn(&IoLimit) -> bool| self.io.iter().any(is_set);
        [
            ("cpu.quota", self.cpu.is_some()),
            ("memory.high", self.memory_high.is_some()),
            ("io.readBps", io(|limit| limit.read_bps.is_some())),
            ("io.writeBps", io(|limit| limit.write_bps.is_some())),
            ("io.readIops", io(|limit| limit.read_iops.is_some())),
            ("io.writeIops", io(|limit| limit.write_iops.is_some())),
            ("pids.max", self.pids_max.is_some()),
            ("freeze", self.freeze),
        ]
        .into_iter()
        .filter_map(|(field, is_set)| is_set.then_some(field))
    }
}

/// Processor time that the target may use.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum CpuQuota {
    /// Percent of one processor; 150 is one and a half.
    PercentOfOne(f64),
    /// Percent of the target's own quota; of all processors where it has none.
    PercentOfLimit(f64),
}

/// Throughput of one disk. `None`: as it was.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct IoLimit {
    /// `MAJOR:MINOR` or a path like `/dev/sda`; `None`: every whole disk of the host.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub device: Option<String>,
    /// Bytes read per second.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub read_bps: Option<u64>,
    /// Bytes written per second. v1 counts direct writes only: refused there.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub write_bps: Option<u64>,
    /// Reads per second.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub read_iops: Option<u64>,
    /// Writes per second.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub write_iops: Option<u64>,
}

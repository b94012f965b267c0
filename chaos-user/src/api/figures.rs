//! What a strain does, in numbers.

use serde::{Deserialize, Serialize};

/// What the workers of a strain use, and how its target fares. Sums count from the moment at which
/// the strain was applied; what the kernel does not count there is 0.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Figures {
    /// Workers that were asked for.
    pub workers: u32,
    /// Workers that are at work.
    pub running: u32,
    /// How often a worker that had ended was started again.
    pub restarts: u64,
    /// Processes of the target's cgroup, workers among them, that were killed for want of memory.
    pub oom_kills: u64,
    /// Processor time of the workers, seconds.
    pub cpu_seconds: f64,
    /// Memory that the workers have taken and that is resident, bytes.
    pub resident_bytes: u64,
    /// The most that was resident at any look, bytes.
    pub resident_peak_bytes: u64,
    /// Processor time of the whole cgroup, seconds.
    pub cgroup_cpu_seconds: f64,
    /// Memory of the whole cgroup now, bytes.
    pub cgroup_memory_bytes: u64,
    /// Periods in which the cgroup wanted more processor time than it may have.
    pub throttled_periods: u64,
    /// How long it was kept from running by that, seconds.
    pub throttled_seconds: f64,
    /// How often it was slowed down above `memory.high` (v2).
    pub memory_high_events: u64,
    /// Share of the last 10 s in which some task waited for a processor, for memory, for a disk,
    /// percent (v2 with pressure stall information).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pressure: Option<[f64; 3]>,
    /// Limits that are in force.
    pub limits_set: u32,
}

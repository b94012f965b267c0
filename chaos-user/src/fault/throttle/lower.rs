//! A throttle and its workloads as strains and rules.

use super::ThrottleChaos;
use crate::fault::grip::{self, amount, size};
use crate::fault::network::{self, NetworkChaos};
use crate::fault::{Experiment, LowerError, Lowered, Options};
use crate::plan::strain::{CpuQuota, Grip, IoLimit, Limits};
use crate::select::Workload;

/// Lowers one experiment. Sources were chosen by `select`.
///
/// # Errors
/// See [`LowerError`].
pub fn lower(
    experiment: &Experiment,
    spec: &ThrottleChaos,
    sources: &[Workload],
    options: &Options,
) -> Result<Lowered, LowerError> {
    let mut lowered = Lowered::default();
    if spec.limits != Limits::default() {
        let grip = Grip::Limits(spec.limits.clone());
        let words = describe(&spec.limits);
        lowered = grip::lower(experiment, sources, options, None, &grip, &words)?;
    }
    if let Some(rate) = &spec.rate {
        let link = NetworkChaos::of_rate(spec.source.clone(), rate.clone());
        let Lowered { rules, warnings, .. } =
            network::lower(experiment, &link, sources, None, options)?;
        lowered.rules = rules;
        lowered.warnings.extend(warnings);
        lowered.warnings.dedup();
    }
    Ok(lowered)
}

/// "at most 20 % of a processor, at most 100 tasks".
fn describe(limits: &Limits) -> String {
    let Limits { cpu, memory_high, io, pids_max, freeze } = limits;
    let mut words = Vec::new();
    match cpu {
        Some(CpuQuota::PercentOfOne(percent)) => {
            words.push(format!("at most {percent} % of one processor"));
        }
        Some(CpuQuota::PercentOfLimit(percent)) => {
            words.push(format!("at most {percent} % of the target's own processor time"));
        }
        None => {}
    }
    if let Some(high) = memory_high {
        words.push(format!("slowed down above {}", amount(*high)));
    }
    words.extend(io.iter().map(disk));
    if let Some(max) = pids_max {
        words.push(format!("at most {max} tasks"));
    }
    if *freeze {
        words.push("nothing runs".to_owned());
    }
    words.join(", ")
}

fn disk(limit: &IoLimit) -> String {
    let IoLimit { device, read_bps, write_bps, read_iops, write_iops } = limit;
    let bytes = |what, bps: &Option<u64>| bps.map(|bps| format!("{} {what} per second", size(bps)));
    let count = |what, iops: &Option<u64>| iops.map(|iops| format!("{iops} {what} per second"));
    let all = [
        bytes("read", read_bps),
        bytes("written", write_bps),
        count("reads", read_iops),
        count("writes", write_iops),
    ];
    let all: Vec<String> = all.into_iter().flatten().collect();
    let device = device.as_deref().unwrap_or("each disk");
    format!("at most {} on {device}", all.join(", "))
}

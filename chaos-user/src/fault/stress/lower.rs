//! A load and its workloads as strains.

use std::time::Duration;

use super::StressChaos;
use crate::api::duration::GoDuration;
use crate::fault::grip::{self, amount, size};
use crate::fault::{Experiment, LowerError, Lowered, Options};
use crate::plan::strain::{Grip, Load};
use crate::select::Workload;

/// Lowers one experiment. Sources were chosen by `select`.
///
/// # Errors
/// See [`LowerError`].
pub fn lower(
    experiment: &Experiment,
    spec: &StressChaos,
    sources: &[Workload],
    options: &Options,
) -> Result<Lowered, LowerError> {
    if spec.load == Load::default() {
        // Reading has said so already.
        return Ok(Lowered::default());
    }
    let grip = Grip::Load(spec.load.clone());
    grip::lower(experiment, sources, options, spec.timeout, &grip, &describe(&spec.load))
}

/// "2 workers at 30 % of a processor each, 1 worker with 256 MB".
fn describe(load: &Load) -> String {
    let Load { cpu, memory, sync_workers, disk } = load;
    let mut words = Vec::new();
    if let Some(cpu) = cpu {
        let each = if cpu.workers == 1 { "" } else { " each" };
        let (all, percent) = (workers(cpu.workers), cpu.percent);
        words.push(format!("{all} at {percent} % of a processor{each}"));
    }
    if let Some(memory) = memory {
        let mut text = format!("{} with {}", workers(memory.workers), amount(memory.size));
        if memory.workers != 1 {
            text.push_str(" together");
        }
        if memory.ramp_ns > 0 {
            let ramp = GoDuration::from(Duration::from_nanos(memory.ramp_ns));
            text.push_str(&format!(" reached in {ramp}"));
        }
        words.push(text);
    }
    if *sync_workers > 0 {
        let verb = if *sync_workers == 1 { "flushes" } else { "flush" };
        words.push(format!("{} that {verb} the file system", workers(*sync_workers)));
    }
    if let Some(disk) = disk {
        let verb = if disk.workers == 1 { "writes" } else { "write" };
        let all = workers(disk.workers);
        words.push(format!("{all} that {verb} files of {}", size(disk.bytes)));
    }
    words.join(", ")
}

fn workers(count: u32) -> String {
    match count {
        0 => "one worker for each processor".to_owned(),
        1 => "1 worker".to_owned(),
        n => format!("{n} workers"),
    }
}

//! A cgroup that is stressed, and one beside it that must not notice.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kfault_tests::cgroup::Cgroup;
use kfault_tests::clock::{now_ns, wait_for};
use kfault_tests::kfault::{Kfault, Run};
use kfault_tests::manifest::Manifest;
use kfault_tests::ns::Ns;
use kfault_tests::probe::process::Process;
use serde_json::Value;

/// What a neighbour's own life may cost meanwhile.
const NEIGHBOUR_CPU: Duration = Duration::from_millis(100);
const NEIGHBOUR_MEMORY: u64 = 1 << 20;

/// Both cgroups, with processor time and memory counted.
pub struct Scene {
    // Before its cgroup, which goes when it is empty.
    neighbour: Process,
    /// What is stressed.
    pub target: Cgroup,
    other: Cgroup,
    other_cpu: u64,
    other_memory: u64,
}

impl Scene {
    /// Makes them.
    pub fn new() -> Result<Self> {
        let (target, other) = (Cgroup::in_all("stressed")?, Cgroup::in_all("unstressed")?);
        let neighbour = Process::start(&Ns::here()?, Some(&other))?;
        let (other_cpu, other_memory) = (cpu_ns(&other)?, memory_bytes(&other)?);
        Ok(Self { neighbour, target, other, other_cpu, other_memory })
    }

    /// A run on the target.
    pub fn run(&self, manifest: &Manifest) -> Result<Run> {
        Ok(Run::of(manifest)?.target(&self.target.word()).seed(1))
    }

    /// Stresses the target, checks, ends it; nothing is left and the neighbour is unharmed.
    pub fn with(
        &self,
        manifest: &Manifest,
        check: impl FnOnce(&mut Kfault) -> Result<()>,
    ) -> Result<Value> {
        let mut kfault = self.run(manifest)?.start()?;
        check(&mut kfault)?;
        let summary = kfault.stop()?;
        self.ensure_over("after recovery")?;
        Ok(summary.json()["strains"][0].clone())
    }

    /// Nothing is left in the target, and the neighbour has not noticed anything.
    pub fn ensure_over(&self, when: &str) -> Result<()> {
        let left = pids(&self.target)?;
        ensure!(left.is_empty(), "{when} there are processes in the target: {left:?}");
        self.ensure_unharmed()
    }

    /// The neighbour has not noticed anything.
    pub fn ensure_unharmed(&self) -> Result<()> {
        let pids = pids(&self.other)?;
        ensure!(pids == [self.neighbour.pid()], "the neighbour's cgroup has {pids:?}");
        let cpu = Duration::from_nanos(cpu_ns(&self.other)? - self.other_cpu);
        ensure!(cpu < NEIGHBOUR_CPU, "the neighbour has used {cpu:?}");
        let more = memory_bytes(&self.other)?.saturating_sub(self.other_memory);
        ensure!(more < NEIGHBOUR_MEMORY, "the neighbour has taken {more} bytes");
        ensure!(oom_kills(&self.other)? == 0, "something of the neighbour's was killed");
        Ok(())
    }

    /// The workers, which are all that is in the target.
    pub fn workers(&self) -> Result<Vec<u32>> {
        let pids = pids(&self.target)?;
        for pid in &pids {
            let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            ensure!(
                command.starts_with(b"kfault\0worker\0"),
                "process {pid} of the target is no worker: {:?}",
                String::from_utf8_lossy(&command)
            );
        }
        Ok(pids)
    }

    /// Waits until nobody is in the target.
    pub fn is_empty_within(&self, patience: Duration) -> bool {
        wait_for(patience, || self.target.is_empty())
    }
}

/// Processes of a cgroup.
pub fn pids(cgroup: &Cgroup) -> Result<Vec<u32>> {
    let text = cgroup.read("cgroup.procs")?;
    text.lines().map(|line| line.parse().context("a process id")).collect()
}

/// Processor time that a cgroup has used, nanoseconds.
pub fn cpu_ns(cgroup: &Cgroup) -> Result<u64> {
    match cgroup.file("cpuacct.usage") {
        Some(_) => Ok(cgroup.read("cpuacct.usage")?.trim().parse()?),
        None => Ok(field(&cgroup.read("cpu.stat")?, "usage_usec")? * 1000),
    }
}

/// Memory that a cgroup uses, bytes.
pub fn memory_bytes(cgroup: &Cgroup) -> Result<u64> {
    let files = ["memory.usage_in_bytes", "memory.current"];
    let file = files.into_iter().find(|file| cgroup.file(file).is_some());
    let text = cgroup.read(file.context("no controller counts memory")?)?;
    text.trim().parse().with_context(|| format!("{text:?}"))
}

/// Processes of a cgroup that were killed for want of memory.
pub fn oom_kills(cgroup: &Cgroup) -> Result<u64> {
    let files = ["memory.oom_control", "memory.events"];
    let file = files.into_iter().find(|file| cgroup.file(file).is_some());
    field(&cgroup.read(file.context("no controller counts memory")?)?, "oom_kill")
}

/// Limits the memory of a cgroup, bytes.
pub fn limit_memory(cgroup: &Cgroup, bytes: u64) -> Result<()> {
    let files = ["memory.limit_in_bytes", "memory.max"];
    let file = files.into_iter().find(|file| cgroup.file(file).is_some());
    cgroup.write(file.context("no controller limits memory")?, &bytes.to_string())
}

/// Limits the processor time of a cgroup to this percentage of one processor.
pub fn limit_cpu(cgroup: &Cgroup, percent: u64) -> Result<()> {
    match cgroup.file("cpu.max") {
        Some(_) => cgroup.write("cpu.max", &format!("{} 100000", percent * 1000)),
        None => cgroup.write("cpu.cfs_quota_us", &(percent * 1000).to_string()),
    }
}

fn field(text: &str, name: &str) -> Result<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.with_context(|| format!("no {name} in {text:?}"))?.trim().parse().context("a number")
}

/// The figures of the next report.
pub fn figures(kfault: &mut Kfault) -> Result<Value> {
    Ok(kfault.event("counters")?["strains"][0]["figures"].clone())
}

/// Waits for a report whose strain fulfils this; the strain.
pub fn strain(
    kfault: &mut Kfault,
    patience: Duration,
    what: &str,
    is_it: impl Fn(&Value) -> bool,
) -> Result<Value> {
    let end = now_ns() + kfault_tests::clock::ns(patience);
    loop {
        let strain = kfault.event("counters")?["strains"][0].clone();
        if is_it(&strain) {
            return Ok(strain);
        }
        ensure!(now_ns() < end, "{what} is not reported within {patience:?}: {strain}");
    }
}

/// Processor time of a process and time that it waited for a processor, nanoseconds. The latter
/// is 0 where the kernel does not count it.
pub fn used_and_waited(pid: u32) -> Result<(u64, u64)> {
    let pid = i32::try_from(pid).context("a process id")?;
    let mut clock = 0;
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: valid pointers; the second call has the clock that the first one gave.
    let is_known = unsafe {
        libc::clock_getcpuclockid(pid, &raw mut clock) == 0
            && libc::clock_gettime(clock, &raw mut time) == 0
    };
    ensure!(is_known, "the processor time of process {pid}");
    let used = time.tv_sec.cast_unsigned() * 1_000_000_000 + time.tv_nsec.cast_unsigned();
    let mut waited = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task")).context("threads of a worker")?.flatten()
    {
        let text = fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
        waited += text.split_whitespace().nth(1).and_then(|ns| ns.parse().ok()).unwrap_or(0);
    }
    Ok((used, waited))
}

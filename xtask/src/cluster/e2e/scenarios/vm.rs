//! What a stock kernel with nothing but cgroup v2 has and this machine may lack.

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::super::Bench;
use super::{Scenario, Tier, delayed};

/// Run where one node is a virtual machine.
pub const VM: &[(&str, Scenario, Tier)] = &[(
    "on a stock kernel packets wait in fq, below cgroups that systemd has made",
    fq,
    Tier::Full,
)];

fn fq(bench: &Bench<'_>) -> Result<()> {
    let vm = bench.vm.as_ref().context("no node is a virtual machine")?.name();
    let find = |what: &str| {
        let script = format!("for one in /run/netns/*; do nsenter --net=$one {what}; done");
        bench.on_node(&vm, "sh", &["-c", &script])
    };
    let hierarchies = bench.on_node(&vm, "cat", &["/proc/self/cgroup"])?;
    ensure!(hierarchies.lines().count() == 1, "more than cgroup v2: {hierarchies}");
    let slices = bench.on_node(&vm, "ls", &["/sys/fs/cgroup/kubepods.slice"])?;
    ensure!(slices.contains("kubepods-besteffort.slice"), "not made by systemd: {slices}");
    ensure!(!find("tc qdisc")?.contains("fa17:"), "a queue of kfault's is there already");

    bench.apply(&delayed("delay", &json!({})))?;
    bench.condition("networkchaos/delay", "AllInjected")?;
    bench.connects("web", 200, 250)?;
    let queues = find("tc qdisc")?;
    // Of one pod: the neighbour beside it keeps the queue that it had.
    ensure!(queues.matches("qdisc fq fa17:").count() == 1, "queues: {queues}");
    bench.neighbour_is_well()?;
    bench.kubectl(&["delete", "networkchaos/delay", "--timeout=10s"])?;
    bench.connects("web", 0, 50)?;
    let queues = find("tc qdisc")?;
    ensure!(!queues.contains("fa17:"), "left behind: {queues}");
    Ok(())
}

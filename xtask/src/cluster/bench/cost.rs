//! What kfault costs a cluster: memory, CPU, and requests to the API server.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::goal::{Findings, Goal};
use super::{Bench, MANY, NODE};

/// For how long an idle process is watched.
const IDLE: Duration = Duration::from_secs(60);
/// Changes of a pod that no experiment knows.
const CHANGES: usize = 20;
/// After this time the last change has been looked at.
const SETTLED: Duration = Duration::from_secs(2);

const EXPERIMENTS: &str = "apis/chaos-mesh.org/v1alpha1/namespaces/default/networkchaos";

pub fn cost(bench: &Bench<'_>, findings: &mut Findings) -> Result<()> {
    let agent = process(&format!("kf-{NODE}"), "agent")?;
    let before = ticks(agent)?;
    let start = Instant::now();
    std::thread::sleep(IDLE);
    let idle = (ticks(agent)? - before) / start.elapsed().as_secs_f64() * 100.0;
    findings.ours("agent without an experiment: CPU", "%", idle, Goal::AtMost(0.1));
    findings.ours("agent without an experiment: resident", "MB", resident(agent)?, Goal::Told);

    let object = json!({
        "apiVersion": "chaos-mesh.org/v1alpha1",
        "kind": "NetworkChaos",
        "metadata": { "name": "cost" },
        "spec": {
            "action": "delay",
            "mode": "all",
            "selector": { "labelSelectors": { "app": "target" } },
            "delay": { "latency": "100ms" },
        },
    });
    bench.server.post(EXPERIMENTS, &object)?;
    bench.until("the experiment", || {
        let object = bench.server.get(&format!("{EXPERIMENTS}/cost"))?;
        let records = object["status"]["experiment"]["containerRecords"].as_array();
        let records = records.map(Vec::as_slice).unwrap_or_default();
        Ok(records.len() == MANY && records.iter().all(|one| one["phase"] == "Injected"))
    })?;
    let (memory, before, start) = (resident(agent)?, ticks(agent)?, Instant::now());
    let figure = format!("agent with {MANY} targets");
    findings.ours(format!("{figure}: resident"), "MB", memory, Goal::AtMost(25.0));
    std::thread::sleep(Duration::from_secs(20));
    let busy = (ticks(agent)? - before) / start.elapsed().as_secs_f64() * 100.0;
    findings.ours(format!("{figure}: CPU"), "%", busy, Goal::Told);
    let controller = ["kf-node-a", "kf-node-b"]
        .iter()
        .find_map(|node| process(node, "controller").ok())
        .context("no controller runs")?;
    let memory = resident(controller)?;
    findings.ours("controller: resident", "MB", memory, Goal::AtMost(50.0));

    let (pod, _) = bench.pods("neighbour")?.into_iter().next().context("no neighbour")?;
    std::thread::sleep(SETTLED);
    let before = writes(bench)?;
    for round in 0..CHANGES {
        let patch = json!({ "metadata": { "labels": { "round": round.to_string() } } });
        bench.server.patch(&format!("api/v1/namespaces/default/pods/{pod}"), &patch)?;
    }
    std::thread::sleep(SETTLED);
    // Counters of the rules come every five seconds whatever pods do: none was matched.
    let each = (writes(bench)? - before) / CHANGES as f64;
    findings.ours("writes per change of an unrelated pod", "", each, Goal::AtMost(0.0));
    bench.server.delete(&format!("{EXPERIMENTS}/cost"))?;
    Ok(())
}

/// The process `kfault WHAT` in a pod of a node.
fn process(node: &str, what: &str) -> Result<u32> {
    let start = format!("/kfault\0{what}\0");
    let is_it = |pid: &u32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let cgroups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        line.starts_with(start.as_bytes()) && cgroups.contains(&format!("/{node}/kubepods"))
    };
    let names = fs::read_dir("/proc")?.flatten().map(|entry| entry.file_name());
    let found = names.filter_map(|name| name.to_str()?.parse().ok()).find(is_it);
    found.with_context(|| format!("no `kfault {what}` runs on {node}"))
}

/// Megabytes of memory that a process has in use.
fn resident(pid: u32) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let kilobytes: f64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kilobytes * 1024.0 / 1e6)
}

/// Seconds of CPU that a process has used.
fn ticks(pid: u32) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name, which may hold spaces, ends with the last parenthesis; then come fields 3, 4, …
    let (_, rest) = stat.rsplit_once(')').context("no name in /proc/PID/stat")?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let of = |field: usize| -> Result<f64> {
        Ok(fields.get(field - 3).context("too few fields in /proc/PID/stat")?.parse()?)
    };
    // SAFETY: takes a number, changes nothing.
    let per_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) } as f64;
    ensure!(per_second > 0.0, "the system has no clock tick");
    Ok((of(14)? + of(15)?) / per_second)
}

/// Writes that the API server has taken for the kinds that are kfault's to write.
fn writes(bench: &Bench<'_>) -> Result<f64> {
    let metrics = bench.server.text("metrics")?;
    let is_write = |line: &&str| {
        line.starts_with("apiserver_request_total{")
            && ["group=\"chaos-mesh.org\"", "group=\"kfault.dev\""].iter().any(|g| line.contains(g))
            && ["POST", "PUT", "PATCH", "APPLY", "DELETE"]
                .iter()
                .any(|verb| line.contains(&format!("verb=\"{verb}\"")))
    };
    let lines = metrics.lines().filter(is_write);
    Ok(lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum())
}

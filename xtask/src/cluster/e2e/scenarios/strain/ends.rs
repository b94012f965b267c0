//! How loads and limits end, and what does not end them.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::super::super::Bench;
use super::super::crash::Program;
use super::super::{object, shop};
use super::{Pod, busy, container, no_workers, throttle, web, workers};

/// An agent that is killed lets go of what it froze and loaded, and takes it up again.
pub fn with_their_agent(bench: &Bench<'_>) -> Result<()> {
    bench.need_nodes()?;
    let spec = json!({
        "mode": "all", "selector": web(), "stressors": { "cpu": { "workers": 1, "load": 20 } },
    });
    let before = pids(bench)?;
    bench.apply(&object("StressChaos", "busy", &spec))?;
    bench.apply(&throttle("few", &web(), &json!({ "pids": { "max": 100 } })))?;
    for what in ["stresschaos/busy", "throttlechaos/few"] {
        bench.condition(what, "AllInjected")?;
    }
    ensure!(pids(bench)?.iter().all(|max| max == "100"), "pids.max is {:?}", pids(bench)?);
    Program::Agent.signal(bench, "KILL")?;
    let mut all = 0;
    for node in bench.nodes()? {
        all += workers(bench, &node)?;
    }
    ensure!(all <= 2, "{all} workers after the agents were killed");
    let web = shop::pods(bench, "default", "app=web")?;
    bench.until("the load to be there again", || {
        let loaded = |pod: &Pod| Ok::<_, anyhow::Error>(busy(bench, pod, 2)? > 15.0);
        Ok(web.iter().map(loaded).collect::<Result<Vec<_>>>()?.into_iter().all(|is| is))
    })?;
    for what in ["stresschaos/busy", "throttlechaos/few"] {
        bench.kubectl(&["delete", what, "--timeout=40s"])?;
    }
    no_workers(bench)?;
    ensure!(pids(bench)? == before, "pids.max is left at {:?}", pids(bench)?);
    Ok(())
}

/// `pids.max` of every web container.
fn pids(bench: &Bench<'_>) -> Result<Vec<String>> {
    let of = |pod: &Pod| {
        let container = container(bench, pod)?;
        let id = container["containerID"].as_str().unwrap_or_default();
        let id = id.rsplit('/').next().unwrap_or_default();
        let script = format!("cat $(find /sys/fs/cgroup -path '*{id}*' -name pids.max | head -1)");
        Ok(bench.on_node(&pod.node, "sh", &["-c", &script])?.trim().to_owned())
    };
    shop::pods(bench, "default", "app=web")?.iter().map(of).collect()
}

/// Processes of ours that work on the nodes, by their ids there.
fn ids_of_workers(bench: &Bench<'_>) -> Result<Vec<String>> {
    let script = "for p in /proc/[0-9]*; do tr '\\0' ' ' 2>/dev/null <$p/cmdline | \
                  grep -q '^kfault worker' && echo ${p#/proc/}; done; true";
    let mut all = Vec::new();
    for node in bench.nodes()? {
        let said = bench.on_node(&node, "sh", &["-c", script])?;
        all.extend(said.lines().map(|pid| format!("{node}: {pid}")));
    }
    Ok(all)
}

/// An experiment that a node refuses, and later another that it takes: the processes of the one
/// that was there before are the same all the time.
pub fn not_with_a_neighbours_refusal(bench: &Bench<'_>) -> Result<()> {
    bench.need_nodes()?;
    let spec = json!({
        "mode": "all", "selector": web(), "stressors": { "cpu": { "workers": 1, "load": 20 } },
    });
    bench.apply(&object("StressChaos", "busy", &spec))?;
    bench.condition("stresschaos/busy", "AllInjected")?;
    let before = ids_of_workers(bench)?;
    ensure!(before.len() == 2, "{before:?}");
    let io = json!({ "io": { "devices": ["4242:1"], "readBps": "1Mi" } });
    bench.apply(&throttle("nowhere", &web(), &io))?;
    bench.until("the refusal to be told", || {
        let told = bench.get(&["throttlechaos/nowhere"])?.to_string();
        Ok(told.contains("no block device 4242:1") || told.contains("no cgroup v2"))
    })?;
    bench.apply(&throttle("few", &web(), &json!({ "pids": { "max": 100 } })))?;
    bench.condition("throttlechaos/few", "AllInjected")?;
    ensure!(pids(bench)?.iter().all(|max| max == "100"), "pids.max is {:?}", pids(bench)?);
    let now = ids_of_workers(bench)?;
    ensure!(now == before, "workers are {now:?} and were {before:?}");
    for what in ["throttlechaos/nowhere", "throttlechaos/few", "stresschaos/busy"] {
        bench.kubectl(&["delete", what, "--timeout=20s"])?;
    }
    no_workers(bench)
}

/// An agent that dies again and again is away for a while; the guard it leaves behind is not.
pub fn without_an_agent(bench: &Bench<'_>) -> Result<()> {
    bench.need_nodes()?;
    let before = pids(bench)?;
    bench.apply(&throttle("few", &web(), &json!({ "pids": { "max": 100 } })))?;
    bench.condition("throttlechaos/few", "AllInjected")?;
    // The kubelet starts it anew at once, and from the second time on after ten seconds and more.
    bench
        .within(Duration::from_secs(90), "limits that end without an agent", || {
            Program::Agent.signal(bench, "KILL").ok();
            for _ in 0..5 {
                let is_back = Program::Agent.runs(bench)?;
                let now = pids(bench)?;
                if !is_back && now == before && !Program::Agent.runs(bench)? {
                    return Ok(true);
                }
                std::thread::sleep(Duration::from_secs(1));
            }
            Ok(false)
        })
        .with_context(|| format!("pids.max is {:?} and was {before:?}", pids(bench)))?;
    bench.neighbour_is_well()?;
    bench.kubectl(&["delete", "throttlechaos/few", "--timeout=60s"])?;
    Program::Agent.renew(bench)
}

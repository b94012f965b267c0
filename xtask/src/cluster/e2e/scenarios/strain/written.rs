//! Other ways to write a load down: stress-ng's words, shares of a limit, a schedule.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::json;

use super::super::super::Bench;
use super::super::{object, shop};
use super::{Pod, no_workers, usage, web, workers};

/// So much more than before is resident in every one of these containers.
fn is_more(bench: &Bench<'_>, pods: &[Pod], before: &[u64], bytes: u64) -> Result<()> {
    for (pod, before) in pods.iter().zip(before) {
        let more = usage(bench, pod)?.memory.saturating_sub(*before);
        let most = bytes + bytes / 20 + 2_000_000;
        // The server itself gives some back meanwhile.
        let least = bytes - bytes / 100;
        ensure!((least..=most).contains(&more), "{}: {more} bytes more, not {bytes}", pod.name);
    }
    Ok(())
}

/// The words of stress-ng, which win over the stressors; and half of each container's limit.
pub fn words_and_shares(bench: &Bench<'_>) -> Result<()> {
    bench.need_nodes()?;
    let memory = |pods: &[Pod]| -> Result<Vec<u64>> {
        pods.iter().map(|pod| Ok(usage(bench, pod)?.memory)).collect()
    };
    let web_pods = shop::pods(bench, "default", "app=web")?;
    let limited = shop::app(bench, "myapp2")?;
    let (web_before, limited_before) = (memory(&web_pods)?, memory(&limited)?);
    let spec = json!({
        "mode": "all", "selector": web(),
        "stressngStressors": "--vm 1 --vm-bytes 50M --vm-keep",
        "stressors": { "cpu": { "workers": 1, "load": 50 } },
    });
    bench.apply(&object("StressChaos", "words", &spec))?;
    let spec = json!({
        "mode": "all", "selector": shop::selector("myapp2"),
        "stressors": { "memory": { "workers": 1, "size": "50%" } },
        "kfault": { "memoryOf": "limit" },
    });
    bench.apply(&object("StressChaos", "half", &spec))?;
    bench.condition("stresschaos/words", "AllInjected")?;
    bench.condition("stresschaos/half", "AllInjected")?;
    std::thread::sleep(Duration::from_secs(1));
    is_more(bench, &web_pods, &web_before, 50 * 1024 * 1024)?;
    is_more(bench, &limited, &limited_before, 32 * 1024 * 1024)?;
    let mut all = 0;
    for node in bench.nodes()? {
        all += workers(bench, &node)?;
    }
    ensure!(all == web_pods.len() + limited.len(), "{all} workers: one for each container");
    bench.kubectl(&["delete", "stresschaos/words", "stresschaos/half", "--timeout=20s"])?;
    no_workers(bench)
}

/// A load every ten seconds, each for four.
pub fn schedule(bench: &Bench<'_>) -> Result<()> {
    bench.need_nodes()?;
    let load = json!({
        "mode": "all", "selector": web(), "duration": "4s",
        "stressors": { "cpu": { "workers": 1, "load": 10 } },
    });
    let spec = json!({
        "schedule": "@every 10s", "type": "StressChaos", "concurrencyPolicy": "Forbid",
        "historyLimit": 2, "stressChaos": load,
    });
    bench.apply(&object("Schedule", "loads", &spec))?;
    for round in ["first", "second"] {
        bench.within(Duration::from_secs(20), &format!("the {round} load"), || {
            Ok(bench.nodes()?.iter().map(|node| workers(bench, node)).sum::<Result<usize>>()? == 2)
        })?;
        bench.within(Duration::from_secs(10), &format!("the end of the {round} load"), || {
            Ok(no_workers(bench).is_ok())
        })?;
    }
    bench.kubectl(&["delete", "schedule/loads", "--timeout=20s"])?;
    no_workers(bench)
}

//! The manifests of `deploy/examples` that need a cluster, applied as their first lines say. The
//! others are run by the kernel tests; a golden test looks that none is forgotten.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::super::Bench;

const KILL: &str = "pod-kill.yaml";
const FAILURE: &str = "pod-failure.yaml";
const CONTAINER: &str = "pod-container-kill.yaml";
const SCHEDULE: &str = "schedule-pod-kill.yaml";

/// A schedule of every two minutes needs no longer.
const ROUND: Duration = Duration::from_secs(130);

fn apply(bench: &Bench<'_>, name: &str) -> Result<()> {
    let file = crate::root().join("deploy/examples").join(name).display().to_string();
    let said = bench.kubectl(&["apply", "--filename", &file])?;
    ensure!(said.contains("created"), "{name}: {said}");
    Ok(())
}

fn restarts(bench: &Bench<'_>) -> Result<i64> {
    let list = bench.get(&["pods", "--selector=app=web"])?;
    let all = list["items"].as_array().cloned().unwrap_or_default();
    let count = |pod: &Value| pod["status"]["containerStatuses"][0]["restartCount"].as_i64();
    Ok(all.iter().filter_map(count).sum())
}

/// How many of the pods of then are no more.
fn gone(bench: &Bench<'_>, before: &[(String, String)]) -> Result<usize> {
    let now = bench.pods("web")?;
    Ok(before.iter().filter(|(name, _)| now.iter().all(|(other, _)| other != name)).count())
}

pub fn pods(bench: &Bench<'_>) -> Result<()> {
    let before = bench.pods("web")?;
    apply(bench, KILL)?;
    bench.condition("podchaos/web-pod-kill", "AllInjected")?;
    bench.until("one pod to go", || Ok(gone(bench, &before)? == 1))?;
    bench.kubectl(&["rollout", "status", "--timeout=60s", "deployment/web"])?;

    let restarted = restarts(bench)?;
    apply(bench, CONTAINER)?;
    bench.condition("podchaos/web-container-kill", "AllInjected")?;
    bench.until("one restart", || Ok(restarts(bench)? == restarted + 1))?;
    bench.kubectl(&["rollout", "status", "--timeout=60s", "deployment/web"])?;

    // New pods: a container that was killed before waits longer for each start.
    bench.kubectl(&["rollout", "restart", "deployment/web"])?;
    bench.kubectl(&["rollout", "status", "--timeout=60s", "deployment/web"])?;
    apply(bench, FAILURE)?;
    bench.condition("podchaos/web-pod-failure", "AllInjected")?;
    let address = |bench: &Bench<'_>| -> Result<String> {
        let object = bench.get(&["podchaos/web-pod-failure"])?;
        let id = object["status"]["experiment"]["containerRecords"][0]["id"].clone();
        let id = id.as_str().context("nobody was chosen")?.to_owned();
        let all = bench.pods("web")?;
        let pod = all.into_iter().find(|(name, _)| id == format!("default/{name}"));
        pod.map(|(_, address)| address).context("the chosen pod is not there")
    };
    let address = address(bench)?;
    bench.until("it to fail", || Ok(bench.connect(&address)?.is_none()))?;
    let ended = Duration::from_secs(60);
    bench.within(ended, "it to work again", || Ok(bench.connect(&address)?.is_some())).map(drop)?;
    bench.neighbour_is_well()
}

pub fn schedule(bench: &Bench<'_>) -> Result<()> {
    let before = bench.pods("web")?;
    apply(bench, SCHEDULE)?;
    bench.within(ROUND, "the schedule to start one", || {
        let selector = "--selector=managed-by=web-pod-kill-often";
        let list = bench.get(&["podchaos", selector])?;
        Ok(list["items"].as_array().is_some_and(|all| !all.is_empty()))
    })?;
    bench.until("one pod to go", || Ok(gone(bench, &before)? == 1))?;
    bench.neighbour_is_well()
}

//! Experiments that follow pods, and the addresses at their other end.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::super::Bench;
use super::{delayed, object};

/// Ids and phases of an experiment's records.
fn records(bench: &Bench<'_>, name: &str) -> Result<Vec<(String, String)>> {
    let status = bench.get(&["networkchaos", name])?["status"].clone();
    let all = status["experiment"]["containerRecords"].as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    Ok(all.iter().map(|one| (text(&one["id"]), text(&one["phase"]))).collect())
}

/// Holds when the records are those of the application's pods, and all of them are injected.
fn are_targets(bench: &Bench<'_>, name: &str, app: &str) -> Result<bool> {
    let mut pods: Vec<String> =
        bench.pods(app)?.into_iter().map(|(pod, _)| format!("default/{pod}")).collect();
    pods.sort();
    let records = records(bench, name)?;
    Ok(records.iter().all(|(_, phase)| phase == "Injected")
        && records.into_iter().map(|(id, _)| id).collect::<Vec<_>>() == pods)
}

fn scale(bench: &Bench<'_>, replicas: usize) -> Result<()> {
    let replicas = format!("--replicas={replicas}");
    bench.kubectl(&["scale", "deployment/web", &replicas])?;
    bench.kubectl(&["rollout", "status", "--timeout=60s", "deployment/web"]).map(drop)
}

/// New, replaced and restarted pods.
pub fn pods(bench: &Bench<'_>) -> Result<()> {
    bench.apply(&delayed("delay", &json!({ "kfault": { "follow": true } })))?;
    bench.condition("networkchaos/delay", "AllInjected")?;
    bench.connects("web", 200, 250)?;

    // A container that starts anew is in the same network as before.
    let (name, _) = bench.pods("web")?.remove(0);
    let restarts = || -> Result<i64> {
        let pod = bench.get(&["pod", &name])?;
        pod["status"]["containerStatuses"][0]["restartCount"].as_i64().context("no restart count")
    };
    let before = restarts()?;
    // The connection of the command may end with its container.
    let _ = bench.kubectl(&["exec", &name, "--", "sh", "-c", "kill 1"]);
    bench.until("the container's restart", || Ok(restarts()? > before))?;
    bench.until("the restarted container to answer late", || {
        Ok(bench.connects("web", 200, 250).is_ok())
    })?;
    ensure!(are_targets(bench, "delay", "web")?, "records: {:?}", records(bench, "delay")?);

    bench.kubectl(&["delete", "pod", &name, "--timeout=30s"])?;
    bench.kubectl(&["rollout", "status", "--timeout=60s", "deployment/web"])?;
    let took = bench
        .until("the pod in its place to be a target", || are_targets(bench, "delay", "web"))?;
    println!("  a replaced pod is on record {} ms after it is ready", took.as_millis());
    bench.condition("networkchaos/delay", "AllInjected")?;
    bench.connects("web", 200, 250)?;

    let grown = scale(bench, 3).and_then(|()| {
        bench.until("the third pod to be a target", || are_targets(bench, "delay", "web"))?;
        bench.connects("web", 200, 250)
    });
    scale(bench, 2)?;
    grown?;
    bench.until("the record of the third pod to go", || are_targets(bench, "delay", "web"))?;
    bench.condition("networkchaos/delay", "AllInjected")?;
    bench.neighbour_is_well()?;
    bench.kubectl(&["delete", "networkchaos/delay", "--timeout=10s"])?;
    bench.connects("web", 0, 50)
}

/// From the client to pods of the application.
pub fn towards(name: &str, mode: &str) -> Value {
    let mut experiment = delayed(name, &json!({}));
    let web = json!({ "labelSelectors": { "app": "web" } });
    experiment["spec"]["selector"] = json!({ "labelSelectors": { "app": "client" } });
    experiment["spec"]["target"] = json!({ "mode": mode, "selector": web });
    object("NetworkChaos", name, &experiment["spec"])
}

/// A rule in the source's pod sees the ClusterIP, not the pod behind it.
pub fn cluster_ip(bench: &Bench<'_>) -> Result<()> {
    let service = bench.get(&["service/web"])?;
    let address = service["spec"]["clusterIP"].as_str().context("no ClusterIP")?;
    let is_late = || -> Result<bool> {
        let time = bench.connect(address)?.context("the ClusterIP does not answer")?;
        Ok(time >= Duration::from_millis(200))
    };
    ensure!(!is_late()?, "late without a fault");
    bench.apply(&towards("whole", "all"))?;
    bench.condition("networkchaos/whole", "AllInjected")?;
    ensure!(is_late()?, "the ClusterIP of a Service is not matched");
    bench.connects("web", 200, 250)?;
    bench.neighbour_is_well()?;

    // One endpoint more than there are targets: the address is not theirs any more.
    let shared = scale(bench, 3).and_then(|()| {
        bench.until("the ClusterIP not to be matched any more", || Ok(!is_late()?))?;
        let warned = || {
            let status = bench.get(&["networkchaos/whole"])?["status"]["kfault"].clone();
            Ok(status["warnings"].to_string().contains("the Service default/web"))
        };
        bench.until("the warning that names the Service", warned).map(drop)
    });
    bench.kubectl(&["delete", "networkchaos/whole", "--timeout=10s"])?;
    scale(bench, 2)?;
    shared?;

    bench.apply(&towards("part", "one"))?;
    bench.condition("networkchaos/part", "AllInjected")?;
    let status = bench.get(&["networkchaos/part"])?["status"]["kfault"].clone();
    let expected = "1 of the 2 endpoints of the Service default/web";
    ensure!(status["warnings"].to_string().contains(expected), "no warning: {status}");
    ensure!(!is_late()?, "the ClusterIP is matched for one of two endpoints");
    bench.kubectl(&["delete", "networkchaos/part", "--timeout=10s"]).map(drop)
}

/// Addresses are written once for all nodes.
pub fn peer_sets(bench: &Bench<'_>) -> Result<()> {
    let mut both = towards("both", "all");
    both["spec"]["direction"] = json!("both");
    bench.apply(&both)?;
    bench.condition("networkchaos/both", "AllInjected")?;
    let items = |what: &str| -> Result<Vec<Value>> {
        Ok(bench.get(&[what])?["items"].as_array().cloned().unwrap_or_default())
    };
    let faults = items("nodefaults")?;
    for fault in &faults {
        let spec = &fault["spec"];
        let pods = [&spec["sources"], &spec["targets"]].map(|side| side.as_array().cloned());
        for pod in pods.into_iter().flatten().flatten() {
            ensure!(pod["node"] == spec["node"], "a pod of another node: {spec}");
            ensure!(pod["addresses"].is_null(), "an address: {spec}");
        }
        ensure!(spec["peers"].as_array().is_some_and(|all| all.len() == 2), "PeerSets: {spec}");
    }
    let sets = items("peersets")?;
    ensure!(sets.len() == 2, "{} PeerSets", sets.len());
    bench.connects("web", 400, 480)?;

    // Without its PeerSet a fault would match nobody or everybody: it is made again.
    bench.kubectl(&["delete", "peersets", "--all"])?;
    bench.until("the PeerSets to come back", || Ok(items("peersets")?.len() == 2))?;
    bench.until("the delay to act", || Ok(bench.connects("web", 400, 480).is_ok()))?;
    bench.condition("networkchaos/both", "AllInjected")?;
    bench.neighbour_is_well()?;
    bench.kubectl(&["delete", "networkchaos/both", "--timeout=10s"])?;
    bench.connects("web", 0, 50)?;
    bench.until("the PeerSets to go", || Ok(items("peersets")?.is_empty())).map(drop)
}

//! What a first user does: the example application, and the best known experiments on it.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::super::Bench;
use super::{object, shop};

const PAUSE: &str = "experiment.chaos-mesh.org/pause";

fn kill_one() -> Value {
    json!({
        "action": "pod-kill", "mode": "one", "selector": { "namespaces": [shop::NAMESPACE] },
    })
}

/// Uids of the shop's pods.
fn uids(bench: &Bench<'_>) -> Result<BTreeSet<String>> {
    Ok(shop::pods(bench, shop::NAMESPACE, "app")?.into_iter().map(|pod| pod.uid).collect())
}

pub fn pod_kill(bench: &Bench<'_>) -> Result<()> {
    let (before, strangers) = (uids(bench)?, shop::strangers(bench)?);
    ensure!(before.len() == 4, "{} pods in the shop", before.len());
    bench.apply(&object("PodChaos", "one", &kill_one()))?;
    bench.condition("podchaos/one", "AllInjected")?;
    let lost = |bench: &Bench<'_>| Ok::<_, anyhow::Error>(before.difference(&uids(bench)?).count());
    bench.until("one pod to go", || Ok(lost(bench)? == 1))?;
    shop::is_complete(bench)?;
    // Nothing can be paused that is over when it is done.
    bench.kubectl(&["annotate", "podchaos/one", &format!("{PAUSE}=true")])?;
    bench.condition("podchaos/one", "Paused")?;
    std::thread::sleep(Duration::from_secs(3));
    let status = bench.get(&["podchaos/one"])?["status"].clone();
    ensure!(status["experiment"]["desiredPhase"] == "Run", "a one-shot stopped: {status}");
    bench.condition("podchaos/one", "AllInjected")?;
    let id = status["experiment"]["containerRecords"][0]["id"].as_str().unwrap_or_default();
    ensure!(id.starts_with("shop/myapp"), "the record's id: {id}");
    ensure!(lost(bench)? == 1, "more than one pod was killed");
    ensure!(shop::strangers(bench)? == strangers, "pods of another namespace were killed");
    bench.kubectl(&["delete", "podchaos/one", "--timeout=10s"]).map(drop)
}

pub fn schedule(bench: &Bench<'_>) -> Result<()> {
    let strangers = shop::strangers(bench)?;
    let spec = |schedule: &str| {
        json!({
            "schedule": schedule, "type": "PodChaos", "historyLimit": 2,
            "concurrencyPolicy": "Allow", "podChaos": kill_one(),
        })
    };
    bench.apply(&object("Schedule", "rarely", &spec("*/2 * * * *")))?;
    let stored = bench.get(&["schedules/rarely"])?["spec"].clone();
    for (key, value) in spec("*/2 * * * *").as_object().into_iter().flatten() {
        ensure!(key == "podChaos" || stored[key] == *value, "{key} is stored as {}", stored[key]);
    }
    bench.apply(&object("Schedule", "often", &spec("@every 5s")))?;
    let children = || -> Result<Vec<Value>> {
        let list = bench.get(&["podchaos", "--selector=managed-by=often"])?;
        Ok(list["items"].as_array().cloned().unwrap_or_default())
    };
    let mut seen = BTreeSet::new();
    let mut times = BTreeSet::new();
    let start = std::time::Instant::now();
    while seen.len() < 5 {
        ensure!(start.elapsed() < Duration::from_secs(50), "only {seen:?} within 50 s");
        let now = children()?;
        // Two that are kept, and one that has just begun.
        ensure!(now.len() <= 4, "{} children, and the limit is 2", now.len());
        for child in &now {
            let name = child["metadata"]["name"].as_str().unwrap_or_default().to_owned();
            let suffix = name.strip_prefix("often-").unwrap_or_default();
            ensure!(suffix.len() == 5, "a child is called {name}");
            let owner = &child["metadata"]["ownerReferences"][0];
            let is_owned = owner["kind"] == "Schedule" && owner["controller"] == true;
            ensure!(is_owned && owner["name"] == "often", "the owner of {name}: {owner}");
            seen.insert(name);
        }
        let status = bench.get(&["schedules/often"])?["status"].clone();
        times.extend(status["time"].as_str().map(str::to_owned));
        for active in status["active"].as_array().into_iter().flatten() {
            ensure!(active["kind"] == "PodChaos", "what is active: {active}");
        }
        std::thread::sleep(Duration::from_millis(300));
    }
    ensure!(times.len() >= 4, "the times of the starts: {times:?}");
    let events = bench.get(&["events", "--field-selector=reason=Spawned"])?;
    let events = events["items"].as_array().cloned().unwrap_or_default();
    let told = events.iter().filter(|one| one["involvedObject"]["name"] == "often").count();
    ensure!(told >= 5, "{told} starts were told");
    bench.kubectl(&["delete", "schedules/often", "schedules/rarely", "--timeout=20s"])?;
    bench.until("the children to go", || Ok(children()?.is_empty()))?;
    ensure!(shop::strangers(bench)? == strangers, "pods of another namespace were killed");
    shop::is_complete(bench)
}

/// Half a second, twice: once for the connection and once for the request.
pub fn delay(bench: &Bench<'_>) -> Result<()> {
    let spec = json!({
        "action": "delay", "mode": "all", "selector": shop::selector("myapp1"),
        "delay": { "latency": "500ms", "jitter": "0ms" },
    });
    let (hit, others) = (shop::app(bench, "myapp1")?, shop::app(bench, "myapp2")?);
    let neighbour = bench.pods("neighbour")?.remove(0).1;
    shop::takes(bench, &hit[0], &others[0].address, 0, 300)?;
    bench.apply(&object("NetworkChaos", "slow", &spec))?;
    bench.condition("networkchaos/slow", "AllInjected")?;
    for pod in &hit {
        shop::takes(bench, pod, &others[0].address, 1000, 1400)?;
        shop::takes(bench, pod, &neighbour, 1000, 1400)?;
    }
    // Both sides of the Service, as its callers see it.
    shop::takes(bench, &others[0], "myapp1", 1000, 1600)?;
    for pod in &others {
        shop::takes(bench, pod, &neighbour, 0, 300)?;
    }
    bench.neighbour_is_well()?;
    let faults = bench.get(&["nodefaults"])?;
    let faults = faults["items"].as_array().cloned().unwrap_or_default();
    let asked: BTreeSet<&str> =
        faults.iter().filter_map(|fault| fault["spec"]["node"].as_str()).collect();
    let nodes: BTreeSet<&str> = hit.iter().map(|pod| pod.node.as_str()).collect();
    ensure!(asked == nodes, "asked {asked:?}, the pods are on {nodes:?}");
    for fault in &faults {
        let node = fault["spec"]["node"].as_str().unwrap_or_default();
        let own = hit.iter().filter(|pod| pod.node == node).count();
        let told = fault["status"]["records"].as_array().map_or(0, Vec::len);
        ensure!(own == told, "{node} has {own} of the pods and answers for {told}");
    }
    bench.kubectl(&["delete", "networkchaos/slow", "--timeout=10s"])?;
    shop::takes(bench, &hit[0], &others[0].address, 0, 300)
}

pub fn partition(bench: &Bench<'_>) -> Result<()> {
    let spec = json!({
        "action": "partition", "mode": "all", "direction": "both",
        "selector": shop::selector("myapp1"),
        "target": { "mode": "all", "selector": shop::selector("myapp2") },
    });
    let (left, right) = (shop::app(bench, "myapp1")?, shop::app(bench, "myapp2")?);
    let neighbour = bench.pods("neighbour")?.remove(0).1;
    bench.apply(&object("NetworkChaos", "split", &spec))?;
    bench.condition("networkchaos/split", "AllInjected")?;
    for (from, to) in [(&left[0], &right[1]), (&right[0], &left[1]), (&left[1], &right[1])] {
        ensure!(shop::is_forbidden(bench, from, to)?, "{} is not told of {}", from.name, to.name);
    }
    let answer = shop::request(bench, &right[1], &left[0].address)?;
    ensure!(answer.is_none(), "{} answers {}", left[0].name, right[1].name);
    // Of one side, and with everybody else, all is well.
    shop::takes(bench, &left[0], &left[1].address, 0, 300)?;
    shop::takes(bench, &right[0], &neighbour, 0, 300)?;
    bench.neighbour_is_well()?;
    bench.kubectl(&["delete", "networkchaos/split", "--timeout=10s"])?;
    ensure!(!shop::is_forbidden(bench, &left[0], &right[1])?, "it is still forbidden");
    shop::takes(bench, &right[1], &left[0].address, 0, 300)
}

/// A pod on its node's network is told from the node by its sockets.
pub fn host_network(bench: &Bench<'_>) -> Result<()> {
    let far = shop::app(bench, "myapp2")?;
    let node = far[0].node.clone();
    let there = far.iter().find(|pod| pod.node != node).context("all pods are on one node")?;
    let own = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": "on-node", "namespace": "default", "labels": { "role": "on-node" } },
        "spec": {
            "nodeName": node, "hostNetwork": true, "terminationGracePeriodSeconds": 0,
            "containers": [{
                "name": "c", "image": "kfault.test/nginx:1", "imagePullPolicy": "IfNotPresent",
                "command": ["sleep", "100000"],
            }],
        },
    });
    bench.apply(&own)?;
    bench.kubectl(&["wait", "--for=condition=Ready", "pod/on-node", "--timeout=30s"])?;
    let pod = shop::pods(bench, "default", "role=on-node")?.remove(0);
    let done = on_node_network(bench, &pod, there);
    bench.kubectl(&["delete", "pod/on-node", "--timeout=20s"])?;
    done
}

fn on_node_network(bench: &Bench<'_>, pod: &shop::Pod, there: &shop::Pod) -> Result<()> {
    let spec = json!({
        "action": "delay", "mode": "all", "selector": { "labelSelectors": { "role": "on-node" } },
        "delay": { "latency": "500ms" },
    });
    shop::takes(bench, pod, &there.address, 0, 300)?;
    bench.apply(&object("NetworkChaos", "slow", &spec))?;
    bench.condition("networkchaos/slow", "AllInjected")?;
    shop::takes(bench, pod, &there.address, 1000, 1400)?;
    // The node's own sockets are not the pod's.
    let url = format!("http://{}/", there.address);
    let curl = ["--silent", "--output", "/dev/null", "--write-out", "%{time_total}", &url];
    let time: f64 = bench.on_node(&pod.node, "curl", &curl)?.trim().parse()?;
    ensure!(time < 0.3, "a request of the node itself took {time} s");
    bench.neighbour_is_well()?;
    // Nor are the agent's: it answers at once.
    let start = std::time::Instant::now();
    bench.kubectl(&["delete", "networkchaos/slow", "--timeout=10s"])?;
    ensure!(start.elapsed() < Duration::from_secs(3), "recovery took {:?}", start.elapsed());
    shop::takes(bench, pod, &there.address, 0, 300)
}

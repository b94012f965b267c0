//! The application of `deploy/examples/app.yaml`, in a namespace of its own, seen from inside.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::super::Bench;

/// Where it runs. Experiments are objects of the default namespace all the same.
pub const NAMESPACE: &str = "shop";

/// A pod as far as scenarios look at it.
pub struct Pod {
    pub namespace: String,
    pub name: String,
    pub address: String,
    pub node: String,
    pub uid: String,
}

/// Pods of a namespace that are not on their way out.
pub fn pods(bench: &Bench<'_>, namespace: &str, selector: &str) -> Result<Vec<Pod>> {
    let list = bench.get(&["--namespace", namespace, "pods", "--selector", selector])?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let all = list["items"].as_array().cloned().unwrap_or_default();
    Ok(all
        .iter()
        .filter(|pod| pod["metadata"]["deletionTimestamp"].is_null())
        .map(|pod| Pod {
            namespace: namespace.to_owned(),
            name: text(&pod["metadata"]["name"]),
            address: text(&pod["status"]["podIP"]),
            node: text(&pod["spec"]["nodeName"]),
            uid: text(&pod["metadata"]["uid"]),
        })
        .collect())
}

/// Pods of one of the two Deployments.
pub fn app(bench: &Bench<'_>, name: &str) -> Result<Vec<Pod>> {
    pods(bench, NAMESPACE, &format!("app={name}"))
}

/// Uids of pods that no experiment of the shop may touch.
pub fn strangers(bench: &Bench<'_>) -> Result<Vec<String>> {
    Ok(pods(bench, "default", "app")?.into_iter().map(|pod| pod.uid).collect())
}

/// What a shell in a pod says.
pub fn shell(bench: &Bench<'_>, pod: &Pod, script: &str) -> Result<String> {
    let what = ["--namespace", &pod.namespace, "exec", &pod.name, "--", "sh", "-c", script];
    bench.kubectl(&what)
}

/// How long a whole request from a pod to an address takes; `None` when there is no answer.
pub fn request(bench: &Bench<'_>, pod: &Pod, address: &str) -> Result<Option<Duration>> {
    let curl = "curl --silent --output /dev/null --max-time 5 --write-out '%{time_total}'";
    let said = shell(bench, pod, &format!("{curl} http://{address}/ || echo nothing"))?;
    if said.contains("nothing") {
        return Ok(None);
    }
    let seconds: f64 = said.trim().parse().with_context(|| format!("curl said {said:?}"))?;
    Ok(Some(Duration::from_secs_f64(seconds)))
}

/// Holds when a request takes a time within these bounds, in milliseconds.
pub fn takes(bench: &Bench<'_>, pod: &Pod, address: &str, least: u64, most: u64) -> Result<()> {
    let from = &pod.name;
    let time = request(bench, pod, address)?
        .with_context(|| format!("{address} does not answer {from}"))?;
    // curl starts late on an emulated node, and is answered late by one.
    let most = Duration::from_millis(most) + bench.slack(&pod.address) + bench.slack(address);
    let bounds = Duration::from_millis(least)..most;
    let (time_ms, most) = (time.as_secs_f64() * 1e3, most.as_millis());
    let what = format!("from {from} to {address}: {time_ms} ms, expected {least} to {most}");
    ensure!(bounds.contains(&time), "{what}");
    Ok(())
}

/// Whether the sender is told that its packet is not permitted.
pub fn is_forbidden(bench: &Bench<'_>, from: &Pod, to: &Pod) -> Result<bool> {
    let ping = format!("ping -c 1 -W 1 {} 2>&1; true", to.address);
    Ok(shell(bench, from, &ping)?.contains("not permitted"))
}

/// `selector` for pods of the shop.
pub fn selector(app: &str) -> Value {
    json!({ "namespaces": [NAMESPACE], "labelSelectors": { "app": app } })
}

/// Both Deployments are complete.
pub fn is_complete(bench: &Bench<'_>) -> Result<()> {
    for name in ["deployment/myapp1", "deployment/myapp2"] {
        let what = ["--namespace", NAMESPACE, "rollout", "status", "--timeout=60s", name];
        bench.kubectl(&what)?;
    }
    Ok(())
}

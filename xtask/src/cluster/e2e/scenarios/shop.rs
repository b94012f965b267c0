//! The application of `deploy/examples/app.yaml`, in a namespace of its own, seen from inside.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::super::bench::{self, Bench};

/// Where it runs. Experiments are objects of the default namespace all the same.
pub const NAMESPACE: &str = "shop";

/// A pod as far as scenarios look at it.
pub struct Pod {
    pub namespace: String,
    pub name: String,
    pub address: String,
    /// Its IPv6 address, where it has one beside the other.
    pub address6: Option<String>,
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
            address6: address6(pod),
            node: text(&pod["spec"]["nodeName"]),
            uid: text(&pod["metadata"]["uid"]),
        })
        .collect())
}

/// The IPv6 address among all of a pod's.
fn address6(pod: &Value) -> Option<String> {
    let mut all = pod["status"]["podIPs"].as_array().into_iter().flatten();
    all.find_map(|one| one["ip"].as_str().filter(|address| address.contains(':')))
        .map(str::to_owned)
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
    let url = bench::url(address);
    let said = shell(bench, pod, &format!("{curl} '{url}' || echo nothing"))?;
    if said.contains("nothing") {
        return Ok(None);
    }
    let seconds: f64 = said.trim().parse().with_context(|| format!("curl said {said:?}"))?;
    Ok(Some(Duration::from_secs_f64(seconds)))
}

/// How long it takes until a port that nobody listens on says so.
pub fn refused(bench: &Bench<'_>, pod: &Pod, address: &str, port: u16) -> Result<Duration> {
    let curl = "curl --silent --max-time 5 --write-out '%{exitcode} %{time_total}'";
    let url = bench::url(address);
    let url = format!("{}:{port}/", url.trim_end_matches('/'));
    let said = shell(bench, pod, &format!("{curl} '{url}'; true"))?;
    let (code, seconds) = said.trim().split_once(' ').context("curl said nothing")?;
    // 7: no connection.
    ensure!(code == "7", "{address} port {port}: curl ended with {code}");
    let seconds: f64 = seconds.parse().with_context(|| format!("curl said {said:?}"))?;
    Ok(Duration::from_secs_f64(seconds))
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
    is_address_forbidden(bench, from, &to.address)
}

/// The same for any address.
pub fn is_address_forbidden(bench: &Bench<'_>, from: &Pod, address: &str) -> Result<bool> {
    let ping = format!("ping -c 1 -W 1 {address} 2>&1; true");
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

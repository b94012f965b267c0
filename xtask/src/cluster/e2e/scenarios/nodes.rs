//! Nodes that are cut off, and what their agents may do.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::super::Bench;
use super::delayed;

pub fn cut_off(bench: &Bench<'_>) -> Result<()> {
    const AGENT: Duration = Duration::from_secs(45);
    const CONTROLLER: Duration = Duration::from_secs(70);
    bench.need_nodes()?;
    let node_of = |pod: &Value| pod["spec"]["nodeName"].as_str().unwrap_or_default().to_owned();
    let here = node_of(&bench.get(&["pod/client"])?);
    let all = bench.get(&["pods", "--selector=app=web"])?;
    let all = all["items"].as_array().cloned().unwrap_or_default();
    // What runs beside the client cannot be cut off: nobody could ask the client any more.
    let far = all.iter().find(|pod| node_of(pod) != here).context("every pod is on one node")?;
    let address = far["status"]["podIP"].as_str().context("no address")?;
    // The controller must be heard, too: it moves to the other node.
    let away = node_of(far);
    bench.kubectl(&["cordon", &away])?;
    let own = ["-n", "chaos-mesh"];
    let controller = ["delete", "pod", "-l", "app.kubernetes.io/component=controller"];
    bench.kubectl(&[&own[..], &controller].concat())?;
    let moved = ["rollout", "status", "--timeout=60s", "deployment/chaos-controller-manager"];
    bench.kubectl(&[&own[..], &moved].concat())?;
    bench.kubectl(&["uncordon", &away])?;
    bench.apply(&delayed("delay", &json!({})))?;
    bench.condition("networkchaos/delay", "AllInjected")?;
    let is_delayed = || -> Result<bool> {
        let time = bench.connect(address)?.context("it does not answer")?;
        Ok(time >= Duration::from_millis(200))
    };
    ensure!(is_delayed()?, "not delayed");
    let server = format!("{}/32", bench.api_server()?);
    let route = |word| bench.on_node(&away, "ip", &["route", word, "blackhole", &server]);
    route("add")?;
    let ended = bench.within(AGENT, "the agent to end the fault", || Ok(!is_delayed()?));
    let deleted = ended.and_then(|_| {
        bench.kubectl(&["delete", "networkchaos/delay", "--wait=false"])?;
        let gone =
            || Ok(bench.get(&["networkchaos"])?["items"].as_array().is_some_and(Vec::is_empty));
        bench.within(CONTROLLER, "the controller to give the node up", gone)
    });
    route("del")?;
    deleted?;
    bench
        .within(CONTROLLER, "the node to come back", || {
            let list = bench.get(&["pods", "-A"])?;
            let all = list["items"].as_array().cloned().unwrap_or_default();
            Ok(all.iter().all(|pod| {
                let conditions =
                    pod["status"]["conditions"].as_array().cloned().unwrap_or_default();
                conditions.iter().any(|one| one["type"] == "Ready" && one["status"] == "True")
            }))
        })
        .map(drop)
}

/// What the token of one agent may write.
pub fn rights(bench: &Bench<'_>) -> Result<()> {
    bench.apply(&delayed("delay", &json!({})))?;
    bench.condition("networkchaos/delay", "AllInjected")?;
    let agents =
        bench.get(&["pods", "-n", "chaos-mesh", "-l", "app.kubernetes.io/component=agent"])?;
    let (agent, node) =
        (&agents["items"][0]["metadata"]["name"], &agents["items"][0]["spec"]["nodeName"]);
    let agent = agent.as_str().context("no agent")?;
    let token = bench.kubectl(&[
        "-n",
        "chaos-mesh",
        "create",
        "token",
        "chaos-daemon",
        "--bound-object-kind=Pod",
        &format!("--bound-object-name={agent}"),
    ])?;
    let faults = bench.get(&["nodefaults"])?;
    let faults = faults["items"].as_array().cloned().unwrap_or_default();
    ensure!(faults.len() == 2, "{} NodeFaults", faults.len());
    let pod = bench.pods("web")?.remove(0).0;
    let status = r#"--patch={"status":{"phase":"Recovered"}}"#;
    let spec = r#"--patch={"spec":{"run":false}}"#;
    let as_agent = |args: &[&str]| bench.with_token(token.trim(), args);
    for fault in &faults {
        let name = fault["metadata"]["name"].as_str().unwrap_or_default();
        let answer = ["patch", "nodefault", name, "--subresource=status", "--type=merge", status];
        let is_own = fault["spec"]["node"] == *node;
        ensure!(as_agent(&answer).is_ok() == is_own, "status of {name}, own node: {is_own}");
        let ask = as_agent(&["patch", "nodefault", name, "--type=merge", spec]);
        ensure!(ask.is_err(), "the spec of {name} was changed");
        ensure!(as_agent(&["delete", "nodefault", name]).is_err(), "{name} was deleted");
    }
    for forbidden in [
        &["delete", "pod", &pod][..],
        &["get", "secrets"],
        &["get", "pods"],
        &["delete", "networkchaos/delay"],
        &["auth", "can-i", "patch", "peersets"],
        &["auth", "can-i", "delete", "peersets"],
        &["-n", "chaos-mesh", "delete", "lease", "kfault-controller"],
        &["-n", "chaos-mesh", "patch", "lease", "kfault-controller", "--type=merge", "--patch={}"],
    ] {
        ensure!(as_agent(forbidden).is_err(), "an agent may {forbidden:?}");
    }
    Ok(())
}

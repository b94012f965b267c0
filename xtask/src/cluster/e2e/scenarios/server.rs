//! The API server and its objects under fault: stopped, started anew, emptied, contended for.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::super::Bench;
use super::{delayed, object, pods};
use crate::cluster::api::Api;
use crate::cluster::binaries::Binaries;
use crate::cluster::control::Control;
use crate::cluster::{CONTROL, cgroups};

const PAUSE: &str = "experiment.chaos-mesh.org/pause";
const DELAY: &str = "networkchaos/delay";
/// A cluster that could not work for a minute needs some time to settle.
const SETTLES: Duration = Duration::from_secs(90);

/// The API server of our own cluster.
struct Server {
    pid: i32,
}

impl Server {
    fn find() -> Result<Self> {
        let is_it = |pid: &u32| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).contains("\0kube-apiserver\0")
        };
        let pid = cgroups::processes(CONTROL)?.into_iter().find(is_it);
        let pid = pid.context("no kube-apiserver runs in the control plane's cgroup")?;
        Ok(Self { pid: i32::try_from(pid)? })
    }

    fn signal(&self, signal: i32) {
        // SAFETY: plain call; the process was found in the cgroup of our own cluster.
        unsafe { libc::kill(self.pid, signal) };
    }
}

impl Drop for Server {
    /// Whatever happens to the scenario, it goes on.
    fn drop(&mut self) {
        self.signal(libc::SIGCONT);
    }
}

pub fn stopped(bench: &Bench<'_>) -> Result<()> {
    const STOP: Duration = Duration::from_secs(60);
    let node = bench.nodes()?.into_iter().next().context("no node")?;
    let (web, neighbour) = (bench.pods("web")?, bench.pods("neighbour")?.remove(0).1);
    bench.apply(&delayed("delay", &json!({})))?;
    bench.condition(DELAY, "AllInjected")?;
    let all_delayed = |is: bool| -> Result<bool> {
        for (_, address) in &web {
            if (bench.connect_from(&node, address)? >= Duration::from_millis(200)) != is {
                return Ok(false);
            }
        }
        Ok(true)
    };
    ensure!(all_delayed(true)?, "not delayed");
    let server = Server::find()?;
    let start = Instant::now();
    server.signal(libc::SIGSTOP);
    std::thread::sleep(Duration::from_secs(15));
    ensure!(all_delayed(true)?, "it ended before an agent could know that it is cut off");
    bench.within(Duration::from_secs(30), "the agents to end the fault", || all_delayed(false))?;
    let time = bench.connect_from(&node, &neighbour)?;
    ensure!(time < Duration::from_millis(50), "the neighbour: {time:?}");
    std::thread::sleep(STOP.saturating_sub(start.elapsed()));
    drop(server);
    bench.within(SETTLES, "the API server", || Ok(bench.get(&[DELAY]).is_ok()))?;
    bench.within(SETTLES, "the delay to act again", || all_delayed(true))?;
    bench.within(SETTLES, "AllInjected", || Ok(bench.condition(DELAY, "AllInjected").is_ok()))?;
    settle(bench)?;
    bench.kubectl(&["delete", DELAY, "--timeout=30s"])?;
    bench.connects("web", 0, 50)
}

/// Every pod of kfault is ready again, and takes experiments.
pub fn settle(bench: &Bench<'_>) -> Result<()> {
    for what in ["deployment/chaos-controller-manager", "daemonset/chaos-daemon"] {
        let status = ["--namespace", "chaos-mesh", "rollout", "status", "--timeout=90s", what];
        bench.kubectl(&status)?;
    }
    Ok(())
}

/// Watches break off and what they had seen is too old to go on from.
pub fn restarted(bench: &Bench<'_>) -> Result<()> {
    bench.apply(&delayed("delay", &json!({})))?;
    bench.apply(&delayed("other", &json!({ "mode": "one" })))?;
    bench.condition(DELAY, "AllInjected")?;
    bench.condition("networkchaos/other", "AllInjected")?;
    let server = Server::find()?;
    server.signal(libc::SIGKILL);
    // SAFETY: plain call without a pointer; it may be our child, and then it is reaped.
    unsafe { libc::waitpid(server.pid, std::ptr::null_mut(), 0) };
    let place = format!("/proc/{}", server.pid);
    std::mem::forget(server);
    bench.until("the end of the API server", || Ok(!std::path::Path::new(&place).exists()))?;
    let binaries = Binaries::cached()?;
    let hierarchies = cgroups::hierarchies()?;
    let cgroup = cgroups::create(cgroups::unified(&hierarchies), CONTROL)?;
    let hyperkube = binaries.hyperkube();
    Control { cluster: bench.site.own()?, hyperkube: &hyperkube, cgroup }.api_server()?;
    let api = Api { cluster: bench.site.own()? };
    bench.within(SETTLES, "the API server", || Ok(api.is_ready()))?;
    // Before anybody has a watch again.
    bench.kubectl(&["delete", DELAY, "--wait=false"])?;
    bench.kubectl(&["annotate", "networkchaos/other", &format!("{PAUSE}=true")])?;
    bench.within(SETTLES, "the deletion to be noticed", || Ok(bench.get(&[DELAY]).is_err()))?;
    bench.within(SETTLES, "the pause to be noticed", || {
        Ok(bench.condition("networkchaos/other", "AllRecovered").is_ok())
    })?;
    settle(bench)?;
    bench.neighbour_is_well()?;
    bench.connects("web", 0, 50)?;
    bench.kubectl(&["delete", "networkchaos/other", "--timeout=20s"]).map(drop)
}

/// Two namespaces' worth of trouble: one with experiments in it, and one with their targets.
pub fn namespaces(bench: &Bench<'_>) -> Result<()> {
    let namespace = |name: &str| {
        bench.apply(&json!({
            "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name },
        }))
    };
    namespace("doomed")?;
    let inside = |kind: &str, name: &str, spec: &Value| {
        let mut whole = object(kind, name, spec);
        whole["metadata"]["namespace"] = json!("doomed");
        bench.apply(&whole)
    };
    let web = json!({ "namespaces": ["default"], "labelSelectors": { "app": "web" } });
    let delay = delayed("delay", &json!({ "selector": web }))["spec"].clone();
    inside("NetworkChaos", "delay", &delay)?;
    inside("PodChaos", "fail", &pods("pod-failure", "one", &json!({ "selector": web })))?;
    let schedule = json!({
        "schedule": "@every 2s", "type": "NetworkChaos", "concurrencyPolicy": "Allow",
        "historyLimit": 2, "networkChaos": delay,
    });
    inside("Schedule", "often", &schedule)?;
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": "target", "namespace": "doomed", "labels": { "app": "doomed" } },
        "spec": { "terminationGracePeriodSeconds": 1, "containers": [
            { "name": "c", "image": "kfault.test/nginx:1", "imagePullPolicy": "IfNotPresent" },
        ] },
    });
    bench.until("the account", || Ok(bench.apply(&pod).is_ok()))?;
    let target = ["-n", "doomed", "wait", "--for=condition=Ready", "pod/target", "--timeout=30s"];
    bench.kubectl(&target)?;
    let far = json!({ "selector": { "namespaces": ["doomed"] } });
    bench.apply(&delayed("far", &far))?;
    bench.condition("networkchaos/far", "AllInjected")?;
    bench.until("the fault from the other namespace", || {
        Ok(bench.connects("web", 0, 50).is_err())
    })?;
    std::thread::sleep(Duration::from_secs(3));
    bench.kubectl(&["delete", "namespace", "doomed", "--timeout=60s"])?;
    bench.neighbour_is_well()?;
    bench.until("every pod to answer", || Ok(bench.connects("web", 0, 50).is_ok()))?;
    let status = bench.get(&["networkchaos/far"])?["status"].clone();
    let record = &status["experiment"]["containerRecords"][0];
    ensure!(record["phase"] == "Not Injected", "the record of a pod that is gone: {record}");
    ensure!(record["recoveredCount"] == 1, "{record}");
    bench.kubectl(&["delete", "networkchaos/far", "--timeout=10s"]).map(drop)
}

/// A node that is only deleted goes on working, and its agent's word counts.
pub fn node(bench: &Bench<'_>) -> Result<()> {
    bench.apply(&delayed("delay", &json!({})))?;
    bench.condition(DELAY, "AllInjected")?;
    // Nobody could ask the client any more, if it was that of the client.
    let here = bench.get(&["pod/client"])?["spec"]["nodeName"].clone();
    let name = bench.nodes()?.into_iter().find(|name| here != **name).context("no other node")?;
    let what = format!("node/{name}");
    let mut node = bench.get(&[&what])?;
    for field in ["uid", "resourceVersion", "creationTimestamp", "managedFields"] {
        node["metadata"][field].take();
    }
    node["status"].take();
    bench.kubectl(&["delete", &what, "--timeout=20s"])?;
    let done = without_node(bench);
    bench.apply(&node)?;
    done?;
    bench.kubectl(&["wait", "--for=condition=Ready", &what, "--timeout=60s"])?;
    settle(bench)?;
    bench.apply(&delayed("delay", &json!({})))?;
    bench.condition(DELAY, "AllInjected")?;
    bench.connects("web", 200, 300)?;
    bench.kubectl(&["delete", DELAY, "--timeout=10s"]).map(drop)
}

fn without_node(bench: &Bench<'_>) -> Result<()> {
    std::thread::sleep(Duration::from_secs(2));
    bench.connects("web", 200, 300)?;
    bench.condition(DELAY, "AllInjected")?;
    bench.neighbour_is_well()?;
    bench.kubectl(&["delete", DELAY, "--timeout=10s"])?;
    bench.connects("web", 0, 50)
}

/// Somebody else writes the same object all the time.
pub fn conflicts(bench: &Bench<'_>) -> Result<()> {
    let (stop, count) = (AtomicBool::new(false), std::sync::atomic::AtomicU32::new(0));
    bench.apply(&delayed("delay", &json!({})))?;
    std::thread::scope(|scope| {
        for key in ["shop/label", "shop/note"] {
            let (stop, count) = (&stop, &count);
            scope.spawn(move || {
                let verb = if key.ends_with("label") { "label" } else { "annotate" };
                while !stop.load(Ordering::Relaxed) {
                    let value = format!("{key}={}", count.fetch_add(1, Ordering::Relaxed));
                    // It may be gone already.
                    let _ = bench.kubectl(&[verb, "--overwrite", DELAY, &value]);
                    std::thread::sleep(Duration::from_millis(50));
                }
            });
        }
        let done = contended(bench);
        stop.store(true, Ordering::Relaxed);
        done
    })?;
    ensure!(count.load(Ordering::Relaxed) > 10, "only {count:?} other writes");
    bench.connects("web", 0, 50)
}

fn contended(bench: &Bench<'_>) -> Result<()> {
    bench.condition(DELAY, "AllInjected")?;
    bench.connects("web", 200, 350)?;
    bench.kubectl(&["annotate", DELAY, &format!("{PAUSE}=true")])?;
    bench.condition(DELAY, "AllRecovered")?;
    bench.kubectl(&["annotate", DELAY, &format!("{PAUSE}-")])?;
    bench.condition(DELAY, "AllInjected")?;
    let object = bench.get(&[DELAY])?;
    ensure!(object["metadata"]["labels"]["shop/label"].is_string(), "a label is lost: {object}");
    ensure!(object["metadata"]["annotations"]["shop/note"].is_string(), "{object}");
    // Writers and measurements share what processors there are.
    bench.connects("neighbour", 0, 150)?;
    bench.kubectl(&["delete", DELAY, "--timeout=20s"]).map(drop)
}

/// Nothing is checked before it is stored, and means the same.
pub fn no_webhooks(bench: &Bench<'_>) -> Result<()> {
    let option = r#"--patch=[{"op":"add","path":"/spec/template/spec/containers/0/args/-","value":"--no-webhooks"}]"#;
    let own = ["--namespace", "chaos-mesh"];
    let controller = "deployment/chaos-controller-manager";
    bench.kubectl(&[&own[..], &["patch", controller, "--type=json", option]].concat())?;
    for kind in ["mutatingwebhookconfiguration", "validatingwebhookconfiguration"] {
        bench.kubectl(&["delete", kind, "kfault"])?;
    }
    let done = settle(bench).and_then(|()| without_webhooks(bench));
    bench.install_kfault()?;
    settle(bench)?;
    done?;
    // What was stored then can be changed and deleted now.
    bench.until("the webhooks", || {
        let wrong = delayed("never", &json!({ "mode": "fixed-percent", "value": "150" }));
        let (is_taken, said) = bench.applied(&wrong)?;
        ensure!(!is_taken, "it was stored");
        Ok(said.contains("Spec.Value"))
    })?;
    bench.kubectl(&["label", "networkchaos/wrong", "team=shop"])?;
    bench.kubectl(&["delete", "networkchaos/wrong", "--timeout=10s"]).map(drop)
}

fn without_webhooks(bench: &Bench<'_>) -> Result<()> {
    bench.apply(&delayed("delay", &json!({})))?;
    bench.condition(DELAY, "AllInjected")?;
    let spec = bench.get(&[DELAY])?["spec"].clone();
    ensure!(spec["selector"]["namespaces"].is_null(), "somebody has written defaults: {spec}");
    bench.connects("web", 200, 300)?;
    bench.neighbour_is_well()?;
    bench.kubectl(&["delete", DELAY, "--timeout=10s"])?;
    bench.connects("web", 0, 50)?;
    bench.apply(&delayed("wrong", &json!({ "mode": "fixed-percent", "value": "150" })))?;
    bench.until("the answer", || {
        Ok(bench.get(&["networkchaos/wrong"])?["status"]["kfault"]["phase"] == "Failed")
    })?;
    let status = bench.get(&["networkchaos/wrong"])?["status"].clone();
    let conditions = status["conditions"].to_string();
    ensure!(!conditions.contains("True"), "conditions: {conditions}");
    let events = bench.kubectl(&["get", "events", "--field-selector=reason=Failed"])?;
    ensure!(events.contains("150"), "nobody says what is wrong: {events}");
    bench.connects("web", 0, 50)
}

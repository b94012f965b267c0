//! Names of the cluster: one container gets them wrong, its twin and its neighbours right.

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::super::Bench;
use super::object;
use super::shop::{self, Pod};

const SERVICE: &str = "web.default.svc.cluster.local";
const OTHER: &str = "kubernetes.default.svc.cluster.local";

/// What the shell's resolver says of a name in a pod: its own, of no C library.
fn lookup(bench: &Bench<'_>, pod: &Pod, name: &str) -> Result<String> {
    shop::shell(bench, pod, &format!("nslookup {name} 2>&1; true"))
}

/// The C library finds a web server behind a name, asked for as the pod's search list completes it.
fn connects(bench: &Bench<'_>, pod: &Pod, name: &str) -> Result<bool> {
    let curl = format!("curl --silent --output /dev/null --max-time 3 http://{name}/");
    let said = shop::shell(bench, pod, &format!("{curl}; echo exit $?"))?;
    ensure!(["exit 0", "exit 6"].contains(&said.trim()), "curl of {name}: {said}");
    Ok(said.contains("exit 0"))
}

fn is_known(bench: &Bench<'_>, pod: &Pod, name: &str) -> Result<()> {
    let said = lookup(bench, pod, name)?;
    let right = said.contains("Address: 10.") || said.contains("Address 1: 10.");
    ensure!(right && !said.contains("SERVFAIL"), "{name} in {}: {said}", pod.name);
    Ok(())
}

fn chaos(action: &str, pod: &Pod, patterns: &Value) -> Value {
    let spec = json!({
        "action": action, "mode": "all", "patterns": patterns,
        "selector": { "pods": { "default": [pod.name] } },
    });
    object("DNSChaos", "names", &spec)
}

/// `error` on one name for one pod, then `random`; its neighbours resolve as ever.
pub fn one_name_of_one_pod(bench: &Bench<'_>) -> Result<()> {
    let pods = shop::pods(bench, "default", "app=web")?;
    let neighbours = shop::pods(bench, "default", "app=neighbour")?;
    let (pod, twin, neighbour) = (&pods[0], &pods[1], &neighbours[0]);
    let others_are_well = || -> Result<()> {
        is_known(bench, twin, SERVICE)?;
        is_known(bench, neighbour, SERVICE)?;
        is_known(bench, pod, OTHER)
    };
    is_known(bench, pod, SERVICE)?;
    others_are_well()?;

    bench.apply(&chaos("error", pod, &json!(["web.default.svc.clust?r.local"])))?;
    bench.condition("dnschaos/names", "AllInjected")?;
    let said = lookup(bench, pod, SERVICE)?;
    ensure!(said.contains("SERVFAIL"), "{SERVICE} in {}: {said}", pod.name);
    ensure!(!connects(bench, pod, "web")?, "the C library finds the Service");
    ensure!(connects(bench, twin, "web")?, "the twin's does not");
    others_are_well()?;
    let status = bench.get(&["dnschaos/names"])?["status"].clone();
    let records = &status["experiment"]["containerRecords"];
    ensure!(records[0]["id"] == format!("default/{}/web", pod.name), "records: {records}");
    ensure!(records.as_array().is_some_and(|all| all.len() == 1), "records: {records}");
    bench.until("the counters", || {
        let status = bench.get(&["dnschaos/names"])?["status"]["kfault"].clone();
        Ok(status["targets"] == 1 && status["injected"].as_i64() > Some(0))
    })?;
    let pause = "experiment.chaos-mesh.org/pause";
    bench.kubectl(&["annotate", "dnschaos/names", &format!("{pause}=true")])?;
    bench.condition("dnschaos/names", "AllRecovered")?;
    is_known(bench, pod, SERVICE)?;
    bench.kubectl(&["delete", "dnschaos/names", "--timeout=10s"])?;

    bench.apply(&chaos("random", pod, &json!(["web.*"])))?;
    bench.condition("dnschaos/names", "AllInjected")?;
    let said = lookup(bench, pod, SERVICE)?;
    let is_drawn = ["198.18.", "198.19."].iter().any(|network| said.contains(network));
    ensure!(is_drawn && said.contains("2001:db8:"), "{SERVICE} in {}: {said}", pod.name);
    others_are_well()?;
    bench.kubectl(&["delete", "dnschaos/names", "--timeout=10s"])?;
    is_known(bench, pod, SERVICE)
}

/// A pod on its node's network is told from the node by its cgroup.
pub fn host_network(bench: &Bench<'_>) -> Result<()> {
    let node = shop::pods(bench, "default", "app=web")?[0].node.clone();
    let own = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": "on-node", "namespace": "default", "labels": { "role": "on-node" } },
        "spec": {
            "nodeName": node, "hostNetwork": true, "terminationGracePeriodSeconds": 0,
            "dnsPolicy": "ClusterFirstWithHostNet",
            "containers": [{
                "name": "c", "image": bench.site.app_image, "imagePullPolicy": "IfNotPresent",
                "command": ["sleep", "100000"],
            }],
        },
    });
    bench.apply(&own)?;
    bench.kubectl(&["wait", "--for=condition=Ready", "pod/on-node", "--timeout=30s"])?;
    let pod = shop::pods(bench, "default", "role=on-node")?.remove(0);
    let done = on_node_network(bench, &pod);
    bench.kubectl(&["delete", "pod/on-node", "--timeout=20s"])?;
    done
}

fn on_node_network(bench: &Bench<'_>, pod: &Pod) -> Result<()> {
    is_known(bench, pod, SERVICE)?;
    bench.apply(&chaos("error", pod, &json!(["web.*"])))?;
    bench.condition("dnschaos/names", "AllInjected")?;
    let said = lookup(bench, pod, SERVICE)?;
    ensure!(said.contains("SERVFAIL"), "{SERVICE} in {}: {said}", pod.name);
    is_known(bench, pod, OTHER)?;
    is_known(bench, &shop::pods(bench, "default", "app=neighbour")?[0], SERVICE)?;
    bench.kubectl(&["delete", "dnschaos/names", "--timeout=10s"])?;
    is_known(bench, pod, SERVICE)
}

/// A container that was started again is another cgroup; the other container is never hit.
pub fn one_container(bench: &Bench<'_>) -> Result<()> {
    let container = |name: &str| {
        json!({
            "name": name, "image": bench.site.app_image, "imagePullPolicy": "IfNotPresent",
            // Not the first process: that one takes no signal that it has no handler for.
            "command": ["sh", "-c", "sleep 100000 & wait"],
            "securityContext": { "readOnlyRootFilesystem": true },
        })
    };
    let two = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": "two", "namespace": "default", "labels": { "role": "two" } },
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "containers": [container("first"), container("second")],
        },
    });
    bench.apply(&two)?;
    bench.kubectl(&["wait", "--for=condition=Ready", "pod/two", "--timeout=30s"])?;
    let done = in_two_containers(bench);
    bench.kubectl(&["delete", "pod/two", "--timeout=20s"])?;
    done
}

fn in_two_containers(bench: &Bench<'_>) -> Result<()> {
    let said = |container: &str| {
        let ask = format!("nslookup {SERVICE} 2>&1; true");
        bench.kubectl(&["exec", "two", "--container", container, "--", "sh", "-c", &ask])
    };
    let spec = json!({
        "action": "error", "mode": "all", "containerNames": ["second"],
        "selector": { "labelSelectors": { "role": "two" } },
    });
    bench.apply(&object("DNSChaos", "names", &spec))?;
    bench.condition("dnschaos/names", "AllInjected")?;
    ensure!(said("second")?.contains("SERVFAIL"), "the second resolves");
    ensure!(!said("first")?.contains("SERVFAIL"), "the first does not resolve");
    let restarts = || -> Result<i64> {
        let all = bench.get(&["pod/two"])?["status"]["containerStatuses"].clone();
        let all = all.as_array().cloned().unwrap_or_default();
        let second = all.iter().find(|one| one["name"] == "second");
        Ok(second.and_then(|one| one["restartCount"].as_i64()).unwrap_or_default())
    };
    bench.kubectl(&["exec", "two", "--container", "second", "--", "killall", "sleep"])?;
    bench.until("the restart", || Ok(restarts()? > 0))?;
    bench.until("the fault to act again", || {
        Ok(said("second").is_ok_and(|said| said.contains("SERVFAIL")))
    })?;
    ensure!(!said("first")?.contains("SERVFAIL"), "the first does not resolve");
    bench.kubectl(&["delete", "dnschaos/names", "--timeout=10s"])?;
    ensure!(!said("second")?.contains("SERVFAIL"), "it goes on after its end");
    Ok(())
}

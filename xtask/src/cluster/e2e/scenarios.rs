//! What must hold on a cluster. Each scenario begins and ends without a fault.

mod between;
mod contract;
mod crash;
mod dns;
mod dual;
mod examples;
mod filter;
mod follow;
mod http;
mod install;
mod nodes;
mod served;
mod server;
mod shop;
mod strain;
mod vm;
mod walk;

pub use shop::NAMESPACE as SHOP;

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::Bench;

pub use vm::VM;

/// What a scenario does.
pub type Scenario = fn(&Bench<'_>) -> Result<()>;

/// When a scenario runs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Tier {
    /// Always. All of these together take six minutes at most.
    Ci,
    /// Not with `--ci`: it waits for long.
    Full,
}
use Tier::{Ci, Full};

/// All of them, in the order in which they run.
pub const ALL: &[(&str, Scenario, Tier)] = &[
    ("delay: injected, measured, counted, gone with the object", delay, Ci),
    ("pause and go on by annotation", pause, Ci),
    ("a duration ends by itself", duration, Ci),
    ("partition between two selections, both ways", partition, Ci),
    ("a name at the other end is looked up by the controller", name, Ci),
    ("follow: new, replaced and restarted pods are targets", follow::pods, Ci),
    ("follow: a ClusterIP is matched when every endpoint is a target", follow::cluster_ip, Ci),
    ("follow: addresses of both sides are kept once for all nodes", follow::peer_sets, Ci),
    ("an empty selection is told and tried again", empty, Ci),
    ("agents that die come back and go on", agents_die, Ci),
    ("a controller that dies leaves nothing behind", controller_dies, Ci),
    ("a pod that is deleted keeps nothing from being deleted", pod_goes, Ci),
    ("pod-kill deletes the chosen pods once", pod_kill, Ci),
    ("pod-failure: the pod fails and is put back exactly", pod_failure, Ci),
    ("container-kill restarts the container once", container_kill, Ci),
    ("a schedule starts, is paused, and takes its children along", schedule, Ci),
    (
        "a node that is cut off ends its faults, and keeps nothing from being deleted",
        nodes::cut_off,
        Full,
    ),
    (
        "what is wrong is refused, what does nothing is warned of, defaults are stored",
        served::admission,
        Ci,
    ),
    (
        "without a controller nothing is taken, and what is there can be changed",
        served::no_controller,
        Ci,
    ),
    ("metrics: what was injected, asked and told", served::metrics, Ci),
    ("an agent answers for its own node only, and may do nothing else", nodes::rights, Ci),
    ("what this version cannot do is said, and can be deleted", unsupported, Ci),
    ("the examples of PodChaos", examples::pods, Full),
    ("the example of Schedule, every two minutes", examples::schedule, Full),
    ("the agents' rights reach containers of other users", install::other_users, Ci),
    ("kfault stop: everything is paused and has recovered", install::stop, Ci),
    (
        "kfault stop without a controller says what is not over",
        install::stop_without_controller,
        Full,
    ),
    ("kfault does not start beside another Chaos Mesh", install::rival, Ci),
    ("the chart makes what the plain manifests make", install::alike, Ci),
    ("installed plainly, removed without a trace, and installed again", install::plain, Full),
    ("the chart: installed, upgraded under a fault, and uninstalled", install::chart_life, Full),
    ("the chart for one namespace", install::chart_for_one_namespace, Full),
    ("walk: pod-kill of one pod of a namespace, never paused, nobody else's", walk::pod_kill, Ci),
    ("walk: half a second on myapp1, on two nodes, and on nobody else", walk::delay, Ci),
    ("walk: a partition of myapp1 and myapp2 tells both senders", walk::partition, Ci),
    ("walk: a pod on its node's network, and not the node", walk::host_network, Ci),
    (
        "http: every replica answers with another body, and with its own after",
        http::replaced_body,
        Ci,
    ),
    ("http: half a second on one path, and on nothing else", http::late, Ci),
    ("http: JSON is merged into what another experiment answers", http::merged, Ci),
    ("http: requests arrive as requests for another page", http::asked, Ci),
    ("http: what this version cannot do is said in the records", http::unsupported, Ci),
    ("two families: half a second on myapp1 is half a second in IPv6", dual::delay, Ci),
    ("two families: a partition is one of all addresses, one way and both", dual::partition, Full),
    ("two families: the IPv6 ClusterIP of a Service is matched", dual::cluster_ip, Full),
    ("two families: an IPv6 prefix at the other end, and one port", dual::external, Full),
    ("between pods: from hits what the target sends, both hits either way", between::netem, Full),
    ("filter mode: pods of other namespaces are not chosen", filter::namespaces, Full),
    (
        "stress: one replica is at its limits, its twin and the others are idle",
        strain::limits_of_one_replica,
        Ci,
    ),
    ("stress: memory as declared, and again when the container is", strain::memory, Ci),
    ("throttle: a busy container at a tenth of a processor", strain::quota, Ci),
    ("throttle: a frozen server answers nobody until its time is over", strain::pause, Ci),
    ("loads and limits end with their agent and come back", strain::ends::with_their_agent, Full),
    (
        "loads and limits go on while another experiment is refused",
        strain::ends::not_with_a_neighbours_refusal,
        Ci,
    ),
    ("limits end while no agent is there", strain::ends::without_an_agent, Full),
    (
        "stress: the words of stress-ng, and half of a limit",
        strain::written::words_and_shares,
        Full,
    ),
    ("stress: a schedule of loads", strain::written::schedule, Full),
    ("dns: one name of one pod, an error and a random address", dns::one_name_of_one_pod, Ci),
    ("dns: one container of a pod, and again when it is restarted", dns::one_container, Full),
    ("dns: a pod on its node's network, and not the node", dns::host_network, Full),
    ("contract: conditions, records and events of a whole life", contract::life, Ci),
    ("contract: columns, short names, endpoints", contract::resources, Ci),
    (
        "contract: a schedule's child keeps the next one waiting and is paused with it",
        contract::schedule,
        Ci,
    ),
    ("a second agent on a node is refused and the first goes on", crash::two_agents, Ci),
    ("force clean: nobody waits for an agent that is stopped", crash::force_clean, Full),
    ("somebody else writes the experiment all the time", server::conflicts, Ci),
    ("namespaces are deleted: one with experiments, one with their pods", server::namespaces, Full),
    ("walk: a schedule of pod-kill has its rounds and its history", walk::schedule, Full),
    ("agents are killed in each state of an experiment", crash::agents, Full),
    ("the controller is killed in each state of an experiment", crash::controller, Full),
    ("a node object is deleted while the node works", server::node, Full),
    ("the API server is started anew, and watches with it", server::restarted, Full),
    ("without webhooks all is the same, and what is wrong is told", server::no_webhooks, Full),
    ("the API server is stopped for a minute", server::stopped, Full),
];

fn object(kind: &str, name: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": "chaos-mesh.org/v1alpha1",
        "kind": kind,
        "metadata": { "name": name, "namespace": "default" },
        "spec": spec,
    })
}

fn delayed(name: &str, more: &Value) -> Value {
    let mut spec = json!({
        "action": "delay",
        "mode": "all",
        "selector": { "labelSelectors": { "app": "web" } },
        "delay": { "latency": "200ms" },
    });
    for (key, value) in more.as_object().into_iter().flatten() {
        spec[key] = value.clone();
    }
    object("NetworkChaos", name, &spec)
}

fn pods(action: &str, mode: &str, more: &Value) -> Value {
    let mut spec = json!({
        "action": action,
        "mode": mode,
        "selector": { "labelSelectors": { "app": "web" } },
    });
    for (key, value) in more.as_object().into_iter().flatten() {
        spec[key] = value.clone();
    }
    spec
}

fn delay(bench: &Bench<'_>) -> Result<()> {
    bench.connects("web", 0, 50)?;
    bench.apply(&delayed("delay", &json!({})))?;
    bench.condition("networkchaos/delay", "AllInjected")?;
    bench.connects("web", 200, 250)?;
    bench.neighbour_is_well()?;
    bench.until("the counters", || {
        let status = bench.get(&["networkchaos/delay"])?["status"]["kfault"].clone();
        Ok(status["targets"] == 2 && status["injected"].as_i64() > Some(0))
    })?;
    bench.kubectl(&["delete", "networkchaos/delay", "--timeout=10s"])?;
    bench.connects("web", 0, 50)
}

fn pause(bench: &Bench<'_>) -> Result<()> {
    bench.apply(&delayed("delay", &json!({})))?;
    bench.condition("networkchaos/delay", "AllInjected")?;
    let pause = "experiment.chaos-mesh.org/pause";
    bench.kubectl(&["annotate", "networkchaos/delay", &format!("{pause}=true")])?;
    bench.condition("networkchaos/delay", "AllRecovered")?;
    bench.connects("web", 0, 50)?;
    bench.kubectl(&["annotate", "networkchaos/delay", &format!("{pause}-")])?;
    bench.condition("networkchaos/delay", "AllInjected")?;
    bench.connects("web", 200, 250)?;
    bench.neighbour_is_well()?;
    let records = bench.get(&["networkchaos/delay"])?;
    let records = &records["status"]["experiment"]["containerRecords"];
    ensure!(records[0]["injectedCount"] == 2, "the records are others: {records}");
    Ok(())
}

fn duration(bench: &Bench<'_>) -> Result<()> {
    bench.apply(&delayed("delay", &json!({ "duration": "8s" })))?;
    bench.condition("networkchaos/delay", "AllInjected")?;
    bench.connects("web", 200, 250)?;
    bench.neighbour_is_well()?;
    bench.condition("networkchaos/delay", "AllRecovered")?;
    bench.connects("web", 0, 50)?;
    let status = bench.get(&["networkchaos/delay"])?["status"].clone();
    ensure!(status["kfault"]["phase"] == "Finished", "phase: {status}");
    Ok(())
}

fn partition(bench: &Bench<'_>) -> Result<()> {
    let spec = json!({
        "action": "partition",
        "mode": "all",
        "direction": "both",
        "selector": { "labelSelectors": { "app": "web" } },
        "target": { "mode": "all", "selector": { "labelSelectors": { "app": "client" } } },
    });
    bench.apply(&object("NetworkChaos", "cut", &spec))?;
    bench.condition("networkchaos/cut", "AllInjected")?;
    for (name, address) in bench.pods("web")? {
        ensure!(bench.connect(&address)?.is_none(), "{name} still answers");
    }
    bench.neighbour_is_well()?;
    let (_, client) = bench.pods("client")?.remove(0);
    let (web, _) = bench.pods("web")?.remove(0);
    let ping = format!("ping -c 1 -W 1 {client} 2>&1; true");
    let said = bench.kubectl(&["exec", &web, "--", "sh", "-c", &ping])?;
    ensure!(said.contains("not permitted"), "the sender is not told: {said}");
    let records = bench.get(&["networkchaos/cut"])?;
    let records = records["status"]["experiment"]["containerRecords"].clone();
    let keys: Vec<&str> = records
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|r| r["selectorKey"].as_str())
        .collect();
    ensure!(keys == [".", ".", ".Target"], "records: {keys:?}");
    Ok(())
}

fn name(bench: &Bench<'_>) -> Result<()> {
    let service = "web.default.svc.cluster.local";
    let more = json!({
        "selector": { "labelSelectors": { "app": "client" } },
        "externalTargets": [format!("{service}:80")],
    });
    bench.apply(&delayed("named", &more))?;
    bench.condition("networkchaos/named", "AllInjected")?;
    let time = bench.connect(service)?.context("the Service does not answer")?;
    // Looking the name up is part of curl's time to connect, and not delayed: another port.
    ensure!(time >= Duration::from_millis(200), "not delayed: {time:?}");
    bench.neighbour_is_well()?;
    let more = json!({ "externalTargets": ["no-such-name.invalid"] });
    bench.apply(&delayed("nameless", &more))?;
    bench
        .until("the failure on record", || {
            let object = bench.get(&["networkchaos/nameless"])?;
            let events = &object["status"]["experiment"]["containerRecords"][0]["events"];
            Ok(events.to_string().contains("no-such-name.invalid"))
        })
        .map(drop)
}

fn empty(bench: &Bench<'_>) -> Result<()> {
    let more = json!({ "selector": { "labelSelectors": { "app": "late" } } });
    bench.apply(&delayed("late", &more))?;
    bench.until("the event", || {
        let events = bench.kubectl(&["get", "events", "--field-selector=reason=Failed"])?;
        Ok(events.contains("no pod is selected"))
    })?;
    bench.kubectl(&["label", "pod/client", "app=late", "--overwrite"])?;
    let done = bench.condition("networkchaos/late", "AllInjected");
    bench.kubectl(&["label", "pod/client", "app=client", "--overwrite"])?;
    done.map(drop)
}

fn agents_die(bench: &Bench<'_>) -> Result<()> {
    bench.apply(&delayed("delay", &json!({})))?;
    bench.condition("networkchaos/delay", "AllInjected")?;
    let agents = ["-l", "app.kubernetes.io/component=agent", "--force", "--grace-period=0"];
    bench.kubectl(&[&["-n", "chaos-mesh", "delete", "pod"], &agents[..]].concat())?;
    bench.kubectl(&[
        "-n",
        "chaos-mesh",
        "rollout",
        "status",
        "--timeout=60s",
        "daemonset/chaos-daemon",
    ])?;
    bench.until("the delay to act again", || Ok(bench.connects("web", 200, 250).is_ok()))?;
    bench.neighbour_is_well()?;
    bench.kubectl(&["delete", "networkchaos/delay", "--timeout=20s"])?;
    bench.connects("web", 0, 50)
}

fn controller_dies(bench: &Bench<'_>) -> Result<()> {
    let controller =
        ["-l", "app.kubernetes.io/component=controller", "--force", "--grace-period=0"];
    bench.apply(&delayed("delay", &json!({ "duration": "8s" })))?;
    bench.condition("networkchaos/delay", "AllInjected")?;
    bench.kubectl(&[&["-n", "chaos-mesh", "delete", "pod"], &controller[..]].concat())?;
    // The node knows by itself when it is over.
    bench.until("the delay to end", || Ok(bench.connects("web", 0, 50).is_ok()))?;
    bench.condition("networkchaos/delay", "AllRecovered")?;
    bench.kubectl(&["delete", "networkchaos/delay", "--timeout=20s"]).map(drop)
}

fn pod_goes(bench: &Bench<'_>) -> Result<()> {
    bench.apply(&delayed("delay", &json!({})))?;
    bench.condition("networkchaos/delay", "AllInjected")?;
    let name = bench.pods("web")?.remove(0).0;
    bench.kubectl(&["delete", "pod", &name, "--timeout=30s"])?;
    bench.until("the record of the pod that went", || {
        let object = bench.get(&["networkchaos/delay"])?;
        let records = object["status"]["experiment"]["containerRecords"].clone();
        let of_pod = format!("default/{name}");
        let mut all = records.as_array().into_iter().flatten();
        Ok(all.any(|one| one["id"] == of_pod && one["phase"] == "Not Injected"))
    })?;
    bench.kubectl(&["delete", "networkchaos/delay", "--timeout=20s"]).map(drop)
}

fn pod_kill(bench: &Bench<'_>) -> Result<()> {
    let before = bench.pods("web")?;
    bench.apply(&object("PodChaos", "kill", &pods("pod-kill", "one", &json!({}))))?;
    bench.condition("podchaos/kill", "AllInjected")?;
    bench.kubectl(&["rollout", "status", "--timeout=60s", "deployment/web"])?;
    let killed = |bench: &Bench<'_>| -> Result<usize> {
        let now = bench.pods("web")?;
        Ok(before.iter().filter(|(name, _)| now.iter().all(|(other, _)| other != name)).count())
    };
    bench.until("the pod to go", || Ok(killed(bench)? == 1))?;
    std::thread::sleep(Duration::from_secs(3));
    ensure!(killed(bench)? == 1, "more than one pod was killed");
    bench.kubectl(&["delete", "podchaos/kill", "--timeout=10s"]).map(drop)
}

fn images(bench: &Bench<'_>, pod: &str) -> Result<Value> {
    let pod = bench.get(&["pod", pod])?;
    let containers = pod["spec"]["containers"].as_array().cloned().unwrap_or_default();
    Ok(containers.iter().map(|container| container["image"].clone()).collect())
}

fn pod_failure(bench: &Bench<'_>) -> Result<()> {
    let (name, address) = bench.pods("web")?.remove(0);
    let before = images(bench, &name)?;
    let spec =
        pods("pod-failure", "all", &json!({ "selector": { "pods": { "default": [name] } } }));
    bench.apply(&object("PodChaos", "fail", &spec))?;
    bench.condition("podchaos/fail", "AllInjected")?;
    bench.until("the pod to fail", || Ok(bench.connect(&address)?.is_none()))?;
    bench.kubectl(&["delete", "podchaos/fail", "--timeout=20s"])?;
    ensure!(images(bench, &name)? == before, "the images are not what they were");
    let notes = bench.get(&["pod", &name])?["metadata"]["annotations"].clone();
    ensure!(notes["kfault.dev/pod-failure"].is_null(), "an annotation is left: {notes}");
    bench.until("the pod to work again", || Ok(bench.connect(&address)?.is_some())).map(drop)
}

fn container_kill(bench: &Bench<'_>) -> Result<()> {
    let (name, _) = bench.pods("web")?.remove(0);
    let restarts = || -> Result<i64> {
        let pod = bench.get(&["pod", &name])?;
        pod["status"]["containerStatuses"][0]["restartCount"].as_i64().context("no restart count")
    };
    let before = restarts()?;
    let more = json!({
        "selector": { "pods": { "default": [name] } }, "containerNames": ["web"],
    });
    bench.apply(&object("PodChaos", "kill", &pods("container-kill", "all", &more)))?;
    bench.condition("podchaos/kill", "AllInjected")?;
    bench.until("the restart", || Ok(restarts()? > before))?;
    std::thread::sleep(Duration::from_secs(4));
    ensure!(restarts()? == before + 1, "it was restarted more than once");
    let object = bench.get(&["podchaos/kill"])?;
    let id = &object["status"]["experiment"]["containerRecords"][0]["id"];
    ensure!(*id == format!("default/{name}/web"), "the record's id: {id}");
    Ok(())
}

fn schedule(bench: &Bench<'_>) -> Result<()> {
    let block = delayed("x", &json!({ "duration": "2s" }))["spec"].clone();
    let spec = json!({
        "schedule": "@every 4s",
        "type": "NetworkChaos",
        "historyLimit": 2,
        "concurrencyPolicy": "Forbid",
        "networkChaos": block,
    });
    bench.apply(&object("Schedule", "often", &spec))?;
    let children = || -> Result<Vec<String>> {
        let list = bench.get(&["networkchaos", "--selector=managed-by=often"])?;
        let all = list["items"].as_array().cloned().unwrap_or_default();
        Ok(all.iter().map(|one| one["metadata"]["name"].to_string()).collect())
    };
    bench.until("the first child", || Ok(children()?.len() == 1))?;
    bench.until("the second child", || Ok(children()?.len() >= 2))?;
    let pause = "experiment.chaos-mesh.org/pause";
    bench.kubectl(&["annotate", "schedule/often", &format!("{pause}=true")])?;
    std::thread::sleep(Duration::from_secs(1));
    let paused = children()?;
    std::thread::sleep(Duration::from_secs(9));
    let later = children()?;
    ensure!(later.iter().all(|name| paused.contains(name)), "started while paused: {later:?}");
    ensure!(later.len() <= 3, "the history is too long: {later:?}");
    bench.kubectl(&["delete", "schedule/often", "--timeout=20s"])?;
    bench.until("the children to go", || Ok(children()?.is_empty())).map(drop)
}

fn unsupported(bench: &Bench<'_>) -> Result<()> {
    let spec = json!({
        "action": "latency", "mode": "all", "volumePath": "/data", "delay": "10ms",
        "selector": { "labelSelectors": { "app": "web" } },
    });
    bench.apply(&object("IOChaos", "later", &spec))?;
    bench.until("the event", || {
        let events = bench.kubectl(&["get", "events", "--field-selector=reason=NotSupported"])?;
        Ok(events.contains("not supported by this version"))
    })?;
    let status = bench.get(&["iochaos/later"])?["status"].clone();
    let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
    ensure!(
        conditions.iter().any(|one| one["type"] == "AllInjected" && one["status"] == "False"),
        "conditions: {status}"
    );
    bench.kubectl(&["delete", "iochaos/later", "--timeout=10s"]).map(drop)
}

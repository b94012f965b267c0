//! Loads and limits of containers, measured in the kernel's files of their cgroups.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::super::Bench;
use super::object;
use super::shop::{self, Pod};

pub mod ends;
pub mod written;

/// What the kernel counts of a container.
#[derive(Clone, Copy, Debug)]
struct Usage {
    cpu_us: u64,
    memory: u64,
    oom_kills: u64,
}

/// Reads it, whichever hierarchy the controllers are in.
const USAGE: &str = r#"
read_one() { for d in $(find /sys/fs/cgroup -type d -name "*$1*"); do
  [ -e "$d/$2" ] && { grep -h "$3" "$d/$2" | tr -dc '0-9\n'; return; }; done; echo; }
cpu=$(read_one ID cpuacct.usage .); v2=$(read_one ID cpu.stat usage_usec)
memory=$(read_one ID memory.usage_in_bytes .); [ -n "$memory" ] || memory=$(read_one ID memory.current .)
oom=$(read_one ID memory.oom_control 'oom_kill '); [ -n "$oom" ] || oom=$(read_one ID memory.events 'oom_kill ')
[ -n "$cpu" ] && cpu=$((cpu / 1000)) || cpu=$v2
echo ${cpu:-0} ${memory:-0} ${oom:-0}
"#;

/// The container of a pod, as its status names it.
fn container(bench: &Bench<'_>, pod: &Pod) -> Result<Value> {
    let what = ["--namespace", &pod.namespace, "pod", &pod.name];
    Ok(bench.get(&what)?["status"]["containerStatuses"][0].clone())
}

fn usage(bench: &Bench<'_>, pod: &Pod) -> Result<Usage> {
    let container = container(bench, pod)?;
    let id = container["containerID"].as_str().unwrap_or_default();
    let id = id.rsplit('/').next().filter(|id| !id.is_empty()).context("no container runs")?;
    let said = bench.on_node(&pod.node, "sh", &["-c", &USAGE.replace("ID", id)])?;
    let numbers: Vec<u64> =
        said.split_whitespace().map(str::parse).collect::<Result<_, _>>().context(said.clone())?;
    let [cpu_us, memory, oom_kills] = numbers[..] else {
        anyhow::bail!("the node says {said:?}");
    };
    Ok(Usage { cpu_us, memory, oom_kills })
}

/// How much of one processor the pod's container uses over some seconds, percent.
fn busy(bench: &Bench<'_>, pod: &Pod, seconds: u64) -> Result<f64> {
    let start = std::time::Instant::now();
    let before = usage(bench, pod)?;
    std::thread::sleep(Duration::from_secs(seconds));
    let after = usage(bench, pod)?;
    let used = after.cpu_us.saturating_sub(before.cpu_us) as f64;
    Ok(used / start.elapsed().as_micros() as f64 * 100.0)
}

/// Processes of ours that work on a node.
fn workers(bench: &Bench<'_>, node: &str) -> Result<usize> {
    let script = "for p in /proc/[0-9]*; do tr '\\0' ' ' 2>/dev/null <$p/cmdline | \
                  grep -q '^kfault worker' && echo one; done; true";
    Ok(bench.on_node(node, "sh", &["-c", script])?.lines().count())
}

fn no_workers(bench: &Bench<'_>) -> Result<()> {
    for node in bench.nodes()? {
        ensure!(workers(bench, &node)? == 0, "workers are left on {node}");
    }
    Ok(())
}

fn throttle(name: &str, app: &Value, more: &Value) -> Value {
    let mut object = object("ThrottleChaos", name, &json!({ "mode": "all", "selector": app }));
    object["apiVersion"] = json!("kfault.dev/v1alpha1");
    for (key, value) in more.as_object().into_iter().flatten() {
        object["spec"][key] = value.clone();
    }
    object
}

fn web() -> Value {
    json!({ "labelSelectors": { "app": "web" } })
}

/// The pods that an experiment chose, and the others of both applications.
fn chosen(bench: &Bench<'_>, object: &str) -> Result<(Vec<Pod>, Vec<Pod>)> {
    let status = bench.get(&[object])?["status"]["experiment"].clone();
    let records = status["containerRecords"].as_array().cloned().unwrap_or_default();
    let ids: Vec<&str> = records.iter().filter_map(|record| record["id"].as_str()).collect();
    let mut all = shop::app(bench, "myapp1")?;
    all.extend(shop::app(bench, "myapp2")?);
    let is_chosen = |pod: &Pod| {
        let start = format!("{}/{}/", pod.namespace, pod.name);
        ids.iter().any(|id| id.starts_with(&start))
    };
    Ok(all.into_iter().partition(is_chosen))
}

/// The experiment of `deploy/examples/stress-cpu-memory.yaml` on the shop: 60 % of a processor and
/// 256 MB are asked of a container that may have 250m and 64Mi.
pub fn limits_of_one_replica(bench: &Bench<'_>) -> Result<()> {
    bench.need_nodes()?;
    let spec = json!({
        "mode": "one", "selector": shop::selector("myapp1"),
        "stressors": { "cpu": { "workers": 2, "load": 30 } },
    });
    bench.apply(&object("StressChaos", "cpu", &spec))?;
    bench.condition("stresschaos/cpu", "AllInjected")?;
    let (target, others) = chosen(bench, "stresschaos/cpu")?;
    ensure!((target.len(), others.len()) == (1, 3), "{} chosen", target.len());
    let used = busy(bench, &target[0], 8)?;
    ensure!((20.0..=28.0).contains(&used), "{used:.1} % of a processor, the limit is 25 %");
    for pod in &others {
        let used = busy(bench, pod, 1)?;
        ensure!(used < 5.0, "{} uses {used:.1} % of a processor", pod.name);
    }
    let status = bench.get(&["stresschaos/cpu"])?["status"].clone();
    let instances = status["instances"].as_object().cloned().unwrap_or_default();
    ensure!(instances.len() == 1, "instances: {}", status["instances"]);
    ensure!(instances.values().all(|one| one["startTime"].is_string()), "{instances:?}");
    bench.kubectl(&["delete", "stresschaos/cpu", "--timeout=20s"])?;
    no_workers(bench)?;
    let used = busy(bench, &target[0], 2)?;
    ensure!(used < 5.0, "{used:.1} % of a processor after the end");

    let spec = json!({
        "mode": "one", "selector": shop::selector("myapp1"),
        "stressors": { "memory": { "workers": 1, "size": "256MB" } },
    });
    bench.apply(&object("StressChaos", "memory", &spec))?;
    bench.until("a target", || Ok(chosen(bench, "stresschaos/memory")?.0.len() == 1))?;
    let (target, others) = chosen(bench, "stresschaos/memory")?;
    // On v2 the whole container dies, as with a leak of its own; on v1 the worker does.
    bench.until("the kernel to run out of memory for it", || {
        let container = container(bench, &target[0])?;
        let last = &container["lastState"]["terminated"]["reason"];
        Ok(last == "OOMKilled" || usage(bench, &target[0]).is_ok_and(|now| now.oom_kills > 0))
    })?;
    for pod in &others {
        let usage = usage(bench, pod)?;
        ensure!(usage.oom_kills == 0 && usage.memory < 40_000_000, "{}: {usage:?}", pod.name);
        ensure!(container(bench, pod)?["restartCount"] == 0, "{} was restarted", pod.name);
    }
    bench.kubectl(&["delete", "stresschaos/memory", "--timeout=20s"])?;
    no_workers(bench)?;
    bench.until("all to run again", || Ok(shop::is_complete(bench).is_ok()))?;
    bench.until("its memory to be free again", || {
        Ok(usage(bench, &target[0])?.memory < 40_000_000)
    })?;
    // New pods: one that was killed waits longer for each start.
    let restart = ["--namespace", shop::NAMESPACE, "rollout", "restart", "deployment/myapp1"];
    bench.kubectl(&restart)?;
    shop::is_complete(bench)
}

/// Memory that fits: 100 MB more in the container.
pub fn memory(bench: &Bench<'_>) -> Result<()> {
    bench.need_nodes()?;
    let web = shop::pods(bench, "default", "app=web")?;
    let before: Vec<u64> =
        web.iter().map(|pod| Ok(usage(bench, pod)?.memory)).collect::<Result<_>>()?;
    let spec = json!({
        "mode": "all", "selector": self::web(),
        "stressors": { "memory": { "workers": 2, "size": "100MB" } },
    });
    bench.apply(&object("StressChaos", "memory", &spec))?;
    bench.condition("stresschaos/memory", "AllInjected")?;
    std::thread::sleep(Duration::from_secs(1));
    for (pod, before) in web.iter().zip(&before) {
        let more = usage(bench, pod)?.memory.saturating_sub(*before);
        ensure!((98_000_000..=104_000_000).contains(&more), "{}: {more} bytes more", pod.name);
    }
    bench.neighbour_is_well()?;
    // A container that is started again gets its workers again.
    let kill = super::pods("container-kill", "all", &json!({ "containerNames": ["web"] }));
    bench.apply(&object("PodChaos", "kill", &kill))?;
    bench.condition("podchaos/kill", "AllInjected")?;
    bench.until("the new containers to be loaded", || {
        let loaded = |pod: &Pod| Ok::<_, anyhow::Error>(usage(bench, pod)?.memory > 98_000_000);
        Ok(web.iter().map(loaded).collect::<Result<Vec<_>>>()?.into_iter().all(|is| is))
    })?;
    bench.kubectl(&["annotate", "stresschaos/memory", "experiment.chaos-mesh.org/pause=true"])?;
    bench.condition("stresschaos/memory", "AllRecovered")?;
    no_workers(bench)?;
    bench.kubectl(&["delete", "stresschaos/memory", "podchaos/kill", "--timeout=20s"]).map(drop)
}

/// A busy container at a tenth of a processor, and as it was afterwards.
pub fn quota(bench: &Bench<'_>) -> Result<()> {
    bench.need_nodes()?;
    let web = shop::pods(bench, "default", "app=web")?;
    let spec = json!({
        "mode": "all", "selector": self::web(),
        "stressors": { "cpu": { "workers": 1, "load": 40 } },
    });
    bench.apply(&object("StressChaos", "busy", &spec))?;
    bench.condition("stresschaos/busy", "AllInjected")?;
    let limits = json!({ "cpu": { "quota": "10%" }, "network": { "rate": "1mbit" } });
    bench.apply(&throttle("slow", &self::web(), &limits))?;
    bench.condition("throttlechaos/slow", "AllInjected")?;
    for pod in &web {
        let used = busy(bench, pod, 4)?;
        ensure!((5.0..=12.5).contains(&used), "{}: {used:.1} % of a processor", pod.name);
    }
    // Its answers go through the container's own sockets.
    bench.connects("web", 0, 250)?;
    bench.until("the network's rule to match", || {
        let faults = bench.get(&["nodefaults", "-A"])?;
        let all = faults["items"].as_array().cloned().unwrap_or_default();
        let rules = all.iter().filter_map(|one| one["status"]["rules"].as_array()).flatten();
        Ok(rules.filter(|rule| rule["injected"].as_u64() > Some(0)).count() == 2)
    })?;
    bench.until("the node to tell of it", || {
        let faults = bench.get(&["nodefaults", "-A"])?;
        let all = faults["items"].as_array().cloned().unwrap_or_default();
        let strains = all.iter().filter_map(|one| one["status"]["strains"].as_array()).flatten();
        Ok(strains.filter(|one| one["figures"]["throttledPeriods"].as_u64() > Some(0)).count() >= 2)
    })?;
    bench.kubectl(&["delete", "throttlechaos/slow", "--timeout=20s"])?;
    for pod in &web {
        let used = busy(bench, pod, 4)?;
        ensure!(used > 25.0, "{}: {used:.1} % of a processor without a quota", pod.name);
    }
    bench.kubectl(&["delete", "stresschaos/busy", "--timeout=20s"])?;
    no_workers(bench)
}

/// Nothing of the container runs until the time is over.
pub fn pause(bench: &Bench<'_>) -> Result<()> {
    let address = bench.pods("web")?.remove(0).1;
    bench.apply(&throttle("pause", &web(), &json!({ "freeze": true, "duration": "10s" })))?;
    bench.condition("throttlechaos/pause", "AllInjected")?;
    // The kernel still takes connections for it; nobody answers them.
    let answers = || -> Result<bool> {
        let url = format!("http://{address}/");
        let curl = ["exec", "client", "--", "curl", "--silent", "--max-time", "1", &url];
        Ok(bench.kubectl(&curl).is_ok())
    };
    ensure!(!answers()?, "a frozen server answers");
    bench.neighbour_is_well()?;
    bench.until("it to run again", answers)?;
    bench.condition("throttlechaos/pause", "AllRecovered")?;
    bench.kubectl(&["delete", "throttlechaos/pause", "--timeout=20s"]).map(drop)
}

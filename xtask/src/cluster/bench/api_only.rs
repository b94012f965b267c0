//! Experiments that only the API server carries out: how fast their conditions follow.

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::goal::{Findings, Goal};
use super::{Bench, quantiles};

/// Experiments of each action.
const ROUNDS: usize = 20;

const PATH: &str = "apis/chaos-mesh.org/v1alpha1/namespaces/default/podchaos";

/// What Chaos Mesh needed on this kind of cluster, in milliseconds: measured once, elsewhere.
const CREATED: (&str, f64) = ("Chaos Mesh, earlier, best", 120.0);
const DELETED: (&str, f64) = ("Chaos Mesh, earlier, best", 60.0);

pub fn api(bench: &Bench<'_>, findings: &mut Findings) -> Result<()> {
    let watch = bench.server.watch(PATH)?;
    // A watch begins with what is there, which is nothing: it is heard from here on.
    std::thread::sleep(std::time::Duration::from_millis(500));
    for action in ["pod-kill", "pod-failure"] {
        let (mut injected, mut gone) = (Vec::new(), Vec::new());
        for round in 0..ROUNDS {
            bench.ready("target")?;
            let (pod, _) = bench.pods("target")?.into_iter().nth(round).context("no pod")?;
            let name = format!("{action}-{round}");
            let created = bench.server.post(PATH, &object(&name, action, &pod))?;
            let is_it = |event: &Value| event["object"]["metadata"]["name"] == *name;
            let at = watch.until("AllInjected", |event| is_it(event) && is_injected(event))?;
            injected.push(at - created);
            let deleted = bench.server.delete(&format!("{PATH}/{name}"))?;
            let at = watch.until("its end", |event| is_it(event) && event["type"] == "DELETED")?;
            gone.push(at - deleted);
        }
        for (what, seconds, most, peer) in [
            ("created → AllInjected", injected, 120.0, CREATED),
            ("deleted → gone", gone, 100.0, DELETED),
        ] {
            let figure = format!("{action}: {what}");
            let mean = seconds.iter().sum::<f64>() / seconds.len() as f64 * 1e3;
            quantiles(findings, &figure, seconds, Goal::AtMost(most));
            findings.against(format!("{figure}, mean"), "ms", mean, peer, Goal::Told);
        }
    }
    bench.ready("target")
}

fn object(name: &str, action: &str, pod: &str) -> Value {
    json!({
        "apiVersion": "chaos-mesh.org/v1alpha1",
        "kind": "PodChaos",
        "metadata": { "name": name },
        "spec": {
            "action": action,
            "mode": "all",
            "selector": { "pods": { "default": [pod] } },
        },
    })
}

fn is_injected(event: &Value) -> bool {
    let all = event["object"]["status"]["conditions"].as_array();
    let mut all = all.into_iter().flatten();
    all.any(|one| one["type"] == "AllInjected" && one["status"] == "True")
}

//! What netem does between the pods of an experiment's two sides.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::super::Bench;
use super::{follow, shop};

/// From the client and to it: what web sends is hit, what it is sent is not.
fn towards(name: &str, direction: &str) -> Value {
    let mut experiment = follow::towards(name, "all");
    experiment["spec"]["direction"] = json!(direction);
    experiment
}

/// Connections that have been asked for, and whose answer has not been acknowledged.
fn half_open(bench: &Bench<'_>, pod: &shop::Pod) -> Result<usize> {
    let tables = shop::shell(bench, pod, "netstat -tn 2>/dev/null")?;
    Ok(tables.lines().filter(|line| line.contains("SYN_RECV")).count())
}

pub fn netem(bench: &Bench<'_>) -> Result<()> {
    let web = shop::pods(bench, "default", "app=web")?;
    let client = shop::pods(bench, "default", "app=client")?.remove(0);
    let neighbour = bench.pods("neighbour")?.remove(0).1;
    for (direction, least, most) in [("from", 200, 250), ("both", 400, 480)] {
        bench.apply(&towards("slow", direction))?;
        bench.condition("networkchaos/slow", "AllInjected")?;
        bench.connects("web", least, most).with_context(|| direction.to_owned())?;
        // Each side is as it was with everybody else.
        bench.neighbour_is_well()?;
        shop::takes(bench, &web[0], &neighbour, 0, 300)?;
        shop::takes(bench, &web[0], &web[1].address, 0, 300)?;
        bench.kubectl(&["delete", "networkchaos/slow", "--timeout=10s"])?;
        bench.connects("web", 0, 50)?;
    }

    let mut lost = towards("lost", "from");
    lost["spec"]["action"] = json!("loss");
    lost["spec"]["loss"] = json!({ "loss": "100" });
    if let Some(spec) = lost["spec"].as_object_mut() {
        spec.remove("delay");
    }
    bench.apply(&lost)?;
    bench.condition("networkchaos/lost", "AllInjected")?;
    for pod in &web {
        ensure!(half_open(bench, pod)? == 0, "{} was half open before", pod.name);
        let answer = bench.connect(&pod.address)?;
        ensure!(answer.is_none(), "{} answers", pod.name);
        // It was asked, so the way to it is as it was: the answer is what got lost.
        ensure!(half_open(bench, pod)? > 0, "{} was not asked", pod.name);
    }
    bench.neighbour_is_well()?;
    shop::takes(bench, &client, &neighbour, 0, 300)?;
    bench.kubectl(&["delete", "networkchaos/lost", "--timeout=10s"])?;
    bench.connects("web", 0, 50)
}

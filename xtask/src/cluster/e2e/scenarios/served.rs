//! What the controller serves: answers to the API server, and metrics.

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::super::Bench;
use super::{delayed, object};

pub fn admission(bench: &Bench<'_>) -> Result<()> {
    let wrong = delayed("wrong", &json!({ "mode": "fixed-percent", "value": "150" }));
    let (is_taken, said) = bench.applied(&wrong)?;
    let expected = "admission webhook \"vnetworkchaos.kb.io\" denied the request: Spec.Value: Invalid value: \"150\"";
    ensure!(!is_taken && said.contains(expected), "kubectl said {said}");

    let doubtful = delayed("delay", &json!({ "loss": { "loss": "0" }, "device": "" }));
    let (is_taken, said) = bench.applied(&doubtful)?;
    ensure!(is_taken && said.contains("Warning: "), "kubectl said {said}");
    let spec = bench.get(&["networkchaos/delay"])?["spec"].clone();
    ensure!(spec["selector"]["namespaces"] == json!(["default"]), "not defaulted: {spec}");
    ensure!(spec["direction"] == "to", "not defaulted: {spec}");
    bench.condition("networkchaos/delay", "AllInjected")?;

    let change = r#"--patch={"spec":{"delay":{"latency":"1s"}}}"#;
    let changed = bench.kubectl(&["patch", "networkchaos/delay", "--type=merge", change]);
    let said = format!("{:#}", changed.err().context("the spec was changed")?);
    ensure!(said.contains("Cannot update chaos spec"), "kubectl said {said}");
    bench.connects("web", 200, 250)?;
    bench.kubectl(&["label", "networkchaos/delay", "team=shop"])?;
    bench.kubectl(&["delete", "networkchaos/delay", "--timeout=10s"])?;

    let schedule = json!({
        "schedule": "@every 1h", "type": "NetworkChaos", "historyLimit": 1,
        "networkChaos": delayed("", &json!({ "mode": "fixed-percent", "value": "150" }))["spec"],
    });
    let (is_taken, said) = bench.applied(&object("Schedule", "wrong", &schedule))?;
    ensure!(
        !is_taken && said.contains("request: Spec.NetworkChaos.Value: "),
        "kubectl said {said}"
    );
    Ok(())
}

pub fn no_controller(bench: &Bench<'_>) -> Result<()> {
    let scale = |replicas: &str| {
        let replicas = format!("--replicas={replicas}");
        let what = "deployment/chaos-controller-manager";
        bench.kubectl(&["-n", "chaos-mesh", "scale", what, &replicas]).map(drop)
    };
    bench.apply(&delayed("delay", &json!({})))?;
    bench.condition("networkchaos/delay", "AllInjected")?;
    scale("0")?;
    let label = "app.kubernetes.io/component=controller";
    bench.until("the controller to end", || {
        let pods = bench.get(&["-n", "chaos-mesh", "pods", "-l", label])?;
        Ok(pods["items"].as_array().is_some_and(Vec::is_empty))
    })?;
    let (is_taken, said) = bench.applied(&delayed("second", &json!({})))?;
    // It does not call what is not there: the pause is carried out when there is somebody again.
    let pause =
        bench.kubectl(&["annotate", "networkchaos/delay", "experiment.chaos-mesh.org/pause=true"]);
    scale("1")?;
    ensure!(!is_taken && said.contains("failed calling webhook"), "kubectl said {said}");
    pause.context("pause without a controller")?;
    bench.condition("networkchaos/delay", "AllRecovered")?;
    bench.connects("web", 0, 50)
}

pub fn metrics(bench: &Bench<'_>) -> Result<()> {
    let read = || {
        let service = "/api/v1/namespaces/chaos-mesh/services/chaos-controller-manager:metrics";
        bench.kubectl(&["get", "--raw", &format!("{service}/proxy/metrics")])
    };
    let value = |text: &str, start: &str| -> f64 {
        let lines = text.lines().filter(|line| line.starts_with(start));
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    };
    const INJECTED: &str = "kfault_decisions_injected_total{kind=\"NetworkChaos\"}";
    const TOLD: &str = "kfault_events_emitted_total{kind=\"NetworkChaos\",reason=\"Applied\"";
    const ASKED: &str = "kfault_admission_requests_total{kind=\"NetworkChaos\"";
    let before = read()?;
    ensure!(value(&before, "kfault_leader") == 1.0, "nobody leads:\n{before}");
    bench.apply(&delayed("delay", &json!({})))?;
    bench.condition("networkchaos/delay", "AllInjected")?;
    bench.connects("web", 200, 250)?;
    bench.until("what was injected", || {
        let now = read()?;
        let more = |start: &str| value(&now, start) - value(&before, start);
        Ok(more(INJECTED) > 0.0 && more(TOLD) == 2.0 && more(ASKED) == 2.0)
    })?;
    bench.until("the number of experiments", || {
        let name = "kfault_experiments{kind=\"NetworkChaos\",phase=\"Running\"}";
        Ok(value(&read()?, name) == 1.0)
    })?;
    bench.kubectl(&["delete", "networkchaos/delay", "--timeout=10s"]).map(drop)
}

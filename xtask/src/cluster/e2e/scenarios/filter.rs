//! A controller that chooses pods of namespaces alone that say so.

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::super::Bench;
use super::{SHOP, delayed, server, shop};

const INJECT: &str = "chaos-mesh.org/inject";

/// `=enabled` is what lets a namespace in; `-` takes the annotation away.
fn annotate(bench: &Bench<'_>, namespace: &str, value: &str) -> Result<()> {
    let what = format!("namespace/{namespace}");
    bench.kubectl(&["annotate", &what, &format!("{INJECT}{value}"), "--overwrite"]).map(drop)
}

pub fn namespaces(bench: &Bench<'_>) -> Result<()> {
    let option = r#"--patch=[{"op":"add","path":"/spec/template/spec/containers/0/args/-","value":"--filter-namespaces"}]"#;
    let controller = "deployment/chaos-controller-manager";
    bench.kubectl(&["-n", "chaos-mesh", "patch", controller, "--type=json", option])?;
    let done = server::settle(bench).and_then(|()| filtered(bench));
    for namespace in ["default", SHOP] {
        annotate(bench, namespace, "-")?;
    }
    bench.install_kfault()?;
    server::settle(bench)?;
    done
}

fn records(bench: &Bench<'_>, name: &str) -> Result<Vec<Value>> {
    let status = bench.get(&["networkchaos", name])?["status"].clone();
    let all = status["experiment"]["containerRecords"].as_array().cloned().unwrap_or_default();
    Ok(all.iter().map(|one| one["id"].clone()).collect())
}

fn filtered(bench: &Bench<'_>) -> Result<()> {
    annotate(bench, "default", "=disabled")?;
    annotate(bench, SHOP, "=enabled")?;
    let either = json!({
        "namespaces": ["default", SHOP],
        "expressionSelectors": [{ "key": "app", "operator": "In", "values": ["web", "myapp1"] }],
    });
    bench.apply(&delayed("filtered", &json!({ "selector": either })))?;
    bench.condition("networkchaos/filtered", "AllInjected")?;
    let chosen = records(bench, "filtered")?;
    let is_ours = |id: &Value| id.as_str().is_some_and(|id| id.starts_with("shop/myapp1-"));
    ensure!(chosen.len() == 2 && chosen.iter().all(is_ours), "chosen: {chosen:?}");
    let neighbour = bench.pods("neighbour")?.remove(0).1;
    for pod in shop::app(bench, "myapp1")? {
        shop::takes(bench, &pod, &neighbour, 400, 700)?;
    }
    bench.connects("web", 0, 50)?;
    bench.kubectl(&["delete", "networkchaos/filtered", "--timeout=10s"])?;

    bench.apply(&delayed("kept-out", &json!({})))?;
    bench.until("the event", || {
        let named = "--field-selector=reason=Failed,involvedObject.name=kept-out";
        Ok(bench.kubectl(&["get", "events", named])?.contains("no pod is selected"))
    })?;
    bench.connects("web", 0, 50)?;
    annotate(bench, "default", "=enabled")?;
    bench.condition("networkchaos/kept-out", "AllInjected")?;
    bench.connects("web", 200, 250)?;
    bench.neighbour_is_well()?;
    bench.kubectl(&["delete", "networkchaos/kept-out", "--timeout=10s"])?;
    bench.connects("web", 0, 50)
}

//! HTTP faults of the example application.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::super::bench::{self, Bench};
use super::{object, shop};

/// Shorter than the page of the application.
const BODY: &str = "{\"new\":true}";
/// The same as a manifest writes it.
const BASE64: &str = "eyJuZXciOnRydWV9";
/// What the application answers otherwise.
const PAGE: &str = "hello from the test application";

/// What a pod sees of an address: the whole response.
fn see(bench: &Bench<'_>, from: &shop::Pod, address: &str) -> Result<String> {
    let url = bench::url(address);
    shop::shell(bench, from, &format!("curl --silent --include --max-time 5 '{url}'"))
}

fn is_page(said: &str) -> bool {
    said.starts_with("HTTP/1.1 200") && said.contains(PAGE)
}

fn is_replaced(said: &str) -> bool {
    let length = format!("Content-Length: {}\r\n", BODY.len());
    said.starts_with("HTTP/1.1 200") && said.ends_with(BODY) && said.contains(&length)
}

/// The walk-through of HTTPChaos: every replica's answers have another body while it runs.
pub fn replaced_body(bench: &Bench<'_>) -> Result<()> {
    let all = shop::app(bench, "myapp1")?;
    let client = shop::app(bench, "myapp2")?.into_iter().next().context("a pod of myapp2")?;
    ensure!(all.len() >= 2, "{} replicas of myapp1", all.len());
    let service = bench.get(&["--namespace", shop::NAMESPACE, "service/myapp1"])?;
    let service = service["spec"]["clusterIP"].as_str().context("a ClusterIP")?.to_owned();
    ensure!(is_page(&see(bench, &client, &service)?), "the application does not answer");
    let spec = json!({
        "mode": "all", "selector": shop::selector("myapp1"), "target": "Response", "port": 80,
        "replace": { "body": BASE64 }, "duration": "25s",
    });
    bench.apply(&object("HTTPChaos", "body", &spec))?;
    bench.condition("httpchaos/body", "AllInjected")?;
    for pod in &all {
        let said = see(bench, &client, &pod.address)?;
        ensure!(is_replaced(&said), "{} answers {said:?}", pod.name);
    }
    for _ in 0..4 {
        let said = see(bench, &client, &service)?;
        ensure!(is_replaced(&said), "the Service answers {said:?}");
    }
    // Nobody else serves anything else.
    let said = see(bench, &all[0], &client.address)?;
    ensure!(is_page(&said), "a pod that nobody selected answers {said:?}");
    let status = bench.get(&["httpchaos/body"])?["status"].clone();
    let records = status["experiment"]["containerRecords"].as_array().cloned().unwrap_or_default();
    let is_injected = |record: &Value| record["phase"] == "Injected";
    ensure!(records.len() == all.len() && records.iter().all(is_injected), "records: {records:?}");
    bench.condition("httpchaos/body", "AllRecovered")?;
    for pod in &all {
        let said = see(bench, &client, &pod.address)?;
        ensure!(is_page(&said), "{} answers {said:?} when it is over", pod.name);
    }
    bench.kubectl(&["delete", "httpchaos/body", "--timeout=10s"]).map(drop)
}

/// Responses to one path are late, others and those of others are not.
pub fn late(bench: &Bench<'_>) -> Result<()> {
    let client = shop::app(bench, "myapp2")?.into_iter().next().context("a pod of myapp2")?;
    let server = shop::app(bench, "myapp1")?.into_iter().next().context("a pod of myapp1")?;
    let spec = json!({
        "mode": "all", "selector": shop::selector("myapp1"), "target": "Response", "port": 80,
        "path": "/", "delay": "500ms", "kfault": { "role": "server" },
    });
    bench.apply(&object("HTTPChaos", "late", &spec))?;
    bench.condition("httpchaos/late", "AllInjected")?;
    shop::takes(bench, &client, &server.address, 500, 900)?;
    let other = format!("{}/other", bench::url(&server.address).trim_end_matches('/'));
    let curl = format!("curl --silent --output /dev/null --write-out '%{{time_total}}' '{other}'");
    let seconds: f64 = shop::shell(bench, &client, &curl)?.trim().parse()?;
    ensure!(seconds < 0.3, "another path took {seconds} s");
    shop::takes(bench, &server, &client.address, 0, 300)?;
    bench.neighbour_is_well()?;
    bench.kubectl(&["delete", "httpchaos/late", "--timeout=10s"])?;
    shop::takes(bench, &client, &server.address, 0, 300)
}

/// What only the agent can edit: JSON that is merged, into the body that another experiment has put
/// there.
pub fn merged(bench: &Bench<'_>) -> Result<()> {
    let client = shop::app(bench, "myapp2")?.into_iter().next().context("a pod of myapp2")?;
    let all = shop::app(bench, "myapp1")?;
    let common = |edit: Value| {
        let mut spec = json!({
            "mode": "all", "selector": shop::selector("myapp1"), "target": "Response", "port": 80,
            "path": "/", "kfault": { "role": "server" },
        });
        spec.as_object_mut().into_iter().for_each(|spec| {
            spec.extend(edit.as_object().cloned().unwrap_or_default());
        });
        spec
    };
    let replace = common(json!({ "replace": { "body": BASE64, "code": 418 } }));
    let patch = json!({ "type": "JSON", "value": "{\"more\":[1,2]}" });
    let patch = common(json!({ "patch": { "body": patch, "headers": [["X-More", "yes"]] } }));
    bench.apply(&object("HTTPChaos", "merged-a", &replace))?;
    bench.apply(&object("HTTPChaos", "merged-b", &patch))?;
    for name in ["httpchaos/merged-a", "httpchaos/merged-b"] {
        bench.condition(name, "AllInjected")?;
    }
    for pod in &all {
        for _ in 0..2 {
            let said = see(bench, &client, &pod.address)?;
            let (head, body) = said.split_once("\r\n\r\n").context("a head")?;
            ensure!(head.starts_with("HTTP/1.1 418") && head.contains("X-More: yes"), "{said:?}");
            let body: Value = serde_json::from_str(body).with_context(|| said.clone())?;
            ensure!(
                body == json!({ "new": true, "more": [1, 2] }),
                "{} answers {said:?}",
                pod.name
            );
        }
    }
    let said = see(bench, &all[0], &client.address)?;
    ensure!(is_page(&said), "a pod that nobody selected answers {said:?}");
    bench.neighbour_is_well()?;
    bench.kubectl(&["delete", "httpchaos/merged-a", "httpchaos/merged-b", "--timeout=10s"])?;
    for pod in &all {
        let said = see(bench, &client, &pod.address)?;
        ensure!(is_page(&said), "{} answers {said:?} when it is over", pod.name);
    }
    Ok(())
}

/// Requests for what does not exist arrive as requests for the page, and as they are sent when it is over.
pub fn asked(bench: &Bench<'_>) -> Result<()> {
    let client = shop::app(bench, "myapp2")?.into_iter().next().context("a pod of myapp2")?;
    let all = shop::app(bench, "myapp1")?;
    let absent = |pod: &shop::Pod| {
        let url = format!("{}/no/such/page", bench::url(&pod.address).trim_end_matches('/'));
        // Twice on one connection.
        shop::shell(
            bench,
            &client,
            &format!("curl --silent --include --max-time 5 '{url}' '{url}'"),
        )
    };
    let spec = json!({
        "mode": "all", "selector": shop::selector("myapp1"), "target": "Request", "port": 80,
        "path": "/no/*", "replace": { "path": "/" }, "patch": { "headers": [["X-More", "yes"]] },
        "kfault": { "role": "server" },
    });
    bench.apply(&object("HTTPChaos", "asked", &spec))?;
    bench.condition("httpchaos/asked", "AllInjected")?;
    for pod in &all {
        let said = absent(pod)?;
        ensure!(is_page(&said) && said.matches(PAGE).count() == 2, "{} answers {said:?}", pod.name);
        ensure!(is_page(&see(bench, &client, &pod.address)?), "another path of {}", pod.name);
    }
    bench.neighbour_is_well()?;
    bench.kubectl(&["delete", "httpchaos/asked", "--timeout=10s"])?;
    for pod in &all {
        let said = absent(pod)?;
        ensure!(said.starts_with("HTTP/1.1 404"), "{} answers {said:?} when it is over", pod.name);
    }
    Ok(())
}

/// What is not there yet is said in the record, and can be deleted.
pub fn unsupported(bench: &Bench<'_>) -> Result<()> {
    let spec = json!({
        "mode": "all", "selector": shop::selector("myapp1"), "target": "Response", "port": 80,
        "replace": { "code": 503 }, "kfault": { "role": "client" },
    });
    bench.apply(&object("HTTPChaos", "later", &spec))?;
    bench.until("the records to say why nothing acts", || {
        let status = bench.get(&["httpchaos/later"])?["status"].clone();
        let text = status["experiment"]["containerRecords"].to_string();
        Ok(text.contains("spec.kfault.role: not supported by this version"))
    })?;
    let client = shop::app(bench, "myapp2")?.into_iter().next().context("a pod of myapp2")?;
    let server = shop::app(bench, "myapp1")?.into_iter().next().context("a pod of myapp1")?;
    ensure!(is_page(&see(bench, &client, &server.address)?), "something acts");
    bench.kubectl(&["delete", "httpchaos/later", "--timeout=10s"]).map(drop)
}

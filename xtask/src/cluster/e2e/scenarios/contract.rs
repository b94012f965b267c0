//! What clients of the public API read: conditions, records, events, columns.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::super::Bench;
use super::{delayed, object};

const PAUSE: &str = "experiment.chaos-mesh.org/pause";

/// The events of one object, by the moment in their names.
fn events(bench: &Bench<'_>, uid: &str) -> Result<Vec<Value>> {
    let list = bench.get(&["events", &format!("--field-selector=involvedObject.uid={uid}")])?;
    let mut all = list["items"].as_array().cloned().unwrap_or_default();
    let moment = |event: &Value| {
        let name = event["metadata"]["name"].as_str().unwrap_or_default();
        name.rsplit_once('.').and_then(|(_, hex)| u128::from_str_radix(hex, 16).ok())
    };
    ensure!(all.iter().all(|event| moment(event).is_some()), "names of events: {all:?}");
    all.sort_by_key(moment);
    Ok(all)
}

fn text<'a>(value: &'a Value, path: &str) -> &'a str {
    value.pointer(path).and_then(Value::as_str).unwrap_or_default()
}

fn annotation<'a>(event: &'a Value, key: &str) -> &'a str {
    event["metadata"]["annotations"][format!("chaos-mesh.org/{key}")].as_str().unwrap_or_default()
}

pub fn life(bench: &Bench<'_>) -> Result<()> {
    bench.apply(&delayed("life", &json!({})))?;
    bench.condition("networkchaos/life", "AllInjected")?;
    let first = bench.get(&["networkchaos/life"])?;
    let uid = text(&first, "/metadata/uid").to_owned();
    ensure!(first["metadata"]["finalizers"] == json!(["chaos-mesh/records"]), "{first}");
    let records = first["status"]["experiment"]["containerRecords"].clone();
    let records = records.as_array().context("no records")?;
    ensure!(records.len() == 2, "records: {records:?}");
    for record in records {
        let event = &record["events"][0];
        let is_right = record["selectorKey"] == "." && record["injectedCount"] == 1;
        ensure!(is_right && record["recoveredCount"] == 0, "{record}");
        ensure!(event["type"] == "Succeeded" && event["operation"] == "Apply", "{record}");
        let instance = &first["status"]["instances"][text(record, "/id")];
        ensure!(instance.as_i64() >= Some(1), "instances: {}", first["status"]["instances"]);
    }
    let conditions: Vec<&str> = first["status"]["conditions"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|one| one["type"].as_str())
        .collect();
    ensure!(conditions.len() == 4, "conditions: {conditions:?}");

    bench.kubectl(&["annotate", "networkchaos/life", &format!("{PAUSE}=true")])?;
    bench.condition("networkchaos/life", "AllRecovered")?;
    bench.condition("networkchaos/life", "Paused")?;
    bench.neighbour_is_well()?;
    let paused = bench.get(&["networkchaos/life"])?["status"].clone();
    ensure!(paused["experiment"]["desiredPhase"] == "Stop", "{paused}");
    ensure!(paused["instances"].is_null(), "instances: {}", paused["instances"]);
    // Only the literal word pauses.
    bench.kubectl(&["annotate", "--overwrite", "networkchaos/life", &format!("{PAUSE}=yes")])?;
    bench.condition("networkchaos/life", "AllInjected")?;
    let resumed = bench.get(&["networkchaos/life"])?["status"].clone();
    let record = &resumed["experiment"]["containerRecords"][0];
    ensure!(record["injectedCount"] == 2 && record["recoveredCount"] == 1, "{record}");
    bench.kubectl(&["delete", "networkchaos/life", "--timeout=10s"])?;

    let wanted = [
        "FinalizerInited",
        "Started",
        "Applied",
        "Applied",
        "Paused",
        "Recovered",
        "Recovered",
        "Started",
        "Applied",
        "Applied",
        "Deleted",
        "Recovered",
        "Recovered",
        "FinalizerInited",
    ];
    let told = || -> Result<Vec<String>> {
        let all = events(bench, &uid)?;
        let reasons = all.iter().map(|event| text(event, "/reason").to_owned());
        Ok(reasons.filter(|reason| reason != "Updated").collect())
    };
    bench
        .until("every event", || Ok(told()?.len() >= wanted.len()))
        .with_context(|| format!("{:?}", told().unwrap_or_default()))?;
    let told = told()?;
    ensure!(told == wanted, "told: {told:?}");
    for event in events(bench, &uid)? {
        check(&event)?;
    }
    Ok(())
}

/// The shape of an event.
fn check(event: &Value) -> Result<()> {
    let (reason, message) = (text(event, "/reason"), text(event, "/message"));
    ensure!(event["count"] == 1 && event["type"] == "Normal", "{event}");
    ensure!(text(event, "/metadata/name").starts_with("life."), "{event}");
    ensure!(event["firstTimestamp"].is_string() && event["lastTimestamp"].is_string(), "{event}");
    let component = text(event, "/source/component");
    let (kind, components): (_, &[&str]) = match reason {
        "FinalizerInited" if message.ends_with("inited") => {
            ("finalizer-inited", &["initFinalizers"])
        }
        "FinalizerInited" => ("finalizer-removed", &["cleanFinalizers"]),
        "Started" => ("started", &["desiredphase"]),
        "Paused" => ("paused", &["desiredphase"]),
        "Deleted" => ("deleted", &["desiredphase"]),
        "Applied" => ("applied", &["records"]),
        "Recovered" => ("recovered", &["records"]),
        "Updated" => {
            let field = annotation(event, "field");
            ensure!(message == format!("Successfully update {field} of resource"), "{event}");
            let all: &[&str] = match field {
                "finalizer" => &["initFinalizers", "cleanFinalizers"],
                "desiredPhase" => &["desiredphase"],
                "conditions" => &["condition"],
                "records" => &["records"],
                _ => &[],
            };
            ("updated", all)
        }
        _ => ("", &[]),
    };
    ensure!(annotation(event, "type") == kind && components.contains(&component), "{event}");
    let is_of_record = ["Applied", "Recovered"].contains(&reason);
    ensure!(!is_of_record || message.ends_with(annotation(event, "id")), "{event}");
    Ok(())
}

/// `kubectl get`, names and endpoints.
pub fn resources(bench: &Bench<'_>) -> Result<()> {
    let list = |more: &str| -> Result<Vec<String>> {
        let args = ["api-resources", "--api-group=chaos-mesh.org", "--output=name", more];
        Ok(bench.kubectl(&args)?.lines().map(str::to_owned).collect())
    };
    ensure!(list("--namespaced=true")?.len() == 22, "{:?}", list("--namespaced=true")?);
    let cluster = list("--namespaced=false")?;
    ensure!(cluster == ["remoteclusters.chaos-mesh.org"], "cluster-wide: {cluster:?}");
    for word in ["wf", "wfn", "podnetworkchaos", "podiochaos", "podhttpchaos"] {
        bench.kubectl(&["get", word])?;
    }
    bench.apply(&delayed("seen", &json!({ "duration": "1m" })))?;
    bench.condition("networkchaos/seen", "AllInjected")?;
    let shown = bench.kubectl(&["get", "networkchaos/seen"])?;
    let lines: Vec<Vec<&str>> =
        shown.lines().map(|line| line.split_whitespace().collect()).collect();
    let titles = ["NAME", "ACTION", "DURATION", "PHASE", "TARGETS", "INJECTED", "AGE"];
    ensure!(lines[0] == titles, "columns: {shown}");
    ensure!(lines[1][..5] == ["seen", "delay", "1m", "Running", "2"], "row: {shown}");
    // Experiments have no status endpoint; what reports has one.
    let patch = ["--subresource=status", "--type=merge", r#"--patch={"status":{}}"#];
    let experiment = bench.kubectl(&[&["patch", "networkchaos/seen"], &patch[..]].concat());
    ensure!(experiment.is_err(), "an experiment has a status endpoint");
    bench.kubectl(&["delete", "networkchaos/seen", "--timeout=10s"])?;
    let spec = json!({
        "entry": "a",
        "templates": [{ "name": "a", "templateType": "Suspend", "deadline": "1s" }],
    });
    bench.apply(&object("Workflow", "seen", &spec))?;
    let workflow = bench.kubectl(&[&["patch", "wf/seen"], &patch[..]].concat());
    bench.kubectl(&["delete", "wf/seen", "--timeout=10s"])?;
    workflow.map(drop)
}

/// What a schedule has started is paused with it, and keeps the next one waiting.
pub fn schedule(bench: &Bench<'_>) -> Result<()> {
    let spec = json!({
        "schedule": "@every 2s", "type": "NetworkChaos", "historyLimit": 1,
        "concurrencyPolicy": "Forbid", "networkChaos": delayed("x", &json!({}))["spec"],
    });
    bench.apply(&object("Schedule", "one", &spec))?;
    let children = || -> Result<Vec<Value>> {
        let list = bench.get(&["networkchaos", "--selector=managed-by=one"])?;
        Ok(list["items"].as_array().cloned().unwrap_or_default())
    };
    let told = |reason: &str| -> Result<Vec<Value>> {
        let list = bench.get(&["events", &format!("--field-selector=reason={reason}")])?;
        let all = list["items"].as_array().cloned().unwrap_or_default();
        Ok(all.into_iter().filter(|one| one["involvedObject"]["name"] == "one").collect())
    };
    bench.until("the first child", || Ok(children()?.len() == 1))?;
    let child = text(&children()?[0], "/metadata/name").to_owned();
    bench.condition(&format!("networkchaos/{child}"), "AllInjected")?;
    bench.until("the refusal to start another one", || Ok(!told("Forbid")?.is_empty()))?;
    std::thread::sleep(Duration::from_secs(3));
    ensure!(children()?.len() == 1, "another one was started");
    let forbid = told("Forbid")?;
    ensure!(forbid.len() == 1, "told {} times", forbid.len());
    ensure!(annotation(&forbid[0], "running-name") == child, "{}", forbid[0]);
    ensure!(text(&forbid[0], "/source/component") == "schedule-cron", "{}", forbid[0]);
    let active = bench.get(&["schedules/one"])?["status"]["active"].clone();
    ensure!(active[0]["name"] == child && active[0]["kind"] == "NetworkChaos", "{active}");
    bench.kubectl(&["annotate", "schedules/one", &format!("{PAUSE}=true")])?;
    bench.condition(&format!("networkchaos/{child}"), "Paused")?;
    bench.condition(&format!("networkchaos/{child}"), "AllRecovered")?;
    bench.connects("web", 0, 50)?;
    bench.kubectl(&["annotate", "schedules/one", &format!("{PAUSE}-")])?;
    bench.condition(&format!("networkchaos/{child}"), "AllInjected")?;
    bench.neighbour_is_well()?;
    bench.kubectl(&["delete", "schedules/one", "--timeout=20s"])?;
    bench.until("the child to go", || Ok(children()?.is_empty()))?;
    bench.connects("web", 0, 50)
}

//! Installing kfault, upgrading it, ending what it does, and removing it, by both ways.

use std::collections::BTreeMap;
use std::process::Output;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::super::Bench;
use super::{delayed, object, pods};
use crate::{build, exec};

/// From the command until everything is ready.
const INSTALL: Duration = Duration::from_secs(30);
const NAMESPACE: &str = "chaos-mesh";
const RELEASE: &str = "kfault";
const CONTROLLER: &str = "deployment/chaos-controller-manager";

/// Everything of kfault's that no namespace has, but for the definitions.
const CLUSTER_WIDE: &str = "clusterrole,clusterrolebinding,mutatingwebhookconfiguration,validatingwebhookconfiguration,validatingadmissionpolicy,validatingadmissionpolicybinding";

fn helm(bench: &Bench<'_>, args: &[&str]) -> Result<String> {
    let mut helm = bench.site.own()?.client("helm")?;
    // Nothing of it stays in the home of whoever runs this.
    for name in ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"] {
        helm.env(name, super::super::site::folder().join("helm"));
    }
    exec::read(helm.args(args))
}

/// The program with an administrator's credentials, as a person runs it.
fn kfault(bench: &Bench<'_>, args: &[&str]) -> Result<Output> {
    let program = build::kfault()?.display().to_string();
    Ok(bench.site.own()?.client(&program)?.args(args).output()?)
}

fn deploy() -> String {
    crate::root().join("deploy").display().to_string()
}

fn chart() -> String {
    crate::root().join("deploy/helm/kfault").display().to_string()
}

/// Every JSON object of a text.
fn objects(text: &str) -> Result<Vec<Value>> {
    let all = serde_json::Deserializer::from_str(text).into_iter();
    all.collect::<serde_json::Result<_>>().context("JSON")
}

pub fn stop(bench: &Bench<'_>) -> Result<()> {
    bench.apply(&object("PodChaos", "kill", &pods("pod-kill", "one", &json!({}))))?;
    bench.condition("podchaos/kill", "AllInjected")?;
    bench.kubectl(&["rollout", "status", "--timeout=60s", "deployment/web"])?;
    bench.apply(&delayed("delay", &json!({})))?;
    let block = delayed("x", &json!({ "duration": "1h" }))["spec"].clone();
    let schedule = json!({
        "schedule": "@every 3s", "type": "NetworkChaos", "historyLimit": 1,
        "concurrencyPolicy": "Forbid", "networkChaos": block,
    });
    bench.apply(&object("Schedule", "often", &schedule))?;
    bench.condition("networkchaos/delay", "AllInjected")?;
    let all = || -> Result<Vec<Value>> {
        let list = bench.get(&["networkchaos"])?;
        Ok(list["items"].as_array().cloned().unwrap_or_default())
    };
    bench.until("the schedule's first child", || Ok(all()?.len() == 2))?;
    let said = kfault(bench, &["stop", "--all", "--output", "json"])?;
    let text = String::from_utf8_lossy(&said.stdout).into_owned();
    ensure!(said.status.code() == Some(0), "{}: {text}", said.status);
    let events = objects(&text)?;
    let summary = events.last().context("no event")?;
    ensure!(summary["event"] == "summary" && summary["exit"] == 0, "{summary}");
    let names = |list: &Value| list.as_array().map_or(0, Vec::len);
    ensure!(names(&summary["recovered"]) == 3, "recovered: {summary}");
    ensure!(summary["skipped"] == json!(["PodChaos/default/kill"]), "skipped: {summary}");
    bench.kubectl(&["rollout", "status", "--timeout=60s", "deployment/web"])?;
    bench.connects("web", 0, 50)?;
    // Longer than the schedule's period.
    std::thread::sleep(Duration::from_secs(5));
    let now = all()?;
    ensure!(now.len() == 2, "something was started: {} experiments", now.len());
    let name = now.iter().find(|one| one["metadata"]["name"] != "delay").context("no child")?;
    ensure!(name["metadata"]["annotations"]["kfault.dev/paused-by-schedule"] == "true", "{name}");
    bench.connects("web", 0, 50)
}

pub fn stop_without_controller(bench: &Bench<'_>) -> Result<()> {
    bench.apply(&delayed("delay", &json!({})))?;
    bench.condition("networkchaos/delay", "AllInjected")?;
    let scale = |count: &str| bench.kubectl(&["-n", NAMESPACE, "scale", CONTROLLER, count]);
    scale("--replicas=0")?;
    bench.until("the controller to end", || {
        let label = "app.kubernetes.io/component=controller";
        let pods = bench.get(&["-n", NAMESPACE, "pods", "-l", label])?;
        Ok(pods["items"].as_array().is_some_and(Vec::is_empty))
    })?;
    let one = "networkchaos/default/delay";
    let said = kfault(bench, &["stop", one, "--timeout", "3s"]);
    let nobody = kfault(bench, &["stop", "networkchaos/default/nobody"]);
    scale("--replicas=1")?;
    let (said, nobody) = (said?, nobody?);
    let text = String::from_utf8_lossy(&said.stderr).into_owned();
    ensure!(said.status.code() == Some(1), "{}: {text}", said.status);
    ensure!(text.contains("2 of 2 targets not recovered"), "it said {text}");
    ensure!(text.contains("Is the controller running?"), "it said {text}");
    ensure!(nobody.status.code() == Some(2), "{}", nobody.status);
    // It was asked, and is answered by the next controller.
    let said = kfault(bench, &["stop", one])?;
    ensure!(said.status.success(), "{}: {}", said.status, String::from_utf8_lossy(&said.stderr));
    bench.connects("web", 0, 50)
}

pub fn rival(bench: &Bench<'_>) -> Result<()> {
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": "other", "namespace": "default", "labels": {
            "app.kubernetes.io/name": "chaos-mesh",
            "app.kubernetes.io/component": "controller-manager",
        } },
        "spec": { "terminationGracePeriodSeconds": 1, "containers": [
            { "name": "a", "image": "kfault.test/nginx:1", "imagePullPolicy": "IfNotPresent" },
        ] },
    });
    let now = exec::read(std::process::Command::new("date").args(["-u", "+%FT%T.000000Z"]))?;
    let lease = json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": { "name": "chaos-mesh", "namespace": "default" },
        "spec": {
            "holderIdentity": "other_1", "leaseDurationSeconds": 15, "renewTime": now.trim(),
        },
    });
    let done = bench.apply(&lease).and_then(|()| beside(bench, &pod));
    for one in ["pod/other", "lease/chaos-mesh"] {
        bench.kubectl(&["delete", one, "--ignore-not-found", "--timeout=30s"])?;
    }
    done?;
    // Kubernetes starts it again, after 10 s or 20 s.
    bench.within(Duration::from_secs(90), "the controller to start", || {
        Ok(bench.get(&["-n", NAMESPACE, CONTROLLER])?["status"]["readyReplicas"] == 1)
    })?;
    bench.apply(&delayed("delay", &json!({})))?;
    bench.condition("networkchaos/delay", "AllInjected").map(drop)
}

/// A controller that is started beside signs of another one says which, and ends.
fn beside(bench: &Bench<'_>, pod: &Value) -> Result<()> {
    let second = ["-n", NAMESPACE, "exec", CONTROLLER, "--", "/kfault", "controller"];
    let options = ["--identity=second", "--no-webhooks", "--listen=127.0.0.1:10081"];
    let refused = || -> Result<String> {
        let mut kubectl = bench.site.own()?.client("timeout")?;
        let output = kubectl.args(["20", "kubectl"]).args(second).args(options).output()?;
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        // kubectl says so and ends with the same code.
        ensure!(output.status.code() == Some(3), "{}: {text}", output.status);
        Ok(text)
    };
    let said = refused()?;
    ensure!(said.contains("lease default/chaos-mesh (held by other_1, renewed "), "{said}");
    bench.kubectl(&["delete", "lease/chaos-mesh"])?;
    bench.apply(pod)?;
    let said = refused()?;
    ensure!(said.contains("pod default/other ("), "{said}");
    ensure!(!said.contains("held by"), "{said}");
    // Nor does Kubernetes get it to start.
    let label = "app.kubernetes.io/component=controller";
    bench.kubectl(&["-n", NAMESPACE, "delete", "pod", "-l", label])?;
    bench.until("the controller to refuse to start", || {
        let pods = bench.get(&["-n", NAMESPACE, "pods", "-l", label])?;
        let status = &pods["items"][0]["status"]["containerStatuses"][0];
        let ends = [&status["state"], &status["lastState"]].map(|state| &state["terminated"]);
        Ok(ends.iter().any(|end| end["exitCode"] == 3))
    })?;
    Ok(())
}

/// Everything that a stream of manifests has, but for definitions and the namespace.
fn rendered(bench: &Bench<'_>, name: &str, text: &str) -> Result<BTreeMap<String, Value>> {
    let file = super::super::site::folder().join(name);
    std::fs::write(&file, text).with_context(|| file.display().to_string())?;
    let file = file.display().to_string();
    let args = ["create", "--dry-run=client", "--validate=false", "--output=json", "--filename"];
    let said = bench.kubectl(&[&args[..], &[&file]].concat())?;
    let mut all = BTreeMap::new();
    for one in objects(&said)? {
        let parts = match one["items"].as_array() {
            Some(items) => items.clone(),
            None => vec![one],
        };
        for part in parts {
            let kind = part["kind"].as_str().unwrap_or_default().to_owned();
            if !matches!(kind.as_str(), "CustomResourceDefinition" | "Namespace") {
                all.insert(format!("{kind}/{}", part["metadata"]["name"]), part);
            }
        }
    }
    Ok(all)
}

pub fn alike(bench: &Bench<'_>) -> Result<()> {
    let plain = rendered(bench, "plain.yaml", &bench.kubectl(&["kustomize", &deploy()])?)?;
    // It asks no cluster for its version then.
    let render = ["template", RELEASE, &chart(), "-n", NAMESPACE, "--no-hooks"];
    let text = helm(bench, &[&render[..], &["--kube-version=1.34"]].concat())?;
    let from_chart = rendered(bench, "chart.yaml", &text)?;
    let names = |all: &BTreeMap<String, Value>| all.keys().cloned().collect::<Vec<_>>().join(" ");
    ensure!(plain.len() >= 15, "{} objects: {}", plain.len(), names(&plain));
    ensure!(names(&plain) == names(&from_chart), "{}\n{}", names(&plain), names(&from_chart));
    for (name, one) in &plain {
        ensure!(from_chart[name] == *one, "{name}:\n{one}\n{}", from_chart[name]);
    }
    Ok(())
}

/// Nothing of kfault's acts, and nothing of it is there.
fn is_gone(bench: &Bench<'_>) -> Result<()> {
    bench.connects("web", 0, 50)?;
    bench.neighbour_is_well()?;
    for what in [CLUSTER_WIDE, "deployment,daemonset,service,job,serviceaccount,role,rolebinding"] {
        let said = bench.kubectl(&["get", what, "-A", "--output=name", "--ignore-not-found"])?;
        let left: Vec<&str> = said
            .lines()
            .filter(|name| name.contains("kfault") || name.contains("/chaos"))
            .collect();
        ensure!(left.is_empty(), "left: {left:?}");
    }
    Ok(())
}

/// Waits until both workloads are ready; since when they were asked for.
fn ready(bench: &Bench<'_>, namespace: &str, since: Instant) -> Result<Duration> {
    for what in [CONTROLLER, "daemonset/chaos-daemon"] {
        let time = format!("--timeout={}s", INSTALL.as_secs());
        bench.kubectl(&["-n", namespace, "rollout", "status", &time, what])?;
    }
    ensure!(since.elapsed() <= INSTALL, "ready after {:?}", since.elapsed());
    Ok(since.elapsed())
}

/// Deletes what kustomize has installed. The namespace takes some of it along before it is asked for.
fn delete(bench: &Bench<'_>) -> Result<()> {
    let what = ["delete", "--kustomize", &deploy(), "--timeout=180s", "--ignore-not-found"];
    bench.kubectl(&what).map(drop)
}

/// What is installed by kustomize goes, as its page says.
fn remove(bench: &Bench<'_>) -> Result<()> {
    let stop = ["-n", NAMESPACE, "exec", CONTROLLER, "--", "/kfault", "stop", "--all", "--delete"];
    let said = bench.kubectl(&stop)?;
    ensure!(said.contains("recovered Schedule/default/often: it is gone"), "it said {said}");
    delete(bench)?;
    let left = bench.kubectl(&["get", "crd", "--output=name"])?;
    ensure!(!left.contains("chaos-mesh.org") && !left.contains("kfault"), "left: {left}");
    let namespace = ["get", "namespace", NAMESPACE, "--ignore-not-found", "--output=name"];
    ensure!(bench.kubectl(&namespace)?.is_empty(), "the namespace is left");
    is_gone(bench)
}

/// A fault that acts, and something that would start more of them.
fn busy(bench: &Bench<'_>) -> Result<()> {
    // The API server hears of a new controller's address a little after everybody else.
    bench.until("the controller to be asked", || {
        let (is_taken, said) = bench.applied(&delayed("delay", &json!({})))?;
        ensure!(is_taken || said.contains("no endpoints available"), "it said {said}");
        Ok(is_taken)
    })?;
    // For addresses that nobody measures.
    let block = delayed("x", &json!({ "externalTargets": ["192.0.2.1"], "duration": "3s" }));
    let schedule = json!({
        "schedule": "@every 2s", "type": "NetworkChaos", "historyLimit": 1,
        "concurrencyPolicy": "Allow", "networkChaos": block["spec"],
    });
    bench.apply(&object("Schedule", "often", &schedule))?;
    bench.condition("networkchaos/delay", "AllInjected")?;
    std::thread::sleep(Duration::from_secs(3));
    Ok(())
}

pub fn plain(bench: &Bench<'_>) -> Result<()> {
    busy(bench)?;
    let removed = remove(bench);
    let start = Instant::now();
    bench.install(&mut Vec::new())?;
    removed?;
    ready(bench, NAMESPACE, start)?;
    bench.apply(&delayed("delay", &json!({})))?;
    bench.condition("networkchaos/delay", "AllInjected")?;
    bench.connects("web", 200, 250)
}

/// Installed by the chart instead of what the other scenarios use, and back.
fn by_chart(
    bench: &Bench<'_>,
    namespace: &str,
    values: &[&str],
    scenario: impl FnOnce() -> Result<()>,
) -> Result<()> {
    delete(bench)?;
    let release = ["install", RELEASE, &chart(), "--namespace", namespace, "--create-namespace"];
    let wait = format!("--timeout={}s", INSTALL.as_secs());
    let start = Instant::now();
    let done = helm(bench, &[&release[..], &["--wait", &wait], values].concat())
        .and_then(|said| {
            ensure!(said.contains("/kfault stop --all"), "its notes: {said}");
            ready(bench, namespace, start)
        })
        .and_then(|_| scenario())
        .and_then(|()| is_gone(bench));
    if done.is_err() {
        print!("{}", bench.evidence());
        // Whatever it is that is left must not spoil what follows.
        let _ = helm(bench, &["uninstall", RELEASE, "--namespace", namespace, "--no-hooks"]);
    }
    bench.kubectl(&["delete", "namespace", namespace, "--timeout=60s"])?;
    bench.install(&mut Vec::new())?;
    done
}

fn uninstall(bench: &Bench<'_>, namespace: &str) -> Result<()> {
    helm(bench, &["uninstall", RELEASE, "-n", namespace, "--wait", "--timeout=120s"])?;
    for kind in ["networkchaos", "schedules.chaos-mesh.org", "nodefaults"] {
        let left = bench.kubectl(&["get", kind, "-A", "--output=name"])?;
        ensure!(left.is_empty(), "left: {left}");
    }
    Ok(())
}

pub fn chart_life(bench: &Bench<'_>) -> Result<()> {
    by_chart(bench, NAMESPACE, &[], || {
        busy(bench)?;
        bench.connects("web", 200, 250)?;
        bench.neighbour_is_well()?;
        let before = bench.get(&["networkchaos/delay"])?["metadata"]["uid"].clone();
        let own = ["upgrade", RELEASE, &chart(), "-n", NAMESPACE, "--wait", "--timeout=60s"];
        let values = ["--set", "logs.format=json,chaosDaemon.podAnnotations.team=shop"];
        helm(bench, &[&own[..], &values].concat())?;
        ensure!(bench.get(&["networkchaos/delay"])?["metadata"]["uid"] == before, "another one");
        // Its agents were started anew, and go on.
        bench.until("the fault to act again", || Ok(bench.connects("web", 200, 250).is_ok()))?;
        bench.until("a log of JSON", || {
            let log = bench.kubectl(&["-n", NAMESPACE, "logs", CONTROLLER, "--tail=1"])?;
            Ok(objects(&log)?.iter().any(|line| line["level"] == "INFO"))
        })?;
        let wrong = delayed("wrong", &json!({ "mode": "fixed-percent", "value": "150" }));
        let (is_taken, said) = bench.applied(&wrong)?;
        ensure!(!is_taken && said.contains("denied the request"), "it said {said}");
        uninstall(bench, NAMESPACE)
    })
}

pub fn chart_for_one_namespace(bench: &Bench<'_>) -> Result<()> {
    const OWN: &str = "chaos-testing";
    let values = ["--set", "clusterScoped=false,controllerManager.targetNamespace=default"];
    by_chart(bench, OWN, &values, || {
        busy(bench)?;
        bench.connects("web", 200, 250)?;
        bench.neighbour_is_well()?;
        // Nobody is asked about what is elsewhere, and nobody serves it.
        let mut elsewhere = delayed("delay", &json!({ "mode": "fixed", "value": "none" }));
        elsewhere["metadata"]["namespace"] = json!("kube-public");
        let (is_taken, said) = bench.applied(&elsewhere)?;
        ensure!(is_taken, "it said {said}");
        let who = format!("--as=system:serviceaccount:{OWN}:chaos-controller-manager");
        for (verb, kind, namespace, is_allowed) in [
            ("delete", "pods", "default", true),
            ("delete", "pods", "kube-public", false),
            ("list", "nodes", "default", false),
        ] {
            let said = bench.kubectl(&["auth", "can-i", verb, kind, "-n", namespace, &who]);
            ensure!(said.is_ok() == is_allowed, "{verb} {kind} in {namespace}: {said:?}");
        }
        let status = bench.get(&["-n", "kube-public", "networkchaos/delay"])?["status"].clone();
        ensure!(status["experiment"]["desiredPhase"].is_null(), "it was looked at: {status}");
        bench.kubectl(&["-n", "kube-public", "delete", "networkchaos/delay"])?;
        uninstall(bench, OWN)
    })
}

/// What the agent's rights are for: containers of other users than its own.
pub fn other_users(bench: &Bench<'_>) -> Result<()> {
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": "user", "namespace": "default", "labels": { "app": "user" } },
        "spec": {
            "terminationGracePeriodSeconds": 1,
            "securityContext": { "runAsUser": 65534, "runAsNonRoot": true },
            "containers": [{
                "name": "web", "image": "kfault.test/nginx:1", "imagePullPolicy": "IfNotPresent",
                "command": ["busybox", "httpd", "-f", "-p", "8080", "-h", "/usr/share/nginx/html"],
            }],
        },
    });
    bench.apply(&pod)?;
    let done = reached(bench);
    bench.kubectl(&["delete", "pod/user", "--timeout=30s"])?;
    done
}

fn reached(bench: &Bench<'_>) -> Result<()> {
    bench.kubectl(&["wait", "--for=condition=Ready", "pod/user", "--timeout=60s"])?;
    let selector = json!({ "selector": { "labelSelectors": { "app": "user" } } });
    bench.apply(&delayed("delay", &selector))?;
    bench.condition("networkchaos/delay", "AllInjected")?;
    let (_, address) = bench.pods("user")?.remove(0);
    let time = bench.connect(&format!("{address}:8080"))?.context("it does not answer")?;
    ensure!(time >= Duration::from_millis(200), "not delayed: {time:?}");
    let mut kill = pods("container-kill", "all", &json!({ "containerNames": ["web"] }));
    kill["selector"] = selector["selector"].clone();
    bench.apply(&object("PodChaos", "kill", &kill))?;
    bench.condition("podchaos/kill", "AllInjected")?;
    bench
        .until("the restart", || {
            let pod = bench.get(&["pod/user"])?;
            Ok(pod["status"]["containerStatuses"][0]["restartCount"].as_i64() > Some(0))
        })
        .map(drop)
}

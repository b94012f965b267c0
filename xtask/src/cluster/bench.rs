//! `bench --suite cluster`: how long it takes from a request to the first affected packet, and
//! what kfault costs a cluster, each figure beside its goal. Measured from outside: requests by
//! curl, packets by ping, memory and CPU by the node's own accounts.

mod api_only;
mod cost;
#[path = "../../../tests/kernel/bench/goal.rs"]
#[allow(dead_code, reason = "the kernel tests' program uses the rest of it")]
mod goal;
mod packets;
mod request;

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::node::Node;
use super::{Cluster, api, load, up};
use crate::progress::step;
use crate::{exec, image};
use goal::{Findings, Goal};
use request::Server;

/// The rows, in the order in which they run.
const ROWS: [&str; 5] = ["install", "one", "fifty", "api", "cost"];

/// The node that the fifty targets share.
const NODE: &str = "node-a";
/// Targets of the rows that need many.
const MANY: usize = 50;
/// How long anything may take that is not a figure.
const PATIENCE: Duration = Duration::from_secs(240);

/// Runs these rows, or all, and prints the table.
pub fn bench(rows: &[String]) -> Result<()> {
    for row in rows {
        ensure!(ROWS.contains(&row.as_str()), "no row {row}; there are {}", ROWS.join(", "));
    }
    let cluster = Cluster::here();
    ensure!(
        cluster.nodes().is_empty(),
        "a cluster is up, with whatever was done to it: `cargo xtask cluster down` ends it"
    );
    up::up(&cluster, &Node::several(2, false))?;
    let mut findings = Findings::default();
    let done = measure(&cluster, rows, &mut findings);
    println!("{}", findings.table());
    step("end the cluster", |_| super::down::down(&cluster))?;
    done
}

fn measure(cluster: &Cluster, rows: &[String], findings: &mut Findings) -> Result<()> {
    load(cluster, &[image::kfault()?, image::app()?])?;
    let bench = Bench { cluster, server: Server::of(cluster) };
    findings.begin("install");
    let took = bench.install()?;
    findings.ours("kubectl apply -k → all ready", "s", took.as_secs_f64(), Goal::AtMost(30.0));
    let is_wanted = |row: &str| rows.is_empty() || rows.iter().any(|wanted| wanted == row);
    if ["one", "fifty", "api", "cost"].iter().any(|row| is_wanted(row)) {
        step(format!("start {MANY} pods on {NODE}"), |_| bench.targets())?;
    }
    type Row = fn(&Bench<'_>, &mut Findings) -> Result<()>;
    let all: [(&'static str, Row); 4] = [
        ("one", packets::one),
        ("fifty", packets::fifty),
        ("api", api_only::api),
        ("cost", cost::cost),
    ];
    for (row, measure) in all.into_iter().filter(|(row, _)| is_wanted(row)) {
        findings.begin(row);
        if let Err(error) = measure(&bench, findings) {
            findings.failed(&format!("{error:#}"));
        }
    }
    Ok(())
}

/// A cluster with kfault on it.
struct Bench<'a> {
    cluster: &'a Cluster,
    server: Server<'a>,
}

impl Bench<'_> {
    fn kubectl(&self, args: &[&str]) -> Result<String> {
        exec::read(self.cluster.client("kubectl")?.args(args))
    }

    fn install(&self) -> Result<Duration> {
        let deploy = crate::root().join("deploy").display().to_string();
        let start = Instant::now();
        self.kubectl(&["apply", "--kustomize", &deploy])?;
        for what in ["deployment/chaos-controller-manager", "daemonset/chaos-daemon"] {
            self.kubectl(&["-n", "chaos-mesh", "rollout", "status", "--timeout=120s", what])?;
        }
        Ok(start.elapsed())
    }

    /// Pods that cost nothing but themselves, on one node, and one that nobody chooses.
    fn targets(&self) -> Result<()> {
        let pods = |name: &str, replicas: usize| {
            let labels = serde_json::json!({ "app": name });
            serde_json::json!({
                "apiVersion": "apps/v1",
                "kind": "Deployment",
                "metadata": { "name": name, "namespace": "default" },
                "spec": {
                    "replicas": replicas,
                    "selector": { "matchLabels": labels },
                    "template": {
                        "metadata": { "labels": labels },
                        "spec": {
                            "nodeSelector": { "kubernetes.io/hostname": NODE },
                            "terminationGracePeriodSeconds": 1,
                            "containers": [{
                                "name": "idle",
                                "image": image::KFAULT,
                                "imagePullPolicy": "IfNotPresent",
                                "args": ["pause"],
                            }],
                        },
                    },
                },
            })
        };
        for (name, replicas) in [("target", MANY), ("neighbour", 1)] {
            self.server
                .post("apis/apps/v1/namespaces/default/deployments", &pods(name, replicas))?;
        }
        self.ready("target")?;
        self.ready("neighbour")
    }

    /// Waits until a Deployment is as it shall be.
    fn ready(&self, name: &str) -> Result<()> {
        let timeout = format!("--timeout={}s", PATIENCE.as_secs());
        let what = format!("deployment/{name}");
        self.kubectl(&["rollout", "status", &timeout, &what]).map(drop)
    }

    /// Names and addresses of the pods of an application that are not going.
    fn pods(&self, app: &str) -> Result<Vec<(String, String)>> {
        let list =
            self.server.get(&format!("api/v1/namespaces/default/pods?labelSelector=app={app}"))?;
        Ok(api::pods(&list))
    }

    /// Waits until something holds.
    fn until(&self, what: &str, holds: impl Fn() -> Result<bool>) -> Result<()> {
        let start = Instant::now();
        while !holds()? {
            ensure!(start.elapsed() < PATIENCE, "waited {} s for {what}", PATIENCE.as_secs());
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }
}

/// Adds the median and the 99th percentile of `seconds`, in milliseconds, the latter with a goal.
fn quantiles(findings: &mut Findings, figure: &str, mut seconds: Vec<f64>, goal: Goal) {
    seconds.sort_by(f64::total_cmp);
    let at = |share: f64| {
        let index = (seconds.len() as f64 * share).ceil() as usize;
        seconds.get(index.max(1) - 1).copied().unwrap_or(f64::NAN) * 1e3
    };
    let of = format!("{figure}, of {}", seconds.len());
    findings.ours(format!("{of}, median"), "ms", at(0.5), Goal::Told);
    findings.ours(format!("{of}, p99"), "ms", at(0.99), goal);
}

//! `cluster e2e`: kfault on a real cluster, as its users see it: manifests go in, conditions are
//! waited for, and pods are measured from other pods.

mod scenarios;

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use super::node::Node;
use super::{CONTROL_ADDRESS, Cluster, load, up};
use crate::progress::{duration, step};
use crate::{exec, image};
use scenarios::Tier;

/// Options of `cargo xtask cluster e2e`.
#[derive(clap::Args)]
pub struct Args {
    /// Only the scenarios whose name contains this
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
    /// On one node of this machine and one in a virtual machine, instead of two of this machine
    #[arg(long)]
    vm_node: bool,
    /// Only the scenarios that a CI job has time for
    #[arg(long)]
    ci: bool,
    /// Leave the cluster up afterwards
    #[arg(long)]
    keep: bool,
}

/// How long anything may take that a controller does.
const PATIENCE: Duration = Duration::from_secs(30);
/// How many times as long it may take where a node is emulated.
const EMULATED: u32 = 3;
/// How much later a connection to an emulated node may come about.
const SLACK: Duration = Duration::from_millis(100);
/// How often is looked.
const LOOK: Duration = Duration::from_millis(100);

/// Runs every scenario on a cluster that is up, or is started for it.
pub fn e2e(cluster: &Cluster, args: &Args) -> Result<()> {
    let was_up = !cluster.nodes().is_empty();
    up::up(cluster, &Node::several(if args.vm_node { 1 } else { 2 }, args.vm_node))?;
    let done = run(cluster, args);
    if !was_up && !args.keep {
        step("end the cluster", |_| super::down::down(cluster))?;
    }
    done
}

fn run(cluster: &Cluster, args: &Args) -> Result<()> {
    load(cluster, &[image::kfault()?, image::app()?])?;
    let vm = cluster.nodes().into_iter().find(Node::is_vm);
    let bench = Bench { cluster, vm };
    bench.taint()?;
    step("install kfault and the application", |_| bench.install())?;
    let all = Instant::now();
    let filter = args.filter.as_deref().unwrap_or_default();
    let more = bench.vm.as_ref().map_or(&[][..], |_| scenarios::VM);
    let (chosen, later): (Vec<_>, Vec<_>) = scenarios::ALL
        .iter()
        .chain(more)
        .filter(|(name, ..)| name.contains(filter))
        .partition(|(.., tier)| !args.ci || *tier == Tier::Ci);
    ensure!(!chosen.is_empty(), "no scenario's name contains {filter:?}");
    let mut failed = Vec::new();
    for (name, scenario, _) in &chosen {
        let start = Instant::now();
        let result = scenario(&bench).and_then(|()| bench.clean());
        match result {
            Ok(()) => println!("✓ {name} ({})", duration(start.elapsed())),
            Err(error) => {
                println!("✗ {name} ({}): {error:#}", duration(start.elapsed()));
                print!("{}", bench.evidence());
                failed.push(*name);
                bench.clean().context("clean up after a scenario that failed")?;
            }
        }
    }
    for (name, ..) in &later {
        println!("not with --ci: {name}");
    }
    println!(
        "{} scenarios: {} passed, {} failed, {} not with --ci ({})",
        chosen.len() + later.len(),
        chosen.len() - failed.len(),
        failed.len(),
        later.len(),
        duration(all.elapsed())
    );
    ensure!(failed.is_empty(), "failed: {}", failed.join(", "));
    Ok(())
}

/// A cluster with kfault and the application on it.
pub struct Bench<'a> {
    cluster: &'a Cluster,
    /// The emulated node, if there is one: everything on it takes several times as long.
    vm: Option<Node>,
}

impl Bench<'_> {
    /// What `deploy` says, as users apply it.
    pub fn install_kfault(&self) -> Result<()> {
        let deploy = crate::root().join("deploy").display().to_string();
        self.kubectl(&["apply", "--kustomize", &deploy]).map(drop)
    }

    /// The example application, from an image that needs no registry.
    fn install_shop(&self) -> Result<()> {
        let namespace = scenarios::SHOP;
        self.apply(&json!({
            "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": namespace },
        }))?;
        let text = std::fs::read_to_string(crate::root().join("deploy/examples/app.yaml"))?;
        let is_public = |line: &&str| line.trim_start().starts_with("image: ");
        let public = text.lines().find(is_public).context("app.yaml names no image")?;
        let folder = self.cluster.file("e2e");
        std::fs::create_dir_all(&folder)?;
        let file = folder.join("app.yaml");
        std::fs::write(
            &file,
            text.replace(public.trim_start(), &format!("image: {}", image::APP)),
        )?;
        let file = file.display().to_string();
        self.kubectl(&["--namespace", namespace, "apply", "--filename", &file]).map(drop)
    }

    fn install(&self) -> Result<()> {
        let root = crate::root();
        self.install_kfault()?;
        self.install_shop()?;
        // The images may be newer than the pods.
        let agents = self.get(&["-n", "chaos-mesh", "daemonset/chaos-daemon"])?;
        if agents["status"]["numberReady"] != 0 {
            self.kubectl(&["-n", "chaos-mesh", "rollout", "restart", "deployment,daemonset"])?;
        }
        let app = root.join("tests/e2e/app.yaml").display().to_string();
        self.kubectl(&["apply", "--filename", &app])?;
        if self.vm.is_some() {
            self.kubectl(&["scale", "deployment/neighbour", "--replicas=2"])?;
        }
        for what in ["deployment/chaos-controller-manager", "daemonset/chaos-daemon"] {
            self.kubectl(&["-n", "chaos-mesh", "rollout", "status", "--timeout=60s", what])?;
        }
        for what in ["deployment/web", "deployment/neighbour"] {
            self.kubectl(&["rollout", "status", "--timeout=60s", what])?;
        }
        for what in ["deployment/myapp1", "deployment/myapp2"] {
            let namespace = ["--namespace", scenarios::SHOP];
            let status = ["rollout", "status", "--timeout=60s", what];
            self.kubectl(&[&namespace[..], &status].concat())?;
        }
        self.kubectl(&["wait", "--for=condition=Ready", "pod/client", "--timeout=60s"])?;
        for app in ["web", "neighbour"] {
            let is_there = self.pods(app)?.iter().any(|(_, address)| self.is_slow(address));
            ensure!(is_there || self.vm.is_none(), "no pod of {app} is on the emulated node");
        }
        Ok(())
    }

    /// Whether an address is the emulated node's, or one of its pods'.
    fn is_slow(&self, address: &str) -> bool {
        self.vm.as_ref().is_some_and(|vm| vm.has(address) || vm.address() == address)
    }

    /// Keeps everything from an emulated node that does not ask to be there.
    fn taint(&self) -> Result<()> {
        let Some(vm) = &self.vm else { return Ok(()) };
        let taint = "kfault.test/emulated=:PreferNoSchedule";
        self.kubectl(&["taint", "node", &vm.name(), taint, "--overwrite"]).map(drop)
    }

    /// How long anything may take that a controller does.
    fn patience(&self) -> Duration {
        if self.vm.is_some() { PATIENCE * EMULATED } else { PATIENCE }
    }

    /// kubectl's arguments; where a node is emulated, with longer time limits.
    fn patient(&self, args: &[&str]) -> Vec<String> {
        let factor = if self.vm.is_some() { EMULATED } else { 1 };
        args.iter().map(|arg| lengthened(arg, factor)).collect()
    }

    /// What a connection to this address may take longer than anywhere else.
    pub fn slack(&self, address: &str) -> Duration {
        if self.is_slow(address) { SLACK } else { Duration::ZERO }
    }

    /// Names of the nodes.
    pub fn nodes(&self) -> Vec<String> {
        self.cluster.nodes().iter().map(Node::name).collect()
    }

    /// kubectl's standard output.
    pub fn kubectl(&self, args: &[&str]) -> Result<String> {
        exec::read(self.cluster.client("kubectl")?.args(self.patient(args)))
    }

    /// kubectl with a token and nothing else.
    pub fn with_token(&self, token: &str, args: &[&str]) -> Result<String> {
        let authority = self.cluster.file("pki").join("ca.crt").display().to_string();
        let who = [
            "--kubeconfig=/dev/null",
            &format!("--server=https://{CONTROL_ADDRESS}:6443"),
            &format!("--certificate-authority={authority}"),
            &format!("--token={token}"),
        ];
        self.kubectl(&[&who, args].concat())
    }

    /// An object, or a list of them.
    pub fn get(&self, what: &[&str]) -> Result<Value> {
        let text = self.kubectl(&[&["get", "--output=json"], what].concat())?;
        serde_json::from_str(&text).with_context(|| format!("what kubectl said to get {what:?}"))
    }

    /// Applies a manifest.
    pub fn apply(&self, manifest: &Value) -> Result<()> {
        self.kubectl(&["apply", "--filename", &self.file(manifest)?]).map(drop)
    }

    /// What kubectl says on standard error when it applies a manifest, and whether it could.
    pub fn applied(&self, manifest: &Value) -> Result<(bool, String)> {
        let mut kubectl = self.cluster.client("kubectl")?;
        let output = kubectl.args(["apply", "--filename", &self.file(manifest)?]).output()?;
        Ok((output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned()))
    }

    fn file(&self, manifest: &Value) -> Result<String> {
        let folder = self.cluster.file("e2e");
        std::fs::create_dir_all(&folder)?;
        let file = folder.join("manifest.json");
        std::fs::write(&file, manifest.to_string())?;
        Ok(file.display().to_string())
    }

    /// Runs a command on a node.
    pub fn on_node(&self, node: &str, program: &str, args: &[&str]) -> Result<String> {
        exec::read(self.cluster.node(node)?.inside(program)?.args(args))
    }

    /// Waits until something holds.
    pub fn until(&self, what: &str, holds: impl Fn() -> Result<bool>) -> Result<Duration> {
        self.within(self.patience(), what, holds)
    }

    /// Waits for so long until something holds.
    pub fn within(
        &self,
        patience: Duration,
        what: &str,
        holds: impl Fn() -> Result<bool>,
    ) -> Result<Duration> {
        let start = Instant::now();
        loop {
            let why = match holds() {
                Ok(true) => return Ok(start.elapsed()),
                Ok(false) => String::new(),
                Err(error) => format!(": {error:#}"),
            };
            if start.elapsed() > patience {
                bail!("waited {} for {what}{why}", duration(patience));
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Waits for a condition of an experiment.
    pub fn condition(&self, object: &str, condition: &str) -> Result<Duration> {
        self.until(&format!("{condition} of {object}"), || {
            let status = self.get(&[object])?["status"]["conditions"].clone();
            let all = status.as_array().cloned().unwrap_or_default();
            Ok(all.iter().any(|one| one["type"] == condition && one["status"] == "True"))
        })
    }

    /// The running pods of an application: name and address.
    pub fn pods(&self, app: &str) -> Result<Vec<(String, String)>> {
        let list = self.get(&["pods", "--selector", &format!("app={app}")])?;
        let all = list["items"].as_array().cloned().unwrap_or_default();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Ok(all
            .iter()
            .filter(|pod| pod["metadata"]["deletionTimestamp"].is_null())
            .map(|pod| (text(&pod["metadata"]["name"]), text(&pod["status"]["podIP"])))
            .collect())
    }

    /// The time to connect from the client to an address; `None` when there is no answer.
    pub fn connect(&self, address: &str) -> Result<Option<Duration>> {
        let url = format!("http://{address}/");
        let said = self.kubectl(&[
            "exec",
            "client",
            "--",
            "curl",
            "--silent",
            "--output",
            "/dev/null",
            "--max-time",
            "3",
            "--write-out",
            "%{time_connect}",
            &url,
        ]);
        let Ok(text) = said else { return Ok(None) };
        let seconds: f64 = text.trim().parse().with_context(|| format!("curl said {text:?}"))?;
        Ok(Some(Duration::from_secs_f64(seconds)))
    }

    /// Holds when every pod of an application connects within these bounds, in milliseconds.
    pub fn connects(&self, app: &str, least: u64, most: u64) -> Result<()> {
        for (name, address) in self.pods(app)? {
            let time =
                self.connect(&address)?.with_context(|| format!("{name} does not answer"))?;
            let most = Duration::from_millis(most) + self.slack(&address);
            ensure!(
                (Duration::from_millis(least)..most).contains(&time),
                "{name}: {} ms to connect, expected {least} to {}",
                time.as_secs_f64() * 1e3,
                most.as_millis()
            );
        }
        Ok(())
    }

    /// The neighbour that nobody chose keeps its latency.
    pub fn neighbour_is_well(&self) -> Result<()> {
        self.connects("neighbour", 0, 50).context("the neighbour")
    }

    /// Nothing of kfault's is left but kfault, and every pod answers.
    fn clean(&self) -> Result<()> {
        for kind in ["schedules.chaos-mesh.org", "networkchaos", "podchaos", "iochaos"] {
            self.kubectl(&["delete", kind, "--all", "--all-namespaces", "--timeout=30s"])?;
        }
        self.until("every NodeFault to go", || {
            Ok(self.get(&["nodefaults", "-A"])?["items"].as_array().is_some_and(Vec::is_empty))
        })?;
        for what in ["deployment/web", "deployment/neighbour"] {
            self.kubectl(&["rollout", "status", "--timeout=60s", what])?;
        }
        let controller = "deployment/chaos-controller-manager";
        self.kubectl(&["-n", "chaos-mesh", "rollout", "status", "--timeout=60s", controller])?;
        self.until("every pod to answer", || {
            Ok(self.connects("web", 0, 50).is_ok() && self.neighbour_is_well().is_ok())
        })
        .map(drop)
    }

    /// What helps to understand a failure.
    fn evidence(&self) -> String {
        let mut out = String::new();
        for args in [
            &["get", "networkchaos,podchaos,schedules,nodefaults,pods", "-A", "-o", "wide"][..],
            &["-n", "chaos-mesh", "logs", "-l", "app.kubernetes.io/name=kfault", "--tail=15"],
            &["get", "events", "--sort-by=.lastTimestamp"],
        ] {
            let said = self.kubectl(args).unwrap_or_else(|error| format!("{error:#}\n"));
            let lines: Vec<&str> = said.lines().collect();
            let end = lines.len().saturating_sub(30);
            out.push_str(&lines[end..].join("\n"));
            out.push('\n');
        }
        out
    }
}

/// A time limit for kubectl so many times as long; any other argument as it is.
fn lengthened(arg: &str, factor: u32) -> String {
    let limit = arg.strip_prefix("--timeout=").and_then(|limit| limit.strip_suffix('s'));
    match limit.and_then(|limit| limit.parse::<u32>().ok()) {
        Some(seconds) => format!("--timeout={}s", seconds * factor),
        None => arg.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::lengthened;

    #[test]
    fn time_limits_are_longer_where_a_node_is_emulated() {
        assert_eq!(lengthened("--timeout=20s", 3), "--timeout=60s");
        assert_eq!(lengthened("--timeout=20s", 1), "--timeout=20s");
        for other in ["--timeout=", "--tail=20", "pods", "--timeout=1m"] {
            assert_eq!(lengthened(other, 3), other);
        }
    }
}

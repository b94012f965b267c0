//! `cluster e2e`: kfault on a real cluster, as its users see it: manifests go in, conditions are
//! waited for, and pods are measured from other pods.

mod scenarios;
mod site;

pub use site::is_given;

use std::fmt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::Cluster;
use crate::progress::{Step, duration, step};
use crate::{exec, image};
use scenarios::Tier;
use site::{Cannot, Site};

/// Options of `cargo xtask cluster e2e`.
#[derive(clap::Args)]
pub struct Args {
    /// Only the scenarios whose name contains this
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
    /// Only the scenarios that a CI job has time for
    #[arg(long)]
    ci: bool,
    /// Leave the cluster up, and kfault on it
    #[arg(long)]
    keep: bool,
    /// Use the cluster of this machine's namespaces, whatever KUBECONFIG says and kind offers
    #[arg(long)]
    native: bool,
    /// kfault's image, as the cluster of KUBECONFIG knows it
    #[arg(long, value_name = "REF")]
    image: Option<String>,
    /// The application's image, as the cluster of KUBECONFIG knows it
    #[arg(long, value_name = "REF")]
    app_image: Option<String>,
}

impl Args {
    /// Whether nothing but the cluster of this machine's namespaces will do.
    pub fn is_native(&self) -> bool {
        self.native
    }

    /// Those of `cargo xtask test`.
    pub fn of_test(ci: bool) -> Self {
        Self { filter: None, ci, keep: false, native: true, image: None, app_image: None }
    }
}

/// How long anything may take that a controller does.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often is looked.
const LOOK: Duration = Duration::from_millis(100);

/// What came of the scenarios.
pub struct Tally {
    passed: usize,
    failed: Vec<&'static str>,
    /// Those that the cluster has no means for.
    skipped: usize,
    /// Those of the full tier, with `--ci`.
    later: usize,
    time: Duration,
}

impl Tally {
    /// Fails when a scenario did.
    pub fn verdict(&self) -> Result<()> {
        ensure!(self.failed.is_empty(), "scenarios failed: {}", self.failed.join("; "));
        Ok(())
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { passed, failed, skipped, later, time } = self;
        let all = passed + failed.len() + skipped + later;
        write!(f, "{all} scenarios on a cluster: {passed} passed, {} failed, ", failed.len())?;
        write!(f, "{skipped} skipped, {later} not with --ci ({})", duration(*time))
    }
}

/// Runs the scenarios on the cluster that is there, or on one that is started for it.
pub fn e2e(cluster: &Cluster, args: &Args) -> Result<Tally> {
    let bench = Bench { site: Site::choose(cluster, args)? };
    bench.site.start()?;
    let mut installed = Vec::new();
    let done = run(&bench, args, &mut installed);
    if !args.keep {
        bench.site.end(&installed)?;
    }
    let tally = done?;
    println!("{tally}");
    Ok(tally)
}

fn run(bench: &Bench<'_>, args: &Args, installed: &mut Vec<PathBuf>) -> Result<Tally> {
    bench.site.load()?;
    step("install kfault and the application", |_| bench.install(installed))?;
    let all = Instant::now();
    let filter = args.filter.as_deref().unwrap_or_default();
    let (chosen, later): (Vec<_>, Vec<_>) = scenarios::ALL
        .iter()
        .filter(|(name, ..)| name.contains(filter))
        .partition(|(.., tier)| !args.ci || *tier == Tier::Ci);
    ensure!(!chosen.is_empty(), "no scenario's name contains {filter:?}");
    let (mut passed, mut skipped, mut failed) = (0, 0, Vec::new());
    for &(name, scenario, _) in chosen {
        let step = Step::start(name);
        match scenario(bench).and_then(|()| bench.clean()) {
            Ok(()) => {
                step.done("");
                passed += 1;
            }
            Err(error) if error.is::<Cannot>() => {
                step.done(&format!("skipped: {error:#}"));
                skipped += 1;
                bench.clean().context("clean up after a scenario that was skipped")?;
            }
            Err(error) => {
                step.failed(&format!("{error:#}"));
                print!("{}", bench.evidence());
                failed.push(name);
                bench.clean().context("clean up after a scenario that failed")?;
            }
        }
    }
    for (name, ..) in &later {
        println!("not with --ci: {name}");
    }
    Ok(Tally { passed, failed, skipped, later: later.len(), time: all.elapsed() })
}

/// A cluster with kfault and the application on it.
pub struct Bench<'a> {
    site: Site<'a>,
}

impl Bench<'_> {
    fn install(&self, installed: &mut Vec<PathBuf>) -> Result<()> {
        let root = crate::root();
        let kfault = self.kubectl(&["kustomize", &root.join("deploy").display().to_string()])?;
        let app = std::fs::read_to_string(root.join("tests/e2e/app.yaml"))?;
        let files = [
            ("app.yaml", app.replace(image::APP, &self.site.app_image)),
            ("kfault.yaml", kfault.replace(image::KFAULT, &self.site.image)),
        ];
        for (name, manifests) in files {
            let file = site::folder().join(name);
            std::fs::write(&file, manifests)?;
            installed.push(file.clone());
            self.kubectl(&["apply", "--filename", &file.display().to_string()])?;
        }
        // The images may be newer than the pods.
        self.kubectl(&["-n", "chaos-mesh", "rollout", "restart", "deployment,daemonset"])?;
        for what in ["deployment/chaos-controller-manager", "daemonset/chaos-daemon"] {
            self.kubectl(&["-n", "chaos-mesh", "rollout", "status", "--timeout=60s", what])?;
        }
        for what in ["deployment/web", "deployment/neighbour"] {
            self.kubectl(&["rollout", "status", "--timeout=60s", what])?;
        }
        self.kubectl(&["wait", "--for=condition=Ready", "pod/client", "--timeout=60s"]).map(drop)
    }

    /// kubectl's standard output.
    pub fn kubectl(&self, args: &[&str]) -> Result<String> {
        exec::read(self.site.kubectl()?.args(args))
    }

    /// kubectl with a token and nothing else.
    pub fn with_token(&self, token: &str, args: &[&str]) -> Result<String> {
        exec::read(self.site.kubectl_as(token)?.args(args))
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
        let mut kubectl = self.site.kubectl()?;
        let output = kubectl.args(["apply", "--filename", &self.file(manifest)?]).output()?;
        Ok((output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned()))
    }

    fn file(&self, manifest: &Value) -> Result<String> {
        let file = site::folder().join("manifest.json");
        std::fs::write(&file, manifest.to_string())?;
        Ok(file.display().to_string())
    }

    /// Runs a command on a node.
    pub fn on_node(&self, node: &str, program: &str, args: &[&str]) -> Result<String> {
        exec::read(self.site.on_node(node, program)?.args(args))
    }

    /// To be asked first by a scenario that runs commands on nodes: where that cannot be done,
    /// it is skipped.
    pub fn need_nodes(&self) -> Result<()> {
        self.site.need_nodes()
    }

    /// Where the API server answers, as nodes see it.
    pub fn api_server(&self) -> Result<String> {
        let there = self.get(&["endpoints/kubernetes"])?;
        let address = there["subsets"][0]["addresses"][0]["ip"].as_str();
        Ok(address.context("the Service kubernetes has no endpoint")?.to_owned())
    }

    /// Waits until something holds.
    pub fn until(&self, what: &str, holds: impl Fn() -> Result<bool>) -> Result<Duration> {
        self.within(PATIENCE, what, holds)
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
            let bounds = Duration::from_millis(least)..Duration::from_millis(most);
            ensure!(
                bounds.contains(&time),
                "{name}: {} ms to connect, expected {least} to {most}",
                time.as_secs_f64() * 1e3
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
            self.kubectl(&["delete", kind, "--all", "--timeout=30s"])?;
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

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(failed: Vec<&'static str>) -> Tally {
        Tally { passed: 3, failed, skipped: 1, later: 2, time: Duration::from_secs(90) }
    }

    #[test]
    fn a_scenario_that_failed_fails_the_run_and_is_named() {
        assert!(tally(vec![]).verdict().is_ok());
        let tally = tally(vec!["pause", "delay"]);
        assert!(tally.to_string().starts_with("8 scenarios on a cluster: 3 passed, 2 failed"));
        assert!(tally.verdict().unwrap_err().to_string().ends_with("pause; delay"));
    }

    #[test]
    fn what_a_cluster_has_no_means_for_is_a_skip_wherever_it_is_found() {
        let error = Err::<(), _>(Cannot::because("no way to the node")).context("cut it off");
        assert!(error.is_err_and(|error| error.is::<Cannot>()));
        assert!(!anyhow::anyhow!("no way to the node").is::<Cannot>());
    }

    #[test]
    fn every_scenario_has_a_name_of_its_own() {
        let names: std::collections::BTreeSet<_> =
            scenarios::ALL.iter().map(|(name, ..)| name).collect();
        assert_eq!(names.len(), scenarios::ALL.len());
    }
}

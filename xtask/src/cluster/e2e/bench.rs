//! A cluster with kfault and the application on it, and what scenarios do with it.

use std::net::Ipv6Addr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use super::super::api;
use super::super::node::Node;
use super::scenarios;
use super::site::{self, Site};
use crate::progress::duration;
use crate::{exec, image};

/// How long anything may take that a controller does.
const PATIENCE: Duration = Duration::from_secs(30);
/// How many times as long it may take where a node is emulated.
const EMULATED: u32 = 3;
/// How much later a connection to an emulated node may come about.
const SLACK: Duration = Duration::from_millis(100);
/// How often is looked.
const LOOK: Duration = Duration::from_millis(100);

/// What scenarios make.
const KINDS: [&str; 8] = [
    "schedules.chaos-mesh.org",
    "networkchaos",
    "podchaos",
    "httpchaos",
    "iochaos",
    "stresschaos",
    "throttlechaos",
    "dnschaos",
];
/// curl's arguments for the time to connect.
const CONNECT: [&str; 7] =
    ["--silent", "--output", "/dev/null", "--max-time", "3", "--write-out", "%{time_connect}"];

fn seconds(text: &str) -> Result<Duration> {
    let seconds: f64 = text.trim().parse().with_context(|| format!("curl said {text:?}"))?;
    Ok(Duration::from_secs_f64(seconds))
}

/// What is asked of a web server at a name or an address of either family; a port may follow.
pub fn url(host: &str) -> String {
    let is_six = host.parse::<Ipv6Addr>().is_ok();
    if is_six { format!("http://[{host}]/") } else { format!("http://{host}/") }
}

/// A cluster with kfault and the application on it.
pub struct Bench<'a> {
    /// The cluster.
    pub site: Site<'a>,
    /// The emulated node, if there is one: everything on it takes several times as long.
    pub vm: Option<Node>,
}

impl Bench<'_> {
    /// What `deploy` says, as users apply it; the file says so too.
    pub fn install_kfault(&self) -> Result<PathBuf> {
        let deploy = crate::root().join("deploy").display().to_string();
        let kfault = self.kubectl(&["kustomize", &deploy])?;
        self.apply_text(&[], "kfault.yaml", &kfault.replace(image::KFAULT, &self.site.image))
    }

    /// The example application, from an image that needs no registry.
    fn install_shop(&self) -> Result<PathBuf> {
        let namespace = scenarios::SHOP;
        self.apply(&json!({
            "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": namespace },
        }))?;
        let text = std::fs::read_to_string(crate::root().join("deploy/examples/app.yaml"))?;
        let is_public = |line: &&str| line.trim_start().starts_with("image: ");
        let public = text.lines().find(is_public).context("app.yaml names no image")?;
        let own = format!("image: {}", self.site.app_image);
        // Its pods may go to an emulated node, too.
        let tolerant = "tolerations: [{key: kfault.test/emulated, operator: Exists}]";
        let text = text
            .replace(public.trim_start(), &own)
            .replace("      containers:", &format!("      {tolerant}\n      containers:"));
        self.apply_text(&["--namespace", namespace], "shop.yaml", &text)
    }

    fn apply_text(&self, more: &[&str], name: &str, manifests: &str) -> Result<PathBuf> {
        let file = site::folder().join(name);
        std::fs::write(&file, manifests)?;
        let shown = file.display().to_string();
        self.kubectl(&[more, &["apply", "--filename", &shown]].concat())?;
        Ok(file)
    }

    /// Everything that scenarios need. `installed`: the files with what is there now.
    pub fn install(&self, installed: &mut Vec<PathBuf>) -> Result<()> {
        installed.push(self.install_kfault()?);
        installed.push(self.install_shop()?);
        // The images may be newer than the pods.
        let agents = self.get(&["-n", "chaos-mesh", "daemonset/chaos-daemon"])?;
        if agents["status"]["numberReady"] != 0 {
            self.kubectl(&["-n", "chaos-mesh", "rollout", "restart", "deployment,daemonset"])?;
        }
        let app = std::fs::read_to_string(crate::root().join("tests/e2e/app.yaml"))?;
        let app = app.replace(image::APP, &self.site.app_image);
        installed.push(self.apply_text(&[], "app.yaml", &app)?);
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
    pub fn taint(&self) -> Result<()> {
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
    pub fn nodes(&self) -> Result<Vec<String>> {
        let list = self.kubectl(&["get", "nodes", "--output=name"])?;
        Ok(list.lines().map(|name| name.trim_start_matches("node/").to_owned()).collect())
    }

    /// kubectl's standard output.
    pub fn kubectl(&self, args: &[&str]) -> Result<String> {
        exec::read(self.site.kubectl()?.args(self.patient(args)))
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
        Ok(api::pods(&list))
    }

    /// The time to connect from the client to an address; `None` when there is no answer.
    pub fn connect(&self, address: &str) -> Result<Option<Duration>> {
        let url = url(address);
        let said =
            self.kubectl(&[&["exec", "client", "--", "curl"], &CONNECT[..], &[&url]].concat());
        said.map_or(Ok(None), |text| seconds(&text).map(Some))
    }

    /// The same from a node, for which nobody has to ask the API server.
    pub fn connect_from(&self, node: &str, address: &str) -> Result<Duration> {
        let url = url(address);
        seconds(&self.on_node(node, "curl", &[&CONNECT[..], &[&url]].concat())?)
    }

    /// Holds when every pod of an application connects within these bounds, in milliseconds. One
    /// that is late is asked twice more: the machine has others to serve, and a delay that is
    /// wrong stays wrong. Nobody is early by chance.
    pub fn connects(&self, app: &str, least: u64, most: u64) -> Result<()> {
        for (name, address) in self.pods(app)? {
            let (least, most) = (Duration::from_millis(least), Duration::from_millis(most));
            let most = most + self.slack(&address);
            let ask = || -> Result<Duration> {
                self.connect(&address)?.with_context(|| format!("{name} does not answer"))
            };
            let mut time = ask()?;
            for _ in 0..2 {
                if time < most {
                    break;
                }
                time = ask()?;
            }
            ensure!(
                (least..most).contains(&time),
                "{name}: {} ms to connect, expected {} to {}",
                time.as_secs_f64() * 1e3,
                least.as_millis(),
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
    pub fn clean(&self) -> Result<()> {
        for kind in KINDS {
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
    pub fn evidence(&self) -> String {
        let mut out = String::new();
        for args in [
            &[
                "get",
                "networkchaos,podchaos,stresschaos,throttlechaos,dnschaos,schedules,nodefaults,pods",
                "-A",
                "-o",
                "wide",
            ][..],
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
    use super::{lengthened, url};

    #[test]
    fn an_ipv6_address_stands_in_brackets() {
        assert_eq!(url("fd00::7"), "http://[fd00::7]/");
        assert_eq!(url("10.0.0.7:8080"), "http://10.0.0.7:8080/");
    }

    #[test]
    fn time_limits_are_longer_where_a_node_is_emulated() {
        assert_eq!(lengthened("--timeout=20s", 3), "--timeout=60s");
        assert_eq!(lengthened("--timeout=20s", 1), "--timeout=20s");
        for other in ["--timeout=", "--tail=20", "pods", "--timeout=1m"] {
            assert_eq!(lengthened(other, 3), other);
        }
    }
}

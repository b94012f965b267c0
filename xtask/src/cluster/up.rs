//! The start of a cluster.

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::api::Api;
use super::binaries::Binaries;
use super::control::{Control, Daemon};
use super::node::{Node, PLACES};
use super::vm_node::{Disk, Machine};
use super::{CONTROL, Cluster, cgroups, credentials, down, network};
use crate::image;
use crate::progress::{Step, duration};
use crate::setup::{self, Group};

/// Cluster DNS.
const DNS: &str = "xtask/src/cluster/dns.yaml";

/// How long the slowest step may take: a busy machine is not a broken one.
const LIMIT: Duration = Duration::from_secs(120);

/// Starts it, unless it is up.
pub fn up(cluster: &Cluster, nodes: &[Node]) -> Result<()> {
    setup::need(&[Group::Cluster, Group::Image])?;
    let has_vm = nodes.iter().any(Node::is_vm);
    if has_vm {
        setup::need(&[Group::Vm, Group::VmNode])?;
    }
    let _lock = cluster.lock()?;
    let there = cluster.nodes();
    if !there.is_empty() && (Api { cluster }).is_ready() {
        let names: Vec<String> = there.iter().map(Node::name).collect();
        ensure!(
            there == nodes,
            "a cluster of other nodes is up ({}): `cargo xtask cluster down` ends it",
            names.join(", ")
        );
        println!("the cluster is up: {}", cluster.kubeconfig("admin").display());
        return Ok(());
    }
    ensure!(
        !there.is_empty() || !network::exists(CONTROL),
        "a cluster that was started from another folder is up: `cargo xtask cluster down` ends it"
    );
    // What an `up` that was killed, or the last boot of this machine, has left behind.
    down::down(cluster)?;
    let binaries = Binaries::built()?;
    let images = Images { pause: image::pause()?, dns: image::coredns()? };
    let disk = has_vm.then(|| Disk::built(&binaries)).transpose()?;
    let step = Step::start(format!("start a cluster of {} nodes", nodes.len()));
    match start(cluster, nodes, &binaries, disk.as_ref(), &images, &step) {
        Ok(()) => {
            step.done("");
            println!("credentials: {}", cluster.kubeconfig("admin").display());
            println!("clients: cargo xtask cluster exec -- CMD, cargo xtask cluster kubectl ARGS");
            Ok(())
        }
        Err(error) => {
            step.failed("failed");
            let logs = keep_logs(cluster);
            down::down(cluster).context("clean up after a start that failed")?;
            Err(error.context(format!("the cluster did not start; its logs: {}", logs.display())))
        }
    }
}

struct Images {
    pause: PathBuf,
    dns: PathBuf,
}

fn start(
    cluster: &Cluster,
    nodes: &[Node],
    binaries: &Binaries,
    disk: Option<&Disk>,
    images: &Images,
    step: &Step,
) -> Result<()> {
    // The virtual machine is the last one.
    let native = &nodes[..nodes.iter().take_while(|node| !node.is_vm()).count()];
    let hyperkube = binaries.hyperkube();
    prepare(cluster, nodes)?;
    let hierarchies = cgroups::hierarchies()?;
    let lines: String = hierarchies.iter().map(|it| it.line() + "\n").collect();
    fs::write(cluster.file("cgroups"), lines)?;
    fs::write(cluster.file("controllers"), cgroups::delegate(&hierarchies)?.join(" "))?;
    credentials::create(cluster, nodes)?;
    network::create(nodes)?;

    let cgroup = cgroups::create(cgroups::unified(&hierarchies), CONTROL)?;
    let control = Control { cluster, hyperkube: &hyperkube, cgroup };
    let mut start = Start { cluster, step, daemons: Vec::new() };
    start.daemons.push(control.etcd()?);
    start.daemons.push(control.api_server()?);
    let vm = nodes.iter().find(|node| node.is_vm()).zip(disk);
    // It takes longest, so it comes first.
    let machine = vm
        .map(|(node, disk)| {
            Machine::start(cluster, node, disk, native, std::slice::from_ref(&images.pause))
        })
        .transpose()?;
    for (at, node) in native.iter().enumerate() {
        let mut own = vec![images.pause.clone()];
        if at == 0 {
            // The manifest puts it there.
            own.push(images.dns.clone());
        }
        start.daemons.push(node.start(cluster, &hyperkube, &hierarchies, &own)?);
    }

    let api = Api { cluster };
    start.wait("the API server", "kube-apiserver", || Ok(api.is_ready()))?;
    fs::write(cluster.file("api-is-ready"), "")?;
    start.daemons.push(control.controller_manager()?);
    start.daemons.push(control.scheduler()?);
    for node in native {
        let (name, log) = (node.name(), format!("{}-kubelet", node.name()));
        let path = format!("api/v1/nodes/{name}");
        start.wait(&format!("{name} to register"), &log, || Ok(api.has(&path)))?;
        api.assign(node)?;
    }
    start.wait("the nodes", "node-a-kubelet", || {
        Ok(native.iter().all(|node| api.is_node_ready(&node.name())))
    })?;
    // Without it no pod can be made.
    let account = "api/v1/namespaces/default/serviceaccounts/default";
    start.wait("the first account", "kube-controller-manager", || Ok(api.has(account)))?;
    api.apply(&crate::root().join(DNS).display().to_string()).context("start cluster DNS")?;
    let dns = "apis/apps/v1/namespaces/kube-system/deployments/coredns";
    start.wait("cluster DNS", "node-a-kubelet", || {
        Ok(api.get(dns)?["status"]["availableReplicas"].as_u64() == Some(1))
    })?;
    machine.map_or(Ok(()), |machine| machine.join(step, &api))
}

/// The folder of the state, and the folders of the machine that nodes mount over.
fn prepare(cluster: &Cluster, nodes: &[Node]) -> Result<()> {
    // It has keys in it.
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&cluster.state)
        .with_context(|| format!("make {}", cluster.state.display()))?;
    fs::create_dir_all(cluster.file("log"))?;
    let mut made = String::new();
    for place in PLACES {
        let mut missing: Vec<&Path> =
            Path::new(place).ancestors().take_while(|folder| !folder.exists()).collect();
        missing.reverse();
        for folder in missing {
            made.push_str(&format!("{}\n", folder.display()));
            // Noted before they are made, so that none is forgotten.
            fs::write(cluster.file("made"), &made)?;
            fs::create_dir(folder).with_context(|| format!("make {}", folder.display()))?;
        }
    }
    fs::write(cluster.file("places"), PLACES.join("\n") + "\n")?;
    let numbers: Vec<String> = nodes.iter().map(|node| node.number().to_string()).collect();
    fs::write(cluster.file("nodes"), numbers.join(" "))?;
    Ok(())
}

struct Start<'a> {
    cluster: &'a Cluster,
    step: &'a Step,
    daemons: Vec<Daemon>,
}

impl Start<'_> {
    /// Waits for something, for as long as every daemon runs.
    fn wait(&mut self, what: &str, log: &str, is_done: impl Fn() -> Result<bool>) -> Result<()> {
        self.step.note(&format!("waiting for {what}"));
        let start = Instant::now();
        loop {
            let why = match is_done() {
                Ok(true) => break,
                Ok(false) => String::new(),
                Err(error) => format!(": {error:#}"),
            };
            for daemon in &mut self.daemons {
                if let Some(status) = daemon.child.try_wait().context("look after a daemon")? {
                    bail!(
                        "{} ended ({status}):\n{}",
                        daemon.name,
                        tail(self.cluster, &daemon.name)
                    );
                }
            }
            if start.elapsed() > LIMIT {
                let log = tail(self.cluster, log);
                bail!("waited {} for {what}{why}\n{log}", duration(LIMIT));
            }
            thread::sleep(Duration::from_millis(50));
        }
        self.step.line(&format!("  {what}: {} from the start", duration(self.step.elapsed())));
        Ok(())
    }
}

/// The end of a log.
fn tail(cluster: &Cluster, name: &str) -> String {
    let bytes = fs::read(cluster.log(name)).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    let end = lines[lines.len().saturating_sub(20)..].join("\n");
    format!("the end of {name}.log:\n{end}")
}

/// Puts the logs where the clean-up does not find them.
fn keep_logs(cluster: &Cluster) -> PathBuf {
    let kept = cluster.state.with_file_name("cluster-failed");
    let _ = fs::remove_dir_all(&kept);
    let _ = fs::rename(cluster.file("log"), &kept);
    kept
}

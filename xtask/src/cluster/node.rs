//! A node: containerd, a kubelet, kube-proxy and its pods, in namespaces of their own.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use serde_json::json;

use super::cgroups::{self, Hierarchy};
use super::control::Daemon;
use super::{Cluster, DNS_SERVICE, PODS, network};
use crate::exec;
use crate::image::PAUSE;

/// What runs as a node's first process.
const SCRIPT: &str = include_str!("node.sh");

/// Folders with fixed names that are every node's own.
pub const PLACES: [&str; 5] = [
    "/var/lib/kubelet",
    "/var/lib/containerd",
    "/var/lib/cni",
    "/var/log/pods",
    "/var/log/containers",
];

/// Names of namespaces and cgroups of nodes start like this.
pub const PREFIX: &str = "kf-node-";

/// One node.
pub struct Node {
    /// From 1.
    number: u8,
}

impl Node {
    pub fn new(number: u8) -> Self {
        Self { number }
    }

    /// `node-a`
    pub fn name(&self) -> String {
        format!("node-{}", char::from(b'a' + self.number - 1))
    }

    /// Of its network namespace and its cgroups.
    pub fn namespace(&self) -> String {
        format!("kf-{}", self.name())
    }

    /// Of the node.
    pub fn address(&self) -> String {
        format!("10.90.0.{}", 10 + self.number)
    }

    /// The addresses of its pods.
    pub fn pods(&self) -> String {
        format!("10.244.{}.0/24", self.number)
    }

    /// Starts it. The kubelet waits for the file `api-is-ready`.
    pub fn start(
        &self,
        cluster: &Cluster,
        hyperkube: &Path,
        hierarchies: &[Hierarchy],
        images: &[PathBuf],
    ) -> Result<Daemon> {
        let own = cluster.file(self.name());
        fs::create_dir_all(own.join("images"))?;
        for image in images {
            let name = image.file_name().context("an image without a name")?;
            symlink(image, own.join("images").join(name))?;
        }
        self.settings(cluster, &own)?;
        let script = own.join("node.sh");
        fs::write(&script, SCRIPT)?;

        let log = File::create(cluster.log(&self.name()))?;
        let enter = network::inside(&self.namespace())?;
        let mut command = cgroups::joining(&cgroups::create(hierarchies, &self.namespace())?)?;
        command.arg(enter.get_program()).args(enter.get_args()).arg("setsid");
        // A namespace of cgroups starts at the cgroup that its first process is in.
        command.args(["unshare", "--mount", "--cgroup", "--uts", "--ipc", "--pid", "--fork"]);
        command.args(["--mount-proc", "--kill-child", "--propagation", "slave", "sh"]);
        command.arg(script).arg(&cluster.state).arg(self.name()).arg(self.address()).arg(hyperkube);
        let child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("start {}", self.name()))?;
        Ok(Daemon { name: self.name(), child })
    }

    fn settings(&self, cluster: &Cluster, own: &Path) -> Result<()> {
        // Routed, not bridged: what two pods of a node say to each other passes the node's
        // network stack as well, where Services are.
        let network = json!({
            "cniVersion": "1.0.0",
            "name": "kfault",
            "plugins": [{"type": "ptp", "mtu": 1500, "ipam": {
                "type": "host-local",
                "ranges": [[{"subnet": self.pods()}]],
                "routes": [{"dst": "0.0.0.0/0"}],
            }}],
        });
        fs::create_dir_all(own.join("cni"))?;
        fs::write(own.join("cni/10-kfault.conflist"), serde_json::to_string_pretty(&network)?)?;
        let plugins = plugins().context("no CNI plugins: run `cargo xtask setup`")?;
        // Without CAP_SYS_RESOURCE nobody may lower a score of the OOM killer.
        let containerd = format!(
            "version = 2\n\
             [plugins.\"io.containerd.internal.v1.opt\"]\npath = \"/var/lib/containerd/opt\"\n\
             [plugins.\"io.containerd.grpc.v1.cri\"]\nrestrict_oom_score_adj = true\n\
             sandbox_image = \"{PAUSE}\"\n\
             [plugins.\"io.containerd.grpc.v1.cri\".cni]\nbin_dir = {plugins:?}\nconf_dir = {:?}\n\
             [plugins.\"io.containerd.grpc.v1.cri\".containerd]\nsnapshotter = \"{}\"\n",
            own.join("cni"),
            snapshotter(own)?,
        );
        fs::write(own.join("containerd.toml"), containerd)?;
        // An empty one: pods must not be sent to this machine's resolver.
        fs::write(own.join("resolv.conf"), "")?;
        let kubelet = json!({
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": "/",
            "failSwapOn": false,
            "failCgroupV1": false,
            "authentication": {
                "anonymous": {"enabled": false},
                "webhook": {"enabled": true},
                "x509": {"clientCAFile": cluster.file("pki").join("ca.crt")},
            },
            "authorization": {"mode": "Webhook"},
            // This machine's disk may be as full as it likes.
            "evictionHard": {},
            "imageGCHighThresholdPercent": 100,
            "enforceNodeAllocatable": [],
            "localStorageCapacityIsolation": false,
            "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
            "volumePluginDir": "/var/lib/kubelet/volume-plugins",
            "clusterDNS": [DNS_SERVICE],
            "clusterDomain": "cluster.local",
            "resolvConf": own.join("resolv.conf"),
            "makeIPTablesUtilChains": false,
            "nodeStatusUpdateFrequency": "5s",
        });
        fs::write(own.join("kubelet.yaml"), serde_json::to_string_pretty(&kubelet)?)?;
        let proxy = json!({
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "mode": "nftables",
            "clusterCIDR": PODS,
            "hostnameOverride": self.name(),
            "clientConnection": {"kubeconfig": cluster.kubeconfig("kube-proxy")},
            // The size of the machine's table is not a namespace's to set.
            "conntrack": {"maxPerCore": 0},
        });
        fs::write(own.join("kube-proxy.yaml"), serde_json::to_string_pretty(&proxy)?)?;
        Ok(())
    }

    /// A command in all of its namespaces; its program is named here.
    pub fn inside(&self, program: &str) -> Result<Command> {
        let first = self.first()?;
        let mut command = exec::program("nsenter")?;
        command.arg(format!("--target={first}"));
        command.args(["--mount", "--net", "--pid", "--cgroup", "--uts", "--ipc", "--", program]);
        Ok(command)
    }

    /// Makes an image known to it.
    pub fn load(&self, image: &Path) -> Result<()> {
        let file = File::open(image).with_context(|| format!("open {}", image.display()))?;
        let mut command = self.inside("ctr")?;
        command.args(["--namespace", "k8s.io", "images", "import", "-"]).stdin(file);
        exec::read(&mut command).map(|_| ())
    }

    /// The process that is number 1 in it.
    fn first(&self) -> Result<u32> {
        cgroups::processes(&self.namespace())?
            .into_iter()
            .find(|pid| {
                let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
                is_first(&status)
            })
            .with_context(|| {
                format!("{} is not running; `cargo xtask cluster down` ends the rest", self.name())
            })
    }
}

/// Whether a process is number 1 one level below us: in a node, not in a pod.
fn is_first(status: &str) -> bool {
    let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:")).unwrap_or_default();
    let numbers: Vec<&str> = numbers.split_whitespace().collect();
    matches!(numbers[..], [_, "1"])
}

/// The folder of the CNI plugins.
pub fn plugins() -> Option<PathBuf> {
    ["/usr/lib/cni", "/usr/libexec/cni", "/opt/cni/bin"]
        .map(PathBuf::from)
        .into_iter()
        .find(|folder| ["ptp", "host-local", "loopback"].iter().all(|p| folder.join(p).is_file()))
}

/// An overlay cannot lie on an overlay, which is what we have inside of a container.
fn snapshotter(folder: &Path) -> Result<&'static str> {
    let kind = exec::read(exec::program("stat")?.args(["-f", "-c", "%T"]).arg(folder))?;
    Ok(if kind.trim() == "overlayfs" { "native" } else { "overlayfs" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_addresses_follow_the_number() {
        let node = Node::new(2);
        assert_eq!(node.name(), "node-b");
        assert!(node.namespace().starts_with(PREFIX));
        assert_eq!(
            (node.address().as_str(), node.pods().as_str()),
            ("10.90.0.12", "10.244.2.0/24")
        );
    }

    #[test]
    fn a_pod_is_not_taken_for_its_node() {
        assert!(is_first("Name:\tsh\nNSpid:\t4711\t1\n"));
        assert!(!is_first("NSpid:\t4711\t12\t1\n"));
        assert!(!is_first("NSpid:\t4711\n"));
    }
}

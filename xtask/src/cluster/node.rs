//! A node: containerd, a kubelet, kube-proxy and its pods, in namespaces of their own.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use super::cgroups::{self, Hierarchy};
use super::control::Daemon;
use super::settings::{self, Runtime, Settings};
use super::{Cluster, network, vm_node};
use crate::exec;

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

/// The CNI plugins that a node needs.
const PLUGINS: [&str; 3] = ["ptp", "host-local", "loopback"];

/// Names of namespaces and cgroups of nodes start like this.
pub const PREFIX: &str = "kf-node-";

/// The number of the node that is a virtual machine.
const VM: u8 = 20;

/// One node.
#[derive(PartialEq)]
pub struct Node {
    /// From 1.
    number: u8,
}

impl Node {
    pub fn new(number: u8) -> Self {
        Self { number }
    }

    /// So many nodes that are namespaces, and one that is a virtual machine.
    pub fn several(count: u8, with_vm: bool) -> Vec<Self> {
        (1..=count).chain(with_vm.then_some(VM)).map(Self::new).collect()
    }

    /// From 1.
    pub fn number(&self) -> u8 {
        self.number
    }

    /// Whether it is a virtual machine.
    pub fn is_vm(&self) -> bool {
        self.number == VM
    }

    /// `node-a`
    pub fn name(&self) -> String {
        if self.is_vm() {
            return vm_node::NAME.to_owned();
        }
        format!("node-{}", char::from(b'a' + self.number - 1))
    }

    /// Of its network namespace and its cgroups.
    pub fn namespace(&self) -> String {
        let name = self.name();
        format!("{PREFIX}{}", name.strip_prefix("node-").unwrap_or(&name))
    }

    /// Of the node.
    pub fn address(&self) -> String {
        format!("10.90.0.{}", 10 + self.number)
    }

    /// The same in IPv6.
    pub fn address6(&self) -> String {
        format!("fd00:10:90::{}", 10 + self.number)
    }

    /// The addresses of its pods.
    pub fn pods(&self) -> String {
        format!("10.244.{}.0/24", self.number)
    }

    /// The same in IPv6.
    pub fn pods6(&self) -> String {
        format!("fd00:10:244:{}::/64", self.number)
    }

    /// How others reach its pods: what is there, and by which of its addresses.
    pub fn routes(&self) -> [(String, String); 2] {
        [(self.pods(), self.address()), (self.pods6(), self.address6())]
    }

    /// Whether an address is one of its pods'.
    pub fn has(&self, address: &str) -> bool {
        let (pods, pods6) = (self.pods(), self.pods6());
        let networks = [pods.strip_suffix("0/24"), pods6.strip_suffix(":/64")];
        networks.into_iter().flatten().any(|network| address.starts_with(network))
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
        let plugins = plugins().context("no CNI plugins: run `cargo xtask setup`")?;
        let settings = Settings {
            node: self,
            place: &own,
            authority: &cluster.file("pki").join("ca.crt"),
            proxy: &cluster.kubeconfig("kube-proxy"),
            runtime: Runtime::Beside { snapshotter: snapshotter(&own)? },
        };
        settings.write(&own)?;
        for name in PLUGINS {
            symlink(plugins.join(name), own.join(settings::PLUGINS).join(name))?;
        }
        let script = own.join("node.sh");
        fs::write(&script, SCRIPT)?;

        let log = File::create(cluster.log(&self.name()))?;
        let enter = network::inside(&self.namespace())?;
        let mut command = cgroups::joining(&cgroups::create(hierarchies, &self.namespace())?)?;
        command.arg(enter.get_program()).args(enter.get_args()).arg("setsid");
        // A namespace of cgroups starts at the cgroup that its first process is in.
        command.args(["unshare", "--mount", "--cgroup", "--uts", "--ipc", "--pid", "--fork"]);
        command.args(["--mount-proc", "--kill-child", "--propagation", "slave", "sh"]);
        command.arg(script).arg(&cluster.state).arg(self.name());
        command.arg(format!("{},{}", self.address(), self.address6())).arg(hyperkube);
        let child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("start {}", self.name()))?;
        Ok(Daemon { name: self.name(), child })
    }

    /// A command in all of its namespaces, or in its machine; its program is named here.
    pub fn inside(&self, program: &str) -> Result<Command> {
        if self.is_vm() {
            return vm_node::inside(self, program);
        }
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
        .find(|folder| PLUGINS.iter().all(|name| folder.join(name).is_file()))
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
        assert_eq!(node.routes()[1], ("fd00:10:244:2::/64".into(), "fd00:10:90::12".into()));
    }

    #[test]
    fn the_machine_comes_last_and_is_no_other_node() {
        let nodes = Node::several(2, true);
        let names: Vec<String> = nodes.iter().map(Node::name).collect();
        assert_eq!(names, ["node-a", "node-b", "vm-a"]);
        assert!(nodes[2].is_vm() && !nodes[0].is_vm() && nodes[2] == Node::new(nodes[2].number()));
        assert_eq!(nodes[2].namespace(), "kf-node-vm-a");
        for pod in ["10.244.20.7", "fd00:10:244:20::7"] {
            assert!(nodes[2].has(pod) && !nodes[1].has(pod), "{pod}");
        }
    }

    #[test]
    fn a_pod_is_not_taken_for_its_node() {
        assert!(is_first("Name:\tsh\nNSpid:\t4711\t1\n"));
        assert!(!is_first("NSpid:\t4711\t12\t1\n"));
        assert!(!is_first("NSpid:\t4711\n"));
    }
}

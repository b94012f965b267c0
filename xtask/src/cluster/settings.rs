//! What the programs of a node are told.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::Result;
use serde_json::json;

use super::node::Node;
use super::{DNS_SERVICE, PODS, PODS6};
use crate::image::PAUSE;

/// Where a node finds its CNI plugins, below its place. The machine's own are to be linked there.
pub const PLUGINS: &str = "plugins";
/// The one that is not the machine's.
const NO_DAD: &str = "no-dad";

/// The settings of one node.
pub struct Settings<'a> {
    pub node: &'a Node,
    /// Where the node finds what is written.
    pub place: &'a Path,
    /// Whose certificates it trusts.
    pub authority: &'a Path,
    /// What kube-proxy logs in with.
    pub proxy: &'a Path,
    pub runtime: Runtime,
}

/// How containers are run.
pub enum Runtime {
    /// Beside whatever else this machine does.
    Beside { snapshotter: &'static str },
    /// On a machine of its own, where systemd makes the cgroups.
    Alone,
}

impl Settings<'_> {
    /// Writes all of them to a folder.
    pub fn write(&self, folder: &Path) -> Result<()> {
        // Routed, not bridged: what two pods of a node say to each other passes the node's
        // network stack as well, where Services are.
        let network = json!({
            "cniVersion": "1.0.0",
            "name": "kfault",
            "plugins": [{"type": NO_DAD}, {"type": "ptp", "mtu": 1500, "ipam": {
                "type": "host-local",
                "ranges": [[{"subnet": self.node.pods()}], [{"subnet": self.node.pods6()}]],
                "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
            }}],
        });
        let plugins = folder.join(PLUGINS);
        fs::create_dir_all(&plugins)?;
        fs::write(plugins.join(NO_DAD), include_str!("no-dad.sh"))?;
        fs::set_permissions(plugins.join(NO_DAD), fs::Permissions::from_mode(0o755))?;
        fs::create_dir_all(folder.join("cni"))?;
        fs::write(folder.join("cni/10-kfault.conflist"), serde_json::to_string_pretty(&network)?)?;
        fs::write(folder.join("containerd.toml"), self.containerd())?;
        // An empty one: pods must not be sent to this machine's resolver.
        fs::write(folder.join("resolv.conf"), "")?;
        let kubelet = json!({
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "cgroupDriver": match self.runtime {
                Runtime::Beside { .. } => "cgroupfs",
                Runtime::Alone => "systemd",
            },
            "cgroupRoot": "/",
            "failSwapOn": false,
            "failCgroupV1": false,
            "authentication": {
                "anonymous": {"enabled": false},
                "webhook": {"enabled": true},
                "x509": {"clientCAFile": self.authority},
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
            "resolvConf": self.place.join("resolv.conf"),
            "makeIPTablesUtilChains": false,
            "nodeStatusUpdateFrequency": "5s",
        });
        fs::write(folder.join("kubelet.yaml"), serde_json::to_string_pretty(&kubelet)?)?;
        let proxy = json!({
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "mode": "nftables",
            "clusterCIDR": format!("{PODS},{PODS6}"),
            "hostnameOverride": self.node.name(),
            "clientConnection": {"kubeconfig": self.proxy},
            // The size of the machine's table is not a namespace's to set.
            "conntrack": {"maxPerCore": 0},
        });
        fs::write(folder.join("kube-proxy.yaml"), serde_json::to_string_pretty(&proxy)?)?;
        Ok(())
    }

    fn containerd(&self) -> String {
        const CRI: &str = "plugins.\"io.containerd.grpc.v1.cri\"";
        let (plugins, networks) = (self.place.join(PLUGINS), self.place.join("cni"));
        let sandbox = format!("[{CRI}]\nsandbox_image = \"{PAUSE}\"\n");
        let cni = format!("[{CRI}.cni]\nbin_dir = {plugins:?}\nconf_dir = {networks:?}\n");
        match self.runtime {
            // Without CAP_SYS_RESOURCE nobody may lower a score of the OOM killer.
            Runtime::Beside { snapshotter } => format!(
                "version = 2\n\
                 [plugins.\"io.containerd.internal.v1.opt\"]\npath = \"/var/lib/containerd/opt\"\n\
                 {sandbox}restrict_oom_score_adj = true\n{cni}\
                 [{CRI}.containerd]\nsnapshotter = \"{snapshotter}\"\n"
            ),
            Runtime::Alone => format!(
                "version = 2\n{sandbox}{cni}\
                 [{CRI}.containerd.runtimes.runc]\nruntime_type = \"io.containerd.runc.v2\"\n\
                 [{CRI}.containerd.runtimes.runc.options]\nSystemdCgroup = true\n"
            ),
        }
    }
}

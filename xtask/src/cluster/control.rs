//! The control plane's processes.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use anyhow::{Context, Result};

use super::{CONTROL, CONTROL_ADDRESS, Cluster, SERVICES, SERVICES6, cgroups, network};

/// A process of the cluster. It outlives us, unless `up` fails.
pub struct Daemon {
    /// The name of its log.
    pub name: String,
    pub child: Child,
}

/// Starts the daemons of one cluster.
pub struct Control<'a> {
    pub cluster: &'a Cluster,
    pub hyperkube: &'a Path,
    /// The files that take the processes of the control plane's cgroup.
    pub cgroup: Vec<PathBuf>,
}

impl Control<'_> {
    pub fn etcd(&self) -> Result<Daemon> {
        let data = self.cluster.file("etcd");
        self.start("etcd", &[format!("--data-dir={}", data.display())])
    }

    pub fn api_server(&self) -> Result<Daemon> {
        let pki = |name: &str| self.cluster.file("pki").join(name).display().to_string();
        self.start(
            "kube-apiserver",
            &[
                "--etcd-servers=http://127.0.0.1:2379".into(),
                "--bind-address=0.0.0.0".into(),
                "--secure-port=6443".into(),
                format!("--advertise-address={CONTROL_ADDRESS}"),
                format!("--service-cluster-ip-range={SERVICES},{SERVICES6}"),
                format!("--tls-cert-file={}", pki("apiserver.crt")),
                format!("--tls-private-key-file={}", pki("apiserver.key")),
                format!("--client-ca-file={}", pki("ca.crt")),
                format!("--token-auth-file={}", pki("tokens.csv")),
                "--authorization-mode=Node,RBAC".into(),
                "--enable-admission-plugins=NodeRestriction".into(),
                "--service-account-issuer=https://kubernetes.default.svc.cluster.local".into(),
                format!("--service-account-key-file={}", pki("sa.pub")),
                format!("--service-account-signing-key-file={}", pki("sa.key")),
                format!("--kubelet-client-certificate={}", pki("kubelet-client.crt")),
                format!("--kubelet-client-key={}", pki("kubelet-client.key")),
                // Nobody resolves the names of nodes.
                "--kubelet-preferred-address-types=InternalIP".into(),
                "--allow-privileged=true".into(),
                // Nothing here knows the addresses of Services: webhooks are asked at their pods.
                "--enable-aggregator-routing=true".into(),
                "--profiling=false".into(),
            ],
        )
    }

    pub fn controller_manager(&self) -> Result<Daemon> {
        let name = "kube-controller-manager";
        let pki = |name: &str| self.cluster.file("pki").join(name).display().to_string();
        let mut args = self.login(name);
        args.extend([
            "--leader-elect=false".into(),
            // Its default of 20 requests a second delays the first pods by seconds.
            "--kube-api-qps=500".into(),
            "--kube-api-burst=1000".into(),
            // It makes this folder, below /usr unless it is told otherwise.
            format!("--flex-volume-plugin-dir={}", self.cluster.file("volumes").display()),
            format!("--root-ca-file={}", pki("ca.crt")),
            format!("--service-account-private-key-file={}", pki("sa.key")),
            format!("--cluster-signing-cert-file={}", pki("ca.crt")),
            format!("--cluster-signing-key-file={}", pki("ca.key")),
        ]);
        self.start(name, &args)
    }

    pub fn scheduler(&self) -> Result<Daemon> {
        let name = "kube-scheduler";
        let mut args = self.login(name);
        args.push("--leader-elect=false".into());
        self.start(name, &args)
    }

    fn login(&self, name: &str) -> Vec<String> {
        let file = self.cluster.kubeconfig(name);
        ["kubeconfig", "authentication-kubeconfig", "authorization-kubeconfig"]
            .map(|option| format!("--{option}={}", file.display()))
            .into()
    }

    fn start(&self, part: &str, args: &[String]) -> Result<Daemon> {
        let log = File::create(self.cluster.log(part)).with_context(|| format!("log of {part}"))?;
        let enter = network::inside(CONTROL)?;
        let mut command = cgroups::joining(&self.cgroup)?;
        // Each of these becomes the next: the child's number is the daemon's.
        command.arg(enter.get_program()).args(enter.get_args()).arg("setsid");
        command.arg(self.hyperkube).arg(part).args(args);
        let child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("start {part}"))?;
        Ok(Daemon { name: part.to_owned(), child })
    }
}

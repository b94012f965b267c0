//! `cluster`: a Kubernetes whose nodes are namespaces of this machine, for the tests that need
//! one. No container engine, no service manager and no virtual machine take part in it.
//!
//! The control plane lives in one network namespace, every node in another one, with its own
//! mounts, processes, cgroups and name. No address of the machine is used and nothing outside
//! can be reached from in there. What is made is found again by its name, so that [`down`] needs
//! no record to end it.

mod api;
mod bench;
mod binaries;
mod cgroups;
mod control;
mod credentials;
mod down;
mod e2e;
mod network;
mod node;
mod settings;
mod up;
mod vm_node;

pub use bench::bench;
pub use binaries::{Binaries, coredns};
pub use e2e::Tally;
pub use node::plugins;

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use anyhow::{Context, Result, bail, ensure};

use crate::exec;
use crate::progress::step;
use node::Node;

/// The control plane: its network namespace, and its cgroup.
const CONTROL: &str = "kf-cp";
/// The address of the control plane, which is the bridge between the nodes.
const CONTROL_ADDRESS: &str = "10.90.0.1";
/// The same in IPv6, which every node and pod has beside IPv4.
const CONTROL_ADDRESS6: &str = "fd00:10:90::1";
/// Another one of it: the way to a virtual machine that the first one is cut off from.
const SSH_ADDRESS: &str = "10.90.0.2";
/// Addresses of Services; the first one is the API server's.
const SERVICES: &str = "10.96.0.0/16";
const SERVICES6: &str = "fd00:10:96::/112";
const API_SERVICE: &str = "10.96.0.1";
const DNS_SERVICE: &str = "10.96.0.10";
/// Addresses of all pods; every node has a part of them.
const PODS: &str = "10.244.0.0/16";
const PODS6: &str = "fd00:10:244::/48";

/// Options of `cargo xtask cluster`.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Sub,
}

#[derive(clap::Subcommand)]
enum Sub {
    /// Starts the cluster and waits until it runs pods
    Up {
        /// How many nodes it has
        #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=9))]
        nodes: u8,
        /// One node more, in a virtual machine with Debian's kernel 6.12 and cgroup v2 alone
        #[arg(long)]
        vm_node: bool,
    },
    /// Ends the cluster; nothing of it stays
    Down,
    /// Makes images known to every node
    Load {
        /// Archives, as `cargo xtask image` writes them
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
    },
    /// Runs a command in the control plane's network, with kubectl on its path
    Exec {
        /// Run it on this node instead, as the node's own processes are run
        #[arg(long, value_name = "NAME")]
        node: Option<String>,
        /// The command
        #[arg(last = true, required = true, value_name = "CMD")]
        command: Vec<String>,
    },
    /// Runs kubectl
    Kubectl {
        /// Its arguments
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARG")]
        args: Vec<String>,
    },
    /// Shows the nodes and the pods
    Status,
    /// Installs kfault on it and runs every scenario; starts a cluster where none is up, by kind
    /// where that is installed, and uses the one of KUBECONFIG where that is set
    E2e(e2e::Args),
}

/// Runs `cargo xtask cluster`.
pub fn main(args: Args) -> Result<()> {
    let is_elsewhere =
        matches!(&args.command, Sub::E2e(args) if !args.is_native()) && e2e::is_given();
    ensure!(
        is_elsewhere || exec::is_root(),
        "the cluster is made of namespaces and cgroups: run as root"
    );
    let cluster = Cluster::here();
    match args.command {
        Sub::Up { nodes, vm_node } => up::up(&cluster, &Node::several(nodes, vm_node)),
        Sub::Down => {
            let _lock = cluster.lock()?;
            step("end the cluster", |_| down::down(&cluster))
        }
        Sub::Load { files } => load(&cluster, &files),
        Sub::Exec { node: None, command } => replace(cluster.client(&command[0])?, &command[1..]),
        Sub::Exec { node: Some(name), command } => {
            replace(cluster.node(&name)?.inside(&command[0])?, &command[1..])
        }
        Sub::Kubectl { args } => replace(cluster.client("kubectl")?, &args),
        Sub::Status => status(&cluster),
        Sub::E2e(args) => e2e::e2e(&cluster, &args)?.verdict(),
    }
}

/// The scenarios as a part of `cargo xtask test`, on the cluster of this machine's namespaces.
pub fn tested(ci: bool) -> Result<Tally> {
    e2e::e2e(&Cluster::here(), &e2e::Args::of_test(ci))
}

/// Where a cluster keeps its things.
struct Cluster {
    /// Data, logs and credentials. Goes with the cluster.
    state: PathBuf,
}

impl Cluster {
    fn here() -> Self {
        Self { state: crate::target_dir().join("cluster") }
    }

    fn file(&self, name: impl AsRef<Path>) -> PathBuf {
        self.state.join(name)
    }

    fn log(&self, name: &str) -> PathBuf {
        self.state.join("log").join(format!("{name}.log"))
    }

    fn kubeconfig(&self, user: &str) -> PathBuf {
        self.state.join(format!("{user}.kubeconfig"))
    }

    /// The nodes that this cluster was started with; none when it is not up.
    fn nodes(&self) -> Vec<Node> {
        let numbers = fs::read_to_string(self.file("nodes")).unwrap_or_default();
        numbers.split_whitespace().filter_map(|one| one.parse().ok()).map(Node::new).collect()
    }

    /// The nodes of a cluster that must be up.
    fn running(&self) -> Result<Vec<Node>> {
        let nodes = self.nodes();
        ensure!(
            !nodes.is_empty() && network::exists(CONTROL),
            "no cluster is up: run `cargo xtask cluster up`"
        );
        Ok(nodes)
    }

    fn node(&self, name: &str) -> Result<Node> {
        let nodes = self.running()?;
        let names: Vec<String> = nodes.iter().map(Node::name).collect();
        match nodes.into_iter().find(|node| node.name() == name) {
            Some(node) => Ok(node),
            None => bail!("there is no node {name}; there are {}", names.join(", ")),
        }
    }

    /// A program with what a client of the cluster needs: its network, its credentials.
    fn client(&self, program: &str) -> Result<Command> {
        self.running()?;
        let mut command = network::inside(CONTROL)?;
        let path = std::env::var_os("PATH").unwrap_or_default();
        let own = Binaries::cached()?.folder;
        let path = std::env::join_paths(std::iter::once(own).chain(std::env::split_paths(&path)))?;
        command.env("PATH", path).env("KUBECONFIG", self.kubeconfig("admin"));
        // What kubectl learns of this cluster is of no use to the next one.
        command.env("KUBECACHEDIR", self.file("kubectl")).arg(program);
        Ok(command)
    }

    /// Held while the cluster is started or ended, so that two of these do not mix.
    fn lock(&self) -> Result<File> {
        fs::create_dir_all(crate::target_dir())?;
        let path = crate::target_dir().join("cluster.lock");
        let file = File::create(&path).with_context(|| path.display().to_string())?;
        file.lock().context("wait for another `cargo xtask cluster`")?;
        Ok(file)
    }
}

/// Becomes another program: its signals and its exit status are then its own.
fn replace(mut command: Command, args: &[String]) -> Result<()> {
    let error = command.args(args).exec();
    Err(error).with_context(|| format!("start {}", exec::name(&command)))
}

fn load(cluster: &Cluster, files: &[PathBuf]) -> Result<()> {
    let nodes = cluster.running()?;
    for path in files {
        step(format!("load {}", path.display()), |_| {
            thread::scope(|scope| {
                let loads: Vec<_> =
                    nodes.iter().map(|node| scope.spawn(|| node.load(path))).collect();
                for (load, node) in loads.into_iter().zip(&nodes) {
                    let loaded = load.join().unwrap_or_else(|_| bail!("the loader panicked"));
                    loaded
                        .with_context(|| format!("load {} on {}", path.display(), node.name()))?;
                }
                Ok(())
            })
        })?;
    }
    Ok(())
}

fn status(cluster: &Cluster) -> Result<()> {
    if cluster.nodes().is_empty() {
        println!("no cluster is up");
        return Ok(());
    }
    println!("credentials: {}", cluster.kubeconfig("admin").display());
    println!("logs: {}", cluster.file("log").display());
    let what = ["get", "nodes,pods", "--all-namespaces", "--output=wide"];
    let code = exec::attached(cluster.client("kubectl")?.args(what))?;
    ensure!(code == 0, "the cluster does not answer; `cargo xtask cluster down` ends it");
    Ok(())
}

//! The command line's grammar. Says what may be written; what it means is each command's.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use super::stop;
use super::worker::Worker;
use crate::api::duration::GoDuration;
use crate::kube::cache::Name;
use crate::telemetry::Format;

const EXAMPLES: &str = "\
Examples:
  kfault doctor
      Which faults this host can do, and why not the others.
  kfault explain delay.yaml
      What a manifest would do. Touches nothing, needs no root.
  kfault run delay.yaml --target netns:web
      Does it to the network namespace \"web\", until its duration is over or Ctrl-C.

Exit codes: 0 ran and recovered, 1 a fault could not be applied or recovered, 2 refused (nothing
was touched), 3 this host cannot do it (nothing was touched), 130 interrupted and recovered.
KFAULT_LOG sets the log filter (for example KFAULT_LOG=debug).";

/// Faults for the network of containers, services and namespaces, injected in the kernel.
#[derive(Debug, Parser)]
#[command(name = "kfault", version, after_help = EXAMPLES, max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Apply experiments to workloads of this host, watch them, recover
    Run(Run),
    /// Show what a manifest means and would do; touches nothing, needs no root
    Explain(Explain),
    /// Show what this host's kernel can do: works, missing or refused, and why
    Doctor(Doctor),
    /// Remove inert leftovers of a run that was killed
    Sweep(Sweep),
    /// Carry out the faults of this node (a DaemonSet runs it)
    Agent(Agent),
    /// Serve the experiments of a cluster (a Deployment runs it)
    Controller(Controller),
    /// End what acts on a cluster, and wait until it has recovered
    Stop(Stop),
    /// Print the definitions of the API for a cluster, for kubectl apply -f -
    Crds(Crds),
    /// Print a completion script for a shell
    Completion(Completion),
    /// Do nothing until a signal says to end: what a pod runs that is to fail
    #[command(hide = true)]
    Pause,
    /// Use resources in a cgroup until told to end: what the engine starts for a stress experiment
    #[command(hide = true, subcommand)]
    Worker(Worker),
    /// Put limits back when the kfault at the other end of stdin is no more
    #[command(hide = true)]
    Guard(Guard),
    /// Reset connections whose bytes died with the kfault at the other end of stdin
    #[command(hide = true)]
    Rescue(Rescue),
}

/// For whom the output is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people
    #[default]
    Text,
    /// One JSON object per line on stdout; messages for people go to stderr
    Json,
}

/// How logs are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people
    #[default]
    Text,
    /// One JSON object per line
    Json,
}

impl From<LogFormat> for Format {
    fn from(format: LogFormat) -> Self {
        match format {
            LogFormat::Text => Self::Text,
            LogFormat::Json => Self::Json,
        }
    }
}

impl Command {
    /// How its logs are written.
    #[must_use]
    pub fn log_format(&self) -> Format {
        match self {
            Self::Agent(Agent { log_format, .. })
            | Self::Controller(Controller { log_format, .. }) => (*log_format).into(),
            _ => Format::Text,
        }
    }
}

const RUN_EXAMPLES: &str = "\
Workloads (--target, --peer):
  netns:NAME            a network namespace in /run/netns; a glob takes several: netns:web-*
  unit:NAME.service     a systemd unit
  cgroup:PATH           a cgroup v2 path, for example cgroup:/system.slice/web.service
  container:ID-OR-NAME  a container, by id, beginning of the id, or Docker name
  pid:N, process:COMM   the cgroup or network namespace of a process, or of all of one name
A workload in a network namespace of its own is hit as a whole; one that shares the host's
network is hit through the sockets of its cgroup.

Examples:
  kfault run delay.yaml --target netns:web --duration 30s
  kfault run delay.yaml --target unit:nginx.service --dry-run
  kfault run partition.yaml --target 'netns:web-*' --peer netns:db
  kfault run a.yaml b.yaml --target container:web --seed 42 --output json";

/// `kfault run`
#[derive(Args, Debug)]
#[command(after_help = RUN_EXAMPLES)]
pub struct Run {
    /// Manifests, each with one or more experiments; `-` is stdin
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Workload to choose from, in place of spec.selector; may repeat
    #[arg(long = "target", value_name = "WORKLOAD")]
    pub targets: Vec<String>,
    /// Workload at the other end, in place of spec.target.selector; may repeat
    #[arg(long = "peer", value_name = "WORKLOAD")]
    pub peers: Vec<String>,
    /// End after this time at the latest, for example 30s or 1m30s
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub duration: Option<Duration>,
    /// Seed of every random choice; the same seed replays a run
    #[arg(long, value_name = "NUMBER")]
    pub seed: Option<u64>,
    /// Attach, decide and count, but harm no packet
    #[arg(long)]
    pub dry_run: bool,
    /// Refuse targets that hold a process of this name, in addition to the built-in list
    /// (sshd, kubelet, container runtimes, journald, ...); may repeat
    #[arg(long = "protect", value_name = "NAME")]
    pub protect: Vec<String>,
    /// For whom the output is
    #[arg(long, value_enum, default_value_t)]
    pub output: Output,
}

/// `kfault explain`
#[derive(Args, Debug)]
pub struct Explain {
    /// Manifests; `-` is stdin
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// For whom the output is
    #[arg(long, value_enum, default_value_t)]
    pub output: Output,
}

/// `kfault doctor`
#[derive(Args, Debug)]
pub struct Doctor {
    /// For whom the output is
    #[arg(long, value_enum, default_value_t)]
    pub output: Output,
}

/// `kfault sweep`
#[derive(Args, Debug)]
pub struct Sweep {
    /// For whom the output is
    #[arg(long, value_enum, default_value_t)]
    pub output: Output,
}

/// `kfault agent`
#[derive(Args, Debug)]
pub struct Agent {
    /// Name of this node in the cluster
    #[arg(long, env = "NODE_NAME", value_name = "NAME")]
    pub node: String,
    /// Namespace that kfault runs in; the agent's lease is kept there
    #[arg(long, env = "NAMESPACE", value_name = "NAME", default_value = "chaos-mesh")]
    pub namespace: String,
    /// Without an answer of the API server for so long, every fault of this node ends
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "30s")]
    pub cut_off: Duration,
    /// Serve the faults of this namespace only
    #[arg(long, value_name = "NAMESPACE")]
    pub target_namespace: Option<String>,
    /// How logs are written to stderr; KFAULT_LOG says which
    #[arg(long, env = "KFAULT_LOG_FORMAT", value_name = "FORMAT", value_enum, default_value_t)]
    pub log_format: LogFormat,
}

const STOP_EXAMPLES: &str = "\
Examples:
  kfault stop --all
      Pauses every experiment and schedule. What is paused goes on when the annotation
      experiment.chaos-mesh.org/pause is removed.
  kfault stop networkchaos/default/web-delay
      Pauses one; a schedule takes what it has started along.
  kfault stop --all --delete
      Deletes them and waits until they are gone: before kfault is uninstalled.
  kubectl -n chaos-mesh exec deploy/chaos-controller-manager -- /kfault stop --all
      Where there is no kfault at hand.

Exit codes: 0 all has recovered, 1 something has not, or cannot be stopped, 2 refused (no such
object, wrong flags), 3 the cluster does not answer (nothing was asked), 130 interrupted.";

/// `kfault stop`
#[derive(Args, Debug)]
#[command(after_help = STOP_EXAMPLES)]
pub struct Stop {
    /// Experiments and schedules, as KIND/NAMESPACE/NAME
    #[arg(value_name = "OBJECT", value_parser = stop::object)]
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    pub objects: Vec<Name>,
    /// Every experiment and every schedule
    #[arg(long)]
    pub all: bool,
    /// With --all: only those of this namespace
    #[arg(long, value_name = "NAME", conflicts_with = "objects")]
    pub namespace: Option<String>,
    /// Delete them instead of pausing them
    #[arg(long)]
    pub delete: bool,
    /// Give up waiting after this time
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "2m")]
    pub timeout: Duration,
    /// For whom the output is
    #[arg(long, value_enum, default_value_t)]
    pub output: Output,
}

/// `kfault crds`
#[derive(Args, Debug)]
pub struct Crds {
    /// Print the configurations of the webhooks instead
    #[arg(long)]
    pub webhooks: bool,
}

/// `kfault controller`
#[derive(Args, Debug)]
pub struct Controller {
    /// Namespace that kfault runs in
    #[arg(long, env = "NAMESPACE", value_name = "NAME", default_value = "chaos-mesh")]
    pub namespace: String,
    /// Serve experiments and choose pods of this namespace only
    #[arg(long, value_name = "NAMESPACE")]
    pub target_namespace: Option<String>,
    /// Choose only pods of namespaces with the annotation chaos-mesh.org/inject: enabled
    #[arg(long)]
    pub filter_namespaces: bool,
    /// Who this controller is among several: the name of its pod
    #[arg(long, env = "HOSTNAME", value_name = "NAME", default_value = "kfault")]
    pub identity: String,
    /// kfault's own image, which pods get that are to fail (PodChaos, pod-failure)
    #[arg(long, env = "KFAULT_IMAGE", value_name = "IMAGE")]
    pub image: Option<String>,
    /// Where /healthz, /readyz and /metrics are served
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0:10080")]
    pub listen: SocketAddr,
    /// Where the API server's webhooks are served
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0:10250")]
    pub webhook_listen: SocketAddr,
    /// The Service through which the API server reaches the webhooks
    #[arg(long, value_name = "NAME", default_value = "chaos-controller-manager")]
    pub webhook_service: String,
    /// Serve no webhooks and keep no certificate: for a controller outside the cluster
    #[arg(long)]
    pub no_webhooks: bool,
    /// How logs are written to stderr; KFAULT_LOG says which
    #[arg(long, env = "KFAULT_LOG_FORMAT", value_name = "FORMAT", value_enum, default_value_t)]
    pub log_format: LogFormat,
}

/// `kfault completion`
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  kfault completion bash > /etc/bash_completion.d/kfault")]
pub struct Completion {
    /// The shell
    #[arg(value_enum)]
    pub shell: Shell,
}

/// `kfault guard`
#[derive(Args, Debug)]
pub struct Guard {
    /// The engine whose limits it looks after
    pub engine: String,
}

/// `kfault rescue`
#[derive(Args, Debug)]
pub struct Rescue {
    /// Number of the map of connections
    pub sockets: u32,
    /// Number of the map of what was handed over
    pub handed: u32,
    /// Number of the map of what has gone on
    pub homes: u32,
    /// Number of the map of how far requests were taken
    pub streams: u32,
    /// Number of the map of connections that those are of
    pub diverted: u32,
}

fn duration(text: &str) -> Result<Duration, String> {
    const WAY_OUT: &str = "write a Go duration above zero, for example 500ms, 30s or 1m30s";
    let parsed: GoDuration = text.parse().map_err(|error| format!("{error}; {WAY_OUT}"))?;
    match parsed.to_std() {
        Some(duration) if !duration.is_zero() => Ok(duration),
        _ => Err(WAY_OUT.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_grammar_is_sound() {
        Cli::command().debug_assert();
    }
}

//! Experiments: each kind's fields, checks and lowering to rules.
//!
//! Owns: the list of kinds that this version serves, and what all of them share. Refuses: clocks,
//! files, clients, randomness that is not an argument. One folder per kind; [`Fault`] is the list.

mod compose;
mod distinct;
pub mod dns;
pub mod event;
pub mod explain;
#[cfg(test)]
mod fixture;
mod grip;
pub mod http;
pub mod lifecycle;
mod load;
pub mod network;
pub mod on_node;
pub mod pod;
pub mod schedule;
pub mod stress;
pub mod throttle;

use std::time::Duration;

use serde::Serialize;
use serde_json::{Value, json};
use thiserror::Error;

pub use self::compose::{ComposeError, Composed, compose};
use self::distinct::distinct;
use self::dns::DnsChaos;
use self::http::HttpChaos;
pub use self::load::{LoadError, Parsed, Refusal, load, parse, parse_object};
use self::network::NetworkChaos;
use self::pod::PodChaos;
use self::stress::StressChaos;
use self::throttle::ThrottleChaos;
use crate::api::document::Place;
use crate::api::duration::GoDuration;
use crate::api::fields::Fields;
use crate::api::finding::{Findings, Warning};
use crate::api::kind::Kind;
use crate::api::metadata::Metadata;
use crate::api::mode::{Mode, ModeFields};
use crate::api::selector::Selector;
use crate::api::written::Written;
use crate::plan::Rule;
use crate::plan::exchange::Exchange;
use crate::plan::strain::Strain;
use crate::select::Workload;

/// An experiment that was parsed, defaulted and checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Experiment {
    /// Where it was found.
    pub place: Place,
    /// Its name, namespace, labels and annotations.
    pub metadata: Metadata,
    /// What it does.
    pub fault: Fault,
    /// What of it does not do what it seems to.
    pub warnings: Vec<Warning>,
}

/// What an experiment does: one variant per kind.
#[derive(Clone, Debug, PartialEq)]
pub enum Fault {
    /// Faults of the network.
    Network(Box<NetworkChaos>),
    /// Faults of pods as a whole.
    Pod(Box<PodChaos>),
    /// Load on processors, memory and disks.
    Stress(Box<StressChaos>),
    /// Limits of containers.
    Throttle(Box<ThrottleChaos>),
    /// Faults of name resolution.
    Dns(Box<DnsChaos>),
    /// Faults of HTTP.
    Http(Box<HttpChaos>),
}

/// `selector`, `mode` and `value`: who may be hit and how many of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Choice {
    /// Who may be hit.
    pub selector: Selector,
    /// How many of them.
    #[serde(flatten, serialize_with = "mode_fields")]
    pub mode: Mode,
}

fn mode_fields<S: serde::Serializer>(mode: &Mode, serializer: S) -> Result<S::Ok, S::Error> {
    let fields: ModeFields = mode.fields();
    fields.serialize(serializer)
}

impl Choice {
    /// Reads `selector`, `mode` and `value` of `fields`; `namespace` is the object's own.
    pub fn read(fields: &mut Fields<'_>, namespace: &str, findings: &mut Findings) -> Option<Self> {
        fields.require("selector", "an object; {} selects every pod of the namespace", findings);
        let selector = fields
            .object("selector", findings)
            .map(|selector| Selector::read(selector, namespace, findings));
        let mode = Mode::read(fields, findings);
        Some(Self { selector: selector?, mode: mode? })
    }
}

impl Experiment {
    /// Its kind.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self.fault {
            Fault::Network(_) => Kind::Network,
            Fault::Pod(_) => Kind::Pod,
            Fault::Stress(_) => Kind::Stress,
            Fault::Throttle(_) => Kind::Throttle,
            Fault::Dns(_) => Kind::Dns,
            Fault::Http(_) => Kind::Http,
        }
    }

    /// `Kind/namespace/name`: its identity.
    #[must_use]
    pub fn id(&self) -> String {
        format!("{}/{}/{}", self.kind().name(), self.metadata.namespace, self.metadata.name)
    }

    /// Who is hit (`spec.selector`).
    #[must_use]
    pub fn source(&self) -> &Choice {
        match &self.fault {
            Fault::Network(spec) => &spec.source,
            Fault::Pod(spec) => &spec.source,
            Fault::Stress(spec) => &spec.source,
            Fault::Throttle(spec) => &spec.source,
            Fault::Dns(spec) => &spec.source,
            Fault::Http(spec) => &spec.source,
        }
    }

    /// The other end (`spec.target`), where the experiment has one.
    #[must_use]
    pub fn target(&self) -> Option<&Choice> {
        match &self.fault {
            Fault::Network(spec) => spec.target.as_ref(),
            Fault::Pod(_)
            | Fault::Stress(_)
            | Fault::Throttle(_)
            | Fault::Dns(_)
            | Fault::Http(_) => None,
        }
    }

    /// It is over when it is done: nothing to recover, pause or bound.
    #[must_use]
    pub fn is_one_shot(&self) -> bool {
        match &self.fault {
            Fault::Network(_)
            | Fault::Stress(_)
            | Fault::Throttle(_)
            | Fault::Dns(_)
            | Fault::Http(_) => false,
            Fault::Pod(spec) => spec.action.is_one_shot(),
        }
    }

    /// Pods that start to match, or take the place of chosen ones, become targets while it runs.
    #[must_use]
    pub fn follows(&self) -> bool {
        match &self.fault {
            Fault::Network(spec) => spec.kfault.follow,
            Fault::Pod(spec) => spec.follow && !self.is_one_shot(),
            Fault::Stress(spec) => spec.kfault.follow,
            Fault::Throttle(spec) => spec.follow,
            Fault::Dns(spec) => spec.kfault.follow,
            Fault::Http(spec) => spec.kfault.follow,
        }
    }

    /// Whose addresses its rules look at, as records call them.
    #[must_use]
    pub fn peer_sides(&self) -> &'static [&'static str] {
        match &self.fault {
            Fault::Network(spec) => spec.peer_sides(),
            Fault::Pod(_)
            | Fault::Stress(_)
            | Fault::Throttle(_)
            | Fault::Dns(_)
            | Fault::Http(_) => &[],
        }
    }

    /// The containers of each pod that it acts on, where it acts on containers; an empty list
    /// means the first one.
    #[must_use]
    pub fn containers(&self) -> Option<&[String]> {
        match &self.fault {
            Fault::Pod(spec) if spec.action == pod::Action::ContainerKill => {
                Some(&spec.container_names)
            }
            Fault::Network(_) | Fault::Pod(_) | Fault::Http(_) => None,
            Fault::Stress(spec) => Some(&spec.container_names),
            Fault::Throttle(spec) => Some(&spec.container_names),
            Fault::Dns(spec) => Some(&spec.container_names),
        }
    }

    /// A container that was started again is another one: the one that was meant is dead.
    #[must_use]
    pub fn kills_containers(&self) -> bool {
        self.is_one_shot() && self.containers().is_some()
    }

    /// The DNS names at its other end, each once.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        match &self.fault {
            Fault::Network(spec) => spec.names(),
            Fault::Pod(_)
            | Fault::Stress(_)
            | Fault::Throttle(_)
            | Fault::Dns(_)
            | Fault::Http(_) => Vec::new(),
        }
    }

    /// How long it acts; `None`: until it is recovered. Zero: not at all.
    #[must_use]
    pub fn duration(&self) -> Option<Duration> {
        let written = match &self.fault {
            Fault::Network(spec) => spec.duration.as_ref()?,
            Fault::Pod(spec) => spec.duration.as_ref()?,
            Fault::Stress(spec) => spec.duration.as_ref()?,
            Fault::Throttle(spec) => spec.duration.as_ref()?,
            Fault::Dns(spec) => spec.duration.as_ref()?,
            Fault::Http(spec) => spec.duration.as_ref()?,
        };
        Some(written.value.to_std().unwrap_or(Duration::ZERO))
    }

    /// The object with its defaults. Parses to an equal experiment.
    #[must_use]
    pub fn object(&self) -> Value {
        let spec = match &self.fault {
            Fault::Network(spec) => spec.json(),
            Fault::Pod(spec) => spec.json(),
            Fault::Stress(spec) => spec.json(),
            Fault::Throttle(spec) => spec.json(),
            Fault::Dns(spec) => spec.json(),
            Fault::Http(spec) => spec.json(),
        };
        json!({
            "apiVersion": self.kind().api_version(),
            "kind": self.kind().name(),
            "metadata": self.metadata,
            "spec": spec,
        })
    }
}

/// What lowering is told beside the experiment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Seed of every random choice and die.
    pub seed: u64,
    /// Decide and count, harm no packet.
    pub dry_run: bool,
    /// In place of the experiment's own duration.
    pub duration: Option<Duration>,
    /// The workloads are pods, and a controller follows them.
    pub in_cluster: bool,
}

/// What an experiment becomes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Lowered {
    /// Its rules, sorted by id.
    pub rules: Vec<Rule>,
    /// Its strains, sorted by id.
    pub strains: Vec<Strain>,
    /// Its exchanges, sorted by id.
    pub exchanges: Vec<Exchange>,
    /// What of it does not do what it seems to, on these workloads.
    pub warnings: Vec<Warning>,
}

impl Lowered {
    fn warn(&mut self, field: &str, message: impl Into<String>) {
        self.warnings.push(Warning { field: field.to_owned(), message: message.into() });
    }
}

/// Why an experiment cannot act on its workloads.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum LowerError {
    /// `spec.target` is given and nobody said what it means on this host.
    #[error(
        "{experiment}: spec.target: names the other end, and this host has no pods to choose it from; bind it with --peer, for example --peer netns:NAME"
    )]
    NoPeers {
        /// The experiment.
        experiment: String,
    },
    /// The other end has no address that packets could be told by.
    #[error(
        "{experiment}: {workload} has no address other than loopback and link-local ones, so its packets cannot be told from others; give it one, or name the other end in spec.externalTargets"
    )]
    NoAddress {
        /// The experiment.
        experiment: String,
        /// The workload.
        workload: String,
    },
    /// The device asked for does not exist.
    #[error("{experiment}: {field}: {workload} has no device \"{device}\"; it has: {devices}")]
    MissingDevice {
        /// The experiment.
        experiment: String,
        /// The workload.
        workload: String,
        /// The field that asked for it.
        field: &'static str,
        /// The device.
        device: String,
        /// What there is.
        devices: String,
    },
    /// No device was asked for and none is the natural one.
    #[error(
        "{experiment}: {field}: {workload} has no default route and not exactly one device, so the device must be named; it has: {devices}"
    )]
    NoDevice {
        /// The experiment.
        experiment: String,
        /// The workload.
        workload: String,
        /// The field that names it.
        field: &'static str,
        /// What there is.
        devices: String,
    },
    /// More than dropping was asked for where packets arrive for a cgroup.
    #[error(
        "{experiment}: {field}: not supported by this version: where packets arrive for {workload}, a cgroup on a shared device, they can only be dropped; {instead}, or give the workload a network namespace of its own"
    )]
    CgroupIngress {
        /// The experiment.
        experiment: String,
        /// The workload.
        workload: String,
        /// The field that asked for it.
        field: &'static str,
        /// What works.
        instead: &'static str,
    },
    /// Loads and limits act on processes.
    #[error(
        "{experiment}: {workload} is a network namespace, and loads and limits act on the cgroup of processes; name the workload by unit:, cgroup:, container:, pid: or process:"
    )]
    NoCgroup {
        /// The experiment.
        experiment: String,
        /// The workload.
        workload: String,
    },
    /// Pods are known to a cluster only.
    #[error(
        "{experiment}: spec.action: \"{action}\" acts on pods through a cluster's API server, which a host has not; apply it with kubectl"
    )]
    NeedsCluster {
        /// The experiment.
        experiment: String,
        /// The action.
        action: &'static str,
    },
}

impl LowerError {
    /// True when the manifest is right and this host or version cannot do it.
    #[must_use]
    pub fn is_unsupported(&self) -> bool {
        matches!(self, Self::CgroupIngress { .. } | Self::NeedsCluster { .. })
    }
}

/// Lowers an experiment on chosen workloads. `peers` are the workloads of `spec.target`. A plan
/// without a host is made with unbound workloads ([`Workload::unbound`]).
///
/// # Errors
/// See [`LowerError`]; nothing of the experiment can act then.
pub fn lower(
    experiment: &Experiment,
    sources: &[Workload],
    peers: Option<&[Workload]>,
    options: &Options,
) -> Result<Lowered, LowerError> {
    let mut idle = Lowered::default();
    if experiment.metadata.is_paused() {
        idle.warn("metadata.annotations", "the experiment is paused: nothing happens");
        return Ok(idle);
    }
    if options.duration.is_none() && experiment.duration() == Some(Duration::ZERO) {
        let message =
            "is not above zero: the experiment is over before it begins and nothing happens";
        idle.warn("spec.duration", message);
        return Ok(idle);
    }
    match &experiment.fault {
        Fault::Network(spec) => network::lower(experiment, spec, sources, peers, options),
        Fault::Stress(spec) => stress::lower(experiment, spec, sources, options),
        Fault::Throttle(spec) => throttle::lower(experiment, spec, sources, options),
        Fault::Dns(spec) => dns::lower(experiment, spec, sources, options),
        Fault::Http(spec) => Ok(http::lower(experiment, spec, sources, options)),
        Fault::Pod(_) if sources.iter().all(Workload::is_unbound) => Ok(idle),
        Fault::Pod(spec) => Err(LowerError::NeedsCluster {
            experiment: experiment.id(),
            action: spec.action.word(),
        }),
    }
}

/// Reads `duration`.
fn read_duration(fields: &mut Fields<'_>, findings: &mut Findings) -> Option<Written<GoDuration>> {
    const WAY_OUT: &str = "write a Go duration, for example \"30s\" or \"1m30s\"";
    if let Some(Value::String(text)) = fields.value("duration")
        && text.is_empty()
    {
        let path = fields.path("duration");
        let message = "is empty: the fault acts until it is recovered; write \"30s\" to bound it";
        findings.warn(&path, message);
        return None;
    }
    fields.parsed("duration", WAY_OUT, findings)
}

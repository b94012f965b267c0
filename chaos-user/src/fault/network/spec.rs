//! The fields of a network fault: reading them, defaulting them, writing them back.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::block::{BandwidthBlock, ChanceBlock, DelayBlock, RateBlock};
use super::external::External;
use crate::api::duration::GoDuration;
use crate::api::fields::Fields;
use crate::api::finding::Findings;
use crate::api::rate::Rate;
use crate::api::written::Written;
use crate::fault::{Choice, read_duration};
use crate::plan::{CorruptMode, Partition};

/// `spec` of the kind, defaults filled in.
#[derive(Clone, Debug, PartialEq)]
pub struct NetworkChaos {
    /// Who is hit.
    pub source: Choice,
    /// What the experiment is about; it does not restrict which blocks act.
    pub action: Action,
    /// Which way. Default `to`.
    pub direction: Side,
    /// The other end.
    pub target: Option<Choice>,
    /// What a partition does to the sender. Default `drop`. `None`: not given.
    pub partition_behavior: Option<Partition>,
    /// More of the other end: addresses and names.
    pub external_targets: Vec<Written<External>>,
    /// Device of the sources; `None`: that of the default route.
    pub device: Option<String>,
    /// Device of the target; `None`: that of the default route.
    pub target_device: Option<String>,
    /// Later.
    pub delay: Option<DelayBlock>,
    /// Never.
    pub loss: Option<ChanceBlock>,
    /// Twice.
    pub duplicate: Option<ChanceBlock>,
    /// Damaged.
    pub corrupt: Option<ChanceBlock>,
    /// Slower.
    pub rate: Option<RateBlock>,
    /// Slower, with bursts.
    pub bandwidth: Option<BandwidthBlock>,
    /// How long; `None`: until recovered.
    pub duration: Option<Written<GoDuration>>,
    /// Name of another cluster.
    pub remote_cluster: Option<String>,
    /// What this project adds to the kind.
    pub kfault: Extension,
}

/// `action`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Any of the blocks.
    Netem,
    /// `delay`.
    Delay,
    /// `loss`.
    Loss,
    /// `duplicate`.
    Duplicate,
    /// `corrupt`.
    Corrupt,
    /// No packet passes.
    Partition,
    /// `bandwidth`.
    Bandwidth,
}

/// `direction`, seen from the sources.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Side {
    /// What the sources send.
    #[default]
    To,
    /// What the sources get.
    From,
    /// Both.
    Both,
}

/// `spec.kfault`: what this project adds to the kind. Everything defaults to what the kind
/// means without it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Extension {
    /// `from` acts where packets arrive at the sources, not where the target sends them.
    pub ingress: bool,
    /// What a corrupted packet amounts to. `None`: not given, which means `wire`.
    pub corrupt: Option<CorruptMode>,
    /// One decision per wire packet. Not served yet.
    pub per_packet: bool,
    /// Act on workloads that appear later, too (clusters only).
    pub follow: bool,
    /// Parameters of a loss with two states. Not served yet.
    pub gilbert_elliott: Option<Value>,
}

pub(super) const ACTIONS: [(&str, Action); 7] = [
    ("netem", Action::Netem),
    ("delay", Action::Delay),
    ("loss", Action::Loss),
    ("duplicate", Action::Duplicate),
    ("corrupt", Action::Corrupt),
    ("partition", Action::Partition),
    ("bandwidth", Action::Bandwidth),
];
const SIDES: [(&str, Side); 3] = [("to", Side::To), ("from", Side::From), ("both", Side::Both)];
const BEHAVIORS: [(&str, Partition); 2] =
    [("drop", Partition::Drop), ("reject", Partition::Reject)];
const CORRUPT_MODES: [(&str, CorruptMode); 2] =
    [("wire", CorruptMode::Wire), ("payload", CorruptMode::Payload)];

pub(super) fn word<T: PartialEq>(words: &[(&'static str, T)], value: &T) -> &'static str {
    words.iter().find(|(_, v)| v == value).map_or("", |(word, _)| word)
}

impl Action {
    /// The word, as in `action:`.
    #[must_use]
    pub fn word(self) -> &'static str {
        word(&ACTIONS, &self)
    }
}

impl Side {
    /// The word, as in `direction:`.
    #[must_use]
    pub fn word(self) -> &'static str {
        word(&SIDES, &self)
    }

    /// `to` or `both`.
    #[must_use]
    pub fn sends(self) -> bool {
        self != Self::From
    }

    /// `from` or `both`.
    #[must_use]
    pub fn receives(self) -> bool {
        self != Self::To
    }
}

impl NetworkChaos {
    /// Whose addresses its rules look at, as records call them. Who sends to the target is of no
    /// interest to rules that act where packets leave for it.
    #[must_use]
    pub fn peer_sides(&self) -> &'static [&'static str] {
        let Some(_) = &self.target else { return &[] };
        if self.direction.receives() && !self.kfault.ingress {
            &[".", ".Target"]
        } else {
            &[".Target"]
        }
    }

    /// Reads `spec`; `namespace` is the object's own.
    pub fn read(mut fields: Fields<'_>, namespace: &str, findings: &mut Findings) -> Option<Self> {
        let source = Choice::read(&mut fields, namespace, findings);
        fields.require(
            "action",
            "allowed: netem, delay, loss, duplicate, corrupt, partition, bandwidth",
            findings,
        );
        let action = fields.word("action", &ACTIONS, findings);
        let direction = fields.word("direction", &SIDES, findings);
        let had_target = fields.has("target");
        let target = fields.object("target", findings).and_then(|mut fields| {
            let choice = Choice::read(&mut fields, namespace, findings);
            fields.finish(findings);
            choice
        });
        let partition_behavior = fields.word("partitionBehavior", &BEHAVIORS, findings);
        let external_targets = externals(&mut fields, findings);
        let device = device(&mut fields, "device", findings);
        let target_device = device_of_target(&mut fields, findings);
        let delay = DelayBlock::read(&mut fields, findings);
        let loss = ChanceBlock::read(&mut fields, "loss", findings);
        let duplicate = ChanceBlock::read(&mut fields, "duplicate", findings);
        let corrupt = ChanceBlock::read(&mut fields, "corrupt", findings);
        let rate = RateBlock::read(&mut fields, findings);
        let bandwidth = BandwidthBlock::read(&mut fields, findings);
        let duration = read_duration(&mut fields, findings);
        let remote_cluster = fields.text("remoteCluster", findings).filter(|text| !text.is_empty());
        let kfault = Extension::read(&mut fields, findings);
        fields.finish(findings);
        if had_target && target.is_none() {
            return None;
        }
        Some(Self {
            source: source?,
            action: action?,
            direction: direction.unwrap_or_default(),
            target,
            partition_behavior,
            external_targets,
            device,
            target_device,
            delay,
            loss,
            duplicate,
            corrupt,
            rate,
            bandwidth,
            duration,
            remote_cluster: remote_cluster.map(str::to_owned),
            kfault,
        })
    }

    /// A link of this speed for what the sources send.
    #[must_use]
    pub fn of_rate(source: Choice, rate: Written<Rate>) -> Self {
        Self {
            source,
            action: Action::Netem,
            direction: Side::To,
            target: None,
            partition_behavior: None,
            external_targets: Vec::new(),
            device: None,
            target_device: None,
            delay: None,
            loss: None,
            duplicate: None,
            corrupt: None,
            rate: Some(RateBlock { rate }),
            bandwidth: None,
            duration: None,
            remote_cluster: None,
            kfault: Extension::default(),
        }
    }

    /// The DNS names among the external targets, each once.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        let names: BTreeSet<&str> = self
            .external_targets
            .iter()
            .filter_map(|entry| match &entry.value {
                External::Name(name) => Some(name.host.as_str()),
                External::Prefix { .. } => None,
            })
            .collect();
        names.into_iter().map(str::to_owned).collect()
    }

    /// What a partition does to the sender.
    #[must_use]
    pub fn partition(&self) -> Partition {
        self.partition_behavior.unwrap_or(Partition::Drop)
    }

    /// `spec` with its defaults, as a manifest writes it. Reads back to an equal value.
    #[must_use]
    pub fn json(&self) -> Value {
        let mut value = json!(self.source);
        value["action"] = json!(self.action.word());
        value["direction"] = json!(self.direction.word());
        let mut put = |name: &str, entry: Option<Value>| {
            if let Some(entry) = entry {
                value[name] = entry;
            }
        };
        put("target", self.target.as_ref().map(|target| json!(target)));
        let partition = self.action == Action::Partition || self.partition_behavior.is_some();
        put("partitionBehavior", partition.then(|| json!(word(&BEHAVIORS, &self.partition()))));
        let external = !self.external_targets.is_empty();
        put("externalTargets", external.then(|| json!(self.external_targets)));
        put("device", self.device.as_ref().map(|device| json!(device)));
        put("targetDevice", self.target_device.as_ref().map(|device| json!(device)));
        put("delay", self.delay.as_ref().map(DelayBlock::json));
        put("loss", self.loss.as_ref().map(|block| block.json("loss")));
        put("duplicate", self.duplicate.as_ref().map(|block| block.json("duplicate")));
        put("corrupt", self.corrupt.as_ref().map(|block| block.json("corrupt")));
        put("rate", self.rate.as_ref().map(RateBlock::json));
        put("bandwidth", self.bandwidth.as_ref().map(BandwidthBlock::json));
        put("duration", self.duration.as_ref().map(|duration| json!(duration)));
        put("remoteCluster", self.remote_cluster.as_ref().map(|name| json!(name)));
        put("kfault", self.kfault.json());
        value
    }
}

fn externals(fields: &mut Fields<'_>, findings: &mut Findings) -> Vec<Written<External>> {
    let mut out = Vec::new();
    let list = fields.path("externalTargets");
    for (i, text) in fields.texts("externalTargets", findings).into_iter().enumerate() {
        let path = format!("{list}[{i}]");
        match Written::parse(&text) {
            Ok(entry) => {
                if let External::Prefix { prefix, masked: true } = &entry.value {
                    findings.warn(&path, format!("bits behind the prefix are set and do not count: it means {}", prefix.net));
                }
                out.push(entry);
            }
            Err(error) => findings.invalid(
                &path,
                &text,
                format!("{error}; write an IPv4 or IPv6 address, a prefix or a DNS name, with :PORT where only one port is meant"),
            ),
        }
    }
    out
}

fn device_of_target(fields: &mut Fields<'_>, findings: &mut Findings) -> Option<String> {
    device(fields, "targetDevice", findings)
}

/// The name of a device. `eth0@if7`, as `ip link` prints it, means `eth0`.
fn device(fields: &mut Fields<'_>, name: &'static str, findings: &mut Findings) -> Option<String> {
    const LONGEST: usize = 15;
    let text = fields.text(name, findings).filter(|text| !text.is_empty())?;
    let path = fields.path(name);
    let device = match text.split_once('@') {
        Some((device, _)) => {
            if !device.is_empty() {
                let means = format!("it means \"{device}\"");
                findings
                    .warn(&path, format!("what stands behind @ is not part of the name: {means}"));
            }
            device
        }
        None => text,
    };
    let fits = (1..=LONGEST).contains(&device.len())
        && device != "."
        && device != ".."
        && device.bytes().all(|b| b.is_ascii_graphic() && b != b'/' && b != b':');
    if !fits {
        let reason = "is no name of a network device (1 to 15 printable characters, no slash, colon or \
             space); `ip link` lists them";
        findings.invalid(&path, &text, reason);
        return None;
    }
    Some(device.to_owned())
}

impl Extension {
    fn read(parent: &mut Fields<'_>, findings: &mut Findings) -> Self {
        let Some(mut fields) = parent.object("kfault", findings) else { return Self::default() };
        let extension = Self {
            ingress: fields.switch("ingress", findings).unwrap_or_default(),
            corrupt: fields.word("corrupt", &CORRUPT_MODES, findings),
            per_packet: fields.switch("perPacket", findings).unwrap_or_default(),
            follow: fields.switch("follow", findings).unwrap_or_default(),
            gilbert_elliott: fields.value("gilbertElliott").cloned(),
        };
        fields.finish(findings);
        extension
    }

    fn json(&self) -> Option<Value> {
        let Self { ingress, corrupt, per_packet, follow, gilbert_elliott } = self;
        let mut value = json!({});
        for (name, on) in [("ingress", ingress), ("perPacket", per_packet), ("follow", follow)] {
            if *on {
                value[name] = json!(true);
            }
        }
        if let Some(mode) = corrupt {
            value["corrupt"] = json!(word(&CORRUPT_MODES, mode));
        }
        if let Some(parameters) = gilbert_elliott {
            value["gilbertElliott"] = parameters.clone();
        }
        (value != json!({})).then_some(value)
    }
}

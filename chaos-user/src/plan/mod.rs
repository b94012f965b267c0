//! Plans: what shall be true on this node, as a value.
//!
//! Owns: the plan's types and [`diff`], which turns two of them into actions. Refuses: clocks,
//! files, clients, async. Everything here is comparable, printable and serialisable, so that
//! `kfault explain` prints exactly what `kfault run` does.

pub mod action;
pub mod diff;
pub mod exchange;
pub mod names;
pub mod peers;
pub mod reach;
pub mod strain;

use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use exchange::Exchange;
use names::Names;
use strain::Strain;

/// Everything that shall act on one node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// The rules, sorted by id, ids unique.
    pub rules: Vec<Rule>,
    /// The strains, sorted by id, ids unique.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub strains: Vec<Strain>,
    /// The exchanges, sorted by id, ids unique.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub exchanges: Vec<Exchange>,
}

impl Plan {
    /// True when nothing acts.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty() && self.strains.is_empty() && self.exchanges.is_empty()
    }

    /// What everything in it does, as sentences for people.
    pub fn sentences(&self) -> impl Iterator<Item = &str> {
        let rules = self.rules.iter().map(|rule| rule.describes.as_str());
        let strains = self.strains.iter().map(|strain| strain.describes.as_str());
        let exchanges = self.exchanges.iter().map(|exchange| exchange.describes.as_str());
        rules.chain(strains).chain(exchanges)
    }

    /// Nothing in it acts for longer than this.
    pub fn shorten(&mut self, most: Duration) {
        let rules = self.rules.iter_mut().map(|rule| &mut rule.duration);
        let strains = self.strains.iter_mut().map(|strain| &mut strain.duration);
        let exchanges = self.exchanges.iter_mut().map(|exchange| &mut exchange.duration);
        for duration in rules.chain(strains).chain(exchanges) {
            *duration = Some(duration.map_or(most, |own| own.min(most)));
        }
    }

    /// Brings everything into the order of ids.
    pub fn sort(&mut self) {
        self.rules.sort_by(|a, b| a.id.cmp(&b.id));
        self.strains.sort_by(|a, b| a.id.cmp(&b.id));
        self.exchanges.sort_by(|a, b| a.id.cmp(&b.id));
    }
}

/// One experiment's effect at one hook of one target.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rule {
    /// Stable name, unique in a plan: `NetworkChaos/ns/name/netns:web/egress`.
    pub id: String,
    /// `Kind/namespace/name` of the experiment.
    pub experiment: String,
    /// The workload that it acts on, as the user wrote it (`netns:web`), for people.
    pub target: String,
    /// Where it acts.
    pub hook: Hook,
    /// To whom.
    pub peers: Peers,
    /// What happens.
    pub effects: Effects,
    /// One sentence for people: "delay 500 ms ± 0 ms at egress of netns:web towards everyone".
    pub describes: String,
    /// Share of matched packets that the rule acts on, 0 to 1, where that is one number.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub declared: Option<f64>,
    /// Seed of its dice, already mixed with its id.
    pub seed: u64,
    /// How long it acts from the moment it is applied; `None` = until recovered.
    #[serde(skip_serializing_if = "Option::is_none", default, with = "serde_duration")]
    pub duration: Option<Duration>,
    /// Decide and count, harm no packet.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub dry_run: bool,
}

/// A point where a rule can act. Ordered, so that plans and actions have one order.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Hook {
    /// The namespace and device that the packets pass.
    pub device: Device,
    /// Leaving or arriving.
    pub direction: Direction,
    /// `None`: everything through the device. `Some`: only sockets of this cgroup.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub cgroup: Option<Cgroup>,
}

/// A network device in a network namespace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Device {
    /// File of the namespace (`/run/netns/web`, `/proc/17/ns/net`); empty in a plan that was
    /// made without a host (`kfault explain`).
    pub netns: String,
    /// Inode of the namespace: its identity. 0 without a host.
    pub inode: u64,
    /// The device's name. Empty: the device of the default route (plans without a host only).
    pub name: String,
}

/// A cgroup of the v2 hierarchy.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Cgroup {
    /// Path below the cgroup2 mount, with a leading slash.
    pub path: String,
    /// Its id (inode number of the directory). 0 without a host.
    pub id: u64,
    /// Depth, the root being 0.
    pub level: u32,
}

/// Which way a packet goes, seen from the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// Leaving the target.
    Egress,
    /// Arriving at the target.
    Ingress,
}

/// The other ends that a rule applies to. Empty means everyone.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Peers {
    /// Prefixes, each with the port that it is limited to. Sorted, unique.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub prefixes: Vec<Prefix>,
    /// Names to be resolved when the plan is applied, and again every 30 s. Sorted, unique.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub names: Vec<Name>,
    /// Workloads whose addresses are not known yet (plans without a host only).
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub workloads: Vec<String>,
}

impl Peers {
    /// True when the rule applies to every peer.
    #[must_use]
    pub fn is_everyone(&self) -> bool {
        self.prefixes.is_empty() && self.names.is_empty() && self.workloads.is_empty()
    }
}

/// A prefix, limited to one port or not.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Prefix {
    /// The addresses.
    pub net: IpNet,
    /// Only this TCP or UDP port of the peer; `None` = every protocol and port.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub port: Option<u16>,
}

/// A DNS name, limited to one port or not.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Name {
    /// The name as written.
    pub host: String,
    /// Only this TCP or UDP port of the peer; `None` = every protocol and port.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub port: Option<u16>,
}

/// Everything that happens to a matched packet, in this order.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Effects {
    /// Every packet is refused.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub partition: Option<Partition>,
    /// Some packets are lost.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub loss: Option<Chance>,
    /// Some packets are corrupted.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub corrupt: Option<Corrupt>,
    /// Some packets arrive twice.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub duplicate: Option<Chance>,
    /// A link of this many bytes per second.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub rate: Option<u64>,
    /// A token bucket.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub bandwidth: Option<Bandwidth>,
    /// Later.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub delay: Option<Delay>,
    /// DNS queries that would leave are answered.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub answer: Option<Answer>,
    /// Only packets that an [`Exchange`] has marked, and what becomes of them.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub marked: Option<Marked>,
}

/// What becomes of packets that the programs of an [`Exchange`] have marked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Marked {
    /// Those of a response leave late, by so many nanoseconds at most.
    Late(u64),
    /// Those with a request do not arrive: the client is answered with a reset.
    Cut,
}

/// Which DNS queries are answered, and how.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// Queries for these names; none means every name.
    #[serde(skip_serializing_if = "Names::is_every", default)]
    pub names: Names,
    /// With this.
    pub reply: Reply,
    /// Seconds that an answer with an address may be kept.
    #[serde(skip_serializing_if = "is_zero_u32", default)]
    pub ttl: u32,
}

/// What a DNS query is answered with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reply {
    /// The server failed.
    Servfail,
    /// There is no such name.
    Nxdomain,
    /// The server does not want to.
    Refused,
    /// Nothing: the query is lost.
    Timeout,
    /// An address at random for A and AAAA; for other types that there is nothing.
    Random,
}

/// A probability from 0 to 1 and the lag-1 autocorrelation of its decisions, 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Chance {
    /// Long-run share of positive decisions.
    pub share: f64,
    /// How much a decision resembles the one before.
    #[serde(skip_serializing_if = "is_zero", default)]
    pub correlation: f64,
}

/// What the sender of a refused packet gets to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Partition {
    /// Nothing (EPERM where the target is a cgroup).
    Drop,
    /// A TCP reset, or ICMP "port unreachable".
    Reject,
}

/// How often, and what kind of corruption.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Corrupt {
    /// How often.
    pub chance: Chance,
    /// What kind.
    pub mode: CorruptMode,
}

/// What a corrupted packet amounts to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CorruptMode {
    /// The receiver's stack would discard it (a broken checksum), so it never arrives.
    #[default]
    Wire,
    /// It arrives with one flipped payload bit.
    Payload,
}

/// A token bucket, as tc's tbf.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bandwidth {
    /// Bytes per second.
    pub rate: u64,
    /// Bytes that may wait for tokens.
    pub limit: u32,
    /// Bucket size in bytes.
    pub buffer: u32,
    /// Bytes per second that the bucket may be emptied at; needs `minburst`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub peakrate: Option<u64>,
    /// Bytes of the peak bucket.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub minburst: Option<u32>,
}

/// Delay with uniform jitter, and packets that overtake.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Delay {
    /// Nanoseconds added to every packet.
    pub latency_ns: u64,
    /// Half-width of the jitter, nanoseconds.
    #[serde(skip_serializing_if = "is_zero_u64", default)]
    pub jitter_ns: u64,
    /// Lag-1 autocorrelation of the jitter, 0 to 1.
    #[serde(skip_serializing_if = "is_zero", default)]
    pub correlation: f64,
    /// Packets that leave at once.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reorder: Option<Reorder>,
}

/// Every `gap`-th packet leaves at once, with this chance.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reorder {
    /// How often a candidate overtakes.
    pub chance: Chance,
    /// One packet in `gap` is a candidate, at least 1.
    pub gap: u32,
}

impl Effects {
    /// True when packets are held back, so that a queue or delay line is needed.
    #[must_use]
    pub fn takes_time(&self) -> bool {
        self.postpones() || self.rate.is_some() || self.bandwidth.is_some()
    }

    /// True when packets wait however few there are.
    #[must_use]
    pub fn postpones(&self) -> bool {
        self.delay.is_some() || matches!(self.marked, Some(Marked::Late(_)))
    }

    /// Longest time that this may hold a packet, nanoseconds, queueing for a rate included.
    #[must_use]
    pub fn longest_ns(&self) -> u64 {
        let delay = self.delay.map_or(0, |d| d.latency_ns.saturating_add(d.jitter_ns));
        let queue = if self.rate.is_some() { RATE_QUEUE_NS } else { 0 };
        let bucket = self.bandwidth.map_or(0, |b| bandwidth_queue_ns(&b));
        let late = if let Some(Marked::Late(ns)) = self.marked { ns } else { 0 };
        delay.saturating_add(late).saturating_add(queue).saturating_add(bucket)
    }
}

/// Longest queue in front of a `rate` block, nanoseconds. netem bounds it by 1000 packets; a
/// bound in time means the same at every rate.
pub const RATE_QUEUE_NS: u64 = 2_000_000_000;

/// How long the last byte of a full `limit` waits in front of a token bucket, nanoseconds.
#[must_use]
pub fn bandwidth_queue_ns(bandwidth: &Bandwidth) -> u64 {
    let ns = u128::from(bandwidth.limit) * 1_000_000_000 / u128::from(bandwidth.rate.max(1));
    u64::try_from(ns).unwrap_or(u64::MAX).min(chaos_abi::limit::DELAY_NS)
}

fn is_zero(value: &f64) -> bool {
    *value == 0.0
}

fn is_zero_u32(value: &u32) -> bool {
    *value == 0
}

fn is_zero_i32(value: &i32) -> bool {
    *value == 0
}

fn is_zero_u64(value: &u64) -> bool {
    *value == 0
}

/// A duration as a Go-style string in plans ("30s"), so that people can read it.
mod serde_duration {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(value: &Option<Duration>, s: S) -> Result<S::Ok, S::Error> {
        match value {
            Some(d) => s.collect_str(&crate::api::duration::GoDuration::from(*d)),
            None => s.serialize_none(),
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Duration>, D::Error> {
        let Some(text) = Option::<String>::deserialize(d)? else { return Ok(None) };
        let parsed =
            text.parse::<crate::api::duration::GoDuration>().map_err(serde::de::Error::custom)?;
        Ok(parsed.to_std())
    }
}

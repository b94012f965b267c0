//! The blocks of a network fault: one per effect, each with its reader.

use serde_json::{Map, Value, json};

use crate::api::fields::Fields;
use crate::api::finding::Findings;
use crate::api::latency::Latency;
use crate::api::percent::Percent;
use crate::api::rate::Rate;
use crate::api::written::Written;
use crate::plan::{Bandwidth, Chance, Delay, Reorder};

const LATENCY: &str = "write one number and one unit, for example \"500ms\"";
const PERCENT: &str = "write a number from 0 to 100 in quotes, for example \"12.5\"";
const RATE: &str = "write a whole number and a unit, for example \"10mbit\"";

/// `loss`, `duplicate` or `corrupt`: how often, and how much a decision resembles the last.
#[derive(Clone, Debug, PartialEq)]
pub struct ChanceBlock {
    /// Percent of the packets.
    pub share: Written<Percent>,
    /// Lag-1 autocorrelation of the decisions, percent. Default `0`.
    pub correlation: Written<Percent>,
}

/// `delay`.
#[derive(Clone, Debug, PartialEq)]
pub struct DelayBlock {
    /// Added to every packet.
    pub latency: Written<Latency>,
    /// Half-width of the uniform jitter. Default `0ms`.
    pub jitter: Written<Latency>,
    /// Lag-1 autocorrelation of the jitter, percent. Default `0`.
    pub correlation: Written<Percent>,
    /// Packets that leave at once.
    pub reorder: Option<ReorderBlock>,
}

/// `delay.reorder`.
#[derive(Clone, Debug, PartialEq)]
pub struct ReorderBlock {
    /// How often a candidate overtakes.
    pub chance: ChanceBlock,
    /// A packet is a candidate when `gap - 1` packets were delayed since the last that overtook.
    /// 0 means 1.
    pub gap: u32,
}

/// `rate`: a link of this speed.
#[derive(Clone, Debug, PartialEq)]
pub struct RateBlock {
    /// Its speed.
    pub rate: Written<Rate>,
}

/// `bandwidth`: a token bucket.
#[derive(Clone, Debug, PartialEq)]
pub struct BandwidthBlock {
    /// Speed at which tokens come.
    pub rate: Written<Rate>,
    /// Bytes that may wait, at least 1.
    pub limit: u32,
    /// Bytes that the bucket holds, at least 1.
    pub buffer: u32,
    /// Bytes per second that the bucket may be emptied at.
    pub peakrate: Option<u64>,
    /// Bytes of the peak bucket.
    pub minburst: Option<u32>,
}

/// A text field that must be there and parse.
macro_rules! required {
    ($fields:expr, $name:literal, $way_out:expr, $findings:expr) => {{
        $fields.require($name, $way_out, $findings);
        $fields.parsed($name, $way_out, $findings)
    }};
}

impl ChanceBlock {
    /// Reads the object `name`, whose share has the same name as the object.
    pub(super) fn read(
        parent: &mut Fields<'_>,
        name: &'static str,
        findings: &mut Findings,
    ) -> Option<Self> {
        let mut fields = parent.object(name, findings)?;
        let block = Self::read_in(&mut fields, name, findings);
        fields.finish(findings);
        block
    }

    fn read_in(
        fields: &mut Fields<'_>,
        name: &'static str,
        findings: &mut Findings,
    ) -> Option<Self> {
        fields.require(name, PERCENT, findings);
        let share = fields.parsed(name, PERCENT, findings);
        let correlation = correlation(fields, findings);
        Some(Self { share: share?, correlation: correlation? })
    }

    fn object(&self, name: &str) -> Map<String, Value> {
        let mut map = Map::new();
        map.insert(name.to_owned(), json!(self.share));
        map.insert("correlation".to_owned(), json!(self.correlation));
        map
    }

    /// As a manifest writes it.
    pub(super) fn json(&self, name: &str) -> Value {
        Value::Object(self.object(name))
    }

    /// As a plan writes it.
    pub(super) fn chance(&self) -> Chance {
        Chance { share: self.share.value.share(), correlation: self.correlation.value.share() }
    }
}

fn correlation(fields: &mut Fields<'_>, findings: &mut Findings) -> Option<Written<Percent>> {
    if fields.has("correlation") {
        fields.parsed("correlation", PERCENT, findings)
    } else {
        fields.ignore(&["correlation"]);
        Some(Percent::default().into())
    }
}

impl DelayBlock {
    pub(super) fn read(parent: &mut Fields<'_>, findings: &mut Findings) -> Option<Self> {
        let mut fields = parent.object("delay", findings)?;
        let latency = required!(fields, "latency", LATENCY, findings);
        let jitter = if fields.has("jitter") {
            fields.parsed("jitter", LATENCY, findings)
        } else {
            fields.ignore(&["jitter"]);
            Some(Written { text: "0ms".to_owned(), value: Latency::default() })
        };
        let correlation = correlation(&mut fields, findings);
        let reorder = ReorderBlock::read(&mut fields, findings);
        fields.finish(findings);
        Some(Self { latency: latency?, jitter: jitter?, correlation: correlation?, reorder })
    }

    pub(super) fn json(&self) -> Value {
        let Self { latency, jitter, correlation, reorder } = self;
        let mut value = json!({"latency": latency, "jitter": jitter, "correlation": correlation});
        if let Some(ReorderBlock { chance, gap }) = reorder {
            let mut map = chance.object("reorder");
            map.insert("gap".to_owned(), json!(gap));
            value["reorder"] = Value::Object(map);
        }
        value
    }

    /// As a plan writes it; `None` when no packet would be held back.
    pub(super) fn delay(&self) -> Option<Delay> {
        let Self { latency, jitter, correlation, reorder } = self;
        let (latency_ns, jitter_ns) = (latency.value.nanos, jitter.value.nanos);
        if latency_ns == 0 && jitter_ns == 0 {
            return None;
        }
        let reorder = reorder.as_ref().map(|ReorderBlock { chance, gap }| Reorder {
            chance: chance.chance(),
            gap: (*gap).max(1),
        });
        let correlation = if jitter_ns == 0 { 0.0 } else { correlation.value.share() };
        Some(Delay {
            latency_ns,
            jitter_ns,
            correlation,
            reorder: reorder.filter(|reorder| reorder.chance.share > 0.0),
        })
    }
}

impl ReorderBlock {
    fn read(parent: &mut Fields<'_>, findings: &mut Findings) -> Option<Self> {
        let mut fields = parent.object("reorder", findings)?;
        let chance = ChanceBlock::read_in(&mut fields, "reorder", findings);
        fields.require("gap", "a whole number from 1 up", findings);
        let gap = fields.number("gap", 0, u64::from(u32::MAX), findings);
        fields.finish(findings);
        Some(Self { chance: chance?, gap: u32::try_from(gap?).ok()? })
    }
}

impl RateBlock {
    pub(super) fn read(parent: &mut Fields<'_>, findings: &mut Findings) -> Option<Self> {
        let mut fields = parent.object("rate", findings)?;
        let rate = required!(fields, "rate", RATE, findings);
        fields.finish(findings);
        Some(Self { rate: rate? })
    }

    pub(super) fn json(&self) -> Value {
        json!({"rate": self.rate})
    }
}

impl BandwidthBlock {
    pub(super) fn read(parent: &mut Fields<'_>, findings: &mut Findings) -> Option<Self> {
        const BYTES: &str = "a number of bytes from 1 to 4294967295";
        let most = u64::from(u32::MAX);
        let mut fields = parent.object("bandwidth", findings)?;
        let rate = required!(fields, "rate", RATE, findings);
        fields.require("limit", BYTES, findings);
        fields.require("buffer", BYTES, findings);
        let limit = fields.number("limit", 1, most, findings);
        let buffer = fields.number("buffer", 1, most, findings);
        let peakrate = fields.number("peakrate", 0, u64::MAX, findings);
        let minburst = fields.number("minburst", 0, most, findings);
        fields.finish(findings);
        Some(Self {
            rate: rate?,
            limit: u32::try_from(limit?).ok()?,
            buffer: u32::try_from(buffer?).ok()?,
            peakrate,
            minburst: minburst.and_then(|n| u32::try_from(n).ok()),
        })
    }

    pub(super) fn json(&self) -> Value {
        let Self { rate, limit, buffer, peakrate, minburst } = self;
        let mut value = json!({"rate": rate, "limit": limit, "buffer": buffer});
        if let Some(peakrate) = peakrate {
            value["peakrate"] = json!(peakrate);
        }
        if let Some(minburst) = minburst {
            value["minburst"] = json!(minburst);
        }
        value
    }

    /// As a plan writes it. A peak needs both of its fields.
    pub(super) fn bandwidth(&self) -> Bandwidth {
        let Self { rate, limit, buffer, peakrate, minburst } = self;
        let peak = peakrate.filter(|n| *n > 0).zip(minburst.filter(|n| *n > 0));
        Bandwidth {
            rate: rate.value.bytes,
            limit: *limit,
            buffer: *buffer,
            peakrate: peak.map(|(rate, _)| rate),
            minburst: peak.map(|(_, burst)| burst),
        }
    }
}

//! The fields of a throttle: reading them, defaulting them, writing them back.

use serde_json::{Map, Value, json};

use crate::api::duration::GoDuration;
use crate::api::fields::Fields;
use crate::api::finding::Findings;
use crate::api::quantity::Quantity;
use crate::api::rate::Rate;
use crate::api::written::Written;
use crate::fault::{Choice, read_duration};
use crate::plan::strain::{Amount, CpuQuota, IoLimit, Limits};

/// `spec` of the kind, defaults filled in.
#[derive(Clone, Debug, PartialEq)]
pub struct ThrottleChaos {
    /// Who is hit.
    pub source: Choice,
    /// Which containers; none: the first of each pod.
    pub container_names: Vec<String>,
    /// How long; `None`: until recovered.
    pub duration: Option<Written<GoDuration>>,
    /// Act on workloads that appear later, too (clusters only).
    pub follow: bool,
    /// What all fields but `network` come to.
    pub limits: Limits,
    /// `network.rate`: of what the target sends.
    pub rate: Option<Written<Rate>>,
    /// The fields of the limits as they were written.
    written: Map<String, Value>,
}

const QUOTA: &str = "write a percentage, for example \"20%\" or \"150%\"";
const QUANTITY: &str = "write a quantity, for example \"64Mi\"";
const LIMITS: [&str; 6] = ["cpu", "memory", "io", "pids", "network", "freeze"];

/// What a quota is a percentage of.
#[derive(Clone, Copy)]
enum Of {
    One,
    Limit,
}

impl ThrottleChaos {
    /// Reads `spec`; `namespace` is the object's own.
    pub fn read(mut fields: Fields<'_>, namespace: &str, findings: &mut Findings) -> Option<Self> {
        let source = Choice::read(&mut fields, namespace, findings);
        let mut written = Map::new();
        for name in LIMITS {
            if let Some(value) = fields.value(name) {
                written.insert(name.to_owned(), value.clone());
            }
        }
        if written.is_empty() {
            let reason = format!("at least one of {}", LIMITS.join(", "));
            findings.missing("spec", reason);
        }
        let limits = Limits {
            cpu: cpu(&mut fields, findings),
            memory_high: memory(&mut fields, findings),
            io: io(&mut fields, findings),
            pids_max: pids(&mut fields, findings),
            freeze: fields.switch("freeze", findings).unwrap_or_default(),
        };
        let rate = network(&mut fields, findings);
        let container_names = fields.texts("containerNames", findings);
        let duration = read_duration(&mut fields, findings);
        let follow = fields.switch("follow", findings).unwrap_or_default();
        fields.finish(findings);
        let has_other = limits.fields().any(|field| field != "freeze") || rate.is_some();
        if limits.freeze && has_other {
            findings.warn("spec.freeze", "what is frozen does nothing that could be limited");
        }
        if limits == Limits::default() && rate.is_none() && findings.errors.is_empty() {
            findings.warn("spec", "nothing is limited: nothing happens");
        }
        Some(Self { source: source?, container_names, duration, follow, limits, rate, written })
    }

    /// `spec` with its defaults, as a manifest writes it. Reads back to an equal value.
    #[must_use]
    pub fn json(&self) -> Value {
        let mut value = json!(self.source);
        for (name, entry) in &self.written {
            value[name] = entry.clone();
        }
        if !self.container_names.is_empty() {
            value["containerNames"] = json!(self.container_names);
        }
        if let Some(duration) = &self.duration {
            value["duration"] = json!(duration);
        }
        if self.follow {
            value["follow"] = json!(true);
        }
        value
    }
}

/// A percentage above 0, as a text with the sign.
fn percent(text: &str) -> Option<f64> {
    let number: f64 = text.strip_suffix('%')?.parse().ok()?;
    (number.is_finite() && number > 0.0).then_some(number)
}

fn cpu(parent: &mut Fields<'_>, findings: &mut Findings) -> Option<CpuQuota> {
    let mut fields = parent.object("cpu", findings)?;
    fields.require("quota", QUOTA, findings);
    let of = fields.word("of", &[("processor", Of::One), ("limit", Of::Limit)], findings);
    let text = fields.text("quota", findings);
    let path = fields.path("quota");
    fields.finish(findings);
    let text = text?;
    let Some(percent) = percent(text) else {
        findings.invalid(&path, &text, format!("must be a percentage above 0%; {QUOTA}"));
        return None;
    };
    match of.unwrap_or(Of::One) {
        Of::One => Some(CpuQuota::PercentOfOne(percent)),
        Of::Limit if percent <= 100.0 => Some(CpuQuota::PercentOfLimit(percent)),
        Of::Limit => {
            let reason = "a share of the target's own limit is at most 100%; write less, or \
                          \"of: processor\"";
            findings.invalid(&path, &text, reason);
            None
        }
    }
}

fn memory(parent: &mut Fields<'_>, findings: &mut Findings) -> Option<Amount> {
    let mut fields = parent.object("memory", findings)?;
    const HIGH: &str = "write a quantity, for example \"64Mi\", or a share of the target's own \
                        limit, for example \"50%\"";
    fields.require("high", HIGH, findings);
    let path = fields.path("high");
    let amount = match fields.value("high") {
        Some(Value::String(text)) if text.ends_with('%') => match percent(text) {
            Some(percent) if percent <= 100.0 => Some(Amount::PercentOfLimit(percent)),
            _ => {
                findings.invalid(&path, text, format!("must be above 0% and at most 100%; {HIGH}"));
                None
            }
        },
        Some(_) => quantity(&mut fields, "high", findings).map(Amount::Bytes),
        None => None,
    };
    fields.finish(findings);
    amount
}

fn io(parent: &mut Fields<'_>, findings: &mut Findings) -> Vec<IoLimit> {
    let Some(mut fields) = parent.object("io", findings) else { return Vec::new() };
    let limit = IoLimit {
        device: None,
        read_bps: quantity(&mut fields, "readBps", findings),
        write_bps: quantity(&mut fields, "writeBps", findings),
        read_iops: fields.number("readIops", 1, u64::MAX, findings),
        write_iops: fields.number("writeIops", 1, u64::MAX, findings),
    };
    let path = fields.path("devices");
    let mut devices = fields.texts("devices", findings);
    for device in &devices {
        let is_number = device.split_once(':').is_some_and(|(major, minor)| {
            major.parse::<u32>().is_ok() && minor.parse::<u32>().is_ok()
        });
        if !is_number && !device.starts_with("/dev/") {
            let reason = "is no disk; write its path (\"/dev/sda\") or its number (\"8:0\", as \
                          lsblk prints it)";
            findings.invalid(&path, device, reason);
        }
    }
    let place = fields.path("readBps");
    fields.finish(findings);
    if limit == IoLimit::default() {
        if findings.errors.is_empty() {
            let reason = "at least one of readBps, writeBps, readIops, writeIops";
            findings.missing(place.trim_end_matches(".readBps"), reason);
        }
        return Vec::new();
    }
    devices.sort_unstable();
    devices.dedup();
    if devices.is_empty() {
        return vec![limit];
    }
    devices.into_iter().map(|device| IoLimit { device: Some(device), ..limit.clone() }).collect()
}

fn pids(parent: &mut Fields<'_>, findings: &mut Findings) -> Option<u64> {
    let mut fields = parent.object("pids", findings)?;
    // The kernel's own limit of process numbers (`PID_MAX_LIMIT`).
    const MOST: u64 = 4_194_304;
    fields.require("max", "how many tasks there may be, 0 to 4194304", findings);
    let max = fields.number("max", 0, MOST, findings);
    fields.finish(findings);
    max
}

fn network(parent: &mut Fields<'_>, findings: &mut Findings) -> Option<Written<Rate>> {
    const RATE: &str = "write a rate, for example \"1mbit\" (bits) or \"1mbps\" (bytes)";
    let mut fields = parent.object("network", findings)?;
    fields.require("rate", RATE, findings);
    let rate = fields.parsed::<Rate>("rate", RATE, findings);
    let path = fields.path("rate");
    fields.finish(findings);
    let rate = rate?;
    if rate.value.bytes == 0 {
        let reason = "must be above 0; NetworkChaos with action partition lets nothing pass";
        findings.invalid(&path, &rate.text, reason);
        return None;
    }
    Some(rate)
}

/// A quantity above 0.
fn quantity(fields: &mut Fields<'_>, name: &'static str, findings: &mut Findings) -> Option<u64> {
    let written = fields.parsed::<Quantity>(name, QUANTITY, findings)?;
    if written.value.0 == 0 {
        let reason = format!("must be above 0; {QUANTITY}");
        findings.invalid(&fields.path(name), &written.text, reason);
        return None;
    }
    Some(written.value.0)
}

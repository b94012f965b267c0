//! What goes through a limit, by what was declared.

use std::time::Duration;

use anyhow::Result;
use kfault_tests::manifest::Manifest;
use kfault_tests::net::{DEVICE, Net};
use kfault_tests::probe::tcp::{PORT, Server, Service, throughput};
use serde_json::json;

use super::flood::mbit_per_second;
use super::goal::{Findings, Goal};
use super::under_kfault;
use crate::faulty::warm_up;

const GOAL: Goal = Goal::Between(0.95, 1.0);
/// Ethernet, IPv4 and TCP headers with time stamps, per segment of 1448 bytes.
const TCP_OVERHEAD: f64 = 1514.0 / 1448.0;
/// UDP offers this much more than the limit.
const OFFER: f64 = 1.3;

/// Mbit/s, as a manifest writes them, and seconds of measuring.
const RATES: [(f64, &str, f64); 4] =
    [(1.0, "1mbit", 20.0), (10.0, "10mbit", 5.0), (100.0, "100mbit", 4.0), (1000.0, "1gbit", 4.0)];

pub fn run(found: &mut Findings) -> Result<()> {
    let net = Net::new()?;
    warm_up(&net)?;
    let server = Server::start(&net.server.ns, net.server.v4.into(), PORT, Service::Discard)?;
    let plain_tcp = tcp(&net, &server, SKIP, 3.0)?;
    let plain_udp = mbit_per_second(&net, 20_000.0, Duration::from_secs(2))?;
    for (mbit, word, seconds) in RATES {
        let bucket = Bucket::of(mbit);
        let manifest = bucket.manifest(word);
        for (protocol, plain) in [("TCP", plain_tcp), ("UDP", plain_udp)] {
            let figure = format!("{protocol} under {mbit} Mbit/s");
            let ours = under_kfault(&net, &manifest, || match protocol {
                "TCP" => tcp(&net, &server, skip(mbit), seconds),
                _ => mbit_per_second(&net, mbit * OFFER, Duration::from_secs_f64(seconds)),
            })?;
            if plain < mbit * OFFER {
                let why = format!("without a limit this machine moves {plain:.0} Mbit/s");
                found.not_measured(figure, "Mbit/s", Some(ours), GOAL, &why);
                continue;
            }
            found.against(figure, "Mbit/s", ours, ("declared", mbit), GOAL);
            if protocol == "TCP" {
                let figure = format!("TCP under {mbit} Mbit/s, beside tbf");
                match bucket.tbf(&net, word, || tcp(&net, &server, skip(mbit), seconds)) {
                    Ok(tbf) => found.against(figure, "Mbit/s", ours, ("tbf", tbf), Goal::Told),
                    Err(error) => {
                        let why = format!("{error:#}");
                        found.not_measured(figure, "Mbit/s", Some(ours), Goal::Told, &why);
                    }
                }
            }
        }
    }
    found.ours("TCP without a limit", "Mbit/s", plain_tcp, Goal::Told);
    found.ours("UDP without a limit", "Mbit/s", plain_udp, Goal::Told);
    Ok(())
}

/// Bytes that pass at once, and bytes that wait.
struct Bucket {
    buffer: u32,
    limit: u32,
}

impl Bucket {
    /// 5 ms pass at once, half a second waits; room for a few packets each.
    fn of(mbit: f64) -> Self {
        let bytes_per_ms = mbit * 125.0;
        let buffer = (bytes_per_ms * 5.0).max(10_000.0) as u32;
        let limit = (bytes_per_ms * 500.0).max(200_000.0) as u32;
        Self { buffer, limit }
    }

    fn manifest(&self, rate: &str) -> Manifest {
        let Self { buffer, limit } = self;
        Manifest::new("bandwidth")
            .with("bandwidth", json!({"rate": rate, "limit": limit, "buffer": buffer}))
    }

    /// The same by the kernel's own queue.
    fn tbf(&self, net: &Net, rate: &str, measure: impl FnOnce() -> Result<f64>) -> Result<f64> {
        let Self { buffer, limit } = self;
        let ns = &net.client.ns;
        ns.tc(&format!(
            "qdisc add dev {DEVICE} root tbf rate {rate} burst {buffer} limit {limit}"
        ))?;
        let measured = measure();
        ns.tc(&format!("qdisc del dev {DEVICE} root"))?;
        measured
    }
}

/// Seconds at a connection's start that are not measured.
const SKIP: f64 = 2.0;

/// The start of a connection fills the queue, and what is lost then is sent again some round trips
/// later: bytes that had arrived before count after it. At 1 Mbit/s a round trip is as long as
/// the queue, 1.6 s.
fn skip(mbit: f64) -> f64 {
    if mbit <= 1.0 { 16.0 } else { SKIP }
}

/// Mbit/s on the wire.
fn tcp(net: &Net, server: &Server, skip: f64, seconds: f64) -> Result<f64> {
    let skip = Duration::from_secs_f64(skip);
    let time = skip + Duration::from_secs_f64(seconds);
    let (bytes, _) = throughput(&net.client.ns, server, time, skip)?;
    Ok(bytes * TCP_OVERHEAD * 8.0 / 1e6)
}

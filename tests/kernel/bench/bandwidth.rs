//! What goes through a limit, by what was declared.

use std::time::Duration;

use anyhow::{Result, ensure};
use kfault_tests::manifest::Manifest;
use kfault_tests::net::{Family, Net};
use kfault_tests::probe::tcp::{PORT, Server, Service, throughput};
use kfault_tests::probe::udp::Probe;
use serde_json::json;

use super::goal::{Findings, Goal};
use super::under_kfault;
use crate::faulty::{probe, warm_up};

const GOAL: Goal = Goal::Between(0.95, 1.0);
/// Ethernet, IPv4 and TCP headers with time stamps, per segment of 1448 bytes.
const TCP_OVERHEAD: f64 = 1514.0 / 1448.0;
const PAYLOAD: usize = 1400;
/// With UDP, IPv4 and Ethernet headers.
const UDP_WIRE: f64 = (PAYLOAD + 42) as f64;
/// UDP offers this much more than the limit.
const OFFER: f64 = 1.3;

/// Mbit/s, as a manifest writes them, and seconds of measuring.
const RATES: [(f64, &str, f64); 4] =
    [(1.0, "1mbit", 8.0), (10.0, "10mbit", 4.0), (100.0, "100mbit", 3.0), (1000.0, "1gbit", 3.0)];

pub fn run(found: &mut Findings) -> Result<()> {
    let net = Net::new()?;
    warm_up(&net)?;
    let server = Server::start(&net.server.ns, net.server.v4.into(), PORT, Service::Sink)?;
    let plain_tcp = tcp(&net, &server, 3.0)?;
    let plain_udp = udp(&net, 2000.0, 1.0)?;
    for (mbit, word, seconds) in RATES {
        let manifest = limited(mbit, word);
        for (protocol, plain) in [("TCP", plain_tcp), ("UDP", plain_udp)] {
            let figure = format!("{protocol} under {mbit} Mbit/s");
            let ours = under_kfault(&net, &manifest, || match protocol {
                "TCP" => tcp(&net, &server, seconds),
                _ => udp(&net, mbit * OFFER, seconds),
            })?;
            if plain < mbit * OFFER {
                let why = format!("without a limit this machine moves {plain:.0} Mbit/s");
                found.not_measured(figure, "Mbit/s", Some(ours), GOAL, &why);
            } else {
                found.against(figure, "Mbit/s", ours, ("declared", mbit), GOAL);
            }
        }
    }
    found.ours("TCP without a limit", "Mbit/s", plain_tcp, Goal::Told);
    found.ours("UDP without a limit", "Mbit/s", plain_udp, Goal::Told);
    Ok(())
}

/// A bucket of 5 ms and a queue of 100 ms, each with room for a few whole packets.
fn limited(mbit: f64, word: &str) -> Manifest {
    let bytes_per_ms = mbit * 125.0;
    let buffer = (bytes_per_ms * 5.0).max(10_000.0) as u32;
    let limit = (bytes_per_ms * 100.0).max(100_000.0) as u32;
    Manifest::new("bandwidth")
        .with("bandwidth", json!({"rate": word, "limit": limit, "buffer": buffer}))
}

/// Mbit/s on the wire.
fn tcp(net: &Net, server: &Server, seconds: f64) -> Result<f64> {
    let skip = Duration::from_secs(2);
    let time = skip + Duration::from_secs_f64(seconds);
    let (bytes, _) = throughput(&net.client.ns, server, time, skip)?;
    Ok(bytes * TCP_OVERHEAD * 8.0 / 1e6)
}

/// Mbit/s on the wire, of `offered`.
fn udp(net: &Net, offered: f64, seconds: f64) -> Result<f64> {
    let per_second = offered * 1e6 / 8.0 / UDP_WIRE;
    // At most two thousand turns a second: more would measure the sender's sleep.
    let burst = (per_second / 2000.0).ceil() as usize;
    let shape = Probe {
        size: PAYLOAD,
        burst,
        count: (per_second * seconds) as usize,
        every: Duration::from_secs_f64(burst as f64 / per_second),
        patience: Duration::from_millis(1500),
        ..Probe::default()
    };
    let outcome = probe(net, Family::V4, &shape)?;
    let span = outcome.span().as_secs_f64();
    ensure!(span > seconds / 2.0, "{offered} Mbit/s for {seconds} s: {}", outcome.describe());
    // From the first arrival to the last: what the queue still held counts with its time.
    Ok((outcome.received() as f64 - 1.0) * UDP_WIRE * 8.0 / span / 1e6)
}

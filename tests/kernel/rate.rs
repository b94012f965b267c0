//! Rate and bandwidth: what goes through is what was declared, and senders feel it.

use std::time::Duration;

use anyhow::{Result, ensure};
use kfault_tests::manifest::Manifest;
use kfault_tests::net::{FAMILIES, Family, Net};
use kfault_tests::probe::tcp::{PORT, Server, Service, throughput};
use kfault_tests::probe::udp::{Flooded, Probe, flood};
use serde_json::json;

use crate::faulty::{lacks, probe, with_fault};
use crate::harness::{Done, Test, tests};

pub fn tests() -> Vec<Test> {
    let mut all: Vec<Test> =
        tests!("bandwidth": tcp_gets_the_declared_bandwidth).into_iter().map(Test::smoke).collect();
    all.extend(tests!("bandwidth":
        udp_gets_the_declared_bandwidth,
        a_burst_passes_at_once_and_the_rest_waits,
        a_burst_passes_no_faster_than_the_peak_rate,
    ));
    all.extend(tests!("rate": tcp_gets_the_declared_rate).into_iter().map(Test::smoke));
    all.extend(tests!("rate":
        udp_gets_the_declared_rate,
        a_packet_takes_its_time_on_the_link,
        a_sender_that_is_too_fast_is_held_back,
    ));
    all
}

/// Ethernet, IPv4 and TCP headers with time stamps, per segment of 1448 bytes.
const TCP_OVERHEAD: f64 = 1514.0 / 1448.0;

fn bandwidth(rate: &str, limit: u32, buffer: u32) -> Manifest {
    Manifest::new("bandwidth")
        .with("bandwidth", json!({"rate": rate, "limit": limit, "buffer": buffer}))
}

fn rate(rate: &str) -> Manifest {
    Manifest::new("delay").with("rate", json!({"rate": rate}))
}

/// TCP through a limit of `bytes` per second, on the wire.
fn tcp(manifest: &Manifest, bytes: f64) -> Result<Done> {
    let summary = with_fault(manifest, |net, _| {
        for family in FAMILIES {
            let port = PORT + if family == Family::V4 { 0 } else { 1 };
            let server = Server::start(&net.server.ns, net.server.ip(family), port, Service::Sink)?;
            let (rate, _) = throughput(
                &net.client.ns,
                &server,
                Duration::from_secs(6),
                Duration::from_secs(2),
            )?;
            let share = rate * TCP_OVERHEAD / bytes;
            ensure!(
                (0.88..=1.03).contains(&share),
                "{family:?}: {:.2} of the declared rate went through",
                share
            );
        }
        Ok(())
    })?;
    ensure!(summary.total("shaped") > 0, "{}", summary.json());
    Ok(Done::Kept)
}

/// UDP that offers twice of what the limit lets through.
fn udp(manifest: &Manifest, bytes: f64) -> Result<Done> {
    with_fault(manifest, |net, _| {
        for family in FAMILIES {
            let share = udp_share(net, family, bytes)?;
            ensure!(
                (0.90..=1.02).contains(&share),
                "{family:?}: {share:.3} of the declared rate went through"
            );
        }
        Ok(())
    })?;
    Ok(Done::Kept)
}

fn udp_share(net: &Net, family: Family, bytes: f64) -> Result<f64> {
    let headers = if family == Family::V4 { 42 } else { 62 };
    let size = 1000;
    let wire = (size + headers) as f64;
    let seconds = 3.0;
    let per_second = 2.0 * bytes / wire;
    let burst = 4;
    let shape = Probe {
        size,
        burst,
        count: (per_second * seconds) as usize,
        every: Duration::from_secs_f64(burst as f64 / per_second),
        patience: Duration::from_secs(4),
        ..Probe::default()
    };
    let outcome = probe(net, family, &shape)?;
    // From the first arrival to the last: what the queue still held counts with its time.
    let span = outcome.span().as_secs_f64();
    ensure!(span > 1.0, "the packets arrived within {span:.3} s: {}", outcome.describe());
    Ok((outcome.received() as f64 - 1.0) * wire / span / bytes)
}

fn tcp_gets_the_declared_bandwidth() -> Result<Done> {
    tcp(&bandwidth("20mbit", 1_000_000, 20_000), 20e6 / 8.0)
}

fn udp_gets_the_declared_bandwidth() -> Result<Done> {
    udp(&bandwidth("8mbit", 100_000, 10_000), 8e6 / 8.0)
}

/// tbf's meaning: `buffer` bytes pass at once, `limit` bytes wait, more is dropped.
fn a_burst_passes_at_once_and_the_rest_waits() -> Result<Done> {
    let summary = with_fault(&bandwidth("800kbit", 20_000, 10_500), |net, _| {
        let shape = Probe {
            size: 1000,
            burst: 50,
            patience: Duration::from_secs(1),
            ..Probe::of(50, Duration::from_millis(1))
        };
        let outcome = probe(net, Family::V4, &shape)?;
        let at_once = outcome.arrived().iter().filter(|d| **d < 5.0).count();
        ensure!((9..=11).contains(&at_once), "{at_once} of 50 packets passed at once, 10 should");
        ensure!(
            (26..=32).contains(&outcome.received()),
            "10 packets of burst and 19 of queue should arrive: {}",
            outcome.describe()
        );
        Ok(())
    })?;
    ensure!(summary.total("overlimit") > 0, "{}", summary.json());
    Ok(Done::Kept)
}

/// The bucket would let all of them pass at once; one packet fits the peak's.
fn a_burst_passes_no_faster_than_the_peak_rate() -> Result<Done> {
    let block = json!({
        "rate": "400kbit", "limit": 100_000, "buffer": 100_000,
        "peakrate": 125_000, "minburst": 1_100,
    });
    with_fault(&Manifest::new("bandwidth").with("bandwidth", block), |net, _| {
        for family in FAMILIES {
            // 1042 and 1062 bytes with headers: 8.336 and 8.496 ms at 125 000 bytes per second.
            let shape = Probe {
                size: 1000,
                burst: 20,
                patience: Duration::from_secs(1),
                ..Probe::of(20, Duration::from_millis(1))
            };
            let outcome = probe(net, family, &shape)?;
            let span = outcome.span().as_secs_f64() * 1e3;
            ensure!(
                outcome.lost() == 0 && (150.0..175.0).contains(&span),
                "{family:?}: 20 packets should take 158 ms, they took {span:.1}: {}",
                outcome.describe()
            );
        }
        Ok(())
    })?;
    Ok(Done::Kept)
}

/// Packets that wait belong to their socket, whose buffer fills: `send` waits, nothing is lost.
fn a_sender_that_is_too_fast_is_held_back() -> Result<Done> {
    // The delay line frees a packet's socket.
    if let Some(proof) = lacks("fq") {
        return Ok(Done::Cannot(proof));
    }
    let summary = with_fault(&rate("8mbit"), |net, _| {
        for family in FAMILIES {
            let time = Duration::from_secs(2);
            let Flooded { sent, received, bytes } =
                flood(&net.client.ns, &net.server.ns, net.server.ip(family), time)?;
            let headers = if family == Family::V4 { 42 } else { 62 };
            let wire = sent as f64 * (bytes + headers) as f64;
            // A rate for the time, and what a default send buffer holds.
            let most = 1e6 * time.as_secs_f64() + 300e3;
            ensure!(
                received == sent && wire < most && wire > most / 2.0,
                "{family:?}: {sent} packets were sent in {time:?} and {received} arrived"
            );
        }
        Ok(())
    })?;
    ensure!(summary.total("overlimit") == 0, "{}", summary.json());
    Ok(Done::Kept)
}

fn tcp_gets_the_declared_rate() -> Result<Done> {
    tcp(&rate("20mbit"), 20e6 / 8.0)
}

/// `bps` is bytes per second, as in tc.
fn udp_gets_the_declared_rate() -> Result<Done> {
    udp(&rate("125kbps"), 125e3)
}

/// As netem's `rate`: a packet leaves when its last byte has been sent.
fn a_packet_takes_its_time_on_the_link() -> Result<Done> {
    with_fault(&rate("100kbit"), |net, _| {
        let shape = Probe { size: 1208, ..Probe::of(10, Duration::from_millis(200)) };
        let outcome = probe(net, Family::V4, &shape)?;
        // 1250 bytes with headers at 12 500 bytes per second.
        let median = outcome.delay(0.5);
        ensure!(
            outcome.lost() == 0 && (99.9..108.0).contains(&median),
            "1250 bytes should take 100 ms: {}",
            outcome.describe()
        );
        Ok(())
    })?;
    Ok(Done::Kept)
}

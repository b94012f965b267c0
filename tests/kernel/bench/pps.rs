//! How many small packets a fault lets through.

use std::time::Duration;

use anyhow::Result;
use kfault_tests::manifest::Manifest;
use kfault_tests::net::Net;
use kfault_tests::stats::quantile;

use super::flood::packets_per_second;
use super::goal::{Findings, Goal};
use super::netem::{Medians, Netem};
use super::under_kfault;
use crate::faulty::warm_up;

const ROUNDS: usize = 5;
const TIME: Duration = Duration::from_secs(2);

pub fn run(found: &mut Findings) -> Result<()> {
    let net = Net::new()?;
    warm_up(&net)?;
    let measure = || packets_per_second(&net, TIME);
    let mut plain = Vec::new();
    // Up to a millisecond a packet stays with its socket; later it is replaced by a clone.
    for (latency, goal) in [("1ms", Goal::Ratio(0.95)), ("10ms", Goal::Told)] {
        let manifest = Manifest::delay(latency);
        let medians = Medians::of(
            ROUNDS,
            || {
                plain.push(measure()?);
                under_kfault(&net, &manifest, measure)
            },
            || {
                let _netem = Netem::add(&net.client.ns, &format!("delay {latency}"))?;
                measure()
            },
        )?;
        medians.tell(
            found,
            &format!("UDP packets under {}", latency.replace("ms", " ms")),
            "1/s",
            goal,
        );
    }
    // One that the rule does not match pays for the look.
    let elsewhere = Manifest::loss("50").to(&["192.0.2.0/24"]);
    let mut beside = Vec::new();
    for _ in 0..ROUNDS {
        beside.push(under_kfault(&net, &elsewhere, measure)?);
    }
    let peer = ("plain", quantile(&plain, 0.5));
    found.against("UDP packets, rule elsewhere", "1/s", quantile(&beside, 0.5), peer, Goal::Told);
    Ok(())
}

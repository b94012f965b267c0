//! How much TCP gets through a path that is long, or lossy.

use std::time::Duration;

use anyhow::Result;
use kfault_tests::manifest::Manifest;
use kfault_tests::net::Net;
use kfault_tests::probe::tcp::{PORT, Server, Service, throughput};

use super::goal::{Findings, Goal};
use super::netem::{Medians, Netem};
use super::under_kfault;

const ROUNDS: usize = 3;
const TIME: Duration = Duration::from_secs(5);
/// A connection under 50 ms needs this long to grow.
const SKIP: Duration = Duration::from_secs(2);

pub fn run(found: &mut Findings) -> Result<()> {
    let net = Net::new()?;
    let server = Server::start(&net.server.ns, net.server.v4.into(), PORT, Service::Discard)?;
    let measure = || {
        let (bytes, _) = throughput(&net.client.ns, &server, TIME, SKIP)?;
        Ok(bytes * 8.0 / 1e6)
    };
    let cases = [
        ("TCP under 50 ms", Manifest::delay("50ms"), "delay 50ms", Goal::Ratio(1.0)),
        ("TCP under 1 % loss", Manifest::loss("1"), "loss 1%", Goal::Between(0.9, 1.1)),
    ];
    for (figure, manifest, words, goal) in cases {
        Medians::of(
            ROUNDS,
            || under_kfault(&net, &manifest, measure),
            || {
                let _netem = Netem::add(&net.client.ns, words)?;
                measure()
            },
        )?
        .tell(found, figure, "Mbit/s", goal);
    }
    found.ours("TCP without a fault", "Mbit/s", measure()?, Goal::Told);
    Ok(())
}

//! How many queries are answered: in the kernel, and by a server that says the same.

use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kfault_tests::clock::wait_for;
use kfault_tests::manifest::Manifest;
use kfault_tests::net::{Family, Net};
use kfault_tests::probe::dns::{Query, ask};
use kfault_tests::probe::dns_load::answers_per_second;
use kfault_tests::stats::quantile;
use serde_json::json;

use super::goal::{Findings, Goal};
use super::under_kfault;

const ROUNDS: usize = 5;
const TIME: Duration = Duration::from_secs(1);
const NAME: &str = "google.com";
const GOAL: Goal = Goal::Ratio(3.0);

/// A server of the distribution's, with one name.
struct Dnsmasq(Child);

impl Dnsmasq {
    fn start(net: &Net) -> Result<Self> {
        let ip = net.server.ip(Family::V4);
        let child = net
            .server
            .ns
            .command("dnsmasq")
            .args(["--keep-in-foreground", "--no-resolv", "--no-hosts", "--conf-file=/dev/null"])
            .args(["--user=root", "--pid-file=", "--port=53", "--bind-interfaces"])
            .arg(format!("--listen-address={ip}"))
            .arg(format!("--address=/{NAME}/198.18.0.1"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("start dnsmasq")?;
        let server = Self(child);
        let answers = || {
            let wait = Duration::from_millis(100);
            ask(&net.near.ns, ip, &Query::a(NAME), wait).is_ok_and(|answer| answer.is_some())
        };
        ensure!(wait_for(Duration::from_secs(5), answers), "dnsmasq does not answer");
        Ok(server)
    }
}

impl Drop for Dnsmasq {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub fn run(found: &mut Findings) -> Result<()> {
    let net = Net::new()?;
    let server = Dnsmasq::start(&net);
    let ip = net.server.ip(Family::V4);
    let manifest = Manifest::dns("random", &[NAME]).with("kfault", json!({"ttl": 10}));
    for (figure, in_flight) in
        [("answers, one at a time", 1), ("answers, 32 asked for at once", 32)]
    {
        let measure = || answers_per_second(&net.client.ns, ip, NAME, in_flight, TIME);
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            ours.push(under_kfault(&net, &manifest, measure)?);
            if server.is_ok() {
                theirs.push(measure()?);
            }
        }
        let ours = quantile(&ours, 0.5);
        match &server {
            Ok(_) => {
                let peer = ("dnsmasq", quantile(&theirs, 0.5));
                found.against(figure, "1/s", ours, peer, GOAL);
            }
            Err(error) => {
                found.not_measured(figure, "1/s", Some(ours), GOAL, &format!("{error:#}"));
            }
        }
    }
    Ok(())
}

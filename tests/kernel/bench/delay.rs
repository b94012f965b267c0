//! How far from the declared delay a packet arrives. The path's own time is part of both sides.

use std::time::Duration;

use anyhow::{Result, ensure};
use kfault_tests::manifest::Manifest;
use kfault_tests::net::{Family, Net};
use kfault_tests::probe::udp::{Outcome, Probe};

use super::goal::{Findings, Goal};
use super::netem::{self, Netem};
use super::under_kfault;
use crate::faulty::{probe, warm_up};

const TARGETS_MS: [f64; 5] = [0.5, 1.0, 10.0, 100.0, 500.0];
const PACKETS: usize = 400;
/// No target is a multiple of it: a packet that leaves its delay must not meet one that starts.
const EVERY: Duration = Duration::from_micros(5300);
/// To 10 µs, the slack of a timer that nobody calls late.
const GOAL: Goal = Goal::NotAbovePeer(0.01);

pub fn run(found: &mut Findings) -> Result<()> {
    let net = Net::new()?;
    warm_up(&net)?;
    let refused = netem::refusal()?;
    let plain = measure(&net, 0.0)?;
    for target in TARGETS_MS {
        let us = target * 1e3;
        let ours =
            under_kfault(&net, &Manifest::delay(&format!("{us}us")), || measure(&net, target))?;
        let theirs = match &refused {
            Some(_) => None,
            None => {
                let _netem = Netem::add(&net.client.ns, &format!("delay {us}us"))?;
                Some(measure(&net, target)?)
            }
        };
        for (name, q) in [("p50", 0.5), ("p99", 0.99)] {
            let figure = format!("error {name} at {target} ms");
            let error = |outcome: &Outcome| outcome.delay(q) - target;
            match (&theirs, &refused) {
                (Some(theirs), _) => {
                    let peer = ("netem", error(theirs));
                    found.against(figure, "ms", error(&ours), peer, GOAL);
                }
                (None, why) => {
                    let why = why.as_deref().unwrap_or_default();
                    found.not_measured(figure, "ms", Some(error(&ours)), GOAL, why);
                }
            }
        }
    }
    found.ours("p50 without a fault", "ms", plain.delay(0.5), Goal::Told);
    found.ours("p99 without a fault", "ms", plain.delay(0.99), Goal::Told);
    Ok(())
}

fn measure(net: &Net, target_ms: f64) -> Result<Outcome> {
    let shape = Probe::of(PACKETS, EVERY).patient(Duration::from_secs_f64(target_ms * 1.2 / 1e3));
    let outcome = probe(net, Family::V4, &shape)?;
    ensure!(
        outcome.lost() == 0 && outcome.delay(0.0) >= target_ms,
        "{target_ms} ms: {}",
        outcome.describe()
    );
    Ok(outcome)
}

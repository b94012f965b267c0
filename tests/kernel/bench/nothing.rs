//! A host with nothing injected carries nothing of kfault: before a run, after it, and while an
//! engine waits for work.

use std::time::Duration;

use anyhow::{Result, ensure};
use kfault_tests::bpf::{held_by, held_by_us};
use kfault_tests::clock::wait_for;
use kfault_tests::manifest::Manifest;
use kfault_tests::net::Net;
use kfault_tests::snapshot::Snapshot;

use super::goal::{Findings, Goal};
use super::targets;
use crate::faulty::{on_client, warm_up};

pub fn run(found: &mut Findings) -> Result<()> {
    let net = Net::new()?;
    warm_up(&net)?;
    // The kernel tells a moment later that the new devices have a carrier.
    let mut before = Snapshot::of(&net)?;
    wait_for(Duration::from_secs(10), || {
        std::thread::sleep(Duration::from_secs(2));
        Snapshot::of(&net).is_ok_and(|now| std::mem::replace(&mut before, now.clone()) == now)
    });
    let ours = ["kfault", "tc_egress", "tc_ingress", " clsact", "tcx of eth0: [["]
        .into_iter()
        .filter(|word| before.has(&[word]))
        .count();
    found.ours("hooks and queues before a run", "pieces", ours as f64, Goal::AtMost(0.0));

    let engine = targets::engine()?;
    let idle = held_by_us().links.len() + changes(&before, &Snapshot::of(&net)?);
    drop(engine);
    let figure = "hooks and queues while the engine has no work";
    found.ours(figure, "pieces", idle as f64, Goal::AtMost(0.0));

    let kfault = on_client(&net, &Manifest::delay("10ms"))?.start()?;
    let held = held_by(&kfault.pid().to_string());
    let during = changes(&before, &Snapshot::of(&net)?);
    ensure!(held.count() > 0 && during > 0, "a run that acts must be seen: {held:?}");
    kfault.stop()?;
    // The kernel frees programs a moment after their last user.
    wait_for(Duration::from_secs(5), || held.still_there().count() == 0);
    let left = held.still_there().count() + changes(&before, &Snapshot::of(&net)?);
    found.ours("hooks and queues after a run", "pieces", left as f64, Goal::AtMost(0.0));
    found.ours("the same during the run", "pieces", (held.count() + during) as f64, Goal::Told);
    Ok(())
}

/// Facts of the host that came or went. Said, so that a missed goal can be followed up.
fn changes(before: &Snapshot, after: &Snapshot) -> usize {
    let difference = before.difference(after);
    eprint!("{difference}");
    difference.lines().count()
}

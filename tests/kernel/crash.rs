//! What is left when kfault dies, hangs, or loses what it works on: nothing that acts, and after
//! `sweep` nothing at all.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use chaos_user::engine::{Engine, Options, fault_points};
use chaos_user::plan::Peers;
use kfault_tests::clock::wait_for;
use kfault_tests::kfault::{LEASE, command};
use kfault_tests::manifest::Manifest;
use kfault_tests::net::{DEVICE, Family, Net};
use kfault_tests::probe::udp::Probe;
use kfault_tests::snapshot::Snapshot;
use serde_json::json;

use crate::bench::targets;
use crate::faulty::{Neighbour, is_over, on_client, probe, warm_up};
use crate::harness::{Done, Test, tests};

pub fn tests() -> Vec<Test> {
    let mut all: Vec<Test> =
        tests!("crash": a_stopped_kfault_loses_its_lease).into_iter().map(Test::smoke).collect();
    all.extend(tests!("crash":
        killed_at_any_point_nothing_stays,
        a_namespace_that_vanishes_ends_its_own_fault_only,
        a_device_that_comes_back_is_left_alone,
        a_full_map_is_refused_and_nothing_is_left,
    ));
    all
}

const LATENCY_MS: u64 = 100;

/// Loss and delay towards more peers than fit beside the rule: with it every action is reached,
/// the last ones during recovery.
fn rich() -> Manifest {
    let mut peers = vec!["10.77.2.2".to_owned()];
    peers.extend((0..6).map(|i| format!("172.16.{i}.0/24")));
    Manifest::delay(&format!("{LATENCY_MS}ms")).with("loss", json!({"loss": "50"})).to(&peers)
}

fn killed_at_any_point_nothing_stays() -> Result<Done> {
    let net = Net::new()?;
    warm_up(&net)?;
    let before = Snapshot::of(&net)?;
    let neighbour = Neighbour::start(&net)?;
    for point in fault_points() {
        for stage in ["before", "after"] {
            killed_at(&net, &before, &point, stage)
                .with_context(|| format!("killed {stage} {point}"))?;
        }
    }
    neighbour.ensure_unharmed()?;
    Ok(Done::Kept)
}

fn killed_at(net: &Net, before: &Snapshot, point: &str, stage: &str) -> Result<()> {
    let mut kfault = on_client(net, &rich())?.crashing(point, stage).spawn()?;
    // What applying does not reach, recovering does.
    if kfault.event("applied").is_ok() {
        kfault.signal(libc::SIGINT)?;
    }
    let ended = kfault.end()?;
    ensure!(
        ended.status.signal() == Some(libc::SIGKILL),
        "no manifest reaches this point: kfault ended with {}: {}",
        ended.status,
        ended.errors
    );
    let patience = LEASE + Duration::from_millis(LATENCY_MS) + Duration::from_secs(2);
    ensure!(wait_for(patience, || passes(net)), "a fault still acts after {patience:?}");
    command(&["sweep"], 0)?;
    is_over(net, before, "after the sweep")
}

/// Whether some packets in a row pass at once.
fn passes(net: &Net) -> bool {
    let shape = Probe::of(10, Duration::from_millis(2));
    probe(net, Family::V4, &shape)
        .is_ok_and(|outcome| outcome.lost() == 0 && outcome.delay(0.5) < LATENCY_MS as f64 / 2.0)
}

fn a_stopped_kfault_loses_its_lease() -> Result<Done> {
    let net = Net::new()?;
    warm_up(&net)?;
    let before = Snapshot::of(&net)?;
    let neighbour = Neighbour::start(&net)?;
    let kfault = on_client(&net, &Manifest::loss("100"))?.start()?;
    ensure!(!passes(&net), "the fault does not act");
    kfault.signal(libc::SIGSTOP)?;
    let start = Instant::now();
    let over = wait_for(LEASE + Duration::from_secs(3), || passes(&net));
    let took = start.elapsed();
    ensure!(over, "the fault still acts {took:?} after kfault was stopped");
    // It had been renewed a second before, at most.
    ensure!(took > LEASE / 2, "the fault was over after {took:?}: too early for the lease");
    kfault.signal(libc::SIGCONT)?;
    ensure!(
        wait_for(Duration::from_secs(5), || !passes(&net)),
        "a kfault that goes on does not renew its lease"
    );
    kfault.stop()?;
    neighbour.ensure_unharmed()?;
    is_over(&net, &before, "after recovery")?;
    Ok(Done::Kept)
}

fn a_namespace_that_vanishes_ends_its_own_fault_only() -> Result<Done> {
    let mut net = Net::new()?;
    warm_up(&net)?;
    let run = on_client(&net, &Manifest::loss("100"))?.target(&net.near.ns.word());
    let mut kfault = run.start()?;
    // What a runtime does when a pod goes: the device first, then the namespace.
    net.near.ns.batch(&[&format!("link del {DEVICE}")])?;
    net.near.ns.remove()?;
    let near = net.near.ns.word();
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        let event = kfault.event("counters")?;
        let rules = event["rules"].as_array().cloned().unwrap_or_default();
        let gone: Vec<bool> = rules
            .iter()
            .filter(|rule| rule["targetGone"] == true)
            .map(|rule| rule["target"] == near.as_str())
            .collect();
        if gone == [true] {
            break;
        }
        if Instant::now() > end {
            bail!("nobody says that {near} has gone: {event}");
        }
    }
    ensure!(!passes(&net), "the other target's fault has ended with it");
    kfault.stop()?;
    ensure!(wait_for(Duration::from_secs(2), || passes(&net)), "the fault outlives the run");
    let swept = command(&["sweep", "--output", "json"], 0)?;
    ensure!(swept.trim() == "{\"removed\":[]}", "after the run there was still {swept}");
    Ok(Done::Kept)
}

fn a_device_that_comes_back_is_left_alone() -> Result<Done> {
    let net = Net::new()?;
    warm_up(&net)?;
    let kfault = on_client(&net, &rich())?.start()?;
    ensure!(!passes(&net), "the fault does not act");
    net.client.ns.batch(&[&format!("link del {DEVICE}")])?;
    net.reconnect(&net.client)?;
    let before = Snapshot::of(&net)?;
    ensure!(wait_for(Duration::from_secs(5), || passes(&net)), "the new device is faulted");
    kfault.stop()?;
    // A delay line stands beside the device and goes with the run; nothing else may change.
    let difference = before.difference(&Snapshot::of(&net)?);
    let ours = |line: &str| line.starts_with("- ") && line.contains("kfault");
    ensure!(difference.lines().all(ours), "the new device has changed:\n{difference}");
    ensure!(passes(&net), "the new device is faulted after recovery");
    Ok(Done::Kept)
}

fn a_full_map_is_refused_and_nothing_is_left() -> Result<Done> {
    let net = Net::new()?;
    warm_up(&net)?;
    let before = Snapshot::of(&net)?;
    let limits = vec![("PEERS4".to_owned(), 3)];
    let mut engine = Engine::open(&Options { map_limits: limits, ..Options::default() })?;
    let device = targets::device(&net.client.ns, DEVICE)?;
    let prefixes = (0..6).map(|i| format!("172.16.{i}.0/24"));
    let plan = targets::plan(vec![targets::rule(
        &device,
        targets::loss(1.0),
        Peers {
            prefixes: prefixes.map(|p| targets::prefix(&p)).collect::<Result<_>>()?,
            ..Peers::default()
        },
    )]);
    let error = match engine.apply(&plan, &BTreeMap::new()) {
        Ok(()) => bail!("six prefixes fit a map of three"),
        Err(error) => format!("{:#}", anyhow::Error::from(error)),
    };
    ensure!(error.contains("full"), "the message should say that a map is full: {error}");
    is_over(&net, &before, "after a refusal")?;
    // The engine is as good as before.
    let everyone = targets::rule(&device, targets::loss(1.0), Peers::default());
    engine.apply(&targets::plan(vec![everyone]), &BTreeMap::new())?;
    ensure!(!passes(&net), "the engine does nothing any more");
    engine.recover(&|| false)?;
    is_over(&net, &before, "after recovery")?;
    Ok(Done::Kept)
}

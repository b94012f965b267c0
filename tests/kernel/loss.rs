//! Loss: silent, and the share that was asked for.

use std::time::Duration;

use anyhow::{Result, ensure};
use kfault_tests::manifest::Manifest;
use kfault_tests::net::FAMILIES;
use kfault_tests::probe::ping::ping;
use kfault_tests::probe::tcp::{PORT, Server, Service, throughput};
use kfault_tests::probe::udp::Probe;
use kfault_tests::stats::{is_likely, is_likely_with_memory, lag1};
use serde_json::json;

use crate::faulty::{probe, with_fault};
use crate::harness::{Done, Test, tests};

pub fn tests() -> Vec<Test> {
    let mut all: Vec<Test> = tests!("loss": a_tenth_is_lost_and_the_sender_is_not_told)
        .into_iter()
        .map(Test::smoke)
        .collect();
    all.extend(tests!("loss":
        a_small_share_is_exact,
        everything_is_lost_at_hundred_percent,
        ping_sees_the_loss,
        tcp_sees_a_loss_and_sends_again,
        correlated_losses_come_in_runs_and_keep_their_share,
        what_arrives_is_lost_with_ingress,
    ));
    all
}

/// Loses `percent` of many packets of both families; the counters say what the probe saw.
fn share(percent: &str, p: f64, count: usize) -> Result<Done> {
    let mut lost = 0;
    let mut sent = 0;
    let manifest = Manifest::loss(percent).to(&["10.77.2.2:7777", "[fd00:77:2::2]:7777"]);
    let summary = with_fault(&manifest, |net, _| {
        for family in FAMILIES {
            let outcome = probe(net, family, &Probe::many(count))?;
            ensure!(
                outcome.errors.is_empty() && outcome.sent == count,
                "the sender was told: {}",
                outcome.describe()
            );
            ensure!(
                is_likely(outcome.lost() as u64, count as u64, p),
                "{percent} % of {count} should be lost: {}",
                outcome.describe()
            );
            ensure!(
                outcome.duplicates() + outcome.wrong + outcome.reordered == 0,
                "{}",
                outcome.describe()
            );
            lost += outcome.lost() as u64;
            sent += outcome.sent as u64;
        }
        Ok(())
    })?;
    for (counter, seen) in [("matched", sent), ("injected", lost), ("lost", lost)] {
        ensure!(
            summary.total(counter) == seen,
            "the probe saw {seen} {counter}: {}",
            summary.json()
        );
    }
    Ok(Done::Kept)
}

fn a_tenth_is_lost_and_the_sender_is_not_told() -> Result<Done> {
    share("10", 0.1, 10_000)
}

fn a_small_share_is_exact() -> Result<Done> {
    share("0.7", 0.007, 50_000)
}

fn everything_is_lost_at_hundred_percent() -> Result<Done> {
    share("100", 1.0, 2000)
}

fn ping_sees_the_loss() -> Result<Done> {
    with_fault(&Manifest::loss("30"), |net, _| {
        for family in FAMILIES {
            let wait = Duration::from_millis(200);
            let pings =
                ping(&net.client.ns, net.server.ip(family), 500, Duration::from_millis(2), wait)?;
            ensure!(
                pings.errors.is_empty() && is_likely(pings.lost() as u64, 500, 0.3),
                "{family:?}: {} of 500 pings lost, errors {:?}",
                pings.lost(),
                pings.errors
            );
        }
        Ok(())
    })?;
    Ok(Done::Kept)
}

fn tcp_sees_a_loss_and_sends_again() -> Result<Done> {
    let summary = with_fault(&Manifest::loss("2"), |net, _| {
        for family in FAMILIES {
            let port = PORT + if family == FAMILIES[0] { 0 } else { 1 };
            let server = Server::start(&net.server.ns, net.server.ip(family), port, Service::Sink)?;
            let (rate, again) = throughput(
                &net.client.ns,
                &server,
                Duration::from_secs(3),
                Duration::from_millis(500),
            )?;
            ensure!(rate > 0.0, "nothing got through");
            ensure!(again > 0, "no segment was sent again ({family:?})");
            ensure!(server.wrong() == 0, "{} bytes arrived changed", server.wrong());
        }
        Ok(())
    })?;
    ensure!(summary.total("lost") > 0, "{}", summary.json());
    Ok(Done::Kept)
}

fn correlated_losses_come_in_runs_and_keep_their_share() -> Result<Done> {
    let block = json!({"loss": "20", "correlation": "50"});
    with_fault(&Manifest::new("loss").with("loss", block), |net, _| {
        for family in FAMILIES {
            let shape = Probe { pinned: true, ..Probe::many(20_000) };
            let outcome = probe(net, family, &shape)?;
            let r = lag1(&outcome.losses());
            ensure!((0.44..0.56).contains(&r), "lag-1 autocorrelation {r:.3} and not 0.5");
            ensure!(
                is_likely_with_memory(outcome.lost() as u64, 20_000, 0.2, 0.5),
                "a fifth should be lost: {}",
                outcome.describe()
            );
        }
        Ok(())
    })?;
    Ok(Done::Kept)
}

/// `spec.kfault.ingress`: what the target receives.
fn what_arrives_is_lost_with_ingress() -> Result<Done> {
    let manifest = Manifest::loss("30")
        .with("direction", json!("from"))
        .with("kfault", json!({"ingress": true}));
    let summary = with_fault(&manifest, |net, _| {
        for family in FAMILIES {
            let count = 5000;
            let back = kfault_tests::probe::udp::run(
                &net.server.ns,
                &net.client.ns,
                net.client.ip(family),
                &Probe::many(count),
            )?;
            ensure!(
                back.errors.is_empty() && is_likely(back.lost() as u64, count as u64, 0.3),
                "30 % of what arrives should be lost ({family:?}): {}",
                back.describe()
            );
            let there = probe(net, family, &Probe::many(1000))?;
            ensure!(there.lost() == 0, "what leaves is lost too: {}", there.describe());
        }
        Ok(())
    })?;
    ensure!(summary.total("lost") > 0, "{}", summary.json());
    Ok(Done::Kept)
}

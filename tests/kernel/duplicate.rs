//! Duplicates.

use anyhow::{Result, ensure};
use kfault_tests::manifest::Manifest;
use kfault_tests::net::FAMILIES;
use kfault_tests::probe::tcp::{PORT, Server, Service, throughput};
use kfault_tests::probe::udp::Probe;
use kfault_tests::stats::{is_likely, is_likely_with_memory, lag1};
use serde_json::json;

use crate::faulty::{probe, with_fault};
use crate::harness::{Done, Test, tests};

pub fn tests() -> Vec<Test> {
    let mut all: Vec<Test> =
        tests!("duplicate": a_share_arrives_twice).into_iter().map(Test::smoke).collect();
    all.extend(tests!("duplicate":
        everything_arrives_twice_at_hundred_percent,
        delayed_copies_arrive_with_their_delay,
        correlated_copies_come_in_runs_and_keep_their_share,
        tcp_survives_copies,
    ));
    all
}

fn duplicating(percent: &str) -> Manifest {
    Manifest::new("duplicate").with("duplicate", json!({"duplicate": percent}))
}

fn share(percent: &str, p: f64, count: usize) -> Result<Done> {
    let manifest = duplicating(percent).to(&["10.77.2.2:7777", "[fd00:77:2::2]:7777"]);
    let mut copies = 0;
    let summary = with_fault(&manifest, |net, _| {
        for family in FAMILIES {
            let outcome = probe(net, family, &Probe::many(count))?;
            ensure!(
                outcome.errors.is_empty() && outcome.lost() == 0 && outcome.wrong == 0,
                "{}",
                outcome.describe()
            );
            ensure!(
                outcome.copies.iter().all(|copies| *copies <= 2),
                "a packet arrived more than twice"
            );
            ensure!(
                is_likely(outcome.duplicates() as u64, count as u64, p),
                "{percent} % of {count} should arrive twice: {}",
                outcome.describe()
            );
            copies += outcome.duplicates() as u64;
        }
        Ok(())
    })?;
    ensure!(
        summary.total("duplicated") == copies && summary.total("matched") == 2 * count as u64,
        "the probe saw {copies} copies of {} packets: {}",
        2 * count,
        summary.json()
    );
    Ok(Done::Kept)
}

fn a_share_arrives_twice() -> Result<Done> {
    share("5", 0.05, 20_000)
}

fn everything_arrives_twice_at_hundred_percent() -> Result<Done> {
    share("100", 1.0, 1000)
}

fn delayed_copies_arrive_with_their_delay() -> Result<Done> {
    let manifest = duplicating("100").with("delay", json!({"latency": "50ms"}));
    with_fault(&manifest, |net, _| {
        for family in FAMILIES {
            let outcome = probe(net, family, &Probe::many(200))?;
            ensure!(
                outcome.lost() == 0 && outcome.duplicates() == 200 && outcome.delay(0.0) >= 50.0,
                "{}",
                outcome.describe()
            );
        }
        Ok(())
    })?;
    Ok(Done::Kept)
}

fn correlated_copies_come_in_runs_and_keep_their_share() -> Result<Done> {
    let block = json!({"duplicate": "20", "correlation": "50"});
    with_fault(&Manifest::new("duplicate").with("duplicate", block), |net, _| {
        for family in FAMILIES {
            let shape = Probe { pinned: true, ..Probe::many(20_000) };
            let outcome = probe(net, family, &shape)?;
            let twice: Vec<f64> = outcome.copies.iter().map(|n| f64::from(*n > 1)).collect();
            let r = lag1(&twice);
            ensure!((0.44..0.56).contains(&r), "lag-1 autocorrelation {r:.3} and not 0.5");
            ensure!(
                outcome.lost() == 0
                    && is_likely_with_memory(outcome.duplicates() as u64, 20_000, 0.2, 0.5),
                "a fifth should arrive twice ({family:?}): {}",
                outcome.describe()
            );
        }
        Ok(())
    })?;
    Ok(Done::Kept)
}

fn tcp_survives_copies() -> Result<Done> {
    with_fault(&duplicating("30"), |net, _| {
        let server = Server::start(&net.server.ns, net.server.v4.into(), PORT, Service::Sink)?;
        let second = std::time::Duration::from_secs(1);
        let (rate, _) = throughput(&net.client.ns, &server, 2 * second, second / 2)?;
        ensure!(rate * 8.0 > 1e6, "TCP ran at {:.3} Mbit/s", rate * 8.0 / 1e6);
        ensure!(server.wrong() == 0, "{} bytes arrived changed", server.wrong());
        Ok(())
    })?;
    Ok(Done::Kept)
}

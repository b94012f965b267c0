//! Delay, jitter, reordering.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use kfault_tests::clock::wait_for;
use kfault_tests::manifest::Manifest;
use kfault_tests::net::{FAMILIES, Family, Net};
use kfault_tests::probe::tcp::{Client, PORT, Server, Service, throughput};
use kfault_tests::probe::udp::{Outcome, Probe};
use kfault_tests::snapshot::Snapshot;
use kfault_tests::stats::{deviation, is_likely, is_likely_with_memory, lag1, mean};
use serde_json::json;

use crate::faulty::{ensure_delay, ensure_unharmed, is_over, on_client, probe, with_fault};
use crate::harness::{Done, Test, tests};

pub fn tests() -> Vec<Test> {
    let mut all: Vec<Test> = tests!("delay": ten_milliseconds_are_ten_milliseconds)
        .into_iter()
        .map(Test::smoke)
        .collect();
    all.extend(tests!("delay":
        half_a_millisecond_is_half_a_millisecond,
        hundred_milliseconds_are_hundred_milliseconds,
        half_a_second_is_half_a_second,
        a_minute_is_held_and_gone_after_recovery,
        what_is_held_for_a_minute_arrives_then,
        answers_are_not_delayed_a_second_time,
        a_delayed_tcp_flow_keeps_its_throughput,
        many_delayed_packets_all_arrive_in_order,
    ));
    all.extend(tests!("jitter": jitter_is_uniform_around_the_latency).into_iter().map(Test::smoke));
    all.extend(tests!("jitter": correlated_jitter_resembles_the_last_one));
    all.extend(tests!("reorder": every_gap_th_packet_overtakes).into_iter().map(Test::smoke));
    all.extend(tests!("reorder":
        a_share_of_candidates_overtakes,
        correlated_overtakers_come_in_runs_and_keep_their_share,
    ));
    all
}

/// A delay of `target_ms` on the client, measured with `probe_with`.
fn delay_of(text: &str, target_ms: f64, count: usize) -> Result<Done> {
    let patience = Duration::from_secs_f64(target_ms * 1.2 / 1e3);
    let shape = Probe::of(count, Duration::from_millis(5)).patient(patience);
    let summary = with_fault(&Manifest::delay(text), |net, _| {
        for family in FAMILIES {
            let outcome = probe(net, family, &shape)?;
            ensure_delay(&outcome, target_ms)?;
            is_complete(&outcome)?;
        }
        Ok(())
    })?;
    let sent = 2 * count as u64;
    ensure!(
        summary.total("delayed") >= sent && summary.total("injected") >= sent,
        "{sent} packets were sent: {}",
        summary.json()
    );
    Ok(Done::Kept)
}

/// Every packet once, whole and in order.
fn is_complete(outcome: &Outcome) -> Result<()> {
    ensure!(
        outcome.errors.is_empty()
            && outcome.lost() == 0
            && outcome.duplicates() == 0
            && outcome.wrong == 0
            && outcome.reordered == 0,
        "{}",
        outcome.describe()
    );
    Ok(())
}

fn half_a_millisecond_is_half_a_millisecond() -> Result<Done> {
    delay_of("0.5ms", 0.5, 200)
}

fn ten_milliseconds_are_ten_milliseconds() -> Result<Done> {
    delay_of("10ms", 10.0, 200)
}

fn hundred_milliseconds_are_hundred_milliseconds() -> Result<Done> {
    delay_of("100ms", 100.0, 100)
}

fn half_a_second_is_half_a_second() -> Result<Done> {
    delay_of("500ms", 500.0, 100)
}

/// Longer than the horizon of a default `fq`: nothing arrives early, and recovery does not
/// wait for a minute when it is told twice not to.
fn a_minute_is_held_and_gone_after_recovery() -> Result<Done> {
    let net = Net::new()?;
    let before = Snapshot::of(&net)?;
    let mut kfault = on_client(&net, &Manifest::delay("60s"))?.start()?;
    let shape = Probe::of(10, Duration::from_millis(5)).patient(Duration::from_secs(2));
    let outcome = probe(&net, Family::V4, &shape)?;
    ensure!(
        outcome.sent == 10 && outcome.received() == 0,
        "a packet that is held for a minute has arrived: {}",
        outcome.describe()
    );
    let counters = kfault.event("counters")?;
    ensure!(!counters["rules"].is_null(), "no counters: {counters}");
    // The first Ctrl-C ends the fault, the second one the wait for held packets.
    kfault.signal(libc::SIGINT)?;
    let start = Instant::now();
    ensure!(
        wait_for(Duration::from_secs(5), || {
            probe(&net, Family::V4, &Probe::of(3, Duration::from_millis(1)))
                .is_ok_and(|o| ensure_unharmed(&o, "the former target").is_ok())
        }),
        "5 s after the interruption new packets are still delayed"
    );
    let _ = kfault.stop_within(Duration::from_secs(20))?;
    ensure!(start.elapsed() < Duration::from_secs(30), "recovery took {:?}", start.elapsed());
    is_over(&net, &before, "after recovery")?;
    Ok(Done::Kept)
}

fn what_is_held_for_a_minute_arrives_then() -> Result<Done> {
    with_fault(&Manifest::delay("60s"), |net, _| {
        let shape = Probe::of(10, Duration::from_millis(5)).patient(Duration::from_secs(62));
        // Both families wait for the same minute.
        let outcomes = std::thread::scope(|scope| {
            let shape = &shape;
            let waiting = FAMILIES.map(|f| scope.spawn(move || probe(net, f, shape)));
            waiting.map(|thread| thread.join().map_err(|_| anyhow!("a probe panicked")))
        });
        for outcome in outcomes {
            let outcome = outcome??;
            ensure_delay(&outcome, 60_000.0)?;
            is_complete(&outcome)?;
        }
        Ok(())
    })?;
    Ok(Done::Kept)
}

/// Only what leaves the target is delayed: a round trip costs one delay.
fn answers_are_not_delayed_a_second_time() -> Result<Done> {
    with_fault(&Manifest::delay("40ms"), |net, _| {
        for family in FAMILIES {
            let server = Server::start(&net.server.ns, net.server.ip(family), PORT, Service::Echo)?;
            let patience = Duration::from_secs(5);
            // SYN is delayed, SYN-ACK is not.
            let (mut client, took) = Client::connect(&net.client.ns, server.address(), patience)?;
            let asked = client.ask()?;
            for (what, took) in [("connecting", took), ("asking", asked)] {
                let ms = took.as_secs_f64() * 1e3;
                ensure!((40.0..60.0).contains(&ms), "{what} took {ms:.1} ms ({family:?})");
            }
        }
        Ok(())
    })?;
    Ok(Done::Kept)
}

/// A delayed packet must let go of its socket, or TCP Small Queues stalls the flow to less than
/// 1 Mbit/s.
fn a_delayed_tcp_flow_keeps_its_throughput() -> Result<Done> {
    with_fault(&Manifest::delay("20ms"), |net, _| {
        let server = Server::start(&net.server.ns, net.server.v4.into(), PORT, Service::Sink)?;
        let (rate, _) =
            throughput(&net.client.ns, &server, Duration::from_secs(4), Duration::from_secs(1))?;
        let mbit = rate * 8.0 / 1e6;
        ensure!(mbit > 50.0, "TCP under 20 ms ran at {mbit:.2} Mbit/s");
        ensure!(server.wrong() == 0, "{} bytes arrived changed", server.wrong());
        Ok(())
    })?;
    Ok(Done::Kept)
}

fn many_delayed_packets_all_arrive_in_order() -> Result<Done> {
    with_fault(&Manifest::delay("200ms"), |net, _| {
        for family in FAMILIES {
            let shape = Probe::many(5000).patient(Duration::from_millis(500));
            is_complete(&probe(net, family, &shape)?)?;
        }
        Ok(())
    })?;
    Ok(Done::Kept)
}

fn jittery(latency: &str, jitter: &str, correlation: &str) -> Manifest {
    Manifest::new("delay")
        .with("delay", json!({"latency": latency, "jitter": jitter, "correlation": correlation}))
}

/// Delays of packets that are too far apart to wait for each other.
fn delays(manifest: &Manifest, check: impl Fn(&[f64]) -> Result<()>) -> Result<Done> {
    with_fault(manifest, |net, _| {
        for family in FAMILIES {
            let shape = Probe { pinned: true, ..Probe::of(1000, Duration::from_millis(3)) }
                .patient(Duration::from_millis(200));
            let outcome = probe(net, family, &shape)?;
            ensure!(outcome.lost() == 0 && outcome.duplicates() == 0, "{}", outcome.describe());
            check(&outcome.arrived()).with_context(|| format!("{family:?}"))?;
        }
        Ok(())
    })?;
    Ok(Done::Kept)
}

fn jitter_is_uniform_around_the_latency() -> Result<Done> {
    delays(&jittery("30ms", "20ms", "0"), is_uniform)
}

fn is_uniform(delays: &[f64]) -> Result<()> {
    let (mean, sd) = (mean(delays), deviation(delays));
    let least = delays.iter().copied().fold(f64::MAX, f64::min);
    let late = delays.iter().filter(|d| **d > 53.0).count();
    // A uniform distribution of half-width 20 has a deviation of 20/√3 = 11.55; the mean of 1000
    // of them has one of 0.37.
    ensure!((28.6..32.5).contains(&mean), "mean {mean:.2} ms and not 30");
    ensure!((10.8..12.8).contains(&sd), "deviation {sd:.2} ms and not 11.55");
    ensure!(least >= 10.0, "a packet left after {least:.2} ms, the least is 10");
    ensure!(late < 20, "{late} of 1000 packets took longer than 53 ms, the most is 50");
    for (low, high) in [(10.0, 20.0), (20.0, 30.0), (30.0, 40.0), (40.0, 53.0)] {
        let inside = delays.iter().filter(|d| (low..high).contains(*d)).count() as u64;
        let share = inside as f64 / delays.len() as f64;
        ensure!(
            (0.19..0.31).contains(&share),
            "{inside} of 1000 delays lie between {low} and {high} ms, a quarter should"
        );
    }
    Ok(())
}

fn correlated_jitter_resembles_the_last_one() -> Result<Done> {
    delays(&jittery("30ms", "20ms", "60"), |delays| {
        let (mean, r) = (mean(delays), lag1(delays));
        ensure!((0.45..0.72).contains(&r), "lag-1 autocorrelation {r:.3} and not 0.6");
        ensure!((27.0..34.0).contains(&mean), "mean {mean:.2} ms and not 30");
        Ok(())
    })
}

fn reordering(share: &str, gap: u32, correlation: &str) -> Manifest {
    let reorder = json!({"reorder": share, "gap": gap, "correlation": correlation});
    Manifest::new("delay").with("delay", json!({"latency": "30ms", "reorder": reorder}))
}

/// Packets that left at once, of those that arrived.
fn overtakers(outcome: &Outcome) -> Vec<usize> {
    let early =
        |(number, delay): (usize, &Option<f64>)| delay.filter(|d| *d < 15.0).map(|_| number);
    outcome.delays.iter().enumerate().filter_map(early).collect()
}

/// As netem: with gap 5 and 100 % four packets are delayed and the fifth leaves at once.
fn every_gap_th_packet_overtakes() -> Result<Done> {
    let summary = with_fault(&reordering("100", 5, "0"), |net, _| {
        for family in FAMILIES {
            let shape = Probe { pinned: true, ..Probe::of(200, Duration::from_millis(4)) };
            let outcome = probe(net, family, &shape)?;
            ensure!(outcome.lost() == 0 && outcome.duplicates() == 0, "{}", outcome.describe());
            let early = overtakers(&outcome);
            ensure!(
                (38..=41).contains(&early.len()),
                "{} of 200 overtook, every fifth should ({family:?})",
                early.len()
            );
            let steps: Vec<usize> = early.windows(2).map(|w| w[1] - w[0]).collect();
            let fives = steps.iter().filter(|step| **step == 5).count();
            ensure!(fives + 4 >= steps.len(), "overtakers are not five apart: {steps:?}");
            ensure!(outcome.reordered > 0, "nothing was reordered: {}", outcome.describe());
        }
        Ok(())
    })?;
    ensure!(summary.total("reordered") >= 76, "{}", summary.json());
    Ok(Done::Kept)
}

fn a_share_of_candidates_overtakes() -> Result<Done> {
    with_fault(&reordering("25", 1, "0"), |net, _| {
        for family in FAMILIES {
            let outcome = probe(net, family, &Probe::of(800, Duration::from_millis(4)))?;
            ensure!(outcome.lost() == 0, "{}", outcome.describe());
            let early = overtakers(&outcome).len() as u64;
            ensure!(is_likely(early, 800, 0.25), "{early} of 800 overtook, a quarter should");
        }
        Ok(())
    })?;
    Ok(Done::Kept)
}

fn correlated_overtakers_come_in_runs_and_keep_their_share() -> Result<Done> {
    with_fault(&reordering("50", 1, "60"), |net, _| {
        for family in FAMILIES {
            let count = 1500;
            let shape = Probe { pinned: true, ..Probe::of(count, Duration::from_millis(2)) };
            let outcome = probe(net, family, &shape)?;
            ensure!(outcome.lost() == 0, "{}", outcome.describe());
            let mut early = vec![0.0; count];
            overtakers(&outcome).into_iter().for_each(|number| early[number] = 1.0);
            let (r, hits) = (lag1(&early), early.iter().sum::<f64>() as u64);
            ensure!((0.5..0.7).contains(&r), "lag-1 autocorrelation {r:.3} and not 0.6");
            ensure!(
                is_likely_with_memory(hits, count as u64, 0.5, 0.6),
                "{hits} of {count} overtook, half should ({family:?})"
            );
        }
        Ok(())
    })?;
    Ok(Done::Kept)
}

//! Corruption: on the wire (the receiver's stack discards it) or in the payload (delivered).

use anyhow::{Result, ensure};
use kfault_tests::manifest::Manifest;
use kfault_tests::net::FAMILIES;
use kfault_tests::probe::udp::Probe;
use kfault_tests::stats::{is_likely, is_likely_with_memory, lag1};
use serde_json::json;

use crate::faulty::{probe, with_fault};
use crate::harness::{Done, Test, tests};

pub fn tests() -> Vec<Test> {
    let mut all: Vec<Test> = tests!("corrupt":
        corrupted_on_the_wire_is_never_delivered,
        corrupted_payload_is_delivered_with_a_flipped_bit,
    )
    .into_iter()
    .map(Test::smoke)
    .collect();
    all.extend(tests!("corrupt": correlated_damage_comes_in_runs_and_keeps_its_share));
    all
}

const COUNT: usize = 10_000;

fn corrupting(percent: &str) -> Manifest {
    Manifest::new("corrupt")
        .with("corrupt", json!({"corrupt": percent}))
        .to(&["10.77.2.2:7777", "[fd00:77:2::2]:7777"])
}

fn corrupted_on_the_wire_is_never_delivered() -> Result<Done> {
    let mut lost = 0;
    let summary = with_fault(&corrupting("8"), |net, _| {
        for family in FAMILIES {
            let outcome = probe(net, family, &Probe::many(COUNT))?;
            ensure!(
                outcome.errors.is_empty() && outcome.wrong == 0 && outcome.duplicates() == 0,
                "{}",
                outcome.describe()
            );
            ensure!(
                is_likely(outcome.lost() as u64, COUNT as u64, 0.08),
                "8 % should not arrive: {}",
                outcome.describe()
            );
            lost += outcome.lost() as u64;
        }
        Ok(())
    })?;
    ensure!(summary.total("corrupted") == lost, "{lost} did not arrive: {}", summary.json());
    Ok(Done::Kept)
}

fn corrupted_payload_is_delivered_with_a_flipped_bit() -> Result<Done> {
    let manifest = corrupting("8").with("kfault", json!({"corrupt": "payload"}));
    let mut wrong = 0;
    let summary = with_fault(&manifest, |net, _| {
        for family in FAMILIES {
            let outcome = probe(net, family, &Probe::many(COUNT))?;
            ensure!(
                outcome.errors.is_empty() && outcome.lost() == 0 && outcome.duplicates() == 0,
                "every packet should arrive ({family:?}): {}",
                outcome.describe()
            );
            ensure!(
                is_likely(outcome.wrong as u64, COUNT as u64, 0.08),
                "8 % should arrive changed: {}",
                outcome.describe()
            );
            wrong += outcome.wrong as u64;
        }
        Ok(())
    })?;
    ensure!(summary.total("corrupted") == wrong, "{wrong} arrived changed: {}", summary.json());
    Ok(Done::Kept)
}

fn correlated_damage_comes_in_runs_and_keeps_its_share() -> Result<Done> {
    let block = json!({"corrupt": "20", "correlation": "50"});
    with_fault(&Manifest::new("corrupt").with("corrupt", block), |net, _| {
        for family in FAMILIES {
            let shape = Probe { pinned: true, ..Probe::many(20_000) };
            let outcome = probe(net, family, &shape)?;
            let r = lag1(&outcome.losses());
            ensure!((0.44..0.56).contains(&r), "lag-1 autocorrelation {r:.3} and not 0.5");
            ensure!(
                is_likely_with_memory(outcome.lost() as u64, 20_000, 0.2, 0.5),
                "a fifth should not arrive ({family:?}): {}",
                outcome.describe()
            );
        }
        Ok(())
    })?;
    Ok(Done::Kept)
}

//! Corruption: on the wire (the receiver's stack discards it) or in the payload (delivered).

use anyhow::{Result, ensure};
use kfault_tests::manifest::Manifest;
use kfault_tests::net::FAMILIES;
use kfault_tests::probe::udp::Probe;
use kfault_tests::stats::is_likely;
use serde_json::json;

use crate::faulty::{probe, with_fault};
use crate::harness::{Done, Test, tests};

pub fn tests() -> Vec<Test> {
    tests!("corrupt":
        corrupted_on_the_wire_is_never_delivered,
        corrupted_payload_is_delivered_with_a_flipped_bit,
    )
    .into_iter()
    .map(Test::smoke)
    .collect()
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

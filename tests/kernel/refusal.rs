//! What is refused is refused whole, before anything is touched.

use anyhow::{Result, ensure};
use kfault_tests::bpf;
use kfault_tests::kfault::{Ended, Run};
use kfault_tests::manifest::Manifest;
use kfault_tests::net::Net;
use kfault_tests::snapshot::Snapshot;
use serde_json::json;

use crate::faulty::{is_over, on_client};
use crate::harness::{Done, Test, tests};

pub fn tests() -> Vec<Test> {
    let mut all: Vec<Test> = tests!("refusal": one_bad_manifest_refuses_the_good_ones_too)
        .into_iter()
        .map(Test::smoke)
        .collect();
    all.extend(tests!("refusal":
        what_this_version_cannot_do_is_said_and_not_ignored,
        a_protected_target_is_refused_by_name,
        a_peer_without_an_address_is_refused,
        a_target_that_matches_nothing_is_refused,
    ));
    all
}

/// Runs to an end with this code; nothing may have been touched.
fn refused(net: &Net, run: Run, code: i32, words: &[&str]) -> Result<Ended> {
    let before = Snapshot::of(net)?;
    let programs = bpf::programs();
    let ended = run.ends_with(code)?;
    for word in words {
        ensure!(ended.errors.contains(word), "{word:?} is not named: {}", ended.errors);
    }
    ensure!(
        ended.events.iter().all(|event| event["event"] != "applied"),
        "something was applied: {:?}",
        ended.events
    );
    ensure!(bpf::programs() <= programs, "programs were left behind");
    is_over(net, &before, "after a refusal")?;
    Ok(ended)
}

fn one_bad_manifest_refuses_the_good_ones_too() -> Result<Done> {
    let net = Net::new()?;
    let good = Manifest::loss("100").named("good");
    for (bad, field) in [
        (Manifest::delay("ten milliseconds"), "Latency"),
        (Manifest::delay("10ms").with("direction", json!("sideways")), "Direction"),
        (Manifest::new("explode"), "Action"),
    ] {
        let run = on_client(&net, &good)?.and(&bad.named("bad"))?;
        refused(&net, run, 2, &[field])?;
    }
    Ok(Done::Kept)
}

fn what_this_version_cannot_do_is_said_and_not_ignored() -> Result<Done> {
    let net = Net::new()?;
    let later = Manifest::loss("10").with("kfault", json!({"perPacket": true}));
    refused(&net, on_client(&net, &later)?, 3, &["not supported by this version"])?;
    Ok(Done::Kept)
}

fn a_protected_target_is_refused_by_name() -> Result<Done> {
    let net = Net::new()?;
    let run = Run::of(&Manifest::loss("100"))?.target("pid:1");
    refused(&net, run, 2, &["pid:1"])?;
    Ok(Done::Kept)
}

fn a_peer_without_an_address_is_refused() -> Result<Done> {
    let net = Net::new()?;
    let run = on_client(&net, &Manifest::loss("100").to(&["nobody.invalid"]))?;
    refused(&net, run, 2, &["nobody.invalid"])?;
    Ok(Done::Kept)
}

fn a_target_that_matches_nothing_is_refused() -> Result<Done> {
    let net = Net::new()?;
    let run = on_client(&net, &Manifest::loss("100"))?.target("netns:kft-nobody");
    refused(&net, run, 2, &["kft-nobody"])?;
    Ok(Done::Kept)
}

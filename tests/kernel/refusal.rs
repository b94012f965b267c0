//! What is refused is refused whole, before anything is touched.

use anyhow::{Context, Result, ensure};
use kfault_tests::bpf;
use kfault_tests::cgroup::Cgroup;
use kfault_tests::kfault::{Ended, Run};
use kfault_tests::manifest::Manifest;
use kfault_tests::net::{DEVICE, Net};
use kfault_tests::probe::process::Process;
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
        a_device_that_is_not_there_is_refused_and_those_that_are_there_are_named,
        a_kind_that_kfault_does_not_know_is_refused_and_not_skipped,
        a_cgroup_with_a_protected_process_is_refused_by_its_name,
        one_missing_target_refuses_the_others_too,
        what_the_kernel_side_cannot_hold_ends_with_1_and_leaves_nothing,
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

fn a_device_that_is_not_there_is_refused_and_those_that_are_there_are_named() -> Result<Done> {
    let net = Net::new()?;
    let manifest = Manifest::loss("100").with("device", json!("eth9"));
    refused(&net, on_client(&net, &manifest)?, 2, &["spec.device", "eth9", DEVICE])?;
    Ok(Done::Kept)
}

/// What a later version could serve ends with 3, what none will with 2.
fn a_kind_that_kfault_does_not_know_is_refused_and_not_skipped() -> Result<Done> {
    let net = Net::new()?;
    let good = Manifest::loss("100").named("good");
    for (version, kind, code) in [
        ("chaos-mesh.org/v1alpha1", "TimeChaos", 3),
        ("chaos-mesh.org/v1alpha1", "NoChaos", 2),
        ("litmuschaos.io/v1alpha1", "NetworkChaos", 2),
        ("apps/v1", "Deployment", 2),
    ] {
        let foreign = Manifest::loss("100").named("foreign").kind(version, kind);
        refused(&net, on_client(&net, &good)?.and(&foreign)?, code, &["default/foreign"])?;
    }
    Ok(Done::Kept)
}

fn a_cgroup_with_a_protected_process_is_refused_by_its_name() -> Result<Done> {
    let net = Net::new()?;
    let host = net.host()?;
    let cgroup = Cgroup::new("protected")?;
    let process = Process::start(&host.0.ns, Some(&cgroup))?;
    let comm = std::fs::read_to_string(format!("/proc/{}/comm", process.pid()))
        .context("the name of a process")?;
    let run = Run::of(&Manifest::loss("100"))?.target(&cgroup.word()).protect(comm.trim());
    refused(&net, run, 2, &[&cgroup.word(), comm.trim()])?;
    Ok(Done::Kept)
}

fn one_missing_target_refuses_the_others_too() -> Result<Done> {
    let net = Net::new()?;
    // Good ones on either side of it.
    let near = net.near.ns.word();
    let run = on_client(&net, &Manifest::loss("100"))?.target("pid:999999999").target(&near);
    refused(&net, run, 2, &["pid:999999999"])?;
    Ok(Done::Kept)
}

/// Exit 1: it was tried, and undone. Seventeen rules on one hook point.
fn what_the_kernel_side_cannot_hold_ends_with_1_and_leaves_nothing() -> Result<Done> {
    let net = Net::new()?;
    let mut run = on_client(&net, &Manifest::loss("1").named("first"))?;
    for number in 2..=17 {
        run = run.and(&Manifest::loss("1").named(&format!("number-{number}")))?;
    }
    let ended = refused(&net, run, 1, &["17", "16"])?;
    let failed = ended.events.iter().find(|event| event["event"] == "failed");
    ensure!(
        failed.is_some_and(|event| event["exit"] == 1 && event["error"].is_string()),
        "no event says so: {:?}",
        ended.events
    );
    ensure!(ended.summary()?.json()["exit"] == 1, "{}", ended.summary()?.json());
    Ok(Done::Kept)
}

//! Direction, and which device.

use std::net::{IpAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use kfault_tests::manifest::Manifest;
use kfault_tests::net::{End, FAMILIES, Family, Net, settle};
use kfault_tests::probe::udp::{self, Probe};
use kfault_tests::snapshot::Snapshot;
use kfault_tests::tunnel::Tunnel;
use serde_json::json;

use crate::faulty::{is_over, on_client, unharmed, with_run};
use crate::harness::{Done, Test, tests};

pub fn tests() -> Vec<Test> {
    let mut all: Vec<Test> =
        tests!("direction": from_delays_what_the_peer_sends).into_iter().map(Test::smoke).collect();
    all.extend(tests!("direction": both_delays_either_way_once, to_with_a_peer_delays_one_way));
    all.extend(
        tests!("device": another_device_is_not_the_default_one).into_iter().map(Test::smoke),
    );
    all.extend(tests!("device":
        the_device_of_the_target_can_be_named,
        a_missing_device_is_refused_before_anything_is_touched,
        a_missing_device_of_the_target_is_refused_too,
        a_device_without_a_link_header_is_delayed_too,
    ));
    all
}

const LATENCY: f64 = 25.0;

fn ensure_way(from: &End, to: &End, family: Family, delayed: bool) -> Result<()> {
    let shape = Probe::of(30, Duration::from_millis(2));
    let measure = || udp::run(&from.ns, &to.ns, to.ip(family), &shape);
    let what = format!("{family:?} from {} to {}", from.ns.name(), to.ns.name());
    if !delayed {
        return unharmed(&what, measure);
    }
    let outcome = measure()?;
    let once = (LATENCY..1.9 * LATENCY).contains(&outcome.delay(0.5));
    ensure!(
        outcome.lost() == 0 && outcome.delay(0.0) >= LATENCY && once,
        "{what} should be delayed once: {}",
        outcome.describe()
    );
    Ok(())
}

/// Delays between client and server; `there` and `back` say which way is delayed.
fn between(direction: &str, there: bool, back: bool) -> Result<Done> {
    let net = Net::new()?;
    let manifest = Manifest::delay("25ms").between(direction);
    let run = on_client(&net, &manifest)?.peer(&net.server.ns.word());
    with_run(&net, run, |_| {
        for family in FAMILIES {
            ensure_way(&net.client, &net.server, family, there)?;
            ensure_way(&net.server, &net.client, family, back)?;
            ensure_way(&net.client, &net.near, family, false)?;
            ensure_way(&net.near, &net.client, family, false)?;
        }
        Ok(())
    })?;
    Ok(Done::Kept)
}

fn to_with_a_peer_delays_one_way() -> Result<Done> {
    between("to", true, false)
}

fn from_delays_what_the_peer_sends() -> Result<Done> {
    between("from", false, true)
}

fn both_delays_either_way_once() -> Result<Done> {
    between("both", true, true)
}

/// A second way from the client (10.78.0.1) to the neighbour (10.78.0.2), past the router, through
/// the device `eth1` of both.
fn second_way(net: &Net) -> Result<()> {
    net.client.ns.batch(&[
        &format!("link add eth1 type veth peer name eth1 netns {}", net.near.ns.name()),
        "link set eth1 addrgenmode none",
        "addr add 10.78.0.1/24 dev eth1",
        "link set eth1 up",
    ])?;
    net.near.ns.batch(&[
        "link set eth1 addrgenmode none",
        "addr add 10.78.0.2/24 dev eth1",
        "link set eth1 up",
    ])?;
    settle(&net.client.ns, "eth1")?;
    settle(&net.near.ns, "eth1")?;
    // Addresses are asked for before anybody is delayed.
    let shape = Probe::of(5, Duration::from_millis(2));
    udp::run(&net.client.ns, &net.near.ns, IpAddr::from([10, 78, 0, 2]), &shape).map(drop)
}

/// `spec.device` names another device than that of the default route.
fn another_device_is_not_the_default_one() -> Result<Done> {
    let net = Net::new()?;
    second_way(&net)?;
    let shape = Probe::of(30, Duration::from_millis(2));
    let second = IpAddr::from([10, 78, 0, 2]);
    for (device, first_delayed) in [(None, true), (Some("eth1"), false)] {
        let mut manifest = Manifest::delay("25ms");
        if let Some(device) = device {
            manifest = manifest.with("device", json!(device));
        }
        with_run(&net, on_client(&net, &manifest)?, |_| {
            ensure_way(&net.client, &net.server, Family::V4, first_delayed)?;
            let outcome = udp::run(&net.client.ns, &net.near.ns, second, &shape)?;
            ensure!(
                outcome.lost() == 0 && (outcome.delay(0.0) >= LATENCY) != first_delayed,
                "device {device:?}: through eth1: {}",
                outcome.describe()
            );
            Ok(())
        })?;
    }
    Ok(Done::Kept)
}

/// `spec.targetDevice`: the device through which the target answers.
fn the_device_of_the_target_can_be_named() -> Result<Done> {
    let net = Net::new()?;
    second_way(&net)?;
    let shape = Probe::of(30, Duration::from_millis(2));
    for (device, first_delayed) in [(None, true), (Some("eth1"), false)] {
        let mut manifest = Manifest::delay("25ms").between("from");
        if let Some(device) = device {
            manifest = manifest.with("targetDevice", json!(device));
        }
        let run = on_client(&net, &manifest)?.peer(&net.near.ns.word());
        with_run(&net, run, |_| {
            for family in FAMILIES {
                ensure_way(&net.near, &net.client, family, first_delayed)?;
            }
            let second = IpAddr::from([10, 78, 0, 1]);
            let outcome = udp::run(&net.near.ns, &net.client.ns, second, &shape)?;
            ensure!(
                outcome.lost() == 0 && (outcome.delay(0.0) >= LATENCY) != first_delayed,
                "targetDevice {device:?}: through eth1: {}",
                outcome.describe()
            );
            Ok(())
        })?;
    }
    Ok(Done::Kept)
}

fn a_missing_device_of_the_target_is_refused_too() -> Result<Done> {
    let net = Net::new()?;
    let before = Snapshot::of(&net)?;
    let manifest = Manifest::delay("25ms").between("from").with("targetDevice", json!("eth7"));
    let ended = on_client(&net, &manifest)?.peer(&net.server.ns.word()).ends_with(2)?;
    for word in ["spec.targetDevice", "eth7", "eth0"] {
        ensure!(ended.errors.contains(word), "{word:?} is not named: {}", ended.errors);
    }
    is_over(&net, &before, "after a refusal")?;
    Ok(Done::Kept)
}

/// A tunnel, say: its packets begin with their IP header.
fn a_device_without_a_link_header_is_delayed_too() -> Result<Done> {
    let net = Net::new()?;
    let tunnel = Tunnel::open(&net.client.ns, "tun0")?;
    net.client.ns.batch(&[
        "link set tun0 addrgenmode none",
        "addr add 10.79.0.1/24 dev tun0",
        "addr add fd00:79::1/64 dev tun0 nodad",
        "link set tun0 up",
    ])?;
    let manifest = Manifest::delay("60ms")
        .with("device", json!("tun0"))
        .with("duplicate", json!({"duplicate": "100"}));
    with_run(&net, on_client(&net, &manifest)?, |_| {
        for (from, to) in [("10.79.0.1", "10.79.0.2"), ("fd00:79::1", "fd00:79::2")] {
            let (from, to): (IpAddr, IpAddr) = (from.parse()?, to.parse()?);
            for number in 0..5u8 {
                let start = Instant::now();
                let payload = [number; 100];
                net.client.ns.run(|| {
                    let socket = UdpSocket::bind((from, 0)).context("bind")?;
                    socket.send_to(&payload, (to, 7777)).context("send")?;
                    Ok(())
                })?;
                // The packet and its copy.
                for _ in 0..2 {
                    let packet = tunnel.read(Duration::from_secs(2))?;
                    let took = start.elapsed();
                    let header = if to.is_ipv4() { 20 } else { 40 };
                    ensure!(
                        packet.len() == header + 8 + payload.len() && packet.ends_with(&payload),
                        "to {to} came {packet:02x?}"
                    );
                    let version = if to.is_ipv4() { 4 } else { 6 };
                    ensure!(packet[0] >> 4 == version, "to {to} came {packet:02x?}");
                    ensure!(took >= Duration::from_millis(60), "to {to} it took {took:?}");
                }
            }
        }
        // The other device is not concerned.
        for family in FAMILIES {
            ensure_way(&net.client, &net.server, family, false)?;
        }
        Ok(())
    })?;
    Ok(Done::Kept)
}

fn a_missing_device_is_refused_before_anything_is_touched() -> Result<Done> {
    let net = Net::new()?;
    let before = Snapshot::of(&net)?;
    let good = Manifest::delay("25ms").named("good");
    let bad = Manifest::delay("25ms").named("bad").with("device", json!("eth7"));
    let ended = on_client(&net, &good)?.and(&bad)?.ends_with(2)?;
    ensure!(
        ended.errors.contains("eth7") && ended.errors.contains("eth0"),
        "the message should name the device and those that there are: {}",
        ended.errors
    );
    is_over(&net, &before, "after a refusal")?;
    Ok(Done::Kept)
}

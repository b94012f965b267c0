//! Whom a fault concerns: addresses, prefixes, ports, names.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use kfault_tests::clock::wait_for;
use kfault_tests::manifest::Manifest;
use kfault_tests::net::{FAMILIES, Family, Net};
use kfault_tests::probe::tcp::{Client, Server, Service};
use kfault_tests::probe::udp::{self, Outcome, Probe};
use kfault_tests::snapshot::Snapshot;
use serde_json::json;
use tempfile::NamedTempFile;

use crate::faulty::{is_over, on_client, unharmed, warm_up, with_fault};
use crate::harness::{Done, Test, tests};

pub fn tests() -> Vec<Test> {
    let mut all: Vec<Test> = tests!("external targets": only_a_listed_address_is_concerned)
        .into_iter()
        .map(Test::smoke)
        .collect();
    all.extend(tests!("external targets":
        a_prefix_concerns_everything_in_it,
        a_port_concerns_only_itself,
        a_longer_prefix_does_not_hide_a_shorter_one,
        a_name_concerns_all_of_its_addresses,
        a_name_with_a_new_address_concerns_it_within_half_a_minute,
        ten_thousand_prefixes_concern_the_right_ones,
    ));
    all
}

const LATENCY: f64 = 30.0;

fn delay() -> Manifest {
    Manifest::delay("30ms")
}

fn send(net: &Net, to_server: bool, family: Family, port: u16) -> Result<Outcome> {
    let end = if to_server { &net.server } else { &net.near };
    let shape = Probe { port, ..Probe::of(20, Duration::from_millis(2)) };
    udp::run(&net.client.ns, &end.ns, end.ip(family), &shape)
}

fn is_delayed(outcome: &Outcome, what: &str) -> Result<()> {
    ensure!(
        outcome.lost() == 0 && outcome.delay(0.0) >= LATENCY,
        "{what} should be delayed: {}",
        outcome.describe()
    );
    Ok(())
}

/// Delays what these concern and nothing else: server or neighbour, family, port.
fn concerns(externals: &[&str], wanted: &[(bool, Family, u16, bool)]) -> Result<Done> {
    with_fault(&delay().to(externals), |net, _| {
        for (to_server, family, port, delayed) in wanted {
            let measure = || send(net, *to_server, *family, *port);
            let whom = if *to_server { "the server" } else { "the neighbour" };
            let what = format!("{externals:?}: {family:?} to port {port} of {whom}");
            if *delayed {
                is_delayed(&measure()?, &what)?;
            } else {
                unharmed(&what, measure)?;
            }
        }
        Ok(())
    })?;
    Ok(Done::Kept)
}

fn only_a_listed_address_is_concerned() -> Result<Done> {
    use Family::{V4, V6};
    let all = |v4: bool, v6: bool| {
        [
            (true, V4, 7001, v4),
            (false, V4, 7001, false),
            (true, V6, 7001, v6),
            (false, V6, 7001, false),
        ]
    };
    concerns(&["10.77.2.2"], &all(true, false))?;
    concerns(&["fd00:77:2::2"], &all(false, true))?;
    concerns(&["10.77.2.2", "fd00:77:2::2"], &all(true, true))
}

fn a_prefix_concerns_everything_in_it() -> Result<Done> {
    use Family::{V4, V6};
    concerns(
        &["10.77.2.0/24", "fd00:77:3::/64"],
        &[
            (true, V4, 7001, true),
            (false, V4, 7001, false),
            (true, V6, 7001, false),
            (false, V6, 7001, true),
        ],
    )
}

fn a_port_concerns_only_itself() -> Result<Done> {
    use Family::{V4, V6};
    concerns(
        &["10.77.2.2:7001", "[fd00:77:2::/64]:7002"],
        &[
            (true, V4, 7001, true),
            (true, V4, 7002, false),
            (true, V6, 7001, false),
            (true, V6, 7002, true),
            (false, V4, 7001, false),
        ],
    )?;
    // TCP as well.
    with_fault(&delay().to(&["10.77.2.2:7001"]), |net, _| {
        for (port, delayed) in [(7001, true), (7003, false)] {
            let server = Server::start(&net.server.ns, net.server.v4.into(), port, Service::Echo)?;
            let patience = Duration::from_secs(5);
            let (mut client, _) = Client::connect(&net.client.ns, server.address(), patience)?;
            let ms = client.ask()?.as_secs_f64() * 1e3;
            ensure!((ms >= LATENCY) == delayed, "port {port}: an answer took {ms:.2} ms");
        }
        Ok(())
    })?;
    Ok(Done::Kept)
}

/// Decision 9: `10.0.0.0/8` and `10.77.2.0/24:7001` both mean what they say.
fn a_longer_prefix_does_not_hide_a_shorter_one() -> Result<Done> {
    use Family::V4;
    concerns(
        &["10.0.0.0/8", "10.77.2.0/24:7001"],
        &[(true, V4, 7001, true), (true, V4, 7002, true), (false, V4, 7002, true)],
    )?;
    concerns(
        &["10.77.0.0/16:7002", "10.77.2.2:7001"],
        &[
            (true, V4, 7001, true),
            (true, V4, 7002, true),
            (true, V4, 7003, false),
            (false, V4, 7001, false),
            (false, V4, 7002, true),
        ],
    )
}

/// A name of `/etc/hosts`, which is ours alone.
fn a_name_concerns_all_of_its_addresses() -> Result<Done> {
    let _names = HostsFile::with("10.77.2.2 server.kft\nfd00:77:2::2 server.kft\n")?;
    with_fault(&delay().to(&["server.kft"]), |net, _| {
        for family in FAMILIES {
            is_delayed(&send(net, true, family, 7001)?, &format!("{family:?} to the name"))?;
            unharmed("the neighbour", || send(net, false, family, 7001))?;
        }
        Ok(())
    })?;
    Ok(Done::Kept)
}

/// It moves from the server to the neighbour; nobody is told of it.
fn a_name_with_a_new_address_concerns_it_within_half_a_minute() -> Result<Done> {
    let names = HostsFile::with("10.77.2.2 moving.kft\nfd00:77:2::2 moving.kft\n")?;
    let net = Net::new()?;
    let before = Snapshot::of(&net)?;
    warm_up(&net)?;
    let kfault = on_client(&net, &delay().to(&["moving.kft"]))?.start()?;
    for family in FAMILIES {
        is_delayed(&send(&net, true, family, 7001)?, &format!("{family:?} to the name"))?;
        unharmed("the neighbour", || send(&net, false, family, 7001))?;
    }
    names.write("10.77.3.2 moving.kft\nfd00:77:3::2 moving.kft\n")?;
    let start = Instant::now();
    let has_moved = wait_for(Duration::from_secs(40), || {
        std::thread::sleep(Duration::from_millis(500));
        send(&net, false, Family::V4, 7001).is_ok_and(|outcome| outcome.delay(0.5) >= LATENCY)
    });
    let took = start.elapsed();
    ensure!(has_moved && took < Duration::from_secs(35), "after {took:?}: {has_moved}");
    for family in FAMILIES {
        is_delayed(&send(&net, false, family, 7001)?, &format!("{family:?} to the new one"))?;
        unharmed("the former one", || send(&net, true, family, 7001))?;
    }
    // A name that has no address any more keeps its last ones, and that is said.
    names.write("")?;
    std::thread::sleep(Duration::from_secs(32));
    for family in FAMILIES {
        is_delayed(&send(&net, false, family, 7001)?, &format!("{family:?} to the last one"))?;
    }
    kfault.signal(libc::SIGINT)?;
    let ended = kfault.end()?;
    ensure!(
        ended.status.code() == Some(130) && ended.errors.contains("moving.kft"),
        "kfault ended with {}: {}",
        ended.status,
        ended.errors
    );
    is_over(&net, &before, "after recovery")?;
    Ok(Done::Kept)
}

/// Another `/etc/hosts` for as long as this lives, in the mount namespace of the tests.
pub struct HostsFile {
    file: NamedTempFile,
    /// The host's own lines.
    host: String,
}

impl HostsFile {
    /// With these lines behind the host's own.
    pub fn with(lines: &str) -> Result<Self> {
        let host = std::fs::read_to_string("/etc/hosts").unwrap_or_default();
        let file = NamedTempFile::new().context("make a hosts file")?;
        let hosts = Self { file, host };
        hosts.write(lines)?;
        let path = hosts.file.path().display().to_string();
        if !std::path::Path::new("/etc/hosts").exists() {
            std::fs::create_dir_all("/etc").context("make /etc")?;
            std::fs::write("/etc/hosts", "").context("make /etc/hosts")?;
        }
        kfault_tests::ns::mount(Some(&path), "/etc/hosts", None, libc::MS_BIND)?;
        Ok(hosts)
    }

    /// Other lines behind the host's own.
    fn write(&self, lines: &str) -> Result<()> {
        let Self { file, host } = self;
        std::fs::write(file.path(), format!("{host}\n{lines}")).context("write a hosts file")
    }
}

impl Drop for HostsFile {
    fn drop(&mut self) {
        // SAFETY: plain call with a string that ends in zero.
        unsafe { libc::umount2(c"/etc/hosts".as_ptr(), libc::MNT_DETACH) };
    }
}

fn ten_thousand_prefixes_concern_the_right_ones() -> Result<Done> {
    let mut all: Vec<String> = (0..9_997u32)
        .map(|i| format!("172.{}.{}.{}/30", 16 + i / 4096 % 16, i / 16 % 256, i % 16 * 16))
        .collect();
    all.extend(["10.77.2.2".into(), "fd00:77:2::2".into(), "10.78.0.0/16".into()]);
    let manifest = delay().with("externalTargets", json!(all));
    with_fault(&manifest, |net, _| {
        for family in FAMILIES {
            is_delayed(&send(net, true, family, 7001)?, &format!("{family:?} to the server"))?;
            unharmed("the neighbour", || send(net, false, family, 7001))?;
        }
        Ok(())
    })?;
    Ok(Done::Kept)
}

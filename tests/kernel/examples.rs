//! Every manifest of `deploy/examples` that needs no cluster, run as its first lines say.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use kfault_tests::cgroup::Cgroup;
use kfault_tests::kfault::Run;
use kfault_tests::manifest::File;
use kfault_tests::net::{Family, Net};
use kfault_tests::probe::dns::{IMPATIENCE, Query, Resolver, ask};
use kfault_tests::probe::http::{Client, Server, Style, request};
use kfault_tests::probe::udp::{self, Probe};
use kfault_tests::snapshot::Snapshot;

use crate::faulty::{Neighbour, is_over, warm_up};
use crate::harness::{Done, Test, tests};
use crate::peers::HostsFile;

pub fn tests() -> Vec<Test> {
    tests!("examples":
        every_example_runs_acts_and_recovers,
        every_example_of_loads_and_limits_runs_and_recovers,
        every_example_about_names_runs_acts_and_recovers,
        every_example_of_http_runs_acts_and_recovers,
    )
    .into_iter()
    .map(Test::dear)
    .collect()
}

macro_rules! examples {
    ($($name:literal),+ $(,)?) => {
        [$(($name, include_str!(concat!("../../deploy/examples/", $name)))),+]
    };
}

/// Embedded, so that the machines need no tree. A golden test looks whether one is missing.
const EXAMPLES: [(&str, &str); 13] = examples![
    "network-bandwidth.yaml",
    "network-corrupt.yaml",
    "network-delay.yaml",
    "network-duplicate.yaml",
    "network-external-targets.yaml",
    "network-ingress-loss.yaml",
    "network-jitter.yaml",
    "network-loss.yaml",
    "network-netem-all.yaml",
    "network-partition-reject.yaml",
    "network-partition.yaml",
    "network-rate.yaml",
    "network-reorder.yaml",
];

/// Loads and limits: what they do is measured elsewhere.
const ON_CGROUPS: [(&str, &str); 9] = examples![
    "pause.yaml",
    "stress-cpu-memory.yaml",
    "stress-cpu.yaml",
    "stress-memory.yaml",
    "stress-ng.yaml",
    "throttle-all.yaml",
    "throttle-cpu.yaml",
    "throttle-io.yaml",
    "throttle-memory.yaml",
];

/// Names, with one that each of them means.
const ON_NAMES: [(&str, &str); 3] =
    examples!["dns-error.yaml", "dns-random.yaml", "dns-timeout.yaml"];

fn every_example_about_names_runs_acts_and_recovers() -> Result<Done> {
    let net = Net::new()?;
    warm_up(&net)?;
    let before = Snapshot::of(&net)?;
    let resolver = net.server.ip(Family::V4);
    let _server = Resolver::start(&net.server.ns, resolver)?;
    for (name, text) in ON_NAMES {
        let run = Run::default().file(File::of(text)?).target(&net.client.ns.word()).seed(1);
        let kfault = run.start()?;
        for asked in ["google.com", "api.example.com"] {
            ask(&net.client.ns, resolver, &Query::a(asked), IMPATIENCE)?;
        }
        let summary = kfault.stop()?;
        ensure!(summary.total("answered") > 0, "{name}: {}", summary.json());
        is_over(&net, &before, "after recovery").with_context(|| name)?;
    }
    Ok(Done::Kept)
}

/// Faults of HTTP: what is asked for there, and what the client sees.
const ON_HTTP: [(&str, &str); 7] = examples![
    "http-abort-request.yaml",
    "http-abort.yaml",
    "http-delay.yaml",
    "http-patch-body.yaml",
    "http-replace-body.yaml",
    "http-replace-code.yaml",
    "http-replace-request.yaml",
];

fn every_example_of_http_runs_acts_and_recovers() -> Result<Done> {
    if let Some(proof) = crate::http::missing() {
        return Ok(Done::Cannot(proof));
    }
    let net = Net::new()?;
    let web = &net.client;
    let server = Server::start(&web.ns, web.ip(Family::V4), 80, Style::Whole)?;
    for (name, text) in ON_HTTP {
        let run = Run::default().file(File::of(text)?).target(&web.ns.word()).seed(1);
        let kfault = run.start().with_context(|| name)?;
        let mut client = Client::connect(&net.server.ns, server.address)?;
        let meant = match name {
            "http-abort.yaml" => {
                client.send(request("GET", "/missing").as_bytes())?;
                client.ensure_closed().map(|_| true)?
            }
            "http-abort-request.yaml" => {
                client.send(request("GET", "/api/x").as_bytes())?;
                client.ensure_closed()?
            }
            "http-delay.yaml" => {
                let start = Instant::now();
                client.get("/api/x")?;
                let late = start.elapsed();
                client.get("/")?;
                late >= Duration::from_millis(500) && start.elapsed() - late < late / 2
            }
            "http-patch-body.yaml" => {
                let new = client.get("/json")?.body;
                new == br#"{"a":1,"b":{"c":[2,3]},"foo":"bar"}"#
                    && client.get("/")?.body.len() == 10
            }
            "http-replace-request.yaml" => {
                client.get("/api/x")?.body == b"this is /v2/maintenance\n"
                    && client.get("/other")?.body == b"this is /other\n"
            }
            "http-replace-body.yaml" => client.get("/")?.body == b"{\"new\":true}",
            _ => {
                let response = client.get("/api/x")?;
                let is_other = client.get("/")?.status() == "HTTP/1.1 200 OK";
                is_other && response.header("x-fault").as_deref() == Some("injected")
            }
        };
        ensure!(meant, "{name}: the client sees nothing of it");
        let summary = kfault.stop()?;
        ensure!(summary.exchanged("injected") == 1, "{name}: {}", summary.json());
        let mut client = Client::connect(&net.server.ns, server.address)?;
        ensure!(client.get("/")?.body == b"this is /\n", "{name}: after recovery");
    }
    Ok(Done::Kept)
}

fn every_example_runs_acts_and_recovers() -> Result<Done> {
    let net = Net::new()?;
    warm_up(&net)?;
    let before = Snapshot::of(&net)?;
    let neighbour = Neighbour::start(&net)?;
    let _names = HostsFile::with("192.0.2.80 example.com\n192.0.2.81 example.org\n")?;
    for (name, text) in EXAMPLES {
        run(&net, name, text).with_context(|| name)?;
        is_over(&net, &before, "after recovery").with_context(|| name)?;
    }
    neighbour.ensure_unharmed()?;
    Ok(Done::Kept)
}

fn run(net: &Net, name: &str, text: &str) -> Result<()> {
    let mut run = Run::default().file(File::of(text)?).target(&net.client.ns.word()).seed(1);
    if text.contains("\n  target:\n") {
        run = run.peer(&net.server.ns.word());
    }
    let kfault = run.start()?;
    // Large enough together for every bucket to run empty.
    let shape = Probe { size: 1400, ..Probe::many(500) };
    let (client, server) = (&net.client, &net.server);
    udp::run(&client.ns, &server.ns, server.ip(Family::V4), &shape)?;
    udp::run(&server.ns, &client.ns, client.ip(Family::V4), &shape)?;
    let summary = kfault.stop_within(Duration::from_secs(60))?;
    // Those addresses are for documentation, and nobody is there.
    let is_elsewhere = name == "network-external-targets.yaml";
    for rule in summary.rules() {
        let count = |counter: &str| rule[counter].as_u64().unwrap_or_default();
        ensure!(
            is_elsewhere == (count("matched") == 0) && is_elsewhere == (count("injected") == 0),
            "{rule}"
        );
    }
    ensure!(!summary.rules().is_empty(), "no rule at all: {}", summary.json());
    Ok(())
}

fn every_example_of_loads_and_limits_runs_and_recovers() -> Result<Done> {
    let net = Net::new()?;
    // One of them is about the network as well.
    let _host = net.host()?;
    for (name, text) in ON_CGROUPS {
        let target = Cgroup::in_all("example")?;
        let memory = ["memory.max", "memory.limit_in_bytes"];
        let limit = memory.into_iter().find(|file| target.file(file).is_some());
        target.write(limit.context("no controller limits memory")?, "1073741824")?;
        let before = target.limits()?;
        let run = Run::default().file(File::of(text)?).target(&target.word()).seed(1);
        let is_v1 = target.file("memory.high").is_none();
        if name == "throttle-memory.yaml" && is_v1 {
            let ended = run.ends_with(3)?;
            ensure!(ended.errors.contains("memory.high"), "{name}: {}", ended.errors);
            continue;
        }
        if name == "throttle-io.yaml" && !has_disk() {
            let ended = run.ends_with(3)?;
            ensure!(ended.errors.contains("this host has no disk"), "{name}: {}", ended.errors);
            continue;
        }
        let ended = run.duration("2s").ends_with(0).with_context(|| name)?;
        let summary = ended.summary()?;
        let strains = summary.json()["strains"].as_array().cloned().unwrap_or_default();
        ensure!(strains.len() == 1, "{name}: {}", summary.json());
        ensure!(strains[0]["targetGone"] == false, "{name}: {}", strains[0]);
        ensure!(target.is_empty(), "{name}: processes are left");
        ensure!(target.limits()? == before, "{name}: limits are left: {:?}", target.limits()?);
    }
    Ok(Done::Kept)
}

/// Whether the kernel has a disk that is not made of memory.
fn has_disk() -> bool {
    let size = |disk: &std::path::Path| std::fs::read_to_string(disk.join("size"));
    std::fs::read_dir("/sys/block").into_iter().flatten().flatten().any(|disk| {
        let name = disk.file_name().to_string_lossy().into_owned();
        !name.contains("ram") && size(&disk.path()).is_ok_and(|size| size.trim() != "0")
    })
}

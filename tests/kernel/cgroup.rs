//! Faults on the sockets of one cgroup, on devices that others use too.

use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use kfault_tests::cgroup::Cgroup;
use kfault_tests::clock::wait_for;
use kfault_tests::kfault::Run;
use kfault_tests::manifest::Manifest;
use kfault_tests::net::{FAMILIES, Family, Host, Net};
use kfault_tests::probe::process::Process;
use kfault_tests::probe::tcp::{PORT, Server, Service};
use kfault_tests::probe::udp::{self, Outcome, Probe};
use kfault_tests::snapshot::Snapshot;
use kfault_tests::stats::is_likely;
use serde_json::json;

use crate::faulty::{probe, unharmed, with_run};
use crate::harness::{Done, Proof, Test, tests};

pub fn tests() -> Vec<Test> {
    let mut all: Vec<Test> = tests!("cgroup scope":
        a_process_of_the_cgroup_is_delayed_and_its_neighbour_is_not,
        a_partitioned_cgroup_gets_eperm,
    )
    .into_iter()
    .map(Test::smoke)
    .collect();
    all.extend(tests!("cgroup scope":
        pings_of_a_partitioned_cgroup_get_eperm,
        an_open_connection_of_a_partitioned_cgroup_stalls_and_goes_on,
        blocks_act_together_on_a_cgroup,
        a_cgroup_gets_its_rate,
        every_word_for_a_process_of_the_host_means_its_cgroup,
        a_process_in_a_namespace_of_its_own_means_the_namespace,
        processes_below_the_cgroup_belong_to_it,
        what_arrives_at_the_cgroup_is_dropped,
        what_arrives_at_the_cgroup_is_lost,
        a_rejected_cgroup_is_refused,
        without_v2_the_network_of_a_cgroup_is_refused,
    ));
    all
}

/// A host with a process in a targeted cgroup and one in another cgroup, on one device.
struct Two {
    host: Host,
    net: Net,
    inside: Process,
    outside: Process,
    target: Cgroup,
    other: Cgroup,
}

impl Two {
    fn new() -> Result<Self> {
        let net = Net::new()?;
        let host = net.host()?;
        let (target, other) = (Cgroup::new("target")?, Cgroup::new("other")?);
        let inside = Process::start(&host.0.ns, Some(&target))?;
        let outside = Process::start(&host.0.ns, Some(&other))?;
        Ok(Self { host, net, inside, outside, target, other })
    }

    fn look(&self) -> Result<Snapshot> {
        Snapshot::of(&self.net)?.and(&self.target)?.and(&self.other)
    }

    /// An echo server for each family.
    fn servers(&self) -> Result<Vec<Server>> {
        let end = &self.net.server;
        let start = |(family, port): (Family, u16)| {
            Server::start(&end.ns, end.ip(family), port, Service::Echo)
        };
        FAMILIES.into_iter().zip([PORT, PORT + 1]).map(start).collect()
    }

    /// From inside or outside of the cgroup to the server.
    fn probe(&mut self, is_inside: bool, family: Family) -> Result<Outcome> {
        let shape = Probe::of(40, Duration::from_millis(2));
        let process = if is_inside { &mut self.inside } else { &mut self.outside };
        let (server, ip) = (&self.net.server.ns, self.net.server.ip(family));
        udp::run_by(server, ip, &shape, |at| process.send(at, &shape))
    }

    /// Injects into the cgroup, checks, recovers and compares.
    fn with_fault(
        &mut self,
        manifest: &Manifest,
        check: impl FnOnce(&mut Self) -> Result<()>,
    ) -> Result<()> {
        let word = self.target.word();
        self.with_fault_on(&word, manifest, check)
    }

    /// The same for what another word means.
    fn with_fault_on(
        &mut self,
        word: &str,
        manifest: &Manifest,
        check: impl FnOnce(&mut Self) -> Result<()>,
    ) -> Result<()> {
        for family in FAMILIES {
            self.probe(true, family)?;
        }
        let before = self.look()?;
        let run = Run::of(manifest)?.target(word).seed(1).start()?;
        check(self)?;
        run.stop()?;
        before.ensure_same(&self.look()?, "after recovery")?;
        for family in FAMILIES {
            unharmed("after recovery the cgroup", || self.probe(true, family))?;
        }
        // The host's device outlives the net, or nobody can delete it.
        let _ = &self.host;
        Ok(())
    }
}

fn a_process_of_the_cgroup_is_delayed_and_its_neighbour_is_not() -> Result<Done> {
    Two::new()?.with_fault(&Manifest::delay("30ms"), |two| {
        for family in FAMILIES {
            let inside = two.probe(true, family)?;
            ensure!(
                inside.lost() == 0 && inside.delay(0.0) >= 30.0,
                "{family:?}: the cgroup should be delayed: {}",
                inside.describe()
            );
            unharmed("a process of another cgroup", || two.probe(false, family))?;
        }
        Ok(())
    })?;
    Ok(Done::Kept)
}

fn a_partitioned_cgroup_gets_eperm() -> Result<Done> {
    Two::new()?.with_fault(&Manifest::new("partition"), |two| {
        for family in FAMILIES {
            let inside = two.probe(true, family)?;
            ensure!(
                inside.received() == 0 && inside.errors.get(&libc::EPERM) == Some(&40),
                "{family:?}: every sendto should get EPERM: {}",
                inside.describe()
            );
            unharmed("a process of another cgroup", || two.probe(false, family))?;
        }
        Ok(())
    })?;
    Ok(Done::Kept)
}

fn pings_of_a_partitioned_cgroup_get_eperm() -> Result<Done> {
    Two::new()?.with_fault(&Manifest::new("partition"), |two| {
        for family in FAMILIES {
            let server = two.net.server.ip(family);
            let (errors, answered) = two.inside.ping(server, 20)?;
            ensure!(
                answered == 0 && errors == [libc::EPERM; 20],
                "{family:?}: every ping should get EPERM: {answered} answered, errors {errors:?}"
            );
            let (errors, answered) = two.outside.ping(server, 20)?;
            ensure!(
                answered == 20 && errors.is_empty(),
                "{family:?}: another cgroup: {answered} answered, errors {errors:?}"
            );
        }
        Ok(())
    })?;
    Ok(Done::Kept)
}

fn an_open_connection_of_a_partitioned_cgroup_stalls_and_goes_on() -> Result<Done> {
    let mut two = Two::new()?;
    for server in two.servers()? {
        let address = server.address();
        two.inside.hold(address)?.map_err(|errno| anyhow!("{address}: errno {errno}"))?;
        two.with_fault(&Manifest::new("partition"), |two| {
            let stalled = two.inside.ask_again()?;
            ensure!(
                stalled == Err(libc::EAGAIN),
                "an open connection to {address} should be silent: {stalled:?}"
            );
            Ok(())
        })?;
        ensure!(
            wait_for(Duration::from_secs(20), || matches!(two.inside.ask_again(), Ok(Ok(_)))),
            "the connection to {address} does not go on after recovery"
        );
    }
    Ok(Done::Kept)
}

/// What acts on a device acts on a cgroup.
fn blocks_act_together_on_a_cgroup() -> Result<Done> {
    let manifest = Manifest::delay("20ms")
        .with("action", json!("netem"))
        .with("loss", json!({"loss": "20"}))
        .with("duplicate", json!({"duplicate": "20"}))
        .with("corrupt", json!({"corrupt": "10"}));
    Two::new()?.with_fault(&manifest, |two| {
        let (shape, count) = (Probe::many(3000), 3000);
        for family in FAMILIES {
            let (server, ip) = (&two.net.server.ns, two.net.server.ip(family));
            let inside = &mut two.inside;
            let outcome = udp::run_by(server, ip, &shape, |at| inside.send(at, &shape))?;
            // 20 % are lost, 10 % of the others damaged; 20 % of what is left arrives twice.
            let here = outcome.received() as u64;
            ensure!(
                is_likely(outcome.lost() as u64, count, 0.28)
                    && is_likely(outcome.duplicates() as u64, here, 0.2)
                    && outcome.delay(0.0) >= 20.0
                    && outcome.errors.is_empty(),
                "{family:?}: {}",
                outcome.describe()
            );
            unharmed("a process of another cgroup", || two.probe(false, family))?;
        }
        Ok(())
    })?;
    Ok(Done::Kept)
}

fn a_cgroup_gets_its_rate() -> Result<Done> {
    let manifest = Manifest::new("delay").with("rate", json!({"rate": "100kbit"}));
    Two::new()?.with_fault(&manifest, |two| {
        for (family, bytes) in FAMILIES.into_iter().zip([106.0, 126.0]) {
            // 64 bytes and their headers, 40 of them, at 12 500 bytes per second.
            let outcome = two.probe(true, family)?;
            let (span, expected) = (outcome.span().as_secs_f64(), 39.0 * bytes / 12_500.0);
            ensure!(
                outcome.lost() == 0 && (expected * 0.98..expected * 1.1).contains(&span),
                "{family:?}: {span:.3} s and not {expected:.3}: {}",
                outcome.describe()
            );
            unharmed("a process of another cgroup", || two.probe(false, family))?;
        }
        Ok(())
    })?;
    Ok(Done::Kept)
}

/// As systemd and Docker name the cgroups of theirs.
fn every_word_for_a_process_of_the_host_means_its_cgroup() -> Result<Done> {
    let mut two = Two::new()?;
    let pid = two.inside.pid();
    let id = "0123456789abcdef".repeat(4);
    let (unit, scope) = ("kft-web.service".to_owned(), format!("docker-{id}.scope"));
    for (below, word) in [
        (None, format!("pid:{pid}")),
        (None, format!("process:{}", two.inside.name())),
        (Some(&unit), format!("unit:{unit}")),
        (Some(&scope), format!("container:{}", &id[..12])),
    ] {
        let below = below.map(|name| two.target.directory().join(name));
        if let Some(below) = &below {
            std::fs::create_dir(below).context("make a cgroup below")?;
            std::fs::write(below.join("cgroup.procs"), pid.to_string())
                .context("move a process below")?;
        }
        let done = two.with_fault_on(&word, &Manifest::loss("100"), |two| {
            for family in FAMILIES {
                let inside = two.probe(true, family)?;
                ensure!(inside.received() == 0, "{}", inside.describe());
                unharmed("a process of another cgroup", || two.probe(false, family))?;
            }
            Ok(())
        });
        two.target.take(pid)?;
        if let Some(below) = &below {
            std::fs::remove_dir(below).context("remove the cgroup below")?;
        }
        done.with_context(|| word)?;
    }
    Ok(Done::Kept)
}

fn a_process_in_a_namespace_of_its_own_means_the_namespace() -> Result<Done> {
    let net = Net::new()?;
    let process = Process::start(&net.client.ns, None)?;
    for word in [format!("pid:{}", process.pid()), format!("process:{}", process.name())] {
        let run = Run::of(&Manifest::delay("30ms"))?.target(&word).seed(1);
        with_run(&net, run, |_| {
            for family in FAMILIES {
                // Sent by another process of the same namespace.
                let outcome = probe(&net, family, &Probe::of(40, Duration::from_millis(2)))?;
                ensure!(
                    outcome.lost() == 0 && outcome.delay(0.0) >= 30.0,
                    "{word}, {family:?}: {}",
                    outcome.describe()
                );
            }
            Ok(())
        })?;
    }
    Ok(Done::Kept)
}

fn processes_below_the_cgroup_belong_to_it() -> Result<Done> {
    let mut two = Two::new()?;
    let below = two.target.directory().join("below");
    std::fs::create_dir(&below).context("make a cgroup below")?;
    std::fs::write(below.join("cgroup.procs"), two.inside.pid().to_string())
        .context("move a process below")?;
    let done = two.with_fault(&Manifest::loss("100"), |two| {
        // A socket belongs to the cgroup in which it was made, and each probe makes its own.
        for family in FAMILIES {
            let inside = two.probe(true, family)?;
            ensure!(inside.received() == 0, "below the cgroup: {}", inside.describe());
            unharmed("a process of another cgroup", || two.probe(false, family))?;
        }
        Ok(())
    });
    two.target.take(two.inside.pid())?;
    std::fs::remove_dir(&below).context("remove the cgroup below")?;
    done.map(|()| Done::Kept)
}

/// Ingress of a cgroup: `from` drops what its sockets would receive.
fn what_arrives_at_the_cgroup_is_dropped() -> Result<Done> {
    let manifest = Manifest::new("partition").with("direction", json!("from"));
    let mut two = Two::new()?;
    let servers = two.servers()?;
    two.with_fault(&manifest, |two| {
        for address in servers.iter().map(Server::address) {
            let inside = two.inside.ask(address)?;
            ensure!(inside.is_err(), "{address} answered a cgroup that hears nothing");
            let outside = two.outside.ask(address)?;
            ensure!(outside.is_ok(), "a process of another cgroup got errno {outside:?}");
        }
        Ok(())
    })?;
    Ok(Done::Kept)
}

/// `spec.kfault.ingress` on a cgroup.
fn what_arrives_at_the_cgroup_is_lost() -> Result<Done> {
    let manifest = Manifest::loss("100")
        .with("direction", json!("from"))
        .with("kfault", json!({"ingress": true}));
    let mut two = Two::new()?;
    let servers = two.servers()?;
    two.with_fault(&manifest, |two| {
        for address in servers.iter().map(Server::address) {
            let inside = two.inside.ask(address)?;
            ensure!(inside.is_err(), "{address} answered a cgroup that loses everything");
            let outside = two.outside.ask(address)?;
            ensure!(outside.is_ok(), "a process of another cgroup got errno {outside:?}");
        }
        Ok(())
    })?;
    Ok(Done::Kept)
}

fn a_rejected_cgroup_is_refused() -> Result<Done> {
    let manifest = Manifest::new("partition").with("partitionBehavior", json!("reject"));
    let mut two = Two::new()?;
    let servers = two.servers()?;
    two.with_fault(&manifest, |two| {
        for server in &servers {
            let address = server.address();
            let inside = two.inside.ask(address)?;
            ensure!(
                inside == Err(libc::ECONNREFUSED),
                "a rejected connection came to {inside:?} and not to ECONNREFUSED ({address})"
            );
            let outside = two.outside.ask(address)?;
            ensure!(outside.is_ok(), "a process of another cgroup got errno {outside:?}");
        }
        Ok(())
    })?;
    Ok(Done::Kept)
}

/// On a host with v1 alone a cgroup can be found, and its sockets cannot.
fn without_v2_the_network_of_a_cgroup_is_refused() -> Result<Done> {
    let net = Net::new()?;
    let host = net.host()?;
    let target = Cgroup::in_all("target")?;
    let needs = || {
        let is_there = target.file("freezer.state").is_some();
        is_there.then_some(()).context("this host has no controllers of v1")
    };
    if let Some(proof) = Proof::by_trying("cgroup v1", needs) {
        return Ok(Done::Cannot(proof));
    }
    for manifest in [Manifest::new("partition"), Manifest::delay("30ms")] {
        let run = Run::of(&manifest)?.target(&target.word()).without_v2().duration("1s");
        let ended = run.ends_with(3)?;
        let is_said = ended.errors.contains("no cgroup v2 hierarchy is mounted");
        ensure!(is_said && ended.errors.contains("mount -t cgroup2"), "{}", ended.errors);
    }
    // The host's device outlives the net, or nobody can delete it.
    drop(net);
    drop(host);
    Ok(Done::Kept)
}

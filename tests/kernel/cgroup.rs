//! Faults on the sockets of one cgroup, on devices that others use too.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kfault_tests::cgroup::Cgroup;
use kfault_tests::kfault::Run;
use kfault_tests::manifest::Manifest;
use kfault_tests::net::{FAMILIES, Family, Host, Net};
use kfault_tests::probe::process::Process;
use kfault_tests::probe::tcp::{PORT, Server, Service};
use kfault_tests::probe::udp::{self, Outcome, Probe};
use kfault_tests::snapshot::Snapshot;
use serde_json::json;

use crate::faulty::unharmed;
use crate::harness::{Done, Test, tests};

pub fn tests() -> Vec<Test> {
    let mut all: Vec<Test> = tests!("cgroup scope":
        a_process_of_the_cgroup_is_delayed_and_its_neighbour_is_not,
        a_partitioned_cgroup_gets_eperm,
    )
    .into_iter()
    .map(Test::smoke)
    .collect();
    all.extend(tests!("cgroup scope":
        processes_below_the_cgroup_belong_to_it,
        what_arrives_at_the_cgroup_is_dropped,
        a_rejected_cgroup_is_refused,
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
        for family in FAMILIES {
            self.probe(true, family)?;
        }
        let before = self.look()?;
        let run = Run::of(manifest)?.target(&self.target.word()).seed(1).start()?;
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

fn processes_below_the_cgroup_belong_to_it() -> Result<Done> {
    let mut two = Two::new()?;
    let below = two.target.directory().join("below");
    std::fs::create_dir(&below).context("make a cgroup below")?;
    std::fs::write(below.join("cgroup.procs"), two.inside.pid().to_string())
        .context("move a process below")?;
    let done = two.with_fault(&Manifest::loss("100"), |two| {
        // A socket belongs to the cgroup in which it was made, and each probe makes its own.
        let inside = two.probe(true, Family::V4)?;
        ensure!(inside.received() == 0, "below the cgroup: {}", inside.describe());
        unharmed("a process of another cgroup", || two.probe(false, Family::V4))
    });
    two.target.take(two.inside.pid())?;
    std::fs::remove_dir(&below).context("remove the cgroup below")?;
    done.map(|()| Done::Kept)
}

/// Ingress of a cgroup: `from` drops what its sockets would receive.
fn what_arrives_at_the_cgroup_is_dropped() -> Result<Done> {
    let manifest = Manifest::new("partition").with("direction", json!("from"));
    let mut two = Two::new()?;
    let address = |family, port| SocketAddr::new(two.net.server.ip(family), port);
    let servers: Vec<Server> = FAMILIES
        .into_iter()
        .zip([PORT, PORT + 1])
        .map(|(f, port)| {
            Server::start(&two.net.server.ns, two.net.server.ip(f), port, Service::Echo)
        })
        .collect::<Result<_>>()?;
    let addresses = [address(Family::V4, PORT), address(Family::V6, PORT + 1)];
    two.with_fault(&manifest, |two| {
        for address in addresses {
            let inside = two.inside.ask(address)?;
            ensure!(inside.is_err(), "{address} answered a cgroup that hears nothing");
            let outside = two.outside.ask(address)?;
            ensure!(outside.is_ok(), "a process of another cgroup got errno {outside:?}");
        }
        Ok(())
    })?;
    drop(servers);
    Ok(Done::Kept)
}

fn a_rejected_cgroup_is_refused() -> Result<Done> {
    let manifest = Manifest::new("partition").with("partitionBehavior", json!("reject"));
    let mut two = Two::new()?;
    let ip = two.net.server.v4.into();
    let server = Server::start(&two.net.server.ns, ip, PORT, Service::Echo)?;
    two.with_fault(&manifest, |two| {
        let inside = two.inside.ask(server.address())?;
        ensure!(
            inside == Err(libc::ECONNREFUSED),
            "a rejected connection came to {inside:?} and not to ECONNREFUSED"
        );
        let outside = two.outside.ask(server.address())?;
        ensure!(outside.is_ok(), "a process of another cgroup got errno {outside:?}");
        Ok(())
    })?;
    Ok(Done::Kept)
}

//! What is left when kfault dies, hangs, or loses what it works on: nothing that acts, and after
//! `sweep` nothing at all.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use chaos_user::engine::{Engine, Options, fault_points};
use chaos_user::plan::Peers;
use kfault_tests::cgroup::Cgroup;
use kfault_tests::clock::wait_for;
use kfault_tests::kfault::{Kfault, LEASE, Run, command};
use kfault_tests::manifest::Manifest;
use kfault_tests::net::{DEVICE, FAMILIES, Family, Host, Net};
use kfault_tests::ns::Ns;
use kfault_tests::probe::process::Process;
use kfault_tests::probe::udp::{self, Outcome, Probe, Stream};
use kfault_tests::snapshot::Snapshot;
use serde_json::json;

use crate::bench::targets;
use crate::faulty::{Neighbour, ensure_unharmed, is_over, on_client, probe, unharmed, warm_up};
use crate::harness::{Done, Test, tests};

pub fn tests() -> Vec<Test> {
    let mut all: Vec<Test> =
        tests!("crash": a_stopped_kfault_loses_its_lease).into_iter().map(Test::smoke).collect();
    let dear = tests!("crash":
        killed_before_any_action_nothing_stays,
        killed_after_any_action_nothing_stays,
    );
    all.extend(dear.into_iter().map(Test::dear));
    all.extend(tests!("crash":
        packets_that_are_overdue_after_a_stall_are_dropped,
        killed_while_its_faults_act_nothing_stays,
        a_namespace_that_vanishes_ends_its_own_fault_only,
        a_namespace_that_only_loses_its_name_is_set_free,
        a_run_whose_targets_are_all_gone_ends_by_itself,
        a_device_that_comes_back_is_left_alone,
        a_full_map_is_refused_and_nothing_is_left,
    ));
    all
}

const LATENCY_MS: u64 = 100;
/// Where packets are on their way when kfault dies. Nobody looks at them.
const BUSY_PORT: u16 = 7950;

/// Loss and delay towards more peers than fit beside the rule: with it every action is reached,
/// the last ones during recovery.
fn rich() -> Manifest {
    let mut peers = vec!["10.77.2.2".to_owned(), "fd00:77:2::2".to_owned()];
    peers.extend((0..6).map(|i| format!("172.16.{i}.0/24")));
    Manifest::delay(&format!("{LATENCY_MS}ms")).with("loss", json!({"loss": "50"})).to(&peers)
}

/// A host with everything that a run can be attached to: a namespace, and a cgroup beside it.
struct Scene {
    inside: Process,
    cgroup: Cgroup,
    // Its device goes before the router does.
    _host: Host,
    net: Net,
    before: Snapshot,
}

impl Scene {
    fn new() -> Result<Self> {
        let net = Net::new()?;
        let host = net.host()?;
        let cgroup = Cgroup::new("crash")?;
        let inside = Process::start(&host.0.ns, Some(&cgroup))?;
        let before = Snapshot::of(&net)?.and(&cgroup)?;
        let mut scene = Self { inside, cgroup, _host: host, net, before };
        scene.free_within(Duration::from_secs(2))?;
        Ok(scene)
    }

    /// Everything at once, on every kind of hook: what leaves is held, lost, doubled and shaped,
    /// what arrives is lost, and one port of the server is cut off.
    fn run(&self) -> Result<Run> {
        let netem = rich()
            .with("action", json!("netem"))
            .with("duplicate", json!({"duplicate": "20"}))
            .with("rate", json!({"rate": "100mbit"}));
        let deaf = Manifest::loss("100")
            .with("direction", json!("from"))
            .with("kfault", json!({"ingress": true}));
        let cut = Manifest::new("partition").to(&["10.77.2.2:7777", "[fd00:77:2::2]:7777"]);
        Ok(on_client(&self.net, &netem)?.and(&deaf)?.and(&cut)?.target(&self.cgroup.word()))
    }

    /// kfault has been killed: its faults end in time, and `sweep` takes away the rest.
    fn ensure_over(&mut self) -> Result<()> {
        self.free_within(LEASE + Duration::from_millis(LATENCY_MS) + Duration::from_secs(2))?;
        command(&["sweep"], 0)?;
        let after = Snapshot::of(&self.net)?.and(&self.cgroup)?;
        self.before.ensure_same(&after, "after the sweep")?;
        ensure_nothing_to_sweep()?;
        self.free_within(Duration::from_secs(2)).context("after the sweep")
    }

    /// Every fault ends within `limit`.
    fn free_within(&mut self, limit: Duration) -> Result<()> {
        let end = Instant::now() + limit;
        loop {
            let is_last = Instant::now() > end;
            match self.free() {
                Err(error) if is_last => {
                    return Err(error.context(format!("a fault still acts after {limit:?}")));
                }
                Err(_) => {}
                Ok(()) => return Ok(()),
            }
        }
    }

    /// Packets of the client, to the client and of the cgroup are unharmed.
    fn free(&mut self) -> Result<()> {
        let shape = Probe { patience: Duration::from_millis(50), ..short() };
        let (client, server) = (&self.net.client, &self.net.server);
        for family in FAMILIES {
            let (client_ip, server_ip) = (client.ip(family), server.ip(family));
            let there = udp::run(&client.ns, &server.ns, server_ip, &shape)?;
            ensure_unharmed(&there, &format!("what the client sends ({family:?})"))?;
            let back = udp::run(&server.ns, &client.ns, client_ip, &shape)?;
            ensure_unharmed(&back, &format!("what the client gets ({family:?})"))?;
            let inside = &mut self.inside;
            let sent = udp::run_by(&server.ns, server_ip, &shape, |at| inside.send(at, &shape))?;
            ensure_unharmed(&sent, &format!("what the cgroup sends ({family:?})"))?;
        }
        Ok(())
    }

    /// Packets that a delay holds back while kfault dies.
    fn keep_busy(&self) -> Result<Stream> {
        let (client, server) = (&self.net.client, &self.net.server);
        let every = Duration::from_millis(5);
        Stream::start(&client.ns, &server.ns, server.v4.into(), BUSY_PORT, every)
    }
}

/// What `kfault sweep --output json` says when there is nothing.
const NOTHING: &str = "{\"removed\":[]}";

/// Some packets in a row.
fn short() -> Probe {
    Probe::of(10, Duration::from_millis(2))
}

fn killed_before_any_action_nothing_stays() -> Result<Done> {
    killed_at_every_point("before")
}

fn killed_after_any_action_nothing_stays() -> Result<Done> {
    killed_at_every_point("after")
}

fn killed_at_every_point(stage: &str) -> Result<Done> {
    let mut scene = Scene::new()?;
    let neighbour = Neighbour::start(&scene.net)?;
    // What strains and exchanges do has tests of its own.
    let others = [
        "start-load",
        "end-load",
        "set-limits",
        "restore-limits",
        "begin-exchange",
        "end-exchange",
    ];
    for point in fault_points().into_iter().filter(|one| !others.contains(&one.as_str())) {
        killed_at(&mut scene, &point, stage).with_context(|| format!("killed {stage} {point}"))?;
    }
    neighbour.ensure_unharmed()?;
    Ok(Done::Kept)
}

fn killed_at(scene: &mut Scene, point: &str, stage: &str) -> Result<()> {
    let busy = scene.keep_busy()?;
    let mut kfault = scene.run()?.crashing(point, stage).spawn()?;
    // What applying does not reach, recovering does.
    if kfault.event("applied").is_ok() {
        kfault.signal(libc::SIGINT)?;
    }
    let ended = kfault.end()?;
    ensure!(
        ended.status.signal() == Some(libc::SIGKILL),
        "no manifest reaches this point: kfault ended with {}: {}",
        ended.status,
        ended.errors
    );
    ensure_none_changed(busy)?;
    scene.ensure_over()
}

/// Lost, late or twice, but not with another payload.
fn ensure_none_changed(busy: Stream) -> Result<()> {
    let outcome = busy.finish(Duration::from_millis(50))?;
    ensure!(outcome.wrong == 0, "packets arrived changed: {}", outcome.describe());
    Ok(())
}

/// The same where nothing is being done: every fault acts, and packets are held.
fn killed_while_its_faults_act_nothing_stays() -> Result<Done> {
    let mut scene = Scene::new()?;
    let neighbour = Neighbour::start(&scene.net)?;
    let busy = scene.keep_busy()?;
    let kfault = scene.run()?.start()?;
    std::thread::sleep(Duration::from_millis(2 * LATENCY_MS));
    ensure!(scene.free().is_err(), "no fault acts");
    kfault.kill()?;
    ensure_none_changed(busy)?;
    scene.ensure_over()?;
    neighbour.ensure_unharmed()?;
    Ok(Done::Kept)
}

/// Whether some packets in a row pass at once.
fn passes(net: &Net) -> bool {
    probe(net, Family::V4, &short())
        .is_ok_and(|outcome| outcome.lost() == 0 && outcome.delay(0.5) < LATENCY_MS as f64 / 2.0)
}

fn a_stopped_kfault_loses_its_lease() -> Result<Done> {
    let net = Net::new()?;
    warm_up(&net)?;
    let before = Snapshot::of(&net)?;
    let neighbour = Neighbour::start(&net)?;
    let kfault = on_client(&net, &Manifest::loss("100"))?.start()?;
    ensure!(!passes(&net), "the fault does not act");
    kfault.signal(libc::SIGSTOP)?;
    let start = Instant::now();
    let over = wait_for(LEASE + Duration::from_secs(3), || passes(&net));
    let took = start.elapsed();
    ensure!(over, "the fault still acts {took:?} after kfault was stopped");
    // It had been renewed a second before, at most.
    ensure!(took > LEASE / 2, "the fault was over after {took:?}: too early for the lease");
    kfault.signal(libc::SIGCONT)?;
    ensure!(
        wait_for(Duration::from_secs(5), || !passes(&net)),
        "a kfault that goes on does not renew its lease"
    );
    kfault.stop()?;
    neighbour.ensure_unharmed()?;
    is_over(&net, &before, "after recovery")?;
    Ok(Done::Kept)
}

/// What the delay line holds: a burst that is late would be a fault that nobody declared. A queue
/// of somebody's brings the line to every kernel.
fn packets_that_are_overdue_after_a_stall_are_dropped() -> Result<Done> {
    let net = Net::new()?;
    net.client.ns.tc(&format!("qdisc add dev {DEVICE} root handle 1: pfifo limit 900"))?;
    warm_up(&net)?;
    let before = Snapshot::of(&net)?;
    let neighbour = Neighbour::start(&net)?;
    let latency = format!("{LATENCY_MS}ms");
    let kfault = on_client(&net, &Manifest::delay(&latency))?.start()?;
    let shape = short().patient(Duration::from_millis(2 * LATENCY_MS));
    for family in FAMILIES {
        let held = probe(&net, family, &shape)?;
        ensure!(
            held.lost() == 0 && held.delay(0.0) >= LATENCY_MS as f64,
            "the fault does not act: {}",
            held.describe()
        );
    }
    kfault.signal(libc::SIGSTOP)?;
    let patience = Duration::from_secs(3);
    // They are sent while it stands still, and it goes on a second after they were due.
    let late = std::thread::scope(|scope| {
        let waiting = FAMILIES.map(|family| {
            let net = &net;
            scope.spawn(move || probe(net, family, &short().patient(patience)))
        });
        std::thread::sleep(Duration::from_millis(1000 + LATENCY_MS));
        kfault.signal(libc::SIGCONT)?;
        waiting
            .into_iter()
            .map(|thread| thread.join().map_err(|_| anyhow!("a probe panicked"))?)
            .collect::<Result<Vec<Outcome>>>()
    })?;
    for late in late {
        ensure!(
            late.received() == 0 && late.sent == late.lost(),
            "packets were released late: {}",
            late.describe()
        );
    }
    for family in FAMILIES {
        let held = probe(&net, family, &shape)?;
        ensure!(
            held.lost() == 0 && held.delay(0.0) >= LATENCY_MS as f64,
            "the fault does not go on: {}",
            held.describe()
        );
    }
    kfault.stop()?;
    neighbour.ensure_unharmed()?;
    is_over(&net, &before, "after recovery")?;
    Ok(Done::Kept)
}

/// What a runtime does when a pod goes: the device first, then the namespace.
fn a_namespace_that_vanishes_ends_its_own_fault_only() -> Result<Done> {
    let mut net = Net::new()?;
    warm_up(&net)?;
    let look = |net: &Net| Snapshot::of_all(&[&Ns::here()?, &net.client.ns, &net.server.ns]);
    let before = look(&net)?;
    let mut kfault = on_both(&net)?.start()?;
    net.near.ns.batch(&[&format!("link del {DEVICE}")])?;
    net.near.ns.remove()?;
    one_is_gone(&net, &mut kfault)?;
    kfault.stop()?;
    before.ensure_same(&look(&net)?, "after recovery")?;
    ensure!(wait_for(Duration::from_secs(2), || passes(&net)), "the fault outlives the run");
    ensure_nothing_to_sweep()?;
    Ok(Done::Kept)
}

/// Processes and descriptors keep a namespace without a name alive, and its device with it.
fn a_namespace_that_only_loses_its_name_is_set_free() -> Result<Done> {
    let mut net = Net::new()?;
    warm_up(&net)?;
    let before = without_router(&net)?;
    let mut kfault = on_both(&net)?.start()?;
    ensure!(near(&net)?.received() == 0, "the fault does not act");
    net.near.ns.remove()?;
    one_is_gone(&net, &mut kfault)?;
    unharmed("what has only lost its name", || near(&net))?;
    kfault.stop()?;
    before.ensure_same(&without_router(&net)?, "after recovery")?;
    ensure!(wait_for(Duration::from_secs(2), || passes(&net)), "the fault outlives the run");
    ensure_nothing_to_sweep()?;
    Ok(Done::Kept)
}

fn a_run_whose_targets_are_all_gone_ends_by_itself() -> Result<Done> {
    let mut net = Net::new()?;
    warm_up(&net)?;
    let before = without_router(&net)?;
    let kfault = on_both(&net)?.start()?;
    net.client.ns.remove()?;
    net.near.ns.remove()?;
    ensure_ended_as_gone(kfault)?;
    before.ensure_same(&without_router(&net)?, "after its end")?;
    ensure!(wait_for(Duration::from_secs(2), || passes(&net)), "the fault outlives the run");
    unharmed("what was the other target", || near(&net))?;
    Ok(Done::Kept)
}

/// What does not show the names of namespaces.
fn without_router(net: &Net) -> Result<Snapshot> {
    Snapshot::of_all(&[&Ns::here()?, &net.client.ns, &net.server.ns, &net.near.ns])
}

/// Nothing of the client's and the neighbour's passes.
fn on_both(net: &Net) -> Result<Run> {
    Ok(on_client(net, &Manifest::loss("100"))?.target(&net.near.ns.word()))
}

/// From the neighbour to the server.
fn near(net: &Net) -> Result<Outcome> {
    udp::run(&net.near.ns, &net.server.ns, net.server.v4.into(), &short())
}

/// Waits until kfault says that the neighbour has gone, and only the neighbour; the client's
/// fault goes on.
fn one_is_gone(net: &Net, kfault: &mut Kfault) -> Result<()> {
    let near = net.near.ns.word();
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        let event = kfault.event("counters")?;
        let rules = event["rules"].as_array().cloned().unwrap_or_default();
        let gone: Vec<_> = rules.iter().filter(|rule| rule["targetGone"] == true).collect();
        if let [rule] = gone[..] {
            ensure!(rule["target"] == near.as_str(), "another target is said to have gone: {rule}");
            break;
        }
        ensure!(Instant::now() < end, "nobody says that {near} has gone: {event}");
    }
    ensure!(!passes(net), "the other target's fault has ended with it");
    Ok(())
}

/// The run ends by itself, successfully, and says why.
fn ensure_ended_as_gone(kfault: Kfault) -> Result<()> {
    let ended = kfault.end()?;
    let is_told = ended
        .events
        .iter()
        .any(|event| event["event"] == "recovered" && event["reason"] == "its targets are gone");
    ensure!(
        ended.status.code() == Some(0) && is_told,
        "without targets kfault ended with {}: {}",
        ended.status,
        ended.errors
    );
    ended.summary().map(drop)
}

fn ensure_nothing_to_sweep() -> Result<()> {
    let swept = command(&["sweep", "--output", "json"], 0)?;
    ensure!(swept.trim() == NOTHING, "there was still {swept}");
    Ok(())
}

fn a_device_that_comes_back_is_left_alone() -> Result<Done> {
    let net = Net::new()?;
    warm_up(&net)?;
    let kfault = on_client(&net, &rich())?.start()?;
    ensure!(!passes(&net), "the fault does not act");
    net.client.ns.batch(&[&format!("link del {DEVICE}")])?;
    net.reconnect(&net.client)?;
    let before = Snapshot::of(&net)?;
    ensure!(wait_for(Duration::from_secs(5), || passes(&net)), "the new device is faulted");
    ensure_ended_as_gone(kfault)?;
    // A delay line stands beside the device and goes with the run; nothing else may change.
    let difference = before.difference(&Snapshot::of(&net)?);
    // A filter's first line names nobody; the second one does.
    let ours = |line: &str| {
        line.starts_with("- ") && (line.contains("kfault") || line.ends_with(" bpf chain 0"))
    };
    ensure!(difference.lines().all(ours), "the new device has changed:\n{difference}");
    ensure!(passes(&net), "the new device is faulted after recovery");
    ensure_nothing_to_sweep()?;
    Ok(Done::Kept)
}

fn a_full_map_is_refused_and_nothing_is_left() -> Result<Done> {
    let net = Net::new()?;
    warm_up(&net)?;
    let before = Snapshot::of(&net)?;
    let limits = vec![("PEERS4".to_owned(), 3)];
    let mut engine = Engine::open(&Options { map_limits: limits, ..Options::default() })?;
    let device = targets::device(&net.client.ns, DEVICE)?;
    let prefixes = (0..6).map(|i| format!("172.16.{i}.0/24"));
    let plan = targets::plan(vec![targets::rule(
        &device,
        targets::loss(1.0),
        Peers {
            prefixes: prefixes.map(|p| targets::prefix(&p)).collect::<Result<_>>()?,
            ..Peers::default()
        },
    )]);
    let error = match engine.apply(&plan, &BTreeMap::new()) {
        Ok(()) => bail!("six prefixes fit a map of three"),
        Err(error) => format!("{:#}", anyhow::Error::from(error)),
    };
    ensure!(error.contains("full"), "the message should say that a map is full: {error}");
    is_over(&net, &before, "after a refusal")?;
    // The engine is as good as before.
    let everyone = targets::rule(&device, targets::loss(1.0), Peers::default());
    engine.apply(&targets::plan(vec![everyone]), &BTreeMap::new())?;
    ensure!(!passes(&net), "the engine does nothing any more");
    engine.recover(&|| false)?;
    is_over(&net, &before, "after recovery")?;
    Ok(Done::Kept)
}

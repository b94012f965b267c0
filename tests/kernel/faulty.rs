//! What most tests do: look, inject, measure beside a neighbour, recover, look again.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kfault_tests::kfault::{Kfault, Run, Summary};
use kfault_tests::manifest::Manifest;
use kfault_tests::net::{FAMILIES, Family, Net};
use kfault_tests::ns::Ns;
use kfault_tests::probe::udp::{self, Outcome, Probe, Stream};
use kfault_tests::snapshot::Snapshot;

use crate::harness::Proof;

/// The port of the neighbour's packets.
const NEIGHBOUR_PORT: u16 = 7900;

static EXACT: AtomicBool = AtomicBool::new(false);

/// From now on time is exact: the machine runs on counted instructions.
pub fn be_exact() {
    EXACT.store(true, Ordering::Relaxed);
}

/// Whether it does. Each instruction costs a hundred times as much there, so that nobody wastes any.
pub fn is_exact() -> bool {
    EXACT.load(Ordering::Relaxed)
}

/// Whether a median delay is what was asked for: ±0.1 ms on a machine whose time is exact,
/// within 2 ms and 5 % on one that is shared with others.
pub fn ensure_delay(outcome: &Outcome, target_ms: f64) -> Result<()> {
    let error = outcome.delay(0.5) - target_ms;
    let allowed = if is_exact() { 0.1 } else { 2.0 + target_ms * 0.05 };
    ensure!(
        // No packet leaves early, anywhere.
        error.abs() <= allowed && outcome.delay(0.0) >= target_ms,
        "{target_ms} ms were asked for: {}",
        outcome.describe()
    );
    Ok(())
}

/// That every packet arrived, once, whole, in order, and at once.
pub fn ensure_unharmed(outcome: &Outcome, who: &str) -> Result<()> {
    ensure!(is_whole(outcome) && is_at_once(outcome), "{who} was harmed: {}", outcome.describe());
    Ok(())
}

/// As [`ensure_unharmed`], for a measurement that can be repeated. A machine that is shared with
/// others stops for a moment now and then: there, packets that were late are looked at again.
/// A packet that is missing is not.
pub fn unharmed(who: &str, mut measure: impl FnMut() -> Result<Outcome>) -> Result<()> {
    let attempts = if EXACT.load(Ordering::Relaxed) { 1 } else { 4 };
    for _ in 1..attempts {
        let outcome = measure()?;
        if !is_whole(&outcome) || is_at_once(&outcome) {
            return ensure_unharmed(&outcome, who);
        }
    }
    ensure_unharmed(&measure()?, who)
}

fn is_whole(outcome: &Outcome) -> bool {
    outcome.sent > 0
        && outcome.errors.is_empty()
        && outcome.lost() == 0
        && outcome.duplicates() == 0
        && outcome.wrong == 0
        && outcome.reordered == 0
}

fn is_at_once(outcome: &Outcome) -> bool {
    outcome.delay(0.5) < if EXACT.load(Ordering::Relaxed) { 0.3 } else { 2.0 }
}

/// What the neighbour sends and measures while a fault acts on somebody else.
pub struct Neighbour(Vec<(Family, Stream)>);

impl Neighbour {
    /// Starts both of its streams to the server.
    pub fn start(net: &Net) -> Result<Self> {
        let start = |(family, port): (Family, u16)| {
            let ip = net.server.ip(family);
            let every = Duration::from_millis(10);
            Ok((family, Stream::start(&net.near.ns, &net.server.ns, ip, port, every)?))
        };
        let ports = [NEIGHBOUR_PORT, NEIGHBOUR_PORT + 1];
        FAMILIES.into_iter().zip(ports).map(start).collect::<Result<_>>().map(Self)
    }

    /// Ends them; every packet must have arrived at once.
    pub fn ensure_unharmed(self) -> Result<()> {
        for (family, stream) in self.0 {
            let outcome = stream.finish(Duration::from_millis(100))?;
            ensure_unharmed(&outcome, &format!("the unselected neighbour ({family:?})"))?;
        }
        Ok(())
    }
}

/// A probe from the client to the server.
pub fn probe(net: &Net, family: Family, probe: &Probe) -> Result<Outcome> {
    udp::run(&net.client.ns, &net.server.ns, net.server.ip(family), probe)
        .with_context(|| format!("{family:?} from client to server"))
}

/// A run of one manifest on the client.
pub fn on_client(net: &Net, manifest: &Manifest) -> Result<Run> {
    Ok(Run::of(manifest)?.target(&net.client.ns.word()).seed(1))
}

/// The whole test of a fault on the client: the host is looked at, the fault injected, `check`
/// measures while the neighbour goes on; then the fault is recovered, the client's packets are
/// unharmed again, and the host is as it was.
pub fn with_fault(
    manifest: &Manifest,
    check: impl FnOnce(&Net, &mut Kfault) -> Result<()>,
) -> Result<Summary> {
    let net = Net::new()?;
    let run = on_client(&net, manifest)?;
    with_run(&net, run, |kfault| check(&net, kfault))
}

/// As [`with_fault`], with a network and a command line of the caller's.
pub fn with_run(
    net: &Net,
    run: Run,
    check: impl FnOnce(&mut Kfault) -> Result<()>,
) -> Result<Summary> {
    let before = Snapshot::of(net)?;
    warm_up(net)?;
    let neighbour = Neighbour::start(net)?;
    let mut kfault = run.start()?;
    check(&mut kfault)?;
    let summary = kfault.stop()?;
    neighbour.ensure_unharmed()?;
    is_over(net, &before, "after recovery")?;
    Ok(summary)
}

/// Nothing acts any more and nothing is left.
pub fn is_over(net: &Net, before: &Snapshot, when: &str) -> Result<()> {
    before.ensure_same(&Snapshot::of(net)?, when)?;
    for family in FAMILIES {
        let shape = Probe::of(20, Duration::from_millis(2));
        unharmed(&format!("{when} the former target ({family:?})"), || probe(net, family, &shape))?;
    }
    Ok(())
}

/// The first packet of a connection costs more than the others.
pub fn warm_up(net: &Net) -> Result<()> {
    for family in FAMILIES {
        probe(net, family, &Probe::of(5, Duration::from_millis(1)))?;
    }
    Ok(())
}

/// That a queue can or cannot be had, by trying.
pub fn lacks(kind: &'static str) -> Option<Proof> {
    Proof::by_trying(&format!("no {kind} queue on this kernel"), || {
        let ns = Ns::new("scratch")?;
        ns.tc(&format!("qdisc add dev lo root {kind}")).map(drop)
    })
}

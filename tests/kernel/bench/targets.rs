//! Plans and targets for an engine in this process.

use std::collections::BTreeMap;
use std::os::linux::fs::MetadataExt;
use std::time::Duration;

use anyhow::{Context, Result};
use chaos_user::engine::{Engine, Options};
use chaos_user::plan::{
    Cgroup, Chance, Delay, Device, Direction, Effects, Hook, Peers, Plan, Prefix, Rule,
};
use kfault_tests::cgroup;
use kfault_tests::net::DEVICE;
use kfault_tests::ns::Ns;

/// An engine whose rules act until it recovers: nobody beats here.
pub fn engine() -> Result<Engine> {
    let options = Options { lease: Duration::from_secs(3600), ..Options::default() };
    Engine::open(&options).context("open the engine")
}

/// Makes a plan true.
pub fn apply(engine: &mut Engine, plan: &Plan) -> Result<()> {
    engine.apply(plan, &BTreeMap::new()).context("apply a plan")
}

/// A plan of these rules.
pub fn plan(mut rules: Vec<Rule>) -> Plan {
    rules.sort_by(|a, b| a.id.cmp(&b.id));
    Plan { rules, ..Plan::default() }
}

/// A device of a namespace, as plans name it.
pub fn device(ns: &Ns, name: &str) -> Result<Device> {
    let netns = format!("/run/netns/{}", ns.name());
    let inode = std::fs::metadata(&netns).with_context(|| netns.clone())?.st_ino();
    Ok(Device { netns, inode, name: name.to_owned() })
}

/// The index of a device.
pub fn index(ns: &Ns, name: &str) -> Result<u32> {
    let words = ns.output("ip", &["-o", "link", "show", name])?;
    let number = words.split(':').next().unwrap_or_default();
    number.trim().parse().with_context(|| format!("the index of {name} in {words:?}"))
}

/// A rule for what leaves a device.
pub fn rule(device: &Device, effects: Effects, peers: Peers) -> Rule {
    let target = format!("{} of {}", device.name, device.netns);
    Rule {
        id: format!("NetworkChaos/default/bench/{target}/egress"),
        experiment: "NetworkChaos/default/bench".into(),
        describes: format!("{effects:?} at egress of {target}"),
        target,
        hook: Hook { device: device.clone(), direction: Direction::Egress, cgroup: None },
        peers,
        effects,
        declared: None,
        seed: 1,
        duration: None,
        dry_run: false,
    }
}

/// This share of all packets is lost.
pub fn loss(share: f64) -> Effects {
    let loss = Some(Chance { share, correlation: 0.0 });
    Effects { loss, ..Effects::default() }
}

/// Every packet later by this much.
pub fn delay(latency: Duration) -> Effects {
    let latency_ns = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
    let delay = Delay { latency_ns, jitter_ns: 0, correlation: 0.0, reorder: None };
    Effects { delay: Some(delay), ..Effects::default() }
}

/// A namespace with an `eth0` whose packets reach the other end of a pair in the same
/// namespace, where nobody listens.
pub fn lonely(name: &str) -> Result<Ns> {
    let ns = Ns::new(name)?;
    ns.batch(&[
        &format!("link add {DEVICE} type veth peer name far"),
        &format!("addr add 10.88.0.2/24 dev {DEVICE}"),
        &format!("link set {DEVICE} up"),
        "link set far up",
        &format!("neigh replace 10.88.0.1 lladdr 02:00:00:88:00:01 dev {DEVICE} nud permanent"),
    ])?;
    Ok(ns)
}

/// A prefix with every port of it.
pub fn prefix(text: &str) -> Result<Prefix> {
    Ok(Prefix { net: text.parse().with_context(|| text.to_owned())?, port: None })
}

/// A cgroup, as plans name it.
pub fn named(cgroup: &cgroup::Cgroup) -> Result<Cgroup> {
    let id = std::fs::metadata(cgroup.directory()).context("look at a cgroup")?.st_ino();
    let path = cgroup.path().to_owned();
    let level = u32::try_from(path.matches('/').count())?;
    Ok(Cgroup { path, id, level })
}

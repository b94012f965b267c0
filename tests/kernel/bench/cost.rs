//! What a packet pays for a program that looks at it: nanoseconds by the kernel's test run, above
//! those of a program that does nothing.

use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsFd;

use anyhow::{Context, Result, ensure};
use chaos_user::engine::bpf::{Kind, load_empty, test_run};
use chaos_user::plan::action::Point;
use chaos_user::plan::{Direction, Peers, Plan, Prefix, Rule};
use kfault_tests::cgroup;
use kfault_tests::ns::Ns;
use kfault_tests::stats::quantile;

use super::goal::{Findings, Goal};
use super::targets::{self, device, loss, rule};

/// Runs of a program that the kernel averages over.
const REPEAT: u32 = 200_000;
/// Times that every program is measured, in turn with the others.
const ROUNDS: usize = 15;
const PREFIXES: u32 = 10_000;

/// What is measured, on a device each.
const CASES: [(&str, &str, Goal); 6] = [
    ("other", "attached for a cgroup, packet of another", Goal::AtMost(15.0)),
    ("one", "one rule, not matching", Goal::AtMost(50.0)),
    ("match", "one rule, matching, loss of 0 % rolled", Goal::Told),
    ("miss", "10 000 prefixes, not matching", Goal::AtMost(130.0)),
    ("hit", "10 000 prefixes, matching, loss of 0 % rolled", Goal::AtMost(130.0)),
    (IDLE, "attached, no rule for it", Goal::AtMost(15.0)),
];
const IDLE: &str = "idle";
/// Where the packet goes.
const TO: Ipv4Addr = Ipv4Addr::new(11, 200, 0, 1);

pub fn run(found: &mut Findings) -> Result<()> {
    let ns = Ns::new("cost")?;
    let lines: Vec<String> = CASES
        .iter()
        .flat_map(|(name, _, _)| {
            let add = format!("link add {name} type veth peer name {name}-far");
            [add, format!("link set {name} up")]
        })
        .collect();
    ns.batch(&lines.iter().map(String::as_str).collect::<Vec<_>>())?;
    let elsewhere = cgroup::Cgroup::new("cost")?;
    let plan = plan(&ns, &elsewhere)?;
    let mut engine = targets::engine()?;
    let empty = load_empty(Kind::TcEgress).context("load an empty program")?;
    let packet = packet();
    let mut floor = Vec::new();
    let mut costs = vec![Vec::new(); CASES.len()];
    for _ in 0..ROUNDS {
        targets::apply(&mut engine, &plan)?;
        let ran = test_run(empty.as_fd(), &packet, REPEAT).context("run the empty program")?;
        floor.push(f64::from(ran.nanos));
        for ((name, _, _), costs) in CASES.iter().zip(&mut costs) {
            if *name == IDLE {
                // The hook stays, as between a fault's end and its removal.
                engine.disarm()?;
            }
            let ran = engine.test_run(&point(&ns, name)?, &packet, REPEAT)?;
            ensure!(ran.verdict == u32::MAX, "{name}: verdict {}", ran.verdict);
            costs.push(f64::from(ran.nanos));
        }
    }
    // The least of many: everything else is somebody else's time.
    let floor = quantile(&floor, 0.0);
    let emulated = emulated();
    for ((_, figure, goal), costs) in CASES.iter().zip(&costs) {
        let cost = quantile(costs, 0.0) - floor;
        match &emulated {
            Some(why) => found.not_measured(*figure, "ns", Some(cost), *goal, why),
            None => found.ours(*figure, "ns", cost, *goal),
        }
    }
    found.ours("an empty program in the kernel's harness", "ns", floor, Goal::Told);
    // The rule that shall match has matched, and no other.
    for report in engine.report()?.rules {
        let shall = ["/hit of", "/match of"].iter().any(|name| report.id.contains(name));
        let matched = report.counters.matched;
        ensure!((matched > 0) == shall, "{} matched {matched} packets", report.id);
    }
    engine.recover(&|| true)?;
    Ok(())
}

/// Why nanoseconds say nothing on this machine.
fn emulated() -> Option<String> {
    let text = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let model = text.lines().find(|line| line.starts_with("model name"))?.split_once(": ")?.1;
    model.contains("QEMU").then(|| format!("{model} counts instructions of 2 ns each"))
}

fn point(ns: &Ns, name: &str) -> Result<Point> {
    Ok(Point::Device { device: device(ns, name)?, direction: Direction::Egress })
}

/// A rule at every device.
fn plan(ns: &Ns, elsewhere: &cgroup::Cgroup) -> Result<Plan> {
    let at = |name: &str, peers: Peers| -> Result<Rule> {
        Ok(rule(&device(ns, name)?, loss(0.0), peers))
    };
    let mut in_cgroup = at("other", Peers::default())?;
    in_cgroup.hook.cgroup = Some(targets::named(elsewhere)?);
    let one = Prefix { net: "192.0.2.0/24".parse()?, port: None };
    let miss = prefixes()?;
    let mut hit = miss.clone();
    hit.prefixes.push(Prefix { net: format!("{TO}/32").parse()?, port: None });
    hit.prefixes.sort();
    let only = Prefix { net: format!("{TO}/32").parse()?, port: None };
    Ok(targets::plan(vec![
        at("match", Peers { prefixes: vec![only], ..Peers::default() })?,
        at(IDLE, Peers::default())?,
        in_cgroup,
        at("one", Peers { prefixes: vec![one], ..Peers::default() })?,
        at("miss", miss)?,
        at("hit", hit)?,
    ]))
}

/// Prefixes of 24 to 32 bits in 11.0.0.0/8, spread over it.
fn prefixes() -> Result<Peers> {
    let mut prefixes = Vec::new();
    for number in 0..PREFIXES {
        let length = 24 + number % 9;
        let address = 11 << 24 | number.wrapping_mul(0x9e37_79b1) >> 8;
        let address = Ipv4Addr::from(address & u32::MAX << (32 - length));
        prefixes.push(Prefix { net: format!("{address}/{length}").parse()?, port: None });
    }
    // Not where the packet goes, but all around it: a miss walks as deep as a hit.
    prefixes.retain(|prefix| !prefix.net.contains(&IpAddr::from(TO)));
    prefixes.sort();
    prefixes.dedup();
    Ok(Peers { prefixes, ..Peers::default() })
}

/// An Ethernet frame with 64 bytes of UDP payload.
fn packet() -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x08, 0x00];
    frame.extend([0x45, 0, 0, 92, 0, 0, 0x40, 0, 64, 17, 0, 0, 10, 0, 0, 1]);
    frame.extend(TO.octets());
    frame.extend([0x30, 0x39, 0x1e, 0x61, 0, 72, 0, 0]);
    frame.extend([0x5a; 64]);
    frame
}

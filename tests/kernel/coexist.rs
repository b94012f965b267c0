//! Several faults together, and whatever belongs to others.

use std::os::fd::AsFd;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use chaos_user::engine::bpf::{Kind, link_tcx, load_empty};
use kfault_tests::firewall;
use kfault_tests::kfault::Kfault;
use kfault_tests::manifest::Manifest;
use kfault_tests::net::{DEVICE, FAMILIES, Family, Net};
use kfault_tests::ns::Ns;
use kfault_tests::probe::udp::{Outcome, Probe};
use kfault_tests::snapshot::Snapshot;
use kfault_tests::stats::is_likely;
use serde_json::json;

use crate::bench::targets;
use crate::faulty::{ensure_delay, lacks, on_client, probe, with_fault, with_run};
use crate::harness::{Done, Proof, Test, tests};

pub fn tests() -> Vec<Test> {
    let mut all: Vec<Test> = tests!("composition": blocks_of_one_manifest_act_together)
        .into_iter()
        .map(Test::smoke)
        .collect();
    all.extend(tests!("composition":
        two_manifests_on_one_target_compose,
        a_later_block_sees_what_earlier_ones_left,
    ));
    all.extend(tests!("coexistence":
        a_foreign_root_queue_stays,
        a_foreign_fq_codel_stays,
        a_foreign_netem_stays_and_its_delay_adds_up,
        a_foreign_fq_with_room_is_used_and_stays,
        a_foreign_fq_without_room_is_left_alone,
        a_foreign_tc_filter_stays_and_goes_on_working,
        a_foreign_tcx_program_stays_and_sees_every_packet,
        a_firewall_rule_stays,
    ));
    all
}

const COUNT: usize = 5000;

/// Delay, loss, duplicate and wire corruption at once.
fn blocks_of_one_manifest_act_together() -> Result<Done> {
    let manifest = Manifest::delay("20ms")
        .with("loss", json!({"loss": "10"}))
        .with("duplicate", json!({"duplicate": "20"}))
        .with("corrupt", json!({"corrupt": "5", "correlation": "0"}))
        .to(&["10.77.2.2:7777"]);
    let mut seen = (0, 0);
    let summary = with_fault(&manifest, |net, _| {
        let outcome = probe(net, Family::V4, &Probe::many(COUNT))?;
        // 10 % are lost, 5 % of the others corrupted; 20 % of what is left arrives twice.
        let gone = outcome.lost() as u64;
        let here = outcome.received() as u64;
        ensure!(
            is_likely(gone, COUNT as u64, 0.145),
            "14.5 % should be gone: {}",
            outcome.describe()
        );
        ensure!(
            is_likely(outcome.duplicates() as u64, here, 0.2),
            "20 % of the rest should arrive twice: {}",
            outcome.describe()
        );
        ensure!(outcome.delay(0.0) >= 20.0, "{}", outcome.describe());
        seen = (gone, outcome.duplicates() as u64);
        Ok(())
    })?;
    ensure!(
        summary.total("matched") == COUNT as u64
            && summary.total("lost") + summary.total("corrupted") == seen.0
            && summary.total("duplicated") == seen.1,
        "the probe saw {seen:?} gone and doubled: {}",
        summary.json()
    );
    Ok(Done::Kept)
}

fn two_manifests_on_one_target_compose() -> Result<Done> {
    let net = Net::new()?;
    let delay = Manifest::delay("20ms").named("delay").to(&["10.77.2.2:7777"]);
    let more = Manifest::delay("15ms").named("more").to(&["10.77.0.0/16"]);
    let loss = Manifest::loss("10").named("loss");
    let run = on_client(&net, &delay)?.and(&more)?.and(&loss)?;
    with_run(&net, run, |_| {
        // Thousands of packets for the share, and few for the delay: on one CPU, packets that
        // arrive wait for those that leave.
        let outcome = probe(&net, Family::V4, &Probe::many(COUNT))?;
        ensure!(is_likely(outcome.lost() as u64, COUNT as u64, 0.1), "{}", outcome.describe());
        ensure_delay(&probe(&net, Family::V4, &Probe::default())?, 35.0)?;
        let other = Probe { port: 7778, ..Probe::default() };
        ensure_delay(&probe(&net, Family::V4, &other)?, 15.0)?;
        let six = probe(&net, Family::V6, &Probe::many(COUNT))?;
        ensure!(
            is_likely(six.lost() as u64, COUNT as u64, 0.1) && six.delay(0.5) < 5.0,
            "IPv6 is lost and not delayed: {}",
            six.describe()
        );
        Ok(())
    })?;
    Ok(Done::Kept)
}

/// Partition comes first: what it refuses is neither rolled nor delayed.
fn a_later_block_sees_what_earlier_ones_left() -> Result<Done> {
    let manifest = Manifest::loss("100")
        .with("duplicate", json!({"duplicate": "100"}))
        .with("delay", json!({"latency": "10ms"}))
        .to(&["10.77.2.2:7777"]);
    let summary = with_fault(&manifest, |net, _| {
        let outcome = probe(net, Family::V4, &Probe::many(500))?;
        ensure!(outcome.received() == 0, "{}", outcome.describe());
        Ok(())
    })?;
    ensure!(
        summary.total("lost") == 500
            && summary.total("duplicated") == 0
            && summary.total("delayed") == 0,
        "{}",
        summary.json()
    );
    Ok(Done::Kept)
}

/// Runs a delay and a loss on a client that somebody else has set up; `foreign` are words of the
/// facts that must be there all the time. Gives what the probes measured.
fn beside(
    setup: impl Fn(&Net) -> Result<()>,
    foreign: &[&[&str]],
    check: impl Fn(&Net, &Outcome) -> Result<()>,
) -> Result<Done> {
    let net = Net::new()?;
    setup(&net)?;
    let before = Snapshot::of(&net)?;
    for words in foreign {
        ensure!(before.has(words), "the test has not set up {words:?}");
    }
    let there = |_: &mut Kfault| {
        let now = Snapshot::of(&net)?;
        for words in foreign {
            ensure!(
                now.has(words),
                "{words:?} has gone during the fault:\n{}",
                before.difference(&now)
            );
        }
        let shape = Probe::of(100, Duration::from_millis(4));
        for family in FAMILIES {
            let outcome = probe(&net, family, &shape)?;
            ensure!(outcome.lost() == 0, "{family:?}: {}", outcome.describe());
            check(&net, &outcome)?;
        }
        Ok(())
    };
    let mut kfault = on_client(&net, &Manifest::delay("20ms"))?.start()?;
    there(&mut kfault)?;
    kfault.stop()?;
    before.ensure_same(&Snapshot::of(&net)?, "after recovery")?;
    // Crashed and swept, too.
    let mut kfault = on_client(&net, &Manifest::delay("20ms"))?.start()?;
    there(&mut kfault)?;
    kfault.kill()?;
    kfault_tests::kfault::command(&["sweep"], 0)?;
    before.ensure_same(&Snapshot::of(&net)?, "after a crash and a sweep")?;
    Ok(Done::Kept)
}

fn is_twenty(_: &Net, outcome: &Outcome) -> Result<()> {
    ensure_delay(outcome, 20.0)
}

/// A queue that every kernel has and that keeps no departure times.
fn a_foreign_root_queue_stays() -> Result<Done> {
    let setup = |net: &Net| {
        net.client
            .ns
            .tc(&format!("qdisc add dev {DEVICE} root handle 1: pfifo limit 900"))
            .map(drop)
    };
    beside(setup, &[&["client", "qdisc pfifo 1:", "limit 900p"]], is_twenty)
}

fn a_foreign_fq_codel_stays() -> Result<Done> {
    if let Some(proof) = lacks("fq_codel") {
        return Ok(Done::Cannot(proof));
    }
    let setup = |net: &Net| {
        net.client
            .ns
            .tc(&format!("qdisc add dev {DEVICE} root handle 1: fq_codel limit 5000"))
            .map(drop)
    };
    beside(setup, &[&["client", "qdisc fq_codel 1:", "limit 5000p"]], is_twenty)
}

fn a_foreign_netem_stays_and_its_delay_adds_up() -> Result<Done> {
    if let Some(proof) = lacks("netem") {
        return Ok(Done::Cannot(proof));
    }
    let setup = |net: &Net| {
        net.client
            .ns
            .tc(&format!("qdisc add dev {DEVICE} root handle 1: netem delay 10ms"))
            .map(drop)
    };
    let thirty = |_: &Net, outcome: &Outcome| ensure_delay(outcome, 30.0);
    beside(setup, &[&["client", "qdisc netem 1:", "delay 10ms"]], thirty)
}

/// Delays packets beside an `fq` of somebody's, with these options.
fn beside_fq(options: &str, words: &'static str) -> Result<Done> {
    if let Some(proof) = lacks("fq") {
        return Ok(Done::Cannot(proof));
    }
    let setup = |net: &Net| {
        let line = format!("qdisc add dev {DEVICE} root handle 1: fq {options}");
        net.client.ns.tc(&line).map(drop)
    };
    beside(setup, &[&["client", "qdisc fq 1:", words]], is_twenty)
}

fn a_foreign_fq_with_room_is_used_and_stays() -> Result<Done> {
    beside_fq("limit 100000 flow_limit 100000 horizon 200s", "limit 100000p")
}

/// The default one holds 100 packets of a flow, for ten seconds.
fn a_foreign_fq_without_room_is_left_alone() -> Result<Done> {
    beside_fq("limit 5000", "limit 5000p")
}

/// A program of somebody's on the device, attached by a link (6.6 and newer).
fn a_foreign_tcx_program_stays_and_sees_every_packet() -> Result<Done> {
    let program = load_empty(Kind::TcEgress).context("load a program")?;
    let link = |ns: &Ns, device: &str| {
        let index = targets::index(ns, device)?;
        ns.run(|| link_tcx(Kind::TcEgress, program.as_fd(), index).context("attach by a link"))
    };
    let scratch = Ns::new("scratch")?;
    if let Some(proof) =
        Proof::by_trying("no tcx links on this kernel", || link(&scratch, "lo").map(drop))
    {
        return Ok(Done::Cannot(proof));
    }
    let theirs = std::cell::RefCell::new(None);
    let setup = |net: &Net| {
        *theirs.borrow_mut() = Some(link(&net.client.ns, DEVICE)?);
        Ok(())
    };
    let check = |_: &Net, outcome: &Outcome| ensure_delay(outcome, 20.0);
    beside(setup, &[&["client", "tcx of eth0"]], check)
}

/// A filter of somebody's on `clsact`, which drops one port: it stays and goes on dropping.
fn a_foreign_tc_filter_stays_and_goes_on_working() -> Result<Done> {
    let setup = |net: &Net| {
        let ns = &net.client.ns;
        ns.tc(&format!("qdisc add dev {DEVICE} clsact"))?;
        ns.tc(&format!(
            "filter add dev {DEVICE} egress protocol ip pref 10 u32 match ip dport 7999 0xffff \
             action drop"
        ))
        .map(drop)
    };
    let check = |net: &Net, outcome: &Outcome| {
        ensure_delay(outcome, 20.0)?;
        let shape = Probe { port: 7999, ..Probe::of(20, Duration::from_millis(2)) };
        let dropped = probe(net, Family::V4, &shape)?;
        ensure!(dropped.received() == 0, "the filter drops no more: {}", dropped.describe());
        Ok(())
    };
    let facts: &[&[&str]] = &[&["client", "qdisc clsact"], &["client", "pref 10", "u32"]];
    if let Some(proof) = lacks_drop_action() {
        return Ok(Done::Cannot(proof));
    }
    beside(setup, facts, check)
}

fn lacks_drop_action() -> Option<Proof> {
    Proof::by_trying("no u32 classifier with a drop action on this kernel", || {
        let ns = Ns::new("scratch")?;
        ns.tc("qdisc add dev lo clsact")?;
        ns.tc("filter add dev lo egress protocol ip pref 10 u32 match ip dport 7999 0xffff action drop")
            .map(drop)
    })
}

/// A firewall rule of somebody's stays and goes on counting.
fn a_firewall_rule_stays() -> Result<Done> {
    let setup = |net: &Net| firewall::add(&net.client.ns);
    let scratch = Ns::new("scratch")?;
    // A machine without the tool is one where this test cannot run at all.
    scratch.output("iptables", &["--version"])?;
    if let Some(proof) = Proof::by_trying("no firewall on this kernel", || firewall::add(&scratch))
    {
        return Ok(Done::Cannot(proof));
    }
    let check = |net: &Net, outcome: &Outcome| {
        ensure_delay(outcome, 20.0)?;
        let rules = firewall::dump(&net.client.ns).context("list the rules")?;
        ensure!(rules == 1, "{rules} rules and not 1");
        Ok(())
    };
    beside(setup, &[], check)
}

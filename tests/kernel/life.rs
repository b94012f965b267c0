//! The life of a run: dry runs, durations, seeds, counters, Ctrl-C, one engine per host.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use kfault_tests::bpf;
use kfault_tests::clock::wait_for;
use kfault_tests::kfault::Run;
use kfault_tests::manifest::Manifest;
use kfault_tests::net::{FAMILIES, Family, Net};
use kfault_tests::probe::udp::{Outcome, Probe};
use kfault_tests::snapshot::Snapshot;
use kfault_tests::terminal::Terminal;
use serde_json::json;

use crate::faulty::{
    Neighbour, ensure_unharmed, is_over, on_client, probe, warm_up, with_fault, with_run,
};
use crate::harness::{Done, Test, tests};

pub fn tests() -> Vec<Test> {
    let mut all: Vec<Test> = tests!("run":
        a_duration_ends_the_fault_by_itself,
        a_dry_run_counts_and_harms_nothing,
    )
    .into_iter()
    .map(Test::smoke)
    .collect();
    all.extend(tests!("run":
        an_interrupted_run_recovers_and_ends_with_130,
        a_second_run_is_refused_and_names_the_first,
        the_same_seed_gives_the_same_verdicts,
        another_seed_gives_other_verdicts,
        counters_say_what_the_probe_saw,
        a_host_with_nothing_injected_has_nothing_attached,
        a_terminal_shows_every_rule_while_it_acts,
        warnings_are_said_when_a_manifest_runs,
        a_manifest_that_does_nothing_says_so_and_ends_with_0,
    ));
    all
}

fn a_duration_ends_the_fault_by_itself() -> Result<Done> {
    let net = Net::new()?;
    let before = Snapshot::of(&net)?;
    warm_up(&net)?;
    let neighbour = Neighbour::start(&net)?;
    let kfault = on_client(&net, &Manifest::loss("100"))?.duration("2s").start()?;
    let start = Instant::now();
    let lost = probe(&net, Family::V4, &Probe::of(10, Duration::from_millis(2)))?;
    ensure!(lost.received() == 0, "nothing should arrive: {}", lost.describe());
    let over = wait_for(Duration::from_secs(10), || {
        probe(
            &net,
            Family::V4,
            &Probe { count: 1, patience: Duration::from_millis(20), ..Probe::default() },
        )
        .is_ok_and(|outcome| outcome.received() == 1)
    });
    let took = start.elapsed();
    ensure!(over && took > Duration::from_millis(1700), "it was over after {took:?} and not 2 s");
    ensure!(took < Duration::from_secs(4), "it was over after {took:?} and not 2 s");
    kfault.finish()?;
    neighbour.ensure_unharmed()?;
    is_over(&net, &before, "after the duration")?;
    Ok(Done::Kept)
}

fn a_dry_run_counts_and_harms_nothing() -> Result<Done> {
    let net = Net::new()?;
    let manifests = [
        Manifest::delay("200ms").named("delay").with("loss", json!({"loss": "50"})),
        Manifest::new("partition").named("partition"),
    ];
    for manifest in manifests {
        let manifest = manifest.to(&["10.77.2.2:7777", "[fd00:77:2::2]:7777"]);
        let run = on_client(&net, &manifest)?.dry();
        let summary = with_run(&net, run, |_| {
            for family in FAMILIES {
                let outcome = probe(&net, family, &Probe::many(1000))?;
                // Counted below, so it is not repeated.
                ensure_unharmed(&outcome, "the target of a dry run")?;
            }
            Ok(())
        })?;
        ensure!(
            summary.total("matched") == 2000 && summary.total("injected") == 2000,
            "2000 packets would have been harmed: {}",
            summary.json()
        );
    }
    Ok(Done::Kept)
}

fn an_interrupted_run_recovers_and_ends_with_130() -> Result<Done> {
    // `with_fault` interrupts, wants 130 and compares the host.
    let summary = with_fault(&Manifest::delay("10ms"), |net, kfault| {
        let outcome = probe(net, Family::V4, &Probe::default())?;
        ensure!(outcome.delay(0.0) >= 10.0, "{}", outcome.describe());
        kfault.event("counters").map(drop)
    })?;
    ensure!(summary.json()["exit"] == 130, "{}", summary.json());
    ensure!(
        summary.json()["targets"].as_array().is_some_and(|t| t.len() == 1),
        "{}",
        summary.json()
    );
    Ok(Done::Kept)
}

fn a_second_run_is_refused_and_names_the_first() -> Result<Done> {
    let net = Net::new()?;
    let first = on_client(&net, &Manifest::delay("10ms"))?.start()?;
    let during = Snapshot::of(&net)?;
    let pid = first.pid().to_string();
    let ended = on_client(&net, &Manifest::loss("100"))?.ends_with(3)?;
    ensure!(
        ended.errors.contains(&pid),
        "the owner, process {pid}, is not named: {}",
        ended.errors
    );
    let output = std::process::Command::new("/proc/self/exe")
        .args(["as-kfault", "sweep"])
        .output()
        .context("start kfault sweep")?;
    let words = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(3), "sweep beside a run ended with {}", output.status);
    ensure!(words.contains(&pid), "the owner, process {pid}, is not named: {words}");
    during.ensure_same(&Snapshot::of(&net)?, "after two refusals")?;
    let outcome = probe(&net, Family::V4, &Probe::default())?;
    ensure!(outcome.lost() == 0 && outcome.delay(0.0) >= 10.0, "{}", outcome.describe());
    first.stop()?;
    Ok(Done::Kept)
}

/// Which of many packets of one sender on one CPU arrive, once and twice. The target's name
/// belongs to what is hashed, so runs are compared on one net.
fn verdicts(net: &Net, seed: u64) -> Result<Outcome> {
    let manifest =
        Manifest::loss("20").with("duplicate", json!({"duplicate": "20"})).to(&["10.77.2.2:7777"]);
    let run = Run::of(&manifest)?.target(&net.client.ns.word()).seed(seed);
    let mut outcome = Outcome::default();
    with_run(net, run, |_| {
        outcome = probe(net, Family::V4, &Probe { pinned: true, ..Probe::many(2000) })?;
        Ok(())
    })?;
    Ok(outcome)
}

fn the_same_seed_gives_the_same_verdicts() -> Result<Done> {
    let net = Net::new()?;
    let (first, again) = (verdicts(&net, 42)?, verdicts(&net, 42)?);
    ensure!(first.lost() > 0 && first.copies == again.copies, "the verdicts differ");
    Ok(Done::Kept)
}

fn another_seed_gives_other_verdicts() -> Result<Done> {
    let net = Net::new()?;
    let (first, other) = (verdicts(&net, 42)?, verdicts(&net, 43)?);
    ensure!(first.copies != other.copies, "two seeds gave the same 2000 verdicts");
    Ok(Done::Kept)
}

fn counters_say_what_the_probe_saw() -> Result<Done> {
    let manifest = Manifest::delay("5ms")
        .with("loss", json!({"loss": "25"}))
        .to(&["10.77.2.2:7777", "[fd00:77:2::2]:7777"]);
    let (mut sent, mut arrived) = (0, 0);
    let summary = with_fault(&manifest, |net, kfault| {
        for family in FAMILIES {
            let outcome = probe(net, family, &Probe::many(2000))?;
            sent += outcome.sent as u64;
            arrived += outcome.received() as u64;
            // Not concerned, and so not counted.
            probe(net, family, &Probe { port: 7778, ..Probe::many(500) })?;
        }
        // The live counters get there too, within a beat or two.
        let mut rounds = 0;
        loop {
            let event = kfault.event("counters")?;
            if event["rules"][0]["matched"].as_u64() == Some(sent) {
                return Ok(());
            }
            rounds += 1;
            ensure!(rounds < 20, "live counters stay behind: {event}");
        }
    })?;
    let expected = [
        ("matched", sent),
        ("matchedWire", sent),
        ("injected", sent),
        ("lost", sent - arrived),
        ("delayed", arrived),
        // 64 bytes, UDP, IP and Ethernet headers.
        ("bytes", sent / 2 * (64 + 8 + 20 + 14) + sent / 2 * (64 + 8 + 40 + 14)),
    ];
    for (counter, value) in expected {
        ensure!(summary.total(counter) == value, "{counter} should be {value}: {}", summary.json());
    }
    Ok(Done::Kept)
}

fn a_host_with_nothing_injected_has_nothing_attached() -> Result<Done> {
    let net = Net::new()?;
    let settled = |wanted: (usize, usize)| {
        wait_for(Duration::from_secs(5), || (bpf::programs(), bpf::links()) == wanted)
    };
    let before = Snapshot::of(&net)?;
    let counts = (bpf::programs(), bpf::links());
    let kfault = on_client(&net, &Manifest::delay("10ms"))?.start()?;
    let during = Snapshot::of(&net)?;
    let difference = before.difference(&during);
    ensure!(
        difference
            .lines()
            .filter(|l| l.contains("tcx") || l.contains("filter"))
            .all(|l| l.contains("client")),
        "something is attached where nothing was injected:\n{difference}"
    );
    ensure!((bpf::programs(), bpf::links()) != counts, "no program is loaded during a fault");
    kfault.stop()?;
    before.ensure_same(&Snapshot::of(&net)?, "after recovery")?;
    // The kernel frees programs a moment after their last user has gone.
    ensure!(
        settled(counts),
        "programs or links have stayed: {counts:?} became {:?}",
        (bpf::programs(), bpf::links())
    );
    Ok(Done::Kept)
}

/// The live view, on a terminal as people have one.
fn a_terminal_shows_every_rule_while_it_acts() -> Result<Done> {
    let net = Net::new()?;
    let before = Snapshot::of(&net)?;
    warm_up(&net)?;
    let (delay, loss) = (Manifest::delay("30ms").write()?, Manifest::loss("25").write()?);
    let target = net.client.ns.word();
    let mut args = vec!["run", "--target", &target, "--duration", "60s"];
    let files = [&delay, &loss].map(|file| file.path().display().to_string());
    args.extend(files.iter().map(String::as_str));
    let terminal = Terminal::start(&args)?;
    let is_live = |screen: &str| {
        let heads = ["RULE", "MATCHED", "INJECTED", "RATE/S", "LEFT"];
        heads.iter().all(|head| screen.contains(head))
            && ["delay 30ms", "lose 25% of the packets"].iter().all(|rule| screen.contains(rule))
            && screen.contains("(100 %)")
    };
    let seen = wait_for(Duration::from_secs(30), || {
        let _ = probe(&net, Family::V4, &Probe::of(20, Duration::from_millis(5)));
        is_live(&terminal.screen())
    });
    ensure!(seen, "the live view is missing: {}", terminal.screen());
    let (code, out) = terminal.interrupt()?;
    ensure!(code == Some(130), "interrupted, kfault ended with {code:?}");
    for word in ["declared 25 %", "declared 100 %", "matched"] {
        ensure!(out.contains(word), "the last words lack {word:?}: {out}");
    }
    is_over(&net, &before, "after recovery")?;
    Ok(Done::Kept)
}

fn warnings_are_said_when_a_manifest_runs() -> Result<Done> {
    let net = Net::new()?;
    let manifest = Manifest::loss("150");
    let ended = on_client(&net, &manifest)?.dry().duration("1s").ends_with(0)?;
    ensure!(
        ended.errors.contains("warning: ") && ended.errors.contains("0 to 100"),
        "the warning is missing: {}",
        ended.errors
    );
    Ok(Done::Kept)
}

/// An action without its block.
fn a_manifest_that_does_nothing_says_so_and_ends_with_0() -> Result<Done> {
    let net = Net::new()?;
    let before = Snapshot::of(&net)?;
    let ended = on_client(&net, &Manifest::new("delay"))?.ends_with(0)?;
    ensure!(
        ended.errors.contains("warning: ") && ended.errors.contains("spec.delay"),
        "the warning is missing: {}",
        ended.errors
    );
    is_over(&net, &before, "after a run that did nothing")?;
    Ok(Done::Kept)
}

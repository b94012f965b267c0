//! Hours of injecting and recovering, at random: nothing may pile up.
//!
//! Most cycles use one engine that lives on, as an agent's does; after every [`GENERATION`] of
//! them it goes, `kfault run` takes a turn, and the next engine starts. What must not grow is
//! compared after every cycle.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use chaos_user::engine::Engine;
use chaos_user::plan::Peers;
use kfault_tests::bpf::{Objects, held_by, held_by_us};
use kfault_tests::clock::wait_for;
use kfault_tests::net::{DEVICE, Family, Net};
use kfault_tests::probe::tcp::{PORT, Server, Service, throughput};
use kfault_tests::probe::udp::{Probe, Stream, run as probe};
use kfault_tests::snapshot::Snapshot;
use kfault_tests::stats::quantile;
use kfault_tests::{cgroup, ns};
use serde_json::json;

use crate::bench::targets;
use crate::faulty::{ensure_unharmed, on_client, warm_up};
use random::Random;

pub mod random;

/// Cycles that one engine lives for.
const GENERATION: u32 = 25;
/// The neighbour's and the target's ports.
const PORTS: [u16; 2] = [7900, 7901];
/// Caches grow at first; what is compared is what comes after.
const SETTLED: u32 = 2 * GENERATION;
/// What resident memory may differ by. An allocator does not give everything back.
const SLACK_BYTES: f64 = 6e6;

/// `kernel soak --minutes N [--seed N]`
pub fn main(args: &[OsString]) -> Result<ExitCode> {
    let (minutes, seed) = parse(args)?;
    ns::leave_the_host()?;
    cgroup::remove_leftovers();
    println!("soak: {minutes} minutes, seed {seed}");
    let net = Net::new()?;
    warm_up(&net)?;
    let server = Server::start(&net.server.ns, net.server.v4.into(), PORT, Service::Discard)?;
    let phase = Duration::from_secs_f64((minutes * 60.0 / 10.0).clamp(3.0, 15.0));
    let alone = Paid::measure(&net, &server, phase)?;
    let end = Instant::now() + Duration::from_secs_f64(minutes * 60.0);
    let mut soak = Soak::start(&net, seed)?;
    while Instant::now() < end {
        soak.generation(end)
            .with_context(|| format!("after {} cycles; again with --seed {seed}", soak.cycles))?;
    }
    println!(
        "soak: {} cycles by engines, {} by kfault run, no leak: {}",
        soak.cycles, soak.runs, soak.last
    );
    let beside = soak.beside(&server, phase)?;
    let again = Paid::measure(&net, &server, phase)?;
    alone.compare(&beside, &again);
    Ok(ExitCode::SUCCESS)
}

fn parse(args: &[OsString]) -> Result<(f64, u64)> {
    let (mut minutes, mut seed) = (1.0, now_seed());
    let mut words = args.iter().skip(2).map(|word| word.to_string_lossy().into_owned());
    while let Some(word) = words.next() {
        let mut value = || words.next().with_context(|| format!("{word} needs a number"));
        match word.as_str() {
            "--minutes" => minutes = value()?.parse().context("--minutes")?,
            "--seed" => seed = value()?.parse().context("--seed")?,
            _ => bail!("{word}: soak takes --minutes N and --seed N"),
        }
    }
    Ok((minutes, seed))
}

fn now_seed() -> u64 {
    kfault_tests::clock::now_ns() % 1_000_000
}

/// What must not grow.
#[derive(Clone, Debug, PartialEq)]
struct Footprint {
    files: usize,
    threads: usize,
    objects: Objects,
    host: Snapshot,
}

impl Footprint {
    fn take(net: &Net) -> Result<Self> {
        // First, or it counts what the snapshot opens.
        let objects = held_by_us();
        let count = |path: &str| fs::read_dir(path).map(Iterator::count).unwrap_or(0);
        let (files, threads) = (count("/proc/self/fd"), count("/proc/self/task"));
        Ok(Self { files, threads, objects, host: Snapshot::of(net)? })
    }

    /// Fails with everything that differs.
    fn ensure_same(&self, later: &Self, when: &str) -> Result<()> {
        self.host.ensure_same(&later.host, when)?;
        let more = later.objects.without(&self.objects);
        ensure!(more.count() == 0, "{when} BPF objects are left: {more:?}");
        ensure!(
            later.files <= self.files && later.threads <= self.threads,
            "{when} there are {} files and {} threads, there were {} and {}",
            later.files,
            later.threads,
            self.files,
            self.threads
        );
        Ok(())
    }
}

struct Soak<'a> {
    net: &'a Net,
    random: Random,
    cycles: u32,
    runs: u32,
    /// Resident bytes after the first generations.
    settled: Option<f64>,
    last: String,
}

impl<'a> Soak<'a> {
    fn start(net: &'a Net, seed: u64) -> Result<Self> {
        // The server notices a moment later that a client has gone.
        std::thread::sleep(Duration::from_millis(500));
        let last = String::from("too short for a look at memory");
        Ok(Self { net, random: Random::new(seed), cycles: 0, runs: 0, settled: None, last })
    }

    /// One engine's life, and a `kfault run` after it.
    fn generation(&mut self, end: Instant) -> Result<()> {
        let outside = Footprint::take(self.net)?;
        let mut engine = targets::engine()?;
        // The thread of the delay line starts with the first delay, and stays.
        let device = targets::device(&self.net.client.ns, DEVICE)?;
        let slow = targets::rule(&device, targets::delay(STEP), Peers::default());
        targets::apply(&mut engine, &targets::plan(vec![slow]))?;
        engine.recover(&|| true)?;
        let inside = Footprint::take(self.net)?;
        let mut seen = held_by_us();
        for _ in 0..GENERATION {
            if Instant::now() >= end {
                break;
            }
            seen.extend(self.cycle(&mut engine, &inside)?);
        }
        drop(engine);
        self.all_gone(&seen, "after an engine")?;
        self.same_again(&outside, "after an engine")?;
        if Instant::now() < end {
            self.run()?;
            self.same_again(&outside, "after kfault run")?;
        }
        self.memory()
    }

    /// Objects go a moment after their last user, threads after their last call.
    fn same_again(&self, before: &Footprint, when: &str) -> Result<()> {
        let mut last = Ok(());
        wait_for(Duration::from_secs(5), || {
            last = Footprint::take(self.net).and_then(|now| before.ensure_same(&now, when));
            last.is_ok()
        });
        last
    }

    fn all_gone(&self, seen: &Objects, when: &str) -> Result<()> {
        wait_for(Duration::from_secs(5), || seen.still_there().count() == 0);
        let left = seen.still_there();
        ensure!(left.count() == 0, "{when} the kernel still has {left:?}");
        Ok(())
    }

    /// Injects one to three plans after each other, under traffic, and recovers. The objects
    /// that there were on the way.
    fn cycle(&mut self, engine: &mut Engine, idle: &Footprint) -> Result<Objects> {
        let net = self.net;
        let streams = [
            Stream::start(&net.near.ns, &net.server.ns, net.server.v4.into(), PORTS[0], STEP)?,
            Stream::start(&net.client.ns, &net.server.ns, net.server.v4.into(), PORTS[1], STEP)?,
        ];
        let mut seen = Objects::default();
        let mut story = Vec::new();
        for _ in 0..=self.random.below(3) {
            let plan = self.random.plan(&targets::device(&net.client.ns, DEVICE)?)?;
            story.extend(plan.rules.iter().map(|rule| rule.describes.clone()));
            targets::apply(engine, &plan).with_context(|| format!("{story:?}"))?;
            seen.extend(held_by_us());
            std::thread::sleep(Duration::from_millis(20 + self.random.below(120)));
            engine.report()?;
        }
        let patient = self.random.below(2) == 0;
        engine.recover(&|| !patient).with_context(|| format!("recover from {story:?}"))?;
        let [near, target] = streams;
        ensure_unharmed(&near.finish(Duration::from_millis(30))?, "the unselected neighbour")
            .with_context(|| format!("during {story:?}"))?;
        target.finish(Duration::from_millis(30))?;
        // One look can be unlucky on a busy machine; a fault that is left would stay.
        let mut free = Ok(());
        wait_for(Duration::from_secs(5), || {
            free = self.is_free();
            free.is_ok()
        });
        free.with_context(|| format!("after {story:?}"))?;
        self.all_gone(&seen.without(&idle.objects), "after recovery")?;
        self.same_again(idle, "after recovery").with_context(|| format!("from {story:?}"))?;
        self.cycles += 1;
        Ok(seen)
    }

    fn is_free(&self) -> Result<()> {
        let net = self.net;
        let shape = Probe { patience: Duration::from_millis(30), ..Probe::of(10, STEP) };
        let outcome = probe(&net.client.ns, &net.server.ns, net.server.ip(Family::V4), &shape)?;
        ensure_unharmed(&outcome, "the former target")
    }

    /// The same from the command line; now and then it is killed.
    fn run(&mut self) -> Result<()> {
        let manifest = self.random.manifest();
        let kfault = on_client(self.net, &manifest)?.start()?;
        let held = held_by(&kfault.pid().to_string());
        ensure!(held.count() > 0, "a kfault that runs holds BPF objects");
        if self.random.below(3) == 0 {
            kfault.kill()?;
            chaos_user::engine::sweep().context("sweep after a kill")?;
        } else {
            kfault.stop()?;
        }
        self.runs += 1;
        self.all_gone(&held, "after kfault run")
    }

    fn memory(&mut self) -> Result<()> {
        let resident = resident()?;
        if self.cycles < SETTLED {
            return Ok(());
        }
        let settled = *self.settled.get_or_insert(resident);
        self.last = format!(
            "resident memory {:.1} MB, {:.1} MB when it had settled",
            resident / 1e6,
            settled / 1e6
        );
        ensure!(resident <= settled + SLACK_BYTES, "memory grows: {}", self.last);
        Ok(())
    }

    /// What the neighbour gets while faults come and go.
    fn beside(&mut self, server: &Server, phase: Duration) -> Result<Paid> {
        let mut engine = targets::engine()?;
        let stop = std::sync::atomic::AtomicBool::new(false);
        let (net, random, stop) = (self.net, &mut self.random, &stop);
        std::thread::scope(|scope| {
            let injecting = scope.spawn(move || -> Result<()> {
                let device = targets::device(&net.client.ns, DEVICE)?;
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    targets::apply(&mut engine, &random.plan(&device)?)?;
                    std::thread::sleep(Duration::from_millis(200));
                }
                engine.recover(&|| true)?;
                Ok(())
            });
            let paid = Paid::measure(net, server, phase);
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
            match injecting.join() {
                Ok(result) => result?,
                Err(panic) => std::panic::resume_unwind(panic),
            }
            paid
        })
    }
}

/// Time from one packet of a stream to the next.
const STEP: Duration = Duration::from_millis(2);

fn resident() -> Result<f64> {
    let text = fs::read_to_string("/proc/self/statm").context("read the own memory")?;
    let pages = text.split(' ').nth(1).context("/proc/self/statm")?;
    // SAFETY: plain call.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    Ok(pages.parse::<f64>()? * size as f64)
}

/// What a neighbour has.
struct Paid {
    p50_us: f64,
    p99_us: f64,
    mbit: f64,
}

impl Paid {
    fn measure(net: &Net, server: &Server, time: Duration) -> Result<Self> {
        let packets = (time.as_secs_f64() / STEP.as_secs_f64()) as usize;
        let outcome = probe(
            &net.near.ns,
            &net.server.ns,
            net.server.ip(Family::V4),
            &Probe { port: PORTS[0], ..Probe::of(packets, STEP) },
        )?;
        ensure!(outcome.lost() == 0, "the neighbour lost packets: {}", outcome.describe());
        let delays = outcome.arrived();
        let (bytes, _) = throughput(&net.near.ns, server, time, time / 5)?;
        Ok(Self {
            p50_us: quantile(&delays, 0.5) * 1e3,
            p99_us: quantile(&delays, 0.99) * 1e3,
            mbit: bytes * 8.0 / 1e6,
        })
    }

    /// Prints what it paid, beside phases without kfault before and after.
    fn compare(&self, beside: &Self, again: &Self) {
        println!(
            "{:34} {:>10} {:>10} {:>10} {:>7}",
            "UNSELECTED NEIGHBOUR", "BEFORE", "KFAULT", "AFTER", "RATIO"
        );
        let mut rows = BTreeMap::new();
        rows.insert("latency p50, µs", [self.p50_us, beside.p50_us, again.p50_us]);
        rows.insert("latency p99, µs", [self.p99_us, beside.p99_us, again.p99_us]);
        rows.insert("TCP throughput, Mbit/s", [self.mbit, beside.mbit, again.mbit]);
        for (what, [before, during, after]) in rows {
            let ratio = during / ((before + after) / 2.0);
            println!("{what:34} {before:10.1} {during:10.1} {after:10.1} {ratio:7.3}");
            let line = json!({
                "neighbour": what, "before": before, "during": during, "after": after,
                "ratio": ratio,
            });
            println!("##kfault-soak {line}");
        }
    }
}

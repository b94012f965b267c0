//! Limits of cgroups: they hold, nobody else is hit, and they end: in time, whatever becomes of
//! kfault. Natively with the controllers of v1 and `cgroup.freeze` of v2, in machines with v2 alone.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use kfault_tests::cgroup::Cgroup;
use kfault_tests::clock::wait_for;
use kfault_tests::kfault::{Ended, Run, command};
use kfault_tests::manifest::Manifest;
use kfault_tests::probe::work::{Blocks, Disk, Work, Worker};
use serde_json::{Value, json};

use crate::faulty::is_exact;
use crate::harness::{Done, Proof, Test, tests};

mod crash;
mod freeze;

pub fn tests() -> Vec<Test> {
    let all = tests!("throttle": a_quota_of_a_fifth_is_a_fifth);
    let mut all: Vec<Test> = all.into_iter().map(Test::smoke).collect();
    all.extend(tests!("throttle":
        above_memory_high_the_target_is_slow,
        what_cgroup_v1_cannot_is_refused_by_its_field,
        no_more_tasks_than_pids_max,
        a_disk_is_read_at_its_rate,
        a_disk_is_written_at_its_rate,
        what_was_there_comes_back_byte_for_byte,
        what_somebody_else_changes_stays_and_is_said,
        a_limit_that_another_experiment_sets_is_refused,
        a_controller_that_is_missing_is_named,
        a_cgroup_that_vanishes_ends_the_run,
    ));
    all.extend(crash::tests());
    all.extend(freeze::tests());
    all
}

/// A target and a neighbour, each with a cgroup in every hierarchy.
struct Two {
    target: Cgroup,
    other: Cgroup,
    before: Look,
}

type Look = (BTreeMap<&'static str, String>, BTreeMap<&'static str, String>);

impl Two {
    fn new() -> Result<Self> {
        let (target, other) = (Cgroup::in_all("target")?, Cgroup::in_all("other")?);
        let before = (target.limits()?, other.limits()?);
        Ok(Self { target, other, before })
    }

    fn look(&self) -> Result<Look> {
        Ok((self.target.limits()?, self.other.limits()?))
    }

    /// Everything is as it was when the target was made, or when [`Two::remember`] was called.
    fn is_as_before(&self) -> Result<()> {
        let now = self.look()?;
        ensure!(now == self.before, "limits are {now:?} and were {:?}", self.before);
        Ok(())
    }

    fn remember(&mut self) -> Result<()> {
        self.before = self.look()?;
        Ok(())
    }

    fn run(&self, manifest: &Manifest) -> Result<Run> {
        Ok(Run::of(manifest)?.target(&self.target.word()))
    }

    /// Nothing is left: no limit, no guard, no journal, nothing to sweep.
    fn is_over(&self, within: Duration) -> Result<()> {
        wait_for(within, || self.is_as_before().is_ok() && guards().is_empty());
        self.is_as_before()?;
        ensure!(guards().is_empty(), "guards are left: {:?}", guards());
        ensure!(!Path::new("/run/kfault/limits").exists(), "the journal is left");
        let swept = command(&["sweep", "--output", "json"], 0)?;
        ensure!(swept.trim() == "{\"removed\":[]}", "there was still {swept}");
        Ok(())
    }
}

/// Guards that run, whosever they are: the tests have processes of their own.
fn guards() -> Vec<u32> {
    let pids = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // One that has ended stays a zombie here: nobody waits for it.
        stat.contains("(kf-guard)") && !stat.contains("(kf-guard) Z")
    })
    .collect()
}

fn kill(pid: u32) -> Result<()> {
    let pid = libc::pid_t::try_from(pid).context("a process id")?;
    // SAFETY: plain call; it is a guard that this test's kfault started.
    let done = unsafe { libc::kill(pid, libc::SIGKILL) };
    ensure!(done == 0, "kill {pid}: {}", std::io::Error::last_os_error());
    Ok(())
}

/// The one guard.
fn guard() -> Result<u32> {
    let all = guards();
    ensure!(all.len() == 1, "there should be one guard: {all:?}");
    Ok(all[0])
}

fn quota() -> Manifest {
    Manifest::throttle().named("kft-quota").with("cpu", json!({"quota": "20%"}))
}

fn frozen() -> Manifest {
    Manifest::throttle().named("kft-frozen").with("freeze", json!(true))
}

fn pids(max: u32) -> Manifest {
    Manifest::throttle().named("kft-pids").with("pids", json!({"max": max}))
}

fn figure(summary: &Value, name: &str) -> f64 {
    let strains = summary["strains"].as_array().cloned().unwrap_or_default();
    strains.iter().filter_map(|strain| strain["figures"][name].as_f64()).sum()
}

/// Everything that was said about strains until the end.
fn notes(events: &[Value]) -> String {
    let strains = events.iter().filter_map(|event| event["strains"].as_array()).flatten();
    strains.map(|strain| strain["notes"].to_string()).collect()
}

fn a_quota_of_a_fifth_is_a_fifth() -> Result<Done> {
    let two = Two::new()?;
    let target = Worker::start(&two.target, &Work::Spin)?;
    let other = Worker::start(&two.other, &Work::Spin)?;
    is_without_a_quota(&target).context("as it is")?;
    let run = two.run(&quota())?.start()?;
    // The first period was half over.
    std::thread::sleep(Duration::from_millis(200));
    let (mut tries, mut is_told) = (0, false);
    while !is_told {
        let before = (target.cpu()?, other.cpu()?, Instant::now());
        // Two busy processes are dear where instructions are counted.
        std::thread::sleep(Duration::from_secs(if is_exact() { 2 } else { 5 }));
        let wall = before.2.elapsed().as_secs_f64();
        let share = |worker: &Worker, before| -> Result<f64> {
            Ok(worker.cpu()?.saturating_sub(before).as_secs_f64() / wall)
        };
        let (held, whole) = (share(&target, before.0)?, share(&other, before.1)?);
        println!("share of a processor: {held:.3} at 20 %, neighbour {whole:.3}");
        ensure!(held <= 0.22, "20 % of a processor came to {held:.3}");
        // Where others leave so little to the neighbour, the quota is not what limits.
        is_told = whole > 0.4;
        tries += 1;
        ensure!(!is_told || held >= 0.18, "20 % of a processor came to {held:.3}");
        ensure!(is_told || tries < 6, "the neighbour never had more than {whole:.3}");
    }
    // On hybrid hosts both versions have a file of this name, and one counts.
    let quota = two.other.file("cpu.max").or_else(|| two.other.file("cpu.cfs_quota_us"));
    let throttled = fs::read_to_string(quota.context("no quota")?.with_file_name("cpu.stat"))?;
    ensure!(throttled.contains("nr_throttled 0\n"), "the neighbour was throttled: {throttled}");
    let summary = run.stop()?;
    let (periods, seconds) =
        (figure(summary.json(), "throttledPeriods"), figure(summary.json(), "throttledSeconds"));
    // Ten periods a second, and the target would use each of them up.
    let least = if is_exact() { 15.0 } else { 30.0 };
    ensure!(periods >= least && seconds > 1.0, "{periods} periods, {seconds} s: {summary:?}");
    is_without_a_quota(&target).context("after recovery")?;
    two.is_over(Duration::ZERO)?;
    Ok(Done::Kept)
}

/// More than the quota within some second: on a busy machine not in each.
fn is_without_a_quota(worker: &Worker) -> Result<()> {
    let mut shares = Vec::new();
    for _ in 0..20 {
        let share = worker.share(Duration::from_secs(1))?;
        if share > 0.25 {
            return Ok(());
        }
        shares.push(share);
    }
    anyhow::bail!("it never had more of a processor than {shares:.3?}")
}

const MIB: usize = 1024 * 1024;

fn above_memory_high_the_target_is_slow() -> Result<Done> {
    let two = Two::new()?;
    if let Some(proof) = Proof::by_trying("memory.high", || {
        two.target.file("memory.high").context("no cgroup v2 with memory").map(drop)
    }) {
        return Ok(Done::Cannot(proof));
    }
    let manifest = Manifest::throttle().with("memory", json!({"high": "8Mi"}));
    let mut target = Worker::new(&two.target, &Work::Eat(24 * MIB))?;
    let mut other = Worker::new(&two.other, &Work::Eat(24 * MIB))?;
    let free = other.time()?;
    let run = two.run(&manifest)?.start()?;
    let limit = two.target.read("memory.high")?;
    ensure!(limit.trim() == (8 * MIB).to_string(), "memory.high is {limit}");
    target.begin()?;
    std::thread::sleep(Duration::from_secs(3).max(4 * free));
    // It has no swap: nothing can be reclaimed, and every page above costs a wait.
    let used: usize = two.target.read("memory.current")?.trim().parse()?;
    let slow = other.time()?;
    ensure!(used < 20 * MIB, "it has {used} bytes already");
    ensure!(
        slow < 4 * free + Duration::from_millis(300),
        "the neighbour took {slow:?}, not {free:?}"
    );
    let summary = run.stop()?;
    let events = figure(summary.json(), "memoryHighEvents");
    println!("{used} bytes above 8 MiB of memory.high, {events} events; neighbour {slow:?}");
    ensure!(events > 0.0, "no event was counted: {summary:?}");
    let events = two.other.read("memory.events")?;
    ensure!(events.contains("high 0\n"), "the neighbour was slowed down: {events}");
    let _: bool = target.answer().context("after recovery it should get its memory")?;
    two.is_over(Duration::ZERO)?;
    // Below what is used: applied, and said with both numbers.
    let ended = two.run(&manifest)?.duration("1s").ends_with(0)?;
    let said = notes(&ended.events);
    ensure!(said.contains(&(8 * MIB).to_string()) && said.contains("already"), "{said}");
    two.is_over(Duration::ZERO)?;
    Ok(Done::Kept)
}

/// Runs to its end, which must be a refusal by this host, and touches nothing.
fn refused(two: &Two, manifest: &Manifest, words: &[&str]) -> Result<Ended> {
    let ended = two.run(manifest)?.duration("1s").ends_with(3)?;
    for word in words {
        ensure!(ended.errors.contains(word), "{word:?} is not said: {}", ended.errors);
    }
    two.is_over(Duration::ZERO)?;
    Ok(ended)
}

fn what_cgroup_v1_cannot_is_refused_by_its_field() -> Result<Done> {
    let two = Two::new()?;
    if let Some(proof) = Proof::by_trying("cgroup v1", || {
        let file = two.target.file("blkio.throttle.read_bps_device");
        file.context("this host has no controllers of v1").map(drop)
    }) {
        return Ok(Done::Cannot(proof));
    }
    let high = Manifest::throttle().with("memory", json!({"high": "8Mi"}));
    refused(&two, &high, &["memory.high: ", "cgroup v1", "systemd.unified_cgroup_hierarchy=1"])?;
    // Whole: what it could do is not done either.
    let both = pids(7).with("io", json!({"readBps": "1Mi", "writeBps": "1Mi"}));
    refused(&two, &both, &["io.writeBps: ", "page cache"])?;
    Ok(Done::Kept)
}

fn no_more_tasks_than_pids_max() -> Result<Done> {
    let two = Two::new()?;
    let mut target = Worker::new(&two.target, &Work::Fork(10))?;
    let mut other = Worker::new(&two.other, &Work::Fork(10))?;
    let forks = |worker: &mut Worker| -> Result<(u32, i32)> {
        worker.begin()?;
        worker.answer()
    };
    ensure!(forks(&mut target)? == (10, 0), "it cannot fork as it is");
    let run = two.run(&pids(4))?.start()?;
    let held = forks(&mut target)?;
    ensure!(held == (3, libc::EAGAIN), "4 tasks at most, itself among them: {held:?}");
    ensure!(forks(&mut other)? == (10, 0), "the neighbour cannot fork");
    run.stop()?;
    ensure!(forks(&mut target)? == (10, 0), "it cannot fork after recovery");
    two.is_over(Duration::ZERO)?;
    Ok(Done::Kept)
}

fn a_disk_is_read_at_its_rate() -> Result<Done> {
    let (two, disk) = (Two::new()?, Disk::new(64 * MIB as u64)?);
    let read = |block, count| Work::Read(Blocks { disk: disk.path().into(), block, count });
    let mib = read(64 * 1024, 16);
    let blocks = read(4096, 100);
    for (what, work, io) in [
        ("1 MiB at 512 KiB/s", &mib, json!({"readBps": "512Ki", "devices": [disk.path()]})),
        ("100 reads at 50/s", &blocks, json!({"readIops": 50, "devices": [disk.path()]})),
        ("1 MiB at 512 KiB/s of every disk", &mib, json!({"readBps": "512Ki"})),
    ] {
        two.keeps_its_rate(what, work, &io)?;
    }
    Ok(Done::Kept)
}

fn a_disk_is_written_at_its_rate() -> Result<Done> {
    let (two, disk) = (Two::new()?, Disk::new(64 * MIB as u64)?);
    if let Some(proof) = Proof::by_trying("io.max", || {
        two.target.file("io.max").context("no cgroup v2 with io").map(drop)
    }) {
        return Ok(Done::Cannot(proof));
    }
    let write = |block, count| Work::Write(Blocks { disk: disk.path().into(), block, count });
    let io = json!({"writeBps": "512Ki", "devices": [disk.path()]});
    two.keeps_its_rate("1 MiB at 512 KiB/s", &write(64 * 1024, 16), &io)?;
    let io = json!({"writeIops": 50, "devices": [disk.path()]});
    two.keeps_its_rate("100 writes at 50/s", &write(4096, 100), &io)?;
    // v2 knows whose pages those in the cache are: whoever wrote to the inode first. So the
    // neighbour has a disk of its own.
    let beside = Disk::new(64 * MIB as u64)?;
    let cached = |disk: &Disk| {
        Work::Buffered(Blocks { disk: disk.path().into(), block: 64 * 1024, count: 16 })
    };
    let io = json!({"writeBps": "512Ki", "devices": [disk.path(), beside.path()]});
    let works = (&cached(&disk), &cached(&beside));
    two.keep_their_rates("1 MiB at 512 KiB/s, buffered", works, &io)?;
    Ok(Done::Kept)
}

impl Two {
    /// Work that takes 2 s under the limit, and much less without it.
    fn keeps_its_rate(&self, what: &str, work: &Work, io: &Value) -> Result<()> {
        self.keep_their_rates(what, (work, work), io)
    }

    /// The same with other work for the neighbour.
    fn keep_their_rates(&self, what: &str, works: (&Work, &Work), io: &Value) -> Result<()> {
        let mut target = Worker::new(&self.target, works.0)?;
        let mut other = Worker::new(&self.other, works.1)?;
        let free = target.time()?;
        let run = self.run(&Manifest::throttle().with("io", io.clone()))?.start()?;
        let (held, unheld) = (target.time()?, other.time()?);
        println!("{what}: {held:.2?}, neighbour {unheld:.2?}, without {free:.2?}");
        run.stop()?;
        let freed = target.time()?;
        let seconds = held.as_secs_f64();
        // The kernel lets one slice of 20 to 100 ms pass at the beginning.
        ensure!((1.7..2.6).contains(&seconds), "{what}: it took {seconds:.2} s and not 2 s");
        for (who, took) in [("it", free), ("the neighbour", unheld), ("it, recovered,", freed)] {
            ensure!(took < Duration::from_secs(1), "{what}: {who} took {took:?} without a limit");
        }
        self.is_over(Duration::ZERO).with_context(|| what.to_owned())
    }
}

fn what_was_there_comes_back_byte_for_byte() -> Result<Done> {
    let (mut two, disk) = (Two::new()?, Disk::new(64 * MIB as u64)?);
    let mut everything = Manifest::throttle()
        .with("cpu", json!({"quota": "50%", "of": "limit"}))
        .with("pids", json!({"max": 20}))
        .with("io", json!({"readBps": "1Mi", "devices": [disk.path()]}));
    let is_v2 = two.target.file("memory.high").is_some();
    if is_v2 {
        everything = everything.with("memory", json!({"high": "64Mi"}));
    }
    // "max" and -1 everywhere, then numbers of somebody's.
    let first = two.before.0.clone();
    changes_all_and_ends(&two, &everything)?;
    let number = first.len();
    let device =
        fs::read_to_string(format!("/sys/block/{}/dev", disk.path().trim_start_matches("/dev/")))?;
    let device = device.trim();
    let own = if is_v2 {
        vec![
            ("cpu.max", "30000 60000".to_owned()),
            ("memory.high", "100003840".to_owned()),
            ("pids.max", "77".to_owned()),
            ("io.max", format!("{device} rbps=max wbps=7000000 riops=900 wiops=max")),
        ]
    } else {
        vec![
            ("cpu.cfs_quota_us", "30000".to_owned()),
            ("cpu.cfs_period_us", "60000".to_owned()),
            ("pids.max", "77".to_owned()),
            ("blkio.throttle.read_bps_device", format!("{device} 7000000")),
            ("blkio.throttle.read_iops_device", format!("{device} 900")),
        ]
    };
    for (file, value) in own {
        two.target.write(file, &value)?;
    }
    two.remember()?;
    ensure!(two.before.0.len() == number && two.before.0 != first, "nothing was set");
    changes_all_and_ends(&two, &everything)?;
    // Half of a quota of somebody's.
    let run = two.run(&everything)?.start()?;
    let (file, half) =
        if is_v2 { ("cpu.max", "15000 60000") } else { ("cpu.cfs_quota_us", "15000") };
    let now = two.target.read(file)?;
    ensure!(now.trim() == half, "half of it is {now}");
    run.stop()?;
    two.is_over(Duration::ZERO)?;
    Ok(Done::Kept)
}

fn changes_all_and_ends(two: &Two, everything: &Manifest) -> Result<()> {
    let run = two.run(everything)?.start()?;
    let now = two.look()?;
    let changed = now.0.iter().filter(|(file, value)| two.before.0.get(*file) != Some(value));
    let changed = changed.count();
    let wanted = if two.target.file("memory.high").is_some() { 4 } else { 3 };
    ensure!(changed == wanted, "{changed} files were changed and not {wanted}: {now:?}");
    ensure!(now.1 == two.before.1, "the neighbour's limits have changed: {now:?}");
    let summary = run.stop()?;
    ensure!(notes(&[summary.json().clone()]).matches("somebody").count() == 0, "{summary:?}");
    two.is_over(Duration::ZERO)
}

fn what_somebody_else_changes_stays_and_is_said() -> Result<Done> {
    let mut two = Two::new()?;
    let mut run = two.run(&pids(7).with("cpu", json!({"quota": "20%"})))?.start()?;
    two.target.write("pids.max", "55")?;
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        let event = run.event("counters")?;
        let said = notes(std::slice::from_ref(&event));
        if said.contains("changed to \\\"55\\\" by somebody else") {
            break;
        }
        ensure!(Instant::now() < end, "nobody says it: {event}");
    }
    ensure!(two.target.read("pids.max")?.trim() == "55", "it was written over");
    run.stop()?;
    two.before.0.insert("pids.max", "55\n".into());
    two.is_over(Duration::ZERO)?;
    Ok(Done::Kept)
}

fn a_limit_that_another_experiment_sets_is_refused() -> Result<Done> {
    let two = Two::new()?;
    let other = pids(9).named("kft-other");
    let ended = two.run(&pids(7))?.and(&other)?.spawn()?.end()?;
    ensure!(ended.status.code() != Some(0), "both were applied");
    for word in ["kft-pids", "kft-other", "pids.max"] {
        ensure!(ended.errors.contains(word), "{word:?} is not said: {}", ended.errors);
    }
    two.is_over(Duration::ZERO)?;
    // Different limits of one cgroup are none of each other's business.
    two.run(&pids(7))?.and(&quota())?.start()?.stop()?;
    two.is_over(Duration::ZERO)?;
    Ok(Done::Kept)
}

fn a_controller_that_is_missing_is_named() -> Result<Done> {
    let two = Two::new()?;
    let is_v2 = two.target.file("memory.high").is_some();
    // No controller is handed on to it; in v1 it has no cgroup at all.
    let below = two.target.directory().join("below");
    fs::create_dir(&below).context("make a cgroup below")?;
    let word = format!("{}/below", two.target.word());
    let ended = Run::of(&pids(7))?.target(&word).duration("1s").ends_with(3);
    fs::remove_dir(&below).context("remove the cgroup below")?;
    let errors = ended?.errors;
    let control = format!("{}/cgroup.subtree_control", two.target.directory().display());
    let words = if is_v2 { ["+pids", control.as_str()] } else { ["pids", "cgroup v1"] };
    for word in words {
        ensure!(errors.contains(word), "{word:?} is not said: {errors}");
    }
    two.is_over(Duration::ZERO)?;
    Ok(Done::Kept)
}

fn a_cgroup_that_vanishes_ends_the_run() -> Result<Done> {
    let two = Two::new()?;
    let gone = Cgroup::in_all("gone")?;
    let run =
        Run::of(&frozen().with("cpu", json!({"quota": "20%"})))?.target(&gone.word()).start()?;
    drop(gone);
    let ended = run.end()?;
    ensure!(ended.status.code() == Some(0), "it ended with {}: {}", ended.status, ended.errors);
    two.is_over(Duration::ZERO)?;
    Ok(Done::Kept)
}

//! Workers that use processors, memory and disks in a cgroup: exactly as much as was asked for,
//! in that cgroup alone, and no longer than their engine.

mod ends;
mod refused;
mod scene;

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use kfault_tests::clock::wait_for;
use kfault_tests::manifest::Manifest;
use kfault_tests::probe::work::{Work, Worker};
use serde_json::json;

use crate::faulty::is_exact;
use crate::harness::{Done, Proof, Test, tests};
use scene::{
    Scene, cpu_ns, figures, limit_cpu, limit_memory, memory_bytes, oom_kills, strain,
    used_and_waited,
};

pub fn tests() -> Vec<Test> {
    let mut all: Vec<Test> = tests!("stress":
        each_cpu_worker_uses_its_share,
        memory_grows_by_its_size,
        workers_of_a_kfault_that_is_killed_die_at_once,
    )
    .into_iter()
    .map(Test::smoke)
    .collect();
    all.extend(tests!("stress":
        full_workers_use_all_they_can_get,
        a_throttled_worker_does_not_make_up_for_it_for_ever,
        memory_grows_steadily_to_its_size,
        a_share_of_the_limit_is_of_the_lowest_limit,
        a_worker_that_is_killed_for_want_of_memory_is_reported_and_started_again,
        where_the_kernel_kills_the_whole_cgroup_that_is_said_and_happens,
        memory_workers_have_the_score_that_was_asked_for,
        sync_and_disk_workers_write_and_leave_no_file,
        a_dry_run_starts_nobody,
        without_v2_a_worker_is_in_the_cgroups_of_v1,
    ));
    let dear = tests!("stress": hundreds_of_workers_share_what_there_is);
    all.extend(dear.into_iter().map(Test::dear));
    all.extend(ends::tests());
    all.extend(refused::tests());
    all
}

use ends::workers_of_a_kfault_that_is_killed_die_at_once;

/// How long a share is measured: where nobody else wants the processor, a shorter look says as much.
fn window() -> Duration {
    Duration::from_secs(if is_exact() { 3 } else { 10 })
}

/// How far a worker may be off, percentage points.
const CPU_ERROR: f64 = 2.0;
/// How far memory may be off, as a share.
const MEMORY_ERROR: f64 = 0.02;
/// The kernel charges memory in batches, per processor (`MEMCG_CHARGE_BATCH`, 64 pages).
const BATCHES: u64 = 512 << 10;

fn each_cpu_worker_uses_its_share() -> Result<Done> {
    uses_its_share(2, 30)?;
    // Natively somebody else may want the processor, which the machines have for themselves.
    if is_exact() {
        uses_its_share(1, 50)?;
        uses_its_share(1, 75)?;
    }
    Ok(Done::Kept)
}

fn uses_its_share(count: usize, load: u32) -> Result<()> {
    let scene = Scene::new()?;
    let manifest = Manifest::stress(&json!({"cpu": {"workers": count, "load": load}}));
    let said = scene.with(&manifest, |kfault| {
        let workers = scene.workers()?;
        ensure!(workers.len() == count, "{count} workers were asked for: {workers:?}");
        let shares = exact(&scene, &workers, kfault.pid(), f64::from(load))?;
        println!("{shares:.3?}");
        // What a run does by itself, its events among it.
        ensure!(shares.kfault <= 1.0, "kfault itself used {:.2} %", shares.kfault);
        Ok(())
    })?;
    let figures = &said["figures"];
    ensure!(figures["workers"] == count && figures["running"] == count, "{figures}");
    for name in ["cpuSeconds", "cgroupCpuSeconds"] {
        let seconds = figures[name].as_f64().context("a figure")?;
        let whole = count as f64 * f64::from(load) / 100.0;
        let least = window().as_secs_f64() * whole * 0.9;
        ensure!((least..60.0).contains(&seconds), "{name} is {seconds}, at least {least} is due");
    }
    Ok(())
}

/// Percent of one processor, over some seconds.
#[derive(Debug)]
struct Shares {
    /// Used by each worker.
    used: Vec<f64>,
    /// For which each worker waited.
    waited: Vec<f64>,
    /// Counted by the cgroup.
    cgroup: f64,
    /// Used by kfault itself.
    kfault: f64,
}

/// The shares of workers, each of which must be this. Nobody gets his share where others want all
/// of it: a worker that had to wait for a third of the time or more is measured again.
fn exact(scene: &Scene, workers: &[u32], kfault: u32, wanted: f64) -> Result<Shares> {
    for attempt in 1.. {
        let shares = shares(scene, workers, kfault)?;
        let sum = wanted * workers.len() as f64;
        let is_exact = shares.used.iter().all(|used| (used - wanted).abs() <= CPU_ERROR)
            && (shares.cgroup - sum).abs() <= CPU_ERROR * workers.len() as f64;
        if is_exact {
            return Ok(shares);
        }
        let is_starved = shares.waited.iter().any(|waited| *waited > 33.0);
        ensure!(is_starved && attempt < 6, "{wanted} % were asked for: {shares:.2?}");
    }
    anyhow::bail!("never measured")
}

fn shares(scene: &Scene, workers: &[u32], kfault: u32) -> Result<Shares> {
    let all = || workers.iter().map(|pid| used_and_waited(*pid)).collect::<Result<Vec<_>>>();
    let (workers, own) = (all()?, used_and_waited(kfault)?.0);
    let (cgroup, start) = (cpu_ns(&scene.target)?, Instant::now());
    std::thread::sleep(window());
    let took = start.elapsed().as_secs_f64();
    let percent = |ns: u64| ns as f64 / 1e7 / took;
    let cgroup = percent(cpu_ns(&scene.target)? - cgroup);
    let after = all()?;
    let pairs = || workers.iter().zip(&after);
    Ok(Shares {
        used: pairs().map(|(before, after)| percent(after.0 - before.0)).collect(),
        waited: pairs().map(|(before, after)| percent(after.1 - before.1)).collect(),
        cgroup,
        kfault: percent(used_and_waited(kfault)?.0 - own),
    })
}

fn full_workers_use_all_they_can_get() -> Result<Done> {
    let scene = Scene::new()?;
    // Without a load it is 100 %.
    scene.with(&Manifest::stress(&json!({"cpu": {"workers": 1}})), |_| {
        let workers = scene.workers()?;
        let [pid] = workers.as_slice() else { anyhow::bail!("one worker: {workers:?}") };
        // It is never idle: what it does not get, it waits for. What a hypervisor takes is neither.
        let mut shares = Vec::new();
        while shares.len() < 5 {
            let (before, start) = (used_and_waited(*pid)?, Instant::now());
            std::thread::sleep(window() / 2);
            let (after, took) = (used_and_waited(*pid)?, start.elapsed().as_nanos() as f64);
            let busy = (after.0 - before.0 + after.1 - before.1) as f64 * 100.0 / took;
            if (busy - 100.0).abs() <= CPU_ERROR {
                return Ok(());
            }
            shares.push(busy);
        }
        anyhow::bail!("used or waited for {shares:.2?} % of the time")
    })?;
    Ok(Done::Kept)
}

fn a_throttled_worker_does_not_make_up_for_it_for_ever() -> Result<Done> {
    let scene = Scene::new()?;
    limit_cpu(&scene.target, 10)?;
    scene.with(&Manifest::stress(&json!({"cpu": {"workers": 1, "load": 50}})), |kfault| {
        let throttled = strain(kfault, Duration::from_secs(20), "throttling", |strain| {
            strain["figures"]["throttledPeriods"].as_u64() > Some(20)
        })?;
        let seconds = throttled["figures"]["throttledSeconds"].as_f64();
        ensure!(seconds > Some(0.0), "throttled for {seconds:?} s: {throttled}");
        let workers = scene.workers()?;
        limit_cpu(&scene.target, 100)?;
        // Seconds of work are missing by now; at most 80 ms of them are made up for.
        std::thread::sleep(Duration::from_millis(500));
        let shares = exact(&scene, &workers, kfault.pid(), 50.0)?;
        println!("after it was throttled: {shares:.3?}");
        Ok(())
    })?;
    Ok(Done::Kept)
}

/// What the cgroup's memory grows by once it grows no more.
fn grown(scene: &Scene, before: u64, size: u64) -> Result<u64> {
    let mut last = 0;
    // The last pages come late on an emulated machine.
    for _ in 0..100 {
        std::thread::sleep(Duration::from_millis(200));
        let now = memory_bytes(&scene.target)?.saturating_sub(before);
        if now == last && now > size / 2 {
            break;
        }
        last = now;
    }
    Ok(last)
}

fn ensure_size(grown: u64, size: u64) -> Result<()> {
    let off = grown.abs_diff(size);
    let allowed = (size as f64 * MEMORY_ERROR) as u64;
    println!("memory: {size} asked for, grown by {grown} ({:+})", grown as i64 - size as i64);
    ensure!(off <= allowed.max(BATCHES), "{size} bytes were asked for, it has grown by {grown}");
    Ok(())
}

fn memory_grows_by_its_size() -> Result<Done> {
    let scene = Scene::new()?;
    for (workers, size, text) in [(1, 64_000_000, "64MB"), (3, 100_000_000, "100MB")] {
        let before = memory_bytes(&scene.target)?;
        let manifest = Manifest::stress(&json!({"memory": {"workers": workers, "size": text}}));
        let said = scene.with(&manifest, |kfault| {
            ensure_size(grown(&scene, before, size)?, size)?;
            // Reports of the time before lie in the queue.
            let resident = |strain: &serde_json::Value| {
                strain["figures"]["residentBytes"].as_u64().unwrap_or_default()
            };
            let is_whole = |strain: &serde_json::Value| resident(strain) > size / 100 * 98;
            let said = strain(kfault, Duration::from_secs(10), "its size", is_whole)?;
            ensure_size(resident(&said), size)?;
            for pid in scene.workers()? {
                let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
                let locked = status.lines().find_map(|line| line.strip_prefix("VmLck:"));
                let locked = locked.context("VmLck")?.trim().trim_end_matches(" kB");
                let locked: u64 = locked.parse().context("VmLck")?;
                ensure!(locked * 1024 > size / workers / 2, "worker {pid} keeps {locked} kB");
            }
            Ok(())
        })?;
        ensure!(said["figures"]["restarts"] == 0, "{said}");
        let left = memory_bytes(&scene.target)?.saturating_sub(before);
        // Batches, and what the kernel keeps of processes that have been (slabs).
        ensure!(left <= 2 * BATCHES, "{left} bytes are left after recovery");
    }
    Ok(Done::Kept)
}

fn memory_grows_steadily_to_its_size() -> Result<Done> {
    let scene = Scene::new()?;
    let (size, ramp): (u64, f64) = (64_000_000, 8.0);
    let memory = json!({"workers": 2, "size": "64MB", "options": ["--time", "8s"]});
    let before = memory_bytes(&scene.target)?;
    scene.with(&Manifest::stress(&json!({"memory": memory})), |_| {
        let start = Instant::now();
        let (mut last, mut steps) = (0, 0);
        loop {
            std::thread::sleep(Duration::from_millis(250));
            let passed = start.elapsed().as_secs_f64();
            let share = memory_bytes(&scene.target)?.saturating_sub(before) as f64 / size as f64;
            let due = (passed / ramp).min(1.0);
            // It began a moment before it was told to have begun.
            ensure!(
                share <= due + 0.15 && share >= due - 0.15,
                "after {passed:.2} s of {ramp} it has {:.0} % of its size",
                share * 100.0
            );
            let now = (share * 1000.0) as u64;
            steps += u32::from(now > last);
            last = now;
            if passed > ramp + 0.5 {
                break;
            }
        }
        ensure!(steps >= 15, "it grew in {steps} steps");
        ensure_size(grown(&scene, before, size)?, size)
    })?;
    Ok(Done::Kept)
}

fn a_share_of_the_limit_is_of_the_lowest_limit() -> Result<Done> {
    let scene = Scene::new()?;
    limit_memory(&scene.target, 128 << 20)?;
    let before = memory_bytes(&scene.target)?;
    let manifest = Manifest::stress(&json!({"memory": {"workers": 1, "size": "50%"}}))
        .with("kfault", json!({"memoryOf": "limit"}));
    let size = 64 << 20;
    scene.with(&manifest, |_| ensure_size(grown(&scene, before, size)?, size))?;
    ensure!(oom_kills(&scene.target)? == 0, "half of the limit is below it");
    Ok(Done::Kept)
}

fn a_worker_that_is_killed_for_want_of_memory_is_reported_and_started_again() -> Result<Done> {
    let scene = Scene::new()?;
    limit_memory(&scene.target, 32 << 20)?;
    let manifest = Manifest::stress(&json!({"memory": {"workers": 1, "size": "64MB"}}));
    let start = Instant::now();
    scene.with(&manifest, |kfault| {
        let patience = Duration::from_secs(60);
        let strain = strain(kfault, patience, "the third worker's death", |strain| {
            strain["figures"]["oomKills"].as_u64() >= Some(3)
        })?;
        // 1 s and 2 s lie between the three.
        let took = start.elapsed();
        ensure!(took >= Duration::from_secs(3), "three workers died within {took:?}: a busy loop");
        let figures = &strain["figures"];
        ensure!(figures["restarts"].as_u64() >= Some(2), "{figures}");
        let notes = strain["notes"].to_string();
        for words in ["killed for want of memory (OOM) by the kernel", "when memory runs out"] {
            ensure!(notes.contains(words), "nobody says {words:?}: {notes}");
        }
        ensure!(strain["targetGone"] == false, "{strain}");
        Ok(())
    })?;
    ensure!(oom_kills(&scene.target)? >= 3, "the kernel counted {}", oom_kills(&scene.target)?);
    Ok(Done::Kept)
}

fn where_the_kernel_kills_the_whole_cgroup_that_is_said_and_happens() -> Result<Done> {
    let scene = Scene::new()?;
    if let Some(proof) = Proof::by_trying("memory.oom.group", || {
        scene.target.file("memory.oom.group").context("no cgroup v2 with memory").map(drop)
    }) {
        return Ok(Done::Cannot(proof));
    }
    scene.target.write("memory.oom.group", "1")?;
    limit_memory(&scene.target, 32 << 20)?;
    let mut own = Worker::start(&scene.target, &Work::Eat(1 << 20))?;
    let _: bool = own.answer()?;
    let manifest = Manifest::stress(&json!({"memory": {"workers": 1, "size": "64MB"}}));
    let mut kfault = scene.run(&manifest)?.start()?;
    let is_killed = || {
        let stat = fs::read_to_string(format!("/proc/{}/stat", own.pid())).unwrap_or_default();
        stat.is_empty() || stat.contains(") Z ")
    };
    ensure!(wait_for(Duration::from_secs(30), is_killed), "the target's own process lives");
    let killed = strain(&mut kfault, Duration::from_secs(20), "the kernel's reason", |strain| {
        strain["figures"]["oomKills"].as_u64() >= Some(1)
    })?;
    let notes = killed["notes"].to_string();
    ensure!(notes.contains("memory.oom.group"), "nobody says what decides: {notes}");
    drop(own);
    kfault.stop()?;
    scene.ensure_over("after recovery")?;
    Ok(Done::Kept)
}

fn memory_workers_have_the_score_that_was_asked_for() -> Result<Done> {
    let scene = Scene::new()?;
    let stress = |score: i32| {
        let memory = json!({"workers": 1, "size": "8MB", "oomScoreAdj": score});
        Manifest::stress(&json!({"memory": memory, "cpu": {"workers": 1, "load": 1}}))
    };
    for score in [-500, 0, 700] {
        if score < 0 && !may_lower_scores()? {
            let ended = scene.run(&stress(score))?.ends_with(3)?;
            ensure!(ended.errors.contains("CAP_SYS_RESOURCE"), "{}", ended.errors);
            scene.ensure_over("after the refusal")?;
            continue;
        }
        scene.with(&stress(score), |_| {
            for pid in scene.workers()? {
                let command = fs::read_to_string(format!("/proc/{pid}/cmdline"))?;
                let wanted = if command.contains("\0memory\0") { score } else { 0 };
                let has = fs::read_to_string(format!("/proc/{pid}/oom_score_adj"))?;
                ensure!(has.trim() == wanted.to_string(), "{command}: {has}, wanted {wanted}");
            }
            Ok(())
        })?;
    }
    Ok(Done::Kept)
}

/// CAP_SYS_RESOURCE, number 24.
fn may_lower_scores() -> Result<bool> {
    let status = fs::read_to_string("/proc/self/status").context("what this process may")?;
    let all = status.lines().find_map(|line| line.strip_prefix("CapEff:")).context("CapEff")?;
    Ok(u64::from_str_radix(all.trim(), 16).context("CapEff")? >> 24 & 1 == 1)
}

/// What a process has written, and in how many calls.
fn written(pid: u32) -> Result<(u64, u64)> {
    let text = fs::read_to_string(format!("/proc/{pid}/io")).context("what a worker wrote")?;
    let of = |name: &str| {
        let value = text.lines().find_map(|line| line.strip_prefix(name)).context("a field")?;
        value.trim().parse::<u64>().context("a number")
    };
    Ok((of("wchar:")?, of("syscw:")?))
}

fn sync_and_disk_workers_write_and_leave_no_file() -> Result<Done> {
    let scene = Scene::new()?;
    let names = || -> Result<Vec<_>> {
        let mut all: Vec<_> =
            ["/", "/tmp", "/var/tmp"].iter().flat_map(fs::read_dir).flatten().flatten().collect();
        all.retain(|entry| entry.file_name().to_string_lossy().contains("kfault-worker"));
        Ok(all)
    };
    scene.with(&Manifest::stress_ng("--io 1 --hdd 1 --hdd-bytes 16M"), |_| {
        let workers = scene.workers()?;
        ensure!(workers.len() == 2, "{workers:?}");
        for pid in workers {
            let command = fs::read_to_string(format!("/proc/{pid}/cmdline"))?;
            let before = written(pid)?;
            let busy = wait_for(Duration::from_secs(30), || {
                written(pid).is_ok_and(|now| now.1 > before.1 + 20)
            });
            ensure!(busy, "{command} does not write: {before:?}, then {:?}", written(pid)?);
            let files: Vec<String> = fs::read_dir(format!("/proc/{pid}/fd"))?
                .flatten()
                .filter_map(|fd| Some(fs::read_link(fd.path()).ok()?.display().to_string()))
                .filter(|path| path.ends_with(" (deleted)"))
                .collect();
            ensure!(files.len() == 1, "{command} has one file without a name: {files:?}");
        }
        ensure!(names()?.is_empty(), "a file with a name");
        Ok(())
    })?;
    ensure!(names()?.is_empty(), "a file was left");
    Ok(Done::Kept)
}

fn hundreds_of_workers_share_what_there_is() -> Result<Done> {
    const MANY: u64 = 200;
    let scene = Scene::new()?;
    let manifest = Manifest::stress(&json!({"cpu": {"workers": MANY, "load": 1}}));
    let said = scene.with(&manifest, |kfault| {
        let patience = Duration::from_secs(60);
        strain(kfault, patience, "all of them", |one| one["figures"]["running"] == MANY)?;
        let workers = scene.workers()?;
        ensure!(workers.len() as u64 == MANY, "{} of {MANY}", workers.len());
        let before = cpu_ns(&scene.target)?;
        std::thread::sleep(Duration::from_secs(1));
        ensure!(cpu_ns(&scene.target)? - before > 300_000_000, "together they do nothing");
        Ok(())
    })?;
    ensure!(said["figures"]["restarts"] == 0, "{said}");
    Ok(Done::Kept)
}

fn a_dry_run_starts_nobody() -> Result<Done> {
    let scene = Scene::new()?;
    let stressors = json!({"cpu": {"workers": 1}, "memory": {"workers": 1, "size": "8MB"}});
    let mut kfault = scene.run(&Manifest::stress(&stressors))?.dry().start()?;
    let said = figures(&mut kfault)?;
    ensure!(said["workers"] == 2 && said["running"] == 0, "{said}");
    ensure!(scene.target.is_empty(), "somebody works");
    kfault.stop()?;
    scene.ensure_over("after a dry run")?;
    Ok(Done::Kept)
}

/// A host that has v1 alone.
fn without_v2_a_worker_is_in_the_cgroups_of_v1() -> Result<Done> {
    let scene = Scene::new()?;
    let file = || scene.target.file("cpuacct.usage").context("no processor time in cgroup v1");
    if let Some(proof) = Proof::by_trying("cgroup v1", || file().map(drop)) {
        return Ok(Done::Cannot(proof));
    }
    let cpu = Manifest::stress(&json!({"cpu": {"workers": 1, "load": 50}}));
    let kfault = scene.run(&cpu)?.without_v2().start()?;
    let workers = fs::read_to_string(file()?.with_file_name("cgroup.procs"))?;
    let workers: Vec<&str> = workers.lines().collect();
    ensure!(workers.len() == 1, "one worker was asked for: {workers:?}");
    let cgroups = fs::read_to_string(format!("/proc/{}/cgroup", workers[0]))?;
    let is_in = |name: &str| {
        let mut all = cgroups.lines().filter(|line| line.contains(name));
        all.any(|line| line.ends_with(scene.target.path()))
    };
    ensure!(is_in(":freezer:") && is_in("cpuacct") && is_in("pids"), "it is in {cgroups}");
    std::thread::sleep(Duration::from_secs(3));
    let summary = kfault.stop()?;
    let figures = &summary.json()["strains"][0]["figures"];
    let used = figures["cgroupCpuSeconds"].as_f64().context("a figure")?;
    println!("{used} s of a processor in 3 s at 50 %");
    // Somebody else may want the processor.
    ensure!((0.5..3.0).contains(&used), "a worker at 50 % used {used} s");
    scene.ensure_over("after recovery")?;
    Ok(Done::Kept)
}

//! Every way in which workers end.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use chaos_user::engine::strain::Strains;
use chaos_user::plan::strain::{Amount, CpuLoad, DiskLoad, Grip, Load, MemoryLoad, Place, Strain};
use kfault_tests::cgroup::Cgroup;
use kfault_tests::clock::wait_for;
use kfault_tests::kfault::{LEASE, command};
use kfault_tests::manifest::Manifest;
use kfault_tests::ns::Ns;
use kfault_tests::probe::process::Process;
use serde_json::json;

use super::scene::{Scene, pids, strain};
use crate::faulty::is_exact;
use crate::harness::{Done, Test, tests};

pub fn tests() -> Vec<Test> {
    let mut all = tests!("stress":
        workers_of_a_kfault_that_is_stopped_end_with_the_lease,
        workers_end_with_the_first_process_of_their_target,
        a_duration_ends_them,
        a_worker_that_is_killed_has_a_successor,
        a_cgroup_that_is_removed_ends_the_run,
        a_stray_worker_is_swept,
    );
    let dear = tests!("stress": many_starts_and_ends_leave_nothing);
    all.extend(dear.into_iter().map(Test::dear));
    all
}

/// Some of every kind.
fn all_kinds() -> Manifest {
    Manifest::stress_ng("--cpu 2 --cpu-load 5 --vm 1 --vm-bytes 16M --io 1 --hdd 1 --hdd-bytes 1M")
}

pub fn workers_of_a_kfault_that_is_killed_die_at_once() -> Result<Done> {
    let scene = Scene::new()?;
    let kfault = scene.run(&all_kinds())?.start()?;
    ensure!(scene.workers()?.len() == 5, "{:?}", scene.workers()?);
    let start = Instant::now();
    kfault.kill()?;
    ensure!(scene.is_empty_within(LEASE), "workers live on: {:?}", scene.workers()?);
    let took = start.elapsed();
    println!("gone {took:?} after kill -9");
    ensure!(took < Duration::from_secs(2), "at once is not {took:?}");
    scene.ensure_over("after kill -9")?;
    let swept = command(&["sweep", "--output", "json"], 0)?;
    ensure!(!swept.contains("worker"), "there was a worker to sweep: {swept}");
    Ok(Done::Kept)
}

fn workers_of_a_kfault_that_is_stopped_end_with_the_lease() -> Result<Done> {
    let scene = Scene::new()?;
    let mut kfault = scene.run(&all_kinds())?.start()?;
    // Until beats have come: they are what holds them alive.
    std::thread::sleep(LEASE + Duration::from_secs(1));
    ensure!(scene.workers()?.len() == 5, "{:?}", scene.workers()?);
    kfault.signal(libc::SIGSTOP)?;
    let start = Instant::now();
    let over = scene.is_empty_within(LEASE + Duration::from_secs(2));
    let took = start.elapsed();
    // Zombies are in no cgroup; nobody waits for them now.
    ensure!(over, "workers outlive the lease: {:?}", scene.workers()?);
    println!("gone {took:?} after SIGSTOP");
    ensure!(took > LEASE - Duration::from_millis(1500), "gone after {took:?}: not by the lease");
    scene.ensure_over("after the lease")?;
    kfault.signal(libc::SIGCONT)?;
    // It says what happened, and goes on.
    let said = strain(&mut kfault, Duration::from_secs(20), "new workers", |strain| {
        strain["figures"]["restarts"] == 5 && strain["figures"]["running"] == 5
    })?;
    ensure!(said["notes"].to_string().contains("longer than the lease"), "{said}");
    kfault.stop()?;
    scene.ensure_over("after recovery")?;
    Ok(Done::Kept)
}

fn workers_end_with_the_first_process_of_their_target() -> Result<Done> {
    let scene = Scene::new()?;
    let leader = Process::start(&Ns::here()?, Some(&scene.target))?;
    let place = Place { leader: leader.pid(), ..place(&scene.target)? };
    let mut strains = Strains::default();
    let strain = of_cpu(place, None);
    strains.begin(&strain, &mut || {})?;
    strains.tend();
    ensure!(pids(&scene.target)?.len() == 3, "{:?}", pids(&scene.target)?);
    ensure!(strains.report("s").is_alive && strains.report("s").figures.running == 2);
    drop(leader);
    // Without any help: the engine beats only once a second.
    ensure!(scene.is_empty_within(Duration::from_secs(1)), "{:?}", pids(&scene.target)?);
    strains.tend();
    let report = strains.report("s");
    ensure!(!report.is_alive && report.figures.running == 0, "{report:?}");
    strains.end(&strain)?;
    scene.ensure_unharmed()?;
    Ok(Done::Kept)
}

fn a_duration_ends_them() -> Result<Done> {
    let scene = Scene::new()?;
    let mut strains = Strains::default();
    let strain = of_cpu(place(&scene.target)?, Some(Duration::from_millis(1500)));
    let start = Instant::now();
    strains.begin(&strain, &mut || {})?;
    ensure!(scene.workers()?.len() == 2);
    ensure!(scene.is_empty_within(Duration::from_secs(4)), "{:?}", scene.workers()?);
    let took = start.elapsed();
    ensure!(took >= Duration::from_millis(1400), "over after {took:?}");
    // They are not to have successors.
    for _ in 0..3 {
        strains.tend();
        std::thread::sleep(Duration::from_millis(600));
    }
    let report = strains.report("s");
    ensure!(report.is_alive && report.figures.restarts == 0, "{report:?}");
    ensure!(scene.target.is_empty(), "a successor");
    strains.end(&strain)?;
    scene.ensure_over("after the duration")?;
    // And a whole run ends by itself.
    scene.run(&all_kinds().with("duration", json!("2s")))?.start()?.finish()?;
    scene.ensure_over("after a run of 2 s")?;
    Ok(Done::Kept)
}

fn a_worker_that_is_killed_has_a_successor() -> Result<Done> {
    let scene = Scene::new()?;
    scene.with(&Manifest::stress(&json!({"cpu": {"workers": 2, "load": 5}})), |kfault| {
        let before = scene.workers()?;
        // SAFETY: a worker that was seen just now, which only its own engine waits for.
        unsafe { libc::kill(before[0].cast_signed(), libc::SIGTERM) };
        let said = strain(kfault, Duration::from_secs(10), "a successor", |strain| {
            strain["figures"]["restarts"] == 1 && strain["figures"]["running"] == 2
        })?;
        ensure!(said["notes"].to_string().contains("ended by signal 15"), "{said}");
        let after = scene.workers()?;
        ensure!(after.len() == 2 && after.contains(&before[1]), "{before:?}, then {after:?}");
        Ok(())
    })?;
    Ok(Done::Kept)
}

fn a_cgroup_that_is_removed_ends_the_run() -> Result<Done> {
    let scene = Scene::new()?;
    let kfault = scene.run(&all_kinds())?.start()?;
    // As a service manager does: it ends everything and removes the cgroup.
    for pid in scene.workers()? {
        // SAFETY: as above.
        unsafe { libc::kill(pid.cast_signed(), libc::SIGKILL) };
    }
    let directory = scene.target.directory().clone();
    ensure!(wait_for(Duration::from_secs(2), || fs::remove_dir(&directory).is_ok()), "removal");
    let summary = kfault.finish()?;
    let said = &summary.json()["strains"][0];
    ensure!(said["targetGone"] == true, "{said}");
    scene.ensure_unharmed()?;
    Ok(Done::Kept)
}

fn many_starts_and_ends_leave_nothing() -> Result<Done> {
    // Dear where instructions are counted.
    let cycles = if is_exact() { 100 } else { 1000 };
    let scene = Scene::new()?;
    let descriptors = || fs::read_dir("/proc/self/fd").map(|all| all.count());
    let strain = of_every_kind(place(&scene.target)?);
    let mut strains = Strains::default();
    let (before, children) = (descriptors()?, children()?);
    let start = Instant::now();
    for cycle in 0..cycles {
        strains.begin(&strain, &mut || {}).with_context(|| format!("start {cycle}"))?;
        ensure!(pids(&scene.target)?.len() == 4, "start {cycle}: {:?}", pids(&scene.target)?);
        strains.end(&strain).with_context(|| format!("end {cycle}"))?;
        ensure!(scene.target.is_empty(), "end {cycle}: {:?}", pids(&scene.target)?);
    }
    println!("{cycles} starts and ends of 4 workers in {:?}", start.elapsed());
    ensure!(descriptors()? == before, "{} descriptors, before {before}", descriptors()?);
    ensure!(self::children()? == children, "a child is left");
    scene.ensure_over("after many starts and ends")?;
    Ok(Done::Kept)
}

/// A worker whose parent is another program: its engine is gone.
fn a_stray_worker_is_swept() -> Result<Done> {
    let scene = Scene::new()?;
    let (_ours, theirs) = pair()?;
    let until = kfault_tests::clock::now_ns() + 600_000_000_000;
    let mut worker = Command::new("/proc/self/exe");
    worker
        .arg0("kfault")
        .args(["worker", "cpu", "--percent=1", "--leader=0"])
        .arg(format!("--until-ns={until}"))
        .arg("--cgroup")
        .arg(scene.target.directory());
    let mut parent = Command::new("sleep");
    parent.arg("600").stdin(theirs).stdout(Stdio::null()).stderr(Stdio::null());
    // SAFETY: between fork and exec the child only makes one more process, which becomes another
    // program at once or ends.
    unsafe {
        parent.pre_exec(move || match libc::fork() {
            0 => {
                worker.arg(format!("--parent={}", libc::getppid()));
                let _ = worker.exec();
                libc::_exit(1)
            }
            -1 => Err(std::io::Error::last_os_error()),
            _ => Ok(()),
        });
    }
    let mut parent = parent.spawn().context("start another program")?;
    let swept = is_swept(&scene);
    parent.kill().context("end the other program")?;
    parent.wait().context("wait for the other program")?;
    swept?;
    scene.ensure_over("after the sweep")?;
    Ok(Done::Kept)
}

fn is_swept(scene: &Scene) -> Result<()> {
    let works = || scene.workers().is_ok_and(|all| all.len() == 1);
    ensure!(wait_for(Duration::from_secs(10), works), "the stray does not work");
    let swept = command(&["sweep", "--output", "json"], 0)?;
    let left = scene.workers()?;
    ensure!(left.is_empty() && swept.contains("worker process"), "{swept}, left: {left:?}");
    Ok(())
}

/// Two ends of a line that keeps messages apart.
fn pair() -> Result<(std::os::fd::OwnedFd, std::os::fd::OwnedFd)> {
    use std::os::fd::FromRawFd;
    let mut fds = [-1; 2];
    let kind = libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC;
    // SAFETY: room for two descriptors.
    let made = unsafe { libc::socketpair(libc::AF_UNIX, kind, 0, fds.as_mut_ptr()) };
    ensure!(made == 0, "a pair of sockets: {}", std::io::Error::last_os_error());
    // SAFETY: both were made just now and belong to nobody else.
    let [ours, theirs] = fds.map(|fd| unsafe { std::os::fd::OwnedFd::from_raw_fd(fd) });
    Ok((ours, theirs))
}

/// The children of this process.
fn children() -> Result<BTreeSet<String>> {
    let me = std::process::id();
    let mut found = BTreeSet::new();
    for entry in fs::read_dir("/proc").context("read /proc")?.flatten() {
        let status = fs::read_to_string(entry.path().join("status")).unwrap_or_default();
        if status.lines().any(|line| line == format!("PPid:\t{me}")) {
            found.insert(entry.file_name().to_string_lossy().into_owned());
        }
    }
    Ok(found)
}

/// The cgroup as the engine is told of it.
pub fn place(cgroup: &Cgroup) -> Result<Place> {
    let id = fs::metadata(cgroup.directory()).context("a cgroup")?.ino();
    let cgroup = json!({"path": cgroup.path(), "id": id, "level": 1});
    Ok(Place { cgroup: serde_json::from_value(cgroup).context("a place")?, leader: 0 })
}

/// One worker of every kind.
fn of_every_kind(place: Place) -> Strain {
    let memory =
        MemoryLoad { workers: 1, size: Amount::Bytes(4_000_000), ramp_ns: 0, oom_score_adj: 0 };
    let load = Load {
        cpu: Some(CpuLoad { workers: 1, percent: 1 }),
        memory: Some(memory),
        sync_workers: 1,
        disk: Some(DiskLoad { workers: 1, bytes: 100_000 }),
    };
    Strain { grip: Grip::Load(load), ..of_cpu(place, None) }
}

/// Two idle workers.
fn of_cpu(place: Place, duration: Option<Duration>) -> Strain {
    let load = Load { cpu: Some(CpuLoad { workers: 2, percent: 1 }), ..Load::default() };
    Strain {
        id: "s".into(),
        experiment: "StressChaos/default/s".into(),
        target: "cgroup".into(),
        place,
        grip: Grip::Load(load),
        describes: String::new(),
        duration,
        dry_run: false,
    }
}

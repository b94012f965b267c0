//! What is frozen stands still, and thaws whatever becomes of kfault.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use kfault_tests::clock::wait_for;
use kfault_tests::kfault::{Kfault, LEASE, Run};
use kfault_tests::probe::work::{Counter, cpu_of};

use super::{Two, frozen, guard};
use crate::harness::{Done, Test, tests};

pub fn tests() -> Vec<Test> {
    let all = tests!("freeze": a_frozen_target_thaws_when_kfault_is_killed);
    let mut all: Vec<Test> = all.into_iter().map(Test::smoke).collect();
    all.extend(tests!("freeze":
        a_frozen_target_thaws_at_its_deadline_and_when_recovered,
        a_frozen_target_thaws_when_kfault_hangs_and_freezes_when_it_goes_on,
    ));
    all
}

/// A target and a neighbour that count, and a run that froze the target.
struct Frozen {
    run: Kfault,
    target: Counter,
    other: Counter,
    two: Two,
}

impl Frozen {
    fn start(change: impl FnOnce(Run) -> Run) -> Result<Self> {
        let two = Two::new()?;
        let (target, other) = (Counter::start(&two.target)?, Counter::start(&two.other)?);
        let run = || target.runs() && other.runs();
        ensure!(wait_for(Duration::from_secs(20), run), "nothing runs as it is");
        let run = change(two.run(&frozen())?).start()?;
        let frozen = Self { run, target, other, two };
        frozen.stands_still()?;
        Ok(frozen)
    }

    fn stands_still(&self) -> Result<()> {
        let count = self.target.counts_in(Duration::from_millis(300))?;
        ensure!(count == 0, "a frozen target counts: {count}");
        ensure!(self.other.runs(), "the neighbour stands still");
        Ok(())
    }
}

fn a_frozen_target_thaws_at_its_deadline_and_when_recovered() -> Result<Done> {
    let start = Instant::now();
    let Frozen { run, target, two, .. } = Frozen::start(|run| run.duration("3s"))?;
    let thawed = wait_for(Duration::from_secs(10), || target.runs());
    let took = start.elapsed();
    ensure!(thawed && took > Duration::from_secs(3), "thawed: {thawed}, after {took:?}");
    run.finish()?;
    two.is_over(Duration::ZERO)?;
    drop((target, two));

    let frozen = Frozen::start(|run| run)?;
    let start = Instant::now();
    frozen.run.stop()?;
    ensure!(frozen.target.runs(), "it is frozen after recovery");
    println!("recovered within {:?}", start.elapsed());
    frozen.two.is_over(Duration::ZERO)?;
    Ok(Done::Kept)
}

fn a_frozen_target_thaws_when_kfault_is_killed() -> Result<Done> {
    let frozen = Frozen::start(|run| run)?;
    // A guard that waits costs nothing.
    let guard = guard()?;
    let before = cpu_of(guard)?;
    std::thread::sleep(Duration::from_secs(3));
    let cost = cpu_of(guard)?.saturating_sub(before);
    let cgroups = fs::read_to_string(format!("/proc/{guard}/cgroup"))?;
    let is_out = cgroups.lines().all(|line| line.ends_with(":/"));
    ensure!(is_out, "the guard is not in the root of every hierarchy: {cgroups}");
    let start = Instant::now();
    frozen.run.kill()?;
    let thawed = wait_for(Duration::from_secs(2), || frozen.target.runs());
    println!("thawed {:?} after the kill; 3 s of its guard cost {cost:?}", start.elapsed());
    ensure!(thawed, "it is frozen 2 s after kfault was killed");
    ensure!(cost < Duration::from_millis(15), "3 s of a guard cost {cost:?}");
    frozen.two.is_over(Duration::from_secs(2))?;
    Ok(Done::Kept)
}

fn a_frozen_target_thaws_when_kfault_hangs_and_freezes_when_it_goes_on() -> Result<Done> {
    let frozen = Frozen::start(|run| run.duration("20s"))?;
    frozen.run.signal(libc::SIGSTOP)?;
    let start = Instant::now();
    let thawed = wait_for(LEASE + Duration::from_secs(3), || frozen.target.runs());
    let took = start.elapsed();
    println!("thawed {took:?} after kfault was stopped");
    ensure!(thawed, "it is frozen {took:?} after kfault was stopped");
    // It had been heard a second before, at most.
    ensure!(took > LEASE / 2, "it thawed after {took:?}: too early for the lease");
    frozen.run.signal(libc::SIGCONT)?;
    ensure!(
        wait_for(Duration::from_secs(5), || !frozen.target.runs()),
        "a kfault that goes on does not freeze it again"
    );
    // And its own time is over even if it hangs then.
    frozen.run.signal(libc::SIGSTOP)?;
    ensure!(wait_for(LEASE + Duration::from_secs(3), || frozen.target.runs()), "it stays frozen");
    frozen.run.signal(libc::SIGCONT)?;
    frozen.run.stop()?;
    ensure!(frozen.target.runs(), "it is frozen after recovery");
    frozen.two.is_over(Duration::ZERO)?;
    Ok(Done::Kept)
}

//! What is frozen stands still, and thaws whatever becomes of kfault.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use kfault_tests::clock::wait_for;
use kfault_tests::kfault::{Kfault, LEASE, Run, command};
use kfault_tests::probe::work::{Counter, Work, Worker, cpu_of};

use super::{Two, frozen, guard, kill, notes};
use crate::harness::{Done, Proof, Test, tests};

pub fn tests() -> Vec<Test> {
    let all = tests!("freeze": a_frozen_target_thaws_when_kfault_is_killed);
    let mut all: Vec<Test> = all.into_iter().map(Test::smoke).collect();
    all.extend(tests!("freeze":
        a_frozen_target_thaws_at_its_deadline_and_when_recovered,
        a_frozen_target_thaws_when_kfault_hangs_and_freezes_when_it_goes_on,
        without_v2_the_freezer_of_v1_freezes_and_thaws,
        without_v2_the_sweep_thaws,
        without_v2_what_others_do_to_the_freezer_is_left,
        without_v2_nobody_but_the_target_is_frozen,
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

/// That there is no freezer of v1, which newer machines do not have.
fn no_freezer() -> Option<Proof> {
    Proof::by_trying("the freezer of cgroup v1", || {
        let two = Two::new()?;
        two.target.file("freezer.state").context("this host has none").map(drop)
    })
}

/// Frozen by v1, and not by v2.
fn is_frozen_by_v1(two: &Two) -> Result<()> {
    let (v1, v2) = (two.target.read("freezer.state")?, two.target.read("cgroup.freeze")?);
    ensure!(v1.trim() == "FROZEN" && v2.trim() == "0", "freezer.state {v1}, cgroup.freeze {v2}");
    Ok(())
}

fn without_v2_the_freezer_of_v1_freezes_and_thaws() -> Result<Done> {
    if let Some(proof) = no_freezer() {
        return Ok(Done::Cannot(proof));
    }
    // Recovered.
    let frozen = Frozen::start(Run::without_v2)?;
    is_frozen_by_v1(&frozen.two)?;
    frozen.run.stop()?;
    ensure!(frozen.target.runs(), "it is frozen after recovery");
    frozen.two.is_over(Duration::ZERO)?;
    drop((frozen.target, frozen.other, frozen.two));
    // At its deadline.
    let frozen = Frozen::start(|run| run.without_v2().duration("3s"))?;
    let thawed = wait_for(Duration::from_secs(10), || frozen.target.runs());
    ensure!(thawed, "it is frozen after its time");
    frozen.run.finish()?;
    frozen.two.is_over(Duration::ZERO)?;
    drop((frozen.target, frozen.other, frozen.two));
    // By the guard, when kfault is killed.
    let frozen = Frozen::start(Run::without_v2)?;
    let start = Instant::now();
    frozen.run.kill()?;
    let thawed = wait_for(Duration::from_secs(2), || frozen.target.runs());
    println!("thawed {:?} after the kill", start.elapsed());
    ensure!(thawed, "it is frozen 2 s after kfault was killed");
    frozen.two.is_over(Duration::from_secs(2))?;
    Ok(Done::Kept)
}

fn without_v2_the_sweep_thaws() -> Result<Done> {
    if let Some(proof) = no_freezer() {
        return Ok(Done::Cannot(proof));
    }
    let Frozen { run, target, other, two } = Frozen::start(Run::without_v2)?;
    let thaw = Thaw(&two);
    kill(guard()?)?;
    run.kill()?;
    is_frozen_by_v1(&two)?;
    let swept = command(&["sweep", "--output", "json"], 0)?;
    let is_said = swept.contains("limit freezer.state of") && swept.contains("\\\"THAWED\\\"");
    ensure!(is_said, "the sweep says {swept}");
    ensure!(target.runs(), "it is frozen after the sweep");
    two.is_over(Duration::ZERO)?;
    drop(thaw);
    drop((target, other, two));
    Ok(Done::Kept)
}

/// What v1 has frozen cannot even be killed: no test may leave it so.
struct Thaw<'a>(&'a Two);

impl Drop for Thaw<'_> {
    fn drop(&mut self) {
        let _ = self.0.target.write("freezer.state", "THAWED");
    }
}

fn without_v2_what_others_do_to_the_freezer_is_left() -> Result<Done> {
    if let Some(proof) = no_freezer() {
        return Ok(Done::Cannot(proof));
    }
    // Thawed by somebody else.
    let Frozen { run, target, other, two } = Frozen::start(|run| run.without_v2().duration("4s"))?;
    two.target.write("freezer.state", "THAWED")?;
    ensure!(target.runs(), "it is frozen again");
    let ended = run.end()?;
    let said = notes(&ended.events);
    ensure!(said.contains("freezer.state") && said.contains("by somebody else"), "{said}");
    two.is_over(Duration::ZERO)?;
    // Frozen by somebody else before.
    two.target.write("freezer.state", "FROZEN")?;
    let thaw = Thaw(&two);
    let ended = two.run(&frozen())?.without_v2().duration("1s").ends_with(0)?;
    let said = notes(&ended.events);
    ensure!(said.contains("frozen by somebody else already"), "{said}");
    is_frozen_by_v1(&two)?;
    drop(thaw);
    ensure!(target.runs(), "it is frozen after all");
    two.is_over(Duration::ZERO)?;
    drop((target, other, two));
    Ok(Done::Kept)
}

/// In v1 a process may be in another cgroup of each hierarchy.
fn without_v2_nobody_but_the_target_is_frozen() -> Result<Done> {
    let apart = || {
        let all = fs::read_to_string("/proc/self/cgroup").context("read the own cgroups")?;
        let is_apart = all.contains(":name=systemd:") && all.contains(":freezer:");
        ensure!(is_apart, "the freezer itself names targets here, or there is none: {all}");
        Ok(())
    };
    if let Some(proof) = Proof::by_trying("the freezer beside a hierarchy of systemd's", apart) {
        return Ok(Done::Cannot(proof));
    }
    let two = Two::new()?;
    let (target, other) = (Counter::start(&two.target)?, Worker::start(&two.other, &Work::Spin)?);
    let freezer = two.target.file("freezer.state").context("no freezer")?;
    fs::write(freezer.with_file_name("cgroup.procs"), other.pid().to_string())
        .context("move the neighbour to the target's freezer")?;
    let ended = two.run(&frozen())?.without_v2().duration("1s").ends_with(3)?;
    for word in ["freeze: ", "not of the target", &other.pid().to_string()] {
        ensure!(ended.errors.contains(word), "{word:?} is not said: {}", ended.errors);
    }
    ensure!(target.runs(), "it is frozen all the same");
    two.is_over(Duration::ZERO)?;
    Ok(Done::Kept)
}

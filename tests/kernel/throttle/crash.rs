//! What is left of limits when kfault dies, or its guard, or both.

use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kfault_tests::clock::wait_for;
use kfault_tests::kfault::{Run, command};
use kfault_tests::probe::work::Counter;
use serde_json::json;

use super::{Two, frozen, guard, guards, kill, pids, quota};
use crate::harness::{Done, Test, tests};

pub fn tests() -> Vec<Test> {
    tests!("throttle":
        killed_at_the_actions_of_limits_nothing_stays,
        killed_together_with_its_guard_the_sweep_puts_back,
        a_guard_that_is_killed_is_replaced,
    )
}

fn killed_at_the_actions_of_limits_nothing_stays() -> Result<Done> {
    let two = Two::new()?;
    let counter = Counter::start(&two.target)?;
    let neighbour = Counter::start(&two.other)?;
    let manifest = pids(7).with("cpu", json!({"quota": "20%"}));
    for manifest in [manifest, frozen()] {
        for point in ["set-limits", "restore-limits"] {
            for stage in ["before", "after"] {
                let mut kfault = two.run(&manifest)?.crashing(point, stage).spawn()?;
                if kfault.event("applied").is_ok() {
                    kfault.signal(libc::SIGINT)?;
                }
                let ended = kfault.end()?;
                let died = ended.status.signal() == Some(libc::SIGKILL);
                ensure!(died, "{stage} {point}: {} {}", ended.status, ended.errors);
                two.is_over(Duration::from_secs(2))
                    .with_context(|| format!("killed {stage} {point}"))?;
                ensure!(counter.runs() && neighbour.runs(), "{stage} {point}: nothing runs");
            }
        }
    }
    Ok(Done::Kept)
}

/// What nobody is left to put back.
fn killed_together_with_its_guard_the_sweep_puts_back() -> Result<Done> {
    let two = Two::new()?;
    let counter = Counter::start(&two.target)?;
    // By the command, and by the next start.
    for by_command in [true, false] {
        let manifest = frozen().with("cpu", json!({"quota": "20%"}));
        let run = two.run(&manifest)?.start()?;
        kill(guard()?)?;
        run.kill()?;
        ensure!(two.is_as_before().is_err() && !counter.runs(), "nothing is left to be swept");
        if by_command {
            let swept = command(&["sweep", "--output", "json"], 0)?;
            ensure!(swept.contains("limit cgroup.freeze of"), "the sweep says {swept}");
            ensure!(swept.contains("is \\\"0\\\" again"), "the sweep says {swept}");
        } else {
            let next = Run::of(&quota())?.target(&two.other.word()).start()?;
            ensure!(counter.runs(), "the next start has left it frozen");
            next.stop()?;
        }
        ensure!(counter.runs(), "it is frozen after the sweep");
        two.is_over(Duration::ZERO)?;
    }
    // And what somebody has changed since stays.
    let run = two.run(&pids(7))?.start()?;
    kill(guard()?)?;
    run.kill()?;
    two.target.write("pids.max", "55")?;
    let swept = command(&["sweep", "--output", "json"], 0)?;
    ensure!(swept.contains("changed to \\\"55\\\" by somebody else"), "the sweep says {swept}");
    ensure!(two.target.read("pids.max")?.trim() == "55", "the sweep wrote over it");
    two.target.write("pids.max", "max")?;
    two.is_over(Duration::ZERO)?;
    Ok(Done::Kept)
}

fn a_guard_that_is_killed_is_replaced() -> Result<Done> {
    let two = Two::new()?;
    let counter = Counter::start(&two.target)?;
    let run = two.run(&frozen())?.start()?;
    let first = guard()?;
    kill(first)?;
    let is_replaced = || guards().iter().any(|pid| *pid != first);
    ensure!(wait_for(Duration::from_secs(5), is_replaced), "there is no other guard");
    ensure!(!counter.runs(), "it does not stay frozen");
    run.kill()?;
    ensure!(wait_for(Duration::from_secs(2), || counter.runs()), "the other guard does nothing");
    two.is_over(Duration::from_secs(2))?;
    Ok(Done::Kept)
}

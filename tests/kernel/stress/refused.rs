//! What cannot be stressed is refused with the reason and the way out, and nothing is left.

use std::fs;

use anyhow::{Context, Result, ensure};
use kfault_tests::cgroup::Cgroup;
use kfault_tests::kfault::Run;
use kfault_tests::manifest::Manifest;
use serde_json::json;

use super::scene::Scene;
use crate::harness::{Done, Proof, Test, tests};

pub fn tests() -> Vec<Test> {
    tests!("stress":
        memory_without_its_controller_is_refused,
        processors_without_their_controller_are_used_and_that_is_said,
        a_cgroup_that_hands_controllers_down_is_refused,
        a_cgroup_that_takes_nobody_is_refused,
        a_frozen_cgroup_is_refused,
        a_share_of_no_limit_is_refused,
    )
}

fn cpu() -> Manifest {
    Manifest::stress(&json!({"cpu": {"workers": 2, "load": 5}}))
}

fn memory() -> Manifest {
    Manifest::stress(&json!({"memory": {"workers": 1, "size": "8MiB"}}))
}

/// The run is refused in these words.
fn refused(run: Run, code: i32, words: &[&str]) -> Result<()> {
    let ended = run.ends_with(code)?;
    for word in words {
        ensure!(ended.errors.contains(word), "nobody says {word:?}: {}", ended.errors);
    }
    Ok(())
}

/// A cgroup below that has no controller; it goes with its parent.
struct Below<'a>(&'a Cgroup, &'static str);

impl<'a> Below<'a> {
    fn of(cgroup: &'a Cgroup) -> Result<Self> {
        let below = Self(cgroup, "below");
        fs::create_dir(below.directory()).context("make a cgroup below")?;
        Ok(below)
    }

    fn directory(&self) -> std::path::PathBuf {
        self.0.directory().join(self.1)
    }

    fn word(&self) -> String {
        format!("{}/{}", self.0.word(), self.1)
    }
}

impl Drop for Below<'_> {
    fn drop(&mut self) {
        let _ = fs::remove_dir(self.directory());
    }
}

fn memory_without_its_controller_is_refused() -> Result<Done> {
    let scene = Scene::new()?;
    let below = Below::of(&scene.target)?;
    let run = Run::of(&memory())?.target(&below.word());
    refused(
        run,
        3,
        &["\"memory\"", "memory worker 1 of 1", below.word().split(':').nth(1).unwrap_or("")],
    )?;
    scene.ensure_over("after the refusal")?;
    Ok(Done::Kept)
}

fn processors_without_their_controller_are_used_and_that_is_said() -> Result<Done> {
    let scene = Scene::new()?;
    let below = Below::of(&scene.target)?;
    let kfault = Run::of(&cpu())?.target(&below.word()).start()?;
    let inside = fs::read_to_string(below.directory().join("cgroup.procs"))?;
    ensure!(inside.lines().count() == 2, "{inside:?}");
    let summary = kfault.stop()?;
    let notes = summary.json()["strains"][0]["notes"].to_string();
    ensure!(notes.contains("\\\"cpu\\\" is not enabled"), "{notes}");
    scene.ensure_over("after recovery")?;
    Ok(Done::Kept)
}

fn a_cgroup_that_hands_controllers_down_is_refused() -> Result<Done> {
    let scene = Scene::new()?;
    let hand_down = || -> Result<()> {
        let control = scene.target.directory().join("cgroup.subtree_control");
        fs::write(control, "+memory").context("memory is a controller of v1 here")
    };
    if let Some(proof) = Proof::by_trying("hand a controller of v2 down", hand_down) {
        return Ok(Done::Cannot(proof));
    }
    // Whichever of the workers is the first to be told.
    let words = ["cgroup.subtree_control", " cannot enter ", "choose one of the cgroups below it"];
    refused(scene.run(&cpu())?, 3, &words)?;
    refused(scene.run(&memory())?, 3, &words)?;
    scene.ensure_over("after the refusal")?;
    Ok(Done::Kept)
}

fn a_cgroup_that_takes_nobody_is_refused() -> Result<Done> {
    let scene = Scene::new()?;
    let below = Below::of(&scene.target)?;
    fs::write(below.directory().join("cgroup.type"), "threaded").context("make it threaded")?;
    let deeper = below.directory().join("deeper");
    fs::create_dir(&deeper).context("make a cgroup below a threaded one")?;
    let kind = fs::read_to_string(deeper.join("cgroup.type"));
    let run = Run::of(&cpu())?.target(&format!("{}/deeper", below.word()));
    let done =
        refused(run, 3, &["\"domain invalid\"", " of 2 cannot enter", "the cgroup above it"]);
    fs::remove_dir(&deeper).context("remove the cgroup below a threaded one")?;
    done.with_context(|| format!("cgroup.type: {kind:?}"))?;
    scene.ensure_over("after the refusal")?;
    Ok(Done::Kept)
}

fn a_frozen_cgroup_is_refused() -> Result<Done> {
    let scene = Scene::new()?;
    let freeze = |on: &str| {
        fs::write(scene.target.directory().join("cgroup.freeze"), on).context("freeze a cgroup")
    };
    freeze("1")?;
    refused(scene.run(&cpu())?, 3, &["is frozen", "thaw it first"])?;
    freeze("0")?;
    scene.ensure_over("after the refusal")?;
    Ok(Done::Kept)
}

fn a_share_of_no_limit_is_refused() -> Result<Done> {
    let scene = Scene::new()?;
    let manifest = Manifest::stress(&json!({"memory": {"workers": 1, "size": "50%"}}))
        .with("kfault", json!({"memoryOf": "limit"}));
    refused(scene.run(&manifest)?, 3, &["memory limit", "50 %"])?;
    scene.ensure_over("after the refusal")?;
    Ok(Done::Kept)
}

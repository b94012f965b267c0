//! `cluster e2e`: kfault on a real cluster, as its users see it: manifests go in, conditions are
//! waited for, and pods are measured from other pods.

mod bench;
mod scenarios;
mod site;

pub use site::is_given;

use bench::Bench;

use std::fmt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::Cluster;
use crate::progress::{Step, duration, step};
use scenarios::Tier;
use site::{Cannot, Site};

/// Options of `cargo xtask cluster e2e`.
#[derive(clap::Args)]
pub struct Args {
    /// Only the scenarios whose name contains this
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
    /// On one node of this machine and one in a virtual machine, instead of two of this machine
    #[arg(long)]
    vm_node: bool,
    /// Only the scenarios that a CI job has time for
    #[arg(long)]
    ci: bool,
    /// Leave the cluster up, and kfault on it
    #[arg(long)]
    keep: bool,
    /// Use the cluster of this machine's namespaces, whatever KUBECONFIG says and kind offers
    #[arg(long)]
    native: bool,
    /// kfault's image, as the cluster of KUBECONFIG knows it
    #[arg(long, value_name = "REF")]
    image: Option<String>,
    /// The application's image, as the cluster of KUBECONFIG knows it
    #[arg(long, value_name = "REF")]
    app_image: Option<String>,
}

impl Args {
    /// Whether nothing but the cluster of this machine's namespaces will do.
    pub fn is_native(&self) -> bool {
        self.native || self.vm_node
    }

    /// Those of `cargo xtask test`.
    pub fn of_test(ci: bool) -> Self {
        Self {
            filter: None,
            vm_node: false,
            ci,
            keep: false,
            native: true,
            image: None,
            app_image: None,
        }
    }
}

/// What came of the scenarios.
pub struct Tally {
    passed: usize,
    failed: Vec<&'static str>,
    /// Those that the cluster has no means for.
    skipped: usize,
    /// Those of the full tier, with `--ci`.
    later: usize,
    time: Duration,
}

impl Tally {
    /// Fails when a scenario did.
    pub fn verdict(&self) -> Result<()> {
        ensure!(self.failed.is_empty(), "scenarios failed: {}", self.failed.join("; "));
        Ok(())
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { passed, failed, skipped, later, time } = self;
        let all = passed + failed.len() + skipped + later;
        write!(f, "{all} scenarios on a cluster: {passed} passed, {} failed, ", failed.len())?;
        write!(f, "{skipped} skipped, {later} not with --ci ({})", duration(*time))
    }
}

/// Runs the scenarios on the cluster that is there, or on one that is started for it.
pub fn e2e(cluster: &Cluster, args: &Args) -> Result<Tally> {
    let site = Site::choose(cluster, args)?;
    let bench = Bench { vm: site.start()?, site };
    let mut installed = Vec::new();
    let done = run(&bench, args, &mut installed);
    if !args.keep {
        bench.site.end(&installed)?;
    }
    let tally = done?;
    println!("{tally}");
    Ok(tally)
}

fn run(bench: &Bench<'_>, args: &Args, installed: &mut Vec<PathBuf>) -> Result<Tally> {
    bench.site.load()?;
    bench.taint()?;
    step("install kfault and the application", |_| bench.install(installed))?;
    let all = Instant::now();
    let filter = args.filter.as_deref().unwrap_or_default();
    let more = bench.vm.as_ref().map_or(&[][..], |_| scenarios::VM);
    let (chosen, later): (Vec<_>, Vec<_>) = scenarios::ALL
        .iter()
        .chain(more)
        .filter(|(name, ..)| name.contains(filter))
        .partition(|(.., tier)| !args.ci || *tier == Tier::Ci);
    ensure!(!chosen.is_empty(), "no scenario's name contains {filter:?}");
    let (mut passed, mut skipped, mut failed) = (0, 0, Vec::new());
    for &(name, scenario, _) in chosen {
        let step = Step::start(name);
        match scenario(bench).and_then(|()| bench.clean()) {
            Ok(()) => {
                step.done("");
                passed += 1;
            }
            Err(error) if error.is::<Cannot>() => {
                step.done(&format!("skipped: {error:#}"));
                skipped += 1;
                bench.clean().context("clean up after a scenario that was skipped")?;
            }
            Err(error) => {
                step.failed(&format!("{error:#}"));
                print!("{}", bench.evidence());
                failed.push(name);
                bench.clean().context("clean up after a scenario that failed")?;
            }
        }
    }
    for (name, ..) in &later {
        println!("not with --ci: {name}");
    }
    Ok(Tally { passed, failed, skipped, later: later.len(), time: all.elapsed() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(failed: Vec<&'static str>) -> Tally {
        Tally { passed: 3, failed, skipped: 1, later: 2, time: Duration::from_secs(90) }
    }

    #[test]
    fn a_scenario_that_failed_fails_the_run_and_is_named() {
        assert!(tally(vec![]).verdict().is_ok());
        let tally = tally(vec!["pause", "delay"]);
        assert!(tally.to_string().starts_with("8 scenarios on a cluster: 3 passed, 2 failed"));
        assert!(tally.verdict().unwrap_err().to_string().ends_with("pause; delay"));
    }

    #[test]
    fn what_a_cluster_has_no_means_for_is_a_skip_wherever_it_is_found() {
        let error = Err::<(), _>(Cannot::because("no way to the node")).context("cut it off");
        assert!(error.is_err_and(|error| error.is::<Cannot>()));
        assert!(!anyhow::anyhow!("no way to the node").is::<Cannot>());
    }

    #[test]
    fn every_scenario_has_a_name_of_its_own() {
        let names: std::collections::BTreeSet<_> =
            scenarios::ALL.iter().map(|(name, ..)| name).collect();
        assert_eq!(names.len(), scenarios::ALL.len());
    }
}

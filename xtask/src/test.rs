//! `test`: everything that must hold, from formatting to the last kernel of the matrix and the
//! cluster; ends with the support table, the list of proven skips, and what each step took.
//!
//! The order is one of waiting. What computes and is in no hurry (the cluster's programs, the
//! machines, whose time is counted in instructions) stands back behind what is timed by the clock
//! (the native kernel tests, the cluster), which mostly waits.

mod kernels;

use std::path::Path;
use std::thread::{self, JoinHandle};
use std::time::Instant;

use anyhow::{Result, bail, ensure};

use crate::cluster::{self, Binaries, Tally};
use crate::progress::{self, duration, step};
use crate::setup::{self, Group};
use crate::support::{Column, Support};
use crate::{build, exec, lint, vm};
use kernels::{Job, Tier};

/// How this machine's own kernel is called beside those of the matrix.
const NATIVE: &str = "native";
/// The kernel that has all but the dear tests in `--ci`.
const WIDE: &str = "6.12";

/// Options of `cargo xtask test`.
#[derive(clap::Args)]
pub struct Args {
    /// What fits into the time of a CI job: one check per mechanism on every kernel, the whole
    /// table natively and on 6.12 but for what is dear there, the cluster's scenarios but the longest
    #[arg(long)]
    ci: bool,
    /// Only the kernel tests of these kernels: native, 5.10, 6.1, 6.12, 7.x
    #[arg(long, value_name = "VERSION")]
    kernel: Vec<String>,
    /// Only the kernel tests whose name contains this
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
}

/// What has failed so far.
#[derive(Default)]
struct Failures(Vec<String>);

impl Failures {
    /// Says at once what is wrong, and remembers where.
    fn note<T>(&mut self, what: &str, result: Result<T>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(error) => {
                eprintln!("{what}: {error:#}");
                self.0.push(what.to_owned());
                None
            }
        }
    }
}

/// The command.
pub fn main(args: Args) -> Result<()> {
    let start = Instant::now();
    let Args { ci, kernel, filter } = args;
    for name in &kernel {
        ensure!(
            name == NATIVE || vm::KERNELS.contains(&name.as_str()),
            "--kernel {name}: {NATIVE} or one of {}",
            vm::KERNELS.join(", ")
        );
    }
    ensure!(exec::is_root(), "kernel tests make namespaces and load BPF programs: run as root");
    setup::need(&[Group::Build, Group::Lint, Group::Test, Group::Vm, Group::Demo])?;
    let is_whole = kernel.is_empty() && filter.is_none();
    let all = || std::iter::once(NATIVE).chain(vm::KERNELS).map(str::to_owned).collect();
    let kernels: Vec<String> = if kernel.is_empty() { all() } else { kernel };
    let tier = |kernel: &str| match kernel {
        NATIVE => Tier::Full,
        _ if !ci => Tier::Full,
        WIDE => Tier::Thrifty,
        _ => Tier::Smoke,
    };
    let job = |kernel: String| Job::whole(&kernel, tier(&kernel));
    let jobs = kernels.into_iter().map(job).collect();
    let mut failures = Failures::default();
    let mut notes = Vec::new();
    let columns = if is_whole {
        whole(ci, jobs, &mut failures, &mut notes)
    } else {
        build::kernel_tests().and_then(|tests| on_kernels(&tests, jobs, filter.as_deref(), || ()))
    };
    if let Some(columns) = failures.note("kernel tests", columns) {
        for column in columns.iter().filter(|column| !column.failed.is_empty()) {
            failures.0.push(format!("kernel {}: {}", column.kernel, column.failed.join(", ")));
        }
        let support = Support { columns };
        println!("\n{}", support.table());
        print!("{}", support.skips());
        match &filter {
            None if is_whole => support.save()?,
            None => {}
            Some(mechanism) => support.renew(mechanism)?,
        }
    }
    println!("\n{}", progress::times());
    notes.iter().for_each(|note| println!("{note}"));
    let (Failures(failures), took) = (failures, duration(start.elapsed()));
    ensure!(failures.is_empty(), "failed after {took}:\n  {}", failures.join("\n  "));
    println!("everything holds ({took})");
    Ok(())
}

/// Every test there is. What is to be said at the end goes to `notes`.
fn whole(
    ci: bool,
    jobs: Vec<Job>,
    failures: &mut Failures,
    notes: &mut Vec<String>,
) -> Result<Vec<Column>> {
    let programs = match setup::need(&[Group::Cluster, Group::Image]) {
        // Kubernetes takes as long to build as everything of ours: it starts first, and stands
        // back.
        Ok(()) => Some(thread::spawn(|| {
            exec::stand_back();
            Binaries::built().map(drop)
        })),
        Err(missing) if ci => failures.note("cluster", Err(missing)),
        // It was looked for, and could not be installed.
        Err(missing) => {
            notes.push(format!("skipped: the scenarios on a cluster: {missing:#}"));
            None
        }
    };
    failures.note("build of the tests", build::tests());
    failures.note("lint", lint::check());
    failures.note("pure tests", pure());
    let tests = build::kernel_tests()?;
    on_kernels(&tests, jobs, None, || {
        let Some(programs) = programs else { return };
        if let Some(tally) = failures.note("cluster", on_cluster(programs, ci)) {
            failures.note("cluster", tally.verdict());
            notes.push(tally.to_string());
        }
    })
}

/// The scenarios, once the cluster's programs are there.
fn on_cluster(programs: JoinHandle<Result<()>>, ci: bool) -> Result<Tally> {
    step("wait for the cluster's programs", |_| {
        programs.join().unwrap_or_else(|_| bail!("their build panicked"))
    })?;
    cluster::tested(ci)
}

/// The kernel tests of all these kernels, and something else that wants a quiet machine once the
/// native ones are through.
fn on_kernels(
    tests: &Path,
    jobs: Vec<Job>,
    filter: Option<&str>,
    then: impl FnOnce(),
) -> Result<Vec<Column>> {
    let (native, machines): (Vec<Job>, Vec<Job>) =
        jobs.into_iter().partition(|job| job.kernel == NATIVE);
    thread::scope(|scope| {
        let machines = scope.spawn(|| kernels::in_machines(tests, machines, filter));
        let native = native.iter().map(|job| kernels::natively(tests, job, filter));
        let columns = native.collect::<Result<Vec<_>>>();
        then();
        let machines = machines.join().unwrap_or_else(|_| bail!("a lane panicked"));
        let mut columns = columns?;
        columns.extend(machines?);
        Ok(columns)
    })
}

/// What needs no kernel: units, properties, goldens, the command line.
fn pure() -> Result<()> {
    for (what, arguments) in [
        ("units, properties and the command line", &build::PURE[..]),
        ("golden plans", &["--package", "kfault-tests", "--lib", "--test", "golden"]),
    ] {
        step(what, |step| {
            let mut cargo = build::static_cargo();
            let target = build::target();
            cargo
                .args(["test", "--no-fail-fast", "--release", "--target", &target])
                .args(arguments);
            let said = exec::quiet(step, &mut cargo)?;
            let passed: u32 = said
                .output
                .lines()
                .filter_map(|line| line.strip_prefix("test result: ok. "))
                .filter_map(|rest| rest.split(' ').next()?.parse::<u32>().ok())
                .sum();
            step.line(&format!("  {passed} passed"));
            Ok(())
        })?;
    }
    Ok(())
}

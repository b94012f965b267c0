//! `test`: everything that must hold, from formatting to the last kernel of the matrix; ends with
//! the support table and the list of proven skips.

use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};

use crate::progress::{Step, duration, step};
use crate::setup::{self, Group};
use crate::support::{Column, Support};
use crate::{build, exec, lint, vm};

/// How this machine's own kernel is called beside those of the matrix.
const NATIVE: &str = "native";
/// The kernel that has the whole table in `--ci`.
const WHOLE: &str = "6.12";

/// Options of `cargo xtask test`.
#[derive(clap::Args)]
pub struct Args {
    /// What fits into the time of a CI job: one check per mechanism on every kernel, the whole
    /// table natively and on 6.12
    #[arg(long)]
    ci: bool,
    /// Only the kernel tests of these kernels: native, 5.10, 6.1, 6.12, 7.x
    #[arg(long, value_name = "VERSION")]
    kernel: Vec<String>,
    /// Only the kernel tests whose name contains this
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
}

/// The kernel tests of one kernel.
struct Job {
    kernel: String,
    is_smoke: bool,
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
    let is_part = !kernel.is_empty() || filter.is_some();
    let mut failures = Vec::new();
    let mut note = |what: &str, result: Result<()>| {
        if let Err(error) = result {
            eprintln!("{error:#}");
            failures.push(what.to_owned());
        }
    };
    if !is_part {
        note("lint", lint::check());
        note("pure tests", pure());
    }
    let tests = build::kernel_tests()?;
    let all = || std::iter::once(NATIVE).chain(vm::KERNELS).map(str::to_owned).collect();
    let kernels: Vec<String> = if kernel.is_empty() { all() } else { kernel };
    let job = |kernel: String| Job { is_smoke: ci && kernel != NATIVE && kernel != WHOLE, kernel };
    let (native, machines): (Vec<Job>, Vec<Job>) =
        kernels.into_iter().map(job).partition(|job| job.kernel == NATIVE);

    let mut columns = Vec::new();
    for job in native {
        columns.push(natively(&tests, &job, filter.as_deref())?);
    }
    columns.extend(in_machines(&tests, machines, filter.as_deref())?);
    for column in &columns {
        if !column.failed.is_empty() {
            failures.push(format!("kernel {}: {}", column.kernel, column.failed.join(", ")));
        }
    }
    let support = Support { columns };
    println!("\n{}", support.table());
    print!("{}", support.skips());
    match &filter {
        None if !is_part => support.save()?,
        None => {}
        Some(mechanism) => support.renew(mechanism)?,
    }
    if failures.is_empty() {
        println!("everything holds ({})", duration(start.elapsed()));
        return Ok(());
    }
    bail!("failed after {}:\n  {}", duration(start.elapsed()), failures.join("\n  "))
}

/// What needs no kernel: units, properties, goldens, the command line.
fn pure() -> Result<()> {
    for (what, arguments) in [
        (
            "units, properties and the command line",
            &["--workspace", "--exclude", "kfault-tests"][..],
        ),
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

/// Shows the result of every test as it comes, and keeps what belongs to the table.
fn hear(step: &Step, kernel: &str, line: &str) {
    if let Some(rest) = line.strip_prefix("test ") {
        let rest = rest.split_whitespace().collect::<Vec<_>>().join(" ");
        step.note(&rest);
        if rest.ends_with("FAILED") {
            step.line(&format!("  {kernel}: {rest}"));
        }
    }
}

fn arguments(job: &Job, filter: Option<&str>) -> Vec<String> {
    let mut arguments = vec!["--report".to_owned(), "-".to_owned()];
    if job.is_smoke {
        arguments.extend(["--tier".to_owned(), "smoke".to_owned()]);
    }
    arguments.extend(filter.map(str::to_owned));
    arguments
}

fn title(job: &Job) -> String {
    let tier = if job.is_smoke { "one check per mechanism" } else { "all kernel tests" };
    format!("{tier}, kernel {}", job.kernel)
}

fn natively(tests: &Path, job: &Job, filter: Option<&str>) -> Result<Column> {
    let step = Step::start(title(job));
    let mut command = Command::new(tests);
    command.args(arguments(job, filter));
    let said = exec::lines(&mut command, |line| hear(&step, &job.kernel, line))?;
    let lines: Vec<String> = said.output.lines().map(str::to_owned).collect();
    Ok(ended(step, job, &lines, said.is_ok))
}

/// Two machines at a time: each is one thread of the host.
fn in_machines(tests: &Path, jobs: Vec<Job>, filter: Option<&str>) -> Result<Vec<Column>> {
    let order: Vec<String> = jobs.iter().map(|job| job.kernel.clone()).collect();
    // The longest first.
    let mut jobs = jobs;
    jobs.sort_by_key(|job| job.is_smoke);
    jobs.reverse();
    let lanes = thread::available_parallelism().map_or(1, usize::from).min(jobs.len());
    let queue = Mutex::new(jobs);
    let done = Mutex::new(Vec::new());
    let next = || queue.lock().ok()?.pop();
    thread::scope(|scope| {
        for _ in 0..lanes {
            scope.spawn(|| {
                while let Some(job) = next() {
                    let result = in_machine(tests, &job, filter);
                    if let Ok(mut done) = done.lock() {
                        done.push(result);
                    }
                }
            });
        }
    });
    let done = done.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    let mut columns = done.into_iter().collect::<Result<Vec<_>>>()?;
    columns.sort_by_key(|column| order.iter().position(|kernel| *kernel == column.kernel));
    Ok(columns)
}

fn in_machine(tests: &Path, job: &Job, filter: Option<&str>) -> Result<Column> {
    let step = Step::start(title(job));
    let minutes = if job.is_smoke { 30 } else { 60 };
    let outcome = vm::run(&vm::Job {
        kernel: job.kernel.clone(),
        files: vec![(tests.to_owned(), "kernel".to_owned())],
        command: format!("kernel --timing exact {}", arguments(job, filter).join(" ")),
        // Guest time then follows the guest's instructions, however busy this machine is.
        icount: true,
        limits: vm::Limits {
            total: Duration::from_secs(minutes * 60),
            silence: Duration::from_secs(5 * 60),
        },
        each: &|line| hear(&step, &job.kernel, line),
    });
    match outcome {
        Ok(outcome) => Ok(ended(step, job, &outcome.lines, outcome.status == 0)),
        Err(error) => {
            step.failed("the machine broke");
            eprintln!("kernel {}: {error:#}", job.kernel);
            Ok(Column::broken(&job.kernel, "the machine broke"))
        }
    }
}

fn ended(step: Step, job: &Job, lines: &[String], is_ok: bool) -> Column {
    let column = Column::read(&job.kernel, lines, is_ok);
    if column.failed.is_empty() {
        step.done(&column.summary);
    } else {
        step.failed(&column.summary);
        // The harness repeats the reasons of all failures at its end.
        let start = lines.iter().position(|line| line == "failures:").unwrap_or(0);
        let end = lines.iter().position(|line| line.starts_with("test result:"));
        for line in &lines[start..end.unwrap_or(lines.len()).max(start)] {
            eprintln!("  {}: {line}", job.kernel);
        }
    }
    column
}

//! The kernel tests, on this machine and in machines of the matrix.

use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::progress::{Step, duration};
use crate::support::Column;
use crate::{exec, vm};

/// The kernel tests of one kernel.
pub struct Job {
    /// Its name in the table.
    pub kernel: String,
    /// How many of them.
    pub tier: Tier,
    /// Which share of them, of how many, from 1.
    pub part: (usize, usize),
}

/// How many of the tests; the harness knows these words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tier {
    /// One per mechanism.
    Smoke,
    /// All but those that are dear where instructions are counted.
    Thrifty,
    /// All.
    Full,
}

impl Tier {
    fn word(self) -> &'static str {
        match self {
            Self::Smoke => "smoke",
            Self::Thrifty => "thrifty",
            Self::Full => "full",
        }
    }
}

/// How many shares a whole table has: two machines work at it, and one that hangs costs no more
/// than its share.
const PARTS: usize = 4;

impl Job {
    /// All tests of a tier.
    pub fn whole(kernel: &str, tier: Tier) -> Self {
        Self { kernel: kernel.to_owned(), tier, part: (1, 1) }
    }

    /// The same in shares, where it takes long.
    fn shares(self, is_long: bool) -> Vec<Self> {
        let parts = if is_long { PARTS } else { 1 };
        let share = |number| Self { part: (number, parts), kernel: self.kernel.clone(), ..self };
        (1..=parts).map(share).collect()
    }
}

/// How many of the slowest tests are named.
const SLOWEST: usize = 8;

/// When the last test ended, and how long each took.
struct Pace(Mutex<(Instant, Vec<(Duration, String)>)>);

impl Pace {
    fn start() -> Self {
        Self(Mutex::new((Instant::now(), Vec::new())))
    }

    /// Shows the result of every test as it comes.
    fn hear(&self, step: &Step, kernel: &str, line: &str) {
        let Some(rest) = line.strip_prefix("test ") else { return };
        let rest = rest.split_whitespace().collect::<Vec<_>>().join(" ");
        step.note(&rest);
        if rest.ends_with("FAILED") {
            step.line(&format!("  {kernel}: {rest}"));
        }
        let mut pace = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let name = rest.split(' ').next().unwrap_or_default().to_owned();
        let took = pace.0.elapsed();
        pace.0 = Instant::now();
        pace.1.push((took, name));
    }

    /// Where the time went, the boot of a machine included in its first test.
    fn tell(self, step: &Step, kernel: &str) {
        let (_, mut all) = self.0.into_inner().unwrap_or_else(PoisonError::into_inner);
        if all.len() <= SLOWEST {
            return;
        }
        all.sort_by_key(|(took, _)| std::cmp::Reverse(*took));
        let slowest = all.iter().take(SLOWEST);
        let slowest: Vec<String> =
            slowest.map(|(took, name)| format!("{name} {}", duration(*took))).collect();
        step.line(&format!("  {kernel}, slowest: {}", slowest.join(", ")));
    }
}

fn arguments(job: &Job, filter: Option<&str>) -> Vec<String> {
    let tier = job.tier.word();
    let mut arguments: Vec<String> =
        ["--report", "-", "--tier", tier].into_iter().map(str::to_owned).collect();
    let (number, of) = job.part;
    if of > 1 {
        arguments.extend(["--part".to_owned(), format!("{number}/{of}")]);
    }
    arguments.extend(filter.map(str::to_owned));
    arguments
}

fn title(job: &Job) -> String {
    let tier = match job.tier {
        Tier::Smoke => "one check per mechanism",
        Tier::Thrifty => "kernel tests but the dear ones",
        Tier::Full => "all kernel tests",
    };
    let title = format!("{tier}, kernel {}", job.kernel);
    let (number, of) = job.part;
    if of > 1 { format!("{title}, part {number} of {of}") } else { title }
}

/// On this machine's own kernel.
pub fn natively(tests: &Path, job: &Job, filter: Option<&str>) -> Result<Column> {
    let step = Step::start(title(job));
    let mut command = Command::new(tests);
    command.args(arguments(job, filter));
    let pace = Pace::start();
    let said = exec::lines(&mut command, |line| pace.hear(&step, &job.kernel, line))?;
    pace.tell(&step, &job.kernel);
    let lines: Vec<String> = said.output.lines().map(str::to_owned).collect();
    Ok(ended(step, job, &lines, said.is_ok))
}

/// Two machines at a time: each is one thread of the host. They get what nobody else wants of the
/// processors, since they count instructions for time.
pub fn in_machines(tests: &Path, jobs: Vec<Job>, filter: Option<&str>) -> Result<Vec<Column>> {
    let order: Vec<String> = jobs.iter().map(|job| job.kernel.clone()).collect();
    let share = |job: Job| {
        let is_long = job.tier != Tier::Smoke && filter.is_none();
        job.shares(is_long)
    };
    let mut jobs: Vec<Job> = jobs.into_iter().flat_map(share).collect();
    // The longest first; the last is taken first.
    jobs.sort_by_key(|job| job.tier);
    let lanes = thread::available_parallelism().map_or(1, usize::from).min(jobs.len());
    let queue = Mutex::new(jobs);
    let done = Mutex::new(Vec::new());
    let next = || queue.lock().ok()?.pop();
    thread::scope(|scope| {
        for _ in 0..lanes {
            scope.spawn(|| {
                exec::stand_back();
                while let Some(job) = next() {
                    let result = in_machine(tests, &job, filter);
                    if let Ok(mut done) = done.lock() {
                        done.push(result);
                    }
                }
            });
        }
    });
    let done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    let mut columns: Vec<Column> = Vec::new();
    for column in done {
        let column = column?;
        match columns.iter_mut().find(|known| known.kernel == column.kernel) {
            Some(known) => known.join(column),
            None => columns.push(column),
        }
    }
    columns.sort_by_key(|column| order.iter().position(|kernel| *kernel == column.kernel));
    Ok(columns)
}

fn in_machine(tests: &Path, job: &Job, filter: Option<&str>) -> Result<Column> {
    let step = Step::start(title(job));
    let pace = Pace::start();
    let minutes = if job.tier == Tier::Smoke || job.part.1 > 1 { 30 } else { 60 };
    let outcome = vm::run(&vm::Job {
        kernel: job.kernel.clone(),
        files: vec![(tests.to_owned(), "kernel".to_owned())],
        command: format!("kernel --timing exact {}", arguments(job, filter).join(" ")),
        // Guest time then follows the guest's instructions, however busy this machine is.
        icount: true,
        limits: vm::Limits {
            total: Duration::from_secs(minutes * 60),
            // Others may go first for minutes.
            silence: Duration::from_secs(6 * 60),
        },
        each: &|line| pace.hear(&step, &job.kernel, line),
    });
    pace.tell(&step, &job.kernel);
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

//! Runs tests one after the other and says what came of every mechanism.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, bail};
use kfault_tests::{cgroup, kfault, ns};
use libtest_mimic::{Arguments, Completion, Failed, Trial};
use serde_json::json;

/// What a test comes to.
pub enum Done {
    /// The promise holds.
    Kept,
    /// This kernel cannot, which was tried.
    Cannot(Proof),
}

/// That a kernel cannot: made by trying only.
pub struct Proof(String);

impl Proof {
    /// Tries something that the test needs. `None`: it works, so there is nothing to skip.
    pub fn by_trying(what: &str, attempt: impl FnOnce() -> Result<()>) -> Option<Self> {
        attempt().err().map(|error| Self(format!("{what}: {error:#}")))
    }
}

impl std::fmt::Display for Proof {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// One promise.
#[derive(Clone, Copy)]
pub struct Test {
    /// What is promised.
    pub name: &'static str,
    /// The row of the support table.
    pub mechanism: &'static str,
    /// Part of the smoke tier.
    pub is_smoke: bool,
    /// Takes long where instructions are counted for time.
    pub is_dear: bool,
    run: fn() -> Result<Done>,
}

impl Test {
    /// Of the full tier.
    pub const fn new(
        mechanism: &'static str,
        name: &'static str,
        run: fn() -> Result<Done>,
    ) -> Self {
        Self { name, mechanism, is_smoke: false, is_dear: false, run }
    }

    /// Of the smoke tier too: one per mechanism.
    pub const fn smoke(self) -> Self {
        Self { is_smoke: true, ..self }
    }

    /// Left out of the thrifty tier: a minute or so of an emulated processor.
    pub const fn dear(self) -> Self {
        Self { is_dear: true, ..self }
    }
}

/// A list of tests: `tests!("delay": first, second)`, each name a function.
macro_rules! tests {
    ($mechanism:literal: $($run:ident),+ $(,)?) => {
        vec![$($crate::harness::Test::new($mechanism, stringify!($run), $run)),+]
    };
}
pub(crate) use tests;

/// What the command line asks for.
pub struct Options {
    arguments: Arguments,
    tier: Tier,
    report: Option<String>,
    /// Which share of the tests, of how many.
    part: (usize, usize),
}

/// How many of the tests.
#[derive(Clone, Copy)]
enum Tier {
    /// One per mechanism.
    Smoke,
    /// All but those that are dear.
    Thrifty,
    /// All.
    Full,
}

impl Tier {
    fn has(self, test: &Test) -> bool {
        match self {
            Self::Smoke => test.is_smoke,
            Self::Thrifty => test.is_smoke || !test.is_dear,
            Self::Full => true,
        }
    }
}

impl Options {
    /// Takes our own flags out and leaves the rest to the harness.
    pub fn parse(args: Vec<OsString>) -> Result<Self> {
        let mut rest = Vec::new();
        let (mut tier, mut report, mut part) = (Tier::Full, None, (0, 1));
        let mut args = args.into_iter();
        while let Some(arg) = args.next() {
            let mut value = || {
                let text = args.next().and_then(|value| value.into_string().ok());
                text.with_context(|| format!("{} needs a value", arg.display()))
            };
            match arg.to_str() {
                Some("--tier") => {
                    tier = match value()?.as_str() {
                        "smoke" => Tier::Smoke,
                        "thrifty" => Tier::Thrifty,
                        "full" => Tier::Full,
                        other => bail!("--tier {other}: smoke, thrifty or full"),
                    }
                }
                Some("--timing") => match value()?.as_str() {
                    "exact" => crate::faulty::be_exact(),
                    "loose" => {}
                    other => bail!("--timing {other}: loose or exact"),
                },
                Some("--report") => report = Some(value()?),
                Some("--part") => part = parse_part(&value()?)?,
                _ => rest.push(arg),
            }
        }
        let mut arguments = Arguments::from_iter(rest);
        // The tests share a kernel, and there is one engine per host.
        arguments.test_threads = Some(1);
        Ok(Self { arguments, tier, report, part })
    }
}

/// `2/4`: the second of four shares.
fn parse_part(text: &str) -> Result<(usize, usize)> {
    let part = text.split_once('/').and_then(|(number, of)| {
        let (number, of): (usize, usize) = (number.parse().ok()?, of.parse().ok()?);
        (1..=of).contains(&number).then(|| (number - 1, of))
    });
    part.with_context(|| format!("--part {text}: K/N, as in 2/4"))
}

/// What came of one test.
struct Result1 {
    test: Test,
    outcome: Outcome,
    paths: Vec<String>,
}

enum Outcome {
    Kept,
    Cannot(String),
    Broken(String),
}

/// Runs the tests that were asked for.
pub fn run(options: &Options, tests: Vec<Test>) -> Result<ExitCode> {
    let _alone;
    if !options.arguments.list {
        _alone = alone()?;
        ns::leave_the_host()?;
        cgroup::remove_leftovers();
    }
    let results: Arc<Mutex<Vec<Result1>>> = Arc::default();
    let trials = tests
        .into_iter()
        .filter(|test| options.tier.has(test))
        .enumerate()
        // Neighbours are of one mechanism and take alike long, so they are dealt out in turn.
        .filter(|(place, _)| place % options.part.1 == options.part.0)
        .map(|(_, test)| {
            let results = Arc::clone(&results);
            Trial::ignorable_test(format!("{}::{}", test.mechanism, test.name), move || {
                run_one(test, &results)
            })
        })
        .collect();
    let conclusion = libtest_mimic::run(&options.arguments, trials);
    if options.arguments.list {
        return Ok(ExitCode::SUCCESS);
    }
    let results = results.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(report) = &options.report {
        write(report, &results)?;
    }
    let skips: Vec<_> = results
        .iter()
        .filter_map(|r| match &r.outcome {
            Outcome::Cannot(why) => Some((r.test.name, why)),
            _ => None,
        })
        .collect();
    println!(
        "{} passed, {} failed, {} skipped with proof",
        conclusion.num_passed,
        conclusion.num_failed,
        skips.len()
    );
    for (name, why) in skips {
        println!("skipped {name}: {why}");
    }
    Ok(conclusion.exit_code())
}

/// The host's cgroups have one name each, and there is one engine: another run of these tests is
/// waited for.
fn alone() -> Result<fs::File> {
    let path = std::env::temp_dir().join("kfault-kernel-tests.lock");
    let file = fs::File::create(&path).with_context(|| format!("create {}", path.display()))?;
    if let Err(fs::TryLockError::WouldBlock) = file.try_lock() {
        eprintln!("waiting for other kernel tests on this host");
        file.lock().with_context(|| format!("lock {}", path.display()))?;
    }
    Ok(file)
}

fn run_one(test: Test, results: &Mutex<Vec<Result1>>) -> std::result::Result<Completion, Failed> {
    // What an earlier test left is not this one's.
    kfault::take_paths();
    let run = std::panic::catch_unwind(test.run).unwrap_or_else(|panic| {
        let text = panic
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
        Err(anyhow::anyhow!("panicked: {}", text.unwrap_or_default()))
    });
    let (outcome, completion) = match run {
        Ok(Done::Kept) => (Outcome::Kept, Ok(Completion::Completed)),
        Ok(Done::Cannot(Proof(why))) => {
            (Outcome::Cannot(why.clone()), Ok(Completion::ignored_with(why)))
        }
        Err(error) => {
            let why = format!("{error:#}");
            // At once, for the case that a later test hangs the machine.
            eprintln!("\n{}: {why}", test.name);
            (Outcome::Broken(why.clone()), Err(Failed::from(why)))
        }
    };
    let paths = kfault::take_paths();
    results.lock().unwrap_or_else(PoisonError::into_inner).push(Result1 { test, outcome, paths });
    completion
}

/// One line per mechanism, per skip and per failure.
fn write(report: &str, results: &[Result1]) -> Result<()> {
    let mut rows: BTreeMap<&str, Vec<&Result1>> = BTreeMap::new();
    for result in results {
        rows.entry(result.test.mechanism).or_default().push(result);
    }
    let release =
        fs::read_to_string("/proc/sys/kernel/osrelease").context("the kernel's release")?;
    let mut lines = vec![json!({"kernel": release.trim()})];
    for (mechanism, results) in rows {
        let (state, why) = row(&results);
        lines.push(json!({"mechanism": mechanism, "state": state, "why": why}));
    }
    for Result1 { test, outcome, .. } in results {
        match outcome {
            Outcome::Kept => {}
            Outcome::Cannot(why) => lines.push(json!({"skip": test.name, "why": why})),
            Outcome::Broken(why) => lines.push(json!({"failed": test.name, "why": why})),
        }
    }
    if report == "-" {
        for line in lines {
            println!("##kfault-report {line}");
        }
        return Ok(());
    }
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    fs::write(report, text).with_context(|| format!("write {report}"))
}

/// `works` with the way that packets were held; `failed` or, where the kernel cannot, `missing`,
/// with the first reason.
fn row(results: &[&Result1]) -> (&'static str, String) {
    let broken = results.iter().find_map(|r| match &r.outcome {
        Outcome::Broken(why) => Some(format!("{} failed: {why}", r.test.name)),
        _ => None,
    });
    if let Some(why) = broken {
        return ("failed", why);
    }
    if results.iter().any(|r| matches!(r.outcome, Outcome::Kept)) {
        let mut paths: Vec<&str> =
            results.iter().flat_map(|r| &r.paths).map(String::as_str).collect();
        paths.sort_unstable();
        paths.dedup();
        return ("works", paths.join(", "));
    }
    let why = results.iter().find_map(|r| match &r.outcome {
        Outcome::Cannot(why) => Some(why.clone()),
        _ => None,
    });
    ("missing", why.unwrap_or_default())
}

//! `demo`: one fault from start to end on a real HTTP server and client, in two namespaces that
//! are made for it and removed after it.

mod plot;
mod stage;

use std::fmt::Write as _;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::progress::Step;
use crate::setup::{self, Group};
use crate::{build, exec};
use plot::Sample;
use stage::Stage;

const EXAMPLE: &str = "deploy/examples/network-delay.yaml";
/// How long the calm before and after is, and how long the fault.
const CALM: Duration = Duration::from_secs(3);
const FAULT: Duration = Duration::from_secs(6);
/// Time between two requests.
const PACE: Duration = Duration::from_millis(150);

/// Options of `cargo xtask demo`.
#[derive(clap::Args)]
pub struct Args {
    /// The manifest to apply to the client
    #[arg(default_value = EXAMPLE)]
    manifest: String,
}

/// The command.
pub fn main(args: Args) -> Result<()> {
    ensure!(
        exec::is_root(),
        "the demo makes network namespaces and loads BPF programs: run as root"
    );
    setup::need(&[Group::Build, Group::Demo])?;
    let kfault = build::kfault()?;
    let stage = Stage::set()?;
    let before = stage.queues()?;

    let start = Instant::now();
    let (sender, receiver) = mpsc::channel();
    let is_over = AtomicBool::new(false);
    let total = CALM + FAULT + CALM;
    let step = Step::start(format!("requests to nginx, one every {} ms", PACE.as_millis()));
    let events = thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                let (sender, stage) = (sender.clone(), &stage);
                let at = start.elapsed();
                step.note(&format!("{:.0} of {:.0} s", at.as_secs_f64(), total.as_secs_f64()));
                // Each has a thread of its own: a slow answer must not thin the requests out.
                scope.spawn(move || sender.send((at, stage.request())));
                thread::sleep(PACE);
            }
        });
        let events = act(&kfault, &args.manifest, start);
        is_over.store(true, Ordering::Relaxed);
        events
    });
    drop(sender);
    let events = match events {
        Ok(events) => events,
        Err(error) => {
            step.failed("kfault did not run");
            return Err(error);
        }
    };
    let mut samples = Vec::new();
    for (at, latency) in receiver {
        let latency = latency.context("a request of the demo's client")?;
        samples.push(Sample { at, latency });
    }
    samples.sort_by_key(|sample| sample.at);
    step.done(&format!("{} answered", samples.len()));

    let mut shown = plot::plot(&samples, events.applied, events.recovered, total);
    shown.push('\n');
    shown.push_str(&report(&samples, &events)?);
    print!("\n{shown}");
    // For `docs`, which shows it in the README.
    std::fs::write(crate::target_dir().join("demo.txt"), &shown).context("keep the plot")?;
    let after = stage.queues()?;
    ensure!(
        after == before,
        "the client's queues and filters are not what they were:\nbefore:\n{before}after:\n{after}"
    );
    println!("the client's queues and filters are as they were before");
    Ok(())
}

/// What kfault said and when.
struct Events {
    applied: Duration,
    recovered: Duration,
    rules: Vec<Value>,
}

/// The calm, the fault and the calm after it.
fn act(kfault: &std::path::Path, manifest: &str, start: Instant) -> Result<Events> {
    thread::sleep(CALM.saturating_sub(start.elapsed()));
    let mut command = Command::new(kfault);
    command.current_dir(crate::root()).arg("run").arg(manifest);
    command.args(["--target", &format!("netns:{}", stage::CLIENT)]);
    command.args(["--duration", &format!("{}s", FAULT.as_secs()), "--output", "json"]);
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .stdin(Stdio::null())
        .spawn()
        .context("start kfault")?;
    let (mut applied, mut recovered, mut rules) = (None, None, Vec::new());
    for line in BufReader::new(child.stdout.take().context("kfault's output")?).lines() {
        let event: Value = serde_json::from_str(&line?).context("kfault's JSON")?;
        match event["event"].as_str() {
            Some("applied") => applied = Some(start.elapsed()),
            Some("recovered") => recovered = Some(start.elapsed()),
            Some("summary") => rules = event["rules"].as_array().cloned().unwrap_or_default(),
            _ => {}
        }
    }
    let ended = child.wait_with_output().context("wait for kfault")?;
    if !ended.status.success() {
        bail!("kfault: {}\n{}", ended.status, String::from_utf8_lossy(&ended.stderr).trim());
    }
    thread::sleep(CALM);
    Ok(Events {
        applied: applied.context("kfault did not say that it applied the fault")?,
        recovered: recovered.context("kfault did not say that it recovered")?,
        rules,
    })
}

fn report(samples: &[Sample], events: &Events) -> Result<String> {
    let median = |from: Duration, to: Duration| {
        let mut latencies: Vec<f64> = samples
            .iter()
            .filter(|sample| sample.at >= from && sample.at < to)
            .map(|sample| sample.latency.as_secs_f64() * 1e3)
            .collect();
        latencies.sort_by(f64::total_cmp);
        latencies.get(latencies.len() / 2).map_or_else(|| "-".into(), |ms| format!("{ms:.1} ms"))
    };
    // A request that starts just before the fault or its end sees a part of it.
    let edge = Duration::from_millis(50);
    let (from, to) = (events.applied, events.recovered);
    let mut text =
        String::from("median time to connect (one round trip), by the client's clock:\n");
    writeln!(text, "  before  {:>10}", median(Duration::ZERO, from.saturating_sub(edge)))?;
    writeln!(text, "  during  {:>10}", median(from + edge, to.saturating_sub(edge)))?;
    writeln!(text, "  after   {:>10}", median(to + edge, Duration::MAX))?;
    text.push_str("what kfault declared and what its counters say:\n");
    for rule in &events.rules {
        let percent = |share: f64| format!("{:.1} %", share * 1e2);
        let declared = rule["declared"].as_f64().map_or_else(|| "-".into(), percent);
        let (matched, injected) = (rule["matched"].as_f64(), rule["injected"].as_f64());
        let observed = matched.zip(injected).filter(|(matched, _)| *matched > 0.0);
        let observed =
            observed.map_or_else(|| "-".into(), |(matched, injected)| percent(injected / matched));
        let held = match rule["path"].as_str() {
            Some("fq") => "the fq queue of the interface",
            Some("line") => "kfault's delay line",
            _ => "nothing",
        };
        writeln!(text, "  {}", rule["describes"].as_str().unwrap_or_default())?;
        writeln!(
            text,
            "  declared {declared}, injected {observed} ({} of {} packets), held by {held}",
            rule["injected"], rule["matched"],
        )?;
    }
    Ok(text)
}

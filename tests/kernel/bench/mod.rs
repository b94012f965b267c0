//! What kfault costs and how exact it is, beside a peer in the same run: netem where the kernel
//! has it, the same path without a fault, or what was declared.
//!
//! A figure that misses its goal is a figure: it is printed as missed and the program succeeds.
//! Only a row that breaks for a reason nobody expects makes it fail.

mod accuracy;
mod bandwidth;
mod cost;
mod delay;
mod dns;
mod engine;
mod flood;
mod goal;
mod http;
mod http_memory;
mod memory;
mod netem;
mod nothing;
mod pps;
pub mod targets;
mod throughput;
mod ticker;

use std::ffi::OsString;
use std::fs;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use kfault_tests::manifest::Manifest;
use kfault_tests::net::Net;
use kfault_tests::{cgroup, ns};

use crate::faulty::on_client;
use goal::Findings;

/// One program: a name and what fills in its figures.
type Row = (&'static str, fn(&mut Findings) -> Result<()>);

const ROWS: [Row; 13] = [
    ("delay", delay::run),
    ("throughput", throughput::run),
    ("pps", pps::run),
    ("cost", cost::run),
    ("nothing", nothing::run),
    ("accuracy", accuracy::run),
    ("bandwidth", bandwidth::run),
    ("engine", engine::run),
    ("memory", memory::run),
    ("dns", dns::run),
    ("http-rate", http::rate),
    ("http-latency", http::latency),
    ("http-memory", http_memory::run),
];

/// `kernel bench [ROW…] [--report FILE|-]`
pub fn main(args: Vec<OsString>) -> Result<ExitCode> {
    let (rows, report) = parse(args)?;
    ns::leave_the_host()?;
    cgroup::remove_leftovers();
    let mut findings = Findings::default();
    let mut broken = Vec::new();
    for (name, run) in rows {
        findings.begin(name);
        if let Err(error) = run(&mut findings) {
            eprintln!("{name}: {error:#}");
            findings.failed(&format!("{error:#}"));
            broken.push(name);
        }
    }
    let lines = findings.lines();
    if report == "-" {
        for line in lines {
            println!("##kfault-bench {line}");
        }
    } else {
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        fs::write(&report, text).with_context(|| format!("write {report}"))?;
    }
    print!("{}", findings.table());
    if broken.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    println!("could not be measured: {}", broken.join(", "));
    Ok(ExitCode::FAILURE)
}

fn parse(args: Vec<OsString>) -> Result<(Vec<Row>, String)> {
    let mut rows = Vec::new();
    let mut report = "-".to_owned();
    let mut words = args.into_iter().skip(2).map(|word| word.to_string_lossy().into_owned());
    while let Some(word) = words.next() {
        if word == "--report" {
            report = words.next().context("--report needs a file or -")?;
            continue;
        }
        let Some(row) = ROWS.into_iter().find(|(name, _)| *name == word) else {
            let names = ROWS.map(|(name, _)| name).join(", ");
            bail!("{word}: there is no such row; there are {names}");
        };
        rows.push(row);
    }
    Ok((if rows.is_empty() { ROWS.to_vec() } else { rows }, report))
}

/// What `measure` gives while a fault acts on the client.
fn under_kfault<T>(
    net: &Net,
    manifest: &Manifest,
    measure: impl FnOnce() -> Result<T>,
) -> Result<T> {
    let kfault = on_client(net, manifest)?.start()?;
    let measured = measure()?;
    kfault.stop()?;
    Ok(measured)
}

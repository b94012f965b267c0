//! `bench` and `soak`: the programs of `tests/kernel` that measure, here or in a machine.

use std::time::Duration;

use anyhow::{Result, ensure};

use crate::{cluster, load, setup};

/// How the machine is called that this one is.
const NATIVE: &str = "native";
/// What a whole table of figures may take.
const BENCH_LIMIT: Duration = Duration::from_secs(90 * 60);
/// Where they can run.
const KERNELS: [&str; 5] = [NATIVE, "5.10", "6.1", "6.12", "7.x"];
/// Rows of the suite of HTTP.
const HTTP: [&str; 3] = ["http-rate", "http-latency", "http-memory"];

/// Options of `cargo xtask bench`.
#[derive(clap::Args)]
pub struct BenchArgs {
    /// Where: `native`, or a VM with this kernel, whose time is counted in instructions (6.12 has
    /// netem and fq, and so every peer)
    #[arg(long, value_name = "VERSION", default_value = "6.12", value_parser = KERNELS)]
    kernel: String,
    /// What is measured: the kernel's part, kfault on the test cluster, or, on this machine, answers to
    /// DNS queries beside dnsmasq's, and changed responses of HTTP beside nginx's
    #[arg(long, value_enum, default_value_t = Suite::Kernel)]
    suite: Suite,
    /// Only these rows: delay throughput pps cost nothing accuracy bandwidth engine memory dns;
    /// of the cluster: install one fifty api cost; of HTTP: http-rate http-latency http-memory
    #[arg(value_name = "ROW")]
    rows: Vec<String>,
}

/// What is measured.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Suite {
    Kernel,
    Cluster,
    Dns,
    Http,
}

/// Options of `cargo xtask soak`.
#[derive(clap::Args)]
pub struct SoakArgs {
    /// How long
    #[arg(long, value_name = "N", default_value_t = 5.0)]
    minutes: f64,
    /// Seed of every choice; the same seed repeats a soak
    #[arg(long)]
    seed: Option<u64>,
    /// Where: `native`, or a VM with this kernel
    #[arg(long, value_name = "VERSION", default_value = NATIVE, value_parser = KERNELS)]
    kernel: String,
}

/// `cargo xtask bench`
pub fn bench(args: BenchArgs) -> Result<()> {
    if args.suite == Suite::Cluster {
        return cluster::bench(&args.rows);
    }
    if args.suite == Suite::Dns {
        ensure!(args.rows.is_empty(), "the suite dns is one row");
        setup::need(&[setup::Group::Bench])?;
        return load::run(None, &["bench".to_owned(), "dns".to_owned()], BENCH_LIMIT, false);
    }
    if args.suite == Suite::Http {
        setup::need(&[setup::Group::Bench])?;
        let all = || HTTP.map(str::to_owned).to_vec();
        let rows = if args.rows.is_empty() { all() } else { args.rows };
        let words: Vec<String> = std::iter::once("bench".to_owned()).chain(rows).collect();
        return load::run(None, &words, BENCH_LIMIT, false);
    }
    let words: Vec<String> = std::iter::once("bench".to_owned()).chain(args.rows).collect();
    load::run(machine(&args.kernel), &words, BENCH_LIMIT, true)
}

/// `cargo xtask soak`
pub fn soak(args: SoakArgs) -> Result<()> {
    ensure!(args.minutes > 0.0, "--minutes {}: a positive number", args.minutes);
    let mut words = vec!["soak".to_owned(), "--minutes".to_owned(), args.minutes.to_string()];
    if let Some(seed) = args.seed {
        words.extend(["--seed".to_owned(), seed.to_string()]);
    }
    let limit = Duration::from_secs_f64(args.minutes * 60.0 * 3.0) + Duration::from_secs(600);
    load::run(machine(&args.kernel), &words, limit, false)
}

fn machine(kernel: &str) -> Option<&str> {
    (kernel != NATIVE).then_some(kernel)
}

//! The front door of the workspace: `cargo xtask COMMAND`.
//!
//! Every command makes sure of what it needs first (see [`setup`]), shows what it is doing, and
//! can be run again at no cost. One file per command.

mod bench;
mod build;
mod chart;
mod cluster;
mod crds;
mod demo;
mod docs;
mod exec;
mod image;
mod lint;
mod load;
mod progress;
mod setup;
mod support;
mod test;
mod vm;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Builds, tests and shows kfault.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Installs what the other commands need (on Debian as root), or names what is missing
    Setup,
    /// Builds the static program `kfault` and prints its path
    Build,
    /// Loads and attaches every BPF program and prints what the verifier paid
    Load(load::Args),
    /// Tests everything: rules of the house, pure tests, kernel tests here and in the VM matrix
    Test(test::Args),
    /// Boots one of Debian's kernels with a command or a shell
    Vm(vm::Args),
    /// Writes container images, without a container engine
    Image(image::Args),
    /// Starts and ends a Kubernetes of several nodes on this machine, for tests
    Cluster(cluster::Args),
    /// Shows one fault on a real HTTP server: measured, plotted, recovered
    Demo(demo::Args),
    /// Measures kfault beside netem, a plain path, and what was declared; prints goals met and missed
    Bench(bench::BenchArgs),
    /// Injects and recovers at random under traffic, and looks for what is left behind
    Soak(bench::SoakArgs),
    /// Writes what is generated below deploy: definitions of the API, webhooks, the chart's templates
    Crds(crds::Args),
    /// Checks formatting, clippy, generated files and the rules of the house
    Lint,
    /// Writes what the last test run and the last demo showed into the README
    Docs,
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Setup => setup::main(),
        Command::Build => build::main(),
        Command::Image(args) => image::main(args),
        Command::Cluster(args) => cluster::main(args),
        Command::Vm(args) => vm::main(args),
        Command::Load(args) => load::main(args),
        Command::Test(args) => test::main(args),
        Command::Bench(args) => bench::bench(args),
        Command::Soak(args) => bench::soak(args),
        Command::Crds(args) => crds::main(args),
        Command::Lint => lint::main(),
        Command::Docs => docs::main(),
        Command::Demo(args) => demo::main(args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The workspace's folder.
fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_owned()
}

/// Where cargo builds to.
fn target_dir() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(folder) => root().join(folder),
        None => root().join("target"),
    }
}

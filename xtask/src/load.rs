//! `load`: loads and attaches every BPF program and prints what the verifier paid for it.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::{build, exec, vm};

/// Options of `cargo xtask load`.
#[derive(clap::Args)]
pub struct Args {
    /// In a VM with this kernel: 5.10, 6.1, 6.12 or 7.x
    #[arg(long, value_name = "VERSION", value_parser = vm::KERNELS)]
    kernel: Option<String>,
}

/// The command.
pub fn main(args: Args) -> Result<()> {
    run(args.kernel.as_deref(), &["load".to_owned()], Duration::from_secs(300), false)
}

/// Runs a mode of the kernel tests' program here or in a machine, its output shown as it comes.
pub fn run(kernel: Option<&str>, words: &[String], limit: Duration, icount: bool) -> Result<()> {
    ensure!(
        kernel.is_some() || exec::is_root(),
        "loading BPF programs needs root (in a VM of any user: --kernel VERSION)"
    );
    let tests = build::kernel_tests()?;
    let status = match kernel {
        None => exec::attached(Command::new(&tests).args(words))?,
        Some(kernel) => in_machine(&tests, kernel, words, limit, icount)?,
    };
    ensure!(status == 0, "`{}` ended with status {status}", words.join(" "));
    Ok(())
}

fn in_machine(
    tests: &Path,
    kernel: &str,
    words: &[String],
    limit: Duration,
    icount: bool,
) -> Result<i32> {
    crate::setup::need(&[crate::setup::Group::Vm])?;
    let job = vm::Job {
        kernel: kernel.to_owned(),
        files: vec![(tests.to_owned(), "kernel".to_owned())],
        command: std::iter::once("kernel")
            .chain(words.iter().map(String::as_str))
            .collect::<Vec<_>>()
            .join(" "),
        icount,
        limits: vm::Limits::total(limit),
        each: &|line| println!("{line}"),
    };
    Ok(vm::run(&job)?.status)
}

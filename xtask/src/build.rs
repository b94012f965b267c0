//! `build`: the static programs. One file runs on every machine and in every VM.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::exec;
use crate::progress::{Step, step};
use crate::setup::{self, Group};

/// The command.
pub fn main() -> Result<()> {
    let program = kfault()?;
    println!("{} ({})", program.display(), size(&program)?);
    Ok(())
}

/// The program that [`tests`] has built.
static TESTED: OnceLock<PathBuf> = OnceLock::new();

/// Builds `kfault`, unless the one that the tests run was built before.
pub fn kfault() -> Result<PathBuf> {
    if let Some(program) = TESTED.get() {
        return Ok(program.clone());
    }
    setup::need(&[Group::Build])?;
    step("build kfault", |step| {
        let mut cargo = static_cargo();
        cargo.args(["build", "--package", "chaos-user", "--bin", "kfault"]);
        artifact(step, &mut cargo, "kfault")
    })
}

/// What of the workspace is tested without a kernel, but for the goldens.
pub const PURE: [&str; 3] = ["--workspace", "--exclude", "kfault-tests"];

/// Builds the tests that need no kernel, and the program that they run. It is the one that
/// [`kfault`] returns from here on: to cargo, the program alone is another one, with fewer
/// features of what it depends on, and half of everything would be built once more for it.
pub fn tests() -> Result<()> {
    setup::need(&[Group::Build])?;
    step("build kfault and its tests", |step| {
        let mut cargo = static_cargo();
        cargo.arg("test").args(PURE).arg("--no-run");
        let program = artifact(step, &mut cargo, "kfault")?;
        // Nobody else sets it.
        let _ = TESTED.set(program);
        Ok(())
    })
}

/// Builds the kernel tests. The copy that is returned has no symbols: it is what a VM's memory
/// has to hold.
pub fn kernel_tests() -> Result<PathBuf> {
    setup::need(&[Group::Build])?;
    step("build the kernel tests", |step| {
        let mut cargo = static_cargo();
        cargo.args(["test", "--package", "kfault-tests", "--test", "kernel", "--no-run"]);
        let built = artifact(step, &mut cargo, "kernel")?;
        let stripped = crate::target_dir().join("kfault-kernel-tests");
        // Written aside first: a test that still runs keeps the file that it was started from.
        let aside = stripped.with_extension("new");
        exec::quiet(step, exec::program("strip")?.arg("-o").arg(&aside).arg(&built))?;
        fs::rename(&aside, &stripped).context("put the stripped kernel tests in place")?;
        Ok(stripped)
    })
}

/// A cargo whose programs need no library. The target is named so that build scripts and
/// procedural macros, which cannot be static, are built without these flags.
pub fn static_cargo() -> Command {
    let mut cargo = exec::cargo();
    let arch = std::env::consts::ARCH;
    let variable = format!("CARGO_TARGET_{}_UNKNOWN_LINUX_GNU_RUSTFLAGS", arch.to_uppercase());
    cargo
        .env(variable, "-Ctarget-feature=+crt-static")
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS");
    cargo
}

/// What [`static_cargo`] builds for.
pub fn target() -> String {
    format!("{}-unknown-linux-gnu", std::env::consts::ARCH)
}

fn artifact(step: &Step, cargo: &mut Command, name: &str) -> Result<PathBuf> {
    cargo.args(["--release", "--target", &target()]);
    cargo.args(["--message-format", "json-render-diagnostics"]);
    let said = exec::quiet(step, cargo)?;
    said.stdout
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|message| message["reason"] == "compiler-artifact")
        .filter(|message| message["target"]["name"] == name)
        // The unit tests of a program have its name.
        .filter(|message| {
            message["target"]["kind"][0] != "bin" || message["profile"]["test"] == false
        })
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
        .with_context(|| format!("cargo built no program {name}"))
}

fn size(file: &Path) -> Result<String> {
    let bytes = fs::metadata(file).with_context(|| file.display().to_string())?.len();
    let tenths = bytes * 10 / (1 << 20);
    Ok(format!("{}.{} MiB, static", tenths / 10, tenths % 10))
}

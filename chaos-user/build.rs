//! Builds the BPF object that the library embeds.
//!
//! The object needs a compiler that can build `core` for a BPF target: a rustup nightly with
//! `rust-src` where there is one, else the distribution's compiler with its library sources.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

const TARGET: &str = "bpfel-unknown-none";

/// How to run cargo for the BPF target.
struct Toolchain {
    cargo: PathBuf,
    rustc: PathBuf,
    bootstrap: bool,
}

fn main() {
    if let Err(reason) = run() {
        println!("cargo::error={reason}");
        println!(
            "cargo::error=run `cargo xtask setup`, which installs what is missing or names it"
        );
        std::process::exit(1);
    }
}

fn run() -> Result<(), String> {
    let root = PathBuf::from(var("CARGO_MANIFEST_DIR")?);
    let root = root.parent().ok_or("no workspace above the package")?;
    for watched in ["chaos-ebpf", "Cargo.lock"] {
        println!("cargo::rerun-if-changed={}", root.join(watched).display());
    }
    println!("cargo::rerun-if-env-changed=PATH");
    let toolchain = toolchain()?;
    let linker = linker()?;
    let target_dir = PathBuf::from(var("OUT_DIR")?).join("bpf");
    let arch = match var("CARGO_CFG_TARGET_ARCH")?.as_str() {
        arch @ ("x86_64" | "aarch64") => arch.to_owned(),
        other => return Err(format!("kfault runs on x86_64 and aarch64, not on {other}")),
    };
    let flags = [
        format!("--cfg=bpf_target_arch=\"{arch}\""),
        "-Cdebuginfo=2".into(),
        "-Clink-arg=--btf".into(),
        format!("-Clinker={}", linker.display()),
    ];
    let mut command = Command::new(&toolchain.cargo);
    // What the outer cargo says to itself must not reach the inner one.
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        let ours =
            text.starts_with("CARGO") || text.starts_with("RUSTC") || text.starts_with("RUST");
        if ours && text != "CARGO_HOME" && text != "RUSTUP_HOME" {
            command.env_remove(&name);
        }
    }
    command
        .current_dir(root)
        .env("RUSTC", &toolchain.rustc)
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"))
        .env("CARGO_TARGET_DIR", &target_dir)
        .args(["build", "--release", "--locked", "--package", "chaos-ebpf"])
        .args(["--bin", "kfault-bpf", "--bin", "kfault-http"])
        .args(["-Zbuild-std=core", "--target", TARGET]);
    if toolchain.bootstrap {
        command.env("RUSTC_BOOTSTRAP", "1");
    }
    let done = command.output().map_err(|e| format!("{}: {e}", toolchain.cargo.display()))?;
    if !done.status.success() {
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        for line in said.lines() {
            println!("cargo::warning={line}");
        }
        return Err("the BPF object does not build".into());
    }
    for (variable, name) in [("OBJECT", "kfault-bpf"), ("HTTP_OBJECT", "kfault-http")] {
        let object = target_dir.join(TARGET).join("release").join(name);
        println!("cargo::rustc-env=KFAULT_BPF_{variable}={}", object.display());
    }
    Ok(())
}

fn var(name: &str) -> Result<String, String> {
    env::var(name).map_err(|e| format!("{name}: {e}"))
}

/// The first toolchain that has library sources.
fn toolchain() -> Result<Toolchain, String> {
    if let Some(rustc) = rustup_which("rustc")
        && has_sources(&rustc)
        && let Some(cargo) = rustup_which("cargo")
    {
        return Ok(Toolchain { cargo, rustc, bootstrap: false });
    }
    let (cargo, rustc) = (PathBuf::from("/usr/bin/cargo"), PathBuf::from("/usr/bin/rustc"));
    if cargo.exists() && has_sources(&rustc) {
        return Ok(Toolchain { cargo, rustc, bootstrap: true });
    }
    Err("no compiler for the BPF target: neither a rustup nightly with rust-src nor a \
         distribution's rustc with its library sources"
        .into())
}

fn rustup_which(tool: &str) -> Option<PathBuf> {
    let said =
        Command::new("rustup").args(["which", "--toolchain", "nightly", tool]).output().ok()?;
    said.status.success().then(|| PathBuf::from(String::from_utf8_lossy(&said.stdout).trim()))
}

/// `core` can only be built where its sources lie.
fn has_sources(rustc: &Path) -> bool {
    let Ok(said) = Command::new(rustc).args(["--print", "sysroot"]).output() else { return false };
    let sysroot = PathBuf::from(String::from_utf8_lossy(&said.stdout).trim());
    sysroot.join("lib/rustlib/src/rust/library/core/src/lib.rs").exists()
}

/// Where `cargo install` puts bpf-linker, or anywhere on the path.
fn linker() -> Result<PathBuf, String> {
    let home = env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo")));
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(home.map(|home| home.join("bin")))
        .map(|folder| folder.join("bpf-linker"))
        .find(|file| file.exists())
        .ok_or_else(|| "bpf-linker is not installed".into())
}

//! The compilers: what chaos-user's build script looks for, looked for in the same places.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::exec;
use crate::progress::step;

/// The linker for BPF objects, from cargo's registry.
const LINKER: &str = "0.13.0";
/// The LLVM that it is built on. It must not be older than the compiler's.
const LLVM: &str = "22";

/// Builds bpf-linker where there is none.
pub fn need_linker() -> Result<()> {
    if find_linker().is_some() {
        return Ok(());
    }
    let llvm = PathBuf::from(format!("/usr/lib/llvm-{LLVM}/bin"));
    step(format!("build bpf-linker {LINKER} (a few minutes)"), |step| {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let path = std::env::join_paths(std::iter::once(llvm).chain(std::env::split_paths(&path)))?;
        let feature = format!("llvm-{LLVM}");
        let mut cargo = exec::cargo();
        cargo
            .env("PATH", path)
            .args(["install", "bpf-linker", "--version", LINKER, "--locked"])
            .args(["--no-default-features", "--features", &feature]);
        exec::quiet(step, &mut cargo).map(|_| ())
    })?;
    find_linker().map(|_| ()).context("cargo installed bpf-linker, but not where it is looked for")
}

/// On the path, or where `cargo install` puts it.
fn find_linker() -> Option<PathBuf> {
    exec::find("bpf-linker").or_else(|| {
        let home = std::env::var_os("CARGO_HOME")
            .map(PathBuf::from)
            .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")))?;
        let file = home.join("bin/bpf-linker");
        file.is_file().then_some(file)
    })
}

/// Whether bpf-linker is there or can be built.
pub fn can_have_linker() -> bool {
    find_linker().is_some() || has_llvm()
}

fn has_llvm() -> bool {
    let own = PathBuf::from(format!("/usr/lib/llvm-{LLVM}/bin/llvm-config"));
    let config = if own.exists() { Some(own) } else { exec::find("llvm-config") };
    config
        .and_then(|config| exec::read(Command::new(config).arg("--version")).ok())
        .is_some_and(|version| version.starts_with(&format!("{LLVM}.")))
}

/// A rustup nightly with sources, or the distribution's compiler with its own.
pub fn has_compiler() -> bool {
    let core = "lib/rustlib/src/rust/library/core/src/lib.rs";
    let has_core = |rustc: &str| {
        exec::read(Command::new(rustc).args(["--print", "sysroot"]))
            .is_ok_and(|sysroot| Path::new(sysroot.trim()).join(core).exists())
    };
    if Path::new("/usr/bin/cargo").exists() && has_core("/usr/bin/rustc") {
        return true;
    }
    exec::read(Command::new("rustup").args(["which", "--toolchain", "nightly", "rustc"]))
        .is_ok_and(|rustc| has_core(rustc.trim()))
}

/// The two programs that `cargo fmt` and `cargo clippy` call.
pub fn has_lints() -> bool {
    // A rustup proxy may be there for a component that is not.
    ["rustfmt", "cargo-clippy"].iter().all(|name| {
        exec::find(name).is_some_and(|file| exec::read(Command::new(file).arg("--version")).is_ok())
    })
}

/// Static programs are linked with it.
pub fn has_static_libc() -> bool {
    exec::read(Command::new("cc").arg("-print-file-name=libc.a"))
        .is_ok_and(|file| Path::new(file.trim()).is_absolute())
}

/// The library's link and its header come together.
pub fn has_c_ares() -> bool {
    exec::read(Command::new("cc").arg("-print-file-name=libcares.so"))
        .is_ok_and(|file| Path::new(file.trim()).is_absolute())
}

/// A VM's first file system has no libraries.
pub fn has_static_busybox() -> bool {
    // A dynamic program names its interpreter near its start.
    exec::find("busybox").and_then(|file| fs::read(file).ok()).is_some_and(|bytes| {
        let head = &bytes[..bytes.len().min(4096)];
        !head.windows(7).any(|window| window == b"ld-linu")
    })
}

//! Go's net/http.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use super::{Asked, Program, Told, folder, succeeds};
use crate::ns::Ns;

const PROGRAM: &str = include_str!("programs/main.go");
/// Where Go's own releases are unpacked to.
const RELEASE: &str = "/usr/local/go/bin/go";

fn compiler() -> PathBuf {
    if succeeds("go", &["version"]).is_ok() { "go".into() } else { RELEASE.into() }
}

/// That there is a compiler.
pub fn look() -> Result<()> {
    succeeds(compiler(), &["version"]).map(drop)
}

/// Builds the program, from the standard library alone.
fn build() -> Result<(TempDir, PathBuf)> {
    let folder = folder()?;
    std::fs::write(folder.path().join("main.go"), PROGRAM).context("a program in Go")?;
    let program = folder.path().join("program");
    let mut command = Command::new(compiler());
    command
        .current_dir(folder.path())
        .args(["build", "-o"])
        .args([&program, Path::new("main.go")])
        .env("CGO_ENABLED", "0")
        .env("GOTOOLCHAIN", "local")
        .env("GOPROXY", "off")
        .env("GO111MODULE", "off")
        .stdin(Stdio::null());
    if std::env::var_os("HOME").is_none() && std::env::var_os("GOCACHE").is_none() {
        command.env("GOCACHE", std::env::temp_dir().join("kft-go-cache"));
    }
    let output = command.output().context("start go")?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "go build: {}", errors.trim());
    Ok((folder, program))
}

/// Starts a server on every address of a namespace.
pub fn start(ns: &Ns, port: u16) -> Result<Program> {
    let (folder, program) = build()?;
    let mut command = ns.command(&program.display().to_string());
    command.args(["serve", &port.to_string()]);
    Program::start(ns, command, folder, port)
}

/// Sends requests.
pub fn ask(ns: &Ns, asked: &Asked<'_>, bases: &[String]) -> Result<Vec<Told>> {
    let (_folder, program) = build()?;
    let mut command = ns.command(&program.display().to_string());
    command.arg("ask");
    super::ask(command, asked, bases)
}

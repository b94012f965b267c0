//! Java: com.sun.net.httpserver, and java.net.http.

use anyhow::{Context, Result, ensure};

use super::{Asked, Program, Told, folder, succeeds};
use crate::ns::Ns;

const SERVER: &str = include_str!("programs/Serve.java");
const CLIENT: &str = include_str!("programs/Ask.java");
/// What runs for a moment is best compiled in a hurry.
const HURRY: [&str; 3] = ["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xshare:auto"];

/// That there is one with these modules, and with a compiler.
fn look_for(modules: &[&str]) -> Result<()> {
    let all = succeeds("java", &["--list-modules"])?;
    for module in [&["jdk.compiler"], modules].concat() {
        let is_there = all.lines().any(|line| line.split('@').next() == Some(module));
        ensure!(is_there, "java has no module {module}");
    }
    Ok(())
}

/// That it can serve.
pub fn look() -> Result<()> {
    look_for(&["jdk.httpserver"])
}

/// That it can ask.
pub fn look_for_client() -> Result<()> {
    look_for(&["java.net.http"])
}

/// Starts a server on every IPv4 address of a namespace.
pub fn start(ns: &Ns, port: u16) -> Result<Program> {
    let folder = folder()?;
    let file = folder.path().join("Serve.java");
    std::fs::write(&file, SERVER).context("a program in Java")?;
    let mut command = ns.command("java");
    command.args(HURRY).arg(file).arg(port.to_string());
    Program::start(ns, command, folder, port)
}

/// Sends requests.
pub fn ask(ns: &Ns, asked: &Asked<'_>, bases: &[String]) -> Result<Vec<Told>> {
    let folder = folder()?;
    let file = folder.path().join("Ask.java");
    std::fs::write(&file, CLIENT).context("a program in Java")?;
    let mut command = ns.command("java");
    command.args(HURRY).arg(file);
    super::ask(command, asked, bases)
}

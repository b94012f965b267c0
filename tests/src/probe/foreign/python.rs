//! Python: http.server, and http.client.

use anyhow::{Context, Result};

use super::{Asked, Program, Told, files, folder, succeeds};
use crate::ns::Ns;

const SERVER: &str = include_str!("programs/serve.py");
const CLIENT: &str = include_str!("programs/ask.py");

/// That there is one.
pub fn look() -> Result<()> {
    succeeds("python3", &["-c", "import http.client, http.server"]).map(drop)
}

/// Starts a server of HTTP/1.1 on every IPv4 address of a namespace.
pub fn start(ns: &Ns, port: u16) -> Result<Program> {
    let folder = folder()?;
    let mut command = ns.command("python3");
    command.args(["-c", SERVER, &port.to_string()]);
    Program::start(ns, command, folder, port)
}

/// Starts the one that serves files with HTTP/1.0, which is how the module is mostly used.
pub fn start_old(ns: &Ns, port: u16) -> Result<Program> {
    let folder = folder()?;
    files(folder.path()).context("pages")?;
    let mut command = ns.command("python3");
    command.args(["-m", "http.server", &port.to_string(), "--bind", "0.0.0.0", "--directory"]);
    command.arg(folder.path());
    Program::start(ns, command, folder, port)
}

/// Sends requests.
pub fn ask(ns: &Ns, asked: &Asked<'_>, bases: &[String]) -> Result<Vec<Told>> {
    let mut command = ns.command("python3");
    command.args(["-c", CLIENT]);
    super::ask(command, asked, bases)
}

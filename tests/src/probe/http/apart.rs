//! A server that does not belong to the test's own process.

use std::io::{self, BufRead, BufReader, Write};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};

use super::{Server, Style};
use crate::cgroup::Cgroup;
use crate::ns::Ns;

/// A server that is a process of its own, in a cgroup. Ends when dropped.
pub struct Apart(Child);

impl Apart {
    /// Starts it on every address of a namespace.
    pub fn start(ns: &Ns, cgroup: &Cgroup, port: u16) -> Result<Self> {
        let mut command: Command = ns.command("/proc/self/exe");
        let mut child = command
            .args(["as-http", &port.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("start a server")?;
        cgroup.take(child.id())?;
        let stdin = child.stdin.as_mut().context("a server's stdin")?;
        // A socket belongs to the cgroup that it is made in.
        writeln!(stdin, "go").context("talk to a server")?;
        let stdout = child.stdout.as_mut().context("a server's stdout")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line).context("listen to a server")?;
        ensure!(line.trim() == "ready", "the server said {line:?}");
        Ok(Self(child))
    }
}

impl Drop for Apart {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What that process does.
pub fn serve_apart(port: &str) -> Result<()> {
    let port: u16 = port.parse().context("a port")?;
    let mut line = String::new();
    io::stdin().read_line(&mut line).context("wait for a word")?;
    let listener = TcpListener::bind(("0.0.0.0", port)).context("listen")?;
    let _server = Server::on(listener, Style::Whole)?;
    println!("ready");
    while io::stdin().read_line(&mut line).context("wait for the end")? > 0 {}
    Ok(())
}

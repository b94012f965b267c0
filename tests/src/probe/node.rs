//! A small server on Node.js, which sends what has no length in chunks.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::clock::wait_for;
use crate::ns::Ns;

/// What `/` answers.
pub const SAID: &str = "first, then second, then third";

/// Writes apart, each of which becomes a chunk.
const PROGRAM: &str = "require('http').createServer((_, response) => {
    response.setHeader('Trailer', 'X-After');
    response.write('first, ');
    setTimeout(() => response.write('then second, '), 2);
    setTimeout(() => { response.addTrailers({'X-After': '1'}); response.end('then third'); }, 4);
}).listen(Number(process.argv[1]), '0.0.0.0');";

/// A running server. Ends when dropped.
pub struct Node(Child);

impl Node {
    /// That there is a Node.js.
    pub fn look() -> Result<()> {
        let status = Command::new("node").arg("--version").stdout(Stdio::null()).status();
        ensure!(status.context("start node")?.success(), "node --version fails");
        Ok(())
    }

    /// Starts it on every IPv4 address of a namespace.
    pub fn start(ns: &Ns, port: u16) -> Result<Self> {
        let child = ns
            .command("node")
            .args(["-e", PROGRAM, &port.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .context("start node")?;
        let node = Self(child);
        let is_up = || {
            ns.run(|| Ok(std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()))
                .unwrap_or(false)
        };
        ensure!(wait_for(Duration::from_secs(20), is_up), "node does not answer");
        Ok(node)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

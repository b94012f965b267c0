//! A sender that is a process of its own, so that it can be put into a cgroup.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, SocketAddr};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use super::dns::{self, Query};
use super::ping;
use super::tcp::{Client, PORT};
use super::udp::{Probe, send};
use crate::cgroup::Cgroup;
use crate::clock::wait_for;
use crate::ns::Ns;

/// What the process shall do.
#[derive(Clone, Debug, Serialize, Deserialize)]
enum Order {
    /// Send packets.
    Send { to: SocketAddr, count: usize, every_us: u64 },
    /// Connect and ask an echo server.
    Ask { to: SocketAddr },
    /// Connect and keep the connection for [`Order::Again`].
    Hold { to: SocketAddr },
    /// Ask over the connection that is kept.
    Again,
    /// Ask a name server.
    Query { to: IpAddr, query: Query },
    /// Send echo requests.
    Ping { to: IpAddr, count: u16 },
}

/// What came of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
enum Answer {
    Sent { sent: usize, errors: BTreeMap<i32, usize> },
    Asked { micros: Option<u64>, errno: i32 },
    Pinged { errors: Vec<i32>, answered: usize },
    Queried(Option<dns::Answer>),
}

/// A process that does as it is told. Ends when dropped.
#[derive(Debug)]
pub struct Process(Child);

impl Process {
    /// Starts it in a namespace and, if there is one, in a cgroup.
    pub fn start(ns: &Ns, cgroup: Option<&Cgroup>) -> Result<Self> {
        let mut command: Command = ns.command("/proc/self/exe");
        let child = command
            .arg("as-sender")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("start a sender")?;
        let process = Self(child);
        if let Some(cgroup) = cgroup {
            cgroup.take(process.pid())?;
        }
        let file = format!("/proc/{}/comm", process.pid());
        let is_named = || std::fs::read_to_string(&file).is_ok_and(|n| n.trim() == process.name());
        ensure!(wait_for(Duration::from_secs(20), is_named), "a sender does not start");
        Ok(process)
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Its name, which no other process has.
    #[must_use]
    pub fn name(&self) -> String {
        name(self.pid())
    }

    fn tell(&mut self, order: &Order) -> Result<Answer> {
        let stdin = self.0.stdin.as_mut().context("a sender's stdin")?;
        writeln!(stdin, "{}", serde_json::to_string(order)?).context("talk to a sender")?;
        let stdout = self.0.stdout.as_mut().context("a sender's stdout")?;
        // One line per order, so nothing that is buffered here gets lost.
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line).context("listen to a sender")?;
        serde_json::from_str(&line).with_context(|| format!("a sender said {line:?}"))
    }

    /// Sends the packets of a probe; how many the kernel took, and the errors of the others.
    pub fn send(&mut self, to: SocketAddr, probe: &Probe) -> Result<(usize, BTreeMap<i32, usize>)> {
        let every_us = u64::try_from(probe.every.as_micros()).context("an interval")?;
        match self.tell(&Order::Send { to, count: probe.count, every_us })? {
            Answer::Sent { sent, errors } => Ok((sent, errors)),
            _ => anyhow::bail!("a sender answered something else"),
        }
    }

    /// Connects to an echo server and asks: how long the answer took, or the errno.
    pub fn ask(&mut self, to: SocketAddr) -> Result<Result<Duration, i32>> {
        self.asked(&Order::Ask { to })
    }

    /// As [`Process::ask`], and keeps the connection.
    pub fn hold(&mut self, to: SocketAddr) -> Result<Result<Duration, i32>> {
        self.asked(&Order::Hold { to })
    }

    /// Asks over the connection that it keeps.
    pub fn ask_again(&mut self) -> Result<Result<Duration, i32>> {
        self.asked(&Order::Again)
    }

    fn asked(&mut self, order: &Order) -> Result<Result<Duration, i32>> {
        match self.tell(order)? {
            Answer::Asked { micros: Some(micros), .. } => Ok(Ok(Duration::from_micros(micros))),
            Answer::Asked { micros: None, errno } => Ok(Err(errno)),
            _ => anyhow::bail!("a sender answered something else"),
        }
    }

    /// Asks a name server. `None`: no answer came.
    pub fn query(&mut self, to: IpAddr, query: &Query) -> Result<Option<dns::Answer>> {
        match self.tell(&Order::Query { to, query: query.clone() })? {
            Answer::Queried(answer) => Ok(answer),
            _ => anyhow::bail!("a sender answered something else"),
        }
    }

    /// Sends echo requests: errors of the calls, and how many were answered.
    pub fn ping(&mut self, to: IpAddr, count: u16) -> Result<(Vec<i32>, usize)> {
        match self.tell(&Order::Ping { to, count })? {
            Answer::Pinged { errors, answered } => Ok((errors, answered)),
            _ => anyhow::bail!("a sender answered something else"),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn name(pid: u32) -> String {
    format!("kft-{pid}")
}

/// What the process does: one order per line.
pub fn obey() -> Result<()> {
    std::fs::write("/proc/self/comm", name(std::process::id())).context("take a name")?;
    let mut held = None;
    for line in std::io::stdin().lock().lines() {
        let answer = match serde_json::from_str(&line.context("read an order")?)? {
            Order::Send { to, count, every_us } => {
                let (sent, errors) = send(to, &Probe::of(count, Duration::from_micros(every_us)))?;
                Answer::Sent { sent, errors }
            }
            Order::Ask { to } => asked(connected(to)?.and_then(|mut client| client.ask())),
            Order::Hold { to } => asked(connected(to)?.and_then(|mut client| {
                let took = client.ask();
                held = Some(client);
                took
            })),
            Order::Again => asked(held.as_mut().context("no connection is kept")?.ask()),
            Order::Query { to, query } => {
                Answer::Queried(dns::ask_here(to, &query, dns::PATIENCE)?)
            }
            Order::Ping { to, count } => {
                let (every, wait) = (Duration::from_millis(2), Duration::from_millis(100));
                let pings = ping::inside(to, count, every, wait)?;
                Answer::Pinged { errors: pings.errors, answered: pings.times.len() }
            }
        };
        println!("{}", serde_json::to_string(&answer)?);
    }
    Ok(())
}

fn connected(to: SocketAddr) -> Result<std::io::Result<Client>> {
    ensure!(to.port() >= PORT, "an echo server listens on {PORT} or above");
    let patience = Duration::from_millis(1500);
    Ok(Client::try_connect(&Ns::here()?, to, patience)?.0)
}

fn asked(took: std::io::Result<Duration>) -> Answer {
    match took {
        Ok(took) => Answer::Asked { micros: Some(took.as_micros() as u64), errno: 0 },
        Err(error) => Answer::Asked { micros: None, errno: super::errno(&error) },
    }
}

//! What connections take of the host's memory when all of them have had a response changed.

use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kfault_tests::kfault::Run;
use kfault_tests::manifest::Manifest;
use kfault_tests::net::{Family, Net};
use kfault_tests::probe::http::{Client, PORT};
use kfault_tests::probe::nginx::Nginx;
use serde_json::json;

use super::goal::{Findings, Goal};
use super::http::why_not;
use super::memory::{kilobytes, maps};

const CONNECTIONS: usize = 10_000;
const GOAL: Goal = Goal::AtMost(100.0);
const FIGURE: &str = "10 000 connections with a changed response, kfault included";
/// What a connection leaves for later is done by then.
const SETTLE: Duration = Duration::from_secs(2);

pub fn run(found: &mut Findings) -> Result<()> {
    if let Some(why) = why_not() {
        found.not_measured(FIGURE, "MB", None, GOAL, &why);
        return Ok(());
    }
    if let Err(error) = more_files() {
        found.not_measured(FIGURE, "MB", None, GOAL, &format!("{error:#}"));
        return Ok(());
    }
    let net = Net::new()?;
    let web = &net.client;
    let server =
        format!("server {{ listen {PORT} backlog=4096; root $here; keepalive_timeout 600s; }}");
    let _nginx = Nginx::with(&web.ns, PORT, &server)?;
    let address = SocketAddr::new(web.ip(Family::V4), PORT);
    let mut clients = Vec::with_capacity(CONNECTIONS);
    for _ in 0..CONNECTIONS {
        let mut client = Client::connect(&net.server.ns, address)?;
        client.get("/index.html")?;
        client.raw = Vec::new();
        clients.push(client);
    }
    std::thread::sleep(SETTLE);
    let before = kernel()?;
    let manifest = Manifest::http(PORT).with("replace", json!({"code": 503}));
    let kfault = Run::of(&manifest)?.target(&web.ns.word()).seed(1).start()?;
    std::thread::sleep(SETTLE);
    let armed = kernel()?;
    for client in &mut clients {
        let status = client.get("/index.html")?.status();
        ensure!(status.starts_with("HTTP/1.1 503 "), "{status}");
        client.raw = Vec::new();
    }
    std::thread::sleep(SETTLE);
    let after = kernel()?;
    let resident = kilobytes(kfault.pid(), "VmRSS")? * 1e3;
    let objects = maps(kfault.pid())?;
    let summary = kfault.stop()?;
    ensure!(summary.exchanged("injected") == CONNECTIONS as u64, "{}", summary.json());
    let grown = after - armed;
    let each = grown / CONNECTIONS as f64;
    // State of a socket that joined is hundreds of bytes at the least.
    ensure!(each > 300.0, "{each:.0} bytes for a connection: something else made room meanwhile");
    // What maps grow by with connections is in both: rather too much than too little.
    let whole = after - before + resident + objects;
    found.ours(FIGURE, "MB", whole / 1e6, GOAL);
    found.ours("of it kfault, resident", "MB", resident / 1e6, Goal::Told);
    found.ours("of it BPF maps and programs", "MB", objects / 1e6, Goal::Told);
    found.ours("of it each connection, in the kernel", "kB", each / 1e3, Goal::Told);
    Ok(())
}

/// Bytes of objects that the kernel cannot give back. What is available at all would tell of
/// everything else that happens on the machine.
fn kernel() -> Result<f64> {
    let text = fs::read_to_string("/proc/meminfo").context("read /proc/meminfo")?;
    let line = text.lines().find_map(|line| line.strip_prefix("SUnreclaim:"));
    let number = line.and_then(|line| line.split_whitespace().next()).context("SUnreclaim")?;
    Ok(number.parse::<f64>()? * 1024.0)
}

/// Room for the sockets of either end: the server takes over what we may have.
fn more_files() -> Result<()> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: plain calls with a valid pointer.
    let done = unsafe {
        libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit);
        limit.rlim_cur = limit.rlim_max;
        libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit)
    };
    ensure!(done == 0, "allow more files: {}", std::io::Error::last_os_error());
    let needed = CONNECTIONS as u64 + 500;
    ensure!(limit.rlim_max >= needed, "{} open files are allowed, of {needed}", limit.rlim_max);
    Ok(())
}

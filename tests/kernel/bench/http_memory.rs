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
    more_files()?;
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
    let before = available()?;
    let manifest = Manifest::http(PORT).with("replace", json!({"code": 503}));
    let kfault = Run::of(&manifest)?.target(&web.ns.word()).seed(1).start()?;
    std::thread::sleep(SETTLE);
    let armed = available()?;
    for client in &mut clients {
        let status = client.get("/index.html")?.status();
        ensure!(status.starts_with("HTTP/1.1 503 "), "{status}");
        client.raw = Vec::new();
    }
    std::thread::sleep(SETTLE);
    let after = available()?;
    let summary = kfault.stop()?;
    ensure!(summary.exchanged("injected") == CONNECTIONS as u64, "{}", summary.json());
    found.ours(FIGURE, "MB", (before - after) / 1e6, GOAL);
    found.ours("of it before the first request", "MB", (before - armed) / 1e6, Goal::Told);
    let each = (armed - after) / 1e3 / CONNECTIONS as f64;
    found.ours("of it for a connection", "kB", each, Goal::Told);
    Ok(())
}

/// Bytes that programs could still have.
fn available() -> Result<f64> {
    let text = fs::read_to_string("/proc/meminfo").context("read /proc/meminfo")?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let number = line.and_then(|line| line.split_whitespace().next()).context("MemAvailable")?;
    Ok(number.parse::<f64>()? * 1024.0)
}

/// Room for both ends' sockets.
fn more_files() -> Result<()> {
    let limit = libc::rlimit { rlim_cur: 65_536, rlim_max: 65_536 };
    // SAFETY: plain call with a valid pointer.
    let done = unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) };
    ensure!(done == 0, "allow more files: {}", std::io::Error::last_os_error());
    Ok(())
}

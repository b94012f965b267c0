//! As many requests as are answered, on connections that stay.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::http::{Client, request};
use crate::ns::Ns;

/// How many responses come in a second on so many connections, by `wrk` where there is one.
///
/// # Errors
/// A connection breaks, or nothing comes.
pub fn responses_per_second(
    ns: &Ns,
    to: SocketAddr,
    path: &str,
    connections: usize,
    time: Duration,
) -> Result<f64> {
    let has_wrk = std::process::Command::new("wrk").arg("-v").output().is_ok();
    let rate = if has_wrk {
        by_wrk(ns, to, path, connections, time)?
    } else {
        by_ourselves(ns, to, path, connections, time)?
    };
    ensure!(rate > 0.0, "no response came");
    Ok(rate)
}

fn by_wrk(ns: &Ns, to: SocketAddr, path: &str, connections: usize, time: Duration) -> Result<f64> {
    let time = format!("{}s", time.as_secs().max(1));
    let url = format!("http://{to}{path}");
    let said = ns.output("wrk", &["-t", "1", "-c", &connections.to_string(), "-d", &time, &url])?;
    ensure!(!said.contains("Socket errors"), "{said}");
    let line = said.lines().find_map(|line| line.trim().strip_prefix("Requests/sec:"));
    let number = line.with_context(|| format!("wrk said {said:?}"))?.trim();
    number.parse().with_context(|| format!("a number: {number:?}"))
}

fn by_ourselves(
    ns: &Ns,
    to: SocketAddr,
    path: &str,
    connections: usize,
    time: Duration,
) -> Result<f64> {
    let clients = (0..connections).map(|_| Client::connect(ns, to));
    let mut clients: Vec<Client> = clients.collect::<Result<_>>()?;
    let text = request("GET", path);
    let begun = Instant::now();
    let mut answers = 0.0;
    while begun.elapsed() < time {
        for client in &mut clients {
            client.send(text.as_bytes())?;
        }
        for client in &mut clients {
            client.response("GET")?;
            client.raw.clear();
            answers += 1.0;
        }
    }
    Ok(answers / begun.elapsed().as_secs_f64())
}

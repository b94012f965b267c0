//! Servers whose threads wait in `recv` for the next request: nothing else may wake them.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kfault_tests::kfault::Run;
use kfault_tests::manifest::Manifest;
use kfault_tests::net::{Family, Net};
use kfault_tests::probe::http::{Client, PORT, answer};
use serde_json::json;

use super::{needs_http, replaced};
use crate::harness::{Done, Test, tests};

pub fn tests() -> Vec<Test> {
    tests!("http":
        who_waits_for_a_request_is_woken_by_a_request,
        who_waits_is_woken_by_a_request_while_the_agent_answers,
        who_waits_is_woken_by_a_request_where_others_are_edited,
        behind_a_large_response_one_request_is_early,
    )
}

/// How often a large response is asked for: what would wake a server too early is a matter of
/// microseconds.
const ROUNDS: u64 = 25;
const PATHS: [&str; 6] = ["/meant", "/big", "/short", "/meant", "/many", "/short"];

/// After a large response the kernel has room to send again, and tells whoever waits at the socket.
fn who_waits_for_a_request_is_woken_by_a_request() -> Result<Done> {
    needs_http!();
    let meant = Manifest::http(PORT).with("path", json!("/meant"));
    let (injected, early) = rounds(&meant.with("replace", replaced("meant")), false)?;
    ensure!((injected, early) == (2 * ROUNDS, 0), "injected {injected}, early {early}");
    Ok(Done::Kept)
}

/// The same while the agent sends what takes a body's place, and has to wait for room.
fn who_waits_is_woken_by_a_request_while_the_agent_answers() -> Result<Done> {
    needs_http!();
    let large = "large ".repeat(100_000);
    let meant =
        Manifest::http(PORT).with("path", json!("/meant")).with("replace", replaced(&large));
    let (injected, early) = rounds(&meant, false)?;
    ensure!((injected, early) == (2 * ROUNDS, 0), "injected {injected}, early {early}");
    Ok(Done::Kept)
}

/// The same where requests are edited, none of which is one of these: of a connection that begins
/// then, and of one that was open.
fn who_waits_is_woken_by_a_request_where_others_are_edited() -> Result<Done> {
    needs_http!();
    let meant = Manifest::http(PORT).with("target", json!("Request")).with("path", json!("/meant"));
    // Where one was edited the socket has to stay.
    let meant = meant.with("method", json!("POST")).with("replace", json!({ "path": "/other" }));
    for is_open in [false, true] {
        let (injected, early) = rounds(&meant, is_open).context(format!("open: {is_open}"))?;
        ensure!((injected, early) == (0, 0), "injected {injected}, early {early}");
    }
    Ok(Done::Kept)
}

/// Behind a large response the server waits where only bytes of the network arrive: one request passes
/// and is counted, and those behind it are edited.
fn behind_a_large_response_one_request_is_early() -> Result<Done> {
    needs_http!();
    let net = Net::in_order()?;
    let address = SocketAddr::new(net.client.ip(Family::V4), PORT);
    let server = start(&net, address)?;
    let meant = Manifest::http(PORT).with("target", json!("Request")).with("path", json!("/meant"));
    let meant = meant.with("replace", json!({ "path": "/other" }));
    let kfault = Run::of(&meant)?.target(&net.client.ns.word()).seed(1).start()?;
    let mut client = Client::connect(&net.server.ns, address)?;
    client.get("/many")?;
    for expected in ["/meant", "/other", "/other"] {
        let got = client.get("/meant")?;
        let is_it = got.body == format!("this is {expected}\n").as_bytes();
        ensure!(is_it, "{:?}, not {expected}", String::from_utf8_lossy(&got.body));
    }
    drop(client);
    server.join().map_err(|_| anyhow::anyhow!("the server panicked"))?.context("the server")?;
    let summary = kfault.stop()?;
    ensure!(summary.exchanged("injected") == 2, "{}", summary.json());
    ensure!(summary.json()["exchanges"][0]["passed"]["early"] == 1, "{}", summary.json());
    Ok(Done::Kept)
}

/// A server that waits, and a client that gets large responses from it, on a connection that may be
/// there before; how many exchanges were injected, and how many requests came too early.
fn rounds(manifest: &Manifest, is_open: bool) -> Result<(u64, u64)> {
    let net = Net::in_order()?;
    let address = SocketAddr::new(net.client.ip(Family::V4), PORT);
    let server = start(&net, address)?;
    let open = || {
        let mut client = Client::connect(&net.server.ns, address)?;
        client.get("/first").map(|_| client)
    };
    let before = if is_open { Some(open()?) } else { None };
    let kfault = Run::of(manifest)?.target(&net.client.ns.word()).seed(1).start()?;
    let mut client = before.map_or_else(open, Ok)?;
    let talked = talk(&mut client);
    drop(client);
    let ended = server.join().map_err(|_| anyhow::anyhow!("the server panicked"))?;
    ended.context("the server")?;
    talked?;
    let summary = kfault.stop()?;
    let early = summary.json()["exchanges"][0]["passed"]["early"].as_u64().unwrap_or(0);
    Ok((summary.exchanged("injected"), early))
}

fn talk(client: &mut Client) -> Result<()> {
    for round in 0..ROUNDS {
        for path in PATHS {
            client.get(path).with_context(|| format!("round {round}"))?;
            // Now and then there is time for the server to wait.
            if round % 4 == 0 {
                std::thread::sleep(Duration::from_millis(2));
            }
        }
    }
    Ok(())
}

/// Answers on one connection until its client leaves. An error is one, whichever.
fn start(net: &Net, address: SocketAddr) -> Result<JoinHandle<io::Result<()>>> {
    let listener = net.client.ns.run(|| TcpListener::bind(address).context("listen"))?;
    Ok(std::thread::spawn(move || serve(listener.accept()?.0)))
}

fn serve(mut stream: TcpStream) -> io::Result<()> {
    let (mut held, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        let length = stream.read(&mut buffer)?;
        if length == 0 {
            return Ok(());
        }
        held.extend_from_slice(&buffer[..length]);
        if !held.ends_with(b"\r\n\r\n") {
            continue;
        }
        let text = String::from_utf8_lossy(&held).into_owned();
        let path = text.split(' ').nth(1).unwrap_or_default();
        stream.write_all(&answer("GET", path).unwrap_or_default())?;
        held.clear();
    }
}

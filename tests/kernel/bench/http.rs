//! What a response pays for being looked at, and for being changed: in the kernel, and by a proxy
//! that changes the same.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use kfault_tests::kfault::Run;
use kfault_tests::manifest::Manifest;
use kfault_tests::net::{Family, Net};
use kfault_tests::probe::http::{Client, PORT};
use kfault_tests::probe::http_load::responses_per_second;
use kfault_tests::probe::nginx::{Nginx, PAGE};
use kfault_tests::stats::quantile;
use serde_json::json;

use super::goal::{Findings, Goal};

/// Odd, and both orders of what is compared.
const ROUNDS: usize = 9;
const TIME: Duration = Duration::from_secs(1);
/// The kernel clears up behind a run for a while, which would be charged to what comes next.
const SETTLE: Duration = Duration::from_millis(500);
/// Enough to keep one server busy.
const CONNECTIONS: usize = 16;
/// Where another nginx is a proxy in front of the first one.
const PROXY: u16 = PORT + 1;
/// Requests of which the latency is measured at a time.
const ASKED: usize = 2000;
/// Those before, which are not counted.
const WARM: usize = 200;

const UNIT: &str = "1/s";
const NEW: &str = "this takes its place\n";

/// A server. Where what is absent had a body, a proxy that does not want it would make a connection
/// for each request, and that alone would be what it costs.
fn server() -> String {
    format!(
        "server {{ listen {PORT}; root $here; keepalive_timeout 300s; error_page 404 /empty; }}"
    )
}

/// A proxy in front of it that makes of its responses what ours are made: another body, and of 404
/// another status.
fn proxy() -> String {
    format!(
        "upstream origin {{ server 127.0.0.1:{PORT}; keepalive 32; keepalive_requests 1000000000; }}\n\
         server {{\n    listen {PROXY}; default_type text/html; keepalive_timeout 300s;\n    \
         proxy_http_version 1.1; proxy_set_header Connection \"\";\n    \
         location = /index.html {{\n        proxy_pass http://origin;\n        \
         sub_filter_types *; sub_filter '{}' '{}';\n    }}\n    \
         location = /absent {{\n        proxy_pass http://origin;\n        \
         proxy_intercept_errors on; error_page 404 =503 @busy;\n    }}\n    \
         location @busy {{ return 503; }}\n}}",
        PAGE.trim_end(),
        NEW.trim_end()
    )
}

fn at(net: &Net, port: u16) -> SocketAddr {
    SocketAddr::new(net.client.ip(Family::V4), port)
}

/// What `measure` gives while this acts; `must_act` says whether responses must be changed.
fn armed<T>(
    net: &Net,
    manifest: &Manifest,
    must_act: bool,
    measure: impl FnOnce() -> Result<T>,
) -> Result<T> {
    let kfault = Run::of(manifest)?.target(&net.client.ns.word()).seed(1).start()?;
    let measured = measure()?;
    let summary = kfault.stop()?;
    let acted = summary.exchanged("injected") > 0;
    ensure!(acted == must_act, "{}", summary.json());
    Ok(measured)
}

fn body() -> Manifest {
    let new = base64::engine::general_purpose::STANDARD.encode(NEW);
    Manifest::http(PORT).with("path", json!("/index.html")).with("replace", json!({"body": new}))
}

/// What the kernel does not do itself: JSON that is merged, into a body that takes another's place.
fn merged() -> Manifest {
    let new = base64::engine::general_purpose::STANDARD.encode("{\"a\":1}");
    let patch = json!({"body": {"type": "JSON", "value": "{\"b\":2}"}});
    let manifest = Manifest::http(PORT).with("path", json!("/index.html"));
    manifest.with("replace", json!({"body": new})).with("patch", patch)
}

fn status() -> Manifest {
    Manifest::http(PORT).with("path", json!("/absent")).with("replace", json!({"code": 503}))
}

/// Requests that get a header more.
fn asked(path: &str) -> Manifest {
    let manifest = Manifest::http(PORT).with("target", json!("Request")).with("path", json!(path));
    manifest.with("patch", json!({"headers": [["X-Added", "yes"]]}))
}

/// What one request gets: its status and its body.
fn one(net: &Net, port: u16, path: &str) -> Result<(String, Vec<u8>)> {
    let mut client = Client::connect(&net.server.ns, at(net, port))?;
    let response = client.get(path)?;
    Ok((response.status(), response.body))
}

pub fn rate(found: &mut Findings) -> Result<()> {
    const UNMATCHED: &str = "responses, armed, none meant";
    const ASKED_FOR: &str = "responses, armed for requests, none meant";
    const NOISE: &str = "responses, not armed, measured twice";
    const BODY: &str = "responses with another body";
    const STATUS: &str = "responses with another status";
    let goals = [Goal::Ratio(0.95), Goal::Ratio(2.0), Goal::Ratio(2.0), Goal::Ratio(0.95)];
    if let Some(why) = why_not() {
        for (figure, goal) in [UNMATCHED, BODY, STATUS, ASKED_FOR].into_iter().zip(goals) {
            found.not_measured(figure, UNIT, None, goal, &why);
        }
        return Ok(());
    }
    let net = Net::new()?;
    let _nginx = Nginx::with(&net.client.ns, PORT, &server())?;
    let _proxy = Nginx::with(&net.client.ns, PROXY, &proxy())?;
    let measure = |port: u16, path: &str| {
        std::thread::sleep(SETTLE);
        responses_per_second(&net.server.ns, at(&net, port), path, CONNECTIONS, TIME)
    };
    measure(PORT, "/index.html")?;
    let other = body().with("path", json!("/nothing/like/this"));
    let plain = || measure(PORT, "/index.html");
    let armed_only = || armed(&net, &other, false, plain);
    let (ours, theirs) = in_turn(armed_only, plain)?;
    found.against(UNMATCHED, UNIT, ours, ("not armed", theirs), goals[0]);
    // Every connection to the port is diverted then.
    let other = asked("/nothing/like/this");
    let (ours, theirs) = in_turn(|| armed(&net, &other, false, plain), plain)?;
    found.against(ASKED_FOR, UNIT, ours, ("not armed", theirs), goals[3]);
    // How far apart two are that are the same.
    let (one_half, other_half) = in_turn(plain, plain)?;
    found.against(NOISE, UNIT, one_half, ("not armed", other_half), Goal::Told);
    for (figure, path, manifest, goal) in
        [(BODY, "/index.html", body(), goals[1]), (STATUS, "/absent", status(), goals[2])]
    {
        let of = |port: u16| {
            let (said, text) = one(&net, port, path)?;
            is_changed(path, &said, &text).with_context(|| format!("at port {port}"))?;
            measure(port, path)
        };
        let ours = || armed(&net, &manifest, true, || of(PORT));
        let theirs = || {
            let rate = of(PROXY)?;
            keeps_connections(&net)?;
            Ok(rate)
        };
        let (ours, theirs) = in_turn(ours, theirs)?;
        found.against(figure, UNIT, ours, ("nginx as a proxy", theirs), goal);
    }
    Ok(())
}

/// Medians of both, measured in turn; who is first changes.
fn in_turn(ours: impl Fn() -> Result<f64>, theirs: impl Fn() -> Result<f64>) -> Result<(f64, f64)> {
    let (mut a, mut b) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        if round % 2 == 0 {
            a.push(ours()?);
            b.push(theirs()?);
        } else {
            b.push(theirs()?);
            a.push(ours()?);
        }
    }
    Ok((quantile(&a, 0.5), quantile(&b, 0.5)))
}

/// That the proxy does not pay for connections: one that makes one for each request is no peer.
fn keeps_connections(net: &Net) -> Result<()> {
    let text = net.client.ns.run(|| {
        std::fs::read_to_string("/proc/thread-self/net/sockstat").context("count connections")
    })?;
    let mut words = text.split_whitespace().skip_while(|word| *word != "tw").skip(1);
    let ended: u64 = words.next().context("connections that ended")?.parse()?;
    ensure!(ended < 1000, "the proxy has ended {ended} connections");
    Ok(())
}

fn is_changed(path: &str, status: &str, body: &[u8]) -> Result<()> {
    let is_right = if path == "/absent" {
        status.starts_with("HTTP/1.1 503 ")
    } else {
        status.starts_with("HTTP/1.1 200 ") && body == NEW.as_bytes()
    };
    ensure!(is_right, "{status}, {:?}", String::from_utf8_lossy(body));
    Ok(())
}

/// Why responses cannot be changed, or nothing is there to change.
pub fn why_not() -> Option<String> {
    if let Some(proof) = crate::http::missing() {
        return Some(proof.to_string());
    }
    Nginx::look().err().map(|error| format!("{error:#}"))
}

pub fn latency(found: &mut Findings) -> Result<()> {
    const BODY: &str = "p50 of a response with another body, above a plain one's";
    const STATUS: &str = "p50 of a response with another status, above a plain one's";
    const DETOUR: &str = "p50 of a response on the detour, above a plain one's";
    const GOAL: Goal = Goal::AtMost(30.0);
    const REQUEST: &str = "p50 of a request with another header, above a plain one's";
    const FURTHER: Goal = Goal::AtMost(300.0);
    let all = [
        (BODY, "/index.html", body(), GOAL),
        (STATUS, "/absent", status(), GOAL),
        (DETOUR, "/index.html", merged(), FURTHER),
        (REQUEST, "/index.html", asked("/index.html"), FURTHER),
    ];
    if let Some(why) = why_not() {
        for (figure, .., goal) in all {
            found.not_measured(figure, "us", None, goal, &why);
        }
        return Ok(());
    }
    let net = Net::new()?;
    let _nginx = Nginx::with(&net.client.ns, PORT, &server())?;
    for (figure, path, manifest, goal) in all {
        let (mut added, mut plain) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let before = median(&net, path)?;
            let during = armed(&net, &manifest, true, || median(&net, path))?;
            plain.push(before);
            added.push(during - before);
        }
        found.ours(figure, "us", quantile(&added, 0.5), goal);
        found.ours(format!("p50 of a plain one, {path}"), "us", quantile(&plain, 0.5), Goal::Told);
    }
    Ok(())
}

/// Microseconds from a request to its response, one after the other on one connection.
fn median(net: &Net, path: &str) -> Result<f64> {
    std::thread::sleep(SETTLE);
    let mut client = Client::connect(&net.server.ns, at(net, PORT))?;
    let mut all = Vec::with_capacity(ASKED);
    for _ in 0..WARM + ASKED {
        let start = Instant::now();
        client.get(path)?;
        all.push(start.elapsed().as_secs_f64() * 1e6);
        client.raw.clear();
    }
    Ok(quantile(&all[WARM..], 0.5))
}

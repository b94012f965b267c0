//! Responses that the kernel cannot edit: they go through kfault, and come as they shall.

use std::io::{self, ErrorKind};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use kfault_tests::kfault::{Run, command};
use kfault_tests::manifest::Manifest;
use kfault_tests::probe::http::{BIG, Client, JSON, PORT, Response, Style, answer, request};
use kfault_tests::snapshot::Snapshot;
use serde_json::{Value, json};

use super::{Scene, needs_http, replaced};
use crate::faulty::is_exact;
use crate::harness::{Done, Test, tests};

pub fn tests() -> Vec<Test> {
    let mut all: Vec<Test> = tests!("http": a_json_body_is_merged_and_the_connection_goes_on)
        .into_iter()
        .map(Test::smoke)
        .collect();
    all.extend(tests!("http":
        a_merged_body_is_told_by_its_head_and_late_as_asked_for,
        a_body_larger_than_the_kernel_keeps_takes_anothers_place,
        a_client_that_takes_slowly_gets_every_byte,
        experiments_that_meet_on_one_response_all_act,
        a_status_without_a_body_becomes_one_with_and_the_reverse,
        requests_in_one_packet_have_their_responses_in_order,
        what_cannot_be_merged_arrives_to_the_byte_and_is_counted,
        many_connections_are_merged_at_a_time,
        killed_with_a_thousand_connections_none_hangs,
    ));
    all
}

fn merge(patch: &str) -> Value {
    json!({ "body": { "type": "JSON", "value": patch } })
}

/// What bodies are merged with.
const PATCH: &str = r#"{"b":{"c":"new"},"d":{"e":null}}"#;

fn body(response: &Response) -> Result<Value> {
    serde_json::from_slice(&response.body).with_context(|| format!("{response:?}"))
}

fn ensure_merged(response: &Response) -> Result<()> {
    let body = body(response)?;
    ensure!(body["a"] == 1 && body["b"] == json!({"c": "new"}), "{body}");
    ensure!(body["d"] == json!({}), "{body}");
    Ok(())
}

fn ensure_as_sent(response: Response, path: &str) -> Result<()> {
    let whole = [response.head, response.body].concat();
    ensure!(Some(whole) == answer("GET", path), "{path} was changed");
    Ok(())
}

fn a_json_body_is_merged_and_the_connection_goes_on() -> Result<Done> {
    needs_http!();
    for style in [Style::Whole, Style::Apart, Style::Pieces(7)] {
        let scene = Scene::new(style)?;
        let manifest = Manifest::http(PORT).with("path", json!("/json*"));
        let manifest = manifest.with("patch", merge(PATCH));
        let summary = scene.with(&[&manifest], |_| {
            for server in &scene.servers {
                let mut client = Client::connect(scene.outside(), server.address)?;
                for _ in 0..3 {
                    ensure_merged(&client.get("/json")?).with_context(|| format!("{style:?}"))?;
                    ensure_as_sent(client.get("/other")?, "/other")?;
                    let response = client.get("/json/chunked")?;
                    ensure_merged(&response)?;
                    ensure!(response.header("x-kind").as_deref() == Some("chunks"));
                }
                client.send(request("HEAD", "/json").as_bytes())?;
                let head = client.response("HEAD")?;
                ensure!(head.body.is_empty(), "{head:?}");
                ensure_merged(&client.get("/json")?)?;
                client.ensure_drained()?;
            }
            Ok(())
        })?;
        ensure!(summary.exchanged("injected") == 2 * 8, "{}", summary.json());
    }
    Ok(Done::Kept)
}

fn a_merged_body_is_told_by_its_head_and_late_as_asked_for() -> Result<Done> {
    needs_http!();
    const DELAY: Duration = Duration::from_millis(300);
    let scene = Scene::new(Style::Whole)?;
    let mut patch = merge(PATCH);
    patch["headers"] = json!([["X-Added", "yes"]]);
    let manifest = Manifest::http(PORT).with("patch", patch).with("delay", json!("300ms"));
    let manifest = manifest.with("replace", json!({ "code": 418, "headers": {"Server": "k"} }));
    scene.with(&[&manifest], |_| {
        let mut client = scene.client()?;
        for _ in 0..2 {
            let start = Instant::now();
            let response = client.get("/json")?;
            let took = start.elapsed();
            ensure!(took >= DELAY && took < DELAY * 2, "{took:?}");
            ensure_merged(&response)?;
            ensure!(response.status() == "HTTP/1.1 418 I'm a teapot", "{}", response.status());
            ensure!(response.header("server").as_deref() == Some("k"), "{response:?}");
            ensure!(response.header("x-added").as_deref() == Some("yes"), "{response:?}");
        }
        client.ensure_drained()
    })?;
    Ok(Done::Kept)
}

fn ensure_same(got: &[u8], want: &[u8]) -> Result<()> {
    let at = got.iter().zip(want).position(|(got, want)| got != want);
    let Some(at) = at else {
        ensure!(got.len() == want.len(), "{} bytes, not {}", got.len(), want.len());
        return Ok(());
    };
    let part = String::from_utf8_lossy(&got[at..(at + 60).min(got.len())]);
    bail!("of {} bytes another one at {at}: {part:?}", got.len())
}

fn a_body_larger_than_the_kernel_keeps_takes_anothers_place() -> Result<Done> {
    needs_http!();
    let new = "0123456789".repeat(20_000);
    for style in [Style::Whole, Style::Pieces(100)] {
        let scene = Scene::new(style)?;
        let manifest = Manifest::http(PORT).with("replace", replaced(&new));
        let summary = scene.with(&[&manifest], |_| {
            let mut client = scene.client()?;
            for path in ["/a", "/big", "/chunked", "/empty", "/many", "/a"] {
                let response = client.get(path)?;
                ensure_same(&response.body, new.as_bytes())
                    .with_context(|| format!("{style:?} {path}"))?;
            }
            client.ensure_drained()
        })?;
        ensure!(summary.exchanged("injected") == 6, "{}", summary.json());
    }
    Ok(Done::Kept)
}

fn a_client_that_takes_slowly_gets_every_byte() -> Result<Done> {
    needs_http!();
    // More than all buffers between the two, while the server still sends what it takes the place of.
    let new = "0123456789".repeat(80_000);
    let scene = Scene::new(Style::Pieces(250))?;
    let manifest = Manifest::http(PORT).with("replace", replaced(&new));
    scene.with(&[&manifest], |_| {
        let mut client = scene.client()?;
        for _ in 0..2 {
            client.send(request("GET", "/big").as_bytes())?;
            std::thread::sleep(Duration::from_millis(300));
            ensure_same(&client.response("GET")?.body, new.as_bytes())?;
        }
        client.ensure_drained()
    })?;
    Ok(Done::Kept)
}

fn experiments_that_meet_on_one_response_all_act() -> Result<Done> {
    needs_http!();
    let scene = Scene::new(Style::Whole)?;
    let one = Manifest::http(PORT).named("kft-a").with("replace", json!({ "code": 503 }));
    let two = Manifest::http(PORT).named("kft-b").with("path", json!("/json"));
    let two = two.with("patch", json!({ "headers": [["X-Two", "2"]] }));
    let three = Manifest::http(PORT).named("kft-c").with("path", json!("/json"));
    let three = three.with("patch", merge(PATCH));
    let summary = scene.with(&[&one, &two, &three], |_| {
        let mut client = scene.client()?;
        for _ in 0..2 {
            let response = client.get("/json")?;
            ensure_merged(&response)?;
            ensure!(response.status() == "HTTP/1.1 503 Service Unavailable", "{response:?}");
            ensure!(response.header("x-two").as_deref() == Some("2"), "{response:?}");
            let response = client.get("/a")?;
            ensure!(response.status() == "HTTP/1.1 503 Service Unavailable", "{response:?}");
            ensure!(response.body == b"this is /a\n", "{response:?}");
        }
        client.ensure_drained()
    })?;
    let json = summary.json();
    let of = |i: usize| json["exchanges"][i]["injected"].as_u64();
    ensure!([of(0), of(1), of(2)] == [Some(4), Some(2), Some(2)], "{json}");
    Ok(Done::Kept)
}

fn a_status_without_a_body_becomes_one_with_and_the_reverse() -> Result<Done> {
    needs_http!();
    let scene = Scene::new(Style::Apart)?;
    for (code, reason) in [(503, "Service Unavailable"), (204, "No Content")] {
        let manifest = Manifest::http(PORT).with("replace", json!({ "code": code }));
        let summary = scene.with(&[&manifest], |_| {
            let mut client = scene.client()?;
            for path in ["/none", "/a", "/same", "/chunked", "/none", "/a"] {
                let response = client.get(path)?;
                let status = format!("HTTP/1.1 {code} {reason}");
                ensure!(response.status() == status, "{path}: {response:?}");
                let old = answer("GET", path).context("an answer")?;
                let has_body = code == 503 && !matches!(path, "/none" | "/same");
                ensure!(response.body.is_empty() != has_body, "{path}: {response:?}");
                ensure!(!has_body || path == "/chunked" || old.ends_with(&response.body));
            }
            client.ensure_drained()
        })?;
        ensure!(summary.exchanged("injected") == 6, "{}", summary.json());
    }
    Ok(Done::Kept)
}

fn requests_in_one_packet_have_their_responses_in_order() -> Result<Done> {
    needs_http!();
    for style in [Style::Whole, Style::Together, Style::Pieces(50)] {
        let scene = Scene::new(style)?;
        let manifest = Manifest::http(PORT).with("path", json!("/json*"));
        let manifest = manifest.with("patch", merge(PATCH));
        scene.with(&[&manifest], |_| {
            let mut client = scene.client()?;
            let paths = ["/a", "/json", "/json/chunked", "/b", "/json", "/json"];
            for _ in 0..3 {
                let all: String = paths.iter().map(|path| request("GET", path)).collect();
                client.send(all.as_bytes())?;
                for path in paths {
                    let response = client.response("GET")?;
                    if path.starts_with("/json") {
                        ensure_merged(&response).with_context(|| format!("{style:?} {path}"))?;
                    } else {
                        ensure_as_sent(response, path)?;
                    }
                }
            }
            client.ensure_drained()
        })?;
    }
    Ok(Done::Kept)
}

fn what_cannot_be_merged_arrives_to_the_byte_and_is_counted() -> Result<Done> {
    needs_http!();
    let scene = Scene::new(Style::Whole)?;
    let manifest = Manifest::http(PORT).with("patch", merge(PATCH));
    let summary = scene.with(&[&manifest], |_| {
        let mut client = scene.client()?;
        for path in ["/a", "/big", "/missing", "/json/long"] {
            ensure_as_sent(client.get(path)?, path)?;
        }
        client.ensure_drained()?;
        let mut client = scene.client()?;
        ensure_as_sent(client.get("/json/closing")?, "/json/closing")?;
        let mut client = scene.client()?;
        client.send(b"GET /json HTTP/1.0\r\n\r\n")?;
        ensure!(client.response("GET")?.body == JSON.as_bytes(), "HTTP/1.0");
        Ok(())
    })?;
    let json = summary.json();
    let passed = &json["exchanges"][0]["passed"];
    for (reason, count) in [("unpatched", 3), ("longBody", 1), ("closing", 2)] {
        ensure!(passed[reason].as_u64() == Some(count), "{reason}: {json}");
    }
    ensure!(summary.exchanged("injected") == 0, "{json}");
    ensure!(BIG == 1 << 20, "as long as what is merged at most");
    Ok(Done::Kept)
}

fn many_connections_are_merged_at_a_time() -> Result<Done> {
    needs_http!();
    const CLIENTS: usize = 50;
    let scene = Scene::new(Style::Apart)?;
    let manifest = Manifest::http(PORT).with("path", json!("/json"));
    let manifest = manifest.with("patch", merge(PATCH));
    let summary = scene.with(&[&manifest], |_| {
        let mut clients: Vec<Client> =
            (0..CLIENTS).map(|_| scene.client()).collect::<Result<_>>()?;
        for _ in 0..4 {
            for client in &mut clients {
                client.send(request("GET", "/json").as_bytes())?;
            }
            for client in &mut clients {
                ensure_merged(&client.response("GET")?)?;
            }
        }
        clients.iter_mut().try_for_each(|client| client.ensure_drained())
    })?;
    ensure!(summary.exchanged("injected") == 4 * CLIENTS as u64, "{}", summary.json());
    Ok(Done::Kept)
}

/// What a client saw whose response was on the detour when kfault died.
fn ended(client: &mut Client) -> Result<bool> {
    match client.response("GET") {
        Ok(response) => body(&response).map(|_| true),
        Err(error) => {
            let cause = error.root_cause();
            let kind = cause.downcast_ref::<io::Error>().map(io::Error::kind);
            let is_reset = kind == Some(ErrorKind::ConnectionReset);
            // Neither a client that waits for ever, nor one that gets half of a response.
            let is_cut = is_reset || cause.to_string() == "the connection was closed";
            ensure!(is_cut, "{error:#}");
            Ok(false)
        }
    }
}

fn killed_with_a_thousand_connections_none_hangs() -> Result<Done> {
    needs_http!();
    let count = if is_exact() { 100 } else { 1000 };
    let scene = Scene::new(Style::Cut)?;
    let before = Snapshot::of(&scene.net)?;
    let manifest = Manifest::http(PORT).with("path", json!("/json*"));
    let manifest = manifest.with("patch", merge(PATCH));
    let kfault = Run::of(&manifest)?.target(&scene.net.client.ns.word()).seed(1).start()?;
    let mut clients: Vec<Client> = (0..count).map(|_| scene.client()).collect::<Result<_>>()?;
    for client in &mut clients {
        ensure_merged(&client.get("/json")?)?;
    }
    let (busy, idle) = clients.split_at_mut(count / 2);
    for client in busy.iter_mut() {
        client.send(request("GET", "/json?cut=100&pause").as_bytes())?;
    }
    std::thread::sleep(Duration::from_millis(200));
    kfault.kill()?;
    let mut whole = 0;
    for client in busy {
        whole += usize::from(ended(client)?);
    }
    ensure!(whole < count / 2, "nothing was on its way");
    // What was not on its way knows nothing of it.
    for client in idle {
        let response = client.get("/json").context("a connection that was idle")?;
        ensure!(response.body == JSON.as_bytes(), "{response:?}");
    }
    ensure!(scene.client()?.get("/json")?.body == JSON.as_bytes(), "a new connection");
    command(&["sweep"], 0)?;
    before.ensure_same(&Snapshot::of(&scene.net)?, "after the sweep")?;
    Ok(Done::Kept)
}

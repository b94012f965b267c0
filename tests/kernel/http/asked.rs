//! Requests that are edited: the server gets them as they shall be, and the client notices nothing.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use kfault_tests::kfault::{Run, command};
use kfault_tests::manifest::Manifest;
use kfault_tests::net::{Family, Net};
use kfault_tests::probe::http::{Client, JSON, PORT, Response, Style, answer, header, request};
use kfault_tests::probe::nginx::{Nginx, PAGE};
use kfault_tests::probe::node::{Node, SAID};
use kfault_tests::snapshot::Snapshot;
use serde_json::{Value, json};

use super::{OnHost, Scene, needs_http, replaced};
use crate::faulty::is_exact;
use crate::harness::{Done, Proof, Test, tests};

pub fn tests() -> Vec<Test> {
    let mut all: Vec<Test> =
        tests!("http": a_request_arrives_with_another_path).into_iter().map(Test::smoke).collect();
    all.extend(tests!("http":
        every_part_of_a_request_can_be_another,
        a_json_body_of_a_request_is_merged,
        a_request_is_edited_wherever_it_is_cut,
        large_bodies_arrive_to_the_byte_behind_an_edited_head,
        who_waits_to_be_told_to_go_on_is_told,
        a_request_is_late_as_asked_for_and_edited,
        connections_that_were_open_before_are_edited_and_end_well,
        requests_to_nginx_and_node_are_edited_for_many_at_a_time,
        only_requests_to_the_server_of_a_cgroup_are_edited,
        a_client_that_leaves_in_the_middle_of_a_request_is_gone,
        killed_with_requests_on_their_way_none_hangs,
    ));
    all
}

fn asking(path: &str) -> Manifest {
    Manifest::http(PORT).with("target", json!("Request")).with("path", json!(path))
}

/// What a server was asked, as the answer to `/echo` says.
struct Asked(Vec<u8>);

impl Asked {
    fn of(response: &Response) -> Self {
        Self(response.body.clone())
    }

    fn line(&self) -> String {
        String::from_utf8_lossy(&self.0).lines().next().unwrap_or_default().to_owned()
    }

    fn header(&self, name: &str) -> Option<String> {
        header(&self.0, name)
    }

    fn body(&self) -> &[u8] {
        let end = self.0.windows(4).position(|four| four == b"\r\n\r\n");
        end.map_or(&[], |end| &self.0[end + 4..])
    }
}

/// Sends a request, and has the server say what it got.
fn echo(client: &mut Client, text: &[u8]) -> Result<Asked> {
    client.send(text)?;
    client.response("POST").map(|response| Asked::of(&response))
}

fn post(path: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: p\r\nX-Ask: yes\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

fn ensure_as_sent(response: Response, path: &str) -> Result<()> {
    let whole = [response.head, response.body].concat();
    ensure!(Some(&whole) == answer("GET", path).as_ref(), "{path} was changed");
    Ok(())
}

fn a_request_arrives_with_another_path() -> Result<Done> {
    needs_http!();
    for new in ["/a/much/longer/path/than/before", "/s"] {
        let scene = Scene::new(Style::Whole)?;
        let manifest = asking("/old*").with("replace", json!({ "path": new }));
        let summary = scene.with(&[&manifest], |_| {
            for server in &scene.servers {
                let mut client = Client::connect(scene.outside(), server.address)?;
                for path in ["/old", "/other", "/old/b", "/old", "/big", "/old"] {
                    let is_meant = path.starts_with("/old");
                    ensure_as_sent(client.get(path)?, if is_meant { new } else { path })?;
                }
                client.ensure_drained()?;
            }
            Ok(())
        })?;
        ensure!(summary.exchanged("matched") == 8, "{}", summary.json());
        ensure!(summary.exchanged("injected") == 8, "{}", summary.json());
    }
    Ok(Done::Kept)
}

fn every_part_of_a_request_can_be_another() -> Result<Done> {
    needs_http!();
    let scene = Scene::new(Style::Whole)?;
    let manifest = asking("/echo/all*").with(
        "replace",
        json!({
            "method": "PUT", "queries": {"q": "new"}, "headers": {"X-Ask": "no"},
            "body": replaced("a body of another length")["body"],
        }),
    );
    let manifest = manifest.with(
        "patch",
        json!({ "queries": [["more", "1"]], "headers": [["X-Added", "yes"], ["X-Added", "too"]] }),
    );
    let summary = scene.with(&[&manifest], |_| {
        let mut client = scene.client()?;
        for body in ["hello", "", &"long ".repeat(300)] {
            let asked = echo(&mut client, &post("/echo/all?a=1&q=old", body.as_bytes()))?;
            let text = String::from_utf8_lossy(&asked.0).into_owned();
            ensure!(asked.line() == "PUT /echo/all?a=1&q=new&more=1 HTTP/1.1", "{text}");
            ensure!(asked.header("x-ask").as_deref() == Some("no"), "{text}");
            ensure!(text.matches("X-Added: ").count() == 2, "{text}");
            ensure!(asked.body() == b"a body of another length", "{text}");
            ensure!(asked.header("content-length").as_deref() == Some("24"), "{text}");
            // What is not meant arrives as it is sent.
            let other = post("/echo/other", body.as_bytes());
            ensure!(echo(&mut client, &other)?.0 == other, "{body} was changed");
        }
        // A body in chunks.
        let chunks = b"POST /echo/all HTTP/1.1\r\nHost: p\r\nTransfer-Encoding: chunked\r\n\r\n\
                       3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
        let asked = echo(&mut client, chunks)?;
        let text = String::from_utf8_lossy(&asked.0).into_owned();
        ensure!(text.contains("a body of another length"), "{text}");
        ensure!(!text.contains("abc") && text.ends_with("0\r\n\r\n"), "{text}");
        client.ensure_drained()
    })?;
    ensure!(summary.exchanged("injected") == 4, "{}", summary.json());
    Ok(Done::Kept)
}

fn a_json_body_of_a_request_is_merged() -> Result<Done> {
    needs_http!();
    let scene = Scene::new(Style::Whole)?;
    let patch = json!({ "body": { "type": "JSON", "value": "{\"b\":{\"c\":\"new\"},\"d\":1}" } });
    let summary = scene.with(&[&asking("/echo*").with("patch", patch)], |_| {
        let mut client = scene.client()?;
        for _ in 0..3 {
            let asked = echo(&mut client, &post("/echo", JSON.as_bytes()))?;
            let body: Value = serde_json::from_slice(asked.body())?;
            ensure!(body == json!({"a": 1, "b": {"c": "new"}, "d": 1}), "{body}");
        }
        // What is no JSON arrives as it is, and is counted.
        let plain = post("/echo", b"no json");
        ensure!(echo(&mut client, &plain)?.body() == b"no json");
        client.ensure_drained()
    })?;
    ensure!(summary.exchanged("injected") == 3, "{}", summary.json());
    ensure!(summary.passed("unpatched") == 1, "{}", summary.json());
    Ok(Done::Kept)
}

fn a_request_is_edited_wherever_it_is_cut() -> Result<Done> {
    needs_http!();
    let scene = Scene::new(Style::Whole)?;
    let manifest = asking("/echo/a").with("replace", json!({ "path": "/echo/bcdefghij" }));
    let manifest = manifest.with("patch", json!({ "headers": [["X-Added", "yes"]] }));
    let text = post("/echo/a", b"hello");
    let step = if is_exact() { 17 } else { 3 };
    scene.with(&[&manifest], |_| {
        let mut client = scene.client()?;
        for cut in (1..text.len()).step_by(step) {
            client.send(&text[..cut])?;
            std::thread::sleep(Duration::from_millis(3));
            let asked = echo(&mut client, &text[cut..])?;
            ensure!(asked.line() == "POST /echo/bcdefghij HTTP/1.1", "{cut}: {}", asked.line());
            ensure!(asked.header("x-added").as_deref() == Some("yes") && asked.body() == b"hello");
        }
        // Several in one packet, meant or not, and in packets of a few bytes.
        let other = post("/echo/other", b"");
        let all = [&text[..], &other, &text, &text, &other].concat();
        for size in [all.len(), 100, 7] {
            for piece in all.chunks(size) {
                client.send(piece)?;
                if size < 10 {
                    std::thread::sleep(Duration::from_micros(300));
                }
            }
            for is_meant in [true, false, true, true, false] {
                let asked = Asked::of(&client.response("POST")?);
                let want = if is_meant { "/echo/bcdefghij" } else { "/echo/other" };
                ensure!(
                    asked.line() == format!("POST {want} HTTP/1.1"),
                    "by {size}: {}",
                    asked.line()
                );
            }
        }
        client.ensure_drained()
    })?;
    Ok(Done::Kept)
}

fn large_bodies_arrive_to_the_byte_behind_an_edited_head() -> Result<Done> {
    needs_http!();
    let scene = Scene::new(Style::Whole)?;
    let head = asking("/echo/head").with("patch", json!({ "headers": [["X-Added", "yes"]] }));
    let body = asking("/echo/body").named("kft-body").with("replace", replaced("small"));
    let size = if is_exact() { 300_000 } else { 6_000_000 };
    let large: Vec<u8> =
        (0..size).map(|i: u32| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    scene.with(&[&head, &body], |_| {
        let mut client = scene.client()?;
        for _ in 0..3 {
            let asked = echo(&mut client, &post("/echo/head", &large))?;
            ensure!(asked.header("x-added").as_deref() == Some("yes"), "{}", asked.line());
            ensure!(asked.body() == large, "bytes were changed: {}", asked.body().len());
            let asked = echo(&mut client, &post("/echo/body", &large))?;
            ensure!(asked.body() == b"small", "{} bytes", asked.body().len());
            let plain = post("/echo/other", &large[..200_000]);
            ensure!(echo(&mut client, &plain)?.0 == plain, "bytes were changed");
        }
        client.ensure_drained()
    })?;
    Ok(Done::Kept)
}

fn who_waits_to_be_told_to_go_on_is_told() -> Result<Done> {
    needs_http!();
    let scene = Scene::new(Style::Whole)?;
    let manifest = asking("/echo*").with("replace", replaced("another"));
    scene.with(&[&manifest], |_| {
        let mut client = scene.client()?;
        for _ in 0..3 {
            let head = "POST /echo HTTP/1.1\r\nHost: p\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n";
            client.send(head.as_bytes())?;
            // The head has to reach the server without the body.
            std::thread::sleep(Duration::from_millis(50));
            let asked = echo(&mut client, b"hello")?;
            ensure!(asked.body() == b"another", "{}", String::from_utf8_lossy(&asked.0));
        }
        client.ensure_drained()
    })?;
    Ok(Done::Kept)
}

fn a_request_is_late_as_asked_for_and_edited() -> Result<Done> {
    needs_http!();
    const DELAY: Duration = Duration::from_millis(200);
    let scene = Scene::new(Style::Whole)?;
    let manifest =
        asking("/old*").with("replace", json!({ "path": "/new" })).with("delay", json!("200ms"));
    scene.with(&[&manifest], |_| {
        let mut client = scene.client()?;
        for _ in 0..3 {
            let start = Instant::now();
            let response = client.get("/old")?;
            let took = start.elapsed();
            ensure!(took >= DELAY && took < DELAY * 2, "{took:?}");
            ensure_as_sent(response, "/new")?;
            ensure_as_sent(client.get("/other")?, "/other")?;
        }
        client.ensure_drained()
    })?;
    Ok(Done::Kept)
}

fn connections_that_were_open_before_are_edited_and_end_well() -> Result<Done> {
    needs_http!();
    let scene = Scene::new(Style::Whole)?;
    let mut clients: Vec<Client> = (0..6).map(|_| scene.client()).collect::<Result<_>>()?;
    for client in &mut clients {
        ensure_as_sent(client.get("/old")?, "/old")?;
    }
    let (edited, idle) = clients.split_at_mut(3);
    let manifest = asking("/old*").with("replace", json!({ "path": "/something/else" }));
    let summary = scene.with(&[&manifest], |_| {
        for client in edited.iter_mut() {
            // This server's threads wait for the network alone: the first one may reach it as it is.
            client.get("/old")?;
            for _ in 0..3 {
                ensure_as_sent(client.get("/old")?, "/something/else")?;
                ensure_as_sent(client.get("/other")?, "/other")?;
            }
        }
        Ok(())
    })?;
    let (edits, early) = (summary.exchanged("injected"), summary.passed("early"));
    ensure!(edits + early == 12 && edits >= 9, "{}", summary.json());
    // Who was not edited goes on; the others do too, or have been closed in order.
    for client in idle {
        ensure_as_sent(client.get("/old")?, "/old")?;
    }
    for client in edited {
        client.ensure_drained()?;
        let is_open = client.send(request("GET", "/old").as_bytes()).is_ok();
        match client.response("GET") {
            Ok(response) if is_open => ensure_as_sent(response, "/old")?,
            Ok(response) => bail!("{response:?}"),
            Err(error) => ensure!(ended(&error), "{error:#}"),
        }
    }
    Ok(Done::Kept)
}

/// Servers that wait for all their connections at a time, and many of those.
fn requests_to_nginx_and_node_are_edited_for_many_at_a_time() -> Result<Done> {
    needs_http!();
    for (name, look) in [("nginx", Nginx::look as fn() -> Result<()>), ("node", Node::look)] {
        if let Some(proof) = Proof::by_trying(name, look) {
            return Ok(Done::Cannot(proof));
        }
    }
    let net = Net::in_order()?;
    let nginx = Nginx::start(&net.client.ns, PORT)?;
    let manifest = asking("/no/such/page").with("replace", json!({ "path": "/" }));
    let kfault = Run::of(&manifest)?.target(&net.client.ns.word()).seed(1).start()?;
    let address = SocketAddr::new(net.client.ip(Family::V4), PORT);
    let count: usize = if is_exact() { 10 } else { 100 };
    let connect = |_| Client::connect(&net.server.ns, address);
    let mut clients: Vec<Client> = (0..count).map(connect).collect::<Result<_>>()?;
    for _ in 0..5 {
        for client in &mut clients {
            client.send(request("GET", "/no/such/page").as_bytes())?;
        }
        for client in &mut clients {
            let response = client.response("GET")?;
            ensure!(response.body == PAGE.as_bytes(), "{}", response.status());
        }
    }
    let missing = clients[0].get("/no/other/page")?;
    ensure!(missing.status().contains("404"), "{}", missing.status());
    let summary = kfault.stop()?;
    ensure!(summary.exchanged("injected") == 5 * count as u64, "{}", summary.json());
    drop(nginx);
    let node = Node::start(&net.client.ns, PORT)?;
    let kfault = Run::of(&manifest)?.target(&net.client.ns.word()).seed(1).start()?;
    let mut client = Client::connect(&net.server.ns, address)?;
    for _ in 0..5 {
        ensure!(client.get("/no/such/page")?.body == SAID.as_bytes(), "node");
    }
    let summary = kfault.stop()?;
    ensure!(summary.exchanged("injected") == 5, "{}", summary.json());
    drop(node);
    Ok(Done::Kept)
}

fn only_requests_to_the_server_of_a_cgroup_are_edited() -> Result<Done> {
    needs_http!();
    let scene = OnHost::new()?;
    let kfault = scene.start(|manifest| {
        let manifest = manifest.with("target", json!("Request")).with("path", json!("/old*"));
        manifest.with("replace", json!({ "path": "/something/new" }))
    })?;
    for ns in scene.clients() {
        let mut client = Client::connect(ns, scene.at(PORT))?;
        for _ in 0..3 {
            ensure_as_sent(client.get("/old")?, "/something/new")?;
        }
        let mut client = Client::connect(ns, scene.at(PORT + 1))?;
        ensure_as_sent(client.get("/old")?, "/old").context("the server of another cgroup")?;
    }
    let summary = kfault.stop()?;
    ensure!(summary.exchanged("injected") == 6, "{}", summary.json());
    Ok(Done::Kept)
}

/// Its server must not wait for the rest for ever.
fn a_client_that_leaves_in_the_middle_of_a_request_is_gone() -> Result<Done> {
    needs_http!();
    let scene = Scene::new(Style::Whole)?;
    let manifest = asking("/echo*").with("replace", replaced("another"));
    scene.with(&[&manifest], |_| {
        let text = post("/echo", b"hello");
        for part in [&text[..9], &text[..text.len() - 2]] {
            let mut client = scene.client()?;
            client.send(part)?;
            std::thread::sleep(Duration::from_millis(50));
            client.say_no_more()?;
            // The other body needs nothing of the old one: its server may have answered already.
            if part.len() > 9 && client.response("POST").is_ok() {
                continue;
            }
            client.ensure_closed()?;
        }
        // One that says no more behind a whole request has its response.
        let mut client = scene.client()?;
        client.send(&text)?;
        client.say_no_more()?;
        let asked = Asked::of(&client.response("POST")?);
        ensure!(asked.body() == b"another", "{}", asked.line());
        Ok(())
    })?;
    Ok(Done::Kept)
}

/// Closed or reset, and not that nobody says anything.
fn ended(error: &anyhow::Error) -> bool {
    let io = error.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
    io != Some(ErrorKind::WouldBlock) && io != Some(ErrorKind::TimedOut)
}

fn killed_with_requests_on_their_way_none_hangs() -> Result<Done> {
    needs_http!();
    let count = if is_exact() { 40 } else { 400 };
    let scene = Scene::new(Style::Whole)?;
    let before = Snapshot::of(&scene.net)?;
    let manifest = asking("/echo*").with("replace", replaced("another"));
    let kfault = Run::of(&manifest)?.target(&scene.net.client.ns.word()).seed(1).start()?;
    let mut clients: Vec<Client> = (0..count).map(|_| scene.client()).collect::<Result<_>>()?;
    let (busy, idle) = clients.split_at_mut(count / 2);
    let text = post("/echo", b"hello");
    for client in busy.iter_mut() {
        // Half of a body that goes: the agent has it.
        client.send(&text[..text.len() - 2])?;
    }
    for client in idle.iter_mut() {
        ensure_as_sent(client.get("/plain")?, "/plain")?;
    }
    std::thread::sleep(Duration::from_millis(300));
    kfault.kill()?;
    for client in busy {
        let _ = client.send(&text[text.len() - 2..]);
        match client.response("POST") {
            // Its server had got the whole already.
            Ok(response) => ensure!(Asked::of(&response).body() == b"another", "{response:?}"),
            Err(error) => ensure!(ended(&error), "a client hangs: {error:#}"),
        }
    }
    for client in idle {
        let response = client.get("/plain").context("a connection that was idle")?;
        ensure_as_sent(response, "/plain")?;
    }
    ensure_as_sent(scene.client()?.get("/plain")?, "/plain")?;
    command(&["sweep"], 0)?;
    before.ensure_same(&Snapshot::of(&scene.net)?, "after the sweep")?;
    Ok(Done::Kept)
}

//! Servers of other sorts: of a cgroup, nginx, and those that do not speak HTTP/1.

use anyhow::{Context, Result, ensure};
use kfault_tests::kfault::Run;
use kfault_tests::manifest::Manifest;
use kfault_tests::net::{Family, Net};
use kfault_tests::probe::http::{Client, PORT};
use kfault_tests::probe::nginx::{Nginx, PAGE};
use kfault_tests::probe::node::{Node, SAID};
use kfault_tests::probe::tcp;

use super::{OnHost, needs_http, replaced, unharmed};
use crate::harness::{Done, Proof, Test, tests};

pub fn tests() -> Vec<Test> {
    tests!("http":
        what_is_no_http_1_passes_and_is_counted,
        the_server_of_a_cgroup_is_meant_and_its_neighbour_is_not,
        nginx_answers_with_the_replaced_body,
        node_answers_with_the_replaced_body,
    )
}

fn what_is_no_http_1_passes_and_is_counted() -> Result<Done> {
    needs_http!();
    let net = Net::in_order()?;
    let web = &net.client;
    let service = tcp::Service::Echo;
    let echo = tcp::Server::start(&web.ns, web.ip(Family::V4), PORT, service)?;
    let manifest = Manifest::http(PORT).with("replace", replaced("no"));
    let kfault = Run::of(&manifest)?.target(&web.ns.word()).seed(1).start()?;
    let tls = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 and so on";
    let http2 = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let other = b"EHLO there\r\n";
    for text in [&tls[..], &http2[..], &other[..]] {
        let mut client = Client::connect(&net.server.ns, echo.address())?;
        for _ in 0..3 {
            let before = client.raw.len();
            client.send(text)?;
            client.read_to(before + text.len())?;
            ensure!(client.raw[before..] == *text, "{text:?} was changed");
        }
    }
    let summary = kfault.stop()?;
    let passed = &summary.json()["exchanges"][0]["passed"];
    for reason in ["tls", "http2", "unparsed"] {
        ensure!(passed[reason].as_u64() == Some(1), "{reason}: {passed}");
    }
    ensure!(summary.exchanged("injected") == 0, "{}", summary.json());
    Ok(Done::Kept)
}

fn the_server_of_a_cgroup_is_meant_and_its_neighbour_is_not() -> Result<Done> {
    needs_http!();
    let scene = OnHost::new()?;
    let mut open = Client::connect(scene.clients()[0], scene.at(PORT))?;
    open.get("/before")?;
    let kfault = scene.start(|manifest| manifest.with("replace", replaced("meant")))?;
    ensure!(open.get("/open")?.body == b"meant", "an open connection");
    for ns in scene.clients() {
        let mut client = Client::connect(ns, scene.at(PORT))?;
        ensure!(client.get("/a")?.body == b"meant", "from {}", ns.name());
        ensure!(client.get("/b")?.body == b"meant", "from {}", ns.name());
        unharmed(ns, scene.at(PORT + 1)).context("the server of another cgroup")?;
    }
    kfault.stop()?;
    unharmed(scene.clients()[0], scene.at(PORT)).context("after recovery")?;
    ensure!(open.get("/after")?.body == b"this is /after\n");
    Ok(Done::Kept)
}

fn nginx_answers_with_the_replaced_body() -> Result<Done> {
    needs_http!();
    if let Some(proof) = Proof::by_trying("start nginx", Nginx::look) {
        return Ok(Done::Cannot(proof));
    }
    let net = Net::in_order()?;
    let web = &net.client;
    let nginx = Nginx::start(&web.ns, PORT)?;
    let url = |path: &str| format!("http://{}:{PORT}{path}", web.v4);
    let curl = |args: &[&str]| {
        net.server.ns.output("curl", &[&["-sS", "--max-time", "10"], args].concat())
    };
    ensure!(curl(&[&url("/")])? == PAGE);
    // What is packed as it is sent comes in chunks.
    let packed = ["-i", "-o", "-", "--raw", "-H", "Accept-Encoding: gzip"];
    let head = curl(&["-D", "-", "-o", "/dev/null", packed[4], packed[5], &url("/large")])?;
    ensure!(head.contains("Transfer-Encoding: chunked\r\n"), "{head}");
    let manifest = Manifest::http(PORT).with("replace", replaced("{\"short\":1}"));
    let kfault = Run::of(&manifest)?.target(&web.ns.word()).seed(1).start()?;
    // Two on one connection, one that is cut in pieces by sendfile.
    let both = curl(&["-i", &url("/"), &url("/large")])?;
    ensure!(both.matches("{\"short\":1}").count() == 2, "{both}");
    ensure!(both.matches("Content-Length: 11\r\n").count() == 2, "{both}");
    let both = curl(&[&packed[..], &[&url("/"), "-o", "-", &url("/large")]].concat())?;
    ensure!(both.matches("{\"short\":1}").count() == 2, "{both}");
    ensure!(!both.contains("-Encoding"), "{both}");
    ensure!(curl(&["-0", &url("/")])? == "{\"short\":1}", "HTTP/1.0");
    let head = curl(&["-I", &url("/")])?;
    ensure!(head.contains(&format!("Content-Length: {}", PAGE.len())), "{head}");
    let summary = kfault.stop()?;
    ensure!(curl(&[&url("/")])? == PAGE, "after recovery");
    ensure!(summary.exchanged("injected") == 6, "{}", summary.json());
    drop(nginx);
    Ok(Done::Kept)
}

fn node_answers_with_the_replaced_body() -> Result<Done> {
    needs_http!();
    if let Some(proof) = Proof::by_trying("start node", Node::look) {
        return Ok(Done::Cannot(proof));
    }
    let net = Net::in_order()?;
    let web = &net.client;
    let node = Node::start(&web.ns, PORT)?;
    let url = format!("http://{}:{PORT}/", web.v4);
    let curl = |args: &[&str]| {
        net.server.ns.output("curl", &[&["-sS", "--max-time", "10"], args].concat())
    };
    let before = curl(&["-i", &url])?;
    ensure!(before.contains("Transfer-Encoding: chunked\r\n"), "{before}");
    ensure!(before.contains(SAID), "{before}");
    let manifest = Manifest::http(PORT).with("replace", replaced("{\"short\":1}"));
    let kfault = Run::of(&manifest)?.target(&web.ns.word()).seed(1).start()?;
    // Three on one connection: a response that begins is behind one that is over.
    let all = curl(&["-i", "-v", "--stderr", "-", &url, &url, &url])?;
    ensure!(all.matches("{\"short\":1}").count() == 3, "{all}");
    ensure!(all.matches("Re-using existing connection").count() == 2, "{all}");
    ensure!(!all.contains("Transfer-Encoding") && !all.contains("Trailer"), "{all}");
    let summary = kfault.stop()?;
    ensure!(curl(&[&url])? == SAID, "after recovery");
    ensure!(summary.exchanged("injected") == 3, "{}", summary.json());
    drop(node);
    Ok(Done::Kept)
}

//! Requests that are cut: they do not arrive, and their client is told at once.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use kfault_tests::kfault::Run;
use kfault_tests::manifest::Manifest;
use kfault_tests::net::{Family, Net};
use kfault_tests::probe::http::{Client, PORT, Server, Style, request};
use serde_json::json;

use super::{OnHost, Scene, needs_http};
use crate::harness::{Done, Test, tests};

pub fn tests() -> Vec<Test> {
    tests!("http":
        a_cut_request_does_not_arrive_and_its_client_is_reset,
        only_requests_to_the_server_of_a_cgroup_are_cut,
        a_request_to_be_delayed_has_a_late_response,
        a_dry_run_cuts_and_delays_nothing,
    )
}

fn cut() -> Manifest {
    let manifest = Manifest::http(PORT).with("target", json!("Request"));
    manifest.with("path", json!("/cut*")).with("abort", json!(true))
}

/// Asks for something that is cut: a reset, and long before anything times out.
fn ensure_cut(client: &mut Client, text: &str) -> Result<()> {
    let start = Instant::now();
    client.send(text.as_bytes())?;
    ensure!(client.ensure_closed()?, "no reset");
    ensure!(start.elapsed() < Duration::from_secs(2), "after {:?}", start.elapsed());
    Ok(())
}

fn a_cut_request_does_not_arrive_and_its_client_is_reset() -> Result<Done> {
    needs_http!();
    let scene = Scene::new(Style::Whole)?;
    let post = "POST /cut HTTP/1.1\r\nHost: p\r\nContent-Length: 5\r\n\r\nhello";
    // What marks packets for the one does not do so for the other.
    let late = Manifest::http(PORT).named("kft-late").with("path", json!("/late"));
    let late = late.with("delay", json!("3s"));
    let summary = scene.with(&[&cut(), &late], |_| {
        for server in &scene.servers {
            let before = server.answered();
            for text in [&request("GET", "/cut/a"), post] {
                let mut client = Client::connect(scene.outside(), server.address)?;
                ensure!(client.get("/a")?.body == b"this is /a\n");
                ensure_cut(&mut client, text)?;
                // Others, and new connections, go on.
                let mut client = Client::connect(scene.outside(), server.address)?;
                ensure!(client.get("/b")?.body == b"this is /b\n");
                client.ensure_drained()?;
            }
            ensure!(server.answered() == before + 4, "a request that was cut has arrived");
        }
        Ok(())
    })?;
    ensure!(summary.exchanged("matched") == 4, "{}", summary.json());
    ensure!(summary.exchanged("injected") == 4, "{}", summary.json());
    Ok(Done::Kept)
}

fn only_requests_to_the_server_of_a_cgroup_are_cut() -> Result<Done> {
    needs_http!();
    let scene = OnHost::new()?;
    let kfault = scene.start(|manifest| {
        let manifest = manifest.with("target", json!("Request")).with("path", json!("/cut*"));
        manifest.with("abort", json!(true))
    })?;
    for ns in scene.clients() {
        let mut client = Client::connect(ns, scene.at(PORT))?;
        client.get("/a")?;
        ensure_cut(&mut client, &request("GET", "/cut")).with_context(|| ns.name().to_owned())?;
        let mut client = Client::connect(ns, scene.at(PORT + 1))?;
        ensure!(client.get("/cut")?.body == b"this is /cut\n", "the server of another cgroup");
    }
    kfault.stop()?;
    let mut client = Client::connect(scene.clients()[0], scene.at(PORT))?;
    ensure!(client.get("/cut")?.body == b"this is /cut\n", "after recovery");
    Ok(Done::Kept)
}

fn a_request_to_be_delayed_has_a_late_response() -> Result<Done> {
    needs_http!();
    let scene = Scene::new(Style::Whole)?;
    let manifest = Manifest::http(PORT).with("target", json!("Request"));
    let manifest = manifest.with("delay", json!("300ms")).with("method", json!("GET"));
    scene.with(&[&manifest], |_| {
        let mut client = scene.client()?;
        let start = Instant::now();
        ensure!(client.get("/a")?.body == b"this is /a\n");
        let took = start.elapsed();
        ensure!(took >= Duration::from_millis(300), "{took:?}");
        ensure!(took < Duration::from_millis(600), "{took:?}");
        client.ensure_drained()
    })?;
    Ok(Done::Kept)
}

fn a_dry_run_cuts_and_delays_nothing() -> Result<Done> {
    needs_http!();
    let net = Net::in_order()?;
    let web = &net.client;
    let server = Server::start(&web.ns, web.ip(Family::V4), PORT, Style::Whole)?;
    let late = Manifest::http(PORT).named("kft-late").with("path", json!("/late"));
    let late = late.with("delay", json!("3s"));
    let run = Run::of(&cut())?.and(&late)?.target(&web.ns.word()).seed(1).dry();
    let kfault = run.start()?;
    let mut client = Client::connect(&net.server.ns, server.address)?;
    let start = Instant::now();
    ensure!(client.get("/cut")?.body == b"this is /cut\n");
    ensure!(client.get("/late")?.body == b"this is /late\n");
    ensure!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    let summary = kfault.stop()?;
    ensure!(summary.exchanged("matched") == 2, "{}", summary.json());
    Ok(Done::Kept)
}

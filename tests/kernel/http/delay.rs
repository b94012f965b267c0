//! Responses that are late, and what is not late beside them.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use kfault_tests::manifest::Manifest;
use kfault_tests::probe::http::{BIG, Client, PORT, Style, answer, request};
use serde_json::json;

use super::{OnHost, Scene, needs_http, replaced, unharmed};
use crate::faulty::{is_exact, lacks};
use crate::harness::{Done, Test, tests};

pub fn tests() -> Vec<Test> {
    let mut all: Vec<Test> = tests!("http": a_delayed_response_is_late_and_others_are_not)
        .into_iter()
        .map(Test::smoke)
        .collect();
    all.extend(tests!("http":
        a_delayed_response_is_late_once_however_large,
        a_server_that_closes_at_once_is_late_and_whole,
        a_delay_goes_with_other_edits,
        only_the_server_of_a_cgroup_is_late,
    ));
    all
}

/// How long a response takes.
fn took(client: &mut Client, path: &str) -> Result<Duration> {
    let start = Instant::now();
    client.get(path)?;
    Ok(start.elapsed())
}

/// As late as asked for, and not much later where time is exact.
fn ensure_late(took: Duration, delay: Duration) -> Result<()> {
    let most = if is_exact() { Duration::from_millis(3) } else { Duration::from_millis(150) };
    ensure!(took >= delay && took < delay + most, "{took:?}, not {delay:?}");
    Ok(())
}

fn ensure_prompt(took: Duration, delay: Duration) -> Result<()> {
    ensure!(took < delay / 2, "{took:?}, and nothing delays it");
    Ok(())
}

fn a_delayed_response_is_late_and_others_are_not() -> Result<Done> {
    needs_http!();
    const DELAY: Duration = Duration::from_millis(300);
    let scene = Scene::new(Style::Whole)?;
    let manifest = Manifest::http(PORT).with("path", json!("/late")).with("delay", json!("300ms"));
    let summary = scene.with(&[&manifest], |_| {
        for server in &scene.servers {
            let mut client = Client::connect(scene.outside(), server.address)?;
            let mut other = Client::connect(scene.outside(), server.address)?;
            for _ in 0..3 {
                ensure_prompt(took(&mut client, "/prompt")?, DELAY)?;
                let start = Instant::now();
                client.send(request("GET", "/late").as_bytes())?;
                ensure_prompt(took(&mut other, "/other")?, DELAY).context("another connection")?;
                let response = client.response("GET")?;
                ensure_late(start.elapsed(), DELAY)?;
                let whole = [response.head, response.body].concat();
                ensure!(Some(whole) == answer("GET", "/late"), "it was changed");
            }
            ensure_prompt(took(&mut client, "/prompt")?, DELAY)?;
            client.ensure_drained()?;
        }
        Ok(())
    })?;
    ensure!(summary.exchanged("injected") == 6, "{}", summary.json());
    Ok(Done::Kept)
}

fn a_delayed_response_is_late_once_however_large() -> Result<Done> {
    needs_http!();
    const DELAY: Duration = Duration::from_millis(500);
    for style in [Style::Whole, Style::Apart] {
        let scene = Scene::new(style)?;
        let manifest = Manifest::http(PORT).with("path", json!("/big"));
        let manifest = manifest.with("delay", json!("500ms"));
        scene.with(&[&manifest], |_| {
            let mut client = scene.client()?;
            for _ in 0..2 {
                let start = Instant::now();
                let response = client.get("/big")?;
                let took = start.elapsed();
                ensure!(response.body == vec![b'x'; BIG], "the body was changed");
                // A window at a time would be many delays.
                ensure!(took >= DELAY && took < DELAY * 3, "{took:?}");
                ensure_prompt(self::took(&mut client, "/prompt")?, DELAY)?;
            }
            client.ensure_drained()
        })?;
    }
    Ok(Done::Kept)
}

fn a_server_that_closes_at_once_is_late_and_whole() -> Result<Done> {
    needs_http!();
    const DELAY: Duration = Duration::from_millis(300);
    let scene = Scene::new(Style::Whole)?;
    let manifest = Manifest::http(PORT).with("delay", json!("300ms"));
    scene.with(&[&manifest], |_| {
        for _ in 0..3 {
            let mut client = scene.client()?;
            ensure_late(took(&mut client, "/close")?, DELAY)?;
            ensure!(!client.ensure_closed()?, "the connection was reset");
        }
        Ok(())
    })?;
    Ok(Done::Kept)
}

fn a_delay_goes_with_other_edits() -> Result<Done> {
    needs_http!();
    const DELAY: Duration = Duration::from_millis(200);
    let scene = Scene::new(Style::Apart)?;
    let manifest = Manifest::http(PORT).with("delay", json!("200ms"));
    let manifest = manifest.with("replace", replaced("late and new"));
    scene.with(&[&manifest], |_| {
        let mut client = scene.client()?;
        for _ in 0..2 {
            let start = Instant::now();
            ensure!(client.get("/a")?.body == b"late and new", "the body is the old one");
            ensure_late(start.elapsed(), DELAY)?;
        }
        client.ensure_drained()
    })?;
    Ok(Done::Kept)
}

fn only_the_server_of_a_cgroup_is_late() -> Result<Done> {
    needs_http!();
    // The delay line cannot serve loopback.
    if let Some(proof) = lacks("fq") {
        return Ok(Done::Cannot(proof));
    }
    const DELAY: Duration = Duration::from_millis(300);
    let scene = OnHost::new()?;
    let kfault = scene.start(|manifest| manifest.with("delay", json!("300ms")))?;
    for ns in scene.clients() {
        let mut client = Client::connect(ns, scene.at(PORT))?;
        ensure_late(took(&mut client, "/a")?, DELAY).with_context(|| ns.name().to_owned())?;
        let mut client = Client::connect(ns, scene.at(PORT + 1))?;
        ensure_prompt(took(&mut client, "/a")?, DELAY).context("the server of another cgroup")?;
    }
    kfault.stop()?;
    unharmed(scene.clients()[0], scene.at(PORT)).context("after recovery")?;
    Ok(Done::Kept)
}

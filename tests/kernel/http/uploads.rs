//! Requests whose bodies come in chunks: where such a body ends, and that it is no request.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kfault_tests::manifest::Manifest;
use kfault_tests::probe::http::{Client, PORT, Style, request};
use serde_json::json;

use super::{Scene, needs_http, replaced};
use crate::harness::{Done, Test, tests};

pub fn tests() -> Vec<Test> {
    tests!("http":
        a_body_behind_100_continue_is_no_request,
        the_response_behind_100_continue_is_meant,
        what_is_pipelined_behind_chunks_is_meant_wherever_segments_split_it,
        a_request_behind_chunks_that_cannot_be_followed_is_found_again,
    )
}

fn upload(path: &str, more: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: p\r\n{more}Transfer-Encoding: chunked\r\n\r\n")
}

/// Segments of their own.
fn send_apart<'a>(client: &mut Client, all: impl IntoIterator<Item = &'a [u8]>) -> Result<()> {
    for piece in all {
        client.send(piece)?;
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

/// Asks whether the body is wanted, waits for the answer, and sends it.
fn upload_when_asked(client: &mut Client, path: &str, body: &[&[u8]]) -> Result<Vec<u8>> {
    const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
    let start = client.raw.len();
    client.send(upload(path, "Expect: 100-continue\r\n").as_bytes())?;
    client.read_to(start + CONTINUE.len()).context("100 Continue")?;
    ensure!(client.raw[start..] == *CONTINUE, "not asked to go on");
    send_apart(client, body.iter().copied())?;
    Ok(client.response("POST")?.body)
}

/// Bodies as segments; some of them look like something else.
fn bodies() -> Vec<Vec<&'static [u8]>> {
    let whole = "5\r\nhello\r\n6;a=b\r\n world\r\n0\r\nX-T: 1\r\n\r\n";
    let written: [&[&'static str]; 6] = [
        &[whole],
        &["5\r\n", "hello", "\r\n", "0\r\n", "\r\n"],
        // What is sent looks like the request that is meant.
        &["20\r\n", "GET /meant HTTP/1.1\r\nHost: p\r\n\r\n", "\r\n0\r\n\r\n"],
        &["2A\r\nab", "GET /meant HTTP/1.1\r\nHost: peer.test\r\n\r\n", "\r\n0\r\n\r\n"],
        // Sizes, data and trailers that look like methods.
        &["A", "\r\nDELETE GET\r\n0\r\n\r\n"],
        &["A\r\nPOST DELET\r\n", "A", "\r\nDELETE GET\r\n0\r\n", "GET:", " /meant\r\n\r\n"],
    ];
    let written = written.map(|texts| texts.iter().map(|text| text.as_bytes()).collect());
    written.into_iter().chain([whole.as_bytes().chunks(1).collect()]).collect()
}

fn a_body_behind_100_continue_is_no_request() -> Result<Done> {
    needs_http!();
    for joins_before in [false, true] {
        let scene = Scene::new(Style::Whole)?;
        let manifest = Manifest::http(PORT).with("path", json!("/meant"));
        let manifest = manifest.with("replace", replaced("meant"));
        let summary = scene.with(&[&manifest], |_| {
            for body in bodies() {
                let mut client = scene.client()?;
                if joins_before {
                    ensure!(client.get("/meant")?.body == b"meant");
                }
                for _ in 0..2 {
                    let said = upload_when_asked(&mut client, "/up", &body)?;
                    ensure!(said == b"this is /up\n", "{body:?}: {said:?}");
                }
                ensure!(client.get("/meant")?.body == b"meant", "{body:?}");
                client.ensure_drained()?;
            }
            Ok(())
        })?;
        let all = bodies().len() as u64;
        let meant = all * (1 + u64::from(joins_before));
        ensure!(summary.exchanged("matched") == meant, "{}", summary.json());
        ensure!(summary.exchanged("injected") == meant, "{}", summary.json());
        ensure!(summary.exchanged("seen") == meant + 2 * all, "{}", summary.json());
        ensure!(summary.json()["exchanges"][0]["passed"] == json!({}), "{}", summary.json());
    }
    Ok(Done::Kept)
}

fn the_response_behind_100_continue_is_meant() -> Result<Done> {
    needs_http!();
    let scene = Scene::new(Style::Whole)?;
    let manifest = Manifest::http(PORT).with("path", json!("/up"));
    let manifest = manifest.with("replace", replaced("meant"));
    let summary = scene.with(&[&manifest], |_| {
        for body in bodies() {
            let mut client = scene.client()?;
            for _ in 0..2 {
                let said = upload_when_asked(&mut client, "/up", &body)?;
                ensure!(said == b"meant", "{body:?}: {said:?}");
                ensure!(client.get("/other")?.body == b"this is /other\n", "{body:?}");
            }
            client.ensure_drained()?;
        }
        Ok(())
    })?;
    ensure!(summary.exchanged("injected") == 2 * bodies().len() as u64, "{}", summary.json());
    ensure!(summary.json()["exchanges"][0]["passed"] == json!({}), "{}", summary.json());
    Ok(Done::Kept)
}

fn what_is_pipelined_behind_chunks_is_meant_wherever_segments_split_it() -> Result<Done> {
    needs_http!();
    let scene = Scene::new(Style::Whole)?;
    let manifest = Manifest::http(PORT).with("path", json!("/meant"));
    let manifest = manifest.with("replace", replaced("meant"));
    let body = "5\r\nhello\r\n6;a=b\r\n world\r\n0\r\nX-T: 1\r\n\r\n";
    let text = upload("/up", "") + body + &request("GET", "/meant");
    let summary = scene.with(&[&manifest], |_| {
        let mut client = scene.client()?;
        for cut in 0..text.len() {
            let (front, rest) = text.as_bytes().split_at(cut);
            send_apart(&mut client, [front, rest].into_iter().filter(|part| !part.is_empty()))?;
            ensure!(client.response("POST")?.body == b"this is /up\n", "cut at {cut}");
            let said = client.response("GET")?.body;
            ensure!(said == b"meant", "cut at {cut}: {said:?}");
        }
        // A body that is longer than any segment.
        let long = format!("{:x}\r\n{}\r\n", 300_000, "GET / HTTP/1.1\r\n".repeat(18_750));
        for _ in 0..3 {
            let all = upload("/up", "") + &long.repeat(3) + "0\r\n\r\n";
            client.send(all.as_bytes())?;
            ensure!(client.response("POST")?.body == b"this is /up\n", "a long body");
            ensure!(client.get("/meant")?.body == b"meant", "behind a long body");
        }
        client.ensure_drained()
    })?;
    ensure!(summary.exchanged("injected") == text.len() as u64 + 3, "{}", summary.json());
    ensure!(summary.json()["exchanges"][0]["passed"] == json!({}), "{}", summary.json());
    Ok(Done::Kept)
}

/// Whoever reads such a body differently must not be followed: the next request behind a response
/// is one again.
fn a_request_behind_chunks_that_cannot_be_followed_is_found_again() -> Result<Done> {
    needs_http!();
    let scene = Scene::new(Style::Whole)?;
    let manifest = Manifest::http(PORT).with("path", json!("/meant"));
    let manifest = manifest.with("replace", replaced("meant"));
    scene.with(&[&manifest], |_| {
        let mut client = scene.client()?;
        for _ in 0..2 {
            // The server takes the length.
            let head = upload("/up", "Content-Length: 10\r\n").replace("chunked", "other");
            client.send((head + "no chunks\n").as_bytes())?;
            ensure!(client.response("POST")?.body == b"this is /up\n");
            ensure!(client.get("/meant")?.body == b"meant");
        }
        client.ensure_drained()
    })?;
    Ok(Done::Kept)
}

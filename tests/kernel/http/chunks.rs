//! Bodies in chunks: their ends are found wherever sends split them.

use anyhow::{Context, Result, ensure};
use kfault_tests::kfault::Summary;
use kfault_tests::manifest::Manifest;
use kfault_tests::probe::http::{Client, PORT, Style, answer, request};
use serde_json::{Value, json};

use super::{Scene, needs_http, replaced};
use crate::harness::{Done, Test, tests};

pub fn tests() -> Vec<Test> {
    tests!("http":
        a_body_in_chunks_is_replaced_and_has_a_length_then,
        chunks_are_followed_wherever_sends_split_them,
        what_is_pipelined_with_chunks_is_told_apart,
        chunks_that_are_still_to_come_are_swallowed_after_the_end,
        chunks_that_cannot_be_followed_pass_or_end_the_connection,
    )
}

fn a_body_in_chunks_is_replaced_and_has_a_length_then() -> Result<Done> {
    needs_http!();
    for style in [Style::Whole, Style::Apart, Style::Pieces(4093)] {
        let scene = Scene::new(style)?;
        let manifest = Manifest::http(PORT).with("replace", replaced("meant"));
        let summary = scene.with(&[&manifest], |_| {
            for server in &scene.servers {
                let mut client = Client::connect(scene.outside(), server.address)?;
                for path in ["/chunked", "/many", "/a", "/chunked"] {
                    let response = client.get(path).with_context(|| format!("{style:?}"))?;
                    ensure!(response.body == b"meant", "{style:?}: {path}: {}", response.status());
                    ensure!(response.header("content-length").as_deref() == Some("5"), "{path}");
                    ensure!(response.header("transfer-encoding").is_none(), "{path}");
                    let kind = response.header("x-kind");
                    ensure!(path == "/a" || kind.as_deref() == Some("chunks"), "{response:?}");
                }
                client.send(request("HEAD", "/chunked").as_bytes())?;
                let response = client.response("HEAD")?;
                ensure!(Some(response.head) == answer("HEAD", "/chunked"), "HEAD was changed");
                client.ensure_drained()?;
            }
            Ok(())
        })?;
        ensure!(summary.exchanged("injected") == 10, "{}", summary.json());
        ensure!(passed(&summary) == 0, "{}", summary.json());
    }
    Ok(Done::Kept)
}

/// Responses of which the end of chunks was not found.
fn passed(summary: &Summary) -> u64 {
    summary.json()["exchanges"][0]["passed"]["chunked"].as_u64().unwrap_or_default()
}

/// Two responses, one behind the other, cut in two and in three: what is done to the first one
/// shows nowhere in the second one.
fn chunks_are_followed_wherever_sends_split_them() -> Result<Done> {
    needs_http!();
    let old = answer("GET", "/chunked").context("an answer")?;
    let text = String::from_utf8(old.clone()).context("an answer")?;
    let new = "HTTP/1.1 200 OK\r\nX-Kind: chunks\r\nContent-Length: 5\r\n\r\nmeant".to_owned();
    let status = text.replace("200 OK", "503 Service Unavailable");
    let cases: [(&str, Value, String); 3] = [
        ("/chunked", replaced("meant"), new),
        ("/chunked", json!({"code": 503}), status),
        ("/other", replaced("meant"), text),
    ];
    let scene = Scene::new(Style::Cut)?;
    for (path, replace, expected) in cases {
        let manifest = Manifest::http(PORT).with("path", json!(path)).with("replace", replace);
        let summary = scene.with(&[&manifest], |_| {
            let mut client = scene.client()?;
            client.get("/other")?;
            for at in 1..old.len() + 9 {
                for width in [0, 1 + at % 4] {
                    let (first, second) = (at, at + width);
                    let asked = format!("/chunked?cut={first},{second}");
                    both(&mut client, &asked, &expected)?;
                }
            }
            client.ensure_drained()
        })?;
        ensure!(passed(&summary) == 0, "{}", summary.json());
    }
    Ok(Done::Kept)
}

fn both(client: &mut Client, asked: &str, expected: &str) -> Result<()> {
    let start = client.raw.len();
    client.send((request("GET", asked) + &request("GET", "/b")).as_bytes())?;
    for _ in 0..2 {
        client.response("GET").with_context(|| asked.to_owned())?;
    }
    let came = client.raw.get(start..).unwrap_or_default();
    let second = answer("GET", "/b").context("an answer")?;
    let is_right = came == [expected.as_bytes(), &second].concat();
    ensure!(is_right, "{asked}: {:?}", String::from_utf8_lossy(came));
    Ok(())
}

fn what_is_pipelined_with_chunks_is_told_apart() -> Result<Done> {
    needs_http!();
    let paths = ["/chunked", "/b", "/many", "/chunked", "/b", "/chunked", "/b"];
    let all: String = paths.iter().map(|path| request("GET", path)).collect();
    for (style, meant) in [
        (Style::Whole, "/b"),
        (Style::Apart, "/chunked"),
        (Style::Together, "/b"),
        (Style::Together, "/chunked"),
        (Style::Together, "/many"),
        (Style::Pieces(4093), "/many"),
    ] {
        let scene = Scene::new(style)?;
        let manifest = Manifest::http(PORT).with("path", json!(meant));
        let manifest = manifest.with("replace", replaced("meant"));
        scene.with(&[&manifest], |_| {
            let mut client = scene.client()?;
            for round in 0..2 {
                client.send(all.as_bytes())?;
                for path in paths {
                    let start = client.raw.len() - client.held();
                    let response = client.response("GET")?;
                    let end = client.raw.len() - client.held();
                    let is_right = if path == meant {
                        response.body == b"meant"
                    } else {
                        Some(&client.raw[start..end]) == answer("GET", path).as_deref()
                    };
                    ensure!(is_right, "{style:?}, {meant} is meant, round {round}: {path}");
                }
            }
            client.ensure_drained()
        })?;
    }
    Ok(Done::Kept)
}

fn chunks_that_are_still_to_come_are_swallowed_after_the_end() -> Result<Done> {
    needs_http!();
    let scene = Scene::new(Style::Cut)?;
    let manifest = Manifest::http(PORT).with("replace", replaced("meant"));
    let mut client = scene.client()?;
    scene.with(&[&manifest], |_| {
        // In the middle of data, then of the trailer.
        let response = client.get("/chunked?cut=68,93&pause")?;
        ensure!(response.body == b"meant", "{response:?}");
        Ok(())
    })?;
    ensure!(client.get("/after")?.body == b"this is /after\n");
    ensure!(client.get("/chunked")?.body == b"hello world");
    client.ensure_drained()?;
    Ok(Done::Kept)
}

fn chunks_that_cannot_be_followed_pass_or_end_the_connection() -> Result<Done> {
    needs_http!();
    let manifest = Manifest::http(PORT).with("replace", replaced("meant"));
    // What is seen before anything was sent passes.
    let scene = Scene::new(Style::Whole)?;
    let summary = scene.with(&[&manifest], |_| {
        let mut client = scene.client()?;
        for path in ["/broken", "/close/coded"] {
            ensure!(client.get("/a")?.body == b"meant");
            let start = client.raw.len();
            let expected = answer("GET", path).context("an answer")?;
            client.send(request("GET", path).as_bytes())?;
            client.read_to(start + expected.len())?;
            ensure!(client.raw[start..] == expected, "{path} was changed");
        }
        client.ensure_closed().map(drop)
    })?;
    ensure!(passed(&summary) == 2, "{}", summary.json());
    ensure!(summary.exchanged("injected") == 2, "{}", summary.json());
    // A client that has its response is not to take the rest for the next one.
    let scene = Scene::new(Style::Apart)?;
    let summary = scene.with(&[&manifest], |_| {
        let mut client = scene.client()?;
        ensure!(client.get("/broken")?.body == b"meant");
        client.ensure_closed().map(drop)
    })?;
    ensure!(passed(&summary) == 1, "{}", summary.json());
    ensure!(summary.exchanged("injected") == 1, "{}", summary.json());
    Ok(Done::Kept)
}

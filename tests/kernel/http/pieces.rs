//! Messages that do not come in one piece, several in one, and those without a body.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kfault_tests::manifest::Manifest;
use kfault_tests::probe::http::{PORT, Style, answer, request};
use serde_json::json;

use super::{Scene, needs_http, replaced};
use crate::harness::{Done, Test, tests};

pub fn tests() -> Vec<Test> {
    tests!("http":
        only_the_middle_one_of_three_requests_in_one_segment_is_meant,
        a_request_in_pieces_of_any_size_is_meant,
        a_request_far_into_its_segment_passes_and_is_counted,
        a_response_in_pieces_of_any_size_is_replaced,
        messages_without_a_body_keep_having_none,
    )
}

fn only_the_middle_one_of_three_requests_in_one_segment_is_meant() -> Result<Done> {
    needs_http!();
    for style in [Style::Whole, Style::Apart, Style::Together] {
        let scene = Scene::new(style)?;
        let manifest = Manifest::http(PORT).with("path", json!("/b"));
        let manifest = manifest.with("replace", replaced("middle"));
        scene.with(&[&manifest], |_| {
            let mut client = scene.client()?;
            for round in 0..4 {
                let paths = ["/a", "/b", "/big", "/b", "/c"];
                let all: String = paths.iter().map(|path| request("GET", path)).collect();
                client.send(all.as_bytes())?;
                for path in paths {
                    let response = client.response("GET")?;
                    let expected = answer("GET", path).context("an answer")?;
                    let is_right = match path {
                        "/b" => response.body == b"middle",
                        _ => [response.head, response.body].concat() == expected,
                    };
                    ensure!(is_right, "{style:?}, round {round}: {path}");
                }
            }
            client.ensure_drained()
        })?;
    }
    Ok(Done::Kept)
}

fn a_request_in_pieces_of_any_size_is_meant() -> Result<Done> {
    needs_http!();
    let scene = Scene::new(Style::Whole)?;
    let manifest = Manifest::http(PORT).with("path", json!("/meant/*/here"));
    let manifest = manifest.with("replace", replaced("meant"));
    let summary = scene.with(&[&manifest], |_| {
        let text = request("GET", "/meant/and/here");
        for size in [1, 2, 3, 5, 7, 11, 13, 40] {
            let mut client = scene.client()?;
            for _ in 0..2 {
                for piece in text.as_bytes().chunks(size) {
                    client.send(piece)?;
                    // Segments of their own.
                    std::thread::sleep(Duration::from_millis(1));
                }
                let response = client.response("GET")?;
                ensure!(response.body == b"meant", "pieces of {size}: {response:?}");
                ensure!(client.get("/other")?.body == b"this is /other\n");
            }
        }
        Ok(())
    })?;
    ensure!(summary.exchanged("injected") == 16, "{}", summary.json());
    Ok(Done::Kept)
}

fn a_request_far_into_its_segment_passes_and_is_counted() -> Result<Done> {
    needs_http!();
    let scene = Scene::new(Style::Whole)?;
    let manifest = Manifest::http(PORT).with("path", json!("/meant"));
    let manifest = manifest.with("replace", replaced("meant"));
    let summary = scene.with(&[&manifest], |_| {
        let mut client = scene.client()?;
        let body = "b".repeat(6000);
        let post = format!("POST /a HTTP/1.1\r\nHost: p\r\nContent-Length: 6000\r\n\r\n{body}");
        client.send((post + &request("GET", "/meant")).as_bytes())?;
        ensure!(client.response("POST")?.body == b"this is /a\n");
        ensure!(client.response("GET")?.body == b"this is /meant\n");
        // What comes behind it is found again.
        ensure!(client.get("/meant")?.body == b"meant");
        client.ensure_drained()
    })?;
    ensure!(summary.exchanged("injected") == 1, "{}", summary.json());
    ensure!(summary.json()["exchanges"][0]["passed"]["longHead"] == 1, "{}", summary.json());
    Ok(Done::Kept)
}

fn a_response_in_pieces_of_any_size_is_replaced() -> Result<Done> {
    needs_http!();
    for size in [1, 2, 3, 7, 16, 60, 61, 97, 100, 4000, 4096, 65_537] {
        let scene = Scene::new(Style::Pieces(size))?;
        let manifest = Manifest::http(PORT).with("path", json!("/meant*"));
        let manifest = manifest.with("replace", replaced("meant"));
        scene.with(&[&manifest], |_| {
            let mut client = scene.client()?;
            for path in ["/meant", "/other", "/meant2"] {
                let response = client.get(path).with_context(|| format!("pieces of {size}"))?;
                let is_right = match path {
                    "/other" => response.body == b"this is /other\n",
                    _ => response.body == b"meant",
                };
                ensure!(is_right, "pieces of {size}: {path}: {response:?}");
            }
            client.ensure_drained()
        })?;
    }
    Ok(Done::Kept)
}

fn messages_without_a_body_keep_having_none() -> Result<Done> {
    needs_http!();
    let scene = Scene::new(Style::Whole)?;
    let manifest = Manifest::http(PORT).with("replace", replaced("body"));
    scene.with(&[&manifest], |_| {
        let mut client = scene.client()?;
        client.send(request("HEAD", "/a").as_bytes())?;
        let response = client.response("HEAD")?;
        ensure!(Some(&response.head) == answer("HEAD", "/a").as_ref(), "{response:?}");
        for path in ["/none", "/same"] {
            let response = client.get(path)?;
            ensure!(Some(&response.head) == answer("GET", path).as_ref(), "{response:?}");
        }
        // An interim response passes as it is, and the one that follows is meant.
        ensure!(client.get("/early")?.body == b"body");
        let early = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n";
        ensure!(client.raw.windows(early.len()).any(|part| part == early), "no interim response");
        ensure!(client.get("/empty")?.body == b"body");
        client.ensure_drained()
    })?;
    Ok(Done::Kept)
}

//! What requests ask for: whole addresses, and tunnels.

use anyhow::{Context, Result, ensure};
use kfault_tests::manifest::Manifest;
use kfault_tests::probe::http::{Client, PORT, Style};
use serde_json::json;

use super::{Scene, needs_http, replaced};
use crate::harness::{Done, Test, tests};

pub fn tests() -> Vec<Test> {
    tests!("http":
        the_path_of_a_whole_address_is_meant,
        what_goes_through_a_tunnel_is_nobodys_request,
        a_tunnel_that_is_refused_is_a_response_like_others,
    )
}

fn ask(method: &str, target: &str) -> String {
    format!("{method} {target} HTTP/1.1\r\nHost: peer.test\r\n\r\n")
}

fn the_path_of_a_whole_address_is_meant() -> Result<Done> {
    needs_http!();
    let cases: [(&str, &[(&str, bool)]); 4] = [
        (
            "/meant",
            &[
                ("http://peer.test:7781/meant", true),
                ("/meant", true),
                ("http://peer.test/meant?q=/other", true),
                ("HTTPS://[fd00::1]:443/meant", true),
                ("http://peer.test/meant/", false),
                ("http://meant", false),
                ("/http://peer.test/meant", false),
            ],
        ),
        ("/", &[("http://peer.test", true), ("http://peer.test?a", true), ("/a", false)]),
        ("/m?ant*", &[("http://peer.test/meant/a", true), ("http://peer.test/mant", false)]),
        ("http*", &[("http://peer.test/meant", false), ("http://http", false), ("*", false)]),
    ];
    for (path, asked) in cases {
        let scene = Scene::new(Style::Whole)?;
        let manifest = Manifest::http(PORT).with("path", json!(path));
        let manifest = manifest.with("replace", replaced("new body"));
        let summary = scene.with(&[&manifest], |_| {
            let mut client = scene.client()?;
            for (target, is_meant) in asked {
                let pieces = [ask("GET", target).len(), 1];
                for size in pieces {
                    for piece in ask("GET", target).as_bytes().chunks(size) {
                        client.send(piece)?;
                    }
                    let response = client.response("GET")?;
                    let is_new = response.body == b"new body";
                    ensure!(is_new == *is_meant, "{path}: {target}: {response:?}");
                }
            }
            client.ensure_drained()
        })?;
        let meant = 2 * asked.iter().filter(|(_, is_meant)| *is_meant).count() as u64;
        ensure!(summary.exchanged("injected") == meant, "{}", summary.json());
        ensure!(summary.json()["exchanges"][0]["passed"] == json!({}), "{}", summary.json());
    }
    Ok(Done::Kept)
}

/// Opens a tunnel, in which everything comes back as it was sent.
fn tunnel(client: &mut Client) -> Result<()> {
    const AGREED: &[u8] = b"HTTP/1.1 200 Connection established\r\n\r\n";
    let start = client.raw.len();
    client.send(ask("CONNECT", "peer.test:443").as_bytes())?;
    client.read_to(start + AGREED.len()).context("a tunnel")?;
    ensure!(client.raw[start..] == *AGREED, "the server's answer was changed");
    for text in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 and so on"[..],
        b"GET /meant HTTP/1.1\r\nHost: p\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nold",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ] {
        for _ in 0..2 {
            let before = client.raw.len();
            client.send(text)?;
            client.read_to(before + text.len()).context("from a tunnel")?;
            let came = String::from_utf8_lossy(&client.raw[before..]).into_owned();
            ensure!(client.raw[before..] == *text, "{came:?} came out of a tunnel");
        }
    }
    Ok(())
}

fn what_goes_through_a_tunnel_is_nobodys_request() -> Result<Done> {
    needs_http!();
    // Of one path, whose requests the tunnel is none of; of every path; on a connection that is
    // watched before.
    for (path, joins_before, matched) in
        [(Some("/meant"), false, 0), (None, false, 1), (Some("/meant"), true, 1)]
    {
        let scene = Scene::new(Style::Whole)?;
        let mut manifest = Manifest::http(PORT).with("replace", replaced("new body"));
        if let Some(path) = path {
            manifest = manifest.with("path", json!(path));
        }
        let summary = scene.with(&[&manifest], |_| {
            let mut client = scene.client()?;
            if joins_before {
                ensure!(client.get("/meant")?.body == b"new body");
            }
            tunnel(&mut client)
        })?;
        ensure!(summary.exchanged("matched") == matched, "{}", summary.json());
        let seen = 1 + u64::from(joins_before);
        ensure!(summary.exchanged("seen") == seen, "{}", summary.json());
        ensure!(summary.json()["exchanges"][0]["passed"] == json!({}), "{}", summary.json());
    }
    Ok(Done::Kept)
}

fn a_tunnel_that_is_refused_is_a_response_like_others() -> Result<Done> {
    needs_http!();
    let scene = Scene::new(Style::Whole)?;
    let manifest = Manifest::http(PORT).with("replace", replaced("new body"));
    let summary = scene.with(&[&manifest], |_| {
        let mut client = scene.client()?;
        for _ in 0..2 {
            client.send(ask("CONNECT", "refused.test:443").as_bytes())?;
            let response = client.response("CONNECT")?;
            ensure!(response.status() == "HTTP/1.1 403 Forbidden", "{response:?}");
            ensure!(response.body == b"new body", "{response:?}");
            ensure!(client.get("/a")?.body == b"new body", "behind a refusal");
        }
        tunnel(&mut client)
    })?;
    ensure!(summary.exchanged("injected") == 4, "{}", summary.json());
    ensure!(summary.json()["exchanges"][0]["passed"] == json!({}), "{}", summary.json());
    Ok(Done::Kept)
}

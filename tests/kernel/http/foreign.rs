//! Servers that others wrote: what is meant of them arrives as declared, and all else to the byte.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use kfault_tests::kfault::{Kfault, Run};
use kfault_tests::manifest::Manifest;
use kfault_tests::net::{Family, Net};
use kfault_tests::ns::Ns;
use kfault_tests::probe::foreign::{CHUNKS, LARGE, PAGE, Program, apache, axum, go, java, python};
use kfault_tests::probe::http::{Client, PORT, Response, header};
use serde_json::json;

use super::{needs_http, replaced};
use crate::harness::{Done, Proof, Test, tests};

pub fn tests() -> Vec<Test> {
    tests!("http":
        apache_answers_as_declared_and_is_else_untouched,
        the_first_request_to_apache_as_it_comes_passes_and_is_counted,
        go_answers_as_declared_and_is_else_untouched,
        python_answers_as_declared_and_is_else_untouched,
        python_with_http_1_0_answers_as_declared_and_is_else_untouched,
        java_answers_as_declared_and_is_else_untouched,
        hyper_answers_as_declared_and_is_else_untouched,
    )
}

/// What a server can.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sort {
    /// One request per connection, and no chunks.
    Old,
    /// HTTP/1.1, the same chunks every time.
    Steady,
    /// HTTP/1.1, whose chunks are as large as the moment has it.
    Loose,
}

const SHORT: &str = "{\"short\":1}";

fn apache_answers_as_declared_and_is_else_untouched() -> Result<Done> {
    conforms("apache", apache::look, Sort::Loose, apache::start)
}

/// Its connections begin with the first request's packet: there is no socket yet to know them by.
fn the_first_request_to_apache_as_it_comes_passes_and_is_counted() -> Result<Done> {
    needs_http!();
    if let Some(proof) = Proof::by_trying("apache", apache::look) {
        return Ok(Done::Cannot(proof));
    }
    let net = Net::in_order()?;
    let _server = apache::start_deferring(&net.client.ns, PORT)?;
    let site = Site::of(&net, Sort::Loose);
    let kfault = site.start()?;
    let mut client = site.client()?;
    for body in [PAGE, SHORT, SHORT] {
        ensure!(get(&mut client, "GET", "/body/page")?.body == body.as_bytes(), "not {body:?}");
    }
    let summary = kfault.stop()?;
    ensure!(summary.exchanged("injected") == 2, "{}", summary.json());
    let all = summary.json()["exchanges"].as_array().cloned().unwrap_or_default();
    let early = all.iter().filter(|one| one["passed"]["early"] == 1).count();
    ensure!(early == 2, "two experiments have this port: {}", summary.json());
    Ok(Done::Kept)
}

fn go_answers_as_declared_and_is_else_untouched() -> Result<Done> {
    conforms("go", go::look, Sort::Steady, go::start)
}

fn python_answers_as_declared_and_is_else_untouched() -> Result<Done> {
    conforms("python", python::look, Sort::Steady, python::start)
}

fn python_with_http_1_0_answers_as_declared_and_is_else_untouched() -> Result<Done> {
    conforms("python", python::look, Sort::Old, python::start_old)
}

fn java_answers_as_declared_and_is_else_untouched() -> Result<Done> {
    conforms("java", java::look, Sort::Steady, java::start)
}

fn hyper_answers_as_declared_and_is_else_untouched() -> Result<Done> {
    needs_http!();
    let net = Net::in_order()?;
    let _server = axum::Axum::start(&net.client.ns, PORT)?;
    let site = Site::of(&net, Sort::Steady);
    site.conforms()?;
    site.asked_for_another()?;
    Ok(Done::Kept)
}

fn conforms(
    name: &str,
    look: fn() -> Result<()>,
    sort: Sort,
    start: fn(&Ns, u16) -> Result<Program>,
) -> Result<Done> {
    needs_http!();
    if let Some(proof) = Proof::by_trying(name, look) {
        return Ok(Done::Cannot(proof));
    }
    let net = Net::in_order()?;
    let _server = start(&net.client.ns, PORT)?;
    let site = Site::of(&net, sort);
    site.conforms()?;
    site.asked_for_another()?;
    Ok(Done::Kept)
}

/// A server, as its client sees it.
struct Site<'a> {
    net: &'a Net,
    sort: Sort,
}

impl<'a> Site<'a> {
    const fn of(net: &'a Net, sort: Sort) -> Self {
        Self { net, sort }
    }

    fn client(&self) -> Result<Client> {
        let address = SocketAddr::new(self.net.client.ip(Family::V4), PORT);
        Client::connect(&self.net.server.ns, address)
    }

    /// Each name with its body.
    fn pages(&self) -> Vec<(&'static str, Vec<u8>)> {
        let mut all = vec![("page", PAGE.into()), ("large", vec![b'x'; LARGE])];
        if self.sort != Sort::Old {
            all.push(("chunks", vec![b'y'; CHUNKS]));
        }
        all
    }

    /// Three experiments: two with a folder each, and one with a port where nobody listens.
    fn start(&self) -> Result<Kfault> {
        let body = Manifest::http(PORT).named("kft-body").with("path", json!("/body/*"));
        let body = body.with("replace", replaced(SHORT));
        let status = Manifest::http(PORT).named("kft-status").with("path", json!("/status/*"));
        let status = status
            .with("replace", json!({"code": 503, "headers": {"X-New": "1"}}))
            .with("patch", json!({"headers": [["X-Many", "a"], ["X-Many", "b"]]}));
        let port = Manifest::http(PORT + 1).named("kft-port").with("replace", replaced("no"));
        let target = self.net.client.ns.word();
        Run::of(&body)?.and(&status)?.and(&port)?.target(&target).seed(1).start()
    }

    fn conforms(&self) -> Result<()> {
        let before = self.said(self.client()?).context("before")?;
        let kfault = self.start()?;
        let during = self.said(self.client()?)?;
        same(&during, &before).context("what is not meant")?;
        let meant = self.meant()?;
        let mut summary = kfault.stop()?;
        ensure!(summary.exchanged("injected") == meant, "not {meant}: {}", summary.json());
        ensure!(summary.exchanged("matched") == meant, "not {meant}: {}", summary.json());
        same(&self.said(self.client()?)?, &before).context("after recovery")?;
        // The same on a connection of which a request was meant.
        if self.sort != Sort::Old {
            let kfault = self.start()?;
            let mut client = self.client()?;
            ensure!(get(&mut client, "GET", "/body/page")?.body == SHORT.as_bytes());
            same(&self.said(client)?, &before).context("behind what is meant")?;
            summary = kfault.stop()?;
            ensure!(summary.exchanged("injected") == 1, "{}", summary.json());
        }
        let passed = summary.json()["exchanges"].as_array().into_iter().flatten();
        for one in passed {
            let reasons = one["passed"].as_object().into_iter().flatten();
            let all: u64 = reasons.filter_map(|(_, count)| count.as_u64()).sum();
            ensure!(all == 0, "something was not understood: {one}");
        }
        Ok(())
    }

    /// Requests for one page arrive as requests for another.
    fn asked_for_another(&self) -> Result<()> {
        let before = self.said(self.client()?).context("before requests are edited")?;
        let manifest = Manifest::http(PORT).with("target", json!("Request"));
        let manifest = manifest.with("path", json!("/from/*"));
        let manifest = manifest.with("replace", json!({ "path": "/plain/page" }));
        let kfault = Run::of(&manifest)?.target(&self.net.client.ns.word()).seed(1).start()?;
        let during = self.said(self.client()?)?;
        same(&during, &before).context("requests that are not meant")?;
        let mut client = self.client()?;
        for _ in 0..3 {
            for path in ["/from/a/place/much/farther/away", "/plain/page", "/from/a"] {
                let page = self.one(&mut client, "GET", path).context(path)?;
                ensure!(page.body == PAGE.as_bytes(), "{path}: {page:?}");
            }
        }
        let summary = kfault.stop()?;
        ensure!(summary.exchanged("injected") == 6, "{}", summary.json());
        same(&self.said(self.client()?)?, &before).context("after requests were edited")
    }

    /// What it says to the end of a connection, but for its clock: every byte.
    fn said(&self, mut client: Client) -> Result<Vec<u8>> {
        let mut all = Vec::new();
        for (method, name) in [
            ("GET", "page"),
            ("GET", "large"),
            ("HEAD", "page"),
            ("GET", "absent"),
            ("GET", "page"),
        ] {
            let path = format!("/plain/{name}");
            if self.sort == Sort::Old {
                let mut client = self.client()?;
                client.send(request(method, &path).as_bytes())?;
                all.extend(client.to_end()?);
            } else {
                get(&mut client, method, &path)?;
            }
        }
        if self.sort == Sort::Old {
            return Ok(without_clock(&all));
        }
        let start = client.raw.len();
        let chunks = get(&mut client, "GET", "/plain/chunks")?;
        ensure!(chunks.header("transfer-encoding").as_deref() == Some("chunked"), "{chunks:?}");
        ensure!(chunks.body == vec![b'y'; CHUNKS], "{chunks:?}");
        if self.sort == Sort::Loose {
            client.raw.truncate(start);
            client.raw.extend([chunks.head, chunks.body].concat());
        }
        let last =
            request("GET", "/plain/page").replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n");
        client.send(last.as_bytes())?;
        client.to_end()?;
        let text = String::from_utf8_lossy(&client.raw).into_owned();
        ensure!(text.ends_with(PAGE), "it ends with another page");
        // Where a connection begins with something else, that is left out.
        let first = text.find("\r\n\r\na page").context("no page")?;
        let begin = text[..first].rfind("HTTP/1.").context("no head")?;
        Ok(without_clock(&client.raw[begin..]))
    }

    /// Asks for everything that is meant; how many there were.
    fn meant(&self) -> Result<u64> {
        let mut client = self.client()?;
        let mut meant = 0;
        for round in 0..2 {
            for (name, body) in self.pages() {
                for method in ["GET", "HEAD"] {
                    let ask = |client: &mut Client, folder: &str| {
                        let path = format!("/{folder}/{name}");
                        self.one(client, method, &path).context(path)
                    };
                    let plain = ask(&mut client, "plain")?;
                    let replaced = ask(&mut client, "body")?;
                    let status = ask(&mut client, "status")?;
                    meant += 2;
                    let what = format!("{method} {name}, round {round}");
                    let is_head = method == "HEAD";
                    ensure!(
                        plain.body == if is_head { &[] } else { &body[..] },
                        "{what}: {plain:?}"
                    );
                    ensure!(status.body == plain.body, "{what}: the body was changed");
                    if is_head {
                        ensure!(head(&replaced) == head(&plain), "{what}: {replaced:?}");
                    } else {
                        ensure_replaced(&replaced, &plain).context(what.clone())?;
                    }
                    ensure_refused(&status, &plain).context(what)?;
                }
            }
        }
        client.ensure_drained()?;
        Ok(meant)
    }

    /// One response, where need be on a connection of its own.
    fn one(&self, client: &mut Client, method: &str, path: &str) -> Result<Response> {
        if self.sort != Sort::Old {
            return get(client, method, path);
        }
        let mut client = self.client()?;
        client.send(request(method, path).as_bytes())?;
        let all = client.to_end()?;
        let end = all.windows(4).position(|four| four == b"\r\n\r\n").context("no head")? + 4;
        let response = Response { head: all[..end].to_vec(), body: all[end..].to_vec() };
        if method != "HEAD" {
            let length = response.header("content-length");
            let came = response.body.len().to_string();
            ensure!(length.as_ref() == Some(&came), "{length:?}, and {came} bytes came");
        }
        Ok(response)
    }
}

fn request(method: &str, path: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nHost: probe\r\n\r\n")
}

fn get(client: &mut Client, method: &str, path: &str) -> Result<Response> {
    client.send(request(method, path).as_bytes())?;
    client.response(method).with_context(|| format!("{method} {path}"))
}

/// A head without its clock.
fn head(response: &Response) -> String {
    String::from_utf8_lossy(&without_clock(&response.head)).into_owned()
}

/// Lines of a head that say something else than where the body ends.
fn lines(response: &Response) -> Vec<String> {
    let framing = |line: &str| {
        let line = line.to_ascii_lowercase();
        line.starts_with("content-length:") || line.starts_with("transfer-encoding:")
    };
    head(response).lines().filter(|line| !framing(line)).map(str::to_owned).collect()
}

/// The body is another one, has its length, and nothing else is different.
fn ensure_replaced(new: &Response, old: &Response) -> Result<()> {
    ensure!(new.body == SHORT.as_bytes(), "{new:?}");
    let text = head(new).to_ascii_lowercase();
    ensure!(text.matches("content-length:").count() == 1, "{text}");
    ensure!(new.header("content-length").as_deref() == Some("11"), "{text}");
    ensure!(!text.contains("transfer-encoding"), "{text}");
    let (new, old) = (lines(new), lines(old));
    ensure!(new == old, "{new:?}, before {old:?}");
    Ok(())
}

/// The status is another one, headers have been added, and nothing else is different.
fn ensure_refused(new: &Response, old: &Response) -> Result<()> {
    let text = head(new);
    let old = head(old);
    let (version, _) = old.split_once(' ').context("a status line")?;
    let (_, rest) = old.split_once("\r\n").context("a status line")?;
    let rest = rest.trim_end_matches("\r\n");
    let added = "X-New: 1\r\nX-Many: a\r\nX-Many: b\r\n\r\n";
    let expected = format!("{version} 503 Service Unavailable\r\n{rest}\r\n{added}");
    ensure!(text == expected, "{text:?}, not {expected:?}");
    ensure!(header(&new.head, "x-new").as_deref() == Some("1"), "{text}");
    Ok(())
}

/// Byte by byte; else where they part.
fn same(now: &[u8], before: &[u8]) -> Result<()> {
    let at = now.iter().zip(before).take_while(|(one, other)| one == other).count();
    let around = |bytes: &[u8]| {
        let (from, to) = (at.saturating_sub(100), (at + 100).min(bytes.len()));
        String::from_utf8_lossy(&bytes[from.min(to)..to]).into_owned()
    };
    let (new, old) = (around(now), around(before));
    ensure!(now == before, "another byte at {at}: {new:?}, and before {old:?}");
    Ok(())
}

/// The time is another one every second, and is always as long.
fn without_clock(bytes: &[u8]) -> Vec<u8> {
    const NAME: &[u8] = b"\r\ndate: ";
    const TIME: usize = b"Mon, 30 Nov 2026 10:10:58 GMT".len();
    let mut all = bytes.to_vec();
    for at in 0..all.len().saturating_sub(NAME.len() + TIME) {
        if all[at..at + NAME.len()].eq_ignore_ascii_case(NAME) {
            all[at + NAME.len()..][..TIME].fill(b'-');
        }
    }
    all
}

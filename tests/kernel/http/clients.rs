//! Clients that others wrote: they understand what is meant, and reuse their connections.

use anyhow::{Context, Result, ensure};
use kfault_tests::kfault::Run;
use kfault_tests::manifest::Manifest;
use kfault_tests::net::{FAMILIES, Net};
use kfault_tests::ns::Ns;
use kfault_tests::probe::foreign::{Asked, Told, go, java, node, python};
use kfault_tests::probe::http::{BIG, PORT, Server, Style, answer};
use kfault_tests::probe::node::Node;
use serde_json::json;

use super::{needs_http, replaced};
use crate::harness::{Done, Proof, Test, tests};

pub fn tests() -> Vec<Test> {
    tests!("http":
        the_client_of_go_understands_what_is_meant,
        the_client_of_python_understands_what_is_meant,
        the_client_of_node_understands_what_is_meant,
        the_client_of_java_understands_what_is_meant,
    )
}

const SHORT: &str = "{\"short\":1}";

/// What is asked for; two of them twice, so that one behind it shows what a response left over.
const ASKED: [(&str, &str); 15] = [
    ("GET", "/plain"),
    ("GET", "/body/a"),
    ("GET", "/status/a"),
    ("GET", "/big"),
    ("GET", "/chunked"),
    ("POST", "/plain"),
    ("POST", "/body/b"),
    ("HEAD", "/plain"),
    ("HEAD", "/body/c"),
    ("GET", "/none"),
    ("GET", "/many"),
    ("GET", "/same"),
    ("POST", "/status/b"),
    ("GET", "/chunked"),
    ("GET", "/plain"),
];

type Ask = fn(&Ns, &Asked<'_>, &[String]) -> Result<Vec<Told>>;

fn the_client_of_go_understands_what_is_meant() -> Result<Done> {
    understands("go", go::look, go::ask)
}

fn the_client_of_python_understands_what_is_meant() -> Result<Done> {
    understands("python", python::look, python::ask)
}

fn the_client_of_node_understands_what_is_meant() -> Result<Done> {
    understands("node", Node::look, node::ask)
}

fn the_client_of_java_understands_what_is_meant() -> Result<Done> {
    understands("java", java::look_for_client, java::ask)
}

fn understands(name: &str, look: fn() -> Result<()>, ask: Ask) -> Result<Done> {
    needs_http!();
    if let Some(proof) = Proof::by_trying(name, look) {
        return Ok(Done::Cannot(proof));
    }
    let net = Net::in_order()?;
    let web = &net.client;
    // One sends in one piece, the other one its heads apart.
    let servers = FAMILIES.into_iter().zip([Style::Whole, Style::Apart]);
    let servers: Vec<Server> = servers
        .map(|(family, style)| Server::start(&web.ns, web.ip(family), PORT, style))
        .collect::<Result<_>>()?;
    let bases: Vec<String> = servers.iter().map(|one| format!("http://{}", one.address)).collect();
    let ask = || ask(&net.server.ns, &ASKED, &bases);
    // The first one shows that the client can, and what it makes of plain responses.
    let plain = expected(false)?;
    check(&ask()?, &plain).context("before")?;
    let body = Manifest::http(PORT).named("kft-body").with("path", json!("/body/*"));
    let chunked = Manifest::http(PORT).named("kft-chunked").with("path", json!("/chunked"));
    let status = Manifest::http(PORT).named("kft-status").with("path", json!("/status/*"));
    let many = Manifest::http(PORT).named("kft-many").with("path", json!("/many"));
    let refused = json!({"code": 503, "headers": {"X-New": "1"}});
    let kfault = Run::of(&body.with("replace", replaced(SHORT)))?
        .and(&chunked.with("replace", replaced(SHORT)))?
        .and(&status.with("replace", refused.clone()))?
        .and(&many.with("replace", refused))?
        .target(&web.ns.word())
        .seed(1)
        .start()?;
    let connections = |server: &Server| server.accepted();
    let before: Vec<u64> = servers.iter().map(connections).collect();
    check(&ask()?, &expected(true)?)?;
    for (server, before) in servers.iter().zip(before) {
        let made = server.accepted() - before;
        ensure!(made == 1, "{made} connections were made to {}", server.address);
    }
    let summary = kfault.stop()?;
    // Three of bodies, of which HEAD has none, two in chunks, two of a status, and many.
    let meant = 8 * servers.len() as u64;
    ensure!(summary.exchanged("injected") == meant, "not {meant}: {}", summary.json());
    check(&ask()?, &plain).context("after recovery")?;
    Ok(Done::Kept)
}

fn check(told: &[Told], expected: &[Told]) -> Result<()> {
    ensure!(told.len() == 2 * expected.len(), "{} responses came", told.len());
    for (i, told) in told.iter().enumerate() {
        let at = i % expected.len();
        let (method, path) = ASKED[at];
        let Told { status, length, new, body } = told;
        let what = format!("{method} {path}: {status}, {length:?}, {new:?}, {} bytes", body.len());
        ensure!(*told == expected[at], "{what}");
    }
    Ok(())
}

/// What a client is to tell, to one server.
fn expected(acts: bool) -> Result<Vec<Told>> {
    let one = |(method, path): (&str, &str)| {
        let whole = answer(method, path).context("an answer")?;
        let end = whole.windows(4).position(|four| four == b"\r\n\r\n").context("a head")? + 4;
        let body = match path {
            "/chunked" => b"hello world".to_vec(),
            "/many" => many(&whole[end..])?,
            _ => whole[end..].to_vec(),
        };
        ensure!(path != "/big" || body.len() == BIG);
        let length = kfault_tests::probe::http::header(&whole[..end], "content-length");
        let status = String::from_utf8_lossy(&whole[9..12]).parse()?;
        let mut told = Told { status, length, new: None, body };
        if !acts {
            return Ok(told);
        }
        if (path.starts_with("/body/") || path == "/chunked") && method != "HEAD" {
            (told.length, told.body) = (Some(SHORT.len().to_string()), SHORT.into());
        } else if path.starts_with("/status/") || path == "/many" {
            (told.status, told.new) = (503, Some("1".into()));
        }
        Ok(told)
    };
    ASKED.into_iter().map(one).collect()
}

/// A body that came in chunks.
fn many(mut chunks: &[u8]) -> Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let end = chunks.windows(2).position(|two| two == b"\r\n").context("a size")?;
        let size = usize::from_str_radix(std::str::from_utf8(&chunks[..end])?, 16)?;
        if size == 0 {
            return Ok(body);
        }
        body.extend(&chunks[end + 2..][..size]);
        chunks = &chunks[end + size + 4..];
    }
}

//! Whether it works here, tried on a connection of our own through the loopback device of a
//! scratch namespace.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::time::Duration;

use chaos_abi::http::HttpCounters;

use super::Exchanges;
use crate::engine::device;
use crate::engine::error::EngineError;
use crate::engine::line::monotonic_ns;
use crate::engine::netlink::Rtnl;
use crate::engine::netns;
use crate::engine::probe::in_scratch;
use crate::plan::Cgroup;
use crate::plan::exchange::{Edit, Exchange, Matcher, Message, Replace, Role, Sockets};

/// A status that nobody sends.
const STATUS: u16 = 599;
/// A path that nobody asks for.
const PATH: &str = "/edited/by/kfault";
/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Lets an exchange act on one response.
///
/// # Errors
/// What the kernel says, or that the response came as it was sent.
pub fn acts() -> Result<(), EngineError> {
    let edit = Replace { code: Some(STATUS), ..Replace::default() };
    let (_, said, counters) = converse(Message::Response, edit)?;
    if said.starts_with(&format!("HTTP/1.1 {STATUS}")) {
        return Ok(());
    }
    let passed: u64 = counters.passed.iter().sum();
    let why = format!(
        "a response came as it was sent ({} requests seen, {} meant, {passed} passed): this \
         kernel keeps nothing with its sockets, or does not let them into a socket map",
        counters.seen, counters.matched
    );
    Err(failed(io::Error::other(why)))
}

/// Lets an exchange edit one request.
///
/// # Errors
/// What the kernel says, or that the request came as it was sent.
pub fn edits() -> Result<(), EngineError> {
    let edit = Replace { path: Some(PATH.into()), ..Replace::default() };
    let (asked, _, counters) = converse(Message::Request, edit)?;
    if asked.starts_with(&format!("GET {PATH} ")) {
        return Ok(());
    }
    let passed: u64 = counters.passed.iter().sum();
    let why = format!(
        "a request came as it was sent ({} requests seen, {} meant, {passed} passed)",
        counters.seen, counters.matched
    );
    Err(failed(io::Error::other(why)))
}

fn failed(error: io::Error) -> EngineError {
    EngineError::os("try HTTP faults on a connection", error)
}

/// What a server was asked, what its client was answered, and what was counted.
fn converse(
    message: Message,
    replace: Replace,
) -> Result<(String, String, HttpCounters), EngineError> {
    in_scratch(|| {
        let lo = device::facts("lo").map_err(failed)?.ifindex;
        Rtnl::open().and_then(|mut rtnl| rtnl.raise(lo, 65_536)).map_err(failed)?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(failed)?;
        let port = listener.local_addr().map_err(failed)?.port();
        let mut exchanges = Exchanges::default();
        exchanges.beat(u64::MAX)?;
        let edit = Edit { replace, ..Edit::default() };
        let exchange = Exchange { message, edit, ..exchange(port).map_err(failed)? };
        let deadline = monotonic_ns().saturating_add(60_000_000_000);
        exchanges.begin(&exchange, deadline)?;
        let (asked, said) = ask(&listener).map_err(failed)?;
        let counters = exchanges.report(&exchange.id).counters;
        exchanges.end(&exchange.id)?;
        Ok((asked, said, counters))
    })?
}

/// Of every socket, loopback included.
fn exchange(port: u16) -> io::Result<Exchange> {
    let file = "/proc/thread-self/ns/net";
    let root = Cgroup { path: "/".into(), id: 1, level: 0 };
    Ok(Exchange {
        id: "trial".into(),
        experiment: "trial".into(),
        target: "trial".into(),
        sockets: Sockets {
            netns: file.into(),
            inode: netns::inode(Path::new(file))?,
            devices: vec!["lo".into()],
            cgroup: Some(root),
            holder: None,
        },
        role: Role::Server,
        message: Message::Response,
        port,
        matcher: Matcher::default(),
        edit: Edit::default(),
        describes: String::new(),
        seed: 0,
        duration: None,
        dry_run: false,
    })
}

/// What arrives at the server, and what comes back.
fn ask(listener: &TcpListener) -> io::Result<(String, String)> {
    let mut client = TcpStream::connect(listener.local_addr()?)?;
    let (mut server, _) = listener.accept()?;
    for stream in [&client, &server] {
        stream.set_read_timeout(Some(PATIENCE))?;
    }
    let mut buffer = [0; 512];
    client.write_all(b"GET / HTTP/1.1\r\nHost: trial\r\n\r\n")?;
    let length = server.read(&mut buffer)?;
    if length == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let asked = String::from_utf8_lossy(&buffer[..length]).into_owned();
    server.write_all(b"HTTP/1.1 204 No Content\r\n\r\n")?;
    let length = client.read(&mut buffer)?;
    Ok((asked, String::from_utf8_lossy(&buffer[..length]).into_owned()))
}

//! HTTP: a small server that answers as a test asks it to, and a client that shows every byte.

mod apart;
mod framing;

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

pub use self::apart::{Apart, serve_apart};
use self::framing::{content_length, end_of_head, end_of_request};
use crate::ns::Ns;

/// The port of [`Server`].
pub const PORT: u16 = 7781;

/// Bytes of the body of `/big`.
pub const BIG: usize = 1 << 20;

/// The body of `/json` and, in chunks, of `/json/chunked`.
pub const JSON: &str = r#"{"a":1,"b":{"c":[2,3]}}"#;

/// Bytes of the body of `/many`, which comes in [`many`].
pub const MANY: usize = 3 << 20;

/// What a [`Server`] answers to a path; `None` where it never answers.
#[must_use]
pub fn answer(method: &str, path: &str) -> Option<Vec<u8>> {
    let body = |body: &[u8]| {
        let head = format!(
            "HTTP/1.1 200 OK\r\nServer: probe\r\nX-Path: {path}\r\nContent-Length: {}\r\nX-Last: yes\r\n\r\n",
            body.len()
        );
        let body = if method == "HEAD" { &[] } else { body };
        [head.as_bytes(), body].concat()
    };
    let fixed = |text: &str| text.as_bytes().to_vec();
    if method == "CONNECT" {
        let refusal = "HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno";
        let is_refused = path.starts_with("refused");
        return Some(fixed(if is_refused { refusal } else { AGREED }));
    }
    let chunks = |body: &[u8]| {
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-Kind: chunks\r\n\r\n";
        let body = if method == "HEAD" { &[] } else { body };
        [head.as_bytes(), body].concat()
    };
    Some(match path.split('?').next().unwrap_or_default() {
        "/big" => body(&vec![b'x'; BIG]),
        "/empty" => body(b""),
        "/missing" => fixed("HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\ngone"),
        "/none" => fixed("HTTP/1.1 204 No Content\r\n\r\n"),
        "/same" => fixed("HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n"),
        "/json" => body(JSON.as_bytes()),
        "/json/chunked" => {
            chunks(b"9\r\n{\"a\":1,\"b\r\n0e\r\n\":{\"c\":[2,3]}}\r\n0\r\nX-Trailer: 1\r\n\r\n")
        }
        "/json/long" => body(format!("[{}0]", "0,".repeat(BIG / 2)).as_bytes()),
        "/json/closing" => {
            fixed("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}")
        }
        "/chunked" => chunks(b"5\r\nhello\r\n6;a=b\r\n world\r\n0\r\nX-Trailer: 1\r\n\r\n"),
        "/many" => chunks(&many()),
        "/broken" => chunks(b"5\r\nhello\r\nno size\r\n0\r\n\r\n"),
        "/close/coded" => fixed("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, x\r\n\r\n2\r\nab"),
        "/early" => {
            [&b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"[..], &body(b"late")].concat()
        }
        "/silent" => return None,
        _ => body(format!("this is {path}\n").as_bytes()),
    })
}

/// A body in chunks of many sizes, from one byte to a hundred thousand.
fn many() -> Vec<u8> {
    let (mut body, mut left, mut size) = (Vec::with_capacity(MANY + (MANY >> 3)), MANY, 1);
    while left > 0 {
        let here = left.min(size);
        left -= here;
        // Digits of both cases, and zeros in front.
        let line = if here % 2 == 0 { format!("{here:x}") } else { format!("{here:04X}") };
        body.extend(line.bytes().chain(*b"\r\n"));
        // What looks like the end is none.
        body.extend(b"\r\n0\r\n\r\n".iter().cycle().take(here));
        body.extend(b"\r\n");
        size = if size > 100_000 { 1 } else { size + 1 + size / 16 };
    }
    body.extend(b"0\r\n\r\n");
    body
}

/// The answer to a `CONNECT`, unless its host is `refused…`. What follows comes back as it is.
const AGREED: &str = "HTTP/1.1 200 Connection established\r\n\r\n";

/// How a [`Server`] sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// An answer in one piece.
    Whole,
    /// The head and the body, one after the other.
    Apart,
    /// Piece after piece of this many bytes, or as many more as 4 096 pieces need.
    Pieces(usize),
    /// Answers to all requests that have arrived in one piece.
    Together,
    /// The same, cut at bytes that the path's query names, as in `?cut=7,100&pause`. With `pause`
    /// it waits half a second at each.
    Cut,
}

/// A server with a thread per connection. Ends when dropped.
pub struct Server {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    accepted: Arc<AtomicU64>,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Server {
    /// Starts it.
    pub fn start(ns: &Ns, ip: IpAddr, port: u16, style: Style) -> Result<Self> {
        let address = SocketAddr::new(ip, port);
        let listener =
            ns.run(|| TcpListener::bind(address).with_context(|| format!("listen on {address}")))?;
        Self::on(listener, style)
    }

    /// Starts it on a socket of the caller's.
    pub fn on(listener: TcpListener, style: Style) -> Result<Self> {
        let address = listener.local_addr().context("listen")?;
        listener.set_nonblocking(true).context("listen")?;
        let stop = Arc::new(AtomicBool::new(false));
        let answered = Arc::new(AtomicU64::new(0));
        let accepted = Arc::new(AtomicU64::new(0));
        let (ended, counter) = (Arc::clone(&stop), Arc::clone(&answered));
        let connections = Arc::clone(&accepted);
        std::thread::spawn(move || {
            while !ended.load(Ordering::Relaxed) {
                let Ok((stream, _)) = listener.accept() else {
                    std::thread::sleep(Duration::from_micros(200));
                    continue;
                };
                connections.fetch_add(1, Ordering::Relaxed);
                let (ended, counter) = (Arc::clone(&ended), Arc::clone(&counter));
                // A broken connection is the client's to report.
                std::thread::spawn(move || drop(serve(stream, style, &ended, &counter)));
            }
        });
        Ok(Self { stop, answered, accepted, address })
    }

    /// Requests that it has answered.
    #[must_use]
    pub fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    /// Connections that it has accepted.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn serve(
    mut stream: TcpStream,
    style: Style,
    stop: &AtomicBool,
    answered: &AtomicU64,
) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_millis(50)))?;
    let (mut held, mut is_asked) = (Vec::new(), false);
    let mut buffer = [0; 1 << 16];
    while !stop.load(Ordering::Relaxed) {
        let length = match stream.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(length) => length,
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                continue;
            }
            Err(e) => return Err(e),
        };
        held.extend_from_slice(&buffer[..length]);
        let (mut together, mut query) = (Vec::new(), String::new());
        while let Some(end) = end_of_request(&held) {
            let request: Vec<u8> = held.drain(..end).collect();
            is_asked = false;
            let text = String::from_utf8_lossy(&request).into_owned();
            let mut words = text.split_whitespace();
            let (method, path) = (words.next().unwrap_or("GET"), words.next().unwrap_or("/"));
            answered.fetch_add(1, Ordering::Relaxed);
            let answer = if path.starts_with("/echo") {
                Some(repeat(&request))
            } else {
                answer(method, path)
            };
            let Some(answer) = answer else { continue };
            if answer == AGREED.as_bytes() {
                stream.write_all(&answer)?;
                return echo(stream, stop);
            }
            match style {
                Style::Together => together.extend(answer),
                Style::Cut => {
                    query.push_str(path.split_once("?cut=").unwrap_or_default().1);
                    together.extend(answer);
                }
                style => send(&mut stream, &answer, style)?,
            }
            if path.starts_with("/close") {
                return Ok(());
            }
        }
        cut(&mut stream, &together, &query)?;
        if !is_asked
            && end_of_head(&held).is_some_and(|end| header(&held[..end], "expect").is_some())
        {
            stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
            is_asked = true;
        }
    }
    Ok(())
}

/// Sends back what comes.
fn echo(mut stream: TcpStream, stop: &AtomicBool) -> io::Result<()> {
    let mut buffer = [0; 1 << 16];
    while !stop.load(Ordering::Relaxed) {
        match stream.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(length) => stream.write_all(&buffer[..length])?,
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

fn cut(stream: &mut TcpStream, mut bytes: &[u8], query: &str) -> io::Result<()> {
    let (cuts, pauses) = query.split_once('&').map_or((query, false), |(cuts, _)| (cuts, true));
    let mut before = 0;
    for at in cuts.split(',').filter_map(|at| at.parse::<usize>().ok()) {
        let (piece, rest) = bytes.split_at(at.saturating_sub(before).min(bytes.len()));
        stream.write_all(piece)?;
        (bytes, before) = (rest, at);
        if pauses {
            std::thread::sleep(Duration::from_millis(500));
        }
    }
    stream.write_all(bytes)
}

fn send(stream: &mut TcpStream, answer: &[u8], style: Style) -> io::Result<()> {
    match style {
        Style::Whole | Style::Together | Style::Cut => stream.write_all(answer),
        Style::Apart => {
            let end = answer.windows(4).position(|four| four == b"\r\n\r\n").map_or(0, |at| at + 4);
            stream.write_all(&answer[..end])?;
            stream.write_all(&answer[end..])
        }
        // A large one in larger pieces: a machine that counts instructions has no time for more.
        Style::Pieces(size) => {
            let size = size.max(answer.len() / 4096);
            answer.chunks(size).try_for_each(|piece| stream.write_all(piece))
        }
    }
}

/// The answer to a path of `/echo`: the request as it came.
fn repeat(request: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", request.len());
    [head.as_bytes(), request].concat()
}

/// The value of a header of this head.
#[must_use]
pub fn header(head: &[u8], name: &str) -> Option<String> {
    let text = String::from_utf8_lossy(head);
    text.lines().skip(1).find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
    })
}

/// One response, as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// With its empty line.
    pub head: Vec<u8>,
    /// As its framing says; without chunks.
    pub body: Vec<u8>,
}

impl Response {
    /// The status line.
    #[must_use]
    pub fn status(&self) -> String {
        String::from_utf8_lossy(&self.head).lines().next().unwrap_or_default().to_owned()
    }

    /// The value of a header.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<String> {
        header(&self.head, name)
    }
}

/// A client's connection, from inside a namespace.
pub struct Client {
    stream: TcpStream,
    held: Vec<u8>,
    /// Every byte that has come.
    pub raw: Vec<u8>,
}

impl Client {
    /// Connects.
    pub fn connect(ns: &Ns, address: SocketAddr) -> Result<Self> {
        let patience = Duration::from_secs(10);
        let stream = ns.run(|| {
            TcpStream::connect_timeout(&address, patience)
                .with_context(|| format!("connect to {address}"))
        })?;
        stream.set_nodelay(true).context("a client")?;
        stream.set_read_timeout(Some(patience)).context("a client")?;
        Ok(Self { stream, held: Vec::new(), raw: Vec::new() })
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream.write_all(bytes).context("send a request")
    }

    /// Sends nothing more.
    pub fn say_no_more(&self) -> Result<()> {
        self.stream.shutdown(std::net::Shutdown::Write).context("end a connection")
    }

    /// Asks and waits for the response.
    pub fn get(&mut self, path: &str) -> Result<Response> {
        self.send(request("GET", path).as_bytes())?;
        self.response("GET").with_context(|| format!("GET {path}"))
    }

    fn more(&mut self) -> Result<()> {
        let mut buffer = [0; 1 << 16];
        let length = self.stream.read(&mut buffer).context("wait for a response")?;
        ensure!(length > 0, "the connection was closed");
        self.held.extend_from_slice(&buffer[..length]);
        self.raw.extend_from_slice(&buffer[..length]);
        Ok(())
    }

    /// Reads until this many bytes have come.
    pub fn read_to(&mut self, length: usize) -> Result<()> {
        while self.raw.len() < length {
            self.more()?;
        }
        self.held.clear();
        Ok(())
    }

    /// The next response; `method` is that of its request.
    pub fn response(&mut self, method: &str) -> Result<Response> {
        let end = loop {
            if let Some(at) = self.held.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            self.more()?;
        };
        let head: Vec<u8> = self.held.drain(..end).collect();
        let text = String::from_utf8_lossy(&head).into_owned();
        ensure!(text.starts_with("HTTP/1."), "no response: {text:?}");
        let code = text.get(9..12).unwrap_or_default().to_owned();
        if code.starts_with('1') {
            return self.response(method);
        }
        let mut body = Vec::new();
        let is_empty = method == "HEAD" || code == "204" || code == "304";
        if !is_empty && header(&head, "transfer-encoding").is_some() {
            body = self.chunks()?;
        } else if !is_empty {
            let length = content_length(&head).with_context(|| format!("no length: {text}"))?;
            body = self.take(length)?;
        }
        Ok(Response { head, body })
    }

    fn take(&mut self, length: usize) -> Result<Vec<u8>> {
        while self.held.len() < length {
            self.more()?;
        }
        Ok(self.held.drain(..length).collect())
    }

    fn line(&mut self) -> Result<String> {
        loop {
            if let Some(at) = self.held.windows(2).position(|two| two == b"\r\n") {
                let line: Vec<u8> = self.held.drain(..at + 2).collect();
                return Ok(String::from_utf8_lossy(&line[..at]).into_owned());
            }
            self.more()?;
        }
    }

    fn chunks(&mut self) -> Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let line = self.line()?;
            let size = line.split(';').next().unwrap_or_default().trim();
            let size =
                usize::from_str_radix(size, 16).with_context(|| format!("chunk {line:?}"))?;
            if size == 0 {
                while !self.line()?.is_empty() {}
                return Ok(body);
            }
            body.extend(self.take(size)?);
            ensure!(self.line()?.is_empty(), "a chunk does not end where it should");
        }
    }

    /// That nothing more comes and the connection is closed. A reset counts, and is told.
    pub fn ensure_closed(&mut self) -> Result<bool> {
        let mut buffer = [0; 1 << 10];
        match self.stream.read(&mut buffer) {
            Ok(0) => Ok(false),
            Ok(length) => {
                anyhow::bail!("{:?} came", String::from_utf8_lossy(&buffer[..length]))
            }
            Err(e) if e.kind() == io::ErrorKind::ConnectionReset => Ok(true),
            Err(e) => Err(e).context("wait for the end of the connection"),
        }
    }

    /// Reads to the end of the connection: every byte that belongs to no response yet.
    pub fn to_end(&mut self) -> Result<Vec<u8>> {
        let mut rest = std::mem::take(&mut self.held);
        let before = rest.len();
        self.stream.read_to_end(&mut rest).context("wait for the end of the connection")?;
        self.raw.extend_from_slice(&rest[before..]);
        Ok(rest)
    }

    /// Bytes that have come and belong to no response yet.
    #[must_use]
    pub const fn held(&self) -> usize {
        self.held.len()
    }

    /// That nothing was left over.
    pub fn ensure_drained(&self) -> Result<()> {
        let left = String::from_utf8_lossy(&self.held);
        ensure!(self.held.is_empty(), "{} bytes too many came: {left:?}", self.held.len());
        Ok(())
    }
}

/// A request without a body.
#[must_use]
pub fn request(method: &str, path: &str) -> String {
    format!(
        "{method} {path} HTTP/1.1\r\nHost: probe\r\nUser-Agent: kfault-tests\r\nX-Ask: yes\r\n\r\n"
    )
}

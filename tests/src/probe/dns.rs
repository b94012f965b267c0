//! DNS over plain sockets: a client that sees every byte, and a server that answers everything.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::ns::Ns;

/// The port of name servers.
pub const PORT: u16 = 53;

/// Types of records.
pub const A: u16 = 1;
/// See [`A`].
pub const AAAA: u16 = 28;
/// See [`A`].
pub const TXT: u16 = 16;
/// Codes of answers.
pub const NOERROR: u8 = 0;
/// See [`NOERROR`].
pub const SERVFAIL: u8 = 2;
/// See [`NOERROR`].
pub const NXDOMAIN: u8 = 3;
/// See [`NOERROR`].
pub const REFUSED: u8 = 5;

/// The addresses that the server gives every name.
pub const REAL: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, 53)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0x53, 0, 0, 0, 0, 0, 1)),
];
/// Names below this do not exist, as a cluster's search list makes them.
pub const NOWHERE: &str = "cluster.local";

/// How long a client waits for an answer that must come.
pub const PATIENCE: Duration = Duration::from_secs(3);
/// How long one waits for an answer that must not come.
pub const IMPATIENCE: Duration = Duration::from_millis(300);

/// A question.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Query {
    name: String,
    kind: u16,
    options: bool,
}

/// An answer, as far as it was checked to be one to the question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// The code.
    pub code: u8,
    /// Addresses, and how long each may be kept.
    pub addresses: Vec<(IpAddr, u32)>,
    /// It has an OPT record.
    pub options: bool,
}

impl Query {
    /// For the records of this type.
    #[must_use]
    pub fn of(name: &str, kind: u16) -> Self {
        Self { name: name.to_owned(), kind, options: false }
    }

    /// For an IPv4 address.
    #[must_use]
    pub fn a(name: &str) -> Self {
        Self::of(name, A)
    }

    /// With an OPT record (EDNS).
    #[must_use]
    pub fn with_options(self) -> Self {
        Self { options: true, ..self }
    }

    /// The message.
    #[must_use]
    pub fn bytes(&self, id: u16) -> Vec<u8> {
        let mut out = id.to_be_bytes().to_vec();
        out.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, u8::from(self.options)]);
        out.extend(self.question());
        if self.options {
            // 1232 bytes, DNSSEC wanted.
            out.extend([0, 0, 41, 0x04, 0xd0, 0, 0, 0x80, 0, 0, 0]);
        }
        out
    }

    fn question(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for label in self.name.split('.').filter(|label| !label.is_empty()) {
            out.push(label.len() as u8);
            out.extend(label.as_bytes());
        }
        out.push(0);
        out.extend(self.kind.to_be_bytes());
        out.extend([0, 1]);
        out
    }

    /// Reads an answer and holds it against the question, byte by byte.
    fn check(&self, id: u16, bytes: &[u8]) -> Result<Answer> {
        let question = self.question();
        ensure!(bytes.len() >= 12 + question.len(), "{} bytes are no answer", bytes.len());
        ensure!(bytes[..2] == id.to_be_bytes(), "the answer has another id");
        ensure!(bytes[2] & 0xf9 == 0x81, "flags {:#04x}", bytes[2]);
        ensure!(bytes[3] & 0x80 != 0, "no recursion: some resolvers call that lame");
        ensure!(bytes[4..6] == [0, 1], "not one question");
        ensure!(bytes[12..12 + question.len()] == question, "another question, or another case");
        let count = |at: usize| usize::from(u16::from_be_bytes([bytes[at], bytes[at + 1]]));
        let mut rest = &bytes[12 + question.len()..];
        let mut addresses = Vec::new();
        for _ in 0..count(6) {
            let (head, more) = rest.split_at_checked(12).context("a record is cut off")?;
            ensure!(head[..2] == [0xc0, 12], "a record for another name");
            ensure!(head[2..6] == [&self.kind.to_be_bytes()[..], &[0, 1]].concat(), "another type");
            let ttl = u32::from_be_bytes([head[6], head[7], head[8], head[9]]);
            let length = usize::from(u16::from_be_bytes([head[10], head[11]]));
            let (data, more) = more.split_at_checked(length).context("an address is cut off")?;
            let address = match self.kind {
                A => IpAddr::from(<[u8; 4]>::try_from(data).context("no IPv4 address")?),
                _ => IpAddr::from(<[u8; 16]>::try_from(data).context("no IPv6 address")?),
            };
            addresses.push((address, ttl));
            rest = more;
        }
        ensure!(count(8) == 0, "authorities");
        let options = rest.len() == 11 && rest[..3] == [0, 0, 41] && count(10) == 1;
        ensure!(options || rest.is_empty() && count(10) == 0, "{} bytes behind it", rest.len());
        Ok(Answer { code: bytes[3] & 15, addresses, options })
    }
}

fn port_of(to: IpAddr) -> SocketAddr {
    SocketAddr::new(to, PORT)
}

/// Sends a message and waits for what comes back.
pub fn exchange(ns: &Ns, to: IpAddr, bytes: &[u8], wait: Duration) -> Result<Option<Vec<u8>>> {
    ns.run(|| exchange_here(to, bytes, wait))
}

fn exchange_here(to: IpAddr, bytes: &[u8], wait: Duration) -> Result<Option<Vec<u8>>> {
    let any: IpAddr =
        if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).context("a socket")?;
    socket.set_read_timeout(Some(wait)).context("a timeout")?;
    // Answers of anybody else are not taken.
    socket.connect(port_of(to)).context("connect to a resolver")?;
    socket.send(bytes).context("send a query")?;
    let mut buffer = [0; 2048];
    match socket.recv(&mut buffer) {
        Ok(size) => Ok(Some(buffer[..size].to_vec())),
        Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
            Ok(None)
        }
        Err(e) => Err(e).context("wait for an answer"),
    }
}

static ID: AtomicU64 = AtomicU64::new(0x1234);

fn next_id() -> u16 {
    (ID.fetch_add(1, Ordering::Relaxed) & 0xffff) as u16
}

/// Asks over UDP. `None`: no answer came.
pub fn ask(ns: &Ns, to: IpAddr, query: &Query, wait: Duration) -> Result<Option<Answer>> {
    ns.run(|| ask_here(to, query, wait))
}

/// As [`ask`], in the namespace of the caller.
pub fn ask_here(to: IpAddr, query: &Query, wait: Duration) -> Result<Option<Answer>> {
    let id = next_id();
    let answer = exchange_here(to, &query.bytes(id), wait)?;
    answer.map(|bytes| query.check(id, &bytes)).transpose()
}

/// Asks over TCP, in one segment.
pub fn ask_tcp(ns: &Ns, to: IpAddr, query: &Query) -> Result<io::Result<Answer>> {
    ns.run(|| {
        let id = next_id();
        let bytes = query.bytes(id);
        let exchanged = || -> io::Result<Vec<u8>> {
            let mut stream = TcpStream::connect_timeout(&port_of(to), PATIENCE)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.write_all(&framed(&bytes))?;
            read_framed(&mut stream)
        };
        exchanged()
            .map(|bytes| query.check(id, &bytes))
            .map_or_else(|error| Ok(Err(error)), |answer| answer.map(Ok))
    })
}

fn framed(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u16).to_be_bytes()[..], bytes].concat()
}

fn read_framed(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut bytes = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// Answers every query over UDP and TCP. Ends when dropped.
#[derive(Debug)]
pub struct Resolver {
    ends: Arc<AtomicBool>,
    seen: Arc<AtomicU64>,
    threads: Vec<JoinHandle<Result<()>>>,
}

impl Resolver {
    /// Starts one in a namespace.
    pub fn start(ns: &Ns, ip: IpAddr) -> Result<Self> {
        const LOOK: Duration = Duration::from_millis(20);
        let (ends, seen) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (udp, tcp) = ns.run(|| {
            let udp = UdpSocket::bind(port_of(ip)).context("listen for queries")?;
            udp.set_read_timeout(Some(LOOK)).context("a timeout")?;
            let tcp = TcpListener::bind(port_of(ip)).context("listen for connections")?;
            tcp.set_nonblocking(true).context("a listener")?;
            Ok((udp, tcp))
        })?;
        let mut threads = Vec::new();
        let (end, count) = (Arc::clone(&ends), Arc::clone(&seen));
        threads.push(std::thread::spawn(move || {
            let mut buffer = [0; 2048];
            while !end.load(Ordering::Relaxed) {
                let Ok((size, from)) = udp.recv_from(&mut buffer) else { continue };
                count.fetch_add(1, Ordering::Relaxed);
                udp.send_to(&answer(&buffer[..size]), from).context("answer a query")?;
            }
            Ok(())
        }));
        let (end, count) = (Arc::clone(&ends), Arc::clone(&seen));
        threads.push(std::thread::spawn(move || {
            while !end.load(Ordering::Relaxed) {
                let Ok((mut stream, _)) = tcp.accept() else {
                    std::thread::sleep(LOOK);
                    continue;
                };
                stream.set_nonblocking(false).context("a stream")?;
                stream.set_read_timeout(Some(PATIENCE)).context("a timeout")?;
                let count = Arc::clone(&count);
                // A client whose query was reset here says nothing more.
                std::thread::spawn(move || {
                    if let Ok(query) = read_framed(&mut stream) {
                        count.fetch_add(1, Ordering::Relaxed);
                        let _ = stream.write_all(&framed(&answer(&query)));
                    }
                });
            }
            Ok(())
        }));
        Ok(Self { ends, seen, threads })
    }

    /// Messages that have come so far.
    #[must_use]
    pub fn seen(&self) -> u64 {
        self.seen.load(Ordering::Relaxed)
    }
}

impl Drop for Resolver {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// The answer of a resolver that knows every name, or the same bytes where they are no query.
fn answer(query: &[u8]) -> Vec<u8> {
    let mut out = query.to_vec();
    let Some((name, end)) = name_of(query) else { return out };
    let Some(kind) = query.get(end..end + 2).map(|k| u16::from_be_bytes([k[0], k[1]])) else {
        return out;
    };
    out.truncate(end + 4);
    out[2] |= 0x80;
    out[3] = 0x80;
    out[6..12].fill(0);
    if name.ends_with(NOWHERE) {
        out[3] |= NXDOMAIN;
        return out;
    }
    let data = match (kind, REAL) {
        (A, [IpAddr::V4(ip), _]) => ip.octets().to_vec(),
        (AAAA, [_, IpAddr::V6(ip)]) => ip.octets().to_vec(),
        _ => return out,
    };
    out[7] = 1;
    out.extend([0xc0, 12, kind.to_be_bytes()[0], kind.to_be_bytes()[1], 0, 1, 0, 0, 0, 60, 0]);
    out.push(data.len() as u8);
    out.extend(data);
    out
}

/// The first name of a message, in lower case, and where the bytes behind it begin.
fn name_of(message: &[u8]) -> Option<(String, usize)> {
    let (mut labels, mut at) = (Vec::new(), 12);
    loop {
        let length = usize::from(*message.get(at)?);
        if length == 0 {
            return Some((labels.join("."), at + 1));
        }
        let label = message.get(at + 1..at + 1 + length)?;
        labels.push(String::from_utf8_lossy(label).to_ascii_lowercase());
        at += 1 + length;
    }
}

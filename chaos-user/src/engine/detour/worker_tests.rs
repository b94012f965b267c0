//! The thread over real sockets: what the kernel hands over comes through one socket, and goes on
//! through those of the connections.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use chaos_abi::detour::{DetourHeader, MAGIC};
use chaos_abi::limit::HTTP_PIPELINE;
use serde_json::{Value, json};

use super::desk::{Arrival, Begins, Fate, Limits};
use super::frame;
use super::worker::{Detour, Source};
use crate::engine::message::{Armed, Asked, Bounds, Verb};
use crate::plan::exchange::{Matcher, Message};

/// What the thread has said of connections: bytes, whether it is over.
type Drained = Arc<Mutex<Vec<(u64, bool)>>>;

/// Servers' sockets by the numbers of their connections.
struct Servers {
    sockets: Arc<Mutex<BTreeMap<u64, TcpStream>>>,
    drained: Drained,
}

impl Source for Servers {
    fn exit(&mut self, connection: u64, _pid: u32) -> io::Result<OwnedFd> {
        let sockets = self.sockets.lock().unwrap();
        let socket = sockets.get(&connection).ok_or(io::ErrorKind::NotFound)?;
        Ok(socket.try_clone()?.into())
    }

    fn drained(&mut self, _exit: BorrowedFd<'_>, taken: u64, is_over: bool) {
        self.drained.lock().unwrap().push((taken, is_over));
    }

    fn begins(&self, word: u64) -> Begins {
        let meant = (0..63).filter(|bit| word >> 1 >> bit & 1 == 1).collect();
        Begins::Response(Asked { verb: Verb::Other, meant })
    }
    fn requests(&self) -> Option<RawFd> {
        None
    }

    fn next_requests(&mut self) -> Option<(u64, Arrival)> {
        None
    }

    fn put(&mut self, _connection: u64, _bytes: &[u8]) -> io::Result<()> {
        Err(io::ErrorKind::NotFound.into())
    }

    fn leave(&mut self, _connection: u64, _taken: u64) -> bool {
        true
    }

    fn fate(&mut self, _connection: u64) -> Fate {
        Fate::Lives
    }

    fn cut(&mut self, _connection: u64) {}
}

struct Scene {
    detour: Option<Detour>,
    kernel: UnixStream,
    sockets: Arc<Mutex<BTreeMap<u64, TcpStream>>>,
    drained: Drained,
}

impl Scene {
    fn new(edits: &[Value], limits: Limits) -> Self {
        let (kernel, input) = UnixStream::pair().unwrap();
        let (sockets, drained): (Arc<Mutex<_>>, Drained) = Default::default();
        let servers = Servers { sockets: Arc::clone(&sockets), drained: Arc::clone(&drained) };
        let detour = Detour::start(input.into(), Box::new(servers), limits).unwrap();
        let armed = edits.iter().map(|edit| Armed {
            message: Message::Response,
            matcher: Matcher::default(),
            edit: Some(Arc::new(serde_json::from_value(edit.clone()).unwrap())),
        });
        detour.arm(armed.collect());
        Self { detour: Some(detour), kernel, sockets, drained }
    }

    /// The client's end of a connection.
    fn connect(&self, id: u64) -> TcpStream {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        client.set_nodelay(true).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let (server, _) = listener.accept().unwrap();
        server.set_nodelay(true).unwrap();
        self.sockets.lock().unwrap().insert(id, server);
        client
    }

    /// Hands bytes over as the kernel does. `meant`: a response begins, which exchange 0 means.
    fn hand(&mut self, connection: u64, meant: bool, bytes: &[u8]) {
        let header = DetourHeader {
            connection,
            count: u32::from(meant),
            requests: [0b11; HTTP_PIPELINE as usize],
            pid: std::process::id(),
            length: bytes.len() as u32,
            magic: MAGIC,
        };
        self.kernel.write_all(&[&frame::bytes(&header), bytes].concat()).unwrap();
    }

    fn detour(&self) -> &Detour {
        self.detour.as_ref().unwrap()
    }

    fn wait(&self, what: &str, mut is_done: impl FnMut(&Self) -> bool) {
        let begin = Instant::now();
        while !is_done(self) {
            assert!(begin.elapsed() < Duration::from_secs(10), "{what}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

fn read(client: &mut TcpStream, length: usize) -> String {
    let mut bytes = vec![0; length];
    client.read_exact(&mut bytes).unwrap();
    String::from_utf8(bytes).unwrap()
}

const HELLO: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";

#[test]
fn a_delayed_response_comes_on_time_and_others_at_once() {
    let mut scene = Scene::new(&[json!({ "delay": "100ms" })], Limits::default());
    let (mut slow, mut fast) = (scene.connect(1), scene.connect(2));
    let mut errors = Vec::new();
    for _ in 0..10 {
        let begin = Instant::now();
        scene.hand(1, true, HELLO.as_bytes());
        scene.hand(2, false, b"x");
        assert_eq!(read(&mut fast, 1), "x");
        assert!(begin.elapsed() < Duration::from_millis(90), "{:?}", begin.elapsed());
        assert_eq!(read(&mut slow, HELLO.len()), HELLO);
        let took = begin.elapsed();
        assert!(took >= Duration::from_millis(100), "{took:?}");
        errors.push(took - Duration::from_millis(100));
    }
    errors.sort();
    println!("later than asked for: median {:?}, worst {:?}", errors[5], errors[9]);
    // The machine may be busy; the better half shows what the timer does.
    assert!(errors[4] < Duration::from_millis(20), "{errors:?}");
    scene.wait("all is drained", |scene| scene.drained.lock().unwrap().len() >= 10);
}

#[test]
fn a_large_body_comes_through_whole_while_the_client_is_slow() {
    let mut scene = Scene::new(&[json!({ "replace": { "code": 503 } })], Limits::default());
    let mut client = scene.connect(1);
    let body: Vec<u8> = (0..2_000_000u32).map(|n| (n % 251) as u8).collect();
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
    scene.hand(1, true, head.as_bytes());
    for part in body.chunks(65_536) {
        scene.hand(1, false, part);
    }
    // Longer than any buffer between the two.
    std::thread::sleep(Duration::from_millis(50));
    let head = head.replace("200 OK", "503 Service Unavailable");
    assert_eq!(read(&mut client, head.len()), head);
    let mut got = vec![0; body.len()];
    client.read_exact(&mut got).unwrap();
    assert!(got == body, "the body has changed");
    scene.wait("it is drained", |scene| {
        scene.drained.lock().unwrap().last().is_some_and(|last| !last.1)
    });
    let report = scene.detour().report().unwrap();
    assert_eq!((report.held, report.connections, report.tally.edited), (0, 0, 1));
}

#[test]
fn a_cut_is_a_reset() {
    let mut scene = Scene::new(&[json!({ "abort": true })], Limits::default());
    let mut client = scene.connect(1);
    scene.hand(1, true, HELLO.as_bytes());
    let error = client.read(&mut [0; 10]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}

#[test]
fn the_server_may_close_before_its_response_has_gone() {
    let mut scene = Scene::new(&[json!({ "delay": "50ms" })], Limits::default());
    let mut client = scene.connect(1);
    scene.hand(1, true, &HELLO.as_bytes()[..20]);
    scene.hand(1, false, &HELLO.as_bytes()[20..]);
    scene.wait("it is held", |scene| scene.detour().report().unwrap().held == HELLO.len());
    scene.sockets.lock().unwrap().clear();
    assert_eq!(read(&mut client, HELLO.len()), HELLO);
    assert_eq!(client.read(&mut [0; 1]).unwrap(), 0, "then the connection ends");
}

#[test]
fn a_patch_of_a_body_in_pieces() {
    let what = json!({ "patch": { "body": { "n": 9 } } });
    let mut scene = Scene::new(&[what], Limits::default());
    let mut client = scene.connect(1);
    let response = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
                    4\r\n{\"n\"\r\n3\r\n:1}\r\n0\r\n\r\n";
    for (i, byte) in response.bytes().enumerate() {
        scene.hand(1, i == 0, &[byte]);
    }
    let want = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n7\r\n{\"n\":9}\r\n0\r\n\r\n";
    assert_eq!(read(&mut client, want.len()), want);
}

#[test]
fn at_its_end_everything_goes_as_it_is() {
    let mut scene = Scene::new(&[json!({ "delay": "1h" })], Limits::default());
    let mut clients: Vec<TcpStream> = (0..20).map(|id| scene.connect(id)).collect();
    for id in 0..20 {
        scene.hand(id, true, HELLO.as_bytes());
    }
    scene.detour = None;
    for client in &mut clients {
        assert_eq!(read(client, HELLO.len()), HELLO);
    }
}

#[test]
fn who_does_not_take_its_bytes_is_cut_and_memory_stays_bounded() {
    let limits = Limits { connection: 1 << 20, all: 2 << 20, message: Bounds::default() };
    let mut scene = Scene::new(&[json!({})], limits);
    let mut client = scene.connect(1);
    let mut other = scene.connect(2);
    scene.hand(1, true, b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n");
    for _ in 0..400 {
        scene.hand(1, false, &[b'x'; 65_536]);
    }
    scene.hand(2, true, HELLO.as_bytes());
    assert_eq!(read(&mut other, HELLO.len()), HELLO);
    let report = scene.detour().report().unwrap();
    assert!(report.held <= limits.connection + (256 << 10), "{report:?}");
    assert_eq!(report.tally.cut, 1);
    let mut buffer = vec![0; 1 << 20];
    let end = loop {
        match client.read(&mut buffer) {
            Ok(0) => break None,
            Ok(_) => {}
            Err(error) => break Some(error.kind()),
        }
    };
    assert_eq!(end, Some(io::ErrorKind::ConnectionReset));
}

#[test]
fn what_cannot_be_understood_ends_the_taking_in_and_frees_what_is_held() {
    let mut scene = Scene::new(&[json!({ "delay": "1h" })], Limits::default());
    let mut client = scene.connect(1);
    scene.hand(1, true, HELLO.as_bytes());
    scene.kernel.write_all(&[0; 256]).unwrap();
    assert_eq!(read(&mut client, HELLO.len()), HELLO);
    assert!(scene.detour().report().unwrap().is_broken);
}

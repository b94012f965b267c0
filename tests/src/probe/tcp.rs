//! TCP: how long a connection takes, how fast an answer comes, how much goes through.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::ns::Ns;

/// The port of [`Server`] unless a test says otherwise.
pub const PORT: u16 = 7780;

/// What a [`Server`] does with a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// Sends every byte back.
    Echo,
    /// Counts bytes and checks that they are [`pattern`].
    Sink,
    /// Counts bytes. Checking each would be the limit of what goes through.
    Discard,
}

/// Byte `at` of every bulk transfer.
#[must_use]
pub fn pattern(at: u64) -> u8 {
    (at % 251) as u8
}

/// A server with a thread per connection. Ends when dropped.
pub struct Server {
    stop: Arc<AtomicBool>,
    address: SocketAddr,
    received: Arc<AtomicU64>,
    wrong: Arc<AtomicU64>,
}

impl Server {
    /// Starts it.
    pub fn start(ns: &Ns, ip: IpAddr, port: u16, service: Service) -> Result<Self> {
        let address = SocketAddr::new(ip, port);
        let listener =
            ns.run(|| TcpListener::bind(address).with_context(|| format!("listen on {address}")))?;
        listener.set_nonblocking(true).context("listen")?;
        let stop = Arc::new(AtomicBool::new(false));
        let received = Arc::new(AtomicU64::new(0));
        let wrong = Arc::new(AtomicU64::new(0));
        let server = Self {
            stop: Arc::clone(&stop),
            address,
            received: Arc::clone(&received),
            wrong: Arc::clone(&wrong),
        };
        std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                let Ok((stream, _)) = listener.accept() else {
                    std::thread::sleep(Duration::from_micros(200));
                    continue;
                };
                let (stop, received, wrong) =
                    (Arc::clone(&stop), Arc::clone(&received), Arc::clone(&wrong));
                std::thread::spawn(move || {
                    // A broken connection is the client's to report.
                    let _ = serve(stream, service, &stop, &received, &wrong);
                });
            }
        });
        Ok(server)
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Bytes that arrived so far.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Bytes that were not as sent.
    #[must_use]
    pub fn wrong(&self) -> u64 {
        self.wrong.load(Ordering::Relaxed)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn serve(
    mut stream: TcpStream,
    service: Service,
    stop: &AtomicBool,
    received: &AtomicU64,
    wrong: &AtomicU64,
) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_millis(100)))?;
    let mut buffer = vec![0; 1 << 18];
    let mut at = 0u64;
    while !stop.load(Ordering::Relaxed) {
        let length = match stream.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(length) => length,
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                continue;
            }
            Err(e) => return Err(e),
        };
        received.fetch_add(length as u64, Ordering::Relaxed);
        if service == Service::Echo {
            stream.write_all(&buffer[..length])?;
            continue;
        }
        if service == Service::Discard {
            continue;
        }
        let bad = (0..length).filter(|i| buffer[*i] != pattern(at + *i as u64)).count();
        wrong.fetch_add(bad as u64, Ordering::Relaxed);
        at += length as u64;
    }
    Ok(())
}

/// A client's connection, from inside a namespace.
pub struct Client(TcpStream);

impl Client {
    /// Connects; also how long that took.
    pub fn connect(ns: &Ns, to: SocketAddr, patience: Duration) -> Result<(Self, Duration)> {
        let (client, took) = Self::try_connect(ns, to, patience)?;
        Ok((client.with_context(|| format!("connect to {to}"))?, took))
    }

    /// As [`Client::connect`], with a failed connection as a result.
    pub fn try_connect(
        ns: &Ns,
        to: SocketAddr,
        patience: Duration,
    ) -> Result<(io::Result<Self>, Duration)> {
        ns.run(|| {
            let start = Instant::now();
            let stream = TcpStream::connect_timeout(&to, patience);
            let took = start.elapsed();
            let client = stream.and_then(|stream| {
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(patience))?;
                stream.set_write_timeout(Some(patience))?;
                Ok(Self(stream))
            });
            Ok((client, took))
        })
    }

    /// Sends a byte to an echo server and waits for the answer.
    pub fn ask(&mut self) -> io::Result<Duration> {
        let start = Instant::now();
        self.0.write_all(&[7])?;
        let mut answer = [0];
        self.0.read_exact(&mut answer)?;
        Ok(start.elapsed())
    }

    /// How long a read or write may take from now on.
    pub fn be_patient(&self, patience: Duration) -> io::Result<()> {
        self.0.set_read_timeout(Some(patience))?;
        self.0.set_write_timeout(Some(patience))
    }

    /// Segments that the kernel sent again.
    pub fn retransmissions(&self) -> Result<u32> {
        // SAFETY: zeroes are a valid tcp_info; the kernel writes at most its size.
        let (done, info) = unsafe {
            let mut info: libc::tcp_info = std::mem::zeroed();
            let mut size = size_of::<libc::tcp_info>() as libc::socklen_t;
            let done = libc::getsockopt(
                self.0.as_raw_fd(),
                libc::IPPROTO_TCP,
                libc::TCP_INFO,
                (&raw mut info).cast(),
                &raw mut size,
            );
            (done, info)
        };
        ensure!(done == 0, "TCP_INFO: {}", io::Error::last_os_error());
        Ok(info.tcpi_total_retrans)
    }
}

/// Sends as much as goes through in `time`, and says how many bytes per second arrived between
/// `skip` and the end (the start of a connection is not its speed).
pub fn throughput(
    from: &Ns,
    server: &Server,
    time: Duration,
    skip: Duration,
) -> Result<(f64, u32)> {
    let (client, _) = Client::connect(from, server.address(), Duration::from_secs(10))?;
    let start = Instant::now();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let client = &client;
        let stop = &stop;
        scope.spawn(move || {
            let buffer: Vec<u8> = (0..251 * 256).map(|i| pattern(i as u64)).collect();
            let mut stream = &client.0;
            let _ = stream.set_write_timeout(Some(Duration::from_millis(200)));
            let mut at = 0;
            while !stop.load(Ordering::Relaxed) {
                match stream.write(&buffer[at..]) {
                    Ok(length) => at = (at + length) % buffer.len(),
                    Err(e)
                        if matches!(
                            e.kind(),
                            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
                        ) => {}
                    Err(_) => return,
                }
            }
        });
        std::thread::sleep(skip.saturating_sub(start.elapsed()));
        let (before, since) = (server.received(), Instant::now());
        std::thread::sleep(time.saturating_sub(start.elapsed()));
        let bytes = server.received() - before;
        let took = since.elapsed();
        stop.store(true, Ordering::Relaxed);
        let again = client.retransmissions()?;
        Ok((bytes as f64 / took.as_secs_f64(), again))
    })
}

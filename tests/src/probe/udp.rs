//! One-way UDP probe: numbered, time-stamped packets with a known payload.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};

use super::{errno, set};
use crate::clock::{now_ns, ns, sleep_until};
use crate::ns::Ns;
use crate::stats;

/// The port that probes go to unless a test says otherwise.
pub const PORT: u16 = 7777;
/// Bytes before the filling: number, its complement, time of sending, its complement.
const HEADER: usize = 24;
const FILL: u8 = 0x5a;

/// What is sent.
#[derive(Clone, Copy, Debug)]
pub struct Probe {
    /// How many packets.
    pub count: usize,
    /// Time from one to the next.
    pub every: Duration,
    /// Packets that leave together each time.
    pub burst: usize,
    /// Bytes of payload.
    pub size: usize,
    /// The receiver's port.
    pub port: u16,
    /// How long the receiver goes on after the last packet was sent.
    pub patience: Duration,
    /// One CPU for the sender, so that a sequence of verdicts can be repeated.
    pub pinned: bool,
}

impl Default for Probe {
    fn default() -> Self {
        Self {
            count: 100,
            every: Duration::from_millis(5),
            burst: 1,
            size: 64,
            port: PORT,
            patience: Duration::from_millis(200),
            pinned: false,
        }
    }
}

impl Probe {
    /// `count` packets, one every `every`.
    #[must_use]
    pub fn of(count: usize, every: Duration) -> Self {
        Self { count, every, ..Self::default() }
    }

    /// `count` packets as fast as a receiver surely keeps up with.
    #[must_use]
    pub fn many(count: usize) -> Self {
        Self { count, every: Duration::from_micros(400), burst: 10, ..Self::default() }
    }

    /// Waits this much longer for what is late.
    #[must_use]
    pub fn patient(self, patience: Duration) -> Self {
        Self { patience: self.patience + patience, ..self }
    }
}

/// One packet's arrival.
#[derive(Clone, Copy, Debug)]
struct Arrival {
    number: usize,
    sent_ns: u64,
    at_ns: u64,
}

/// What became of the packets.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Packets that the kernel took.
    pub sent: usize,
    /// Errors of `send`, by errno.
    pub errors: BTreeMap<i32, usize>,
    /// Times that each packet arrived whole.
    pub copies: Vec<u32>,
    /// Packets that arrived with another payload than was sent.
    pub wrong: usize,
    /// Packets that arrived after one with a higher number.
    pub reordered: usize,
    /// One-way delay of each packet, milliseconds; its first copy's.
    pub delays: Vec<Option<f64>>,
    /// Numbers in order of arrival, first copies only.
    pub order: Vec<usize>,
    first_ns: u64,
    last_ns: u64,
}

impl Outcome {
    /// Distinct packets that arrived whole.
    #[must_use]
    pub fn received(&self) -> usize {
        self.copies.iter().filter(|copies| **copies > 0).count()
    }

    /// Packets that were sent and never arrived, whole or not.
    #[must_use]
    pub fn lost(&self) -> usize {
        self.sent.saturating_sub(self.received() + self.wrong)
    }

    /// Copies beyond the first.
    #[must_use]
    pub fn duplicates(&self) -> usize {
        self.copies.iter().map(|copies| copies.saturating_sub(1) as usize).sum()
    }

    /// Delays of all packets that arrived, milliseconds.
    #[must_use]
    pub fn arrived(&self) -> Vec<f64> {
        self.delays.iter().flatten().copied().collect()
    }

    /// A quantile of the delays, milliseconds.
    #[must_use]
    pub fn delay(&self, q: f64) -> f64 {
        stats::quantile(&self.arrived(), q)
    }

    /// Which packets did not arrive, as 0 and 1.
    #[must_use]
    pub fn losses(&self) -> Vec<f64> {
        self.copies.iter().map(|copies| f64::from(*copies == 0)).collect()
    }

    /// Time from the first arrival to the last one.
    #[must_use]
    pub fn span(&self) -> Duration {
        Duration::from_nanos(self.last_ns - self.first_ns)
    }

    /// One line for failure messages.
    #[must_use]
    pub fn describe(&self) -> String {
        format!(
            "sent {} errors {:?} received {} lost {} duplicates {} reordered {} wrong {} \
             delay ms min {:.3} p50 {:.3} p99 {:.3} max {:.3}",
            self.sent,
            self.errors,
            self.received(),
            self.lost(),
            self.duplicates(),
            self.reordered,
            self.wrong,
            self.delay(0.0),
            self.delay(0.5),
            self.delay(0.99),
            self.delay(1.0),
        )
    }
}

/// A receiver at work.
struct Receiver {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<(Vec<Arrival>, usize)>>,
}

impl Receiver {
    fn start(ns: &Ns, at: SocketAddr) -> Result<Self> {
        let socket = ns.run(|| {
            let socket = UdpSocket::bind(at).with_context(|| format!("bind {at}"))?;
            set(&socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, 64 << 20);
            socket.set_read_timeout(Some(Duration::from_millis(20))).context("set a timeout")?;
            Ok(socket)
        })?;
        let stop = Arc::new(AtomicBool::new(false));
        let theirs = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut arrivals = Vec::new();
            let mut wrong = 0;
            let mut buffer = vec![0; 65_536];
            loop {
                match socket.recv(&mut buffer) {
                    Ok(length) => match read(&buffer[..length]) {
                        Some((number, sent_ns)) => {
                            arrivals.push(Arrival { number, sent_ns, at_ns: now_ns() });
                        }
                        None => wrong += 1,
                    },
                    // Only a quiet socket ends it, so that nothing is left in its queue.
                    Err(_) if theirs.load(Ordering::Relaxed) => return Ok((arrivals, wrong)),
                    Err(_) => {}
                }
            }
        });
        Ok(Self { stop, thread })
    }

    fn finish(self) -> Result<(Vec<Arrival>, usize)> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| anyhow!("the receiver panicked"))?
    }
}

fn write(buffer: &mut [u8], number: usize) {
    let number = number as u32;
    let sent = now_ns();
    buffer[0..4].copy_from_slice(&number.to_le_bytes());
    buffer[4..8].copy_from_slice(&(!number).to_le_bytes());
    buffer[8..16].copy_from_slice(&sent.to_le_bytes());
    buffer[16..24].copy_from_slice(&(!sent).to_le_bytes());
}

/// Number and time of a packet that is as it was sent.
fn read(packet: &[u8]) -> Option<(usize, u64)> {
    let four = |at: usize| Some(u32::from_le_bytes(packet.get(at..at + 4)?.try_into().ok()?));
    let eight = |at: usize| Some(u64::from_le_bytes(packet.get(at..at + 8)?.try_into().ok()?));
    let (number, sent) = (four(0)?, eight(8)?);
    let whole = four(4)? == !number
        && eight(16)? == !sent
        && packet.get(HEADER..)?.iter().all(|byte| *byte == FILL);
    whole.then_some((number as usize, sent))
}

/// A connected socket with room for everything that a fault holds back.
fn sender(to: SocketAddr) -> Result<UdpSocket> {
    let any: IpAddr = match to {
        SocketAddr::V4(_) => std::net::Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).context("bind a sender")?;
    set(&socket, libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, 64 << 20);
    socket.connect(to).with_context(|| format!("connect to {to}"))?;
    Ok(socket)
}

/// Sends the packets of a probe; how many the kernel took, and the errors of the others.
pub fn send(to: SocketAddr, probe: &Probe) -> Result<(usize, BTreeMap<i32, usize>)> {
    if probe.pinned {
        pin()?;
    }
    let socket = sender(to)?;
    let mut buffer = vec![FILL; probe.size.max(HEADER)];
    let mut sent = 0;
    let mut errors = BTreeMap::new();
    let start = now_ns();
    for number in 0..probe.count {
        let turn = (number / probe.burst.max(1)) as u64;
        sleep_until(start + turn * ns(probe.every));
        write(&mut buffer, number);
        match socket.send(&buffer) {
            Ok(_) => sent += 1,
            Err(error) => *errors.entry(errno(&error)).or_insert(0) += 1,
        }
    }
    Ok((sent, errors))
}

/// Keeps the calling thread on the CPU that it is on.
fn pin() -> Result<()> {
    // SAFETY: a zeroed set is an empty set; plain calls with valid pointers.
    let done = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(0, &mut set);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set)
    };
    if done == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()).context("pin a thread") }
}

/// Sends a probe from one namespace to an address of another and says what became of it.
pub fn run(from: &Ns, to: &Ns, ip: IpAddr, probe: &Probe) -> Result<Outcome> {
    run_by(to, ip, probe, |at| from.run(|| send(at, probe)))
}

/// As [`run`], with a sender of the caller's.
pub fn run_by(
    to: &Ns,
    ip: IpAddr,
    probe: &Probe,
    sender: impl FnOnce(SocketAddr) -> Result<(usize, BTreeMap<i32, usize>)>,
) -> Result<Outcome> {
    let at = SocketAddr::new(ip, probe.port);
    let receiver = Receiver::start(to, at)?;
    let sent = sender(at);
    std::thread::sleep(probe.patience);
    let received = receiver.finish()?;
    Ok(outcome(probe.count, sent?, received))
}

fn outcome(
    count: usize,
    (sent, errors): (usize, BTreeMap<i32, usize>),
    (arrivals, wrong): (Vec<Arrival>, usize),
) -> Outcome {
    let mut outcome = Outcome {
        sent,
        errors,
        wrong,
        copies: vec![0; count],
        delays: vec![None; count],
        ..Outcome::default()
    };
    outcome.first_ns = arrivals.iter().map(|a| a.at_ns).min().unwrap_or(0);
    outcome.last_ns = arrivals.iter().map(|a| a.at_ns).max().unwrap_or(0);
    let mut highest = 0;
    for Arrival { number, sent_ns, at_ns } in arrivals {
        let Some(copies) = outcome.copies.get_mut(number) else {
            outcome.wrong += 1;
            continue;
        };
        *copies += 1;
        if *copies > 1 {
            continue;
        }
        if number < highest {
            outcome.reordered += 1;
        }
        highest = highest.max(number);
        outcome.order.push(number);
        outcome.delays[number] = Some(at_ns.saturating_sub(sent_ns) as f64 / 1e6);
    }
    outcome
}

/// What became of packets that were sent as fast as the kernel took them.
#[derive(Clone, Copy, Debug)]
pub struct Flooded {
    /// Packets that the kernel took.
    pub sent: usize,
    /// Packets that arrived.
    pub received: usize,
    /// Bytes of payload of each.
    pub bytes: usize,
}

/// Sends from a socket with a buffer of the usual size for some time, as fast as it goes.
pub fn flood(from: &Ns, to: &Ns, ip: IpAddr, time: Duration) -> Result<Flooded> {
    const BYTES: usize = 1000;
    let at = SocketAddr::new(ip, PORT);
    let receiver = Receiver::start(to, at)?;
    let sent = from.run(|| {
        let any: IpAddr = match ip {
            IpAddr::V4(_) => std::net::Ipv4Addr::UNSPECIFIED.into(),
            IpAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
        };
        let socket = UdpSocket::bind((any, 0)).context("bind a sender")?;
        socket.connect(at).with_context(|| format!("connect to {at}"))?;
        let mut buffer = vec![FILL; BYTES];
        let end = now_ns() + ns(time);
        let mut sent = 0;
        while now_ns() < end {
            write(&mut buffer, sent);
            socket.send(&buffer).context("send")?;
            sent += 1;
        }
        Ok(sent)
    })?;
    // What the socket's buffer still holds.
    std::thread::sleep(Duration::from_secs(1));
    let (arrivals, _) = receiver.finish()?;
    Ok(Flooded { sent, received: arrivals.len(), bytes: BYTES })
}

/// A probe that goes on until it is told to stop: what an unselected neighbour sees.
pub struct Stream {
    stop: Arc<AtomicBool>,
    sender: JoinHandle<Result<(usize, BTreeMap<i32, usize>)>>,
    receiver: Receiver,
}

impl Stream {
    /// Starts it.
    pub fn start(from: &Ns, to: &Ns, ip: IpAddr, port: u16, every: Duration) -> Result<Self> {
        let at = SocketAddr::new(ip, port);
        let receiver = Receiver::start(to, at)?;
        let stop = Arc::new(AtomicBool::new(false));
        let theirs = Arc::clone(&stop);
        let sender = from.spawn(move || {
            let socket = sender(at)?;
            let mut buffer = vec![FILL; 64];
            let (mut number, mut sent, mut errors) = (0, 0, BTreeMap::new());
            let start = now_ns();
            while !theirs.load(Ordering::Relaxed) {
                write(&mut buffer, number);
                match socket.send(&buffer) {
                    Ok(_) => sent += 1,
                    Err(error) => *errors.entry(errno(&error)).or_insert(0) += 1,
                }
                number += 1;
                sleep_until(start + number as u64 * ns(every));
            }
            Ok((sent, errors))
        })?;
        Ok(Self { stop, sender, receiver })
    }

    /// Ends it and waits `patience` for what is late.
    pub fn finish(self, patience: Duration) -> Result<Outcome> {
        self.stop.store(true, Ordering::Relaxed);
        let sent = self.sender.join().map_err(|_| anyhow!("the sender panicked"))?;
        std::thread::sleep(patience);
        let received = self.receiver.finish()?;
        let (sent, errors) = sent?;
        let count = sent + errors.values().sum::<usize>();
        Ok(outcome(count, (sent, errors), received))
    }
}

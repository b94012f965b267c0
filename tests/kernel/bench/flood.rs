//! As many packets as go through: small ones by number, large ones by bits.

use std::net::UdpSocket;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use kfault_tests::clock::{now_ns, ns, sleep_until};
use kfault_tests::net::Net;

const PORT: u16 = 7790;
const PAYLOAD: usize = 64;
/// The start of a flood is not its speed.
const SKIP: Duration = Duration::from_millis(300);

/// Packets per second that arrive at the server while the client sends as fast as it can.
pub fn packets_per_second(net: &Net, time: Duration) -> Result<f64> {
    let at = (net.server.v4, PORT);
    let receiver = net.server.ns.run(|| {
        let socket = UdpSocket::bind(at).context("bind the receiver of a flood")?;
        socket.set_read_timeout(Some(Duration::from_millis(20))).context("set a timeout")?;
        Ok(socket)
    })?;
    let stop = AtomicBool::new(false);
    let stop = &stop;
    std::thread::scope(|scope| {
        let counting = scope.spawn(move || {
            let mut buffer = [0; 2048];
            let begin = now_ns() + ns(SKIP);
            let (mut count, mut first, mut last) = (0u64, 0, 0);
            while !stop.load(Ordering::Relaxed) {
                if receiver.recv(&mut buffer).is_err() {
                    continue;
                }
                let now = now_ns();
                if now < begin {
                    continue;
                }
                if count == 0 {
                    first = now;
                }
                count += 1;
                last = now;
            }
            (count, last - first)
        });
        let sent = net.client.ns.run(|| {
            let socket = UdpSocket::bind(("0.0.0.0", 0)).context("bind the sender of a flood")?;
            socket.connect(at).context("connect the sender of a flood")?;
            let end = now_ns() + ns(SKIP) + ns(time);
            while now_ns() < end {
                for _ in 0..32 {
                    // A queue that is full is what a flood is for.
                    let _ = socket.send(&[0x5a; PAYLOAD]);
                }
            }
            Ok(())
        });
        stop.store(true, Ordering::Relaxed);
        let (count, span) = counting.join().map_err(|_| anyhow!("the receiver panicked"))?;
        sent?;
        ensure!(count > 100 && span > 0, "{count} packets of a flood arrived");
        Ok((count - 1) as f64 * 1e9 / span as f64)
    })
}

const BULK_PORT: u16 = 7792;
/// Payload of a packet of [`mbit_per_second`].
const SEGMENT: usize = 1400;
/// With UDP, IPv4 and Ethernet headers.
const SEGMENT_WIRE: f64 = (SEGMENT + 42) as f64;
/// Packets that are handed over together where a rate asks for many.
const TOGETHER: usize = 10;

/// Mbit/s on the wire that arrive at the server while the client offers this many.
pub fn mbit_per_second(net: &Net, offered: f64, time: Duration) -> Result<f64> {
    let at = (net.server.v4, BULK_PORT);
    let receiver = net.server.ns.run(|| {
        let socket = UdpSocket::bind(at).context("bind the receiver of a flood")?;
        option(&socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, 64 << 20)?;
        option(&socket, libc::SOL_UDP, libc::UDP_GRO, 1)?;
        socket.set_read_timeout(Some(Duration::from_millis(20))).context("set a timeout")?;
        Ok(socket)
    })?;
    let stop = AtomicBool::new(false);
    let stop = &stop;
    std::thread::scope(|scope| {
        let counting = scope.spawn(move || {
            let mut buffer = vec![0; 1 << 16];
            let (mut begin, mut bytes, mut first, mut last) = (0, 0usize, 0, 0);
            while !stop.load(Ordering::Relaxed) {
                let Ok(length) = receiver.recv(&mut buffer) else { continue };
                let now = now_ns();
                if begin == 0 {
                    // What a bucket lets pass at once is not its rate.
                    begin = now + ns(2 * SKIP);
                }
                if now < begin {
                    continue;
                }
                if first == 0 {
                    first = now;
                    continue;
                }
                bytes += length;
                last = now;
            }
            (bytes, last.max(first) - first)
        });
        let sent = net.client.ns.run(|| {
            let socket = UdpSocket::bind(("0.0.0.0", 0)).context("bind the sender of a flood")?;
            option(&socket, libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, 64 << 20)?;
            option(&socket, libc::SOL_UDP, libc::UDP_SEGMENT, SEGMENT as i32)?;
            socket.connect(at).context("connect the sender of a flood")?;
            let together = if offered >= 100.0 { TOGETHER } else { 1 };
            let data = vec![0x5a; SEGMENT * together];
            let every = SEGMENT_WIRE * together as f64 * 8e3 / offered;
            let start = now_ns();
            let end = start + ns(2 * SKIP) + ns(time);
            let mut number = 0u64;
            while now_ns() < end {
                sleep_until(start + (number as f64 * every) as u64);
                // A queue that is full is what a flood is for.
                let _ = socket.send(&data);
                number += 1;
            }
            Ok(())
        });
        stop.store(true, Ordering::Relaxed);
        let (bytes, span) = counting.join().map_err(|_| anyhow!("the receiver panicked"))?;
        sent?;
        ensure!(ns(time) < 3 * span, "a flood of {offered} Mbit/s lasted {} ms", span / 1_000_000);
        Ok(bytes as f64 / SEGMENT as f64 * SEGMENT_WIRE * 8e3 / span as f64)
    })
}

fn option(socket: &UdpSocket, level: i32, name: i32, value: i32) -> Result<()> {
    // SAFETY: a valid descriptor and an integer of the stated size.
    let done = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            size_of::<i32>() as libc::socklen_t,
        )
    };
    ensure!(done == 0, "socket option {name}: {}", std::io::Error::last_os_error());
    Ok(())
}

//! As many small packets as go through.

use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use kfault_tests::clock::{now_ns, ns};
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

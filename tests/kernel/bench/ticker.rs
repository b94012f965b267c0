//! A steady stream of numbered packets that tells when a fault began to act.

use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use kfault_tests::clock::{now_ns, ns, sleep_until};
use kfault_tests::net::Net;

const PORT: u16 = 7791;
const EVERY: Duration = Duration::from_micros(200);

/// A stream from client to server that goes on until it is read.
pub struct Ticker {
    stop: Arc<AtomicBool>,
    sender: JoinHandle<Result<Vec<u64>>>,
    receiver: JoinHandle<Vec<(usize, u64)>>,
}

impl Ticker {
    /// Starts it.
    pub fn start(net: &Net) -> Result<Self> {
        let at = (net.server.v4, PORT);
        let receiving = net.server.ns.run(|| {
            let socket = UdpSocket::bind(at).context("bind the receiver of a ticker")?;
            socket.set_read_timeout(Some(Duration::from_millis(20))).context("set a timeout")?;
            Ok(socket)
        })?;
        let stop = Arc::new(AtomicBool::new(false));
        let theirs = Arc::clone(&stop);
        let receiver = std::thread::spawn(move || {
            let mut buffer = [0; 64];
            let mut arrivals = Vec::new();
            while !theirs.load(Ordering::Relaxed) {
                if receiving.recv(&mut buffer).is_ok_and(|length| length >= 8) {
                    let number = u64::from_le_bytes(buffer[..8].try_into().unwrap_or_default());
                    arrivals.push((number as usize, now_ns()));
                }
            }
            arrivals
        });
        let theirs = Arc::clone(&stop);
        let sender = net.client.ns.spawn(move || {
            let socket = UdpSocket::bind(("0.0.0.0", 0)).context("bind a ticker")?;
            socket.connect(at).context("connect a ticker")?;
            let start = now_ns();
            let mut sent = Vec::new();
            while !theirs.load(Ordering::Relaxed) {
                sleep_until(start + sent.len() as u64 * ns(EVERY));
                let number = sent.len() as u64;
                sent.push(now_ns());
                // A packet that is refused has been affected.
                let _ = socket.send(&number.to_le_bytes());
            }
            Ok(sent)
        })?;
        Ok(Self { stop, sender, receiver })
    }

    /// Ends it; when the first packet after `since_ns` was sent that was lost or took `least`.
    pub fn first_affected(self, since_ns: u64, least: Duration) -> Result<Option<u64>> {
        self.stop.store(true, Ordering::Relaxed);
        let sent = self.sender.join().map_err(|_| anyhow!("the sender panicked"))??;
        let arrivals = self.receiver.join().map_err(|_| anyhow!("the receiver panicked"))?;
        let mut prompt = vec![false; sent.len()];
        for (number, at) in arrivals {
            if let (Some(prompt), Some(sent)) = (prompt.get_mut(number), sent.get(number)) {
                *prompt = at < sent + ns(least);
            }
        }
        Ok(sent.iter().zip(prompt).find(|(s, prompt)| **s > since_ns && !prompt).map(|(s, _)| *s))
    }
}

//! ICMP echo with a raw socket.

use std::net::IpAddr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

use anyhow::ensure;

use super::{errno, set};
use crate::clock::{now_ns, ns, sleep_until};
use crate::ns::Ns;

/// What became of some echo requests.
#[derive(Clone, Debug, Default)]
pub struct Pings {
    /// Requests that the kernel took.
    pub sent: usize,
    /// Errors of `send`, by errno.
    pub errors: Vec<i32>,
    /// Errors that came back for requests, by errno.
    pub told: Vec<i32>,
    /// Round-trip times of the answers, milliseconds.
    pub times: Vec<f64>,
}

impl Pings {
    /// Requests without an answer.
    #[must_use]
    pub fn lost(&self) -> usize {
        self.sent.saturating_sub(self.times.len())
    }
}

/// Sends `count` echo requests and waits `patience` for the last answer.
pub fn ping(
    from: &Ns,
    to: IpAddr,
    count: u16,
    every: Duration,
    patience: Duration,
) -> anyhow::Result<Pings> {
    from.run(|| inside(to, count, every, patience))
}

/// As [`ping`], where the caller is.
pub fn inside(
    to: IpAddr,
    count: u16,
    every: Duration,
    patience: Duration,
) -> anyhow::Result<Pings> {
    let (family, protocol, request, answer) = match to {
        IpAddr::V4(_) => (libc::AF_INET, libc::IPPROTO_ICMP, 8u8, 0u8),
        IpAddr::V6(_) => (libc::AF_INET6, libc::IPPROTO_ICMPV6, 128, 129),
    };
    // SAFETY: plain call.
    let fd = unsafe { libc::socket(family, libc::SOCK_RAW | libc::SOCK_CLOEXEC, protocol) };
    ensure!(fd >= 0, "raw socket: {}", std::io::Error::last_os_error());
    // SAFETY: the kernel has just returned it to us alone.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    set(&socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, 8 << 20);
    connect(&socket, to)?;
    let id = (std::process::id() as u16).to_be_bytes();
    let mut pings = Pings::default();
    let mut sent_at = vec![0u64; usize::from(count)];
    let mut seen = vec![false; usize::from(count)];
    let start = now_ns();
    let mut take = |pings: &mut Pings, sent_at: &[u64], until: u64| {
        while let Some(received) = receive(&socket, until) {
            let packet = match received {
                Ok(packet) => packet,
                Err(errno) => {
                    pings.told.push(errno);
                    continue;
                }
            };
            // IPv4 raw sockets deliver the IP header too.
            let header = if family == libc::AF_INET { usize::from(packet[0] & 15) * 4 } else { 0 };
            let Some(icmp) = packet.get(header..header + 8) else { continue };
            let number = usize::from(u16::from_be_bytes([icmp[6], icmp[7]]));
            if icmp[0] != answer || icmp[4..6] != id || number >= seen.len() || seen[number] {
                continue;
            }
            seen[number] = true;
            pings.times.push((now_ns() - sent_at[number]) as f64 / 1e6);
        }
    };
    for number in 0..count {
        let mut packet = [0u8; 64];
        packet[0] = request;
        packet[4..6].copy_from_slice(&id);
        packet[6..8].copy_from_slice(&number.to_be_bytes());
        let sum = checksum(&packet);
        // The kernel fills in ICMPv6's.
        packet[2..4].copy_from_slice(&sum.to_be_bytes());
        sent_at[usize::from(number)] = now_ns();
        // SAFETY: a valid buffer of the stated size.
        let done =
            unsafe { libc::send(socket.as_raw_fd(), packet.as_ptr().cast(), packet.len(), 0) };
        if done < 0 {
            pings.errors.push(errno(&std::io::Error::last_os_error()));
        } else {
            pings.sent += 1;
        }
        let next = start + u64::from(number + 1) * ns(every);
        take(&mut pings, &sent_at, next);
        sleep_until(next);
    }
    take(&mut pings, &sent_at, now_ns() + ns(patience));
    Ok(pings)
}

fn connect(socket: &OwnedFd, to: IpAddr) -> anyhow::Result<()> {
    // SAFETY: zeroes are valid addresses; sizes are those of the types.
    let done = unsafe {
        match to {
            IpAddr::V4(ip) => {
                let mut address: libc::sockaddr_in = std::mem::zeroed();
                address.sin_family = libc::AF_INET as libc::sa_family_t;
                address.sin_addr.s_addr = u32::from_ne_bytes(ip.octets());
                libc::connect(
                    socket.as_raw_fd(),
                    (&raw const address).cast(),
                    size_of_val(&address) as libc::socklen_t,
                )
            }
            IpAddr::V6(ip) => {
                let mut address: libc::sockaddr_in6 = std::mem::zeroed();
                address.sin6_family = libc::AF_INET6 as libc::sa_family_t;
                address.sin6_addr.s6_addr = ip.octets();
                libc::connect(
                    socket.as_raw_fd(),
                    (&raw const address).cast(),
                    size_of_val(&address) as libc::socklen_t,
                )
            }
        }
    };
    ensure!(done == 0, "connect a raw socket to {to}: {}", std::io::Error::last_os_error());
    Ok(())
}

/// The next packet or error, or nothing until the time is over.
fn receive(socket: &OwnedFd, until: u64) -> Option<Result<Vec<u8>, i32>> {
    loop {
        let left = until.checked_sub(now_ns())?;
        let mut wait = libc::pollfd { fd: socket.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        let time = libc::timespec {
            tv_sec: (left / 1_000_000_000).cast_signed(),
            tv_nsec: (left % 1_000_000_000).cast_signed(),
        };
        let mut buffer = vec![0u8; 2048];
        // SAFETY: valid pointers; one descriptor; a buffer of the stated size.
        let length = unsafe {
            if libc::ppoll(&raw mut wait, 1, &raw const time, std::ptr::null()) <= 0 {
                return None;
            }
            libc::recv(
                socket.as_raw_fd(),
                buffer.as_mut_ptr().cast(),
                buffer.len(),
                libc::MSG_DONTWAIT,
            )
        };
        if length > 0 {
            buffer.truncate(length.cast_unsigned());
            return Some(Ok(buffer));
        }
        match errno(&std::io::Error::last_os_error()) {
            libc::EAGAIN | libc::EINTR => {}
            told => return Some(Err(told)),
        }
    }
}

fn checksum(packet: &[u8]) -> u16 {
    let sum: u32 = packet.chunks(2).map(|w| u32::from(u16::from_be_bytes([w[0], w[1]]))).sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    !((sum + (sum >> 16)) as u16)
}
